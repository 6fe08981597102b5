//! Token buckets: "N per second means N per second". Plain values; time is an argument.

/// An allowance: `per_s` a second, `burst` at once. `per_s` 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back per second; 0 = unlimited.
    pub per_s: u32,
    /// Tokens there are at most; 0 counts as 1.
    pub burst: u32,
}

/// One token is this many parts, so that a millisecond's share of `per_s` tokens is `per_s` parts, exactly.
const PARTS: u64 = 1000;

/// A bucket, full to begin with. Exact over any time in which it is asked often enough not to run over; one of depth 1 runs
/// over by a part of a millisecond with every token. 16 bytes. It keeps what has been spent rather than what is left, so that a changed rate
/// (reload) takes effect at once and the empty value is a full bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Parts spent and not yet come back.
    spent: u64,
    /// Monotonic ms up to which they have come back.
    at_ms: u64,
}

const _: () = assert!(size_of::<Bucket>() == 16);

impl Bucket {
    /// Takes one token.
    ///
    /// # Errors
    /// Milliseconds until there is one, at least 1.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> Result<(), u32> {
        if rate.per_s == 0 {
            return Ok(());
        }
        self.refill(rate, now_ms);
        let depth = u64::from(rate.burst.max(1)) * PARTS;
        let over = (self.spent + PARTS).saturating_sub(depth);
        if over > 0 {
            let wait_ms = over.div_ceil(u64::from(rate.per_s)).max(1);
            return Err(wait_ms.try_into().unwrap_or(u32::MAX));
        }
        self.spent += PARTS;
        Ok(())
    }

    /// Whole tokens there are now.
    pub fn left(&mut self, rate: Rate, now_ms: u64) -> u32 {
        self.refill(rate, now_ms);
        let depth = u64::from(rate.burst.max(1)) * PARTS;
        let left = depth.saturating_sub(self.spent) / PARTS;
        left.try_into().unwrap_or(u32::MAX)
    }

    /// Takes so many tokens, there or not; at most one more depth is owed.
    pub fn spend(&mut self, rate: Rate, tokens: u32) {
        let depth = u64::from(rate.burst.max(1)) * PARTS;
        self.spent = (self.spent + u64::from(tokens) * PARTS).min(2 * depth);
    }

    /// Whether it is full: a full bucket need not be kept.
    pub fn is_full(&self, rate: Rate, now_ms: u64) -> bool {
        let mut later = *self;
        later.refill(rate, now_ms);
        later.spent == 0
    }

    fn refill(&mut self, rate: Rate, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        let back = passed_ms.saturating_mul(u64::from(rate.per_s));
        self.spent = self.spent.saturating_sub(back);
        self.at_ms = self.at_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate { per_s: 5, burst: 3 };
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, 1000), Ok(()));
        }
        assert_eq!(bucket.take(rate, 1000), Err(200));
        assert_eq!(bucket.take(rate, 1199), Err(1));
        assert_eq!(bucket.take(rate, 1200), Ok(()));
        assert!(!bucket.is_full(rate, 1700));
        assert!(bucket.is_full(rate, 1800));
    }

    #[test]
    fn nothing_per_second_is_no_limit() {
        let rate = Rate { per_s: 0, burst: 0 };
        let mut bucket = Bucket::default();
        assert!((0..10_000).all(|_| bucket.take(rate, 7).is_ok()));
    }

    proptest! {
        #[test]
        fn n_per_second_is_n_per_second(
            per_s in 1u32..2000, burst in 1u32..100,
            steps in prop::collection::vec(0u64..50, 1..400),
        ) {
            let rate = Rate { per_s, burst };
            let (mut bucket, mut now_ms, mut taken) = (Bucket::default(), 0, 0u64);
            for step in steps {
                now_ms += step;
                while bucket.take(rate, now_ms).is_ok() {
                    taken += 1;
                }
            }
            // Exact in whole tokens: the burst, and what has come back since. A pause longer than the burst loses some.
            let most = u64::from(burst) + now_ms * u64::from(per_s) / 1000;
            prop_assert!(taken <= most, "{} of {}", taken, most);
        }

        #[test]
        fn asked_without_a_pause_nothing_is_lost(per_s in 1u32..1000, burst in 2u32..50, seconds in 1u64..20) {
            let rate = Rate { per_s, burst };
            let mut bucket = Bucket::default();
            let mut taken = 0u64;
            for now_ms in 0..=seconds * 1000 {
                while bucket.take(rate, now_ms).is_ok() {
                    taken += 1;
                }
            }
            prop_assert_eq!(taken, u64::from(burst) + seconds * u64::from(per_s));
        }

        #[test]
        fn the_time_named_is_enough_and_needed(per_s in 1u32..2000, burst in 1u32..20) {
            let rate = Rate { per_s, burst };
            let mut bucket = Bucket::default();
            while bucket.take(rate, 0).is_ok() {}
            let wait = u64::from(bucket.take(rate, 0).unwrap_err());
            prop_assert!(bucket.take(rate, wait - 1).is_err() || wait == 1);
            prop_assert!(bucket.take(rate, wait).is_ok());
        }
    }
}
