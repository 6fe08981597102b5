//! Ends: a viewer is closed with a code, a connection is let go. The closing itself is the last step of the turn.

use std::collections::VecDeque;

use super::Shard;
use super::conn::Kind;
use crate::base::ids::ConnId;
use crate::base::limits;
use crate::session::End;

/// How long a viewer may take to answer our close frame.
const CLOSE_ANSWER_MS: u64 = 2_000;

impl Shard {
    /// Sends a close frame. The viewer leaves its rooms at once; its connection ends when it answers, or at a deadline.
    pub(super) fn close_viewer(&mut self, id: ConnId, end: &End) {
        let until_ms = self.now.mono_ms() + CLOSE_ANSWER_MS;
        let Some(conn) = self.conn(id) else {
            return;
        };
        let Kind::Viewer(viewer) = &mut conn.kind else {
            return;
        };
        if viewer.is_closing() {
            return;
        }
        viewer.close(end, conn.outbox.tail());
        self.metrics.closed(end.code);
        self.leave_all(id);
        self.viewer_gone(id);
        self.set_deadline(id, until_ms);
        self.note_flush(id);
    }

    /// Notes that a connection is to be let go at the end of the turn.
    pub(super) fn doom(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id) {
            conn.flags.doomed = true;
            self.doomed.push_back(id.slot);
        }
    }

    /// The close step of the turn: a bounded number, oldest first. Until it is its turn a doomed connection is passed by
    /// everywhere.
    pub(super) fn close_doomed(&mut self) {
        for _ in 0..limits::CLOSES_PER_TURN {
            let Some(slot) = self.doomed.pop_front() else {
                break;
            };
            let Some(conn) = self.conns.get(slot as usize) else {
                continue;
            };
            let id = conn.id(slot);
            let closing = match &conn.kind {
                Kind::Viewer(viewer) => Some(viewer.is_closing()),
                Kind::Http(_) => None,
            };
            if closing == Some(false) {
                // No close frame went either way.
                self.metrics.closed(1006);
            }
            self.leave_all(id);
            if closing == Some(false) {
                self.viewer_gone(id);
            }
            if let Some(conn) = self.conns.get_mut(slot as usize) {
                conn.outbox.give_up();
                conn.count_outbox(&self.metrics);
            }
            self.wheel.cancel(slot);
            // Dropping it closes the socket (which takes it from the poller) and returns its permits.
            self.conns.remove(slot as usize);
        }
        if self.conns.is_empty() && self.conns.capacity() > 1024 {
            self.conns.shrink_to_fit();
        }
        if self.doomed.is_empty() && self.doomed.capacity() > 4096 {
            self.doomed = VecDeque::new();
        }
    }

    /// A viewer counts no more: not in the gauge, not under its user.
    fn viewer_gone(&mut self, id: ConnId) {
        self.viewers -= 1;
        self.look_away(id, None);
        let Some(conn) = self.conns.get(id.slot as usize) else {
            return;
        };
        let Kind::Viewer(viewer) = &conn.kind else {
            return;
        };
        let Some(identity) = viewer.identity() else {
            return;
        };
        let user = identity.user.id.clone();
        self.logged_out(user.clone(), id);
        if let Some(ids) = self.by_user.get_mut(&user) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_user.remove(&user);
            }
        }
    }
}
