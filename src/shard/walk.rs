//! The walk: members behind the end of their room's log are handed what they lack, straight from the log. Part of the
//! shard's turn; bounded per turn, fair between rooms, no allocation and no lock per delivery.

use slab::Slab;

use super::Shard;
use super::conn::Conn;
use super::hosting::Hosting;
use crate::base::clock::Now;
use crate::base::ids::{ConnId, RoomId};
use crate::base::limits;
use crate::config::checked::SlowPolicy;
use crate::net::stream::Moved;
use crate::proto::danmaku::server;
use crate::proto::ws::close::Close;
use crate::room::ask::Encoding;
use crate::room::stream::{Due, Stream};
use crate::session::End;
use crate::session::viewer::reply;
use crate::telemetry::block::Block;
use crate::telemetry::table::{Counter, Dropped, Hist};

/// Visits of one room before the next hot room has its turn.
const QUANTUM: usize = 64;

/// What came of a visit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Visited {
    /// Nothing is due to it any more.
    UpToDate,
    /// Its socket is full, or it may not be written to: a later event goes on.
    Held,
    /// The connection is broken.
    Broken,
    /// It was too slow: it is to be closed.
    TooSlow(End),
}

/// What every visit of a turn shares.
pub(super) struct Walker<'a> {
    pub now: Now,
    pub policy: SlowPolicy,
    pub metrics: &'a Block,
}

impl Shard {
    /// The walk step of the turn: at most `limits::VISITS_PER_TURN`, in turns of a quantum per room.
    pub(super) fn walk(&mut self) {
        let mut budget = limits::VISITS_PER_TURN;
        while budget > 0 {
            let Some((hosted, encoding)) = self.hosting.walking.pop_front() else {
                return;
            };
            let used = self.walk_room(hosted, encoding, QUANTUM.min(budget));
            budget = budget.saturating_sub(used.max(1));
        }
    }

    /// Visits up to `quantum` members that are behind. The room goes back to the end of the queue if its round is not
    /// done.
    fn walk_room(&mut self, hosted: u32, encoding: Encoding, quantum: usize) -> usize {
        self.seal_waiting(hosted);
        for used in 0..quantum {
            let Some(stream) = self.hosting.stream(hosted, encoding) else {
                return used;
            };
            let next = stream.next_behind(self.now.mono_ns);
            if let Some(begun_ns) = stream.take_passed() {
                let took_ns = self.node.clock.mono_ns().saturating_sub(begun_ns);
                self.metrics.observe(Hist::FanoutSeconds, took_ns);
            }
            let Some(at) = next else {
                self.round_done(hosted, encoding);
                return used;
            };
            self.metrics.inc(Counter::WalkVisitsTotal);
            self.visit_member(hosted, encoding, at);
        }
        self.hosting.walking.push_back((hosted, encoding));
        quantum
    }

    fn round_done(&mut self, hosted: u32, encoding: Encoding) {
        let Some(room) = self.hosting.rooms.get_mut(hosted as usize) else {
            return;
        };
        // A slot used anew may still stand in the queue for a room that is gone.
        if let Some(hall) = &mut room.streams[encoding.index()]
            && std::mem::take(&mut hall.queued)
        {
            hall.stream.settle();
        }
    }

    fn visit_member(&mut self, hosted: u32, encoding: Encoding, at: usize) {
        let walker = Walker {
            now: self.now,
            policy: self.policy.config.slow.policy,
            metrics: &self.metrics,
        };
        let Some((slot, visited)) =
            walker.visit(&mut self.hosting, &mut self.conns, hosted, encoding, at)
        else {
            return;
        };
        let id = match self.conns.get(slot as usize) {
            Some(conn) => conn.id(slot),
            None => return,
        };
        self.visited(id, hosted, visited);
    }

    /// Acts on what came of a visit.
    pub(super) fn visited(&mut self, id: ConnId, hosted: u32, visited: Visited) {
        match visited {
            Visited::Held => self.watch_stuck(id),
            Visited::UpToDate => {
                let closed = |room: &super::hosting::Hosted| room.closed;
                if self.hosting.rooms.get(hosted as usize).is_some_and(closed)
                    && let Some(conn) = self.conn(id)
                    && let Some(index) = conn.seats.iter().position(|seat| seat.hosted == hosted)
                {
                    // It has read the news of the close: the seat is no more.
                    self.leave_seat(id, index);
                }
            }
            Visited::Broken => self.doom(id),
            Visited::TooSlow(end) => self.close_viewer(id, &end),
        }
    }
}

impl Walker<'_> {
    /// Visits the member at `at`: its outbox first, then everything from its cursor to the end of the log. Returns its
    /// slot.
    pub(super) fn visit(
        &self,
        hosting: &mut Hosting,
        conns: &mut Slab<Conn>,
        hosted: u32,
        encoding: Encoding,
        at: usize,
    ) -> Option<(u32, Visited)> {
        let room = hosting.rooms.get_mut(hosted as usize)?;
        let stream = &mut room.streams[encoding.index()].as_mut()?.stream;
        let slot = stream.member(at)?.slot;
        let conn = conns.get_mut(slot as usize)?;
        let visited = self.serve(&room.id, stream, at, conn);
        conn.count_outbox(self.metrics);
        Some((slot, visited))
    }

    fn serve(&self, room: &RoomId, stream: &mut Stream, at: usize, conn: &mut Conn) -> Visited {
        // At most two rounds: one that catches up, one that sends.
        for _ in 0..2 {
            if conn.is_held() {
                return Visited::Held;
            }
            match stream.due(at) {
                Due::Nothing => return self.send_outbox(conn),
                Due::Frames(_) => return self.send(stream, at, conn),
                Due::Fallen => {
                    // What it is told of its fall stands behind what waits already.
                    if let Some(end) = self.fallen(room, stream, at, conn) {
                        return Visited::TooSlow(end);
                    }
                }
            }
        }
        Visited::Held
    }

    /// Nothing of the log is due: only what waits in the outbox.
    fn send_outbox(&self, conn: &mut Conn) -> Visited {
        if conn.outbox.is_empty() {
            return Visited::UpToDate;
        }
        self.metrics.inc(Counter::SendCallsTotal);
        match conn.flush_outbox(self.now.mono_ms()) {
            Some(bytes) => self.metrics.add(Counter::BytesOutTotal, bytes as u64),
            None => return Visited::Broken,
        }
        match conn.outbox.is_empty() {
            true => Visited::UpToDate,
            false => Visited::Held,
        }
    }

    /// One write with all that is pending: the outbox first, then the log.
    fn send(&self, stream: &mut Stream, at: usize, conn: &mut Conn) -> Visited {
        let Due::Frames(frames) = stream.due(at) else {
            return Visited::UpToDate;
        };
        let due = frames.len();
        self.metrics.inc(Counter::SendCallsTotal);
        let waiting = conn.outbox.len();
        let moved = match waiting {
            0 => conn.stream.write(frames),
            _ => conn.stream.write_both(conn.outbox.pending(), frames),
        };
        match moved {
            Moved::Bytes(bytes) => {
                self.metrics.add(Counter::BytesOutTotal, bytes as u64);
                if waiting > 0 {
                    conn.outbox.advance(bytes.min(waiting));
                    conn.stuck_ms = 0;
                }
                let bytes = bytes.saturating_sub(waiting);
                if bytes == 0 {
                    conn.note_blocked(true, self.now.mono_ms());
                    self.metrics.inc(Counter::SendBlockedTotal);
                    return Visited::Held;
                }
                let sent = stream.sent(at, bytes);
                self.metrics
                    .add(Counter::DeliveriesTotal, u64::from(sent.lines));
                self.metrics
                    .add(Counter::FramesOutTotal, u64::from(sent.frames));
                if sent.told > 0 {
                    self.metrics.dropped(Dropped::Sampled, u64::from(sent.told));
                }
                if bytes == due {
                    return Visited::UpToDate;
                }
                conn.outbox.tail().extend_from_slice(sent.remainder);
                conn.note_blocked(true, self.now.mono_ms());
            }
            Moved::Blocked => conn.note_blocked(false, self.now.mono_ms()),
            Moved::End | Moved::Broken => return Visited::Broken,
        }
        self.metrics.inc(Counter::SendBlockedTotal);
        Visited::Held
    }

    /// The log has let go of what this member needed: it is told how much, and given the events it missed.
    fn fallen(
        &self,
        room: &RoomId,
        stream: &mut Stream,
        at: usize,
        conn: &mut Conn,
    ) -> Option<End> {
        let too_slow = |why| Some(End::new(Close::TooSlow.code(), why));
        if self.policy == SlowPolicy::Close {
            return too_slow("this node closes viewers that fall behind the room");
        }
        let mut events = Vec::new();
        let Ok(missed) = stream.catch_up(at, &mut events) else {
            return too_slow("too slow even for the room's events");
        };
        self.metrics.inc(Counter::SlowViewersTotal);
        self.metrics.dropped(Dropped::Slow, u64::from(missed));
        let out = conn.outbox.tail();
        if missed > 0 {
            reply(out, |json| server::dropped(json, room, u64::from(missed)));
        }
        out.extend_from_slice(&events);
        None
    }
}
