//! Rooms that several nodes share: what their homes ask of the cluster, and what comes of it. Part of the shard's turn.
//!
//! Nothing here waits for Redis. While the cluster can be reached, a room's lines are numbered by it, and who wants to enter or read
//! a room that is not known here yet is parked until it is. When the bridge goes down, everything that waits goes on without: the room
//! begins a numbering of its own, and its members are told.

mod counts;
mod lines;
mod rooms;

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::TrySendError;

use self::rooms::Listings;
use super::Shard;
use super::stats::Told;
use super::viewer::busy;
use crate::base::clock::Now;
use crate::base::ids::{Epoch, RoomId};
use crate::bus::{Inward, Outlet, Outward, ReplyTo, RoomAsk};
use crate::proto::node::Message;
use crate::room::ask::Publish;
use crate::room::link::Link;

/// A room that nobody is in any more stays subscribed for so long: people come back.
const LINGER_MS: u64 = 5_000;

/// A shard's side of the bridge.
pub struct Cluster {
    outlet: Outlet,
    up: bool,
    generation: u64,
    /// Asked, but the bridge's queue was full: goes first. What a room asks is few; logins are told some at a time.
    unsent: VecDeque<Outward>,
    /// Rooms with lines for the cluster.
    dirty: Vec<RoomId>,
    /// Rooms that nobody is in any more, and when they are to be left.
    left: VecDeque<(RoomId, u64)>,
    /// Rooms whose count is to be told, and when they are looked at.
    counting: Vec<RoomId>,
    counts_at_ms: u64,
    listings: Listings,
}

/// A room's tie, and how far it has come.
#[derive(Debug)]
pub struct Tie {
    link: Link<ReplyTo>,
    standing: Standing,
    /// Who wants something of a room that is not known here yet.
    parked: Vec<(RoomAsk, ReplyTo)>,
    /// Who wants to say something in a room of which is not known here whom it lets in.
    parked_lines: Vec<(Publish, ReplyTo)>,
    /// What its owner has said of it is known here.
    known: bool,
    /// Its subscription has been asked for, and the answer is still to come.
    subscribing: bool,
    dirty: bool,
    /// Stands in the list of rooms to be counted.
    counting: bool,
    /// What the cluster was last told, and when.
    counted: u32,
    counted_ms: u64,
    /// It is to be told though nothing changed.
    renews: bool,
    renewed_ms: u64,
    /// What was told of what happened here.
    told: Told,
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
            parked_lines: Vec::new(),
            known: false,
            subscribing: false,
            dirty: false,
            counting: false,
            counted: 0,
            counted_ms: 0,
            renews: false,
            renewed_ms: now.mono_ms(),
            told: Told::default(),
        })
    }

    /// What was told of what happened here.
    pub fn told(&mut self) -> &mut Told {
        &mut self.told
    }

    /// A tie of a room that begins while the cluster can be reached.
    pub fn unread(now: Now) -> Box<Tie> {
        Tie::new(Standing::Unread, now)
    }

    /// Whether nothing waits for the cluster.
    pub fn is_idle(&self) -> bool {
        self.link.is_idle() && self.parked.is_empty() && self.parked_lines.is_empty()
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
            listings: Listings::default(),
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

    /// When the first list of rooms is waited for no longer.
    pub fn listings_due_ms(&self) -> Option<u64> {
        self.listings.next_ms()
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

    /// A question to a room that is not known here yet is parked, and the room is read; handed back if it can be answered now.
    pub(super) fn park(
        &mut self,
        room: &RoomId,
        ask: RoomAsk,
        from: ReplyTo,
    ) -> Option<(RoomAsk, ReplyTo)> {
        let joins = matches!(ask, RoomAsk::Join(_) | RoomAsk::Watch { .. });
        let reads = matches!(
            ask,
            RoomAsk::Detail | RoomAsk::History { .. } | RoomAsk::Admit { .. } | RoomAsk::Put(_)
        );
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
            && !home.is_wanted()
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
                && !home.is_wanted()
                && tie.standing == Standing::Joined
            {
                if tie.link.is_reading() || tie.counting {
                    // What is read would be taken for subscribed, and who went is still to be told.
                    cluster.left.push_back((room, now_ms + LINGER_MS));
                    continue;
                }
                tie.standing = Standing::Unread;
                // It hears of changes no more.
                tie.known = false;
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
            Inward::Rooms { to, rooms } => self.rooms_came(to, &rooms),
            Inward::Ordered { key, nodes } => self.ordered(key, nodes),
            Inward::Done {
                key,
                connections,
                known,
            } => self.order_done(key, connections, known),
            Inward::Page { key, page } => self.page_came(key, page),
            Inward::Replaced { conn } => self.replaced(conn),
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
                settings,
            } => self.room_read(room, subscribed, found, settings),
            Inward::Came {
                room,
                message: Message::Settings(json),
            } => {
                if self.homes.tied(&room).is_some() {
                    self.take_settings(&room, &json);
                }
            }
            Inward::Came {
                room,
                message: Message::Part { node, part },
            } => self.with_me(|shard, me| shard.part_came(&room, me, node, part)),
            Inward::Came {
                room,
                message: Message::Watch { node },
            } => self.with_me(|shard, me| shard.watched_by(&room, me, &node)),
            Inward::Came {
                room,
                message: Message::Lines(lines),
            } => self.lines_came(&room, lines),
            Inward::Came {
                room,
                message:
                    Message::Count {
                        node,
                        connections,
                        totals,
                    },
            } => {
                if let (Some(cluster), Some((home, tie))) = (&self.cluster, self.homes.tied(&room))
                {
                    tie.link.count(&node, connections, &cluster.outlet.me);
                    home.set_totals(totals);
                    home.set_elsewhere(tie.link.others(), self.now);
                    self.homes.touched(&room, self.now.mono_ms());
                }
            }
        }
    }

    fn with_me(&mut self, act: impl FnOnce(&mut Shard, &str)) {
        if let Some(me) = self.cluster.as_ref().map(|it| Arc::clone(&it.outlet.me)) {
            act(self, &me);
        }
    }

    /// The cluster is there: rooms with members here are subscribed, and number by themselves until they have been read.
    fn cluster_up(&mut self, generation: u64) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.up = true;
        cluster.generation = generation;
        self.tell_logins();
        for room in self.homes.ids() {
            let begin = self.new_epoch();
            if let Ok(home) = self.homes.find(&room)
                && let Some(json) = home.take_untold()
            {
                // Before anybody reads the room.
                let (room, json) = (room.clone(), json.into());
                self.ask_cluster(Outward::Settings { room, json });
            }
            let Some((home, tie)) = self.homes.untied(&room) else {
                continue;
            };
            if !home.is_wanted() {
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
        self.answer_listings(true);
        self.desk.forget_others();
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
                    self.tell_line(&room, cut.kind, published, &cut.rest);
                    self.tell_numbered(&room, sent.kind, sent.waits, published);
                }
            }
            self.homes.touched(&room, now.mono_ms());
            for (ask, from) in tie.parked {
                self.answer_of_room(room.clone(), ask, from);
            }
            for (publish, from) in tie.parked_lines {
                self.publish_at_home(room.clone(), publish, from);
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
        let was_told = tie.counted > 0 || tie.counting || tie.told().at_ms > 0;
        let parked = tie.parked.into_iter().map(|(_, from)| from);
        let lines = tie.parked_lines.into_iter().map(|(_, from)| from);
        for from in parked.chain(lines) {
            self.answer(from, Some(room.clone()), Err(busy()));
        }
        if was_told {
            let room = room.clone();
            self.ask_cluster(Outward::Uncount { room });
        }
        if tie.standing != Standing::Unread {
            let room = room.clone();
            self.ask_cluster(Outward::Unsubscribe { room });
        }
    }
}
