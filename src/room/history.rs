//! A room's recent lines and events: a ring bounded in number and bytes. Owned by the room's home.

use std::collections::VecDeque;

use bytes::Bytes;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Messages.
    pub lines_max: usize,
    /// Bytes of them together.
    pub bytes_max: usize,
}

/// Messages of one batch, oldest first, back to back in a buffer that holds nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The buffer.
    pub bytes: Bytes,
    /// Where each message ends in it.
    pub ends: Vec<u32>,
}

impl Kept {
    /// How many messages.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The messages.
    pub fn messages(&self) -> impl Iterator<Item = Bytes> {
        (0..self.len()).map(|index| self.bytes.slice(self.range(index)))
    }

    fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[index] as usize
    }
}

/// The newest messages, consecutive by number. A batch's buffer lives until its last message goes: so at most twice
/// `bytes_max` is held.
#[derive(Debug, Default)]
pub struct History {
    batches: VecDeque<Kept>,
    /// Messages of the first batch that have been let go of.
    gone: usize,
    /// Messages kept.
    len: usize,
    /// The number of the first of them.
    oldest: u64,
    bytes: usize,
}

impl History {
    /// Takes the newest messages of a batch, the last of them numbered `newest`; the oldest go until what is left is within
    /// `keep`. Where the batch's first messages are left out, what was kept before goes too: there must be no hole.
    pub fn extend(&mut self, newest: u64, batch: Kept, keep: Keep) {
        let first = (newest + 1).saturating_sub(batch.len() as u64);
        if first != self.oldest + self.len as u64 {
            *self = History {
                oldest: first,
                ..History::default()
            };
        }
        if !batch.is_empty() {
            self.bytes += batch.bytes.len();
            self.len += batch.len();
            self.batches.push_back(batch);
        }
        self.trim(keep);
    }

    /// Lets the oldest go until what is left is within `keep`: a reload may have made it less.
    pub fn trim(&mut self, keep: Keep) {
        while self.len > keep.lines_max || self.bytes > keep.bytes_max {
            let Some(first) = self.batches.front() else {
                return;
            };
            self.bytes -= first.range(self.gone).len();
            self.oldest += 1;
            self.len -= 1;
            self.gone += 1;
            if self.gone == first.len() {
                self.batches.pop_front();
                self.gone = 0;
            }
        }
    }

    /// The oldest number kept.
    pub fn oldest(&self) -> Option<u64> {
        (self.len > 0).then_some(self.oldest)
    }

    /// Everything numbered above `seq`, ascending.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = Bytes> {
        // A client may name any number, the largest too.
        let skip = seq.saturating_add(1).saturating_sub(self.oldest);
        self.from(usize::try_from(skip).unwrap_or(usize::MAX))
    }

    /// The newest `limit`, ascending.
    pub fn newest(&self, limit: usize) -> impl Iterator<Item = Bytes> {
        self.from(self.len.saturating_sub(limit))
    }

    fn from(&self, skip: usize) -> impl Iterator<Item = Bytes> {
        let messages = self.batches.iter().flat_map(Kept::messages);
        messages.skip(self.gone.saturating_add(skip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(messages: impl Iterator<Item = Bytes>) -> Vec<Vec<u8>> {
        messages.map(|message| message.to_vec()).collect()
    }

    fn batch(messages: &[(u8, usize)]) -> Kept {
        let mut kept = Vec::new();
        let mut ends = Vec::new();
        for (fill, bytes) in messages {
            kept.extend(std::iter::repeat_n(*fill, *bytes));
            ends.push(kept.len() as u32);
        }
        Kept {
            bytes: kept.into(),
            ends,
        }
    }

    fn message(fill: u8, bytes: usize) -> Kept {
        batch(&[(fill, bytes)])
    }

    #[test]
    fn bounded_by_number_and_by_bytes() {
        let keep = |lines_max, bytes_max| Keep {
            lines_max,
            bytes_max,
        };
        let mut history = History::default();
        assert_eq!(history.oldest(), None);
        for seq in 1..=5u8 {
            history.extend(u64::from(seq), message(seq, 10), keep(3, 1000));
        }
        assert_eq!(history.oldest(), Some(3));
        assert_eq!(texts(history.after(3)), [[4; 10], [5; 10]]);
        assert_eq!(texts(history.after(0)).len(), 3);
        assert_eq!(texts(history.after(5)).len(), 0);
        assert_eq!(texts(history.after(u64::MAX)).len(), 0);
        assert_eq!(texts(history.newest(2)), [[4; 10], [5; 10]]);
        history.extend(6, message(6, 95), keep(3, 100));
        assert_eq!(history.oldest(), Some(6));
        history.trim(keep(3, 94));
        assert_eq!((history.oldest(), history.bytes), (None, 0));
        history.extend(7, message(7, 1), keep(0, 100));
        assert_eq!(history.oldest(), None);
        history.extend(8, message(8, 1), keep(3, 100));
        assert_eq!(history.oldest(), Some(8));
    }

    #[test]
    fn batches_are_let_go_of_message_by_message() {
        let keep = Keep {
            lines_max: 4,
            bytes_max: 100,
        };
        let mut history = History::default();
        history.extend(3, batch(&[(1, 10), (2, 20), (3, 30)]), keep);
        history.extend(6, batch(&[(4, 5), (5, 5), (6, 5)]), keep);
        assert_eq!((history.oldest(), history.bytes), (Some(3), 45));
        let sizes = |messages: Vec<Vec<u8>>| messages.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(texts(history.after(0))), [30, 5, 5, 5]);
        assert_eq!(texts(history.after(4)), [[5; 5], [6; 5]]);
        assert_eq!(texts(history.newest(1)), [[6; 5]]);
        assert_eq!(history.batches.len(), 2);
        history.extend(7, message(7, 1), keep);
        assert_eq!((history.oldest(), history.batches.len()), (Some(4), 2));
    }

    #[test]
    fn what_a_batch_left_out_takes_the_older_with_it() {
        let keep = Keep {
            lines_max: 3,
            bytes_max: 100,
        };
        let mut history = History::default();
        history.extend(1, message(1, 10), keep);
        // 2 to 4 came in one batch and only 3 and 4 fit: 1 is before the hole.
        history.extend(4, batch(&[(3, 50), (4, 50)]), keep);
        assert_eq!((history.oldest(), history.bytes), (Some(3), 100));
        // Nothing of 5 fits.
        history.extend(5, Kept::default(), keep);
        assert_eq!((history.oldest(), history.bytes), (None, 0));
        history.extend(6, message(6, 10), keep);
        assert_eq!((history.oldest(), history.bytes), (Some(6), 10));
    }
}
