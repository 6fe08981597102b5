//! What a report says, as rows: the one content that the terminal's table and the page's tables both show.
//!
//! Pure functions over a [`Report`]. A row without a value is not made, and a section without rows neither; a zero
//! stays where zero is the finding ("lost 0"). Nothing here knows about widths, colours or markup.

use std::collections::BTreeMap;

use super::rows::{agreed, connections, cost, deliveries, latency, lines, parts, run};
use super::units::exact;
use super::{Agreement, Ended, Report};

/// How a figure is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// What was hoped for.
    Good,
    /// Worth a look.
    Notable,
    /// Must not be.
    Bad,
}

/// One line of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// What the figures are of.
    pub name: String,
    /// One for each column of its section; empty where there is no value.
    pub cells: Vec<String>,
    /// What else is to be said.
    pub note: String,
    /// How the figures are to be read.
    pub tone: Tone,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// Its title.
    pub title: &'static str,
    /// Headings of the cells; one empty heading where the values need none.
    pub columns: Vec<&'static str>,
    /// At least one.
    pub rows: Vec<Row>,
}

/// The run in one word and one sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// `HELD`, `BROKEN`, `INTERRUPTED`, `FAILED` or `DONE`.
    pub word: &'static str,
    /// Why.
    pub sentence: String,
    /// Good or bad.
    pub tone: Tone,
}

/// What the run comes to.
pub fn verdict(report: &Report) -> Verdict {
    let promised = report.promises.len();
    let held = report
        .promises
        .iter()
        .filter(|promise| promise.held)
        .count();
    let broken = promised - held;
    let promises = match (broken, promised) {
        (_, 0) => String::new(),
        (0, 1) => "the promise held".to_string(),
        (0, _) => format!("{promised} of {promised} promises held"),
        _ => format!("{broken} of {promised} promises broken"),
    };
    let (word, sentence, tone) = match &report.ended {
        Ended::Failed(why) => ("FAILED", joined(&[why, &promises]), Tone::Bad),
        Ended::Interrupted => {
            let until_then = "the figures are of what was done until then";
            let tone = if broken > 0 { Tone::Bad } else { Tone::Notable };
            ("INTERRUPTED", joined(&[until_then, &promises]), tone)
        }
        Ended::Completed if broken > 0 => ("BROKEN", promises, Tone::Bad),
        Ended::Completed if promised > 0 => ("HELD", promises, Tone::Good),
        Ended::Completed => ("DONE", "nothing was promised".to_string(), Tone::Plain),
    };
    Verdict {
        word,
        sentence,
        tone,
    }
}

/// Every section that has something to say, the run's own data first; promises are not among them, since each
/// output shows them in its own way.
pub fn sections(report: &Report) -> Vec<Section> {
    let one = || vec![""];
    let server = report.server.as_ref();
    let usage_columns = if server.is_some() {
        vec!["server", "swarm"]
    } else {
        vec!["swarm"]
    };
    let agreement = report.metrics.iter().flat_map(|metrics| &metrics.agreement);
    let all = [
        ("run", one(), run(report)),
        ("connections", one(), connections(report)),
        ("lines", one(), lines(report)),
        ("deliveries", one(), deliveries(&report.deliveries)),
        (
            "latency",
            vec!["p50", "p90", "p99", "p99.9", "max", "mean", "values"],
            latency(report),
        ),
        (
            "parts",
            vec![
                "length",
                "connects",
                "deliveries",
                "server CPU",
                "swarm CPU",
                "above calm, each connect",
            ],
            parts(report),
        ),
        ("cost", usage_columns, cost(server, &report.swarm)),
        (
            "agreement",
            vec!["server", "swarm", "differs by"],
            agreement.map(agreed).collect(),
        ),
    ];
    let made = all.into_iter().map(|(title, columns, rows)| Section {
        title,
        columns,
        rows,
    });
    made.filter(|section| !section.rows.is_empty()).collect()
}

/// By how much the swarm's count differs from the server's, as a part of the server's; `None` if the server
/// counted nothing and the swarm did.
pub fn difference(agreement: &Agreement) -> Option<f64> {
    let (server, swarm) = (agreement.server, agreement.swarm);
    if server == swarm {
        return Some(0.0);
    }
    let part = (swarm - server) / server.abs();
    part.is_finite().then_some(part)
}

/// Counts by name, the largest first: `accept_rate 100, connections_full 20`.
pub fn by_name(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown = counts
        .iter()
        .map(|(name, count)| format!("{name} {}", exact(**count)));
    shown.collect::<Vec<_>>().join(", ")
}

/// The sum over all names; the largest number there is, should it be more.
pub fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts
        .values()
        .fold(0, |sum, count| sum.saturating_add(*count))
}

/// The parts that say something, between commas.
pub(super) fn joined(parts: &[&str]) -> String {
    let said = parts.iter().filter(|part| !part.is_empty());
    said.copied().collect::<Vec<_>>().join(", ")
}
