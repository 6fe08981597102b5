//! What the asking thread does beside what it is asked: the node's lease, nodes that are gone, the ranking of rooms.
//!
//! A node that is gone leaves what it counted behind. Whoever sees that its lease has run out takes it out, room by room; doing so twice
//! is doing it once. A node whose lease ran out while it lived counts anew under another name: its old one is taken out like any other's.

use std::collections::{HashMap, HashSet, VecDeque};

use redis::{Cmd, RedisError, Value, cmd, from_redis_value};

use super::keys;
use super::phrase::News;
use crate::base::ids::{RoomId, UserId};
use crate::proto::node::about::About;

/// What nodes say of themselves is said and read this often.
const ABOUT_EVERY_NS: u64 = 1_000_000_000;
/// Whoever counts anew looks this much later what is to be taken out: until then the others, who were as far from Redis, are back, and
/// have told what they count. Longer than they wait between two tries.
const SETTLE_NS: u64 = 4_000_000_000;
/// Chores done with what is asked, at most.
const TOGETHER_MAX: usize = 64;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Says that this node is there, if it counts as there.
    Renew,
    /// Looks which nodes there are.
    Nodes,
    /// Says what this node is.
    About(Vec<u8>),
    /// Looks what the nodes say of themselves.
    Peers,
    /// Looks whether a node is there.
    Lives(String),
    /// Looks where a node that is gone has counted.
    Rooms(String),
    /// Looks which users had connections there.
    Logins(String),
    /// Takes a user's connections there out of their login.
    Logout {
        /// Where.
        node: String,
        /// Whose.
        user: UserId,
    },
    /// Tells another node something.
    Say {
        /// By which channel.
        channel: String,
        /// What.
        word: String,
    },
    /// Takes out what it counted in a room.
    Drop {
        /// Whose.
        node: String,
        /// Where.
        room: RoomId,
    },
    /// All of it has been taken out: this command forgets a part of the rest.
    Forget {
        /// Which.
        verb: &'static str,
        /// Of what.
        key: String,
        /// What, where it is not all of it.
        what: Option<String>,
    },
    /// Puts a room in its place among the others.
    Rank {
        /// Which.
        room: RoomId,
        /// Connections in it.
        connections: i64,
    },
    /// Looks whether that was its place: another node may have put it into an older one since.
    Ranked {
        /// Which.
        room: RoomId,
        /// Connections it was put in its place by.
        connections: i64,
    },
}

/// What there is to do.
#[derive(Debug)]
pub struct Chores {
    lease_ms: u64,
    /// What this node counts under, and for the how-manieth time.
    me: String,
    times: u64,
    /// What it counted under before and has not taken out yet.
    older: Vec<String>,
    queue: VecDeque<Chore>,
    /// What is under way: done once more where only the connection was lost.
    under_way: Vec<Chore>,
    /// Nodes that are being taken out.
    burying: HashSet<String>,
    /// Rooms with another count, by their newest.
    ranks: HashMap<RoomId, i64>,
    /// Ranks under way.
    ranking: Vec<(RoomId, i64)>,
    renew_ns: u64,
    look_ns: u64,
    about_ns: u64,
}

impl Chores {
    pub fn new(me: &str, lease_ms: u64) -> Chores {
        Chores {
            lease_ms,
            me: me.to_owned(),
            times: 0,
            older: Vec::new(),
            queue: VecDeque::new(),
            under_way: Vec::new(),
            burying: HashSet::new(),
            ranks: HashMap::new(),
            ranking: Vec::new(),
            renew_ns: 0,
            look_ns: 0,
            about_ns: 0,
        }
    }

    /// What this node counts under.
    pub fn name(&self) -> String {
        format!("{}#{}", self.me, self.times)
    }

    /// What all names begin with that this node has counted under; empty if there is but one.
    pub fn older_names(&self) -> String {
        match self.times {
            0 | 1 => String::new(),
            _ => format!("{}#", self.me),
        }
    }

    /// Begins to count under another name. What stands under the old one is replaced room by room, and what is left of it taken out. The
    /// commands that make it known.
    pub fn begin(&mut self, now_ns: u64, unix_s: u64) -> [Cmd; 2] {
        self.again();
        // What other nodes leave behind stays to be taken out.
        let stays = |chore: &Chore| {
            !matches!(
                chore,
                Chore::Renew | Chore::Nodes | Chore::About(_) | Chore::Peers | Chore::Lives(_)
            )
        };
        self.queue.retain(stays);
        if self.times > 0 {
            self.older.push(self.name());
        }
        self.times += 1;
        self.renew_ns = now_ns + self.lease_ms * 1_000_000 / 3;
        self.look_ns = now_ns + SETTLE_NS;
        let mut lease = cmd("SET");
        lease.arg(keys::lease(&self.name())).arg(unix_s);
        lease.arg("PX").arg(self.lease_ms);
        let mut known = cmd("ZADD");
        known.arg(keys::NODES).arg(unix_s).arg(self.name());
        [lease, known]
    }

    /// The connection was lost: what was under way may not have been done.
    pub fn again(&mut self) {
        for chore in self.under_way.drain(..).rev() {
            self.queue.push_front(chore);
        }
        // Of a room's places the newest stands.
        for (room, connections) in std::mem::take(&mut self.ranking) {
            self.ranks.entry(room).or_insert(connections);
        }
    }

    /// The process ends: what it counted is taken out at once, and nothing is said of it any more.
    pub fn end(&mut self) {
        (self.about_ns, self.renew_ns, self.look_ns) = (u64::MAX, u64::MAX, u64::MAX);
        self.queue.clear();
        self.queue.push_back(Chore::Rooms(self.name()));
        self.queue.extend(self.older.drain(..).map(Chore::Rooms));
    }

    /// Another node is to be told something.
    pub fn say(&mut self, channel: String, word: String) {
        self.queue.push_back(Chore::Say { channel, word });
    }

    /// A room has another count.
    pub fn rank(&mut self, room: RoomId, connections: i64) {
        self.ranks.insert(room, connections);
    }

    /// What was to be done has been done.
    pub fn settled(&mut self) {
        self.ranking.clear();
        self.under_way.clear();
    }

    /// Whether there is something to do at once.
    pub fn are_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.ranks.is_empty()
    }

    /// What is to be done now.
    pub fn due(&mut self, now_ns: u64, about: impl FnOnce() -> About) -> Vec<Chore> {
        if self.about_ns <= now_ns {
            self.about_ns = now_ns + ABOUT_EVERY_NS;
            let about = Chore::About(about().write());
            self.queue.extend([about, Chore::Peers]);
        }
        if self.renew_ns <= now_ns {
            self.renew_ns = now_ns + self.lease_ms * 1_000_000 / 3;
            self.queue.push_front(Chore::Renew);
        }
        if self.look_ns <= now_ns {
            self.look_ns = now_ns + self.lease_ms * 1_000_000 / 5;
            self.queue.extend(self.older.drain(..).map(Chore::Rooms));
            self.queue.push_back(Chore::Nodes);
        }
        let some = self.queue.len().min(TOGETHER_MAX);
        let mut due: Vec<Chore> = self.queue.drain(..some).collect();
        self.under_way.clone_from(&due);
        let ranks: Vec<RoomId> = self.ranks.keys().take(TOGETHER_MAX).cloned().collect();
        for room in ranks {
            if let Some(connections) = self.ranks.remove(&room) {
                self.ranking.push((room.clone(), connections));
                due.push(Chore::Rank { room, connections });
            }
        }
        due
    }

    /// How it is done. `drop` is the script that takes out, `publish` the command that publishes.
    pub fn command(&self, chore: &Chore, drop: &str, publish: &str) -> Cmd {
        match chore {
            Chore::Renew => {
                let mut command = cmd("SET");
                command.arg(keys::lease(&self.name())).arg(1);
                command.arg("PX").arg(self.lease_ms).arg("XX");
                command
            }
            Chore::Nodes => {
                let mut command = cmd("ZRANGE");
                command.arg(keys::NODES).arg(0).arg(-1);
                command
            }
            Chore::About(json) => {
                let mut command = cmd("HSET");
                command.arg(keys::ABOUT).arg(self.name()).arg(&json[..]);
                command
            }
            Chore::Peers => {
                let mut command = cmd("HVALS");
                command.arg(keys::ABOUT);
                command
            }
            Chore::Lives(node) => {
                let mut command = cmd("EXISTS");
                command.arg(keys::lease(node));
                command
            }
            Chore::Rooms(node) => {
                let mut command = cmd("SMEMBERS");
                command.arg(keys::rooms(node));
                command
            }
            Chore::Logins(node) => {
                let mut command = cmd("SMEMBERS");
                command.arg(keys::logins(node));
                command
            }
            Chore::Logout { node, user } => {
                let mut command = cmd("EVAL");
                command.arg(keys::LOGOUT).arg(1).arg(keys::login(user));
                command.arg(node);
                command
            }
            Chore::Say { channel, word } => {
                let mut command = cmd(publish);
                command.arg(channel).arg(word);
                command
            }
            Chore::Drop { node, room } => uncount(drop, node, room),
            Chore::Forget { verb, key, what } => {
                let mut command = cmd(verb);
                command.arg(key).arg(what);
                command
            }
            Chore::Rank { room, connections } if *connections > 0 => {
                let mut command = cmd("ZADD");
                command.arg(keys::RANK).arg(*connections).arg(room.as_str());
                command
            }
            Chore::Ranked { room, .. } => {
                let mut command = cmd("HGET");
                command.arg(keys::presence(room)).arg("total");
                command
            }
            Chore::Rank { room, .. } => {
                let mut command = cmd("ZREM");
                command.arg(keys::RANK).arg(room.as_str());
                command
            }
        }
    }

    /// What came of it.
    ///
    /// # Errors
    /// An answer that cannot be read.
    pub fn done(&mut self, chore: Chore, answer: Value) -> Result<News, RedisError> {
        match chore {
            Chore::Renew if answer == Value::Nil => return Ok(News::Lost),
            Chore::Peers => {
                let said: Vec<Vec<u8>> = from_redis_value(answer)?;
                let read = said.iter().filter_map(|said| About::read(said));
                return Ok(News::Peers(read.collect()));
            }
            Chore::Nodes => {
                let (mine, nodes): (String, Vec<String>) = (self.name(), from_redis_value(answer)?);
                let others = nodes.into_iter().filter(|node| *node != mine);
                self.queue.extend(others.map(Chore::Lives));
            }
            Chore::Lives(node) => {
                let lives: bool = from_redis_value(answer)?;
                if !lives && self.burying.insert(node.clone()) {
                    self.queue.push_back(Chore::Rooms(node));
                }
            }
            Chore::Rooms(node) => {
                let rooms: Vec<String> = from_redis_value(answer)?;
                let drop = |room: String| {
                    let (node, room) = (node.clone(), RoomId::parse(&room)?);
                    Some(Chore::Drop { node, room })
                };
                self.queue.extend(rooms.into_iter().filter_map(drop));
                self.queue.push_back(Chore::Logins(node));
            }
            Chore::Logins(node) => {
                let users: Vec<String> = from_redis_value(answer)?;
                let logout = |user: String| {
                    let (node, user) = (node.clone(), UserId::parse(&user)?);
                    Some(Chore::Logout { node, user })
                };
                self.queue.extend(users.into_iter().filter_map(logout));
                self.queue.extend(forgotten(node));
            }
            Chore::Drop { room, .. } => {
                let connections: i64 = from_redis_value(answer)?;
                self.rank(room, connections);
            }
            Chore::Rank { room, connections } => {
                self.queue.push_back(Chore::Ranked { room, connections });
            }
            Chore::Ranked { room, connections } => {
                let now: Option<i64> = from_redis_value(answer)?;
                let now = now.unwrap_or(0);
                if now != connections {
                    // Unless it has been counted anew meanwhile.
                    self.ranks.entry(room).or_insert(now);
                }
            }
            Chore::Forget {
                what: Some(node), ..
            } => {
                self.burying.remove(&node);
            }
            Chore::Renew
            | Chore::About(_)
            | Chore::Forget { .. }
            | Chore::Logout { .. }
            | Chore::Say { .. } => {}
        }
        Ok(News::None)
    }
}

/// What forgets a node. That it was one goes last: until then another may see it and go on.
fn forgotten(node: String) -> [Chore; 5] {
    let forget = |verb, key, what| Chore::Forget { verb, key, what };
    [
        forget("DEL", keys::rooms(&node), None),
        forget("DEL", keys::logins(&node), None),
        forget("DEL", keys::lease(&node), None),
        forget("HDEL", keys::ABOUT.into(), Some(node.clone())),
        forget("ZREM", keys::NODES.into(), Some(node)),
    ]
}

/// Takes out what a node counted in a room.
pub fn uncount(drop: &str, node: &str, room: &RoomId) -> Cmd {
    let mut command = cmd("EVALSHA");
    command
        .arg(drop)
        .arg(7)
        .arg(keys::presence(room))
        .arg(keys::parts(room))
        .arg(keys::here(room, node))
        .arg(keys::refs(room))
        .arg(keys::visitors(room))
        .arg(keys::numbering(room))
        .arg(keys::stats(room))
        .arg(node)
        .arg(keys::channel(room));
    command
}
