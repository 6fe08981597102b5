//! Makes the report of what a run wrote down. Pure functions, on the main thread.

use std::collections::{BTreeMap, HashSet};

use hdrhistogram::Histogram;

use crate::books::{Books, settle};
use crate::meter::Sample;
use crate::plan::Plan;
use crate::probe::{self, Used};
use crate::record::{Mark, Moment, Record};
use crate::report::live::Phase;
use crate::report::{
    Agreement, Connections, Deliveries, Ended, FORMAT, Latency, MetricsView, Numbering, Part,
    Promise, Published, Report, Second, Usage,
};
use crate::thread::{Deaf, Notes};

/// How far apart the swarm's and the server's own counts may be.
const AGREEMENT: f64 = 0.05;

/// The report, but for what only the caller knows (scenario, arguments, machine).
pub(crate) fn report(plan: &Plan, mut record: Record) -> Report {
    let mut books = books(plan, &mut record.notes);
    books
        .memberships
        .sort_by_key(|membership| (membership.room, membership.viewer));
    let told_to_readers = told_to_readers(plan, &books);
    let mut deliveries = settle(books);
    deliveries.recovered = record.notes.recovered;
    deliveries.events = record.notes.events;
    deliveries.faults = record.notes.faults.clone();
    deliveries.renumbered = record.notes.told.members;
    let [begin, connected, run_begin, run_end, end] = &record.marks;
    deliveries.bytes = end.totals.bytes;
    deliveries.per_s = per_s(run_begin, run_end, |mark| mark.totals.deliveries);
    let timeline = timeline(begin, &record.moments);
    let per_second = timeline
        .windows(2)
        .map(|pair| rate(&pair[1], pair[1].at_s - pair[0].at_s));
    deliveries.per_s_peak = per_second.fold(0.0, f64::max);
    let all = &record.all;
    let [local_latency, across_latency] = by_node(plan, all);
    let numberings = numberings(plan, &mut record.notes);
    let mut report = Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        elapsed_s: seconds(end.at_us - begin.at_us),
        ended: record.ended.clone(),
        connections: connections(plan, &record),
        published: published(&record),
        latency: latency(&all.deliveries),
        local_latency,
        across_latency,
        numberings,
        push_latency: (!all.pushes.is_empty()).then(|| latency(&all.pushes)),
        connect_latency: latency(&all.connects),
        server: server_usage(&record),
        swarm: usage(&record, |mark| Some(mark.swarm), record.rss_peak.1).unwrap_or_default(),
        parts: parts(plan, &record, &timeline),
        metrics: metrics(&record, &deliveries),
        timeline,
        deliveries,
        ..Report::default()
    };
    report.promises = promises(plan, &record, &report, told_to_readers);
    if report.ended == Ended::Completed && connected.totals.connected == 0 && plan.ramping() > 0 {
        report.ended = Ended::Failed("nobody was connected".into());
    }
    report
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn per_s(from: &Mark, to: &Mark, of: impl Fn(&Mark) -> u64) -> f64 {
    let span_s = seconds(to.at_us.saturating_sub(from.at_us));
    if span_s > 0.0 {
        of(to).saturating_sub(of(from)) as f64 / span_s
    } else {
        0.0
    }
}

fn rate(second: &Second, span_s: f64) -> f64 {
    if span_s > 0.5 {
        second.deliveries as f64 / span_s
    } else {
        0.0
    }
}

/// A distribution's figures and some points of its curve, denser towards the end.
pub(crate) fn latency(of: &Histogram<u64>) -> Latency {
    if of.is_empty() {
        return Latency::default();
    }
    let mut curve: Vec<(f64, u64)> = Vec::new();
    for value in of.iter_quantiles(4) {
        let point = (value.quantile(), value.value_iterated_to());
        if curve.len() < 99 && curve.last().is_none_or(|last| last.0 < point.0) {
            curve.push(point);
        }
    }
    Latency {
        count: of.len(),
        min_us: of.min(),
        mean_us: of.mean(),
        p50_us: of.value_at_quantile(0.5),
        p90_us: of.value_at_quantile(0.9),
        p99_us: of.value_at_quantile(0.99),
        p999_us: of.value_at_quantile(0.999),
        max_us: of.max(),
        curve,
    }
}

/// Of several nodes: latencies of lines said at the own node, and at another one.
fn by_node(plan: &Plan, sample: &Sample) -> [Option<Latency>; 2] {
    if plan.targets.len() < 2 {
        return [None, None];
    }
    let mut local = sample.deliveries.clone();
    // Every line that came across is among all of them.
    let _ = local.subtract(&sample.across);
    [Some(latency(&local)), Some(latency(&sample.across))]
}

fn numberings(plan: &Plan, notes: &mut Notes) -> Vec<Numbering> {
    let told = std::mem::take(&mut notes.told).all().into_iter();
    let named = told.map(|told| Numbering {
        room: plan
            .rooms
            .get(told.room as usize)
            .map_or(String::new(), |room| room.id.clone()),
        node: told.node,
        epoch: told.epoch,
        from_s: seconds(told.from_us),
        to_s: seconds(told.to_us),
        members: told.members,
    });
    named.collect()
}

fn connections(plan: &Plan, record: &Record) -> Connections {
    let [begin, connected, .., end] = &record.marks;
    let ramp_us = record
        .ramp_done_us
        .unwrap_or(connected.at_us)
        .saturating_sub(begin.at_us);
    let notes = &record.notes;
    Connections {
        wanted: plan.viewers.len() as u64,
        connected: end.totals.connects,
        peak: record.peak,
        at_end: end.totals.connected,
        per_s: connected.totals.connects as f64 / seconds(ramp_us).max(1e-3),
        ramp_s: seconds(ramp_us),
        refused: notes.refused.clone(),
        failed: notes.failed.clone(),
        closed: notes.closed.clone(),
        cut: notes.cut,
        backed_off: notes.backed_off,
    }
}

fn published(record: &Record) -> Published {
    let [.., run_begin, run_end, end] = &record.marks;
    let notes = &record.notes;
    let refused: u64 = notes.lines_refused.values().sum();
    let unanswered = notes.unanswered + notes.ignored;
    let accounted = end.totals.accepted + refused + unanswered;
    Published {
        scheduled: notes.scheduled,
        accepted: end.totals.accepted,
        refused: notes.lines_refused.clone(),
        unanswered,
        unsent: notes.scheduled.saturating_sub(accounted),
        per_s: per_s(run_begin, run_end, |mark| mark.totals.accepted),
    }
}

fn server_usage(record: &Record) -> Option<Usage> {
    usage(record, |mark| mark.server, record.rss_peak.0)
}

fn usage(record: &Record, of: impl Fn(&Mark) -> Option<Used>, rss_peak: u64) -> Option<Usage> {
    let [begin, connected, run_begin, run_end, end] = &record.marks;
    let (first, last) = (of(begin)?, of(end)?);
    let cpu_between = |from: &Mark, to: &Mark| Some(of(to)?.cpu_s - of(from)?.cpu_s);
    let cpu_run_s = cpu_between(run_begin, run_end).unwrap_or(0.0);
    let cpu_ramp_s = cpu_between(begin, connected).unwrap_or(0.0);
    let delivered = run_end
        .totals
        .deliveries
        .saturating_sub(run_begin.totals.deliveries);
    let connects = connected.totals.connects;
    let rss_connected = of(connected).map_or(0, |used| used.rss);
    let grown = rss_connected.saturating_sub(first.rss) as f64;
    let held = connected.totals.connected;
    Some(Usage {
        cpu_s: last.cpu_s - first.cpu_s,
        cpu_run_s,
        cpu_ramp_s,
        cpu_s_per_million: (delivered > 0).then(|| cpu_run_s / delivered as f64 * 1e6),
        cpu_us_per_connection: (connects > 0).then(|| cpu_ramp_s / connects as f64 * 1e6),
        rss_before: first.rss,
        rss_connected,
        rss_peak: rss_peak.max(rss_connected),
        rss_after: last.rss,
        bytes_per_connection: (held > 0).then(|| grown / held as f64),
    })
}

fn timeline(begin: &Mark, moments: &[Moment]) -> Vec<Second> {
    let mut before = begin;
    let mut seconds_of = Vec::with_capacity(moments.len());
    for moment in moments {
        let mark = &moment.mark;
        let span_s = seconds(mark.at_us - before.at_us).max(1e-3);
        let cores = |now: Used, then: Used| (now.cpu_s - then.cpu_s) / span_s;
        let grown = |of: fn(&Mark) -> u64| of(mark).saturating_sub(of(before));
        seconds_of.push(Second {
            at_s: seconds(mark.at_us),
            phase: match moment.phase {
                Phase::Ramp => "ramp",
                Phase::Run => "run",
                Phase::Tail => "tail",
            }
            .to_owned(),
            connected: mark.totals.connected,
            connects: grown(|mark| mark.totals.connects),
            refused: grown(|mark| mark.totals.refused),
            published: grown(|mark| mark.totals.accepted),
            deliveries: grown(|mark| mark.totals.deliveries),
            p50_us: moment.p50_us,
            p99_us: moment.p99_us,
            max_us: moment.max_us,
            server_cpu: match (mark.server, before.server) {
                (Some(now), Some(then)) => cores(now, then),
                _ => 0.0,
            },
            server_rss: mark.server.map_or(0, |used| used.rss),
            swarm_cpu: cores(mark.swarm, before.swarm),
            swarm_rss: mark.swarm.rss,
        });
        before = mark;
    }
    seconds_of
}

/// Figures of each named part, from the seconds that end in it.
fn parts(plan: &Plan, record: &Record, timeline: &[Second]) -> Vec<Part> {
    let begin_us = record.run_begins_us;
    if begin_us == u64::MAX {
        return Vec::new();
    }
    let part = |((name, from_us, to_us), sample): (&(String, u64, u64), &Sample)| {
        let (begins_s, ends_s) = (seconds(begin_us + from_us), seconds(begin_us + to_us));
        let [local_latency, across_latency] = by_node(plan, sample);
        let mut part = Part {
            name: name.clone(),
            local_latency,
            across_latency,
            begins_s,
            ends_s,
            latency: latency(&sample.deliveries),
            connect_latency: latency(&sample.connects),
            ..Part::default()
        };
        let mut before_s = 0.0;
        for second in timeline {
            let span_s = second.at_s - before_s;
            before_s = second.at_s;
            if second.at_s > begins_s && second.at_s <= ends_s {
                part.connects += second.connects;
                part.deliveries += second.deliveries;
                part.server_cpu_s += second.server_cpu * span_s;
                part.swarm_cpu_s += second.swarm_cpu * span_s;
            }
        }
        part
    };
    plan.parts.iter().zip(&record.parts).map(part).collect()
}

fn metrics(record: &Record, deliveries: &Deliveries) -> Option<MetricsView> {
    let [begin, .., run_end, end] = &record.marks;
    let (before, during, after) = (
        begin.metrics.clone()?,
        run_end.metrics.clone()?,
        end.metrics.clone()?,
    );
    let grown = |name: &str| {
        after.get(name).copied().unwrap_or(0.0) - before.get(name).copied().unwrap_or(0.0)
    };
    let pair = |what: &str, metrics: &[&str], swarm: u64| Agreement {
        what: what.to_owned(),
        metric: metrics.join(" + "),
        server: metrics.iter().map(|name| grown(name)).sum(),
        swarm: swarm as f64,
    };
    // The server counts lines it hands to sockets; what a resume brings is part of an answer.
    let lines_delivered = deliveries
        .delivered
        .saturating_sub(deliveries.recovered + deliveries.events);
    let agreement = vec![
        pair(
            "connections made",
            &["danmaku_connections_accepted_total"],
            end.totals.connects,
        ),
        pair(
            "lines accepted",
            &["danmaku_lines_total", "danmaku_events_total"],
            end.totals.accepted,
        ),
        pair(
            "lines delivered",
            &["danmaku_deliveries_total"],
            lines_delivered,
        ),
    ];
    Some(MetricsView {
        before,
        during,
        after,
        agreement,
    })
}

fn promises(plan: &Plan, record: &Record, report: &Report, told_to_readers: u64) -> Vec<Promise> {
    let found = &report.deliveries;
    let mut promises = Vec::new();
    let mut promise = |what: &str, held: bool, detail: String| {
        promises.push(Promise {
            what: what.to_owned(),
            held,
            detail,
        });
    };
    let given_up = record.marks[4].totals.given_up;
    let (away, outside) = (record.notes.away, record.notes.outside);
    promise(
        "every client got in and into its room",
        record.ramp_done_us.is_some() && given_up + away + outside == 0,
        format!(
            "{} of {} wanted at the peak, {given_up} turned away for good; at the end {away} not connected, {outside} not in their room",
            report.connections.peak, report.connections.wanted
        ),
    );
    let closed = record.notes.readers_closed;
    promise(
        "who was in and read stayed in",
        closed == 0,
        format!("{closed} connections ended by the server or lost"),
    );
    promise(
        "every line reached every member once and in order, or the member was told",
        found.lost + found.duplicated + found.out_of_order + found.told_too_many == 0,
        format!(
            "{} expected = {} delivered + {} told + {} lost; {} twice, {} out of order, {} told too many",
            found.expected,
            found.delivered,
            found.told_dropped,
            found.lost,
            found.duplicated,
            found.out_of_order,
            found.told_too_many
        ),
    );
    let published = &report.published;
    let refused: u64 = published.refused.values().sum();
    promise(
        "every line that was due was accepted",
        refused + published.unanswered + published.unsent == 0,
        format!(
            "{} due, {} accepted, {refused} refused, {} unanswered, {} never sent",
            published.scheduled, published.accepted, published.unanswered, published.unsent
        ),
    );
    promise(
        "what arrived is what was sent",
        found.corrupted + found.memberships_unchecked == 0,
        format!(
            "{} memberships checked line by line, {} could not be; {} wrong",
            found.memberships_checked, found.memberships_unchecked, found.corrupted
        ),
    );
    promise(
        "the protocol was kept",
        found.faults.is_empty() && record.notes.ignored == 0,
        format!(
            "{} kinds of faults, {} lines never answered",
            found.faults.len(),
            record.notes.ignored
        ),
    );
    if plan.targets.len() > 1 {
        promise(
            "nodes were one, or their viewers were told",
            found.split == 0 && (found.apart == 0 || found.renumbered > 0),
            format!(
                "{} rooms with several numberings at the end; {} members told of a new one, {} lines said apart from a member",
                found.split, found.renumbered, found.apart
            ),
        );
    }
    if plan.viewers.iter().any(|viewer| !viewer.reads) {
        promise(
            "slow viewers cost the others nothing",
            told_to_readers == 0,
            format!("{told_to_readers} lines told as dropped to viewers that read"),
        );
        let deaf = &record.notes.deaf;
        let let_go = let_go_as_slow(record);
        promise(
            "who did not read was settled",
            deaf.wrongly + deaf.silent == 0 && deaf.closed + deaf.wordless <= let_go,
            format!(
                "{} answered at the end; {} ended as too slow and {} without a word, of {let_go} the server says it let go as too slow; {} ended otherwise, {} did not answer",
                deaf.answered, deaf.closed, deaf.wordless, deaf.wrongly, deaf.silent
            ),
        );
    }
    if let Some(metrics) = &report.metrics
        && served_nobody_else(metrics, &report.connections)
        && found.foreign == 0
        && ended_deaf(&record.notes.deaf) == 0
    {
        let apart = metrics.agreement.iter().filter(|pair| !agrees(pair));
        let apart: Vec<&str> = apart.map(|pair| pair.what.as_str()).collect();
        promise(
            "the server counts the same, within 5 %",
            apart.is_empty(),
            if apart.is_empty() {
                "it does".into()
            } else {
                apart.join(", ")
            },
        );
    }
    if let Some(error) = &record.metrics_error {
        promise("the server's metrics could be read", false, error.clone());
    }
    promises
}

/// Of those who did not read, those about whom the server's count and ours cannot agree: what it had handed over was never
/// read.
fn ended_deaf(deaf: &Deaf) -> u64 {
    deaf.closed + deaf.wordless + deaf.wrongly + deaf.silent
}

/// Viewers the server says it let go as too slow; without its metrics nobody knows, and none is taken for excused.
fn let_go_as_slow(record: &Record) -> u64 {
    let closed = |mark: &Mark| {
        let metrics = mark.metrics.as_ref()?;
        metrics.get(probe::CLOSED_AS_SLOW).copied()
    };
    let [begin, .., end] = &record.marks;
    match (closed(begin), closed(end)) {
        (before, Some(after)) => (after - before.unwrap_or(0.0)) as u64,
        _ => 0,
    }
}

/// Whether the server had no other clients, so that its counts are ours alone.
fn served_nobody_else(metrics: &MetricsView, ours: &Connections) -> bool {
    let connections = |page: &BTreeMap<String, f64>| page.get("danmaku_connections").copied();
    connections(&metrics.before).unwrap_or(0.0) == 0.0
        && connections(&metrics.after).unwrap_or(0.0) <= ours.at_end as f64
}

fn agrees(pair: &Agreement) -> bool {
    (pair.server - pair.swarm).abs() <= AGREEMENT * pair.swarm.max(1.0)
}

/// The books of a run, for settling.
fn books(plan: &Plan, notes: &mut Notes) -> Books {
    Books {
        accepted: std::mem::take(&mut notes.accepted),
        unsure: std::mem::take(&mut notes.unsure),
        memberships: std::mem::take(&mut notes.memberships),
        rooms: plan.rooms.iter().map(|room| room.id.clone()).collect(),
        nodes: plan.targets.len(),
    }
}

/// Drops told to viewers that read everything: in a run where others are slow they should have none.
fn told_to_readers(plan: &Plan, books: &Books) -> u64 {
    let reads: HashSet<u32> = (0..plan.viewers.len() as u32)
        .filter(|at| plan.viewers[*at as usize].reads)
        .collect();
    let readers = books
        .memberships
        .iter()
        .filter(|membership| reads.contains(&membership.viewer));
    readers.map(|membership| membership.tally.told).sum()
}
