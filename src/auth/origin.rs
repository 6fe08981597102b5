//! Which pages may connect: the `Origin` header (RFC 6454) against `auth.origins`. Pure; runs on the shard that admits.
//! A browser sends an Origin it cannot be talked out of, so this guards viewers' sessions, not the gateway: it must never
//! be taken for authentication.

use crate::base::refusal::{Code, Refusal};
use crate::config::checked::Origins;

/// Longest part of a foreign origin repeated in a reason, in characters.
const SHOWN_CHARS_MAX: usize = 128;

/// An origin's three parts. Scheme and host compare ASCII-case-insensitively; the port is filled in where the scheme has a default.
#[derive(Clone, Copy, Debug)]
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

/// Whether a request with these headers may go on. `origin` is the only `Origin` header, `host` the only `Host`; refusing
/// several is the caller's part.
///
/// No Origin is not a browser and is let in. The same origin is `http` or `https` with the host and port of `Host`; a
/// `Host` without port means the default of the origin's scheme, as it does behind a proxy that ends TLS. Error:
/// `origin_denied`, with the origin found and what to add.
pub fn origin_allowed(
    origins: &Origins,
    origin: Option<&str>,
    host: Option<&str>,
) -> Result<(), Refusal> {
    let Some(origin) = origin else {
        return Ok(());
    };
    let listed: &[String] = match origins {
        Origins::Any => return Ok(()),
        Origins::Same => &[],
        Origins::Listed(listed) => listed,
    };
    let Some(found) = parse(origin) else {
        let shown = shown(origin);
        let reason = format!(
            "the origin {shown} is not scheme://host[:port]; only auth.origins = [\"*\"] lets such pages in"
        );
        return Err(Refusal::new(Code::OriginDenied, reason));
    };
    let allowed = is_same(found, host)
        || listed
            .iter()
            .filter_map(|entry| parse(entry))
            .any(|entry| entry.equals(found));
    if allowed {
        return Ok(());
    }
    let shown = shown(origin);
    let reason = format!(
        "the origin {shown} is neither this host nor in auth.origins; to let it in, add {shown} there"
    );
    Err(Refusal::new(Code::OriginDenied, reason))
}

/// Whether a page of this origin was served by the host it now talks to.
fn is_same(origin: Parts<'_>, host: Option<&str>) -> bool {
    let is_web = ["http", "https"]
        .iter()
        .any(|web| origin.scheme.eq_ignore_ascii_case(web));
    let Some(own) = host.and_then(|host| authority(origin.scheme, host)) else {
        return false;
    };
    is_web && own.equals(origin)
}

impl Parts<'_> {
    fn equals(self, other: Parts<'_>) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port == other.port
    }
}

/// Splits `scheme://host[:port]`; `None` for anything else, `null` too.
fn parse(origin: &str) -> Option<Parts<'_>> {
    let (scheme, rest) = origin.split_once("://")?;
    let mut letters = scheme.bytes();
    // RFC 3986 section 3.1.
    let spelt = letters.next()?.is_ascii_alphabetic()
        && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    spelt.then(|| authority(scheme, rest)).flatten()
}

/// Splits `host[:port]`, where the host may be a bracketed IPv6 address (RFC 3986 section 3.2.2). An empty port is none.
fn authority<'a>(scheme: &'a str, text: &'a str) -> Option<Parts<'a>> {
    let host_bytes = match text.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at_checked(host_bytes)?;
    let port = match rest.strip_prefix(':') {
        Some("") => default_port(scheme),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        None if rest.is_empty() => default_port(scheme),
        _ => return None,
    };
    let clean =
        |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'@' | b'?' | b'#' | b'\\' | b',');
    (!host.is_empty() && host.bytes().all(clean)).then_some(Parts { scheme, host, port })
}

fn default_port(scheme: &str) -> Option<u16> {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    if is("http") {
        Some(80)
    } else if is("https") {
        Some(443)
    } else {
        None
    }
}

/// A foreign header, quoted, escaped and cut, so that it cannot garble a log or a terminal.
fn shown(origin: &str) -> String {
    let short: String = origin.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn same(origin: &str, host: &str) -> bool {
        origin_allowed(&Origins::Same, Some(origin), Some(host)).is_ok()
    }

    fn listed(entry: &str, origin: &str) -> bool {
        let origins = Origins::Listed(vec![entry.to_owned()]);
        origin_allowed(&origins, Some(origin), Some("live.example")).is_ok()
    }

    #[test]
    fn no_origin_is_let_in_and_any_takes_all() {
        assert!(origin_allowed(&Origins::Same, None, Some("a")).is_ok());
        assert!(origin_allowed(&Origins::Same, None, None).is_ok());
        for origin in ["null", "https://evil.example", "", "junk"] {
            assert!(origin_allowed(&Origins::Any, Some(origin), None).is_ok());
        }
    }

    #[test]
    fn the_same_origin_is_host_and_port_with_defaults() {
        for (origin, host) in [
            ("http://a.example", "a.example"),
            ("http://a.example", "a.example:80"),
            ("http://a.example:80", "a.example"),
            ("https://a.example", "a.example"),
            ("https://a.example", "a.example:443"),
            ("https://A.example", "a.EXAMPLE:"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("HTTP://[::1]", "[::1]"),
        ] {
            assert!(same(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://a.example", "a.example:443"),
            ("http://a.example", "a.example:8080"),
            ("http://a.example:8080", "a.example"),
            ("http://b.a.example", "a.example"),
            ("http://a.example.evil.example", "a.example"),
            ("http://a.example@evil.example", "evil.example"),
            ("http://a.example/", "a.example"),
            ("chrome-extension://a.example", "a.example"),
            ("http://a.example http://b.example", "a.example"),
            ("http://", ""),
            ("null", "null"),
            ("a.example", "a.example"),
            ("http://[::1", "[::1"),
            ("http://a.example:x", "a.example:x"),
            ("http://a.example:+80", "a.example"),
            ("http://a.example:65616", "a.example"),
        ] {
            assert!(!same(origin, host), "{origin} {host}");
        }
        assert!(origin_allowed(&Origins::Same, Some("http://a"), None).is_err());
    }

    #[test]
    fn a_list_adds_to_the_same_origin() {
        assert!(listed("https://shop.example", "https://SHOP.example:443"));
        assert!(listed("https://shop.example:443", "https://shop.example"));
        assert!(listed("HTTPS://Shop.example", "https://shop.example"));
        assert!(listed("capacitor://localhost", "capacitor://localhost"));
        assert!(listed("https://shop.example", "https://live.example"));
        assert!(!listed("https://shop.example", "http://shop.example"));
        assert!(!listed("https://shop.example", "https://shop.example:8443"));
        assert!(!listed("https://shop.example", "https://www.shop.example"));
        assert!(!listed("null", "null"));
        assert!(!listed("", ""));
    }

    #[test]
    fn a_refusal_names_the_origin_and_the_remedy() {
        let refuse = |origin: &str| {
            origin_allowed(&Origins::Same, Some(origin), Some("a.example")).unwrap_err()
        };
        let refusal = refuse("https://evil.example");
        assert_eq!(refusal.code, Code::OriginDenied);
        assert!(
            refusal
                .reason
                .contains(r#"add "https://evil.example" there"#)
        );
        assert!(
            refuse("null")
                .reason
                .contains(r#"the origin "null" is not"#)
        );
        let long = refuse(&format!("http://{}\u{1b}[0m", "é".repeat(5000)));
        assert!(long.reason.len() < 500 && !long.reason.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn nothing_panics(origin in "\\PC{0,40}", host in "[\\[\\]:a-z0-9é]{0,20}") {
            let origins = Origins::Listed(vec![host.clone()]);
            let _ = origin_allowed(&origins, Some(&origin), Some(&host));
            let _ = origin_allowed(&origins, Some(&format!("http://{host}")), Some(&host));
        }
    }
}
