//! Heartbeats where nobody talks are taken together, and whoever then says something is heard all the same.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{Node, Viewer};

const LULLS: &str = "danmaku_lulls_total";

/// Each of them pings and is answered, again and again, for `time`.
fn beat(viewers: &mut [Viewer], time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        for viewer in viewers.iter_mut() {
            viewer.send(&json!({"type": "ping"}));
        }
        for viewer in viewers.iter_mut() {
            viewer.expect("pong");
        }
    }
}

/// Pings until the shards have looked away at times; a scrape is a request, so it is not asked often.
fn beat_until_lulls(node: &Node, viewers: &mut [Viewer]) {
    let before = node.metric(LULLS);
    let begun = Instant::now();
    while node.metric(LULLS) == before {
        assert!(begun.elapsed() < Duration::from_secs(60), "no lull");
        beat(viewers, Duration::from_millis(1500));
    }
}

/// Two shards, so that what is said travels through mailboxes of shards that look away.
#[test]
fn who_speaks_into_a_lull_is_heard_by_everyone() {
    let node = Node::start("[server]\nshards = 2\n");
    let mut viewers: Vec<Viewer> = (0..24).map(|n| node.join(&format!("r{}", n % 4))).collect();
    for round in 0..2 {
        beat_until_lulls(&node, &mut viewers);
        // The scrape has stirred a shard: back into the lull.
        beat(&mut viewers, Duration::from_millis(1200));
        for room in 0..4 {
            let text = format!("{round} into the silence of r{room}");
            viewers[room].send(
                &json!({"type": "danmaku", "room": format!("r{room}"), "text": text, "id": "1"}),
            );
            let kinds = [viewers[room].next(), viewers[room].next()].map(|one| one["type"].clone());
            assert!(
                kinds.contains(&json!("ack")) && kinds.contains(&json!("danmaku")),
                "{kinds:?}"
            );
            for viewer in viewers.iter_mut().skip(room + 4).step_by(4) {
                assert_eq!(viewer.expect("danmaku")["text"], text.as_str());
            }
            beat(&mut viewers, Duration::from_millis(300));
        }
        beat(&mut viewers, Duration::from_millis(1200));
        let body = r#"{"room":"r1","text":"pushed"}"#;
        let pushed = node.api("POST", "/api/v1/danmaku/push", body);
        assert_eq!(pushed.status, 200, "{}", pushed.text);
        for viewer in viewers.iter_mut().skip(1).step_by(4) {
            assert_eq!(viewer.expect("danmaku")["text"], "pushed");
        }
    }
}

/// A node that is told to end while it looks away ends.
#[test]
fn a_lull_does_not_hold_up_the_end() {
    let mut node = Node::start("[server]\nshards = 1\n[drain]\ninterval = \"100ms\"\n");
    let mut viewers: Vec<Viewer> = (0..8).map(|_| node.join("r")).collect();
    beat_until_lulls(&node, &mut viewers);
    beat(&mut viewers, Duration::from_millis(1200));
    node.signal("TERM");
    assert!(node.wait().success());
}
