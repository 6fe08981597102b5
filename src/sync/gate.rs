//! Semaphores for admission: permits that come back by being dropped, and a rate shared by all shards.
//!
//! Used by every shard at the door, never on the way of a line. Lock-free; a permit is one pointer.

use std::sync::Arc;

use super::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::base::rate::Rate;

/// A counting semaphore whose size may change.
#[derive(Debug)]
pub struct Gate {
    in_use: AtomicUsize,
    max: AtomicUsize,
}

impl Gate {
    /// A gate with `max` permits.
    pub fn new(max: usize) -> Arc<Gate> {
        Arc::new(Gate {
            in_use: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        })
    }

    /// A permit, if one is left. The count never passes the size, not even for a moment.
    pub fn try_acquire(self: &Arc<Gate>) -> Option<Permit> {
        let mut in_use = self.in_use.load(Ordering::Relaxed);
        loop {
            if in_use >= self.max.load(Ordering::Relaxed) {
                return None;
            }
            match self.in_use.compare_exchange_weak(
                in_use,
                in_use + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    return Some(Permit {
                        gate: Arc::clone(self),
                    });
                }
                Err(now) => in_use = now,
            }
        }
    }

    /// Permits out now.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Its size.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Changes its size. Permits that are out stay out: a smaller gate lets nobody in until enough have come back.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }
}

/// A place in a gate; it returns when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct Permit {
    gate: Arc<Gate>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.in_use.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A rate shared by all shards: the generic cell rate algorithm (ITU-T I.371) in one word.
#[derive(Debug)]
pub struct RateGate {
    /// Monotonic ns at which the bucket is full again.
    full_at_ns: AtomicU64,
}

impl Default for RateGate {
    fn default() -> RateGate {
        RateGate::new()
    }
}

impl RateGate {
    /// A full bucket.
    pub fn new() -> RateGate {
        RateGate {
            full_at_ns: AtomicU64::new(0),
        }
    }

    /// Takes one token. All callers read the same clock.
    ///
    /// # Errors
    /// Milliseconds until there is one, at least 1.
    pub fn try_take(&self, rate: Rate, now_ns: u64) -> Result<(), u32> {
        if rate.per_s == 0 {
            return Ok(());
        }
        let token_ns = 1_000_000_000 / u64::from(rate.per_s);
        let depth_ns = token_ns * u64::from(rate.burst.max(1));
        let mut full_at = self.full_at_ns.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now_ns) + token_ns;
            let over_ns = next.saturating_sub(now_ns + depth_ns);
            if over_ns > 0 {
                let wait_ms = over_ns.div_ceil(1_000_000);
                return Err(wait_ms.try_into().unwrap_or(u32::MAX));
            }
            match self.full_at_ns.compare_exchange_weak(
                full_at,
                next,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => full_at = now,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn permits_return_on_drop() {
        let gate = Gate::new(2);
        let first = gate.try_acquire();
        let second = gate.try_acquire();
        assert!(first.is_some() && second.is_some());
        assert!(gate.try_acquire().is_none());
        drop(first);
        assert_eq!(gate.in_use(), 1);
        assert!(gate.try_acquire().is_some());
        gate.set_max(1);
        assert!(gate.try_acquire().is_none());
        assert_eq!((gate.in_use(), gate.max()), (1, 1));
    }

    #[test]
    fn the_shared_rate_is_exact() {
        let gate = RateGate::new();
        let rate = Rate {
            per_s: 100,
            burst: 10,
        };
        let admitted = (0..=2_000)
            .filter(|ms| gate.try_take(rate, ms * 1_000_000).is_ok())
            .count();
        assert_eq!(admitted, 10 + 200);
        assert_eq!(gate.try_take(rate, 2_000_000_000), Err(10));
    }

    #[test]
    fn threads_together_get_no_more_than_the_rate() {
        let gate = Arc::new(RateGate::new());
        let rate = Rate {
            per_s: 1000,
            burst: 50,
        };
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let gate = Arc::clone(&gate);
                let take = move |us: &u64| gate.try_take(rate, us * 1000).is_ok();
                std::thread::spawn(move || (0..100_000u64).filter(take).count())
            })
            .collect();
        let admitted: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert!(admitted <= 150, "{admitted}");
        assert!(admitted >= 50, "{admitted}");
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;

    #[test]
    fn the_gate_never_overshoots_and_everything_returns() {
        loom::model(|| {
            let gate = Gate::new(1);
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let gate = Arc::clone(&gate);
                    loom::thread::spawn(move || {
                        if let Some(permit) = gate.try_acquire() {
                            assert_eq!(gate.in_use(), 1);
                            drop(permit);
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(gate.in_use(), 0);
        });
    }

    #[test]
    fn two_takers_never_share_the_last_token() {
        loom::model(|| {
            let gate = Arc::new(RateGate::new());
            let rate = Rate { per_s: 1, burst: 1 };
            let other = {
                let gate = Arc::clone(&gate);
                loom::thread::spawn(move || gate.try_take(rate, 0).is_ok())
            };
            let mine = gate.try_take(rate, 0).is_ok();
            let theirs = other.join().unwrap();
            assert!(mine != theirs);
        });
    }
}
