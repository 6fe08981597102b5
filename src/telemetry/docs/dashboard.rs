//! The Grafana dashboard, made from the metric table: a row for each group, a panel for each family. Tests only.
//!
//! The first row is the operator's first glance and stands on recorded series (`docs/deploy/monitoring/recording.yml`), the
//! ones the alerts use, so that a panel and an alert cannot disagree. Every other panel follows from its family: the
//! rate of a counter, the value of a gauge, quantiles and a heatmap of a histogram; its unit, its help and when to look
//! at it come from the table. The JSON is Grafana's classic model, schema version 39 (Grafana 11), which 12 and later read.

use serde_json::{Map, Value, json};

use super::super::table::{Family, Group, Kind, Labels, Unit, families};
use super::families_of;

/// Which series the variables at the top choose.
const CHOSEN: &str = r#"job=~"$job", instance=~"$instance""#;
/// Grafana's grid is 24 wide.
const GRID_WIDTH: u32 = 24;
const PANEL_WIDTH: u32 = 8;
const PANEL_HEIGHT: u32 = 7;
/// The quantiles drawn of a histogram.
const QUANTILES: [(&str, &str); 3] = [("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99")];

/// Families drawn in another's panel, because they mean something only beside it: `(drawn, in the panel of)`.
const DRAWN_WITH: &[(&str, &str)] = &[
    (
        "danmaku_connection_permits_max",
        "danmaku_connection_permits_in_use",
    ),
    (
        "danmaku_handshake_permits_max",
        "danmaku_handshake_permits_in_use",
    ),
    ("danmaku_leaves_total", "danmaku_joins_total"),
    ("danmaku_send_blocked_total", "danmaku_send_calls_total"),
    ("danmaku_frames_out_total", "danmaku_frames_in_total"),
    ("danmaku_bytes_out_total", "danmaku_bytes_in_total"),
    ("danmaku_draining", "danmaku_ready"),
    ("process_max_fds", "process_open_fds"),
    (
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
    ),
];

/// The first row: title, expression, unit, what it says. `SEL` stands for the chosen series.
const OVERVIEW: &[(&str, &str, &str, &str)] = &[
    (
        "Alerts firing",
        "count by (alertname) (ALERTS{alertname=~\"Danmaku.*\", alertstate=\"firing\", SEL}) or vector(0)",
        "short",
        "Alerts of alerts.yml that fire now; the line without a name is the zero there is when none does.",
    ),
    (
        "Viewers",
        "danmaku_connections{SEL}",
        "short",
        "Viewers connected now.",
    ),
    (
        "Node full",
        "instance:danmaku_connection_permits:used_ratio{SEL}",
        "percentunit",
        "Connection permits taken. At 100 % new viewers get 503 connections_full.",
    ),
    (
        "Deliveries",
        "instance:danmaku_deliveries:rate5m{SEL}",
        "short",
        "Lines handed to viewers' sockets per second: the work the node does.",
    ),
    (
        "Lines in",
        "instance:danmaku_lines:rate5m{SEL}",
        "short",
        "Lines numbered per second. Deliveries divided by it is the fan-out.",
    ),
    (
        "Lines missed by slow viewers",
        "instance:danmaku_dropped_slow:ratio_rate5m{SEL}",
        "percentunit",
        "Of all lines due to viewers, the share their sockets were too slow for. They are told how many.",
    ),
    (
        "Fan-out, p99",
        "instance:danmaku_fanout_seconds:p99_5m{SEL}",
        "s",
        "From the numbering of a batch to its last member: the latency this node adds.",
    ),
    (
        "CPU",
        "instance:process_cpu:used_ratio_rate5m{SEL}",
        "percentunit",
        "CPU time over shards. Near 100 % the node is full, whatever its permits say.",
    ),
    (
        "Memory",
        "instance:process_resident_memory:used_ratio{SEL}",
        "percentunit",
        "Resident memory over what the node may have (danmaku:memory_limit_bytes). The kernel's socket buffers are not in here.",
    ),
    (
        "Refused for lack of room",
        "instance:danmaku_refusals_capacity:rate5m{SEL}",
        "short",
        "Viewers refused per second because the node is full, drowning in handshakes, or over its accept rate.",
    ),
    (
        "Refused tokens",
        "instance:danmaku_refusals_token:ratio_rate5m{SEL}",
        "percentunit",
        "Of those who knocked, the share turned away for their token.",
    ),
    (
        "Viewers lost to heartbeats",
        "instance:danmaku_closes_heartbeat:ratio_per_minute{SEL}",
        "percentunit",
        "Share of viewers closed with 4408 each minute: their networks went silent.",
    ),
];

/// The whole dashboard.
pub(super) fn dashboard() -> Value {
    let mut grid = Grid::default();
    grid.row(
        "Overview",
        OVERVIEW.iter().map(overview_panel).collect(),
        false,
    );
    for group in Group::ALL {
        let panels = families_of(group).flat_map(family_panels).collect();
        // A closed row asks Prometheus nothing until it is opened.
        let closed = !matches!(group, Group::Connections | Group::FanOut);
        grid.row(group.title(), panels, closed);
    }
    json!({
        "uid": "danmaku-gateway",
        "title": "danmaku-gateway",
        "description": "Made from the gateway's metric table; edit src/telemetry/docs/dashboard.rs, not this file.",
        "tags": ["danmaku"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "timepicker": {},
        "links": [],
        "annotations": {"list": annotations()},
        "templating": {"list": variables()},
        "panels": grid.panels,
    })
}

/// Places panels from left to right, rows of them from top to bottom, and numbers them.
#[derive(Default)]
struct Grid {
    panels: Vec<Value>,
    y: u32,
    id: u32,
}

impl Grid {
    fn row(&mut self, title: &str, panels: Vec<Value>, closed: bool) {
        self.id += 1;
        let mut row = json!({
            "id": self.id,
            "type": "row",
            "title": title,
            "collapsed": closed,
            "gridPos": {"h": 1, "w": GRID_WIDTH, "x": 0, "y": self.y},
            "panels": [],
        });
        self.y += 1;
        let placed = self.place(panels);
        match closed {
            true => {
                row["panels"] = placed.into();
                self.panels.push(row);
            }
            false => {
                self.panels.push(row);
                self.panels.extend(placed);
            }
        }
    }

    fn place(&mut self, panels: Vec<Value>) -> Vec<Value> {
        let mut x = 0;
        let mut placed = Vec::new();
        for mut panel in panels {
            if x + PANEL_WIDTH > GRID_WIDTH {
                x = 0;
                self.y += PANEL_HEIGHT;
            }
            self.id += 1;
            panel["id"] = self.id.into();
            panel["gridPos"] = json!({"h": PANEL_HEIGHT, "w": PANEL_WIDTH, "x": x, "y": self.y});
            x += PANEL_WIDTH;
            placed.push(panel);
        }
        self.y += PANEL_HEIGHT;
        placed
    }
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn variables() -> Value {
    let label = |name: &str, of: &str| {
        let query = format!("label_values({of}, {name})");
        json!({
            "name": name,
            "label": name,
            "type": "query",
            "datasource": datasource(),
            "definition": query,
            "query": {"query": query, "refId": name, "qryType": 1},
            // On load and when the time range changes.
            "refresh": 2,
            "sort": 1,
            "multi": true,
            "includeAll": true,
            "allValue": ".+",
            "current": {"text": ["All"], "value": ["$__all"]},
            "options": [],
            "hide": 0,
            "regex": "",
            "skipUrlSync": false,
        })
    };
    json!([
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "current": {"text": "default", "value": "default"},
            "options": [],
            "multi": false,
            "includeAll": false,
            "refresh": 1,
            "regex": "",
            "hide": 0,
            "skipUrlSync": false,
        },
        label("job", "danmaku_build_info"),
        label("instance", "danmaku_build_info{job=~\"$job\"}"),
    ])
}

/// Marks on every panel: what fired, and which node began anew.
fn annotations() -> Value {
    let mark = |name: &str, colour: &str, expr: String, title: &str, text: &str| {
        json!({
            "name": name,
            "datasource": datasource(),
            "enable": true,
            "hide": false,
            "iconColor": colour,
            "expr": expr,
            "titleFormat": title,
            "textFormat": text,
            "step": "30s",
        })
    };
    json!([
        mark(
            "Alerts",
            "red",
            format!("ALERTS{{alertname=~\"Danmaku.*\", alertstate=\"firing\", {CHOSEN}}}"),
            "{{alertname}}",
            "{{instance}}",
        ),
        mark(
            "Restarts",
            "blue",
            format!("changes(danmaku_start_time_seconds{{{CHOSEN}}}[2m]) > 0"),
            "Restarted",
            "{{instance}}",
        ),
    ])
}

fn overview_panel(&(title, expr, unit, what): &(&str, &str, &str, &str)) -> Value {
    let recorded = match expr.contains(":danmaku_") || expr.contains(":process_") {
        true => "\n\nRecorded by recording.yml.",
        false => "",
    };
    let legend = match title {
        "Alerts firing" => "{{alertname}}",
        _ => "{{instance}}",
    };
    let targets = vec![target(expr.replace("SEL", CHOSEN), legend)];
    series_panel(title, &format!("{what}{recorded}"), unit, "", targets)
}

/// The panels of a family: none if it is drawn with another, two for a histogram.
fn family_panels(family: &'static Family) -> Vec<Value> {
    if DRAWN_WITH.iter().any(|(drawn, _)| *drawn == family.name) {
        return Vec::new();
    }
    if family.kind == Kind::Histogram {
        return vec![quantile_panel(family), heatmap_panel(family)];
    }
    let guests = DRAWN_WITH
        .iter()
        .filter(|(_, host)| *host == family.name)
        .map(|(drawn, _)| families().find(|f| f.name == *drawn).expect("a family"));
    let drawn: Vec<&Family> = std::iter::once(family).chain(guests).collect();
    let alone = drawn.len() == 1;
    let targets = drawn
        .iter()
        .map(|one| {
            let name = title(one).to_lowercase();
            let (expr, legend) = query(one);
            match alone {
                true => target(expr, legend),
                false => target(expr, &format!("{legend} {name}")),
            }
        })
        .collect();
    let titles: Vec<String> = drawn.iter().map(|one| title(one)).collect();
    let what: Vec<String> = drawn.iter().map(|one| description(one)).collect();
    let (unit, axis) = shown_unit(family);
    vec![series_panel(
        &titles.join(" / "),
        &what.join("\n\n"),
        unit,
        &axis,
        targets,
    )]
}

/// What is asked for a counter or a gauge, and how its lines are called.
fn query(family: &Family) -> (String, &'static str) {
    let name = family.name;
    if name.ends_with("_start_time_seconds") {
        return (format!("time() - {name}{{{CHOSEN}}}"), "{{instance}}");
    }
    let rate = format!("rate({name}{{{CHOSEN}}}[$__rate_interval])");
    match (family.kind, family.labels) {
        (_, Labels::Build) => (
            format!("count by (version, revision) ({name}{{{CHOSEN}}})"),
            "{{version}} {{revision}}",
        ),
        (Kind::Counter, Labels::None) => (rate, "{{instance}}"),
        // Most codes stay at zero for ever: only those that move are drawn.
        (Kind::Counter, labels) => {
            let key = labels.keys()[0];
            let legend = match key {
                "reason" => "{{reason}}",
                "code" => "{{code}}",
                "status" => "{{status}}",
                "scope" => "{{scope}}",
                "what" => "{{what}}",
                other => panic!("say how {other} is drawn"),
            };
            (format!("sum by ({key}) ({rate}) > 0"), legend)
        }
        (_, Labels::Shard) => (
            format!("{name}{{{CHOSEN}}}"),
            "{{instance}} shard {{shard}}",
        ),
        _ => (format!("{name}{{{CHOSEN}}}"), "{{instance}}"),
    }
}

/// Grafana's unit, and the word on the axis.
fn shown_unit(family: &Family) -> (&'static str, String) {
    match (family.kind, family.unit) {
        (Kind::Counter, Unit::Seconds) => ("short", "seconds per second".into()),
        (Kind::Counter, Unit::Bytes) => ("Bps", String::new()),
        (Kind::Counter, Unit::Of(things)) => ("short", format!("{things} per second")),
        (_, Unit::Seconds) => ("s", String::new()),
        (_, Unit::Bytes) => ("bytes", String::new()),
        (_, Unit::Of("always 1")) => ("short", "nodes".into()),
        (_, Unit::Of(things)) => ("short", things.into()),
    }
}

/// A family's name for people: `danmaku_walk_visits_total` is "Walk visits".
fn title(family: &Family) -> String {
    if let Some(of) = family.name.strip_suffix("_start_time_seconds") {
        return match of {
            "danmaku" => "Serving for".into(),
            _ => "Process up for".into(),
        };
    }
    let stem = ["_total", "_seconds", "_bytes"]
        .iter()
        .fold(family.name, |name, end| {
            name.strip_suffix(end).unwrap_or(name)
        });
    let words: Vec<&str> = stem
        .strip_prefix("danmaku_")
        .unwrap_or(stem)
        .split('_')
        .map(|word| match word {
            "api" => "API",
            "http" => "HTTP",
            "cpu" => "CPU",
            "fanout" => "fan-out",
            "fds" => "descriptors",
            word => word,
        })
        .collect();
    let words = words.join(" ");
    match words.split_at_checked(1) {
        Some((first, rest)) => first.to_uppercase() + rest,
        None => words,
    }
}

fn description(family: &Family) -> String {
    format!(
        "`{}`: {}\n\n*When to look:* {}",
        family.name, family.help, family.look
    )
}

fn target(expr: String, legend: &str) -> Value {
    json!({
        "datasource": datasource(),
        "editorMode": "code",
        "expr": expr,
        "legendFormat": legend,
        "range": true,
    })
}

/// A panel without its place: Grafana's letters for the queries are given here.
fn panel(kind: &str, title: &str, what: &str, mut targets: Vec<Value>, more: Value) -> Value {
    for (target, letter) in targets.iter_mut().zip('A'..='Z') {
        target["refId"] = letter.to_string().into();
    }
    let mut panel = Map::from_iter([
        ("type".to_string(), kind.into()),
        ("title".to_string(), title.into()),
        ("description".to_string(), what.into()),
        ("datasource".to_string(), datasource()),
        ("targets".to_string(), targets.into()),
    ]);
    if let Value::Object(more) = more {
        panel.extend(more);
    }
    panel.into()
}

fn series_panel(title: &str, what: &str, unit: &str, axis: &str, targets: Vec<Value>) -> Value {
    let interpolation = match axis {
        "0 or 1" => "stepAfter",
        _ => "linear",
    };
    let more = json!({
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "noValue": "none",
                "color": {"mode": "palette-classic"},
                "custom": {
                    "axisLabel": axis,
                    "drawStyle": "line",
                    "lineInterpolation": interpolation,
                    "lineWidth": 1,
                    "fillOpacity": 8,
                    "showPoints": "never",
                    "spanNulls": false,
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    });
    panel("timeseries", title, what, targets, more)
}

fn bucket_rate(family: &Family) -> String {
    let name = family.name;
    format!("sum by (le) (rate({name}_bucket{{{CHOSEN}}}[$__rate_interval]))")
}

fn quantile_panel(family: &Family) -> Value {
    let targets = QUANTILES
        .iter()
        .map(|(quantile, name)| {
            let expr = format!("histogram_quantile({quantile}, {})", bucket_rate(family));
            target(expr, name)
        })
        .collect();
    let title = format!("{}, quantiles", title(family));
    series_panel(&title, &description(family), "s", "", targets)
}

fn heatmap_panel(family: &Family) -> Value {
    let mut buckets = target(bucket_rate(family), "{{le}}");
    buckets["format"] = "heatmap".into();
    let more = json!({
        "fieldConfig": {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}}, "overrides": []},
        "options": {
            // The buckets are the gateway's; nothing is calculated here.
            "calculate": false,
            "cellGap": 1,
            "cellValues": {"unit": "short"},
            "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "fill": "dark-orange", "reverse": false, "steps": 64},
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": true},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "showColorScale": false, "yHistogram": false},
            "yAxis": {"axisPlacement": "left", "reverse": false, "unit": "s"},
        },
    });
    let title = format!("{}, heatmap", title(family));
    panel("heatmap", &title, &description(family), vec![buckets], more)
}

#[test]
fn titles_are_words() {
    let named = |name: &str| title(families().find(|family| family.name == name).unwrap());
    assert_eq!(named("danmaku_walk_visits_total"), "Walk visits");
    assert_eq!(named("process_open_fds"), "Process open descriptors");
    assert_eq!(named("danmaku_fanout_seconds"), "Fan-out");
    assert_eq!(named("danmaku_start_time_seconds"), "Serving for");
}

#[test]
fn panels_do_not_overlap_and_ids_are_unique() {
    let made = dashboard();
    let mut taken = std::collections::HashSet::new();
    let mut ids = std::collections::HashSet::new();
    let rows = made["panels"].as_array().unwrap();
    let nested = rows
        .iter()
        .flat_map(|row| row["panels"].as_array())
        .flatten();
    for panel in rows.iter().chain(nested) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= u64::from(GRID_WIDTH), "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} overlaps", panel["title"]);
            }
        }
    }
}
