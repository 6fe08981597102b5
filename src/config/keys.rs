//! The one table of settings: path, kind, default, meaning. The file, the environment, `default-config` and the checks are
//! all made from these rows. Static data.

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `host:port`.
    Address,
    /// A whole number in this range.
    Whole(u64, u64),
    /// Bytes: a whole number, or `"64KiB"`, `"1MiB"`; in this range.
    Size(u64, u64),
    /// `"500ms"`, `"30s"`, `"5m"`; in this range of milliseconds.
    Duration(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A list of texts.
    List,
    /// From 0.0 to 1.0.
    Share,
    /// `"auto"`, or a duration up to ten seconds.
    Tick,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `table.key`.
    pub path: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Its default, as TOML.
    pub default: &'static str,
    /// One line for the annotated file.
    pub doc: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default,
        doc,
    }
}

const ACCESS: Kind = Kind::Word(&["public", "login", "private"]);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Every setting outside arrays, in the order of the file.
pub const KEYS: &[Key] = &[
    key(
        "listen.public",
        Kind::Address,
        "\"127.0.0.1:8080\"",
        "viewers and the public routes; port 0 takes a free one",
    ),
    key(
        "listen.internal",
        Kind::Address,
        "\"127.0.0.1:8081\"",
        "metrics and the server API",
    ),
    key(
        "server.shards",
        Kind::Whole(0, 256),
        "0",
        "reactor threads; 0 = one per core",
    ),
    key(
        "server.fd_tables",
        Kind::Word(&["per-shard", "shared"]),
        "\"per-shard\"",
        "per-shard: RLIMIT_NOFILE bounds each shard (Linux)",
    ),
    key(
        "server.node",
        Kind::Text,
        "\"\"",
        "this node's name; empty = random",
    ),
    key(
        "server.address",
        Kind::Text,
        "\"\"",
        "where viewers reach this node, as GET /api/v1/nodes tells it, like \"wss://n1.live.example\"; empty = listen.public",
    ),
    key(
        "server.region",
        Kind::Text,
        "\"\"",
        "where this node stands, as GET /api/v1/nodes tells it",
    ),
    key(
        "server.demo_page",
        Kind::Flag,
        "true",
        "whether GET / answers the demo page",
    ),
    key(
        "server.compression",
        Kind::Flag,
        "true",
        "whether viewers that offer permessage-deflate get it; what is compressed is compressed once for all of them",
    ),
    key(
        "auth.anonymous",
        Kind::Word(&["", "deny", "watch", "speak"]),
        "\"\"",
        "deny, watch or speak: connections without a token; empty = speak on loopback, else it must be said",
    ),
    key(
        "auth.origins",
        Kind::List,
        "[]",
        "browser origins let in, like \"https://live.example\"; empty = same origin; \"*\" = any",
    ),
    key(
        "auth.issuer",
        Kind::Text,
        "\"\"",
        "required iss; empty = not checked",
    ),
    key(
        "auth.audience",
        Kind::Text,
        "\"\"",
        "required aud; empty = not checked",
    ),
    key(
        "auth.leeway",
        Kind::Duration(0, 600_000),
        "\"5s\"",
        "clock difference forgiven on exp and nbf",
    ),
    key(
        "admission.connections_max",
        Kind::Whole(0, 10_000_000),
        "0",
        "viewers this node holds; 0 = what the descriptors allow",
    ),
    key(
        "admission.handshakes_max",
        Kind::Whole(1, 1_000_000),
        "1024",
        "connections that have not finished their first request",
    ),
    key(
        "admission.handshake_timeout",
        Kind::Duration(100, 300_000),
        "\"5s\"",
        "time for it",
    ),
    key(
        "admission.accepts_per_s",
        Kind::Whole(0, 1_000_000),
        "0",
        "new viewers per second; 0 = off",
    ),
    key(
        "admission.accept_burst",
        Kind::Whole(0, 1_000_000),
        "0",
        "at once; 0 = accepts_per_s",
    ),
    key(
        "admission.per_address_max",
        Kind::Whole(0, 10_000_000),
        "0",
        "viewers per client address; 0 = off",
    ),
    key(
        "admission.trusted_proxies",
        Kind::List,
        "[]",
        "addresses or ranges (10.0.0.0/8) whose X-Forwarded-For is believed",
    ),
    key(
        "heartbeat.interval",
        Kind::Duration(1000, 3_600_000),
        "\"30s\"",
        "silent for one: pinged; for two: closed (4408)",
    ),
    key(
        "limits.head_bytes_max",
        Kind::Size(1024, 60 * 1024),
        "\"8KiB\"",
        "request line and headers",
    ),
    key(
        "limits.body_bytes_max",
        Kind::Size(1024, 16 << 20),
        "\"64KiB\"",
        "HTTP body",
    ),
    key(
        "limits.message_bytes_max",
        Kind::Size(256, 1 << 20),
        "\"16KiB\"",
        "WebSocket message",
    ),
    key(
        "limits.text_bytes_max",
        Kind::Size(1, 64 * 1024),
        "1024",
        "text of a line",
    ),
    key(
        "limits.body_timeout",
        Kind::Duration(100, 300_000),
        "\"10s\"",
        "time for an HTTP body",
    ),
    key(
        "limits.connections_per_user_max",
        Kind::Whole(0, 10_000),
        "0",
        "connections of one login, on all nodes; the newest stay, the oldest is closed with 4008; 0 = any number",
    ),
    key(
        "limits.rooms_per_connection_max",
        Kind::Whole(1, 1024),
        "16",
        "rooms one connection may be in",
    ),
    key(
        "limits.lines_per_s",
        Kind::Whole(0, 1_000_000),
        "5",
        "per connection and per user; 0 = off",
    ),
    key(
        "limits.line_burst",
        Kind::Whole(1, 1_000_000),
        "10",
        "at once",
    ),
    key(
        "limits.room_lines_per_s",
        Kind::Whole(0, 1_000_000),
        "0",
        "per room; 0 = off",
    ),
    key(
        "rooms.access",
        ACCESS,
        "\"public\"",
        "public, login (any token) or private (a token that names the room)",
    ),
    key(
        "rooms.history_lines",
        Kind::Whole(0, 100_000),
        "100",
        "lines kept for history and resume",
    ),
    key(
        "rooms.log_bytes_max",
        Kind::Size(16 * 1024, 1 << 30),
        "\"256KiB\"",
        "room log on each shard, and history",
    ),
    key(
        "rooms.tick",
        Kind::Tick,
        "\"auto\"",
        "when lines go out: auto, or gathered for so long (\"100ms\")",
    ),
    key(
        "rooms.deliver_per_s_max",
        Kind::Whole(0, 1_000_000),
        "0",
        "lines per second each viewer is sent; above it the crowd's lines are chosen by chance; 0 = all",
    ),
    key(
        "rooms.idle_after",
        Kind::Duration(1000, 30 * DAY_MS),
        "\"5m\"",
        "without a member or a line: the room is forgotten",
    ),
    key(
        "slow.policy",
        Kind::Word(&["drop", "close"]),
        "\"drop\"",
        "a viewer that fell behind the room: told what it missed, or closed (4413)",
    ),
    key(
        "slow.outbox_bytes_max",
        Kind::Size(4096, 16 << 20),
        "\"64KiB\"",
        "control bytes waiting for one viewer",
    ),
    key(
        "slow.stuck_timeout",
        Kind::Duration(100, 600_000),
        "\"10s\"",
        "a viewer that takes nothing for so long is closed (4413)",
    ),
    key(
        "slow.unsent_bytes_max",
        Kind::Size(0, 16 << 20),
        "\"128KiB\"",
        "bytes the kernel takes for one viewer beyond what is on its way (Linux); 0 = the kernel's own measure; needs a restart",
    ),
    key(
        "overload.lag",
        Kind::Duration(10, 60_000),
        "\"500ms\"",
        "lines so late are too late: from here on the node gives things up, see OPERATIONS",
    ),
    key(
        "overload.memory_max",
        Kind::Size(0, 1 << 50),
        "0",
        "memory the process may have; 0 = what the machine or its control group has",
    ),
    key(
        "drain.batch",
        Kind::Whole(1, 10_000_000),
        "10000",
        "viewers closed per interval",
    ),
    key(
        "drain.interval",
        Kind::Duration(1, 600_000),
        "\"2s\"",
        "between batches",
    ),
    key(
        "drain.deadline",
        Kind::Duration(0, DAY_MS),
        "\"60s\"",
        "whoever is left then is cut",
    ),
    key(
        "events.stream_max",
        Kind::Whole(0, 1_000_000_000),
        "100000",
        "entries of the stream live:events in Redis: joins, leaves, lines, events, moderation; 0 = none",
    ),
    key(
        "kafka.brokers",
        Kind::Text,
        "\"\"",
        "host:port,host:port: what happens goes there too; needs a build with the cargo feature kafka",
    ),
    key(
        "kafka.topic",
        Kind::Text,
        "\"danmaku-events\"",
        "the topic, keyed by room",
    ),
    key(
        "kafka.options",
        Kind::List,
        "[]",
        "librdkafka's own settings, like \"linger.ms=50\"",
    ),
    key(
        "redis.url",
        Kind::Text,
        "\"\"",
        "redis://[user:password@]host[:port][,host[:port]][/db]: joins several nodes; empty: one node by itself",
    ),
    key(
        "redis.cluster",
        Kind::Flag,
        "false",
        "the servers of redis.url belong to a Redis Cluster; else they are one Redis and its replicas",
    ),
    key(
        "redis.lease",
        Kind::Duration(1000, 3_600_000),
        "\"15s\"",
        "a node not heard of for so long counts as gone",
    ),
    key(
        "log.level",
        Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        "\"info\"",
        "error, warn, info, debug or trace",
    ),
    key(
        "log.format",
        Kind::Word(&["plain", "json"]),
        "\"plain\"",
        "plain or json, to standard error",
    ),
    key(
        "log.access_sample",
        Kind::Share,
        "0.01",
        "share of requests in the access log",
    ),
];

/// An array of tables.
#[derive(Clone, Copy, Debug)]
pub struct Array {
    /// `auth.keys`.
    pub path: &'static str,
    /// Its keys, with empty defaults where one must be given.
    pub keys: &'static [Key],
    /// For the annotated file: an example, commented out.
    pub example: &'static str,
}

/// Every array of tables.
pub const ARRAYS: &[Array] = &[
    Array {
        path: "auth.keys",
        keys: &[
            key("kid", Kind::Text, "", "key id in a token's header"),
            key(
                "algorithm",
                Kind::Word(&["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"]),
                "",
                "the one algorithm of this key",
            ),
            key("secret", Kind::Text, "\"\"", "for HS: at least 32 bytes"),
            key("secret_file", Kind::Text, "\"\"", "for HS: a file with it"),
            key(
                "public_key_file",
                Kind::Text,
                "\"\"",
                "for the others: a PEM file",
            ),
        ],
        example: "# [[auth.keys]]\n# kid = \"k1\"\n# algorithm = \"HS256\"        # or HS384, HS512, RS256, ES256, EdDSA\n# secret = \"at least 32 random bytes\"   # or secret_file = \"...\", public_key_file = \"...\"\n",
    },
    Array {
        path: "api_keys",
        keys: &[
            key("name", Kind::Text, "", "name in logs"),
            key("key", Kind::Text, "\"\"", "at least 16 bytes"),
            key("key_file", Kind::Text, "\"\"", "a file with it"),
        ],
        example: "# [[api_keys]]\n# name = \"backend\"\n# key = \"at least 16 random bytes\"       # or key_file = \"...\"\n",
    },
    Array {
        path: "rooms.class",
        keys: &[
            key(
                "match",
                Kind::Text,
                "",
                "a room id, or a prefix ending in *",
            ),
            key("access", ACCESS, "", ""),
            key("history_lines", Kind::Whole(0, 100_000), "", ""),
            key("log_bytes_max", Kind::Size(16 * 1024, 1 << 30), "", ""),
            key("tick", Kind::Tick, "", ""),
            key("deliver_per_s_max", Kind::Whole(0, 1_000_000), "", ""),
            key("idle_after", Kind::Duration(1000, 30 * DAY_MS), "", ""),
        ],
        example: "# [[rooms.class]]           # rooms that differ; the first match wins\n# match = \"vip-*\"\n# access = \"private\"\n",
    },
];

impl Kind {
    /// What a person may write.
    pub fn allowed(self) -> String {
        match self {
            Kind::Address => "an address with port, like \"127.0.0.1:8080\"".into(),
            Kind::Whole(0, 0) => "0: this version has nothing else yet".into(),
            Kind::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Size(min, max) => {
                format!("bytes from {min} to {max}, like \"64KiB\" or 65536")
            }
            Kind::Duration(min, max) => format!(
                "a duration from {} to {}, like \"500ms\", \"30s\" or \"5m\"",
                show_ms(min),
                show_ms(max)
            ),
            Kind::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                words.join(", ")
            }
            Kind::Text => "a text".into(),
            Kind::Flag => "true or false".into(),
            Kind::List => "a list of texts".into(),
            Kind::Share => "a number from 0.0 to 1.0".into(),
            Kind::Tick => "\"auto\", or a duration from 0ms to 10s".into(),
        }
    }
}

/// Milliseconds as a person writes them.
pub fn show_ms(ms: u64) -> String {
    match ms {
        ms if ms > 0 && ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms > 0 && ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// The nearest of some names, if it is near enough to have been meant.
pub fn did_you_mean<'a>(found: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::jaro_winkler(found, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
