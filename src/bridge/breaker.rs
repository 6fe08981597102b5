//! Whether Redis is good enough to wait for: judged from how long answers take and whether the canary comes back.
//!
//! Sans-IO; owned by the thread that sends commands. Closed: lines wait for the cluster's numbers. Open: nobody waits, and it is tried
//! again after a while, longer each time. Half-open: connected again, and nothing waits before it has proven itself.

use crate::base::rng::Rng;

/// An answer that takes so long is none.
pub const ANSWER_MS: u64 = 250;
/// Answers this slow ...
const SLOW_NS: u64 = 20_000_000;
/// ... for so long without a faster one between are too slow: every line would wait for them.
const SLOW_FOR_NS: u64 = 400_000_000;
/// How often the canary is sent, ...
const CANARY_EVERY_NS: u64 = 200_000_000;
/// ... and while it is to prove that all is well.
const PROOF_EVERY_NS: u64 = 20_000_000;
/// A canary that has not come back for so long does not come: what is published does not reach this node.
const CANARY_LOST_NS: u64 = 600_000_000;
/// Good answers in a row that prove it, once a canary has come back.
const PROOFS: u32 = 3;
/// The first wait before it is tried again, ...
const WAIT_MS: u64 = 100;
/// ... twice as long each time, up to this.
const WAIT_MS_MAX: u64 = 2_000;

/// What it is, for metrics: 0, 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All is well.
    Closed = 0,
    /// Connected, and to prove itself.
    HalfOpen = 1,
    /// Not connected, or not to be waited for.
    Open = 2,
}

/// Why it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers took too long.
    Slow,
    /// What is published does not come back.
    Cut,
    /// Parts of it are at other servers than it was spoken to.
    Moved,
}

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    slow_since_ns: Option<u64>,
    /// When the first canary that has not come back was sent.
    unheard_ns: Option<u64>,
    /// One came back since the connection was made.
    heard: bool,
    proofs: u32,
    failures: u32,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker {
            state: State::Open,
            slow_since_ns: None,
            unheard_ns: None,
            heard: false,
            proofs: 0,
            failures: 0,
        }
    }
}

impl Breaker {
    /// What it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// How long after a canary the next one is sent.
    pub fn canary_every_ns(&self) -> u64 {
        match self.state {
            State::HalfOpen => PROOF_EVERY_NS,
            State::Closed | State::Open => CANARY_EVERY_NS,
        }
    }

    /// A connection was made.
    pub fn connected(&mut self) {
        self.state = State::HalfOpen;
        self.slow_since_ns = None;
        (self.unheard_ns, self.heard) = (None, false);
        self.proofs = 0;
    }

    /// An answer came, `took_ns` after its question. Returns whether it is closed by that.
    ///
    /// # Errors
    /// It is too slow.
    pub fn answered(&mut self, took_ns: u64, now_ns: u64) -> Result<bool, Fault> {
        if took_ns < SLOW_NS {
            self.slow_since_ns = None;
            self.proofs = self.proofs.saturating_add(1);
        } else {
            self.proofs = 0;
            let since_ns = *self
                .slow_since_ns
                .get_or_insert(now_ns.saturating_sub(took_ns));
            if self.state == State::HalfOpen || now_ns.saturating_sub(since_ns) >= SLOW_FOR_NS {
                return Err(Fault::Slow);
            }
        }
        Ok(self.prove())
    }

    /// A canary goes out.
    pub fn canary_sent(&mut self, now_ns: u64) {
        self.unheard_ns.get_or_insert(now_ns);
    }

    /// The newest canary that came back had been sent at `sent_ns`.
    ///
    /// # Errors
    /// One is missing.
    pub fn canary_heard(&mut self, sent_ns: u64, now_ns: u64) -> Result<(), Fault> {
        match self.unheard_ns {
            Some(unheard_ns) if sent_ns >= unheard_ns => {
                (self.unheard_ns, self.heard) = (None, true);
                Ok(())
            }
            Some(unheard_ns) if now_ns.saturating_sub(unheard_ns) > CANARY_LOST_NS => {
                Err(Fault::Cut)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn prove(&mut self) -> bool {
        let closes = self.state == State::HalfOpen && self.proofs >= PROOFS && self.heard;
        if closes {
            self.state = State::Closed;
            self.failures = 0;
        }
        closes
    }

    /// It failed. How long to wait before the next try, in ms.
    pub fn failed(&mut self, chance: &mut Rng) -> u64 {
        self.state = State::Open;
        let wait_ms = (WAIT_MS << self.failures.min(8)).min(WAIT_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        // Half of it by chance, so that nodes do not come back all at once.
        wait_ms / 2 + chance.below(wait_ms / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn closed() -> Breaker {
        let mut breaker = Breaker::default();
        breaker.connected();
        for at in 1..=5 {
            assert_eq!(breaker.answered(MS, at), Ok(false), "no canary yet");
        }
        breaker.canary_sent(6);
        assert_eq!(breaker.canary_heard(0, 7), Ok(()));
        assert_eq!(breaker.answered(MS, 7), Ok(false), "it is not back yet");
        assert_eq!(breaker.canary_heard(6, 8), Ok(()));
        assert_eq!(breaker.answered(MS, 8), Ok(true));
        assert_eq!(breaker.state(), State::Closed);
        breaker
    }

    #[test]
    fn it_closes_after_proofs_and_not_before() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.state(), State::Open);
        breaker.connected();
        assert_eq!(breaker.state(), State::HalfOpen);
        assert_eq!(breaker.answered(MS, 1), Ok(false));
        assert_eq!(breaker.answered(30 * MS, 2), Err(Fault::Slow));
        closed();
    }

    #[test]
    fn one_slow_answer_is_none_but_slow_ones_in_a_row_open_it() {
        let mut breaker = closed();
        assert_eq!(breaker.answered(100 * MS, 1000 * MS), Ok(false));
        assert_eq!(breaker.answered(MS, 1001 * MS), Ok(false));
        for at in [2000, 2100, 2200, 2300] {
            assert_eq!(breaker.answered(50 * MS, at * MS), Ok(false), "{at}");
        }
        assert_eq!(breaker.answered(50 * MS, 2400 * MS), Err(Fault::Slow));
    }

    #[test]
    fn a_canary_that_stays_away_is_a_cut() {
        let mut breaker = closed();
        breaker.canary_sent(200 * MS);
        breaker.canary_sent(400 * MS);
        assert_eq!(breaker.canary_heard(6, 800 * MS), Ok(()));
        assert_eq!(breaker.canary_heard(6, 801 * MS), Err(Fault::Cut));
        // A process that stood still has sent none meanwhile.
        assert_eq!(breaker.canary_heard(400 * MS, 900 * MS), Ok(()));
        assert_eq!(breaker.canary_heard(400 * MS, 9000 * MS), Ok(()));
    }

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let (mut breaker, mut chance) = (Breaker::default(), Rng::seed(1));
        let waits: Vec<u64> = (0..40).map(|_| breaker.failed(&mut chance)).collect();
        assert!(waits[0] <= WAIT_MS && waits[0] >= WAIT_MS / 2);
        assert!(waits.iter().all(|wait| *wait <= WAIT_MS_MAX));
        assert!(waits[20..].iter().all(|wait| *wait >= WAIT_MS_MAX / 2));
        assert!(waits[20..].windows(2).any(|two| two[0] != two[1]));
    }
}
