//! Sweeps over every viewer of the shard, a bounded number per turn: broadcasts, and the drain.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Shard;
use super::conn::Kind;
use crate::base::limits;
use crate::proto::danmaku::server;
use crate::proto::ws::close::Close;
use crate::session::End;
use crate::session::viewer::reply;
use crate::telemetry::table::Counter;

/// Sweeps under way.
#[derive(Debug, Default)]
pub struct Sweeps {
    /// Broadcasts in order; each remembers how far it has come. A viewer sees them in this order, because every sweep
    /// walks the slots upwards and a later one never overtakes.
    broadcasts: VecDeque<Broadcast>,
    drain: Option<Drain>,
}

#[derive(Debug)]
struct Broadcast {
    what: What,
    next_slot: usize,
}

#[derive(Debug)]
enum What {
    /// One frame for all.
    Frame(Bytes),
    /// `notice reconnect`, a time of its own for each, spread over this long.
    Reconnect { spread_ms: u32 },
}

#[derive(Debug)]
struct Drain {
    batch: usize,
    interval_ms: u64,
    next_ms: u64,
    next_slot: usize,
}

impl Sweeps {
    /// A frame for every viewer.
    pub fn broadcast(&mut self, frame: Bytes) {
        let what = What::Frame(frame);
        self.broadcasts.push_back(Broadcast { what, next_slot: 0 });
    }

    /// Whether one more broadcast may wait. None while draining: the drain waits for them.
    pub fn takes_broadcasts(&self) -> bool {
        self.drain.is_none() && self.broadcasts.len() < limits::BROADCASTS_MAX
    }

    /// Whether the shard is being emptied.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether a broadcast is under way.
    pub fn is_busy(&self) -> bool {
        !self.broadcasts.is_empty()
    }

    /// When the next batch of the drain is due, in monotonic ms.
    pub fn next_ms(&self) -> Option<u64> {
        self.drain.as_ref().map(|drain| drain.next_ms)
    }
}

impl Shard {
    /// Tells every viewer to come back at a time of its own, then closes them in batches.
    pub(super) fn begin_drain(&mut self, batch: usize, interval_ms: u64) {
        if self.sweeps.drain.is_some() {
            return;
        }
        let batch = batch.max(1);
        let batches = self.viewers.div_ceil(batch).max(1) as u64;
        let spread_ms = (batches * interval_ms).try_into().unwrap_or(u32::MAX);
        self.sweeps.broadcasts.push_back(Broadcast {
            what: What::Reconnect { spread_ms },
            next_slot: 0,
        });
        self.sweeps.drain = Some(Drain {
            batch,
            interval_ms,
            next_ms: self.now.mono_ms() + interval_ms,
            next_slot: 0,
        });
    }

    /// The sweep step of the turn.
    pub(super) fn sweep(&mut self) {
        self.sweep_broadcast();
        self.sweep_drain();
    }

    fn sweep_broadcast(&mut self) {
        let Some(mut broadcast) = self.sweeps.broadcasts.pop_front() else {
            return;
        };
        let past = (broadcast.next_slot + limits::SWEEP_VISITS_PER_TURN).min(self.conns.capacity());
        for slot in broadcast.next_slot..past {
            let Some(conn) = self.conns.get_mut(slot) else {
                continue;
            };
            let Kind::Viewer(viewer) = &conn.kind else {
                continue;
            };
            if viewer.is_closing() || conn.flags.doomed {
                continue;
            }
            let id = conn.id(slot as u32);
            match &broadcast.what {
                What::Frame(frame) => conn.outbox.tail().extend_from_slice(frame),
                What::Reconnect { spread_ms } => {
                    let after_ms = self.rng.below(u64::from(*spread_ms) + 1) as u32;
                    reply(conn.outbox.tail(), |json| {
                        server::notice_reconnect(json, u64::from(after_ms));
                    });
                }
            }
            self.note_flush(id);
        }
        broadcast.next_slot = past;
        if past < self.conns.capacity() {
            self.sweeps.broadcasts.push_front(broadcast);
        }
    }

    fn sweep_drain(&mut self) {
        let now_ms = self.now.mono_ms();
        let Some(mut drain) = self.sweeps.drain.take() else {
            return;
        };
        if drain.next_ms <= now_ms && self.sweeps.broadcasts.is_empty() {
            drain.next_ms = now_ms + drain.interval_ms;
            let end = End::new(
                Close::GoingAway.code(),
                "this node is being emptied: connect again",
            );
            let mut closed = 0;
            while closed < drain.batch && drain.next_slot < self.conns.capacity() {
                let slot = drain.next_slot;
                drain.next_slot += 1;
                let Some(conn) = self.conns.get(slot) else {
                    continue;
                };
                if matches!(&conn.kind, Kind::Viewer(viewer) if !viewer.is_closing()) {
                    let id = conn.id(slot as u32);
                    self.close_viewer(id, &end);
                    self.metrics.inc(Counter::DrainClosedTotal);
                    closed += 1;
                }
            }
            if drain.next_slot >= self.conns.capacity() && self.viewers > 0 {
                // Whoever was let in while the first round ran.
                drain.next_slot = 0;
            }
        }
        self.sweeps.drain = Some(drain);
    }
}
