//! The flag between a thread that dozes for a bounded time and those who may end that early.
//!
//! Who has something for the thread posts it first and then calls [`Doze::interrupt`]; the thread calls [`Doze::begin`]
//! first and then looks at what was posted (with a mailbox: `begin` and a look at whether it is empty, or the poster may
//! believe that somebody else has woken it). Both are one read-modify-write of one word, so one of them sees the other:
//! either the poster is told that the thread dozes, or the thread finds what was posted and does not doze.

use super::atomic::{AtomicUsize, Ordering};

const AWAKE: usize = 0;
const DOZING: usize = 1;

/// Whether a thread dozes.
#[derive(Debug)]
pub struct Doze(AtomicUsize);

impl Default for Doze {
    fn default() -> Doze {
        Doze(AtomicUsize::new(AWAKE))
    }
}

impl Doze {
    /// Called by the thread, before it looks for the last time.
    pub fn begin(&self) {
        self.0.swap(DOZING, Ordering::AcqRel);
    }

    /// Called by the thread: it is awake, whatever woke it, and looks again.
    pub fn end(&self) {
        self.0.swap(AWAKE, Ordering::AcqRel);
    }

    /// Called by who has posted something. Says whether the thread dozes: then, and only then, it is for the caller to
    /// end that; nobody else is told to.
    pub fn interrupt(&self) -> bool {
        self.0.swap(AWAKE, Ordering::AcqRel) == DOZING
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_of_those_who_interrupt_is_told_to_wake() {
        let doze = Doze::default();
        assert!(!doze.interrupt());
        doze.begin();
        assert!(doze.interrupt());
        assert!(!doze.interrupt());
        doze.begin();
        doze.end();
        assert!(!doze.interrupt());
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::{Arc, Notify};

    use super::super::mailbox::{Wake, mailbox};
    use super::*;

    /// A thread that dozes or waits, by turns, and would do either for ever: every message arrives, or the model deadlocks.
    #[test]
    fn no_wake_up_is_lost_to_a_doze() {
        // Three preemptions: without a bound the model does not end.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let (mailbox, inbox) = mailbox(8);
            let (doze, nap, bell) = (
                Arc::new(Doze::default()),
                Arc::new(Notify::new()),
                Arc::new(Notify::new()),
            );
            let poster = {
                let (doze, nap, bell) = (Arc::clone(&doze), Arc::clone(&nap), Arc::clone(&bell));
                loom::thread::spawn(move || {
                    for _ in 0..2 {
                        if mailbox.post(1usize) == Ok(Wake::Needed) {
                            match doze.interrupt() {
                                true => nap.notify(),
                                false => bell.notify(),
                            }
                        }
                    }
                })
            };
            let mut got = 0;
            for turn in 0.. {
                inbox.begin();
                while let Some(n) = inbox.next() {
                    got += n;
                }
                if got == 2 {
                    break;
                }
                if turn % 2 == 0 {
                    doze.begin();
                    inbox.begin();
                    if inbox.is_empty() {
                        nap.wait();
                    }
                    doze.end();
                } else if inbox.is_empty() {
                    bell.wait();
                }
            }
            poster.join().unwrap();
        });
    }
}
