//! The server API towards viewers: broadcast, push to a user, disconnect a user. Frames are sealed here, once for the node;
//! every shard writes the same bytes.

use bytes::Bytes;

use super::Ctx;
use super::call::{Call, Step};
use super::gather::NodeWide;
use crate::base::ids::UserId;
use crate::base::refusal::Refusal;
use crate::bus::NodeAsk;
use crate::proto::danmaku::http::{parse_broadcast, parse_disconnect};
use crate::proto::danmaku::server;
use crate::proto::ws::encode;

/// Close code of a user who is not to come back.
const KICKED: u16 = 4008;
/// Close code of a user who may.
const ASKED_TO: u16 = 4400;

/// `POST /api/v1/broadcast`.
pub(super) fn broadcast(call: &Call, ctx: &Ctx) -> Result<Step, Refusal> {
    let body = parse_broadcast(call.body)?;
    let mut json = Vec::new();
    server::broadcast(
        &mut json,
        &body.event,
        body.data.as_deref(),
        ctx.now.unix_ms,
    );
    let ask = NodeAsk::Broadcast {
        frame: sealed(&json),
    };
    Ok(NodeWide::connections().ask(ask, ctx))
}

/// `POST /api/v1/users/{user}/push`.
pub(super) fn push(call: &Call, user: &UserId, ctx: &Ctx) -> Result<Step, Refusal> {
    let body = parse_broadcast(call.body)?;
    let mut json = Vec::new();
    server::push(
        &mut json,
        &body.event,
        body.data.as_deref(),
        ctx.now.unix_ms,
    );
    let ask = NodeAsk::UserPush {
        user: user.clone(),
        frame: sealed(&json),
    };
    Ok(NodeWide::connections().ask(ask, ctx))
}

/// `POST /api/v1/users/{user}/disconnect`.
pub(super) fn disconnect(call: &Call, user: &UserId, ctx: &Ctx) -> Result<Step, Refusal> {
    let body = parse_disconnect(call.body)?;
    let (code, default) = match body.reconnect {
        false => (KICKED, "the platform ended this connection"),
        true => (ASKED_TO, "the platform asks you to connect again"),
    };
    let ask = NodeAsk::UserDisconnect {
        user: user.clone(),
        code,
        reason: body.reason.map_or_else(|| default.into(), Into::into),
    };
    Ok(NodeWide::connections().ask(ask, ctx))
}

/// One text frame, valid in both subprotocols: a batch of one object is that object.
fn sealed(json: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(json.len() + encode::HEADER_BYTES_MAX);
    encode::text(json, &mut frame);
    frame.into()
}
