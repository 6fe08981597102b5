//! Who makes a request, and whether that is enough for the route. Pure rules on headers, run on the shard that answers.
//! It must never take a bad credential for none: whoever shows one means to be somebody.

use std::borrow::Cow;
use std::fmt;

use super::{Ctx, Listener};
use crate::auth::credentials::{Presented, presented};
use crate::base::identity::Caller;
use crate::base::refusal::{Code, Refusal};
use crate::config::checked::Anonymous;
use crate::proto::http::{Method, Request, uri};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing; credentials are not even looked at.
    Open,
    /// Whoever may watch: a token, an API key, or nobody where `auth.anonymous` is not `deny`.
    Watch,
    /// Whoever may speak: a token, an API key, or nobody where `auth.anonymous` is `speak`.
    Speak,
    /// An API key.
    Key,
}

/// A caller's name for the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerName(pub(super) Caller);

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Caller::Anonymous => f.write_str("anonymous"),
            Caller::User(identity) => write!(f, "user:{}", identity.user.id.as_str()),
            Caller::Key(name) => write!(f, "key:{name}"),
        }
    }
}

/// The caller of a request, if it may use a route that needs this.
///
/// The internal listener wants an API key for everything that is not [`Needs::Open`]; a token does not count there.
///
/// # Errors
/// `api_key_required`, `token_missing`, `token_invalid`, `token_expired`, or `bad_request` for two different credentials.
pub(super) fn admit(needs: Needs, request: &Request, ctx: &Ctx) -> Result<Caller, Refusal> {
    if needs == Needs::Open {
        return Ok(Caller::Anonymous);
    }
    let shown = Shown::of(request)?;
    if ctx.listener == Listener::Internal || needs == Needs::Key {
        return shown.api_key(ctx);
    }
    let caller = shown.anyone(ctx)?;
    let anonymous = ctx.policy.config.auth.anonymous;
    let reason = match (&caller, needs, anonymous) {
        (Caller::Anonymous, _, Anonymous::Deny) => "this node takes nobody without a token",
        (Caller::Anonymous, Needs::Speak, Anonymous::Watch) => {
            "without a token one may only watch here"
        }
        _ => return Ok(caller),
    };
    Err(Refusal::new(Code::TokenMissing, reason))
}

/// The credentials of a request, not yet checked. At most one of each kind.
struct Shown<'a> {
    api_key: Option<&'a str>,
    authorization: Option<&'a str>,
    /// For reading only: an address that acts must not work as a link.
    query_token: Option<Cow<'a, str>>,
}

impl<'a> Shown<'a> {
    fn of(request: &'a Request) -> Result<Shown<'a>, Refusal> {
        let reads = matches!(request.method, Method::Get | Method::Head);
        let query_token = match reads {
            true => uri::query_first(&request.query, "token")?,
            false => None,
        };
        Ok(Shown {
            api_key: single(request, "X-Api-Key")?,
            authorization: single(request, "Authorization")?,
            query_token,
        })
    }

    /// An API key, wherever it stands.
    fn api_key(&self, ctx: &Ctx) -> Result<Caller, Refusal> {
        let required = |reason: Cow<'static, str>| Refusal::new(Code::ApiKeyRequired, reason);
        let bearer = match presented(self.authorization, None, None) {
            Ok(Presented::Bearer(bearer)) => Some(bearer),
            Ok(Presented::None) => None,
            Err(refusal) => return Err(required(refusal.reason)),
        };
        let key = match (self.api_key, bearer) {
            (Some(key), Some(bearer)) if key != bearer => return Err(two_credentials()),
            (key, bearer) => key.or(bearer),
        };
        let Some(key) = key else {
            return Err(required("no API key was sent".into()));
        };
        ctx.policy
            .api_keys
            .check(key)
            .map(Caller::Key)
            .ok_or_else(|| {
                let is_token = key.starts_with("eyJ") && key.matches('.').count() == 2;
                required(match is_token {
                    true => "what was sent is a viewer's token; this takes an API key".into(),
                    false => "what was sent is none of the api_keys".into(),
                })
            })
    }

    /// An API key, the bearer of a token, or nobody.
    fn anyone(&self, ctx: &Ctx) -> Result<Caller, Refusal> {
        if self.api_key.is_some() {
            return self.api_key(ctx);
        }
        let token = match presented(self.authorization, self.query_token.as_deref(), None)? {
            Presented::Bearer(token) => token,
            Presented::None => return Ok(Caller::Anonymous),
        };
        // Addresses end up in logs: only a header carries an API key.
        let key = self
            .authorization
            .and_then(|_| ctx.policy.api_keys.check(token));
        match key {
            Some(name) => Ok(Caller::Key(name)),
            None => ctx
                .policy
                .keys
                .verify(token, ctx.now.unix_s())
                .map(Caller::User),
        }
    }
}

/// The only field with that name.
fn single<'a>(request: &'a Request, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut fields = request.headers.all(name);
    match (fields.next(), fields.next()) {
        (field, None) => Ok(field),
        (_, Some(_)) => Err(Refusal::new(
            Code::BadRequest,
            format!("{name} stands there twice"),
        )),
    }
}

fn two_credentials() -> Refusal {
    let reason = "X-Api-Key and Authorization say different things: send one of them";
    Refusal::new(Code::BadRequest, reason)
}
