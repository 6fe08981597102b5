//! What comes in by the network and is refused: at the door, by the API, and as another protocol.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use crate::support::{API_KEY, Answer, Node, PATIENCE, SECRET, raw, request};

/// How one comes by a token.
const MINT: &str = "danmaku token --user me";
/// How one shows an API key.
const KEY_HOW: &str = "Authorization: Bearer KEY or X-Api-Key";

/// One request that is refused.
struct Ask<'a> {
    internal: bool,
    method: &'a str,
    path: String,
    headers: Vec<String>,
    body: &'a str,
    status: u16,
    code: &'a str,
    /// Reason and hint together must say all of this.
    says: &'a [&'a str],
}

/// What a client sends that wants a WebSocket.
fn upgrade(more: &[&str]) -> Vec<String> {
    let mut headers = vec![
        "Connection: Upgrade".to_string(),
        "Upgrade: websocket".into(),
        "Sec-WebSocket-Version: 13".into(),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".into(),
    ];
    headers.extend(more.iter().map(ToString::to_string));
    headers
}

fn ws<'a>(
    query: String,
    headers: &[&str],
    status: u16,
    code: &'a str,
    says: &'a [&'a str],
) -> Ask<'a> {
    Ask {
        internal: false,
        method: "GET",
        path: format!("/ws{query}"),
        headers: upgrade(headers),
        body: "",
        status,
        code,
        says,
    }
}

fn public<'a>(
    method: &'a str,
    path: &str,
    status: u16,
    code: &'a str,
    says: &'a [&'a str],
) -> Ask<'a> {
    Ask {
        internal: false,
        method,
        path: path.into(),
        headers: Vec::new(),
        body: "",
        status,
        code,
        says,
    }
}

fn internal<'a>(
    method: &'a str,
    path: &str,
    headers: &[&str],
    body: &'a str,
    (status, code): (u16, &'a str),
    says: &'a [&'a str],
) -> Ask<'a> {
    Ask {
        internal: true,
        method,
        path: path.into(),
        headers: headers.iter().map(ToString::to_string).collect(),
        body,
        status,
        code,
        says,
    }
}

impl Ask<'_> {
    fn check(&self, node: &Node) {
        let address = if self.internal {
            node.internal
        } else {
            node.public
        };
        let headers: Vec<&str> = self.headers.iter().map(String::as_str).collect();
        let answer = request(address, self.method, &self.path, &headers, self.body);
        says(&answer, self.status, self.code, self.says);
    }
}

fn says(answer: &Answer, status: u16, code: &str, says: &[&str]) {
    answer.refuses(status, code);
    let body = answer.json();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_string();
    let said = format!("{} | {}", text("reason"), text("hint"));
    for needle in says {
        assert!(said.contains(needle), "no {needle:?} in {said:?}");
    }
}

/// A node that lets nobody in without a token, with one private room.
fn strict() -> Node {
    Node::start(
        "[auth]\nanonymous = \"deny\"\n[[rooms.class]]\nmatch = \"vip-*\"\naccess = \"private\"\n",
    )
}

fn forged(kid: &str, secret: &str, exp: u64) -> String {
    let header = Header {
        kid: Some(kid.into()),
        ..Header::default()
    };
    let claims = json!({"sub": "u", "exp": exp});
    encode(
        &header,
        &claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
    .unwrap()
}

#[test]
fn viewers_at_the_door() {
    let node = strict();
    let good = node.token(&["--user", "u"]);
    let far = 4_000_000_000;
    let expired = forged("t", SECRET, 1_700_000_000);
    let foreign = forged("t", "another-secret-of-enough-bytes-0123456789", far);
    let unknown = forged("other", SECRET, far);
    let rows = [
        ws(
            "?room=1".into(),
            &[],
            401,
            "token_missing",
            &["?token=", "Authorization: Bearer", MINT],
        ),
        ws(
            format!("?token={expired}"),
            &[],
            401,
            "token_expired",
            &["expired", "s ago", MINT],
        ),
        ws(
            format!("?token={foreign}"),
            &[],
            401,
            "token_invalid",
            &["signature", "DANMAKU_AUTH__SECRET", MINT],
        ),
        ws(
            format!("?token={unknown}"),
            &[],
            401,
            "token_invalid",
            &["kid", "--config", MINT],
        ),
        ws(
            "?token=garbage".into(),
            &[],
            401,
            "token_invalid",
            &["three parts", MINT],
        ),
        ws(
            format!("?token={good}"),
            &["Origin: http://evil.example"],
            403,
            "origin_denied",
            &[
                "http://evil.example",
                "auth.origins",
                "DANMAKU_AUTH__ORIGINS",
            ],
        ),
        // A page opened from disk.
        ws(
            format!("?token={good}"),
            &["Origin: null"],
            403,
            "origin_denied",
            &["null", "auth.origins"],
        ),
        ws(
            format!("?token={good}&room=a%20b"),
            &[],
            400,
            "bad_room",
            &["\"a b\"", "[A-Za-z0-9_.:-]"],
        ),
        ws(
            format!("?token={good}&room=vip-1"),
            &[],
            403,
            "room_forbidden",
            &["vip-1", "rooms claim", "--room ROOM"],
        ),
        Ask {
            headers: Vec::new(),
            ..ws(
                String::new(),
                &[],
                426,
                "upgrade_required",
                &["plain HTTP request", "npx wscat"],
            )
        },
        Ask {
            path: "/socket".into(),
            ..ws(
                String::new(),
                &[],
                404,
                "not_found",
                &["/socket", "viewers connect to /ws"],
            )
        },
        Ask {
            path: "/".into(),
            ..ws(String::new(), &[], 404, "not_found", &["/ws"])
        },
    ];
    for row in &rows {
        row.check(&node);
    }
}

#[test]
fn requests_that_go_wrong() {
    let node = strict();
    let good = node.token(&["--user", "u"]);
    let key = format!("X-Api-Key: {API_KEY}");
    let bearer = format!("Authorization: Bearer {good}");
    let form = "Content-Type: application/x-www-form-urlencoded";
    let where_it_is = &["internal listener (listen.internal)"];
    let rows = [
        public(
            "GET",
            "/nope",
            404,
            "not_found",
            &["/nope", "/ws", "docs/PROTOCOL.md"],
        ),
        public(
            "POST",
            "/healthz",
            405,
            "method_not_allowed",
            &["only GET, HEAD"],
        ),
        public("BREW", "/", 501, "not_implemented", &["BREW"]),
        public(
            "GET",
            "/api/v1/rooms",
            401,
            "token_missing",
            &["?token=", "danmaku token"],
        ),
        public(
            "GET",
            &format!("/api/v1/rooms/nobody?token={good}"),
            404,
            "room_not_found",
            &[
                "nobody",
                "PUT /api/v1/rooms/{room} on the internal listener",
            ],
        ),
        public(
            "GET",
            &format!("/api/v1/rooms/a%20b?token={good}"),
            400,
            "bad_room",
            &["\"a b\"", "1..128 bytes"],
        ),
        // The server API and the metrics are not here; the hint is that of every 404, so that nothing shows.
        public("POST", "/api/v1/broadcast", 404, "not_found", where_it_is),
        public("DELETE", "/api/v1/rooms/1", 404, "not_found", where_it_is),
        public("GET", "/metrics", 404, "not_found", where_it_is),
        internal(
            "GET",
            "/api/v1/info",
            &[],
            "",
            (401, "api_key_required"),
            &["no API key was sent", KEY_HOW],
        ),
        internal(
            "GET",
            "/api/v1/info",
            &["X-Api-Key: wrong"],
            "",
            (401, "api_key_required"),
            &["none of the api_keys", KEY_HOW],
        ),
        internal(
            "GET",
            "/api/v1/info",
            &[&bearer],
            "",
            (401, "api_key_required"),
            &["a viewer's token", KEY_HOW],
        ),
        internal(
            "GET",
            "/api/v1/info",
            &["Authorization: Basic dTpw"],
            "",
            (401, "api_key_required"),
            &["Bearer", KEY_HOW],
        ),
        internal(
            "POST",
            "/api/v1/danmaku/push",
            &[&key, form],
            "{\"room\":\"1\",\"text\":\"x\"}",
            (415, "unsupported_media_type"),
            &[
                "x-www-form-urlencoded",
                "curl: -H 'Content-Type: application/json'",
            ],
        ),
        internal(
            "POST",
            "/api/v1/danmaku/push",
            &[&key],
            "{\"room\":",
            (400, "bad_message"),
            &["not JSON", "line 1"],
        ),
        internal(
            "POST",
            "/api/v1/danmaku/push",
            &[&key],
            "{\"room\":\"1\"}",
            (400, "bad_message"),
            &["text is missing"],
        ),
    ];
    for row in &rows {
        row.check(&node);
    }
    let lengthless = format!("POST /api/v1/danmaku/push HTTP/1.1\r\nHost: x\r\n{key}\r\n\r\n");
    let answer = raw(node.internal, lengthless.as_bytes(), false);
    says(
        &answer,
        411,
        "length_required",
        &["how long its body is", "curl: -d ''"],
    );
}

#[test]
fn bytes_that_are_another_protocol() {
    let node = strict();
    let rows: [(&[u8], u16, &str, &[&str]); 4] = [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            400,
            "bad_request",
            &["TLS handshake", "ws:// or http://", "TLS proxy"],
        ),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            505,
            "version_not_supported",
            &["HTTP/2.0", "HTTP/1.1"],
        ),
        (b"hello\r\n\r\n", 400, "bad_request", &["METHOD SP TARGET"]),
        (
            b"GET / HTTP/1.1\nHost: x\n\n",
            400,
            "bad_request",
            &["CR LF"],
        ),
    ];
    for (bytes, status, code, needles) in rows {
        says(&raw(node.public, bytes, false), status, code, needles);
    }
    // The clients of these see no answer they understand: the operator reads it in the log.
    let log = logged(&node, "version_not_supported");
    assert!(log.contains("TLS handshake"), "{log}");
}

/// The log once it holds this.
fn logged(node: &Node, needle: &str) -> String {
    let begun = Instant::now();
    loop {
        let log = node.logged();
        if log.contains(needle) {
            return log;
        }
        assert!(begun.elapsed() < PATIENCE, "no {needle} in {log}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where `scripts/test.sh` puts clients from other hands.
fn clients() -> PathBuf {
    let folder = std::env::var_os("TEST_CLIENTS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/clients"),
        PathBuf::from,
    );
    let ready =
        folder.join("node_modules/wscat").exists() && folder.join("venv/bin/python").exists();
    assert!(
        ready,
        "wscat (npm) and websockets (pip) are not in {}: run scripts/test.sh",
        folder.display()
    );
    folder
}

#[test]
fn what_clients_hide_the_log_shows() {
    let node = strict();
    let expired = forged("t", SECRET, 1_700_000_000);
    // wscat shows the status alone.
    // Its standard input stays open: at the end of it wscat leaves before it has connected.
    let mut wscat = Command::new("node")
        .arg(clients().join("node_modules/wscat/bin/wscat"))
        .args(["-c", &format!("ws://{}/ws?token={expired}", node.public)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _stdin = wscat.stdin.take();
    let out = wscat.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("401"), "{said}");
    let log = logged(&node, "token_expired");
    for needle in [
        "peer=127.0.0.1",
        "reason=\"the token expired",
        "danmaku token",
    ] {
        assert!(
            log.contains(needle),
            "no {needle} in {log}\nwscat said: {said}"
        );
    }
    assert!(!log.contains(&expired), "the token is in the log: {log}");
    // Python's websockets keeps the body.
    let script = "import asyncio, sys, websockets
async def main():
    try:
        await websockets.connect(sys.argv[1])
    except websockets.exceptions.InvalidStatus as error:
        print(error.response.status_code, error.response.body.decode())
asyncio.run(main())";
    let out = Command::new(clients().join("venv/bin/python"))
        .args(["-c", script, &format!("ws://{}/ws", node.public)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        said.starts_with("401 {") && said.contains("danmaku token --user me"),
        "{said}"
    );
}

#[test]
fn a_storm_of_refusals_is_logged_by_a_few() {
    let node = Node::with(
        "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n[server]\nshards = 1\n[auth]\nanonymous = \"deny\"\n",
    );
    for _ in 0..200 {
        request(node.public, "GET", "/ws", &[], "").refuses(426, "upgrade_required");
    }
    let lines = logged(&node, "upgrade_required")
        .matches("upgrade_required")
        .count();
    // A burst of 10 and 2 a second; the 200 take far less than 20 s.
    assert!((10..60).contains(&lines), "{lines} lines");
}
