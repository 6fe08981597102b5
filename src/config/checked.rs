//! The settings as the rest of the house sees them: typed, cross-checked, every default filled in.
//!
//! Made once at start (and once per reload) on the main thread, then shared read-only by `Arc`. Units are in the names.

use std::net::{IpAddr, SocketAddr};

use crate::base::identity::Access;

/// Everything. One struct per TOML table.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[listen]`
    pub listen: Listen,
    /// `[server]`
    pub server: Server,
    /// `[auth]`
    pub auth: Auth,
    /// `[[api_keys]]`
    pub api_keys: Vec<ApiKey>,
    /// `[admission]`
    pub admission: Admission,
    /// `[heartbeat]`
    pub heartbeat: Heartbeat,
    /// `[limits]`
    pub limits: Limits,
    /// `[rooms]`
    pub rooms: Rooms,
    /// `[slow]`
    pub slow: Slow,
    /// `[overload]`
    pub overload: Overload,
    /// `[drain]`
    pub drain: Drain,
    /// `[redis]`; `None`: one node by itself.
    pub redis: Option<Redis>,
    /// `[events]`
    pub events: Events,
    /// `[kafka]`; `None`: nothing goes there.
    pub kafka: Option<Kafka>,
    /// `[log]`
    pub log: Log,
}

/// What happens, for who looks later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// Entries kept of `live:events`, give or take a hundred; 0 = there is no such stream.
    pub stream_max: u64,
}

/// Where else what happens goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, several apart by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// librdkafka's own settings.
    pub options: Vec<(String, String)>,
}

/// Where the gateway listens. Port 0 binds a free port.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// Viewers and the public routes.
    pub public: SocketAddr,
    /// Metrics and the server API.
    pub internal: SocketAddr,
}

/// The process.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Reactor threads, 1..=256; 0 in the file is resolved to the cores before it comes here.
    pub shards: usize,
    /// Whether each shard has its own descriptor table.
    pub fd_tables: FdTables,
    /// The node's name; random when not set.
    pub node: String,
    /// Where viewers reach it, for the list of nodes; empty = where it listens. Up to 256 bytes.
    pub address: String,
    /// Where it stands, for the list of nodes. Up to 64 bytes.
    pub region: String,
    /// Whether `GET /` answers the demo page.
    pub demo_page: bool,
    /// Whether permessage-deflate is agreed upon with viewers that offer it.
    pub compression: bool,
}

/// Who owns descriptor numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdTables {
    /// `unshare(CLONE_FILES)` on each shard: `RLIMIT_NOFILE` bounds a shard (Linux).
    PerShard,
    /// One table for the process.
    Shared,
}

/// Who may enter.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// What a connection without a token may do.
    pub anonymous: Anonymous,
    /// Which browser origins may connect.
    pub origins: Origins,
    /// Required `iss`, where set.
    pub issuer: Option<String>,
    /// Required `aud`, where set.
    pub audience: Option<String>,
    /// Clock difference forgiven on `exp` and `nbf`, in seconds.
    pub leeway_s: u64,
    /// Verification keys, unique by `kid`.
    pub keys: Vec<KeySpec>,
}

/// What a connection without a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// It is refused.
    Deny,
    /// It reads along.
    Watch,
    /// It reads and speaks.
    Speak,
}

/// Which `Origin` headers are let in. A request without one (not a browser) always is.
#[derive(Clone, Debug, PartialEq)]
pub enum Origins {
    /// Only an origin whose host and port equal the request's `Host`.
    Same,
    /// These, compared ASCII-case-insensitively as `scheme://host[:port]`, and the same origin.
    Listed(Vec<String>),
    /// All.
    Any,
}

/// One verification key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySpec {
    /// Key id a token's header may name. A token without `kid` is tried against the only key, or refused if there are several.
    pub kid: String,
    /// The one algorithm this key verifies, never taken from the token.
    pub algorithm: Algorithm,
    /// The key itself, already read from its file.
    pub material: KeyMaterial,
}

/// Algorithms a key may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// The word in config and token headers (RFC 7518 section 3.1, RFC 8037).
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }
}

/// Key bytes.
#[derive(Clone, PartialEq)]
pub enum KeyMaterial {
    /// Shared secret of an HS key, at least 32 bytes.
    Secret(Vec<u8>),
    /// Public key in PEM.
    PublicPem(Vec<u8>),
}

impl std::fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            KeyMaterial::Secret(_) => "Secret(..)",
            KeyMaterial::PublicPem(_) => "PublicPem(..)",
        })
    }
}

/// One API key of a back end.
#[derive(Clone, PartialEq)]
pub struct ApiKey {
    /// Name in logs.
    pub name: String,
    /// The key, at least 16 bytes.
    pub key: String,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({})", self.name)
    }
}

/// Admission of new connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// Viewers the node holds; 0 = what the descriptors allow.
    pub connections_max: usize,
    /// Connections that have not finished their first request.
    pub handshakes_max: usize,
    /// Time for a head, a body and the room admission before the upgrade.
    pub handshake_timeout_ms: u64,
    /// New viewers per second on the whole node; 0 = off.
    pub accepts_per_s: u32,
    /// Bucket depth; equals `accepts_per_s` where the file says 0.
    pub accept_burst: u32,
    /// Viewers per client address; 0 = off.
    pub per_address_max: u32,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// An address range, `10.0.0.0/8` or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNet {
    /// First address.
    pub address: IpAddr,
    /// Leading bits that must agree.
    pub prefix_bits: u8,
}

impl IpNet {
    /// Whether `ip` lies in the range; IPv4-mapped IPv6 addresses count as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix_bits.min(32));
                (u64::from(net.to_bits()) >> shift) == (u64::from(ip.to_bits()) >> shift)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix_bits.min(128));
                net.to_bits().checked_shr(shift) == ip.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// Heartbeats.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// One silent interval: the server pings. Two: it closes with 4408.
    pub interval_ms: u64,
}

/// What one client may send.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Request line and headers.
    pub head_bytes_max: usize,
    /// HTTP body after chunked decoding.
    pub body_bytes_max: usize,
    /// WebSocket message, all fragments together.
    pub message_bytes_max: usize,
    /// Text of a line after trimming.
    pub text_bytes_max: usize,
    /// Time for an HTTP body.
    pub body_timeout_ms: u64,
    /// Rooms one connection may be in.
    pub rooms_per_connection_max: usize,
    /// Connections of one login, on all nodes; 0 = any number.
    pub connections_per_user_max: usize,
    /// Lines per second for a connection and for a user.
    pub lines_per_s: u32,
    /// Depth of those buckets.
    pub line_burst: u32,
    /// Lines per second for a room; 0 = off.
    pub room_lines_per_s: u32,
}

/// Rooms: the defaults and the classes that differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Rooms {
    /// For rooms no class matches.
    pub default: RoomClass,
    /// In file order; the first whose pattern matches wins.
    pub classes: Vec<(String, RoomClass)>,
}

impl Rooms {
    /// The class of a room: the first whose pattern (a room id, or a prefix ending in `*`) matches, else the default.
    pub fn class_of(&self, room: &str) -> &RoomClass {
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => room.starts_with(prefix),
            None => room == pattern,
        };
        self.classes
            .iter()
            .find(|(pattern, _)| matches(pattern))
            .map_or(&self.default, |(_, class)| class)
    }
}

/// Settings of a kind of room.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomClass {
    /// Who gets in.
    pub access: Access,
    /// Lines kept for history and resume.
    pub history_lines: usize,
    /// Bytes of the room log, per shard and encoding, and of the history.
    pub log_bytes_max: usize,
    /// When lines go out.
    pub tick: Tick,
    /// Lines per second each viewer gets at most; 0 = off.
    pub deliver_per_s_max: u32,
    /// Time without a member or a line after which a room is forgotten.
    pub idle_after_ms: u64,
}

/// When a room's lines go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// At the end of the turn that brought them.
    Auto,
    /// Gathered for this long.
    EveryMs(u32),
}

/// Viewers that do not keep up.
#[derive(Clone, Debug, PartialEq)]
pub struct Slow {
    /// What happens to one that fell off the room log.
    pub policy: SlowPolicy,
    /// Control bytes waiting for one viewer.
    pub outbox_bytes_max: usize,
    /// Time without a byte taken after which a viewer is closed with 4413.
    pub stuck_timeout_ms: u64,
    /// Bytes the kernel takes for one viewer beyond what is on its way; 0 = its own measure.
    pub unsent_bytes_max: u32,
}

/// What happens to a viewer that fell off the room log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowPolicy {
    /// It is told how many lines it missed.
    Drop,
    /// It is closed with 4413.
    Close,
}

/// How the node empties itself on SIGTERM.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// Viewers closed per interval, on the whole node.
    pub batch: usize,
    /// Pause between batches.
    pub interval_ms: u64,
    /// When whoever is left is cut.
    pub deadline_ms: u64,
}

/// The Redis that joins several nodes.
#[derive(Clone, PartialEq)]
pub struct Redis {
    /// Where, and as whom: one server or several ([`super::redis_url`]). The library has read it; it may hold a password.
    pub url: String,
    /// Whether they belong to a Redis Cluster.
    pub is_cluster: bool,
    /// A node that has not been heard of for so long counts as gone.
    pub lease_ms: u64,
}

impl Redis {
    /// The URL without user and password.
    pub fn shown(&self) -> String {
        match (self.url.split_once("://"), self.url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, place))) => format!("{scheme}://***@{place}"),
            _ => self.url.clone(),
        }
    }
}

/// The password stays out of logs.
impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("url", &self.shown())
            .field("is_cluster", &self.is_cluster)
            .field("lease_ms", &self.lease_ms)
            .finish()
    }
}

/// When the node gives things up rather than fall behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// Lines that are so late are too late: from here on a part of the crowd's is left out.
    pub lag_ms: u64,
    /// Memory the process may have; 0 = what the machine or its control group has.
    pub memory_max: u64,
}

/// Logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Least severe level written.
    pub level: tracing::Level,
    /// One line of text, or one JSON object.
    pub format: LogFormat,
    /// Share of requests and connections in the access log, 0.0..=1.0.
    pub access_sample: f64,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// For machines.
    Json,
}
