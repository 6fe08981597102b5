//! Every scenario against a real gateway, small: the promises hold, the books agree with the server's, the files are there.

mod support;

use std::process::Command;
use std::time::Duration;

use danmaku_swarm::report::file::read_json;
use danmaku_swarm::report::{Ended, Report};
use support::{running, said, scratch, swarm};

/// Runs to the end; every promise must hold.
fn held(words: &[&str]) -> Report {
    let json = scratch("report.json");
    let output = swarm(words, &json).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let report = read_json(&json).unwrap();
    assert!(report.held());
    let found = &report.deliveries;
    assert_eq!(found.expected, found.delivered + found.told_dropped);
    report
}

fn server(report: &Report, metric: &str) -> u64 {
    let metrics = report.metrics.as_ref().unwrap();
    (metrics.after[metric] - metrics.before[metric]) as u64
}

#[test]
fn idle_clients_are_in_no_room() {
    let report = held(&[
        "idle",
        "--viewers",
        "200",
        "--duration",
        "1s",
        "--heartbeat",
        "200ms",
    ]);
    assert_eq!(report.connections.peak, 200);
    assert_eq!(server(&report, "danmaku_joins_total"), 0);
    assert!(
        server(&report, "danmaku_frames_in_total") >= 200,
        "the clients' own heartbeats"
    );
}

#[test]
fn a_hot_room_is_counted_alike_on_both_sides() {
    let report = held(&[
        "room",
        "--viewers",
        "150",
        "--rate",
        "100",
        "--duration",
        "2s",
    ]);
    assert_eq!(report.published.accepted, 200);
    assert_eq!(report.deliveries.delivered, 200 * 150);
    assert_eq!(report.latency.count, 200 * 150);
    assert_eq!(server(&report, "danmaku_deliveries_total"), 200 * 150);
    assert_eq!(report.deliveries.memberships_checked, 150);
    assert!(report.server.unwrap().rss_connected > 1 << 20);
}

#[test]
fn batches_are_taken_apart() {
    let words = [
        "room",
        "--viewers",
        "60",
        "--rate",
        "400",
        "--duration",
        "2s",
        "--subprotocol",
        "danmaku.v1.batch",
    ];
    let report = held(&[&words[..], &["--set", "rooms.tick=100ms"]].concat());
    assert_eq!(report.deliveries.delivered, 800 * 60);
    let frames = server(&report, "danmaku_frames_out_total");
    assert!(
        frames < 800 * 60 / 4,
        "{frames} frames for {} lines",
        800 * 60
    );
}

#[test]
fn popular_rooms_and_pushed_lines() {
    let rooms = held(&[
        "rooms",
        "--viewers",
        "300",
        "--rooms",
        "30",
        "--rate",
        "200",
        "--duration",
        "2s",
    ]);
    assert_eq!(rooms.published.accepted, 400);
    let push = held(&[
        "push",
        "--viewers",
        "50",
        "--rate",
        "200",
        "--duration",
        "2s",
        "--publishers",
        "4",
    ]);
    assert_eq!(push.push_latency.as_ref().unwrap().count, 400);
    assert_eq!(server(&push, "danmaku_api_pushes_total"), 400);
    let words = ["push", "--viewers", "50", "--rooms", "20", "--rate", "2000"];
    let many = held(&[&words[..], &["--rooms-per-push", "20", "--duration", "2s"]].concat());
    assert_eq!(many.published.accepted, 4000);
    assert_eq!(many.push_latency.as_ref().unwrap().count, 200);
}

#[test]
fn a_storm_comes_back_as_the_server_asks() {
    let words = [
        "storm",
        "--viewers",
        "400",
        "--existing",
        "50",
        "--cuts",
        "1",
        "--duration",
        "10s",
        "--rate",
        "400",
    ];
    let report = held(&[&words[..], &["--set", "admission.accepts_per_s=300"]].concat());
    let connections = &report.connections;
    assert_eq!(
        (connections.cut, connections.connected),
        (350, 50 + 350 + 350)
    );
    assert!(connections.refused["accept_rate"] > 0);
    assert!(connections.backed_off >= connections.refused["accept_rate"]);
    let names: Vec<&str> = report.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["before", "storm", "cut 1"]);
    assert!(report.parts.iter().all(|part| part.latency.count > 0));
    assert!(report.deliveries.recovered > 0, "lines spoken meanwhile");
}

#[test]
fn an_evening_of_comings_and_goings_adds_up() {
    let words = [
        "mixed",
        "--viewers",
        "200",
        "--rooms",
        "20",
        "--stay",
        "1s",
        "--rate",
        "100",
        "--gifts",
        "20",
    ];
    let report = held(&[&words[..], &["--duration", "5s"]].concat());
    assert!(report.connections.connected > 300, "some came later");
    assert!(report.deliveries.events > 100, "gifts arrived");
    assert!(server(&report, "danmaku_leaves_total") > 200);
}

#[test]
fn who_never_read_is_told_what_it_missed() {
    // Large lines, so that what the kernel holds for a socket is soon full.
    let words = [
        "slow",
        "--viewers",
        "20",
        "--slow-share",
        "0.2",
        "--rate",
        "600",
        "--text-bytes",
        "1000",
    ];
    let report = held(
        &[
            &words[..],
            &["--duration", "12s", "--set", "slow.stuck_timeout=60s"],
        ]
        .concat(),
    );
    assert!(
        report.deliveries.told_dropped > 0,
        "{:?}",
        report.deliveries
    );
    assert_eq!(report.deliveries.expected, 20 * 7200);
    assert_eq!(
        server(&report, "danmaku_dropped_total"),
        report.deliveries.told_dropped
    );
}

#[test]
fn who_never_reads_shows_that_it_lives() {
    let words = ["slow", "--viewers", "20", "--slow-share", "0.2"];
    let pace = ["--rate", "10", "--duration", "5s", "--heartbeat", "400ms"];
    // Without a sign of life the gateway closes after two intervals.
    let heartbeat = ["--set", "heartbeat.interval=1s"];
    let report = held(&[&words[..], &pace, &heartbeat].concat());
    assert_eq!(report.deliveries.delivered, 20 * 50);
    assert!(report.connections.closed.is_empty());
}

#[test]
fn who_is_let_go_as_too_slow_is_settled_by_the_servers_word() {
    let words = ["slow", "--viewers", "20", "--slow-share", "0.2"];
    let pace = ["--rate", "600", "--text-bytes", "1000", "--duration", "12s"];
    let report = held(&[&words[..], &pace, &["--set", "slow.stuck_timeout=2s"]].concat());
    let metrics = report.metrics.as_ref().unwrap();
    assert_eq!(metrics.after[r#"danmaku_closes_total{code="4413"}"#], 4.0);
    let settled = report.promises.iter();
    let settled = settled.filter(|promise| promise.what == "who did not read was settled");
    assert_eq!(settled.count(), 1);
}

#[test]
fn a_gateway_does_not_outlive_a_swarm_that_is_killed() {
    let json = scratch("killed.json");
    let words = ["room", "--viewers", "5", "--duration", "60s"];
    // What is meant for another gateway does not reach this one.
    let mut command = swarm(&words, &json);
    let mut child = command.env("DANMAKU_NO__SUCH", "1").spawn().unwrap();
    let gateway = wait_for("a gateway", || child_of(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("its end", || {
        (!std::path::Path::new(&format!("/proc/{gateway}")).exists()).then_some(())
    });
}

/// The process this one started.
fn child_of(pid: u32) -> Option<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1500 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} did not come");
}

#[test]
fn ctrl_c_ends_with_a_report_of_what_was_done() {
    let json = scratch("interrupted.json");
    let words = [
        "room",
        "--viewers",
        "20",
        "--rate",
        "50",
        "--duration",
        "60s",
    ];
    let child = swarm(&words, &json).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let signalled = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signalled.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("INTERRUPTED"), "{}", said(&output));
    let report = read_json(&json).unwrap();
    assert_eq!(report.ended, Ended::Interrupted);
    assert!(report.deliveries.delivered > 0);
    assert_eq!(
        report.deliveries.lost, 0,
        "what was under way arrived all the same"
    );
}

#[test]
fn a_server_of_someone_else_is_measured_from_outside() {
    let gateway = running();
    let url = format!("ws://{}/ws", gateway.public);
    let pid = gateway.child.id().to_string();
    let words = [
        "room",
        "--url",
        &url,
        "--internal",
        &gateway.internal,
        "--pid",
        &pid,
    ];
    let report = held(
        &[
            &words[..],
            &["--viewers", "40", "--rate", "20", "--duration", "2s"],
        ]
        .concat(),
    );
    assert_eq!(report.deliveries.delivered, 40 * 40);
    assert!(report.server.is_some() && report.metrics.is_some());
}

#[test]
fn a_server_that_dies_is_not_passed_over() {
    let mut gateway = running();
    let url = format!("ws://{}/ws", gateway.public);
    let json = scratch("died.json");
    let words = [
        "room",
        "--url",
        &url,
        "--viewers",
        "20",
        "--rate",
        "20",
        "--duration",
        "4s",
    ];
    let child = swarm(&words, &json).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    gateway.child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report = read_json(&json).unwrap();
    assert!(!report.held());
    assert_eq!(report.connections.at_end, 0);
    assert_eq!(report.connections.closed["1006"], 20);
    let held = |what: &str| {
        let mut promises = report.promises.iter();
        promises.find(|promise| promise.what == what).unwrap().held
    };
    assert!(!held("who was in and read stayed in"));
    assert!(
        !held("every client got in and into its room"),
        "nobody was in at the end"
    );
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let json = scratch("never.json");
    let missing = scratch("missing.json");
    let missing = missing.to_str().unwrap();
    for (words, wanted) in [
        (
            &["room", "--url", "ws://127.0.0.1:1/ws"][..],
            "nothing to test at 127.0.0.1:1",
        ),
        (&["room", "--compare", missing][..], missing),
        (&["push", "--url", "ws://127.0.0.1:1/"][..], "127.0.0.1:1"),
        (
            &["storm", "--slow-share", "0.1"][..],
            "--slow-share belongs to slow",
        ),
        (
            &["room", "--set", "limits.no_such=1", "--viewers", "1"][..],
            "DANMAKU_LIMITS__NO_SUCH",
        ),
    ] {
        let output = swarm(words, &json).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{words:?}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains(wanted),
            "{words:?}: {}",
            said(&output)
        );
        assert!(!json.exists());
    }
}

#[test]
fn files_and_a_comparison() {
    let (first, second, page) = (scratch("a.json"), scratch("b.json"), scratch("b.html"));
    let words = [
        "room",
        "--viewers",
        "30",
        "--rate",
        "20",
        "--duration",
        "1s",
    ];
    assert!(swarm(&words, &first).status().unwrap().success());
    let mut command = swarm(&words, &second);
    command
        .arg("--compare")
        .arg(&first)
        .arg("--html")
        .arg(&page);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("ratio"), "{}", said(&output));
    assert!(std::fs::read_to_string(&page).unwrap().contains("<svg"));
}
