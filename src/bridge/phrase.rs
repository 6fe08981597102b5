//! What shards ask, as Redis' commands, and Redis' answers, as what shards are told. Values only: nothing here sends.

use bytes::Bytes;
use redis::{Cmd, RedisError, Value, cmd, from_redis_value};

use super::chores::{Chore, uncount};
use super::keys;
use crate::base::ids::{ConnId, Epoch, RoomId, ShardId};
use crate::bus::{Brief, Login, Outward, ReplyTo, RoomRead, WATCHED_FOR_MS};
use crate::proto::node::about::About;
use crate::proto::node::part::Part;
use crate::proto::node::{self, Asker, Message, Totals};
use crate::room::link::Outbound;
use crate::room::presence::Moves;

/// A room nobody asks about keeps its numbering and its lines for so long.
const KEPT_S: u64 = 3600;

/// Connections of a login are forgotten after so long: longer than any stays, and a node that is gone is taken out before.
const LOGIN_KEPT_S: u64 = 7 * 24 * 3600;
/// What happened in a room lately goes when it has not been told anew for so long.
const STATS_KEPT_S: u64 = 120;

/// The scripts, by the digests Redis knows them by.
pub struct Scripts {
    /// [`keys::PUBLISH`].
    pub publish: String,
    /// [`keys::READ`].
    pub read: String,
    /// [`keys::COUNT`].
    pub count: String,
    /// [`keys::DROP`].
    pub drop: String,
    /// [`keys::ROOMS`].
    pub rooms: String,
    /// [`keys::BRIEF`].
    pub brief: String,
    /// [`keys::LOGIN`].
    pub login: String,
}

/// Who speaks.
pub struct Voice<'a> {
    /// The scripts.
    pub scripts: &'a Scripts,
    /// This node.
    pub me: &'a str,
    /// What it counts under.
    pub counts_as: &'a str,
    /// What older names of it begin with, if it had any.
    pub counted_as: &'a str,
    /// The command that publishes.
    pub publish: &'static str,
    /// A batch that Redis gets to see later is not numbered: microseconds of our clock.
    pub deadline_us: u64,
    /// How far the clock of the server that owns a key is ahead of ours, in microseconds.
    pub ahead_us: &'a dyn Fn(&str) -> i128,
}

/// What an answer is to be read as.
pub enum Due {
    Nothing,
    Numbers { room: RoomId, batch: u64 },
    Room { room: RoomId, subscribed: bool },
    Counted { room: RoomId },
    Replaced,
    Rooms { to: ReplyTo },
    Brief { listing: usize, room: RoomId },
    Ordered { shard: ShardId, key: u64 },
    Done(Chore),
}

/// What an answer tells the asking thread itself.
pub enum News {
    /// Nothing.
    None,
    /// This node's lease has run out.
    Lost,
    /// What the nodes say of themselves.
    Peers(Vec<About>),
    /// Rooms that are to be read one by one.
    Listing(Listing),
}

/// A list of rooms under way.
pub struct Listing {
    /// Who awaits it.
    pub to: ReplyTo,
    /// Its rooms, in order.
    pub rooms: Vec<RoomId>,
    /// What has been read of them.
    pub found: Vec<Brief>,
}

impl Voice<'_> {
    /// The commands for what a shard asks, and what their answers are to be read as.
    pub fn say(&self, outward: &Outward, mut put: impl FnMut(Cmd, Due)) {
        match outward {
            Outward::Publish {
                room,
                begin,
                batch,
                keep,
            } => {
                let command = self.publish(room, *begin, batch, *keep);
                let numbers = Due::Numbers {
                    room: room.clone(),
                    batch: batch.batch,
                };
                put(command, numbers);
            }
            Outward::Read {
                room,
                begin,
                subscribed,
            } => {
                let command = self.read(room, begin.filter(|_| *subscribed));
                let read = Due::Room {
                    room: room.clone(),
                    subscribed: *subscribed,
                };
                put(command, read);
            }
            Outward::Count {
                room,
                connections,
                moves,
            } => {
                // Where nothing of this node is left there is nothing to take out.
                let gone = *connections == 0 && !moves.more;
                let mut known = cmd(if gone { "SREM" } else { "SADD" });
                known.arg(keys::rooms(self.counts_as)).arg(room.as_str());
                let count = self.count(room, *connections, moves);
                let counted = Due::Counted { room: room.clone() };
                if gone {
                    put(count, counted);
                    put(known, Due::Nothing);
                } else {
                    put(known, Due::Nothing);
                    put(count, counted);
                }
            }
            Outward::Settings { room, json } => {
                let mut command = cmd("SET");
                command.arg(keys::settings(room)).arg(&json[..]);
                put(command, Due::Nothing);
                put(self.said(room, &[b"S\n", json]), Due::Nothing);
            }
            Outward::Part { room, part } => {
                let json = part.as_ref().map(Part::write);
                let mut kept = cmd(if json.is_some() { "HSET" } else { "HDEL" });
                kept.arg(keys::stats(room)).arg(self.counts_as).arg(&json);
                put(kept, Due::Nothing);
                // What is there is taken out when this node dies.
                let mut known = cmd(if json.is_some() { "SADD" } else { "SREM" });
                known.arg(keys::rooms(self.counts_as)).arg(room.as_str());
                put(known, Due::Nothing);
                if let Some(json) = json {
                    let mut expire = cmd("EXPIRE");
                    expire.arg(keys::stats(room)).arg(STATS_KEPT_S);
                    put(expire, Due::Nothing);
                    let header = format!("P {}\n", self.me);
                    put(self.said(room, &[header.as_bytes(), &json]), Due::Nothing);
                }
            }
            Outward::Watch { room } => {
                let mut told = cmd("SET");
                told.arg(keys::watched(room)).arg(1);
                told.arg("PX").arg(WATCHED_FOR_MS);
                put(told, Due::Nothing);
                let word = format!("W {}\n", self.me);
                put(self.said(room, &[word.as_bytes()]), Due::Nothing);
            }
            Outward::End { room } => {
                let mut command = cmd("DEL");
                command.arg(keys::numbering(room)).arg(keys::log(room));
                command.arg(keys::settings(room));
                put(command, Due::Nothing);
            }
            Outward::Uncount { room } => {
                let command = uncount(&self.scripts.drop, self.counts_as, room);
                put(command, Due::Counted { room: room.clone() });
                let mut known = cmd("SREM");
                known.arg(keys::rooms(self.counts_as)).arg(room.as_str());
                put(known, Due::Nothing);
            }
            Outward::Rooms { to, limit, after } => {
                let to = to.clone();
                put(self.rooms(*limit, after.as_ref()), Due::Rooms { to });
            }
            Outward::LoggedIn { user, login, max } => {
                let mut command = cmd("EVALSHA");
                command
                    .arg(&self.scripts.login)
                    .arg(1)
                    .arg(keys::login(user));
                // By the clock of Redis, so that nodes agree upon who is the newest.
                let at_us = i128::from(login.at_ms) * 1000 + (self.ahead_us)(&keys::login(user));
                command.arg(self.me).arg(self.counts_as).arg(place(login));
                command.arg((at_us / 1000).to_string());
                command.arg(max).arg(LOGIN_KEPT_S);
                put(command, Due::Replaced);
                let mut known = cmd("SADD");
                known.arg(keys::logins(self.counts_as)).arg(user.as_str());
                put(known, Due::Nothing);
            }
            Outward::LoggedOut { user, login, last } => {
                let mut command = cmd("ZREM");
                let member = format!("{} {}", self.counts_as, place(login));
                command.arg(keys::login(user)).arg(member);
                put(command, Due::Nothing);
                if *last {
                    let mut known = cmd("SREM");
                    known.arg(keys::logins(self.counts_as)).arg(user.as_str());
                    put(known, Due::Nothing);
                }
            }
            Outward::Order { shard, key, order } => {
                let asker = Asker {
                    node: self.me.into(),
                    shard: *shard,
                    key: *key,
                };
                let mut command = cmd(self.publish);
                command
                    .arg(keys::ORDERS)
                    .arg(node::write_order(&asker, order));
                let (shard, key) = (*shard, *key);
                put(command, Due::Ordered { shard, key });
            }
            Outward::Done {
                asker,
                connections,
                known,
            } => {
                let word = format!(
                    "d {} {} {connections} {}",
                    asker.shard.0,
                    asker.key,
                    u8::from(*known)
                );
                let mut command = cmd(self.publish);
                command.arg(keys::own(&asker.node)).arg(word);
                put(command, Due::Nothing);
            }
            Outward::Page { asker, page } => {
                let mut word = format!("m {} {} ", asker.shard.0, asker.key).into_bytes();
                word.extend_from_slice(&page.write());
                let mut command = cmd(self.publish);
                command.arg(keys::own(&asker.node)).arg(word);
                put(command, Due::Nothing);
            }
            // The thread that hears does these.
            Outward::Subscribe { .. } | Outward::Unsubscribe { .. } => {}
        }
    }

    /// Says something by a room's channel.
    fn said(&self, room: &RoomId, message: &[&[u8]]) -> Cmd {
        let mut command = cmd(self.publish);
        command.arg(keys::channel(room)).arg(message.concat());
        command
    }

    /// Rooms by connections.
    pub fn rooms(&self, limit: usize, after: Option<&(u32, Box<str>)>) -> Cmd {
        let (online, room) = match after {
            Some((online, room)) => (online.to_string(), &**room),
            None => (String::new(), ""),
        };
        let mut command = cmd("EVALSHA");
        command.arg(&self.scripts.rooms).arg(1).arg(keys::RANK);
        command.arg(limit).arg(online).arg(room);
        command
    }

    /// One of them in short.
    pub fn brief(&self, room: &RoomId) -> Cmd {
        let mut command = cmd("EVALSHA");
        command
            .arg(&self.scripts.brief)
            .arg(4)
            .arg(keys::numbering(room))
            .arg(keys::settings(room))
            .arg(keys::presence(room))
            .arg(keys::visitors(room));
        command
    }

    fn publish(&self, room: &RoomId, begin: Epoch, batch: &Outbound, keep: usize) -> Cmd {
        let numbering = keys::numbering(room);
        let deadline_us = i128::from(self.deadline_us) + (self.ahead_us)(&numbering);
        let mut command = cmd("EVALSHA");
        command
            .arg(&self.scripts.publish)
            .arg(3)
            .arg(numbering)
            .arg(keys::log(room))
            .arg(keys::sent(room, self.me))
            .arg(keys::channel(room))
            .arg(batch.count)
            .arg(&batch.payload[..])
            .arg(begin.0)
            .arg(self.me)
            .arg(batch.batch)
            .arg(keep)
            .arg(KEPT_S)
            .arg(deadline_us.to_string());
        command
    }

    fn read(&self, room: &RoomId, begin: Option<Epoch>) -> Cmd {
        let begin = begin.map_or(String::new(), |epoch| epoch.0.to_string());
        let mut command = cmd("EVALSHA");
        command
            .arg(&self.scripts.read)
            .arg(7)
            .arg(keys::numbering(room))
            .arg(keys::log(room))
            .arg(keys::parts(room))
            .arg(keys::settings(room))
            .arg(keys::presence(room))
            .arg(keys::visitors(room))
            .arg(keys::watched(room))
            .arg(begin)
            .arg(KEPT_S);
        command
    }

    fn count(&self, room: &RoomId, connections: u32, moves: &Moves) -> Cmd {
        let mut command = cmd("EVALSHA");
        command
            .arg(&self.scripts.count)
            .arg(6)
            .arg(keys::presence(room))
            .arg(keys::parts(room))
            .arg(keys::here(room, self.counts_as))
            .arg(keys::refs(room))
            .arg(keys::visitors(room))
            .arg(keys::numbering(room))
            .arg(self.counts_as)
            .arg(connections)
            .arg(KEPT_S)
            .arg(keys::channel(room))
            .arg(self.counted_as)
            .arg(u8::from(moves.more))
            .arg(moves.entered.len());
        for (user, joined_ms) in &moves.entered {
            command.arg(user.as_str()).arg(joined_ms / 1000);
        }
        for user in &moves.left {
            command.arg(user.as_str());
        }
        command
    }
}

/// An entry of a stream: its id, and names and values.
type Entry = (String, Vec<Value>);

/// What stands in Redis of a room: what its owner has said of it, and the rest.
///
/// # Errors
/// It cannot be read.
pub fn room_read(answer: Value) -> Result<(Option<Bytes>, Option<RoomRead>), RedisError> {
    let mut parts: Vec<Value> = from_redis_value(answer)?;
    let rest = parts.split_off(parts.len().min(1));
    let settings: Option<Vec<u8>> = from_redis_value(parts.pop().unwrap_or_default())?;
    let settings = settings.map(Bytes::from);
    if rest.is_empty() {
        return Ok((settings, None));
    }
    let rest = Value::Array(rest);
    type Found = (u64, u64, Vec<Entry>, Vec<Value>, u32, u32, u64, bool);
    let (epoch, seq, entries, parts, users, peak, visitors, is_watched): Found =
        from_redis_value(rest)?;
    let batches = entries.into_iter().filter_map(|(_, fields)| {
        let payload: Vec<u8> = from_redis_value(fields.into_iter().nth(1)?).ok()?;
        match node::parse(payload.into())? {
            Message::Lines(lines) if lines.epoch.0 == epoch => Some(lines),
            _ => None,
        }
    });
    let mut parts = parts.into_iter();
    let mut counts = Vec::new();
    while let (Some(node), Some(count)) = (parts.next(), parts.next()) {
        let (node, count): (String, u32) = (from_redis_value(node)?, from_redis_value(count)?);
        counts.push((node.into(), count));
    }
    let found = RoomRead {
        epoch: Epoch(epoch),
        seq,
        batches: batches.collect(),
        counts,
        is_watched,
        totals: Totals {
            users,
            peak,
            visitors,
        },
    };
    Ok((settings, Some(found)))
}

/// Rooms of [`keys::ROOMS`]; what is no room is passed over.
///
/// # Errors
/// It cannot be read.
pub fn ranked(answer: Value) -> Result<Vec<RoomId>, RedisError> {
    let found: Vec<(String, u32)> = from_redis_value(answer)?;
    let rooms = found.iter().filter_map(|(room, _)| RoomId::parse(room));
    Ok(rooms.collect())
}

/// A room of [`keys::BRIEF`].
///
/// # Errors
/// It cannot be read.
pub fn brief(room: RoomId, answer: Value) -> Result<Brief, RedisError> {
    type Found = (u64, u64, Option<Vec<u8>>, u32, u32, u32, u64);
    let (epoch, seq, settings, online, users, peak, visitors): Found = from_redis_value(answer)?;
    Ok(Brief {
        room,
        epoch: Epoch(epoch),
        seq,
        settings: settings.map(Bytes::from),
        online,
        totals: Totals {
            users,
            peak,
            visitors,
        },
    })
}

/// A connection of a login, on its node.
fn place(login: &Login) -> String {
    let Login { shard, conn, .. } = login;
    format!("{} {} {}", shard.0, conn.slot, conn.generation)
}

/// A connection of a login as [`Voice`] writes it: its node, its shard and itself there.
pub fn placed(place: &str) -> Option<(&str, ShardId, ConnId)> {
    let mut words = place.split(' ');
    let node = words.next()?;
    let shard = ShardId(words.next()?.parse().ok()?);
    let conn = ConnId {
        slot: words.next()?.parse().ok()?,
        generation: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some((node, shard, conn))
}
