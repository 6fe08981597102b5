//! Three counts of the same room: the swarm's, the gateway's own metrics, and those of a small script with another WebSocket
//! client (`tests/count.py`, Python `websockets`).

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use danmaku_swarm::clock::Clock;
use danmaku_swarm::probe;
use danmaku_swarm::report::file::read_json;
use support::{running, said, scratch, swarm};

/// The Python with `websockets` that scripts/test.sh makes.
fn python() -> std::path::PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let clients =
        std::env::var_os("TEST_CLIENTS").map_or_else(|| top.join("target/clients"), Into::into);
    let python = clients.join("venv/bin/python");
    assert!(
        python.exists(),
        "no {}: run scripts/test.sh, it installs `websockets` (pip)",
        python.display()
    );
    python
}

#[test]
fn swarm_script_and_metrics_count_alike() {
    let gateway = running();
    let url = format!("ws://{}/ws", gateway.public);
    let mut script = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/count.py"))
        .args([&url, "swarm-0", "--viewers", "30", "--lines", "100"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");

    let json = scratch("agreement.json");
    let words = [
        "room",
        "--url",
        &url,
        "--viewers",
        "50",
        "--speakers",
        "20",
        "--rate",
        "50",
        "--duration",
        "2s",
    ];
    let output = swarm(&words, &json).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let swarm = read_json(&json).unwrap().deliveries;

    let counted = lines.next().unwrap().unwrap();
    assert!(script.wait().unwrap().success());
    let script: serde_json::Value = serde_json::from_str(&counted).unwrap();
    assert_eq!(
        (&script["missing"], &script["again"]),
        (&0.into(), &0.into()),
        "{script}"
    );

    // All three saw the same hundred lines from their first to their last, so they agree exactly and not only within 5 %.
    let each = |lines: u64, viewers: u64| lines as f64 / viewers as f64;
    let by_script = each(script["lines"].as_u64().unwrap(), 30);
    assert_eq!((each(swarm.delivered, 50), by_script), (100.0, 100.0));
    let metrics = probe::metrics(gateway.internal.parse().unwrap(), Clock::start()).unwrap();
    assert_eq!(
        metrics["danmaku_deliveries_total"] as u64,
        swarm.delivered + script["lines"].as_u64().unwrap()
    );
}
