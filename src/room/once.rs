//! Idempotency keys a room has seen: bounded in number and age. Owned by the room's home.

use std::collections::{HashMap, VecDeque};

use super::ask::{Once, Published};
use crate::base::refusal::{Code, Refusal};

/// Keys kept per room. At about 100 bytes each 100 KB for a back end that pushes nothing without one.
pub const KEYS_MAX: usize = 1024;
/// How long a key is kept.
pub const KEEP_MS: u64 = 10 * 60 * 1000;

/// What has been done under which key.
#[derive(Debug, Default)]
pub struct Seen {
    done: HashMap<Box<str>, Done>,
    /// Keys by age, oldest first.
    order: VecDeque<(u64, Box<str>)>,
}

#[derive(Debug)]
struct Done {
    fingerprint: u64,
    published: Published,
}

impl Seen {
    /// What came of the same request before.
    ///
    /// # Errors
    /// `idempotency_mismatch`: the key was used for another request.
    pub fn find(&mut self, once: &Once, now_ms: u64) -> Result<Option<Published>, Refusal> {
        self.forget(now_ms, KEYS_MAX);
        match self.done.get(&once.key) {
            None => Ok(None),
            Some(done) if done.fingerprint == once.fingerprint => Ok(Some(done.published)),
            Some(_) => {
                let reason = "this Idempotency-Key was used for another request";
                Err(Refusal::new(Code::IdempotencyMismatch, reason))
            }
        }
    }

    /// Remembers what was done.
    pub fn keep(&mut self, once: Once, published: Published, now_ms: u64) {
        self.forget(now_ms, KEYS_MAX - 1);
        let done = Done {
            fingerprint: once.fingerprint,
            published,
        };
        self.order.push_back((now_ms, once.key.clone()));
        self.done.insert(once.key, done);
    }

    fn forget(&mut self, now_ms: u64, keep_max: usize) {
        while let Some((at_ms, _)) = self.order.front()
            && (*at_ms + KEEP_MS <= now_ms || self.order.len() > keep_max)
        {
            if let Some((_, key)) = self.order.pop_front() {
                self.done.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Epoch;

    fn once(key: &str, fingerprint: u64) -> Once {
        Once {
            key: key.into(),
            fingerprint,
        }
    }

    fn published(seq: u64) -> Published {
        Published {
            epoch: Epoch(1),
            seq,
        }
    }

    #[test]
    fn a_key_stands_for_one_request_for_ten_minutes() {
        let mut seen = Seen::default();
        seen.keep(once("k", 7), published(3), 1000);
        assert_eq!(seen.find(&once("k", 7), 2000), Ok(Some(published(3))));
        assert_eq!(
            seen.find(&once("k", 8), 2000).unwrap_err().code,
            Code::IdempotencyMismatch
        );
        assert_eq!(seen.find(&once("k", 8), 1000 + KEEP_MS), Ok(None));
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut seen = Seen::default();
        for n in 0..=KEYS_MAX as u64 {
            seen.keep(once(&n.to_string(), n), published(n), 0);
        }
        assert_eq!(seen.find(&once("0", 0), 0), Ok(None));
        assert_eq!(seen.find(&once("1", 1), 0), Ok(Some(published(1))));
        assert_eq!((seen.done.len(), seen.order.len()), (KEYS_MAX, KEYS_MAX));
    }
}
