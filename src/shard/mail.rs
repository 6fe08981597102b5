//! A shard's post: its own mailbox, the others', and what could not be posted yet.
//!
//! Owned by the shard. Nothing blocks and nothing is lost in silence: a publish that finds a mailbox full is handed back
//! to be refused (`busy`); everything else waits here in order. Wakes are noted and sent once per destination.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::ShardId;
use crate::base::limits;
use crate::bus::{Address, Msg};
use crate::net::bell::Bell;
use crate::sync::mailbox::{Inbox, Mailbox, Wake};

/// The post office of one shard.
pub struct Mail {
    me: ShardId,
    inbox: Inbox<Msg>,
    others: Vec<Other>,
    /// Messages to this shard itself: no mailbox, same order.
    local: VecDeque<Msg>,
    backlog_len: usize,
}

/// What is needed to write to one shard.
struct Other {
    mailbox: Mailbox<Msg>,
    bell: Arc<Bell>,
    wake_noted: bool,
    /// Posted after a full mailbox; goes first.
    backlog: VecDeque<Msg>,
}

impl Mail {
    /// The post office of shard `me` of all `shards`.
    pub fn new(me: ShardId, inbox: Inbox<Msg>, shards: &[Address]) -> Mail {
        let other = |address: &Address| Other {
            mailbox: address.mailbox.clone(),
            bell: Arc::clone(&address.bell),
            wake_noted: false,
            backlog: VecDeque::new(),
        };
        Mail {
            me,
            inbox,
            others: shards.iter().map(other).collect(),
            local: VecDeque::new(),
            backlog_len: 0,
        }
    }

    /// Posts. A full mailbox makes it wait here, in order.
    pub fn post(&mut self, to: ShardId, msg: Msg) {
        if to == self.me {
            self.local.push_back(msg);
            return;
        }
        let Some(other) = self.others.get_mut(to.index()) else {
            debug_assert!(false, "no shard {to:?}");
            return;
        };
        if other.backlog.is_empty() {
            match other.mailbox.post(msg) {
                Ok(wake) => other.wake_noted |= wake == Wake::Needed,
                Err(msg) => {
                    other.backlog.push_back(msg);
                    self.backlog_len += 1;
                }
            }
        } else {
            other.backlog.push_back(msg);
            self.backlog_len += 1;
        }
    }

    /// Posts something that may be refused: handed back when it would have to wait.
    pub fn try_post(&mut self, to: ShardId, msg: Msg) -> Result<(), Msg> {
        if to == self.me {
            if self.local.len() >= limits::MAILBOX_MESSAGES {
                return Err(msg);
            }
            self.local.push_back(msg);
            return Ok(());
        }
        let Some(other) = self.others.get_mut(to.index()) else {
            return Err(msg);
        };
        if !other.backlog.is_empty() {
            return Err(msg);
        }
        let wake = other.mailbox.post(msg)?;
        other.wake_noted |= wake == Wake::Needed;
        Ok(())
    }

    /// Whether so much waits for that shard that nothing should be added for it that can be refused.
    pub fn is_backed_up(&self, to: ShardId) -> bool {
        self.others
            .get(to.index())
            .is_some_and(|other| other.backlog.len() > limits::BACKLOG_MESSAGES_SOFT)
    }

    /// Tries again to post what waits.
    pub fn flush_backlog(&mut self) {
        if self.backlog_len == 0 {
            return;
        }
        for other in &mut self.others {
            while let Some(msg) = other.backlog.pop_front() {
                match other.mailbox.post(msg) {
                    Ok(wake) => {
                        other.wake_noted |= wake == Wake::Needed;
                        self.backlog_len -= 1;
                    }
                    Err(msg) => {
                        other.backlog.push_front(msg);
                        break;
                    }
                }
            }
        }
    }

    /// Wakes whoever was noted, once each.
    pub fn wake_noted(&mut self) {
        for other in &mut self.others {
            if std::mem::take(&mut other.wake_noted)
                && let Err(error) = other.bell.ring()
            {
                // The other thread's poller is gone: the process is ending.
                tracing::debug!(%error, "a shard could not be woken");
            }
        }
    }

    /// Before the mailbox is drained: from now on a post needs a wake again.
    pub fn begin(&self) {
        self.inbox.begin();
    }

    /// The next message from elsewhere.
    pub fn next(&mut self) -> Option<Msg> {
        self.inbox.next()
    }

    /// The next message from this shard to itself.
    pub fn next_local(&mut self) -> Option<Msg> {
        self.local.pop_front()
    }

    /// Looks away from the sockets for `at_most`: until the time is over, a message comes, or one is there already.
    pub fn doze(&self, at_most: Duration) {
        if let Some(own) = self.others.get(self.me.index()) {
            own.bell.doze(at_most, || {
                self.inbox.begin();
                !self.inbox.is_empty()
            });
        }
    }

    /// Messages from elsewhere that wait.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Messages for others that wait here.
    pub fn backlog(&self) -> usize {
        self.backlog_len
    }
}
