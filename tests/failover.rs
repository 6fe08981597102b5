//! A Redis that fails over, and a Redis Cluster: rooms stay whole, or become so again.

mod support;

use serde_json::{Value, json};
use support::cluster::{is_ready, joined_cluster, node_at, room, say};
use support::redis::{Redis, RedisCluster};
use support::{Node, Viewer, wait_for};

/// The next lines said in the room, whatever else is told.
fn texts(viewer: &mut Viewer, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let value = viewer.next();
        if value["type"] == "danmaku" {
            texts.push(value["text"].as_str().unwrap().to_owned());
        }
    }
    texts
}

fn numbering(node: &Node, name: &str) -> (Value, Value) {
    let room = room(node, name);
    (room["epoch"].clone(), room["seq"].clone())
}

#[test]
fn a_replica_that_was_promoted_takes_the_place_of_its_master() {
    let mut master = Redis::start(&[]);
    let replica = Redis::start_replica(&master);
    let url = format!(
        "redis://127.0.0.1:{},127.0.0.1:{}",
        master.port(),
        replica.port()
    );
    let nodes: Vec<Node> = (0..2)
        .map(|_| node_at(&format!("url = \"{url}\""), ""))
        .collect();
    for node in &nodes {
        joined_cluster(node);
    }
    let mut viewers: Vec<Viewer> = nodes.iter().map(|node| node.join("over")).collect();
    for n in 0..5 {
        say(&mut viewers[0], "over", &n.to_string());
        for viewer in &mut viewers {
            assert_eq!(texts(viewer, 1), [n.to_string()]);
        }
    }
    let before = numbering(&nodes[0], "over");
    wait_for("all of it has been copied", || {
        replica.ask::<String>("HGET live:seq:{live:room:over} seq") == "5"
    });
    master.kill();
    wait_for("it is known to be away", || {
        nodes.iter().all(|node| !is_ready(node))
    });
    replica.ask::<String>("REPLICAOF NO ONE");
    for node in &nodes {
        joined_cluster(node);
    }
    for node in &nodes {
        wait_for("the numbering is the one from before", || {
            numbering(node, "over").0 == before.0
        });
    }
    for viewer in &mut viewers {
        while viewer.next()["type"] != "epoch" {}
        let back = viewer.expect("epoch");
        assert_eq!((&back["epoch"], &back["seq"]), (&before.0, &json!(5)));
    }
    for (from, to) in [(0, 1), (1, 0)] {
        say(&mut viewers[from], "over", "again");
        assert_eq!(texts(&mut viewers[to], 1), ["again"]);
        assert_eq!(texts(&mut viewers[from], 1), ["again"]);
    }
    // Who comes back resumes across all of it.
    let mut again = nodes[1].connect("");
    again.expect("welcome");
    again.send(&json!({"type": "join", "room": "over", "epoch": before.0, "seq": 3}));
    let joined = again.expect("joined");
    assert_eq!(joined["recovered"], true, "{joined}");
    assert_eq!(joined["messages"].as_array().unwrap().len(), 4);
}

#[test]
fn rooms_are_spread_over_a_redis_cluster_and_survive_the_death_of_a_master() {
    let mut cluster = RedisCluster::start(3);
    let redis = format!("url = \"{}\"\ncluster = true", cluster.url());
    let limit = "[server]\nregion = \"here\"\n";
    let nodes: Vec<Node> = (0..3).map(|_| node_at(&redis, limit)).collect();
    for node in &nodes {
        joined_cluster(node);
    }
    // So many rooms that every master has some.
    let names: Vec<String> = (0..12).map(|n| format!("slot-{n}")).collect();
    let mut viewers: Vec<Vec<Viewer>> = names
        .iter()
        .map(|name| nodes.iter().map(|node| node.join(name)).collect())
        .collect();
    let mut order = vec![0; names.len()];
    let mut round = |viewers: &mut Vec<Vec<Viewer>>, word: &str| {
        for (at, name) in names.iter().enumerate() {
            for from in 0..3 {
                let text = format!("{word} {from}");
                say(&mut viewers[at][from], name, &text);
                order[at] += 1;
                for viewer in &mut viewers[at] {
                    assert_eq!(texts(viewer, 1), [text.as_str()], "{name}");
                }
            }
        }
    };
    round(&mut viewers, "first");
    for (at, name) in names.iter().enumerate() {
        wait_for("everybody is counted", || {
            cluster.ask(&format!("HGET live:room:{name} total")) == "3"
        });
        let key = format!("live:seq:{{live:room:{name}}}");
        assert_eq!(cluster.ask(&format!("HGET {key} seq")), "3");
        // Heard at the owner of its slot alone, by every node.
        let channel = format!("live:lines:{{live:room:{name}}}");
        let heard: Vec<(String, u64)> = cluster
            .owner(&key)
            .ask(&format!("PUBSUB SHARDNUMSUB {channel}"));
        assert_eq!(heard, [(channel, 3)]);
        assert_eq!(room(&nodes[at % 3], name)["online"], 3);
    }
    let owners: std::collections::BTreeSet<u16> = names
        .iter()
        .map(|name| cluster.owner(&format!("live:room:{name}")).port())
        .collect();
    assert_eq!(owners.len(), 3, "the rooms are spread");
    // What needs no room works too: the list of rooms and of nodes, orders to all.
    wait_for("all rooms are listed", || {
        let page = nodes[0].api("GET", "/api/v1/rooms?limit=50", "").json();
        page["rooms"].as_array().unwrap().len() == 12
    });
    wait_for("all nodes are listed", || {
        nodes[0].api("GET", "/api/v1/nodes", "").json()["nodes"]
            .as_array()
            .unwrap()
            .len()
            == 3
    });
    let body = r#"{"event":"hello","data":null}"#;
    let reached = nodes[1].api("POST", "/api/v1/broadcast", body).json();
    assert_eq!(reached["connections"], 36);

    // A master dies; its replica takes its place, and everybody finds back.
    let before: Vec<_> = names
        .iter()
        .map(|name| numbering(&nodes[0], name).0)
        .collect();
    cluster.owner("live:room:slot-0").kill();
    wait_for("they miss it", || nodes.iter().all(|node| !is_ready(node)));
    for node in &nodes {
        joined_cluster(node);
    }
    for (name, before) in names.iter().zip(&before) {
        for node in &nodes {
            wait_for("the numbering is the one from before", || {
                numbering(node, name).0 == *before
            });
        }
    }
    round(&mut viewers, "second");
    for name in &names {
        wait_for("everybody is counted", || {
            cluster.ask(&format!("HGET live:room:{name} total")) == "3"
        });
    }

    // Slots move to another master while rooms live in them.
    let mut owner = |name: &str| cluster.owner(&format!("live:room:{name}")).port();
    let first = owner(&names[0]);
    let other = names.iter().find(|name| owner(name) != first).unwrap();
    let (from, to) = (
        format!("live:room:{}", names[0]),
        format!("live:room:{other}"),
    );
    let opened = |node: &Node| node.metric("danmaku_redis_breaker_opened_total");
    let before_move: Vec<f64> = nodes.iter().map(opened).collect();
    cluster.move_slot(&from, &to);
    for (node, before) in nodes.iter().zip(before_move) {
        wait_for("it has been noticed, and rooms are shared again", || {
            opened(node) > before && is_ready(node)
        });
    }
    for (name, before) in names.iter().zip(&before) {
        for node in &nodes {
            wait_for("the numbering is the one from before", || {
                numbering(node, name).0 == *before
            });
        }
    }
    round(&mut viewers, "third");
    let lost: f64 = nodes
        .iter()
        .map(|node| node.metric("danmaku_events_stream_lost_total"))
        .sum();
    assert_eq!(lost, 0.0);
}
