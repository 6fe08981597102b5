//! What was found out about the machine: plain values, no judgement. Filled by `read` and `redis`, made up by the tests of
//! the rules. Main thread; it must never ask anything itself. `None` is "not visible from here" unless a field says otherwise.

use crate::config::checked::FdTables;

/// Everything the rules look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The system's name and release, like `Linux 6.18.0`.
    pub system: String,
    /// Whether it is Linux: elsewhere much of this cannot be known.
    pub is_linux: bool,
    /// Whether this seems to run in a container.
    pub in_container: bool,
    /// What the settings ask for.
    pub plan: Plan,
    /// Files and tables.
    pub descriptors: Descriptors,
    /// The kernel's network settings.
    pub network: Network,
    /// Memory.
    pub memory: Memory,
    /// Both clocks.
    pub clock: ClockFacts,
    /// Redis, where a URL is configured or given.
    pub redis: Option<Redis>,
}

/// What the settings ask of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Mistakes in the settings, as `check-config` prints them; what follows is then the defaults.
    pub mistakes: Option<String>,
    /// Cores this process may use.
    pub cores: usize,
    /// Reactor threads.
    pub shards: usize,
    /// `server.fd_tables`.
    pub fd_tables: FdTables,
    /// `admission.connections_max`; 0 = what the descriptors allow.
    pub connections_max: u64,
    /// The ports it will listen on; 0 is left out.
    pub ports: Vec<u16>,
    /// Whether a proxy on this machine is trusted.
    pub has_proxy_here: bool,
}

/// Descriptor limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptors {
    /// Soft `RLIMIT_NOFILE`; `None` = no limit.
    pub soft: Option<u64>,
    /// Hard `RLIMIT_NOFILE`; `None` = no limit.
    pub hard: Option<u64>,
    /// Whether a thread can have a descriptor table of its own; the error is the system's.
    pub own_table: Result<(), String>,
    /// `fs.nr_open`: the most a hard limit may be raised to.
    pub nr_open: Option<u64>,
    /// Files open on the whole machine.
    pub files_open: Option<u64>,
    /// `fs.file-max`.
    pub files_max: Option<u64>,
}

/// Network settings of the kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// `net.ipv4.ip_local_port_range`, both ends included.
    pub port_range: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`, as ranges.
    pub reserved_ports: Vec<(u16, u16)>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_syncookies`; 0 = off.
    pub syncookies: Option<u64>,
    /// Connection tracking: entries now, and at most. `None` = not loaded, or not visible here.
    pub conntrack: Option<(u64, u64)>,
    /// `net.ipv4.tcp_mem` in pages: low, pressure, high.
    pub tcp_mem: Option<[u64; 3]>,
    /// Bytes of a page.
    pub page_bytes: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// `MemAvailable` of the machine.
    pub available: Option<u64>,
    /// The tightest limit of the control groups this process is in.
    pub cgroup: Option<Cgroup>,
    /// `SwapTotal`.
    pub swap: Option<u64>,
    /// `vm.swappiness`.
    pub swappiness: Option<u64>,
    /// `vm.overcommit_memory`.
    pub overcommit: Option<u64>,
}

/// A control group with a memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its limit in bytes.
    pub limit: u64,
    /// What it uses, without file cache that can be dropped.
    pub used: u64,
}

/// Both clocks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClockFacts {
    /// How often a reading of the monotonic clock was below the one before.
    pub steps_back: u32,
    /// What one reading costs, in nanoseconds.
    pub reading_ns: u64,
    /// The kernel's clock source.
    pub source: Option<String>,
    /// The wall clock, in seconds since 1970.
    pub unix_s: u64,
    /// Whether the system says its clock is kept by time synchronisation.
    pub is_synced: Option<bool>,
}

/// A Redis and how it answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    /// Host and port, never user or password.
    pub address: String,
    /// What it said, or why it said nothing.
    pub result: Result<RedisAnswers, RedisFault>,
}

/// What a Redis said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedisAnswers {
    /// Median round trip of a PING, in microseconds.
    pub median_us: u64,
    /// The slowest of them.
    pub max_us: u64,
    /// `redis_version`.
    pub version: Option<String>,
    /// `maxmemory` in bytes; 0 = no bound.
    pub memory_max: Option<u64>,
    /// `maxmemory_policy`.
    pub policy: Option<String>,
}

/// Why a Redis did not answer. The texts are the library's or the system's and hold no password.
#[derive(Clone, Debug, PartialEq)]
pub enum RedisFault {
    /// The URL itself is wrong.
    Url(String),
    /// Its certificate is not one that this machine trusts.
    Tls(String),
    /// Nobody listens there.
    Refused,
    /// No such host, or no way to it.
    Unreachable(String),
    /// Connected, or tried to, and nothing came in time.
    Timeout,
    /// The user or password is wrong, or one is needed.
    Auth(String),
    /// Anything else it said.
    Other(String),
}
