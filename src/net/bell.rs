//! How other threads end a shard's wait: its poller's, or a doze of a few milliseconds in which it does not look at its
//! sockets.
//!
//! Rung by any thread; [`Bell::doze`] is for the one it belongs to, and bounded by the time given. A ring that comes while
//! the thread does neither ends its next wait at the poller.

use std::io;
use std::sync::OnceLock;
use std::thread::Thread;
use std::time::Duration;

use mio::{Registry, Token, Waker};

use crate::sync::doze::Doze;

/// One shard's bell.
#[derive(Debug)]
pub struct Bell {
    waker: Waker,
    doze: Doze,
    sleeper: OnceLock<Thread>,
}

impl Bell {
    /// A bell that ends waits at this poller, with this token.
    ///
    /// # Errors
    /// What making an `eventfd` says: no descriptor is left.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Bell> {
        Ok(Bell {
            waker: Waker::new(registry, token)?,
            doze: Doze::default(),
            sleeper: OnceLock::new(),
        })
    }

    /// Ends the shard's wait. Called after something was posted.
    ///
    /// # Errors
    /// The poller is gone: the process is ending.
    pub fn ring(&self) -> io::Result<()> {
        if self.doze.interrupt()
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
            return Ok(());
        }
        self.waker.wake()
    }

    /// Waits for `at_most`, or until it rings, or not at all when `is_wanted` says that something was posted. It may
    /// return early for no reason: the caller looks again.
    pub fn doze(&self, at_most: Duration, is_wanted: impl FnOnce() -> bool) {
        self.sleeper.get_or_init(std::thread::current);
        self.doze.begin();
        if !is_wanted() {
            std::thread::park_timeout(at_most);
        }
        self.doze.end();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use mio::{Events, Poll};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_ring_ends_a_doze() {
        let poll = Poll::new().unwrap();
        let bell = Arc::new(Bell::new(poll.registry(), Token(7)).unwrap());
        let (begun, dozes) = channel();
        let sleeper = {
            let bell = Arc::clone(&bell);
            std::thread::spawn(move || {
                bell.doze(LONG, || {
                    begun.send(()).unwrap();
                    false
                });
            })
        };
        dozes.recv().unwrap();
        bell.ring().unwrap();
        sleeper.join().unwrap();
    }

    #[test]
    fn what_was_posted_before_keeps_awake_and_a_ring_outside_of_a_doze_is_an_event() {
        let mut poll = Poll::new().unwrap();
        let bell = Bell::new(poll.registry(), Token(7)).unwrap();
        bell.doze(LONG, || true);
        bell.ring().unwrap();
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(LONG)).unwrap();
        let tokens: Vec<_> = events.iter().map(mio::event::Event::token).collect();
        assert_eq!(tokens, [Token(7)]);
    }
}
