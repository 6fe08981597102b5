//! The reactor: one thread, one poller, its connections, its rooms. Everything in [`Shard`] is unshared: no lock.
//!
//! One turn: poll → readable connections (byte budget each, the rest on the resume list) → mailbox (bounded) → resume
//! list → timer wheel → seal dirty home rooms → walk dirty streams (bounded) → flush outboxes → noted wakes → deferred
//! closes. Nothing writes, wakes or closes from inside an event: it is noted and done at its step. Between two turns the
//! shard waits at the poller; in a lull, for the next step of the clock first.

mod accept;
mod close;
mod cluster;
mod conn;
mod events;
mod exchange;
mod flush;
mod home;
mod hosting;
mod http;
mod logins;
mod lull;
mod mail;
mod mailbox;
mod members;
mod node;
mod orders;
mod pressure;
mod stats;
mod sweep;
mod timers;
mod upgrade;
mod viewer;
mod walk;

pub use node::{Node, Said};

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Token};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::base::clock::Now;
use crate::base::ids::{ConnId, ShardId, UserId};
use crate::base::limits;
use crate::base::rate::Bucket;
use crate::base::rng::Rng;
use crate::base::wheel::Wheel;
use crate::bus::{Address, Msg, Outlet, Policy, Sink};
use crate::proto::ws::deflate::{Deflator, Inflator};
use crate::session::Intent;
use crate::sync::mailbox::Inbox;
use crate::telemetry::block::Block;
use crate::telemetry::table::{Counter, Gauge, Hist};

use self::accept::Listeners;
use self::cluster::Cluster;
use self::conn::Conn;
use self::exchange::Exchanges;
use self::home::Homes;
use self::hosting::Hosting;
use self::logins::Logins;
use self::lull::Lull;
use self::mail::Mail;
use self::orders::Orders;
use self::pressure::Overload;
use self::stats::Desk;
use self::sweep::Sweeps;

/// The bell's token; connections never reach it because slots are below 2^32.
pub const BELL: Token = Token(usize::MAX);

/// What a shard is started with.
pub struct Start {
    /// Its index.
    pub id: ShardId,
    /// Its poller, with its bell registered under [`BELL`].
    pub poll: Poll,
    /// Its mailbox.
    pub inbox: Inbox<Msg>,
    /// Everyone's address, its own included.
    pub addresses: Vec<Address>,
    /// What all share.
    pub node: Arc<Node>,
    /// Settings and keys.
    pub policy: Arc<Policy>,
    /// The bridge, where Redis is configured.
    pub cluster: Option<Outlet>,
    /// Who is told what happens.
    pub sinks: Arc<[Sink]>,
    /// Where to listen.
    pub public: std::net::SocketAddr,
    /// Where the server API listens.
    pub internal: std::net::SocketAddr,
    /// Chance.
    pub seed: u64,
    /// Sockets this shard may hold.
    pub sockets_max: usize,
}

/// One reactor.
pub struct Shard {
    id: ShardId,
    now: Now,
    node: Arc<Node>,
    policy: Arc<Policy>,
    metrics: Arc<Block>,
    poll: Poll,
    listeners: Listeners,
    conns: Slab<Conn>,
    sockets_max: usize,
    /// Descriptors of this table that are no connections.
    descriptors_before: usize,
    next_generation: u32,
    wheel: Wheel,
    rng: Rng,
    mail: Mail,
    homes: Homes,
    hosting: Hosting,
    cluster: Option<Cluster>,
    orders: Orders,
    desk: Desk,
    logins: Logins,
    sinks: Arc<[Sink]>,
    /// Viewers with a token, by user.
    by_user: FxHashMap<UserId, Vec<ConnId>>,
    viewers: usize,
    lull: Lull,
    exchanges: Exchanges,
    sweeps: Sweeps,
    overload: Overload,
    /// Spent by refusals that are logged.
    refusals_logged: Bucket,
    /// Connections with something more to read that no edge will announce.
    resume: VecDeque<ConnId>,
    /// Connections with something to write at the end of the turn.
    flush: Vec<ConnId>,
    /// Connections to be let go at the end of the turn.
    doomed: VecDeque<u32>,
    /// Reused by every session's input.
    intents: Vec<Intent>,
    /// For every room whose home is here, ...
    deflator: Deflator,
    /// ... and every viewer.
    inflator: Inflator,
    /// Reused by every read.
    scratch: Vec<u8>,
    next_second_ms: u64,
    stop: bool,
}

impl Shard {
    /// Opens the listeners and makes the reactor. Called on the shard's own thread, after it has its own descriptor table.
    ///
    /// # Errors
    /// What listening says.
    pub fn new(start: Start) -> io::Result<Shard> {
        let listeners = Listeners::open(&start)?;
        let now = start.node.clock.now();
        let shards = start.addresses.len();
        Ok(Shard {
            id: start.id,
            now,
            metrics: Arc::clone(&start.node.blocks[start.id.index()]),
            node: start.node,
            policy: start.policy,
            poll: start.poll,
            listeners,
            conns: Slab::new(),
            sockets_max: start.sockets_max,
            descriptors_before: crate::net::fd::open_here().unwrap_or(0),
            next_generation: 0,
            wheel: Wheel::new(tick(now.mono_ms())),
            rng: Rng::seed(start.seed),
            mail: Mail::new(start.id, start.inbox, &start.addresses),
            homes: Homes::new(shards),
            hosting: Hosting::default(),
            cluster: start.cluster.map(Cluster::new),
            orders: Orders::default(),
            desk: Desk::default(),
            logins: Logins::default(),
            sinks: start.sinks,
            by_user: FxHashMap::default(),
            viewers: 0,
            lull: Lull::new(now),
            exchanges: Exchanges::default(),
            sweeps: Sweeps::default(),
            overload: Overload::default(),
            refusals_logged: Bucket::default(),
            resume: VecDeque::new(),
            flush: Vec::new(),
            doomed: VecDeque::new(),
            intents: Vec::new(),
            deflator: Deflator::default(),
            inflator: Inflator::default(),
            scratch: vec![0; limits::READ_SCRATCH_BYTES],
            next_second_ms: 0,
            stop: false,
        })
    }

    /// Turns until told to stop.
    ///
    /// # Errors
    /// The poller failed: a bug, or the machine is out of memory.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(limits::EVENTS_PER_POLL);
        while !self.stop {
            match self.poll.poll(&mut events, Some(self.patience())) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.turn(&events);
            self.gather(events.iter().count());
        }
        Ok(())
    }

    /// Lets heartbeats gather, where nothing else is going on.
    fn gather(&mut self, events: usize) {
        let Some(pause) = self.lull.pause(events, self.node.clock.mono_ns()) else {
            return;
        };
        let pause = pause.min(self.patience());
        if !pause.is_zero() {
            self.metrics.inc(Counter::LullsTotal);
            self.mail.doze(pause);
        }
    }

    fn turn(&mut self, events: &Events) {
        self.now = self.node.clock.now();
        self.node.turned_ms[self.id.index()].store(self.now.mono_ms(), Ordering::Relaxed);
        for event in events {
            self.event(event);
        }
        self.accept_paused_or_pending();
        self.take_mailbox();
        self.resume_reads();
        self.fire_timers();
        self.take_local();
        self.show_stats();
        self.send_shared();
        self.seal_homes();
        self.mail.flush_backlog();
        // Once before the walk, so that other shards write while this one does, and once after the rest.
        self.mail.wake_noted();
        let walk_ns = self.node.clock.mono_ns();
        self.walk();
        self.sweep();
        self.flush_noted();
        self.overload.walked(self.node.clock.mono_ns() - walk_ns);
        self.close_doomed();
        self.take_local();
        self.mail.wake_noted();
        let turn_ns = self.node.clock.mono_ns() - self.now.mono_ns;
        self.metrics.observe(Hist::TurnSeconds, turn_ns);
        self.metrics.set(Gauge::TurnLagSeconds, turn_ns);
        self.judge_pressure(turn_ns);
        self.metrics.set(Gauge::Connections, self.viewers as u64);
    }

    fn event(&mut self, event: &Event) {
        match event.token() {
            BELL => {}
            token if self.listeners.take(token) => self.lull.stir(self.now),
            Token(packed) => {
                let (slot, generation) = (packed as u32, (packed >> 32) as u32);
                self.socket_event(ConnId { slot, generation }, event);
            }
        }
    }

    fn socket_event(&mut self, id: ConnId, event: &Event) {
        let Some(conn) = self.conn(id) else {
            return;
        };
        if event.is_error() {
            self.doom(id);
            return;
        }
        if event.is_read_closed() {
            conn.flags.peer_done = true;
        }
        if event.is_writable() && conn.flags.blocked {
            conn.flags.blocked = false;
            self.lull.stir(self.now);
            self.note_flush(id);
        }
        if (event.is_readable() || event.is_read_closed())
            && let Some(conn) = self.conn(id)
        {
            conn.flags.readable = true;
            self.read(id);
        }
    }

    /// How long the poller may sleep: not at all while work is left over, else until the next timer.
    fn patience(&self) -> Duration {
        let busy = !self.resume.is_empty()
            || !self.hosting.walking.is_empty()
            || !self.doomed.is_empty()
            || self.mail.waiting() > 0
            || self.sweeps.is_busy()
            || self.cluster.as_ref().is_some_and(Cluster::is_busy)
            || self.listeners.has_pending();
        if busy {
            return Duration::ZERO;
        }
        let now = self.node.clock.now();
        let now_ms = now.mono_ms();
        let mut wait_ms = self.next_second_ms.saturating_sub(now_ms).min(1000);
        if let Some(next) = self.wheel.next() {
            let at_ms = u64::from(next) * limits::WHEEL_TICK_MS;
            wait_ms = wait_ms.min(at_ms.saturating_sub(now_ms));
        }
        let backed_up = self.cluster.as_ref().is_some_and(Cluster::is_backed_up);
        if self.mail.backlog() > 0 || backed_up || self.logins.are_untold() {
            wait_ms = wait_ms.min(1);
        }
        if let Some(due_ms) = self.soonest_ms() {
            wait_ms = wait_ms.min(due_ms.saturating_sub(now_ms));
        }
        match self.homes.next_due_ns() {
            Some(due_ns) => {
                let wait_ns = due_ns.saturating_sub(now.mono_ns);
                Duration::from_millis(wait_ms).min(Duration::from_nanos(wait_ns))
            }
            None => Duration::from_millis(wait_ms),
        }
    }

    /// The soonest of the deadlines kept outside the wheel, in monotonic ms.
    fn soonest_ms(&self) -> Option<u64> {
        [
            self.listeners.resume_ms(),
            self.sweeps.next_ms(),
            self.homes.online_due_ms(),
            self.overload.next_ms(),
            self.cluster.as_ref().and_then(Cluster::counts_due_ms),
            self.cluster.as_ref().and_then(Cluster::listings_due_ms),
            self.orders.next_ms(),
            self.desk.next_ms(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The connection, unless it is gone or going.
    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        live(&mut self.conns, id)
    }

    /// Notes that a connection has something to write.
    fn note_flush(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && !std::mem::replace(&mut conn.flags.flushing, true)
        {
            self.flush.push(id);
        }
    }

    /// Arms the connection's one timer to fire at or soon after `at_ms`.
    fn arm(&mut self, slot: u32, at_ms: u64) {
        let at = at_ms.div_ceil(limits::WHEEL_TICK_MS);
        self.wheel.schedule(slot, at.try_into().unwrap_or(u32::MAX));
    }
}

/// The connection, unless it is gone or going.
fn live(conns: &mut Slab<Conn>, id: ConnId) -> Option<&mut Conn> {
    conns
        .get_mut(id.slot as usize)
        .filter(|conn| conn.generation == id.generation && !conn.flags.doomed)
}

/// The wheel's tick at a monotonic time.
fn tick(mono_ms: u64) -> u32 {
    (mono_ms / limits::WHEEL_TICK_MS) as u32
}
