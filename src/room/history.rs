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

/// The newest messages, consecutive by number. What comes in with one batch shares a buffer, which lives until its last
/// message goes: so at most twice `bytes_max` is held.
#[derive(Debug, Default)]
pub struct History {
    messages: VecDeque<Bytes>,
    /// The number of the first of them.
    oldest: u64,
    bytes: usize,
}

impl History {
    /// Takes the newest messages of a batch, the last of them numbered `newest`; the oldest go until what is left is within
    /// `keep`. Where the batch's first messages are left out, what was kept before goes too: there must be no hole.
    pub fn extend(&mut self, newest: u64, messages: Vec<Bytes>, keep: Keep) {
        let first = (newest + 1).saturating_sub(messages.len() as u64);
        if first != self.oldest + self.messages.len() as u64 {
            self.messages.clear();
            self.bytes = 0;
            self.oldest = first;
        }
        self.bytes += messages.iter().map(Bytes::len).sum::<usize>();
        self.messages.extend(messages);
        self.trim(keep);
    }

    /// Lets the oldest go until what is left is within `keep`: a reload may have made it less.
    pub fn trim(&mut self, keep: Keep) {
        while self.messages.len() > keep.lines_max || self.bytes > keep.bytes_max {
            let Some(gone) = self.messages.pop_front() else {
                return;
            };
            self.bytes -= gone.len();
            self.oldest += 1;
        }
    }

    /// The oldest number kept.
    pub fn oldest(&self) -> Option<u64> {
        (!self.messages.is_empty()).then_some(self.oldest)
    }

    /// Everything numbered above `seq`, ascending.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &Bytes> {
        // A client may name any number, the largest too.
        let skip = seq.saturating_add(1).saturating_sub(self.oldest);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        self.messages.iter().skip(skip)
    }

    /// The newest `limit`, ascending.
    pub fn newest(&self, limit: usize) -> impl Iterator<Item = &Bytes> {
        let skip = self.messages.len().saturating_sub(limit);
        self.messages.iter().skip(skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<'a>(messages: impl Iterator<Item = &'a Bytes>) -> Vec<&'a [u8]> {
        messages.map(|m| &m[..]).collect()
    }

    fn message(fill: u8, bytes: usize) -> Vec<Bytes> {
        vec![Bytes::from(vec![fill; bytes])]
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
    fn what_a_batch_left_out_takes_the_older_with_it() {
        let keep = Keep {
            lines_max: 3,
            bytes_max: 100,
        };
        let mut history = History::default();
        history.extend(1, message(1, 10), keep);
        // 2 to 4 came in one batch and only 3 and 4 fit: 1 is before the hole.
        let batch = vec![Bytes::from(vec![3; 50]), Bytes::from(vec![4; 50])];
        history.extend(4, batch, keep);
        assert_eq!((history.oldest(), history.bytes), (Some(3), 100));
        // Nothing of 5 fits.
        history.extend(5, Vec::new(), keep);
        assert_eq!((history.oldest(), history.bytes), (None, 0));
        history.extend(6, message(6, 10), keep);
        assert_eq!((history.oldest(), history.bytes), (Some(6), 10));
    }
}
