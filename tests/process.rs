//! The process as a person meets it: commands, start-up errors, reload, stop.

mod support;

use std::process::{Command, Output};

use support::{Node, Viewer, binary, scratch};

fn danmaku(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn default_config_is_a_config() {
    let out = danmaku(&["default-config"]);
    assert!(out.status.success());
    let file = scratch("default.toml");
    std::fs::write(&file, &out.stdout).unwrap();
    let checked = danmaku(&["check-config", "--config", file.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stdout));
}

#[test]
fn check_config_names_every_mistake_at_once() {
    let file = scratch("bad.toml");
    std::fs::write(
        &file,
        "[limits]\nline_per_s = 3\ntext_bytes_max = \"huge\"\n[heartbeat]\ninterval = 30\n[rooms]\naccess = \"secret\"\n",
    )
    .unwrap();
    let out = danmaku(&["check-config", "--config", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(2));
    let said = text(&out.stdout) + &text(&out.stderr);
    for needle in [
        "line_per_s",
        "lines_per_s",
        "text_bytes_max",
        "interval",
        "access",
        "bad.toml",
    ] {
        assert!(said.contains(needle), "no {needle} in:\n{said}");
    }
}

#[test]
fn a_taken_port_says_what_to_do() {
    let node = Node::start("");
    let file = scratch("taken.toml");
    std::fs::write(
        &file,
        format!(
            "[listen]\npublic = \"{}\"\ninternal = \"127.0.0.1:0\"\n",
            node.public
        ),
    )
    .unwrap();
    let out = danmaku(&["serve", "--config", file.to_str().unwrap()]);
    assert!(!out.status.success());
    let said = text(&out.stderr);
    assert!(
        said.contains(&node.public.to_string()) && said.contains("--listen"),
        "{said}"
    );
}

#[test]
fn open_defaults_are_not_bound_to_the_world() {
    let out = danmaku(&["--listen", "0.0.0.0:0", "--internal-listen", "127.0.0.1:0"]);
    assert!(!out.status.success());
    let said = text(&out.stderr);
    assert!(said.contains("DANMAKU_AUTH__SECRET"), "{said}");
}

#[test]
fn weak_secrets_are_refused_at_start() {
    let out = Command::new(binary())
        .env("DANMAKU_AUTH__SECRET", "changeme")
        .args(["check-config"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let said = text(&out.stdout) + &text(&out.stderr);
    assert!(said.contains("32"), "{said}");
    assert!(
        !said.contains("changeme"),
        "the secret itself is not repeated: {said}"
    );
}

#[test]
fn a_token_needs_a_key() {
    let out = danmaku(&["token", "--user", "u"]);
    assert!(!out.status.success());
    assert!(
        text(&out.stderr).contains("DANMAKU_AUTH__SECRET"),
        "{}",
        text(&out.stderr)
    );
    let out = Command::new(binary())
        .env("DANMAKU_AUTH__SECRET", support::SECRET)
        .args(["token", "--user", "u", "--ttl", "5m", "--room", "a"])
        .output()
        .unwrap();
    assert!(out.status.success());
    assert_eq!(text(&out.stdout).trim().split('.').count(), 3);
}

#[test]
fn a_reload_changes_keys_and_limits_and_refuses_mistakes() {
    let node = Node::start("[auth]\nanonymous = \"deny\"\n");
    let old = node.token(&["--user", "u"]);
    let mut viewer = node.connect(&format!("?token={old}"));
    viewer.expect("welcome");
    let config = std::fs::read_to_string(&node.config).unwrap();
    let rotated = config.replace(support::SECRET, "another-secret-of-enough-bytes-0123456789");
    std::fs::write(&node.config, &rotated).unwrap();
    node.signal("HUP");
    let new = node.token(&["--user", "u"]);
    let begun = std::time::Instant::now();
    while Viewer::try_connect(node.public, &format!("?token={new}"), &[]).is_err() {
        assert!(
            begun.elapsed() < support::PATIENCE,
            "the new key is not in use"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Viewer::try_connect(node.public, &format!("?token={old}"), &[])
        .expect_err("the old key is gone")
        .refuses(401, "token_invalid");
    viewer.send(&serde_json::json!({"type":"ping"}));
    viewer.expect("pong");
    std::fs::write(&node.config, format!("{rotated}\n[limits]\nnonsense = 1\n")).unwrap();
    node.signal("HUP");
    while !node.logged().contains("reload refused") {
        assert!(begun.elapsed() < support::PATIENCE, "{}", node.logged());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    node.connect(&format!("?token={new}"));
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut node = Node::start("[drain]\nbatch = 1\ninterval = \"30s\"\n");
    let _viewers: Vec<Viewer> = (0..3).map(|_| node.join("r")).collect();
    node.signal("TERM");
    let begun = std::time::Instant::now();
    while node.public("GET", "/readyz", &[], "").status != 503 {
        assert!(begun.elapsed() < support::PATIENCE);
    }
    node.signal("TERM");
    assert!(node.wait().success());
}

#[test]
fn without_viewers_a_stop_is_immediate() {
    let mut node = Node::start("");
    node.signal("TERM");
    assert!(node.wait().success());
    assert!(node.logged().contains("stopped"), "{}", node.logged());
}
