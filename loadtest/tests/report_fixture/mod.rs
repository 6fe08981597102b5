//! Reports to test the outputs with: a whole run as it could have been, and one whose every string is hostile.

use std::collections::BTreeMap;

use danmaku_swarm::report::{
    Agreement, Connections, Deliveries, Ended, FORMAT, Latency, Machine, MetricsView, Promise,
    Published, Report, Second, Usage,
};

/// Markup, a way out of an attribute, an escape sequence, a turned direction of writing, no blank for 90 columns.
pub const HOSTILE: &str = "</style><script>alert(1)</script>\"' onload=x & \u{1b}[2J\u{202e}]]>\
                           xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// A run of a room with `viewers` for a minute: 4 s of ramp, 60 of run, 3 of tail. `slowness` stretches latencies and
/// costs: 1.0 for the run that the assertions are about.
pub fn room(viewers: u64, slowness: f64) -> Report {
    let lines = 6_000;
    let expected = lines * viewers;
    let us = |us: f64| (us * slowness) as u64;
    Report {
        format: FORMAT,
        version: "0.1.0".to_string(),
        scenario: "room".to_string(),
        arguments: ["room", "--viewers", "10000", "--spawn"]
            .map(str::to_string)
            .to_vec(),
        url: "ws://127.0.0.1:41234/ws".to_string(),
        started_ms: 1_795_390_650_000,
        elapsed_s: 67.0,
        ended: Ended::Completed,
        machine: Machine {
            cores: 2,
            processor: "Example Processor 9000".to_string(),
            kernel: "Linux 6.18.0".to_string(),
            memory_bytes: 24 << 30,
        },
        settings: counts(&[("viewers", viewers), ("rate", 100)])
            .into_iter()
            .map(|(name, count)| (name, count.to_string()))
            .collect(),
        connections: Connections {
            wanted: viewers,
            connected: viewers + 12,
            peak: viewers,
            at_end: viewers - 2,
            per_s: rounded(viewers as f64 / 3.8),
            ramp_s: 3.8,
            refused: counts(&[("accept_rate", 1_200), ("connections_full", 34)]),
            failed: BTreeMap::new(),
            closed: counts(&[("1006", 2), ("4413", 10)]),
            cut: 0,
            backed_off: 1_234,
        },
        published: Published {
            scheduled: lines,
            accepted: lines,
            per_s: 100.0,
            ..Published::default()
        },
        deliveries: Deliveries {
            expected,
            delivered: expected - 1_500,
            told_dropped: 1_500,
            memberships_checked: viewers,
            per_s: rounded(expected as f64 / 60.0),
            per_s_peak: rounded(expected as f64 / 52.0),
            bytes: expected * 131,
            ..Deliveries::default()
        },
        latency: latency(expected, us(31_000.0)),
        local_latency: None,
        across_latency: None,
        numberings: Vec::new(),
        push_latency: Some(latency(lines, us(420.0))),
        connect_latency: latency(viewers, us(2_600.0)),
        server: Some(usage(viewers, rounded(6.72 * slowness), 380.0)),
        swarm: usage(viewers, 3.10, 512.0),
        metrics: Some(MetricsView {
            agreement: vec![
                agreement(
                    "deliveries",
                    "danmaku_delivered_total",
                    expected as f64,
                    expected as f64 - 1_500.0,
                ),
                agreement(
                    "connections",
                    "danmaku_connections",
                    viewers as f64,
                    viewers as f64 * 0.9,
                ),
            ],
            ..MetricsView::default()
        }),
        parts: Vec::new(),
        timeline: timeline(viewers, slowness),
        promises: vec![
            promise(
                "every line once, in order",
                true,
                "0 lost, 0 duplicates, 0 out of order",
            ),
            promise(
                "the swarm costs less than the gateway",
                true,
                "3.10 s against 6.72 s per million",
            ),
        ],
    }
}

/// The same run against a server that lost and doubled lines.
pub fn broken() -> Report {
    let mut report = room(10_000, 1.0);
    report.deliveries.lost = 1_234;
    report.deliveries.duplicated = 3;
    report.deliveries.faults = counts(&[("unmasked_frame", 2)]);
    report.deliveries.examples = vec!["viewer 17 in room 1001: 41 came after 43".to_string()];
    report.promises[0] = promise(
        "every line once, in order",
        false,
        "1,234 lost, 3 duplicates",
    );
    report
}

/// A run in which whatever a server or a command line can put into a string is [`HOSTILE`].
pub fn hostile() -> Report {
    let mut report = room(1_000, 1.0);
    let text = || HOSTILE.to_string();
    report.version = text();
    report.scenario = text();
    report.arguments = vec![text(), text()];
    report.url = text();
    report.ended = Ended::Failed(text());
    report.machine.processor = text();
    report.machine.kernel = text();
    report.settings.insert(text(), text());
    for names in [
        &mut report.connections.refused,
        &mut report.connections.failed,
        &mut report.connections.closed,
        &mut report.published.refused,
        &mut report.deliveries.faults,
    ] {
        names.insert(text(), 7);
    }
    report.deliveries.examples.push(text());
    let metrics = report.metrics.as_mut().unwrap();
    metrics
        .agreement
        .push(agreement(HOSTILE, HOSTILE, 1.0, 2.0));
    report.timeline[3].phase = text();
    report.promises.push(promise(HOSTILE, false, HOSTILE));
    report
}

/// Counts by name.
pub fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|(name, count)| (name.to_string(), *count))
        .collect()
}

/// To as many digits as JSON surely gives back.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn latency(count: u64, median_us: u64) -> Latency {
    let at = |q: f64| {
        let nines = -(1.0 - q).log10();
        (median_us as f64 * (0.25 + 0.75 * (nines / 2f64.log10()).powf(0.85))) as u64
    };
    let quantiles = (0..80).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 16.0));
    let mut curve: Vec<(f64, u64)> = quantiles.map(|q| (rounded(q), at(q))).collect();
    let max_us = at(0.999_999);
    curve.push((1.0, max_us));
    Latency {
        count,
        min_us: at(0.0),
        mean_us: rounded(median_us as f64 * 1.1),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us,
        curve,
    }
}

fn usage(viewers: u64, cpu_s_per_million: f64, per_connection: f64) -> Usage {
    let grown = (viewers as f64 * per_connection) as u64;
    Usage {
        cpu_s: rounded(cpu_s_per_million * 61.0),
        cpu_run_s: rounded(cpu_s_per_million * 60.0),
        cpu_ramp_s: 0.21,
        cpu_s_per_million: Some(cpu_s_per_million),
        cpu_us_per_connection: Some(21.0),
        rss_before: 9 << 20,
        rss_connected: (9 << 20) + grown,
        rss_peak: (14 << 20) + grown,
        rss_after: (12 << 20) + grown,
        bytes_per_connection: Some(per_connection),
    }
}

fn timeline(viewers: u64, slowness: f64) -> Vec<Second> {
    let second = |at: u32| {
        let wave = (f64::from(at) * 0.35).sin();
        let (phase, ramped) = match at {
            0..=4 => ("ramp", f64::from(at) / 4.0),
            5..=64 => ("run", 1.0),
            _ => ("tail", 1.0),
        };
        let published = if phase == "run" {
            (100.0 + 6.0 * wave) as u64
        } else {
            0
        };
        let deliveries = if at == 65 {
            viewers
        } else {
            published * viewers
        };
        let us = |median: f64| {
            if deliveries > 0 {
                (median * slowness * (1.0 + 0.2 * wave)) as u64
            } else {
                0
            }
        };
        Second {
            at_s: f64::from(at),
            phase: phase.to_string(),
            connected: (viewers as f64 * ramped) as u64,
            connects: if (1..=4).contains(&at) {
                viewers / 4
            } else {
                0
            },
            refused: if (2..=3).contains(&at) { 600 } else { 0 },
            published,
            deliveries,
            p50_us: us(31_000.0),
            p99_us: us(if at == 40 { 290_000.0 } else { 82_000.0 }),
            max_us: us(400_000.0),
            server_cpu: if deliveries > 0 {
                rounded(0.93 + 0.05 * wave)
            } else {
                0.12
            },
            server_rss: (9 << 20)
                + (viewers as f64 * ramped * 380.0) as u64
                + if at > 4 { 3 << 20 } else { 0 },
            swarm_cpu: if deliveries > 0 {
                rounded(0.44 + 0.03 * wave)
            } else {
                0.2
            },
            swarm_rss: (8 << 20) + (viewers as f64 * ramped * 512.0) as u64,
        }
    };
    (0..=67).map(second).collect()
}

fn agreement(what: &str, metric: &str, server: f64, swarm: f64) -> Agreement {
    Agreement {
        what: what.to_string(),
        metric: metric.to_string(),
        server,
        swarm,
    }
}

fn promise(what: &str, held: bool, detail: &str) -> Promise {
    Promise {
        what: what.to_string(),
        held,
        detail: detail.to_string(),
    }
}
