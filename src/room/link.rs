//! A room's tie to the other nodes that share it: lines on their way to be numbered by the cluster, and lines that came from it.
//!
//! Owned by the room's home. Sans-IO: it says what is to be sent and what is to be taken; the shard posts it. At most one batch
//! is under way at a time, so that lines of this node keep their order whatever becomes of a connection, and what comes
//! meanwhile gathers into the next. `T` is who waits for an answer.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::ask::{Once, Published, Speaker};
use crate::base::ids::Epoch;
use crate::base::refusal::{Code, Refusal};
use crate::proto::node::{self, Kind, Lines};

/// What gathers while a batch is under way, at most.
const OPEN_BYTES_MAX: usize = 256 << 10;
/// What is held while something before it is missing, at most; what does not fit is read from the log.
const HELD_BYTES_MAX: usize = 1 << 20;
/// Own batches that have been numbered and not come back yet, at most.
const SPOKEN_MAX: usize = 16;

/// One room's tie.
#[derive(Debug)]
pub struct Link<T> {
    /// The newest batch made up.
    batch: u64,
    /// Batches up to this were given up: their lines were delivered here without the cluster.
    given_up: u64,
    flying: Option<Flight<T>>,
    open: Vec<u8>,
    waiting: Vec<Sent<T>>,
    /// Who said what in batches that have not come back yet.
    spoken: VecDeque<(u64, Box<[Option<Speaker>]>)>,
    held: VecDeque<Lines>,
    held_bytes: usize,
    /// The room is being read.
    reading: bool,
    /// Connections in the room on the other nodes.
    others: BTreeMap<Box<str>, u32>,
}

/// A batch under way.
#[derive(Debug)]
struct Flight<T> {
    payload: Bytes,
    sent: Vec<Sent<T>>,
}

/// A line or event that waits for its number.
#[derive(Debug)]
pub struct Sent<T> {
    /// What it is.
    pub kind: Kind,
    /// Who is told.
    pub waits: T,
    /// Its idempotency key.
    pub once: Option<Once>,
    /// The viewer that said it.
    pub speaker: Option<Speaker>,
}

/// A batch to be numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Which of this node's batches of this room.
    pub batch: u64,
    /// Items in it.
    pub count: u32,
    /// The items, as `proto::node` writes them.
    pub payload: Bytes,
}

/// What is to be done with lines that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// They follow on what is here.
    Take(Lines, Box<[Option<Speaker>]>),
    /// They are here already, or were delivered without the cluster: only their numbers count.
    Pass(Lines),
    /// Something before them is missing, or they belong to another numbering: the room is to be read, once.
    Read,
    /// Nothing.
    Wait,
}

impl<T> Default for Link<T> {
    fn default() -> Link<T> {
        Link {
            batch: 0,
            given_up: 0,
            flying: None,
            open: Vec::new(),
            waiting: Vec::new(),
            spoken: VecDeque::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            reading: false,
            others: BTreeMap::new(),
        }
    }
}

impl<T> Link<T> {
    /// Adds an item to what is to be numbered; `write` appends the object from behind its number on.
    ///
    /// # Errors
    /// `busy` when as much waits as may; who waits is handed back.
    pub fn put(
        &mut self,
        sent: Sent<T>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), (T, Refusal)> {
        if self.open.len() >= OPEN_BYTES_MAX {
            let reason = "lines wait for the cluster's number";
            return Err((sent.waits, Refusal::new(Code::Busy, reason).retry(100)));
        }
        node::put(&mut self.open, sent.kind, write);
        self.waiting.push(sent);
        Ok(())
    }

    /// The next batch, if there is something to send and nothing under way.
    pub fn next_batch(&mut self) -> Option<Outbound> {
        if self.flying.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.batch += 1;
        let payload = Bytes::from(std::mem::take(&mut self.open));
        let sent = std::mem::take(&mut self.waiting);
        let count = sent.len() as u32;
        if sent.iter().any(|sent| sent.speaker.is_some()) {
            let speakers = sent.iter().map(|sent| sent.speaker).collect();
            self.spoken.push_back((self.batch, speakers));
            if self.spoken.len() > SPOKEN_MAX {
                self.spoken.pop_front();
            }
        }
        let outbound = Outbound {
            batch: self.batch,
            count,
            payload: payload.clone(),
        };
        self.flying = Some(Flight { payload, sent });
        Some(outbound)
    }

    /// A batch has its numbers: who is to be told which. Nothing for a batch that was given up.
    pub fn numbered(
        &mut self,
        batch: u64,
        epoch: Epoch,
        first: u64,
    ) -> impl Iterator<Item = (Sent<T>, Published)> + use<T> {
        let flight = match batch == self.batch {
            true => self.flying.take(),
            false => None,
        };
        let sent = flight.map_or(Vec::new(), |flight| flight.sent);
        let numbered = (first..).map(move |seq| Published { epoch, seq });
        sent.into_iter().zip(numbered)
    }

    /// The cluster is gone: everything that waits for its number, in order. What was under way may have got one all the same,
    /// and is passed over when it comes back.
    pub fn cut(&mut self) -> Vec<(Bytes, Sent<T>)> {
        self.given_up = self.batch;
        self.spoken.clear();
        self.held.clear();
        self.held_bytes = 0;
        self.reading = false;
        let flight = self.flying.take();
        let (payload, sent) = flight.map_or_else(Default::default, |it| (it.payload, it.sent));
        let open = Bytes::from(std::mem::take(&mut self.open));
        let waiting = std::mem::take(&mut self.waiting);
        let items = node::items(payload).chain(node::items(open));
        let sent = sent.into_iter().chain(waiting);
        items.map(|(_, rest)| rest).zip(sent).collect()
    }

    /// Lines came, where `seq` of `epoch` is the newest that is here. `me` is this node's name.
    pub fn came(&mut self, lines: Lines, (epoch, seq): (Epoch, u64), me: &str) -> Next {
        if lines.epoch == epoch && lines.last() <= seq {
            self.speakers_of(&lines, me);
            return Next::Pass(lines);
        }
        if lines.epoch != epoch || lines.first > seq + 1 {
            return self.hold(lines);
        }
        if &*lines.node == me && lines.batch <= self.given_up {
            return Next::Pass(lines);
        }
        let speakers = self.speakers_of(&lines, me);
        Next::Take(lines, speakers)
    }

    fn hold(&mut self, lines: Lines) -> Next {
        self.held_bytes += lines.bytes();
        self.held.push_back(lines);
        while self.held_bytes > HELD_BYTES_MAX
            && let Some(oldest) = self.held.pop_front()
        {
            self.held_bytes -= oldest.bytes();
        }
        match std::mem::replace(&mut self.reading, true) {
            false => Next::Read,
            true => Next::Wait,
        }
    }

    /// The room is to be read; `false` if it is being read already.
    pub fn read(&mut self) -> bool {
        !std::mem::replace(&mut self.reading, true)
    }

    /// Whether it is being read.
    pub fn is_reading(&self) -> bool {
        self.reading
    }

    /// The room was read: what was held meanwhile, in order, to come once more.
    pub fn was_read(&mut self) -> VecDeque<Lines> {
        self.reading = false;
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }

    fn speakers_of(&mut self, lines: &Lines, me: &str) -> Box<[Option<Speaker>]> {
        if &*lines.node != me {
            return Box::default();
        }
        while let Some((batch, speakers)) = self.spoken.pop_front() {
            if batch == lines.batch {
                return speakers;
            }
            if batch > lines.batch {
                self.spoken.push_front((batch, speakers));
                break;
            }
        }
        Box::default()
    }

    /// Another node's connections in the room.
    pub fn count(&mut self, node: &str, connections: u32, me: &str) {
        if node == me {
            return;
        }
        match connections {
            0 => {
                self.others.remove(node);
            }
            _ => {
                self.others.insert(node.into(), connections);
            }
        }
    }

    /// All other nodes' connections, as they stand in Redis.
    pub fn counts(&mut self, counts: impl Iterator<Item = (Box<str>, u32)>, me: &str) {
        self.others = counts
            .filter(|(node, connections)| &**node != me && *connections > 0)
            .collect();
    }

    /// Connections on the other nodes.
    pub fn others(&self) -> u32 {
        let sum: u64 = self.others.values().map(|count| u64::from(*count)).sum();
        sum.min(u64::from(u32::MAX)) as u32
    }

    /// Whether lines wait for their numbers.
    pub fn is_idle(&self) -> bool {
        self.flying.is_none() && self.waiting.is_empty()
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
