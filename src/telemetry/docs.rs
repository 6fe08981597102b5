//! Keeps `docs/METRICS.md` equal to the table. Tests only.

use std::fmt::Write;
use std::path::Path;

use super::table::{Labels, families};

/// Where the generated part of the page begins and ends.
const BEGIN: &str = "<!-- The table below is made from src/telemetry/table.rs. -->\n";
const END: &str = "<!-- End of the table. -->";

/// The table for people.
fn docs_table() -> String {
    let mut table = String::from(
        "| name | type | labels | unit | meaning | when to look at it |\n|---|---|---|---|---|---|\n",
    );
    for family in families() {
        let labels = match family.labels {
            Labels::None => "–".to_string(),
            labels => format!("`{}`", labels.keys().join("`, `")),
        };
        writeln!(
            table,
            "| `{}` | {} | {labels} | {} | {} | {} |",
            family.name,
            family.kind.as_str(),
            family.unit.as_str(),
            family.help,
            family.look
        )
        .unwrap();
    }
    table
}

#[test]
fn the_metrics_page_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the mark before the table");
    let (table, after) = rest.split_once(END).expect("the mark after the table");
    if table == docs_table() {
        return;
    }
    assert!(
        std::env::var_os("WRITE_DOCS").is_some(),
        "docs/METRICS.md differs from src/telemetry/table.rs; run this test with WRITE_DOCS=1 to write it anew"
    );
    std::fs::write(
        &path,
        format!("{before}{BEGIN}{}{END}{after}", docs_table()),
    )
    .unwrap();
}
