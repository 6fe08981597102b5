//! Several nodes under one swarm: real gateways and a real Redis, together, apart, and never joined.

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use danmaku_swarm::report::Report;
use danmaku_swarm::report::file::read_json;
use support::{Redis, Running, running, running_with, said, scratch, swarm};

/// One cluster at a time: three gateways and a Redis that wait for a core think each other gone.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Their URLs as the command line has them.
fn urls(nodes: &[Running]) -> String {
    let urls = nodes.iter().map(|node| format!("ws://{}/ws", node.public));
    urls.collect::<Vec<_>>().join(",")
}

fn internals(nodes: &[Running]) -> String {
    let all: Vec<&str> = nodes.iter().map(|node| &*node.internal).collect();
    all.join(",")
}

fn pids(nodes: &[Running]) -> String {
    let pids = nodes.iter().map(|node| node.child.id().to_string());
    pids.collect::<Vec<_>>().join(",")
}

fn joined(redis: &Redis) -> Vec<Running> {
    let nodes: Vec<Running> = (0..3)
        .map(|_| running_with(&["--redis", &redis.url]))
        .collect();
    // Until it has found its Redis a node is one by itself.
    nodes.iter().for_each(Running::wait_ready);
    nodes
}

/// 60 lines a second of 30 speakers, on as many nodes as there are.
fn words<'a>(urls: &'a str, duration: &'a str) -> Vec<&'a str> {
    let fixed = "room --viewers 60 --speakers 30 --rate 60 --duration";
    let mut words: Vec<&str> = fixed.split(' ').collect();
    words.extend([duration, "--url", urls]);
    words
}

fn promise(report: &Report, what: &str) -> bool {
    let mut promises = report.promises.iter();
    let found = promises.find(|promise| promise.what.starts_with(what));
    found.unwrap_or_else(|| panic!("{what}")).held
}

#[test]
fn nodes_that_share_a_room_are_one_to_its_viewers() {
    let _alone = alone();
    let redis = Redis::start();
    let nodes = joined(&redis);
    let (urls, internals, pids) = (urls(&nodes), internals(&nodes), pids(&nodes));
    let mut words = words(&urls, "3s");
    words.extend(["--internal", &internals, "--pid", &pids]);
    words.extend(["--part", "early=0s-1s", "--part", "late=2s-3s"]);
    let (json, ready) = (scratch("report.json"), scratch("ready"));
    let mut command = swarm(&words, &json);
    let output = command.arg("--ready-file").arg(&ready).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let report = read_json(&json).unwrap();
    let found = &report.deliveries;
    assert_eq!((found.delivered + found.apart, found.split), (180 * 60, 0));
    let (local, across) = (
        report.local_latency.unwrap(),
        report.across_latency.unwrap(),
    );
    assert_eq!(local.count + across.count, report.latency.count);
    // On a machine that is busy with other things nodes may part and find back.
    let were_one = found.renumbered == 0;
    assert!(!were_one || across.count == 2 * local.count);
    assert_eq!(report.parts.len(), 2);
    assert!(report.parts.iter().all(|part| {
        let across = part.across_latency.as_ref().unwrap();
        across.count > 0 && across.count < part.latency.count
    }));
    assert!(report.server.unwrap().rss_connected > 3 << 20);
    let metrics = report.metrics.unwrap();
    let counted = metrics
        .agreement
        .iter()
        .find(|pair| pair.what == "lines delivered");
    assert_eq!(
        counted.unwrap().server as u64,
        found.delivered,
        "all nodes added up"
    );
    let ready = std::fs::read_to_string(ready).unwrap();
    let begins: serde_json::Value = serde_json::from_str(&ready).unwrap();
    assert!(begins["run_begins_ms"].as_u64().unwrap() > report.started_ms);
}

#[test]
fn what_is_said_while_redis_is_away_is_counted_apart() {
    let _alone = alone();
    let redis = Redis::start();
    let nodes = joined(&redis);
    let urls = urls(&nodes);
    let json = scratch("report.json");
    let swarm = swarm(&words(&urls, "9s"), &json).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    redis.signal("STOP");
    std::thread::sleep(Duration::from_secs(2));
    redis.signal("CONT");
    let output = swarm.wait_with_output().unwrap();
    let report = read_json(&json).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let found = &report.deliveries;
    assert!(found.apart > 0, "{found:?}");
    assert!(
        found.renumbered >= 2 * 60,
        "each is told when it goes and when it is back"
    );
    let told: u64 = report.numberings.iter().map(|told| told.members).sum();
    assert_eq!(told, found.renumbered);
    assert_eq!(found.expected + found.apart, 9 * 60 * 60);
}

#[test]
fn nodes_that_never_met_are_not_taken_for_one() {
    let _alone = alone();
    let nodes = [running(), running()];
    let urls = urls(&nodes);
    let json = scratch("report.json");
    let output = swarm(&words(&urls, "2s"), &json).output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    let report = read_json(&json).unwrap();
    assert!(!promise(&report, "nodes were one"));
    assert!(
        promise(&report, "every line reached"),
        "each node by itself is in order"
    );
    assert_eq!(report.deliveries.split, 1);
    assert_eq!(report.deliveries.apart, 120 * 30);
}
