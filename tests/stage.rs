//! The stage page: what the node serves, and the page itself in headless Chromium (`tests/stage/`, driven by playwright-core).
//! `scripts/test.sh` installs both; a missing one is a failure that says so.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use support::{API_KEY, Node, request};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/stage")
        .join(name)
}

/// Runs test files under Node's own runner; what it says is shown. That runner waits for whatever a file leaves open, so it gets
/// ten minutes in all.
fn node_test(files: &[&str], nodes: &serde_json::Value) {
    let out = Command::new("timeout")
        .args(["--kill-after=10", "600", "node"])
        .args(["--test", "--test-reporter=spec"])
        .args(files.iter().map(|name| script(name)))
        .env("STAGE_NODES", nodes.to_string())
        .output()
        .expect("timeout (package coreutils)");
    let said = String::from_utf8_lossy(&out.stdout);
    println!("{said}");
    assert!(
        out.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(said.contains("pass ") && !said.contains("pass 0"), "{said}");
}

#[test]
fn lanes_and_protocol_hold_by_themselves() {
    node_test(&["lanes.test.mjs", "protocol.test.mjs"], &json!({}));
}

#[test]
fn the_page_works_in_a_browser() {
    let open = Node::start("");
    let locked = Node::start("[auth]\nanonymous = \"deny\"\n");
    let full = Node::start(
        "[admission]\nconnections_max = 1\n[limits]\nlines_per_s = 1\nline_burst = 1\n",
    );
    let facts = |node: &Node| {
        json!({
            "public": node.public.to_string(),
            "internal": node.internal.to_string(),
            "key": API_KEY,
        })
    };
    let token = open.token(&["--user", "mei", "--name", "Mei", "--ttl", "1h"]);
    let nodes = json!({
        "open": facts(&open),
        "locked": facts(&locked),
        "full": facts(&full),
        "token": token,
    });
    node_test(&["browser.test.mjs"], &nodes);
}

#[test]
fn the_page_and_its_parts_go_out_under_a_strict_policy() {
    let node = Node::start("");
    let parts = [
        ("/", "text/html; charset=utf-8"),
        ("/?room=1001&token=t", "text/html; charset=utf-8"),
        ("/stage.css", "text/css; charset=utf-8"),
        ("/stage.mjs", "text/javascript; charset=utf-8"),
        ("/lanes.mjs", "text/javascript; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
    ];
    for (path, content_type) in parts {
        let got = node.public("GET", path, &[], "");
        assert_eq!(
            (got.status, got.header("content-type")),
            (200, Some(content_type))
        );
        let policy = got.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(got.header("referrer-policy"), Some("no-referrer"));

        let head = node.public("HEAD", path, &[], "");
        assert_eq!((head.status, head.text.as_str()), (200, ""));
        assert_eq!(head.header("content-length"), got.header("content-length"));
        assert_eq!(head.header("etag"), got.header("etag"));

        let etag = got.header("etag").unwrap();
        for known in [etag.to_string(), format!("\"other\", W/{etag}"), "*".into()] {
            let header = format!("If-None-Match: {known}");
            let unchanged = node.public("GET", path, &[&header], "");
            assert_eq!(
                (unchanged.status, unchanged.text.as_str()),
                (304, ""),
                "{known}"
            );
            assert_eq!(unchanged.header("etag"), Some(etag));
            assert_eq!(unchanged.header("content-security-policy"), Some(policy));
        }
        let changed = node.public("GET", path, &["If-None-Match: \"other\""], "");
        assert_eq!((changed.status, changed.text), (200, got.text));
    }
    node.public("POST", "/", &[], "{}")
        .refuses(405, "method_not_allowed");
    for nothing in ["/stage.html", "/index.html", "/stage.mjs/", "/mod.rs"] {
        node.public("GET", nothing, &[], "")
            .refuses(404, "not_found");
    }
}

#[test]
fn the_page_is_public_only_and_can_be_switched_off() {
    let node = Node::start("");
    for path in ["/", "/stage.css"] {
        node.api("GET", path, "").refuses(404, "not_found");
    }
    let without = Node::start("[server]\nshards = 1\ndemo_page = false\n");
    for path in ["/", "/stage.css", "/favicon.svg"] {
        let headers = ["If-None-Match: *"];
        request(without.public, "GET", path, &headers, "").refuses(404, "not_found");
    }
}
