//! When a shard takes heartbeats together. Part of the shard's turn; pure, time is an argument.
//!
//! A heartbeat is a read and a small write, and most of what it costs is waking up for it: of 30 us for each of 200,000
//! connections on one core, 23 % went to leaving the idle state and 19 % to waking the client's side. While nobody says
//! anything on a shard, the second sign of life within one step of the clock makes it wait for the step's end, and what
//! comes meanwhile is one turn. The steps are those of the node's clock, so that all shards of a core wake together, and
//! wheel ticks begin with one of them.
//!
//! The price is [`limits::LULL_STEP_MS`] at most for the first word after [`limits::LULL_AFTER_MS`] of silence, where
//! heartbeats come thick. Whatever another thread posts ends the wait.

use std::time::Duration;

use crate::base::clock::Now;
use crate::base::limits;

const STEP_NS: u64 = limits::LULL_STEP_MS * 1_000_000;
const AFTER_NS: u64 = limits::LULL_AFTER_MS * 1_000_000;

/// What a shard has heard lately.
#[derive(Debug)]
pub struct Lull {
    /// When anything but a heartbeat was last asked of the shard, in monotonic ns.
    stirred_ns: u64,
    /// The step that is counted.
    step: u64,
    /// Signs of life within it.
    heard: usize,
}

impl Lull {
    /// A shard that starts is not quiet.
    pub fn new(now: Now) -> Lull {
        Lull {
            stirred_ns: now.mono_ns,
            step: 0,
            heard: 0,
        }
    }

    /// Somebody wants something that is no heartbeat.
    pub fn stir(&mut self, now: Now) {
        self.stirred_ns = now.mono_ns;
    }

    /// A turn is over that took `events` from the poller: how long its shard may look away from its sockets.
    pub fn pause(&mut self, events: usize, now_ns: u64) -> Option<Duration> {
        let step = now_ns / STEP_NS;
        if step != self.step {
            (self.step, self.heard) = (step, 0);
        }
        self.heard += events;
        let quiet = now_ns.saturating_sub(self.stirred_ns) >= AFTER_NS;
        // A full poll has left others waiting: they are taken at once.
        let all_taken = events < limits::EVENTS_PER_POLL;
        (quiet && all_taken && self.heard >= 2)
            .then(|| Duration::from_nanos(STEP_NS - now_ns % STEP_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(limits::LULL_STEP_MS);

    fn at(ns: u64) -> Now {
        Now {
            mono_ns: ns,
            unix_ms: 0,
        }
    }

    /// A shard that was stirred at 0, and an instant at the beginning of a step at which it has been quiet for long.
    fn quiet() -> (Lull, u64) {
        (Lull::new(at(0)), AFTER_NS.next_multiple_of(STEP_NS))
    }

    #[test]
    fn the_second_sign_of_life_in_a_step_waits_for_its_end() {
        let (mut lull, now_ns) = quiet();
        assert_eq!(lull.pause(1, now_ns), None);
        assert_eq!(lull.pause(0, now_ns + 1), None);
        let left = STEP - Duration::from_nanos(10);
        assert_eq!(lull.pause(1, now_ns + 10), Some(left));
        // The next step counts anew; what gathered is one turn, and the rest of the step is waited for at once.
        assert_eq!(lull.pause(1, now_ns + STEP_NS), None);
        assert_eq!(lull.pause(5, now_ns + 2 * STEP_NS), Some(STEP));
        assert_eq!(lull.pause(0, now_ns + 3 * STEP_NS), None);
        // Whoever found no place in a full poll does not wait.
        let full = limits::EVENTS_PER_POLL;
        assert_eq!(lull.pause(full, now_ns + 4 * STEP_NS), None);
        assert!(lull.pause(full - 1, now_ns + 4 * STEP_NS).is_some());
    }

    #[test]
    fn whoever_says_something_is_answered_at_once_and_so_is_who_speaks_soon_after() {
        let (mut lull, now_ns) = quiet();
        assert!(lull.pause(2, now_ns).is_some());
        lull.stir(at(now_ns));
        assert_eq!(lull.pause(9, now_ns + AFTER_NS - 1), None);
        assert!(lull.pause(9, now_ns + AFTER_NS + STEP_NS).is_some());
    }
}
