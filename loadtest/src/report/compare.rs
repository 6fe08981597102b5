//! Two runs side by side: what changed, by how much, and whether that is more than noise.
//!
//! Pure functions over two [`Report`]s. A figure that one side lacks has no ratio and no verdict; nothing divides by
//! zero.

use self::Wanted::{Less, More, Neither};
use super::summary::{Row, Section, Tone, sum};
use super::table::Page;
use super::units::{self, NO_VALUE, Unit};
use super::{Ended, Latency, Report, Usage};

/// Settings that change what is written, not what is measured.
const OUTPUT_SETTINGS: &[&str] = &[
    "json", "html", "compare", "quiet", "plain", "colour", "color",
];
/// Memory of two machines is the same up to this part of it: kernels reserve a little more or less.
const SAME_MEMORY: f64 = 0.03;

/// An older and a newer run.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// When the older one began, milliseconds since 1970; 0 if it is not known.
    pub old_started_ms: u64,
    /// Why the two may not compare, as sentences; empty if they ran alike.
    pub differs: Vec<String>,
    /// Every figure that at least one of them has.
    pub rows: Vec<Compared>,
}

/// One figure of both.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// What it is of.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Of the older run.
    pub old: Option<f64>,
    /// Of the newer run.
    pub new: Option<f64>,
    /// New by old; `None` if a side is missing or the old one is zero.
    pub ratio: Option<f64>,
    /// What to think of it.
    pub change: Change,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Beyond noise, and wanted.
    Better,
    /// Beyond noise, and not wanted.
    Worse,
    /// Within noise.
    Same,
    /// Nobody can say: a side is missing, or more is neither good nor bad.
    Unjudged,
}

/// Compares `new` with `old`.
pub fn compare(new: &Report, old: &Report) -> Comparison {
    let rows = FIGURES
        .iter()
        .filter_map(|figure| figure.compared(new, old));
    Comparison {
        old_started_ms: old.started_ms,
        differs: differences(new, old),
        rows: rows.collect(),
    }
}

impl Comparison {
    /// How many figures are worse beyond noise.
    pub fn worse(&self) -> usize {
        self.rows
            .iter()
            .filter(|row| row.change == Change::Worse)
            .count()
    }

    /// How many figures are better beyond noise.
    pub fn better(&self) -> usize {
        self.rows
            .iter()
            .filter(|row| row.change == Change::Better)
            .count()
    }

    /// The comparison for a terminal `width` columns wide, in ANSI colours if `colour`; ends with a line break.
    pub fn text(&self, width: usize, colour: bool) -> String {
        let mut page = Page::new(width, colour);
        if let Some(section) = self.section() {
            page.section(&section);
        }
        page.sentence(&self.outcome(), 2);
        for sentence in &self.differs {
            page.sentence(sentence, 2);
        }
        page.text
    }

    /// The rows as a table; `None` if the runs share no figure.
    pub fn section(&self) -> Option<Section> {
        let show = |unit: Unit, value: Option<f64>| match value {
            Some(value) => unit.show(value),
            None => NO_VALUE.to_string(),
        };
        let rows: Vec<Row> = self
            .rows
            .iter()
            .map(|row| {
                let (word, tone) = match row.change {
                    Change::Better => ("better", Tone::Good),
                    Change::Worse => ("worse", Tone::Bad),
                    Change::Same => ("same", Tone::Plain),
                    Change::Unjudged => ("", Tone::Plain),
                };
                let ratio = row.ratio.map_or(String::new(), shown_ratio);
                let cells = vec![
                    show(row.unit, row.old),
                    show(row.unit, row.new),
                    ratio,
                    word.to_string(),
                ];
                Row {
                    name: row.name.to_string(),
                    cells,
                    note: String::new(),
                    tone,
                }
            })
            .collect();
        let columns = vec!["old", "new", "new/old", ""];
        (!rows.is_empty()).then_some(Section {
            title: "comparison",
            columns,
            rows,
        })
    }

    /// Everything in one sentence.
    pub fn outcome(&self) -> String {
        let with = match self.old_started_ms {
            0 => "compared with an older run".to_string(),
            began => format!("compared with the run of {}", units::utc(began)),
        };
        if self.rows.is_empty() {
            return format!("{with}: no figure to compare");
        }
        let same = self
            .rows
            .iter()
            .filter(|row| row.change == Change::Same)
            .count();
        format!(
            "{with}: {} better, {} worse, {same} the same within noise",
            self.better(),
            self.worse()
        )
    }
}

/// A ratio as a factor; far from one it is rounded more.
fn shown_ratio(ratio: f64) -> String {
    if (0.1..100.0).contains(&ratio) {
        format!("{ratio:.2}x")
    } else {
        format!("{}x", units::short(ratio))
    }
}

/// Which way is good.
#[derive(Clone, Copy)]
enum Wanted {
    More,
    Less,
    Neither,
}

/// How a figure is read from a report, and how much it moves from run to run of the same thing.
struct Figure {
    name: &'static str,
    unit: Unit,
    wanted: Wanted,
    /// Differences up to this part of the old value are noise.
    noise: f64,
    /// And differences up to this, in the unit's own measure.
    floor: f64,
    read: fn(&Report) -> Option<f64>,
}

impl Figure {
    fn compared(&self, new: &Report, old: &Report) -> Option<Compared> {
        let read = |report| (self.read)(report).filter(|value| value.is_finite());
        let (old, new) = (read(old), read(new));
        let ratio = match (old, new) {
            (None, None) => return None,
            (Some(old), Some(new)) => {
                Some(new / old).filter(|ratio| old != 0.0 && ratio.is_finite())
            }
            _ => None,
        };
        let change = match (old, new) {
            (Some(old), Some(new)) => self.judge(old, new),
            _ => Change::Unjudged,
        };
        Some(Compared {
            name: self.name,
            unit: self.unit,
            old,
            new,
            ratio,
            change,
        })
    }

    fn judge(&self, old: f64, new: f64) -> Change {
        let more = match self.wanted {
            Wanted::More => Change::Better,
            Wanted::Less => Change::Worse,
            Wanted::Neither => return Change::Unjudged,
        };
        let difference = new - old;
        if difference.abs() <= (self.noise * old.abs()).max(self.floor) {
            Change::Same
        } else if difference > 0.0 {
            more
        } else if more == Change::Better {
            Change::Worse
        } else {
            Change::Better
        }
    }
}

/// Everything compared, in the order it is shown. How far apart two figures count as the same is a judgement: tails move
/// more from run to run than medians.
const FIGURES: &[Figure] = &[
    figure(
        "most connected at once",
        Unit::Count,
        Neither,
        0.0,
        0.0,
        |r| above(r.connections.peak),
    ),
    figure("connects", Unit::Rate, More, 0.10, 1.0, |r| {
        positive(r.connections.per_s)
    }),
    figure("connects refused", Unit::Count, Neither, 0.0, 0.0, |r| {
        above(sum(&r.connections.refused))
    }),
    figure("connects failed", Unit::Count, Less, 0.0, 0.0, |r| {
        beside(r, sum(&r.connections.failed))
    }),
    figure("lines accepted", Unit::Rate, More, 0.05, 0.5, |r| {
        positive(r.published.per_s)
    }),
    figure("deliveries", Unit::Rate, More, 0.05, 1.0, |r| {
        positive(r.deliveries.per_s)
    }),
    figure(
        "deliveries, best second",
        Unit::Rate,
        More,
        0.10,
        1.0,
        |r| positive(r.deliveries.per_s_peak),
    ),
    figure("told as dropped", Unit::Share, Less, 0.05, 0.001, |r| {
        expected(r, r.deliveries.told_dropped)
    }),
    figure("lost", Unit::Count, Less, 0.0, 0.0, |r| {
        counted(r, r.deliveries.lost)
    }),
    figure("duplicates", Unit::Count, Less, 0.0, 0.0, |r| {
        counted(r, r.deliveries.duplicated)
    }),
    figure("out of order", Unit::Count, Less, 0.0, 0.0, |r| {
        counted(r, r.deliveries.out_of_order)
    }),
    figure("corrupted", Unit::Count, Less, 0.0, 0.0, |r| {
        counted(r, r.deliveries.corrupted)
    }),
    figure("other faults", Unit::Count, Less, 0.0, 0.0, |r| {
        let faults = sum(&r.deliveries.faults).saturating_add(r.deliveries.told_too_many);
        counted(r, faults)
    }),
    figure("latency p50", Unit::Micros, Less, 0.10, 100.0, |r| {
        us(&r.latency, r.latency.p50_us)
    }),
    figure("latency p90", Unit::Micros, Less, 0.10, 100.0, |r| {
        us(&r.latency, r.latency.p90_us)
    }),
    figure("latency p99", Unit::Micros, Less, 0.15, 200.0, |r| {
        us(&r.latency, r.latency.p99_us)
    }),
    figure("latency p99.9", Unit::Micros, Less, 0.25, 500.0, |r| {
        us(&r.latency, r.latency.p999_us)
    }),
    figure("latency max", Unit::Micros, Less, 0.50, 1000.0, |r| {
        us(&r.latency, r.latency.max_us)
    }),
    figure("push p50", Unit::Micros, Less, 0.10, 100.0, |r| {
        push(r, |latency| latency.p50_us)
    }),
    figure("push p99", Unit::Micros, Less, 0.15, 200.0, |r| {
        push(r, |latency| latency.p99_us)
    }),
    figure("connect p50", Unit::Micros, Less, 0.10, 200.0, |r| {
        us(&r.connect_latency, r.connect_latency.p50_us)
    }),
    figure("connect p99", Unit::Micros, Less, 0.20, 1000.0, |r| {
        us(&r.connect_latency, r.connect_latency.p99_us)
    }),
    figure(
        "server CPU per million",
        Unit::Seconds,
        Less,
        0.05,
        0.02,
        |r| server(r)?.cpu_s_per_million,
    ),
    figure(
        "server CPU per connect",
        Unit::Micros,
        Less,
        0.10,
        1.0,
        |r| server(r)?.cpu_us_per_connection,
    ),
    figure(
        "server per connection",
        Unit::Bytes,
        Less,
        0.03,
        16.0,
        |r| server(r)?.bytes_per_connection,
    ),
    figure(
        "server resident at most",
        Unit::Bytes,
        Less,
        0.05,
        1_048_576.0,
        |r| above(server(r)?.rss_peak),
    ),
    figure(
        "swarm CPU per million",
        Unit::Seconds,
        Less,
        0.05,
        0.02,
        |r| r.swarm.cpu_s_per_million,
    ),
    figure("swarm per connection", Unit::Bytes, Less, 0.03, 16.0, |r| {
        r.swarm.bytes_per_connection
    }),
];

const fn figure(
    name: &'static str,
    unit: Unit,
    wanted: Wanted,
    noise: f64,
    floor: f64,
    read: fn(&Report) -> Option<f64>,
) -> Figure {
    Figure {
        name,
        unit,
        wanted,
        noise,
        floor,
        read,
    }
}

fn positive(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

fn above(count: u64) -> Option<f64> {
    (count > 0).then_some(count as f64)
}

/// A count that is a finding even at zero, in a run that connected at all.
fn beside(report: &Report, count: u64) -> Option<f64> {
    (report.connections.wanted > 0 || count > 0).then_some(count as f64)
}

/// A fault's count: zero is a finding where lines were expected.
fn counted(report: &Report, count: u64) -> Option<f64> {
    (report.deliveries.expected > 0 || count > 0).then_some(count as f64)
}

fn expected(report: &Report, part: u64) -> Option<f64> {
    let whole = report.deliveries.expected;
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn us(latency: &Latency, us: u64) -> Option<f64> {
    (latency.count > 0).then_some(us as f64)
}

fn push(report: &Report, read: fn(&Latency) -> u64) -> Option<f64> {
    let latency = report.push_latency.as_ref()?;
    us(latency, read(latency))
}

fn server(report: &Report) -> Option<&Usage> {
    report.server.as_ref()
}

/// Why the two may not compare, old before new.
fn differences(new: &Report, old: &Report) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut settings = Vec::new();
    if new.scenario != old.scenario {
        settings.push(versus("scenario", &old.scenario, &new.scenario));
    }
    let names = old.settings.keys().chain(
        new.settings
            .keys()
            .filter(|name| !old.settings.contains_key(*name)),
    );
    for name in names.filter(|name| !OUTPUT_SETTINGS.contains(&name.as_str())) {
        let (before, now) = (old.settings.get(name), new.settings.get(name));
        let said = |value: Option<&String>| {
            value.map_or("not set".to_string(), |value| without_port(value))
        };
        if said(before) != said(now) {
            settings.push(versus(name, &said(before), &said(now)));
        }
    }
    if without_port(&old.url) != without_port(&new.url) {
        settings.push(versus("url", &old.url, &new.url));
    }
    if !settings.is_empty() {
        sentences.push(format!(
            "not the same settings (old vs new): {}",
            settings.join(", ")
        ));
    }
    let machine = machine_differences(new, old);
    if !machine.is_empty() {
        sentences.push(format!(
            "not the same machine (old vs new): {}",
            machine.join(", ")
        ));
    }
    if old.version != new.version {
        sentences.push(format!(
            "not the same swarm: {}",
            versus("version", &old.version, &new.version)
        ));
    }
    for (which, report) in [("older", old), ("newer", new)] {
        match &report.ended {
            Ended::Completed => {}
            Ended::Interrupted => sentences.push(format!("the {which} run was interrupted")),
            Ended::Failed(why) => sentences.push(format!("the {which} run failed: {why}")),
        }
        let broken = report
            .promises
            .iter()
            .filter(|promise| !promise.held)
            .count();
        if broken > 0 {
            sentences.push(format!(
                "the {which} run broke {broken} of {} promises",
                report.promises.len()
            ));
        }
    }
    sentences
}

fn machine_differences(new: &Report, old: &Report) -> Vec<String> {
    let (before, now) = (&old.machine, &new.machine);
    let mut found = Vec::new();
    if before.cores != now.cores {
        found.push(versus(
            "cores",
            &before.cores.to_string(),
            &now.cores.to_string(),
        ));
    }
    if before.processor != now.processor {
        found.push(versus("processor", &before.processor, &now.processor));
    }
    if before.kernel != now.kernel {
        found.push(versus("kernel", &before.kernel, &now.kernel));
    }
    let (least, most) = (
        before.memory_bytes.min(now.memory_bytes) as f64,
        before.memory_bytes.max(now.memory_bytes) as f64,
    );
    if least < most * (1.0 - SAME_MEMORY) {
        let shown = |bytes: u64| units::bytes(bytes as f64);
        found.push(versus(
            "memory",
            &shown(before.memory_bytes),
            &shown(now.memory_bytes),
        ));
    }
    found
}

fn versus(name: &str, old: &str, new: &str) -> String {
    let said = |value: &str| {
        if value.is_empty() {
            "unknown".to_string()
        } else {
            value.to_string()
        }
    };
    format!("{name} {} vs {}", said(old), said(new))
}

/// A loopback address without its port: a gateway that the swarm starts itself takes another one every time.
fn without_port(text: &str) -> String {
    for host in ["127.0.0.1:", "localhost:", "[::1]:"] {
        if let Some((before, after)) = text.split_once(host) {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            return format!("{before}{}{rest}", host.trim_end_matches(':'));
        }
    }
    text.to_string()
}
