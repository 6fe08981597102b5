//! What an overloaded node gives up, level by level, and that it comes back. Overload is made by saying that the process may
//! have less memory than it has.

mod support;

use serde_json::json;
use support::{Node, Viewer, wait_for};

fn level(node: &Node) -> f64 {
    let shards = ["0", "1"]
        .map(|shard| node.metric(&format!("danmaku_overload_level{{shard=\"{shard}\"}}")));
    shards.into_iter().fold(0.0, f64::max)
}

/// Sets what the process may have, 0 for what the machine has.
fn allow(node: &Node, bytes: u64) {
    let text = std::fs::read_to_string(&node.config).unwrap();
    let set = |line: &str| match line.starts_with("memory_max") {
        true => format!("memory_max = {bytes}\n"),
        false => format!("{line}\n"),
    };
    let settings: String = text.lines().map(set).collect();
    std::fs::write(&node.config, settings).unwrap();
    node.signal("HUP");
}

/// Makes the process's resident memory so many percent of what it may have.
fn press(node: &Node, percent: u64) {
    let used = node.metric("process_resident_memory_bytes") as u64;
    allow(node, used * 100 / percent);
}

#[test]
fn each_level_gives_up_more_and_established_viewers_nothing() {
    let node = Node::start("[overload]\nlag = \"60s\"\nmemory_max = 0\n");
    let token = node.token(&["--user", "u"]);
    let mut member = node.join("r");
    let mut guest = node.connect("");
    guest.expect("welcome");
    assert_eq!(
        node.api("GET", "/readyz", "").json(),
        json!({"status": "ready"})
    );
    assert_eq!(level(&node), 0.0);

    press(&node, 82);
    wait_for("arrivals to be given up", || level(&node) == 3.0);
    let Err(refused) = Viewer::try_connect(node.public, "?room=r", &[]) else {
        panic!("let in");
    };
    refused.refuses(503, "overloaded");
    let answer = refused.json();
    assert!((1500..=4500).contains(&answer["retry_after_ms"].as_u64().unwrap()));
    assert!(answer["hint"].as_str().is_some_and(|hint| !hint.is_empty()));
    assert!(refused.header("retry-after").is_some());
    let mut known = node.connect(&format!("?room=r&token={token}"));
    known.expect("welcome");
    known.expect("joined");
    let unready = node.api("GET", "/readyz", "");
    unready.refuses(503, "overloaded");
    assert!(
        unready.json()["reason"]
            .as_str()
            .unwrap()
            .contains("arrivals")
    );
    let line = json!({"room":"r","text":"pushed"}).to_string();
    let push = |body: &str| node.api("POST", "/api/v1/danmaku/push", body);
    assert_eq!(push(&line).status, 200);
    assert_eq!(member.expect("danmaku")["text"], "pushed");

    press(&node, 87);
    wait_for("pushes to be given up", || level(&node) == 4.0);
    let refused = push(&line);
    refused.refuses(503, "overloaded");
    assert!(refused.json()["retry_after_ms"].as_u64().is_some());
    let gift = json!({"room":"r","type":"event","event":"gift","data":{}}).to_string();
    assert_eq!(push(&gift).status, 200, "events are whole");
    assert_eq!(member.expect("event")["event"], "gift");

    press(&node, 99);
    wait_for("guests to be given up", || level(&node) == 6.0);
    let notice = guest.expect("notice");
    assert!(notice["retry_after_ms"].as_u64().is_some());
    assert_eq!(guest.closed().0, 4400);
    member.send(&json!({"type":"danmaku","room":"r","text":"still here","id":1}));
    let mut said = [member.next(), member.next()].map(|said| said["type"].to_string());
    said.sort_unstable();
    assert_eq!(said, [r#""ack""#, r#""danmaku""#]);
    member.send(&json!({"type":"ping"}));
    member.expect("pong");
    for (what, times) in [("arrivals", 1.0), ("idle", 1.0)] {
        assert_eq!(
            node.metric(&format!("danmaku_shed_total{{what=\"{what}\"}}")),
            times
        );
    }

    allow(&node, 0);
    wait_for("calm", || level(&node) == 0.0);
    assert_eq!(
        node.api("GET", "/readyz", "").json(),
        json!({"status": "ready"})
    );
    let mut back = node.join("r");
    back.send(&json!({"type":"ping"}));
    back.expect("pong");
    assert_eq!(push(&line).status, 200);
}
