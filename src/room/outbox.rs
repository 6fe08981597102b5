//! The control lane of one connection: replies, kicks, `dropped`, HTTP answers. First out, never dropped.
//!
//! Owned by the connection on its shard. Empty and without heap while nothing waits. Its bound is judged by the shard,
//! which closes a viewer (4413) rather than drop a byte of it.

/// Bytes waiting for one socket.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: u32,
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

    /// What waits, oldest first.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.sent as usize..]
    }

    /// Where to append.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
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
            }
            got.extend_from_slice(outbox.pending());
            prop_assert_eq!(got, want);
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
