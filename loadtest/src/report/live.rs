//! What a run shows while it goes on: one reading, made about five times a second.
//!
//! Plain data, filled by the thread that watches the clients and handed to whatever draws it; nothing here measures
//! or draws.

use std::time::Duration;

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Clients connect.
    #[default]
    Ramp,
    /// What the scenario measures.
    Run,
    /// Nothing new is sent; what is on its way is waited for.
    Tail,
}

/// One reading of a run under way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// Where it stands.
    pub phase: Phase,
    /// Since this phase began.
    pub at: Duration,
    /// In the run: how long until its first line is due, which is within half a second of its begin.
    pub begins_in: Option<Duration>,
    /// How long this phase is to take, where that is known.
    pub planned: Option<Duration>,
    /// Clients the plan has; 0 if it has none.
    pub wanted: u64,
    /// Clients connected now.
    pub connected: u64,
    /// Upgrades that succeeded in the last second.
    pub connects_per_s: f64,
    /// Attempts refused or failed since the run began.
    pub refused: u64,
    /// Lines accepted in the last second.
    pub published_per_s: f64,
    /// Lines received in the last second.
    pub deliveries_per_s: f64,
    /// Median latency of the last second, microseconds; 0 without deliveries.
    pub p50_us: u64,
    /// 99th percentile of the last second, microseconds; 0 without deliveries.
    pub p99_us: u64,
    /// Lines lost, doubled, out of order or corrupted, and protocol faults, since the run began.
    pub faults: u64,
    /// The server's CPU over the last second, in cores, where it can be read.
    pub server_cpu: Option<f64>,
    /// The server's resident bytes, where they can be read.
    pub server_rss_bytes: Option<u64>,
}
