//! Messages in: from other shards, from the main thread, from this shard to itself. Part of the shard's turn.

use std::sync::Arc;

use super::Shard;
use super::mail::Mail;
use super::viewer::busy;
use crate::base::identity::Access;
use crate::base::ids::{RoomId, UserId};
use crate::base::limits;
use crate::base::rate::Rate;
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Answer, Control, Msg, NodeAsk, Outward, ReplyTo, RoomAsk, ShardInfo};
use crate::proto::node::Order;
use crate::proto::ws::encode;
use crate::room::ask::{Content, Detail, Leave, Publish};
use crate::room::home::{Home, kind_of, rest_of};
use crate::telemetry::table::Bucket;

impl Shard {
    /// The mailbox step of the turn: a bounded number of messages.
    pub(super) fn take_mailbox(&mut self) {
        self.mail.begin();
        for _ in 0..limits::MESSAGES_PER_TURN {
            match self.mail.next() {
                Some(msg) => self.message(msg),
                None => return,
            }
        }
    }

    /// Messages of this shard to itself. Each causes at most one more, so this ends.
    pub(super) fn take_local(&mut self) {
        while let Some(msg) = self.mail.next_local() {
            self.message(msg);
        }
    }

    fn message(&mut self, msg: Msg) {
        self.lull.stir(self.now);
        match msg {
            Msg::Ask { room, ask, from } => self.asked_of_room(room, ask, from),
            Msg::Publish {
                room,
                publish,
                judge_user: true,
                from,
            } => self.judge_user(room, publish, from),
            Msg::Publish {
                room,
                publish,
                judge_user: false,
                from,
            } => self.publish_at_home(room, *publish, from),
            Msg::Node { ask, from } => self.asked_of_node(ask, from),
            Msg::Answer { to, room, answer } => self.take_answer(to, room, answer),
            Msg::LoggedIn { user, login } => self.take_login(user, login),
            Msg::LoggedOut { user, shard, conn } => self.take_logout(user, shard, conn),
            Msg::Replaced { conn } => self.replaced(conn),
            Msg::StatsOver { conns, room } => self.stats_ended(&conns, &room),
            Msg::Stats { conns, frame } => self.stats_came(&conns, &frame),
            Msg::Sealed(sealed) => self.host(&sealed),
            Msg::Kick {
                room,
                life,
                user,
                reason,
            } => self.kick(&room, life, &user, &reason),
            Msg::Closed { room, life, reason } => self.room_closed(&room, life, &reason),
            Msg::Control(Control::Reload(policy)) => {
                self.policy = policy;
                if self.policy.config.limits.connections_per_user_max == 0 {
                    self.forget_logins();
                }
                let rooms = &self.policy.config.rooms;
                self.homes.apply_classes(rooms);
                self.hosting.apply_classes(rooms);
            }
            Msg::Control(Control::Drain { batch, interval_ms }) => {
                self.begin_drain(batch, interval_ms);
            }
            Msg::Control(Control::Stop) => self.stop = true,
            Msg::Cluster(inward) => self.cluster_says(*inward),
        }
    }

    /// Answers whoever waits, wherever they are.
    pub(super) fn answer(
        &mut self,
        to: ReplyTo,
        room: Option<RoomId>,
        answer: Result<Answer, Refusal>,
    ) {
        if let Some(shard) = to.shard() {
            self.mail.post(shard, Msg::Answer { to, room, answer });
        }
    }

    fn take_answer(&mut self, to: ReplyTo, room: Option<RoomId>, answer: Result<Answer, Refusal>) {
        match (to, room) {
            (ReplyTo::Conn { conn, id, .. }, Some(room)) => {
                self.viewer_answered(conn, id, &room, answer);
            }
            (ReplyTo::Exchange { exchange, part, .. }, _) => {
                self.exchange_answered(exchange, part, answer);
            }
            (ReplyTo::Order { key, .. }, _) => self.order_answered(key, answer),
            (ReplyTo::Conn { .. } | ReplyTo::Nobody, _) => {}
        }
    }

    /// This shard is the author's user-home: one token of their bucket, whatever room and shard they speak from.
    fn judge_user(&mut self, room: RoomId, publish: Box<Publish>, from: ReplyTo) {
        let limits = &self.policy.config.limits;
        let rate = Rate {
            per_s: limits.lines_per_s,
            burst: limits.line_burst,
        };
        let now_ms = self.now.mono_ms();
        let judged = match &publish.who {
            Some(identity) => self.homes.spend_user(&identity.user.id, rate, now_ms),
            None => Ok(()),
        };
        match judged {
            Ok(()) => self.publish(room, publish, false, from),
            Err(wait_ms) => {
                self.metrics.line_refused(Code::RateLimited);
                self.metrics.rate_limited(Bucket::User);
                let reason = format!("more than {} lines per second of one user", rate.per_s);
                let refusal = Refusal::new(Code::RateLimited, reason).retry(wait_ms);
                self.answer(from, Some(room), Err(refusal));
            }
        }
    }

    fn asked_of_room(&mut self, room: RoomId, ask: RoomAsk, from: ReplyTo) {
        match ask {
            RoomAsk::Leave(leave) => {
                self.tell_leave(&room, &leave);
                self.homes.leave(&room, &leave, self.now);
                self.note_count(&room);
                self.note_happened(&room);
                self.was_left(&room);
            }
            RoomAsk::Unwatch { shard, conn } => self.unwatch(&room, (shard, conn)),
            ask => {
                if let Some((ask, from)) = self.park(&room, ask, from) {
                    self.answer_of_room(room, ask, from);
                }
            }
        }
    }

    /// Answers what can be answered now.
    pub(super) fn answer_of_room(&mut self, room: RoomId, ask: RoomAsk, from: ReplyTo) {
        let shared = self.is_shared();
        let enters = matches!(ask, RoomAsk::Join(_));
        let answer = match ask {
            RoomAsk::Leave(_) | RoomAsk::Unwatch { .. } => return,
            RoomAsk::Watch { who, shard, conn } => Ok(self.watch(&room, &who, (shard, conn))),
            RoomAsk::Admit { who, then } => {
                let access = self.homes.access(&room, &self.policy.config.rooms);
                return match admit(access, who.as_deref(), &room) {
                    Ok(()) => self.answer_of_room(room, *then, from),
                    Err(refusal) => self.answer(from, Some(room), Err(refusal)),
                };
            }
            RoomAsk::Join(join) => {
                let (who, seat) = (join.who.as_ref().map(|who| who.user.id.clone()), join.seat);
                let user = join.who.clone().filter(|_| self.tells_events());
                let rooms = &self.policy.config.rooms;
                let joined = self
                    .homes
                    .open(&room, rooms, self.now, &mut self.rng, shared)
                    .and_then(|home| home.join(join, self.now));
                if joined.is_ok() {
                    self.tell_join(&room, user.as_ref().map(|who| &who.user));
                }
                joined.map(|joined| Answer::Joined {
                    undo: Box::new(Leave {
                        who,
                        life: joined.life,
                        seat,
                    }),
                    joined: Box::new(joined),
                })
            }
            RoomAsk::Put(patch) => {
                let rooms = &self.policy.config.rooms;
                let put = self
                    .homes
                    .open(&room, rooms, self.now, &mut self.rng, shared)
                    .map(|home| (home.put(*patch), home.settings()));
                if let (true, Ok((_, json))) = (shared, &put) {
                    let (room, json) = (room.clone(), json.clone().into());
                    self.ask_cluster(Outward::Settings { room, json });
                }
                if let (false, true, Ok(home)) =
                    (shared, self.cluster.is_some(), self.homes.find(&room))
                {
                    home.set_untold();
                }
                put.map(|(detail, _)| self.detail(detail))
            }
            RoomAsk::Detail => {
                let detail = self.homes.find(&room).map(|home| home.detail());
                detail.map(|detail| self.detail(detail))
            }
            RoomAsk::History { since, limit } => {
                // Whoever reads after an ack finds the line acked: what is due to be sealed this turn is sealed now.
                self.seal_if_due(&room);
                let home = self.homes.find(&room);
                home.map(|home| Answer::History(Box::new(home.history(since, limit))))
            }
            RoomAsk::Members { limit, after } => {
                let home = self.homes.find(&room);
                let here = home.map(|home| home.members(limit, after.as_deref()));
                return self.members_everywhere(room, limit, after, from, here);
            }
            RoomAsk::Kick { user, reason } => {
                let here = self.kick_here(&room, &user, &reason);
                if !matches!(from, ReplyTo::Order { .. }) {
                    self.tell_kick(&room, &user, &reason);
                }
                let order = Order::Kick {
                    room: room.clone(),
                    user,
                    reason: (*reason).into(),
                };
                return self.answer_everywhere(order, from, Some(room), here);
            }
            RoomAsk::Close { reason } => {
                let here = self.close_room(&room, &reason);
                if !matches!(from, ReplyTo::Order { .. }) {
                    self.tell_close(&room, &reason);
                    if self.is_shared() {
                        self.ask_cluster(Outward::End { room: room.clone() });
                    }
                }
                let order = Order::Close {
                    room: room.clone(),
                    reason: (*reason).into(),
                };
                return self.answer_everywhere(order, from, Some(room), here);
            }
        };
        if enters {
            self.note_count(&room);
            self.note_happened(&room);
        }
        self.homes.touched(&room, self.now.mono_ms());
        self.answer(from, Some(room), answer);
    }

    fn detail(&self, detail: Detail) -> Answer {
        let stale = self.cluster.is_some() && !self.is_shared();
        Answer::Detail(Box::new(Detail { stale, ..detail }))
    }

    fn kick_here(
        &mut self,
        room: &RoomId,
        user: &UserId,
        reason: &Arc<str>,
    ) -> Result<u32, Refusal> {
        let home = self.homes.find(room)?;
        let life = home.life();
        let (connections, shards) = home.kick_targets(user);
        for shard in shards {
            let kick = Msg::Kick {
                room: room.clone(),
                life,
                user: user.clone(),
                reason: Arc::clone(reason),
            };
            self.mail.post(shard, kick);
        }
        Ok(connections)
    }

    fn close_room(&mut self, room: &RoomId, reason: &Arc<str>) -> Result<u32, Refusal> {
        // What was numbered before the close goes out before the news of it.
        self.seal_last(room);
        let (home, tie) = self.homes.remove(room)?;
        self.room_over(room, tie);
        self.stats_over(room);
        for shard in home.hosts() {
            let closed = Msg::Closed {
                room: room.clone(),
                life: home.life(),
                reason: Arc::clone(reason),
            };
            self.mail.post(shard, closed);
        }
        Ok(home.here())
    }

    pub(super) fn publish_at_home(&mut self, room: RoomId, publish: Publish, from: ReplyTo) {
        let (publish, from) = match self.cluster {
            None => (publish, from),
            Some(_) => match self.publish_shared(&room, publish, from) {
                Some(back) => back,
                None => return,
            },
        };
        let is_event = matches!(publish.content, Content::Event { .. });
        let (now, shared) = (self.now, self.is_shared());
        let config = &self.policy.config;
        let home = self
            .homes
            .open(&room, &config.rooms, now, &mut self.rng, shared);
        let (mail, share) = (&self.mail, self.overload.share());
        let mut told = (kind_of(&publish), Vec::new());
        if !self.sinks.is_empty() {
            rest_of(&publish, now.unix_ms, &mut told.1);
        }
        let at = |home: &Home| (home.epoch(), home.seq());
        let before = home.as_ref().ok().map(|home| at(home));
        let answer = home.and_then(|home| {
            takes_more(home, mail, share)?;
            home.publish(publish, &config.limits, now)
        });
        let after = self.homes.find(&room).ok().map(|home| at(home));
        if let Ok(published) = answer
            && after != before
        {
            self.tell_line(&room, told.0, published, &told.1);
        }
        self.count_publish(is_event, &answer);
        self.homes.touched(&room, now.mono_ms());
        self.answer(from, Some(room), answer.map(Answer::Published));
    }

    fn asked_of_node(&mut self, ask: NodeAsk, from: ReplyTo) {
        // One shard asks the other nodes, for all of this one's: the one that was asked.
        let asks_others = from.shard() == Some(self.id);
        let (here, order) = match ask {
            NodeAsk::Rooms { limit, after } => {
                return match asks_others {
                    true => self.ask_rooms(from, limit, after),
                    false => self.answer_with_own(from, limit, &after),
                };
            }
            NodeAsk::Info => {
                let info = Answer::Info(ShardInfo {
                    connections: self.viewers as u32,
                    rooms: self.homes.len() as u32,
                    members: self.hosting.members as u32,
                });
                return self.answer(from, None, Ok(info));
            }
            NodeAsk::Broadcast { .. } if !self.sweeps.takes_broadcasts() => {
                return self.answer(from, None, Err(busy()));
            }
            NodeAsk::Broadcast { frame } => {
                let json = encode::payload(&frame);
                self.sweeps.broadcast(frame);
                (self.viewers as u32, Order::Broadcast { json })
            }
            NodeAsk::UserPush { user, frame } => {
                let ids = self.by_user.get(&user).cloned().unwrap_or_default();
                for &id in &ids {
                    if let Some(conn) = self.conn(id) {
                        conn.outbox.tail().extend_from_slice(&frame);
                        self.note_flush(id);
                    }
                }
                let json = encode::payload(&frame);
                (ids.len() as u32, Order::Push { user, json })
            }
            NodeAsk::UserDisconnect { user, code, reason } => {
                let ids = self.by_user.get(&user).cloned().unwrap_or_default();
                for &id in &ids {
                    let end = crate::session::End::new(code, reason.to_string());
                    self.close_viewer(id, &end);
                }
                if asks_others && !matches!(from, ReplyTo::Order { .. }) {
                    self.tell_disconnect(&user, &reason);
                }
                let reason = (*reason).into();
                (ids.len() as u32, Order::Disconnect { user, code, reason })
            }
        };
        match asks_others {
            true => self.answer_everywhere(order, from, None, Ok(here)),
            false => self.answer(from, None, Ok(Answer::Connections(here))),
        }
    }

    /// How many shards the node has.
    pub(super) fn shards(&self) -> usize {
        self.node.blocks.len()
    }
}

/// Whether the shards that host a room keep up with it; what is sampled is what the node can bear.
pub(super) fn takes_more(home: &mut Home, mail: &Mail, share: u32) -> Result<(), Refusal> {
    if home.hosts().any(|shard| mail.is_backed_up(shard)) {
        return Err(busy());
    }
    home.press(share);
    Ok(())
}

fn admit(
    access: Access,
    who: Option<&crate::base::identity::Identity>,
    room: &RoomId,
) -> Result<(), Refusal> {
    access.admits(who, room)
}
