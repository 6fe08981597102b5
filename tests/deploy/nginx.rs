//! The two nginx configurations: nginx reads them, viewers come through them to a node that takes them, and their figures fit the gateway's.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use crate::files;
use crate::front::{BOXES, COMPOSE, Front, Shipped, nginx, nobody, prepare};
use crate::support::{Node, wait_for};

const TRUSTED: &str = "[admission]\ntrusted_proxies = [\"127.0.0.1\"]\n";

/// The values of a directive, in order.
fn values(shipped: Shipped, directive: &str) -> Vec<String> {
    let text = files::text(shipped.file);
    let lines = text.lines().map(str::trim);
    let found = lines.filter_map(|line| line.strip_prefix(directive)?.strip_prefix(' '));
    found
        .map(|rest| rest.trim_end_matches(';').to_owned())
        .collect()
}

fn value(shipped: Shipped, directive: &str) -> String {
    let values = values(shipped, directive);
    assert_eq!(values.len(), 1, "{}: {directive}", shipped.file);
    values.concat()
}

#[test]
fn nginx_reads_them_and_would_find_a_mistake() {
    for shipped in [COMPOSE, BOXES] {
        let (folder, ..) = prepare(shipped, [nobody(), nobody(), nobody()], &[]);
        let mut tested = nginx(&folder);
        files::run("nginx", tested.arg("-t"));
        let mistake = [("proxy_read_timeout", "proxy_reed_timeout")];
        let (folder, ..) = prepare(shipped, [nobody(), nobody(), nobody()], &mistake);
        let (ok, said) = files::try_run("nginx", nginx(&folder).arg("-t"));
        assert!(!ok && said.contains("proxy_reed_timeout"), "{said}");
    }
}

/// A node that is gone, one that is full, and one that takes viewers.
fn viewers_come_through(shipped: Shipped) {
    let full = Node::start("[admission]\nconnections_max = 1\n");
    let _only = full.join("r");
    let mut good = Node::start(TRUSTED);
    let front = Front::start(shipped, [nobody(), full.public, good.public], &[]);
    let token = good.token(&["--user", "alice", "--name", "Alice"]);
    let mut viewers: Vec<_> = (0..10)
        .map(|_| front.connect(1, &format!("?room=r&token={token}")).unwrap())
        .collect();
    for viewer in &mut viewers {
        viewer.expect("welcome");
        viewer.expect("joined");
    }
    good.metric_becomes("danmaku_connections", 10.0);
    let all_hear = |viewers: &mut Vec<_>, text: &str| {
        let line = json!({"type":"danmaku","room":"r","text":text});
        let viewers: &mut [crate::front::Through] = viewers;
        viewers[0].send(&line);
        for viewer in viewers {
            assert_eq!(viewer.expect("danmaku")["text"], text);
        }
    };
    all_hear(&mut viewers, "before");
    // A reload leaves those who are there where they are, and takes new ones.
    front.reload();
    wait_for("no worker shuts down", || {
        let listed = files::try_run(
            "procps",
            std::process::Command::new("ps").args(["-eo", "args"]),
        )
        .1;
        listed.contains("nginx: worker process is shutting down")
    });
    let mut late = front.connect(1, &format!("?room=r&token={token}")).unwrap();
    late.expect("joined");
    viewers.push(late);
    all_hear(&mut viewers, "after");
    // What it writes down has no token in it.
    drop(viewers);
    wait_for("nothing is logged", || {
        front.said().contains(" GET /ws 101 ")
    });
    // Nobody is left who would take a viewer: said so that a client knows when to come back.
    good.child.kill().unwrap();
    good.wait();
    let (status, after, body) = front
        .connect(1, &format!("?room=r&token={token}"))
        .unwrap_err();
    assert_eq!(status, 503, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let code = body["code"].as_str().unwrap();
    assert!(["busy", "connections_full"].contains(&code), "{body}");
    assert!(
        !after.is_empty() && body["retry_after_ms"].is_u64(),
        "{after} {body}"
    );
    assert!(!front.said().contains(&token[..20]), "{}", front.said());
}

#[test]
fn viewers_come_through_the_one_of_compose() {
    viewers_come_through(COMPOSE);
}

#[test]
fn viewers_come_through_the_one_of_the_two_boxes() {
    viewers_come_through(BOXES);
}

#[test]
fn without_a_node_it_answers_as_a_node_would() {
    for shipped in [COMPOSE, BOXES] {
        let front = Front::start(shipped, [nobody(), nobody(), nobody()], &[]);
        let (status, after, body) = front.connect(1, "?room=r").unwrap_err();
        assert_eq!((status.as_u16(), after.as_str()), (503, "5"), "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["code"], "busy");
        assert_eq!(body["retry_after_ms"], 5000);
        assert!(body["reason"].is_string() && body["hint"].is_string());
    }
}

/// One viewer an address: who is who is told by nginx alone.
fn addresses_are_the_viewers(shipped: Shipped, trusted: &str, edit: &[(&str, &str)]) {
    let node = Node::start(&format!(
        "[admission]\nper_address_max = 1\ntrusted_proxies = {trusted}\n"
    ));
    let front = Front::start(shipped, [node.public; 3], edit);
    let _first = front.connect(9, "?room=r").unwrap();
    let (status, _, body) = front.connect(9, "?room=r").unwrap_err();
    assert_eq!(status, 429, "{body}");
    assert!(body.contains("address_full"), "{body}");
    let _second = front.connect(8, "?room=r").unwrap();
}

#[test]
fn a_viewers_address_is_where_it_comes_from_and_not_what_it_says() {
    for shipped in [COMPOSE, BOXES] {
        addresses_are_the_viewers(shipped, "[\"127.0.0.1\"]", &[]);
    }
    // With the lines for more ports the nodes are asked from other addresses, and trust these.
    let more = [
        ("  #split_clients", "  split_clients"),
        ("  #  50% 10.0.0.31;", "  50% 127.0.0.31;"),
        ("  #  * 10.0.0.32;\n  #}", "  * 127.0.0.32;\n  }"),
        ("#proxy_bind", "proxy_bind"),
    ];
    addresses_are_the_viewers(BOXES, "[\"127.0.0.31\", \"127.0.0.32\"]", &more);
}

/// What both need, whatever stands around it.
fn common(shipped: Shipped) -> BTreeSet<String> {
    let text = files::text(shipped.file);
    let lines = text.lines().map(str::trim).filter(|line| {
        let of = [
            "proxy_",
            "limit_",
            "client_",
            "large_",
            "error_page",
            "return 503",
            "least_conn",
            "log_format",
        ];
        of.iter().any(|of| line.starts_with(of)) && !line.starts_with("proxy_pass")
    });
    lines.map(str::to_owned).collect()
}

#[test]
fn both_say_the_same_of_viewers_and_nodes() {
    let lines = common(COMPOSE);
    assert!(lines.len() > 20, "{lines:?}");
    assert_eq!(lines, common(BOXES));
}

#[test]
fn their_figures_fit_the_gateways() {
    for (shipped, config) in [
        (COMPOSE, "compose/danmaku.toml"),
        (BOXES, "nginx-keepalived/danmaku.toml"),
    ] {
        let settings = files::settings(&files::path(config), &files::secrets());
        let time = |directive| humantime::parse_duration(&value(shipped, directive)).unwrap();
        let heartbeat = files::time(&settings, "heartbeat", "interval");
        assert!(time("proxy_read_timeout") > heartbeat * 2);
        assert!(time("proxy_send_timeout") > heartbeat * 2);
        assert_eq!(
            time("client_header_timeout"),
            files::time(&settings, "admission", "handshake_timeout")
        );
        let limit = |key: &str| files::number(&settings, "limits", key);
        assert_eq!(
            files::bytes(&value(shipped, "client_max_body_size")),
            limit("body_bytes_max")
        );
        let heads = value(shipped, "large_client_header_buffers");
        assert_eq!(
            files::bytes(heads.split(' ').next_back().unwrap()),
            limit("head_bytes_max")
        );
        // Descriptors for all connections of a worker, its log and its listeners besides.
        let text = files::text(shipped.file);
        let connections = text.split("worker_connections ").nth(1).unwrap();
        let connections: u64 = connections.split(';').next().unwrap().parse().unwrap();
        let files_max: u64 = value(shipped, "worker_rlimit_nofile").parse().unwrap();
        assert!(files_max > connections + 1000);
        for node in shipped.nodes {
            let node: SocketAddr = node.parse().unwrap();
            assert!(text.contains(&format!("server {node} max_fails")), "{node}");
        }
        // What nginx says in the nodes' place is in their language.
        let protocol =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PROTOCOL.md"))
                .unwrap();
        assert!(protocol.contains("`busy`"));
        // A query holds tokens: it goes into no log.
        let format = value(shipped, "log_format viewers");
        for word in [
            "$request ",
            "$request_uri",
            "$args",
            "$query_string",
            "$arg_",
        ] {
            assert!(!format.contains(word), "{format}");
        }
        assert!(value(shipped, "error_log").ends_with(" crit"));
    }
}
