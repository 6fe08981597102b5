//! The messages between shards, the main thread and the bridge. Values only: nothing here acts.
//!
//! Every shard has one bounded mailbox (`sync::mailbox`). Messages from one shard to another arrive in the order they
//! were posted, which is what makes joining exact: the answer to a join travels behind every chunk sealed before it.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Sender;
use mio::Waker;

use crate::auth::api_keys::ApiKeys;
use crate::auth::keys::KeySet;
use crate::base::ids::{ConnId, Epoch, Life, RoomId, ShardId, UserId};
use crate::base::refusal::Refusal;
use crate::config::checked::Config;
use crate::proto::node::about::About;
use crate::proto::node::part::Part;
use crate::proto::node::{Asker, Lines, Message, Order, Totals};
use crate::room::ask::{
    Detail, HistoryPage, Join, Joined, Leave, MembersPage, Patch, Publish, Published, Sealed,
};
use crate::room::link::Outbound;
use crate::room::presence::Moves;
use crate::sync::mailbox::Mailbox;
use crate::telemetry::sink::SinkStats;

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

/// A connection of a login, as its user's home keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// Its shard.
    pub shard: ShardId,
    /// Itself, there.
    pub conn: ConnId,
    /// When it entered, in milliseconds of this process' clock.
    pub at_ms: u64,
}

/// One shard's address, as everyone needs it who writes to it.
#[derive(Clone)]
pub struct Address {
    /// Where to post.
    pub mailbox: Mailbox<Msg>,
    /// How to wake.
    pub waker: Arc<Waker>,
}

/// What a shard asks of the cluster, by way of the bridge. Answered by [`Inward`], or not at all when the bridge goes down.
#[derive(Clone, Debug)]
pub enum Outward {
    /// Number these lines of a room, keep them and publish them.
    Publish {
        /// The room.
        room: RoomId,
        /// The numbering to begin if the room has none.
        begin: Epoch,
        /// The lines.
        batch: Outbound,
        /// Batches to be kept for who comes late.
        keep: usize,
    },
    /// What there is of a room.
    Read {
        /// The room.
        room: RoomId,
        /// The numbering to begin if the room has none.
        begin: Option<Epoch>,
        /// Handed back.
        subscribed: bool,
    },
    /// What there is of a room, and what comes from now on.
    Subscribe {
        /// The room.
        room: RoomId,
        /// The numbering to begin if the room has none.
        begin: Epoch,
    },
    /// This node's part of who is in a room.
    Count {
        /// The room.
        room: RoomId,
        /// Connections here.
        connections: u32,
        /// Users that came and went since it was last told.
        moves: Moves,
    },
    /// What a room's owner has said of it.
    Settings {
        /// The room.
        room: RoomId,
        /// The body of a `PUT` that says all of it.
        json: Bytes,
    },
    /// What happened in a room here lately.
    Part {
        /// The room.
        room: RoomId,
        /// `None`: nothing, and nobody is here.
        part: Option<Part>,
    },
    /// Somebody here looks at a room's figures: the other nodes are to tell theirs as they change.
    Watch {
        /// The room.
        room: RoomId,
    },
    /// A room is over: its numbering and its lines are forgotten.
    End {
        /// The room.
        room: RoomId,
    },
    /// A room is over here, and everybody has left it.
    Uncount {
        /// The room.
        room: RoomId,
    },
    /// The cluster's rooms by connections, most first, then by name.
    Rooms {
        /// Who awaits them.
        to: ReplyTo,
        /// At most so many.
        limit: usize,
        /// Where the last page ended.
        after: Option<(u32, Box<str>)>,
    },
    /// Every other node is to do this.
    Order {
        /// Who awaits the answers.
        shard: ShardId,
        /// Its key.
        key: u64,
        /// What.
        order: Order,
    },
    /// What came of an order here.
    Done {
        /// Who awaits it.
        asker: Asker,
        /// Connections it concerned.
        connections: u32,
        /// Whether there was anything it could concern.
        known: bool,
    },
    /// A connection of a login, of which there may be so many on all nodes.
    LoggedIn {
        /// Whose.
        user: UserId,
        /// Which.
        login: Login,
        /// `limits.connections_per_user_max`.
        max: usize,
    },
    /// It has gone.
    LoggedOut {
        /// Whose.
        user: UserId,
        /// Which.
        login: Login,
        /// None of theirs is left on this node.
        last: bool,
    },
    /// No more of a room.
    Unsubscribe {
        /// The room.
        room: RoomId,
    },
}

/// What the bridge tells a shard.
#[derive(Debug)]
pub enum Inward {
    /// The cluster can be reached.
    Up {
        /// To be said with what is asked.
        generation: u64,
    },
    /// It cannot: whatever waits for it goes on without.
    Down,
    /// What this node counted counts no more: every room is to be counted anew.
    Recount,
    /// A batch has its numbers.
    Numbered {
        /// The room.
        room: RoomId,
        /// Which batch.
        batch: u64,
        /// The numbering.
        epoch: Epoch,
        /// The first number.
        first: u64,
    },
    /// What there is of a room.
    Read {
        /// The room.
        room: RoomId,
        /// Whether what comes from now on comes too.
        subscribed: bool,
        /// `None`: nothing was said in it yet.
        found: Option<RoomRead>,
        /// What its owner has said of it.
        settings: Option<Bytes>,
    },
    /// The cluster's rooms by connections.
    Rooms {
        /// Who awaits them.
        to: ReplyTo,
        /// Those asked for.
        rooms: Vec<Brief>,
    },
    /// So many nodes hear an order, this one among them.
    Ordered {
        /// The order's key.
        key: u64,
        /// How many.
        nodes: u32,
    },
    /// What came of it at one of them.
    Done {
        /// The order's key.
        key: u64,
        /// Connections it concerned there.
        connections: u32,
        /// Whether there was anything it could concern.
        known: bool,
    },
    /// Newer connections of the same login have taken this one's place.
    Replaced {
        /// On the shard that gets this.
        conn: ConnId,
    },
    /// An order of another node.
    Order {
        /// Who awaits the answer.
        asker: Asker,
        /// What.
        order: Order,
    },
    /// Something came by a room's channel.
    Came {
        /// The room.
        room: RoomId,
        /// What.
        message: Message,
    },
}

/// Who looks at a room's figures is believed to do so for so long after they last said it.
pub const WATCHED_FOR_MS: u64 = 5000;

/// A room as it stands in Redis.
#[derive(Debug)]
pub struct RoomRead {
    /// The numbering.
    pub epoch: Epoch,
    /// The newest number.
    pub seq: u64,
    /// What is kept of it, ascending.
    pub batches: Vec<Lines>,
    /// Connections by node.
    pub counts: Vec<(Box<str>, u32)>,
    /// What the nodes have counted together.
    pub totals: Totals,
    /// Somebody looks at its figures.
    pub is_watched: bool,
}

/// A room of the cluster in short.
#[derive(Clone, Debug)]
pub struct Brief {
    /// The room.
    pub room: RoomId,
    /// The numbering.
    pub epoch: Epoch,
    /// The newest number.
    pub seq: u64,
    /// What its owner has said of it.
    pub settings: Option<Bytes>,
    /// Connections in it.
    pub online: u32,
    /// Who they are.
    pub totals: Totals,
}

/// A node of the cluster, as it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it said.
    pub about: About,
    /// When, in milliseconds of this process' clock.
    pub said_ms: u64,
}

/// The bridge, as a shard sees it.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// What this node is called among the others.
    pub me: Arc<str>,
    /// Where to ask, with the generation that [`Inward::Up`] named. Bounded.
    pub asks: Sender<(u64, Outward)>,
}

/// Something that happened, for the event pipeline.
#[derive(Clone, Debug)]
pub struct Happened {
    /// What: `join`, `leave`, `danmaku`, `event`, `kick`, `close`, `disconnect`.
    pub kind: &'static str,
    /// Where, if in a room.
    pub room: Option<RoomId>,
    /// All of it, as one JSON object.
    pub json: Bytes,
}

/// One that takes what happens: a queue with a thread behind it.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Bounded; what it has no place for is lost, and counted.
    pub queue: Sender<Happened>,
    /// Where that is counted.
    pub stats: Arc<SinkStats>,
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
