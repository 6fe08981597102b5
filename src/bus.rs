//! The messages between shards, the main thread and the bridge. Values only: nothing here acts.
//!
//! Every shard has one bounded mailbox (`sync::mailbox`). Messages from one shard to another arrive in the order they
//! were posted, which is what makes joining exact: the answer to a join travels behind every chunk sealed before it.

mod cluster;

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::api_keys::ApiKeys;
use crate::auth::keys::KeySet;
use crate::base::ids::{ConnId, Life, RoomId, ShardId, UserId};
use crate::base::refusal::Refusal;
use crate::config::checked::Config;
use crate::net::bell::Bell;
use crate::proto::node::part::Part;
use crate::room::ask::{
    Detail, HistoryPage, Join, Joined, Leave, MembersPage, Patch, Publish, Published, Sealed,
};
use crate::sync::mailbox::Mailbox;

pub use self::cluster::{
    Brief, Happened, Inward, Login, Outlet, Outward, Peer, RoomRead, Sink, WATCHED_FOR_MS,
};

/// What travels in a shard's mailbox.
#[derive(Debug)]
pub enum Msg {
    /// A question to a room's home shard.
    Ask {
        /// The room.
        room: RoomId,
        /// The question.
        ask: RoomAsk,
        /// Who waits for the answer.
        from: ReplyTo,
    },
    /// A line or event. Goes by way of the author's user-home shard first if `judge_user`, which spends a token of the
    /// user's flood bucket and passes it on to the room's home.
    Publish {
        /// The room.
        room: RoomId,
        /// What.
        publish: Box<Publish>,
        /// Whether the user's bucket is still to be asked.
        judge_user: bool,
        /// Who waits for the answer.
        from: ReplyTo,
    },
    /// A question to every shard.
    Node {
        /// The question.
        ask: NodeAsk,
        /// Who waits for the answers.
        from: ReplyTo,
    },
    /// An answer to a question or a publish.
    Answer {
        /// Who asked.
        to: ReplyTo,
        /// The room it was about; `None` for a node question.
        room: Option<RoomId>,
        /// The answer.
        answer: Result<Answer, Refusal>,
    },
    /// Chunks for a hosting shard's log.
    Sealed(Arc<Sealed>),
    /// From a home: these connections' user is to leave the room.
    Kick {
        /// The room.
        room: RoomId,
        /// Which life of it.
        life: Life,
        /// Who.
        user: UserId,
        /// A sentence.
        reason: Arc<str>,
    },
    /// From a home: the room is gone.
    Closed {
        /// The room.
        room: RoomId,
        /// Which life of it.
        life: Life,
        /// A sentence.
        reason: Arc<str>,
    },
    /// To a user's home: one of their connections has entered.
    LoggedIn {
        /// Whose.
        user: UserId,
        /// Which.
        login: Login,
    },
    /// To a user's home: it has gone.
    LoggedOut {
        /// Whose.
        user: UserId,
        /// On which shard.
        shard: ShardId,
        /// Itself, there.
        conn: ConnId,
    },
    /// Newer connections of the same login have taken this one's place.
    Replaced {
        /// On the shard that gets this.
        conn: ConnId,
    },
    /// From a home: what happened in a room, for these connections.
    Stats {
        /// Whose.
        conns: Vec<ConnId>,
        /// The frame.
        frame: Bytes,
    },
    /// From a home: a room that these connections look at is over.
    StatsOver {
        /// Whose.
        conns: Vec<ConnId>,
        /// The room.
        room: RoomId,
    },
    /// From the main thread.
    Control(Control),
    /// From the bridge.
    Cluster(Box<Inward>),
}

/// One shard's address, as everyone needs it who writes to it.
#[derive(Clone)]
pub struct Address {
    /// Where to post.
    pub mailbox: Mailbox<Msg>,
    /// How to wake it.
    pub bell: Arc<Bell>,
}

/// A question to a room's home shard.
#[derive(Debug)]
pub enum RoomAsk {
    /// Let this viewer in.
    Join(Join),
    /// It went. Not answered.
    Leave(Leave),
    /// `GET /rooms/{room}`.
    Detail,
    /// `GET /rooms/{room}/history`.
    History {
        /// Only newer than this.
        since: Option<u64>,
        /// At most so many.
        limit: usize,
    },
    /// `GET /rooms/{room}/members`.
    Members {
        /// At most so many.
        limit: usize,
        /// Where the last page ended.
        after: Option<Box<str>>,
    },
    /// `PUT /rooms/{room}`.
    Put(Box<Patch>),
    /// `DELETE /rooms/{room}`.
    Close {
        /// Told to the members.
        reason: Arc<str>,
    },
    /// `POST /rooms/{room}/kick`.
    Kick {
        /// Who.
        user: UserId,
        /// Told to them.
        reason: Arc<str>,
    },
    /// From now on this connection is shown what happens in the room, as figures.
    Watch {
        /// Who.
        who: Arc<crate::base::identity::Identity>,
        /// On which shard.
        shard: ShardId,
        /// Itself, there.
        conn: ConnId,
    },
    /// No more. Not answered.
    Unwatch {
        /// On which shard.
        shard: ShardId,
        /// Itself, there.
        conn: ConnId,
    },
    /// May this caller see the room? For detail and history on the public listener.
    Admit {
        /// Who; `None` is anonymous.
        who: Option<Arc<crate::base::identity::Identity>>,
        /// The question to answer if so.
        then: Box<RoomAsk>,
    },
}

/// A question every shard answers for itself.
#[derive(Clone, Debug)]
pub enum NodeAsk {
    /// `GET /rooms`: the home rooms after this position, best first.
    Rooms {
        /// At most so many.
        limit: usize,
        /// The last room of the page before: its count and id.
        after: Option<(u32, Box<str>)>,
    },
    /// One frame to every viewer.
    Broadcast {
        /// The sealed frame.
        frame: Bytes,
    },
    /// One frame to every connection of a user.
    UserPush {
        /// Whose.
        user: UserId,
        /// The sealed frame.
        frame: Bytes,
    },
    /// Close every connection of a user.
    UserDisconnect {
        /// Whose.
        user: UserId,
        /// 4008, or 4400 if it may come back.
        code: u16,
        /// A sentence.
        reason: Arc<str>,
    },
    /// `GET /info`.
    Info,
}

/// A good answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To `Join`.
    Joined {
        /// What the viewer is told.
        joined: Box<Joined>,
        /// What undoes it, for a connection that is gone by now.
        undo: Box<Leave>,
    },
    /// To `Watch`: what there is to be shown now, or why not.
    Watched(Result<Box<Part>, Refusal>),
    /// To `Publish`.
    Published(Published),
    /// To `Detail` and `Put`.
    Detail(Box<Detail>),
    /// To `History`.
    History(Box<HistoryPage>),
    /// To `Members`.
    Members(Box<MembersPage>),
    /// To `Close` and `Kick`: how many connections were told or are going.
    Connections(u32),
    /// To `NodeAsk::Rooms`.
    Rooms {
        /// This part of them.
        rooms: Vec<Detail>,
        /// They are those of the last good answer: Redis is away.
        stale: bool,
    },
    /// To `NodeAsk::Info`.
    Info(ShardInfo),
}

/// One shard's part of `GET /info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardInfo {
    /// Viewers.
    pub connections: u32,
    /// Home rooms.
    pub rooms: u32,
    /// Seats in rooms.
    pub members: u32,
}

/// Who waits for an answer. The answer carries it back, so nobody keeps a table of what was asked for a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// Nobody.
    Nobody,
    /// A viewer.
    Conn {
        /// Its shard.
        shard: ShardId,
        /// Its connection.
        conn: ConnId,
        /// The `id` of its message, as raw JSON.
        id: Option<Box<str>>,
    },
    /// An HTTP exchange.
    Exchange {
        /// Its shard.
        shard: ShardId,
        /// Its key on that shard; never used twice.
        exchange: u64,
        /// Which of its questions.
        part: u32,
    },
    /// Another node, by way of a shard that gathers its answers.
    Order {
        /// That shard.
        shard: ShardId,
        /// Its key.
        key: u64,
    },
}

impl ReplyTo {
    /// The shard the answer goes to.
    pub fn shard(&self) -> Option<ShardId> {
        match self {
            ReplyTo::Nobody => None,
            ReplyTo::Conn { shard, .. }
            | ReplyTo::Exchange { shard, .. }
            | ReplyTo::Order { shard, .. } => Some(*shard),
        }
    }
}

/// What the main thread tells a shard.
#[derive(Clone, Debug)]
pub enum Control {
    /// New settings, keys and API keys, already checked.
    Reload(Arc<Policy>),
    /// Empty yourself in paced batches.
    Drain {
        /// Viewers this shard closes per interval.
        batch: usize,
        /// Pause between batches.
        interval_ms: u64,
    },
    /// Drop everything and end the thread.
    Stop,
}

/// What can change while the process runs; replaced whole.
#[derive(Debug)]
pub struct Policy {
    /// The settings.
    pub config: Config,
    /// Token keys.
    pub keys: KeySet,
    /// API keys.
    pub api_keys: ApiKeys,
}

/// A mailbox is allocated whole at start: `limits::MAILBOX_MESSAGES` of these per shard.
const _: () = assert!(size_of::<Msg>() <= 128);
