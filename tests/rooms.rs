//! Viewers and rooms over real sockets: every message of docs/PROTOCOL.md, with tungstenite's client.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Node, Viewer};

#[test]
fn a_viewer_joins_by_url_and_speaks() {
    let node = Node::start("");
    let mut alice = node.connect("?room=1001");
    let welcome = alice.next();
    assert_eq!(welcome["type"], "welcome");
    assert_eq!(welcome["user"], Value::Null);
    assert_eq!(welcome["heartbeat_ms"], 30_000);
    assert!(
        welcome["server"]
            .as_str()
            .unwrap()
            .starts_with("danmaku-gateway/")
    );
    assert!(!welcome["connection"].as_str().unwrap().is_empty());
    let joined = alice.next();
    assert_eq!(joined["type"], "joined");
    assert_eq!(joined["room"], "1001");
    assert_eq!(joined["online"], 1);
    assert_eq!(joined["seq"], 0);
    assert_eq!(joined["recovered"], false);
    assert!(joined["epoch"].as_u64().unwrap() > 0);

    let mut bob = node.join("1001");
    alice.send(&json!({"type":"danmaku","room":"1001","text":"  hi \u{7} there ","id":"x-1"}));
    let ack = alice.expect("ack");
    assert_eq!(ack, json!({"type":"ack","id":"x-1","room":"1001","seq":1}));
    for viewer in [&mut alice, &mut bob] {
        let line = viewer.expect("danmaku");
        assert_eq!(line["room"], "1001");
        assert_eq!(line["seq"], 1);
        assert_eq!(line["user"], Value::Null);
        assert_eq!(line["text"], "hi  there");
        assert_eq!(
            line["style"],
            json!({"color":"#ffffff","mode":"scroll","size":25})
        );
        assert!(line["ts"].as_u64().unwrap() > 1_600_000_000_000);
    }
}

#[test]
fn without_an_id_there_is_no_ack() {
    let node = Node::start("");
    let mut alice = node.join("a");
    alice.send(&json!({"type":"danmaku","room":"a","text":"one"}));
    alice.send(&json!({"type":"danmaku","room":"a","text":"two","id":7,"style":{"color":"#00ff00","mode":"top","size":30}}));
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let value = alice.next();
        if value["type"] != "online" {
            seen.push(value);
        }
    }
    let of = |kind: &str| -> Vec<&Value> { seen.iter().filter(|v| v["type"] == kind).collect() };
    assert_eq!(of("ack").len(), 1);
    assert_eq!(
        (&of("ack")[0]["id"], &of("ack")[0]["seq"]),
        (&json!(7), &json!(2))
    );
    assert_eq!(of("danmaku")[0]["text"], "one");
    let two = of("danmaku")[1];
    assert_eq!(
        two["style"],
        json!({"color":"#00ff00","mode":"top","size":30})
    );
}

#[test]
fn many_rooms_on_one_connection() {
    let node = Node::start("[limits]\nrooms_per_connection_max = 3\n");
    let mut viewer = node.connect("?room=r1&room=r2");
    viewer.expect("welcome");
    let mut rooms = vec![
        viewer.expect("joined")["room"]
            .as_str()
            .unwrap()
            .to_string(),
        viewer.expect("joined")["room"]
            .as_str()
            .unwrap()
            .to_string(),
    ];
    rooms.sort();
    assert_eq!(rooms, ["r1", "r2"]);
    viewer.send(&json!({"type":"join","room":"r3","id":3}));
    let joined = viewer.expect("joined");
    assert_eq!((&joined["id"], &joined["room"]), (&json!(3), &json!("r3")));
    viewer.send(&json!({"type":"join","room":"r4","id":4}));
    let error = viewer.expect("error");
    assert_eq!(
        (&error["id"], &error["code"]),
        (&json!(4), &json!("too_many_rooms"))
    );
    viewer.send(&json!({"type":"join","room":"r3","id":5}));
    assert_eq!(viewer.expect("error")["code"], "already_joined");

    let mut other = node.join("r3");
    viewer.send(&json!({"type":"leave","room":"r3","id":6}));
    assert_eq!(
        viewer.expect("left"),
        json!({"type":"left","id":6,"room":"r3"})
    );
    other.send(&json!({"type":"danmaku","room":"r3","text":"still here?"}));
    other.expect("danmaku");
    viewer.send(&json!({"type":"danmaku","room":"r3","text":"no","id":7}));
    let error = viewer.expect("error");
    assert_eq!(
        (&error["id"], &error["code"]),
        (&json!(7), &json!("not_joined"))
    );
    viewer.send(&json!({"type":"leave","room":"r3","id":8}));
    assert_eq!(viewer.expect("error")["code"], "not_joined");
    viewer.send(&json!({"type":"join","room":"r3","id":9}));
    assert_eq!(viewer.expect("joined")["online"], 2);
}

#[test]
fn ping_is_answered() {
    let node = Node::start("");
    let mut viewer = node.connect("");
    viewer.expect("welcome");
    viewer.send(&json!({"type":"ping"}));
    assert!(viewer.expect("pong")["ts"].as_u64().unwrap() > 1_600_000_000_000);
    viewer
        .socket
        .send(tungstenite::Message::Ping(b"abc".to_vec().into()))
        .unwrap();
    let pong = viewer.socket.read().unwrap();
    assert_eq!(pong, tungstenite::Message::Pong(b"abc".to_vec().into()));
}

#[test]
fn resume_gives_exactly_what_was_missed() {
    let node = Node::start(
        "[rooms]\nhistory_lines = 5\n[limits]\nlines_per_s = 1000\nline_burst = 1000\n",
    );
    let mut alice = node.connect("?room=r");
    alice.expect("welcome");
    let epoch = alice.expect("joined")["epoch"].clone();
    let say = |alice: &mut Viewer, text: &str| {
        alice.send(&json!({"type":"danmaku","room":"r","text":text}));
        alice.expect("danmaku")["seq"].as_u64().unwrap()
    };
    for n in 1..=4 {
        assert_eq!(say(&mut alice, &format!("l{n}")), n);
    }
    let mut back = node.connect("");
    back.expect("welcome");
    let rejoin = |back: &mut Viewer, epoch: &Value, seq: u64| {
        back.send(&json!({"type":"join","room":"r","epoch":epoch,"seq":seq,"id":1}));
        let joined = back.expect("joined");
        back.send(&json!({"type":"leave","room":"r"}));
        back.expect("left");
        joined
    };
    let seqs = |joined: &Value| -> Vec<u64> {
        let messages = joined["messages"].as_array().unwrap();
        messages
            .iter()
            .map(|m| m["seq"].as_u64().unwrap())
            .collect()
    };
    let joined = rejoin(&mut back, &epoch, 2);
    assert_eq!(joined["recovered"], true);
    assert_eq!(joined["seq"], 4);
    assert_eq!(seqs(&joined), [3, 4]);
    assert_eq!(joined["messages"][0]["text"], "l3");

    let joined = rejoin(&mut back, &epoch, 4);
    assert_eq!(
        (&joined["recovered"], seqs(&joined)),
        (&json!(true), vec![])
    );
    for n in 5..=9 {
        say(&mut alice, &format!("l{n}"));
    }
    let joined = rejoin(&mut back, &epoch, 4);
    assert_eq!(
        (&joined["recovered"], seqs(&joined)),
        (&json!(true), vec![5, 6, 7, 8, 9])
    );
    let joined = rejoin(&mut back, &epoch, 3);
    assert_eq!(joined["recovered"], false, "line 4 is past the history");
    assert!(joined.get("messages").is_none());
    let joined = rejoin(&mut back, &json!(12345), 9);
    assert_eq!(joined["recovered"], false, "another epoch");
    let joined = rejoin(&mut back, &epoch, 99);
    assert_eq!(joined["recovered"], false, "from the future");
}

#[test]
fn online_counts_are_told_once_a_second_on_change() {
    let node = Node::start("");
    let mut alice = node.join("r");
    let others: Vec<Viewer> = (0..5).map(|_| node.join("r")).collect();
    let mut counts = Vec::new();
    while counts.last() != Some(&6) {
        let value = alice.next();
        assert_eq!(value["type"], "online");
        assert_eq!(value["room"], "r");
        counts.push(value["count"].as_u64().unwrap());
    }
    assert!(counts.len() <= 3, "{counts:?}");
    drop(others);
    assert_eq!(alice.next()["count"], 1);
    assert!(alice.is_quiet_for(Duration::from_millis(1500)));
}

#[test]
fn the_batch_protocol_puts_several_objects_into_a_frame() {
    let node =
        Node::start("[rooms]\ntick = \"200ms\"\n[limits]\nlines_per_s = 1000\nline_burst = 1000\n");
    let mut plain = node.join("r");
    let mut batch = Viewer::connect(
        node.public,
        "?room=r",
        &[("Sec-WebSocket-Protocol", "danmaku.v1.batch, danmaku.v1")],
    );
    assert_eq!(batch.protocol.as_deref(), Some("danmaku.v1.batch"));
    batch.expect("welcome");
    batch.expect("joined");
    batch.send_text(
        "{\"type\":\"danmaku\",\"room\":\"r\",\"text\":\"a\"}\n{\"type\":\"danmaku\",\"room\":\"r\",\"text\":\"b\"}\n",
    );
    plain.send(&json!({"type":"danmaku","room":"r","text":"c"}));
    let mut frames = 0;
    let mut lines = 0;
    while lines < 3 {
        if let tungstenite::Message::Text(text) = batch.socket.read().unwrap() {
            frames += 1;
            lines += text
                .lines()
                .filter(|line| line.contains("\"danmaku\""))
                .count();
        }
    }
    assert!(
        frames < 3,
        "three lines within one tick came in {frames} frames"
    );
    let seqs: Vec<u64> = (0..3)
        .map(|_| plain.expect("danmaku")["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[test]
fn a_tokens_user_is_named_and_its_role_counts() {
    let node = Node::start("[limits]\nlines_per_s = 2\nline_burst = 2\n");
    let token = node.token(&["--user", "u7", "--name", "Ümit \"7\""]);
    let mut viewer = node.connect(&format!("?room=r&token={token}"));
    assert_eq!(
        viewer.expect("welcome")["user"],
        json!({"id":"u7","name":"Ümit \"7\""})
    );
    viewer.expect("joined");
    viewer.send(&json!({"type":"danmaku","room":"r","text":"me"}));
    assert_eq!(
        viewer.expect("danmaku")["user"],
        json!({"id":"u7","name":"Ümit \"7\""})
    );
    // An admin speaks anywhere, and without flood limits.
    let token = node.token(&["--user", "root", "--role", "admin"]);
    let bearer = format!("Bearer {token}");
    let mut admin = Viewer::connect(node.public, "", &[("Authorization", &bearer)]);
    admin.expect("welcome");
    for n in 0..20 {
        admin.send(&json!({"type":"danmaku","room":"r","text":"all","id":n}));
    }
    for n in 0..20 {
        assert_eq!(admin.expect("ack")["id"], n);
    }
}

#[test]
fn flood_control_per_connection_and_per_user() {
    let node = Node::start("[limits]\nlines_per_s = 1\nline_burst = 5\n");
    let mut anonymous = node.join("r");
    for n in 0..6 {
        anonymous.send(&json!({"type":"danmaku","room":"r","text":"x","id":n}));
    }
    let error = loop {
        let value = anonymous.next();
        if value["type"] == "error" {
            break value;
        }
    };
    assert_eq!(
        (&error["id"], &error["code"]),
        (&json!(5), &json!("rate_limited"))
    );
    assert!(error["retry_after_ms"].as_u64().unwrap() <= 1000);
    assert!(error["message"].as_str().is_some());

    // Two connections of one user in different rooms share one bucket.
    let token = node.token(&["--user", "twice"]);
    let mut acks = 0;
    for room in ["a", "b"] {
        let mut viewer = node.connect(&format!("?room={room}&token={token}"));
        viewer.expect("welcome");
        viewer.expect("joined");
        for n in 0..4 {
            viewer.send(&json!({"type":"danmaku","room":room,"text":"x","id":n}));
        }
        let mut answers = 0;
        while answers < 4 {
            match viewer.next()["type"].as_str() {
                Some("ack") => {
                    acks += 1;
                    answers += 1;
                }
                Some("error") => answers += 1,
                _ => {}
            }
        }
    }
    assert!(
        (5..=6).contains(&acks),
        "{acks} lines of one user within a burst of 5"
    );
}

#[test]
fn flood_control_per_room() {
    let node =
        Node::start("[limits]\nlines_per_s = 1000\nline_burst = 1000\nroom_lines_per_s = 3\n");
    let mut viewer = node.join("r");
    for n in 0..10 {
        viewer.send(&json!({"type":"danmaku","room":"r","text":"x","id":n}));
    }
    let (mut acks, mut refused) = (0, 0);
    while acks + refused < 10 {
        match viewer.next()["type"].as_str() {
            Some("ack") => acks += 1,
            Some("error") => refused += 1,
            _ => {}
        }
    }
    assert!((3..=4).contains(&acks), "{acks}");
}

#[test]
fn a_token_is_renewed_on_a_live_connection() {
    let node = Node::start("");
    let token = node.token(&["--user", "u1"]);
    let mut viewer = node.connect(&format!("?token={token}"));
    viewer.expect("welcome");
    let longer = node.token(&["--user", "u1", "--ttl", "2h"]);
    viewer.send(&json!({"type":"auth","token":longer,"id":"a"}));
    let authed = viewer.expect("authed");
    assert_eq!(authed["id"], "a");
    assert!(authed["exp"].as_u64().unwrap() > 1_600_000_000);
    viewer.send(&json!({"type":"auth","token":"rubbish","id":"b"}));
    let error = viewer.expect("error");
    assert_eq!(
        (&error["id"], &error["code"]),
        (&json!("b"), &json!("token_invalid"))
    );
    assert_eq!(viewer.closed().0, 4001);
}

#[test]
fn bad_messages_get_named_errors_and_harm_nobody() {
    let node = Node::start("");
    let mut neighbour = node.join("r");
    let cases: &[(&str, &str)] = &[
        ("not json", "bad_message"),
        ("[1,2]", "bad_message"),
        ("{\"type\":\"join\"}", "bad_message"),
        ("{\"type\":\"jion\",\"room\":\"r\"}", "unknown_type"),
        ("{\"type\":\"join\",\"room\":\"a b\"}", "bad_room"),
        ("{\"type\":\"join\",\"room\":7}", "bad_message"),
        (
            "{\"type\":\"join\",\"room\":\"q\",\"seq\":1}",
            "bad_message",
        ),
        (
            "{\"type\":\"danmaku\",\"room\":\"r\",\"text\":\"   \"}",
            "bad_text",
        ),
        (
            "{\"type\":\"danmaku\",\"room\":\"r\",\"text\":\"x\",\"style\":{\"mode\":\"sideways\"}}",
            "bad_style",
        ),
        (
            "{\"type\":\"danmaku\",\"room\":\"elsewhere\",\"text\":\"x\"}",
            "not_joined",
        ),
        ("{\"type\":\"auth\",\"token\":\"x\"}", "forbidden"),
    ];
    let mut viewer = node.join("r");
    for (text, code) in cases {
        viewer.send_text(text);
        let error = viewer.expect("error");
        assert_eq!(error["code"], *code, "{text}");
        assert!(error.get("id").is_none(), "{text}");
    }
    viewer.send_text("{\"type\":\"nope\",\"id\":\"seen\"}");
    assert_eq!(viewer.expect("error")["id"], "seen");
    let long = "x".repeat(1025);
    viewer.send(&json!({"type":"danmaku","room":"r","text":long}));
    assert_eq!(viewer.expect("error")["code"], "bad_text");
    assert!(neighbour.is_quiet_for(Duration::from_millis(300)));
    neighbour.send(&json!({"type":"danmaku","room":"r","text":"fine"}));
    assert_eq!(neighbour.expect("danmaku")["text"], "fine");
}
