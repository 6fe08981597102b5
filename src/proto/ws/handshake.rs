//! The opening handshake, server side (RFC 6455 section 4.2), on a request that is already read.
//!
//! Pure: decides from the request alone whether it may become a WebSocket, and writes the answer. Who may enter is judged
//! elsewhere; here a bearer token is only picked out. Must never echo a token.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use tungstenite::handshake::derive_accept_key;

use super::extension::{self, Deflate};
use crate::base::refusal::{Code, Refusal};
use crate::proto::http::reply::Reply;
use crate::proto::http::{Method, Request, is_token_byte, shown};

/// The one version spoken (RFC 6455 section 4.1).
const VERSION: &str = "13";
/// Decoded length of `Sec-WebSocket-Key` (RFC 6455 section 4.1).
const NONCE_BYTES: usize = 16;
/// Bits past the last whole byte carry nothing, so they may be anything.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);
/// What a subprotocol entry that carries a token begins with.
const BEARER: &str = "bearer.";

/// A subprotocol spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One JSON object per text frame.
    DanmakuV1,
    /// One or more objects per text frame, newline-separated.
    DanmakuV1Batch,
}

impl Protocol {
    /// Every subprotocol.
    pub const ALL: [Protocol; 2] = [Protocol::DanmakuV1, Protocol::DanmakuV1Batch];

    /// The name in `Sec-WebSocket-Protocol`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::DanmakuV1 => "danmaku.v1",
            Protocol::DanmakuV1Batch => "danmaku.v1.batch",
        }
    }

    /// The subprotocol with that name; case matters.
    pub fn parse(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|p| p.as_str() == name)
    }
}

/// A handshake that may be accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept_key: String,
    /// The client's first subprotocol that is known here; what is echoed. With `None` nothing is, and `danmaku.v1` is spoken.
    pub protocol: Option<Protocol>,
    /// The token of the first `bearer.TOKEN` in the subprotocol list, unchecked.
    pub bearer: Option<String>,
    /// permessage-deflate, if the client offered it in a way that can be kept. Taking it away declines it.
    pub deflate: Option<Deflate>,
    /// Whether the list named anything. With `protocol` `None` a browser will then fail the connection by itself.
    pub offered_any_protocol: bool,
}

/// Without the token.
impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer")
            .field("protocol", &self.protocol)
            .field("deflate", &self.deflate)
            .field("bearer", &self.bearer.is_some())
            .field("offered_any_protocol", &self.offered_any_protocol)
            .finish_non_exhaustive()
    }
}

/// Whether the request asks to become a WebSocket, well or badly: a plain one to the same address may be for a person.
pub fn is_upgrade(request: &Request) -> bool {
    request.headers.has_token("upgrade", "websocket")
}

/// Checks the handshake to the letter of RFC 6455 section 4.2.1. That there is one valid `Host` the HTTP reader has seen to.
///
/// # Errors
/// [`Code::UpgradeRequired`] where no WebSocket of version 13 is asked for, [`Code::BadHandshake`] for everything else that is
/// missing or wrong. [`refusal`] makes the answer.
pub fn check(request: &Request) -> Result<Offer, Refusal> {
    let headers = &request.headers;
    if !is_upgrade(request) {
        return Err(not_an_upgrade(request));
    }
    if request.method != Method::Get {
        return bad(format!(
            "a WebSocket handshake is a GET, not a {}",
            request.method
        ));
    }
    if request.version_minor < 1 {
        return bad("a WebSocket handshake needs HTTP/1.1, this was HTTP/1.0");
    }
    if !headers.has_token("connection", "upgrade") {
        return bad(
            "the Connection header must name upgrade; a proxy in between must forward Connection and Upgrade",
        );
    }
    check_version(request)?;
    let key = check_key(request)?;
    let (protocol, bearer, offered_any_protocol) = read_protocols(request)?;
    let deflate = read_extensions(request)?;
    Ok(Offer {
        accept_key: derive_accept_key(key.as_bytes()),
        protocol,
        bearer,
        deflate,
        offered_any_protocol,
    })
}

/// Appends the 101 (RFC 6455 section 4.2.2).
pub fn write_response(offer: &Offer, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(offer.accept_key.as_bytes());
    if let Some(protocol) = offer.protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_str().as_bytes());
    }
    if let Some(deflate) = offer.deflate {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        deflate.write(out);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// The answer to a handshake that is refused, for whatever reason: a 426 also says what to upgrade to (RFC 9110 section 15.5.22)
/// and which version is spoken (RFC 6455 section 4.4).
pub fn refusal(refusal: &Refusal) -> Reply {
    let reply = Reply::refusal(refusal);
    match refusal.code {
        Code::UpgradeRequired => reply
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Version", VERSION),
        _ => reply,
    }
}

/// No `Upgrade: websocket`: someone's browser or curl, or a proxy took it away.
fn not_an_upgrade(request: &Request) -> Refusal {
    match request.headers.first("sec-websocket-key") {
        Some(_) => Refusal::new(
            Code::BadHandshake,
            "there is a Sec-WebSocket-Key but no Upgrade: websocket; a proxy in between must forward Upgrade and Connection",
        ),
        None => Refusal::new(
            Code::UpgradeRequired,
            "this was a plain HTTP request, without Upgrade: websocket",
        ),
    }
}

fn check_version(request: &Request) -> Result<(), Refusal> {
    let mut versions = request.headers.all("sec-websocket-version");
    match (versions.next(), versions.next()) {
        (Some(VERSION), None) => Ok(()),
        (Some(other), None) => Err(Refusal::new(
            Code::UpgradeRequired,
            format!(
                "Sec-WebSocket-Version {} is not spoken here, {VERSION} is",
                shown(other)
            ),
        )),
        _ => bad("Sec-WebSocket-Version must be there exactly once"),
    }
}

/// The key as sent, which is what the accept key is made of.
fn check_key(request: &Request) -> Result<&str, Refusal> {
    let mut keys = request.headers.all("sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return bad("Sec-WebSocket-Key must be there exactly once");
    };
    match BASE64.decode(key) {
        Ok(nonce) if nonce.len() == NONCE_BYTES => Ok(key),
        _ => bad("Sec-WebSocket-Key must be 16 bytes in base64"),
    }
}

/// The first known subprotocol, the first token, and whether there was any entry (RFC 6455 section 4.2.1, item 8).
fn read_protocols(request: &Request) -> Result<(Option<Protocol>, Option<String>, bool), Refusal> {
    let (mut protocol, mut bearer, mut offered_any) = (None, None, false);
    for entry in request.headers.list("sec-websocket-protocol") {
        if !entry.bytes().all(is_token_byte) {
            return bad(
                "an entry of Sec-WebSocket-Protocol holds a character that may not stand there",
            );
        }
        offered_any = true;
        if let Some(token) = entry.strip_prefix(BEARER) {
            bearer.get_or_insert_with(|| token.to_owned());
        } else {
            protocol = protocol.or_else(|| Protocol::parse(entry));
        }
    }
    Ok((protocol, bearer, offered_any))
}

/// RFC 6455 section 4.2.1, item 9.
fn read_extensions(request: &Request) -> Result<Option<Deflate>, Refusal> {
    let values = request.headers.all("sec-websocket-extensions");
    extension::deflate_offered(values).or_else(|extension::Malformed| {
        bad("Sec-WebSocket-Extensions is no list of extensions as RFC 6455 section 9.1 writes it")
    })
}

fn bad<T>(reason: impl Into<std::borrow::Cow<'static, str>>) -> Result<T, Refusal> {
    Err(Refusal::new(Code::BadHandshake, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::proto::http::{HttpLimits, Reader, Step};

    const GOOD: [&str; 5] = [
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];

    fn request(first: &str, fields: &[&str]) -> Request {
        let head = format!("{first}\r\n{}\r\n\r\n", fields.join("\r\n"));
        let limits = HttpLimits {
            head_bytes_max: 8192,
            body_bytes_max: 1024,
        };
        match Reader::new(limits).feed(head.as_bytes()).unwrap().step {
            Step::Request(request) => *request,
            step => panic!("{head}: {step:?}"),
        }
    }

    /// The good handshake with the fields called as `change` left out and `change` put in.
    fn changed(change: &[&str]) -> Request {
        let name = |field: &str| field.split(':').next().unwrap().to_ascii_lowercase();
        let mut fields: Vec<&str> = GOOD.to_vec();
        fields.retain(|field| !change.iter().any(|c| name(c) == name(field)));
        fields.extend(change.iter().filter(|c| !c.ends_with("(none)")));
        request("GET /ws HTTP/1.1", &fields)
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let request = changed(&[]);
        assert!(is_upgrade(&request));
        let offer = check(&request).unwrap();
        assert_eq!(offer.accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!((offer.protocol, offer.offered_any_protocol), (None, false));
        let mut out = Vec::new();
        write_response(&offer, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn compression_is_answered_if_it_was_offered() {
        let offered = ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"];
        let offer = check(&changed(&offered)).unwrap();
        let mut out = Vec::new();
        write_response(&offer, &mut out);
        let answer = String::from_utf8(out).unwrap();
        let expected = "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n";
        assert!(answer.ends_with(expected), "{answer}");
        let unknown = ["Sec-WebSocket-Extensions: x-deflate"];
        assert_eq!(check(&changed(&unknown)).unwrap().deflate, None);
    }

    #[test]
    fn lists_and_case_do_not_matter() {
        for change in [
            ["Upgrade: h2c, WebSocket", "Connection: keep-alive, UPGRADE"],
            ["Upgrade: WEBSOCKET", "Connection: close ,upgrade"],
        ] {
            assert!(check(&changed(&change)).is_ok(), "{change:?}");
        }
        let bits_past_the_end = ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAB=="];
        assert!(check(&changed(&bits_past_the_end)).is_ok());
    }

    #[test]
    fn every_flaw_has_its_code() {
        use Code::{BadHandshake, UpgradeRequired};
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let cases: [(&[&str], Code); 18] = [
            (&["Upgrade: (none)"], BadHandshake),
            (
                &["Upgrade: (none)", "Sec-WebSocket-Key: (none)"],
                UpgradeRequired,
            ),
            (
                &["Upgrade: h2c", "Sec-WebSocket-Key: (none)"],
                UpgradeRequired,
            ),
            (
                &["Upgrade: websockets", "Sec-WebSocket-Key: (none)"],
                UpgradeRequired,
            ),
            (&["Connection: (none)"], BadHandshake),
            (&["Connection: keep-alive"], BadHandshake),
            (&["Sec-WebSocket-Key: (none)"], BadHandshake),
            (&[key, key], BadHandshake),
            (&["Sec-WebSocket-Key: "], BadHandshake),
            (&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"], BadHandshake),
            (&["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"], BadHandshake),
            (
                &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!=="],
                BadHandshake,
            ),
            (&["Sec-WebSocket-Version: (none)"], BadHandshake),
            (
                &["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"],
                BadHandshake,
            ),
            (&["Sec-WebSocket-Version: 8"], UpgradeRequired),
            (&["Sec-WebSocket-Version: 013"], UpgradeRequired),
            (&["Sec-WebSocket-Protocol: danmaku.v1, a b"], BadHandshake),
            (
                &["Sec-WebSocket-Extensions: permessage-deflate;"],
                BadHandshake,
            ),
        ];
        for (change, code) in cases {
            assert_eq!(
                check(&changed(change)).unwrap_err().code,
                code,
                "{change:?}"
            );
        }
        for first in [
            "HEAD /ws HTTP/1.1",
            "DELETE /ws HTTP/1.1",
            "GET /ws HTTP/1.0",
        ] {
            let refusal = check(&request(first, &GOOD)).unwrap_err();
            assert_eq!(refusal.code, BadHandshake, "{first}");
        }
    }

    #[test]
    fn a_426_says_what_is_spoken() {
        let wrong = check(&changed(&["Sec-WebSocket-Version: 8"])).unwrap_err();
        let reply = refusal(&wrong);
        let value = |name: &str| {
            let found = reply.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(reply.status, 426);
        assert_eq!(value("Sec-WebSocket-Version"), Some("13"));
        assert_eq!(value("Upgrade"), Some("websocket"));
        assert_eq!(value("Connection"), Some("Upgrade"));
        let bad = check(&changed(&["Connection: close"])).unwrap_err();
        assert!(refusal(&bad).headers.is_empty());
    }

    #[test]
    fn the_first_known_subprotocol_is_echoed_and_a_token_never() {
        use Protocol::{DanmakuV1, DanmakuV1Batch};
        let cases: [(&[&str], Option<Protocol>, Option<&str>); 8] = [
            (&["danmaku.v1"], Some(DanmakuV1), None),
            (
                &["x, danmaku.v1.batch, danmaku.v1"],
                Some(DanmakuV1Batch),
                None,
            ),
            (&["danmaku.v1", "danmaku.v1.batch"], Some(DanmakuV1), None),
            (
                &["bearer.a.b-c_d, danmaku.v1"],
                Some(DanmakuV1),
                Some("a.b-c_d"),
            ),
            (&["bearer.one", "bearer.two"], None, Some("one")),
            (&["bearer."], None, Some("")),
            (&["bearer.danmaku.v1"], None, Some("danmaku.v1")),
            (&["DANMAKU.V1, chat"], None, None),
        ];
        for (lists, protocol, bearer) in cases {
            let fields: Vec<String> = lists
                .iter()
                .map(|list| format!("Sec-WebSocket-Protocol: {list}"))
                .collect();
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let offer = check(&changed(&fields)).unwrap();
            assert_eq!(offer.protocol, protocol, "{lists:?}");
            assert_eq!(offer.bearer.as_deref(), bearer, "{lists:?}");
            assert!(offer.offered_any_protocol);
            let mut out = Vec::new();
            write_response(&offer, &mut out);
            let answer = String::from_utf8(out).unwrap();
            let echoed = answer
                .lines()
                .find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
            assert_eq!(echoed, protocol.map(Protocol::as_str));
            assert!(!answer.contains("bearer"));
            assert!(!format!("{offer:?}").contains("a.b-c_d"));
        }
    }
}
