//! A gateway's double: enough of `danmaku.v1` for one room, on plain threads, that does one thing wrong on purpose. It
//! shares no code with the gateway or the swarm but tungstenite's handshake.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tungstenite::{Message, accept};

/// What it does wrong, once in every [`PERIOD`] deliveries unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// A viewer does not get a line.
    Drops,
    /// The same, and the viewer is told: that is no fault.
    DropsAndTells,
    /// A viewer gets a line twice.
    Doubles,
    /// A viewer gets two lines in the wrong order.
    Swaps,
    /// A viewer gets the text of the line before under the next number.
    Replaces,
    /// A viewer gets the texts of two lines exchanged, under numbers in order.
    Exchanges,
    /// One viewer is never let into the room, and gets nothing.
    ShutsOut,
    /// Nothing is accepted.
    Refuses,
    /// The connection ends in one segment with the first lines of it.
    HangsUp,
    /// A viewer is told of a drop that never was.
    TellsWithoutDropping,
    /// A viewer gets a line of another room.
    Strays,
    /// A viewer gets a masked frame.
    Masks,
    /// A viewer gets a frame that is not UTF-8.
    Garbles,
    /// The line of this number reaches nobody, acked all the same.
    Swallows(u64),
    /// A viewer does not get the line of this number.
    DropsOne(u64),
    /// The line of this number is not acked.
    NeverAcks(u64),
    /// The line after this number gets the same number.
    CountsWrong(u64),
}

/// How often a fault happens: once in so many deliveries, about one in 10,000, and never in the last line of 200.
pub const PERIOD: u64 = 9_871;

/// How it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tongue {
    /// The gateway's.
    Danmaku,
    /// A plain hub's: `{"pub":"..","data":".."}` comes back to all as `{"event":{"body":".."}}`.
    Hub,
}

struct Room {
    fault: Fault,
    tongue: Tongue,
    seq: u64,
    deliveries: u64,
    members: Vec<Member>,
    before: String,
}

struct Member {
    stream: TcpStream,
    /// Whether it gets nothing.
    shut_out: bool,
    /// A line held back, to come after the next one.
    held: Option<Vec<u8>>,
    /// The number and text of a line whose text is to be exchanged with the next one's.
    exchange: Option<(u64, String)>,
}

/// Starts a double; it runs until the test program ends.
pub fn start(tongue: Tongue, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let room = Arc::new(Mutex::new(Room {
        fault,
        tongue,
        seq: 0,
        deliveries: 0,
        members: Vec::new(),
        before: String::new(),
    }));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let room = Arc::clone(&room);
            thread::spawn(move || serve(stream, &room));
        }
    });
    address
}

/// One connection, until it ends.
fn serve(stream: TcpStream, room: &Mutex<Room>) {
    stream.set_nodelay(true).unwrap();
    let writer = stream.try_clone().unwrap();
    let Ok(mut socket) = accept(stream) else {
        return; // Someone only looked whether anything listens here.
    };
    room.lock().unwrap().enter(&writer);
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message {
            let message: Value = serde_json::from_str(&text).unwrap();
            room.lock().unwrap().hear(&message, &writer);
        }
    }
}

impl Room {
    fn enter(&mut self, stream: &TcpStream) {
        let fourth = self.members.len() == 3;
        let shut_out = fourth && self.fault == Fault::ShutsOut;
        if self.tongue == Tongue::Danmaku {
            let mut first = text(r#"{"type":"welcome","connection":"c","user":null}"#);
            if !shut_out {
                first.extend_from_slice(&text(&format!(
                    r#"{{"type":"joined","room":"swarm-0","online":1,"epoch":7,"seq":{}}}"#,
                    self.seq
                )));
            }
            write(stream, &first);
        }
        if fourth && self.fault == Fault::HangsUp {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.members.push(Member {
            stream: stream.try_clone().unwrap(),
            shut_out,
            held: None,
            exchange: None,
        });
    }

    fn hear(&mut self, message: &Value, from: &TcpStream) {
        match (self.tongue, message["type"].as_str()) {
            (Tongue::Danmaku, Some("ping")) => write(from, &text(r#"{"type":"pong","ts":1}"#)),
            (Tongue::Danmaku, Some("danmaku")) if self.fault == Fault::Refuses => {
                let id = &message["id"];
                let refusal =
                    format!(r#"{{"type":"error","id":{id},"code":"busy","message":"no"}}"#);
                write(from, &text(&refusal));
            }
            (Tongue::Danmaku, Some("danmaku")) => {
                self.number();
                let said = message["text"].as_str().unwrap().to_owned();
                self.publish(&said);
                if self.fault != Fault::NeverAcks(self.seq) {
                    let id = &message["id"];
                    let ack = format!(
                        r#"{{"type":"ack","id":{id},"room":"swarm-0","seq":{}}}"#,
                        self.seq
                    );
                    write(from, &text(&ack));
                }
            }
            (Tongue::Hub, _) if message["pub"].is_string() => {
                self.number();
                let said = message["data"].as_str().unwrap().to_owned();
                self.publish(&said);
            }
            _ => {}
        }
    }

    fn number(&mut self) {
        if self.fault == Fault::CountsWrong(self.seq) {
            self.fault = Fault::None;
        } else {
            self.seq += 1;
        }
    }

    fn publish(&mut self, said: &str) {
        let seq = self.seq;
        let line = self.line("swarm-0", said);
        let before = std::mem::replace(&mut self.before, said.to_owned());
        let wrong = self.line("swarm-0", &before);
        let stray = self.line("swarm-1", said);
        if self.fault == Fault::Swallows(self.seq) {
            return;
        }
        for at in 0..self.members.len() {
            self.deliveries += 1;
            let due = self.deliveries.is_multiple_of(PERIOD);
            let one = at == 3 && self.fault == Fault::DropsOne(self.seq);
            let fault = if due { self.fault } else { Fault::None };
            let member = &mut self.members[at];
            match fault {
                _ if one || member.shut_out => {}
                Fault::Exchanges => member.exchange = Some((seq, said.to_owned())),
                Fault::Drops => {}
                Fault::DropsAndTells => {
                    member.write(&text(r#"{"type":"dropped","room":"swarm-0","count":1}"#))
                }
                Fault::Doubles => {
                    member.write(&line);
                    member.write(&line);
                }
                Fault::Swaps => member.held = Some(line.clone()),
                Fault::Replaces => member.write(&wrong),
                Fault::Strays => member.write(&stray),
                Fault::TellsWithoutDropping => {
                    member.write(&line);
                    member.write(&text(r#"{"type":"dropped","room":"swarm-0","count":1}"#));
                }
                Fault::Masks => member.write(b"\x81\x82\0\0\0\0{}"),
                Fault::Garbles => member.write(b"\x81\x02\xff\xfe"),
                _ if member.exchange.is_some() => {
                    if let Some((before, text)) = member.exchange.take() {
                        member.write(&numbered("swarm-0", before, said));
                        member.write(&numbered("swarm-0", seq, &text));
                    }
                }
                _ => {
                    member.write(&line);
                    if let Some(held) = member.held.take() {
                        member.write(&held);
                    }
                }
            }
        }
    }

    fn line(&self, room: &str, said: &str) -> Vec<u8> {
        match self.tongue {
            Tongue::Danmaku => numbered(room, self.seq, said),
            Tongue::Hub => text(&format!(r#"{{"event":{{"body":"{said}"}}}}"#)),
        }
    }
}

/// A line of the gateway's protocol.
fn numbered(room: &str, seq: u64, said: &str) -> Vec<u8> {
    text(&format!(
        r#"{{"type":"danmaku","room":"{room}","seq":{seq},"ts":1,"user":null,"text":"{said}"}}"#
    ))
}

impl Member {
    fn write(&mut self, bytes: &[u8]) {
        write(&self.stream, bytes);
    }
}

/// A client that went is no concern of the double's.
fn write(mut stream: &TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// A text frame as a server sends it (RFC 6455 section 5.2).
fn text(payload: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        short @ 0..=125 => frame.push(short as u8),
        long => {
            frame.push(126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload.as_bytes());
    frame
}
