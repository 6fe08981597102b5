//! The thread that asks Redis, and judges it. Whatever has gathered in its queue goes out in one write, and is answered in one read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use redis::{Cmd, RedisError, Value, cmd, from_redis_value};

use super::breaker::{ANSWER_MS, Breaker, Fault, State};
use super::chores::Chores;
use super::ears::Ears;
use super::listener::{Hears, Wish};
use super::phrase::{Due, Listing, News, Scripts, Voice, brief, placed, ranked, room_read};
use super::post::Post;
use super::wire::{Seeds, Wire, has_moved};
use super::{Shared, Start, keys};
use crate::base::clock::Clock;
use crate::base::ids::Epoch;
use crate::base::rng::Rng;
use crate::bus::{Brief, Inward, Outward, Peer, ReplyTo};
use crate::proto::node::about::About;
use crate::sync::latest::Latest;
use crate::telemetry::redis::RedisStats;

/// Questions that go out together.
const TOGETHER_MAX: usize = 128;
/// A batch that Redis gets to see later than this after it went out has been delivered without it.
const DEADLINE_US: u64 = 2 * ANSWER_MS * 1000;

/// Lists of rooms under way at once, ...
const LISTINGS_MAX: usize = 32;
/// ... and rooms of them that are read in a round: lines must not wait behind them.
const BRIEFS_MAX: usize = 128;
/// So many of the first rooms are read ...
const LISTED_MAX: usize = 200;
/// ... this often.
const LISTED_EVERY_NS: u64 = 3_000_000_000;

/// Redis' clocks are looked at this often: they drift.
const CLOCKS_EVERY_NS: u64 = 10_000_000_000;

/// What an ending process may take to take out what it counted.
const FAREWELL_NS: u64 = 1_000_000_000;
/// A connection that has been good for less is not made anew at once.
const WELL_NS: u64 = 1_000_000_000;

/// The thread's state.
pub struct Commands {
    seeds: Seeds,
    me: Arc<str>,
    clock: Clock,
    shared: Arc<Shared>,
    asked: Receiver<(u64, Outward)>,
    ears: Ears,
    post: Post,
    breaker: Breaker,
    chance: Rng,
    /// Which time it is that the cluster can be reached: what was asked at another is not meant for it.
    generation: u64,
    /// What has been asked and not answered: asked once more where only the connection was lost.
    under_way: Vec<(u64, Outward)>,
    chores: Chores,
    /// It has been said that Redis is away.
    said_away: bool,
    /// Lists of rooms under way: their rooms are read one by one.
    listings: Vec<Listing>,
    /// When the first rooms are read next, so that there are some to be shown when Redis is away.
    listed_ns: u64,
    /// When Redis' clocks are looked at next.
    clocks_ns: u64,
    about: Box<dyn Fn() -> About + Send>,
    peers: Arc<Latest<Vec<Peer>>>,
    listed: Arc<Latest<Vec<Brief>>>,
    stats: Arc<RedisStats>,
}

/// Connections and what is known there.
struct Line {
    wire: Wire,
    scripts: Scripts,
}

/// Why a connection is given up.
enum End {
    Failed(RedisError),
    Judged(Fault),
    Stop,
}

impl From<RedisError> for End {
    fn from(error: RedisError) -> End {
        End::Failed(error)
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Judged(fault)
    }
}

impl Commands {
    pub fn new(start: Start, hears: Hears, asked: Receiver<(u64, Outward)>) -> Commands {
        Commands {
            seeds: Seeds::new(&start.url, start.is_cluster),
            me: Arc::clone(&start.me),
            clock: start.clock,
            post: hears.post.clone(),
            shared: Arc::clone(&hears.shared),
            ears: Ears::new(hears),
            asked,
            breaker: Breaker::default(),
            chance: Rng::seed(start.seed),
            generation: 0,
            under_way: Vec::new(),
            chores: Chores::new(&start.me, start.lease_ms),
            said_away: false,
            stats: start.stats,
            listings: Vec::new(),
            listed_ns: 0,
            clocks_ns: 0,
            about: start.about,
            listed: start.listed,
            peers: start.peers,
        }
    }

    /// Until the process ends.
    pub fn run(mut self) {
        while !self.shared.stops() {
            let end = match self.dial() {
                Ok(line) => {
                    self.breaker.connected();
                    self.stats.breaker(State::HalfOpen as u64);
                    self.attend(line)
                }
                Err(end) => end,
            };
            match end {
                End::Stop => break,
                End::Failed(error) => self.down(&shown(&error)),
                End::Judged(Fault::Moved) => {
                    self.down("parts of it are at other servers now");
                    self.ears.stop();
                }
                End::Judged(Fault::Slow) => self.down("its answers take too long"),
                End::Judged(Fault::Cut) => self.down("what is published does not come back"),
            }
            // Another server may be the one that takes what is written.
            self.seeds.turn();
            let wait_ms = self.breaker.failed(&mut self.chance);
            self.wait(Duration::from_millis(wait_ms));
        }
        self.ears.stop();
    }

    /// Serves. A connection that was lost while all was well is made anew once, at once: a script asked twice acts once.
    fn attend(&mut self, mut line: Line) -> End {
        loop {
            let begun_ns = self.clock.mono_ns();
            let error = match self.serve(line) {
                End::Failed(error) if error.is_io_error() && !error.is_timeout() => error,
                end => return end,
            };
            let served_ns = self.clock.mono_ns() - begun_ns;
            let was_well = self.breaker.state() == State::Closed && served_ns > WELL_NS;
            if !was_well {
                return End::Failed(error);
            }
            tracing::warn!(
                why = shown(&error),
                "the connection to Redis was lost: another is made"
            );
            self.chores.again();
            line = match self.redial() {
                Ok(line) => line,
                Err(end) => return end,
            };
        }
    }

    /// Connects, and listens there.
    fn dial(&mut self) -> Result<Line, End> {
        let line = self.connect()?;
        let listens = self.ears.listen(&line.wire.layout);
        listens.map_err(RedisError::from)?;
        Ok(line)
    }

    /// Connects once more, to where it was.
    fn redial(&mut self) -> Result<Line, End> {
        let line = self.connect()?;
        match self.ears.suit(&line.wire.layout) {
            true => Ok(line),
            false => Err(Fault::Moved.into()),
        }
    }

    fn connect(&mut self) -> Result<Line, RedisError> {
        let answer = Duration::from_millis(ANSWER_MS);
        let mut wire = self.seeds.dial(&self.me, self.clock, answer)?;
        let mut load = |script: &str| wire.load(script);
        let scripts = Scripts {
            publish: load(keys::PUBLISH)?,
            read: load(keys::READ)?,
            count: load(keys::COUNT)?,
            drop: load(keys::DROP)?,
            rooms: load(keys::ROOMS)?,
            brief: load(keys::BRIEF)?,
            login: load(keys::LOGIN)?,
        };
        Ok(Line { wire, scripts })
    }

    /// Asks until something ends it.
    fn serve(&mut self, mut line: Line) -> End {
        let mut canary_ns = 0;
        loop {
            if self.shared.stops() {
                if self.breaker.state() == State::Closed {
                    self.farewell(&mut line);
                }
                return End::Stop;
            }
            let now_ns = self.clock.mono_ns();
            let next_ns = canary_ns + self.breaker.canary_every_ns();
            let closed = self.breaker.state() == State::Closed;
            let idle = self.under_way.is_empty()
                && self.listings.is_empty()
                && !(closed && self.chores.are_waiting());
            let patience = match idle {
                true => Duration::from_nanos(next_ns.saturating_sub(now_ns)),
                false => Duration::ZERO,
            };
            let first = match self.asked.recv_timeout(patience) {
                Ok(ask) => Some(ask),
                Err(RecvTimeoutError::Timeout) => None,
                // Only when the process ends, which is asked above.
                Err(RecvTimeoutError::Disconnected) => None,
            };
            let asked = first.into_iter().chain(self.asked.try_iter());
            self.under_way.extend(asked.take(TOGETHER_MAX));
            if let Err(end) = self.ask(&mut line, &mut canary_ns) {
                return end;
            }
            self.under_way.clear();
        }
    }

    /// One round: everything out, every answer in.
    fn ask(&mut self, line: &mut Line, canary_ns: &mut u64) -> Result<(), End> {
        let begun_ns = self.clock.mono_ns();
        let (mut commands, mut due) = (Vec::new(), Vec::new());
        let mut put = |command: Cmd, answer: Due| {
            commands.push(command);
            due.push(answer);
        };
        let publish = line.wire.publish();
        let counts_as = self.chores.name();
        let counted_as = self.chores.older_names();
        let voice = Voice {
            scripts: &line.scripts,
            me: &self.me,
            counts_as: &counts_as,
            counted_as: &counted_as,
            publish,
            deadline_us: begun_ns / 1000 + DEADLINE_US,
            ahead_us: &|key| line.wire.ahead_us(key),
        };
        let mut wished = BTreeSet::new();
        let current = |(generation, _): &&(u64, Outward)| *generation == self.generation;
        for (_, outward) in self.under_way.iter().filter(current) {
            match outward {
                Outward::Subscribe { room, begin } => {
                    wished.insert(self.ears.wish(Wish::Subscribe {
                        room: room.clone(),
                        begin: *begin,
                        generation: self.generation,
                    }));
                }
                Outward::Unsubscribe { room } => {
                    let wish = Wish::Unsubscribe { room: room.clone() };
                    wished.insert(self.ears.wish(wish));
                }
                outward => voice.say(outward, &mut put),
            }
        }
        if begun_ns >= *canary_ns + self.breaker.canary_every_ns() {
            *canary_ns = begun_ns;
            self.breaker.canary_sent(begun_ns);
            for place in &line.wire.layout.masters {
                // It writes, too: a Redis that takes no more is not one to wait for.
                let mut written = cmd("SET");
                written.arg(keys::canary(&place.wake)).arg(begun_ns);
                written.arg("EX").arg(60);
                put(written, Due::Nothing);
                let mut said = cmd(publish);
                said.arg(&place.wake).arg(format!("c {begun_ns}"));
                put(said, Due::Nothing);
            }
        } else {
            let places = &line.wire.layout.masters;
            for place in wished.into_iter().filter_map(|at| places.get(at)) {
                // The listener waits for its own connection: this makes it look up.
                let mut said = cmd(publish);
                said.arg(&place.wake).arg("w");
                put(said, Due::Nothing);
            }
        }
        let unread = self.listings.iter().enumerate().flat_map(|(at, listing)| {
            let rooms = listing.rooms.iter().skip(listing.found.len());
            rooms.map(move |room| (at, room.clone()))
        });
        for (listing, room) in unread.take(BRIEFS_MAX) {
            put(voice.brief(&room), Due::Brief { listing, room });
        }
        if self.breaker.state() == State::Closed {
            if self.listed_ns <= begun_ns {
                self.listed_ns = begun_ns + LISTED_EVERY_NS;
                let to = ReplyTo::Nobody;
                put(voice.rooms(LISTED_MAX, None), Due::Rooms { to });
            }
            let said_us = i128::from(begun_ns / 1000) + line.wire.ahead_us(keys::ABOUT);
            let said_ms = said_us / 1000;
            let about = || About {
                said_ms: u64::try_from(said_ms).unwrap_or(0),
                ..(self.about)()
            };
            for chore in self.chores.due(begun_ns, about) {
                let command = self.chores.command(&chore, &line.scripts.drop, publish);
                put(command, Due::Done(chore));
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        // The first answer that does not come ends it: each further one would be waited for as long.
        let is_late = || self.clock.mono_ns() - begun_ns > 2 * ANSWER_MS * 1_000_000;
        let answers = line.wire.round(&commands, is_late)?;
        let answers = answers.ok_or(Fault::Slow)?;
        let now_ns = self.clock.mono_ns();
        let waiting = self.asked.len() as u64;
        self.stats
            .round_trip(due.len() as u64, now_ns - begun_ns, waiting);
        let mut lost = false;
        let mut listings = Vec::new();
        for (answer, due) in answers.into_iter().zip(due) {
            match self.answered(answer, due)? {
                News::None => {}
                News::Lost => lost = true,
                News::Listing(listing) => listings.push(listing),
                News::Peers(nodes) => {
                    self.peers
                        .set(peers(nodes, line.wire.ahead_us(keys::ABOUT)));
                    if self.clocks_ns <= now_ns {
                        self.clocks_ns = now_ns + CLOCKS_EVERY_NS;
                        line.wire.look_at_clocks(self.clock)?;
                    }
                }
            }
        }
        let is_read = |listing: &mut Listing| listing.found.len() == listing.rooms.len();
        let read: Vec<Listing> = self.listings.extract_if(.., is_read).collect();
        for listing in read {
            match listing.to {
                ReplyTo::Nobody => self.listed.set(listing.found),
                to => self.post.listed(to, listing.found),
            }
        }
        // Who is one too many is told what was read last, by its shard.
        let free = LISTINGS_MAX.saturating_sub(self.listings.len());
        self.listings.extend(listings.into_iter().take(free));
        self.chores.settled();
        if lost {
            tracing::warn!("this node was not heard of for longer than its lease: it counts anew");
            self.begin_count(line)?;
            self.post.to_all(|| Inward::Recount);
        }
        if self.shared.moved.load(Ordering::Acquire) {
            return Err(Fault::Moved.into());
        }
        let heard_ns = self.ears.heard_ns();
        self.breaker.canary_heard(heard_ns, now_ns)?;
        if self.breaker.answered(now_ns - begun_ns, now_ns)? {
            self.begin_count(line)?;
            self.up();
        }
        Ok(())
    }

    /// Begins to count under a new name.
    fn begin_count(&mut self, line: &mut Line) -> Result<(), RedisError> {
        let now = self.clock.now();
        let begin = self.chores.begin(now.mono_ns, now.unix_s());
        line.wire.round(&begin, || false)?;
        Ok(())
    }

    /// The process ends: what this node counted is taken out, as far as a second suffices.
    fn farewell(&mut self, line: &mut Line) {
        self.chores.end();
        self.under_way.clear();
        self.listings.clear();
        let until_ns = self.clock.mono_ns() + FAREWELL_NS;
        let mut canary_ns = u64::MAX / 2;
        while self.chores.are_waiting() && self.clock.mono_ns() < until_ns {
            if self.ask(line, &mut canary_ns).is_err() {
                return;
            }
        }
    }

    /// Hands an answer on.
    fn answered(&mut self, answer: Value, due: Due) -> Result<News, End> {
        if let Value::ServerError(error) = answer {
            let error = RedisError::from(error);
            return Err(match has_moved(&error) {
                true => Fault::Moved.into(),
                false => error.into(),
            });
        }
        match due {
            Due::Nothing => {}
            Due::Numbers { room, batch } => {
                let (epoch, first): (u64, u64) =
                    from_redis_value(answer).map_err(RedisError::from)?;
                let numbered = Inward::Numbered {
                    room: room.clone(),
                    batch,
                    epoch: Epoch(epoch),
                    first,
                };
                self.post.to_home(&room, numbered);
            }
            Due::Room { room, subscribed } => {
                let (settings, found) = room_read(answer)?;
                let read = Inward::Read {
                    room: room.clone(),
                    subscribed,
                    found,
                    settings,
                };
                self.post.to_home(&room, read);
            }
            Due::Rooms { to } => {
                return Ok(News::Listing(Listing {
                    to,
                    rooms: ranked(answer)?,
                    found: Vec::new(),
                }));
            }
            Due::Brief { listing, room } => {
                let brief = brief(room, answer)?;
                if let Some(listing) = self.listings.get_mut(listing) {
                    listing.found.push(brief);
                }
            }
            Due::Replaced => {
                let places: Vec<String> = from_redis_value(answer).map_err(RedisError::from)?;
                for place in places {
                    self.replaced(&place);
                }
            }
            Due::Counted { room } => {
                let connections = from_redis_value(answer).map_err(RedisError::from)?;
                self.chores.rank(room, connections);
            }
            Due::Ordered { shard, key } => {
                let nodes = from_redis_value(answer).map_err(RedisError::from)?;
                self.post.to(shard, Inward::Ordered { key, nodes });
            }
            Due::Done(chore) => return Ok(self.chores.done(chore, answer)?),
        }
        Ok(News::None)
    }

    /// A connection has to go for newer ones of the same login: here, or on the node that has it.
    fn replaced(&mut self, place: &str) {
        let Some((node, shard, conn)) = placed(place) else {
            return;
        };
        let node = node.split_once('#').map_or(node, |(node, _)| node);
        if node == &*self.me {
            self.post.to(shard, Inward::Replaced { conn });
        } else {
            let word = format!("r {} {} {}", shard.0, conn.slot, conn.generation);
            self.chores.say(keys::own(node), word);
        }
    }

    fn up(&mut self) {
        self.stats.breaker(State::Closed as u64);
        self.generation += 1;
        let generation = self.generation;
        tracing::info!("Redis can be reached: rooms are shared with the other nodes");
        self.post.to_all(|| Inward::Up { generation });
    }

    fn down(&mut self, why: &str) {
        self.under_way.clear();
        self.listings.clear();
        // What the shards ask before they know of it is not meant for the next time.
        self.generation += 1;
        self.stats.breaker(State::Open as u64);
        if self.breaker.state() == State::Closed {
            tracing::warn!(why, "Redis is away: this node goes on by itself");
            self.said_away = true;
            self.post.to_all(|| Inward::Down);
            self.ears.forget();
        } else if !std::mem::replace(&mut self.said_away, true) {
            tracing::warn!(why, "Redis cannot be reached: this node goes on by itself");
        } else {
            tracing::debug!(why, "Redis is still away");
        }
    }

    /// Lets time pass. What is asked meanwhile was asked before the shards knew.
    fn wait(&self, for_how_long: Duration) {
        let until_ns = self.clock.mono_ns() + for_how_long.as_nanos() as u64;
        while !self.shared.stops() {
            let left_ns = until_ns.saturating_sub(self.clock.mono_ns());
            if left_ns == 0 {
                return;
            }
            if let Err(RecvTimeoutError::Disconnected) =
                self.asked.recv_timeout(Duration::from_nanos(left_ns))
            {
                return;
            }
        }
    }
}

/// What nodes have said, by this process' clock.
fn peers(nodes: Vec<About>, ahead_us: i128) -> Vec<Peer> {
    let peer = |about: About| {
        let said_ms = i128::from(about.said_ms) - ahead_us / 1000;
        Peer {
            said_ms: u64::try_from(said_ms).unwrap_or(0),
            about,
        }
    };
    nodes.into_iter().map(peer).collect()
}

/// What went wrong: the library's words and the system's, which hold nothing of what was sent.
fn shown(error: &RedisError) -> String {
    match error.is_timeout() {
        true => "no answer in time".into(),
        false => error.to_string(),
    }
}
