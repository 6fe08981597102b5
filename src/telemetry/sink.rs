//! What a sink of the event pipeline tells of itself: atomics that shards and its thread write and whoever answers `/metrics` reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// The figures.
#[derive(Debug, Default)]
pub struct SinkStats {
    sent: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
    /// Of what waits.
    bytes: AtomicU64,
}

/// Bytes of events that may wait for a sink; more are lost.
pub const BYTES_MAX: u64 = 64 << 20;

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
    /// Whether so many bytes may wait too; if so they do.
    pub fn has_place(&self, bytes: u64) -> bool {
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = waiting + bytes <= BYTES_MAX;
        if !fits {
            self.took(bytes);
        }
        fits
    }

    /// So many bytes wait no more.
    pub fn took(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

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
