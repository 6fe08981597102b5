//! HTTP routes and handlers on request values, sans-IO: a request comes in, an answer goes out, or questions for home
//! shards whose answers come back. Runs on the shard the client is on; knows no socket.

mod batch;
mod caller;
mod cors;
mod exchange;
mod plan;
mod push;
mod rooms;
mod route;
mod users;

pub use exchange::{Exchange, Facts};

use crate::base::clock::Now;
use crate::base::ids::RoomId;
use crate::bus::{NodeAsk, Policy, RoomAsk};
use crate::proto::http::reply::Reply;
use crate::room::ask::Publish;

/// By which listener a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// For everybody.
    Public,
    /// For the back end and the operator.
    Internal,
}

/// What a handler may know.
pub struct Ctx<'a> {
    /// Settings and keys.
    pub policy: &'a Policy,
    /// This turn's time.
    pub now: Now,
    /// By which listener the request came in.
    pub listener: Listener,
    /// Shards of the node: how many answers a node question gets.
    pub shards: usize,
    /// The node.
    pub node: NodeFacts,
}

/// Facts of the node that `GET /info` shows.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Milliseconds since 1970 at which it started.
    pub started_ms: u64,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Progress {
    /// The answer.
    Done(Reply),
    /// Questions to be posted; each answer comes back with its index.
    Ask(Vec<Question>),
    /// Only the shard can answer.
    Special(Special),
}

/// A question for other shards.
#[derive(Debug)]
pub enum Question {
    /// To a room's home.
    Room {
        /// The room.
        room: RoomId,
        /// What.
        ask: RoomAsk,
    },
    /// A line or event.
    Publish {
        /// The room.
        room: RoomId,
        /// What.
        publish: Box<Publish>,
        /// Whether the author's own flood bucket is to be asked.
        judge_user: bool,
    },
    /// To every shard; answered as many times as there are shards.
    Node(NodeAsk),
}

/// Answers that need what only a shard has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// `/metrics`
    Metrics,
    /// `/readyz`
    Ready,
}
