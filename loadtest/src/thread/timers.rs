//! Timers of a client thread: a heap of what is due. An old entry is recognised by its generation and means nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a timer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// The client comes, or comes back.
    Arrive,
    /// Its connect has taken too long.
    GiveUp,
    /// Its heartbeat.
    Ping,
    /// It shows whether the server still has it.
    Prove,
    /// It goes elsewhere.
    Move,
    /// All that can be cut are.
    CutAll,
}

/// One entry: when, whose, of which generation, what.
type Entry = (u64, u32, u32, What);

#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<Entry>>);

impl Timers {
    pub(super) fn arm(&mut self, at_us: u64, client: u32, generation: u32, what: What) {
        self.0.push(Reverse((at_us, client, generation, what)));
    }

    /// When the next one is due; `u64::MAX` if there is none.
    pub(super) fn next_us(&self) -> u64 {
        self.0.peek().map_or(u64::MAX, |Reverse(entry)| entry.0)
    }

    /// The next one that is due.
    pub(super) fn pop(&mut self, now_us: u64) -> Option<Entry> {
        if self.next_us() > now_us {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}
