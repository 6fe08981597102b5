//! What client threads count while they run: written by one thread each, read by the main thread at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

/// Counters of one client thread.
#[derive(Debug, Default)]
pub struct Meter {
    /// Clients connected now.
    pub connected: Count,
    /// Upgrades that succeeded.
    pub connects: Count,
    /// When the last of them did, microseconds of the run's clock.
    pub last_connect_us: Count,
    /// Clients turned away for good.
    pub given_up: Count,
    /// Attempts refused.
    pub refused: Count,
    /// Lines and gifts accepted.
    pub accepted: Count,
    /// Lines on their way, not yet answered.
    pub pending: Count,
    /// At the end of the run, members that lack lines others have.
    pub behind: Count,
    /// Lines received.
    pub deliveries: Count,
    /// Bytes received.
    pub bytes: Count,
    /// Gaps, duplicates, lines out of order, broken frames, as they are noticed.
    pub faults: Count,
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds. Only the owner calls it: a load and a store, no locked instruction.
    pub fn add(&self, n: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes off. Only the owner calls it.
    pub fn sub(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// Replaces the value. Only the owner calls it.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Distributions of about one second of one client thread.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When the second ended, microseconds of the run's clock.
    pub at_us: u64,
    /// Scheduled time to receipt, microseconds.
    pub deliveries: Histogram<u64>,
    /// Of those, lines that were said at another node than the one they were heard at.
    pub across: Histogram<u64>,
    /// Scheduled arrival to first message.
    pub connects: Histogram<u64>,
    /// Scheduled time to HTTP answer.
    pub pushes: Histogram<u64>,
}

impl Sample {
    /// Nothing counted.
    pub fn empty() -> Sample {
        Sample {
            at_us: 0,
            deliveries: latencies(),
            across: latencies(),
            connects: latencies(),
            pushes: latencies(),
        }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Sample) {
        for (mine, theirs) in [
            (&mut self.deliveries, &other.deliveries),
            (&mut self.across, &other.across),
            (&mut self.connects, &other.connects),
            (&mut self.pushes, &other.pushes),
        ] {
            if !theirs.is_empty() {
                // Both have the same bounds, so every value fits.
                let _ = mine.add(theirs);
            }
        }
    }

    /// Back to nothing, keeping the memory.
    pub fn reset(&mut self) {
        self.deliveries.reset();
        self.across.reset();
        self.connects.reset();
        self.pushes.reset();
    }
}

/// The longest latency told apart, microseconds: ten minutes. What took longer counts as this.
pub const LATENCY_US_MAX: u64 = 600_000_000;

/// An empty distribution, exact to a tenth of a percent.
#[allow(clippy::expect_used)]
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
        .expect("bounds that the crate documents as valid")
}
