//! A room's home: the only writer of its numbering, its history, its presence and its budget.
//!
//! Owned by one shard thread. What comes in is judged, numbered and rendered once into the open batch; at the end of the
//! turn the batch is sealed. It never sends: it says which shards host members.

use std::sync::Arc;

use bytes::Bytes;

use super::ask::{
    Author, Content, Detail, Encoding, HistoryPage, Join, Joined, Leave, MembersPage, Once, Own,
    Patch, Publish, Published, Sealed,
};
use super::budget::{Budget, WINDOW_NS};
use super::history::{History, Keep};
use super::once::Seen;
use super::presence::Presence;
use super::seal::{Batch, Kind};
use super::stats::Stats;
use crate::base::clock::Now;
use crate::base::identity::{Access, Identity, Role, User};
use crate::base::ids::{Epoch, Life, RoomId, ShardId, UserId};
use crate::base::pressure::WHOLE;
use crate::base::rate::{Bucket, Rate};
use crate::base::refusal::{Code, Refusal};
use crate::base::rng::Rng;
use crate::config::checked::{Limits, RoomClass, Tick};
use crate::proto::danmaku::server::{self, Numbered};
use crate::proto::node::{self, Totals};
use crate::proto::ws::deflate::Deflator;
use serde_json::value::RawValue;

mod lately;
pub mod shared;

/// The online count is told at most this often; ...
const ONLINE_EVERY_MS: u64 = 1000;
/// ... in rooms with more members than this a second, as often as makes so many members.
const ONLINE_TOLD_PER_MS: u64 = 10;
/// Rooms with as many members wait with it until the count is still, where it would go out by itself: in a storm everyone's
/// coming would be told to everyone else.
const ONLINE_SETTLES_FROM: u32 = 100;
/// It is still when it has been the same for so long ...
const ONLINE_STILL_MS: u64 = 1000;
/// ... and is told at last when it has not been for so long.
const ONLINE_UNSETTLED_MS_MAX: u64 = 5000;
/// Rooms with fewer members send at once, always.
const BREATHING_FROM: u32 = 5000;
/// A sixth of what a visit costs: what gathering adds to the latency stays small beside the walk's own.
const BREATH_NS_PER_MEMBER: u64 = 1000;
/// The longest breath.
const BREATH_NS_MAX: u64 = 50_000_000;
/// Messages of a history page at most.
const HISTORY_PAGE_MAX: usize = 1000;

/// One room, at home.
#[derive(Debug)]
pub struct Home {
    id: RoomId,
    life: Life,
    epoch: Epoch,
    /// Connections on the other nodes that share the room.
    elsewhere: u32,
    /// What all of them have counted together.
    totals: Option<Totals>,
    /// The newest number given; lines above `sealed_seq` are in the open batch.
    seq: u64,
    sealed_seq: u64,
    settings: Settings,
    batch: Batch,
    /// Lines are gathered for a window, because there are more than may be sent.
    gathers: bool,
    budget: Budget,
    /// The part of the crowd's lines that is sent while the node is overloaded, of `WHOLE`.
    share: u32,
    /// Monotonic ns of the last seal.
    sealed_ns: u64,
    history: History,
    presence: Presence,
    lines: Bucket,
    /// What happened lately; `None`: nothing.
    stats: Option<Box<Stats>>,
    /// Connections that look at its figures.
    watchers: u32,
    seen: Seen,
    /// The least and the most that any member may hold for the online count: what was last told to all, and what each
    /// one that joined since was told in its answer.
    online_told: (u32, u32),
    online_told_ms: Option<u64>,
    /// When the count last changed, and when it first did after it was told, in monotonic ms.
    online_moved_ms: u64,
    online_unsettled_ms: u64,
    created_ms: u64,
    active_ms: u64,
}

/// What the room's class says, and what its owner has said over it.
#[derive(Debug)]
struct Settings {
    class: RoomClass,
    title: Box<str>,
    access: Option<Access>,
    tick_ms: Option<u32>,
    deliver_per_s_max: Option<u32>,
    data: Option<Arc<RawValue>>,
    /// Somebody set something: the room is kept although nobody is in it.
    configured: bool,
    /// The cluster does not know of it yet.
    untold: bool,
}

impl Settings {
    fn keep(&self) -> Keep {
        Keep {
            lines_max: self.class.history_lines,
            bytes_max: self.class.log_bytes_max,
        }
    }
}

impl Home {
    /// A room that begins now, on a node of `shards`. Its life is named like its first numbering.
    pub fn new(id: RoomId, class: &RoomClass, epoch: Epoch, now: Now, shards: usize) -> Home {
        Home {
            id,
            life: Life(epoch.0),
            epoch,
            elsewhere: 0,
            totals: None,
            seq: 0,
            sealed_seq: 0,
            settings: Settings {
                class: class.clone(),
                title: "".into(),
                access: None,
                tick_ms: None,
                deliver_per_s_max: None,
                data: None,
                configured: false,
                untold: false,
            },
            batch: Batch::default(),
            gathers: false,
            budget: Budget::default(),
            share: WHOLE,
            sealed_ns: 0,
            history: History::default(),
            presence: Presence::new(shards),
            lines: Bucket::default(),
            stats: None,
            watchers: 0,
            seen: Seen::default(),
            online_told: (0, 0),
            online_told_ms: None,
            online_moved_ms: 0,
            online_unsettled_ms: 0,
            created_ms: now.unix_ms,
            active_ms: now.mono_ms(),
        }
    }

    /// Which life of the room this is.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Its numbering.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The newest number.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Who is let in.
    pub fn access(&self) -> Access {
        self.settings.access.unwrap_or(self.settings.class.access)
    }

    /// Connections in it, on all nodes that share it.
    pub fn online(&self) -> u32 {
        self.here().saturating_add(self.elsewhere)
    }

    /// Connections in it on this node.
    pub fn here(&self) -> u32 {
        self.presence.online()
    }

    /// Shards that host members.
    pub fn hosts(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.presence.hosts()
    }

    /// Whether all its members sit on that shard.
    pub fn is_hosted_by(&self, shard: ShardId) -> bool {
        self.presence.hosts().eq([shard])
    }

    /// Lets a viewer in. The answer's `seq` is the newest *sealed* number: what is in the open batch reaches the viewer's
    /// shard after the answer, by the log, and is not repeated in `messages`.
    ///
    /// # Errors
    /// `login_required`, `room_forbidden`.
    pub fn join(&mut self, join: Join, now: Now) -> Result<Joined, Refusal> {
        self.access().admits(join.who.as_deref(), &self.id)?;
        self.active_ms = now.mono_ms();
        self.online_moves(now);
        let user = join.who.as_ref().map(|who| &who.user);
        self.presence.enter(user, join.seat, now.unix_ms);
        self.stats_at(now).joined(lately::mono_s(now));
        let (least, most) = self.online_told;
        self.online_told = (least.min(self.online()), most.max(self.online()));
        let messages = join
            .resume
            .and_then(|(epoch, seq)| self.recovered(epoch, seq));
        Ok(Joined {
            life: self.life,
            epoch: self.epoch,
            seq: self.sealed_seq,
            online: self.online(),
            recovered: messages.is_some(),
            messages,
        })
    }

    /// Everything sealed after `seq`, if `seq` is of this numbering and nothing between has been let go. A number in the open
    /// batch is good too: its author knows it from the ack, and all that follows comes by the log.
    fn recovered(&self, epoch: Epoch, seq: u64) -> Option<Vec<Bytes>> {
        if epoch != self.epoch || seq > self.seq {
            return None;
        }
        let oldest = self.history.oldest();
        let complete = seq >= self.sealed_seq || oldest.is_some_and(|oldest| seq + 1 >= oldest);
        complete.then(|| self.history.after(seq).collect())
    }

    /// A member went. One that had joined another life of the room is not known here.
    pub fn leave(&mut self, leave: &Leave, now: Now) {
        if leave.life == self.life {
            self.online_moves(now);
            self.presence.leave(leave.who.as_ref(), leave.seat);
            self.stats_at(now).left(lately::mono_s(now));
            self.active_ms = now.mono_ms();
        }
    }

    /// Judges, numbers and renders. Done once per idempotency key.
    ///
    /// # Errors
    /// `login_required`, `room_forbidden`, `rate_limited`, `idempotency_mismatch`.
    pub fn publish(
        &mut self,
        publish: Publish,
        limits: &Limits,
        now: Now,
    ) -> Result<Published, Refusal> {
        if let Some(published) = self.judge(&publish, limits, now)? {
            return Ok(published);
        }
        self.seq += 1;
        self.note_said(&publish, now);
        let published = Published {
            epoch: self.epoch,
            seq: self.seq,
        };
        self.render(&publish, now);
        self.gather_above_budget(now);
        self.active_ms = now.mono_ms();
        self.keep_once(publish.once, published, now);
        Ok(published)
    }

    /// Whether it may be said here and now; `Some` if it has been before, by its idempotency key.
    fn judge(
        &mut self,
        publish: &Publish,
        limits: &Limits,
        now: Now,
    ) -> Result<Option<Published>, Refusal> {
        if !publish.exempt {
            self.access().admits(publish.who.as_deref(), &self.id)?;
        }
        if let Some(once) = &publish.once
            && let Some(published) = self.seen.find(once, now.mono_ms())?
        {
            return Ok(Some(published));
        }
        if !publish.exempt && matches!(publish.content, Content::Line { .. }) {
            self.spend_line(limits, now)?;
        }
        Ok(None)
    }

    fn keep_once(&mut self, once: Option<Once>, published: Published, now: Now) {
        if let Some(once) = once {
            self.seen.keep(once, published, now.mono_ms());
        }
    }

    fn spend_line(&mut self, limits: &Limits, now: Now) -> Result<(), Refusal> {
        let rate = Rate {
            per_s: limits.room_lines_per_s,
            burst: limits.room_lines_per_s,
        };
        self.lines.take(rate, now.mono_ms()).map_err(|wait_ms| {
            let reason = format!("more than {} lines per second in {}", rate.per_s, self.id);
            Refusal::new(Code::RateLimited, reason).retry(wait_ms)
        })
    }

    /// More lines than the budget has left are gathered, so that all of them have the same chance.
    fn gather_above_budget(&mut self, now: Now) {
        self.budget.set(self.deliver_per_s_max());
        if let Some(left) = self.left(now) {
            self.gathers = self.batch.lines() > left;
        }
    }

    /// The node is overloaded: of the crowd's lines only this part is sent, in parts of [`WHOLE`], but never none.
    pub fn press(&mut self, share: u32) {
        self.share = share;
    }

    /// Lines of the open batch that may be sent; `None` = all.
    fn left(&mut self, now: Now) -> Option<u32> {
        let budget = self.budget.left(now.mono_ms());
        if self.share >= WHOLE {
            return budget;
        }
        let crowd = u64::from(self.batch.crowd());
        let hosts = self.batch.lines() - self.batch.crowd();
        let part = (crowd * u64::from(self.share) / u64::from(WHOLE)).max(1) as u32;
        Some(budget.map_or(hosts + part, |left| left.min(hosts + part)))
    }

    /// Lines per second each viewer is sent; 0 = no bound.
    fn deliver_per_s_max(&self) -> u32 {
        let settings = &self.settings;
        settings
            .deliver_per_s_max
            .unwrap_or(settings.class.deliver_per_s_max)
    }

    fn render(&mut self, publish: &Publish, now: Now) {
        let (room, seq) = (&self.id, self.seq);
        let (kind, numbered) = batched_as(kind_of(publish));
        // An event goes to everyone whoever said it.
        let speaker = publish.speaker.filter(|_| kind != Kind::Event);
        self.batch.put_by(speaker, kind, now.mono_ns, |out| {
            server::numbered(out, numbered, room, seq);
            rest_of(publish, now.unix_ms, out);
        });
    }

    /// When the open batch is to be sealed, in monotonic ns; `None` when nothing is open. One that holds as much as a log
    /// may is due whatever the tick: gathered on, its first lines would fall out of the logs unread.
    pub fn due_ns(&self) -> Option<u64> {
        let begun_ns = self.batch.begun_ns()?;
        if self.batch.bytes() >= self.settings.class.log_bytes_max {
            return Some(begun_ns);
        }
        let due_ns = match (self.settings.tick_ms, self.settings.class.tick) {
            (Some(tick_ms), _) | (None, Tick::EveryMs(tick_ms)) => {
                begun_ns + u64::from(tick_ms) * 1_000_000
            }
            (None, Tick::Auto) => begun_ns.max(self.sealed_ns + self.breath_ns()),
        };
        Some(match self.gathers {
            true => due_ns.max(begun_ns + WINDOW_NS),
            false => due_ns,
        })
    }

    /// The automatic tick: after a seal a room takes breath for a part of what its walk takes, so that a quiet one sends
    /// at once and a hot one gathers. Small rooms never wait.
    fn breath_ns(&self) -> u64 {
        match self.here() {
            ..BREATHING_FROM => 0,
            here => (u64::from(here) * BREATH_NS_PER_MEMBER).min(BREATH_NS_MAX),
        }
    }

    /// Closes the open batch: once for the node, one chunk for each encoding that members use. `None` when nothing is open.
    /// Of lines above the room's budget as many as fit are chosen by chance; the rest are told of, and reach their
    /// speakers alone.
    pub fn seal(
        &mut self,
        chance: &mut Rng,
        deflator: &mut Deflator,
        now: Now,
    ) -> Option<Arc<Sealed>> {
        let begun_ns = self.batch.begun_ns()?;
        let (left_out, own) = self.leave_out(chance, now);
        let uses = Encoding::ALL.map(|encoding| self.presence.uses(encoding));
        let keep = self.settings.keep();
        deflator.suit(self.here());
        let sealed = self.batch.seal(uses, keep, deflator);
        if self.seq > self.sealed_seq {
            self.history.extend(self.seq, sealed.kept, keep);
        }
        self.sealed_seq = self.seq;
        self.sealed_ns = now.mono_ns;
        self.budget.spend(sealed.lines);
        Some(Arc::new(Sealed {
            room: self.id.clone(),
            life: self.life,
            chunks: sealed.chunks,
            events: sealed.events,
            lines: sealed.lines,
            left_out,
            own,
            begun_ns,
        }))
    }

    /// Leaves out what does not fit into the budget, and says so.
    fn leave_out(&mut self, chance: &mut Rng, now: Now) -> (u32, Box<[Own]>) {
        self.gathers = false;
        let Some(left) = self.left(now) else {
            return Default::default();
        };
        let out = self.batch.leave_out(left, chance);
        if out == 0 {
            return Default::default();
        }
        let (room, seq) = (&self.id, self.seq);
        let tell = |json: &mut Vec<u8>, count: u32| {
            server::left_out(json, room, u64::from(count), seq);
        };
        self.batch
            .put(Kind::Told(out), now.mono_ns, |json| tell(json, out));
        let own = self.batch.own(self.settings.class.log_bytes_max, tell);
        (out, own)
    }

    /// Whether the online count is another than what some member was told.
    pub fn online_changed(&self) -> bool {
        let online = self.online();
        self.here() > 0 && self.online_told != (online, online)
    }

    fn online_moves(&mut self, now: Now) {
        self.online_moved_ms = now.mono_ms();
        if !self.online_changed() {
            self.online_unsettled_ms = now.mono_ms();
        }
    }

    /// Whether it may be told now: at most once a second, and more rarely in a large room. With lines that go out anyway it
    /// costs nothing; by itself it waits in all but small rooms until it is still.
    pub fn online_due(&self, now_ms: u64) -> bool {
        let every_ms = ONLINE_EVERY_MS.max(u64::from(self.here()) / ONLINE_TOLD_PER_MS);
        let told = |told_ms: u64| told_ms + every_ms <= now_ms;
        if !self.online_changed() || !self.online_told_ms.is_none_or(told) {
            return false;
        }
        self.due_ns().is_some()
            || self.here() < ONLINE_SETTLES_FROM
            || self.online_moved_ms + ONLINE_STILL_MS <= now_ms
            || self.online_unsettled_ms + ONLINE_UNSETTLED_MS_MAX <= now_ms
    }

    /// Puts the online count into the open batch: not numbered, not kept.
    pub fn put_online(&mut self, now: Now) {
        let count = self.online();
        self.online_told = (count, count);
        self.online_told_ms = Some(now.mono_ms());
        let room = &self.id;
        self.batch.put(Kind::Comfort, now.mono_ns, |out| {
            server::online(out, room, u64::from(count));
        });
    }

    /// Recent lines and events, ascending: with `since` the oldest `limit` after it, without it the newest `limit`.
    /// `limit` counts as 1..=1000.
    pub fn history(&self, since: Option<u64>, limit: usize) -> HistoryPage {
        let limit = limit.clamp(1, HISTORY_PAGE_MAX);
        let messages = match since {
            Some(since) => self.history.after(since).take(limit).collect(),
            None => self.history.newest(limit).collect(),
        };
        HistoryPage {
            epoch: self.epoch,
            seq: self.sealed_seq,
            messages,
        }
    }

    /// A page of members.
    pub fn members(&self, limit: usize, after: Option<&str>) -> MembersPage {
        self.presence.page(limit, after)
    }

    /// A user that is here.
    pub fn user(&self, user: &UserId) -> Option<&User> {
        self.presence.user(user)
    }

    /// A user's connections here, and the shards that hold them.
    pub fn kick_targets(&self, user: &UserId) -> (u32, Vec<ShardId>) {
        self.presence.find(user)
    }

    /// What the room is.
    pub fn detail(&self) -> Detail {
        let (settings, totals) = (&self.settings, self.totals.unwrap_or_default());
        Detail {
            room: self.id.clone(),
            online: self.online(),
            users: self.presence.users().max(totals.users),
            epoch: self.epoch,
            seq: self.seq,
            title: settings.title.clone(),
            access: self.access(),
            tick_ms: settings.tick_ms.or(match settings.class.tick {
                Tick::Auto => None,
                Tick::EveryMs(tick_ms) => Some(tick_ms),
            }),
            deliver_per_s_max: self.deliver_per_s_max(),
            data: settings.data.clone(),
            created_ms: self.created_ms,
            peak: self.presence.peak().max(totals.peak),
            visitors: self.totals.map(|totals| totals.visitors),
            stale: false,
        }
    }

    /// Sets what is given. The room is kept from now on, until it is closed.
    pub fn put(&mut self, patch: Patch) -> Detail {
        let settings = &mut self.settings;
        settings.configured = true;
        if let Some(title) = patch.title {
            settings.title = title;
        }
        settings.access = patch.access.or(settings.access);
        settings.tick_ms = patch.tick_ms.or(settings.tick_ms);
        settings.deliver_per_s_max = patch.deliver_per_s_max.or(settings.deliver_per_s_max);
        if let Some(data) = patch.data {
            settings.data = Some(data.into());
        }
        self.detail()
    }

    /// New defaults, on reload; what its owner has set stays.
    pub fn apply_class(&mut self, class: &RoomClass) {
        self.settings.class = class.clone();
        self.history.trim(self.settings.keep());
    }

    /// Whether nobody would miss it: empty, not configured, and never spoken in or quiet for its class's time.
    pub fn forgettable(&self, now_ms: u64) -> bool {
        let class = &self.settings.class;
        let unused = !self.is_wanted() && !self.settings.configured && self.due_ns().is_none();
        unused && (self.seq == 0 || self.active_ms + class.idle_after_ms <= now_ms)
    }
}

/// What it is in a batch, and how its object begins.
fn batched_as(kind: node::Kind) -> (Kind, Numbered) {
    match kind {
        node::Kind::Line => (Kind::Line, Numbered::Danmaku),
        node::Kind::Host => (Kind::Host, Numbered::Danmaku),
        node::Kind::Event => (Kind::Event, Numbered::Event),
    }
}

/// What a line or event is to a viewer that cannot have everything.
pub fn kind_of(publish: &Publish) -> node::Kind {
    let runs_it = |who: &Arc<Identity>| who.role > Role::Viewer;
    match publish.content {
        Content::Event { .. } => node::Kind::Event,
        Content::Line { .. } if publish.who.as_ref().is_some_and(runs_it) => node::Kind::Host,
        Content::Line { .. } => node::Kind::Line,
    }
}

/// Appends a line or event from behind its number on.
pub fn rest_of(publish: &Publish, ts_ms: u64, out: &mut Vec<u8>) {
    match &publish.content {
        Content::Line { text, style, data } => {
            let user = match &publish.author {
                Author::Anonymous => None,
                Author::User(user) => Some(user),
            };
            let line = server::Line {
                ts_ms,
                user,
                text,
                style: *style,
                data: data.as_deref(),
            };
            server::danmaku_rest(out, &line);
        }
        Content::Event { event, data } => {
            let data = data.as_deref();
            server::event_rest(out, &server::Event { ts_ms, event, data });
        }
    }
}

#[cfg(test)]
#[path = "home_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "home_budget_tests.rs"]
mod budget_tests;

#[cfg(test)]
#[path = "home_model.rs"]
mod model;
