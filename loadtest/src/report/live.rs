//! What a run shows while it goes on. Values, made by the main thread a few times a second.

use std::time::Duration;

/// What the run is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Viewers arrive.
    #[default]
    Ramp,
    /// Lines are spoken.
    Run,
    /// What is under way still arrives.
    Tail,
}

/// A moment of the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// Phase.
    pub phase: Phase,
    /// Since the phase began.
    pub at: Duration,
    /// How long the phase is to take, where that is known.
    pub planned: Option<Duration>,
    /// Clients the ramp has.
    pub wanted: u64,
    /// Clients connected now.
    pub connected: u64,
    /// Upgrades that succeeded in the last second.
    pub connects_per_s: f64,
    /// Attempts refused so far.
    pub refused: u64,
    /// Lines accepted in the last second.
    pub published_per_s: f64,
    /// Lines received in the last second.
    pub deliveries_per_s: f64,
    /// Median latency of the last second, microseconds.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Gaps, duplicates, lines out of order and broken frames so far.
    pub faults: u64,
    /// The server's CPU, in cores.
    pub server_cpu: f64,
    /// The server's resident bytes.
    pub server_rss_bytes: u64,
}
