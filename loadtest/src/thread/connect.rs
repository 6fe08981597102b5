//! Clients come: connect, ask for the upgrade, take their seat. Part of a client thread's turn.

use std::io;

use mio::{Interest, Token};

use super::timers::What;
use super::{Client, Phase, Stage, Thread};
use crate::books::Tally;
use crate::client::frames::Decoder;
use crate::client::upgrade::{self, Outcome};
use crate::plan::Plan;

/// Connects begun in one turn.
const CONNECTS_PER_TURN: usize = 64;

impl Thread {
    /// Begins some of the connects that wait.
    pub(super) fn connect_some(&mut self) {
        if self.phase == Phase::Tail {
            return;
        }
        for _ in 0..CONNECTS_PER_TURN {
            if self.in_flight >= self.plan.in_flight {
                return;
            }
            let Some(at) = self.ready.pop_front() else {
                return;
            };
            self.connect(at);
        }
    }

    fn connect(&mut self, at: u32) {
        let now_us = self.clock.now_us();
        let client = &mut self.clients[at as usize];
        if client.stage != Stage::Away {
            return;
        }
        if client.due_us == u64::MAX {
            client.due_us = now_us;
        }
        client.stage = Stage::Connecting;
        client.generation = client.generation.wrapping_add(1);
        client.decoder = Decoder::default();
        client.out = Vec::new();
        self.in_flight += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        let reads = self.plan.viewers[client.number as usize].reads;
        let opened = self
            .source
            .connect(self.plan.target(client.number).address, reads)
            .and_then(|mut stream| {
                self.poll
                    .registry()
                    .register(&mut stream, Token(at as usize), both)?;
                Ok(stream)
            });
        match opened {
            Ok(stream) => {
                client.stream = Some(stream);
                let generation = client.generation;
                let give_up_us = now_us + self.plan.connect_timeout_us;
                self.timers.arm(give_up_us, at, generation, What::GiveUp);
            }
            Err(error) => self.failed(at, &cause(&error)),
        }
    }

    /// The socket is connected: asks for the upgrade.
    pub(super) fn connected(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        let Some(stream) = client.stream.as_mut() else {
            return;
        };
        if let Ok(Some(error)) = stream.take_error() {
            return self.failed(at, &cause(&error));
        }
        client.stage = Stage::Asking;
        match request(&self.plan, client) {
            Ok(bytes) => {
                client.joining = enters(&self.plan, client);
                client.out = bytes;
            }
            Err(why) => return self.failed(at, &why),
        }
        self.write_out(at);
    }

    /// Bytes of the answer to an upgrade lie in `scratch[..length]`. Returns where the WebSocket's own bytes begin.
    pub(super) fn answered(&mut self, at: u32, length: usize) -> Option<usize> {
        match upgrade::outcome(&self.scratch[..length]) {
            Outcome::Wait => {
                let client = &mut self.clients[at as usize];
                client.decoder.keep(&self.scratch[..length]);
                None
            }
            Outcome::Open { head_bytes } => {
                self.opened(at);
                Some(head_bytes)
            }
            Outcome::Refused(refusal) => {
                self.refused(at, refusal);
                None
            }
            Outcome::Fault(what) => {
                self.failed(at, &what);
                None
            }
        }
    }

    fn opened(&mut self, at: u32) {
        self.in_flight -= 1;
        self.meter.connects.add(1);
        self.meter.connected.add(1);
        let now_us = self.clock.now_us();
        self.meter.last_connect_us.set(now_us);
        let client = &mut self.clients[at as usize];
        client.stage = Stage::Open;
        client.decoder = Decoder::default();
        let generation = client.generation;
        if self.plan.heartbeat_us > 0 {
            let first_us = (self.chance.unit() * self.plan.heartbeat_us as f64) as u64;
            self.timers
                .arm(now_us + first_us, at, generation, What::Ping);
        }
        if !self.plan.dialect.is_gateway() {
            self.opened_elsewhere(at, now_us);
        }
    }

    /// Another server's client: what it must say, and a tally from the first line on.
    fn opened_elsewhere(&mut self, at: u32, now_us: u64) {
        self.count_connect(at, now_us);
        let client = &mut self.clients[at as usize];
        let room = &self.plan.rooms[client.room as usize];
        let join = self.plan.dialect.join(room, client.number);
        if self.phase == Phase::Ramp {
            client.tally = Tally::joined(0, 0);
            (client.member, client.early) = (true, true);
        }
        if let Some(join) = join {
            self.say(at, join);
        }
        self.seated(at);
    }

    /// Counts a connect, once: from when it was due until the server's first word.
    pub(super) fn count_connect(&mut self, at: u32, now_us: u64) {
        let client = &mut self.clients[at as usize];
        if client.due_us != u64::MAX {
            let took_us = now_us.saturating_sub(client.due_us).max(1);
            self.sample.connects.saturating_record(took_us);
            client.due_us = u64::MAX;
        }
        // Only now: a server that lets everyone in and says nothing must not be hammered.
        client.attempts = 0;
    }

    /// Whether nobody speaks for a client's room yet. Lines of another server are numbered by their publisher, and only one
    /// connection keeps them in order.
    fn is_mute(&self, at: u32) -> bool {
        let room = self.clients[at as usize].room;
        let mut speakers = self.speakers.iter();
        !speakers.any(|speaker| self.clients[*speaker as usize].room == room)
    }

    pub(super) fn let_speak(&mut self, at: u32) {
        if !std::mem::replace(&mut self.clients[at as usize].speaking, true) {
            self.speakers.push(at);
        }
    }

    /// In its room: it may speak now, or stop reading if that is its part.
    pub(super) fn seated(&mut self, at: u32) {
        let viewer = self.plan.viewers[self.clients[at as usize].number as usize];
        if viewer.speaks && (self.plan.dialect.is_gateway() || self.is_mute(at)) {
            self.let_speak(at);
        }
        if viewer.moves && self.phase == Phase::Run {
            let generation = self.clients[at as usize].generation;
            let leaves_us = self.clock.now_us() + self.chance.wait_us(self.plan.stay_us);
            self.timers.arm(leaves_us, at, generation, What::Move);
        }
        if !viewer.reads && self.phase != Phase::Tail {
            let client = &mut self.clients[at as usize];
            if let Some(stream) = client.stream.as_mut() {
                let _ = self.poll.registry().deregister(stream);
                client.deaf = true;
            }
        }
    }
}

/// Whether the upgrade's request says which room is to be entered: not for a client that resumes, which says so later, with
/// what it saw last.
fn enters(plan: &Plan, client: &Client) -> bool {
    plan.enters && plan.dialect.is_gateway() && !client.resumes
}

fn request(plan: &Plan, client: &Client) -> Result<Vec<u8>, String> {
    let target = plan.target(client.number);
    let token = match &target.minter {
        Some(minter) => Some(minter.token(client.number)?),
        None => None,
    };
    let room = &plan.rooms[client.room as usize].id;
    let room = enters(plan, client).then_some(room.as_str());
    Ok(target.upgrade.request(room, token.as_deref()))
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "reset".into(),
        io::ErrorKind::TimedOut => "timeout".into(),
        _ => match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::MFILE.raw_os_error() => {
                "out of descriptors".into()
            }
            _ => error.to_string(),
        },
    }
}
