//! Holds Filebeat's configuration against the JSON log of real nodes: fields, the time's layout, and the messages that its
//! comments promise to keep. Filebeat itself is in no package registry the tests may use.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{API_KEY, Node, request, scratch, wait_for};
use yaml_rust2::{Yaml, YamlLoader};

fn filebeat_config() -> Yaml {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy/monitoring/filebeat.yml");
    let text = std::fs::read_to_string(path).unwrap();
    YamlLoader::load_from_str(&text).unwrap().remove(0)
}

fn string(yaml: &Yaml) -> &str {
    yaml.as_str().unwrap_or_else(|| panic!("no text: {yaml:?}"))
}

/// Every string of a document.
fn strings(yaml: &Yaml, into: &mut Vec<String>) {
    match yaml {
        Yaml::String(text) => into.push(text.clone()),
        Yaml::Array(items) => items.iter().for_each(|item| strings(item, into)),
        Yaml::Hash(entries) => entries.values().for_each(|value| strings(value, into)),
        _ => {}
    }
}

/// Log lines of a node that serves, is asked, reloads, refuses to, runs out of descriptors and ends.
fn a_life_in_json() -> Vec<Value> {
    let json_log = "[log]\nformat = \"json\"\naccess_sample = 1.0\n";
    let mut node = Node::start(json_log);
    assert_eq!(node.api("GET", "/api/v1/info", "").status, 200);
    node.signal("HUP");
    let wait_logged = |node: &Node, word: &str| {
        wait_for(word, || node.logged().contains(word));
    };
    wait_logged(&node, "\"reloaded\"");
    let kept = std::fs::read_to_string(&node.config).unwrap();
    std::fs::write(&node.config, "unknown = 1\n").unwrap();
    node.signal("HUP");
    wait_logged(&node, "reload refused");
    std::fs::write(&node.config, kept).unwrap();
    node.signal("TERM");
    node.wait();

    let config = scratch("narrow.toml");
    std::fs::write(
        &config,
        format!(
            "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n[server]\nshards = 1\n\
             [auth]\nanonymous = \"speak\"\n[[api_keys]]\nname = \"b\"\nkey = \"{API_KEY}\"\n{json_log}"
        ),
    )
    .unwrap();
    let narrow = Node::run(config);
    // It knows its own limit and stays below it, so the limit is taken away behind its back.
    let taken = Command::new("prlimit")
        .args(["--nofile=8:8", "--pid", &narrow.child.id().to_string()])
        .status()
        .expect("prlimit is missing: apt-get install util-linux");
    assert!(taken.success());
    let _knocks = TcpStream::connect(narrow.internal).unwrap();
    wait_logged(&narrow, "accepting pauses");
    let lines = node.logged() + &narrow.logged();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

/// Digits made alike: the shape of a time.
fn shape(time: &str) -> String {
    time.replace(|c: char| c.is_ascii_digit(), "0")
}

#[test]
fn filebeat_names_the_fields_the_log_writes() {
    let lines = a_life_in_json();
    let written: BTreeSet<&str> = lines
        .iter()
        .flat_map(|line| line.as_object().unwrap().keys().map(String::as_str))
        .collect();
    let config = filebeat_config();

    let mut named = Vec::new();
    strings(&config["processors"], &mut named);
    let fields: BTreeSet<&str> = named
        .iter()
        .filter_map(|text| text.strip_prefix("danmaku."))
        .filter(|field| *field != "log")
        .collect();
    assert!(fields.len() > 8, "{fields:?}");
    let unknown: Vec<_> = fields.difference(&written).collect();
    assert!(
        unknown.is_empty(),
        "the log writes no {unknown:?}: {written:?}"
    );
    for key in ["ts", "level", "target", "message"] {
        assert!(fields.contains(key), "what becomes of {key}?");
    }

    for input in config["filebeat.inputs"].as_vec().unwrap() {
        let parsers = input["parsers"].as_vec().unwrap();
        let target = string(&parsers.last().unwrap()["ndjson"]["target"]);
        assert_eq!(target, "danmaku", "{input:?}");
    }
    let time = &config["processors"][0]["timestamp"];
    for line in &lines {
        let ts = shape(line["ts"].as_str().unwrap());
        assert_eq!(shape(string(&time["layouts"][0])), ts);
        assert_eq!(shape(string(&time["test"][0])), ts);
    }

    // What the comments promise to keep is called so in the log.
    for message in ["serving", "reloaded", "draining", "stopped"] {
        let is_it = |line: &&Value| line["message"] == message;
        let line = lines
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{message}"));
        assert_eq!(line["target"], "danmaku_gateway::gateway::control");
    }
}

#[test]
fn renamed_fields_keep_their_values_and_never_collide() {
    let config = filebeat_config();
    let renames = config["processors"][1]["rename"]["fields"]
        .as_vec()
        .unwrap();
    let renames: BTreeMap<&str, &str> = renames
        .iter()
        .map(|one| (string(&one["from"]), string(&one["to"])))
        .collect();
    let targets: BTreeSet<&&str> = renames.values().collect();
    assert_eq!(targets.len(), renames.len(), "two fields under one name");
    // Elasticsearch cannot hold `a` and `a.b` at once.
    for one in &targets {
        let below = format!("{one}.");
        assert!(!targets.iter().any(|t| t.starts_with(&below)), "{one}");
    }

    let node = Node::start("[log]\nformat = \"json\"\naccess_sample = 1.0\n");
    request(node.internal, "GET", "/nosuch", &[], "");
    wait_for("no access line", || node.logged().contains("/nosuch"));
    let logged = node.logged();
    let line = logged
        .lines()
        .find(|line| line.contains("/nosuch"))
        .unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let document: BTreeMap<&str, &Value> = renames
        .iter()
        .filter_map(|(from, to)| Some((*to, line.get(from.strip_prefix("danmaku.")?)?)))
        .collect();
    assert_eq!(*document["log.logger"], "access");
    assert_eq!(*document["log.level"], "INFO");
    assert_eq!(*document["http.request.method"], "GET");
    assert_eq!(*document["http.response.status_code"], 404);
    assert_eq!(*document["url.path"], "/nosuch");
    assert_eq!(*document["client.ip"], "127.0.0.1");
    assert_eq!(*document["user.name"], "anonymous");
}
