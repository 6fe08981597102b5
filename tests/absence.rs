//! What becomes of several nodes when their Redis is away, and after it: lines go on, numberings find back, counts are whole.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::cluster::{counted, epoch, is_ready, joined_cluster, lines, node, nodes, room, say};
use support::redis::Redis;
use support::{Viewer, wait_for};

#[test]
fn a_lost_connection_loses_no_line_and_begins_no_numbering() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 2);
    let mut viewers: Vec<Viewer> = nodes.iter().map(|node| node.join("cut")).collect();
    // A connection that has not been good for a while is not made anew at once.
    std::thread::sleep(Duration::from_millis(1200));
    let mut said = 0;
    for kind in ["pubsub", "normal", "pubsub"] {
        for n in 0..60 {
            if n == 20 {
                let killed: u64 = redis.ask(&format!("CLIENT KILL TYPE {kind} SKIPME yes"));
                assert!(killed >= 2, "{killed} {kind}");
            }
            for viewer in &mut viewers {
                say(viewer, "cut", &said.to_string());
                said += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(1200));
    }
    // An `epoch` or `dropped` would fail this.
    let first = lines(&mut viewers[0], said);
    let numbers: Vec<u64> = first.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, (1..=said as u64).collect::<Vec<_>>());
    assert_eq!(lines(&mut viewers[1], said), first);
}

#[test]
fn without_redis_a_node_goes_on_by_itself_and_finds_back() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 2);
    let mut viewers: Vec<Viewer> = nodes.iter().map(|node| node.join("stop")).collect();
    say(&mut viewers[0], "stop", "before");
    for viewer in &mut viewers {
        assert_eq!(lines(viewer, 1), [(1, "before".to_owned())]);
    }
    let shared = room(&nodes[0], "stop")["epoch"].as_u64().unwrap();
    for round in 0..2 {
        redis.signal("STOP");
        // Said into the silence: it waits until the node gives up waiting, and is delivered and acked.
        for (at, viewer) in viewers.iter_mut().enumerate() {
            let text = format!("{round} alone {at}");
            viewer.send(&json!({"type": "danmaku", "room": "stop", "text": text, "id": 7}));
            // The ack goes a way of its own and may come first.
            let all = std::iter::repeat_with(|| viewer.next());
            let news = all.filter(|value| value["type"] != "online").take(3);
            let mut news: Vec<Value> = news.collect();
            news.sort_by_key(|value| value["type"].to_string());
            assert_eq!(
                (&news[0]["type"], &news[0]["seq"]),
                (&json!("ack"), &json!(1))
            );
            assert_eq!(
                (&news[1]["text"], &news[1]["seq"]),
                (&json!(text), &json!(1))
            );
            assert_eq!(
                (&news[2]["type"], &news[2]["seq"]),
                (&json!("epoch"), &json!(0))
            );
            assert_ne!(news[2]["epoch"], shared);
            assert_eq!(news[0]["epoch"], news[2]["epoch"]);
        }
        for node in &nodes {
            let ready = node.public("GET", "/readyz", &[], "");
            assert_eq!(
                (ready.status, ready.json()["code"].clone()),
                (503, json!("cut_off"))
            );
            assert_eq!(
                node.metric("danmaku_redis_breaker_opened_total"),
                f64::from(round + 1)
            );
        }
        redis.signal("CONT");
        for viewer in &mut viewers {
            assert_eq!(epoch(viewer).0, shared);
        }
        let text = format!("{round} together");
        say(&mut viewers[0], "stop", &text);
        for viewer in &mut viewers {
            assert_eq!(lines(viewer, 1)[0].1, text);
        }
        for node in &nodes {
            joined_cluster(node);
        }
    }
}

#[test]
fn counts_are_never_wrong_after_an_absence_longer_than_every_lease() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 3);
    let mut viewers: Vec<Viewer> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        // One user is on every node, one on this alone.
        for user in ["ann".to_owned(), format!("u{at}")] {
            let token = node.token(&["--user", &user]);
            viewers.push(node.connect(&format!("?room=away&token={token}")));
        }
        viewers.push(node.connect("?room=away"));
    }
    let whole = (9, 4);
    wait_for("all are counted", || counted(&redis, "away") == whole);
    let names = || redis.ask::<Vec<String>>("HKEYS live:part:{live:room:away}");
    let before = names();
    redis.signal("STOP");
    std::thread::sleep(Duration::from_millis(2500));
    redis.signal("CONT");
    wait_for("all count anew, and what they were is forgotten", || {
        assert_eq!(counted(&redis, "away"), whole);
        let nodes: usize = redis.ask("ZCARD live:nodes");
        nodes == 3 && names().iter().all(|name| !before.contains(name))
    });
    for node in &nodes {
        assert_eq!(room(node, "away")["online"], 9);
    }
}

#[test]
fn a_redis_that_takes_nothing_counts_as_away_until_it_does() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 1);
    let mut viewer = nodes[0].join("full");
    for (refuses, takes) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    ] {
        let _: () = redis.ask(refuses);
        say(&mut viewer, "full", refuses);
        epoch(&mut viewer);
        assert_eq!(lines(&mut viewer, 1), [(1, refuses.to_owned())]);
        // It stays away, and does not come and go.
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!is_ready(&nodes[0]));
        assert!(viewer.is_quiet_for(Duration::from_millis(100)));
        let _: () = redis.ask(takes);
        epoch(&mut viewer);
        joined_cluster(&nodes[0]);
    }
    assert_eq!(nodes[0].metric("danmaku_redis_breaker_opened_total"), 2.0);
}

#[test]
fn a_redis_that_was_emptied_is_filled_again() {
    let mut redis = Redis::start(&[]);
    let nodes = nodes(&redis, 2);
    let ann = nodes[0].token(&["--user", "ann"]);
    let mut viewers = vec![
        nodes[0].connect(&format!("?room=anew&token={ann}")),
        nodes[1].join("anew"),
    ];
    viewers[0].expect("welcome");
    let before = viewers[0].expect("joined")["epoch"].as_u64().unwrap();
    wait_for("both are counted", || counted(&redis, "anew") == (2, 1));
    redis.kill();
    for viewer in &mut viewers {
        say(viewer, "anew", "x");
        epoch(viewer);
        lines(viewer, 1);
    }
    redis.restart();
    let after: Vec<u64> = viewers.iter_mut().map(|viewer| epoch(viewer).0).collect();
    assert!(after[0] == after[1] && after[0] != before);
    wait_for("both are counted again", || {
        counted(&redis, "anew") == (2, 1)
    });
    say(&mut viewers[1], "anew", "together");
    for viewer in &mut viewers {
        assert_eq!(lines(viewer, 1)[0].1, "together");
    }
}

#[test]
fn a_node_starts_without_its_redis() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let node = node(&redis);
    let mut viewer = node.join("early");
    say(&mut viewer, "early", "alone");
    assert_eq!(lines(&mut viewer, 1), [(1, "alone".to_owned())]);
    assert!(!is_ready(&node));
    redis.restart();
    epoch(&mut viewer);
    joined_cluster(&node);
    say(&mut viewer, "early", "shared");
    assert_eq!(lines(&mut viewer, 1)[0].1, "shared");
    wait_for("its viewer is counted", || counted(&redis, "early").0 == 1);
}

#[test]
fn a_numbering_that_redis_forgot_begins_anew_and_no_line_is_lost() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 2);
    let mut viewers: Vec<Viewer> = nodes.iter().map(|node| node.join("forgot")).collect();
    say(&mut viewers[0], "forgot", "before");
    for viewer in &mut viewers {
        assert_eq!(lines(viewer, 1), [(1, "before".to_owned())]);
    }
    let _: u64 = redis.ask("DEL live:seq:{live:room:forgot} live:log:{live:room:forgot}");
    for (at, text) in [(0, "one"), (1, "two")] {
        say(&mut viewers[at], "forgot", text);
    }
    for viewer in &mut viewers {
        assert_eq!(epoch(viewer).1, 0);
        let mut both = lines(viewer, 2);
        assert_eq!((both[0].0, both[1].0), (1, 2));
        both.sort_by(|a, b| a.1.cmp(&b.1));
        assert_eq!((&*both[0].1, &*both[1].1), ("one", "two"));
    }
}

#[test]
fn after_a_silence_the_first_words_are_heard() {
    let redis = Redis::start(&[]);
    let node = node(&redis);
    joined_cluster(&node);
    let published = || {
        let all: String = redis.ask("INFO commandstats");
        let calls = all.split("cmdstat_publish:calls=").nth(1).unwrap();
        let calls = calls.split(',').next().unwrap();
        calls.parse::<u64>().unwrap()
    };
    let before = published();
    redis.signal("STOP");
    // The node waits in vain many times for something to hear.
    std::thread::sleep(Duration::from_secs(6));
    redis.signal("CONT");
    joined_cluster(&node);
    // It takes a few words of its own to trust its Redis again, not one for each time it waited.
    let words = published() - before;
    assert!(words < 12, "{words}");
}
