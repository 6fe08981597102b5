//! One order per room, on every shard, while others join and leave: no line lost, none twice, for members that keep up.
//!
//! `ORDER_LINES` sets how many lines (30,000 without it; the proof in docs/bench was made with 1,000,000).

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Node, PATIENCE, Viewer};
use tungstenite::Message;

const MEMBERS: usize = 8;
const CHURNERS: usize = 4;
const PUBLISHERS: u64 = 4;
/// Publishers wait when the slowest member is further behind than this: these members keep up by construction.
const AHEAD_MAX: u64 = 4_000;

/// How far each member has read.
type Progress = Arc<Vec<AtomicU64>>;

fn lines_wanted() -> u64 {
    let lines = std::env::var("ORDER_LINES").ok();
    let lines: u64 = lines.map_or(30_000, |text| text.parse().expect("a number of lines"));
    lines - lines % (PUBLISHERS * 100)
}

/// The number after `"seq":`, without parsing the rest.
fn seq_of(line: &str) -> u64 {
    let from = line.find("\"seq\":").expect("a seq") + 6;
    let digits = line[from..].find(|c: char| !c.is_ascii_digit()).unwrap();
    line[from..from + digits].parse().unwrap()
}

/// Reads frames until `take` says that it has enough; it gets every object that is no `online` count.
fn read_while(viewer: &mut Viewer, mut take: impl FnMut(&str) -> bool) {
    loop {
        let Message::Text(text) = viewer.socket.read().expect("a frame") else {
            continue;
        };
        for line in text
            .lines()
            .filter(|line| !line.starts_with("{\"type\":\"online\""))
        {
            if !take(line) {
                return;
            }
        }
    }
}

fn member(node: &Node, index: usize, lines: u64, progress: &Progress) -> thread::JoinHandle<()> {
    let protocol = ["danmaku.v1", "danmaku.v1.batch"][index % 2];
    let mut viewer = Viewer::connect(
        node.public,
        "?room=order",
        &[("Sec-WebSocket-Protocol", protocol)],
    );
    viewer.expect("welcome");
    assert_eq!(viewer.expect("joined")["seq"], 0);
    let progress = Arc::clone(progress);
    thread::spawn(move || {
        let mut last = 0;
        read_while(&mut viewer, |line| {
            assert!(
                line.starts_with("{\"type\":\"danmaku\""),
                "member {index}: {line}"
            );
            let seq = seq_of(line);
            assert_eq!(seq, last + 1, "member {index} ({protocol})");
            last = seq;
            progress[index].store(seq, Ordering::Relaxed);
            seq < lines
        });
    })
}

/// Joins, reads some lines, leaves, comes back with what it saw last, for as long as lines come.
fn churner(node: &Node, index: usize, over: &Arc<AtomicBool>) -> thread::JoinHandle<(u64, u64)> {
    // An admin, because nobody else may join and leave as fast as this.
    let token = node.token(&["--user", "churner", "--role", "admin"]);
    let mut viewer = node.connect(&format!("?token={token}"));
    viewer.expect("welcome");
    let over = Arc::clone(over);
    thread::spawn(move || {
        let (mut joins, mut recoveries) = (0, 0);
        let mut seen: Option<(u64, u64)> = None;
        while !over.load(Ordering::Relaxed) {
            let mut join = json!({"type":"join","room":"order"});
            if let Some((epoch, seq)) = seen {
                join["epoch"] = epoch.into();
                join["seq"] = seq.into();
            }
            viewer.send(&join);
            let joined = viewer.expect("joined");
            joins += 1;
            let mut last = joined["seq"].as_u64().unwrap();
            if joined["recovered"] == true {
                recoveries += 1;
                let mut from = seen.expect("a resume").1;
                for message in joined["messages"].as_array().unwrap() {
                    assert_eq!(message["seq"], from + 1, "churner {index}, recovered");
                    from += 1;
                }
                assert_eq!(from, last, "churner {index}, recovered");
            }
            // What comes after `joined` begins right behind it.
            viewer.send(&json!({"type":"ping"}));
            read_while(&mut viewer, |line| {
                if line.starts_with("{\"type\":\"pong\"") {
                    return false;
                }
                assert_eq!(seq_of(line), last + 1, "churner {index}: {line}");
                last += 1;
                true
            });
            viewer.send(&json!({"type":"leave","room":"order"}));
            read_while(&mut viewer, |line| {
                if line.starts_with("{\"type\":\"left\"") {
                    return false;
                }
                assert_eq!(seq_of(line), last + 1, "churner {index}, leaving: {line}");
                last += 1;
                true
            });
            seen = Some((joined["epoch"].as_u64().unwrap(), last));
        }
        (joins, recoveries)
    })
}

/// Holds a publisher back while the slowest member is too far behind what has been sent. A member that stands still for
/// longer than patience has failed: it has said why.
fn keep_pace(sent: &AtomicU64, progress: &Progress) {
    let begun = Instant::now();
    loop {
        let slowest = progress
            .iter()
            .map(|p| p.load(Ordering::Relaxed))
            .min()
            .unwrap();
        if sent.load(Ordering::Relaxed) < slowest + AHEAD_MAX {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "stuck behind {slowest}");
        thread::sleep(Duration::from_micros(200));
    }
}

fn speaker(
    node: &Node,
    lines: u64,
    sent: &Arc<AtomicU64>,
    progress: &Progress,
) -> thread::JoinHandle<()> {
    let token = node.token(&["--user", "speaker", "--role", "admin"]);
    let mut viewer = node.connect(&format!("?token={token}"));
    viewer.expect("welcome");
    let (sent, progress) = (Arc::clone(sent), Arc::clone(progress));
    thread::spawn(move || {
        // As many as may wait for an answer; the ack of the last stands for all.
        const WINDOW: u64 = 20;
        let mut said = 0;
        while said < lines {
            keep_pace(&sent, &progress);
            for n in 0..WINDOW {
                let mut line =
                    json!({"type":"danmaku","room":"order","text":"a line among a million"});
                if n + 1 == WINDOW {
                    line["id"] = n.into();
                }
                viewer.send(&line);
            }
            viewer.expect("ack");
            said += WINDOW;
            sent.fetch_add(WINDOW, Ordering::Relaxed);
        }
    })
}

fn pusher(node: &Node, lines: u64, sent: &Arc<AtomicU64>, progress: &Progress) {
    let request = json!({"method":"POST","path":"/api/v1/danmaku/push","body":{"room":"order","text":"pushed"}});
    let batch = json!({"requests": vec![request; 100]}).to_string();
    for _ in 0..lines / 100 {
        keep_pace(sent, progress);
        let answer = node.api("POST", "/api/v1/batch", &batch);
        let answer = answer.json();
        let responses = answer["responses"].as_array().unwrap();
        assert!(responses.iter().all(|response| response["status"] == 200));
        sent.fetch_add(100, Ordering::Relaxed);
    }
}

#[test]
fn every_member_gets_every_line_once_in_one_order() {
    let node = Node::start(
        "[server]\nshards = 3\n[rooms]\nlog_bytes_max = \"4MiB\"\nhistory_lines = 500\n",
    );
    let lines = lines_wanted();
    let progress: Progress = Arc::new((0..MEMBERS).map(|_| AtomicU64::new(0)).collect());
    let sent = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let members: Vec<_> = (0..MEMBERS)
        .map(|i| member(&node, i, lines, &progress))
        .collect();
    let churners: Vec<_> = (0..CHURNERS).map(|i| churner(&node, i, &over)).collect();
    let share = lines / PUBLISHERS;
    let speakers: Vec<_> = (1..PUBLISHERS)
        .map(|_| speaker(&node, share, &sent, &progress))
        .collect();
    pusher(&node, share, &sent, &progress);
    for speaker in speakers {
        speaker.join().expect("a speaker");
    }
    for member in members {
        member.join().expect("a member");
    }
    over.store(true, Ordering::Relaxed);
    let (mut joins, mut recoveries) = (0, 0);
    for churner in churners {
        let (joined, recovered) = churner.join().expect("a churner");
        joins += joined;
        recoveries += recovered;
    }
    println!(
        "{lines} lines to {MEMBERS} members on 3 shards; {joins} joins, {recoveries} recovered"
    );
    assert!(
        joins > 10 && recoveries > 0,
        "{joins} joins, {recoveries} recovered"
    );
    assert_eq!(node.metric("danmaku_lines_total"), lines as f64);
    assert_eq!(node.metric("danmaku_dropped_total{reason=\"slow\"}"), 0.0);
}
