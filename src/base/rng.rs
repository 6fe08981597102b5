//! Chance, from a seed that comes from outside: for spread retry times and epochs, never for secrets.

/// SplitMix64 (Steele, Lea, Flood 2014): one add and a mix per number, every seed good.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator that always gives the same numbers for the same seed.
    pub fn seed(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 for 0). Multiply-shift: its bias is below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// `ms` spread uniformly by up to `percent` (at most 100) either way.
    pub fn jitter(&mut self, ms: u32, percent: u32) -> u32 {
        let spread = u64::from(ms) * u64::from(percent.min(100)) / 100;
        let low = u64::from(ms) - spread;
        (low + self.below(2 * spread + 1))
            .try_into()
            .unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b) = (Rng::seed(7), Rng::seed(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        assert_ne!(Rng::seed(7).next_u64(), Rng::seed(8).next_u64());
    }

    #[test]
    fn numbers_stay_below_and_reach_everywhere() {
        let mut rng = Rng::seed(1);
        let mut seen = [0; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 800), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn jitter_spreads_both_ways() {
        let mut rng = Rng::seed(1);
        let all: Vec<u32> = (0..1000).map(|_| rng.jitter(1000, 25)).collect();
        assert!(all.iter().all(|ms| (750..=1250).contains(ms)));
        assert!(all.iter().any(|&ms| ms < 800) && all.iter().any(|&ms| ms > 1200));
        assert_eq!(rng.jitter(0, 25), 0);
    }
}
