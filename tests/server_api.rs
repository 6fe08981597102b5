//! The HTTP API over real sockets: pushes, rooms, users, batch, on both listeners.

mod support;

use serde_json::{Value, json};
use support::{API_KEY, Node, Viewer, request};

#[test]
fn a_push_reaches_every_member_in_order() {
    let node = Node::start("[server]\nshards = 3\n");
    let mut viewers: Vec<Viewer> = (0..9).map(|_| node.join("live")).collect();
    for n in 1..=20 {
        let body = json!({"room":"live","text":format!("line {n}"),"user":{"id":"bot","name":"Bot"},"data":{"k":[1, n]}});
        let answer = node.api("POST", "/api/v1/danmaku/push", &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json()["seq"], n);
        assert!(answer.json()["epoch"].as_u64().is_some());
    }
    for viewer in &mut viewers {
        for n in 1..=20 {
            let line = viewer.expect("danmaku");
            assert_eq!(
                (&line["seq"], &line["text"]),
                (&json!(n), &json!(format!("line {n}")))
            );
            assert_eq!(line["user"], json!({"id":"bot","name":"Bot"}));
            assert_eq!(line["data"], json!({"k":[1, n]}));
        }
    }
}

#[test]
fn a_push_to_many_rooms_and_an_event() {
    let node = Node::start("[[rooms.class]]\nmatch = \"vip\"\naccess = \"private\"\n");
    let mut a = node.join("a");
    let mut b = node.join("b");
    let body = json!({"rooms":["a","b","no room"],"text":"to all"});
    let answer = node.api("POST", "/api/v1/danmaku/push", &body.to_string());
    let results = answer.json()["results"].clone();
    assert_eq!(
        (&results[0]["room"], &results[0]["seq"]),
        (&json!("a"), &json!(1))
    );
    assert_eq!(
        (&results[1]["room"], &results[1]["seq"]),
        (&json!("b"), &json!(1))
    );
    assert_eq!(results[2]["code"], "bad_room");
    assert_eq!(a.expect("danmaku")["text"], "to all");
    assert_eq!(b.expect("danmaku")["user"], Value::Null);
    let body = json!({"room":"a","type":"event","event":"gift","data":{"rose": 3}});
    let answer = node.api("POST", "/api/v1/danmaku/push", &body.to_string());
    assert_eq!(answer.json()["seq"], 2);
    let event = a.expect("event");
    assert_eq!(
        (&event["seq"], &event["event"], &event["data"]),
        (&json!(2), &json!("gift"), &json!({"rose": 3}))
    );
    // A token's user gets per-room refusals inside the results.
    let token = node.token(&["--user", "u"]);
    let bearer = format!("Authorization: Bearer {token}");
    let body = json!({"rooms":["a","vip"],"text":"hi"}).to_string();
    let answer = node.public("POST", "/api/v1/danmaku/push", &[&bearer], &body);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["results"][0]["seq"], 3);
    assert_eq!(answer.json()["results"][1]["code"], "room_forbidden");
    assert_eq!(a.expect("danmaku")["user"], json!({"id":"u","name":"u"}));
}

#[test]
fn a_push_is_done_once_per_idempotency_key() {
    let node = Node::start("");
    let mut viewer = node.join("r");
    let auth = format!("X-Api-Key: {API_KEY}");
    let push = |key: &str, text: &str| {
        let body = json!({"room":"r","text":text}).to_string();
        let key = format!("Idempotency-Key: {key}");
        request(
            node.internal,
            "POST",
            "/api/v1/danmaku/push",
            &[&auth, &key],
            &body,
        )
    };
    let first = push("k1", "once");
    assert_eq!(first.json()["seq"], 1);
    assert_eq!(push("k1", "once").json(), first.json());
    push("k1", "another body").refuses(422, "idempotency_mismatch");
    assert_eq!(push("k2", "twice").json()["seq"], 2);
    assert_eq!(viewer.expect("danmaku")["text"], "once");
    assert_eq!(viewer.expect("danmaku")["text"], "twice");
}

#[test]
fn who_may_push() {
    let node = Node::start("[auth]\nanonymous = \"watch\"\n");
    let body = json!({"room":"r","text":"x"}).to_string();
    let push =
        |headers: &[&str], body: &str| node.public("POST", "/api/v1/danmaku/push", headers, body);
    assert_eq!(push(&[], &body).status, 401);
    push(&["Authorization: Bearer nonsense"], &body).refuses(401, "token_invalid");
    request(node.internal, "POST", "/api/v1/danmaku/push", &[], &body)
        .refuses(401, "api_key_required");
    let token = format!("Authorization: Bearer {}", node.token(&["--user", "u"]));
    assert_eq!(push(&[&token], &body).status, 200);
    let as_other = json!({"room":"r","text":"x","user":{"id":"other"}}).to_string();
    push(&[&token], &as_other).refuses(403, "forbidden");
    let gift = json!({"room":"r","type":"event","event":"gift","data":{}}).to_string();
    push(&[&token], &gift).refuses(403, "forbidden");
    let key = format!("Authorization: Bearer {API_KEY}");
    assert_eq!(push(&[&key], &gift).status, 200);
    push(&[&key], "{\"room\":\"r\"}").refuses(400, "bad_message");
    push(&[&key], "{\"text\":\"r\"}").refuses(400, "bad_message");
    push(&[&key], "{\"room\":").refuses(400, "bad_message");
    let mut watcher = node.join("r");
    watcher.send(&json!({"type":"danmaku","room":"r","text":"x"}));
    assert_eq!(watcher.expect("error")["code"], "speak_forbidden");
}

#[test]
fn rooms_are_listed_shown_set_and_closed() {
    let node = Node::start("");
    let _big: Vec<Viewer> = (0..3).map(|_| node.join("big")).collect();
    let _mid: Vec<Viewer> = (0..2).map(|_| node.join("mid")).collect();
    let mut small = node.join("small");
    let list = node.public("GET", "/api/v1/rooms?limit=2", &[], "").json();
    let names = |list: &Value| -> Vec<String> {
        let rooms = list["rooms"].as_array().unwrap();
        rooms
            .iter()
            .map(|r| r["room"].as_str().unwrap().to_string())
            .collect()
    };
    assert_eq!(names(&list), ["big", "mid"]);
    let next = list["next"].as_str().unwrap().replace(':', "%3A");
    let list = node
        .public(
            "GET",
            &format!("/api/v1/rooms?limit=2&after={next}"),
            &[],
            "",
        )
        .json();
    assert_eq!(names(&list), ["small"]);
    assert!(list["next"].is_null());

    node.public("GET", "/api/v1/rooms/nowhere", &[], "")
        .refuses(404, "room_not_found");
    node.public("PUT", "/api/v1/rooms/small", &[], "{}")
        .refuses(404, "not_found");
    let put = node.api(
        "PUT",
        "/api/v1/rooms/small",
        r#"{"title":"Tea","access":"login","data":{"host":"h"}}"#,
    );
    assert_eq!(put.status, 200, "{}", put.text);
    let shown = node.api("GET", "/api/v1/rooms/small", "").json();
    assert_eq!(
        (&shown["title"], &shown["access"], &shown["online"]),
        (&json!("Tea"), &json!("login"), &json!(1))
    );
    assert_eq!(shown["data"], json!({"host":"h"}));
    node.public("GET", "/api/v1/rooms/small", &[], "")
        .refuses(403, "login_required");
    let refused = Viewer::try_connect(node.public, "?room=small", &[]).expect_err("login only");
    refused.refuses(403, "login_required");

    let closed = node.api(
        "DELETE",
        "/api/v1/rooms/small",
        r#"{"reason":"tea is over"}"#,
    );
    assert_eq!(closed.status, 200, "{}", closed.text);
    assert_eq!(
        small.expect("left"),
        json!({"type":"left","room":"small","code":"room_closed","reason":"tea is over"})
    );
    node.api("GET", "/api/v1/rooms/small", "")
        .refuses(404, "room_not_found");
    small.send(&json!({"type":"join","room":"small","id":1}));
    assert_eq!(
        small.expect("joined")["seq"],
        0,
        "the room began anew, and the connection lives"
    );
}

#[test]
fn history_is_paged() {
    let node = Node::start("");
    for n in 1..=10 {
        node.api(
            "POST",
            "/api/v1/danmaku/push",
            &json!({"room":"h","text":format!("l{n}")}).to_string(),
        );
    }
    let page = |query: &str| {
        node.public("GET", &format!("/api/v1/rooms/h/history{query}"), &[], "")
            .json()
    };
    let seqs = |page: &Value| -> Vec<u64> {
        page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["seq"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(seqs(&page("?limit=3")), [8, 9, 10]);
    assert_eq!(seqs(&page("?since=4&limit=3")), [5, 6, 7]);
    assert_eq!(seqs(&page("?since=10")), [0u64; 0]);
    assert_eq!(seqs(&page("")).len(), 10);
    assert_eq!(page("")["seq"], 10);
    assert_eq!(page("?limit=1")["messages"][0]["text"], "l10");
    assert_eq!(
        node.public("GET", "/api/v1/rooms/h/history?limit=x", &[], "")
            .status,
        400
    );
}

#[test]
fn members_are_paged_and_kicked() {
    let node = Node::start("");
    let viewer = |user: &str| {
        let token = node.token(&["--user", user]);
        let mut viewer = node.connect(&format!("?room=m&token={token}"));
        viewer.expect("welcome");
        viewer.expect("joined");
        viewer
    };
    let (mut a1, mut a2, _b) = (viewer("a"), viewer("a"), viewer("b"));
    let _anonymous = node.join("m");
    let first = node
        .api("GET", "/api/v1/rooms/m/members?limit=1", "")
        .json();
    assert_eq!(first["members"][0]["user"], json!({"id":"a","name":"a"}));
    assert_eq!(first["members"][0]["connections"], 2);
    assert!(first["members"][0]["joined"].as_u64().unwrap() > 1_600_000_000_000);
    let after = first["next"].as_str().unwrap();
    let rest = node
        .api("GET", &format!("/api/v1/rooms/m/members?after={after}"), "")
        .json();
    assert_eq!(rest["members"][0]["user"]["id"], "b");
    assert_eq!(rest["members"][1]["user"], Value::Null);
    assert!(rest["next"].is_null());

    let kicked = node.api(
        "POST",
        "/api/v1/rooms/m/kick",
        r#"{"user":"a","reason":"rude"}"#,
    );
    assert_eq!(
        (kicked.status, kicked.json()["connections"].as_u64()),
        (200, Some(2))
    );
    for viewer in [&mut a1, &mut a2] {
        assert_eq!(
            viewer.expect("left"),
            json!({"type":"left","room":"m","code":"kicked","reason":"rude"})
        );
        viewer.send(&json!({"type":"ping"}));
        viewer.expect("pong");
    }
    let mut online = 0;
    for _ in 0..100 {
        online = node.api("GET", "/api/v1/rooms/m", "").json()["online"]
            .as_u64()
            .unwrap();
        if online == 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(online, 2);
}

#[test]
fn broadcast_and_user_push_reach_their_connections() {
    let node = Node::start("[server]\nshards = 3\n");
    let token = node.token(&["--user", "u"]);
    let mut mine: Vec<Viewer> = (0..4)
        .map(|_| node.connect(&format!("?token={token}")))
        .collect();
    let mut others: Vec<Viewer> = (0..4).map(|_| node.connect("")).collect();
    for viewer in mine.iter_mut().chain(&mut others) {
        viewer.expect("welcome");
    }
    let pushed = node.api(
        "POST",
        "/api/v1/users/u/push",
        r#"{"event":"coupon","data":{"off":10}}"#,
    );
    assert_eq!(pushed.json(), json!({"connections":4}));
    let all = node.api(
        "POST",
        "/api/v1/broadcast",
        r#"{"event":"maintenance","data":null}"#,
    );
    assert_eq!(all.json(), json!({"connections":8}));
    for viewer in &mut mine {
        let push = viewer.expect("push");
        assert_eq!(
            (&push["event"], &push["data"]),
            (&json!("coupon"), &json!({"off":10}))
        );
        assert!(push["ts"].as_u64().is_some());
        assert_eq!(viewer.expect("broadcast")["event"], "maintenance");
    }
    for viewer in &mut others {
        assert_eq!(viewer.expect("broadcast")["event"], "maintenance");
    }
    assert_eq!(
        node.public("POST", "/api/v1/broadcast", &[], "{}").status,
        404
    );
    request(node.internal, "POST", "/api/v1/broadcast", &[], "{}").refuses(401, "api_key_required");
}

#[test]
fn a_batch_runs_in_order() {
    let node = Node::start("");
    let body = json!({"requests":[
        {"method":"PUT","path":"/api/v1/rooms/b","body":{"title":"B"}},
        {"method":"POST","path":"/api/v1/danmaku/push","body":{"room":"b","text":"one"}},
        {"method":"POST","path":"/api/v1/danmaku/push","body":{"room":"b","text":""}},
        {"method":"GET","path":"/api/v1/rooms/b/history"},
        {"method":"GET","path":"/nowhere"},
        {"method":"DELETE","path":"/api/v1/rooms/b"},
        {"method":"GET","path":"/api/v1/rooms/b"},
    ]});
    let answer = node.api("POST", "/api/v1/batch", &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text);
    let responses = answer.json()["responses"].clone();
    let statuses: Vec<u64> = responses
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 200, 400, 200, 404, 200, 404]);
    assert_eq!(responses[1]["body"]["seq"], 1);
    assert_eq!(responses[3]["body"]["messages"][0]["text"], "one");
    assert_eq!(responses[6]["body"]["code"], "room_not_found");
    let too_many = json!({"requests": vec![json!({"method":"GET","path":"/healthz"}); 101]});
    assert_eq!(
        node.api("POST", "/api/v1/batch", &too_many.to_string())
            .status,
        400
    );
}

#[test]
fn info_and_health() {
    let node = Node::start("[server]\nshards = 2\nnode = \"n1\"\n");
    let _viewer = node.join("r");
    let info = node.api("GET", "/api/v1/info", "").json();
    assert_eq!(
        (&info["node"], &info["shards"], &info["connections"]),
        (&json!("n1"), &json!(2), &json!(1))
    );
    assert_eq!(info["rooms"], 1);
    for address in [node.public, node.internal] {
        assert_eq!(request(address, "GET", "/healthz", &[], "").status, 200);
        assert_eq!(request(address, "GET", "/readyz", &[], "").status, 200);
        assert_eq!(request(address, "HEAD", "/healthz", &[], "").text, "");
    }
    assert_eq!(node.public("GET", "/metrics", &[], "").status, 404);
}

#[test]
fn browsers_ask_before_they_push() {
    let node = Node::start("[auth]\nanonymous = \"speak\"\norigins = [\"https://live.example\"]\n");
    let ask = |origin: &str| {
        let origin = format!("Origin: {origin}");
        node.public(
            "OPTIONS",
            "/api/v1/danmaku/push",
            &[
                &origin,
                "Access-Control-Request-Method: POST",
                "Access-Control-Request-Headers: content-type",
            ],
            "",
        )
    };
    let yes = ask("https://live.example");
    assert_eq!(yes.status, 204);
    assert_eq!(
        yes.header("access-control-allow-origin"),
        Some("https://live.example")
    );
    assert!(
        yes.header("access-control-allow-methods")
            .unwrap()
            .contains("POST")
    );
    assert_eq!(
        ask("https://evil.example").header("access-control-allow-origin"),
        None
    );
    let body = json!({"room":"r","text":"x"}).to_string();
    let pushed = node.public(
        "POST",
        "/api/v1/danmaku/push",
        &["Origin: https://live.example"],
        &body,
    );
    assert_eq!(pushed.status, 200);
    assert_eq!(
        pushed.header("access-control-allow-origin"),
        Some("https://live.example")
    );
    node.public(
        "POST",
        "/api/v1/danmaku/push",
        &["Origin: https://evil.example"],
        &body,
    )
    .refuses(403, "origin_denied");
}

#[test]
fn a_push_without_a_token_is_flood_controlled_by_address() {
    let node = Node::start("[server]\nshards = 1\n[limits]\nlines_per_s = 1\nline_burst = 3\n");
    let body = json!({"room":"r","text":"x"}).to_string();
    let statuses: Vec<u16> = (0..6)
        .map(|_| {
            node.public("POST", "/api/v1/danmaku/push", &[], &body)
                .status
        })
        .collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
}

#[test]
fn a_client_that_does_not_read_its_answers_gets_no_further_ones() {
    let node = Node::start("");
    let mut stream = std::net::TcpStream::connect(node.public).unwrap();
    stream
        .set_write_timeout(Some(std::time::Duration::from_millis(500)))
        .unwrap();
    let before = node.metric("process_resident_memory_bytes");
    let burst = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    // Until the node takes no more, or it has taken far too much.
    let mut sent = 0;
    while sent < 64 << 20 {
        match std::io::Write::write(&mut stream, burst.as_bytes()) {
            Ok(bytes) => sent += bytes,
            Err(_) => break,
        }
    }
    assert!(
        sent < 64 << 20,
        "{sent} bytes of requests were taken without an answer being read"
    );
    let after = node.metric("process_resident_memory_bytes");
    assert!(after - before < 16e6, "grew by {} bytes", after - before);
}

#[test]
fn numbers_at_the_edge_are_answered() {
    let node = Node::start("");
    let mut viewer = node.join("edge");
    node.api(
        "POST",
        "/api/v1/danmaku/push",
        &json!({"room":"edge","text":"x"}).to_string(),
    );
    viewer.expect("danmaku");
    let page = node.public(
        "GET",
        "/api/v1/rooms/edge/history?since=18446744073709551615",
        &[],
        "",
    );
    assert_eq!(
        (page.status, page.json()["messages"].clone()),
        (200, json!([]))
    );
    let mut other = node.connect("");
    other.expect("welcome");
    let epoch = page.json()["epoch"].clone();
    for epoch in [epoch, json!(1)] {
        other.send(&json!({"type":"join","room":"edge","epoch":epoch,"seq":u64::MAX}));
        assert_eq!(other.expect("joined")["recovered"], false);
        other.send(&json!({"type":"leave","room":"edge"}));
        other.expect("left");
    }
}

#[test]
fn a_refused_upgrade_leaves_nothing_behind_on_its_connection() {
    let node = Node::start(
        "[admission]\nper_address_max = 1\n[[rooms.class]]\nmatch = \"priv-*\"\naccess = \"private\"\n",
    );
    for _ in 0..3 {
        let refused = Viewer::try_connect(node.public, "?room=priv-x&room=a&room=b", &[]);
        refused.expect_err("private").refuses(403, "login_required");
    }
    node.metric_becomes("danmaku_connection_permits_in_use", 0.0);
    node.metric_becomes("danmaku_members", 0.0);
    node.join("a");
}
