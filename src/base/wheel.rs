//! A timer wheel: one timer per connection slot, intrusive, without a heap allocation per timer.
//!
//! Owned by a shard; ticks are the caller's. It is a hashed wheel (Varghese and Lauck 1987, scheme 6): a timer further away
//! than the wheel is long stays in its bucket and is passed over once a round. Deadlines here are seconds and the wheel is
//! longer than that, so nothing cascades and every step is cheap; and since timers are lazy, most fire once a heartbeat.

/// Buckets: at a tick of 50 ms, 204 seconds.
const BUCKETS: usize = 4096;
const NONE: u32 = u32::MAX;

/// The wheel. Keys are small numbers (slab slots); memory is 16 bytes per key up to the largest ever used.
#[derive(Debug)]
pub struct Wheel {
    /// Every timer at or before this tick has fired.
    now: u32,
    heads: Box<[u32]>,
    /// One bit per bucket that holds a timer.
    occupied: [u64; BUCKETS / 64],
    nodes: Vec<Node>,
    len: usize,
}

/// A key's timer: in the doubly linked list of its bucket, or nowhere.
#[derive(Clone, Copy, Debug)]
struct Node {
    next: u32,
    prev: u32,
    at: u32,
    bucket: u32,
}

const UNUSED: Node = Node {
    next: NONE,
    prev: NONE,
    at: 0,
    bucket: NONE,
};

const _: () = assert!(size_of::<Node>() == 16);

impl Wheel {
    /// An empty wheel that stands at tick `now`.
    pub fn new(now: u32) -> Wheel {
        Wheel {
            now,
            heads: vec![NONE; BUCKETS].into(),
            occupied: [0; BUCKETS / 64],
            nodes: Vec::new(),
            len: 0,
        }
    }

    /// Sets the timer of `key` to fire at tick `at`, in place of the one it had. What is past already fires at the next
    /// tick.
    pub fn schedule(&mut self, key: u32, at: u32) {
        self.cancel(key);
        if self.nodes.len() <= key as usize {
            self.nodes.resize(key as usize + 1, UNUSED);
        }
        let at = at.max(self.now.saturating_add(1));
        let bucket = at as usize % BUCKETS;
        let next = self.heads[bucket];
        if next != NONE {
            self.nodes[next as usize].prev = key;
        }
        self.nodes[key as usize] = Node {
            next,
            prev: NONE,
            at,
            bucket: bucket as u32,
        };
        self.heads[bucket] = key;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.len += 1;
    }

    /// Takes the timer of `key` away, if it has one.
    pub fn cancel(&mut self, key: u32) {
        let Some(&node) = self.nodes.get(key as usize) else {
            return;
        };
        if node.bucket == NONE {
            return;
        }
        let bucket = node.bucket as usize;
        match node.prev {
            NONE => self.heads[bucket] = node.next,
            prev => self.nodes[prev as usize].next = node.next,
        }
        if node.next != NONE {
            self.nodes[node.next as usize].prev = node.prev;
        }
        if self.heads[bucket] == NONE {
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
        }
        self.nodes[key as usize] = UNUSED;
        self.len -= 1;
    }

    /// Moves on to tick `now` and appends the keys whose timers fire, at most `budget` of them. `true` when more are due:
    /// call again. A timer fires once, never early; a fired key has no timer any more.
    pub fn advance(&mut self, now: u32, budget: usize, fired: &mut Vec<u32>) -> bool {
        let mut left = budget;
        while self.now < now {
            let Some(tick) = self.next().filter(|&tick| tick <= now) else {
                self.now = now;
                return false;
            };
            let mut key = self.heads[tick as usize % BUCKETS];
            while key != NONE {
                let Node { next, at, .. } = self.nodes[key as usize];
                if at <= tick {
                    if left == 0 {
                        // The wheel stands just before this tick: the rest of its bucket is due at the next call.
                        self.now = tick - 1;
                        return true;
                    }
                    left -= 1;
                    self.cancel(key);
                    fired.push(key);
                }
                key = next;
            }
            self.now = tick;
        }
        false
    }

    /// The next tick at which there may be something to do: never later than the earliest timer, and earlier only where a
    /// timer rounds away shares a bucket.
    pub fn next(&self) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let first = self.now as usize + 1;
        let (mut word, bit) = (first % BUCKETS / 64, first % 64);
        let mut bits = self.occupied[word] & (u64::MAX << bit);
        for _ in 0..=self.occupied.len() {
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - first % BUCKETS) % BUCKETS;
                return Some((first + ahead).try_into().unwrap_or(u32::MAX));
            }
            word = (word + 1) % self.occupied.len();
            bits = self.occupied[word];
        }
        None
    }

    /// Timers set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Schedule(u32, u32),
        Cancel(u32),
        Advance(u32, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            5 => (0u32..40, prop_oneof![0u32..100, 0u32..20_000]).prop_map(|(k, d)| Op::Schedule(k, d)),
            1 => (0u32..40).prop_map(Op::Cancel),
            3 => (prop_oneof![0u32..80, 0u32..30_000], 1usize..50).prop_map(|(d, b)| Op::Advance(d, b)),
        ]
    }

    proptest! {
        /// The wheel against a map of deadlines: the same timers fire at the same ticks, once, none early.
        #[test]
        fn as_a_map_of_deadlines(start in 0u32..1_000_000, ops in prop::collection::vec(op(), 1..200)) {
            let mut wheel = Wheel::new(start);
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            let mut now = start;
            for op in ops {
                match op {
                    Op::Schedule(key, delay) => {
                        wheel.schedule(key, now + delay);
                        model.insert(key, (now + delay).max(now + 1));
                    }
                    Op::Cancel(key) => {
                        wheel.cancel(key);
                        model.remove(&key);
                    }
                    Op::Advance(by, budget) => {
                        let to = now + by;
                        let mut all = Vec::new();
                        loop {
                            let mut fired = Vec::new();
                            let more = wheel.advance(to, budget, &mut fired);
                            prop_assert!(fired.len() <= budget);
                            prop_assert!(!more || !fired.is_empty());
                            all.extend(fired);
                            if !more {
                                break;
                            }
                        }
                        let due: BTreeSet<u32> = model.iter().filter(|&(_, &at)| at <= to).map(|(&k, _)| k).collect();
                        let got: BTreeSet<u32> = all.iter().copied().collect();
                        prop_assert_eq!(got.len(), all.len(), "none twice");
                        prop_assert_eq!(&got, &due);
                        model.retain(|_, &mut at| at > to);
                        now = to;
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                match (wheel.next(), model.values().min()) {
                    (Some(next), Some(&earliest)) => {
                        prop_assert!(next > now && next <= earliest, "{} of {}", next, earliest);
                        let round = BUCKETS as u32;
                        if model.values().all(|&at| at - now < round) {
                            prop_assert_eq!(next, earliest);
                        }
                    }
                    (next, earliest) => prop_assert_eq!(next, earliest.copied()),
                }
            }
        }
    }

    #[test]
    fn a_timer_may_be_set_again_while_others_of_its_bucket_fire() {
        let mut wheel = Wheel::new(0);
        for key in 0..10 {
            wheel.schedule(key, 5);
        }
        let mut fired = Vec::new();
        assert!(wheel.advance(5, 4, &mut fired));
        assert_eq!(fired.len(), 4);
        wheel.schedule(fired[0], 6);
        assert!(!wheel.advance(6, 100, &mut fired));
        assert_eq!(fired.len(), 11);
        assert!(wheel.is_empty());
    }
}
