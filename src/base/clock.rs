//! The one file that asks the operating system the time. Everything else is told.
//!
//! A shard reads the clock once per turn and hands the [`Now`] down; a test makes its own.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks. `Copy`, so it is passed by value down a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since the [`Clock`] was made; never goes back.
    pub mono_ns: u64,
    /// Milliseconds since 1970-01-01 UTC, for people and tokens; may jump.
    pub unix_ms: u64,
}

impl Now {
    /// Milliseconds on the monotonic clock: deadlines, buckets, the wheel.
    pub fn mono_ms(self) -> u64 {
        self.mono_ns / 1_000_000
    }

    /// Seconds since 1970: `exp` and `nbf` of a token.
    pub fn unix_s(self) -> u64 {
        self.unix_ms / 1000
    }
}

/// The process's clock. Cheap to copy; all shards share one origin so that their readings compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic zero is this moment.
    pub fn start() -> Clock {
        Clock {
            origin: Instant::now(),
        }
    }

    /// Reads both clocks (two vDSO calls).
    pub fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono_ns: self.mono_ns(),
            unix_ms: unix.as_millis() as u64,
        }
    }

    /// Reads the monotonic clock alone, for timing inside a turn.
    pub fn mono_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}
