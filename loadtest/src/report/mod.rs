//! What a run found: the values every output is made from.
//!
//! Plain data, filled by the main thread when a run ends. It is what `--json` writes and `--compare` reads back, so
//! fields may be added but not renamed; nothing here measures. A field that an older file lacks has its default.
//!
//! The outputs are beside it: [`table`] and [`html`] show one run ([`summary`] is what both say, [`plots`] and [`svg`]
//! the pictures), [`compare`] two, [`file`] writes and reads them, [`live`] is what a run shows while it goes on.

pub mod compare;
pub mod file;
pub mod html;
pub mod live;
pub mod plots;
mod rows;
pub mod summary;
pub mod svg;
pub mod table;
pub mod units;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Layout of the JSON file; grows when a field changes its meaning.
pub const FORMAT: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of the swarm.
    pub version: String,
    /// `idle`, `room`, `rooms`, `storm`, `slow`, `push` or `mixed`.
    pub scenario: String,
    /// Arguments as given, the program's name left out.
    pub arguments: Vec<String>,
    /// Where the swarm connected to, nodes apart by commas.
    pub url: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took, ramp and tail included.
    pub elapsed_s: f64,
    /// Whether it ran to its end.
    pub ended: Ended,
    /// Where it ran.
    pub machine: Machine,
    /// What was asked for, as name and value, in the words of the command line.
    pub settings: BTreeMap<String, String>,
    /// Connections.
    pub connections: Connections,
    /// Lines sent.
    pub published: Published,
    /// Lines received, and what was wrong with them.
    pub deliveries: Deliveries,
    /// From a line's scheduled time to each viewer that received it.
    pub latency: Latency,
    /// Of [`latency`](Self::latency), the lines that were said at the node they were heard at; `None` where there is one node.
    pub local_latency: Option<Latency>,
    /// Of it, those that were said at another node.
    pub across_latency: Option<Latency>,
    /// From a push's scheduled time to its HTTP answer, where lines went by HTTP.
    pub push_latency: Option<Latency>,
    /// From a client's scheduled arrival to its first message, over all connects.
    pub connect_latency: Latency,
    /// The server's process, where it could be read.
    pub server: Option<Usage>,
    /// The swarm itself.
    pub swarm: Usage,
    /// What the server's own metrics say of the same run, where they could be read.
    pub metrics: Option<MetricsView>,
    /// Parts of the run with figures of their own (a storm and what was before it).
    pub parts: Vec<Part>,
    /// New numberings that members were told of (`epoch`), by room and node; the first few thousand.
    pub numberings: Vec<Numbering>,
    /// Second by second.
    pub timeline: Vec<Second>,
    /// What had to hold, and whether it did.
    pub promises: Vec<Promise>,
}

impl Report {
    /// Whether the run went to its end and every promise held.
    pub fn held(&self) -> bool {
        self.ended == Ended::Completed && self.promises.iter().all(|promise| promise.held)
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// As planned.
    #[default]
    Completed,
    /// By Ctrl-C; the figures are of what was done until then.
    Interrupted,
    /// Could not go on; says why.
    Failed(String),
}

/// The machine of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Cores the swarm could use.
    pub cores: u32,
    /// Processor's name.
    pub processor: String,
    /// Kernel's name and release.
    pub kernel: String,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

/// Connections over the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Clients the plan has.
    pub wanted: u64,
    /// Upgrades that succeeded; a client that reconnects counts again.
    pub connected: u64,
    /// The most at one moment.
    pub peak: u64,
    /// Clients connected when the run ended.
    pub at_end: u64,
    /// Upgrades that succeeded, per second, from the first attempt until the ramp was over.
    pub per_s: f64,
    /// Seconds from the first attempt until all were connected for the first time.
    pub ramp_s: f64,
    /// Attempts refused, by code (`accept_rate`, `connections_full`, ...) or status (`status_503`).
    pub refused: BTreeMap<String, u64>,
    /// Attempts that failed otherwise, by cause (`reset`, `timeout`, ...).
    pub failed: BTreeMap<String, u64>,
    /// Connections that the server closed or lost, by close code (`1006` without one).
    pub closed: BTreeMap<String, u64>,
    /// Connections that the swarm cut on purpose.
    pub cut: u64,
    /// Reconnects that waited because the server asked for it.
    pub backed_off: u64,
}

/// Lines sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Published {
    /// Lines (and events) whose time had come.
    pub scheduled: u64,
    /// Accepted by the server: acked, or answered 200.
    pub accepted: u64,
    /// Refused by the server, by code.
    pub refused: BTreeMap<String, u64>,
    /// Neither: the connection went before the answer came.
    pub unanswered: u64,
    /// Due, but never sent: no speaker or publisher was free until the end.
    pub unsent: u64,
    /// Accepted per second, over the run.
    pub per_s: f64,
}

/// Lines received. `expected = delivered + told_dropped + lost`, if all is well with the rest at zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deliveries {
    /// Accepted lines times the members each was meant for.
    pub expected: u64,
    /// Received, each once.
    pub delivered: u64,
    /// Of those, events (gifts), received as they happened.
    pub events: u64,
    /// Of those, received in answer to a resume.
    pub recovered: u64,
    /// Not received, and the viewer was told so (`dropped`).
    pub told_dropped: u64,
    /// Not received and not told.
    pub lost: u64,
    /// Received more than once.
    pub duplicated: u64,
    /// Received after a later line.
    pub out_of_order: u64,
    /// Received with a content that was not sent under this number.
    pub corrupted: u64,
    /// Told as dropped but never missing.
    pub told_too_many: u64,
    /// Lines of others in the same rooms.
    pub foreign: u64,
    /// Members that were told of a new numbering, each time.
    pub renumbered: u64,
    /// Of several nodes: lines said in a numbering that a member had no part in, times the members that were there from the
    /// first line to the last. Not expected, not lost: nodes that cannot reach each other number by themselves.
    pub apart: u64,
    /// Of several nodes: rooms with more than one numbering at the end.
    pub split: u64,
    /// Memberships checked line by line.
    pub memberships_checked: u64,
    /// Memberships that could not be checked in full, because an answer to a publisher was lost or the room's numbering began
    /// anew (the gateway forgets an empty room).
    pub memberships_unchecked: u64,
    /// Wrong in another way (a frame that breaks the protocol, an unknown message), by what it was.
    pub faults: BTreeMap<String, u64>,
    /// Examples of what was wrong, a few, as sentences.
    pub examples: Vec<String>,
    /// Received per second, mean over the run's own phase (ramp and tail left out).
    pub per_s: f64,
    /// Received per second, the best second.
    pub per_s_peak: f64,
    /// Bytes received from the server.
    pub bytes: u64,
}

/// A latency distribution, microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Values counted.
    pub count: u64,
    /// Smallest.
    pub min_us: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: u64,
    /// 90 % are at most this.
    pub p90_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// Largest.
    pub max_us: u64,
    /// Points of the distribution for a plot: quantile (0..1) and microseconds, ascending, at most 100.
    pub curve: Vec<(f64, u64)>,
}

/// What a process used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// CPU seconds over the whole run.
    pub cpu_s: f64,
    /// CPU seconds of the run's own phase (ramp and tail left out).
    pub cpu_run_s: f64,
    /// CPU seconds of the ramp.
    pub cpu_ramp_s: f64,
    /// CPU seconds per million deliveries, over the run's own phase; `None` without deliveries.
    pub cpu_s_per_million: Option<f64>,
    /// CPU microseconds per connection made, over the ramp; `None` without connections.
    pub cpu_us_per_connection: Option<f64>,
    /// Resident bytes before the ramp.
    pub rss_before: u64,
    /// Resident bytes when the ramp was over.
    pub rss_connected: u64,
    /// The most resident bytes seen.
    pub rss_peak: u64,
    /// Resident bytes at the end.
    pub rss_after: u64,
    /// Resident bytes per connection after the ramp; `None` without connections.
    pub bytes_per_connection: Option<f64>,
}

/// The server's `/metrics`, differences over the run unless they are gauges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsView {
    /// Sums over labels, before.
    pub before: BTreeMap<String, f64>,
    /// When the run's own phase ended.
    pub during: BTreeMap<String, f64>,
    /// After.
    pub after: BTreeMap<String, f64>,
    /// What the swarm and the server count alike.
    pub agreement: Vec<Agreement>,
}

/// One thing counted on both sides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agreement {
    /// What.
    pub what: String,
    /// The metric's name.
    pub metric: String,
    /// The server's count.
    pub server: f64,
    /// The swarm's count.
    pub swarm: f64,
}

/// A part of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// `before`, `storm`, `cut 1`, ...
    pub name: String,
    /// Begin, seconds since the swarm began.
    pub begins_s: f64,
    /// End.
    pub ends_s: f64,
    /// Upgrades that succeeded.
    pub connects: u64,
    /// Lines received.
    pub deliveries: u64,
    /// From a line's scheduled time to each viewer that received it.
    pub latency: Latency,
    /// Of it, lines that were said at the node they were heard at; `None` where there is one node.
    pub local_latency: Option<Latency>,
    /// Of it, those that were said at another node.
    pub across_latency: Option<Latency>,
    /// From a client's scheduled arrival to its first message.
    pub connect_latency: Latency,
    /// The server's CPU seconds.
    pub server_cpu_s: f64,
    /// The swarm's CPU seconds.
    pub swarm_cpu_s: f64,
}

/// A new numbering, told to the members of one room at one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Numbering {
    /// The room.
    pub room: String,
    /// The node, by its place among the URLs, from 0.
    pub node: u16,
    /// The numbering.
    pub epoch: u64,
    /// When the first of them heard it, seconds since the swarm began.
    pub from_s: f64,
    /// When the last of them did.
    pub to_s: f64,
    /// How many.
    pub members: u64,
}

/// One second of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// Seconds since the run began.
    pub at_s: f64,
    /// `ramp`, `run` or `tail`.
    pub phase: String,
    /// Connected now.
    pub connected: u64,
    /// Upgrades that succeeded in this second.
    pub connects: u64,
    /// Attempts refused in this second.
    pub refused: u64,
    /// Lines accepted in this second.
    pub published: u64,
    /// Lines received in this second.
    pub deliveries: u64,
    /// Median latency of this second, microseconds; 0 without deliveries.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Largest.
    pub max_us: u64,
    /// The server's CPU, in cores.
    pub server_cpu: f64,
    /// The server's resident bytes.
    pub server_rss: u64,
    /// The swarm's CPU, in cores.
    pub swarm_cpu: f64,
    /// The swarm's resident bytes.
    pub swarm_rss: u64,
}

/// Something that had to hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Promise {
    /// What, as a sentence: "every line once, in order".
    pub what: String,
    /// Whether it held.
    pub held: bool,
    /// The figures behind it.
    pub detail: String,
}
