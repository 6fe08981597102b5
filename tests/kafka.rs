//! What happens, as it comes to Kafka: librdkafka's mock cluster stands for the brokers.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::{Value, json};
use support::cluster::say;
use support::{Node, wait_for};

fn node(brokers: &str) -> Node {
    Node::start(&format!(
        "[server]\nnode = \"here\"\n[limits]\nlines_per_s = 1000\nline_burst = 1000\n[kafka]\nbrokers = \"{brokers}\"\ntopic = \"live\"\noptions = [\"linger.ms=1\"]\n"
    ))
}

fn consumer(brokers: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["live"]).unwrap();
    consumer
}

/// Key, type and object of the next `count` messages, by partition.
fn read(consumer: &BaseConsumer, count: usize) -> BTreeMap<i32, Vec<(String, String, Value)>> {
    let begun = Instant::now();
    let mut read: BTreeMap<i32, Vec<_>> = BTreeMap::new();
    while read.values().map(Vec::len).sum::<usize>() < count {
        assert!(begun.elapsed() < Duration::from_secs(30), "{read:?}");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message.unwrap();
        let headers = message.headers().unwrap();
        let header = |name: &str| {
            let found = headers.iter().find(|header| header.key == name).unwrap();
            String::from_utf8(found.value.unwrap().to_vec()).unwrap()
        };
        assert_eq!(header("node"), "here");
        let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
        let json: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let of = read.entry(message.partition()).or_default();
        of.push((key, header("type"), json));
    }
    read
}

#[test]
fn what_happens_comes_to_kafka_in_each_rooms_order() {
    let brokers: MockCluster<'_, DefaultProducerContext> = MockCluster::new(3).unwrap();
    brokers.create_topic("live", 4, 3).unwrap();
    let node = node(&brokers.bootstrap_servers());
    let mut viewers: Vec<_> = ["a", "b", "c"].map(|room| (room, node.join(room))).into();
    for n in 0..30 {
        for (room, viewer) in &mut viewers {
            say(viewer, room, &n.to_string());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let consumer = consumer(&brokers.bootstrap_servers());
    let read = read(&consumer, 93);
    for (room, _) in &viewers {
        let of: Vec<_> = read
            .values()
            .flatten()
            .filter(|(key, ..)| key == room)
            .collect();
        assert_eq!(of[0].1, "join");
        let texts: Vec<_> = of[1..]
            .iter()
            .map(|(_, _, json)| json["text"].clone())
            .collect();
        assert_eq!(
            texts,
            (0..30).map(|n| json!(n.to_string())).collect::<Vec<_>>()
        );
        let partitions = read
            .values()
            .filter(|all| all.iter().any(|(key, ..)| key == room));
        assert_eq!(partitions.count(), 1, "a room keeps to one partition");
    }
    wait_for("all are confirmed", || {
        node.metric("danmaku_events_kafka_total") == 93.0
    });
    assert_eq!(node.metric("danmaku_events_kafka_lost_total"), 0.0);
}

#[test]
fn brokers_that_are_away_hold_up_nobody() {
    let brokers: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
    brokers.create_topic("live", 1, 1).unwrap();
    let node = node(&brokers.bootstrap_servers());
    let mut viewer = node.join("a");
    wait_for("it is confirmed", || {
        node.metric("danmaku_events_kafka_total") == 1.0
    });
    brokers.broker_down(-1).unwrap();
    for n in 0..40 {
        say(&mut viewer, "a", &n.to_string());
        while viewer.next()["type"] != "danmaku" {}
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(node.metric("danmaku_events_kafka_total"), 1.0);
    wait_for("they wait", || {
        node.metric("danmaku_events_kafka_waiting") == 40.0
    });
    brokers.broker_up(-1).unwrap();
    wait_for("they have come", || {
        node.metric("danmaku_events_kafka_total") == 41.0
    });
    let read = read(&consumer(&brokers.bootstrap_servers()), 41);
    let last = read[&0].last().unwrap();
    assert_eq!(last.2["text"], "39");
}
