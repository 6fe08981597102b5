//! How many connections one login may have: on one node, on several, when a node dies and when Redis is away.

mod support;

use std::time::Duration;

use support::cluster::{is_ready, joined_cluster};
use support::redis::Redis;
use support::{Node, Viewer, wait_for};

const TWO: &str = "connections_per_user_max = 2\n";

fn connect(node: &Node, user: &str) -> Viewer {
    let token = node.token(&["--user", user]);
    let mut viewer = node.connect(&format!("?token={token}"));
    viewer.expect("welcome");
    viewer
}

fn node_limited(redis: &Redis) -> Node {
    let url = redis.url("");
    Node::start(&format!(
        "[limits]\n{TWO}[redis]\nurl = \"{url}\"\nlease = \"1s\"\n"
    ))
}

fn stays(viewer: &mut Viewer) {
    assert!(viewer.is_quiet_for(Duration::from_millis(300)));
}

fn is_replaced(mut viewer: Viewer) {
    let (code, reason) = viewer.closed();
    assert_eq!(code, 4008, "{reason}");
    assert!(reason.contains("newer connections"), "{reason}");
}

#[test]
fn the_newest_connections_of_a_login_stay() {
    let node = Node::start(&format!("[limits]\n{TWO}"));
    let first = connect(&node, "ann");
    let second = connect(&node, "ann");
    let mut other = connect(&node, "bob");
    let mut third = connect(&node, "ann");
    is_replaced(first);
    let fourth = connect(&node, "ann");
    is_replaced(second);
    stays(&mut third);
    stays(&mut other);
    // Those that go make room.
    drop(fourth);
    wait_for("it has gone", || node.metric("danmaku_connections") == 2.0);
    let _fifth = connect(&node, "ann");
    stays(&mut third);
    // Who has no token has no login.
    let mut guests: Vec<Viewer> = (0..4).map(|_| node.connect("")).collect();
    for guest in &mut guests {
        guest.expect("welcome");
        stays(guest);
    }
}

#[test]
fn a_login_is_counted_on_all_nodes() {
    let mut redis = Redis::start(&[]);
    let nodes: Vec<Node> = (0..3)
        .map(|_| {
            let node = node_limited(&redis);
            joined_cluster(&node);
            node
        })
        .collect();
    let registered = |redis: &Redis| redis.ask::<u64>("ZCARD live:login:ann");
    let first = connect(&nodes[0], "ann");
    let mut second = connect(&nodes[1], "ann");
    wait_for("both are known", || registered(&redis) == 2);
    let mut third = connect(&nodes[2], "ann");
    is_replaced(first);
    stays(&mut second);
    stays(&mut third);

    // A node that dies leaves no connection behind that would push out a living one.
    let mut nodes = nodes;
    let mut last = nodes.pop().unwrap();
    last.signal("KILL");
    last.wait();
    wait_for("its connections are forgotten", || registered(&redis) == 1);
    let mut fourth = connect(&nodes[0], "ann");
    wait_for("it is known", || registered(&redis) == 2);
    stays(&mut second);
    stays(&mut fourth);

    // A Redis that stood still finds the same connections, under another name of their nodes.
    redis.signal("STOP");
    wait_for("Redis is known to be away", || {
        !is_ready(&nodes[0]) && !is_ready(&nodes[1])
    });
    redis.signal("CONT");
    for node in &nodes {
        joined_cluster(node);
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(registered(&redis), 2);
    stays(&mut second);
    stays(&mut fourth);

    // Without Redis each node counts for itself, and it is made good when it is back.
    redis.kill();
    wait_for("Redis is known to be away", || {
        !is_ready(&nodes[0]) && !is_ready(&nodes[1])
    });
    let mut fifth = connect(&nodes[0], "ann");
    stays(&mut fourth);
    redis.restart();
    for node in &nodes {
        joined_cluster(node);
    }
    is_replaced(second);
    stays(&mut fourth);
    stays(&mut fifth);
    drop((fourth, fifth));
    wait_for("nobody is left", || registered(&redis) == 0);
    assert_eq!(redis.ask::<u64>("EXISTS live:login:ann"), 0);
}
