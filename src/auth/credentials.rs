//! Which token a request presents. Pure; runs on the shard that admits. It must never choose between two different tokens:
//! whoever sends two does not know who they are.

use crate::base::refusal::{Code, Refusal};

/// What a request says about its sender, not yet checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// Nothing: anonymous.
    None,
    /// A token, or an API key.
    Bearer(&'a str),
}

impl std::fmt::Debug for Presented<'_> {
    /// Without the token, so that no log can hold it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Presented::None => "None",
            Presented::Bearer(_) => "Bearer(..)",
        })
    }
}

/// Picks the one token of a request.
///
/// `authorization` is the header's value (`Bearer TOKEN`, RFC 6750 section 2.1, the scheme in any case), `query_token` the
/// decoded `?token=`, `subprotocol` the `TOKEN` of the subprotocol entry `bearer.TOKEN`. The same token twice is one
/// token. Errors: `token_invalid` for another scheme or an empty token, `bad_request` for two different tokens (RFC 6750
/// section 3.1).
pub fn presented<'a>(
    authorization: Option<&'a str>,
    query_token: Option<&'a str>,
    subprotocol: Option<&'a str>,
) -> Result<Presented<'a>, Refusal> {
    let header = authorization.map(bearer).transpose()?;
    let mut found: Option<&str> = None;
    for token in [header, query_token, subprotocol].into_iter().flatten() {
        if token.is_empty() {
            let reason = "the token is empty; leave it out to come without one";
            return Err(Refusal::new(Code::TokenInvalid, reason));
        }
        if found.is_some_and(|first| first != token) {
            let reason = "two different tokens: send one, as Authorization, ?token= or subprotocol";
            return Err(Refusal::new(Code::BadRequest, reason));
        }
        found = Some(token);
    }
    Ok(found.map_or(Presented::None, Presented::Bearer))
}

/// The token of an `Authorization` header. What stands there instead is not repeated: it may be a secret sent bare.
fn bearer(authorization: &str) -> Result<&str, Refusal> {
    let text = authorization.trim();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(token.trim());
    }
    let reason = "Authorization must be `Bearer TOKEN`; no other scheme is understood";
    Err(Refusal::new(Code::TokenInvalid, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_any_of_its_three_places() {
        assert_eq!(presented(None, None, None), Ok(Presented::None));
        for header in ["Bearer t", "bearer t", "BEARER   t ", " Bearer t"] {
            assert_eq!(
                presented(Some(header), None, None),
                Ok(Presented::Bearer("t"))
            );
        }
        assert_eq!(presented(None, Some("t"), None), Ok(Presented::Bearer("t")));
        assert_eq!(presented(None, None, Some("t")), Ok(Presented::Bearer("t")));
    }

    #[test]
    fn one_token_twice_is_fine_and_two_are_not() {
        let same = presented(Some("Bearer t"), Some("t"), Some("t"));
        assert_eq!(same, Ok(Presented::Bearer("t")));
        for two in [
            presented(Some("Bearer t"), Some("u"), None),
            presented(Some("Bearer t"), None, Some("u")),
            presented(None, Some("t"), Some("u")),
        ] {
            assert_eq!(two.unwrap_err().code, Code::BadRequest);
        }
    }

    #[test]
    fn other_schemes_and_empty_tokens_are_refused_without_repeating_them() {
        for header in [
            "Basic c2VjcmV0",
            "c2VjcmV0",
            "",
            "Bearerc2VjcmV0",
            "Bearer",
            "Bearer ",
        ] {
            let refusal = presented(Some(header), None, None).unwrap_err();
            assert_eq!(refusal.code, Code::TokenInvalid, "{header}");
            assert!(!refusal.reason.contains("c2Vj"));
        }
        for empty in [
            presented(None, Some(""), None),
            presented(None, None, Some("")),
        ] {
            assert_eq!(empty.unwrap_err().code, Code::TokenInvalid);
        }
        assert_eq!(format!("{:?}", Presented::Bearer("t")), "Bearer(..)");
    }
}
