//! The node about itself: liveness, readiness, metrics, info, and the embedded pages.

use super::call::{Call, Step};
use super::gather::NodeWide;
use super::{Ctx, Special};
use crate::base::refusal::{Code, Refusal};
use crate::bus::NodeAsk;
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

/// `GET /api/v1/info`.
pub(super) fn info(_: &Call, ctx: &Ctx) -> Result<Step, Refusal> {
    Ok(NodeWide::info().ask(NodeAsk::Info, ctx))
}

/// `GET /`: the demo page, or where to go instead.
pub(super) fn home(_: &Call, ctx: &Ctx) -> Result<Step, Refusal> {
    page("/", ctx).map(Step::Done).ok_or_else(|| {
        let reason = "there is no page here: viewers connect to /ws with a WebSocket client, back ends use /api/v1; docs/PROTOCOL.md describes both";
        Refusal::new(Code::NotFound, reason)
    })
}

/// The embedded page at a path, if pages are switched on and there is one.
pub(super) fn page(path: &str, ctx: &Ctx) -> Option<Reply> {
    let found = ctx.policy.config.server.demo_page.then(|| web::page(path));
    let (content_type, bytes) = found.flatten()?;
    Some(Reply::with_body(200, content_type, bytes))
}
