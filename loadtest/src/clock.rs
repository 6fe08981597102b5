//! Time and chance for the swarm: the one file that asks the system for either. Any thread.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since the run's own beginning; copies share it, so that threads agree on every instant.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Begins now.
    pub fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// Microseconds since the beginning.
    pub fn now_us(self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_millis() as u64
}

/// A seed from the system, for runs that were given none.
pub fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(unix_ms())
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same run.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Evenly from `0..n`; 0 for `n` = 0. The bias is below 2^-32 for any `n` a swarm has.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Evenly from `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A waiting time with this mean, exponentially distributed.
    pub fn wait_us(&mut self, mean_us: u64) -> u64 {
        (-(1.0 - self.unit()).ln() * mean_us as f64) as u64
    }

    /// `us` and up to a quarter more, so that those refused together do not come back together.
    pub fn jittered_us(&mut self, us: u64) -> u64 {
        us + (self.unit() * us as f64 / 4.0) as u64
    }
}

/// SplitMix64's finaliser: spreads a number over 64 bits, one to one.
pub fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_their_mean_and_choices_their_bounds() {
        let mut chance = Chance::new(7);
        let sum: u64 = (0..100_000).map(|_| chance.wait_us(1000)).sum();
        assert!((95_000_000..105_000_000).contains(&sum), "{sum}");
        assert!((0..1000).all(|_| chance.below(3) < 3));
        assert_eq!(chance.below(0), 0);
        assert!((0..1000).all(|_| (400..=500).contains(&chance.jittered_us(400))));
    }
}
