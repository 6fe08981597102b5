//! What happens in a room, as figures for who runs it: on one node, on several, and as they stand in Redis.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::cluster::{node, nodes, say};
use support::redis::Redis;
use support::{Node, Viewer, wait_for};

fn moderator(node: &Node, query: &str) -> Viewer {
    let token = node.token(&["--user", "mod", "--role", "moderator"]);
    let mut viewer = node.connect(&format!("?token={token}{query}"));
    viewer.expect("welcome");
    viewer
}

/// The next figures that are as wanted.
fn shown(viewer: &mut Viewer, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let value = viewer.next();
        if value["type"] == "stats" && is_so(&value) {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{what}: {value}");
    }
}

#[test]
fn who_runs_a_room_is_shown_what_happens_in_it() {
    let node = Node::start("[limits]\nlines_per_s = 1000\nline_burst = 1000\n");
    let mut moderator = moderator(&node, "");
    moderator.send(&json!({"type": "stats", "room": "show", "id": 7}));
    let first = moderator.expect("stats");
    assert_eq!(
        first,
        json!({
            "type": "stats", "id": 7, "room": "show", "ts": first["ts"], "viewers": 0,
            "joins_per_min": 0, "leaves_per_min": 0, "lines_per_s": 0.0, "top_speakers": [],
        })
    );

    let ann = node.token(&["--user", "ann", "--name", "Ann \"A\""]);
    let mut speaker = node.connect(&format!("?room=show&token={ann}"));
    let mut other = node.join("show");
    for _ in 0..5 {
        say(&mut speaker, "show", "hello");
    }
    say(&mut other, "show", "hi");
    let stats = shown(&mut moderator, "two came and six lines", |stats| {
        (&stats["viewers"], &stats["lines_per_s"]) == (&json!(2), &json!(1.2))
    });
    assert_eq!(
        (&stats["joins_per_min"], &stats["leaves_per_min"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(
        stats["top_speakers"],
        json!([{"user": {"id": "ann", "name": "Ann \"A\""}, "lines": 5}])
    );
    assert_eq!(stats.get("id"), None);
    drop(other);
    shown(&mut moderator, "one went", |stats| {
        stats["leaves_per_min"] == 1
    });

    // Once a second when nothing changes, and no more when it is wanted no more.
    for _ in 0..2 {
        let before = Instant::now();
        shown(&mut moderator, "again", |_| true);
        assert!(before.elapsed() > Duration::from_millis(500));
    }
    moderator.send(&json!({"type": "stats", "room": "show", "on": false, "id": 8}));
    shown(&mut moderator, "off", |stats| {
        stats["on"] == false && stats["id"] == 8
    });
    assert!(moderator.is_quiet_for(Duration::from_millis(1500)));

    // The room ends: who looks is told.
    moderator.send(&json!({"type": "stats", "room": "show"}));
    shown(&mut moderator, "on", |_| true);
    assert_eq!(node.api("DELETE", "/api/v1/rooms/show", "").status, 200);
    let begun = Instant::now();
    while moderator.next()["code"] != "room_closed" {
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn figures_are_for_who_runs_the_room() {
    let node = Node::start("");
    let refused = |viewer: &mut Viewer, room: &str, code: &str| {
        viewer.send(&json!({"type": "stats", "room": room, "id": 1}));
        let error = viewer.expect("error");
        assert_eq!(
            (&error["code"], &error["id"]),
            (&json!(code), &json!(1)),
            "{error}"
        );
    };
    let mut anonymous = node.connect("");
    anonymous.expect("welcome");
    refused(&mut anonymous, "a", "forbidden");
    let with = |role: &str, room: &str| {
        let token = node.token(&["--user", "u", "--role", role, "--room", room]);
        let mut viewer = node.connect(&format!("?token={token}"));
        viewer.expect("welcome");
        viewer
    };
    refused(&mut with("viewer", "a"), "a", "forbidden");
    refused(&mut with("host", "a"), "b", "room_forbidden");
    for role in ["host", "moderator", "admin"] {
        let mut viewer = with(role, "a");
        viewer.send(&json!({"type": "stats", "room": "a"}));
        viewer.expect("stats");
        viewer.send(&json!({"type": "stats", "room": "a", "on": "yes"}));
        let begun = Instant::now();
        while viewer.next()["code"] != "bad_message" {
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    }
}

#[test]
fn figures_are_those_of_all_nodes_and_stand_in_redis() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 3);
    // One that is not in the room, on a node that nobody else is on.
    let mut moderator = moderator(&nodes[0], "");
    let _early = nodes[1].join("far");
    moderator.send(&json!({"type": "stats", "room": "far"}));
    shown(&mut moderator, "who was there before", |stats| {
        stats["viewers"] == 1
    });
    let mut viewers: Vec<Viewer> = (0..6).map(|n| nodes[1 + n % 2].join("far")).collect();
    shown(&mut moderator, "six more", |stats| {
        (&stats["viewers"], &stats["joins_per_min"]) == (&json!(7), &json!(7))
    });
    for (name, lines) in [("ann", 4), ("bob", 2)] {
        for node in &nodes[1..] {
            let token = node.token(&["--user", name]);
            let mut viewer = node.connect(&format!("?room=far&token={token}"));
            for _ in 0..lines {
                say(&mut viewer, "far", "x");
            }
            viewers.push(viewer);
        }
    }
    // A line by way of a node that has nobody in the room counts too.
    let body = r#"{"room":"far","text":"pushed","user":{"id":"bob"}}"#;
    assert_eq!(
        nodes[0].api("POST", "/api/v1/danmaku/push", body).status,
        200
    );
    let stats = shown(&mut moderator, "who spoke most", |stats| {
        let lines = |at: usize| stats["top_speakers"][at]["lines"].as_u64();
        (lines(0), lines(1)) == (Some(8), Some(5))
    });
    assert_eq!(stats["top_speakers"][0]["user"]["id"], "ann");

    // Kept in Redis, a part for each node, within its five seconds.
    wait_for("all of it stands in Redis", || {
        let parts: Vec<String> = redis.ask("HVALS live:stats:{live:room:far}");
        let parts = parts
            .iter()
            .map(|part| serde_json::from_str::<Value>(part).unwrap());
        let viewers: u64 = parts.map(|part| part["viewers"].as_u64().unwrap()).sum();
        viewers == 11
    });

    // A node that dies takes its part with it, and one that is not looked at any more is told so.
    drop(nodes);
    let again = node(&redis);
    support::cluster::joined_cluster(&again);
    wait_for("nothing of them is left", || {
        redis
            .ask::<Vec<String>>("HVALS live:stats:{live:room:far}")
            .is_empty()
    });
}

/// Whether no figures come for a while, whatever else does.
fn sees_nothing(viewer: &mut Viewer) {
    viewer.send(&json!({"type": "ping"}));
    while viewer.next()["type"] != "pong" {}
    assert!(viewer.is_quiet_for(Duration::from_millis(1500)));
}

#[test]
fn figures_end_with_the_role_with_the_wish_and_with_the_room() {
    let node = Node::start("");
    let viewer = node.token(&["--user", "mod"]);
    // Asked for and given up in one breath, and asked for by one who is no moderator any more.
    let mut hasty = moderator(&node, "");
    hasty.send(&json!({"type": "stats", "room": "a"}));
    hasty.send(&json!({"type": "stats", "room": "a", "on": false}));
    shown(&mut hasty, "off", |stats| stats["on"] == false);
    sees_nothing(&mut hasty);
    let mut demoted = moderator(&node, "");
    demoted.send(&json!({"type": "stats", "room": "a"}));
    demoted.send(&json!({"type": "auth", "token": viewer}));
    demoted.expect("authed");
    sees_nothing(&mut demoted);
    // Not of that room any more.
    let elsewhere = node.token(&["--user", "mod", "--role", "moderator", "--room", "b"]);
    let mut narrowed = moderator(&node, "");
    narrowed.send(&json!({"type": "stats", "room": "a"}));
    narrowed.expect("stats");
    narrowed.send(&json!({"type": "auth", "token": elsewhere}));
    let begun = Instant::now();
    while narrowed.next()["code"] != "room_forbidden" {
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    sees_nothing(&mut narrowed);
    // Rooms that were closed take no place.
    let mut many = moderator(&node, "");
    for n in 0..40 {
        let room = format!("gone-{n}");
        many.send(&json!({"type": "stats", "room": room}));
        let begun = Instant::now();
        while many.next()["room"] != room.as_str() {
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        assert_eq!(
            node.api("DELETE", &format!("/api/v1/rooms/{room}"), "")
                .status,
            200
        );
        while many.next()["code"] != "room_closed" {}
        // Under the bound for commands.
        std::thread::sleep(Duration::from_millis(30));
    }
}
