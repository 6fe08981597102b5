//! The rows of each section of a summary.
//!
//! Pure functions over a [`Report`]'s parts, called by [`super::summary`] alone: which figures are shown, in which
//! words, and how they are to be read.

use super::summary::{Row, Tone, by_name, difference, joined, sum};
use super::units::{self, exact, rate, seconds, share};
use super::{Agreement, Deliveries, Latency, Part, Report, Usage};

/// How far the server's count and the swarm's may differ before a row says so, as a part of the server's.
const AGREEMENT_TOLERANCE: f64 = 0.05;

/// What ran, where and when.
pub(super) fn run(report: &Report) -> Vec<Row> {
    let machine = &report.machine;
    let cores = match machine.cores {
        0 => String::new(),
        1 => "1 core".to_string(),
        cores => format!("{cores} cores"),
    };
    let memory = present(machine.memory_bytes, |bytes| units::bytes(bytes as f64));
    let settings = report
        .settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let began = present(report.started_ms, units::utc);
    let took = if report.elapsed_s > 0.0 {
        seconds(report.elapsed_s)
    } else {
        String::new()
    };
    let by = if report.version.is_empty() {
        String::new()
    } else {
        format!("danmaku-swarm {}", report.version)
    };
    let rows = [
        ("scenario", report.scenario.clone()),
        ("server", report.url.clone()),
        ("arguments", report.arguments.join(" ")),
        ("settings", settings.collect::<Vec<_>>().join(", ")),
        ("began", began),
        ("took", took),
        (
            "machine",
            joined(&[&cores, &machine.processor, &memory, &machine.kernel]),
        ),
        ("measured by", by),
    ];
    let made = rows.into_iter().filter(|(_, text)| !text.is_empty());
    made.map(|(name, note)| Row {
        name: name.to_string(),
        note,
        ..Row::default()
    })
    .collect()
}

/// Who got in, and who did not.
pub(super) fn connections(report: &Report) -> Vec<Row> {
    let connections = &report.connections;
    if connections.wanted == 0 && connections.connected == 0 {
        return refusals(report);
    }
    let per_s = if connections.per_s > 0.0 {
        rate(connections.per_s)
    } else {
        String::new()
    };
    let ramp = if connections.ramp_s > 0.0 {
        format!("all within {}", seconds(connections.ramp_s))
    } else {
        String::new()
    };
    let wanted = present(connections.wanted, |wanted| {
        format!("{} wanted", exact(wanted))
    });
    let mut rows = vec![value(
        "connected",
        connections.connected,
        joined(&[&wanted, &per_s, &ramp]),
    )];
    if connections.peak > 0 {
        let at_end = format!("{} when the run ended", exact(connections.at_end));
        rows.push(value("most at once", connections.peak, at_end));
    }
    rows.extend(refusals(report));
    rows
}

/// Everything that kept clients out or ended them.
fn refusals(report: &Report) -> Vec<Row> {
    let connections = &report.connections;
    let told = [
        ("refused", &connections.refused, Tone::Notable),
        ("failed", &connections.failed, Tone::Bad),
        ("closed by server", &connections.closed, Tone::Notable),
    ];
    let mut rows: Vec<Row> = Vec::new();
    for (name, counts, tone) in told {
        if sum(counts) > 0 {
            rows.push(Row {
                tone,
                ..value(name, sum(counts), by_name(counts))
            });
        }
    }
    if connections.cut > 0 {
        rows.push(value("cut on purpose", connections.cut, String::new()));
    }
    if connections.backed_off > 0 {
        let note = "reconnects that waited as the server asked".to_string();
        rows.push(value("backed off", connections.backed_off, note));
    }
    rows
}

/// What was sent.
pub(super) fn lines(report: &Report) -> Vec<Row> {
    let published = &report.published;
    let refused = sum(&published.refused);
    if published.scheduled == 0 && published.accepted == 0 && refused == 0 {
        return Vec::new();
    }
    let part = part_of(published.accepted, published.scheduled);
    let part = part.map_or(String::new(), |part| {
        format!("{} of those scheduled", share(part))
    });
    let per_s = if published.per_s > 0.0 {
        rate(published.per_s)
    } else {
        String::new()
    };
    let mut rows = vec![
        value("scheduled", published.scheduled, String::new()),
        value("accepted", published.accepted, joined(&[&part, &per_s])),
    ];
    if refused > 0 {
        let row = value("refused", refused, by_name(&published.refused));
        rows.push(Row {
            tone: Tone::Notable,
            ..row
        });
    }
    if published.unsent > 0 {
        let note = "no speaker or publisher was free".to_string();
        rows.push(Row {
            tone: Tone::Notable,
            ..value("never sent", published.unsent, note)
        });
    }
    if published.unanswered > 0 {
        let row = value("unanswered", published.unanswered, String::new());
        rows.push(Row {
            tone: Tone::Notable,
            ..row
        });
    }
    rows
}

/// What was received of it, and what was wrong.
pub(super) fn deliveries(deliveries: &Deliveries) -> Vec<Row> {
    let faults = sum(&deliveries.faults);
    let silent = deliveries.expected == 0 && deliveries.delivered == 0 && deliveries.foreign == 0;
    if silent && !any_fault(deliveries) {
        return Vec::new();
    }
    let part = part_of(deliveries.delivered, deliveries.expected).map_or(String::new(), share);
    let mean = if deliveries.per_s > 0.0 {
        rate(deliveries.per_s)
    } else {
        String::new()
    };
    let peak = if deliveries.per_s_peak > 0.0 {
        format!("best second {}", rate(deliveries.per_s_peak))
    } else {
        String::new()
    };
    let mut rows = vec![
        value(
            "expected",
            deliveries.expected,
            "accepted lines times their members".to_string(),
        ),
        value(
            "delivered",
            deliveries.delivered,
            joined(&[&part, &mean, &peak]),
        ),
    ];
    if deliveries.recovered > 0 {
        rows.push(value(
            "of those by resume",
            deliveries.recovered,
            String::new(),
        ));
    }
    let told = part_of(deliveries.told_dropped, deliveries.expected).map_or(String::new(), share);
    let told = Row {
        note: told,
        ..value("told as dropped", deliveries.told_dropped, String::new())
    };
    let tone = if deliveries.told_dropped > 0 {
        Tone::Notable
    } else {
        Tone::Plain
    };
    rows.push(Row { tone, ..told });
    rows.push(fault("lost", deliveries.lost, "missing, and not told"));
    rows.push(fault(
        "duplicates",
        deliveries.duplicated,
        "received more than once",
    ));
    rows.push(fault(
        "out of order",
        deliveries.out_of_order,
        "received after a later line",
    ));
    rows.push(fault(
        "corrupted",
        deliveries.corrupted,
        "not what was sent under this number",
    ));
    if deliveries.told_too_many > 0 {
        rows.push(fault(
            "told too many",
            deliveries.told_too_many,
            "told as dropped, never missing",
        ));
    }
    if faults > 0 {
        rows.push(fault("other faults", faults, &by_name(&deliveries.faults)));
    }
    rows.extend(asides(deliveries));
    for example in &deliveries.examples {
        rows.push(Row {
            name: "example".to_string(),
            cells: vec![String::new()],
            note: example.clone(),
            tone: Tone::Bad,
        });
    }
    rows
}

/// What belongs to deliveries without being a verdict on them.
fn asides(deliveries: &Deliveries) -> Vec<Row> {
    let mut rows = Vec::new();
    if deliveries.foreign > 0 {
        rows.push(value(
            "of others",
            deliveries.foreign,
            "lines this run did not send".to_string(),
        ));
    }
    if deliveries.renumbered > 0 {
        let note = "members told that their room's numbering began anew, each time".to_string();
        rows.push(Row {
            tone: Tone::Notable,
            ..value("renumbered", deliveries.renumbered, note)
        });
    }
    if deliveries.apart > 0 {
        let note = "lines times members, said where nodes were apart: not expected of the others"
            .to_string();
        rows.push(Row {
            tone: Tone::Notable,
            ..value("said apart", deliveries.apart, note)
        });
    }
    if deliveries.memberships_checked > 0 {
        let note = "memberships, line by line".to_string();
        rows.push(value("checked", deliveries.memberships_checked, note));
    }
    if deliveries.memberships_unchecked > 0 {
        let note =
            "memberships; an answer to a publisher was lost, or the room began anew".to_string();
        let row = value(
            "not checked in full",
            deliveries.memberships_unchecked,
            note,
        );
        rows.push(Row {
            tone: Tone::Notable,
            ..row
        });
    }
    if deliveries.bytes > 0 {
        let per_line = deliveries.bytes as f64 / deliveries.delivered.max(1) as f64;
        let note = if deliveries.delivered > 0 {
            format!("{} for each line", units::bytes(per_line))
        } else {
            String::new()
        };
        rows.push(Row {
            name: "received".to_string(),
            cells: vec![units::bytes(deliveries.bytes as f64)],
            note,
            tone: Tone::Plain,
        });
    }
    rows
}

/// How long it took.
pub(super) fn latency(report: &Report) -> Vec<Row> {
    let all = [
        ("line to viewer", Some(&report.latency)),
        ("said at its own node", report.local_latency.as_ref()),
        ("said at another node", report.across_latency.as_ref()),
        ("push to answer", report.push_latency.as_ref()),
        ("arrival to joined", Some(&report.connect_latency)),
    ];
    let whole = all
        .into_iter()
        .filter_map(|(name, latency)| Some((name.to_string(), latency?)));
    let parts = report.parts.iter().flat_map(|part| {
        let named = |what, latency| Some((format!("{}: {what}", part.name), latency?));
        [
            named("lines", Some(&part.latency)),
            named("own node", part.local_latency.as_ref()),
            named("another node", part.across_latency.as_ref()),
            named("arrivals", Some(&part.connect_latency)),
        ]
        .into_iter()
        .flatten()
    });
    whole
        .chain(parts)
        .filter(|(_, latency)| latency.count > 0)
        .map(|(name, latency)| Row {
            name,
            cells: percentiles(latency),
            ..Row::default()
        })
        .collect()
}

/// What each part of the run came to. The first is the calm the others are held against: what the server used above it
/// is what their connects cost.
pub(super) fn parts(report: &Report) -> Vec<Row> {
    let length = |part: &Part| part.ends_s - part.begins_s;
    let calm = report
        .parts
        .first()
        .filter(|first| length(first) > 0.0)
        .map_or(0.0, |first| first.server_cpu_s / length(first));
    let row = |(at, part): (usize, &Part)| {
        let cpu = |cpu_s: f64| {
            if cpu_s > 0.0 {
                seconds(cpu_s)
            } else {
                String::new()
            }
        };
        let above_s = part.server_cpu_s - calm * length(part);
        let each = if at > 0 && part.connects > 0 && above_s > 0.0 {
            units::micros(above_s / part.connects as f64 * 1e6)
        } else {
            String::new()
        };
        Row {
            name: part.name.clone(),
            cells: vec![
                seconds(length(part)),
                exact(part.connects),
                units::short(part.deliveries as f64),
                cpu(part.server_cpu_s),
                cpu(part.swarm_cpu_s),
                each,
            ],
            ..Row::default()
        }
    };
    report.parts.iter().enumerate().map(row).collect()
}

fn percentiles(latency: &Latency) -> Vec<String> {
    let us = |us: u64| units::micros(us as f64);
    vec![
        us(latency.p50_us),
        us(latency.p90_us),
        us(latency.p99_us),
        us(latency.p999_us),
        us(latency.max_us),
        units::micros(latency.mean_us),
        units::short(latency.count as f64),
    ]
}

/// What both processes used.
pub(super) fn cost(server: Option<&Usage>, swarm: &Usage) -> Vec<Row> {
    let cpu = |s: f64| if s > 0.0 { seconds(s) } else { String::new() };
    let rss = |bytes: u64| present(bytes, |bytes| units::bytes(bytes as f64));
    let some = |figure: Option<f64>, show: fn(f64) -> String| figure.map_or(String::new(), show);
    type Show<'a> = Box<dyn Fn(&Usage) -> String + 'a>;
    let figures: [(&str, Show); 9] = [
        (
            "CPU per million deliveries",
            Box::new(|u| some(u.cpu_s_per_million, seconds)),
        ),
        (
            "CPU per connection made",
            Box::new(|u| some(u.cpu_us_per_connection, units::micros)),
        ),
        (
            "bytes per connection",
            Box::new(|u| some(u.bytes_per_connection, units::bytes)),
        ),
        ("CPU, whole run", Box::new(|u| cpu(u.cpu_s))),
        ("CPU, ramp", Box::new(|u| cpu(u.cpu_ramp_s))),
        ("CPU, run", Box::new(|u| cpu(u.cpu_run_s))),
        ("resident before", Box::new(|u| rss(u.rss_before))),
        (
            "resident when connected",
            Box::new(|u| rss(u.rss_connected)),
        ),
        ("resident at most", Box::new(|u| rss(u.rss_peak))),
    ];
    let usages = || server.into_iter().chain([swarm]);
    let rows = figures.iter().map(|(name, show)| Row {
        name: name.to_string(),
        cells: usages().map(show).collect(),
        ..Row::default()
    });
    rows.filter(|row| row.cells.iter().any(|cell| !cell.is_empty()))
        .collect()
}

/// One thing counted on both sides.
pub(super) fn agreed(agreement: &Agreement) -> Row {
    let part = difference(agreement);
    let differs = match part {
        Some(part) if part <= -0.0001 => format!("-{}", share(-part)),
        Some(part) if part < 0.0 => share(-part),
        Some(part) => share(part),
        None => "all of it".to_string(),
    };
    let far = part.is_none_or(|part| part.abs() > AGREEMENT_TOLERANCE);
    Row {
        name: agreement.what.clone(),
        cells: vec![
            units::count(agreement.server),
            units::count(agreement.swarm),
            differs,
        ],
        note: agreement.metric.clone(),
        tone: if far { Tone::Bad } else { Tone::Good },
    }
}

fn any_fault(deliveries: &Deliveries) -> bool {
    let counts = [
        deliveries.lost,
        deliveries.duplicated,
        deliveries.out_of_order,
        deliveries.corrupted,
        deliveries.told_dropped,
        deliveries.told_too_many,
        sum(&deliveries.faults),
    ];
    counts.iter().any(|count| *count > 0) || !deliveries.examples.is_empty()
}

fn value(name: &str, count: u64, note: String) -> Row {
    Row {
        name: name.to_string(),
        cells: vec![exact(count)],
        note,
        tone: Tone::Plain,
    }
}

/// A count that must be zero; what it means is only said when it is not.
fn fault(name: &str, count: u64, meaning: &str) -> Row {
    if count == 0 {
        return Row {
            tone: Tone::Good,
            ..value(name, 0, String::new())
        };
    }
    Row {
        tone: Tone::Bad,
        ..value(name, count, meaning.to_string())
    }
}

fn present(figure: u64, show: impl Fn(u64) -> String) -> String {
    if figure > 0 {
        show(figure)
    } else {
        String::new()
    }
}

fn part_of(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
