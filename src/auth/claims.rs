//! The claims of a token whose signature has been checked: what each may look like, and the identity they make.
//!
//! Runs on the shard that admits the bearer. It judges time by the second it is given and must never trust a claim's type:
//! a date that is a string is refused, not skipped (CVE-2026-25537).

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::base::identity::{Identity, Role, RoomScope, User};
use crate::base::ids::{RoomId, USER_NAME_BYTES_MAX, UserId};
use crate::base::refusal::{Code, Refusal};

/// Most entries of the `rooms` claim.
pub(super) const ROOMS_MAX: usize = 256;
/// Latest date taken, the end of the year 9999. A larger `exp` is nearly always milliseconds, which would never expire.
pub(super) const DATE_MAX_S: u64 = 253_402_300_799;

/// What is asked of the claims besides their own shape.
pub(super) struct Expected<'a> {
    /// Required `iss`.
    pub issuer: Option<&'a str>,
    /// Required member of `aud`.
    pub audience: Option<&'a str>,
    /// Clock difference forgiven on `exp` and `nbf`, in seconds.
    pub leeway_s: u64,
    /// Seconds since 1970.
    pub now_s: u64,
}

/// The claims we read, as they came; JSON `null` counts as absent, a claim given twice is refused (RFC 7519 section 4).
#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
    #[serde(borrow)]
    nbf: Option<&'a RawValue>,
    #[serde(borrow)]
    iss: Option<&'a RawValue>,
    #[serde(borrow)]
    aud: Option<&'a RawValue>,
    #[serde(borrow)]
    sub: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    role: Option<&'a RawValue>,
    #[serde(borrow)]
    rooms: Option<&'a RawValue>,
}

/// One audience or several (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Who the claims speak of. Errors: `token_expired` for the two dates, `token_invalid` for the rest, each naming the claim.
pub(super) fn identity(payload: &[u8], expected: &Expected<'_>) -> Result<Identity, Refusal> {
    let claims: Claims<'_> = serde_json::from_slice(payload)
        .map_err(|_| invalid("the token's payload is not a JSON object with each claim once"))?;
    let exp_s = check_dates(&claims, expected)?;
    check_issuer(&claims, expected)?;
    check_audience(&claims, expected)?;
    let id = user_id(&claims)?;
    Ok(Identity {
        user: User {
            name: display_name(&claims, &id)?,
            id,
        },
        role: role(&claims)?,
        rooms: rooms(&claims)?,
        exp_s,
    })
}

/// Whether `text` may stand in a `rooms` claim: a room id, or the beginning of one followed by `*`.
pub(super) fn is_room_pattern(text: &str) -> bool {
    match text.strip_suffix('*') {
        Some(prefix) => prefix.is_empty() || RoomId::is_valid(prefix),
        None => RoomId::is_valid(text),
    }
}

/// Checks `exp` and `nbf` (RFC 7519 sections 4.1.4 and 4.1.5) and answers `exp` in whole seconds. A fraction is rounded
/// against the bearer: the token never lives longer than its issuer wrote.
fn check_dates(claims: &Claims<'_>, expected: &Expected<'_>) -> Result<u64, Refusal> {
    let (now_s, leeway_s) = (expected.now_s, expected.leeway_s);
    let exp = claims
        .exp
        .ok_or_else(|| invalid("the token has no exp claim"))?;
    let exp_s = date("exp", exp)?.floor() as u64;
    if now_s >= exp_s.saturating_add(leeway_s) {
        let ago_s = now_s.saturating_sub(exp_s);
        let reason = format!("the token expired {ago_s} s ago (exp; the leeway is {leeway_s} s)");
        return Err(Refusal::new(Code::TokenExpired, reason));
    }
    if let Some(nbf) = claims.nbf {
        let nbf_s = date("nbf", nbf)?.ceil() as u64;
        if nbf_s > now_s.saturating_add(leeway_s) {
            let early_s = nbf_s - now_s;
            let reason =
                format!("the token is valid in {early_s} s only (nbf; the leeway is {leeway_s} s)");
            return Err(Refusal::new(Code::TokenExpired, reason));
        }
    }
    Ok(exp_s)
}

/// A NumericDate: a JSON number of seconds, 0..=[`DATE_MAX_S`], which an f64 holds exactly.
fn date(claim: &'static str, raw: &RawValue) -> Result<f64, Refusal> {
    let seconds: f64 = value(claim, raw, "a number of seconds")?;
    if (0.0..=DATE_MAX_S as f64).contains(&seconds) {
        return Ok(seconds);
    }
    Err(invalid(format!(
        "the token's {claim} must be seconds (not milliseconds) since 1970, 0..={DATE_MAX_S}"
    )))
}

fn check_issuer(claims: &Claims<'_>, expected: &Expected<'_>) -> Result<(), Refusal> {
    let Some(issuer) = expected.issuer else {
        return Ok(());
    };
    let raw = claims
        .iss
        .ok_or_else(|| invalid("the token has no iss claim; auth.issuer asks for one"))?;
    let found: String = value("iss", raw, "a string")?;
    if found == issuer {
        return Ok(());
    }
    Err(invalid("the token's iss is not auth.issuer"))
}

fn check_audience(claims: &Claims<'_>, expected: &Expected<'_>) -> Result<(), Refusal> {
    let Some(audience) = expected.audience else {
        return Ok(());
    };
    let raw = claims
        .aud
        .ok_or_else(|| invalid("the token has no aud claim; auth.audience asks for one"))?;
    let named = match value("aud", raw, "a string or a list of strings")? {
        Audience::One(found) => found == audience,
        Audience::Several(found) => found.iter().any(|one| one == audience),
    };
    if named {
        return Ok(());
    }
    Err(invalid("the token's aud does not name auth.audience"))
}

fn user_id(claims: &Claims<'_>) -> Result<UserId, Refusal> {
    let raw = claims
        .sub
        .ok_or_else(|| invalid("the token has no sub claim (the user's id)"))?;
    let text: String = value("sub", raw, "a string")?;
    UserId::parse(&text)
        .ok_or_else(|| invalid("the token's sub must be 1..128 bytes without control characters"))
}

/// The `name` claim without control characters; the id where nothing is left of it.
fn display_name(claims: &Claims<'_>, id: &UserId) -> Result<Arc<str>, Refusal> {
    let Some(raw) = claims.name else {
        return Ok(id.as_str().into());
    };
    let text: String = value("name", raw, "a string")?;
    if text.len() > USER_NAME_BYTES_MAX {
        return Err(invalid(format!(
            "the token's name has {} bytes; {USER_NAME_BYTES_MAX} are allowed",
            text.len()
        )));
    }
    let visible: String = text.chars().filter(|c| !c.is_control()).collect();
    match visible.trim() {
        "" => Ok(id.as_str().into()),
        name => Ok(name.into()),
    }
}

fn role(claims: &Claims<'_>) -> Result<Role, Refusal> {
    let Some(raw) = claims.role else {
        return Ok(Role::default());
    };
    let word: String = value("role", raw, "a string")?;
    Role::parse(&word).ok_or_else(|| {
        let words = Role::ALL.map(Role::as_str).join(", ");
        invalid(format!("the token's role must be one of {words}"))
    })
}

fn rooms(claims: &Claims<'_>) -> Result<RoomScope, Refusal> {
    let Some(raw) = claims.rooms else {
        return Ok(RoomScope::EveryOpen);
    };
    let patterns: Box<[Box<str>]> = value("rooms", raw, "a list of strings")?;
    if patterns.len() > ROOMS_MAX {
        return Err(invalid(format!(
            "the token's rooms has {} entries; {ROOMS_MAX} are allowed",
            patterns.len()
        )));
    }
    match patterns.iter().position(|text| !is_room_pattern(text)) {
        None => Ok(RoomScope::Listed(patterns)),
        Some(index) => Err(invalid(format!(
            "entry {index} of the token's rooms is neither a room id (1..128 bytes of [A-Za-z0-9_.:-]) nor the beginning of one with *"
        ))),
    }
}

/// The claim as a `T`, or a sentence about what it must be.
fn value<T: DeserializeOwned>(
    claim: &'static str,
    raw: &RawValue,
    shape: &'static str,
) -> Result<T, Refusal> {
    serde_json::from_str(raw.get())
        .map_err(|_| invalid(format!("the token's {claim} must be {shape}")))
}

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::TokenInvalid, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    const NOW_S: u64 = 1_000_000;

    fn read(payload: &str) -> Result<Identity, Refusal> {
        let expected = Expected {
            issuer: None,
            audience: None,
            leeway_s: 5,
            now_s: NOW_S,
        };
        identity(payload.as_bytes(), &expected)
    }

    /// A good payload with one claim set to this JSON.
    fn with(claim: &str, json: &str) -> Result<Identity, Refusal> {
        let mut claims = vec![("sub", r#""u1""#), ("exp", "1000060")];
        claims.retain(|(name, _)| *name != claim);
        claims.push((claim, json));
        let body: Vec<String> = claims.iter().map(|(k, v)| format!("{k:?}:{v}")).collect();
        read(&format!("{{{}}}", body.join(",")))
    }

    #[track_caller]
    fn refused(result: Result<Identity, Refusal>, code: Code, word: &str) {
        let refusal = result.unwrap_err();
        assert_eq!(refusal.code, code, "{refusal:?}");
        assert!(refusal.reason.contains(word), "{refusal:?}");
    }

    #[test]
    fn exp_is_good_until_exactly_the_leeway_is_used_up() {
        assert!(with("exp", "999996").is_ok());
        refused(with("exp", "999995"), Code::TokenExpired, "expired 5 s ago");
        refused(with("exp", "0"), Code::TokenExpired, "expired 1000000 s");
        assert_eq!(with("exp", "1000060").unwrap().exp_s, 1_000_060);
    }

    #[test]
    fn nbf_is_good_from_exactly_the_leeway_before_it() {
        assert!(with("nbf", "1000005").is_ok());
        refused(with("nbf", "1000006"), Code::TokenExpired, "in 6 s only");
        assert!(with("nbf", "0").is_ok());
    }

    #[test]
    fn fractions_are_rounded_against_the_bearer() {
        assert!(with("exp", "999996.0").is_ok());
        refused(with("exp", "999995.9"), Code::TokenExpired, "exp");
        assert_eq!(with("exp", "1000060.75").unwrap().exp_s, 1_000_060);
        assert_eq!(with("exp", "1.00006e6").unwrap().exp_s, 1_000_060);
        refused(with("nbf", "1000005.1"), Code::TokenExpired, "nbf");
    }

    #[test]
    fn dates_that_are_no_seconds_are_refused_never_skipped() {
        for claim in ["exp", "nbf"] {
            for bad in [
                r#""1000060""#,
                r#""x""#,
                "true",
                "[]",
                "{}",
                "-1",
                "-0.5",
                "1e300",
                "1e400",
                "18446744073709551615",
                "18446744073709551616",
                "1700000000000",
            ] {
                refused(with(claim, bad), Code::TokenInvalid, claim);
            }
        }
        refused(with("exp", "null"), Code::TokenInvalid, "no exp");
        refused(read(r#"{"sub":"u"}"#), Code::TokenInvalid, "no exp");
        assert_eq!(with("exp", "253402300799").unwrap().exp_s, DATE_MAX_S);
    }

    #[test]
    fn sums_of_dates_and_leeway_do_not_overflow() {
        let expected = |now_s| Expected {
            issuer: None,
            audience: None,
            leeway_s: u64::MAX,
            now_s,
        };
        let payload = br#"{"sub":"u","exp":253402300799,"nbf":253402300799}"#;
        assert!(identity(payload, &expected(0)).is_ok());
        let late = identity(payload, &expected(u64::MAX)).unwrap_err();
        assert_eq!(late.code, Code::TokenExpired);
    }

    #[test]
    fn a_subject_is_required_and_checked() {
        refused(read(r#"{"exp":1000060}"#), Code::TokenInvalid, "no sub");
        for bad in ["7", r#""""#, r#""a\u0000b""#, r#""\ud800""#, "[\"u\"]"] {
            refused(with("sub", bad), Code::TokenInvalid, "sub");
        }
        let long = format!("{:?}", "x".repeat(129));
        refused(with("sub", &long), Code::TokenInvalid, "sub");
        assert_eq!(with("sub", r#""弹幕""#).unwrap().user.id.as_str(), "弹幕");
    }

    #[test]
    fn a_name_is_cleaned_and_falls_back_to_the_id() {
        let name = |json: &str| with("name", json).unwrap().user.name;
        assert_eq!(&*name(r#""A\u0007da\n""#), "Ada");
        assert_eq!(&*name(r#"" \n ""#), "u1");
        assert_eq!(&*name("null"), "u1");
        assert_eq!(name(&json!("x".repeat(256)).to_string()).len(), 256);
        let long = json!("x".repeat(257)).to_string();
        refused(with("name", &long), Code::TokenInvalid, "257 bytes");
        refused(with("name", "1"), Code::TokenInvalid, "name");
    }

    #[test]
    fn roles_and_rooms_are_words_we_know() {
        assert_eq!(with("role", r#""admin""#).unwrap().role, Role::Admin);
        assert_eq!(with("x", "1").unwrap().role, Role::Viewer);
        refused(with("role", r#""root""#), Code::TokenInvalid, "moderator");
        refused(with("role", "1"), Code::TokenInvalid, "role");

        assert_eq!(with("x", "1").unwrap().rooms, RoomScope::EveryOpen);
        let listed = with("rooms", r#"["1001","vip-*","*"]"#).unwrap().rooms;
        assert_eq!(
            listed,
            RoomScope::Listed(["1001".into(), "vip-*".into(), "*".into()].into())
        );
        assert_eq!(
            with("rooms", "[]").unwrap().rooms,
            RoomScope::Listed(Box::default())
        );
        for bad in [r#""1001""#, "[1]", "{}", "[null]"] {
            refused(with("rooms", bad), Code::TokenInvalid, "rooms");
        }
        for bad in [
            r#"["a",""]"#,
            r#"["a","b*c"]"#,
            r#"["a","**"]"#,
            r#"["a","b c"]"#,
        ] {
            refused(with("rooms", bad), Code::TokenInvalid, "entry 1");
        }
        let many = |n: usize| json!(vec!["r"; n]).to_string();
        assert!(with("rooms", &many(256)).is_ok());
        refused(with("rooms", &many(257)), Code::TokenInvalid, "257 entries");
    }

    #[test]
    fn issuer_and_audience_are_checked_where_configured() {
        let read = |payload: &str| {
            let expected = Expected {
                issuer: Some("me"),
                audience: Some("danmaku"),
                leeway_s: 0,
                now_s: 0,
            };
            identity(payload.as_bytes(), &expected)
        };
        let token = |iss: &str, aud: &str| {
            read(&format!(r#"{{"sub":"u","exp":9,"iss":{iss},"aud":{aud}}}"#))
        };
        assert!(token(r#""me""#, r#""danmaku""#).is_ok());
        assert!(token(r#""me""#, r#"["x","danmaku"]"#).is_ok());
        for bad in [r#""you""#, r#"["me"]"#, "null", "1", r#""ME""#] {
            refused(token(bad, r#""danmaku""#), Code::TokenInvalid, "iss");
        }
        for bad in [
            r#""x""#,
            "[]",
            "null",
            r#"[1,"danmaku"]"#,
            r#"{"danmaku":1}"#,
        ] {
            refused(token(r#""me""#, bad), Code::TokenInvalid, "aud");
        }
    }

    #[test]
    fn unknown_claims_are_ignored_and_known_ones_come_once() {
        assert!(with("scope", r#"{"deep":[[["x"]]]}"#).is_ok());
        assert!(with("iss", "1").is_ok() && with("aud", "1").is_ok());
        for bad in [
            r#"{"sub":"u","exp":1,"exp":1000060}"#,
            r#"{"sub":"u","exp":1000060,"\u0065xp":1000060}"#,
            "[]",
            "1",
            "",
            "{",
            r#"{"sub":"u","exp":1000060}x"#,
        ] {
            refused(read(bad), Code::TokenInvalid, "payload");
        }
    }
}
