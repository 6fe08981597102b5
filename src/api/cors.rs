//! What browsers on other origins may do (Fetch standard, "CORS protocol"): asked before, and said with every answer.

use super::Listener;
use super::route;
use crate::auth::origin::origin_allowed;
use crate::base::refusal::Refusal;
use crate::config::checked::Origins;
use crate::proto::http::reply::Reply;
use crate::proto::http::{Method, Request};

/// Seconds a browser may remember a preflight.
const MAX_AGE_S: &str = "600";
const HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, X-Api-Key";

/// Answers an `OPTIONS` request for a path that exists.
pub fn preflight(request: &Request, origins: &Origins, listener: Listener) -> Option<Reply> {
    if request.method != Method::Options {
        return None;
    }
    let methods = route::methods(&request.path, listener)?;
    let reply = Reply::empty(204).header("Allow", methods.clone());
    Some(match allowed(request, origins) {
        Some(Ok(origin)) => with_origin(reply, origin)
            .header("Access-Control-Allow-Methods", methods)
            .header("Access-Control-Allow-Headers", HEADERS)
            .header("Access-Control-Max-Age", MAX_AGE_S),
        _ => reply.header("Vary", "Origin"),
    })
}

/// Whether a browser on that origin may have this done at all. Reading is harmless without the headers; a request that
/// changes something is refused.
///
/// # Errors
/// `origin_denied`.
pub fn judge(request: &Request, origins: &Origins) -> Result<(), Refusal> {
    match allowed(request, origins) {
        Some(Err(refusal)) if !matches!(request.method, Method::Get | Method::Head) => Err(refusal),
        _ => Ok(()),
    }
}

/// Adds to an answer what lets a browser on an allowed origin read it.
pub fn decorate(reply: Reply, allowed_origin: Option<String>) -> Reply {
    match allowed_origin {
        Some(origin) => with_origin(reply, &origin),
        None => reply,
    }
}

/// The request's origin, if it has one and it is allowed.
pub fn allowed_origin(request: &Request, origins: &Origins) -> Option<String> {
    allowed(request, origins)?.ok().map(Into::into)
}

fn allowed<'a>(request: &'a Request, origins: &Origins) -> Option<Result<&'a str, Refusal>> {
    let origin = request.headers.first("origin")?;
    let host = request.headers.first("host");
    Some(origin_allowed(origins, Some(origin), host).map(|()| origin))
}

fn with_origin(reply: Reply, origin: &str) -> Reply {
    reply
        .header("Access-Control-Allow-Origin", origin)
        .header("Vary", "Origin")
}
