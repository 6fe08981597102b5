//! Gateways that share a Redis, and what they and it say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::redis::Redis;
use super::{Node, Viewer, wait_for};

/// Nodes that have reached their Redis.
pub fn nodes(redis: &Redis, count: usize) -> Vec<Node> {
    let nodes: Vec<Node> = (0..count).map(|_| node(redis)).collect();
    for node in &nodes {
        joined_cluster(node);
    }
    nodes
}

/// One, with a lease of a second and no flood control to speak of.
pub fn node(redis: &Redis) -> Node {
    node_with(redis, "")
}

/// The same, with more settings.
pub fn node_with(redis: &Redis, extra: &str) -> Node {
    node_at(&format!("url = \"{}\"", redis.url("")), extra)
}

/// The same, with these settings of the table `redis`.
pub fn node_at(redis: &str, extra: &str) -> Node {
    Node::start(&format!(
        "{extra}\n[limits]\nlines_per_s = 100000\nline_burst = 100000\n[redis]\n{redis}\nlease = \"1s\"\n"
    ))
}

/// Whether it takes viewers.
pub fn is_ready(node: &Node) -> bool {
    node.public("GET", "/readyz", &[], "").status == 200
}

/// Waits until it has reached its Redis.
pub fn joined_cluster(node: &Node) {
    wait_for("the node reaches Redis", || is_ready(node));
}

/// Says a line.
pub fn say(viewer: &mut Viewer, room: &str, text: &str) {
    viewer.send(&json!({"type": "danmaku", "room": room, "text": text}));
}

/// A room as a node shows it.
pub fn room(node: &Node, room: &str) -> Value {
    let answer = node.api("GET", &format!("/api/v1/rooms/{room}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// A room's presence hash.
pub fn presence(redis: &Redis, room: &str) -> BTreeMap<String, String> {
    redis.ask(&format!("HGETALL live:room:{room}"))
}

/// `total` and users as they stand in Redis.
pub fn counted(redis: &Redis, room: &str) -> (u64, usize) {
    let all = presence(redis, room);
    let total = all.get("total").map_or(0, |total| total.parse().unwrap());
    let users = all.keys().filter(|key| key.starts_with("user:")).count();
    (total, users)
}

/// Numbers and texts of the next `count` lines; acks and counts may come between.
pub fn lines(viewer: &mut Viewer, count: usize) -> Vec<(u64, String)> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let value = viewer.next();
        match value["type"].as_str().unwrap() {
            "danmaku" => lines.push((
                value["seq"].as_u64().unwrap(),
                value["text"].as_str().unwrap().to_owned(),
            )),
            "ack" | "online" => {}
            _ => panic!("{value}"),
        }
    }
    lines
}

/// The next `epoch` message; lines and counts may come before it.
pub fn epoch(viewer: &mut Viewer) -> (u64, u64) {
    loop {
        let value = viewer.next();
        match value["type"].as_str().unwrap() {
            "epoch" => {
                return (
                    value["epoch"].as_u64().unwrap(),
                    value["seq"].as_u64().unwrap(),
                );
            }
            "danmaku" | "ack" | "online" => {}
            _ => panic!("{value}"),
        }
    }
}
