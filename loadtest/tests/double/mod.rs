//! A gateway's double: enough of `danmaku.v1` for one room, on plain threads, that does one thing wrong on purpose. It
//! shares no code with the gateway or the swarm but tungstenite's handshake.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, accept_hdr};

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
    /// A viewer's connection ends with a close frame in one segment with a line.
    Corks,
    /// A viewer is put out of the room without having asked.
    Kicks,
    /// A viewer is let in a second time without having asked.
    JoinsTwice,
    /// The numbering begins anew, and says so: that is no fault.
    NumbersAnew,
    /// A viewer is cut and resumes as it should: the cut is the only fault.
    Cuts,
    /// A viewer is cut, and what it missed is forgotten.
    Forgets,
    /// A viewer is cut, and gets less than it missed.
    Withholds,
    /// A viewer is cut, and comes back into another numbering that claims to be its own.
    Claims,
    /// A push of this number is never answered.
    NeverAnswers(u64),
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
    /// A viewer gets the line of this number two seconds after the others: that is no fault.
    Lags(u64),
    /// The line of this number is not acked.
    NeverAcks(u64),
    /// The line after this number gets the same number.
    CountsWrong(u64),
}

/// How often a fault happens: once in so many deliveries, about one in 10,000, and never in the last line of 200.
pub const PERIOD: u64 = 9_871;

/// How late the line is that lags: longer than an end without news, shorter than anybody is waited for.
const LAG: Duration = Duration::from_secs(2);
/// After which line something happens to one viewer.
const HALF_TIME: u64 = 100;

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
    epoch: u64,
    seq: u64,
    history: Vec<(u64, String)>,
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

/// A running double.
pub struct Double {
    /// Where viewers connect.
    pub public: SocketAddr,
    /// Where pushes go.
    pub internal: SocketAddr,
}

/// Starts a double; it runs until the test program ends.
pub fn start(tongue: Tongue, fault: Fault) -> Double {
    let room = Arc::new(Mutex::new(Room {
        fault,
        tongue,
        epoch: 7,
        seq: 0,
        history: Vec::new(),
        deliveries: 0,
        members: Vec::new(),
        before: String::new(),
    }));
    Double {
        public: listen(&room, serve),
        internal: listen(&room, serve_http),
    }
}

/// A listener that gives each connection a thread.
fn listen(room: &Arc<Mutex<Room>>, serve: fn(TcpStream, &Mutex<Room>)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let room = Arc::clone(room);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let room = Arc::clone(&room);
            thread::spawn(move || serve(stream, &room));
        }
    });
    address
}

/// One request, answered with `Connection: close`.
fn serve_http(mut stream: TcpStream, room: &Mutex<Room>) {
    let mut heard = Vec::new();
    let mut piece = [0; 4096];
    let body = loop {
        let Ok(read @ 1..) = stream.read(&mut piece) else {
            return;
        };
        heard.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&heard);
        if text.starts_with("GET ") && text.contains("\r\n\r\n") {
            // Others are connected, too: its counts are not the swarm's.
            break "danmaku_connections 5\n".to_owned();
        }
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(pushed) = serde_json::from_str::<Value>(body)
        {
            let mut room = room.lock().unwrap();
            room.number();
            room.publish(pushed["text"].as_str().unwrap());
            if room.fault == Fault::NeverAnswers(room.seq) {
                drop(room);
                thread::park();
                return;
            }
            break format!(
                r#"{{"room":"swarm-0","seq":{},"epoch":{}}}"#,
                room.seq, room.epoch
            );
        }
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    write(&stream, (head + &body).as_bytes());
}

/// One connection, until it ends.
fn serve(stream: TcpStream, room: &Mutex<Room>) {
    stream.set_nodelay(true).unwrap();
    let writer = stream.try_clone().unwrap();
    let mut enters = false;
    #[allow(clippy::result_large_err)]
    let look = |request: &Request, response: Response| {
        let query = request.uri().query().unwrap_or("");
        enters = query.contains("room=");
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr(stream, look) else {
        return; // Someone only looked whether anything listens here.
    };
    room.lock().unwrap().welcome(&writer, enters);
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message {
            let message: Value = serde_json::from_str(&text).unwrap();
            room.lock().unwrap().hear(&message, &writer);
        }
    }
}

impl Room {
    fn welcome(&mut self, stream: &TcpStream, enters: bool) {
        let fourth = self.members.len() == 3;
        let shut_out = fourth && self.fault == Fault::ShutsOut;
        if self.tongue == Tongue::Danmaku {
            let mut first = text(r#"{"type":"welcome","connection":"c","user":null}"#);
            if !enters {
                return write(stream, &first); // It will say what it saw last.
            }
            if !shut_out {
                first.extend_from_slice(&self.joined(""));
            }
            write(stream, &first);
        }
        self.enter(stream, shut_out);
        if fourth && self.fault == Fault::HangsUp {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn enter(&mut self, stream: &TcpStream, shut_out: bool) {
        self.members.push(Member {
            stream: stream.try_clone().unwrap(),
            shut_out,
            held: None,
            exchange: None,
        });
    }

    fn joined(&self, more: &str) -> Vec<u8> {
        let (epoch, seq) = (self.epoch, self.seq);
        text(&format!(
            r#"{{"type":"joined","room":"swarm-0","online":1,"epoch":{epoch},"seq":{seq}{more}}}"#
        ))
    }

    /// Who comes back gets what it missed, as far as the double is honest.
    fn resume(&mut self, last: u64, stream: &TcpStream) {
        let missed = self.history.iter().filter(|(seq, _)| *seq > last);
        let mut lines: Vec<String> = missed
            .map(|(seq, said)| message("swarm-0", *seq, said))
            .collect();
        if self.fault == Fault::Withholds {
            lines.remove(0);
        }
        if self.fault == Fault::Claims {
            self.epoch += 1;
        }
        let more = format!(r#","recovered":true,"messages":[{}]"#, lines.join(","));
        write(
            stream,
            &match self.fault {
                Fault::Forgets => self.joined(r#","recovered":false"#),
                _ => self.joined(&more),
            },
        );
        self.enter(stream, false);
    }

    /// What happens to the fourth viewer, once, in the middle of the evening.
    fn at_half_time(&mut self) {
        let fourth = &mut self.members[3];
        match self.fault {
            Fault::Corks => {
                let line = numbered("swarm-0", self.seq, self.before.as_str());
                write(&fourth.stream, &[line, close(1001)].concat());
                let _ = fourth.stream.shutdown(Shutdown::Both);
                fourth.shut_out = true;
            }
            Fault::Kicks => {
                fourth.shut_out = true;
                fourth.write(&text(r#"{"type":"left","room":"swarm-0","code":"kicked"}"#));
            }
            Fault::JoinsTwice => {
                let again = self.joined("");
                self.members[3].write(&again);
            }
            Fault::NumbersAnew => {
                (self.epoch, self.seq) = (8, 0);
                let anew = text(r#"{"type":"epoch","room":"swarm-0","epoch":8,"seq":0}"#);
                self.members
                    .iter_mut()
                    .for_each(|member| member.write(&anew));
            }
            Fault::Cuts | Fault::Forgets | Fault::Withholds | Fault::Claims => {
                fourth.shut_out = true;
                fourth.write(&close(4400));
                let _ = fourth.stream.shutdown(Shutdown::Both);
            }
            _ => {}
        }
    }

    fn hear(&mut self, message: &Value, from: &TcpStream) {
        match (self.tongue, message["type"].as_str()) {
            (Tongue::Danmaku, Some("ping")) => write(from, &text(r#"{"type":"pong","ts":1}"#)),
            (Tongue::Danmaku, Some("join")) => {
                self.resume(message["seq"].as_u64().unwrap(), from);
            }
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
                if self.seq == HALF_TIME && self.epoch == 7 {
                    self.at_half_time();
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
        self.history.push((seq, said.to_owned()));
        let wrong = self.line("swarm-0", &before);
        let stray = self.line("swarm-1", said);
        if self.fault == Fault::Swallows(self.seq) {
            return;
        }
        for at in 0..self.members.len() {
            self.deliveries += 1;
            let due = self.deliveries.is_multiple_of(PERIOD);
            let one = at == 3 && self.fault == Fault::DropsOne(self.seq);
            let late = at == 3 && self.fault == Fault::Lags(self.seq);
            let fault = if due { self.fault } else { Fault::None };
            let member = &mut self.members[at];
            match fault {
                _ if one || member.shut_out => {}
                _ if late => {
                    let (stream, line) = (member.stream.try_clone().unwrap(), line.clone());
                    thread::spawn(move || {
                        thread::sleep(LAG);
                        write(&stream, &line);
                    });
                }
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
fn message(room: &str, seq: u64, said: &str) -> String {
    format!(
        r#"{{"type":"danmaku","room":"{room}","seq":{seq},"ts":1,"user":null,"text":"{said}"}}"#
    )
}

fn numbered(room: &str, seq: u64, said: &str) -> Vec<u8> {
    text(&message(room, seq, said))
}

/// A close frame with its code (RFC 6455 section 5.5.1).
fn close(code: u16) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    vec![0x88, 2, high, low]
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
