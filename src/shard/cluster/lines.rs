//! Lines of shared rooms: out to be numbered, in to be taken, read where some are missing. Part of the shard's turn.

use bytes::Bytes;

use super::Standing;
use crate::base::ids::{Epoch, RoomId};
use crate::bus::{Answer, Outward, ReplyTo, RoomAsk, RoomRead};
use crate::proto::node::{Kind, Lines};
use crate::room::ask::{Publish, Published};
use crate::room::home::{kind_of, rest_of};
use crate::room::link::{Next, Sent};
use crate::shard::Shard;
use crate::shard::mailbox::takes_more;

impl Shard {
    /// A line or event for a room whose numbers the cluster gives. Handed back if the room gives them itself.
    pub(in crate::shard) fn publish_shared(
        &mut self,
        room: &RoomId,
        publish: Publish,
        from: ReplyTo,
    ) -> Option<(Publish, ReplyTo)> {
        let now = self.now;
        let config = &self.policy.config;
        if self.is_shared() && self.homes.find(room).is_err() {
            // One that cannot be begun is refused where it is asked.
            let _ = self
                .homes
                .open(room, &config.rooms, now, &mut self.rng, true);
        }
        let Some((home, tie)) = self.homes.tied(room) else {
            return Some((publish, from));
        };
        if tie.standing == Standing::Rejoining {
            return Some((publish, from));
        }
        if !tie.known && !publish.exempt && tie.standing != Standing::Joined {
            tie.parked_lines.push((publish, from));
            if tie.link.read() {
                self.ask_cluster(Outward::Read {
                    room: room.clone(),
                    begin: None,
                    subscribed: false,
                });
            }
            return None;
        }
        let kind = kind_of(&publish);
        let judged = takes_more(home, &self.mail, self.overload.share())
            .and_then(|()| home.judge_shared(&publish, &config.limits, now));
        let answer = match judged {
            Ok(None) => {
                let sent = Sent {
                    kind,
                    waits: from,
                    once: publish.once.clone(),
                    speaker: publish.speaker.filter(|_| kind != Kind::Event),
                };
                match tie
                    .link
                    .put(sent, |out| rest_of(&publish, now.unix_ms, out))
                {
                    Ok(()) => {
                        if !std::mem::replace(&mut tie.dirty, true)
                            && let Some(cluster) = &mut self.cluster
                        {
                            cluster.dirty.push(room.clone());
                        }
                        self.note_happened(room);
                        return None;
                    }
                    Err((from, refusal)) => (from, Err(refusal)),
                }
            }
            Ok(Some(published)) => (from, Ok(published)),
            Err(refusal) => (from, Err(refusal)),
        };
        let (from, answer) = answer;
        self.count_publish(kind == Kind::Event, &answer);
        self.answer(from, Some(room.clone()), answer.map(Answer::Published));
        None
    }

    /// At the end of the turn: what was said in it goes out, a batch for each room.
    pub(in crate::shard) fn send_shared(&mut self) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.flush();
        let cluster_dirty = std::mem::take(&mut cluster.dirty);
        if self.is_shared() {
            self.tell_more_logins();
        }
        self.tell_counts();
        self.answer_orders(false);
        self.answer_listings(false);
        for room in cluster_dirty {
            if let Some((_, tie)) = self.homes.tied(&room) {
                tie.dirty = false;
            }
            self.send_batch(&room);
        }
    }

    pub(super) fn send_batch(&mut self, room: &RoomId) {
        let begin = self.new_epoch();
        let Some((home, tie)) = self.homes.tied(room) else {
            return;
        };
        if let Some(batch) = tie.link.next_batch() {
            let keep = home.history_lines();
            let room = room.clone();
            self.ask_cluster(Outward::Publish {
                room,
                begin,
                batch,
                keep,
            });
        }
    }

    pub(super) fn numbered(&mut self, room: &RoomId, batch: u64, epoch: Epoch, first: u64) {
        let Some((home, tie)) = self.homes.tied(room) else {
            return;
        };
        let heard = tie.subscribing || matches!(tie.standing, Standing::Joined);
        let mut answers = Vec::new();
        let items = match self.sinks.is_empty() {
            true => None,
            false => tie.link.items_of(batch),
        };
        for (sent, published) in tie.link.numbered(batch, epoch, first, heard) {
            home.was_numbered(sent.once, published, self.now);
            answers.push((sent.kind, sent.waits, published));
        }
        let numbered = answers.iter().map(|(_, _, published)| *published);
        for (published, (kind, rest)) in numbered.zip(items.into_iter().flatten()) {
            self.tell_line(room, kind, published, &rest);
        }
        for (kind, waits, published) in answers {
            self.tell_numbered(room, kind, waits, published);
        }
        self.send_batch(room);
    }

    pub(super) fn tell_numbered(
        &mut self,
        room: &RoomId,
        kind: Kind,
        to: ReplyTo,
        published: Published,
    ) {
        let answer = Ok(published);
        self.count_publish(kind == Kind::Event, &answer);
        self.answer(to, Some(room.clone()), answer.map(Answer::Published));
    }

    pub(super) fn lines_came(&mut self, room: &RoomId, lines: Lines) {
        let Some(me) = self.cluster.as_ref().map(|it| it.outlet.me.clone()) else {
            return;
        };
        let Some((home, tie)) = self.homes.tied(room) else {
            return;
        };
        if tie.standing == Standing::Unread {
            return;
        }
        match tie.link.came(lines, (home.epoch(), home.seq()), &me) {
            Next::Take(lines, speakers) => {
                home.take(&lines, &speakers, self.now);
                self.homes.touched(room, self.now.mono_ms());
                // It may have waited until enough had come back.
                self.send_batch(room);
            }
            Next::Pass(lines) => self.pass(room, lines.last(), 0),
            Next::Read => {
                let begin = Some(self.new_epoch());
                self.ask_cluster(Outward::Read {
                    room: room.clone(),
                    begin,
                    subscribed: true,
                });
            }
            Next::Wait => {}
        }
    }

    /// Numbers up to `seq` pass without their lines.
    pub(super) fn pass(&mut self, room: &RoomId, seq: u64, told: u64) {
        if !self.homes.find(room).is_ok_and(|home| home.seq() < seq) {
            return;
        }
        self.seal_home(room);
        if let Ok(home) = self.homes.find(room) {
            home.pass(seq, told, self.now);
            self.homes.touched(room, self.now.mono_ms());
        }
    }

    /// The room begins another numbering here.
    pub(super) fn renumber(&mut self, room: &RoomId, epoch: Epoch, seq: u64) {
        // What was numbered before goes out before the news.
        self.seal_home(room);
        if let Ok(home) = self.homes.find(room) {
            home.renumber(epoch, seq, self.now);
            self.homes.touched(room, self.now.mono_ms());
        }
    }

    pub(super) fn room_read(
        &mut self,
        room: RoomId,
        subscribed: bool,
        found: Option<RoomRead>,
        settings: Option<Bytes>,
    ) {
        let Some((home, tie)) = self.homes.tied(&room) else {
            if subscribed {
                self.ask_cluster(Outward::Unsubscribe { room });
            }
            return;
        };
        let held = tie.link.was_read();
        if subscribed && tie.standing == Standing::Unread && !tie.subscribing {
            // It was left meanwhile.
            return;
        }
        tie.subscribing &= !subscribed;
        let (standing, at) = (tie.standing, home.epoch());
        tie.known = true;
        let is_configured = settings.is_some();
        if let Some(json) = settings {
            self.take_settings(&room, &json);
        }
        match found {
            Some(found) if standing == Standing::Joined && found.epoch == at => {
                self.fill_gap(&room, &found);
                self.set_counts(&room, found);
            }
            Some(found) if standing == Standing::Joined => {
                // Redis has forgotten the numbering. What was said since is news to those who are here.
                let first = found.batches.first();
                let before = first.map_or(found.seq, |lines| lines.first - 1);
                self.renumber(&room, found.epoch, before);
                self.fill_gap(&room, &found);
                self.set_counts(&room, found);
                self.note_count(&room);
            }
            Some(found) if subscribed || standing != Standing::Rejoining => {
                self.renumber(&room, found.epoch, found.seq);
                if let Some((home, tie)) = self.homes.tied(&room) {
                    home.remember(found.batches.iter());
                    if subscribed && tie.standing != Standing::Joined {
                        home.watch();
                    }
                    tie.standing = match subscribed {
                        true => Standing::Joined,
                        false => Standing::Unread,
                    };
                }
                self.note_count(&room);
                if found.is_watched {
                    self.watched_elsewhere(&room);
                }
                self.set_counts(&room, found);
            }
            Some(_) | None => {}
        }
        if let Some((home, tie)) = self.homes.tied(&room) {
            tie.link.has_all(home.seq());
        }
        for lines in held {
            self.lines_came(&room, lines);
        }
        self.send_batch(&room);
        let Some((home, tie)) = self.homes.tied(&room) else {
            return;
        };
        let waits_still = |(ask, _): &mut (RoomAsk, ReplyTo)| {
            subscribed || !matches!(ask, RoomAsk::Join(_) | RoomAsk::Watch { .. })
        };
        let parked: Vec<(RoomAsk, ReplyTo)> = tie.parked.extract_if(.., waits_still).collect();
        if !tie.parked.is_empty() {
            tie.standing = Standing::Reading;
        }
        let lines = std::mem::take(&mut tie.parked_lines);
        let unused = home.forgettable(u64::MAX) && home.seq() == 0 && home.online() == 0;
        let is_unknown = !subscribed && unused;
        if is_unknown
            && !is_configured
            && lines.is_empty()
            && tie.parked.is_empty()
            && tie.link.is_idle()
        {
            // Nobody knows it: who asked is told so.
            let _ = self.homes.remove(&room);
        }
        for (ask, from) in parked {
            self.answer_of_room(room.clone(), ask, from);
        }
        for (publish, from) in lines {
            self.publish_at_home(room.clone(), publish, from);
        }
        if let Some((_, tie)) = self.homes.tied(&room) {
            // Where nobody hears of changes, what was read held for those who waited for it.
            tie.known = tie.standing == Standing::Joined;
        }
        // Whoever it was for may be gone by now.
        self.was_left(&room);
    }

    /// Lines that were missing here, as far as the log still has them.
    pub(super) fn fill_gap(&mut self, room: &RoomId, found: &RoomRead) {
        let Some(me) = self.cluster.as_ref().map(|it| it.outlet.me.clone()) else {
            return;
        };
        for lines in &found.batches {
            let Some((home, _)) = self.homes.tied(room) else {
                return;
            };
            let (epoch, seq) = (home.epoch(), home.seq());
            if lines.epoch != epoch || lines.last() <= seq {
                continue;
            }
            let missing = lines.first.saturating_sub(seq + 1);
            if missing > 0 {
                self.pass(room, lines.first - 1, missing);
            }
            let Some((home, tie)) = self.homes.tied(room) else {
                return;
            };
            match tie.link.came(lines.clone(), (epoch, home.seq()), &me) {
                Next::Take(lines, speakers) => home.take(&lines, &speakers, self.now),
                _ => self.pass(room, lines.last(), 0),
            }
        }
        let seq = self.homes.find(room).map_or(0, |home| home.seq());
        self.pass(room, found.seq, found.seq.saturating_sub(seq));
        self.homes.touched(room, self.now.mono_ms());
    }

    /// What was said of the room on another node.
    pub(super) fn take_settings(&mut self, room: &RoomId, json: &[u8]) {
        if let Ok(home) = self.homes.find(room)
            && let Err(refusal) = home.take_settings(json)
        {
            tracing::warn!(%room, why = %refusal.reason, "the room's settings in Redis cannot be read");
        }
        // With a shorter tick its open batch is due sooner.
        self.homes.touched(room, self.now.mono_ms());
    }
}
