//! Rooms that several nodes share: what their homes ask of the cluster, and what comes of it. Part of the shard's turn.
//!
//! Nothing here waits for Redis. While the cluster can be reached, a room's lines are numbered by it, and who wants to enter or read
//! a room that is not known here yet is parked until it is. When the bridge goes down, everything that waits goes on without: the room
//! begins a numbering of its own, and its members are told.

use std::collections::VecDeque;

use crossbeam_channel::TrySendError;

use super::Shard;
use super::mailbox::takes_more;
use super::viewer::busy;
use crate::base::clock::Now;
use crate::base::ids::{Epoch, RoomId};
use crate::bus::{Answer, Inward, Outlet, Outward, ReplyTo, RoomAsk, RoomRead};
use crate::proto::node::{Kind, Lines, Message};
use crate::room::ask::{Publish, Published};
use crate::room::home::{kind_of, rest_of};
use crate::room::link::{Link, Next, Sent};

/// A room's count is told once in so long at most: one write for a storm's second.
const COUNT_EVERY_MS: u64 = 1000;
/// Rooms with another count are looked at this often.
const COUNT_TICK_MS: u64 = 50;
/// Users told of at once.
const MOVES_MAX: usize = 1000;
/// A room that nobody is in any more stays subscribed for so long: people come back.
const LINGER_MS: u64 = 5_000;

/// A shard's side of the bridge.
pub struct Cluster {
    outlet: Outlet,
    up: bool,
    generation: u64,
    /// Asked, but the bridge's queue was full: goes first. A room has at most three of them here.
    unsent: VecDeque<Outward>,
    /// Rooms with lines for the cluster.
    dirty: Vec<RoomId>,
    /// Rooms that nobody is in any more, and when they are to be left.
    left: VecDeque<(RoomId, u64)>,
    /// Rooms whose count is to be told, and when they are looked at.
    counting: Vec<RoomId>,
    counts_at_ms: u64,
}

/// A room's tie, and how far it has come.
#[derive(Debug)]
pub struct Tie {
    link: Link<ReplyTo>,
    standing: Standing,
    /// Who wants something of a room that is not known here yet.
    parked: Vec<(RoomAsk, ReplyTo)>,
    /// Its subscription has been asked for, and the answer is still to come.
    subscribing: bool,
    dirty: bool,
    /// Stands in the list of rooms to be counted.
    counting: bool,
    /// What the cluster was last told, and when.
    counted: u32,
    counted_ms: u64,
}

/// How far a room's tie has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Lines go out, nothing comes in: nobody here reads.
    Unread,
    /// It is being read, for those who are parked.
    Reading,
    /// Subscribed, and in step.
    Joined,
    /// The cluster is back; until the room has been read it still numbers by itself.
    Rejoining,
}

impl Tie {
    fn new(standing: Standing, now: Now) -> Box<Tie> {
        Box::new(Tie {
            // No two batches are sent within a microsecond.
            link: Link::new(now.mono_ns / 1000),
            standing,
            parked: Vec::new(),
            subscribing: false,
            dirty: false,
            counting: false,
            counted: 0,
            counted_ms: 0,
        })
    }

    /// A tie of a room that begins while the cluster can be reached.
    pub fn unread(now: Now) -> Box<Tie> {
        Tie::new(Standing::Unread, now)
    }

    /// Whether nothing waits for the cluster.
    pub fn is_idle(&self) -> bool {
        self.link.is_idle() && self.parked.is_empty()
    }
}

impl Cluster {
    /// Down until the bridge says otherwise.
    pub fn new(outlet: Outlet) -> Cluster {
        Cluster {
            outlet,
            up: false,
            generation: 0,
            unsent: VecDeque::new(),
            dirty: Vec::new(),
            left: VecDeque::new(),
            counting: Vec::new(),
            counts_at_ms: 0,
        }
    }

    fn ask(&mut self, outward: Outward) {
        if !self.unsent.is_empty() {
            self.unsent.push_back(outward);
            return;
        }
        // Without a bridge thread nobody listens; the process is ending.
        let ask = (self.generation, outward);
        if let Err(TrySendError::Full((_, outward))) = self.outlet.asks.try_send(ask) {
            self.unsent.push_back(outward);
        }
    }

    fn flush(&mut self) {
        while let Some(outward) = self.unsent.pop_front() {
            let ask = (self.generation, outward);
            if let Err(TrySendError::Full((_, outward))) = self.outlet.asks.try_send(ask) {
                self.unsent.push_front(outward);
                return;
            }
        }
    }

    /// Whether there is something to send.
    pub fn is_busy(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When counts are to be told.
    pub fn counts_due_ms(&self) -> Option<u64> {
        (!self.counting.is_empty()).then_some(self.counts_at_ms)
    }

    /// Whether something waits for a place in the bridge's queue.
    pub fn is_backed_up(&self) -> bool {
        !self.unsent.is_empty()
    }
}

impl Shard {
    /// Whether rooms that begin now are shared.
    pub(super) fn is_shared(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.up)
    }

    pub(super) fn ask_cluster(&mut self, outward: Outward) {
        if let Some(cluster) = &mut self.cluster {
            cluster.ask(outward);
        }
    }

    fn new_epoch(&mut self) -> Epoch {
        Epoch::begin(self.now.unix_ms, self.rng.next_u64())
    }

    /// A line or event for a room whose numbers the cluster gives. Handed back if the room gives them itself.
    pub(super) fn publish_shared(
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
    pub(super) fn send_shared(&mut self) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.flush();
        let cluster_dirty = std::mem::take(&mut cluster.dirty);
        self.tell_counts();
        self.answer_orders(false);
        for room in cluster_dirty {
            if let Some((_, tie)) = self.homes.tied(&room) {
                tie.dirty = false;
            }
            self.send_batch(&room);
        }
    }

    fn send_batch(&mut self, room: &RoomId) {
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

    /// A question to a room that is not known here yet is parked, and the room is read; handed back if it can be answered now.
    pub(super) fn park(
        &mut self,
        room: &RoomId,
        ask: RoomAsk,
        from: ReplyTo,
    ) -> Option<(RoomAsk, ReplyTo)> {
        let joins = matches!(ask, RoomAsk::Join(_));
        let reads = matches!(ask, RoomAsk::Detail | RoomAsk::History { .. });
        if !self.is_shared() || !(joins || reads) {
            return Some((ask, from));
        }
        let begin = self.new_epoch();
        // A room that cannot be begun is refused where it is asked.
        let rooms = &self.policy.config.rooms;
        let _ = self.homes.open(room, rooms, self.now, &mut self.rng, true);
        let Some((_, tie)) = self.homes.tied(room) else {
            return Some((ask, from));
        };
        if matches!(tie.standing, Standing::Joined | Standing::Rejoining) {
            return Some((ask, from));
        }
        tie.parked.push((ask, from));
        let first = tie.link.read();
        tie.standing = Standing::Reading;
        let room = room.clone();
        if joins {
            if !std::mem::replace(&mut tie.subscribing, true) {
                self.ask_cluster(Outward::Subscribe { room, begin });
            }
        } else if first {
            self.ask_cluster(Outward::Read {
                room,
                begin: None,
                subscribed: false,
            });
        }
        None
    }

    /// A room was left by one of its members here.
    pub(super) fn was_left(&mut self, room: &RoomId) {
        let now_ms = self.now.mono_ms();
        if let (Some(cluster), Some((home, tie))) = (&mut self.cluster, self.homes.tied(room))
            && home.here() == 0
            && tie.standing == Standing::Joined
        {
            cluster.left.push_back((room.clone(), now_ms + LINGER_MS));
        }
    }

    /// Once a second: rooms that nobody came back to are left.
    pub(super) fn leave_unread(&mut self) {
        let now_ms = self.now.mono_ms();
        while let Some(cluster) = &mut self.cluster
            && let Some((room, _)) = cluster.left.pop_front_if(|(_, at_ms)| *at_ms <= now_ms)
        {
            if let Some((home, tie)) = self.homes.tied(&room)
                && home.here() == 0
                && tie.standing == Standing::Joined
            {
                if tie.link.is_reading() {
                    // What is read would be taken for subscribed.
                    cluster.left.push_back((room, now_ms + LINGER_MS));
                    continue;
                }
                tie.standing = Standing::Unread;
                cluster.ask(Outward::Unsubscribe { room });
            }
        }
    }

    /// The bridge has something for this shard.
    pub(super) fn cluster_says(&mut self, inward: Inward) {
        match inward {
            Inward::Up { generation } => self.cluster_up(generation),
            Inward::Down => self.cluster_down(),
            Inward::Recount => self.recount(),
            Inward::Ordered { key, nodes } => self.ordered(key, nodes),
            Inward::Done {
                key,
                connections,
                known,
            } => self.order_done(key, connections, known),
            Inward::Order { asker, order } => self.take_order(asker, order),
            Inward::Numbered {
                room,
                batch,
                epoch,
                first,
            } => self.numbered(&room, batch, epoch, first),
            Inward::Read {
                room,
                subscribed,
                found,
            } => self.room_read(room, subscribed, found),
            Inward::Came {
                room,
                message: Message::Lines(lines),
            } => self.lines_came(&room, lines),
            Inward::Came {
                room,
                message: Message::Count { node, connections },
            } => {
                if let (Some(cluster), Some((home, tie))) = (&self.cluster, self.homes.tied(&room))
                {
                    tie.link.count(&node, connections, &cluster.outlet.me);
                    home.set_elsewhere(tie.link.others(), self.now);
                    self.homes.touched(&room, self.now.mono_ms());
                }
            }
        }
    }

    fn numbered(&mut self, room: &RoomId, batch: u64, epoch: Epoch, first: u64) {
        let Some((home, tie)) = self.homes.tied(room) else {
            return;
        };
        let heard = tie.subscribing || matches!(tie.standing, Standing::Joined);
        let mut answers = Vec::new();
        for (sent, published) in tie.link.numbered(batch, epoch, first, heard) {
            home.was_numbered(sent.once, published, self.now);
            answers.push((sent.kind, sent.waits, published));
        }
        for (kind, waits, published) in answers {
            self.tell_numbered(room, kind, waits, published);
        }
        self.send_batch(room);
    }

    fn tell_numbered(&mut self, room: &RoomId, kind: Kind, to: ReplyTo, published: Published) {
        let answer = Ok(published);
        self.count_publish(kind == Kind::Event, &answer);
        self.answer(to, Some(room.clone()), answer.map(Answer::Published));
    }

    fn lines_came(&mut self, room: &RoomId, lines: Lines) {
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
    fn pass(&mut self, room: &RoomId, seq: u64, told: u64) {
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
    fn renumber(&mut self, room: &RoomId, epoch: Epoch, seq: u64) {
        // What was numbered before goes out before the news.
        self.seal_home(room);
        if let Ok(home) = self.homes.find(room) {
            home.renumber(epoch, seq, self.now);
            self.homes.touched(room, self.now.mono_ms());
        }
    }

    fn room_read(&mut self, room: RoomId, subscribed: bool, found: Option<RoomRead>) {
        let Some((home, tie)) = self.homes.tied(&room) else {
            if subscribed {
                self.ask_cluster(Outward::Unsubscribe { room });
            }
            return;
        };
        let held = tie.link.was_read();
        tie.subscribing &= !subscribed;
        let (standing, at) = (tie.standing, home.epoch());
        match found {
            Some(found) if standing == Standing::Joined && found.epoch == at => {
                self.fill_gap(&room, &found);
                self.set_counts(&room, found);
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
        let waits_still =
            |(ask, _): &mut (RoomAsk, ReplyTo)| subscribed || !matches!(ask, RoomAsk::Join(_));
        let parked: Vec<(RoomAsk, ReplyTo)> = tie.parked.extract_if(.., waits_still).collect();
        if !tie.parked.is_empty() {
            tie.standing = Standing::Reading;
        }
        let is_unknown = !subscribed && home.forgettable(u64::MAX) && home.seq() == 0;
        if is_unknown && tie.parked.is_empty() && tie.link.is_idle() {
            // Nobody knows it: who asked is told so.
            let _ = self.homes.remove(&room);
        }
        for (ask, from) in parked {
            self.answer_of_room(room.clone(), ask, from);
        }
        // Whoever it was for may be gone by now.
        self.was_left(&room);
    }

    /// Lines that were missing here, as far as the log still has them.
    fn fill_gap(&mut self, room: &RoomId, found: &RoomRead) {
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

    fn set_counts(&mut self, room: &RoomId, found: RoomRead) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        if let Some((home, tie)) = self.homes.tied(room) {
            tie.link
                .counts(found.counts.into_iter(), &cluster.outlet.me);
            home.set_elsewhere(tie.link.others(), self.now);
            self.homes.touched(room, self.now.mono_ms());
        }
    }

    /// The cluster is there: rooms with members here are subscribed, and number by themselves until they have been read.
    fn cluster_up(&mut self, generation: u64) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.up = true;
        cluster.generation = generation;
        for room in self.homes.ids() {
            let begin = self.new_epoch();
            let Some((home, tie)) = self.homes.untied(&room) else {
                continue;
            };
            if home.here() == 0 {
                *tie = Some(Tie::new(Standing::Unread, self.now));
                continue;
            }
            let mut rejoining = Tie::new(Standing::Rejoining, self.now);
            rejoining.link.read();
            rejoining.subscribing = true;
            *tie = Some(rejoining);
            self.ask_cluster(Outward::Subscribe { room, begin });
        }
    }

    /// The cluster is gone: every room goes on with a numbering of its own, and nothing waits any longer.
    fn cluster_down(&mut self) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.up = false;
        cluster.unsent.clear();
        cluster.dirty.clear();
        cluster.left.clear();
        cluster.counting.clear();
        self.answer_orders(true);
        for room in self.homes.ids() {
            let Some(mut tie) = self.homes.untie(&room) else {
                continue;
            };
            if let Ok(home) = self.homes.find(&room) {
                home.unwatch();
            }
            if tie.standing != Standing::Rejoining {
                let epoch = self.new_epoch();
                self.renumber(&room, epoch, 0);
            }
            let now = self.now;
            for cut in tie.link.cut() {
                let Ok(home) = self.homes.find(&room) else {
                    break;
                };
                let published = home.take_one(cut.kind, &cut.rest, cut.speaker, now);
                if let Some(sent) = cut.sent {
                    home.was_numbered(sent.once, published, now);
                    self.tell_numbered(&room, sent.kind, sent.waits, published);
                }
            }
            self.homes.touched(&room, now.mono_ms());
            for (ask, from) in tie.parked {
                self.answer_of_room(room.clone(), ask, from);
            }
        }
    }

    /// Who is in a room here may have changed.
    pub(super) fn note_count(&mut self, room: &RoomId) {
        let now_ms = self.now.mono_ms();
        let (Some(cluster), Some((_, tie))) = (&mut self.cluster, self.homes.tied(room)) else {
            return;
        };
        if tie.standing == Standing::Joined && !std::mem::replace(&mut tie.counting, true) {
            if cluster.counting.is_empty() {
                cluster.counts_at_ms = now_ms + COUNT_TICK_MS;
            }
            cluster.counting.push(room.clone());
        }
    }

    /// Tells the cluster who is in the rooms that changed, each at most once a second.
    pub(super) fn tell_counts(&mut self) {
        let now_ms = self.now.mono_ms();
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if cluster.counting.is_empty() || cluster.counts_at_ms > now_ms {
            return;
        }
        cluster.counts_at_ms = now_ms + COUNT_TICK_MS;
        for room in std::mem::take(&mut cluster.counting) {
            let Some((home, tie)) = self.homes.tied(&room) else {
                continue;
            };
            if tie.counted_ms + COUNT_EVERY_MS > now_ms && tie.counted_ms > 0 {
                cluster.counting.push(room);
                continue;
            }
            let (connections, moves) = (home.here(), home.moves(MOVES_MAX));
            tie.counting = moves.more;
            if moves.more {
                cluster.counting.push(room.clone());
            } else if moves.is_empty() && connections == tie.counted {
                continue;
            }
            (tie.counted, tie.counted_ms) = (connections, now_ms.max(1));
            cluster.ask(Outward::Count {
                room,
                connections,
                moves,
            });
        }
    }

    /// What was counted counts no more: everybody here is told anew.
    fn recount(&mut self) {
        for room in self.homes.ids() {
            if let Some((home, tie)) = self.homes.tied(&room)
                && tie.standing == Standing::Joined
            {
                home.watch();
                (tie.counted, tie.counted_ms) = (0, 0);
                self.note_count(&room);
            }
        }
    }

    /// A room is over: its subscription too.
    pub(super) fn room_over(&mut self, room: &RoomId, tie: Option<Box<Tie>>) {
        let Some(tie) = tie else {
            return;
        };
        let mut tie = tie;
        for sent in tie.link.cut().into_iter().filter_map(|cut| cut.sent) {
            self.answer(sent.waits, Some(room.clone()), Err(busy()));
        }
        for (_, from) in tie.parked {
            self.answer(from, Some(room.clone()), Err(busy()));
        }
        if tie.counted > 0 {
            let room = room.clone();
            self.ask_cluster(Outward::Uncount { room });
        }
        if tie.standing != Standing::Unread {
            let room = room.clone();
            self.ask_cluster(Outward::Unsubscribe { room });
        }
    }
}
