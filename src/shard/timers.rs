//! The timer step: one wheel entry per connection, re-armed when it fires early; and what is done once a second.

use super::conn::{Conn, Kind};
use super::{Shard, tick};
use crate::base::ids::ConnId;
use crate::base::limits;
use crate::base::refusal::{Code, Refusal};
use crate::proto::http::Phase;
use crate::proto::ws::close::Close;
use crate::proto::ws::encode;
use crate::session::End;
use crate::session::heartbeat::{Beat, Pulse};
use crate::telemetry::table::{Counter, Gauge};

impl Shard {
    /// The timer step of the turn: a bounded number of connections.
    pub(super) fn fire_timers(&mut self) {
        let mut fired = Vec::new();
        let now = tick(self.now.mono_ms());
        self.wheel.advance(now, limits::TIMERS_PER_TURN, &mut fired);
        for slot in fired {
            let Some(conn) = self.conns.get(slot as usize) else {
                continue;
            };
            let id = conn.id(slot);
            match &conn.kind {
                Kind::Viewer(_) => self.viewer_timer(id),
                Kind::Http(_) => self.http_timer(id),
            }
        }
        if self.next_second_ms <= self.now.mono_ms() {
            self.next_second_ms = self.now.mono_ms() + 1000;
            self.every_second();
        }
    }

    fn viewer_timer(&mut self, id: ConnId) {
        match self.beat(id) {
            Some(Beat::Wait { until_ms }) => self.arm(id.slot, until_ms),
            Some(Beat::Ping) => {
                if let Some(conn) = self.conn(id) {
                    conn.flags.pinged = true;
                    encode::ping(b"", conn.outbox.tail());
                    self.metrics.inc(Counter::HeartbeatPingsTotal);
                    self.note_flush(id);
                    self.rearm_viewer(id);
                }
            }
            Some(Beat::Silent) => {
                let end = "nothing was heard for two heartbeat intervals";
                self.close_viewer(id, &End::new(Close::Heartbeat.code(), end));
            }
            Some(Beat::Stuck) => {
                // The close frame waits behind what the viewer does not take; it has the close deadline to take it.
                let end = "took nothing of what was sent for too long";
                self.close_viewer(id, &End::new(Close::TooSlow.code(), end));
            }
            Some(Beat::Expired) => {
                let end = "the token has expired: get a new one";
                self.close_viewer(id, &End::new(Close::TokenExpired.code(), end));
            }
            Some(Beat::CloseUnanswered) => self.doom(id),
            None => {}
        }
    }

    /// Arms a viewer's timer for whatever is next: after the upgrade, a ping, a renewed token.
    pub(super) fn rearm_viewer(&mut self, id: ConnId) {
        let now_ms = self.now.mono_ms();
        let until_ms = match self.beat(id) {
            Some(Beat::Wait { until_ms }) => until_ms,
            Some(_) => now_ms,
            None => return,
        };
        self.arm(id.slot, until_ms);
    }

    /// Brings the timer of a connection with something waiting forward to when it would count as stuck: the heartbeat
    /// may be far away.
    pub(super) fn watch_stuck(&mut self, id: ConnId) {
        let stuck_timeout_ms = self.policy.config.slow.stuck_timeout_ms;
        let Some(conn) = self.conn(id) else {
            return;
        };
        if conn.stuck_ms == 0 || conn.flags.stuck_armed {
            return;
        }
        match conn.kind {
            // The heartbeat knows the soonest of all its deadlines.
            Kind::Viewer(_) => self.rearm_viewer(id),
            Kind::Http(_) => {
                let stuck_at_ms = conn.stuck_ms + stuck_timeout_ms;
                let at_ms = match conn.deadline_ms {
                    0 => stuck_at_ms,
                    deadline_ms => deadline_ms.min(stuck_at_ms),
                };
                self.arm(id.slot, at_ms);
            }
        }
        if let Some(conn) = self.conn(id) {
            conn.flags.stuck_armed = true;
        }
    }

    fn beat(&mut self, id: ConnId) -> Option<Beat> {
        let now = self.now;
        let config = &self.policy.config;
        let (interval_ms, stuck_ms) = (config.heartbeat.interval_ms, config.slow.stuck_timeout_ms);
        let leeway_s = config.auth.leeway_s;
        let conn = self.conn(id)?;
        conn.flags.stuck_armed = false;
        let pulse = pulse(conn, leeway_s, now)?;
        Some(pulse.beat(now.mono_ms(), interval_ms, stuck_ms))
    }

    fn http_timer(&mut self, id: ConnId) {
        let now_ms = self.now.mono_ms();
        let stuck_timeout_ms = self.policy.config.slow.stuck_timeout_ms;
        let Some(conn) = self.conn(id) else {
            return;
        };
        conn.flags.stuck_armed = false;
        let stuck_at_ms = conn.stuck_ms + stuck_timeout_ms;
        if conn.stuck_ms > 0 && stuck_at_ms <= now_ms {
            return self.doom(id);
        }
        if conn.deadline_ms > now_ms {
            let at_ms = match conn.stuck_ms {
                0 => conn.deadline_ms,
                _ => conn.deadline_ms.min(stuck_at_ms),
            };
            return self.arm(id.slot, at_ms);
        }
        let lingering = conn.flags.lingering || conn.flags.close_when_flushed;
        let Kind::Http(http) = &conn.kind else {
            return;
        };
        if http.exchange.is_some() || conn.deadline_ms == 0 {
            // An exchange has its own deadline.
            return;
        }
        if http.upgrading.is_some() {
            self.leave_all(id);
            if let Some(http) = self.http(id) {
                http.framing.keep_alive = false;
            }
            let reason = "the rooms asked for did not answer in time";
            return self.refuse_entry(id, &Refusal::new(Code::Timeout, reason).retry(1000));
        }
        let served_before = http.requests > 0;
        if lingering || (served_before && http.reader.is_idle()) {
            return self.doom(id);
        }
        let reason = match http.reader.phase() {
            Phase::Body => "the body did not arrive within limits.body_timeout",
            Phase::Head => "no whole request within admission.handshake_timeout",
        };
        self.metrics.refused(Code::RequestTimeout);
        self.refuse_request(id, &Refusal::new(Code::RequestTimeout, reason));
    }

    fn every_second(&mut self) {
        self.measure_memory();
        self.time_out_exchanges();
        self.forget_idle();
        self.leave_unread();
        self.quiet_logs();
        let metrics = &self.metrics;
        metrics.set(
            Gauge::HttpConnections,
            (self.conns.len() - self.viewers.min(self.conns.len())) as u64,
        );
        metrics.set(Gauge::Rooms, self.homes.len() as u64);
        metrics.set(Gauge::Members, self.hosting.members as u64);
        metrics.set(Gauge::MailboxMessages, self.mail.waiting() as u64);
        metrics.set(Gauge::BacklogMessages, self.mail.backlog() as u64);
        let log_bytes = self
            .hosting
            .rooms
            .iter()
            .flat_map(|(_, room)| room.streams.iter().flatten())
            .map(|hall| hall.stream.kept_bytes() as u64)
            .sum();
        metrics.set(Gauge::LogBytes, log_bytes);
        // Counted, not asked for: a list of the table would cost as much as it has sockets.
        let open = self.conns.len() + self.descriptors_before;
        metrics.set(Gauge::OpenFds, open as u64);
    }

    /// Logs of rooms that have been quiet give their memory back.
    fn quiet_logs(&mut self) {
        let quiet_since_ms = self.now.mono_ms().saturating_sub(QUIET_MS);
        for (_, room) in &mut self.hosting.rooms {
            if room.active_ms < quiet_since_ms {
                for hall in room.streams.iter_mut().flatten() {
                    hall.stream.forget_if_round();
                }
            }
        }
    }
}

/// A room without a line for this long has a quiet log.
const QUIET_MS: u64 = 10_000;

/// What the heartbeat needs to know of a viewer.
fn pulse(conn: &Conn, leeway_s: u64, now: crate::base::clock::Now) -> Option<Pulse> {
    let Kind::Viewer(viewer) = &conn.kind else {
        return None;
    };
    let expires_ms = viewer.identity().map(|identity| {
        let left_s = (identity.exp_s.saturating_add(leeway_s)).saturating_sub(now.unix_s());
        now.mono_ms().saturating_add(left_s.saturating_mul(1000))
    });
    Some(Pulse {
        heard_ms: conn.heard_ms,
        pinged: conn.flags.pinged,
        stuck_since_ms: (conn.stuck_ms > 0).then_some(conn.stuck_ms),
        expires_ms,
        closing_until_ms: viewer.is_closing().then_some(conn.deadline_ms),
    })
}
