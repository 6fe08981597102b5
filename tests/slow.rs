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
    // Where its socket stops is up to the system: mostly inside a frame, whose rest then waits, but sometimes between two.
    let stopped_inside = (0..20).find_map(|_| {
        let node = Node::start(&format!("[slow]\nstuck_timeout = \"60s\"\n{SETTINGS}"));
        let (slow, mut reader) = (node.join("r"), node.join("r"));
        fill(&node, &mut reader);
        let rest = node.metric("danmaku_outbox_bytes");
        (rest > 0.0).then_some((node, slow, reader))
    });
    let (node, mut slow, _reader) = stopped_inside.expect("it stopped inside a frame");
    let total = BATCHES * (LINES_PER_BATCH + 1);
    let (mut lines, mut told, mut events, mut newest) = (0, 0, 0, 0);
    while newest < total {
        let message: Value = slow.next();
        eprintln!("{message}");
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
    node.metric_becomes("danmaku_outbox_bytes", 0.0);
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
    node.metric_becomes("danmaku_outbox_bytes", 0.0);
    reader.send(&json!({"type":"ping"}));
    reader.expect("pong");
}

/// Lines of the viewer that speaks: as many as one may have under way.
const OWN: u64 = 20;

#[test]
fn a_rooms_budget_is_kept_and_told_and_ones_own_line_comes() {
    let node = Node::start(
        "[limits]\nlines_per_s = 100000\nline_burst = 100000\n[rooms]\ndeliver_per_s_max = 20\n",
    );
    let host = node.token(&["--user", "host", "--role", "host"]);
    let mut host = node.connect(&format!("?room=r&token={host}"));
    let mut speaker = node.join("r");
    let mut watcher = node.join("r");
    host.expect("welcome");
    host.expect("joined");
    for _ in 0..OWN {
        speaker.send(&json!({"type":"danmaku","room":"r","text":"mine"}));
    }
    host.send(&json!({"type":"danmaku","room":"r","text":"from the host"}));
    let line =
        json!({"method":"POST","path":"/api/v1/danmaku/push","body":{"room":"r","text":"x"}});
    let batch = json!({ "requests": vec![line; 100] }).to_string();
    for _ in 0..3 {
        assert_eq!(node.api("POST", "/api/v1/batch", &batch).status, 200);
    }
    let gift = json!({"room":"r","type":"event","event":"gift","data":{}}).to_string();
    let gift = node.api("POST", "/api/v1/danmaku/push", &gift).json()["seq"].clone();
    let all = OWN + 300 + 2;
    let watched = account_for(&mut watcher, all);
    assert!(watched.host_spoke);
    assert!(watched.seqs.contains(&gift.as_u64().unwrap()));
    assert!(watched.told > 200, "{}", watched.told);
    let spoken = account_for(&mut speaker, all);
    assert_eq!(spoken.own as u64, OWN, "all of its own");
    assert!(watched.seqs.iter().all(|seq| spoken.seqs.contains(seq)));
    assert!(spoken.told <= watched.told);
    let heard = account_for(&mut host, all);
    assert_eq!(heard.seqs, watched.seqs, "everyone else sees the same");
    // A shard counts after it has written, and another one answers the scrape.
    let told = watched.told + spoken.told + heard.told;
    node.metric_becomes("danmaku_dropped_total{reason=\"sampled\"}", told as f64);
    let body = r#"{"deliver_per_s_max":0}"#;
    assert_eq!(
        node.api("PUT", "/api/v1/rooms/r", body).json()["deliver_per_s_max"],
        0
    );
    assert_eq!(node.api("POST", "/api/v1/batch", &batch).status, 200);
    assert_eq!(account_for(&mut watcher, 100).seqs.len(), 100);
}

/// What a viewer got until everything up to a number was sent or told of.
struct Read {
    seqs: Vec<u64>,
    told: u64,
    /// Lines that say "mine".
    own: usize,
    /// Whether a line of the user `host` was among it.
    host_spoke: bool,
}

/// Reads until so many numbered messages have come or been told of.
fn account_for(viewer: &mut Viewer, all: u64) -> Read {
    let (mut seqs, mut told): (Vec<u64>, u64) = (Vec::new(), 0);
    let (mut own, mut host_spoke) = (0, false);
    while seqs.len() as u64 + told < all {
        let message = viewer.next();
        match message["type"].as_str() {
            Some("danmaku" | "event") => {
                let seq = message["seq"].as_u64().unwrap();
                assert!(seqs.last().is_none_or(|last| seq > *last), "in order");
                seqs.push(seq);
                own += usize::from(message["text"] == "mine");
                host_spoke |= message["user"]["id"] == "host";
            }
            Some("dropped") => {
                told += message["count"].as_u64().unwrap();
                assert!(message["upto"].as_u64() >= seqs.last().copied());
            }
            _ => {}
        }
    }
    assert_eq!(seqs.len() as u64 + told, all);
    Read {
        seqs,
        told,
        own,
        host_spoke,
    }
}
