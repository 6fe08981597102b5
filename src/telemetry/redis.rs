//! What the bridge tells of itself and of Redis: atomics that its threads write and whoever answers `/metrics` or `/readyz` reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// The figures.
#[derive(Debug)]
pub struct RedisStats {
    /// 0 = closed: rooms are shared; 1 = half-open, 2 = open: this node goes on by itself.
    breaker: AtomicU64,
    opened: AtomicU64,
    commands: AtomicU64,
    round_trips: AtomicU64,
    round_trip_ns: AtomicU64,
    asks_waiting: AtomicU64,
    heard: AtomicU64,
}

impl Default for RedisStats {
    fn default() -> RedisStats {
        RedisStats {
            breaker: AtomicU64::new(2),
            opened: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
            round_trip_ns: AtomicU64::new(0),
            asks_waiting: AtomicU64::new(0),
            heard: AtomicU64::new(0),
        }
    }
}

/// The figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisView {
    /// Of the breaker: 0 closed, 1 half-open, 2 open.
    pub breaker: u64,
    /// Times it has opened.
    pub opened: u64,
    /// Commands answered.
    pub commands: u64,
    /// Writes they went out in.
    pub round_trips: u64,
    /// How long the latest took.
    pub round_trip_ns: u64,
    /// Questions of shards that wait to go out.
    pub asks_waiting: u64,
    /// Messages that came by the channels of rooms.
    pub heard: u64,
}

impl RedisStats {
    /// The breaker's state: 0 closed, 1 half-open, 2 open.
    pub fn breaker(&self, state: u64) {
        if self.breaker.swap(state, Ordering::Relaxed) == 0 && state != 0 {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many commands were answered together.
    pub fn round_trip(&self, commands: u64, took_ns: u64, asks_waiting: u64) {
        self.commands.fetch_add(commands, Ordering::Relaxed);
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.round_trip_ns.store(took_ns, Ordering::Relaxed);
        self.asks_waiting.store(asks_waiting, Ordering::Relaxed);
    }

    /// A message came.
    pub fn heard(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this node goes on by itself.
    pub fn is_cut_off(&self) -> bool {
        self.breaker.load(Ordering::Relaxed) != 0
    }

    /// All of it.
    pub fn view(&self) -> RedisView {
        let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
        RedisView {
            breaker: of(&self.breaker),
            opened: of(&self.opened),
            commands: of(&self.commands),
            round_trips: of(&self.round_trips),
            round_trip_ns: of(&self.round_trip_ns),
            asks_waiting: of(&self.asks_waiting),
            heard: of(&self.heard),
        }
    }
}
