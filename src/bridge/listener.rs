//! A thread that hears one server: the channels of rooms with viewers here, and the node's own, by which it is made to look up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender};
use redis::{Connection, ConnectionInfo, ProtocolVersion, PushKind, RedisError, Value};
use redis::{cmd, from_redis_value};

use super::post::Post;
use super::wire::{Layout, has_moved};
use super::{Shared, connect, keys};
use crate::base::clock::Clock;
use crate::base::ids::{ConnId, Epoch, RoomId, ShardId};
use crate::bus::{Inward, Outward};
use crate::proto::node::{self, page::Page};
use crate::telemetry::redis::RedisStats;

/// It looks up at least this often.
const LOOKS_UP: Duration = Duration::from_millis(250);
/// Between two tries to connect, where the first came to nothing.
const PAUSE: Duration = Duration::from_millis(100);
/// Rooms that are begun or let go of between two looks at what came, and messages taken between two such.
const AT_ONCE: usize = 16;
/// How long it looks for messages while there are more of them.
const GLANCE: Duration = Duration::from_millis(1);

/// What the asking thread hands over.
#[derive(Debug)]
pub enum Wish {
    /// Hear a room, and have it read once it is heard.
    Subscribe {
        room: RoomId,
        begin: Epoch,
        generation: u64,
    },
    /// Hear it no more.
    Unsubscribe { room: RoomId },
    /// The shards will ask anew for every room they want.
    Forget,
}

/// What every listener needs.
#[derive(Clone)]
pub struct Hears {
    pub me: Arc<str>,
    pub clock: Clock,
    pub shared: Arc<Shared>,
    pub post: Post,
    pub asks: Sender<(u64, Outward)>,
    pub stats: Arc<RedisStats>,
}

/// The thread's state.
pub struct Listener {
    hears: Hears,
    info: ConnectionInfo,
    is_cluster: bool,
    index: usize,
    /// Channels that are heard whatever rooms are: the one it is woken by first.
    own: Vec<String>,
    stop: Arc<AtomicBool>,
    wished: Receiver<Wish>,
    wishes: VecDeque<Wish>,
    /// Rooms that are wanted, and what they were asked for with.
    wanted: HashMap<RoomId, (u64, Epoch)>,
    /// Rooms that were heard before the shards began to ask anew.
    stale: HashSet<RoomId>,
    /// Channels that were let go of, and how often that is still to be confirmed.
    leaving: HashMap<String, u32>,
}

impl Listener {
    pub fn new(
        hears: Hears,
        layout: &Layout,
        index: usize,
        wished: Receiver<Wish>,
        stop: Arc<AtomicBool>,
    ) -> Listener {
        let place = &layout.masters[index];
        let mut own = vec![place.wake.clone()];
        for channel in [keys::own(&hears.me), keys::ORDERS.to_owned()] {
            if layout.owner(&channel) == index && !own.contains(&channel) {
                own.push(channel);
            }
        }
        Listener {
            info: place.info.clone(),
            is_cluster: layout.is_cluster,
            own,
            hears,
            index,
            stop,
            wished,
            wishes: VecDeque::new(),
            wanted: HashMap::new(),
            stale: HashSet::new(),
            leaving: HashMap::new(),
        }
    }

    /// Until it is to end. A connection that is lost is made anew at once, and then after a pause each time.
    pub fn run(mut self) {
        while !self.stops() {
            let began = self.hears.clock.mono_ns();
            if let Err(error) = self.listen() {
                if has_moved(&error) {
                    self.hears.shared.moved.store(true, Ordering::Release);
                }
                tracing::debug!(node = %self.hears.me, why = %error, "the connection that hears is lost");
            }
            if self.hears.clock.mono_ns() - began < PAUSE.as_nanos() as u64 {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.hears.shared.stops()
    }

    fn listen(&mut self) -> Result<(), RedisError> {
        // In this version of the protocol what is published is told apart from answers: the library takes an answer that was waited for in
        // vain to be still to come, and passes over the next one.
        let settings = self.info.redis_settings().clone();
        let settings = settings.set_protocol(ProtocolVersion::RESP3);
        let info = self.info.clone().set_redis_settings(settings);
        let mut line = connect(&info, LOOKS_UP)?;
        for channel in self.own.clone() {
            self.send(&mut line, "SUBSCRIBE", &channel)?;
        }
        // A new connection hears nothing yet; what was missed meanwhile is read.
        self.stale.clear();
        self.leaving.clear();
        let mut unheard: Vec<RoomId> = self.wanted.keys().cloned().collect();
        while !self.stops() {
            self.look_up();
            // A bounded number between two messages: the canary must not wait behind a thousand rooms.
            for _ in 0..AT_ONCE {
                if let Some(wish) = self.wishes.pop_front() {
                    self.grant(&mut line, wish)?;
                } else if let Some(room) = unheard.pop() {
                    if self.wanted.contains_key(&room) {
                        self.send(&mut line, "SUBSCRIBE", &keys::channel(&room))?;
                    }
                } else if let Some(room) = self.stale.iter().next().cloned() {
                    self.send(&mut line, "UNSUBSCRIBE", &keys::channel(&room))?;
                    self.stale.remove(&room);
                }
            }
            let busy = !(self.wishes.is_empty() && unheard.is_empty() && self.stale.is_empty());
            if busy {
                line.set_read_timeout(Some(GLANCE))?;
                for _ in 0..AT_ONCE {
                    if !self.hear(&mut line)? {
                        break;
                    }
                }
                line.set_read_timeout(Some(LOOKS_UP))?;
            } else {
                self.hear(&mut line)?;
            }
        }
        Ok(())
    }

    /// Takes what is wished. What was wished before a [`Wish::Forget`] is not wished any more.
    fn look_up(&mut self) {
        for wish in self.wished.try_iter() {
            if matches!(wish, Wish::Forget) {
                self.wishes.clear();
            }
            self.wishes.push_back(wish);
        }
    }

    fn grant(&mut self, line: &mut Connection, wish: Wish) -> Result<(), RedisError> {
        match wish {
            Wish::Subscribe {
                room,
                begin,
                generation,
            } => {
                self.stale.remove(&room);
                let channel = keys::channel(&room);
                // Wanted first: if the connection is lost here, the next one hears it.
                self.wanted.insert(room, (generation, begin));
                self.send(line, "SUBSCRIBE", &channel)
            }
            Wish::Unsubscribe { room } => {
                self.wanted.remove(&room);
                self.send(line, "UNSUBSCRIBE", &keys::channel(&room))
            }
            Wish::Forget => {
                let wanted = std::mem::take(&mut self.wanted);
                self.stale.extend(wanted.into_keys());
                Ok(())
            }
        }
    }

    /// Asks for a channel, or for no more of it; the answer comes among what is heard.
    fn send(&mut self, line: &mut Connection, verb: &str, channel: &str) -> Result<(), RedisError> {
        let sharded = if self.is_cluster { "S" } else { "" };
        let mut command = cmd(&format!("{sharded}{verb}"));
        command.arg(channel);
        if verb == "UNSUBSCRIBE" {
            *self.leaving.entry(channel.to_owned()).or_default() += 1;
        }
        line.send_packed_command(&command.get_packed_command())
    }

    /// Takes one message. Whether there was one.
    fn hear(&mut self, line: &mut Connection) -> Result<bool, RedisError> {
        let message = match line.recv_response() {
            Ok(Value::ServerError(error)) => return Err(error.into()),
            Ok(message) => message,
            Err(error) if error.is_timeout() => return Ok(false),
            Err(error) => return Err(error),
        };
        let Value::Push { kind, data } = message else {
            return Ok(true);
        };
        let (channel, payload): (String, Value) = from_redis_value(Value::Array(data))?;
        match kind {
            PushKind::Message | PushKind::SMessage => {
                let payload: Vec<u8> = from_redis_value(payload)?;
                self.came(&channel, payload.into());
            }
            PushKind::Subscribe | PushKind::SSubscribe => self.is_heard(&channel),
            // Told without having been asked for, the channel has moved to another server of the cluster.
            PushKind::Unsubscribe | PushKind::SUnsubscribe if self.was_let_go(&channel) => {}
            PushKind::SUnsubscribe if self.wants(&channel) => {
                self.hears.shared.moved.store(true, Ordering::Release);
            }
            _ => {}
        }
        Ok(true)
    }

    /// Whether it is the confirmation of what was asked.
    fn was_let_go(&mut self, channel: &str) -> bool {
        let Some(left) = self.leaving.get_mut(channel) else {
            return false;
        };
        *left -= 1;
        if *left == 0 {
            self.leaving.remove(channel);
        }
        true
    }

    fn wants(&self, channel: &str) -> bool {
        let wants = |room| self.wanted.contains_key(&room);
        self.own.iter().any(|own| own == channel) || keys::room_of(channel).is_some_and(wants)
    }

    /// A room is heard from now on: it is read.
    fn is_heard(&self, channel: &str) {
        if let Some(room) = keys::room_of(channel)
            && let Some((generation, begin)) = self.wanted.get(&room).copied()
        {
            let read = Outward::Read {
                room,
                begin: Some(begin),
                subscribed: true,
            };
            let mut ask = (generation, read);
            // Its thread may be about to end this one, and takes nothing then.
            while let Err(SendTimeoutError::Timeout(back)) =
                self.hears.asks.send_timeout(ask, LOOKS_UP)
                && !self.stops()
            {
                ask = back;
            }
        }
    }

    fn came(&self, channel: &str, payload: Bytes) {
        if channel == keys::ORDERS {
            return self.order(&payload);
        }
        if self.own.iter().any(|own| own == channel) {
            if let Ok(said) = std::str::from_utf8(&payload) {
                self.own_word(said);
            }
            return;
        }
        let Some(room) = keys::room_of(channel) else {
            return;
        };
        self.hears.stats.heard();
        match node::parse(payload) {
            Some(message) => self.hears.post.to_home(
                &room,
                Inward::Came {
                    room: room.clone(),
                    message,
                },
            ),
            None => {
                tracing::warn!(%room, "something that is no message came by the room's channel")
            }
        }
    }

    fn order(&self, payload: &Bytes) {
        match node::parse_order(payload) {
            Some((asker, _)) if *asker.node == *self.hears.me => {}
            Some((asker, order)) => {
                let key = asker.key;
                self.hears.post.to_any(key, Inward::Order { asker, order });
            }
            None => tracing::warn!("something that is no order came by the channel of orders"),
        }
    }

    /// What this node, or another, says to it.
    fn own_word(&self, said: &str) {
        let mut words = said.split(' ');
        let kind = words.next();
        let mut number = || words.next()?.parse::<u64>().ok();
        let post = &self.hears.post;
        match kind {
            Some("c") => {
                if let (Some(sent_ns), Some(canary)) =
                    (number(), self.hears.shared.canaries.get(self.index))
                {
                    canary.store(sent_ns, Ordering::Release);
                }
            }
            // A connection has to go for newer ones of its login.
            Some("r") => {
                if let (Some(shard), Some(slot), Some(generation)) = (number(), number(), number())
                    && let (Ok(shard), Ok(slot), Ok(generation)) = (
                        u16::try_from(shard),
                        u32::try_from(slot),
                        u32::try_from(generation),
                    )
                {
                    let conn = ConnId { slot, generation };
                    post.to(ShardId(shard), Inward::Replaced { conn });
                }
            }
            // Who is in a room at another node.
            Some("m") => {
                if let (Some(shard), Some(key)) = (number(), number())
                    && let Ok(shard) = u16::try_from(shard)
                    && let Some(page) = said.splitn(4, ' ').nth(3).and_then(Page::read)
                {
                    post.to(ShardId(shard), Inward::Page { key, page });
                }
            }
            // An order was carried out.
            Some("d") => {
                if let (Some(shard), Some(key), Some(connections), Some(known)) =
                    (number(), number(), number(), number())
                    && let (Ok(shard), Ok(connections)) =
                        (u16::try_from(shard), u32::try_from(connections))
                {
                    let known = known == 1;
                    let done = Inward::Done {
                        key,
                        connections,
                        known,
                    };
                    post.to(ShardId(shard), done);
                }
            }
            _ => {}
        }
    }
}
