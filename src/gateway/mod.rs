//! The process: built from checked settings, run until a signal, drained, ended.
//!
//! Runs on the main thread. It holds what all shards share, starts them, and afterwards only waits: for signals, and for
//! a shard that ends. It never touches a connection.

mod build;
mod control;
mod memory;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::auth::keys::KeyMistake;
use crate::base::limits;
use crate::bus::Policy;
use crate::config::load::Loaded;
use crate::net::fd;
use crate::telemetry::log::LogHandle;

pub use build::Gateway;

/// What `serve` was asked for, beyond the settings.
pub struct Order {
    /// Settings, checked.
    pub loaded: Loaded,
    /// `--ready-file`.
    pub ready_file: Option<PathBuf>,
    /// The log, for its level and its lost lines.
    pub log: LogHandle,
    /// Reads the settings again, on SIGHUP. The error is what a person is to read.
    pub reload: Box<dyn FnMut() -> Result<Loaded, String>>,
}

/// Why the gateway could not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address} ({setting}): {error}\n  {hint}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The TOML key.
        setting: &'static str,
        /// What the system said.
        error: io::Error,
        /// What to do.
        hint: String,
    },
    /// A key cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Keys(Vec<KeyMistake>),
    /// The descriptor limit leaves nothing for viewers.
    #[error(
        "the descriptor limit of {limit} leaves no room for viewers: {shards} shards need {needed} before the first one\n  raise it: `ulimit -Hn 65536; ulimit -n 65536` as root, LimitNOFILE=65536 in the systemd unit, or docker run --ulimit nofile=65536:65536; `danmaku doctor` says how many viewers fit"
    )]
    Descriptors {
        /// What `RLIMIT_NOFILE` says.
        limit: u64,
        /// Reactor threads.
        shards: usize,
        /// The least limit that lets a viewer in.
        needed: u64,
    },
    /// The ready file could not be written.
    #[error(
        "cannot write --ready-file {path}: {error}\n  name a file in a folder that exists and that this user may write to"
    )]
    ReadyFile {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Less address space than it takes to start.
    #[error(
        "the address space is limited to {} MiB (ulimit -v), and {shards} shards need {} MiB\n  raise it: `ulimit -v unlimited`, or take fewer shards (--shards 1)",
        .limit >> 20, .needed >> 20
    )]
    AddressSpace {
        /// What `RLIMIT_AS` says, in bytes.
        limit: u64,
        /// Reactor threads.
        shards: usize,
        /// What they need, in bytes.
        needed: u64,
    },
    /// A setting that librdkafka does not take.
    #[error(
        "cannot begin to write to Kafka: {0}\n  kafka.options takes librdkafka's settings as NAME=VALUE; its CONFIGURATION.md lists them"
    )]
    #[cfg(feature = "kafka")]
    Kafka(String),
    /// Something the system refused.
    #[error("cannot {what}: {error}{}", hint(.error))]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A shard ended by itself.
    #[error(
        "shard {shard} ended unexpectedly: {why}\n  this is a fault of the gateway; the log says more"
    )]
    ShardEnded {
        /// Which.
        shard: u16,
        /// What it said.
        why: String,
    },
}

impl StartError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
        move |error| StartError::System { what, error }
    }
}

/// What to do about something the system refused, where its own word does not say.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            "\n  the limit of threads is reached (ulimit -u, TasksMax= in the systemd unit, docker run --pids-limit), or that of memory: raise it, or take fewer shards (--shards 1)"
        }
        io::ErrorKind::OutOfMemory => {
            "\n  no memory is left: raise the limit (ulimit -v, MemoryMax= in the systemd unit, docker run --memory), or take fewer shards (--shards 1)"
        }
        _ => "",
    }
}

/// Whether there is enough to start at all, asked before anything is: further on, a thread that cannot be had or memory that is not
/// there ends the process without a sentence.
///
/// # Errors
/// What is missing, and how to get it.
pub fn preflight(shards: usize) -> Result<(), StartError> {
    let needed =
        limits::ADDRESS_SPACE_BYTES + limits::ADDRESS_SPACE_BYTES_PER_SHARD * shards as u64;
    if let Some(limit) = fd::address_space_limit()
        && limit < needed
    {
        return Err(StartError::AddressSpace {
            limit,
            shards,
            needed,
        });
    }
    let probe = std::thread::Builder::new().spawn(|| ());
    let probe = probe.map_err(StartError::system("start a thread"))?;
    // It does nothing, so it cannot panic.
    let _ = probe.join();
    Ok(())
}

/// Starts, serves until a signal, drains, ends.
///
/// # Errors
/// What kept it from starting, or a shard that ended by itself.
pub fn serve(order: Order) -> Result<(), StartError> {
    let gateway = Gateway::start(&order)?;
    gateway.announce(&order)?;
    gateway.control(order)
}

/// Settings and keys as shards hold them.
fn policy(loaded: &Loaded) -> Result<Arc<Policy>, StartError> {
    let config = loaded.config.clone();
    let keys = crate::auth::keys::KeySet::new(&config.auth).map_err(StartError::Keys)?;
    let api_keys = crate::auth::api_keys::ApiKeys::new(&config.api_keys);
    Ok(Arc::new(Policy {
        config,
        keys,
        api_keys,
    }))
}
