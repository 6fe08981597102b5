//! Every refusal a newcomer meets, met with the real program: what is said names what was wrong, where, and what to do. Two
//! tables, one for the command and one for what comes in by the network; a new refusal is a new row.

mod support;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use support::{API_KEY, Answer, Node, PATIENCE, SECRET, binary, raw, request, scratch};

/// One way to start it wrongly.
#[derive(Default)]
struct Start<'a> {
    arguments: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
    /// Written to a file that `--config` names.
    toml: Option<&'a str>,
    /// Descriptors it may have.
    descriptors: Option<u32>,
    /// KiB of address space it may have.
    memory_kib: Option<u32>,
    exit: i32,
    /// What must be said, all of it.
    says: &'a [&'a str],
    /// What must not.
    never: &'a str,
}

impl Start<'_> {
    /// Runs it to its end; one that serves instead is ended and fails the test.
    fn run(&self) -> (Output, String) {
        let limit = |letter: char, to: u32| format!("ulimit -{letter} {to}; ");
        let descriptors = self.descriptors.map(|to| limit('n', to));
        let memory = self.memory_kib.map(|to| limit('v', to));
        let limits: String = descriptors.into_iter().chain(memory).collect();
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("{limits}exec \"$0\" \"$@\"")])
            .arg(binary());
        command.args(self.arguments);
        if let Some(toml) = self.toml {
            let file = scratch("start.toml");
            std::fs::write(&file, toml).unwrap();
            command.arg("--config").arg(file);
        }
        let mut child = command
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{:?} did not end", self.arguments);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        let said = said.into_owned();
        (out, said)
    }

    fn check(&self) {
        let (out, said) = self.run();
        let what = format!(
            "{:?} {:?} {:?}",
            self.arguments, self.environment, self.toml
        );
        assert_eq!(out.status.code(), Some(self.exit), "{what}\n{said}");
        for needle in self.says {
            assert!(said.contains(needle), "{what}: no {needle:?} in\n{said}");
        }
        let leaks = !self.never.is_empty() && said.contains(self.never);
        assert!(!leaks, "{what}: {:?} in\n{said}", self.never);
    }
}

/// Flags that keep a run away from fixed ports.
const FREE: [&str; 4] = [
    "--listen",
    "127.0.0.1:0",
    "--internal-listen",
    "127.0.0.1:0",
];

#[test]
fn words_and_values_that_are_wrong() {
    let rows = [
        Start {
            arguments: &["--nonsense"],
            exit: 2,
            says: &[
                "unexpected argument '--nonsense'",
                "danmaku [OPTIONS]",
                "--help",
            ],
            ..Start::default()
        },
        Start {
            arguments: &["servee"],
            exit: 2,
            says: &["unrecognized subcommand 'servee'", "'serve'"],
            ..Start::default()
        },
        Start {
            arguments: &["token"],
            exit: 2,
            says: &["--user <U>"],
            ..Start::default()
        },
        Start {
            arguments: &["token", "--user", "u"],
            exit: 2,
            says: &["DANMAKU_AUTH__SECRET", "[[auth.keys]]", "openssl rand"],
            ..Start::default()
        },
        Start {
            arguments: &["token", "--user", "u", "--role", "king"],
            exit: 2,
            says: &["'king'", "viewer, host, moderator, admin"],
            ..Start::default()
        },
        Start {
            arguments: &["token", "--user", "u", "--ttl", "5"],
            exit: 2,
            says: &["'5'", "30m or 24h"],
            ..Start::default()
        },
        Start {
            arguments: &["completions", "tcsh"],
            exit: 2,
            says: &["'tcsh'", "bash", "zsh", "fish", "elvish", "powershell"],
            ..Start::default()
        },
        Start {
            arguments: &["--shards", "-1"],
            exit: 2,
            says: &["--shards: server.shards", "\"-1\"", "from 0 to 256"],
            ..Start::default()
        },
        Start {
            arguments: &["--shards", "9999"],
            exit: 2,
            says: &["--shards: server.shards", "9999", "from 0 to 256"],
            never: "without quotes",
            ..Start::default()
        },
        Start {
            arguments: &["--redis", "redis://u:hunter2@h"],
            exit: 2,
            says: &["--redis: redis.url", "one node", "danmaku doctor --redis"],
            never: "hunter2",
            ..Start::default()
        },
    ];
    rows.iter().for_each(Start::check);
}

#[test]
fn addresses_that_are_none_or_that_open_too_much() {
    let address = |listen: &'static str, hint: &'static str| {
        let arguments: &'static [&'static str] = vec!["--listen", listen].leak();
        let says: &'static [&'static str] = vec!["--listen: listen.public", hint].leak();
        Start {
            arguments,
            exit: 2,
            says,
            ..Start::default()
        }
    };
    let rows = [
        address("8080", "\"127.0.0.1:8080\" for this machine alone"),
        address(":8080", "\"0.0.0.0:8080\" for all"),
        address(
            "localhost:8080",
            "\"127.0.0.1:8080\": names are not looked up",
        ),
        address("live.example:80", "give the address itself"),
        address("127.0.0.1", "give the port too"),
        address("0.0.0.0:0", "DANMAKU_AUTH__SECRET"),
        Start {
            arguments: &["--listen", "127.0.0.1:0", "--internal-listen", "0.0.0.0:0"],
            exit: 2,
            says: &["--internal-listen: listen.internal", "DANMAKU_API_KEY"],
            ..Start::default()
        },
        Start {
            arguments: &[
                "--listen",
                "127.0.0.1:9",
                "--internal-listen",
                "127.0.0.1:9",
            ],
            exit: 2,
            says: &["which is listen.public too", "another address"],
            ..Start::default()
        },
        // An address of the documentation's own range: no machine has it.
        Start {
            arguments: &[
                "--listen",
                "192.0.2.1:8080",
                "--internal-listen",
                "127.0.0.1:0",
            ],
            environment: &[("DANMAKU_AUTH__SECRET", SECRET)],
            exit: 1,
            says: &[
                "192.0.2.1:8080",
                "listen.public",
                "no such address",
                "--listen",
            ],
            never: SECRET,
            ..Start::default()
        },
    ];
    rows.iter().for_each(Start::check);
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (text, port) = (address.to_string(), address.port());
    let who = format!("ss -ltnp 'sport = :{port}'");
    for (flag, setting, other) in [
        ("--listen", "listen.public", "--internal-listen"),
        ("--internal-listen", "listen.internal", "--listen"),
    ] {
        Start {
            arguments: &[flag, &text, other, "127.0.0.1:0"],
            exit: 1,
            says: &[
                &text,
                setting,
                "already in use",
                &who,
                &format!("use {flag}"),
            ],
            ..Start::default()
        }
        .check();
    }
}

#[test]
fn config_files_that_cannot_be_used() {
    let folder = std::env::temp_dir();
    let folder = folder.to_str().unwrap();
    let binary_file = scratch("binary.toml");
    std::fs::write(&binary_file, [0xff, 0xfe, 0x00]).unwrap();
    let nothing = scratch("nothing.toml");
    let rows = [
        (
            nothing.to_str().unwrap(),
            "danmaku default-config > danmaku.toml",
        ),
        (folder, "name the file in it"),
        (binary_file.to_str().unwrap(), "UTF-8"),
    ];
    for (file, hint) in rows {
        Start {
            arguments: &["--config", file],
            exit: 2,
            says: &[file, "--config", hint],
            ..Start::default()
        }
        .check();
        Start {
            environment: &[("DANMAKU_CONFIG", file)],
            exit: 2,
            says: &[file, "DANMAKU_CONFIG", hint],
            ..Start::default()
        }
        .check();
    }
}

#[test]
fn settings_that_are_wrong() {
    let file = |toml: &'static str, says: &'static [&'static str]| Start {
        toml: Some(toml),
        exit: 2,
        says,
        ..Start::default()
    };
    let rows = [
        file("listen {\n", &["start.toml:1:8", "TOML", "default-config"]),
        file(
            "[limits]\nline_per_s = 3\n",
            &[
                "start.toml:2:1: limits.line_per_s",
                "did you mean lines_per_s?",
            ],
        ),
        file("[limts]\nx = 1\n", &["limts", "did you mean limits?"]),
        file("[heartbeat]\ninterval = 30\n", &["give the unit: \"30s\""]),
        file("[limits]\nlines_per_s = \"5\"\n", &["without quotes"]),
        file("[limits]\nbody_bytes_max = \"64KB\"\n", &["units are KiB"]),
        file(
            "[listen]\npublic = 8080\n",
            &["\"127.0.0.1:8080\" for this machine"],
        ),
        file(
            "[auth]\norigins = \"https://a.example\"\n",
            &["in brackets"],
        ),
        file(
            "[rooms]\naccess = \"secret\"\n",
            &["\"public\", \"login\", \"private\""],
        ),
        Start {
            environment: &[("DANMAKU_LISTN__PUBLIC", "x")],
            exit: 2,
            says: &[
                "environment: DANMAKU_LISTN__PUBLIC",
                "did you mean DANMAKU_LISTEN__PUBLIC?",
            ],
            ..Start::default()
        },
        Start {
            environment: &[("DANMAKU_AUTH__SECRET", "hunter2")],
            exit: 2,
            says: &["7 bytes", "at least 32 random bytes", "openssl rand"],
            never: "hunter2",
            ..Start::default()
        },
        Start {
            environment: &[("DANMAKU_API_KEY", "hunter2")],
            exit: 2,
            says: &[
                "DANMAKU_API_KEY",
                "at least 16 random bytes",
                "openssl rand",
            ],
            never: "hunter2",
            ..Start::default()
        },
    ];
    rows.iter().for_each(Start::check);
}

#[test]
fn a_machine_that_gives_too_little() {
    for descriptors in [20, 64] {
        Start {
            arguments: &[&FREE[..], &["--shards", "2"]].concat(),
            descriptors: Some(descriptors),
            exit: 1,
            says: &[
                &format!("descriptor limit of {descriptors}"),
                "2 shards need 69",
                "ulimit -n 65536",
                "LimitNOFILE=65536",
                "danmaku doctor",
            ],
            ..Start::default()
        }
        .check();
    }
    for memory_kib in [20_000, 50_000] {
        Start {
            arguments: &[&FREE[..], &["--shards", "2"]].concat(),
            memory_kib: Some(memory_kib),
            exit: 1,
            says: &["ulimit -v", "2 shards need 96 MiB", "--shards 1"],
            never: "panicked",
            ..Start::default()
        }
        .check();
    }
    let nowhere = scratch("no-folder").join("ready.json");
    let nowhere = nowhere.to_str().unwrap();
    Start {
        arguments: &[&FREE[..], &["--ready-file", nowhere]].concat(),
        exit: 1,
        says: &["--ready-file", nowhere, "a folder that exists"],
        ..Start::default()
    }
    .check();
}

#[test]
fn few_descriptors_are_said_at_start() {
    let config = scratch("few.toml");
    let toml =
        "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n[server]\nshards = 2\n";
    std::fs::write(&config, toml).unwrap();
    let node = Node::run_with_descriptors(config, 100);
    let log = node.logged();
    for needle in [
        "viewers_max=64",
        "ulimit -n",
        "LimitNOFILE=",
        "danmaku doctor",
    ] {
        assert!(log.contains(needle), "no {needle} in {log}");
    }
}

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
