//! The door: every refusal before the upgrade, its JSON, its time to come back, and that permits return.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Answer, Node, Viewer, request};

const UPGRADE: &[&str] = &[
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

fn refused(node: &Node, query: &str, headers: &[(&'static str, &str)]) -> Answer {
    Viewer::try_connect(node.public, query, headers).expect_err("it should have been refused")
}

#[test]
fn tokens() {
    let node = Node::start("[auth]\nanonymous = \"deny\"\nleeway = \"0s\"\n");
    refused(&node, "", &[]).refuses(401, "token_missing");
    refused(&node, "?token=abc", &[]).refuses(401, "token_invalid");
    let short = node.token(&["--user", "u", "--ttl", "1s"]);
    std::thread::sleep(Duration::from_millis(2100));
    refused(&node, &format!("?token={short}"), &[]).refuses(401, "token_expired");
    let token = node.token(&["--user", "u"]);
    let mut by_query = node.connect(&format!("?token={token}"));
    assert_eq!(by_query.expect("welcome")["user"]["id"], "u");
    let bearer = format!("Bearer {token}");
    let mut by_header = Viewer::connect(node.public, "", &[("Authorization", &bearer)]);
    assert_eq!(by_header.expect("welcome")["user"]["id"], "u");
    let list = format!("danmaku.v1, bearer.{token}");
    let mut by_protocol = Viewer::connect(node.public, "", &[("Sec-WebSocket-Protocol", &list)]);
    assert_eq!(by_protocol.protocol.as_deref(), Some("danmaku.v1"));
    assert_eq!(by_protocol.expect("welcome")["user"]["id"], "u");
}

#[test]
fn rooms() {
    let node = Node::start(
        "[[rooms.class]]\nmatch = \"vip-*\"\naccess = \"private\"\n[[rooms.class]]\nmatch = \"members\"\naccess = \"login\"\n",
    );
    refused(&node, "?room=members", &[]).refuses(403, "login_required");
    refused(&node, "?room=vip-1", &[]).refuses(403, "login_required");
    refused(&node, "?room=a%20b", &[]).refuses(400, "bad_room");
    let many: String = (0..17).map(|n| format!("&room=r{n}")).collect();
    refused(&node, &format!("?{}", &many[1..]), &[]).refuses(400, "too_many_rooms");
    let token = node.token(&["--user", "u"]);
    node.connect(&format!("?room=members&token={token}"));
    refused(&node, &format!("?room=vip-1&token={token}"), &[]).refuses(403, "room_forbidden");
    let vip = node.token(&["--user", "u", "--room", "vip-*"]);
    node.connect(&format!("?room=vip-1&token={vip}"));
    refused(&node, &format!("?room=public&token={vip}"), &[]).refuses(403, "room_forbidden");
    // One good room and one bad: refused as a whole, and the good one is left again.
    refused(&node, "?room=open&room=vip-1", &[]).refuses(403, "login_required");
    node.metric_becomes("danmaku_members", 0.0);
}

#[test]
fn origins() {
    let node = Node::start("[auth]\nanonymous = \"speak\"\norigins = [\"https://live.example\"]\n");
    node.connect("");
    Viewer::connect(node.public, "", &[("Origin", "https://live.example")]);
    let own = format!("http://{}", node.public);
    Viewer::connect(node.public, "", &[("Origin", &own)]);
    let answer = refused(&node, "", &[("Origin", "https://evil.example")]);
    answer.refuses(403, "origin_denied");
    assert!(
        answer.text.contains("https://evil.example"),
        "{}",
        answer.text
    );
}

#[test]
fn handshakes_are_checked_to_the_letter() {
    let node = Node::start("");
    let upgrade = |headers: &[&str]| request(node.public, "GET", "/ws", headers, "");
    let answer = upgrade(&[]);
    answer.refuses(426, "upgrade_required");
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    // The helper sends `Connection: close`, so Upgrade is not among its tokens.
    assert!(upgrade(UPGRADE).status >= 400);
    let with = |extra: &str| {
        let text = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{extra}\r\n",
            node.public
        );
        support::raw(node.public, text.as_bytes(), false)
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    with(&format!("{key}Sec-WebSocket-Version: 8\r\n")).refuses(426, "upgrade_required");
    with("Sec-WebSocket-Version: 13\r\n").refuses(400, "bad_handshake");
    with("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n").refuses(400, "bad_handshake");
    with(&format!("{key}{key}Sec-WebSocket-Version: 13\r\n")).refuses(400, "bad_handshake");
    assert_eq!(
        with(&format!("{key}Sec-WebSocket-Version: 13\r\n")).status,
        101
    );
}

#[test]
fn the_cap_is_never_overshot_and_permits_return() {
    let node = Node::start("[admission]\nconnections_max = 5\n");
    for _ in 0..3 {
        let viewers: Vec<Viewer> = (0..5).map(|_| node.join("r")).collect();
        for _ in 0..20 {
            refused(&node, "?room=r", &[]).refuses(503, "connections_full");
        }
        assert_eq!(node.public("GET", "/healthz", &[], "").status, 200);
        assert_eq!(node.public("GET", "/readyz", &[], "").status, 503);
        drop(viewers);
        node.metric_becomes("danmaku_connection_permits_in_use", 0.0);
    }
    assert_eq!(
        node.metric("danmaku_refusals_total{reason=\"connections_full\"}"),
        60.0
    );
}

#[test]
fn the_accept_rate_is_what_it_says() {
    let node = Node::start("[admission]\naccepts_per_s = 50\naccept_burst = 10\n");
    let begun = Instant::now();
    let (mut admitted, mut viewers, mut refusals) = (0, Vec::new(), 0);
    while begun.elapsed() < Duration::from_secs(2) {
        match Viewer::try_connect(node.public, "", &[]) {
            Ok(viewer) => {
                admitted += 1;
                viewers.push(viewer);
            }
            Err(answer) => {
                answer.refuses(429, "accept_rate");
                refusals += 1;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let allowed = 10.0 + 50.0 * seconds;
    assert!(refusals > 0);
    assert!(
        f64::from(admitted) <= allowed + 1.0,
        "{admitted} in {seconds} s"
    );
    // Asked without a pause, next to none of what is allowed is given away.
    assert!(
        f64::from(admitted) >= allowed * 0.8,
        "{admitted} in {seconds} s"
    );
}

#[test]
fn handshakes_in_flight_are_bounded_and_stalled_ones_end() {
    let node = Node::start("[admission]\nhandshakes_max = 4\nhandshake_timeout = \"1s\"\n");
    let mut existing = node.join("r");
    let mut stalled: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(node.public).unwrap();
            stream
                .write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
                .unwrap();
            stream
        })
        .collect();
    node.metric_becomes("danmaku_handshake_permits_in_use", 4.0);
    refused(&node, "", &[]).refuses(503, "handshakes_full");
    existing.send(&serde_json::json!({"type":"danmaku","room":"r","text":"still here"}));
    existing.expect("danmaku");
    for stream in &mut stalled {
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("request_timeout"), "{answer}");
    }
    node.metric_becomes("danmaku_handshake_permits_in_use", 0.0);
    node.connect("");
}

#[test]
fn addresses_are_capped_by_what_trusted_proxies_say() {
    let node = Node::start("[admission]\nper_address_max = 2\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let from =
        |address: &str| Viewer::try_connect(node.public, "", &[("X-Forwarded-For", address)]);
    let _a = from("203.0.113.7").expect("first");
    let _b = from("198.51.100.1, 203.0.113.7").expect("second");
    from("203.0.113.7")
        .expect_err("third")
        .refuses(429, "address_full");
    let _c = from("203.0.113.8").expect("another address");
    drop(_a);
    let begun = Instant::now();
    while from("203.0.113.7").is_err() {
        assert!(begun.elapsed() < support::PATIENCE);
    }
}

#[test]
fn http_requests_are_refused_by_name() {
    let node = Node::start(
        "[limits]\nbody_bytes_max = \"1KiB\"\nbody_timeout = \"1s\"\nmessage_bytes_max = \"1KiB\"\n",
    );
    let raw = |text: &str| support::raw(node.public, text.as_bytes(), false);
    raw("GET / HTTP/1.1\r\n\r\n").refuses(400, "bad_request");
    raw("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n")
        .refuses(400, "bad_request");
    raw("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").refuses(404, "not_found");
    let answer = raw("DELETE /api/v1/danmaku/push HTTP/1.1\r\nHost: x\r\n\r\n");
    answer.refuses(405, "method_not_allowed");
    assert!(
        answer
            .header("allow")
            .is_some_and(|allow| allow.contains("POST"))
    );
    raw("POST /api/v1/danmaku/push HTTP/1.1\r\nHost: x\r\n\r\n").refuses(411, "length_required");
    raw("POST /api/v1/danmaku/push HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n")
        .refuses(413, "body_too_large");
    raw(&format!(
        "GET /{} HTTP/1.1\r\nHost: x\r\n\r\n",
        "a".repeat(9000)
    ))
    .refuses(414, "uri_too_long");
    raw("POST /api/v1/danmaku/push HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 2\r\n\r\n{}")
        .refuses(415, "unsupported_media_type");
    raw("GET / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n").refuses(417, "expectation_failed");
    let many: String = (0..100).map(|n| format!("x-{n}: 1\r\n")).collect();
    raw(&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")).refuses(431, "head_too_large");
    raw("BREW / HTTP/1.1\r\nHost: x\r\n\r\n").refuses(501, "not_implemented");
    raw("GET / HTTP/2.0\r\nHost: x\r\n\r\n").refuses(505, "version_not_supported");
    raw("POST /api/v1/danmaku/push HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        .refuses(408, "request_timeout");
}

#[test]
fn http_keeps_alive_pipelines_and_says_continue() {
    let node = Node::start("");
    let mut stream = TcpStream::connect(node.public).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let push = |text: &str| {
        let body = format!("{{\"room\":\"p\",\"text\":\"{text}\"}}");
        format!(
            "POST /api/v1/danmaku/push HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let burst = format!(
        "{}{}HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n{}",
        push("one"),
        push("two"),
        push("three")
    );
    stream.write_all(burst.as_bytes()).unwrap();
    let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
    for wanted in [Some(1), Some(2), None, Some(3)] {
        let answer = support::read_answer(&mut reader, wanted.is_none()).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        if let Some(seq) = wanted {
            assert_eq!(answer.json()["seq"], seq);
        }
    }
    stream
        .write_all(b"POST /api/v1/danmaku/push HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let continued = support::read_answer(&mut reader, false).unwrap();
    assert_eq!(continued.status, 100);
    stream
        .write_all(b"d\r\n{\"room\":\"p\",\"\r\nb\r\ntext\":\"4\"}\n\r\n0\r\n\r\n")
        .unwrap();
    let answer = support::read_answer(&mut reader, false).unwrap();
    assert_eq!(
        (answer.status, answer.json()["seq"].as_u64()),
        (200, Some(4))
    );
}

#[test]
fn out_of_descriptors_it_refuses_politely_and_recovers() {
    let config = support::scratch("few.toml");
    std::fs::write(
        &config,
        "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n[server]\nshards = 1\n",
    )
    .unwrap();
    let node = Node::run_with_descriptors(config, 100);
    let (mut viewers, mut refused) = (Vec::new(), 0);
    for _ in 0..60 {
        match Viewer::try_connect(node.public, "?room=r", &[]) {
            Ok(viewer) => viewers.push(viewer),
            Err(answer) => {
                answer.refuses(503, "connections_full");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && viewers.len() >= 30, "{} in", viewers.len());
    // The operator still gets in.
    assert_eq!(node.metric("danmaku_connections") as usize, viewers.len());
    drop(viewers);
    node.metric_becomes("danmaku_connections", 0.0);
    node.join("r");
}
