//! Who makes a request: an API key, a token's bearer, or nobody named.

use super::Listener;
use super::route::Reach;
use crate::auth::credentials::{Presented, presented};
use crate::base::clock::Now;
use crate::base::identity::Caller;
use crate::base::refusal::{Code, Refusal};
use crate::bus::Policy;
use crate::config::checked::Anonymous;
use crate::proto::http::Request;
use crate::proto::http::uri::query_first;

/// Finds out who calls, and whether they may call this route at all.
///
/// # Errors
/// `api_key_required`, `token_missing`, `token_invalid`, `token_expired`, `bad_request`.
pub fn identify(
    request: &Request,
    reach: Reach,
    listener: Listener,
    policy: &Policy,
    now: Now,
) -> Result<Caller, Refusal> {
    if matches!(reach, Reach::Open | Reach::OpenInternal) {
        return Ok(Caller::Anonymous);
    }
    let authorization = request.headers.first("authorization");
    let key = request
        .headers
        .first("x-api-key")
        .or_else(|| authorization.and_then(bearer));
    if let Some(name) = key.and_then(|key| policy.api_keys.check(key)) {
        return Ok(Caller::Key(name));
    }
    if listener == Listener::Internal {
        let reason = match key {
            Some(_) => "the key sent is none of api_keys",
            None => "the internal listener needs an API key",
        };
        return Err(Refusal::new(Code::ApiKeyRequired, reason));
    }
    if request.headers.first("x-api-key").is_some() {
        let reason = "the key sent is none of api_keys";
        return Err(Refusal::new(Code::ApiKeyRequired, reason));
    }
    let token = query_first(&request.query, "token")?;
    match presented(authorization, token.as_deref(), None)? {
        Presented::Bearer(token) => policy.keys.verify(token, now.unix_s()).map(Caller::User),
        Presented::None if policy.config.auth.anonymous == Anonymous::Deny => {
            let reason = "this node answers nobody without a token";
            Err(Refusal::new(Code::TokenMissing, reason))
        }
        Presented::None => Ok(Caller::Anonymous),
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, key) = authorization.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| key.trim_start())
}
