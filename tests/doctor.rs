//! `danmaku doctor` with the real program on the machine the tests run on, and against a real Redis.

mod support;

use std::process::Command;

use serde_json::Value;
use support::redis::Redis;
use support::{binary, scratch};

/// What it prints, and its exit code.
fn doctor(arguments: &[&str]) -> (String, Option<i32>) {
    let out = Command::new(binary())
        .arg("doctor")
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(
        out.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    (said, out.status.code())
}

fn finding(arguments: &[&str], check: &str) -> (Value, Option<i32>) {
    let (said, code) = doctor(&[arguments, &["--json"]].concat());
    let report: Value = serde_json::from_str(&said).unwrap();
    let findings = report["report"]["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == check);
    (found.cloned().unwrap_or(Value::Null), code)
}

#[test]
fn this_machine_is_judged() {
    let (said, code) = doctor(&["--shards", "2"]);
    for needle in [
        "2 shards",
        "descriptors:",
        "memory:",
        "local ports:",
        "wall clock:",
        "This machine fits",
        "what limits it first is",
    ] {
        assert!(said.contains(needle), "no {needle} in {said}");
    }
    let (json, same) = doctor(&["--shards", "2", "--json"]);
    assert_eq!(code, same);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["ok"], code == Some(0));
    assert_eq!(report["report"]["shards"], 2);
    let bounds = report["report"]["bounds"].as_array().unwrap();
    assert_eq!(report["fits"], bounds[0]["viewers"]);
    assert_eq!(json.lines().count(), 1);
}

#[test]
fn it_foretells_what_the_gateway_then_admits() {
    let descriptors = 200;
    let script = format!("ulimit -n {descriptors}; exec \"$0\" doctor --shards 3 --json");
    let out = Command::new("sh")
        .args(["-c", &script])
        .arg(binary())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    let config = scratch("foretold.toml");
    let toml =
        "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n[server]\nshards = 3\n";
    std::fs::write(&config, toml).unwrap();
    let node = support::Node::run_with_descriptors(config, descriptors);
    let admitted = node.metric("danmaku_connection_permits_max");
    assert_eq!(report["fits"].as_f64(), Some(admitted), "{report}");
    assert_eq!(report["limited_by"], "the descriptor limit");
}

#[test]
fn what_is_bad_is_its_exit_code() {
    let script = "ulimit -n 60; exec \"$0\" doctor --shards 2";
    let out = Command::new("sh")
        .args(["-c", script])
        .arg(binary())
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("BAD  descriptors") && said.contains("LimitNOFILE="),
        "{said}"
    );
    let (settings, code) = finding(&["--shards", "9999"], "settings");
    assert_eq!((settings["verdict"].as_str(), code), (Some("bad"), Some(1)));
    assert_eq!(settings["found"], "1 mistake in the settings");
}

#[test]
fn a_closed_output_is_no_failure() {
    for command in ["doctor", "default-config", "completions bash"] {
        let script = format!("\"$0\" {command} | head -n 1 | cat; exit ${{PIPESTATUS[0]}}");
        let out = Command::new("bash")
            .args(["-c", &script])
            .arg(binary())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!said.contains("panicked"), "{command}: {said}");
    }
}

#[test]
fn a_redis_is_measured() {
    let redis = Redis::start(&[
        "--requirepass",
        "hunter2",
        "--maxmemory",
        "64mb",
        "--maxmemory-policy",
        "allkeys-lru",
    ]);
    let url = redis.url(":hunter2@");
    let (found, _) = finding(&["--redis", &url], "redis");
    let text = found["found"].as_str().unwrap();
    assert!(text.contains("median of 20"), "{found}");
    assert!(
        text.contains(&format!("127.0.0.1:{}", redis.port())),
        "{found}"
    );
    let (found, _) = finding(&["--redis", &url], "redis eviction");
    assert_eq!(found["verdict"], "warn");
    let mend = found["mend"][0]["command"].as_str().unwrap();
    assert!(mend.contains("maxmemory-policy noeviction"), "{mend}");
    // From a config file, which the gateway of this version refuses.
    let config = scratch("redis.toml");
    std::fs::write(&config, format!("[redis]\nurl = \"{url}\"\n")).unwrap();
    let (found, _) = finding(&["--config", config.to_str().unwrap()], "redis");
    assert!(
        found["found"].as_str().unwrap().contains("median"),
        "{found}"
    );
    let (settings, _) = finding(&["--config", config.to_str().unwrap()], "settings");
    assert_eq!(settings, Value::Null);
}

#[test]
fn a_redis_that_does_not_let_us_in() {
    let redis = Redis::start(&["--requirepass", "hunter2"]);
    let rows = [
        (redis.url(""), "Authentication required"),
        (redis.url(":swordfish@"), "wrong user or password"),
        (redis.url("nobody:swordfish@"), "wrong user or password"),
    ];
    for (url, needle) in rows {
        let (said, code) = doctor(&["--redis", &url]);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("BAD  redis:") && said.contains(needle),
            "{url}: {said}"
        );
        assert!(!said.contains("swordfish"), "{said}");
    }
}
