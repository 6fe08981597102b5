//! Routes that go to every shard: broadcast, a user's connections, info.

use bytes::Bytes;
use serde_json::json;

use super::plan::{Fold, Plan, single, unexpected};
use super::route::{Action, Found};
use super::{Ctx, Question};
use crate::base::refusal::Refusal;
use crate::bus::{Answer, NodeAsk, ShardInfo};
use crate::proto::danmaku::http::{parse_broadcast, parse_disconnect};
use crate::proto::danmaku::server;
use crate::proto::http::Request;
use crate::proto::http::reply::Reply;
use crate::proto::ws::close::Close;
use crate::proto::ws::encode;

/// How answers of all shards are shown.
#[derive(Debug)]
pub enum View {
    /// Their sum.
    Connections,
    /// `GET /info`.
    Info,
}

/// Plans one of them.
pub fn plan(request: &Request, found: &Found, ctx: &Ctx<'_>) -> Plan {
    let (view, ask) = match found.action {
        Action::Broadcast => {
            let body = parse_broadcast(&request.body)?;
            let frame = frame(|out| {
                server::broadcast(out, &body.event, body.data.as_deref(), ctx.now.unix_ms);
            });
            (View::Connections, NodeAsk::Broadcast { frame })
        }
        Action::UserPush => {
            let (user, body) = (found.user()?, parse_broadcast(&request.body)?);
            let frame = frame(|out| {
                server::push(out, &body.event, body.data.as_deref(), ctx.now.unix_ms);
            });
            (View::Connections, NodeAsk::UserPush { user, frame })
        }
        Action::UserDisconnect => {
            let (user, body) = (found.user()?, parse_disconnect(&request.body)?);
            let (close, sentence) = match body.reconnect {
                true => (Close::AskedToReconnect, "please connect again"),
                false => (Close::Kicked, "disconnected by the service"),
            };
            let ask = NodeAsk::UserDisconnect {
                user,
                code: close.code(),
                reason: body.reason.as_deref().unwrap_or(sentence).into(),
            };
            (View::Connections, ask)
        }
        _ => (View::Info, NodeAsk::Info),
    };
    Ok((Fold::Shards(view), vec![Question::Node(ask)]))
}

/// One text frame, sealed once for all who get it.
fn frame(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    encode::text_with(&mut out, write);
    out.into()
}

impl View {
    /// The reply.
    pub fn reply(&self, mut answers: Vec<Vec<Result<Answer, Refusal>>>, ctx: &Ctx<'_>) -> Reply {
        // A shard that refused stands for the rest: what the others did is done, and the caller may try again.
        let refused = |answer: &Result<Answer, Refusal>| answer.is_err();
        if let Some(at) = answers.first().and_then(|all| all.iter().position(refused)) {
            let refusal = answers.swap_remove(0).swap_remove(at);
            return single(vec![vec![refusal]]).err().unwrap_or_else(unexpected);
        }
        let all = answers.into_iter().flatten().flatten();
        match self {
            View::Connections => {
                let count = |answer| match answer {
                    Answer::Connections(connections) => connections,
                    _ => 0,
                };
                let connections: u32 = all.map(count).sum();
                Reply::json(200, json!({ "connections": connections }))
            }
            View::Info => {
                let mut sum = ShardInfo::default();
                for answer in all {
                    if let Answer::Info(of_shard) = answer {
                        sum.connections += of_shard.connections;
                        sum.rooms += of_shard.rooms;
                        sum.members += of_shard.members;
                    }
                }
                Reply::json(200, info_json(sum, ctx))
            }
        }
    }
}

fn info_json(sum: ShardInfo, ctx: &Ctx<'_>) -> serde_json::Value {
    json!({
        "node": ctx.node.name,
        "shards": ctx.shards,
        "connections": sum.connections,
        "rooms": sum.rooms,
        "members": sum.members,
        "build": {"version": env!("CARGO_PKG_VERSION")},
        "started": ctx.node.started_ms,
        "uptime_s": ctx.now.unix_ms.saturating_sub(ctx.node.started_ms) / 1000,
    })
}
