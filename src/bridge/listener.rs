//! The thread that hears Redis: the channels of rooms with viewers here, and the node's own, by which it is made to look up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use redis::{ConnectionInfo, PubSub, RedisError};

use super::post::Post;
use super::{Shared, Start, connect, info, keys, post};
use crate::base::clock::Clock;
use crate::base::ids::{ConnId, Epoch, RoomId, ShardId};
use crate::bus::{Inward, Outward};
use crate::proto::node;
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

/// The thread's state.
pub struct Listener {
    info: Result<ConnectionInfo, RedisError>,
    clock: Clock,
    me: Arc<str>,
    shared: Arc<Shared>,
    wished: Receiver<Wish>,
    wishes: VecDeque<Wish>,
    asks: Sender<(u64, Outward)>,
    post: Post,
    own: String,
    stats: Arc<RedisStats>,
    /// Rooms that are wanted, and what they were asked for with.
    wanted: HashMap<RoomId, (u64, Epoch)>,
    /// Rooms that were heard before the shards began to ask anew.
    stale: HashSet<RoomId>,
}

impl Listener {
    pub fn new(
        start: &Start,
        shared: Arc<Shared>,
        wished: Receiver<Wish>,
        asks: Sender<(u64, Outward)>,
    ) -> Listener {
        Listener {
            info: info(&start.url),
            clock: start.clock,
            own: keys::own(&start.me),
            stats: Arc::clone(&start.stats),
            wanted: HashMap::new(),
            stale: HashSet::new(),
            me: Arc::clone(&start.me),
            post: post(start, &shared),
            shared,
            wished,
            wishes: VecDeque::new(),
            asks,
        }
    }

    /// Until the process ends. A connection that is lost is made anew at once, and then after a pause each time.
    pub fn run(mut self) {
        while !self.shared.stops() {
            let began = self.clock.mono_ns();
            if let Err(error) = self.listen() {
                tracing::debug!(node = %self.me, why = %error, "the connection that hears is lost");
            }
            if self.clock.mono_ns() - began < PAUSE.as_nanos() as u64 {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn listen(&mut self) -> Result<(), RedisError> {
        let mut connection = connect(&self.info.clone()?, LOOKS_UP)?;
        let mut heard = connection.as_pubsub();
        heard.subscribe(&self.own)?;
        heard.subscribe(keys::ORDERS)?;
        // A new connection hears nothing yet; what was missed meanwhile is read.
        self.stale.clear();
        let mut unheard: Vec<RoomId> = self.wanted.keys().cloned().collect();
        while !self.shared.stops() {
            self.look_up();
            // A bounded number between two messages: the canary must not wait behind a thousand rooms.
            for _ in 0..AT_ONCE {
                if let Some(wish) = self.wishes.pop_front() {
                    self.grant(&mut heard, wish)?;
                } else if let Some(room) = unheard.pop() {
                    if let Some((generation, begin)) = self.wanted.get(&room).copied() {
                        self.subscribe(&mut heard, &room, generation, begin)?;
                    }
                } else if let Some(room) = self.stale.iter().next().cloned() {
                    heard.unsubscribe(keys::channel(&room))?;
                    self.stale.remove(&room);
                }
            }
            let busy = !(self.wishes.is_empty() && unheard.is_empty() && self.stale.is_empty());
            if busy {
                heard.set_read_timeout(Some(GLANCE))?;
                for _ in 0..AT_ONCE {
                    if !self.hear(&mut heard)? {
                        break;
                    }
                }
                heard.set_read_timeout(Some(LOOKS_UP))?;
            } else {
                self.hear(&mut heard)?;
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

    fn grant(&mut self, heard: &mut PubSub<'_>, wish: Wish) -> Result<(), RedisError> {
        match wish {
            Wish::Subscribe {
                room,
                begin,
                generation,
            } => {
                self.stale.remove(&room);
                // Wanted first: if the connection is lost here, the next one hears it.
                self.wanted.insert(room.clone(), (generation, begin));
                self.subscribe(heard, &room, generation, begin)
            }
            Wish::Unsubscribe { room } => {
                self.wanted.remove(&room);
                heard.unsubscribe(keys::channel(&room))
            }
            Wish::Forget => {
                let wanted = std::mem::take(&mut self.wanted);
                self.stale.extend(wanted.into_keys());
                Ok(())
            }
        }
    }

    /// Hears a room, and has it read.
    fn subscribe(
        &self,
        heard: &mut PubSub<'_>,
        room: &RoomId,
        generation: u64,
        begin: Epoch,
    ) -> Result<(), RedisError> {
        heard.subscribe(keys::channel(room))?;
        let read = Outward::Read {
            room: room.clone(),
            begin: Some(begin),
            subscribed: true,
        };
        // Its thread lives as long as this one, or the process ends.
        let _ = self.asks.send((generation, read));
        Ok(())
    }

    /// Takes one message. Whether there was one.
    fn hear(&self, heard: &mut PubSub<'_>) -> Result<bool, RedisError> {
        let message = match heard.get_message() {
            Ok(message) => message,
            Err(error) if error.is_timeout() => return Ok(false),
            Err(error) => return Err(error),
        };
        let channel = message.get_channel_name();
        if channel == self.own {
            let said: String = message.get_payload()?;
            self.own_word(&said);
            return Ok(true);
        }
        if channel == keys::ORDERS {
            let order: Vec<u8> = message.get_payload()?;
            match node::parse_order(&order.into()) {
                Some((asker, _)) if *asker.node == *self.me => {}
                Some((asker, order)) => {
                    let key = asker.key;
                    self.post.to_any(key, Inward::Order { asker, order });
                }
                None => tracing::warn!("something that is no order came by the channel of orders"),
            }
            return Ok(true);
        }
        let Some(room) = keys::room_of(channel) else {
            return Ok(true);
        };
        self.stats.heard();
        let payload: Vec<u8> = message.get_payload()?;
        match node::parse(payload.into()) {
            Some(message) => self.post.to_home(
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
        Ok(true)
    }

    /// What this node, or one that carried out its order, says to it.
    fn own_word(&self, said: &str) {
        let mut words = said.split(' ');
        match words.next() {
            Some("c") => {
                if let Some(sent_ns) = words.next().and_then(|sent| sent.parse().ok()) {
                    self.shared.canary_ns.store(sent_ns, Ordering::Release);
                }
            }
            Some("r") => {
                let mut number = || words.next()?.parse::<u32>().ok();
                if let (Some(shard), Some(slot), Some(generation)) = (number(), number(), number())
                    && let Ok(shard) = u16::try_from(shard)
                {
                    let conn = ConnId { slot, generation };
                    self.post.to(ShardId(shard), Inward::Replaced { conn });
                }
            }
            Some("d") => {
                let mut number = || words.next()?.parse::<u64>().ok();
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
                    self.post.to(ShardId(shard), done);
                }
            }
            _ => {}
        }
    }
}
