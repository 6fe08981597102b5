//! Publishers that push over HTTP: keep-alive connections with one request each at a time. Part of a client thread's turn.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Token};
use serde::Deserialize;

use super::{PUSHERS, Thread, bump};
use crate::books::Accepted;
use crate::client::http;
use crate::dialect::Dialect;
use crate::plan::Plan;
use crate::stamp::Stamp;

/// The longest answer taken, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long a push may go without its answer, microseconds.
const PATIENCE_US: u64 = 10_000_000;
/// How often publishers are looked at for that, microseconds.
const LOOK_US: u64 = 100_000;

/// One publisher.
#[derive(Debug, Default)]
pub(super) struct Pusher {
    /// Its number among those of all threads, which says at which node it pushes.
    number: u32,
    stream: Option<TcpStream>,
    /// Whether the server has said all it will.
    ended: bool,
    out: Vec<u8>,
    heard: Vec<u8>,
    /// The request that waits for its answer.
    pub(super) asked: Option<Asked>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    line: u64,
    pub(super) rooms: Rooms,
    due_us: u64,
    /// When patience with the answer ends.
    until_us: u64,
}

/// Rooms one push goes to: one after the other in the plan, round its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rooms {
    first: u32,
    pub(super) count: u32,
}

impl Rooms {
    /// Their indexes, of `all`.
    pub(super) fn of(self, all: usize) -> impl Iterator<Item = u32> {
        (0..self.count).map(move |nth| (self.first + nth) % all.max(1) as u32)
    }
}

/// What became of a push in one room.
#[derive(Deserialize)]
#[serde(untagged)]
enum PushResult {
    Numbered(Numbered),
    Refused(Refused),
}

/// An answer to a push to several rooms.
#[derive(Deserialize)]
struct Results {
    results: Vec<PushResult>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
    #[serde(default)]
    epoch: u64,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
}

/// A thread's publishers.
pub(super) fn share(plan: &Plan, thread: usize) -> Vec<Pusher> {
    if !plan.can_push() {
        return Vec::new();
    }
    let pusher = |number| Pusher {
        number: number as u32,
        ..Pusher::default()
    };
    let numbers = (thread..plan.pushers).step_by(plan.threads);
    numbers.map(pusher).collect()
}

impl Thread {
    /// One line by HTTP; `false` if every publisher waits for an answer.
    pub(super) fn push_line(&mut self, due_us: u64) -> bool {
        let Some(at) = self.free_pusher() else {
            return false;
        };
        let first = self.plan.popularity.pick(&mut self.chance);
        let line = self.speech.next_line(first, true);
        let node = self.plan.node(self.pushers[at].number);
        let speech = self.make_line(line, due_us, node);
        let rooms = Rooms {
            first,
            count: self.plan.rooms_per_push as u32,
        };
        let body = match rooms.count {
            1 => Dialect::push(&self.plan.rooms[first as usize], &speech),
            _ => {
                let all = &self.plan.rooms;
                let named = rooms.of(all.len()).map(|room| &all[room as usize]);
                Dialect::push_to(named, &speech)
            }
        };
        self.ask(at, &body, line, rooms, due_us);
        true
    }

    /// Gifts that are due, as long as publishers are free.
    pub(super) fn push_gifts(&mut self, now_us: u64) {
        while let Some(gifts) = &self.speech.gifts {
            let due_us = gifts.due_us();
            if due_us > now_us {
                return;
            }
            let Some(at) = self.free_pusher() else {
                self.speechless = true;
                return;
            };
            if let Some(gifts) = &mut self.speech.gifts {
                gifts.advance();
            }
            let room = self.plan.popularity.pick(&mut self.chance);
            let line = self.speech.next_line(room, true);
            let node = self.plan.node(self.pushers[at].number);
            let stamp = Stamp { line, due_us, node };
            let speech = self
                .plan
                .voice
                .gift(&self.plan.stamper, stamp, &mut self.chance);
            let body = Dialect::gift(&self.plan.rooms[room as usize], &speech);
            let rooms = Rooms {
                first: room,
                count: 1,
            };
            self.ask(at, &body, line, rooms, due_us);
        }
    }

    /// The next one that waits for no answer: in turn, so that no node is asked more than the others.
    fn free_pusher(&mut self) -> Option<usize> {
        let count = self.pushers.len();
        let mut turns = (0..count).map(|nth| (self.next_pusher + nth) % count);
        let free = turns.find(|at| self.pushers[*at].asked.is_none())?;
        self.next_pusher = free + 1;
        Some(free)
    }

    fn ask(&mut self, at: usize, body: &str, line: u64, rooms: Rooms, due_us: u64) {
        let target = self.plan.target(self.pushers[at].number);
        let Some(api) = &target.api else {
            return;
        };
        let asked = Asked {
            line,
            rooms,
            due_us,
            until_us: self.clock.now_us() + PATIENCE_US,
        };
        let host = &target.upgrade.host;
        let pusher = &mut self.pushers[at];
        pusher.asked = Some(asked);
        pusher.heard.clear();
        http::post(
            &mut pusher.out,
            host,
            "/api/v1/danmaku/push",
            api.key.as_deref(),
            body.as_bytes(),
        );
        self.meter.pending.add(1);
        if pusher.stream.is_none()
            && let Err(error) = self.open_pusher(at)
        {
            return self.push_lost(at, &error.to_string());
        }
        self.pusher_event(at);
    }

    fn open_pusher(&mut self, at: usize) -> io::Result<()> {
        let target = self.plan.target(self.pushers[at].number);
        let Some(address): Option<SocketAddr> = target.api.as_ref().map(|api| api.address) else {
            return Ok(());
        };
        let mut stream = TcpStream::connect(address)?;
        let _ = stream.set_nodelay(true);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(PUSHERS + at), both)?;
        self.pushers[at].ended = false;
        self.pushers[at].stream = Some(stream);
        Ok(())
    }

    pub(super) fn pusher_event(&mut self, at: usize) {
        match self.pushers[at].exchange() {
            Ok(Some(answer)) => self.answered_push(at, &answer),
            Ok(None) => {}
            Err(error) => self.push_lost(at, &error.to_string()),
        }
    }

    /// Gives up on answers that take too long.
    pub(super) fn expire_pushes(&mut self, now_us: u64) {
        if now_us < self.pushes_looked_us + LOOK_US {
            return;
        }
        self.pushes_looked_us = now_us;
        for at in 0..self.pushers.len() {
            let asked = self.pushers[at].asked;
            if asked.is_some_and(|asked| asked.until_us <= now_us) {
                self.push_lost(at, "timeout");
            }
        }
    }

    fn answered_push(&mut self, at: usize, answer: &http::Answer) {
        let pusher = &mut self.pushers[at];
        let body: Vec<u8> = pusher.heard[answer.head_bytes..answer.length()].to_vec();
        if answer.closes || pusher.ended {
            pusher.stream = None;
        }
        let Some(asked) = pusher.asked.take() else {
            return;
        };
        self.meter.pending.sub(1);
        let count = u64::from(asked.rooms.count);
        if answer.status != 200 {
            let code = serde_json::from_slice::<Refused>(&body).map_or_else(
                |_| format!("status_{}", answer.status),
                |refused| refused.code,
            );
            (0..count).for_each(|_| bump(&mut self.notes.lines_refused, &code));
            return;
        }
        let results = match count {
            1 => serde_json::from_slice(&body).map(|result| vec![result]),
            _ => serde_json::from_slice(&body).map(|Results { results }| results),
        };
        match results {
            Ok(results) if results.len() as u64 == count => self.pushed(at, asked, results),
            _ => self.fault("a push answered 200 without a number for each room"),
        }
    }

    /// A push was answered, room by room.
    fn pushed(&mut self, at: usize, asked: Asked, results: Vec<PushResult>) {
        let took_us = self.clock.now_us().saturating_sub(asked.due_us).max(1);
        self.sample.pushes.saturating_record(took_us);
        let node = self.plan.node(self.pushers[at].number);
        let rooms = asked.rooms.of(self.plan.rooms.len());
        for (room, result) in rooms.zip(results) {
            match result {
                PushResult::Numbered(Numbered { seq, epoch }) => self.write_accepted(Accepted {
                    room,
                    epoch,
                    seq,
                    line: asked.line,
                    node,
                }),
                PushResult::Refused(refused) => bump(&mut self.notes.lines_refused, &refused.code),
            }
        }
    }

    /// The connection went. What it had asked may or may not have been done.
    fn push_lost(&mut self, at: usize, why: &str) {
        let pusher = &mut self.pushers[at];
        pusher.stream = None;
        pusher.out.clear();
        if let Some(asked) = pusher.asked.take() {
            self.meter.pending.sub(1);
            self.notes.unanswered += u64::from(asked.rooms.count);
            let rooms = asked.rooms.of(self.plan.rooms.len());
            self.notes.unsure.extend(rooms);
            bump(&mut self.notes.failed, &format!("push: {why}"));
        }
    }
}

impl Pusher {
    /// Writes and reads as far as the socket goes; the answer, once all of it is there.
    fn exchange(&mut self) -> io::Result<Option<http::Answer>> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(None);
        };
        while !self.out.is_empty() {
            match stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => self.heard.extend_from_slice(&buffer[..read]),
                Err(error) if later(&error) => break,
                Err(error) => return Err(error),
            }
            if self.heard.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::other("an answer without end"));
            }
        }
        // What came before an end is heard first: `Connection: close` is an answer like any other.
        let answer = http::answer(&self.heard).map_err(io::Error::other)?;
        match answer.filter(|answer| self.heard.len() >= answer.length()) {
            None if self.ended => Err(io::ErrorKind::UnexpectedEof.into()),
            answer => Ok(answer),
        }
    }
}

/// Not now: the socket is full or empty, or not connected yet.
fn later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}
