//! A real Prometheus server scrapes the gateway, and promtool finds nothing to complain about.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use support::{Node, request, scratch};

#[test]
fn promtool_accepts_the_page() {
    let node = Node::start("");
    let mut viewer = node.join("r");
    viewer.send(&serde_json::json!({"type":"danmaku","room":"r","text":"x"}));
    viewer.expect("danmaku");
    let page = request(node.internal, "GET", "/metrics", &[], "");
    assert_eq!(
        page.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: apt-get install prometheus");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(page.text.as_bytes())
        .unwrap();
    let out = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.trim().is_empty(), "{said}");
    for name in [
        "danmaku_connections ",
        "danmaku_connections_accepted_total ",
        "danmaku_refusals_total{reason=",
        "danmaku_lines_total ",
        "danmaku_deliveries_total ",
        "danmaku_dropped_total{reason=",
        "danmaku_rooms ",
        "danmaku_build_info{",
    ] {
        assert!(page.text.contains(name), "{name}");
    }
    assert_eq!(node.metric("danmaku_lines_total"), 1.0);
    assert_eq!(node.metric("danmaku_deliveries_total"), 1.0);
}

#[test]
fn a_prometheus_server_scrapes_it() {
    let node = Node::start("");
    let _viewer = node.join("r");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = scratch("prometheus.yml");
    let scrape = format!(
        "global:\n  scrape_interval: 200ms\nscrape_configs:\n  - job_name: danmaku\n    static_configs:\n      - targets: ['{}']\n",
        node.internal
    );
    std::fs::write(&config, scrape).unwrap();
    let data = scratch("prometheus-data");
    let mut server = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address={port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus is missing: apt-get install prometheus");
    let begun = Instant::now();
    let value = loop {
        assert!(begun.elapsed() < support::PATIENCE, "nothing was scraped");
        std::thread::sleep(std::time::Duration::from_millis(100));
        if std::net::TcpStream::connect(port).is_err() {
            continue;
        }
        let answer = request(
            port,
            "GET",
            "/api/v1/query?query=danmaku_connections",
            &[],
            "",
        );
        let Ok(json) = serde_json::from_str::<Value>(&answer.text) else {
            continue;
        };
        if let Some(value) = json["data"]["result"][0]["value"][1].as_str()
            && value != "0"
        {
            break value.to_string();
        }
    };
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(value, "1");
}

#[test]
fn ready_is_what_readyz_answers() {
    let node = Node::start("[admission]\nconnections_max = 1\n");
    let readyz = || request(node.internal, "GET", "/readyz", &[], "").status;
    assert_eq!((readyz(), node.metric("danmaku_ready")), (200, 1.0));
    let viewer = node.join("r");
    assert_eq!((readyz(), node.metric("danmaku_ready")), (503, 0.0));
    drop(viewer);
    node.metric_becomes("danmaku_ready", 1.0);
    assert_eq!(readyz(), 200);
}
