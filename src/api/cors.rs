//! Cross-origin requests of browsers (the Fetch standard's CORS protocol), on the public listener only. Pure; it must never be
//! taken for authentication: a client that is no browser sends no Origin and is not stopped here.

use super::route;
use crate::auth::origin::origin_allowed;
use crate::base::refusal::{Code, Refusal};
use crate::config::checked::Origins;
use crate::proto::http::reply::Reply;
use crate::proto::http::{Method, Request};

/// Request headers a page may send.
const HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, X-Api-Key";
/// Seconds a browser may remember a preflight.
const MAX_AGE_S: &str = "600";

/// What a request's Origin comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Not a browser, or the same page.
    None,
    /// On the list: told back on every answer.
    Allowed(String),
    /// Not on the list: it gets no CORS headers, and may not act.
    Denied(Refusal),
}

impl Origin {
    /// Judges the Origin by `auth.origins`.
    ///
    /// # Errors
    /// `bad_request` for several Origin fields.
    pub fn judge(request: &Request, origins: &Origins) -> Result<Origin, Refusal> {
        let mut fields = request.headers.all("Origin");
        let Some(origin) = fields.next() else {
            return Ok(Origin::None);
        };
        if fields.next().is_some() {
            return Err(Refusal::new(Code::BadRequest, "Origin stands there twice"));
        }
        let host = request.headers.first("Host");
        Ok(match origin_allowed(origins, Some(origin), host) {
            Ok(()) => Origin::Allowed(origin.to_owned()),
            Err(refusal) => Origin::Denied(refusal),
        })
    }

    /// Whether this method may go on: a foreign page may read what it cannot see, and act on nothing.
    pub fn permits(&self, method: Method) -> Result<(), Refusal> {
        match (self, method) {
            (_, Method::Get | Method::Head) => Ok(()),
            (Origin::Denied(refusal), _) => Err(refusal.clone()),
            _ => Ok(()),
        }
    }

    /// The answer with what lets the page read it. Whether a page may is the Origin's matter, so caches are told that too.
    pub fn dress(&self, reply: Reply) -> Reply {
        match self {
            Origin::None => reply,
            Origin::Denied(_) => reply.header("Vary", "Origin"),
            Origin::Allowed(origin) => reply
                .header("Access-Control-Allow-Origin", origin.as_str())
                .header("Access-Control-Expose-Headers", "Retry-After")
                .header("Vary", "Origin"),
        }
    }
}

/// The answer to OPTIONS on a path with these methods. A preflight of an origin that is not let in is told why, in words only a
/// developer's console shows.
pub(super) fn options(request: &Request, methods: &[Method], origin: &Origin) -> Reply {
    let allow = route::allow(methods);
    let asks = request
        .headers
        .first("Access-Control-Request-Method")
        .is_some();
    match origin {
        Origin::Denied(refusal) if asks => Reply::refusal(refusal),
        Origin::Allowed(_) if asks => Reply::empty(204)
            .header("Allow", allow.as_str())
            .header("Access-Control-Allow-Methods", allow)
            .header("Access-Control-Allow-Headers", HEADERS)
            .header("Access-Control-Max-Age", MAX_AGE_S),
        _ => Reply::empty(204).header("Allow", allow),
    }
}
