//! What makes one reply of the answers to a request's questions. A plain value that waits with its exchange on the shard of the
//! client; answers may come in any order, late ones and strangers change nothing.

use serde_json::json;

use super::call::Step;
use super::push::{Accepted, Results};
use super::rooms::{self, Listing};
use super::{Ctx, Question};
use crate::base::ids::RoomId;
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Answer, NodeAsk, ShardInfo};
use crate::proto::http::reply::Reply;

/// When a client is told to come back, where whoever refused it did not say. The reactor spreads it.
const RETRY_AFTER_MS: u32 = 1000;

/// Answers under way.
#[derive(Debug)]
pub(super) enum Gather {
    /// One answer of one room.
    Room {
        /// Which.
        room: RoomId,
        /// What is to be shown.
        show: Show,
    },
    /// One answer from each of many rooms.
    Many(Results),
    /// One answer of every shard.
    Node(NodeWide),
}

/// What a room was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Published,
    Detail,
    History,
    Members,
    Closed,
    Kicked,
}

impl Gather {
    /// Waits for one answer of one room.
    pub fn room(room: RoomId, show: Show) -> Gather {
        Gather::Room { room, show }
    }

    /// Takes an answer; the reply, if it was the last one needed.
    pub fn take(&mut self, part: u32, answer: Result<Answer, Refusal>, ctx: &Ctx) -> Option<Reply> {
        match self {
            Gather::Many(results) => results.take(part, answer),
            // These asked one question, which is part 0.
            _ if part != 0 => None,
            Gather::Room { room, show } => Some(match answer {
                Ok(answer) => show.reply(room, &answer),
                Err(refusal) => refuse(refusal),
            }),
            Gather::Node(node) => node.take(answer, ctx),
        }
    }

    /// The reply when time is up.
    pub fn timed_out(&self) -> Reply {
        let told = match self {
            Gather::Many(results) => results.timed_out(),
            Gather::Room { .. } | Gather::Node(_) => None,
        };
        told.unwrap_or_else(|| refuse(timeout()))
    }
}

impl Show {
    fn reply(self, room: &RoomId, answer: &Answer) -> Reply {
        match (self, answer) {
            (Show::Published, Answer::Published(published)) => {
                Reply::json(200, Accepted::new(room, *published))
            }
            (Show::Detail, Answer::Detail(detail)) => rooms::detail_reply(detail),
            (Show::History, Answer::History(page)) => rooms::history_reply(room, page),
            (Show::Members, Answer::Members(page)) => rooms::members_reply(page),
            (Show::Closed, Answer::Connections(connections)) => Reply::json(
                200,
                json!({ "room": room.as_str(), "connections": connections }),
            ),
            (Show::Kicked, Answer::Connections(connections)) => {
                Reply::json(200, json!({ "connections": connections }))
            }
            _ => refuse(mismatched()),
        }
    }
}

/// One answer of every shard, added up.
#[derive(Debug)]
pub(super) struct NodeWide {
    missing: usize,
    refusal: Option<Refusal>,
    sum: Sum,
}

#[derive(Debug)]
enum Sum {
    Connections(u64),
    Rooms(Listing),
    Info {
        connections: u64,
        rooms: u64,
        members: u64,
    },
}

impl NodeWide {
    /// Adds up connections.
    pub fn connections() -> NodeWide {
        NodeWide::new(Sum::Connections(0))
    }

    /// Puts the shards' rooms together.
    pub fn rooms(listing: Listing) -> NodeWide {
        NodeWide::new(Sum::Rooms(listing))
    }

    /// Adds up the shards' figures.
    pub fn info() -> NodeWide {
        NodeWide::new(Sum::Info {
            connections: 0,
            rooms: 0,
            members: 0,
        })
    }

    fn new(sum: Sum) -> NodeWide {
        NodeWide {
            missing: 0,
            refusal: None,
            sum,
        }
    }

    /// Asks every shard.
    pub fn ask(mut self, ask: NodeAsk, ctx: &Ctx) -> Step {
        self.missing = ctx.shards;
        Step::Ask(vec![Question::Node(ask)], Gather::Node(self))
    }

    /// Every shard is waited for even when one has refused: what the others did is part of the answer.
    fn take(&mut self, answer: Result<Answer, Refusal>, ctx: &Ctx) -> Option<Reply> {
        let refused = match answer {
            Ok(answer) => self.sum.add(answer).err(),
            Err(refusal) => Some(refusal),
        };
        self.refusal = self.refusal.take().or(refused);
        self.missing = self.missing.saturating_sub(1);
        (self.missing == 0).then(|| self.reply(ctx))
    }

    fn reply(&mut self, ctx: &Ctx) -> Reply {
        match (self.refusal.take(), &mut self.sum) {
            (Some(refusal), Sum::Connections(reached)) if *reached > 0 => {
                let told = format!("{}; {reached} connections were reached", refusal.reason);
                refuse(Refusal {
                    reason: told.into(),
                    ..refusal
                })
            }
            (Some(refusal), _) => refuse(refusal),
            (None, Sum::Connections(sum)) => Reply::json(200, json!({ "connections": sum })),
            (None, Sum::Rooms(listing)) => listing.reply(),
            (
                None,
                Sum::Info {
                    connections,
                    rooms,
                    members,
                },
            ) => Reply::json(
                200,
                json!({
                    "node": ctx.node.name,
                    "shards": ctx.shards,
                    "connections": connections,
                    "rooms": rooms,
                    "members": members,
                    "build": { "version": env!("CARGO_PKG_VERSION") },
                    "started": ctx.node.started_ms,
                    "uptime": ctx.now.unix_ms.saturating_sub(ctx.node.started_ms) / 1000,
                }),
            ),
        }
    }
}

impl Sum {
    fn add(&mut self, answer: Answer) -> Result<(), Refusal> {
        match (self, answer) {
            (Sum::Connections(sum), Answer::Connections(more)) => *sum += u64::from(more),
            (Sum::Rooms(listing), Answer::Rooms { rooms, stale }) => listing.add(rooms, stale),
            (
                Sum::Info {
                    connections,
                    rooms,
                    members,
                },
                Answer::Info(shard),
            ) => {
                let ShardInfo {
                    connections: c,
                    rooms: r,
                    members: m,
                } = shard;
                *connections += u64::from(c);
                *rooms += u64::from(r);
                *members += u64::from(m);
            }
            _ => return Err(mismatched()),
        }
        Ok(())
    }
}

/// A refusal as a reply, with a time to come back where one helps and a 401's challenge (RFC 9110 section 15.5.2).
pub(super) fn refuse(mut refusal: Refusal) -> Reply {
    let status = refusal.code.status();
    if matches!(status, 429 | 503 | 504) {
        refusal.retry_after_ms.get_or_insert(RETRY_AFTER_MS);
    }
    let reply = Reply::refusal(&refusal);
    match status {
        401 => reply.header("WWW-Authenticate", "Bearer"),
        _ => reply,
    }
}

/// Time is up.
pub(super) fn timeout() -> Refusal {
    let reason = "a shard did not answer in time; the request may still be carried out";
    Refusal::new(Code::Timeout, reason).retry(RETRY_AFTER_MS)
}

/// An answer to a question that was not asked: a fault of ours, told rather than guessed at.
pub(super) fn mismatched() -> Refusal {
    Refusal::new(Code::Internal, "a shard answered another question")
}
