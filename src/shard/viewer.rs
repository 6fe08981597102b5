//! A viewer's bytes and intents: what its session wants of rooms, and the answers it gets. Part of the shard's turn.

use std::sync::Arc;

use super::conn::Kind;
use super::{Shard, live};
use crate::base::identity::{Identity, Role};
use crate::base::ids::{ConnId, RoomId};
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Answer, Msg, ReplyTo, RoomAsk};
use crate::proto::danmaku::server;
use crate::room::ask::{Author, Content, Encoding, Join, Joined, Leave, Publish, Seat, Speaker};
use crate::session::intent::EchoId;
use crate::session::viewer::{Env, reply};
use crate::session::{End, Intent};
use crate::telemetry::table::{Bucket, Counter};

impl Shard {
    /// Bytes of a viewer, unmasked in place.
    pub(super) fn viewer_input(&mut self, id: ConnId, bytes: &mut [u8]) {
        let policy = Arc::clone(&self.policy);
        let env = Env {
            now: self.now,
            limits: &policy.config.limits,
            anonymous: policy.config.auth.anonymous,
            keys: &policy.keys,
        };
        let Some(conn) = live(&mut self.conns, id) else {
            return;
        };
        let Kind::Viewer(viewer) = &mut conn.kind else {
            return;
        };
        let mut intents = std::mem::take(&mut self.intents);
        let out = conn.outbox.tail();
        let ended = viewer.input(bytes, &env, &mut self.inflator, out, &mut intents);
        let tally = viewer.take_tally();
        if tally.inflated > 0 {
            let inflated = u64::from(tally.inflated);
            self.metrics.add(Counter::InflatedMessagesTotal, inflated);
        }
        self.metrics
            .add(Counter::FramesInTotal, u64::from(tally.messages_in));
        self.metrics
            .add(Counter::FramesOutTotal, u64::from(tally.frames_out));
        let wrote = tally.frames_out > 0;
        for intent in intents.drain(..) {
            self.carry_out(id, intent);
        }
        self.intents = intents;
        if wrote {
            self.note_flush(id);
        }
        if let Err(end) = ended {
            self.session_ended(id, &end);
        }
    }

    fn carry_out(&mut self, id: ConnId, intent: Intent) {
        self.lull.stir(self.now);
        match intent {
            Intent::Join {
                room,
                resume,
                id: echo,
            } => self.ask_to_join(id, room, resume, echo),
            Intent::Leave { room, id: echo } => match self.seat_index(id, room.as_str()) {
                Some(index) => {
                    self.leave_seat(id, index);
                    self.tell(id, |json| {
                        server::left(json, echo.as_deref(), &room, None);
                    });
                }
                None => self.tell_refusal(id, echo.as_deref(), &not_joined(&room)),
            },
            Intent::Speak {
                room,
                text,
                style,
                id: echo,
            } => {
                let Some((identity, encoding)) = self.may_speak(id, &room) else {
                    self.answer_came(id);
                    return self.tell_refusal(id, echo.as_deref(), &not_joined(&room));
                };
                let content = Content::Line {
                    text,
                    style,
                    data: None,
                };
                let seat = Seat {
                    shard: self.id,
                    encoding,
                };
                let speaker = Speaker { seat, conn: id };
                let publish = publish_of(identity, content, speaker);
                let judge_user = !publish.exempt && publish.who.is_some();
                let from = ReplyTo::Conn {
                    shard: self.id,
                    conn: id,
                    id: echo,
                };
                self.publish(room, Box::new(publish), judge_user, from);
            }
            Intent::Stats { room, on, id: echo } => self.ask_to_watch(id, room, on, echo),
            Intent::Refused { code } => {
                self.metrics.line_refused(code);
                if code == Code::RateLimited {
                    self.metrics.rate_limited(Bucket::Connection);
                }
            }
            Intent::Renew { identity } => {
                if let Some(conn) = self.conn(id)
                    && let Kind::Viewer(viewer) = &mut conn.kind
                {
                    viewer.renew(Arc::clone(&identity));
                }
                self.judge_looks(id, &identity);
                self.rearm_viewer(id);
            }
        }
    }

    fn ask_to_join(
        &mut self,
        id: ConnId,
        room: RoomId,
        resume: Option<(crate::base::ids::Epoch, u64)>,
        echo: EchoId,
    ) {
        let rooms_max = self.policy.config.limits.rooms_per_connection_max;
        let seated = self.seat_index(id, room.as_str()).is_some();
        let Some(conn) = self.conn(id) else {
            return;
        };
        let Kind::Viewer(viewer) = &conn.kind else {
            return;
        };
        // Questions under way may all be joins: counting them keeps the bound without a list of rooms asked for.
        let refusal = if seated {
            Some(Refusal::new(
                Code::AlreadyJoined,
                format!("already in {room}"),
            ))
        } else if conn.seats.len() >= rooms_max {
            let reason = format!("in {} rooms, at most {rooms_max}", conn.seats.len());
            Some(Refusal::new(Code::TooManyRooms, reason))
        } else {
            None
        };
        let (who, encoding) = (viewer.identity().cloned(), viewer.encoding());
        if let Some(refusal) = refusal {
            self.answer_came(id);
            return self.tell_refusal(id, echo.as_deref(), &refusal);
        }
        let seat = Seat {
            shard: self.id,
            encoding,
        };
        let ask = RoomAsk::Join(Join { who, seat, resume });
        let from = ReplyTo::Conn {
            shard: self.id,
            conn: id,
            id: echo,
        };
        let home = room.home(self.shards());
        self.mail.post(home, Msg::Ask { room, ask, from });
    }

    /// An answer for a viewer, or for someone on the way to be one.
    pub(super) fn viewer_answered(
        &mut self,
        id: ConnId,
        echo: EchoId,
        room: &RoomId,
        answer: Result<Answer, Refusal>,
    ) {
        let upgrading = self.http(id).is_some_and(|http| http.upgrading.is_some());
        self.answer_came(id);
        match answer {
            Ok(Answer::Joined { joined, undo }) => {
                if upgrading {
                    self.upgrade_joined(id, room, &joined);
                } else if !self.viewer_joined(id, echo, room, &joined) {
                    self.post_leave(room.clone(), *undo);
                }
            }
            Ok(Answer::Published(published)) => {
                if let Some(echo) = echo {
                    let epoch = self.cluster.is_some().then_some(published.epoch);
                    self.tell(id, |json| {
                        server::ack(json, &echo, room, epoch, published.seq);
                    });
                }
            }
            Ok(Answer::Watched(answer)) => self.watching(id, echo, room, answer),
            Ok(_) => debug_assert!(false, "no other answer goes to a viewer"),
            Err(refusal) if upgrading => {
                self.leave_all(id);
                if let Some(http) = self.http(id) {
                    // Answers of this upgrade are still out: they must not meet another one on this connection.
                    http.framing.keep_alive = false;
                }
                self.refuse_entry(id, &refusal);
            }
            Err(refusal) => self.tell_refusal(id, echo.as_deref(), &refusal),
        }
    }

    /// Seats a viewer whose home let it in. `false` = it must be undone: gone, closing, in the room twice, or over its
    /// bound because several joins were under way at once.
    fn viewer_joined(&mut self, id: ConnId, echo: EchoId, room: &RoomId, joined: &Joined) -> bool {
        let rooms_max = self.policy.config.limits.rooms_per_connection_max;
        let twice = self.seat_index(id, room.as_str()).is_some();
        let Some(conn) = self.conn(id) else {
            return false;
        };
        let Kind::Viewer(viewer) = &conn.kind else {
            return false;
        };
        if viewer.is_closing() {
            return false;
        }
        let encoding = viewer.encoding();
        let refusal = if twice {
            Some(Refusal::new(
                Code::AlreadyJoined,
                format!("already in {room}"),
            ))
        } else if conn.seats.len() >= rooms_max {
            Some(Refusal::new(
                Code::TooManyRooms,
                format!("at most {rooms_max} rooms"),
            ))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.tell_refusal(id, echo.as_deref(), &refusal);
            return false;
        }
        self.take_seat(id, room, joined, encoding);
        self.tell(id, |json| {
            server::joined(json, echo.as_deref(), &shown(room, joined));
        });
        true
    }

    /// The identity to speak under and the viewer's encoding, if it may speak in the room: it sits there, or is admin.
    fn may_speak(
        &mut self,
        id: ConnId,
        room: &RoomId,
    ) -> Option<(Option<Arc<Identity>>, Encoding)> {
        let seated = self.seat_index(id, room.as_str()).is_some();
        match &self.conn(id)?.kind {
            Kind::Viewer(viewer) if seated || viewer.is_admin() => {
                Some((viewer.identity().cloned(), viewer.encoding()))
            }
            _ => None,
        }
    }

    /// Who a viewer is, unless it is anonymous, gone or going.
    pub(super) fn identity(&mut self, id: ConnId) -> Option<Arc<Identity>> {
        match &self.conn(id)?.kind {
            Kind::Viewer(viewer) if !viewer.is_closing() => viewer.identity().cloned(),
            _ => None,
        }
    }

    pub(super) fn answer_came(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && let Kind::Viewer(viewer) = &mut conn.kind
        {
            viewer.answered();
        }
    }

    /// Sends a line or event towards its home; what cannot be posted is refused at once.
    pub(super) fn publish(
        &mut self,
        room: RoomId,
        publish: Box<Publish>,
        judge_user: bool,
        from: ReplyTo,
    ) {
        let shards = self.shards();
        let to = match &publish.who {
            Some(identity) if judge_user => identity.user.id.home(shards),
            _ => room.home(shards),
        };
        let msg = Msg::Publish {
            room,
            publish,
            judge_user,
            from,
        };
        if let Err(Msg::Publish { room, from, .. }) = self.mail.try_post(to, msg) {
            self.metrics.inc(Counter::MailboxFullTotal);
            self.answer(from, Some(room), Err(busy()));
        }
    }

    /// Appends one message to a viewer's outbox.
    pub(super) fn tell(&mut self, id: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(conn) = self.conn(id)
            && let Kind::Viewer(viewer) = &conn.kind
            && !viewer.is_closing()
        {
            reply(conn.outbox.tail(), write);
            self.metrics.inc(Counter::FramesOutTotal);
            self.note_flush(id);
        }
    }

    pub(super) fn tell_refusal(&mut self, id: ConnId, echo: Option<&str>, refusal: &Refusal) {
        self.metrics.line_refused(refusal.code);
        self.tell(id, |json| server::error(json, echo, refusal));
    }

    /// A session is over, by the peer's close frame or by its own doing.
    fn session_ended(&mut self, id: ConnId, end: &End) {
        let Some(conn) = self.conn(id) else {
            return;
        };
        let Kind::Viewer(viewer) = &mut conn.kind else {
            return;
        };
        if viewer.is_closing() {
            // The answer to our close frame: nothing more to say.
            self.doom(id);
            return;
        }
        let peer_closed = end.reason.is_empty();
        self.close_viewer(id, end);
        if peer_closed && let Some(conn) = self.conn(id) {
            conn.flags.close_when_flushed = true;
        }
    }

    /// Tells a home that a member is gone.
    pub(super) fn post_leave(&mut self, room: RoomId, leave: Leave) {
        let home = room.home(self.shards());
        let (ask, from) = (RoomAsk::Leave(leave), ReplyTo::Nobody);
        self.mail.post(home, Msg::Ask { room, ask, from });
    }
}

/// What a viewer is told of its join.
pub(super) fn shown<'a>(room: &'a RoomId, joined: &'a Joined) -> server::Joined<'a> {
    server::Joined {
        room,
        online: u64::from(joined.online),
        epoch: joined.epoch,
        seq: joined.seq,
        recovered: joined.recovered,
        messages: joined.messages.as_deref(),
    }
}

/// A line as its author's identity makes it.
fn publish_of(identity: Option<Arc<Identity>>, content: Content, speaker: Speaker) -> Publish {
    let exempt = identity
        .as_ref()
        .is_some_and(|identity| identity.role == Role::Admin);
    Publish {
        author: match &identity {
            Some(identity) => Author::User(identity.user.clone()),
            None => Author::Anonymous,
        },
        who: identity,
        exempt,
        content,
        speaker: Some(speaker),
        once: None,
    }
}

fn not_joined(room: &RoomId) -> Refusal {
    Refusal::new(Code::NotJoined, format!("not in {room}"))
}

/// A bound was met on the way to a home.
pub(super) fn busy() -> Refusal {
    Refusal::new(
        Code::Busy,
        "the room's shard has more to do than it can take",
    )
    .retry(200)
}
