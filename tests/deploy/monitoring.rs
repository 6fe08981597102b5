//! `docs/deploy/monitoring`: Prometheus' configuration and rules, the Grafana dashboard, and every metric named in a document.
//! promtool and a Prometheus server read them too.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use danmaku_gateway::telemetry::table::{self, Family, Kind, Labels};
use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use crate::prometheus::Prometheus;
use crate::promql::{Matcher, Selector, names};
use crate::support::{Node, scratch, wait_for};

/// What every scraped series carries besides its own labels; `region` stands for what operators add to their targets.
const TARGET_LABELS: [&str; 3] = ["job", "instance", "region"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy/monitoring")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(&text(name)).unwrap();
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// The rules of a file, in order.
fn rules(name: &str) -> Vec<Yaml> {
    let groups = yaml(name)["groups"].clone().into_vec().unwrap();
    groups
        .into_iter()
        .flat_map(|group| group["rules"].clone().into_vec().unwrap())
        .collect()
}

fn string(yaml: &Yaml) -> &str {
    yaml.as_str().unwrap_or_else(|| panic!("no text: {yaml:?}"))
}

pub fn recorded() -> BTreeSet<String> {
    let rules = rules("recording.yml");
    rules.iter().map(|r| string(&r["record"]).into()).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&text("grafana-dashboard.json")).unwrap()
}

/// Every panel, those in closed rows included; rows are left out.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = dashboard["panels"].as_array().unwrap();
    let nested = top.iter().filter_map(|row| row["panels"].as_array());
    top.iter()
        .chain(nested.flatten())
        .filter(|panel| panel["type"] != "row")
        .collect()
}

/// The dashboard's expressions as Grafana would send them with everything chosen.
fn dashboard_expressions(dashboard: &Value) -> Vec<String> {
    let targets = panels(dashboard).into_iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        targets.iter()
    });
    let marks = dashboard["annotations"]["list"].as_array().unwrap();
    targets
        .chain(marks)
        .map(|one| {
            let expr = one["expr"].as_str().unwrap();
            expr.replace("$__rate_interval", "1m")
                .replace("$job", ".+")
                .replace("$instance", ".+")
        })
        .collect()
}

/// Where each expression stands, and the expression.
fn expressions() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for file in ["recording.yml", "alerts.yml"] {
        for rule in rules(file) {
            all.push((file.to_string(), string(&rule["expr"]).to_string()));
        }
    }
    for test in yaml("alerts_test.yml")["tests"].as_vec().unwrap() {
        let place = format!("alerts_test.yml, {}", string(&test["name"]));
        for series in test["input_series"].as_vec().into_iter().flatten() {
            all.push((place.clone(), string(&series["series"]).to_string()));
        }
        for asked in test["promql_expr_test"].as_vec().into_iter().flatten() {
            all.push((place.clone(), string(&asked["expr"]).to_string()));
        }
    }
    let dashboard = dashboard();
    for expr in dashboard_expressions(&dashboard) {
        all.push(("grafana-dashboard.json".into(), expr));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(definition) = variable["definition"].as_str() {
            // label_values(SERIES, LABEL)
            let inner = definition.strip_prefix("label_values(").unwrap();
            let (series, _) = inner.rsplit_once(", ").unwrap();
            all.push(("grafana-dashboard.json".into(), series.to_string()));
        }
    }
    all
}

/// The family a series belongs to, and whether it is one of its buckets.
fn family_of(name: &str) -> Option<(&'static Family, bool)> {
    let find = |name: &str| table::families().find(|family| family.name == name);
    for suffix in ["_bucket", "_sum", "_count"] {
        let stem = name.strip_suffix(suffix).and_then(find);
        if let Some(family) = stem.filter(|family| family.kind == Kind::Histogram) {
            return Some((family, suffix == "_bucket"));
        }
    }
    // A histogram has no series of its own name.
    find(name)
        .filter(|family| family.kind != Kind::Histogram)
        .map(|family| (family, false))
}

/// Which labels a series has, or why there is no such series.
fn labels_of(name: &str, recorded: &BTreeSet<String>) -> Result<Vec<&'static str>, String> {
    let mut labels = TARGET_LABELS.to_vec();
    match name {
        "up" => {}
        "ALERTS" => labels.extend(["alertname", "alertstate", "severity", "shard"]),
        // Of a family's own labels the shard is the only one that a recorded series keeps.
        _ if name.contains(':') && recorded.contains(name) => labels.push("shard"),
        _ => {
            let (family, is_bucket) =
                family_of(name).ok_or_else(|| format!("`{name}` is no metric"))?;
            labels.extend(family.labels.keys());
            labels.extend(is_bucket.then_some("le"));
        }
    }
    Ok(labels)
}

/// The values of a family's label, where they come from a fixed list.
fn fixed_values(labels: Labels) -> Vec<String> {
    (0..)
        .map_while(|cell| labels.value(cell))
        .map(|value| value.into_owned())
        .collect()
}

/// Whether one alternative of a pattern can match a value; only letters and `.` are understood.
fn alternative_matches(pattern: &str, value: &str) -> bool {
    let understood = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    assert!(
        pattern.chars().all(understood),
        "teach the test `{pattern}`"
    );
    pattern.len() == value.len()
        && pattern
            .bytes()
            .zip(value.bytes())
            .all(|(p, v)| p == b'.' || p == v)
}

fn check_matcher(selector: &Selector, matcher: &Matcher) -> Result<(), String> {
    let Some((family, _)) = family_of(&selector.name) else {
        return Ok(());
    };
    let values = fixed_values(family.labels);
    let is_fixed = family.labels.keys().contains(&matcher.label.as_str()) && !values.is_empty();
    // In prose a label may stand alone.
    if !is_fixed || matcher.operator.is_empty() {
        return Ok(());
    }
    let wanted: Vec<&str> = match matcher.operator.ends_with('~') {
        true => matcher.value.split('|').collect(),
        false => vec![&matcher.value],
    };
    for one in wanted {
        if !values.iter().any(|value| alternative_matches(one, value)) {
            return Err(format!(
                "{}: no {} is `{one}`",
                selector.name, matcher.label
            ));
        }
    }
    Ok(())
}

/// Everything an expression says that the table does not know.
pub fn mistakes(expression: &str, recorded: &BTreeSet<String>) -> Vec<String> {
    let named = names(expression);
    let mut wrong = Vec::new();
    let mut known: BTreeSet<&str> = TARGET_LABELS.into();
    for selector in &named.selectors {
        match labels_of(&selector.name, recorded) {
            Err(why) => wrong.push(why),
            Ok(labels) => {
                for matcher in &selector.matchers {
                    if !labels.contains(&matcher.label.as_str()) {
                        wrong.push(format!("{} has no `{}`", selector.name, matcher.label));
                    }
                    wrong.extend(check_matcher(selector, matcher).err());
                }
                known.extend(labels);
            }
        }
    }
    for label in &named.grouping {
        if !known.contains(label.as_str()) {
            wrong.push(format!("nothing there has `{label}` to group by"));
        }
    }
    wrong
}

#[test]
fn the_reader_of_expressions_finds_every_name() {
    let read = names(
        "sum by (le, job) (rate(a_bucket{x=~\"p|q\", y!='\\\"{'}[5m])) / on (job) group_left () (b offset 5m) # c\n and d:e:f > 1e3 or vector(2)",
    );
    let seen: Vec<_> = read.selectors.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(seen, ["a_bucket", "b", "d:e:f"]);
    assert_eq!(read.grouping, ["le", "job", "job"]);
    let matchers = &read.selectors[0].matchers;
    assert_eq!(
        (matchers[0].operator.as_str(), matchers[0].value.as_str()),
        ("=~", "p|q")
    );
    assert_eq!(
        (matchers[1].operator.as_str(), matchers[1].value.as_str()),
        ("!=", "\"{")
    );
}

#[test]
fn what_does_not_exist_is_found() {
    let recorded = BTreeSet::from(["a:b:c".to_string()]);
    let wrong = |expression: &str| mistakes(expression, &recorded).join("; ");
    for good in [
        "rate(danmaku_refusals_total{reason=~\"token_missing|token_invalid\", job=\"x\"}[5m])",
        "danmaku_http_requests_total{status=~\"5..\"}",
        "sum by (le) (danmaku_fanout_seconds_bucket) / a:b:c",
        "danmaku_closes_total{code=\"other\"}",
        "up == 0",
    ] {
        assert_eq!(wrong(good), "");
    }
    for (bad, why) in [
        ("danmaku_lines", "`danmaku_lines` is no metric"),
        (
            "danmaku_fanout_seconds",
            "`danmaku_fanout_seconds` is no metric",
        ),
        (
            "danmaku_rooms_bucket",
            "`danmaku_rooms_bucket` is no metric",
        ),
        (
            "danmaku_closes_total{code=\"4999\"}",
            "danmaku_closes_total: no code is `4999`",
        ),
        (
            "danmaku_refusals_total{reason=~\"busy|bussy\"}",
            "danmaku_refusals_total: no reason is `bussy`",
        ),
        ("danmaku_rooms{shard=\"0\"}", "danmaku_rooms has no `shard`"),
        (
            "sum by (code) (danmaku_rooms)",
            "nothing there has `code` to group by",
        ),
        ("a:b:d", "`a:b:d` is no metric"),
    ] {
        assert_eq!(wrong(bad), why);
    }
}

#[test]
fn rules_tests_and_dashboard_name_only_what_exists() {
    let recorded = recorded();
    let mut wrong = Vec::new();
    for (place, expression) in expressions() {
        for mistake in mistakes(&expression, &recorded) {
            wrong.push(format!("{place}: {mistake}\n    {expression}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Words of a text that look like series, with the braces that follow: `danmaku_..`, `process_..`, and recorded ones.
fn named_in_prose(page: &str) -> Vec<&str> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find(in_name) {
        let word = &rest[start..];
        let end = word.find(|c| !in_name(c)).unwrap_or(word.len());
        let after = &word[end..];
        // A colon at the end is the sentence's.
        let name = word[..end].trim_end_matches(':');
        let begins = |stem: &str| name.starts_with(stem) && name != stem;
        let stems = [
            "danmaku_",
            "danmaku:",
            "process_",
            "instance:",
            "instance_shard:",
        ];
        // The crate's own name stands in the paths of the log.
        if stems.into_iter().any(begins) && !name.starts_with("danmaku_gateway") {
            let braces = after.starts_with('{').then(|| after.find('}')).flatten();
            let whole = braces.map_or(name.len(), |at| end + at + 1);
            found.push(&word[..whole]);
        }
        rest = after;
    }
    found
}

#[test]
fn documents_name_only_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recorded = recorded();
    let mut wrong = Vec::new();
    let pages = [
        "README.md",
        "docs/METRICS.md",
        "docs/OPERATIONS.md",
        "docs/ARCHITECTURE.md",
        "docs/deploy/monitoring/README.md",
        "docs/deploy/monitoring/alerts.yml",
        "docs/deploy/monitoring/recording.yml",
        "docs/deploy/monitoring/filebeat.yml",
    ];
    for page in pages {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        for named in named_in_prose(&text) {
            // In prose a histogram goes by its own name.
            if table::families().any(|family| family.name == named) {
                continue;
            }
            let mistakes = mistakes(named, &recorded);
            wrong.extend(mistakes.iter().map(|why| format!("{page}: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_alert_says_what_to_do_and_is_tested() {
    let tests = yaml("alerts_test.yml")["tests"].clone().into_vec().unwrap();
    let mut tested = BTreeSet::new();
    for test in &tests {
        for asked in test["promql_expr_test"].as_vec().into_iter().flatten() {
            for sample in asked["exp_samples"].as_vec().into_iter().flatten() {
                let labels = names(&format!("ALERTS{}", string(&sample["labels"])));
                let of = |label: &str| {
                    let mut matchers = labels.selectors[0].matchers.iter();
                    matchers.find(|m| m.label == label).map(|m| m.value.clone())
                };
                assert_ne!(of("instance").as_deref(), Some("good:8081"), "{test:?}");
                tested.extend(of("alertname"));
            }
        }
    }
    let alerts = rules("alerts.yml");
    assert!(alerts.len() > 20, "the alerts were not found");
    let mut seen = BTreeSet::new();
    for alert in &alerts {
        let name = string(&alert["alert"]);
        assert!(seen.insert(name), "{name} twice");
        assert!(name.starts_with("Danmaku"), "{name}");
        assert!(tested.contains(name), "{name}: no test makes it fire");
        assert!(string(&alert["for"]).ends_with(['m', 'h']), "{name}");
        let severity = string(&alert["labels"]["severity"]);
        assert!(["critical", "warning"].contains(&severity), "{name}");
        let annotations = &alert["annotations"];
        assert!(!string(&annotations["summary"]).is_empty(), "{name}");
        let description = string(&annotations["description"]);
        assert!(description.contains("First: "), "{name}: what to do first?");
    }
}

#[test]
fn every_recorded_series_is_used() {
    let mut used = BTreeSet::new();
    for (place, expression) in expressions() {
        if !place.starts_with("alerts_test") {
            let named = names(&expression).selectors;
            used.extend(named.into_iter().map(|s| s.name));
        }
    }
    let unused: Vec<_> = recorded()
        .into_iter()
        .filter(|r| !used.contains(r))
        .collect();
    assert!(unused.is_empty(), "recorded for nobody: {unused:?}");
}

/// Runs promtool in the folder of the monitoring files; fails with what it says.
pub fn promtool(arguments: &[&str]) -> String {
    let out = Command::new("promtool")
        .args(arguments)
        .current_dir(folder())
        .output()
        .expect("promtool is missing: apt-get install prometheus");
    let said =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{arguments:?}: {said}");
    said
}

#[test]
fn promtool_accepts_configuration_and_rules_and_their_tests_hold() {
    let said = promtool(&["check", "config", "prometheus.yml"]);
    assert!(said.contains("2 rule files found"), "{said}");
    promtool(&["check", "rules", "recording.yml", "alerts.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
}

#[test]
fn the_example_of_targets_is_what_file_sd_reads() {
    let example: Value = serde_json::from_str(&text("targets/nodes.json.example")).unwrap();
    for group in example.as_array().unwrap() {
        for target in group["targets"].as_array().unwrap() {
            let address: SocketAddr = target.as_str().unwrap().parse().unwrap();
            assert_eq!(address.port(), 8081);
        }
        assert!(
            group["labels"]
                .as_object()
                .unwrap()
                .values()
                .all(Value::is_string)
        );
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let dashboard = dashboard();
    let expressions = dashboard_expressions(&dashboard);
    let mut drawn = BTreeSet::new();
    for expression in &expressions {
        for selector in names(expression).selectors {
            drawn.extend(family_of(&selector.name).map(|(family, _)| family.name));
        }
    }
    let missing: Vec<_> = table::families()
        .map(|family| family.name)
        .filter(|name| !drawn.contains(name))
        .collect();
    assert!(missing.is_empty(), "in no panel: {missing:?}");
    for panel in panels(&dashboard) {
        assert!(panel["description"].as_str().is_some_and(|d| d.len() > 10));
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
    }
    // Each expression as a rule of its own: promtool reads every one of them.
    let rules: Vec<String> = expressions
        .iter()
        .enumerate()
        .map(|(n, expr)| format!("  - record: x{n}\n    expr: {}\n", json!(expr)))
        .collect();
    let file = scratch("dashboard-rules.yml");
    std::fs::write(
        &file,
        format!("groups:\n- name: dashboard\n  rules:\n{}", rules.concat()),
    )
    .unwrap();
    promtool(&["check", "rules", "--lint=none", file.to_str().unwrap()]);
}

/// Names of the rules that have not been evaluated without an error.
fn unwell(rules: &Value) -> Vec<String> {
    let groups = rules["groups"].as_array().unwrap();
    let all = groups.iter().flat_map(|g| g["rules"].as_array().unwrap());
    all.filter(|rule| rule["health"] != "ok")
        .map(|rule| format!("{}: {} {}", rule["name"], rule["health"], rule["lastError"]))
        .collect()
}

#[test]
fn a_real_prometheus_evaluates_every_rule_and_every_panel_has_data() {
    let mut node = Node::start("");
    let mut viewer = node.join("r");
    viewer.send(&json!({"type":"danmaku","room":"r","text":"x"}));
    viewer.expect("danmaku");
    let prometheus = Prometheus::start(&folder(), node.internal);
    wait_for("the rules are not evaluated", || {
        prometheus
            .ask("rules")
            .is_some_and(|rules| unwell(&rules).is_empty())
    });
    wait_for("no two scrapes have come", || {
        !prometheus.query("rate(danmaku_lines_total[1m])").is_empty()
            && !prometheus
                .query("instance:danmaku_closes_heartbeat:ratio_per_minute")
                .is_empty()
    });
    for expression in dashboard_expressions(&dashboard()) {
        // Of labelled counters only what moves is drawn; here it is enough that the series exist.
        let asked = expression.strip_suffix(" > 0").unwrap_or(&expression);
        let empty = prometheus.query(asked).is_empty();
        assert!(!empty || asked.starts_with("ALERTS"), "no data: {asked}");
    }
    assert!(prometheus.query("ALERTS").is_empty(), "a healthy node");

    node.child.kill().unwrap();
    node.child.wait().unwrap();
    wait_for("nobody noticed", || {
        let alerts = prometheus.query("ALERTS{alertname=\"DanmakuNodeDown\"}");
        alerts
            .iter()
            .any(|alert| alert["metric"]["instance"] == node.internal.to_string())
    });
}
