//! `danmaku demo`: one command, and a hall full of people.

mod support;

use std::time::{Duration, Instant};

use support::Node;

#[test]
fn bots_arrive_chat_and_give() {
    let mut node = Node::start_as(&["demo", "--bots", "300", "--rate", "60", "--gifts", "600"]);
    let mut viewer = node.join("1001");
    let begun = Instant::now();
    let (mut named, mut gifts) = (0, 0);
    while (named < 20 || gifts < 2) && begun.elapsed() < Duration::from_secs(20) {
        let message = viewer.next();
        match message["type"].as_str() {
            Some("danmaku") => {
                assert!(message["user"]["id"].as_str().unwrap().starts_with("bot-"));
                assert!(!message["user"]["name"].as_str().unwrap().is_empty());
                named += 1;
            }
            Some("event") => {
                assert_eq!(message["event"], "gift");
                gifts += 1;
            }
            _ => {}
        }
    }
    assert!(named >= 20 && gifts >= 2, "{named} lines, {gifts} gifts");
    // A few of them are on their way from one room to another at any time.
    assert!(node.metric("danmaku_connections") > 280.0);
    node.signal("TERM");
    assert!(node.wait().success());
}
