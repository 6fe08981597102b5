//! Clients from other hands: npm `ws` and `wscat`, Python `websockets`, curl. `scripts/test.sh` installs them; a missing
//! one is a failure that says so.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::clients::{clients, run};
use support::{API_KEY, Node, scratch};

#[test]
fn npm_ws_joins_speaks_and_closes() {
    let node = Node::start("");
    let script = scratch("client.mjs");
    std::fs::write(
        &script,
        r#"
import { createRequire } from 'node:module';
const WebSocket = createRequire(process.argv[3] + '/')('ws');
const ws = new WebSocket(process.argv[2] + '/ws?room=js', ['danmaku.v1']);
const seen = [];
ws.on('message', (data) => {
  const m = JSON.parse(data);
  if (m.type === 'online') return;
  seen.push(m.type);
  if (m.type === 'joined') ws.send(JSON.stringify({ type: 'danmaku', room: 'js', text: '弹幕 🎉', id: 1 }));
  if (m.type === 'danmaku') { seen.push(m.text); ws.ping('p'); }
});
ws.on('pong', (data) => { seen.push('pong:' + data); ws.close(1000, 'bye'); });
ws.on('close', (code) => { seen.push(code); console.log(JSON.stringify([ws.protocol, ...seen])); });
ws.on('error', (e) => { console.error(e); process.exit(1); });
"#,
    )
    .unwrap();
    let folder = clients();
    let out = run(Command::new("node")
        .arg(&script)
        .arg(format!("ws://{}", node.public))
        .arg(&folder));
    let seen: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(
        seen,
        json!([
            "danmaku.v1",
            "welcome",
            "joined",
            "ack",
            "danmaku",
            "弹幕 🎉",
            "pong:p",
            1000
        ])
    );
}

#[test]
fn python_websockets_joins_speaks_and_closes() {
    let node = Node::start("[heartbeat]\ninterval = \"1s\"\n");
    let script = r#"
import asyncio, json, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1] + "/ws?room=py", subprotocols=["danmaku.v1.batch"], compression="deflate") as ws:
        seen = [ws.subprotocol]
        async def take(kind):
            while True:
                for line in (await asyncio.wait_for(ws.recv(), 20)).splitlines():
                    m = json.loads(line)
                    if m["type"] == kind:
                        return m
        await take("joined")
        for n in range(3):
            await ws.send(json.dumps({"type": "danmaku", "room": "py", "text": "l%d" % n}))
        texts = []
        while len(texts) < 3:
            for line in (await asyncio.wait_for(ws.recv(), 20)).splitlines():
                m = json.loads(line)
                if m["type"] == "danmaku":
                    texts.append(m["text"])
        pong = await ws.ping()
        await asyncio.wait_for(pong, 20)
        await asyncio.sleep(3)  # three heartbeat intervals without a word of our own
        await ws.send(json.dumps({"type": "ping"}))
        await take("pong")
        print(json.dumps(seen + texts))
asyncio.run(main())
"#;
    let out = run(Command::new(clients().join("venv/bin/python"))
        .args(["-c", script])
        .arg(format!("ws://{}", node.public)));
    let seen: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(seen, json!(["danmaku.v1.batch", "l0", "l1", "l2"]));
}

#[test]
fn wscat_with_nothing_but_the_url_stays_sends_and_receives() {
    // Four heartbeat intervals: wscat sends nothing of its own and must be kept by the node's pings.
    let node = Node::start("[heartbeat]\ninterval = \"1s\"\n");
    let mut child = Command::new("node")
        .arg(clients().join("node_modules/wscat/bin/wscat"))
        .args(["-c", &format!("ws://{}/ws?room=cat", node.public)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut wait_for = |what: &str| {
        for line in lines.by_ref() {
            if line.unwrap().contains(what) {
                return;
            }
        }
        panic!("wscat ended before {what}");
    };
    wait_for("\"joined\"");
    std::thread::sleep(std::time::Duration::from_secs(4));
    writeln!(stdin, r#"{{"type":"danmaku","room":"cat","text":"meow"}}"#).unwrap();
    wait_for("meow");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn curl_pushes() {
    let node = Node::start("");
    let mut viewer = node.join("curl");
    let out = run(Command::new("curl")
        .args([
            "-sS",
            "--fail-with-body",
            "-H",
            &format!("Authorization: Bearer {API_KEY}"),
        ])
        .args(["--json", r#"{"room":"curl","text":"from curl"}"#])
        .arg(format!("http://{}/api/v1/danmaku/push", node.internal)));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["seq"], 1);
    assert_eq!(viewer.expect("danmaku")["text"], "from curl");
    // A large body makes curl ask first (Expect: 100-continue); chunked is curl's word for standard input.
    let long = format!(
        r#"{{"room":"curl","text":"x","data":"{}"}}"#,
        "y".repeat(2000)
    );
    let mut child = Command::new("curl")
        .args([
            "-sS",
            "-X",
            "POST",
            "-H",
            "Transfer-Encoding: chunked",
            "-H",
            "Expect: 100-continue",
        ])
        .args([
            "-H",
            &format!("X-Api-Key: {API_KEY}"),
            "-H",
            "Content-Type: application/json",
        ])
        .args(["--data-binary", "@-"])
        .arg(format!("http://{}/api/v1/danmaku/push", node.internal))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(long.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["seq"], 2, "{answer}");
}
