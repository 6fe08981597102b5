//! A room's recent lines and events: a ring bounded in number and bytes. Owned by the room's home.

use std::collections::VecDeque;

use bytes::Bytes;

/// The newest messages, consecutive by number.
#[derive(Debug, Default)]
pub struct History {
    messages: VecDeque<Bytes>,
    /// The number of the first of them.
    oldest: u64,
    bytes: usize,
}

impl History {
    /// Keeps a message with the next number; the oldest go until at most `lines_max` and `bytes_max` are kept.
    pub fn push(&mut self, seq: u64, message: Bytes, lines_max: usize, bytes_max: usize) {
        if self.messages.is_empty() {
            self.oldest = seq;
        }
        debug_assert_eq!(self.oldest + self.messages.len() as u64, seq);
        self.bytes += message.len();
        self.messages.push_back(message);
        while self.messages.len() > lines_max || self.bytes > bytes_max {
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

    #[test]
    fn bounded_by_number_and_by_bytes() {
        let mut history = History::default();
        assert_eq!(history.oldest(), None);
        for seq in 1..=5u64 {
            history.push(seq, Bytes::from(vec![seq as u8; 10]), 3, 1000);
        }
        assert_eq!(history.oldest(), Some(3));
        assert_eq!(texts(history.after(3)), [[4; 10], [5; 10]]);
        assert_eq!(texts(history.after(0)).len(), 3);
        assert_eq!(texts(history.after(5)).len(), 0);
        assert_eq!(texts(history.newest(2)), [[4; 10], [5; 10]]);
        history.push(6, Bytes::from(vec![6; 95]), 3, 100);
        assert_eq!(history.oldest(), Some(6));
        history.push(7, Bytes::from(vec![7; 101]), 3, 100);
        assert_eq!(history.oldest(), None);
        history.push(8, Bytes::from(vec![8]), 0, 100);
        assert_eq!(history.oldest(), None);
        history.push(9, Bytes::from(vec![9]), 3, 100);
        assert_eq!(history.oldest(), Some(9));
    }
}
