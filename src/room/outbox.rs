//! The control lane of one connection: replies, kicks, `dropped`, HTTP answers. First out, never dropped.
//!
//! Owned by the connection on its shard. Empty and without heap while nothing waits. Its bound is judged by the shard,
//! which closes a viewer (4413) rather than drop a byte of it.

/// Bytes waiting for one socket.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: u32,
    /// What waited when [`Outbox::change`] was last asked.
    counted: u32,
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent as usize
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that wait now, less those that waited when this was last asked: for a sum over all outboxes that is kept up
    /// to date and never made anew.
    pub fn change(&mut self) -> i64 {
        let now = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut self.counted, now);
        i64::from(now) - i64::from(before)
    }

    /// What waits, oldest first.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.sent as usize..]
    }

    /// Where to append.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Nothing of it will be sent.
    pub fn give_up(&mut self) {
        self.bytes = Vec::new();
        self.sent = 0;
    }

    /// The socket took `taken` bytes.
    pub fn advance(&mut self, taken: usize) {
        let sent = self.sent as usize + taken;
        debug_assert!(sent <= self.bytes.len());
        if sent >= self.bytes.len() {
            self.sent = 0;
            self.bytes = Vec::new();
        } else {
            self.sent = sent as u32;
            // A large answer read slowly: do not carry what is gone.
            if sent > 64 * 1024 {
                self.compact();
            }
        }
    }

    fn compact(&mut self) {
        self.bytes.drain(..self.sent as usize);
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_leave_in_order(ops in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..50), 0usize..80), 1..60)) {
            let (mut outbox, mut model, mut got, mut want) = (Outbox::default(), Vec::<u8>::new(), Vec::new(), Vec::new());
            let mut sum = 0;
            for (bytes, take) in ops {
                outbox.tail().extend_from_slice(&bytes);
                model.extend_from_slice(&bytes);
                want.extend_from_slice(&bytes);
                let take = take.min(outbox.len());
                got.extend_from_slice(&outbox.pending()[..take]);
                outbox.advance(take);
                model.drain(..take);
                prop_assert_eq!(outbox.pending(), &model[..]);
                prop_assert_eq!(outbox.is_empty(), model.is_empty());
                sum += outbox.change();
                prop_assert_eq!(sum, model.len() as i64);
            }
            got.extend_from_slice(outbox.pending());
            prop_assert_eq!(got, want);
            outbox.give_up();
            prop_assert_eq!(sum + outbox.change(), 0);
        }
    }

    #[test]
    fn memory_comes_back() {
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(b"xxworld");
        outbox.advance(2);
        assert_eq!(outbox.pending(), b"world");
        outbox.advance(5);
        assert_eq!(outbox.tail().capacity(), 0);
    }
}
