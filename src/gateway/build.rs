//! Building the process: addresses reserved, descriptors counted, bells hung, shards started. Main thread, once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use mio::Poll;

use super::{Order, StartError, policy};
use crate::base::clock::Clock;
use crate::base::ids::ShardId;
use crate::base::limits;
use crate::bridge::events::{self, Stream};
#[cfg(feature = "kafka")]
use crate::bridge::kafka::{self, Kafka};
use crate::bridge::{self, Bridge};
use crate::bus::{Address, Msg, Outlet, Policy, Sink};
use crate::config::checked::FdTables;
use crate::net::bell::Bell;
use crate::net::fd;
use crate::net::listener::{self, Reserved};
use crate::shard::{BELL, Node, Said, Shard, Start};
use crate::sync::addresses::Addresses;
use crate::sync::gate::{Gate, RateGate};
use crate::sync::mailbox::{Inbox, mailbox};
use crate::telemetry::block::Block;
use crate::telemetry::process;

/// The running process, as the main thread holds it.
pub struct Gateway {
    pub(super) node: Arc<Node>,
    pub(super) policy: Arc<Policy>,
    pub(super) addresses: Vec<Address>,
    pub(super) shards: Vec<JoinHandle<()>>,
    pub(super) bridge: Option<Bridge>,
    /// What brings events to Redis.
    pub(super) stream: Option<Stream>,
    /// What brings them to Kafka.
    #[cfg(feature = "kafka")]
    pub(super) kafka: Option<Kafka>,
    /// A shard that ends says so here.
    pub(super) ended: Receiver<Ended>,
    pub(super) public: SocketAddr,
    pub(super) internal: SocketAddr,
}

/// A shard's thread is over.
pub(super) struct Ended {
    pub shard: ShardId,
    pub result: Result<(), String>,
}

impl Gateway {
    /// Starts every shard; returns when all of them listen.
    ///
    /// # Errors
    /// What kept it from starting; nothing is left running that serves.
    pub fn start(order: &Order) -> Result<Gateway, StartError> {
        let policy = policy(&order.loaded)?;
        let config = &policy.config;
        let limit = fd::raise_limit();
        let public = reserve(config.listen.public, "listen.public", "--listen")?;
        let internal = reserve(
            config.listen.internal,
            "listen.internal",
            "--internal-listen",
        )?;
        let shards = config.server.shards;
        let tables = fd_tables(config.server.fd_tables, shards);
        let sockets_max = sockets_per_shard(limit, shards, tables)?;
        let connections_max = match config.admission.connections_max {
            0 => sockets_max.saturating_mul(shards),
            max => max,
        };
        let clock = Clock::start();
        let node = Arc::new(Node {
            name: config.server.node.clone(),
            address: match config.server.address.as_str() {
                "" => public.address.to_string(),
                address => address.to_owned(),
            },
            region: config.server.region.clone(),
            clock,
            started_ms: clock.now().unix_ms,
            connections: Gate::new(connections_max),
            handshakes: Gate::new(config.admission.handshakes_max),
            accept_rate: RateGate::new(),
            addresses: Arc::new(Addresses::new()),
            pressures: (0..shards).map(|_| Said::default()).collect(),
            memory_max: process::memory_max().unwrap_or(0),
            memory: AtomicU64::new(0),
            blocks: (0..shards).map(|_| Arc::new(Block::new())).collect(),
            turned_ms: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            draining: AtomicBool::new(false),
            fd_tables: tables,
            sockets_max,
            log: order.log.clone(),
            redis: config.redis.as_ref().map(|_| Arc::default()),
            stream: Arc::default(),
            kafka: Arc::default(),
            peers: Arc::default(),
            listed: Arc::default(),
        });
        let (parts, addresses) = pollers(shards)?;
        let (ended_tx, ended) = unbounded();
        let mut gateway = Gateway {
            node,
            policy,
            addresses,
            shards: Vec::new(),
            bridge: None,
            stream: None,
            #[cfg(feature = "kafka")]
            kafka: None,
            ended,
            public: public.address,
            internal: internal.address,
        };
        let outlet = gateway.start_bridge()?;
        let sinks = gateway.start_sinks()?;
        gateway.start_shards(parts, outlet, sinks, tables, sockets_max, &ended_tx)?;
        Ok(gateway)
    }

    /// The way to Redis, where one is configured. It connects by itself; the shards are told when it has.
    fn start_bridge(&mut self) -> Result<Option<Outlet>, StartError> {
        let (Some(redis), Some(stats)) = (&self.policy.config.redis, &self.node.redis) else {
            return Ok(None);
        };
        let seed = random_seed()?;
        let (bridge, outlet) = Bridge::start(bridge::Start {
            url: redis.url.clone(),
            is_cluster: redis.is_cluster,
            // A node that is started anew under the same name is another one: what the old one left behind is not its own.
            me: format!("{}.{seed:016x}", self.node.name).into(),
            clock: self.node.clock,
            lease_ms: redis.lease_ms,
            stats: Arc::clone(stats),
            addresses: self.addresses.clone(),
            about: {
                let node = Arc::clone(&self.node);
                Box::new(move || node.about())
            },
            peers: Arc::clone(&self.node.peers),
            listed: Arc::clone(&self.node.listed),
            seed,
        })
        .map_err(StartError::system("start a thread for Redis"))?;
        self.bridge = Some(bridge);
        Ok(Some(outlet))
    }

    /// Who is told what happens.
    fn start_sinks(&mut self) -> Result<Arc<[Sink]>, StartError> {
        let mut sinks = Vec::new();
        let config = &self.policy.config;
        if let Some(redis) = &config.redis
            && config.events.stream_max > 0
        {
            let (stream, sink) = Stream::start(events::Start {
                url: redis.url.clone(),
                is_cluster: redis.is_cluster,
                me: self.node.name.as_str().into(),
                stream_max: config.events.stream_max,
                clock: self.node.clock,
                stats: Arc::clone(&self.node.stream),
                seed: random_seed()?,
            })
            .map_err(StartError::system("start a thread for events"))?;
            self.stream = Some(stream);
            sinks.push(sink);
        }
        self.start_kafka(&mut sinks)?;
        Ok(sinks.into())
    }

    #[cfg(feature = "kafka")]
    fn start_kafka(&mut self, sinks: &mut Vec<Sink>) -> Result<(), StartError> {
        if let Some(kafka) = &self.policy.config.kafka {
            let (thread, sink) = Kafka::start(kafka::Start {
                brokers: kafka.brokers.clone(),
                topic: kafka.topic.clone(),
                options: kafka.options.clone(),
                node: self.node.name.clone(),
                stats: Arc::clone(&self.node.kafka),
            })
            .map_err(StartError::Kafka)?;
            self.kafka = Some(thread);
            sinks.push(sink);
        }
        Ok(())
    }

    /// A build without Kafka has refused its settings.
    #[cfg(not(feature = "kafka"))]
    fn start_kafka(&mut self, _: &mut [Sink]) -> Result<(), StartError> {
        Ok(())
    }

    fn start_shards(
        &mut self,
        parts: Vec<(Poll, Inbox<Msg>)>,
        outlet: Option<Outlet>,
        sinks: Arc<[Sink]>,
        tables: FdTables,
        sockets_max: usize,
        ended: &Sender<Ended>,
    ) -> Result<(), StartError> {
        let (listening_tx, listening) = bounded(parts.len());
        let shards = parts.len();
        for (index, (poll, inbox)) in parts.into_iter().enumerate() {
            let start = Start {
                id: ShardId(index as u16),
                poll,
                inbox,
                addresses: self.addresses.clone(),
                node: Arc::clone(&self.node),
                policy: Arc::clone(&self.policy),
                cluster: outlet.clone(),
                sinks: Arc::clone(&sinks),
                public: self.public,
                internal: self.internal,
                seed: random_seed()?,
                sockets_max,
            };
            let (listening, ended) = (listening_tx.clone(), ended.clone());
            let thread = std::thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || shard_thread(start, tables, &listening, &ended))
                .map_err(StartError::system("start a shard thread"))?;
            self.shards.push(thread);
        }
        for _ in 0..shards {
            match listening.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let what = "open a shard's listeners";
                    return Err(StartError::System { what, error });
                }
                Err(_) => {
                    let why = "it ended before it listened".to_string();
                    return Err(StartError::ShardEnded { shard: 0, why });
                }
            }
        }
        Ok(())
    }
}

fn shard_thread(
    start: Start,
    tables: FdTables,
    listening: &Sender<io::Result<()>>,
    ended: &Sender<Ended>,
) {
    let id = start.id;
    let run = std::panic::AssertUnwindSafe(|| {
        let own = match tables {
            FdTables::PerShard => fd::own_table(),
            FdTables::Shared => Ok(()),
        };
        // The main thread has gone when nobody receives: then nothing is to be told.
        match own.and_then(|()| Shard::new(start)) {
            Ok(mut shard) => {
                let _ = listening.send(Ok(()));
                shard.run().map_err(|error| error.to_string())
            }
            Err(error) => {
                let why = error.to_string();
                let _ = listening.send(Err(error));
                Err(why)
            }
        }
    });
    let result = match std::panic::catch_unwind(run) {
        Ok(result) => result,
        Err(_) => Err("it panicked".to_string()),
    };
    let _ = ended.send(Ended { shard: id, result });
}

/// Pollers, bells and mailboxes, all before the threads part: a bell is a descriptor every thread must have.
type Parts = (Vec<(Poll, Inbox<Msg>)>, Vec<Address>);

fn pollers(shards: usize) -> Result<Parts, StartError> {
    let (mut parts, mut addresses) = (Vec::new(), Vec::new());
    for _ in 0..shards {
        let poll = Poll::new().map_err(StartError::system("make a poller"))?;
        let bell =
            Bell::new(poll.registry(), BELL).map_err(StartError::system("make a shard's bell"))?;
        let (mailbox, inbox) = mailbox(limits::MAILBOX_MESSAGES);
        addresses.push(Address {
            mailbox,
            bell: Arc::new(bell),
        });
        parts.push((poll, inbox));
    }
    Ok((parts, addresses))
}

fn reserve(address: SocketAddr, setting: &'static str, flag: &str) -> Result<Reserved, StartError> {
    listener::reserve(address).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another program listens there (perhaps another gateway; `ss -ltnp 'sport = :{}'` names it): stop it, or use {flag} with another port; port 0 takes a free one",
                address.port()
            ),
            io::ErrorKind::AddrNotAvailable => {
                format!("this machine has no such address: use {flag} with one of its own")
            }
            io::ErrorKind::PermissionDenied => format!(
                "ports below 1024 need a privilege: use {flag} with a higher port, or AmbientCapabilities=CAP_NET_BIND_SERVICE"
            ),
            _ => format!("use {flag} with another address"),
        };
        StartError::Listen {
            address,
            setting,
            error,
            hint,
        }
    })
}

/// What is used of `server.fd_tables`: a table of its own per shard where the system has it and there is more than one.
fn fd_tables(wanted: FdTables, shards: usize) -> FdTables {
    if wanted == FdTables::Shared {
        return FdTables::Shared;
    }
    let probe = std::thread::spawn(fd::own_table).join();
    match probe {
        Ok(Ok(())) => FdTables::PerShard,
        Ok(Err(error)) => {
            tracing::warn!(%error, shards, "shards share one descriptor table");
            FdTables::Shared
        }
        Err(_) => FdTables::Shared,
    }
}

fn sockets_per_shard(
    limit: Option<u64>,
    shards: usize,
    tables: FdTables,
) -> Result<usize, StartError> {
    let own = tables == FdTables::PerShard;
    match fd::sockets_per_shard(limit, shards, own) {
        0 => {
            let reserve = fd::reserve_per_shard(shards);
            let tables = if own { 1 } else { shards as u64 };
            Err(StartError::Descriptors {
                limit: limit.unwrap_or(u64::MAX),
                shards,
                needed: (reserve + 1) * tables,
            })
        }
        sockets => Ok(sockets as usize),
    }
}

fn random_seed() -> Result<u64, StartError> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| StartError::System {
        what: "ask the system for random bytes",
        error: io::Error::other(error.to_string()),
    })?;
    Ok(u64::from_le_bytes(seed))
}
