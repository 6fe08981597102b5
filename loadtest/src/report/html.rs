//! The report as one page that can be mailed around: tables and plots, no script, no outside request.
//!
//! Pure text from one or two [`Report`]s. Every string passes [`escape`]; the page's own policy forbids scripts and
//! requests besides, should one slip through. It is well-formed as XML too, and a test holds that.

use std::fmt::Write;

use super::compare::{Comparison, compare};
use super::plots::{Figure, figures};
use super::summary::{self, Section, Tone};
use super::svg::{Series, escape};
use super::units::{self, Unit};
use super::{Promise, Report};

const STYLE: &str = include_str!("page.css");

/// The whole page. With `other`, the older run is drawn in the same plots in another stroke, and compared.
pub fn html(report: &Report, other: Option<&Report>) -> String {
    let comparison = other.map(|older| compare(report, older));
    let mut page = String::with_capacity(64 * 1024);
    head(&mut page, report);
    header(&mut page, report, other);
    tiles(&mut page, report, other);
    promises(&mut page, &report.promises);
    if let Some(comparison) = &comparison {
        compared(&mut page, comparison);
    }
    let figures = figures(report, other);
    if !figures.is_empty() {
        page.push_str("<section class=\"plots\">\n");
        for figure in &figures {
            draw(&mut page, figure);
        }
        page.push_str("</section>\n");
    }
    page.push_str("<section class=\"tables\">\n");
    for section in &summary::sections(report) {
        table(&mut page, section);
    }
    page.push_str("</section>\n</main>\n</body>\n</html>\n");
    page
}

fn head(page: &mut String, report: &Report) {
    let verdict = summary::verdict(report);
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{} {} - danmaku-swarm</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(&report.scenario),
        verdict.word.to_lowercase(),
    );
}

fn header(page: &mut String, report: &Report, other: Option<&Report>) {
    let verdict = summary::verdict(report);
    let scenario = if report.scenario.is_empty() {
        "run"
    } else {
        &report.scenario
    };
    let mut facts = Vec::new();
    if !report.url.is_empty() {
        facts.push(report.url.clone());
    }
    if report.started_ms > 0 {
        facts.push(units::utc(report.started_ms));
    }
    if report.elapsed_s > 0.0 {
        facts.push(units::seconds(report.elapsed_s));
    }
    let facts: Vec<String> = facts
        .iter()
        .map(|fact| format!("<span>{}</span>", escape(fact)))
        .collect();
    let _ = write!(
        page,
        "<header>\n<p class=\"verdict {}\">{}</p>\n<div>\n<h1>{}</h1>\n<p class=\"why\">{}</p>\n<p class=\"facts\">{}</p>\n",
        tone_class(verdict.tone),
        verdict.word,
        escape(scenario),
        escape(&verdict.sentence),
        facts.join(" "),
    );
    if let Some(older) = other {
        let _ = writeln!(
            page,
            "<p class=\"facts\">dashed and after \u{201c}was\u{201d}: the older run{}</p>",
            match older.started_ms {
                0 => String::new(),
                began => format!(" of {}", units::utc(began)),
            }
        );
    }
    page.push_str("</div>\n</header>\n");
}

/// A figure that stands at the top.
struct Tile {
    name: &'static str,
    unit: Unit,
    read: fn(&Report) -> Option<f64>,
}

const TILES: &[Tile] = &[
    Tile {
        name: "connected at once",
        unit: Unit::Count,
        read: |r| above(r.connections.peak as f64),
    },
    Tile {
        name: "connects",
        unit: Unit::Rate,
        read: |r| above(r.connections.per_s),
    },
    Tile {
        name: "lines accepted",
        unit: Unit::Rate,
        read: |r| above(r.published.per_s),
    },
    Tile {
        name: "deliveries",
        unit: Unit::Rate,
        read: |r| above(r.deliveries.per_s),
    },
    Tile {
        name: "latency p50",
        unit: Unit::Micros,
        read: |r| counted(r, r.latency.p50_us),
    },
    Tile {
        name: "latency p99",
        unit: Unit::Micros,
        read: |r| counted(r, r.latency.p99_us),
    },
    Tile {
        name: "server CPU per million",
        unit: Unit::Seconds,
        read: |r| r.server.as_ref()?.cpu_s_per_million,
    },
    Tile {
        name: "server, per connection",
        unit: Unit::Bytes,
        read: |r| r.server.as_ref()?.bytes_per_connection,
    },
];

fn above(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

fn counted(report: &Report, us: u64) -> Option<f64> {
    (report.latency.count > 0).then_some(us as f64)
}

fn tiles(page: &mut String, report: &Report, other: Option<&Report>) {
    let mut made = String::new();
    for tile in TILES {
        let Some(value) = (tile.read)(report).filter(|value| value.is_finite()) else {
            continue;
        };
        let _ = write!(
            made,
            "<div><dt>{}</dt><dd>{}",
            escape(tile.name),
            escape(&tile.unit.show(value))
        );
        if let Some(was) = other.and_then(tile.read).filter(|value| value.is_finite()) {
            let _ = write!(made, "<small>was {}</small>", escape(&tile.unit.show(was)));
        }
        made.push_str("</dd></div>\n");
    }
    if !made.is_empty() {
        let _ = write!(page, "<dl class=\"tiles\">\n{made}</dl>\n");
    }
}

fn promises(page: &mut String, promises: &[Promise]) {
    if promises.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>promises</h2>\n<ul class=\"promises\">\n");
    for promise in promises {
        let (class, mark) = if promise.held {
            ("good", "held")
        } else {
            ("bad", "broken")
        };
        let _ = writeln!(
            page,
            "<li><span class=\"mark {class}\">{mark}</span><div>{}<p>{}</p></div></li>",
            escape(&promise.what),
            escape(&promise.detail)
        );
    }
    page.push_str("</ul>\n</section>\n");
}

fn compared(page: &mut String, comparison: &Comparison) {
    page.push_str("<section>\n<h2>against the older run</h2>\n");
    let _ = writeln!(page, "<p>{}</p>", escape(&comparison.outcome()));
    for sentence in &comparison.differs {
        let _ = writeln!(page, "<p class=\"notable\">{}</p>", escape(sentence));
    }
    if let Some(section) = comparison.section() {
        page.push_str("<details>\n<summary>every figure</summary>\n");
        rows(page, &section);
        page.push_str("</details>\n");
    }
    page.push_str("</section>\n");
}

fn draw(page: &mut String, figure: &Figure) {
    let _ = write!(
        page,
        "<figure>\n<figcaption><strong>{}</strong>",
        escape(figure.title)
    );
    for series in &figure.plot.series {
        legend(page, series);
    }
    page.push_str("</figcaption>\n<div class=\"plot\">");
    page.push_str(&figure.plot.draw());
    page.push_str("</div>\n");
    if !figure.note.is_empty() {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", escape(&figure.note));
    }
    page.push_str("</figure>\n");
}

fn legend(page: &mut String, series: &Series) {
    let older = if series.older { " older" } else { "" };
    let _ = write!(
        page,
        "<span class=\"key\"><svg viewBox=\"0 0 22 8\" aria-hidden=\"true\"><path class=\"line c{}{older}\" d=\"M1 4H21\"/></svg>{}</span>",
        series.colour.min(3),
        escape(&series.name)
    );
}

fn table(page: &mut String, section: &Section) {
    let wide = if section.columns.len() > 4 {
        " class=\"wide\""
    } else {
        ""
    };
    let _ = write!(
        page,
        "<section{wide}>\n<h2>{}</h2>\n",
        escape(section.title)
    );
    rows(page, section);
    page.push_str("</section>\n");
}

fn rows(page: &mut String, section: &Section) {
    let notes = section.rows.iter().any(|row| !row.note.is_empty());
    let cells = section
        .rows
        .iter()
        .map(|row| row.cells.len())
        .max()
        .unwrap_or(0);
    page.push_str("<div class=\"scroll\"><table>\n");
    if section.columns.iter().any(|column| !column.is_empty()) {
        page.push_str("<thead><tr><th></th>");
        for column in &section.columns {
            let _ = write!(page, "<th scope=\"col\">{}</th>", escape(column));
        }
        page.push_str(if notes {
            "<th></th></tr></thead>\n"
        } else {
            "</tr></thead>\n"
        });
    }
    page.push_str("<tbody>\n");
    for row in &section.rows {
        let class = tone_class(row.tone);
        let _ = write!(page, "<tr><th scope=\"row\">{}</th>", escape(&row.name));
        for index in 0..cells {
            let cell = row.cells.get(index).map_or("", String::as_str);
            let _ = write!(page, "<td class=\"figure {class}\">{}</td>", escape(cell));
        }
        if notes {
            let _ = write!(page, "<td class=\"said\">{}</td>", escape(&row.note));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
}

fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "plain",
        Tone::Good => "good",
        Tone::Notable => "notable",
        Tone::Bad => "bad",
    }
}
