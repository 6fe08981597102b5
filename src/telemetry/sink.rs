//! What a sink of the event pipeline tells of itself: atomics that shards and its thread write and whoever answers `/metrics` reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// The figures.
#[derive(Debug, Default)]
pub struct SinkStats {
    sent: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
}

/// The figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkView {
    /// Events it took.
    pub sent: u64,
    /// Events that were lost on the way to it.
    pub dropped: u64,
    /// Events that wait for it.
    pub waiting: u64,
}

impl SinkStats {
    /// It took so many.
    pub fn confirmed(&self, events: u64) {
        self.sent.fetch_add(events, Ordering::Relaxed);
    }

    /// So many were lost.
    pub fn dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }

    /// So many wait.
    pub fn waits(&self, waiting: u64) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// All of it.
    pub fn view(&self) -> SinkView {
        let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
        SinkView {
            sent: of(&self.sent),
            dropped: of(&self.dropped),
            waiting: of(&self.waiting),
        }
    }
}
