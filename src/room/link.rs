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
/// Of own batches that have not come back yet; above it no more are sent.
const AWAY_BYTES_MAX: usize = 512 << 10;

/// One room's tie.
#[derive(Debug)]
pub struct Link<T> {
    /// The newest batch made up.
    batch: u64,
    /// Batches up to this were given up: their lines were delivered here without the cluster.
    given_up: u64,
    /// The batch that is under way: its items, and who waits for their numbers.
    flying: Option<(Bytes, Vec<Sent<T>>)>,
    open: Vec<u8>,
    waiting: Vec<Sent<T>>,
    /// Own batches that have not come back yet, the one under way the last of them.
    away: VecDeque<Away>,
    away_bytes: usize,
    held: VecDeque<Lines>,
    held_bytes: usize,
    /// The room is being read.
    reading: bool,
    /// Connections in the room on the other nodes.
    others: BTreeMap<Box<str>, u32>,
}

/// A batch that has not come back.
#[derive(Debug)]
struct Away {
    batch: u64,
    payload: Bytes,
    speakers: Box<[Option<Speaker>]>,
    /// The number of its last item, once it has one.
    last: Option<u64>,
}

/// An item that was to come back and does not.
#[derive(Debug)]
pub struct Cut<T> {
    /// What it is.
    pub kind: Kind,
    /// The object from behind its number on.
    pub rest: Bytes,
    /// The viewer that said it.
    pub speaker: Option<Speaker>,
    /// Who waits for its number; `None` where they have it.
    pub sent: Option<Sent<T>>,
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

impl<T> Link<T> {
    /// A tie whose batches are numbered above `since`: above all that this node ever sent for the room, whose lines are not
    /// awaited any more.
    pub fn new(since: u64) -> Link<T> {
        Link {
            batch: since,
            given_up: since,
            flying: None,
            open: Vec::new(),
            waiting: Vec::new(),
            away: VecDeque::new(),
            away_bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            reading: false,
            others: BTreeMap::new(),
        }
    }

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

    /// The next batch, if there is something to send, nothing under way and not too much still to come back.
    pub fn next_batch(&mut self) -> Option<Outbound> {
        let full = self.away_bytes > AWAY_BYTES_MAX;
        if self.flying.is_some() || self.waiting.is_empty() || full {
            return None;
        }
        self.batch += 1;
        let payload = Bytes::from(std::mem::take(&mut self.open));
        let sent = std::mem::take(&mut self.waiting);
        let count = sent.len() as u32;
        self.away_bytes += payload.len();
        self.away.push_back(Away {
            batch: self.batch,
            payload: payload.clone(),
            speakers: sent.iter().map(|sent| sent.speaker).collect(),
            last: None,
        });
        let outbound = Outbound {
            batch: self.batch,
            count,
            payload: payload.clone(),
        };
        self.flying = Some((payload, sent));
        Some(outbound)
    }

    /// The items of a batch, as long as it is under way.
    pub fn items_of(&self, batch: u64) -> Option<node::Items> {
        let (payload, _) = self.flying.as_ref().filter(|_| batch == self.batch)?;
        Some(node::items(payload.clone()))
    }

    /// A batch has its numbers: who is to be told which. Nothing for a batch that was given up. `heard` says whether it will come
    /// back: where nobody reads it does not.
    pub fn numbered(
        &mut self,
        batch: u64,
        epoch: Epoch,
        first: u64,
        heard: bool,
    ) -> impl Iterator<Item = (Sent<T>, Published)> + use<T> {
        let flight = match batch == self.batch {
            true => self.flying.take(),
            false => None,
        };
        let (_, sent) = flight.unwrap_or_default();
        if !heard {
            self.away.clear();
            self.away_bytes = 0;
        } else if let Some(away) = self.away.back_mut().filter(|away| away.batch == batch) {
            away.last = Some(first + away.speakers.len() as u64 - 1);
        }
        let numbered = (first..).map(move |seq| Published { epoch, seq });
        sent.into_iter().zip(numbered)
    }

    /// The cluster is gone: everything that has not come back and all that waits for its number, in order. What has a number is passed
    /// over when it comes back after all.
    pub fn cut(&mut self) -> Vec<Cut<T>> {
        self.given_up = self.batch;
        self.held.clear();
        self.held_bytes = 0;
        self.reading = false;
        self.away_bytes = 0;
        let mut flying = self.flying.take();
        let mut cut = Vec::new();
        for away in std::mem::take(&mut self.away) {
            let waits = match away.batch == self.batch {
                true => flying.take().unwrap_or_default().1,
                false => Vec::new(),
            };
            let waits = waits
                .into_iter()
                .map(Some)
                .chain(std::iter::repeat_with(|| None));
            let items = node::items(away.payload).zip(away.speakers);
            cut.extend(items.zip(waits).map(|(((kind, rest), speaker), sent)| Cut {
                kind,
                rest,
                speaker,
                sent,
            }));
        }
        let open = node::items(std::mem::take(&mut self.open).into());
        let waiting = std::mem::take(&mut self.waiting);
        cut.extend(open.zip(waiting).map(|((kind, rest), sent)| Cut {
            kind,
            rest,
            speaker: sent.speaker,
            sent: Some(sent),
        }));
        cut
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
        let mut speakers = Box::default();
        while let Some(away) = self.away.pop_front_if(|away| away.batch <= lines.batch) {
            self.away_bytes -= away.payload.len();
            if away.batch == lines.batch {
                speakers = away.speakers;
            }
        }
        speakers
    }

    /// Everything up to `seq` is here, however it came.
    pub fn has_all(&mut self, seq: u64) {
        let came = |away: &mut Away| away.last.is_some_and(|last| last <= seq);
        while let Some(away) = self.away.pop_front_if(came) {
            self.away_bytes -= away.payload.len();
        }
    }

    /// Another node's connections in the room.
    pub fn count(&mut self, node: &str, connections: u32, me: &str) {
        if is_of(node, me) {
            return;
        }
        match connections {
            0 => {
                self.others.remove(node);
            }
            _ => {
                // It has taken the place of what the node counted under an older name.
                let older = |name: &str| name != node && name_of(name) == name_of(node);
                self.others.retain(|name, _| !older(name));
                self.others.insert(node.into(), connections);
            }
        }
    }

    /// All other nodes' connections, as they stand in Redis.
    pub fn counts(&mut self, counts: impl Iterator<Item = (Box<str>, u32)>, me: &str) {
        self.others = counts
            .filter(|(node, connections)| !is_of(node, me) && *connections > 0)
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

/// Whether a count is this node's.
fn is_of(counted_as: &str, me: &str) -> bool {
    name_of(counted_as) == me
}

/// The node that counts so: it does under its name and a number, another one whenever what it counted before may have been given up.
fn name_of(counted_as: &str) -> &str {
    counted_as
        .rsplit_once('#')
        .map_or(counted_as, |(node, _)| node)
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
