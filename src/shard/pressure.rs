//! Overload: what the shard sees of itself, what all shards say together, and what is given up for it. Part of the shard's
//! turn; what it decides is read where the thing would be done.

use std::sync::atomic::Ordering;

use super::Shard;
use super::conn::Kind;
use crate::base::ids::ConnId;
use crate::base::limits;
use crate::base::pressure::{JUDGED_EVERY_MS, Level, Pressure, Signals, WHOLE};
use crate::base::refusal::{Code, Refusal};
use crate::proto::danmaku::server;
use crate::proto::ws::close::Close;
use crate::session::End;
use crate::session::viewer::reply;
use crate::telemetry::process;
use crate::telemetry::table::{Gauge, Shed};

/// A viewer that has taken nothing for so long goes when slow ones are given up, milliseconds.
const TAKES_NOTHING_MS: u64 = 1000;

/// The shard's state of pressure.
#[derive(Debug)]
pub struct Overload {
    own: Pressure,
    /// The highest level of any shard.
    level: Level,
    /// The smallest share of any shard.
    share: u32,
    next_ms: u64,
    /// The longest turn since the last judgement.
    turn_ns_max: u64,
    /// Time spent in walks since then.
    walk_ns: u64,
    judged_ns: u64,
    /// Where the look for viewers to give up goes on.
    next_slot: usize,
}

impl Default for Overload {
    fn default() -> Overload {
        Overload {
            own: Pressure::default(),
            level: Level::Calm,
            share: WHOLE,
            next_ms: 0,
            turn_ns_max: 0,
            walk_ns: 0,
            judged_ns: 0,
            next_slot: 0,
        }
    }
}

impl Overload {
    /// Whether the node gives this up.
    pub fn gives_up(&self, what: Level) -> bool {
        self.level >= what
    }

    /// The part of the crowd's lines that is sent, of [`WHOLE`].
    pub fn share(&self) -> u32 {
        self.share
    }

    /// A walk step took so long.
    pub fn walked(&mut self, took_ns: u64) {
        self.walk_ns += took_ns;
    }

    /// When to judge again.
    pub fn next_ms(&self) -> Option<u64> {
        (self.level > Level::Calm).then_some(self.next_ms)
    }
}

impl Shard {
    /// The last step of the turn: ten times a second the shard judges itself and learns how the others are.
    pub(super) fn judge_pressure(&mut self, turn_ns: u64) {
        let overload = &mut self.overload;
        overload.turn_ns_max = overload.turn_ns_max.max(turn_ns);
        let now_ms = self.now.mono_ms();
        if now_ms < overload.next_ms {
            return;
        }
        let signals = self.signals();
        let overload = &mut self.overload;
        overload.next_ms = now_ms + JUDGED_EVERY_MS;
        overload.turn_ns_max = 0;
        overload.walk_ns = 0;
        overload.judged_ns = self.now.mono_ns;
        let late_ms = self.policy.config.overload.lag_ms;
        overload.own.judge(&signals, late_ms, now_ms);
        let said = self.node.pressures[self.id.index()].say(&overload.own);
        if said {
            tracing::warn!(
                shard = self.id.index(),
                level = overload.own.level().as_str(),
                lag_ms = signals.lag_ms,
                walking = signals.walking,
                memory = signals.memory,
                sockets = signals.sockets,
                outboxes = signals.outboxes,
                "overload"
            );
        }
        (overload.level, overload.share) = self.node.pressure();
        self.metrics
            .set(Gauge::OverloadLevel, overload.own.level() as u64);
        if self.overload.gives_up(Level::Slow) {
            self.give_up_viewers();
        }
    }

    fn signals(&self) -> Signals {
        let lag_ns = self
            .overload
            .turn_ns_max
            .max(self.hosting.lag_ns(self.now.mono_ns));
        let outboxes = self.metrics.gauge(Gauge::OutboxBytes);
        let since_ns = self
            .now
            .mono_ns
            .saturating_sub(self.overload.judged_ns)
            .max(1);
        Signals {
            lag_ms: lag_ns / 1_000_000,
            walking: (self.overload.walk_ns * 1000 / since_ns).min(1000),
            memory: self.node.memory.load(Ordering::Relaxed),
            sockets: self.conns.len() as u64 * 1000 / self.sockets_max.max(1) as u64,
            outboxes: outboxes * 1000 / limits::OUTBOXES_BYTES,
        }
    }

    /// Once a second, on the first shard only: what the process has of the memory it may have.
    pub(super) fn measure_memory(&self) {
        if self.id.index() > 0 {
            return;
        }
        let max = match self.policy.config.overload.memory_max {
            0 => self.node.memory_max,
            max => max,
        };
        if max == 0 {
            return;
        }
        let used = process::resident_bytes();
        let thousandths = (u128::from(used) * 1000 / u128::from(max)).min(u128::from(u64::MAX));
        self.node
            .memory
            .store(thousandths as u64, Ordering::Relaxed);
    }

    /// Looks at some connections, and lets go of those that are given up at this level.
    fn give_up_viewers(&mut self) {
        let guests_too = self.overload.gives_up(Level::Idle);
        let now_ms = self.now.mono_ms();
        let from = match self.overload.next_slot {
            past if past >= self.conns.capacity() => 0,
            slot => slot,
        };
        let to = (from + limits::GIVE_UP_VISITS).min(self.conns.capacity());
        let mut closed = 0;
        let mut slot = from;
        while slot < to && closed < limits::CLOSES_PER_TURN {
            let at = slot;
            slot += 1;
            let Some(conn) = self.conns.get(at) else {
                continue;
            };
            let Kind::Viewer(viewer) = &conn.kind else {
                continue;
            };
            if viewer.is_closing() || conn.flags.doomed {
                continue;
            }
            let id = conn.id(at as u32);
            let slow = conn.stuck_ms > 0 && conn.stuck_ms + TAKES_NOTHING_MS <= now_ms;
            let guest = viewer.identity().is_none() && conn.seats.is_empty();
            if slow {
                self.metrics.shed(Shed::Slow, 1);
                let end = End::new(
                    Close::TooSlow.code(),
                    "this node is overloaded, and you take nothing of what is sent",
                );
                self.close_viewer(id, &end);
            } else if guests_too && guest {
                self.ask_back_later(id);
            } else {
                continue;
            }
            closed += 1;
        }
        self.overload.next_slot = slot;
    }

    /// A guest goes: told when to come back, then closed.
    fn ask_back_later(&mut self, id: ConnId) {
        self.metrics.shed(Shed::Idle, 1);
        let after_ms = self.rng.jitter(limits::OVERLOADED_RETRY_MS, 50);
        if let Some(conn) = self.conn(id) {
            reply(conn.outbox.tail(), |json| {
                server::notice_reconnect(json, u64::from(after_ms));
            });
        }
        let end = End::new(
            Close::AskedToReconnect.code(),
            "this node is overloaded: come back later, or to another node",
        );
        self.close_viewer(id, &end);
    }

    /// What is refused for the node's sake, with a time to come back.
    pub(super) fn overloaded(&mut self, what: Shed, reason: &'static str) -> Refusal {
        self.metrics.shed(what, 1);
        // Spread where it is answered, as every refusal.
        Refusal::new(Code::Overloaded, reason).retry(limits::OVERLOADED_RETRY_MS)
    }
}
