//! A room's delivery budget: how many lines a second each of its viewers is sent. Owned by the room's home.
//!
//! While a room stays below its budget nothing here is felt. Above it lines are gathered for a window, so that all of them
//! have the same chance, and of the crowd's lines as many are chosen as the window has left. What people say who run the
//! room goes out in any case and is paid for first.

use crate::base::rate::{Bucket, Rate};
use crate::base::rng::Rng;

/// How long a room above its budget gathers.
pub const WINDOW_NS: u64 = 100_000_000;
/// Windows in a second.
const WINDOWS_PER_S: u32 = (1_000_000_000 / WINDOW_NS) as u32;

/// Lines that may still be sent.
#[derive(Debug, Default)]
pub struct Budget {
    bucket: Bucket,
    per_s: u32,
}

impl Budget {
    /// Sets the lines per second; 0 = no bound. It takes effect at once.
    pub fn set(&mut self, per_s: u32) {
        self.per_s = per_s;
    }

    /// Whole lines that may go out now; `None` = as many as there are.
    pub fn left(&mut self, now_ms: u64) -> Option<u32> {
        (self.per_s > 0).then(|| self.bucket.left(self.rate(), now_ms))
    }

    /// So many went out; what goes beyond the budget is owed, for a window at most.
    pub fn spend(&mut self, lines: u32) {
        if self.per_s > 0 {
            self.bucket.spend(self.rate(), lines);
        }
    }

    /// One line more than a window's share, so that no part of a line is lost between two windows.
    fn rate(&self) -> Rate {
        Rate {
            per_s: self.per_s,
            burst: self.per_s.div_ceil(WINDOWS_PER_S) + 1,
        }
    }
}

/// Chooses `chosen` of `all`, each set of them as likely as any other (Knuth, The Art of Computer Programming 3.4.2,
/// algorithm S): asked once for each in turn.
#[derive(Debug)]
pub struct Choice {
    all: u32,
    chosen: u32,
}

impl Choice {
    /// `chosen` counts as at most `all`.
    pub fn new(chosen: u32, all: u32) -> Choice {
        Choice {
            all,
            chosen: chosen.min(all),
        }
    }

    /// Whether the next one is chosen.
    pub fn next(&mut self, chance: &mut Rng) -> bool {
        let takes = chance.below(u64::from(self.all)) < u64::from(self.chosen);
        self.all = self.all.saturating_sub(1);
        self.chosen -= u32::from(takes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    /// What a budget lets through of `per_window` lines in each of a minute's windows.
    fn sent(per_s: u32, per_window: u32) -> u32 {
        let mut budget = Budget::default();
        budget.set(per_s);
        let windows = 60 * u64::from(WINDOWS_PER_S);
        let of_window = |window: u64| {
            let left = budget.left(window * WINDOW_NS / 1_000_000);
            let sent = left.unwrap_or(u32::MAX).min(per_window);
            budget.spend(sent);
            sent
        };
        (1..=windows).map(of_window).sum()
    }

    #[test]
    fn so_many_per_second_means_so_many_per_second() {
        for per_s in [1u32, 3, 10, 25, 40, 999] {
            let most = per_s * 60 + per_s.div_ceil(WINDOWS_PER_S) + 1;
            let least = per_s * 60;
            let sent = sent(per_s, 1000);
            assert!((least..=most).contains(&sent), "{per_s}: {sent}");
        }
        assert_eq!(sent(0, 1000), 600_000, "no bound");
        assert_eq!(sent(40, 2), 1200, "below it nothing is held back");
    }

    #[test]
    fn what_is_owed_is_paid_back_within_a_window() {
        let mut budget = Budget::default();
        budget.set(10);
        budget.spend(1000);
        assert_eq!(budget.left(0), Some(0));
        assert!(budget.left(400).unwrap() > 0);
    }

    #[test]
    fn everyone_is_as_likely() {
        let mut chance = Rng::seed(7);
        let mut taken = [0u32; 20];
        for _ in 0..10_000 {
            let mut choice = Choice::new(5, 20);
            for count in &mut taken {
                *count += u32::from(choice.next(&mut chance));
            }
        }
        assert!(taken.iter().all(|n| (2300..2700).contains(n)), "{taken:?}");
    }

    proptest! {
        #[test]
        fn exactly_as_many_are_chosen(all in 0u32..200, chosen in 0u32..250, seed in any::<u64>()) {
            let mut chance = Rng::seed(seed);
            let mut choice = Choice::new(chosen, all);
            let taken = (0..all).filter(|_| choice.next(&mut chance)).count();
            prop_assert_eq!(taken as u32, chosen.min(all));
        }
    }
}
