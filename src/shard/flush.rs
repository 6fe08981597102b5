//! The flush step: outboxes of connections that were noted, and then whatever their rooms' logs hold for them.

use super::Shard;
use super::conn::Kind;
use super::walk::Walker;
use crate::base::ids::ConnId;
use crate::proto::ws::close::Close;
use crate::session::End;
use crate::telemetry::table::Counter;

impl Shard {
    /// The flush step of the turn. What is noted while it runs belongs to it too.
    pub(super) fn flush_noted(&mut self) {
        let mut index = 0;
        while let Some(&id) = self.flush.get(index) {
            index += 1;
            if let Some(conn) = self.conn(id) {
                conn.flags.flushing = false;
                self.flush_one(id);
            }
            if let Some(conn) = self.conns.get_mut(id.slot as usize) {
                conn.count_outbox(&self.metrics);
            }
        }
        self.flush.clear();
        if self.flush.capacity() > 4096 {
            self.flush = Vec::new();
        }
    }

    fn flush_one(&mut self, id: ConnId) {
        if self.rides_with_the_walk(id) {
            return;
        }
        let now_ms = self.now.mono_ms();
        let outbox_bytes_max = self.policy.config.slow.outbox_bytes_max;
        let Some(conn) = self.conn(id) else {
            return;
        };
        if matches!(conn.kind, Kind::Viewer(_)) && !conn.flags.blocked {
            self.catch_up(id);
        }
        let Some(conn) = self.conn(id) else {
            return;
        };
        let sends = u64::from(!conn.outbox.is_empty() && !conn.flags.blocked);
        let Some(taken) = conn.flush_outbox(now_ms) else {
            self.doom(id);
            return;
        };
        self.metrics.add(Counter::BytesOutTotal, taken as u64);
        self.metrics.add(Counter::SendCallsTotal, sends);
        let Some(conn) = self.conn(id) else {
            return;
        };
        if conn.outbox.is_empty() {
            if conn.flags.close_when_flushed {
                self.said_everything(id);
            } else if matches!(conn.kind, Kind::Http(_)) {
                self.go_on(id);
            }
            return;
        }
        let waiting = conn.outbox.len();
        if let Kind::Viewer(viewer) = &conn.kind
            && !viewer.is_closing()
            && conn.stuck_ms < now_ms
            && waiting > outbox_bytes_max
        {
            let end = End::new(Close::TooSlow.code(), "too slow for its own replies");
            self.close_viewer(id, &end);
            return;
        }
        self.watch_stuck(id);
    }

    /// Whether a walk is about to visit this viewer with lines, and its replies can go along: one call instead of two. Not
    /// where the walk has been under way for long.
    fn rides_with_the_walk(&mut self, id: ConnId) -> bool {
        let since_ns = self.now.mono_ns.saturating_sub(RIDE_NS);
        let Some(conn) = self.conns.get(id.slot as usize) else {
            return false;
        };
        let Kind::Viewer(viewer) = &conn.kind else {
            return false;
        };
        let encoding = viewer.encoding();
        !conn.flags.blocked
            && !viewer.is_closing()
            && conn.seats.iter().any(|seat| {
                let stream = self.hosting.stream_of(seat.hosted, encoding);
                stream.is_some_and(|stream| stream.will_visit(seat.member as usize, since_ns))
            })
    }

    /// A viewer whose socket takes bytes again goes on where each of its rooms' logs stands for it.
    fn catch_up(&mut self, id: ConnId) {
        let mut index = 0;
        loop {
            let Some(conn) = self.conn(id) else {
                return;
            };
            let Kind::Viewer(viewer) = &conn.kind else {
                return;
            };
            let Some(&seat) = conn.seats.get(index) else {
                return;
            };
            let (seats, encoding) = (conn.seats.len(), viewer.encoding());
            let walker = Walker {
                now: self.now,
                policy: self.policy.config.slow.policy,
                metrics: &self.metrics,
            };
            let visited = walker.visit(
                &mut self.hosting,
                &mut self.conns,
                seat.hosted,
                encoding,
                seat.member as usize,
            );
            if let Some((_, visited)) = visited {
                self.visited(id, seat.hosted, visited);
            }
            // A seat given up by the visit has moved the last one into its place.
            let left = self.conn(id).is_some_and(|conn| conn.seats.len() < seats);
            index += usize::from(!left);
        }
    }

    /// The last answer is on its way: end our side, and read away what the client still sends.
    fn said_everything(&mut self, id: ConnId) {
        let linger_until_ms = self.now.mono_ms() + LINGER_MS;
        let Some(conn) = self.conn(id) else {
            return;
        };
        if matches!(conn.kind, Kind::Viewer(_)) || conn.flags.peer_done {
            self.doom(id);
            return;
        }
        conn.flags.close_when_flushed = false;
        conn.flags.lingering = true;
        conn.stream.end_sending();
        self.set_deadline(id, linger_until_ms);
        self.note_resume(id);
    }
}

/// How old the oldest line of a walk may be for replies to wait for it.
const RIDE_NS: u64 = 100_000_000;

/// How long a finished HTTP connection is kept so that its last answer is not lost to a reset.
const LINGER_MS: u64 = 1_000;
