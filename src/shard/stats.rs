//! Rooms' figures for who runs them: gathered at the room's home, put together with the other nodes', pushed to those who look. Part of the
//! shard's turn.
//!
//! They are shown once a second, and sooner when somebody came or went. A look that a slow connection has not taken is not followed by
//! another.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::Shard;
use crate::base::identity::{Identity, Role};
use crate::base::ids::{ConnId, RoomId, ShardId};
use crate::base::limits;
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Answer, Msg, Outward, ReplyTo, RoomAsk, WATCHED_FOR_MS};
use crate::proto::danmaku::server;
use crate::proto::node::part::Part;
use crate::room::stats::{lines_per_s_tenths, together};
use crate::session::intent::EchoId;
use crate::session::viewer::reply;

/// Figures are shown at least this often, ...
const SHOWN_EVERY_MS: u64 = 1000;
/// ... and this often while people come and go.
const SHOWN_SOON_MS: u64 = 250;
/// A node tells the cluster what happened in a room this often, ...
const TOLD_EVERY_MS: u64 = 5000;
/// ... and where somebody looks, this often while people come and go, ...
const TOLD_SOON_MS: u64 = 100;
/// ... and this often when they do not.
const TOLD_ANEW_MS: u64 = 1000;
/// Who looks says so this often.
const ASKED_EVERY_MS: u64 = 2000;
/// What another node told counts for so long.
const OTHERS_FOR_MS: u64 = 12_000;
/// Rooms are looked at this often where somebody looks, ...
const TICK_SOON_MS: u64 = 50;
/// ... and so many of them this often where the cluster alone is told: lines must not wait behind them.
const TICK_MS: u64 = 200;
const TOLD_PER_TICK: usize = 64;
/// Rooms whose figures are told often.
const ASKED_MAX: usize = 1024;
/// Speakers that are shown.
const SPEAKERS: usize = 10;

/// Who comes and goes, and how many are there: what is shown as soon as it changes.
type Shape = (u32, u32, u32);

/// A shard's part in it.
#[derive(Default)]
pub struct Desk {
    /// Rooms at home here that somebody on this node looks at.
    watched: HashMap<RoomId, Watched>,
    /// Rooms at home here that somebody on another node looks at.
    asked: Vec<RoomId>,
    /// Rooms at home here whose figures are told to the cluster.
    telling: VecDeque<RoomId>,
    /// What this shard's connections look at.
    looking: FxHashMap<ConnId, Vec<RoomId>>,
    tick_ms: u64,
    slow_tick_ms: u64,
}

#[derive(Default)]
struct Watched {
    by: Vec<(ShardId, ConnId)>,
    /// What other nodes told, and when.
    others: BTreeMap<Box<str>, (Part, u64)>,
    shown: Shape,
    shown_ms: u64,
    asked_ms: u64,
}

/// What the cluster was told of a room.
#[derive(Debug, Default)]
pub struct Told {
    /// It stands in the list of those to be told.
    listed: bool,
    shape: Shape,
    lines: u32,
    /// When, in monotonic ms; 0: nothing was told yet, or it is to be told anew.
    pub at_ms: u64,
    asked_until_ms: u64,
}

impl Desk {
    /// When something is to be looked at.
    pub fn next_ms(&self) -> Option<u64> {
        let soon = !self.watched.is_empty() || !self.asked.is_empty();
        let slow = (!self.telling.is_empty()).then_some(self.slow_tick_ms);
        slow.into_iter().chain(soon.then_some(self.tick_ms)).min()
    }

    /// The cluster is gone: what other nodes told counts no more.
    pub fn forget_others(&mut self) {
        self.asked.clear();
        self.telling.clear();
        for watched in self.watched.values_mut() {
            watched.others.clear();
        }
    }
}

impl Shard {
    /// A connection wants to be shown a room's figures, or no more.
    pub(super) fn ask_to_watch(&mut self, id: ConnId, room: RoomId, on: bool, echo: EchoId) {
        if !on {
            self.answer_came(id);
            self.look_away(id, Some(&room));
            return self.tell(id, |json| server::stats_off(json, echo.as_deref(), &room));
        }
        let rooms_max = self.policy.config.limits.rooms_per_connection_max;
        let Some(who) = self.identity(id) else {
            return self.answer_came(id);
        };
        // From now on, not from the answer on: what comes between may end it.
        let looking = self.desk.looking.entry(id).or_default();
        if !looking.contains(&room) {
            if looking.len() >= rooms_max {
                self.answer_came(id);
                let refusal =
                    Refusal::new(Code::TooManyRooms, format!("at most {rooms_max} rooms"));
                return self.tell_refusal(id, echo.as_deref(), &refusal);
            }
            looking.push(room.clone());
        }
        self.post_watch(room, id, who, echo);
    }

    /// The token was renewed: whoever it names now may see less.
    pub(super) fn judge_looks(&mut self, id: ConnId, who: &Arc<Identity>) {
        if who.role < Role::Host {
            return self.look_away(id, None);
        }
        for room in self.desk.looking.get(&id).cloned().unwrap_or_default() {
            self.post_watch(room, id, Arc::clone(who), None);
        }
    }

    fn post_watch(&mut self, room: RoomId, id: ConnId, who: Arc<Identity>, echo: EchoId) {
        let (shard, conn) = (self.id, id);
        let from = ReplyTo::Conn {
            shard,
            conn,
            id: echo,
        };
        let ask = RoomAsk::Watch { who, shard, conn };
        let home = room.home(self.shards());
        self.mail.post(home, Msg::Ask { room, ask, from });
    }

    /// The room's home shows it from now on, unless it is wanted no more, or not allowed.
    pub(super) fn watching(
        &mut self,
        id: ConnId,
        echo: EchoId,
        room: &RoomId,
        answer: Result<Box<Part>, Refusal>,
    ) {
        let looking = self.desk.looking.get(&id);
        if !looking.is_some_and(|rooms| rooms.contains(room)) {
            return self.post_unwatch(room.clone(), id);
        }
        let part = match answer {
            Ok(part) => part,
            Err(refusal) => {
                self.look_away(id, Some(room));
                return self.tell_refusal(id, echo.as_deref(), &refusal);
            }
        };
        let ts_ms = self.now.unix_ms;
        self.tell(id, |json| {
            let tenths = lines_per_s_tenths(&part);
            server::stats(json, echo.as_deref(), room, ts_ms, &part, tenths);
        });
    }

    /// A connection looks at a room no more, or, without one, at any.
    pub(super) fn look_away(&mut self, id: ConnId, room: Option<&RoomId>) {
        let Some(looking) = self.desk.looking.get_mut(&id) else {
            return;
        };
        let is_over = |at: &mut RoomId| room.is_none_or(|room| room == at);
        let over: Vec<RoomId> = looking.extract_if(.., is_over).collect();
        if looking.is_empty() {
            self.desk.looking.remove(&id);
        }
        for room in over {
            self.post_unwatch(room, id);
        }
    }

    pub(super) fn post_unwatch(&mut self, room: RoomId, conn: ConnId) {
        let shard = self.id;
        let home = room.home(self.shards());
        let (ask, from) = (RoomAsk::Unwatch { shard, conn }, ReplyTo::Nobody);
        self.mail.post(home, Msg::Ask { room, ask, from });
    }

    /// At the room's home: somebody looks from now on; if they may not, they did so no longer.
    pub(super) fn watch(
        &mut self,
        room: &RoomId,
        who: &Arc<Identity>,
        by: (ShardId, ConnId),
    ) -> Answer {
        let judged = self.judge_watch(room, who, by);
        if judged.is_err() {
            self.unwatch(room, by);
        }
        Answer::Watched(judged)
    }

    fn judge_watch(
        &mut self,
        room: &RoomId,
        who: &Arc<Identity>,
        by: (ShardId, ConnId),
    ) -> Result<Box<Part>, Refusal> {
        let shared = self.is_shared();
        let (now, rooms) = (self.now, &self.policy.config.rooms);
        self.homes
            .access(room, rooms)
            .admits(Some(who.as_ref()), room)?;
        let home = self.homes.open(room, rooms, now, &mut self.rng, shared)?;
        let watched = self.desk.watched.entry(room.clone()).or_default();
        if !watched.by.contains(&by) {
            if watched.by.len() >= limits::WATCHERS_PER_ROOM_MAX {
                let reason = format!("{} connections look at {room} already", watched.by.len());
                return Err(Refusal::new(Code::Busy, reason).retry(10_000));
            }
            watched.by.push(by);
        }
        home.set_watchers(watched.by.len() as u32);
        let part = watched.together(home.part(now), now.mono_ms());
        Ok(Box::new(part))
    }

    /// At the room's home: somebody looks no more.
    pub(super) fn unwatch(&mut self, room: &RoomId, by: (ShardId, ConnId)) {
        let Some(watched) = self.desk.watched.get_mut(room) else {
            return;
        };
        watched.by.retain(|other| *other != by);
        if let Ok(home) = self.homes.find(room) {
            home.set_watchers(watched.by.len() as u32);
        }
        if watched.by.is_empty() {
            self.desk.watched.remove(room);
        }
        self.was_left(room);
    }

    /// Something happened in a room at home here: the cluster is told, where there is one.
    pub(super) fn note_happened(&mut self, room: &RoomId) {
        if let Some((_, tie)) = self.homes.tied(room)
            && !std::mem::replace(&mut tie.told().listed, true)
        {
            if self.desk.telling.is_empty() {
                self.desk.slow_tick_ms = self.now.mono_ms() + TICK_MS;
            }
            self.desk.telling.push_back(room.clone());
        }
    }

    /// Somebody, if on another node, looks at a room's figures.
    pub(super) fn watched_by(&mut self, room: &RoomId, me: &str, node: &str) {
        if node != me {
            self.watched_elsewhere(room);
        }
    }

    /// Somebody on another node looks at a room's figures, or may.
    pub(super) fn watched_elsewhere(&mut self, room: &RoomId) {
        let now_ms = self.now.mono_ms();
        if let Some((_, tie)) = self.homes.tied(room) {
            tie.told().asked_until_ms = now_ms + WATCHED_FOR_MS;
            if !self.desk.asked.contains(room) && self.desk.asked.len() < ASKED_MAX {
                tie.told().at_ms = 0;
                self.desk.asked.push(room.clone());
            }
        }
    }

    /// Another node told what happened in a room there.
    pub(super) fn part_came(&mut self, room: &RoomId, me: &str, node: Box<str>, part: Part) {
        let now_ms = self.now.mono_ms();
        if let Some(watched) = self.desk.watched.get_mut(room)
            && *node != *me
        {
            watched.others.insert(node, (part, now_ms));
        }
    }

    /// Part of the turn: shows what is to be shown, and tells what is to be told.
    pub(super) fn show_stats(&mut self) {
        let now_ms = self.now.mono_ms();
        if self.desk.next_ms().is_none_or(|next_ms| next_ms > now_ms) {
            return;
        }
        if self.desk.slow_tick_ms <= now_ms {
            self.desk.slow_tick_ms = now_ms + TICK_MS;
            for _ in 0..self.desk.telling.len().min(TOLD_PER_TICK) {
                if let Some(room) = self.desk.telling.pop_front()
                    && self.tell_part(&room, false)
                {
                    self.desk.telling.push_back(room);
                }
            }
        }
        self.desk.tick_ms = now_ms + TICK_SOON_MS;
        let mut asked = std::mem::take(&mut self.desk.asked);
        asked.retain(|room| self.tell_part(room, true));
        self.desk.asked = asked;
        let rooms: Vec<RoomId> = self.desk.watched.keys().cloned().collect();
        for room in rooms {
            self.show(&room);
        }
    }

    /// Whether the room is to be looked at again: where somebody looks, as long as they do; else while there is something to tell.
    fn tell_part(&mut self, room: &RoomId, asked: bool) -> bool {
        let (now, now_ms) = (self.now, self.now.mono_ms());
        let Some((home, tie)) = self.homes.tied(room) else {
            return false;
        };
        let told = tie.told();
        if asked && told.asked_until_ms < now_ms {
            return false;
        }
        let since_ms = now_ms.saturating_sub(told.at_ms);
        let least_ms = if asked { TOLD_SOON_MS } else { TOLD_EVERY_MS };
        if told.at_ms > 0 && since_ms < least_ms {
            return true;
        }
        let part = home.part(now);
        let shape = part.as_ref().map_or((0, 0, 0), shape);
        let lines = part.as_ref().map_or(0, |part| part.lines);
        let rests = (shape.1, shape.2, lines) == (0, 0, 0);
        let anew = if asked {
            since_ms >= TOLD_ANEW_MS
        } else {
            !rests
        };
        if told.at_ms == 0 || told.shape != shape || (!asked && told.lines != lines) || anew {
            (told.shape, told.lines, told.at_ms) = (shape, lines, now_ms);
            let (room, part) = (room.clone(), part);
            self.ask_cluster(Outward::Part { room, part });
            return true;
        }
        if !asked && rests {
            told.listed = false;
            return false;
        }
        true
    }

    fn show(&mut self, room: &RoomId) {
        let (now, now_ms) = (self.now, self.now.mono_ms());
        let Some(watched) = self.desk.watched.get_mut(room) else {
            return;
        };
        let Ok(home) = self.homes.find(room) else {
            return self.stats_over(room);
        };
        let since_ms = now_ms.saturating_sub(watched.shown_ms);
        if since_ms >= SHOWN_SOON_MS {
            let part = watched.together(home.part(now), now_ms);
            if since_ms >= SHOWN_EVERY_MS || shape(&part) != watched.shown {
                (watched.shown, watched.shown_ms) = (shape(&part), now_ms);
                let mut frame = Vec::with_capacity(512);
                let tenths = lines_per_s_tenths(&part);
                reply(&mut frame, |json| {
                    server::stats(json, None, room, now.unix_ms, &part, tenths);
                });
                let by = watched.by.clone();
                self.post_stats(&by, frame.into());
            }
        }
        let shared = self.is_shared();
        if let Some(watched) = self.desk.watched.get_mut(room)
            && shared
            && watched.asked_ms + ASKED_EVERY_MS <= now_ms
        {
            watched.asked_ms = now_ms;
            let room = room.clone();
            self.ask_cluster(Outward::Watch { room });
        }
    }

    /// The room is over: who looked at it is told so.
    pub(super) fn stats_over(&mut self, room: &RoomId) {
        let watched = self.desk.watched.remove(room).unwrap_or_default();
        for (shard, conns) in by_shard(&watched.by) {
            let room = room.clone();
            self.mail.post(shard, Msg::StatsOver { conns, room });
        }
    }

    /// Tells this shard's connections so.
    pub(super) fn stats_ended(&mut self, conns: &[ConnId], room: &RoomId) {
        let refusal = Refusal::new(Code::RoomClosed, format!("{room} was closed"));
        for id in conns {
            if let Some(looking) = self.desk.looking.get_mut(id) {
                looking.retain(|other| other != room);
            }
            self.tell_refusal(*id, None, &refusal);
        }
    }

    fn post_stats(&mut self, by: &[(ShardId, ConnId)], frame: Bytes) {
        for (shard, conns) in by_shard(by) {
            let frame = frame.clone();
            self.mail.post(shard, Msg::Stats { conns, frame });
        }
    }

    /// Hands a look to this shard's connections, those of them that have taken the last one.
    pub(super) fn stats_came(&mut self, conns: &[ConnId], frame: &[u8]) {
        for &id in conns {
            if self.desk.looking.contains_key(&id)
                && self.identity(id).is_some()
                && let Some(conn) = self.conn(id)
                && conn.outbox.is_empty()
                && !conn.is_held()
            {
                conn.outbox.tail().extend_from_slice(frame);
                self.note_flush(id);
            }
        }
    }
}

impl Watched {
    /// This node's part and those of the others.
    fn together(&mut self, mine: Option<Part>, now_ms: u64) -> Part {
        self.others
            .retain(|_, (_, heard_ms)| *heard_ms + OTHERS_FOR_MS > now_ms);
        let mine = mine.unwrap_or_default();
        let others = self.others.values().map(|(part, _)| part);
        together([&mine].into_iter().chain(others), SPEAKERS)
    }
}

fn by_shard(by: &[(ShardId, ConnId)]) -> BTreeMap<ShardId, Vec<ConnId>> {
    let mut by_shard: BTreeMap<ShardId, Vec<ConnId>> = BTreeMap::new();
    for (shard, conn) in by {
        by_shard.entry(*shard).or_default().push(*conn);
    }
    by_shard
}

fn shape(part: &Part) -> Shape {
    (part.viewers, part.joins, part.leaves)
}
