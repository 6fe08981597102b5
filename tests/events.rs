//! What happens, as it stands in the stream `live:events` for whoever looks later.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::cluster::{joined_cluster, node_with, nodes, say};
use support::redis::Redis;
use support::wait_for;

/// Type, room and object of every entry, oldest first.
fn entries(redis: &Redis) -> Vec<(String, String, Value)> {
    let entries: Vec<(String, Vec<String>)> = redis.ask("XRANGE live:events - +");
    let read = |(_, fields): (String, Vec<String>)| {
        let field = |name: &str| {
            let at = fields.iter().step_by(2).position(|field| field == name);
            fields[at.unwrap() * 2 + 1].clone()
        };
        assert!(!field("node").is_empty());
        let json: Value = serde_json::from_str(&field("json")).unwrap();
        assert_eq!(json["type"], field("type"));
        (field("type"), field("room"), json)
    };
    entries.into_iter().map(read).collect()
}

/// The objects of one type.
fn of_type(redis: &Redis, kind: &str) -> Vec<Value> {
    let of = entries(redis).into_iter().filter(|(it, ..)| it == kind);
    of.map(|(_, _, json)| json).collect()
}

#[test]
fn what_happens_on_any_node_stands_in_the_stream_once() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 2);
    let ann = nodes[0].token(&["--user", "ann", "--name", "Ann"]);
    let mut first = nodes[0].connect(&format!("?room=show&token={ann}"));
    let second = nodes[1].join("show");
    for n in 0..20 {
        say(&mut first, "show", &format!("line {n}"));
    }
    wait_for("all lines are there", || {
        of_type(&redis, "danmaku").len() == 20
    });
    let gift = r#"{"room":"show","type":"event","event":"gift","data":{"n":3}}"#;
    assert_eq!(
        nodes[1].api("POST", "/api/v1/danmaku/push", gift).status,
        200
    );
    drop(second);
    wait_for("one went", || of_type(&redis, "leave").len() == 1);
    let kick = r#"{"user":"ann","reason":"enough"}"#;
    assert_eq!(
        nodes[1].api("POST", "/api/v1/rooms/show/kick", kick).status,
        200
    );
    let out = r#"{"reason":"bye"}"#;
    assert_eq!(
        nodes[0]
            .api("POST", "/api/v1/users/ann/disconnect", out)
            .status,
        200
    );
    assert_eq!(nodes[1].api("DELETE", "/api/v1/rooms/show", "").status, 200);
    wait_for("all of it is there", || of_type(&redis, "close").len() == 1);

    let counts = |kind: &str| of_type(&redis, kind).len();
    assert_eq!(
        [
            "join",
            "leave",
            "danmaku",
            "event",
            "kick",
            "disconnect",
            "close"
        ]
        .map(counts),
        [2, 2, 20, 1, 1, 1, 1],
        "{:?}",
        entries(&redis)
    );
    let lines = of_type(&redis, "danmaku");
    let epoch = &lines[0]["epoch"];
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(
            (
                &line["seq"],
                &line["epoch"],
                &line["text"],
                &line["user"]["name"]
            ),
            (
                &json!(n + 1),
                epoch,
                &json!(format!("line {n}")),
                &json!("Ann")
            )
        );
    }
    let event = &of_type(&redis, "event")[0];
    assert_eq!(
        (&event["event"], &event["data"], &event["seq"]),
        (&json!("gift"), &json!({"n": 3}), &json!(21))
    );
    let joins = of_type(&redis, "join");
    assert!(
        joins
            .iter()
            .any(|join| join["user"] == json!({"id": "ann", "name": "Ann"}))
    );
    assert!(joins.iter().any(|join| join["user"] == Value::Null));
    let kick = &of_type(&redis, "kick")[0];
    assert_eq!(
        (&kick["user"], &kick["reason"]),
        (&json!("ann"), &json!("enough"))
    );
    for (_, room, json) in entries(&redis) {
        assert_eq!(json["room"].as_str().unwrap_or_default(), room);
        assert!(json["ts"].as_u64().unwrap() > 1_700_000_000_000);
    }
    assert_eq!(nodes[0].metric("danmaku_events_stream_lost_total"), 0.0);
}

#[test]
fn what_happened_while_redis_was_away_comes_when_it_is_back() {
    let mut redis = Redis::start(&[]);
    let node = node_with(&redis, "");
    joined_cluster(&node);
    let mut viewer = node.join("alone");
    wait_for("it has come", || of_type(&redis, "join").len() == 1);
    redis.kill();
    for n in 0..50 {
        say(&mut viewer, "alone", &format!("{n}"));
        while viewer.next()["type"] != "danmaku" {}
    }
    wait_for("they wait", || {
        node.metric("danmaku_events_stream_waiting") > 0.0
    });
    redis.restart();
    wait_for("they have come", || of_type(&redis, "danmaku").len() >= 50);
    let lines = of_type(&redis, "danmaku");
    let texts: Vec<_> = lines.iter().map(|line| line["text"].clone()).collect();
    assert_eq!(
        texts,
        (0..50).map(|n| json!(n.to_string())).collect::<Vec<_>>()
    );
    assert_eq!(node.metric("danmaku_events_stream_lost_total"), 0.0);
}

#[test]
fn the_stream_is_bounded_and_may_be_none() {
    let redis = Redis::start(&[]);
    let bounded = node_with(&redis, "[events]\nstream_max = 100\n");
    joined_cluster(&bounded);
    let mut viewer = bounded.join("much");
    for n in 0..1000 {
        say(&mut viewer, "much", "x");
        if n % 16 == 15 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    wait_for("all were written", || {
        bounded.metric("danmaku_events_streamed_total") >= 1001.0
    });
    let length: u64 = redis.ask("XLEN live:events");
    assert!((100..=250).contains(&length), "{length}");

    let redis = Redis::start(&[]);
    let silent = node_with(&redis, "[events]\nstream_max = 0\n");
    joined_cluster(&silent);
    let mut viewer = silent.join("quiet");
    say(&mut viewer, "quiet", "x");
    while viewer.next()["type"] != "danmaku" {}
    assert_eq!(redis.ask::<u64>("EXISTS live:events"), 0);
}
