//! The rooms whose home is this shard: found, opened, sealed, forgotten. Also the flood buckets of users whose home it is.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use super::Shard;
use super::cluster::Tie;
use crate::base::clock::Now;
use crate::base::identity::Access;
use crate::base::ids::{Epoch, RoomId, UserId};
use crate::base::limits;
use crate::base::pressure::Level;
use crate::base::rate::{Bucket, Rate};
use crate::base::refusal::{Code, Refusal};
use crate::base::rng::Rng;
use crate::bus::Brief;
use crate::bus::Msg;
use crate::config::checked::Rooms;
use crate::room::ask::{Detail, Leave, Published, Sealed};
use crate::room::home::Home;
use crate::telemetry::table::{Bucket as Flooded, Counter, Shed};

/// How often the home looks for rooms whose online count is to be told.
const ONLINE_TICK_MS: u64 = 100;

/// Home rooms of one shard.
pub struct Homes {
    shards: usize,
    rooms: HashMap<RoomId, Entry>,
    /// Rooms with an open batch, the one that is due first at the front: when (monotonic ns), as the how-manieth it was listed, and which. One
    /// that is due sooner than it was is listed again, and what stands here otherwise than in its entry is passed over.
    open: BinaryHeap<Reverse<(u64, u64, RoomId)>>,
    listed: u64,
    /// Rooms whose online count changed and is still to be told.
    online: Vec<RoomId>,
    online_at_ms: u64,
    /// Members that may be told a count, where nothing else is sent to them.
    online_visits: Bucket,
    users: HashMap<UserId, Bucket>,
    /// Where the slow sweep for forgettable rooms goes on.
    sweep: Vec<RoomId>,
}

/// A room, and the lists it stands in.
struct Entry {
    home: Home,
    /// Its tie to the cluster; `None`: it gives its numbers by itself.
    tie: Option<Box<Tie>>,
    open: Open,
    is_online: bool,
}

/// Who will look after a room's open batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// There is none.
    Nobody,
    /// The seal step: the room is listed for then, monotonic ns.
    List(u64),
    /// The walk, when it comes to the room.
    Walk,
}

impl Homes {
    /// No rooms yet, on a node of `shards`.
    pub fn new(shards: usize) -> Homes {
        Homes {
            shards,
            rooms: HashMap::new(),
            open: BinaryHeap::new(),
            listed: 0,
            online: Vec::new(),
            online_at_ms: 0,
            online_visits: Bucket::default(),
            users: HashMap::new(),
            sweep: Vec::new(),
        }
    }

    /// Rooms here.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// A room that exists.
    ///
    /// # Errors
    /// `room_not_found`.
    pub fn find(&mut self, room: &RoomId) -> Result<&mut Home, Refusal> {
        match self.rooms.get_mut(room) {
            Some(entry) => Ok(&mut entry.home),
            None => Err(not_found(room)),
        }
    }

    /// A room, begun if need be; `shared` says whether the cluster is to number one that begins.
    ///
    /// # Errors
    /// `busy` when the shard has as many rooms as it may.
    pub fn open(
        &mut self,
        room: &RoomId,
        classes: &Rooms,
        now: Now,
        rng: &mut Rng,
        shared: bool,
    ) -> Result<&mut Home, Refusal> {
        if !self.rooms.contains_key(room) {
            if self.rooms.len() >= limits::HOME_ROOMS_MAX {
                let reason = format!("this shard has {} rooms already", self.rooms.len());
                return Err(Refusal::new(Code::Busy, reason).retry(10_000));
            }
            let epoch = Epoch::begin(now.unix_ms, rng.next_u64());
            let class = classes.class_of(room.as_str());
            let home = Home::new(room.clone(), class, epoch, now, self.shards);
            let entry = Entry {
                home,
                tie: shared.then(|| Tie::unread(now)),
                open: Open::Nobody,
                is_online: false,
            };
            self.rooms.insert(room.clone(), entry);
        }
        self.find(room)
    }

    /// Ends a room.
    ///
    /// # Errors
    /// `room_not_found`.
    pub fn remove(&mut self, room: &RoomId) -> Result<(Home, Option<Box<Tie>>), Refusal> {
        let removed = self.rooms.remove(room);
        removed
            .map(|entry| (entry.home, entry.tie))
            .ok_or_else(|| not_found(room))
    }

    /// A room with a tie to the cluster.
    pub fn tied(&mut self, room: &RoomId) -> Option<(&mut Home, &mut Tie)> {
        let entry = self.rooms.get_mut(room)?;
        Some((&mut entry.home, entry.tie.as_deref_mut()?))
    }

    /// A room without one, and where it goes.
    pub fn untied(&mut self, room: &RoomId) -> Option<(&mut Home, &mut Option<Box<Tie>>)> {
        let entry = self.rooms.get_mut(room)?;
        entry
            .tie
            .is_none()
            .then_some((&mut entry.home, &mut entry.tie))
    }

    /// Takes a room's tie: from now on it gives its numbers by itself.
    pub fn untie(&mut self, room: &RoomId) -> Option<Box<Tie>> {
        self.rooms.get_mut(room)?.tie.take()
    }

    /// All rooms.
    pub fn ids(&self) -> Vec<RoomId> {
        self.rooms.keys().cloned().collect()
    }

    /// Who a room lets in: as its owner said, or as its class does.
    pub fn access(&self, room: &RoomId, classes: &Rooms) -> Access {
        match self.rooms.get(room) {
            Some(entry) => entry.home.access(),
            None => classes.class_of(room.as_str()).access,
        }
    }

    /// A member went.
    pub fn leave(&mut self, room: &RoomId, leave: &Leave, now: Now) {
        if let Some(entry) = self.rooms.get_mut(room) {
            entry.home.leave(leave, now);
            if entry.open == Open::Walk {
                // It may have been the last member here, and no walk comes any more.
                entry.open = Open::Nobody;
            }
            self.touched(room, now.mono_ms());
        }
    }

    /// Something was asked of a room: it may have an open batch now, or another count.
    pub fn touched(&mut self, room: &RoomId, now_ms: u64) {
        let Some(entry) = self.rooms.get_mut(room) else {
            return;
        };
        if let Some(due_ns) = entry.home.due_ns() {
            let is_listed = match entry.open {
                Open::Nobody => false,
                Open::List(listed_ns) => listed_ns <= due_ns,
                Open::Walk => true,
            };
            if !is_listed {
                entry.open = Open::List(due_ns);
                self.listed += 1;
                self.open.push(Reverse((due_ns, self.listed, room.clone())));
            }
        }
        if !entry.is_online && entry.home.online_changed() {
            entry.is_online = true;
            self.online.push(room.clone());
            self.online_at_ms = self.online_at_ms.max(now_ms + 1);
        }
    }

    /// One line's worth of a user's bucket.
    ///
    /// # Errors
    /// Milliseconds until there is one.
    pub fn spend_user(&mut self, user: &UserId, rate: Rate, now_ms: u64) -> Result<(), u32> {
        if let Some(bucket) = self.users.get_mut(user) {
            return bucket.take(rate, now_ms);
        }
        let mut bucket = Bucket::default();
        let taken = bucket.take(rate, now_ms);
        self.users.insert(user.clone(), bucket);
        taken
    }

    /// The rooms after `after` in the order of `GET /rooms`: most viewers first, then by id. Where Redis is asked too, `shared`, a room
    /// that only others are in is told of by it.
    pub fn top(&self, limit: usize, after: Option<&(u32, Box<str>)>, shared: bool) -> Vec<Detail> {
        let mut best: BTreeSet<(Reverse<u32>, &RoomId)> = BTreeSet::new();
        let after = after.map(|(online, room)| (Reverse(*online), &**room));
        for (id, Entry { home, .. }) in &self.rooms {
            if shared && home.here() == 0 && home.online() > 0 {
                continue;
            }
            let key = (Reverse(home.online()), id);
            if after.is_some_and(|after| (key.0, id.as_str()) <= after) {
                continue;
            }
            best.insert(key);
            if best.len() > limit {
                best.pop_last();
            }
        }
        let detail = |(_, id): (_, &RoomId)| self.rooms.get(id).map(|entry| entry.home.detail());
        best.into_iter().filter_map(detail).collect()
    }

    /// A room as it stands in Redis, as this node would show it.
    pub fn shown(&self, brief: &Brief, classes: &Rooms, now: Now) -> Detail {
        if let Some(entry) = self.rooms.get(&brief.room).filter(|it| it.home.here() > 0) {
            return entry.home.detail();
        }
        let class = classes.class_of(brief.room.as_str());
        let mut home = Home::new(brief.room.clone(), class, brief.epoch, now, 0);
        if let Some(json) = &brief.settings {
            // What cannot be read is as if nothing had been said.
            let _ = home.take_settings(json);
        }
        Detail {
            online: brief.online,
            users: brief.totals.users,
            seq: brief.seq,
            created_ms: brief.epoch.began_ms(),
            peak: brief.totals.peak,
            visitors: Some(brief.totals.visitors),
            ..home.detail()
        }
    }

    /// New settings for rooms that have none of their own.
    pub fn apply_classes(&mut self, classes: &Rooms) {
        for (id, Entry { home, .. }) in &mut self.rooms {
            home.apply_class(classes.class_of(id.as_str()));
        }
    }

    /// When the soonest open batch is due, in monotonic ns.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.open.peek().map(|Reverse((due_ns, ..))| *due_ns)
    }

    /// When one room's open batch is due.
    fn due_of(&self, room: &RoomId) -> Option<u64> {
        self.rooms.get(room)?.home.due_ns()
    }

    /// When online counts are to be looked at.
    pub fn online_due_ms(&self) -> Option<u64> {
        (!self.online.is_empty()).then_some(self.online_at_ms)
    }
}

impl Shard {
    /// The seal step of the turn: every open batch that is due. That of a room whose walk is still to come waits for it: it
    /// reaches nobody later for that, and what comes meanwhile is sealed along with it.
    pub(super) fn seal_homes(&mut self) {
        self.put_online_counts();
        let (now_ns, now_ms) = (self.now.mono_ns, self.now.mono_ms());
        for _ in 0..self.homes.open.len() {
            if self
                .homes
                .next_due_ns()
                .is_none_or(|due_ns| due_ns > now_ns)
            {
                return;
            }
            let Some(Reverse((listed_ns, _, room))) = self.homes.open.pop() else {
                return;
            };
            let Some(entry) = self.homes.rooms.get_mut(&room) else {
                continue;
            };
            if entry.open != Open::List(listed_ns) {
                continue;
            }
            match entry.home.due_ns() {
                Some(due_ns) if due_ns > now_ns => {
                    entry.open = Open::Nobody;
                    self.homes.touched(&room, now_ms);
                }
                Some(_) if entry.home.is_hosted_by(self.id) && self.hosting.wait(&room) => {
                    entry.open = Open::Walk;
                }
                Some(_) => {
                    entry.open = Open::Nobody;
                    self.seal_home(&room);
                }
                None => entry.open = Open::Nobody,
            }
        }
    }

    /// The walk has come to a room: what waited for that is sealed.
    pub(super) fn seal_waiting(&mut self, hosted: u32) {
        let Some(room) = self.hosting.waited(hosted) else {
            return;
        };
        let Some(entry) = self.homes.rooms.get_mut(&room) else {
            return;
        };
        if entry.open != Open::Walk {
            return;
        }
        entry.open = Open::Nobody;
        match entry.home.due_ns() {
            Some(due_ns) if due_ns <= self.now.mono_ns => self.seal_home(&room),
            _ => self.homes.touched(&room, self.now.mono_ms()),
        }
    }

    /// Seals one room's open batch if its time has come; a room that gathers goes on gathering.
    pub(super) fn seal_if_due(&mut self, room: &RoomId) {
        let due_ns = self.homes.due_of(room);
        if due_ns.is_some_and(|due_ns| due_ns <= self.now.mono_ns) {
            self.seal_home(room);
        }
    }

    /// One room's open batch, closed; `None` if there is none.
    fn sealed(&mut self, room: &RoomId) -> Option<Arc<Sealed>> {
        let home = self.homes.find(room).ok()?;
        let sealed = home.seal(&mut self.rng, &mut self.deflator, self.now)?;
        let deflated = self.deflator.take_tally();
        if deflated.messages > 0 {
            let messages = u64::from(deflated.messages);
            self.metrics.add(Counter::DeflatedMessagesTotal, messages);
            self.metrics
                .add(Counter::DeflateBytesInTotal, deflated.before_bytes);
            self.metrics
                .add(Counter::DeflateBytesOutTotal, deflated.after_bytes);
        }
        Some(sealed)
    }

    /// Seals a room for the last time. This shard's own share goes by its own mail, behind answers to joins that wait there.
    pub(super) fn seal_last(&mut self, room: &RoomId) {
        let sealed = self.sealed(room);
        if let (Some(sealed), Ok(home)) = (sealed, self.homes.find(room)) {
            for shard in home.hosts() {
                self.mail.post(shard, Msg::Sealed(Arc::clone(&sealed)));
            }
        }
    }

    /// Seals one room's open batch: into this shard's own logs, and by mail to every other shard that hosts members.
    pub(super) fn seal_home(&mut self, room: &RoomId) {
        let Some(sealed) = self.sealed(room) else {
            return;
        };
        if self.overload.gives_up(Level::Crowd) {
            self.metrics.shed(Shed::Lines, u64::from(sealed.left_out));
        }
        let Ok(home) = self.homes.find(room) else {
            return;
        };
        let mut here = false;
        for shard in home.hosts() {
            if shard == self.id {
                here = true;
            } else {
                self.mail.post(shard, Msg::Sealed(Arc::clone(&sealed)));
            }
        }
        if here {
            self.host(&sealed);
        }
    }

    fn put_online_counts(&mut self) {
        let now_ms = self.now.mono_ms();
        if self.homes.online.is_empty() || self.homes.online_at_ms > now_ms {
            return;
        }
        self.homes.online_at_ms = now_ms + ONLINE_TICK_MS;
        if self.overload.gives_up(Level::Comfort) {
            self.metrics.shed(Shed::Comfort, 1);
            return;
        }
        let changed = std::mem::take(&mut self.homes.online);
        let mut visits = Visits(self.homes.online_visits);
        for room in changed {
            let Some(entry) = self.homes.rooms.get_mut(&room) else {
                continue;
            };
            if !entry.home.online_changed() {
                entry.is_online = false;
            } else if entry.home.online_due(now_ms) && visits.allow(&entry.home, now_ms) {
                entry.home.put_online(self.now);
                entry.is_online = false;
                self.homes.touched(&room, now_ms);
            } else {
                self.homes.online.push(room);
            }
        }
        self.homes.online_visits = visits.0;
    }

    /// Counts what a publish came to.
    pub(super) fn count_publish(&self, is_event: bool, answer: &Result<Published, Refusal>) {
        match answer {
            Ok(_) if is_event => self.metrics.inc(Counter::EventsTotal),
            Ok(_) => self.metrics.inc(Counter::LinesTotal),
            Err(refusal) => {
                self.metrics.line_refused(refusal.code);
                if refusal.code == Code::RateLimited {
                    self.metrics.rate_limited(Flooded::Room);
                }
            }
        }
    }

    /// Once a second: forgets rooms nobody needs and buckets that are full again, a bounded number each time.
    pub(super) fn forget_idle(&mut self) {
        let now_ms = self.now.mono_ms();
        let homes = &mut self.homes;
        if homes.sweep.is_empty() {
            homes.sweep = homes.rooms.keys().cloned().collect();
            let settings = &self.policy.config.limits;
            let rate = Rate {
                per_s: settings.lines_per_s,
                burst: settings.line_burst,
            };
            homes
                .users
                .retain(|_, bucket| !bucket.is_full(rate, now_ms));
        }
        for _ in 0..limits::ROOMS_SWEPT_PER_SECOND {
            let Some(room) = self.homes.sweep.pop() else {
                return;
            };
            let forgettable = |entry: &Entry| {
                let idle = entry.tie.as_ref().is_none_or(|tie| tie.is_idle());
                idle && entry.home.forgettable(now_ms)
            };
            if self.homes.rooms.get(&room).is_some_and(forgettable)
                && let Ok((_, tie)) = self.homes.remove(&room)
            {
                self.room_over(&room, tie);
                continue;
            }
            if let Ok(home) = self.homes.find(&room) {
                home.rest(self.now);
            }
            if self.cluster.is_some() {
                self.renew(&room);
            }
        }
    }
}

/// What telling online counts may cost. A storm changes the count of every room it enters, and each telling is a walk.
struct Visits(Bucket);

impl Visits {
    /// Whether a room may be told its count now. With lines that go out anyway it costs nothing.
    fn allow(&mut self, home: &Home, now_ms: u64) -> bool {
        const RATE: Rate = Rate {
            per_s: limits::ONLINE_VISITS_PER_S,
            burst: limits::ONLINE_VISITS_PER_S,
        };
        if home.due_ns().is_some() {
            return true;
        }
        let allowed = self.0.left(RATE, now_ms) > 0;
        if allowed {
            self.0.spend(RATE, home.online());
        }
        allowed
    }
}

fn not_found(room: &RoomId) -> Refusal {
    Refusal::new(Code::RoomNotFound, format!("no room {room}"))
}
