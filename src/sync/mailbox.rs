//! A bounded mailbox with coalesced wakes: many shards post, one takes.
//!
//! The wake itself is the caller's (`net::bell`): a poster is told whether one is needed, notes it, and wakes at the end
//! of its own turn. The flag counts posts since the receiver last began; only the first asks for a wake.
//!
//! The receiver **begins before it drains**: a post that it does not see while draining came after `begin`, so that its
//! poster saw the reset flag and wakes. The flag is changed after the push with `AcqRel` and reset by `swap(AcqRel)`; a
//! relaxed store there would lose wake-ups.

use std::sync::Arc;

use super::atomic::{AtomicUsize, Ordering};

/// A mailbox of `capacity` messages.
pub fn mailbox<T>(capacity: usize) -> (Mailbox<T>, Inbox<T>) {
    let (sender, receiver) = queue::bounded(capacity);
    let posted = Arc::new(AtomicUsize::new(0));
    let mailbox = Mailbox {
        sender,
        posted: Arc::clone(&posted),
    };
    (mailbox, Inbox { receiver, posted })
}

/// Where to post. Cheap to clone.
#[derive(Debug)]
pub struct Mailbox<T> {
    sender: queue::Sender<T>,
    posted: Arc<AtomicUsize>,
}

/// Whether a post needs a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a needed wake that is not sent leaves the message lying"]
pub enum Wake {
    /// The receiver may be asleep: wake it, at the latest at the end of the turn.
    Needed,
    /// Somebody else has been told to.
    AlreadyComing,
}

impl<T> Mailbox<T> {
    /// Posts a message.
    ///
    /// # Errors
    /// The message itself, when the mailbox is full or its receiver gone.
    pub fn post(&self, message: T) -> Result<Wake, T> {
        self.sender.push(message)?;
        Ok(match self.posted.fetch_add(1, Ordering::AcqRel) {
            0 => Wake::Needed,
            _ => Wake::AlreadyComing,
        })
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Mailbox<T> {
        Mailbox {
            sender: self.sender.clone(),
            posted: Arc::clone(&self.posted),
        }
    }
}

/// The receiver's end.
#[derive(Debug)]
pub struct Inbox<T> {
    receiver: queue::Receiver<T>,
    posted: Arc<AtomicUsize>,
}

impl<T> Inbox<T> {
    /// To be called before draining, once per turn. Who stops before the mailbox is empty must come back by itself.
    pub fn begin(&self) {
        self.posted.swap(0, Ordering::AcqRel);
    }

    /// The oldest message.
    pub fn next(&self) -> Option<T> {
        self.receiver.pop()
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The queue under it: crossbeam's, which keeps each poster's messages in order.
#[cfg(not(loom))]
mod queue {
    use crossbeam_channel as channel;

    pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = channel::bounded(capacity);
        (Sender(sender), Receiver(receiver))
    }

    #[derive(Debug)]
    pub struct Sender<T>(channel::Sender<T>);

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Sender<T> {
            Sender(self.0.clone())
        }
    }

    impl<T> Sender<T> {
        pub fn push(&self, message: T) -> Result<(), T> {
            self.0
                .try_send(message)
                .map_err(channel::TrySendError::into_inner)
        }
    }

    #[derive(Debug)]
    pub struct Receiver<T>(channel::Receiver<T>);

    impl<T> Receiver<T> {
        pub fn pop(&self) -> Option<T> {
            self.0.try_recv().ok()
        }

        pub fn len(&self) -> usize {
            self.0.len()
        }
    }
}

/// The same interface over loom's mutex: crossbeam is not known to loom, and the flag is what is under test.
#[cfg(loom)]
mod queue {
    use std::collections::VecDeque;

    use loom::sync::{Arc, Mutex};

    pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Mutex::new(VecDeque::new()));
        (Sender(Arc::clone(&shared), capacity), Receiver(shared))
    }

    #[derive(Debug)]
    pub struct Sender<T>(Arc<Mutex<VecDeque<T>>>, usize);

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Sender<T> {
            Sender(Arc::clone(&self.0), self.1)
        }
    }

    impl<T> Sender<T> {
        pub fn push(&self, message: T) -> Result<(), T> {
            let mut queue = self.0.lock().unwrap();
            if queue.len() >= self.1 {
                return Err(message);
            }
            queue.push_back(message);
            Ok(())
        }
    }

    #[derive(Debug)]
    pub struct Receiver<T>(Arc<Mutex<VecDeque<T>>>);

    impl<T> Receiver<T> {
        pub fn pop(&self) -> Option<T> {
            self.0.lock().unwrap().pop_front()
        }

        pub fn len(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_post_asks_for_a_wake() {
        let (mailbox, inbox) = mailbox(3);
        assert_eq!(mailbox.post(1), Ok(Wake::Needed));
        assert_eq!(mailbox.clone().post(2), Ok(Wake::AlreadyComing));
        inbox.begin();
        assert_eq!(mailbox.post(3), Ok(Wake::Needed));
        assert_eq!(mailbox.post(4), Err(4));
        assert_eq!(inbox.len(), 3);
        let all: Vec<_> = std::iter::from_fn(|| inbox.next()).collect();
        assert_eq!(all, [1, 2, 3]);
        assert!(inbox.is_empty());
        drop(inbox);
        assert_eq!(mailbox.post(5), Err(5));
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Notify;

    use super::*;

    /// The receiver sleeps only when it found nothing after `begin`, and whoever is told to wakes it: every message
    /// arrives, or the model deadlocks.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let (mailbox, inbox) = mailbox(8);
            let bell = Arc::new(Notify::new());
            let posters: Vec<_> = (0..2)
                .map(|_| {
                    let (mailbox, bell) = (mailbox.clone(), Arc::clone(&bell));
                    loom::thread::spawn(move || {
                        if mailbox.post(1usize) == Ok(Wake::Needed) {
                            bell.notify();
                        }
                    })
                })
                .collect();
            let mut got = 0;
            while got < 2 {
                bell.wait();
                inbox.begin();
                while let Some(n) = inbox.next() {
                    got += n;
                }
            }
            for poster in posters {
                poster.join().unwrap();
            }
        });
    }

    /// A receiver that drains one message a turn and looks again by itself while there are more.
    #[test]
    fn a_bounded_drain_loses_nothing() {
        loom::model(|| {
            let (mailbox, inbox) = mailbox(8);
            let bell = Arc::new(Notify::new());
            let poster = {
                let bell = Arc::clone(&bell);
                loom::thread::spawn(move || {
                    for _ in 0..2 {
                        if mailbox.post(1usize) == Ok(Wake::Needed) {
                            bell.notify();
                        }
                    }
                })
            };
            let mut got = 0;
            while got < 2 {
                if inbox.is_empty() {
                    bell.wait();
                }
                inbox.begin();
                got += inbox.next().unwrap_or(0);
            }
            poster.join().unwrap();
        });
    }
}
