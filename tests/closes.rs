//! Every close code of docs/PROTOCOL.md, seen by a client, each within its deadline and without harm to a neighbour.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Node, Viewer};

/// One masked client frame (mask 0, so that the payload reads as it is).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        n @ 0..=125 => bytes.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Sends raw bytes on a fresh connection and returns the close code.
fn code_for(node: &Node, bytes: &[u8]) -> u16 {
    let mut viewer = node.connect("");
    viewer.expect("welcome");
    viewer.send_raw(bytes);
    viewer.closed().0
}

#[test]
fn a_normal_close_is_echoed() {
    let node = Node::start("");
    let mut viewer = node.connect("");
    viewer.expect("welcome");
    viewer.socket.close(None).unwrap();
    assert_eq!(viewer.closed().0, 1000);
    node.metric_becomes("danmaku_connections", 0.0);
}

#[test]
fn protocol_errors() {
    let node = Node::start("[limits]\nmessage_bytes_max = \"1KiB\"\ntext_bytes_max = 100\n");
    let mut neighbour = node.join("r");
    let cases: &[(&str, Vec<u8>, u16)] = &[
        ("unmasked", vec![0x81, 0x02, b'h', b'i'], 1002),
        ("reserved bit", frame(0xc1, b"hi"), 1002),
        ("unknown opcode", frame(0x83, b"hi"), 1002),
        ("continuation of nothing", frame(0x80, b"hi"), 1002),
        ("fragmented ping", frame(0x09, b""), 1002),
        ("close code 999", frame(0x88, &[0x03, 0xe7]), 1002),
        ("close of one byte", frame(0x88, &[0x03]), 1002),
        ("binary", frame(0x82, b"hi"), 1003),
        ("bad UTF-8", frame(0x81, &[0xff, 0xfe]), 1007),
        ("too big", frame(0x81, &[b'x'; 1025]), 1009),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(code_for(&node, bytes), *code, "{what}");
    }
    neighbour.send(&json!({"type":"danmaku","room":"r","text":"fine"}));
    assert_eq!(neighbour.expect("danmaku")["text"], "fine");
}

#[test]
fn bad_utf8_fails_before_the_frame_ends() {
    let node = Node::start("");
    let mut viewer = node.connect("");
    viewer.expect("welcome");
    let whole = frame(0x81, b"0123456789\xff0123456789");
    viewer.send_raw(&whole[..whole.len() - 5]);
    assert_eq!(viewer.closed().0, 1007);
}

#[test]
fn a_size_that_is_only_declared_costs_nothing_and_closes_at_once() {
    let node = Node::start("");
    let mut viewer = node.connect("");
    viewer.expect("welcome");
    let mut header = vec![0x81, 0xff];
    header.extend_from_slice(&(1u64 << 40).to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    viewer.send_raw(&header);
    assert_eq!(viewer.closed().0, 1009);
}

#[test]
fn silence_is_pinged_once_and_then_closed() {
    let node = Node::start("[heartbeat]\ninterval = \"1s\"\n");
    let mut stream = upgraded(&node);
    let begun = Instant::now();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    // This client never answers: not the ping, not the close.
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    }
    let elapsed = begun.elapsed();
    assert!(bytes.windows(2).any(|w| w == [0x89, 0x00]), "a ping came");
    assert!(
        bytes
            .windows(4)
            .any(|w| w[0] == 0x88 && w[2..] == 4408u16.to_be_bytes())
    );
    assert!(elapsed >= Duration::from_millis(1900), "{elapsed:?}");
}

/// A raw socket after the upgrade.
fn upgraded(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.public).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        node.public
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream
}

#[test]
fn a_pong_keeps_a_client_without_heartbeat_alive() {
    let node = Node::start("[heartbeat]\ninterval = \"1s\"\n");
    let mut viewer = node.connect("");
    viewer.expect("welcome");
    // tungstenite answers pings while it reads; it sends nothing of its own.
    assert!(viewer.is_quiet_for_pings(Duration::from_secs(4)));
    viewer.send(&json!({"type":"ping"}));
    viewer.expect("pong");
}

impl Viewer {
    /// Reads for a while, answering pings as every client does.
    fn is_quiet_for_pings(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let left = until - Instant::now();
            self.socket.get_mut().set_read_timeout(Some(left)).unwrap();
            match self.socket.read() {
                Ok(tungstenite::Message::Ping(_)) => self.socket.flush().unwrap(),
                Ok(_) => return false,
                Err(tungstenite::Error::Io(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.socket
            .get_mut()
            .set_read_timeout(Some(support::PATIENCE))
            .unwrap();
        true
    }
}

#[test]
fn an_expired_token_ends_the_connection() {
    let node = Node::start("[auth]\nanonymous = \"deny\"\nleeway = \"1s\"\n");
    let token = node.token(&["--user", "u", "--ttl", "1s"]);
    let mut viewer = node.connect(&format!("?token={token}"));
    viewer.expect("welcome");
    assert_eq!(viewer.closed().0, 4410);
}

#[test]
fn too_many_bad_messages() {
    let node = Node::start("");
    let mut viewer = node.connect("");
    viewer.expect("welcome");
    for _ in 0..30 {
        viewer.send_text("rubbish");
    }
    assert_eq!(viewer.closed().0, 4429);
}

#[test]
fn disconnected_by_the_back_end() {
    let node = Node::start("");
    let token = node.token(&["--user", "u"]);
    let mut viewers: Vec<Viewer> = (0..3)
        .map(|_| node.connect(&format!("?room=r&token={token}")))
        .collect();
    for viewer in &mut viewers {
        viewer.expect("welcome");
        viewer.expect("joined");
    }
    let answer = node.api(
        "POST",
        "/api/v1/users/u/disconnect",
        r#"{"reason":"enough"}"#,
    );
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"connections":3}))
    );
    for viewer in &mut viewers {
        assert_eq!(viewer.closed(), (4008, "enough".to_string()));
    }
    let mut again = node.connect(&format!("?token={token}"));
    again.expect("welcome");
    let answer = node.api(
        "POST",
        "/api/v1/users/u/disconnect",
        r#"{"reconnect":true}"#,
    );
    assert_eq!(answer.json(), json!({"connections":1}));
    assert_eq!(again.closed().0, 4400);
    node.metric_becomes("danmaku_closes_total{code=\"4008\"}", 3.0);
}

#[test]
fn a_viewer_that_never_reads_is_told_or_closed_and_nobody_waits_for_it() {
    let node = Node::start(
        "[slow]\nstuck_timeout = \"1s\"\n[rooms]\nlog_bytes_max = \"64KiB\"\n[limits]\nmessage_bytes_max = \"4KiB\"\n",
    );
    let stuck = {
        let viewer = node.join("r");
        // As little as the kernel gives: it would take megabytes on a client's behalf otherwise.
        socket2::SockRef::from(viewer.socket.get_ref())
            .set_recv_buffer_size(4096)
            .unwrap();
        viewer
    };
    let mut reader = node.join("r");
    let text = "x".repeat(1000);
    // More than kernel buffers hold: the reader keeps up, the other is given up.
    let push =
        json!({"method":"POST","path":"/api/v1/danmaku/push","body":{"room":"r","text":text}});
    let batch = json!({"requests": vec![push; 50]}).to_string();
    let mut seen = 0u64;
    for _ in 0..240 {
        let answer = node.api("POST", "/api/v1/batch", &batch);
        assert_eq!(answer.status, 200, "{}", answer.text);
        for _ in 0..50 {
            seen += 1;
            assert_eq!(reader.expect("danmaku")["seq"], seen);
        }
    }
    node.metric_becomes("danmaku_closes_total{code=\"4413\"}", 1.0);
    drop(stuck);
}

#[test]
fn a_drain_tells_viewers_and_closes_them_in_batches() {
    let mut node = Node::start("[drain]\nbatch = 4\ninterval = \"300ms\"\n");
    let mut viewers: Vec<Viewer> = (0..12).map(|_| node.join("r")).collect();
    assert_eq!(node.public("GET", "/readyz", &[], "").status, 200);
    node.signal("TERM");
    let begun = Instant::now();
    let mut notices = Vec::new();
    let mut ends = Vec::new();
    for viewer in &mut viewers {
        notices.push(viewer.expect("notice"));
    }
    assert_eq!(node.public("GET", "/readyz", &[], "").status, 503);
    assert_eq!(node.public("GET", "/healthz", &[], "").status, 200);
    let refused = Viewer::try_connect(node.public, "", &[]).expect_err("draining");
    refused.refuses(503, "draining");
    for viewer in &mut viewers {
        assert_eq!(viewer.closed().0, 1001);
        ends.push(begun.elapsed());
    }
    ends.sort();
    assert!(
        ends[11] - ends[0] >= Duration::from_millis(500),
        "paced: {ends:?}"
    );
    let mut spread: Vec<u64> = notices
        .iter()
        .map(|n| n["retry_after_ms"].as_u64().unwrap())
        .collect();
    assert!(notices.iter().all(|n| n["code"] == "reconnect"));
    spread.sort_unstable();
    spread.dedup();
    assert!(spread.len() > 4, "spread: {spread:?}");
    drop(viewers);
    assert!(node.wait().success());
}
