//! What nodes that share a Redis tell of one another and of their rooms, and of what they still know when Redis is away.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::cluster::{is_ready, joined_cluster, node_with, nodes, room};
use support::redis::Redis;
use support::{Node, Viewer, wait_for};

fn listed(node: &Node) -> Value {
    let answer = node.api("GET", "/api/v1/nodes", "");
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// Names and connections, where they are no older than a second or two.
fn heard(node: &Node) -> Vec<(String, u64)> {
    let listed = listed(node);
    let nodes = listed["nodes"].as_array().unwrap().iter();
    nodes
        .filter(|node| node["heard_ms"].as_u64().unwrap() < 5_000)
        .map(|node| {
            let name = node["node"].as_str().unwrap().to_owned();
            (name, node["connections"].as_u64().unwrap())
        })
        .collect()
}

#[test]
fn every_node_knows_which_nodes_there_are() {
    let mut redis = Redis::start(&[]);
    let named = |name: &str| {
        let extra = format!(
            "[server]\nnode = \"{name}\"\naddress = \"wss://{name}.example\"\nregion = \"east\""
        );
        node_with(&redis, &extra)
    };
    let (one, two) = (named("one"), named("two"));
    let mut three = named("three");
    for node in [&one, &two, &three] {
        joined_cluster(node);
    }
    let _viewers = [one.join("a"), two.join("a"), two.join("b")];
    let all = |counts: [(&str, u64); 3]| counts.map(|(name, count)| (name.to_owned(), count));
    let wanted = all([("one", 1), ("three", 0), ("two", 2)]);
    for node in [&one, &two, &three] {
        wait_for("it has heard of all", || heard(node) == wanted);
    }
    let answer = listed(&one);
    assert_eq!(answer["stale"], false);
    let other = &answer["nodes"][2];
    assert_eq!(
        [
            &other["address"],
            &other["region"],
            &other["takes_viewers"],
            &other["here"]
        ],
        [
            &json!("wss://two.example"),
            &json!("east"),
            &json!(true),
            &json!(false)
        ]
    );
    assert_eq!(answer["nodes"][0]["here"], true);
    assert!(other["connections_max"].as_u64().unwrap() > 0);
    assert_eq!(
        one.public("GET", "/api/v1/nodes", &[], "").status,
        404,
        "not for everybody"
    );

    // One that is being emptied takes no more viewers, and then is no more.
    let mut held = three.join("a");
    three.signal("TERM");
    wait_for("the third takes no more viewers", || {
        let answer = listed(&one);
        let nodes = answer["nodes"].as_array().unwrap();
        let third = nodes.iter().find(|node| node["node"] == "three");
        third.is_none_or(|node| node["takes_viewers"] == false)
    });
    held.closed();
    three.wait();
    wait_for("the third is forgotten", || heard(&one).len() == 2);

    // Without Redis: as they were last heard of.
    redis.kill();
    wait_for("Redis is known to be away", || {
        listed(&one)["stale"] == true
    });
    assert_eq!(listed(&one)["nodes"].as_array().unwrap().len(), 2);
}

fn rooms(node: &Node, query: &str) -> Value {
    let answer = node.api("GET", &format!("/api/v1/rooms?{query}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn names(page: &Value) -> Vec<String> {
    let rooms = page["rooms"].as_array().unwrap().iter();
    let named = |room: &Value| format!("{}:{}", room["room"].as_str().unwrap(), room["online"]);
    rooms.map(named).collect()
}

#[test]
fn the_list_of_rooms_is_that_of_all_nodes() {
    let mut redis = Redis::start(&[]);
    let nodes = nodes(&redis, 3);
    let mut viewers: Vec<Viewer> = Vec::new();
    // Rooms on one node, on another, on all; many with as many in them.
    for (room, at) in [("big", 0), ("big", 1), ("big", 2), ("pair", 1), ("pair", 2)] {
        viewers.push(nodes[at].join(room));
    }
    for n in 0..12 {
        viewers.push(nodes[n % 3].join(&format!("solo-{n:02}")));
    }
    let put = nodes[1].api("PUT", "/api/v1/rooms/pair", r#"{"title":"two of us"}"#);
    assert_eq!(put.status, 200);
    let mut wanted = vec!["big:3".to_owned(), "pair:2".to_owned()];
    wanted.extend((0..12).map(|n| format!("solo-{n:02}:1")));
    for node in &nodes {
        wait_for("it lists all rooms", || {
            names(&rooms(node, "limit=50")) == wanted
        });
        // Page by page there are the same, in the same order.
        for limit in [1, 3, 5] {
            let (mut after, mut paged) = (String::new(), Vec::new());
            loop {
                let page = rooms(node, &format!("limit={limit}{after}"));
                paged.extend(names(&page));
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            assert_eq!(paged, wanted, "{limit} at a time");
        }
    }
    let page = rooms(&nodes[0], "limit=2");
    assert_eq!(page["rooms"][1]["title"], "two of us", "{page}");
    assert_eq!(page["stale"], Value::Null);

    // Counted together: users and peak too, wherever they are.
    let token = nodes[0].token(&["--user", "ann"]);
    for node in &nodes {
        viewers.push(node.connect(&format!("?room=big&token={token}")));
    }
    viewers.truncate(viewers.len() - 1);
    for node in &nodes {
        wait_for("one user on two nodes, six at most", || {
            let room = room(node, "big");
            (&room["online"], &room["users"], &room["visitors"])
                == (&json!(5), &json!(1), &json!(1))
        });
        assert!(room(node, "big")["peak"].as_u64().unwrap() >= 5);
        assert_eq!(room(node, "big")["stale"], Value::Null);
    }

    // Without Redis each node tells what it knows, and that it may be out of date.
    let known = names(&rooms(&nodes[0], "limit=50"));
    // The first rooms are read every three seconds; what is asked for meanwhile changes nothing of that.
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(names(&rooms(&nodes[0], "limit=1")), ["big:5"]);
    redis.kill();
    wait_for("Redis is known to be away", || !is_ready(&nodes[0]));
    let page = rooms(&nodes[0], "limit=50");
    assert_eq!(page["stale"], true);
    assert_eq!(names(&page), known);
    let room = room(&nodes[0], "big");
    assert_eq!((&room["stale"], &room["online"]), (&json!(true), &json!(5)));
    redis.restart();
    for node in &nodes {
        joined_cluster(node);
        wait_for("the list is fresh again", || {
            let page = rooms(node, "limit=50");
            page["stale"] == Value::Null && names(&page) == known
        });
    }
}

#[test]
fn the_list_of_members_is_that_of_all_nodes() {
    let mut redis = Redis::start(&[]);
    let nodes = nodes(&redis, 3);
    let enter = |node: &Node, who: Option<&str>| {
        let token = who.map(|user| node.token(&["--user", user, "--name", &format!("N {user}")]));
        let token = token.map_or(String::new(), |token| format!("&token={token}"));
        let mut viewer = node.connect(&format!("?room=crew{token}"));
        viewer.expect("welcome");
        viewer.expect("joined");
        viewer
    };
    // The last node has nobody in the room.
    let mut viewers: Vec<Viewer> = Vec::new();
    for (node, who) in [
        (0, Some("ann")),
        (0, Some("ann")),
        (0, Some("cid")),
        (0, None),
        (1, Some("ann")),
        (1, Some("bob")),
        (1, Some("dan")),
        (1, None),
        (1, None),
    ] {
        viewers.push(enter(&nodes[node], who));
    }
    let page = |node: &Node, query: &str| {
        let answer = node.api("GET", &format!("/api/v1/rooms/crew/members{query}"), "");
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    let shown = |page: &Value| -> Vec<(Value, u64)> {
        let members = page["members"].as_array().unwrap().iter();
        members
            .map(|member| {
                assert!(member["joined"].as_u64().unwrap() > 1_700_000_000_000);
                (
                    member["user"]["name"].clone(),
                    member["connections"].as_u64().unwrap(),
                )
            })
            .collect()
    };
    let all = [
        (json!("N ann"), 3),
        (json!("N bob"), 1),
        (json!("N cid"), 1),
        (json!("N dan"), 1),
        (Value::Null, 3),
    ];
    for node in &nodes {
        let whole = page(node, "");
        assert_eq!(shown(&whole), all);
        assert_eq!((&whole["next"], whole.get("stale")), (&Value::Null, None));
        let (mut found, mut query) = (Vec::new(), "?limit=2".to_owned());
        loop {
            let part = page(node, &query);
            assert!(part["members"].as_array().unwrap().len() <= 2);
            found.extend(shown(&part));
            match part["next"].as_str() {
                Some(next) => query = format!("?limit=2&after={next}"),
                None => break,
            }
        }
        assert_eq!(found, all);
    }
    let unknown = nodes[2].api("GET", "/api/v1/rooms/nobodys/members", "");
    assert_eq!(unknown.status, 404, "{}", unknown.text);

    redis.kill();
    wait_for("the nodes are cut off", || !is_ready(&nodes[1]));
    let own = page(&nodes[1], "");
    assert_eq!(own["stale"], true);
    assert_eq!(
        shown(&own),
        [
            (json!("N ann"), 1),
            (json!("N bob"), 1),
            (json!("N dan"), 1),
            (Value::Null, 2),
        ]
    );
}
