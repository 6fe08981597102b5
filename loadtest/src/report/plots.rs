//! Which plots a report's page has, and what is in them.
//!
//! Pure functions over one or two [`Report`]s; [`super::svg`] draws. A plot without anything above zero is not made.

use super::svg::{Across, Band, Plot, Scale, Series};
use super::units::Unit;
use super::{Latency, Report, Second};

/// Points of a line at most: about one for each unit of the picture's width.
const POINTS_MAX: usize = 520;
/// A latency plot over time goes by decades if its largest value is this many times its smallest.
const LOG_FROM: f64 = 100.0;

/// A plot with its title and what its title cannot say.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its title.
    pub title: &'static str,
    /// How to read it; may be empty.
    pub note: String,
    /// What is drawn.
    pub plot: Plot,
}

/// Every plot that has something to show. With `other`, the older run's lines are in the same plots.
pub fn figures(report: &Report, other: Option<&Report>) -> Vec<Figure> {
    let runs = Runs {
        new: report,
        older: other,
    };
    let mut figures = vec![
        runs.quantiles(
            "Latency of lines",
            ("line to viewer", |report| Some(&report.latency)),
        ),
        latency_over_time(&runs),
        runs.over_time(
            "Deliveries per second",
            Unit::Rate,
            &[("deliveries", How::Mean, |s| Some(s.deliveries as f64))],
        ),
        runs.over_time(
            "Lines accepted per second",
            Unit::Rate,
            &[("lines", How::Mean, |s| Some(s.published as f64))],
        ),
        runs.over_time(
            "CPU, in cores",
            Unit::Cores,
            &[
                ("server", How::Mean, |s| Some(s.server_cpu)),
                ("swarm", How::Mean, |s| Some(s.swarm_cpu)),
            ],
        ),
        runs.over_time(
            "Resident memory",
            Unit::Bytes,
            &[
                ("server", How::Largest, |s| {
                    (s.server_rss > 0).then_some(s.server_rss as f64)
                }),
                ("swarm", How::Largest, |s| {
                    (s.swarm_rss > 0).then_some(s.swarm_rss as f64)
                }),
            ],
        ),
        runs.over_time(
            "Connections",
            Unit::Count,
            &[("connected", How::Largest, |s| Some(s.connected as f64))],
        ),
        runs.over_time(
            "Connects per second",
            Unit::Rate,
            &[
                ("connected", How::Mean, |s| Some(s.connects as f64)),
                ("refused", How::Mean, |s| Some(s.refused as f64)),
            ],
        ),
        runs.quantiles(
            "Latency of pushes",
            ("push to answer", |report| report.push_latency.as_ref()),
        ),
        runs.quantiles(
            "Latency of connects",
            ("arrival to joined", |report| Some(&report.connect_latency)),
        ),
    ];
    figures.retain(|figure| figure.plot.shows_something());
    for figure in &mut figures {
        drop_flat_lines(&mut figure.plot);
    }
    figures
}

/// How several seconds become one point.
#[derive(Clone, Copy)]
enum How {
    Mean,
    Largest,
}

type Pick = fn(&Second) -> Option<f64>;
type PickLatency = fn(&Report) -> Option<&Latency>;

struct Runs<'a> {
    new: &'a Report,
    older: Option<&'a Report>,
}

impl Runs<'_> {
    /// The runs there are, the new one first, each with whether it is the older.
    fn each(&self) -> impl Iterator<Item = (&Report, bool)> {
        [(Some(self.new), false), (self.older, true)]
            .into_iter()
            .filter_map(|(report, older)| Some((report?, older)))
    }

    fn over_time(&self, title: &'static str, unit: Unit, lines: &[(&str, How, Pick)]) -> Figure {
        let mut series = Vec::new();
        let mut merged = 1;
        for (report, older) in self.each() {
            merged = merged.max(group(&report.timeline));
            for (colour, (name, how, pick)) in lines.iter().enumerate() {
                series.push(Series {
                    name: named(name, older),
                    colour: colour as u8,
                    older,
                    points: points(&report.timeline, *how, *pick),
                });
            }
        }
        let note = if merged > 1 {
            let how = match lines.first() {
                Some((_, How::Largest, _)) => "largest",
                _ => "mean",
            };
            format!("each point the {how} of {merged} seconds")
        } else {
            String::new()
        };
        let bands = bands(self.new);
        let plot = Plot {
            title: title.to_string(),
            across: Across::Time,
            unit,
            scale: Scale::Linear,
            bands,
            series,
        };
        Figure { title, note, plot }
    }

    fn quantiles(&self, title: &'static str, (name, pick): (&str, PickLatency)) -> Figure {
        let mut series = Vec::new();
        let mut values = 0;
        for (report, older) in self.each() {
            let Some(latency) = pick(report).filter(|latency| latency.count > 0) else {
                continue;
            };
            values = values.max(latency.count);
            series.push(Series {
                name: named(name, older),
                colour: 0,
                older,
                points: curve(latency),
            });
        }
        // As many nines as that many values can tell, four at least so that plots compare at a glance.
        let nines = (values as f64).max(1.0).log10().ceil().clamp(4.0, 6.0) as u32;
        let plot = Plot {
            title: title.to_string(),
            across: Across::Quantiles { nines },
            unit: Unit::Micros,
            scale: Scale::Linear,
            bands: Vec::new(),
            series,
        };
        let note = "each nine at the same distance; the largest value stands at the right edge"
            .to_string();
        Figure { title, note, plot }
    }
}

fn latency_over_time(runs: &Runs<'_>) -> Figure {
    let mut figure = runs.over_time(
        "Latency over time",
        Unit::Micros,
        &[
            ("p50", How::Mean, |s| {
                (s.deliveries > 0).then_some(s.p50_us as f64)
            }),
            ("p99", How::Largest, |s| {
                (s.deliveries > 0).then_some(s.p99_us as f64)
            }),
        ],
    );
    let values = figure.plot.series.iter().flat_map(|series| &series.points);
    let above_zero = values
        .filter_map(|(_, value)| *value)
        .filter(|value| *value > 0.0);
    let (low, high) = above_zero.fold((f64::MAX, 0.0f64), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    if !figure.note.is_empty() {
        figure.note.push_str(", of p99 the largest");
    }
    if high > LOG_FROM * low {
        figure.plot.scale = Scale::Log;
        figure.note.push_str(if figure.note.is_empty() {
            "by decades"
        } else {
            "; by decades"
        });
    }
    figure
}

/// Lines that never leave zero beside others that do would only crowd the legend.
fn drop_flat_lines(plot: &mut Plot) {
    plot.series.retain(|series| {
        series
            .points
            .iter()
            .any(|(_, value)| value.is_some_and(|v| v > 0.0))
    });
}

fn named(name: &str, older: bool) -> String {
    if older {
        format!("{name}, older run")
    } else {
        name.to_string()
    }
}

/// How many seconds become one point.
fn group(timeline: &[Second]) -> usize {
    timeline.len().div_ceil(POINTS_MAX).max(1)
}

fn points(timeline: &[Second], how: How, pick: Pick) -> Vec<(f64, Option<f64>)> {
    let merge = |seconds: &[Second]| {
        let values: Vec<f64> = seconds.iter().filter_map(pick).collect();
        let merged = match how {
            How::Mean => values.iter().map(|value| value / values.len() as f64).sum(),
            How::Largest => values.iter().copied().fold(0.0, f64::max),
        };
        let at = seconds.last().map_or(0.0, |second| second.at_s);
        (at, (!values.is_empty()).then_some(merged))
    };
    timeline.chunks(group(timeline)).map(merge).collect()
}

/// The distribution's points; where a report has none, its named percentiles.
fn curve(latency: &Latency) -> Vec<(f64, Option<f64>)> {
    if !latency.curve.is_empty() {
        return latency
            .curve
            .iter()
            .map(|(q, us)| (*q, Some(*us as f64)))
            .collect();
    }
    let named = [
        (0.0, latency.min_us),
        (0.5, latency.p50_us),
        (0.9, latency.p90_us),
        (0.99, latency.p99_us),
        (0.999, latency.p999_us),
        (1.0, latency.max_us),
    ];
    named.iter().map(|(q, us)| (*q, Some(*us as f64))).collect()
}

/// Where each phase of the run begins and ends.
fn bands(report: &Report) -> Vec<Band> {
    let mut bands: Vec<Band> = Vec::new();
    let mut before = 0.0;
    for second in &report.timeline {
        match bands.last_mut() {
            Some(band) if band.name == second.phase => band.to = second.at_s,
            _ => bands.push(Band {
                from: before,
                to: second.at_s,
                name: second.phase.clone(),
            }),
        }
        before = second.at_s;
    }
    bands
}
