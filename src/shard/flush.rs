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
        }
        self.flush.clear();
        if self.flush.capacity() > 4096 {
            self.flush = Vec::new();
        }
    }

    fn flush_one(&mut self, id: ConnId) {
        let now_ms = self.now.mono_ms();
        let outbox_bytes_max = self.policy.config.slow.outbox_bytes_max;
        let Some(conn) = self.conn(id) else {
            return;
        };
        let Some(taken) = conn.flush_outbox(now_ms) else {
            self.doom(id);
            return;
        };
        self.metrics.add(Counter::BytesOutTotal, taken as u64);
        let Some(conn) = self.conn(id) else {
            return;
        };
        if conn.outbox.is_empty() {
            if conn.flags.close_when_flushed {
                self.said_everything(id);
            } else {
                match conn.kind {
                    Kind::Viewer(_) => self.catch_up(id),
                    Kind::Http(_) => self.go_on(id),
                }
            }
            return;
        }
        let waiting = conn.outbox.len();
        if let Kind::Viewer(viewer) = &conn.kind
            && !viewer.is_closing()
            && taken == 0
            && waiting > outbox_bytes_max
        {
            let end = End::new(Close::TooSlow.code(), "too slow for its own replies");
            self.close_viewer(id, &end);
            return;
        }
        self.watch_stuck(id);
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

/// How long a finished HTTP connection is kept so that its last answer is not lost to a reset.
const LINGER_MS: u64 = 1_000;
