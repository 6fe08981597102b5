//! The HTTP API on request values: one route table, callers checked per route, handlers that answer or ask.
//!
//! Owns what one HTTP request needs while it is answered ([`Exchange`]); runs on the shard that holds the client's connection.
//! It must never touch a socket, a clock or a room: whatever another shard owns is a [`Question`] that the reactor posts,
//! and the answer comes back through [`Exchange::answered`].

mod batch;
mod call;
mod caller;
mod cors;
mod exchange;
mod gather;
mod node;
mod push;
mod rooms;
mod route;
mod users;

pub use caller::CallerName;
pub use exchange::{Exchange, Facts};

use crate::base::clock::Now;
use crate::base::ids::RoomId;
use crate::bus::{NodeAsk, Policy, RoomAsk};
use crate::proto::http::reply::Reply;
use crate::room::ask::Publish;

/// Which of the two addresses a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// `listen.public`: viewers and pages.
    Public,
    /// `listen.internal`: back ends with an API key, and Prometheus.
    Internal,
}

/// What a handler may look at beside the request.
#[derive(Clone, Debug)]
pub struct Ctx<'a> {
    /// Settings and keys as they are now.
    pub policy: &'a Policy,
    /// The time of this turn.
    pub now: Now,
    /// Where the request came in.
    pub listener: Listener,
    /// Shards of the node: how many answers a [`Question::Node`] gets.
    pub shards: usize,
    /// Whether lines may be pushed now: not while the node is overloaded.
    pub takes_pushes: bool,
    /// The node itself.
    pub node: NodeFacts,
}

/// What `GET /api/v1/info` says of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// `server.node`, or the random name of this run.
    pub name: String,
    /// Milliseconds since 1970 when the process began to serve.
    pub started_ms: u64,
}

/// How far a request has come.
#[derive(Debug)]
pub enum Progress {
    /// Write this; the exchange is over.
    Done(Reply),
    /// Post these. A question's index is the `part` its answers come back under. Never empty, at most 1,000.
    Ask(Vec<Question>),
    /// The reactor answers this one itself; the exchange is over.
    Special(Special),
}

/// Something only another shard knows or may do.
#[derive(Debug)]
pub enum Question {
    /// To the room's home shard. One answer.
    Room {
        /// Which room.
        room: RoomId,
        /// What.
        ask: RoomAsk,
    },
    /// A line or event, by way of the author's user-home if `judge_user`. One answer.
    Publish {
        /// Which room.
        room: RoomId,
        /// What.
        publish: Box<Publish>,
        /// Whether the user's flood bucket is to be asked first.
        judge_user: bool,
    },
    /// To every shard: [`Ctx::shards`] answers, all under this question's part.
    Node(NodeAsk),
}

/// Routes that show the reactor's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// `/metrics`.
    Metrics,
    /// `/readyz`.
    Ready,
    /// `/api/v1/nodes`.
    Nodes,
}

#[cfg(test)]
mod tests;
