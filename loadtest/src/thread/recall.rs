//! Frames of a room as the first of a thread's viewers read them. The others get the same bytes, and what is the same need not be
//! read again, only compared: the swarm can then drink faster than a server pours. One client thread's own.
//!
//! A frame counts as known only if every byte of it is what some viewer of the same room has read the long way, so that
//! nothing is believed that was not checked.

use std::collections::VecDeque;

use crate::dialect::Line;

/// Bytes of frames a thread remembers, all rooms together.
const BYTES_MAX: usize = 16 << 20;
/// One room at most; a viewer that lags further reads the long way.
const ROOM_BYTES_MAX: usize = 1 << 20;
/// At least.
const ROOM_BYTES_MIN: usize = 4 << 10;

/// A frame that was read.
#[derive(Debug)]
struct Known {
    frame: Box<[u8]>,
    line: Line,
    fingerprint: u64,
}

/// What is remembered of one room, in the order of the lines' numbers.
#[derive(Debug, Default)]
pub(super) struct Recall {
    epoch: u64,
    known: VecDeque<Known>,
    /// How many were forgotten: the place of the first one.
    base: u64,
    bytes: usize,
}

impl Recall {
    /// How much of a room to remember where there are so many.
    pub(super) fn bytes_max(rooms: usize) -> usize {
        (BYTES_MAX / rooms.max(1)).clamp(ROOM_BYTES_MIN, ROOM_BYTES_MAX)
    }

    /// If `bytes` begin with the frame at `place`: its length, its line and that line's fingerprint.
    pub(super) fn at(&self, place: u64, epoch: u64, bytes: &[u8]) -> Option<(usize, Line, u64)> {
        let index = place.checked_sub(self.base)?;
        let known = self.known.get(usize::try_from(index).ok()?)?;
        let same = epoch == self.epoch && bytes.starts_with(&known.frame);
        same.then_some((known.frame.len(), known.line, known.fingerprint))
    }

    /// A member is in this numbering from now on. A room may come back to one it had before, which is not the higher one then.
    pub(super) fn renumber(&mut self, epoch: u64) {
        if epoch != self.epoch {
            self.base += self.known.len() as u64;
            self.known.clear();
            (self.bytes, self.epoch) = (0, epoch);
        }
    }

    /// A frame of one line was read the long way: it is remembered, if it is the newest. Returns the place of what should
    /// come after it.
    pub(super) fn learn(
        &mut self,
        frame: &[u8],
        line: Line,
        fingerprint: u64,
        epoch: u64,
        bytes_max: usize,
    ) -> u64 {
        if epoch > self.epoch {
            self.renumber(epoch);
        }
        let newest = self
            .known
            .back()
            .is_none_or(|last| last.line.seq < line.seq);
        if newest && epoch == self.epoch {
            self.bytes += frame.len();
            self.known.push_back(Known {
                frame: frame.into(),
                line,
                fingerprint,
            });
            while self.bytes > bytes_max
                && let Some(first) = self.known.pop_front()
            {
                self.bytes -= first.frame.len();
                self.base += 1;
            }
        }
        self.base
            + self
                .known
                .partition_point(|known| known.line.seq <= line.seq) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100;

    fn line(seq: u64) -> Line {
        Line {
            seq,
            event: false,
            stamp: None,
        }
    }

    fn learn(recall: &mut Recall, seq: u64, frame: &str) -> u64 {
        recall.learn(frame.as_bytes(), line(seq), seq * 7, 1, MAX)
    }

    #[test]
    fn what_one_viewer_read_the_next_one_knows() {
        let mut recall = Recall::default();
        assert_eq!(learn(&mut recall, 5, "five"), 1);
        assert_eq!(learn(&mut recall, 6, "six"), 2);
        assert_eq!(recall.at(0, 1, b"fivesix"), Some((4, line(5), 35)));
        assert_eq!(recall.at(1, 1, b"six"), Some((3, line(6), 42)));
        assert_eq!(recall.at(2, 1, b"seven"), None, "nobody has read it");
        assert_eq!(recall.at(0, 1, b"fiVe"), None, "a byte is another");
        assert_eq!(recall.at(0, 1, b"fiv"), None, "its end has not come");
        assert_eq!(recall.at(0, 2, b"five"), None, "another numbering");
    }

    #[test]
    fn who_missed_some_goes_on_behind_what_it_read() {
        let mut recall = Recall::default();
        for (seq, frame) in [(1, "a"), (2, "b"), (4, "d"), (5, "e")] {
            learn(&mut recall, seq, frame);
        }
        assert_eq!(learn(&mut recall, 2, "b"), 2);
        assert_eq!(learn(&mut recall, 3, "its own line"), 2);
        assert_eq!(recall.at(2, 1, b"d"), Some((1, line(4), 28)));
        assert_eq!(learn(&mut recall, 9, "nine"), 5);
    }

    #[test]
    fn a_room_may_come_back_to_the_numbering_it_had() {
        let mut recall = Recall::default();
        recall.renumber(5);
        recall.learn(b"alone", line(9), 0, 5, MAX);
        recall.renumber(2);
        assert_eq!(recall.at(0, 5, b"alone"), None);
        let place = recall.learn(b"back", line(7), 0, 2, MAX);
        assert_eq!(recall.at(place - 1, 2, b"back"), Some((4, line(7), 0)));
    }

    #[test]
    fn memory_has_a_bound_and_a_new_numbering_begins_anew() {
        let mut recall = Recall::default();
        let frame = "x".repeat(30);
        for seq in 1..=10 {
            learn(&mut recall, seq, &frame);
        }
        assert!(recall.bytes <= MAX && recall.known.len() == 3);
        assert_eq!(recall.at(0, 1, frame.as_bytes()), None);
        let (_, found, _) = recall.at(9, 1, frame.as_bytes()).unwrap();
        assert_eq!(found.seq, 10);
        let place = recall.learn(b"one", line(1), 0, 2, MAX);
        assert_eq!(recall.at(place - 1, 2, b"one"), Some((3, line(1), 0)));
        let old = recall.learn(b"eleven", line(11), 0, 1, MAX);
        assert_eq!(
            recall.known.len(),
            1,
            "what is of the old numbering is not kept"
        );
        assert_eq!(recall.at(old, 1, b"twelve"), None);
        let huge = "y".repeat(2 * MAX);
        recall.learn(huge.as_bytes(), line(2), 0, 2, MAX);
        assert_eq!((recall.bytes, recall.known.len()), (0, 0));
    }
}
