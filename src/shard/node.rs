//! What all shards of a process share: admission gates, metric blocks, facts. Atomics and read-only values; no shard
//! waits for another here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::clock::Clock;
use crate::config::checked::FdTables;
use crate::sync::addresses::Addresses;
use crate::sync::gate::{Gate, RateGate};
use crate::telemetry::block::Block;
use crate::telemetry::log::LogHandle;
use crate::telemetry::process::ProcessStats;
use crate::telemetry::render::{NodeStats, View};

/// The process, as its shards see it.
#[derive(Debug)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// One origin for every shard's clock.
    pub clock: Clock,
    /// Milliseconds since 1970 at which it started.
    pub started_ms: u64,
    /// `admission.connections_max`: viewers and viewers to be.
    pub connections: Arc<Gate>,
    /// `admission.handshakes_max`.
    pub handshakes: Arc<Gate>,
    /// `admission.accepts_per_s`.
    pub accept_rate: RateGate,
    /// `admission.per_address_max`.
    pub addresses: Arc<Addresses>,
    /// Metric blocks by shard.
    pub blocks: Vec<Arc<Block>>,
    /// Monotonic ms of each shard's last turn: `/readyz` tells when one hangs.
    pub turned_ms: Vec<AtomicU64>,
    /// SIGTERM came.
    pub draining: AtomicBool,
    /// Whether each shard has its own descriptor table.
    pub fd_tables: FdTables,
    /// Sockets each shard may hold.
    pub sockets_max: usize,
    /// The log, for its lost lines.
    pub log: LogHandle,
}

/// A shard that has not turned for this long hangs. It turns at least once a second when idle.
const HANG_MS: u64 = 5_000;

impl Node {
    /// Why the node should get no new traffic now; `None` when it is ready.
    pub fn unready(&self) -> Option<&'static str> {
        let now_ms = self.clock.mono_ns() / 1_000_000;
        let hangs = |turned: &AtomicU64| turned.load(Ordering::Relaxed) + HANG_MS < now_ms;
        if self.draining.load(Ordering::Relaxed) {
            Some("draining")
        } else if self.turned_ms.iter().any(hangs) {
            Some("a shard hangs")
        } else if self.connections.in_use() >= self.connections.max() {
            Some("connections_full")
        } else {
            None
        }
    }

    /// What `/metrics` shows.
    pub fn view(&self, process: ProcessStats) -> View<'_> {
        View {
            blocks: &self.blocks,
            node: NodeStats {
                connection_permits_in_use: self.connections.in_use() as u64,
                connection_permits_max: self.connections.max() as u64,
                handshake_permits_in_use: self.handshakes.in_use() as u64,
                handshake_permits_max: self.handshakes.max() as u64,
                fd_tables: match self.fd_tables {
                    FdTables::PerShard => self.blocks.len() as u64,
                    FdTables::Shared => 1,
                },
                ready: self.unready().is_none(),
                draining: self.draining.load(Ordering::Relaxed),
                start_unix_ms: self.started_ms,
                log_lines_dropped: self.log.dropped(),
                version: env!("CARGO_PKG_VERSION"),
                revision: "",
            },
            process,
        }
    }
}
