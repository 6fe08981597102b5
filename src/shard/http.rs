//! Reading, and the HTTP side of a connection: requests in, answers out. Part of the shard's turn.

use super::Shard;
use super::conn::{HttpConn, Kind, Permits};
use crate::api::{Exchange, Progress};
use crate::base::ids::ConnId;
use crate::base::limits;
use crate::base::refusal::Refusal;
use crate::net::stream::Moved;
use crate::proto::http::reply::{CONTINUE, Framing, Reply};
use crate::proto::http::{Method, Phase, Request, Step};
use crate::proto::ws::handshake;
use crate::telemetry::table::Counter;

impl Shard {
    /// Reads what a connection has, up to its budget of this turn.
    pub(super) fn read(&mut self, id: ConnId) {
        let mut budget = limits::READ_BYTES_PER_TURN;
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(conn) = self.conn(id) {
            if !conn.flags.readable || conn.is_busy() {
                break;
            }
            if budget == 0 {
                self.note_resume(id);
                break;
            }
            let room = scratch.len().min(budget);
            match conn.stream.read(&mut scratch[..room]) {
                Moved::Bytes(bytes) => {
                    // A short read has emptied the socket; the peer's end, if it came, is still to be read.
                    conn.flags.readable = bytes == room || conn.flags.peer_done;
                    budget -= bytes;
                    self.metrics.add(Counter::BytesInTotal, bytes as u64);
                    self.heard(id);
                    self.consume(id, &mut scratch[..bytes]);
                }
                Moved::Blocked => conn.flags.readable = false,
                Moved::End => {
                    conn.flags.readable = false;
                    self.peer_ended(id);
                }
                Moved::Broken => self.doom(id),
            }
        }
        self.scratch = scratch;
    }

    /// The resume step of the turn: connections that were stopped by their budget or waited for an answer.
    pub(super) fn resume_reads(&mut self) {
        for _ in 0..self.resume.len() {
            let Some(id) = self.resume.pop_front() else {
                return;
            };
            if let Some(conn) = self.conn(id) {
                conn.flags.resuming = false;
                self.read(id);
            }
        }
    }

    fn heard(&mut self, id: ConnId) {
        let now_ms = self.now.mono_ms();
        if let Some(conn) = self.conn(id) {
            conn.heard_ms = now_ms;
            conn.flags.pinged = false;
        }
    }

    /// Hands bytes to whatever speaks on the connection; a request may turn it from HTTP into a viewer half-way.
    pub(super) fn consume(&mut self, id: ConnId, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let Some(conn) = self.conn(id) else {
                return;
            };
            let busy = conn.is_busy();
            let lingering = conn.flags.lingering || conn.flags.close_when_flushed;
            match &mut conn.kind {
                Kind::Viewer(_) => {
                    self.viewer_input(id, bytes);
                    return;
                }
                Kind::Http(_) if lingering => return,
                Kind::Http(http) if busy => {
                    http.tail.extend_from_slice(bytes);
                    return;
                }
                Kind::Http(http) => match http.reader.feed(bytes) {
                    Ok(fed) => {
                        bytes = &mut bytes[fed.consumed..];
                        self.step(id, fed.step);
                    }
                    Err(refusal) => {
                        self.refuse_request(id, &refusal);
                        return;
                    }
                },
            }
        }
    }

    fn step(&mut self, id: ConnId, step: Step) {
        self.lull.stir(self.now);
        match step {
            Step::NeedMore => self.arm_body_deadline(id),
            Step::Continue => {
                if let Some(conn) = self.conn(id) {
                    conn.outbox.tail().extend_from_slice(CONTINUE);
                }
                self.note_flush(id);
            }
            Step::Request(request) => self.request(id, *request),
        }
    }

    /// The head has its deadline since the connection began to send; a body gets one of its own.
    fn arm_body_deadline(&mut self, id: ConnId) {
        let until_ms = self.now.mono_ms() + self.policy.config.limits.body_timeout_ms;
        let Some(http) = self.http(id) else {
            return;
        };
        if http.reader.phase() == Phase::Body && !std::mem::replace(&mut http.in_body, true) {
            self.set_deadline(id, until_ms);
        }
    }

    fn request(&mut self, id: ConnId, request: Request) {
        if let Some(conn) = self.conn(id) {
            conn.deadline_ms = 0;
        }
        let Some(http) = self.http(id) else {
            return;
        };
        http.in_body = false;
        http.requests += 1;
        http.framing = Framing {
            head_only: request.method == Method::Head,
            keep_alive: request.keep_alive,
            version_minor: request.version_minor,
        };
        let listener = http.listener;
        // Whoever waited for a handshake permit tries once more now that it has something to say.
        let refused = http.refused.take();
        let health = matches!(request.path.as_str(), "/healthz" | "/readyz");
        if request.path == "/ws" {
            self.upgrade(id, &request, refused);
            return;
        }
        if let Some(refusal) = refused.filter(|_| !health) {
            match self.node.handshakes.try_acquire() {
                // Held for the length of this judgement only.
                Some(_permit) => {}
                None => return self.refuse_entry(id, &refusal),
            }
        }
        if let Some(http) = self.http(id) {
            http.handshake = None;
        }
        let policy = std::sync::Arc::clone(&self.policy);
        let ctx = self.api_ctx(&policy, listener);
        let (exchange, progress) = Exchange::begin(request, &ctx);
        self.progress(id, exchange, progress);
    }

    /// Goes on with an exchange: answers it, or posts what it asks.
    pub(super) fn progress(&mut self, id: ConnId, exchange: Exchange, progress: Progress) {
        match progress {
            Progress::Done(reply) => {
                self.log_access(id, &exchange, reply.status);
                self.reply(id, &reply);
            }
            Progress::Special(special) => {
                let reply = self.special(special);
                self.log_access(id, &exchange, reply.status);
                self.reply(id, &reply);
            }
            Progress::Ask(questions) => {
                let deadline_ms = self.now.mono_ms() + limits::EXCHANGE_DEADLINE_MS;
                let key = self.exchanges.insert(id, exchange, deadline_ms);
                if let Some(http) = self.http(id) {
                    http.exchange = Some(key);
                }
                self.post_questions(key, questions);
            }
        }
    }

    /// Writes an answer, and goes on with what the client has sent meanwhile.
    pub(super) fn reply(&mut self, id: ConnId, reply: &Reply) {
        let unix_s = self.now.unix_s();
        let (draining, now_ns) = (self.sweeps.is_draining(), self.now.mono_ns);
        let Some(http) = self.http(id) else {
            return;
        };
        http.exchange = None;
        http.since_ns = now_ns;
        http.framing.keep_alive &= !draining;
        let framing = http.framing;
        if let Some(conn) = self.conn(id) {
            reply.write(framing, unix_s, conn.outbox.tail());
            conn.flags.close_when_flushed |= !framing.keep_alive;
        }
        self.metrics.http_status(reply.status);
        self.set_deadline(id, self.now.mono_ms() + limits::KEEP_ALIVE_IDLE_MS);
        self.note_flush(id);
        if framing.keep_alive {
            self.go_on(id);
        }
    }

    /// Takes what the client has sent while it was waiting: what was read ahead, then what the socket holds.
    pub(super) fn go_on(&mut self, id: ConnId) {
        if let Some(http) = self.http(id) {
            let mut tail = std::mem::take(&mut http.tail);
            self.consume(id, &mut tail);
        }
        self.note_resume(id);
    }

    /// Notes a connection that may have more to read.
    pub(super) fn note_resume(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && conn.flags.readable
            && !std::mem::replace(&mut conn.flags.resuming, true)
        {
            self.resume.push_back(id);
        }
    }

    /// Sets when an HTTP wait, or a close under way, is given up.
    pub(super) fn set_deadline(&mut self, id: ConnId, at_ms: u64) {
        if let Some(conn) = self.conn(id) {
            conn.deadline_ms = at_ms;
            conn.flags.stuck_armed = false;
            self.arm(id.slot, at_ms);
        }
    }

    /// Answers a request that could not even be read, and ends the connection: where the next one begins is unknown.
    pub(super) fn refuse_request(&mut self, id: ConnId, refusal: &Refusal) {
        if let Some(http) = self.http(id) {
            http.framing = Framing {
                head_only: false,
                keep_alive: false,
                version_minor: 1,
            };
            http.handshake = None;
        }
        self.log_refusal(id, refusal);
        self.reply(id, &Reply::refusal(refusal));
    }

    /// Many clients show their user a bare status, or nothing at all: the operator reads here why someone was refused. A few a
    /// second are written, the rest is in `danmaku_refusals_total`: refusing a storm must stay cheap.
    fn log_refusal(&mut self, id: ConnId, refusal: &Refusal) {
        let now_ms = self.now.mono_ms();
        if self
            .refusals_logged
            .take(limits::REFUSALS_LOGGED, now_ms)
            .is_err()
        {
            return;
        }
        let Some(conn) = self.conn(id) else {
            return;
        };
        tracing::info!(
            target: "refused",
            peer = %conn.peer,
            code = refusal.code.as_str(),
            reason = %refusal.reason,
            hint = refusal.code.hint(),
        );
    }

    /// Refuses someone at the door: counted, with a spread time to come back, and gone.
    pub(super) fn refuse_entry(&mut self, id: ConnId, refusal: &Refusal) {
        let spread = refusal.retry_after_ms.map(|ms| self.rng.jitter(ms, 25));
        let refusal = Refusal {
            retry_after_ms: spread,
            ..refusal.clone()
        };
        self.metrics.refused(refusal.code);
        self.log_refusal(id, &refusal);
        let reply = handshake::refusal(&refusal);
        if let Some(conn) = self.conn(id) {
            conn.permits = Permits::default();
        }
        if let Some(http) = self.http(id) {
            // A refused one may try again on the same connection, unless the node wants its socket back.
            http.framing.keep_alive &= refusal.code.status() < 429;
            http.handshake = None;
            http.upgrading = None;
        }
        self.reply(id, &reply);
    }

    fn peer_ended(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else {
            return;
        };
        match &conn.kind {
            // A client may half-close after its request and still wait for the answer.
            Kind::Http(http)
                if (http.exchange.is_some() || !conn.outbox.is_empty())
                    && !conn.flags.lingering =>
            {
                conn.flags.close_when_flushed = true;
                if let Kind::Http(http) = &mut conn.kind {
                    http.framing.keep_alive = false;
                }
            }
            _ => self.doom(id),
        }
    }

    /// The HTTP side of a connection, if it has one.
    pub(super) fn http(&mut self, id: ConnId) -> Option<&mut HttpConn> {
        match &mut self.conn(id)?.kind {
            Kind::Http(http) => Some(http),
            Kind::Viewer(_) => None,
        }
    }
}
