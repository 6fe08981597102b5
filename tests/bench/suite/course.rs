//! Rounds of runs and what is read out of their reports: a course is a value, [`rounds`] runs it in turns.

use std::collections::BTreeMap;

use danmaku_swarm::report::{Part, Report, Usage};

use crate::drive::{Drive, Setup};
use crate::results::Bound::AtMost;
use crate::results::{Bound, Done, Figure, Purpose, Run};

/// Runs in turns, so that what else the machine does meets all setups alike.
pub struct Course {
    pub rounds: usize,
    pub setups: Vec<Setup>,
    pub readings: Vec<Reading>,
    /// What is said of the last round in words.
    pub note: Option<fn(&Round) -> String>,
}

/// The reports of one round, by setup.
pub type Round = BTreeMap<&'static str, Report>;

/// How a figure is got out of a round; `None` if the round does not have it.
type Read = Box<dyn Fn(&Round) -> Option<f64>>;

/// A figure as it is read out of a round.
pub struct Reading {
    what: String,
    unit: &'static str,
    pub bound: Option<Bound>,
    pub of: Read,
}

/// Runs a course; what it comes to is added to `done`, as far as it came.
pub fn rounds(course: &Course, drive: &Drive, done: &mut Done) -> Result<(), String> {
    let mut all: Vec<Round> = Vec::new();
    for nth in 0..course.rounds {
        let mut round = Round::new();
        let mut setups: Vec<&Setup> = course.setups.iter().collect();
        if nth % 2 == 1 {
            setups.reverse();
        }
        for setup in setups {
            eprintln!(
                "bench:   round {} of {}, {}",
                nth + 1,
                course.rounds,
                setup.name
            );
            let taken = drive.run(setup)?;
            done.runs.push(Run::of(setup, Purpose::Round, &taken));
            round.insert(setup.name, taken.report);
        }
        all.push(round);
    }
    for reading in &course.readings {
        let values: Vec<Option<f64>> = all.iter().map(|round| (reading.of)(round)).collect();
        let figure = Figure::judge(
            &reading.what,
            reading.unit,
            reading.bound,
            &values,
            done.smoke,
        );
        done.figures.push(figure);
    }
    if let (Some(note), Some(last)) = (course.note, all.last()) {
        done.notes.push(note(last));
    }
    Ok(())
}

// What is read out of a report.

pub fn server(report: &Report) -> Option<&Usage> {
    report.server.as_ref()
}

pub fn memory_each(report: &Report) -> Option<f64> {
    server(report)?.bytes_per_connection
}

pub fn connect_us(report: &Report) -> Option<f64> {
    server(report)?.cpu_us_per_connection
}

pub fn cpu_us(report: &Report) -> Option<f64> {
    server(report)?.cpu_s_per_million
}

pub fn p50_ms(report: &Report) -> Option<f64> {
    (report.latency.count > 0).then_some(report.latency.p50_us as f64 / 1000.0)
}

pub fn p99_ms(report: &Report) -> Option<f64> {
    (report.latency.count > 0).then_some(report.latency.p99_us as f64 / 1000.0)
}

pub fn broken(report: &Report) -> Option<f64> {
    Some(
        report
            .promises
            .iter()
            .filter(|promise| !promise.held)
            .count() as f64,
    )
}

pub fn not_delivered(report: &Report) -> Option<f64> {
    let found = &report.deliveries;
    (found.expected > 0).then_some((found.lost + found.told_dropped) as f64)
}

/// Resident growth of the server after everyone was connected.
pub fn growth_mib(report: &Report) -> Option<f64> {
    let server = server(report)?;
    Some((server.rss_peak as f64 - server.rss_connected as f64) / f64::from(1 << 20))
}

pub fn part<'a>(report: &'a Report, name: &str) -> Option<&'a Part> {
    report.parts.iter().find(|part| part.name == name)
}

pub fn length_s(part: &Part) -> f64 {
    part.ends_s - part.begins_s
}

// Figures made of them.

/// What one setup's report says.
pub fn says(
    setup: &'static str,
    what: &str,
    unit: &'static str,
    bound: impl Into<Option<Bound>>,
    read: impl Fn(&Report) -> Option<f64> + 'static,
) -> Reading {
    Reading {
        what: what.to_owned(),
        unit,
        bound: bound.into(),
        of: Box::new(move |round| read(round.get(setup)?)),
    }
}

/// How many times what `other` says a setup says, within a round: both had the same neighbours.
pub fn ratio(
    [setup, other]: [&'static str; 2],
    what: &str,
    bound: impl Into<Option<Bound>>,
    read: fn(&Report) -> Option<f64>,
) -> Reading {
    Reading {
        what: what.to_owned(),
        unit: "x",
        bound: bound.into(),
        of: Box::new(move |round| Some(read(round.get(setup)?)? / read(round.get(other)?)?)),
    }
}

pub fn all_held(setup: &'static str) -> Reading {
    says(
        setup,
        "promises of the swarm that did not hold",
        "",
        AtMost(0.0),
        broken,
    )
}
