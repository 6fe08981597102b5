//! The way to Redis: threads that may wait for it, so that no shard ever does.
//!
//! `commands` asks: batches to be numbered, rooms to be read, a canary; it also judges whether Redis can be waited for, and tells
//! every shard when that changes. A `listener` for each master hears: the channels of rooms with viewers here, and the node's own. Shards
//! reach them by one bounded queue, and are reached by their mailboxes. None of them knows a room beyond its name. `events` and `kafka` take
//! what happens, by queues of their own.

mod breaker;
mod chores;
mod commands;
mod ears;
pub mod events;
#[cfg(feature = "kafka")]
pub mod kafka;
mod keys;
mod listener;
mod phrase;
mod post;
mod slots;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use redis::{Client, Connection, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError};

use crate::base::clock::Clock;
use crate::bus::{Address, Brief, Outlet, Outward, Peer};
use crate::proto::node::about::About;
use crate::sync::latest::Latest;
use crate::telemetry::redis::RedisStats;

use self::commands::Commands;
use self::listener::Hears;
use self::post::Post;

/// What may wait for the thread that asks. A room has one batch and one question under way.
const ASKS_MAX: usize = 65_536;
/// To connect.
const CONNECT: Duration = Duration::from_secs(1);

/// What the bridge is started with.
pub struct Start {
    /// `redis.url`, checked.
    pub url: String,
    /// `redis.cluster`.
    pub is_cluster: bool,
    /// What this node is called; never used by two runs.
    pub me: Arc<str>,
    /// One origin for every thread's time.
    pub clock: Clock,
    /// `redis.lease`.
    pub lease_ms: u64,
    /// Where it tells of itself.
    pub stats: Arc<RedisStats>,
    /// The shards.
    pub addresses: Vec<Address>,
    /// What this node says of itself.
    pub about: Box<dyn Fn() -> About + Send>,
    /// Where it tells which nodes there are.
    pub peers: Arc<Latest<Vec<Peer>>>,
    /// The first of the cluster's rooms, as they were last read.
    pub listed: Arc<Latest<Vec<Brief>>>,
    /// Chance.
    pub seed: u64,
}

/// The running bridge.
pub struct Bridge {
    shared: Arc<Shared>,
    asks: Sender<(u64, Outward)>,
    thread: JoinHandle<()>,
}

/// What all threads know.
#[derive(Debug)]
pub struct Shared {
    /// The process ends.
    stop: AtomicBool,
    /// A channel that is heard is at another server by now.
    moved: AtomicBool,
    /// Monotonic ns at which the newest canary that came back from each server had been sent.
    canaries: [AtomicU64; wire::MASTERS_MAX],
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            stop: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            canaries: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Shared {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Bridge {
    /// Starts the threads. They connect by themselves: a Redis that is away keeps nobody from serving.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(start: Start) -> std::io::Result<(Bridge, Outlet)> {
        let shared = Arc::new(Shared::default());
        let (asks, asked) = bounded(ASKS_MAX);
        let me = Arc::clone(&start.me);
        let hears = Hears {
            me: Arc::clone(&me),
            clock: start.clock,
            shared: Arc::clone(&shared),
            post: Post::new(start.addresses.clone(), Arc::clone(&shared)),
            asks: asks.clone(),
            stats: Arc::clone(&start.stats),
        };
        let commands = Commands::new(start, hears, asked);
        let named = std::thread::Builder::new().name("redis-commands".into());
        let thread = named.spawn(move || commands.run())?;
        let outlet = Outlet {
            me,
            asks: asks.clone(),
        };
        let bridge = Bridge {
            shared,
            asks,
            thread,
        };
        Ok((bridge, outlet))
    }

    /// Ends the threads: at the latest when what they wait for times out.
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(self.asks);
        // One that panicked has said so.
        let _ = self.thread.join();
    }
}

/// Reads a URL as the bridge will use it.
///
/// # Errors
/// What the library says; it may hold parts of the URL, a password among them.
pub fn info(url: &str) -> Result<ConnectionInfo, RedisError> {
    let info = url.into_connection_info()?;
    // Answers are read as this version of the protocol writes them, whatever the URL asks for.
    let settings = info.redis_settings().clone();
    Ok(info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP2)))
}

fn connect(info: &ConnectionInfo, answer: Duration) -> Result<Connection, RedisError> {
    let connection = Client::open(info.clone())?.get_connection_with_timeout(CONNECT)?;
    connection.set_read_timeout(Some(answer))?;
    connection.set_write_timeout(Some(answer))?;
    Ok(connection)
}
