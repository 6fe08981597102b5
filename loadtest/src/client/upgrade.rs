//! The upgrade as a client sees it: the request, and the answer or the refusal. On client threads; it never touches a
//! socket.

use std::fmt::Write as _;

use serde::Deserialize;
use tungstenite::handshake::derive_accept_key;

use super::http::{self, Answer};

/// The key every client sends. It guards against caches (RFC 6455 section 1.3), not against attackers, so one will do.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The longest answer to an upgrade, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What an upgrade is made with; one for all clients of a run.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// `Host`.
    pub host: String,
    /// Path and query, without room and token.
    pub path: String,
    /// Subprotocol asked for, if any.
    pub subprotocol: Option<String>,
    /// `Origin`, if any.
    pub origin: Option<String>,
}

impl Upgrade {
    /// The request's bytes, with a room and a token in the query where they are given.
    pub fn request(&self, room: Option<&str>, token: Option<&str>) -> Vec<u8> {
        let mut path = self.path.clone();
        for (name, value) in [("room", room), ("token", token)] {
            if let Some(value) = value {
                let mark = if path.contains('?') { '&' } else { '?' };
                let _ = write!(path, "{mark}{name}={value}");
            }
        }
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n",
            self.host
        );
        for (name, value) in [
            ("Sec-WebSocket-Protocol", &self.subprotocol),
            ("Origin", &self.origin),
        ] {
            if let Some(value) = value {
                let _ = write!(request, "{name}: {value}\r\n");
            }
        }
        request.push_str("\r\n");
        request.into_bytes()
    }
}

/// What the server made of an upgrade.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// More bytes are needed.
    Wait,
    /// 101; the WebSocket's first bytes begin here.
    Open {
        /// Length of the answer.
        head_bytes: usize,
    },
    /// Refused.
    Refused(Refusal),
    /// Not an answer to an upgrade.
    Fault(String),
}

/// Why, and when to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The server's code, or `status_NNN`.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// When the server wants to see the client again; `None` where it did not say.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// Whether coming back can help: the server asked for it, or it was too busy.
    pub fn comes_back(&self) -> bool {
        self.retry_after_ms.is_some() || matches!(self.status, 408 | 429 | 502 | 503 | 504)
    }
}

#[derive(Deserialize)]
struct Body {
    code: String,
    retry_after_ms: Option<u64>,
}

/// Reads what has come of the answer so far.
pub fn outcome(bytes: &[u8]) -> Outcome {
    let answer = match http::answer(bytes) {
        Ok(Some(answer)) => answer,
        Ok(None) if bytes.len() > ANSWER_BYTES_MAX => {
            return Outcome::Fault("no end of the head".into());
        }
        Ok(None) => return Outcome::Wait,
        Err(fault) => return Outcome::Fault(fault),
    };
    if answer.status == 101 {
        let expected = derive_accept_key(KEY.as_bytes());
        return match &answer.accept_key {
            Some(key) if *key == expected => Outcome::Open {
                head_bytes: answer.head_bytes,
            },
            _ => Outcome::Fault("a wrong Sec-WebSocket-Accept".into()),
        };
    }
    if bytes.len() < answer.length() && answer.length() <= ANSWER_BYTES_MAX {
        return Outcome::Wait;
    }
    Outcome::Refused(refusal(&answer, bytes))
}

fn refusal(answer: &Answer, bytes: &[u8]) -> Refusal {
    let body = bytes.get(answer.head_bytes..answer.length());
    let body: Option<Body> = body.and_then(|body| serde_json::from_slice(body).ok());
    let seconds = answer.retry_after_s.map(|seconds| seconds * 1000);
    Refusal {
        status: answer.status,
        retry_after_ms: body
            .as_ref()
            .and_then(|body| body.retry_after_ms)
            .or(seconds),
        code: body.map_or_else(|| format!("status_{}", answer.status), |body| body.code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn a_request_carries_room_and_token() {
        let upgrade = Upgrade {
            host: "h:1".into(),
            path: "/ws?x=1".into(),
            subprotocol: Some("danmaku.v1.batch".into()),
            origin: None,
        };
        let request = String::from_utf8(upgrade.request(Some("r"), Some("t"))).unwrap();
        assert!(request.starts_with("GET /ws?x=1&room=r&token=t HTTP/1.1\r\nHost: h:1\r\n"));
        assert!(request.contains("Sec-WebSocket-Protocol: danmaku.v1.batch\r\n"));
        assert!(request.ends_with("\r\n\r\n") && !request.contains("Origin"));
    }

    #[test]
    fn the_answer_may_come_in_any_pieces() {
        for cut in 0..OPEN.len() {
            assert_eq!(outcome(&OPEN.as_bytes()[..cut]), Outcome::Wait, "{cut}");
        }
        let with_frame = format!("{OPEN}\u{1}rest");
        assert_eq!(
            outcome(with_frame.as_bytes()),
            Outcome::Open {
                head_bytes: OPEN.len()
            }
        );
    }

    #[test]
    fn a_refusal_says_its_code_and_when_to_come_back() {
        let body = r#"{"code":"accept_rate","reason":"..","hint":"..","retry_after_ms":1234}"#;
        let refused = format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let expected = Refusal {
            code: "accept_rate".into(),
            status: 429,
            retry_after_ms: Some(1234),
        };
        assert!(expected.comes_back());
        assert_eq!(outcome(refused.as_bytes()), Outcome::Refused(expected));
        assert_eq!(
            outcome(&refused.as_bytes()[..refused.len() - 1]),
            Outcome::Wait
        );
    }

    #[test]
    fn a_stranger_is_understood_too() {
        let plain =
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy";
        let expected = Refusal {
            code: "status_503".into(),
            status: 503,
            retry_after_ms: Some(3000),
        };
        assert_eq!(outcome(plain), Outcome::Refused(expected));
        let wrong_key = OPEN.replace("s3p", "xxx");
        assert!(matches!(outcome(wrong_key.as_bytes()), Outcome::Fault(_)));
        assert!(matches!(
            outcome(b"SSH-2.0-OpenSSH\r\n\r\n"),
            Outcome::Fault(_)
        ));
        let gone = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        assert!(matches!(outcome(gone), Outcome::Refused(refusal) if !refusal.comes_back()));
    }
}
