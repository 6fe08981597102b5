//! Keeps `docs/METRICS.md` and the Grafana dashboard equal to the table. Tests only.
//!
//! `WRITE_DOCS=1 cargo test --lib telemetry::docs` writes both anew.

mod dashboard;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::table::{Family, Group, Labels, families};

/// Where the generated part of the page begins and ends.
const BEGIN: &str = "<!-- The tables below are made from src/telemetry/table.rs. -->\n";
const END: &str = "<!-- End of the tables. -->";

/// The families of a group, in table order.
fn families_of(group: Group) -> impl Iterator<Item = &'static Family> {
    families().filter(move |family| family.group == group)
}

/// The tables for people, one for each group.
fn docs_tables() -> String {
    let mut page = String::new();
    for group in Group::ALL {
        writeln!(
            page,
            "\n### {}\n\n| name | type | labels | unit | meaning | when to look at it |\n|---|---|---|---|---|---|",
            group.title()
        )
        .unwrap();
        for family in families_of(group) {
            page.push_str(&docs_row(family));
        }
    }
    page.push('\n');
    page
}

fn docs_row(family: &Family) -> String {
    let labels = match family.labels {
        Labels::None => "–".to_string(),
        labels => format!("`{}`", labels.keys().join("`, `")),
    };
    format!(
        "| `{}` | {} | {labels} | {} | {} | {} |\n",
        family.name,
        family.kind.as_str(),
        family.unit.as_str(),
        family.help,
        family.look
    )
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Writes `text` if that was asked for; fails otherwise, because the file differs.
fn write_or_fail(name: &str, text: &str) {
    assert!(
        std::env::var_os("WRITE_DOCS").is_some(),
        "{name} differs from src/telemetry/table.rs; run this test with WRITE_DOCS=1 to write it anew"
    );
    std::fs::write(file(name), text).unwrap();
}

#[test]
fn the_metrics_page_is_the_table() {
    let name = "docs/METRICS.md";
    let page = std::fs::read_to_string(file(name)).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the mark before the tables");
    let (tables, after) = rest.split_once(END).expect("the mark after the tables");
    if tables != docs_tables() {
        write_or_fail(
            name,
            &format!("{before}{BEGIN}{}{END}{after}", docs_tables()),
        );
    }
}

#[test]
fn the_dashboard_is_the_table() {
    let name = "docs/deploy/monitoring/grafana-dashboard.json";
    let made = dashboard::dashboard();
    // Compared as values: the order of keys is nobody's business.
    let kept = std::fs::read_to_string(file(name)).unwrap_or_default();
    if serde_json::from_str::<Value>(&kept).ok().as_ref() != Some(&made) {
        let text = serde_json::to_string_pretty(&made).unwrap();
        write_or_fail(name, &format!("{text}\n"));
    }
}

#[test]
fn every_group_has_families() {
    for group in Group::ALL {
        assert!(families_of(group).next().is_some(), "{group:?}");
    }
    let grouped: usize = Group::ALL
        .into_iter()
        .map(|group| families_of(group).count())
        .sum();
    assert_eq!(
        grouped,
        families().count(),
        "a group is missing in Group::ALL"
    );
}
