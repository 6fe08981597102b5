//! Several nodes and a real Redis: one order, resume anywhere, exact counts, and what a back end asks of any of them.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::cluster::{counted, is_ready, joined_cluster, lines, nodes, presence, room, say};
use support::redis::Redis;
use support::{Node, Viewer, wait_for};

#[test]
fn lines_of_all_nodes_have_one_order_for_everyone() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 3);
    let mut viewers: Vec<Viewer> = nodes
        .iter()
        .flat_map(|node| [node.join("order"), node.join("order")])
        .collect();
    const EACH: usize = 150;
    for n in 0..EACH {
        for (at, viewer) in viewers.iter_mut().enumerate() {
            say(viewer, "order", &format!("{at}:{n}"));
        }
        // So many may wait for their numbers, and no more.
        if n % 16 == 15 {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let all = EACH * viewers.len();
    let first = lines(&mut viewers[0], all);
    let numbers: Vec<u64> = first.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(numbers, (1..=all as u64).collect::<Vec<_>>());
    // Each speaker's lines stand in the order in which it said them.
    let mut heard: HashMap<&str, Vec<usize>> = HashMap::new();
    for (_, text) in &first {
        let (who, n) = text.split_once(':').unwrap();
        heard.entry(who).or_default().push(n.parse().unwrap());
    }
    assert_eq!(heard.len(), viewers.len());
    for n in heard.values() {
        assert_eq!(*n, (0..EACH).collect::<Vec<_>>());
    }
    for viewer in &mut viewers[1..] {
        assert_eq!(lines(viewer, all), first);
    }
}

#[test]
fn who_comes_back_to_another_node_gets_what_it_missed() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 2);
    let mut viewer = nodes[0].connect("?room=back");
    viewer.expect("welcome");
    let epoch = viewer.expect("joined")["epoch"].as_u64().unwrap();
    for n in 0..5 {
        say(&mut viewer, "back", &n.to_string());
    }
    lines(&mut viewer, 5);
    drop(viewer);
    // Nobody is in the room on the other node, and never was.
    let mut viewer = nodes[1].connect("");
    viewer.expect("welcome");
    viewer.send(&json!({"type": "join", "room": "back", "epoch": epoch, "seq": 2, "id": 1}));
    let joined = viewer.expect("joined");
    assert_eq!(
        (joined["recovered"].clone(), joined["seq"].clone()),
        (json!(true), json!(5))
    );
    let missed: Vec<&Value> = joined["messages"].as_array().unwrap().iter().collect();
    let texts: Vec<&Value> = missed.iter().map(|line| &line["text"]).collect();
    assert_eq!(texts, ["2", "3", "4"]);
    say(&mut viewer, "back", "on");
    assert_eq!(lines(&mut viewer, 1), [(6, "on".to_owned())]);
}

#[test]
fn a_node_without_viewers_takes_lines_and_knows_the_room() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 2);
    let mut viewer = nodes[0].join("far");
    let body = json!({"room": "far", "text": "by the other"}).to_string();
    let pushed = nodes[1].api("POST", "/api/v1/danmaku/push", &body);
    assert_eq!(pushed.status, 200, "{}", pushed.text);
    assert_eq!(pushed.json()["seq"], 1);
    assert_eq!(lines(&mut viewer, 1), [(1, "by the other".to_owned())]);
    let history = nodes[1].api("GET", "/api/v1/rooms/far/history", "").json();
    assert_eq!(history["epoch"], pushed.json()["epoch"]);
    assert_eq!(history["messages"][0]["text"], "by the other");
    wait_for("the other node's viewer is counted", || {
        room(&nodes[1], "far")["online"] == 1
    });
    // Nobody has spoken in this one.
    let _silent = nodes[0].join("silent");
    wait_for("a room where nobody spoke is known too", || {
        let answer = nodes[1].api("GET", "/api/v1/rooms/silent", "");
        answer.status == 200 && answer.json()["online"] == 1
    });
    let unknown = nodes[1].api("GET", "/api/v1/rooms/nobody-knows", "");
    assert_eq!(
        (unknown.status, unknown.json()["code"].clone()),
        (404, json!("room_not_found"))
    );
}

#[test]
fn a_node_hears_the_rooms_it_has_viewers_in_and_no_others() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 2);
    let channel = |room: &str| format!("live:lines:{{live:room:{room}}}");
    let heard = |room: &str| -> u64 {
        let (_, count): (String, u64) = redis.ask(&format!("PUBSUB NUMSUB {}", channel(room)));
        count
    };
    let one = nodes[0].join("one");
    let both = (nodes[0].join("both"), nodes[1].join("both"));
    assert_eq!((heard("one"), heard("both")), (1, 2));
    let body = json!({"room": "none", "text": "x"}).to_string();
    nodes[0].api("POST", "/api/v1/danmaku/push", &body);
    assert_eq!(heard("none"), 0);
    drop(one);
    drop(both.1);
    wait_for("rooms that were left are not heard any more", || {
        (heard("one"), heard("both")) == (0, 1)
    });
}

#[test]
fn who_is_there_is_counted_exactly_whatever_becomes_of_a_node() {
    let redis = Redis::start(&[]);
    let mut nodes = nodes(&redis, 3);
    let mut viewers: Vec<Vec<Viewer>> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        // Five users sit on every node, each twice; one sits here alone; three have no name.
        let mut here = Vec::new();
        for user in 0..5 {
            let token = node.token(&["--user", &format!("u{user}")]);
            here.push(node.connect(&format!("?room=who&token={token}")));
            here.push(node.connect(&format!("?room=who&token={token}")));
        }
        let token = node.token(&["--user", &format!("only{at}")]);
        here.push(node.connect(&format!("?room=who&token={token}")));
        here.extend((0..3).map(|_| node.join("who")));
        viewers.push(here);
    }
    let exactly = |total: u64, users: usize| {
        let what = format!("{total} connections of {users} users");
        wait_for(&what, || counted(&redis, "who") == (total, users));
    };
    exactly(42, 8);
    for node in &nodes {
        wait_for("every node knows", || room(node, "who")["online"] == 42);
    }
    let joined_s: u64 = presence(&redis, "who")["user:u0"].parse().unwrap();
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!((joined_s..joined_s + 60).contains(&now_s));
    wait_for("the room has its rank", || {
        let ranked: Vec<(String, u64)> = redis.ask("ZRANGE live:rank 0 -1 WITHSCORES");
        ranked == [("who".to_owned(), 42)]
    });
    assert_eq!(redis.ask::<u64>("PFCOUNT live:uv:{live:room:who}"), 8);
    assert!(redis.ask::<u64>("TTL live:room:who") > 0);

    // One that is killed: whoever sees it takes out what it had counted.
    nodes[0].signal("KILL");
    nodes[0].wait();
    exactly(28, 7);
    // One that stood still for longer than its lease is counted out, and counts itself in again.
    nodes[1].signal("STOP");
    exactly(14, 6);
    nodes[1].signal("CONT");
    exactly(28, 7);
    // One that is told to end takes out its own.
    nodes[2].signal("TERM");
    nodes[2].signal("TERM");
    exactly(14, 6);
    drop(viewers);
    exactly(0, 0);
    assert_eq!(redis.ask::<u64>("EXISTS live:room:who"), 0);
    assert_eq!(redis.ask::<i64>("HGET live:seq:{live:room:who} peak"), 42);
}

#[test]
fn a_storm_of_joins_is_one_write_a_second() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 1);
    let begun = Instant::now();
    let _: () = redis.ask("CONFIG RESETSTAT");
    let viewers: Vec<Viewer> = (0..300).map(|_| nodes[0].join("storm")).collect();
    wait_for("all are counted", || counted(&redis, "storm").0 == 300);
    let stats: String = redis.ask("INFO commandstats");
    let line = stats
        .lines()
        .find(|line| line.starts_with("cmdstat_evalsha:"))
        .unwrap();
    let calls = line.split(['=', ',']).nth(1).unwrap();
    let writes: u64 = calls.parse().unwrap();
    // Each shard's rooms are told at once and then every second; one call more reads the room.
    let seconds = begun.elapsed().as_secs() + 1;
    assert!(writes <= 2 + seconds, "{writes} scripts in {seconds} s");
    assert_eq!(redis.ask::<Vec<String>>("KEYS live:rooms:*").len(), 1);
    drop(viewers);
    wait_for("nothing is left to be taken out", || {
        redis.ask::<Vec<String>>("KEYS live:rooms:*").is_empty()
    });
}

#[test]
fn many_rooms_that_wait_wait_no_longer_than_one() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 1);
    // With a quarter of a second for each of them it would be more than patience lasts.
    let rooms: Vec<Vec<String>> = (0..8)
        .map(|viewer| {
            (0..15)
                .map(|room| format!("many-{viewer}-{room}"))
                .collect()
        })
        .collect();
    let mut viewers: Vec<Viewer> = rooms
        .iter()
        .map(|rooms| {
            let mut viewer = nodes[0].connect(&format!("?room={}", rooms.join("&room=")));
            viewer.expect("welcome");
            rooms.iter().for_each(|_| drop(viewer.expect("joined")));
            viewer
        })
        .collect();
    redis.signal("STOP");
    for (viewer, rooms) in viewers.iter_mut().zip(&rooms) {
        rooms.iter().for_each(|room| say(viewer, room, "alone"));
    }
    for viewer in &mut viewers {
        let mut heard = 0;
        while heard < 15 {
            heard += usize::from(viewer.next()["type"] == "danmaku");
        }
    }
    redis.signal("CONT");
    joined_cluster(&nodes[0]);
}

#[test]
fn what_others_write_into_redis_harms_nobody_and_an_order_counts_once() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 1);
    let mut viewer = nodes[0].join("odd");
    let publish = |channel: &str, payload: &[u8]| {
        let mut command = redis::cmd("PUBLISH");
        let _: u64 = command
            .arg(channel)
            .arg(payload)
            .query(&mut redis.connection())
            .unwrap();
    };
    let channel = "live:lines:{live:room:odd}";
    for odd in [
        &b"hello"[..],
        b"",
        b"L x",
        b"L 1 1 1 n 1\nl\xff\xff\xff\xffx",
        b"N n x\n",
        &[0xff; 300],
    ] {
        publish(channel, odd);
        publish("live:orders", odd);
    }
    let order = b"O other.1 0 5 broadcast\n{\"type\":\"broadcast\"}";
    publish("live:orders", order);
    publish("live:orders", order);
    assert_eq!(viewer.expect("broadcast"), json!({"type": "broadcast"}));
    say(&mut viewer, "odd", "still here");
    assert_eq!(lines(&mut viewer, 1), [(1, "still here".to_owned())]);
}

#[test]
fn what_a_back_end_asks_of_one_node_every_node_does() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 3);
    let join_as = |node: &Node, user: &str| {
        let token = node.token(&["--user", user]);
        let mut viewer = node.connect(&format!("?room=all&token={token}"));
        viewer.expect("welcome");
        viewer.expect("joined");
        viewer
    };
    let mut anns: Vec<Viewer> = nodes.iter().map(|node| join_as(node, "ann")).collect();
    let mut bob = join_as(&nodes[2], "bob");
    let ask = |node: &Node, method: &str, path: &str, body: &Value| {
        let answer = node.api(method, path, &body.to_string());
        (answer.status, answer.json())
    };
    let said = json!({"event": "mail", "data": {"n": 1}});
    let found = ask(&nodes[0], "POST", "/api/v1/users/ann/push", &said);
    assert_eq!(found, (200, json!({"connections": 3})));
    for ann in &mut anns {
        let push = ann.expect("push");
        assert_eq!(
            (&push["event"], &push["data"]),
            (&json!("mail"), &json!({"n": 1}))
        );
    }
    let found = ask(&nodes[1], "POST", "/api/v1/broadcast", &said);
    assert_eq!(found, (200, json!({"connections": 4})));
    for viewer in anns.iter_mut().chain([&mut bob]) {
        assert_eq!(viewer.expect("broadcast")["data"], json!({"n": 1}));
    }
    let kick = json!({"user": "ann", "reason": "enough"});
    let found = ask(&nodes[2], "POST", "/api/v1/rooms/all/kick", &kick);
    assert_eq!(found, (200, json!({"connections": 3})));
    for ann in &mut anns {
        let left = ann.expect("left");
        assert_eq!(
            (&left["code"], &left["reason"]),
            (&json!("kicked"), &json!("enough"))
        );
    }
    wait_for("bob alone is left", || counted(&redis, "all") == (1, 1));
    // The room is known on another node only.
    let _there = nodes[1].join("elsewhere");
    let found = ask(&nodes[0], "POST", "/api/v1/rooms/elsewhere/kick", &kick);
    assert_eq!(found, (200, json!({"connections": 0})));
    let found = ask(&nodes[0], "POST", "/api/v1/rooms/nowhere/kick", &kick);
    assert_eq!((found.0, &found.1["code"]), (404, &json!("room_not_found")));

    let found = ask(
        &nodes[0],
        "DELETE",
        "/api/v1/rooms/all",
        &json!({"reason": "over"}),
    );
    assert_eq!(found, (200, json!({"room": "all", "connections": 1})));
    assert_eq!(bob.expect("left")["code"], "room_closed");
    assert_eq!(redis.ask::<u64>("EXISTS live:seq:{live:room:all}"), 0);

    let found = ask(
        &nodes[0],
        "POST",
        "/api/v1/users/ann/disconnect",
        &json!({"reason": "bye"}),
    );
    assert_eq!(found, (200, json!({"connections": 3})));
    for ann in &mut anns {
        assert_eq!(ann.closed(), (4008, "bye".to_owned()));
    }

    // By itself a node answers for itself, at once.
    let mut alone = join_as(&nodes[0], "cid");
    redis.signal("STOP");
    wait_for("the node gives up waiting", || !is_ready(&nodes[0]));
    let found = ask(&nodes[0], "POST", "/api/v1/users/cid/push", &said);
    assert_eq!(found, (200, json!({"connections": 1})));
    redis.signal("CONT");
    loop {
        if alone.next()["type"] == "push" {
            break;
        }
    }
}

#[test]
fn redis_is_spoken_to_over_tls_and_by_a_user_with_few_rights() {
    let (redis, authority) = Redis::start_with_tls();
    let url = format!("[redis]\nurl = \"rediss://localhost:{}\"\n", redis.port());
    let trusts = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    let nodes = [Node::start_in(&url, &trusts), Node::start_in(&url, &trusts)];
    nodes.iter().for_each(joined_cluster);
    let mut viewers = nodes.each_ref().map(|node| node.join("tls"));
    say(&mut viewers[0], "tls", "in secret");
    for viewer in &mut viewers {
        assert_eq!(lines(viewer, 1), [(1, "in secret".to_owned())]);
    }
    // One that does not trust it says so, and goes on by itself.
    let stranger = Node::start_in(&url, &[]);
    let mut viewer = stranger.join("tls");
    say(&mut viewer, "tls", "alone");
    assert_eq!(lines(&mut viewer, 1), [(1, "alone".to_owned())]);
    wait_for("the log says why", || {
        stranger.logged().contains("certificate")
    });

    // The rights that docs/REDIS.md names, and no others.
    let documented = include_str!("../docs/REDIS.md");
    let rights =
        "+@read +@write +@pubsub +@scripting +@connection +time -@dangerous ~live:* &live:*";
    assert!(documented.contains(rights));
    let redis = Redis::start(&[]);
    let _: () = redis.ask(&format!("ACL SETUSER gateway on >secret {rights}"));
    let url = redis.url("gateway:secret@");
    let node = Node::start(&format!("[redis]\nurl = \"{url}\"\nlease = \"1s\"\n"));
    joined_cluster(&node);
    let mut viewer = node.join("acl");
    say(&mut viewer, "acl", "x");
    assert_eq!(lines(&mut viewer, 1)[0].1, "x");
    wait_for("it is counted", || counted(&redis, "acl").0 == 1);
    let denied: Vec<redis::Value> = redis.ask("ACL LOG");
    assert!(denied.is_empty(), "{denied:?}");
    let wrong = url.replace("secret", "wrong");
    let node = Node::start(&format!("[redis]\nurl = \"{wrong}\"\n"));
    wait_for("the log says why", || {
        node.logged().contains("authentication failed")
    });
    assert!(!node.logged().contains("gateway:wrong"));
}

#[test]
fn what_is_said_of_a_room_on_one_node_holds_on_all() {
    let redis = Redis::start(&[]);
    let nodes = nodes(&redis, 2);
    let put = |node: &Node, body: Value| {
        let answer = node.api("PUT", "/api/v1/rooms/vip", &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    put(&nodes[0], json!({"access": "private", "title": "for few"}));
    // Nobody has been in it on the other node, which knows of it as soon as Redis does.
    wait_for("the other node knows the room", || {
        nodes[1].api("GET", "/api/v1/rooms/vip", "").status == 200
    });
    let found = room(&nodes[1], "vip");
    assert_eq!(
        (&found["access"], &found["title"]),
        (&json!("private"), &json!("for few"))
    );
    let refused = Viewer::try_connect(nodes[1].public, "?room=vip", &[]).unwrap_err();
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (403, json!("login_required"))
    );
    let bob = format!(
        "Authorization: Bearer {}",
        nodes[1].token(&["--user", "bob"])
    );
    let body = json!({"room": "vip", "text": "let me in"}).to_string();
    let refused = nodes[1].public("POST", "/api/v1/danmaku/push", &[&bob], &body);
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (403, json!("room_forbidden"))
    );
    // Changed where it is not heard: the next line is judged by it.
    let pushed = || {
        nodes[1]
            .public("POST", "/api/v1/danmaku/push", &[&bob], &body)
            .status
    };
    put(&nodes[0], json!({"access": "public"}));
    wait_for("it is open to all", || pushed() == 200);
    put(&nodes[0], json!({"access": "private"}));
    wait_for("it is closed again", || pushed() == 403);
    let refused = nodes[1].public("GET", "/api/v1/rooms/vip/history", &[&bob], "");
    assert_eq!(refused.status, 403, "{}", refused.text);

    let token = nodes[1].token(&["--user", "ann", "--room", "vip"]);
    let mut ann = nodes[1].connect(&format!("?room=vip&token={token}"));
    ann.expect("welcome");
    ann.expect("joined");
    put(
        &nodes[0],
        json!({"title": "for many", "data": {"n": [1, 2]}}),
    );
    wait_for("who is in it hears of it", || {
        room(&nodes[1], "vip")["title"] == "for many"
    });
    put(&nodes[1], json!({"tick_ms": 50}));
    wait_for("and so does the other node", || {
        let found = room(&nodes[0], "vip");
        found["tick_ms"] == 50
            && found["data"] == json!({"n": [1, 2]})
            && found["access"] == "private"
    });

    let closed = nodes[0].api("DELETE", "/api/v1/rooms/vip", "");
    assert_eq!(closed.status, 200, "{}", closed.text);
    assert_eq!(ann.expect("left")["code"], "room_closed");
    assert_eq!(redis.ask::<u64>("EXISTS live:settings:{live:room:vip}"), 0);
    nodes[1].join("vip");
}
