//! What the main thread writes down while a run goes on: plain values, made by `run` and turned into a report by `tell`.

use std::collections::BTreeMap;

use crate::meter::Sample;
use crate::probe::Used;
use crate::report::Ended;
use crate::report::live::Phase as Shown;
use crate::thread::Notes;

/// Sums over all client threads at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub connected: u64,
    pub connects: u64,
    pub given_up: u64,
    pub refused: u64,
    pub accepted: u64,
    pub pending: u64,
    pub behind: u64,
    pub deliveries: u64,
    pub bytes: u64,
    pub faults: u64,
}

/// Everything known at a boundary between phases.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    pub at_us: u64,
    pub totals: Totals,
    pub server: Option<Used>,
    pub swarm: Used,
    pub metrics: Option<BTreeMap<String, f64>>,
}

/// One second, as written down: of its distributions only what a timeline shows, since a run may be long.
#[derive(Clone, Debug)]
pub struct Moment {
    pub mark: Mark,
    pub phase: Shown,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// What the main thread wrote down; [`tell`] makes the report of it.
pub struct Record {
    pub marks: [Mark; 5],
    pub run_begins_us: u64,
    pub ramp_done_us: Option<u64>,
    pub moments: Vec<Moment>,
    /// Distributions of the whole run.
    pub all: Sample,
    /// Those of the plan's parts, in its order.
    pub parts: Vec<Sample>,
    pub peak: u64,
    pub rss_peak: (u64, u64),
    pub notes: Notes,
    pub ended: Ended,
    pub metrics_error: Option<String>,
}
