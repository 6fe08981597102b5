//! What one viewer received of one room. Owned by the viewer's client thread; it never allocates while nothing is wrong.

use std::collections::{HashMap, VecDeque};

/// A membership as its viewer sees it, from `joined` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The room's numbering.
    pub epoch: u64,
    /// The newest number before the join.
    pub base: u64,
    /// The highest number seen; `base` before the first line.
    pub last: u64,
    /// Lines received, each number once.
    pub received: u64,
    /// Sum of their fingerprints, wrapping.
    pub sum: u64,
    /// Lines the server said were dropped.
    pub told: u64,
    /// Numbers seen again.
    pub duplicated: u32,
    /// Numbers that came after a higher one.
    pub out_of_order: u32,
}

/// What a line was to its viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The next one.
    Next,
    /// Above the next one: some are missing for now.
    Gap,
    /// Late: it fills a gap.
    Late,
    /// Seen before (or from before the join).
    Again,
}

/// Ranges of missing numbers remembered for one viewer; older ones are then only counted.
pub const RANGES_MAX: usize = 1024;

/// What is missing, by viewer. Empty in a run where nothing is dropped.
pub type Gaps = HashMap<u32, Missing>;

/// Numbers one viewer misses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Inclusive and ascending, at most [`RANGES_MAX`].
    pub ranges: VecDeque<(u64, u64)>,
    /// How many lines are missing in older ranges, which are forgotten: such a membership cannot be held against the
    /// ledger's contents any more, only counted.
    pub forgotten: u64,
}

impl Missing {
    /// How many lines.
    pub fn lines(&self) -> u64 {
        let ranges = self.ranges.iter().map(|(from, to)| to - from + 1);
        self.forgotten + ranges.sum::<u64>()
    }

    fn note(&mut self, from: u64, to: u64) {
        if self.ranges.len() == RANGES_MAX
            && let Some((from, to)) = self.ranges.pop_front()
        {
            self.forgotten += to - from + 1;
        }
        self.ranges.push_back((from, to));
    }

    /// Takes a number out; whether it was missing.
    fn fill(&mut self, seq: u64) -> bool {
        let ranges = &mut self.ranges;
        let at = ranges.partition_point(|(_, to)| *to < seq);
        let Some((from, to)) = ranges.get(at).copied().filter(|(from, _)| *from <= seq) else {
            return false;
        };
        ranges.remove(at);
        if seq < to {
            ranges.insert(at, (seq + 1, to));
        }
        if from < seq {
            ranges.insert(at, (from, seq - 1));
        }
        true
    }
}

impl Tally {
    /// A membership that begins after `base`.
    pub fn joined(epoch: u64, base: u64) -> Tally {
        Tally {
            epoch,
            base,
            last: base,
            ..Tally::default()
        }
    }

    /// Nothing up to `upto` will come any more: what did not is missing.
    pub fn skip(&mut self, upto: u64, viewer: u32, gaps: &mut Gaps) {
        if upto > self.last {
            let missing = gaps.entry(viewer).or_default();
            missing.note(self.last + 1, upto);
            self.last = upto;
        }
    }

    /// Counts one line. `viewer` finds its missing numbers in `gaps`.
    pub fn line(&mut self, seq: u64, fingerprint: u64, viewer: u32, gaps: &mut Gaps) -> Seen {
        let seen = if seq == self.last + 1 {
            Seen::Next
        } else if seq > self.last {
            let missing = gaps.entry(viewer).or_default();
            missing.note(self.last + 1, seq - 1);
            Seen::Gap
        } else if gaps
            .get_mut(&viewer)
            .is_some_and(|missing| missing.fill(seq))
        {
            self.out_of_order += 1;
            Seen::Late
        } else {
            self.duplicated += 1;
            return Seen::Again;
        };
        self.last = self.last.max(seq);
        self.received += 1;
        self.sum = self.sum.wrapping_add(fingerprint);
        seen
    }
}

/// A membership when it is over, or when the run is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The viewer's number.
    pub viewer: u32,
    /// The room's index in the plan.
    pub room: u32,
    /// What was counted.
    pub tally: Tally,
    /// What is still missing below `tally.last`.
    pub missing: Missing,
    /// Whether its connection ended before it had read all that was on its way, the word of what was left out perhaps among
    /// it: what is missing is then neither lost nor told.
    pub cut_short: bool,
    /// Whether the viewer was a member until the end, so that the room's last line was meant for it too.
    pub to_the_end: bool,
    /// Whether it began before the run's first line was due.
    pub early: bool,
    /// Whether it ended because the room's numbering began anew: what follows is the viewer's next membership.
    pub renumbered: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(seqs: &[u64]) -> (Tally, Vec<(u64, u64)>, Vec<Seen>) {
        let mut gaps = Gaps::default();
        let mut tally = Tally::joined(1, 10);
        let seen = seqs
            .iter()
            .map(|seq| tally.line(*seq, *seq, 3, &mut gaps))
            .collect();
        (
            tally,
            gaps.remove(&3).unwrap_or_default().ranges.into(),
            seen,
        )
    }

    #[test]
    fn a_run_of_lines_leaves_no_gaps() {
        let (tally, gaps, seen) = hear(&[11, 12, 13]);
        assert_eq!(seen, [Seen::Next; 3]);
        assert_eq!(
            (tally.last, tally.received, tally.sum, gaps),
            (13, 3, 36, vec![])
        );
    }

    #[test]
    fn gaps_are_kept_and_filled_by_what_comes_late() {
        let (tally, gaps, seen) = hear(&[11, 16, 14, 14, 12, 13, 15]);
        assert_eq!(
            seen,
            [
                Seen::Next,
                Seen::Gap,
                Seen::Late,
                Seen::Again,
                Seen::Late,
                Seen::Late,
                Seen::Late
            ]
        );
        assert_eq!((tally.out_of_order, tally.duplicated, gaps), (4, 1, vec![]));
        assert_eq!((tally.received, tally.sum), (6, 81));
    }

    #[test]
    fn what_came_before_the_join_is_a_duplicate() {
        let (tally, _, seen) = hear(&[10, 3, 11]);
        assert_eq!(seen, [Seen::Again, Seen::Again, Seen::Next]);
        assert_eq!((tally.duplicated, tally.received), (2, 1));
    }

    #[test]
    fn what_is_forgotten_is_still_counted() {
        let mut gaps = Gaps::default();
        let mut tally = Tally::joined(1, 0);
        for nth in 1..=RANGES_MAX as u64 + 10 {
            tally.line(nth * 2, 0, 3, &mut gaps);
        }
        let missing = gaps.remove(&3).unwrap();
        assert_eq!((missing.ranges.len(), missing.forgotten), (RANGES_MAX, 10));
        assert_eq!(missing.lines(), RANGES_MAX as u64 + 10);
    }

    #[test]
    fn a_swap_is_out_of_order_and_not_a_loss() {
        let (tally, gaps, _) = hear(&[11, 13, 12, 14]);
        assert_eq!(
            (tally.out_of_order, tally.duplicated, tally.received, gaps),
            (1, 0, 4, vec![])
        );
    }
}
