//! The node about itself: liveness, readiness, metrics, info, and the embedded pages.

use bytes::Bytes;

use super::call::{Call, Step};
use super::gather::NodeWide;
use super::{Ctx, Special};
use crate::base::refusal::{Code, Refusal};
use crate::bus::NodeAsk;
use crate::proto::http::headers::Headers;
use crate::proto::http::reply::Reply;
use crate::web;

/// `GET /healthz`: whoever can answer is alive.
pub(super) fn health(_: &Call, _: &Ctx) -> Result<Step, Refusal> {
    let body: &'static [u8] = br#"{"status":"ok"}"#;
    Ok(Step::Done(Reply::raw_json(200, body)))
}

/// `GET /readyz`.
pub(super) fn ready(_: &Call, _: &Ctx) -> Result<Step, Refusal> {
    Ok(Step::Special(Special::Ready))
}

/// `GET /metrics`.
pub(super) fn metrics(_: &Call, _: &Ctx) -> Result<Step, Refusal> {
    Ok(Step::Special(Special::Metrics))
}

/// `GET /api/v1/nodes`.
pub(super) fn nodes(_: &Call, _: &Ctx) -> Result<Step, Refusal> {
    Ok(Step::Special(Special::Nodes))
}

/// `GET /api/v1/info`.
pub(super) fn info(_: &Call, ctx: &Ctx) -> Result<Step, Refusal> {
    Ok(NodeWide::info().ask(NodeAsk::Info, ctx))
}

/// `GET /`: the demo page, or where to go instead. A WebSocket client that knocks here is told where its door is.
pub(super) fn home(call: &Call, ctx: &Ctx) -> Result<Step, Refusal> {
    let page = page("/", ctx).filter(|_| !call.upgrade);
    page.map(Step::Done).ok_or_else(|| {
        let reason = "there is no page here: viewers connect to /ws with a WebSocket client, back ends use /api/v1; docs/PROTOCOL.md describes both";
        Refusal::new(Code::NotFound, reason)
    })
}

/// The embedded page at a path, if pages are switched on and there is one.
pub(super) fn page(path: &str, ctx: &Ctx) -> Option<Reply> {
    let found = ctx.policy.config.server.demo_page.then(|| web::page(path));
    let page = found.flatten()?;
    let reply = Reply::with_body(200, page.content_type, page.bytes);
    let reply = reply.header("ETag", page.etag.as_str());
    let dress =
        |reply: Reply, (name, value): &(&'static str, &'static str)| reply.header(*name, *value);
    Some(web::HEADERS.iter().fold(reply, dress))
}

/// 304 in place of an answer the client has already: one of the tags of its `If-None-Match` is the answer's `ETag`, compared
/// weakly (RFC 9110 section 13.1.2).
pub(super) fn unless_known(reply: Reply, headers: &Headers) -> Reply {
    let Some((_, etag)) = reply.headers.iter().find(|(name, _)| name == "ETag") else {
        return reply;
    };
    let is_known = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag;
    if !headers.list("If-None-Match").any(is_known) {
        return reply;
    }
    Reply {
        status: 304,
        content_type: None,
        body: Bytes::new(),
        ..reply
    }
}
