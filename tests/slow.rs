//! Slow viewers over real sockets: told exactly what they missed, never of events, and nobody waits for them.

mod support;

use serde_json::{Value, json};
use support::{Node, Viewer};

const BATCHES: u64 = 120;
const LINES_PER_BATCH: u64 = 99;

/// Pushes `BATCHES` times 99 lines and an event, while `reader` keeps up. Far more than kernel buffers hold.
fn fill(node: &Node, reader: &mut Viewer) {
    let path = "/api/v1/danmaku/push";
    let line = json!({"method":"POST","path":path,"body":{"room":"r","text":"x".repeat(1000)}});
    let event = json!({"method":"POST","path":path,"body":{"room":"r","type":"event","event":"gift","data":{}}});
    let mut requests = vec![line; LINES_PER_BATCH as usize];
    requests.push(event);
    let batch = json!({ "requests": requests }).to_string();
    let mut seen = 0;
    for _ in 0..BATCHES {
        let answer = node.api("POST", "/api/v1/batch", &batch);
        assert_eq!(answer.status, 200, "{}", answer.text);
        for _ in 0..=LINES_PER_BATCH {
            let kind = if (seen + 1) % 100 == 0 {
                "event"
            } else {
                "danmaku"
            };
            seen += 1;
            assert_eq!(reader.expect(kind)["seq"], seen);
        }
    }
}

const SETTINGS: &str = "[rooms]\nlog_bytes_max = \"64KiB\"\n[limits]\nmessage_bytes_max = \"4KiB\"\nbody_bytes_max = \"256KiB\"\n";

#[test]
fn what_was_missed_is_told_exactly_and_events_are_never_missed() {
    let node = Node::start(&format!("[slow]\nstuck_timeout = \"60s\"\n{SETTINGS}"));
    let mut slow = node.join("r");
    let mut reader = node.join("r");
    fill(&node, &mut reader);
    let total = BATCHES * (LINES_PER_BATCH + 1);
    let (mut lines, mut told, mut events, mut newest) = (0, 0, 0, 0);
    while newest < total {
        let message: Value = slow.next();
        match message["type"].as_str() {
            Some("online") => {}
            Some("dropped") => {
                assert_eq!(message["room"], "r");
                told += message["count"].as_u64().unwrap();
            }
            Some(kind) => {
                let seq = message["seq"].as_u64().unwrap();
                assert!(seq > newest, "{seq} after {newest}");
                newest = seq;
                match kind {
                    "danmaku" => lines += 1,
                    "event" => events += 1,
                    other => panic!("{other}"),
                }
            }
            None => panic!("{message}"),
        }
    }
    assert!(told > 0, "it was not slow enough to miss anything");
    assert_eq!(lines + told, BATCHES * LINES_PER_BATCH);
    assert_eq!(events, BATCHES);
    let of = |series: &str| node.metric(series) as u64;
    assert_eq!(of("danmaku_dropped_total{reason=\"slow\"}"), told);
    assert_eq!(of("danmaku_dropped_total{reason=\"left\"}"), 0);
    assert_eq!(
        of("danmaku_deliveries_total") + told,
        2 * BATCHES * LINES_PER_BATCH
    );
}

#[test]
fn where_falling_behind_is_not_forgiven_it_closes() {
    let node = Node::start(&format!(
        "[slow]\npolicy = \"close\"\nstuck_timeout = \"60s\"\n{SETTINGS}"
    ));
    let mut slow = node.join("r");
    let mut reader = node.join("r");
    fill(&node, &mut reader);
    assert_eq!(slow.closed().0, 4413);
    reader.send(&json!({"type":"ping"}));
    reader.expect("pong");
}
