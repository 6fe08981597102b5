//! permessage-deflate between the node and clients from other hands, and what bad clients make of it.

mod support;

use std::io::Read;
use std::process::Command;

use flate2::Compression;
use flate2::read::DeflateEncoder;
use serde_json::{Value, json};
use support::clients::{clients, run};
use support::{Node, Viewer, scratch};

const LINES: usize = 40;
const OFFER: (&str, &str) = ("sec-websocket-extensions", "permessage-deflate");

/// Lines that come within a second of each other are one batch.
const GATHERS: &str = "[rooms]\ntick = \"1s\"\n";

/// So many lines in one request, and in one batch therefore.
fn push_lines(node: &Node, room: &str) {
    let push = |n: usize| {
        let body = json!({"room": room, "text": format!("line {n} 弹幕")});
        json!({"method": "POST", "path": "/api/v1/danmaku/push", "body": body})
    };
    let requests: Vec<Value> = (0..LINES).map(push).collect();
    let answer = node.api(
        "POST",
        "/api/v1/batch",
        &json!({ "requests": requests }).to_string(),
    );
    assert_eq!(answer.status, 200, "{}", answer.text);
}

fn texts() -> Vec<String> {
    (0..LINES).map(|n| format!("line {n} 弹幕")).collect()
}

/// What a client said on one line of its output: its extensions, and the texts it read.
fn told(out: &str) -> (String, Vec<String>) {
    serde_json::from_str(out.trim()).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// A client joins by `?room=`, says a compressed line, waits for the others and prints what it saw. Those are pushed once
/// it has its own back.
fn talk(node: &Node, room: &str, client: &mut Command) -> String {
    std::thread::scope(|scope| {
        let pushes = scope.spawn(|| {
            node.metric_becomes("danmaku_deliveries_total", 1.0);
            push_lines(node, room);
        });
        let out = run(client);
        pushes.join().unwrap();
        out
    })
}

#[test]
fn npm_ws_reads_and_writes_compressed() {
    for protocol in ["danmaku.v1", "danmaku.v1.batch"] {
        let node = Node::start(GATHERS);
        let script = scratch("deflate.mjs");
        std::fs::write(
            &script,
            r#"
import { createRequire } from 'node:module';
const WebSocket = createRequire(process.argv[4] + '/')('ws');
const ws = new WebSocket(process.argv[2] + '/ws?room=js', [process.argv[3]], { perMessageDeflate: { threshold: 0 } });
const texts = [];
ws.on('open', () => ws.send(JSON.stringify({ type: 'danmaku', room: 'js', text: 'mine '.repeat(50), id: 1 })));
ws.on('message', (data) => {
  for (const line of data.toString().split('\n')) {
    const m = JSON.parse(line);
    if (m.type === 'danmaku') texts.push(m.text);
  }
  if (texts.length === 41) ws.close(1000);
});
ws.on('close', () => console.log(JSON.stringify([ws.extensions, texts])));
ws.on('error', (e) => { console.error(e); process.exit(1); });
"#,
        )
        .unwrap();
        let mut client = Command::new("node");
        client
            .arg(&script)
            .arg(format!("ws://{}", node.public))
            .arg(protocol)
            .arg(clients());
        let (extensions, read) = told(&talk(&node, "js", &mut client));
        assert_eq!(extensions, "permessage-deflate");
        assert_eq!(read[0], "mine ".repeat(50).trim());
        assert_eq!(read[1..], texts(), "{protocol}");
        it_was_compressed(&node, protocol);
    }
}

#[test]
fn python_websockets_reads_and_writes_compressed() {
    let script = r#"
import asyncio, json, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1] + "/ws?room=py", subprotocols=[sys.argv[2]]) as ws:
        await ws.send(json.dumps({"type": "danmaku", "room": "py", "text": "mine " * 50}))
        texts = []
        while len(texts) < 41:
            for line in (await asyncio.wait_for(ws.recv(), 20)).splitlines():
                m = json.loads(line)
                if m["type"] == "danmaku":
                    texts.append(m["text"])
        print(json.dumps([",".join(e.name for e in ws.protocol.extensions), texts]))
asyncio.run(main())
"#;
    for protocol in ["danmaku.v1", "danmaku.v1.batch"] {
        let node = Node::start(GATHERS);
        let mut client = Command::new(clients().join("venv/bin/python"));
        client
            .args(["-c", script])
            .arg(format!("ws://{}", node.public))
            .arg(protocol);
        let (extensions, read) = told(&talk(&node, "py", &mut client));
        assert_eq!(extensions, "permessage-deflate");
        assert_eq!(read[1..], texts(), "{protocol}");
        it_was_compressed(&node, protocol);
    }
}

fn it_was_compressed(node: &Node, protocol: &str) {
    assert_eq!(node.metric("danmaku_inflated_messages_total"), 1.0);
    let deflated = node.metric("danmaku_deflated_messages_total");
    let (before, after) = (
        node.metric("danmaku_deflate_bytes_in_total"),
        node.metric("danmaku_deflate_bytes_out_total"),
    );
    match protocol {
        // The client's own long line; the pushed ones are shorter than what pays.
        "danmaku.v1" => assert_eq!(deflated, 1.0),
        // The same, and all the others in one message.
        _ => {
            assert_eq!(deflated, 2.0);
            assert!(after * 4.0 < before, "{before} -> {after}");
        }
    }
}

/// Eight viewers on two shards in one room: its batch is compressed once for the node.
#[test]
fn a_batch_is_compressed_once_for_all_who_want_it() {
    let node = Node::start(&format!("[server]\nshards = 2\n{GATHERS}"));
    let mut plain = Viewer::connect(
        node.public,
        "?room=once",
        &[("sec-websocket-protocol", "danmaku.v1.batch")],
    );
    plain.expect("welcome");
    plain.expect("joined");
    let script = r#"
import asyncio, json, sys, websockets
async def viewer():
    async with websockets.connect(sys.argv[1] + "/ws?room=once", subprotocols=["danmaku.v1.batch"]) as ws:
        texts = []
        while len(texts) < 40:
            for line in (await asyncio.wait_for(ws.recv(), 20)).splitlines():
                m = json.loads(line)
                if m["type"] == "danmaku":
                    texts.append(m["text"])
        return texts
async def main():
    seen = await asyncio.gather(*(viewer() for _ in range(8)))
    print(json.dumps(seen))
asyncio.run(main())
"#;
    let mut client = Command::new(clients().join("venv/bin/python"));
    client
        .args(["-c", script])
        .arg(format!("ws://{}", node.public));
    let out = std::thread::scope(|scope| {
        let pushes = scope.spawn(|| {
            node.metric_becomes("danmaku_members", 9.0);
            push_lines(&node, "once");
        });
        let out = run(&mut client);
        pushes.join().unwrap();
        out
    });
    let seen: Vec<Vec<String>> = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(seen, vec![texts(); 8]);
    assert_eq!(node.metric("danmaku_deflated_messages_total"), 1.0);
    for text in texts() {
        assert_eq!(plain.expect("danmaku")["text"], *text);
    }
}

#[test]
fn compression_can_be_switched_off_and_is_not_forced_on_anybody() {
    let off = Node::start("[server]\ncompression = false\n");
    let mut viewer = Viewer::connect(off.public, "?room=off", &[OFFER]);
    assert_eq!(viewer.extensions, None);
    // RSV1 means nothing there.
    viewer.send_raw(&frame(0xc1, b"{}"));
    assert_eq!(viewer.closed().0, 1002);
    let on = Node::start("");
    let mut viewer = on.connect("?room=on");
    assert_eq!(viewer.extensions, None);
    viewer.send_raw(&frame(0xc1, b"{}"));
    assert_eq!(viewer.closed().0, 1002);
}

#[test]
fn what_a_bad_client_compresses_is_refused_and_harms_nobody() {
    let node = Node::start("");
    let mut bystander = node.join("calm");
    let mut bomb = Vec::new();
    DeflateEncoder::new(std::io::repeat(b'a').take(64 << 20), Compression::best())
        .read_to_end(&mut bomb)
        .unwrap();
    // As much of it as a message may have: it would unpack to more than ten megabytes.
    bomb.truncate(16_000);
    let mut invalid = Vec::new();
    DeflateEncoder::new(&b"\"\xff\xfe\""[..], Compression::fast())
        .read_to_end(&mut invalid)
        .unwrap();
    let cases: [(&str, u8, &[u8], u16); 5] = [
        ("a bomb", 0xc1, &bomb, 1009),
        ("no deflated data", 0xc1, &[0xff; 20], 1007),
        ("text that is not UTF-8", 0xc1, &invalid, 1007),
        ("a compressed ping", 0xc9, b"", 1002),
        ("a binary message", 0xc2, &invalid, 1003),
    ];
    for (what, first, payload, code) in cases {
        let mut viewer = Viewer::connect(node.public, "?room=calm", &[OFFER]);
        let agreed = viewer.extensions.as_deref();
        assert!(agreed.is_some_and(|agreed| agreed.starts_with("permessage-deflate;")));
        viewer.send_raw(&frame(first, payload));
        let (closed, reason) = viewer.closed();
        assert_eq!(closed, code, "{what}: {reason}");
    }
    bystander.send(&json!({"type": "danmaku", "room": "calm", "text": "still here"}));
    assert_eq!(bystander.expect("danmaku")["text"], "still here");
    node.metric_becomes("danmaku_connections", 1.0);
}

/// A client's frame under the mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}
