//! What all shards of a process share: admission gates, metric blocks, facts. Atomics and read-only values; no shard
//! waits for another here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::base::clock::Clock;
use crate::base::pressure::{Level, Pressure, WHOLE};
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Brief, Peer};
use crate::config::checked::FdTables;
use crate::proto::node::about::About;
use crate::sync::addresses::Addresses;
use crate::sync::gate::{Gate, RateGate};
use crate::sync::latest::Latest;
use crate::telemetry::block::{Block, gauge_sum};
use crate::telemetry::log::LogHandle;
use crate::telemetry::process::ProcessStats;
use crate::telemetry::redis::RedisStats;
use crate::telemetry::render::{NodeStats, View};
use crate::telemetry::sink::SinkStats;
use crate::telemetry::table::Gauge;

/// The process, as its shards see it.
#[derive(Debug)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// Where viewers reach it.
    pub address: String,
    /// `server.region`.
    pub region: String,
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
    /// What each shard says of its pressure.
    pub pressures: Vec<Said>,
    /// Memory the process may have as far as the system tells, bytes; 0 = unknown.
    pub memory_max: u64,
    /// Memory of the process, in thousandths of what it may have.
    pub memory: AtomicU64,
    /// SIGTERM came.
    pub draining: AtomicBool,
    /// Whether each shard has its own descriptor table.
    pub fd_tables: FdTables,
    /// Sockets each shard may hold.
    pub sockets_max: usize,
    /// The log, for its lost lines.
    pub log: LogHandle,
    /// What the bridge tells, where there is one.
    pub redis: Option<Arc<RedisStats>>,
    /// What the event pipeline to Redis tells, ...
    pub stream: Arc<SinkStats>,
    /// ... and that to Kafka.
    pub kafka: Arc<SinkStats>,
    /// The nodes there are, as the bridge has last heard of them.
    pub peers: Arc<Latest<Vec<Peer>>>,
    /// The first of the cluster's rooms, as the bridge has last read them.
    pub listed: Arc<Latest<Vec<Brief>>>,
}

/// Why the node should get no new traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// It is being emptied.
    Draining,
    /// A shard does not turn.
    Hangs,
    /// It gives up at least new anonymous viewers.
    Overloaded(Level),
    /// No connection permit is free.
    Full,
    /// Redis is configured and away.
    CutOff,
}

impl Unready {
    /// The refusal `/readyz` answers.
    pub fn refusal(self) -> Refusal {
        let (code, reason) = match self {
            Unready::Draining => (Code::Draining, "draining".to_owned()),
            Unready::Hangs => (Code::Overloaded, "a shard hangs".to_owned()),
            Unready::Overloaded(level) => {
                let reason = format!("overloaded: gives up {}", level.as_str());
                (Code::Overloaded, reason)
            }
            Unready::CutOff => (
                Code::CutOff,
                "Redis is away: this node goes on by itself".to_owned(),
            ),
            Unready::Full => (Code::ConnectionsFull, "connections_full".to_owned()),
        };
        Refusal::new(code, reason).retry(5000)
    }
}

/// What one shard says of its pressure: written by it alone, read by all.
#[derive(Debug)]
pub struct Said {
    level: AtomicU32,
    share: AtomicU32,
}

impl Default for Said {
    fn default() -> Said {
        Said {
            level: AtomicU32::new(Level::Calm as u32),
            share: AtomicU32::new(WHOLE),
        }
    }
}

impl Said {
    /// Tells the others. Returns whether the level is another than before.
    pub fn say(&self, own: &Pressure) -> bool {
        self.share.store(own.share(), Ordering::Relaxed);
        let level = own.level() as u32;
        self.level.swap(level, Ordering::Relaxed) != level
    }

    fn heard(&self) -> (Level, u32) {
        let level = Level::of(self.level.load(Ordering::Relaxed));
        (level, self.share.load(Ordering::Relaxed))
    }
}

/// The part of what it may hold that it holds, in thousandths: exact enough to choose by.
fn load(about: &About) -> f64 {
    let max = about.connections_max.max(1);
    (about.connections * 1000 / max) as f64 / 1000.0
}

/// A shard that has not turned for this long hangs. It turns at least once a second when idle.
const HANG_MS: u64 = 5_000;

impl Node {
    /// Why the node should get no new traffic now; `None` when it is ready.
    pub fn unready(&self) -> Option<Unready> {
        let now_ms = self.clock.mono_ns() / 1_000_000;
        let hangs = |turned: &AtomicU64| turned.load(Ordering::Relaxed) + HANG_MS < now_ms;
        if self.draining.load(Ordering::Relaxed) {
            Some(Unready::Draining)
        } else if self.turned_ms.iter().any(hangs) {
            Some(Unready::Hangs)
        } else if self.pressure().0 >= Level::Arrivals {
            Some(Unready::Overloaded(self.pressure().0))
        } else if self.connections.in_use() >= self.connections.max() {
            Some(Unready::Full)
        } else if self.redis.as_ref().is_some_and(|redis| redis.is_cut_off()) {
            Some(Unready::CutOff)
        } else {
            None
        }
    }

    /// What it says of itself to the other nodes.
    pub fn about(&self) -> About {
        // Who can say so to others is not cut off.
        let unready = self.unready().filter(|why| *why != Unready::CutOff);
        let gives_up = || match self.pressure().0 {
            Level::Calm => None,
            level => Some(format!("gives up {}", level.as_str())),
        };
        let why = unready.map(|why| why.refusal().reason.into_owned());
        About {
            node: self.name.clone(),
            address: self.address.clone(),
            region: self.region.clone(),
            connections: gauge_sum(&self.blocks, Gauge::Connections),
            connections_max: self.connections.max() as u64,
            rooms: gauge_sum(&self.blocks, Gauge::Rooms),
            takes_viewers: unready.is_none(),
            state: why.or_else(gives_up),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started_ms,
            said_ms: 0,
        }
    }

    /// `GET /api/v1/nodes`: the nodes there are, this one as it is now, the others as they were last heard of; by name. Out of date if
    /// Redis is away.
    pub fn nodes(&self) -> serde_json::Value {
        let now_ms = self.clock.mono_ns() / 1_000_000;
        let mine = self.about();
        let shown = |about: &About, heard_ms: u64, here: bool| {
            serde_json::json!({
                "node": about.node,
                "address": about.address,
                "region": about.region,
                "connections": about.connections,
                "connections_max": about.connections_max,
                "load": load(about),
                "rooms": about.rooms,
                "takes_viewers": about.takes_viewers,
                "state": about.state,
                "version": about.version,
                "started": about.started,
                "heard_ms": heard_ms,
                "here": here,
            })
        };
        let peers = self.peers.read();
        // A node that is started anew under the same name is another one.
        let is_me = |about: &About| (&about.node, about.started) == (&mine.node, mine.started);
        // One that has begun to count anew stands there twice for a while.
        let mut newest: BTreeMap<(&str, u64), &Peer> = BTreeMap::new();
        for peer in peers.iter().filter(|peer| !is_me(&peer.about)) {
            let known = newest
                .entry((&peer.about.node, peer.about.started))
                .or_insert(peer);
            if known.said_ms < peer.said_ms {
                *known = peer;
            }
        }
        let others = newest.into_values();
        let others = others.map(|peer| {
            let heard_ms = now_ms.saturating_sub(peer.said_ms);
            (&peer.about, heard_ms, false)
        });
        let mut nodes: Vec<(&About, u64, bool)> = others.chain([(&mine, 0, true)]).collect();
        nodes.sort_by_key(|(about, ..)| (&about.node, about.started));
        let nodes: Vec<_> = nodes
            .into_iter()
            .map(|(about, heard_ms, here)| shown(about, heard_ms, here))
            .collect();
        let stale = self.redis.as_ref().is_some_and(|redis| redis.is_cut_off());
        serde_json::json!({ "nodes": nodes, "stale": stale })
    }

    /// The highest level and the smallest share of any shard.
    pub fn pressure(&self) -> (Level, u32) {
        let said = self.pressures.iter().map(Said::heard);
        said.fold((Level::Calm, WHOLE), |(level, share), (its, of_it)| {
            (level.max(its), share.min(of_it))
        })
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
                redis: self
                    .redis
                    .as_ref()
                    .map_or(Default::default(), |it| it.view()),
                stream: self.stream.view(),
                kafka: self.kafka.view(),
                version: env!("CARGO_PKG_VERSION"),
                revision: "",
            },
            process,
        }
    }
}
