//! The limit: a WebSocket server that does what a fan-out cannot do without, and nothing else. What it costs is what the
//! kernel costs; what the gateway costs above it is the gateway's own.
//!
//! One thread, one poller. No numbering, no acks, no JSON, no history, no limits, no metrics. A client that sends the text
//! `join NAME` is a member of that room from then on; every other text frame goes, as it came, to every member of the
//! sender's room, the sender included. Rooms, cursors and the walk have the gateway's shape, so that both make the same calls:
//!
//! - `walk`: a member that is visited gets everything it lacks in one `send`;
//! - `send`: it gets one line in one `send`, and is visited again for the next one.
//!
//! It prints `{"public":"127.0.0.1:PORT","pid":N}` when it listens, and runs until it is killed. By hand:
//!
//! ```text
//! cargo run --release --example bare -- walk
//! danmaku-swarm room --url ws://127.0.0.1:PORT/ --pid N --join 'join {room}' --publish '{text}'
//! ```
//!
//! A viewer that lags by more than [`LOG_BYTES_MAX`] is closed, so that memory has a bound.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Cursor, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slab::Slab;
use socket2::{Domain, Socket, Type};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

/// Members visited before the poller is asked again, as in the gateway.
const VISITS_PER_TURN: usize = 512;
/// Events taken from the poller at once, as in the gateway.
const EVENTS: usize = 1024;
/// Bytes read at once.
const SCRATCH_BYTES: usize = 64 << 10;
/// Lines kept for a room's slowest member.
const LOG_BYTES_MAX: usize = 64 << 20;
/// Growth of a log after which what all members have is let go of.
const TRIM_BYTES: usize = 1 << 20;
/// Connections the kernel holds before they are accepted, as in the gateway.
const BACKLOG: i32 = 4096;
const LISTENER: Token = Token(usize::MAX);

/// How much one `send` carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Walk,
    Send,
}

struct Conn {
    stream: TcpStream,
    /// The upgrade is done.
    open: bool,
    /// The socket is full; it may stand inside a frame.
    blocked: bool,
    /// Bytes of a head or frame that is not whole yet.
    tail: Vec<u8>,
    /// Its room, and its position among the members.
    seat: Option<(usize, usize)>,
}

/// A member: what it has is everything before its cursor.
struct Member {
    cursor: u64,
    slot: usize,
}

#[derive(Default)]
struct Room {
    /// Frames back to back; the first byte has the offset `base`.
    log: Vec<u8>,
    base: u64,
    /// Where each frame ends.
    ends: VecDeque<u64>,
    trimmed_at: u64,
    members: Vec<Member>,
    walk_at: usize,
    /// Members still to be visited in this round.
    remaining: usize,
    queued: bool,
}

struct Bare {
    mode: Mode,
    poll: Poll,
    listener: TcpListener,
    conns: Slab<Conn>,
    rooms: Vec<Room>,
    names: HashMap<Vec<u8>, usize>,
    /// Rooms with members to visit.
    walking: VecDeque<usize>,
}

fn main() -> ExitCode {
    let mode = match std::env::args().nth(1).as_deref() {
        Some("walk") => Mode::Walk,
        Some("send") => Mode::Send,
        _ => {
            eprintln!("usage: bare walk|send");
            return ExitCode::from(2);
        }
    };
    match Bare::start(mode).and_then(|mut bare| bare.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Bare {
    fn start(mode: Mode) -> io::Result<Bare> {
        let hard = getrlimit(Resource::Nofile).maximum;
        let raised = Rlimit {
            current: hard,
            maximum: hard,
        };
        setrlimit(Resource::Nofile, raised)?;
        let poll = Poll::new()?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // As the gateway's: accepted connections inherit it. With Nagle's algorithm two lines close together would be one segment.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let (public, pid) = (listener.local_addr()?, std::process::id());
        println!(r#"{{"public":"{public}","pid":{pid}}}"#);
        Ok(Bare {
            mode,
            poll,
            listener,
            conns: Slab::new(),
            rooms: Vec::new(),
            names: HashMap::new(),
            walking: VecDeque::new(),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut scratch = vec![0; SCRATCH_BYTES];
        loop {
            let wait = (!self.walking.is_empty()).then_some(std::time::Duration::ZERO);
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(slot) => self.event(slot, event, &mut scratch),
                }
            }
            self.walk();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // One that went again before it was accepted is no reason to end.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let _ = stream.set_nodelay(true);
            let entry = self.conns.vacant_entry();
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(entry.key()), both)?;
            entry.insert(Conn {
                stream,
                open: false,
                blocked: false,
                tail: Vec::new(),
                seat: None,
            });
        }
    }

    fn event(&mut self, slot: usize, event: &Event, scratch: &mut [u8]) {
        // An event of a connection that ended earlier in the same batch.
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if event.is_writable() && std::mem::take(&mut conn.blocked) {
            self.catch_up(slot);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(slot, scratch);
        }
    }

    /// Edge-triggered: until there is nothing more.
    fn read(&mut self, slot: usize, scratch: &mut [u8]) {
        while let Some(conn) = self.conns.get_mut(slot) {
            match conn.stream.read(scratch) {
                Ok(0) => return self.close(slot),
                Ok(length) => self.take(slot, &mut scratch[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(slot),
            }
        }
    }

    /// Whole frames are taken where they lie; what is cut off is kept.
    fn take(&mut self, slot: usize, bytes: &mut [u8]) {
        let conn = &mut self.conns[slot];
        if conn.tail.is_empty() {
            let taken = self.take_all(slot, bytes);
            if let Some(conn) = self.conns.get_mut(slot) {
                conn.tail.extend_from_slice(&bytes[taken..]);
            }
            return;
        }
        let mut all = std::mem::take(&mut conn.tail);
        all.extend_from_slice(bytes);
        let taken = self.take_all(slot, &mut all);
        if let Some(conn) = self.conns.get_mut(slot) {
            all.drain(..taken);
            conn.tail = all;
        }
    }

    /// Returns how many bytes were whole heads and frames.
    fn take_all(&mut self, slot: usize, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        if !self.conns[slot].open {
            match self.upgrade(slot, bytes) {
                Some(head_bytes) => at = head_bytes,
                None => return 0,
            }
        }
        // Whoever speaks may itself lag so far that it is closed.
        while self.conns.contains(slot)
            && let Some((op, payload, length)) = next_frame(&mut bytes[at..])
        {
            match op {
                OpCode::Data(Data::Text) => self.heard(slot, payload),
                OpCode::Control(Control::Ping) => self.pong(slot, payload.to_vec()),
                OpCode::Control(Control::Pong) => {}
                // Goodbye, or something a swarm never sends.
                _ => {
                    self.close(slot);
                    return bytes.len();
                }
            }
            at += length;
        }
        at
    }

    /// Answers the upgrade once its head is whole; returns the head's length.
    fn upgrade(&mut self, slot: usize, bytes: &[u8]) -> Option<usize> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut headers);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return None,
            Err(_) => {
                self.close(slot);
                return None;
            }
        };
        let is_key =
            |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("sec-websocket-key");
        let Some(key) = head.headers.iter().find(is_key) else {
            self.close(slot);
            return None;
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.value)
        );
        let conn = &mut self.conns[slot];
        conn.open = true;
        // A socket that was never written to takes an answer of 130 bytes, or it is broken.
        if conn.stream.write(answer.as_bytes()).is_err() {
            self.close(slot);
            return None;
        }
        Some(length)
    }

    fn heard(&mut self, slot: usize, payload: &[u8]) {
        let seat = self.conns[slot].seat;
        if let Some(name) = payload.strip_prefix(b"join ") {
            if seat.is_none() {
                self.join(slot, name);
            }
        } else if let Some((room, _)) = seat {
            self.publish(room, payload);
        }
    }

    fn join(&mut self, slot: usize, name: &[u8]) {
        let next = self.rooms.len();
        let at = *self.names.entry(name.to_vec()).or_insert(next);
        if at == next {
            self.rooms.push(Room::default());
        }
        let room = &mut self.rooms[at];
        let cursor = room.end();
        room.members.push(Member { cursor, slot });
        self.conns[slot].seat = Some((at, room.members.len() - 1));
    }

    fn publish(&mut self, at: usize, payload: &[u8]) {
        let room = &mut self.rooms[at];
        if room.end() - room.trimmed_at > TRIM_BYTES as u64 {
            self.trim(at);
        }
        let room = &mut self.rooms[at];
        append_frame(&mut room.log, payload);
        room.ends.push_back(room.end());
        room.remaining = room.members.len();
        if !std::mem::replace(&mut room.queued, true) {
            self.walking.push_back(at);
        }
    }

    /// The sans-everything walk: so many members, wherever they are.
    fn walk(&mut self) {
        for _ in 0..VISITS_PER_TURN {
            let Some(&at) = self.walking.front() else {
                return;
            };
            let room = &mut self.rooms[at];
            match room.next_behind() {
                Some(member) => self.visit(at, member),
                None => {
                    room.queued = false;
                    self.walking.pop_front();
                    if room
                        .members
                        .iter()
                        .all(|member| member.cursor == room.end())
                    {
                        room.clear();
                    }
                }
            }
        }
    }

    fn catch_up(&mut self, slot: usize) {
        if let Some((room, member)) = self.conns[slot].seat {
            self.visit(room, member);
        }
    }

    /// One `send`. Who has not got everything by it is visited again in the next round.
    fn visit(&mut self, at: usize, member: usize) {
        let room = &mut self.rooms[at];
        let (slot, cursor) = (room.members[member].slot, room.members[member].cursor);
        let conn = &mut self.conns[slot];
        let due = room.due(cursor, self.mode);
        if due.is_empty() || conn.blocked {
            return;
        }
        match conn.stream.write(due) {
            Ok(sent) => {
                conn.blocked = sent < due.len();
                room.members[member].cursor += sent as u64;
                if !conn.blocked && room.members[member].cursor < room.end() {
                    room.remaining = room.remaining.max(room.members.len());
                    if !std::mem::replace(&mut room.queued, true) {
                        self.walking.push_back(at);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => conn.blocked = true,
            Err(_) => self.close(slot),
        }
    }

    /// Lets go of what all members have; who keeps too much is closed.
    fn trim(&mut self, at: usize) {
        let room = &mut self.rooms[at];
        let floor = room.end().saturating_sub(LOG_BYTES_MAX as u64);
        let lost = room.members.iter().filter(|member| member.cursor < floor);
        let lost: Vec<usize> = lost.map(|member| member.slot).collect();
        for slot in lost {
            self.close(slot);
        }
        let room = &mut self.rooms[at];
        let cursors = room.members.iter().map(|member| member.cursor);
        let oldest = cursors.min().unwrap_or(room.end());
        room.log.drain(..(oldest - room.base) as usize);
        let gone = room.ends.partition_point(|end| *end <= oldest);
        room.ends.drain(..gone);
        room.base = oldest;
        room.trimmed_at = room.end();
    }

    fn pong(&mut self, slot: usize, payload: Vec<u8>) {
        let conn = &mut self.conns[slot];
        // A full socket may stand inside a frame.
        if !conn.blocked {
            let mut out = Vec::new();
            let _ = Frame::pong(payload).format(&mut out);
            let _ = conn.stream.write(&out);
        }
    }

    fn close(&mut self, slot: usize) {
        let Some(mut conn) = self.conns.try_remove(slot) else {
            return;
        };
        let _ = self.poll.registry().deregister(&mut conn.stream);
        if let Some((at, member)) = conn.seat {
            let room = &mut self.rooms[at];
            room.members.swap_remove(member);
            room.remaining = room.remaining.min(room.members.len());
            if let Some(moved) = room.members.get(member) {
                self.conns[moved.slot].seat = Some((at, member));
                // The one who moved may now stand behind the walk.
                if room.remaining > 0 {
                    room.remaining = room.members.len();
                }
            }
        }
    }
}

impl Room {
    fn end(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    fn next_behind(&mut self) -> Option<usize> {
        while self.remaining > 0 {
            if self.walk_at >= self.members.len() {
                self.walk_at = 0;
            }
            let at = self.walk_at;
            self.walk_at += 1;
            self.remaining -= 1;
            if self.members[at].cursor < self.end() {
                return Some(at);
            }
        }
        None
    }

    /// What one `send` to a member with that cursor carries.
    fn due(&self, cursor: u64, mode: Mode) -> &[u8] {
        let from = (cursor - self.base) as usize;
        let to = match mode {
            Mode::Walk => self.log.len(),
            Mode::Send => {
                let next = self.ends.partition_point(|end| *end <= cursor);
                let end = self.ends.get(next).copied().unwrap_or(cursor);
                (end - self.base) as usize
            }
        };
        &self.log[from..to]
    }

    fn clear(&mut self) {
        self.base = self.end();
        self.trimmed_at = self.base;
        self.log.clear();
        self.ends.clear();
    }
}

/// The first frame of `bytes`, unmasked in place, and its length with its header; `None` if it is not whole.
fn next_frame(bytes: &mut [u8]) -> Option<(OpCode, &[u8], usize)> {
    let mut cursor = Cursor::new(&bytes[..]);
    let (header, payload_bytes) = FrameHeader::parse(&mut cursor).ok()??;
    let from = cursor.position() as usize;
    let to = from.checked_add(usize::try_from(payload_bytes).ok()?)?;
    let payload = bytes.get_mut(from..to)?;
    if let Some(mask) = header.mask {
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
    Some((header.opcode, payload, to))
}

fn append_frame(log: &mut Vec<u8>, payload: &[u8]) {
    let header = FrameHeader {
        opcode: OpCode::Data(Data::Text),
        ..FrameHeader::default()
    };
    // Writing to memory does not fail.
    let _ = header.format(payload.len() as u64, log);
    log.extend_from_slice(payload);
}
