//! What shards and the bridge say to each other, and the queues behind it. Values only: nothing here acts.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::ReplyTo;
use crate::base::ids::{ConnId, Epoch, RoomId, ShardId, UserId};
use crate::proto::node::about::About;
use crate::proto::node::page::Page;
use crate::proto::node::part::Part;
use crate::proto::node::{Asker, Lines, Message, Order, Totals};
use crate::room::link::Outbound;
use crate::room::presence::Moves;
use crate::telemetry::sink::SinkStats;

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
    /// Who is in a room here, for another node that asked.
    Page {
        /// Who awaits it.
        asker: Asker,
        /// What was asked for.
        page: Page,
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
    /// Who is in a room at one of them.
    Page {
        /// The order's key.
        key: u64,
        /// What was asked for.
        page: Page,
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
