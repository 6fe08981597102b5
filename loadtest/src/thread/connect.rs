//! Clients come, are refused, are cut, and come back. Part of a client thread's turn.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::timers::What;
use super::{Client, Phase, Stage, Thread, bump, is_loopback};
use crate::books::Tally;
use crate::client::frames::{self, Decoder};
use crate::client::upgrade::{self, Outcome, Refusal};
use crate::dialect::Dialect;
use crate::plan::Plan;

/// A client's own heartbeat.
const PING: &str = r#"{"type":"ping"}"#;
/// Connects begun in one turn.
const CONNECTS_PER_TURN: usize = 64;
/// Timers handled in one turn.
const TIMERS_PER_TURN: usize = 1024;
/// The first wait after a failure the server said nothing about, microseconds; it doubles up to the next.
const BACK_OFF_US: u64 = 200_000;
/// The longest such wait.
const BACK_OFF_US_MAX: u64 = 10_000_000;
/// Ports a source address is used with.
const PORTS: std::ops::Range<u16> = 10_000..60_000;
/// Receive buffer of a viewer that does not read: small, so that it is slow for the server and not for the kernel.
const DEAF_BUFFER_BYTES: usize = 8 << 10;
/// How long a viewer that wants to leave waits for an answer before it looks again, microseconds.
const ANSWER_US: u64 = 50_000;
/// Source addresses of one thread: 127.(1 + thread).0.1 and following, so that threads never share one.
const ADDRESSES: u8 = 200;

/// Where a thread's connections come from. To one address and port the kernel has some 28,000 source ports for each source
/// address; on loopback every address of 127/8 is ours, so ports never run out. The port is chosen here because the
/// kernel's own search becomes slow when few are left.
#[derive(Debug)]
pub(super) struct Source {
    thread: u8,
    address: u8,
    port: u16,
    loopback: bool,
}

impl Source {
    pub(super) fn new(target: SocketAddr, thread: usize) -> Source {
        Source {
            thread: (thread % 250) as u8,
            address: 1,
            port: PORTS.start,
            loopback: is_loopback(target),
        }
    }

    fn next(&mut self) -> SocketAddr {
        self.port += 1;
        if self.port >= PORTS.end {
            self.port = PORTS.start;
            self.address = self.address % ADDRESSES + 1;
        }
        let ip = Ipv4Addr::new(127, 1 + self.thread, 0, self.address);
        SocketAddr::new(IpAddr::V4(ip), self.port)
    }

    /// A socket on its way to `target`.
    fn connect(&mut self, target: SocketAddr, reads: bool) -> io::Result<TcpStream> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        if !reads {
            socket.set_recv_buffer_size(DEAF_BUFFER_BYTES)?;
        }
        if self.loopback {
            socket.set_reuse_address(true)?;
            self.bind(&socket)?;
        }
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(socket.into());
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

impl Source {
    /// The next port that is free. Others hold a few of them; that all are taken means something else is wrong.
    fn bind(&mut self, socket: &Socket) -> io::Result<()> {
        for _ in PORTS {
            match socket.bind(&self.next().into()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

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
            .connect(self.plan.target.address, reads)
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
            Ok(bytes) => client.out = bytes,
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
        client.attempts = 0;
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
            client.member = true;
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
    }

    /// In its room: it may speak now, or stop reading if that is its part.
    pub(super) fn seated(&mut self, at: u32) {
        let viewer = self.plan.viewers[self.clients[at as usize].number as usize];
        let speaking = &mut self.clients[at as usize].speaking;
        if viewer.speaks && !std::mem::replace(speaking, true) {
            self.speakers.push(at);
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

    /// It no longer speaks.
    pub(super) fn hush(&mut self, at: u32) {
        if std::mem::take(&mut self.clients[at as usize].speaking) {
            self.speakers.retain(|speaker| *speaker != at);
        }
    }

    fn refused(&mut self, at: u32, refusal: Refusal) {
        self.meter.refused.add(1);
        bump(&mut self.notes.refused, &refusal.code);
        self.drop_stream(at);
        self.in_flight -= 1;
        if !refusal.comes_back() {
            return self.gone(at);
        }
        match refusal.retry_after_ms {
            Some(ms) => self.come_back_after(at, ms),
            None => self.back_off(at),
        }
    }

    /// A connect that came to nothing without an answer.
    pub(super) fn failed(&mut self, at: u32, why: &str) {
        bump(&mut self.notes.failed, why);
        self.drop_stream(at);
        self.in_flight -= 1;
        self.back_off(at);
    }

    /// The connection is gone, by the server's will or by accident; `code` is the close code.
    pub(super) fn lost(&mut self, at: u32, code: &str) {
        match self.clients[at as usize].stage {
            Stage::Connecting | Stage::Asking => return self.failed(at, "closed"),
            Stage::Away | Stage::Gone => return,
            Stage::Open => {}
        }
        bump(&mut self.notes.closed, code);
        let number = self.clients[at as usize].number;
        self.notes.readers_closed += u64::from(self.plan.viewers[number as usize].reads);
        self.leave_open(at);
        if matches!(code.parse(), Ok(4000..=4099)) {
            return self.gone(at);
        }
        match self.clients[at as usize].notice_ms.take() {
            Some(ms) => self.come_back_after(at, ms),
            None => self.back_off(at),
        }
    }

    /// No longer connected: sums up what its end means for others.
    fn leave_open(&mut self, at: u32) {
        self.meter.connected.sub(1);
        self.hush(at);
        self.proven(at);
        self.forget_sent(at);
        self.drop_stream(at);
        let deaf = std::mem::take(&mut self.clients[at as usize].deaf);
        let epoch = self.clients[at as usize].tally.epoch;
        let client = &mut self.clients[at as usize];
        // Only the gateway's own numbering can be resumed.
        client.resumes = client.member && epoch != 0 && !deaf;
        if !client.resumes {
            self.end_membership(at, false);
        }
    }

    /// As the server asked.
    fn come_back_after(&mut self, at: u32, ms: u64) {
        self.notes.backed_off += 1;
        let wait_us = self.chance.jittered_us(ms.saturating_mul(1000));
        self.away_for(at, wait_us);
    }

    fn back_off(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        let doubled = BACK_OFF_US << client.attempts.min(8);
        client.attempts = client.attempts.saturating_add(1);
        let wait_us = self.chance.jittered_us(doubled.min(BACK_OFF_US_MAX));
        self.away_for(at, wait_us);
    }

    /// Away now, back after so long. The connect's latency counts from now on, waits included.
    fn away_for(&mut self, at: u32, wait_us: u64) {
        let now_us = self.clock.now_us();
        let client = &mut self.clients[at as usize];
        client.stage = Stage::Away;
        client.due_us = client.due_us.min(now_us);
        let generation = client.generation;
        self.timers
            .arm(now_us + wait_us, at, generation, What::Arrive);
    }

    fn gone(&mut self, at: u32) {
        self.end_membership(at, false);
        self.clients[at as usize].stage = Stage::Gone;
        self.meter.given_up.add(1);
    }

    /// Closes without ceremony: a reset, as when a network goes, and no port left waiting.
    fn drop_stream(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        if let Some(mut stream) = client.stream.take() {
            let _ = self.poll.registry().deregister(&mut stream);
            let socket = socket2::SockRef::from(&stream);
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        client.out = Vec::new();
        client.decoder = Decoder::default();
    }

    /// Timers that are due.
    pub(super) fn expire(&mut self) {
        for _ in 0..TIMERS_PER_TURN {
            let now_us = self.clock.now_us();
            let Some((due_us, at, generation, what)) = self.timers.pop(now_us) else {
                return;
            };
            let current =
                what == What::CutAll || self.clients[at as usize].generation == generation;
            if !current {
                continue;
            }
            match what {
                What::Arrive => self.arrive(at, due_us),
                What::GiveUp => self.give_up(at),
                What::Ping => self.ping(at, now_us),
                What::Prove => self.prove(at),
                What::Move => self.move_on(at),
                What::CutAll => self.cut_all(),
            }
        }
    }

    fn give_up(&mut self, at: u32) {
        if matches!(
            self.clients[at as usize].stage,
            Stage::Connecting | Stage::Asking
        ) {
            self.failed(at, "timeout");
        }
    }

    fn arrive(&mut self, at: u32, due_us: u64) {
        let client = &mut self.clients[at as usize];
        if client.stage == Stage::Away {
            // A first arrival was due when its timer said; who comes back was due when it went.
            client.due_us = client.due_us.min(due_us);
            self.ready.push_back(at);
        }
    }

    fn ping(&mut self, at: u32, now_us: u64) {
        let client = &self.clients[at as usize];
        if client.stage == Stage::Open && self.plan.dialect.is_gateway() {
            let generation = client.generation;
            if !client.deaf {
                self.say(at, PING.to_owned());
            }
            let next_us = now_us + self.plan.heartbeat_us;
            self.timers.arm(next_us, at, generation, What::Ping);
        }
    }

    fn prove(&mut self, at: u32) {
        if self.clients[at as usize].stage == Stage::Open && self.plan.dialect.is_gateway() {
            self.say(at, PING.to_owned());
        }
    }

    fn cut_all(&mut self) {
        let now_us = self.clock.now_us();
        for at in 0..self.clients.len() as u32 {
            let client = &self.clients[at as usize];
            if client.stage == Stage::Open && self.plan.viewers[client.number as usize].cut {
                self.notes.cut += 1;
                self.leave_open(at);
                let client = &mut self.clients[at as usize];
                client.stage = Stage::Away;
                client.due_us = now_us;
                self.ready.push_back(at);
            }
        }
    }

    /// Half of those who move change the room, half go and are followed by someone new.
    fn move_on(&mut self, at: u32) {
        if self.phase != Phase::Run || self.clients[at as usize].stage != Stage::Open {
            return;
        }
        if self.awaits_answers(at) {
            // Whoever leaves before its lines are answered never learns their numbers.
            let (now_us, generation) = (self.clock.now_us(), self.clients[at as usize].generation);
            return self
                .timers
                .arm(now_us + ANSWER_US, at, generation, What::Move);
        }
        if self.chance.unit() < 0.5 {
            let client = &self.clients[at as usize];
            if client.member {
                let leave = Dialect::leave(&self.plan.rooms[client.room as usize]);
                self.hush(at);
                self.say(at, leave);
            }
            return;
        }
        let mask = (self.chance.bits() as u32).to_be_bytes();
        let client = &mut self.clients[at as usize];
        frames::close(&mut client.out, mask);
        self.write_out(at);
        self.leave_open(at);
        self.end_membership(at, false);
        self.clients[at as usize].resumes = false;
        self.move_room(at);
        self.clients[at as usize].due_us = u64::MAX;
        self.away_for_someone_new(at);
    }

    /// The room a client is to be in from now on.
    pub(super) fn move_room(&mut self, at: u32) {
        let room = self.plan.popularity.pick(&mut self.chance);
        self.clients[at as usize].room = room;
    }

    fn away_for_someone_new(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        client.stage = Stage::Away;
        let generation = client.generation;
        let wait_us = self.chance.wait_us(1_000_000);
        let now_us = self.clock.now_us();
        self.timers
            .arm(now_us + wait_us, at, generation, What::Arrive);
    }
}

/// The upgrade's request: a client that resumes says its room later, with what it saw last.
fn request(plan: &Plan, client: &Client) -> Result<Vec<u8>, String> {
    let token = match &plan.target.minter {
        Some(minter) => Some(minter.token(client.number)?),
        None => None,
    };
    let room = &plan.rooms[client.room as usize].id;
    let enters = plan.enters && plan.dialect.is_gateway() && !client.resumes;
    let room = enters.then_some(room.as_str());
    Ok(plan.target.upgrade.request(room, token.as_deref()))
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
