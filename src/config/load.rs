//! Loading: file, environment and flags into one checked [`Config`], or every mistake at once. Main thread, at start and on
//! reload.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use redis::IntoConnectionInfo;

use super::checked::*;
use super::cli::Serve;
use super::credentials::{api_keys, keys, missing_as, reader};
use super::given::{Entry, Gathered, Given, Mistake, Raw};
use super::keys::{ARRAYS, KEYS};
use super::read::{Reader, ms_of};
use super::redis_url;
use crate::base::identity::Access;

/// What the machine brings.
pub struct Machine {
    /// Cores, for `server.shards = 0`.
    pub cores: usize,
    /// Random bytes: a signing secret, an API key and a node name for this run.
    pub random: [u8; 64],
}

/// Settings that hold.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Checked.
    pub config: Config,
    /// What a person should know about them.
    pub notes: Vec<String>,
    /// No key was configured: one was made for this run.
    pub generated_secret: bool,
    /// No API key was configured: this one was made for this run.
    pub generated_api_key: Option<String>,
}

/// Every mistake.
#[derive(Clone, Debug)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            writeln!(f, "{mistake}\n")?;
        }
        let count = self.0.len();
        let s = if count == 1 { "" } else { "s" };
        write!(f, "{count} mistake{s} in the settings")
    }
}

/// Loads the settings.
///
/// # Errors
/// Every mistake there is, each with place, key, what was found and what is allowed.
pub fn load(
    cli: &Serve,
    environment: &mut dyn Iterator<Item = (String, String)>,
    machine: &Machine,
) -> Result<Loaded, Mistakes> {
    assemble(gather(cli, environment), machine)
}

/// The same with `redis.url` taken out and given apart: for the doctor, who says more about a wrong one than that it is wrong.
pub fn load_apart_from_redis(
    cli: &Serve,
    environment: &mut dyn Iterator<Item = (String, String)>,
    machine: &Machine,
) -> (Result<Loaded, Mistakes>, Option<String>) {
    let mut gathered = gather(cli, environment);
    let url = match gathered.values.remove("redis.url") {
        Some(Given {
            raw: Raw::Text(url),
            ..
        }) if !url.is_empty() => Some(url),
        _ => None,
    };
    (assemble(gathered, machine), url)
}

fn gather(cli: &Serve, environment: &mut dyn Iterator<Item = (String, String)>) -> Gathered {
    let mut gathered = Gathered::default();
    let environment: Vec<(String, String)> = environment.collect();
    let named = environment
        .iter()
        .find(|(name, _)| name == "DANMAKU_CONFIG");
    let file = cli
        .config
        .clone()
        .or_else(|| named.map(|(_, path)| PathBuf::from(path)));
    if let Some(path) = &file {
        match std::fs::read_to_string(path) {
            Ok(text) => gathered.file(&path.display().to_string(), &text),
            Err(error) => gathered.mistakes.push(Mistake {
                place: path.display().to_string(),
                key: if cli.config.is_some() {
                    "--config"
                } else {
                    "DANMAKU_CONFIG"
                }
                .into(),
                found: error.to_string(),
                allowed: "a TOML file that can be read".into(),
                hint: Some(unreadable_hint(error.kind())),
            }),
        }
    }
    gathered.environment(&mut environment.into_iter());
    cli.flags(&mut gathered);
    gathered
}

/// What to do about a config file that could not be read.
fn unreadable_hint(kind: std::io::ErrorKind) -> String {
    use std::io::ErrorKind;
    match kind {
        ErrorKind::PermissionDenied => "let the user that runs the gateway read it (and enter its folders): chgrp and chmod g+r",
        ErrorKind::IsADirectory => "name the file in it",
        ErrorKind::InvalidData => "save it as UTF-8 text",
        _ => "`danmaku default-config > danmaku.toml` writes one",
    }
    .into()
}

fn assemble(mut gathered: Gathered, machine: &Machine) -> Result<Loaded, Mistakes> {
    let mut mistakes = std::mem::take(&mut gathered.mistakes);
    let keys = keys(&gathered, &mut mistakes);
    let api_keys = api_keys(&gathered, &mut mistakes);
    let classes_given = gathered.arrays.remove("rooms.class").unwrap_or_default();
    let mut reader = Reader {
        keys: KEYS,
        above: String::new(),
        given: &gathered.values,
        mistakes: &mut mistakes,
    };
    let mut config = plain(&mut reader, machine);
    config.auth.keys = keys;
    config.api_keys = api_keys;
    open_defaults(&mut reader, &mut config);
    cross_check(&mut reader, &config);
    for entry in &classes_given {
        let class = class(entry, &config.rooms.default, reader.mistakes);
        config.rooms.classes.extend(class);
    }
    if !mistakes.is_empty() {
        return Err(Mistakes(mistakes));
    }
    Ok(with_keys_of_this_run(config, machine))
}

/// No keys: some are made, for this run only.
fn with_keys_of_this_run(mut config: Config, machine: &Machine) -> Loaded {
    let mut notes = Vec::new();
    let generated_secret = config.auth.keys.is_empty();
    if generated_secret {
        config.auth.keys.push(KeySpec {
            kid: "run".into(),
            algorithm: Algorithm::Hs256,
            material: KeyMaterial::Secret(machine.random[..32].to_vec()),
        });
        notes.push("no auth.keys: tokens are signed with a key made for this run; set DANMAKU_AUTH__SECRET to keep one".into());
    }
    let generated_api_key = config
        .api_keys
        .is_empty()
        .then(|| hex(&machine.random[32..48]));
    if let Some(key) = &generated_api_key {
        config.api_keys.push(ApiKey {
            name: "run".into(),
            key: key.clone(),
        });
        notes
            .push("no api_keys: one was made for this run; set DANMAKU_API_KEY to keep one".into());
    }
    Loaded {
        config,
        notes,
        generated_secret,
        generated_api_key,
    }
}

fn plain(r: &mut Reader<'_>, machine: &Machine) -> Config {
    let shards = match r.number("server.shards") as usize {
        0 => machine.cores.clamp(1, 256),
        shards => shards,
    };
    let accepts_per_s = r.number("admission.accepts_per_s") as u32;
    Config {
        listen: Listen {
            public: r.address("listen.public"),
            internal: r.address("listen.internal"),
        },
        server: Server {
            shards,
            fd_tables: match r.text("server.fd_tables").as_str() {
                "shared" => FdTables::Shared,
                _ => FdTables::PerShard,
            },
            node: node_name(r, machine),
            address: short_text(r, "server.address", 256),
            region: short_text(r, "server.region", 64),
            demo_page: r.is_set("server.demo_page"),
            compression: r.is_set("server.compression"),
        },
        auth: Auth {
            anonymous: match r.text("auth.anonymous").as_str() {
                "watch" => Anonymous::Watch,
                "speak" => Anonymous::Speak,
                _ => Anonymous::Deny,
            },
            origins: origins(r),
            issuer: r.text_given("auth.issuer"),
            audience: r.text_given("auth.audience"),
            leeway_s: r.number("auth.leeway").div_ceil(1000),
            keys: Vec::new(),
        },
        api_keys: Vec::new(),
        admission: Admission {
            connections_max: r.number("admission.connections_max") as usize,
            handshakes_max: r.number("admission.handshakes_max") as usize,
            handshake_timeout_ms: r.number("admission.handshake_timeout"),
            accepts_per_s,
            accept_burst: match r.number("admission.accept_burst") as u32 {
                0 => accepts_per_s,
                burst => burst,
            },
            per_address_max: r.number("admission.per_address_max") as u32,
            trusted_proxies: proxies(r),
        },
        heartbeat: Heartbeat {
            interval_ms: r.number("heartbeat.interval"),
        },
        limits: Limits {
            head_bytes_max: r.number("limits.head_bytes_max") as usize,
            body_bytes_max: r.number("limits.body_bytes_max") as usize,
            message_bytes_max: r.number("limits.message_bytes_max") as usize,
            text_bytes_max: r.number("limits.text_bytes_max") as usize,
            body_timeout_ms: r.number("limits.body_timeout"),
            connections_per_user_max: r.number("limits.connections_per_user_max") as usize,
            rooms_per_connection_max: r.number("limits.rooms_per_connection_max") as usize,
            lines_per_s: r.number("limits.lines_per_s") as u32,
            line_burst: r.number("limits.line_burst") as u32,
            room_lines_per_s: r.number("limits.room_lines_per_s") as u32,
        },
        rooms: Rooms {
            default: RoomClass {
                access: access(&r.text("rooms.access")),
                history_lines: r.number("rooms.history_lines") as usize,
                log_bytes_max: r.number("rooms.log_bytes_max") as usize,
                tick: tick(&r.text("rooms.tick")),
                deliver_per_s_max: r.number("rooms.deliver_per_s_max") as u32,
                idle_after_ms: r.number("rooms.idle_after"),
            },
            classes: Vec::new(),
        },
        slow: Slow {
            policy: match r.text("slow.policy").as_str() {
                "close" => SlowPolicy::Close,
                _ => SlowPolicy::Drop,
            },
            outbox_bytes_max: r.number("slow.outbox_bytes_max") as usize,
            stuck_timeout_ms: r.number("slow.stuck_timeout"),
            unsent_bytes_max: r.number("slow.unsent_bytes_max") as u32,
        },
        overload: Overload {
            lag_ms: r.number("overload.lag"),
            memory_max: r.number("overload.memory_max"),
        },
        drain: Drain {
            batch: r.number("drain.batch") as usize,
            interval_ms: r.number("drain.interval"),
            deadline_ms: r.number("drain.deadline"),
        },
        redis: match r.text("redis.url") {
            url if url.is_empty() => None,
            url => Some(Redis {
                url,
                is_cluster: r.is_set("redis.cluster"),
                lease_ms: r.number("redis.lease"),
            }),
        },
        events: Events {
            stream_max: r.number("events.stream_max"),
        },
        kafka: kafka(r),
        log: Log {
            level: match r.text("log.level").as_str() {
                "error" => tracing::Level::ERROR,
                "warn" => tracing::Level::WARN,
                "debug" => tracing::Level::DEBUG,
                "trace" => tracing::Level::TRACE,
                _ => tracing::Level::INFO,
            },
            format: match r.text("log.format").as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Plain,
            },
            access_sample: r.share("log.access_sample"),
        },
    }
}

fn kafka(r: &mut Reader<'_>) -> Option<Kafka> {
    let (brokers, topic) = (r.text("kafka.brokers"), r.text("kafka.topic"));
    if brokers.is_empty() {
        return None;
    }
    if !cfg!(feature = "kafka") {
        let hint = "cargo build --release --features kafka";
        let allowed = "empty: this build knows no Kafka";
        r.mistake("kafka.brokers", format!("{brokers:?}"), allowed, Some(hint));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if topic.is_empty() || topic.len() > 249 || !topic.bytes().all(plain) {
        let allowed = "1 to 249 bytes of [A-Za-z0-9_.-]";
        r.mistake("kafka.topic", format!("{topic:?}"), allowed, None);
    }
    let mut options = Vec::new();
    for option in r.list("kafka.options") {
        match option.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                options.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            _ => {
                let allowed = "a list of \"NAME=VALUE\"";
                r.mistake("kafka.options", format!("{option:?}"), allowed, None);
            }
        }
    }
    Some(Kafka {
        brokers,
        topic,
        options,
    })
}

/// A text without control characters, of at most so many bytes.
fn short_text(r: &mut Reader<'_>, path: &'static str, bytes_max: usize) -> String {
    let text = r.text(path);
    if text.len() > bytes_max || text.chars().any(char::is_control) {
        let allowed = format!("up to {bytes_max} bytes without control characters");
        r.mistake(path, format!("{text:?}"), &allowed, None);
    }
    text
}

fn node_name(r: &mut Reader<'_>, machine: &Machine) -> String {
    let node = r.text("server.node");
    if node.is_empty() {
        return hex(&machine.random[48..52]);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if node.len() > 64 || !node.bytes().all(plain) {
        let allowed = "up to 64 bytes of [A-Za-z0-9_.-]";
        r.mistake("server.node", format!("\"{node}\""), allowed, None);
    }
    node
}

fn access(word: &str) -> Access {
    Access::parse(word).unwrap_or_default()
}

fn tick(text: &str) -> Tick {
    match ms_of(text) {
        None | Some(0) => Tick::Auto,
        Some(ms) => Tick::EveryMs(ms as u32),
    }
}

fn origins(r: &mut Reader<'_>) -> Origins {
    let listed = r.list("auth.origins");
    if listed.iter().any(|origin| origin == "*") {
        return Origins::Any;
    }
    for origin in &listed {
        let good = origin.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains('/')
        });
        if !good {
            let allowed = "scheme://host or scheme://host:port, without a path, or \"*\"";
            r.mistake("auth.origins", format!("\"{origin}\""), allowed, None);
        }
    }
    match listed.is_empty() {
        true => Origins::Same,
        false => Origins::Listed(listed),
    }
}

fn proxies(r: &mut Reader<'_>) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for text in r.list("admission.trusted_proxies") {
        match net(&text) {
            Some(net) => nets.push(net),
            None => {
                let allowed = "an address, or a range like \"10.0.0.0/8\"";
                r.mistake(
                    "admission.trusted_proxies",
                    format!("\"{text}\""),
                    allowed,
                    None,
                );
            }
        }
    }
    nets
}

fn net(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    if address.to_canonical() != address {
        return None;
    }
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix_bits = prefix.unwrap_or(bits);
    (prefix_bits <= bits).then_some(IpNet {
        address,
        prefix_bits,
    })
}

/// What is open by default is open on loopback only.
fn open_defaults(r: &mut Reader<'_>, config: &mut Config) {
    let public = config.listen.public;
    let said = r.text_given("auth.anonymous").is_some();
    if !said {
        let loopback = public.ip().is_loopback();
        config.auth.anonymous = if loopback {
            Anonymous::Speak
        } else {
            Anonymous::Deny
        };
        if !loopback && config.auth.keys.is_empty() {
            r.mistake(
                "listen.public",
                format!("{public}, which others can reach, with the open defaults"),
                "a public address together with keys, or with auth.anonymous said",
                Some("set DANMAKU_AUTH__SECRET (or [[auth.keys]]), or say who may enter: DANMAKU_AUTH__ANONYMOUS=deny|watch|speak (auth.anonymous)"),
            );
        }
    }
    let internal = config.listen.internal;
    if !internal.ip().is_loopback() && config.api_keys.is_empty() {
        r.mistake(
            "listen.internal",
            format!("{internal}, which others can reach, without an API key"),
            "a public address together with api_keys",
            Some("set DANMAKU_API_KEY (or [[api_keys]])"),
        );
    }
}

fn cross_check(r: &mut Reader<'_>, config: &Config) {
    let listen = &config.listen;
    if listen.public == listen.internal && listen.public.port() != 0 {
        let found = format!("{}, which is listen.public too", listen.internal);
        r.mistake("listen.internal", found, "another address", None);
    }
    let limits = &config.limits;
    if limits.text_bytes_max > limits.message_bytes_max {
        let found = format!("{} bytes", limits.text_bytes_max);
        let allowed = format!(
            "at most limits.message_bytes_max, {} bytes",
            limits.message_bytes_max
        );
        r.mistake("limits.text_bytes_max", found, &allowed, None);
    }
    if config.rooms.default.log_bytes_max < limits.message_bytes_max {
        let found = format!("{} bytes", config.rooms.default.log_bytes_max);
        let allowed = format!(
            "at least limits.message_bytes_max, {} bytes",
            limits.message_bytes_max
        );
        r.mistake("rooms.log_bytes_max", found, &allowed, None);
    }
    if let Some(redis) = &config.redis
        && redis_url::each(&redis.url)
            .iter()
            .any(|url| url.as_str().into_connection_info().is_err())
    {
        // Not shown: a password may stand in it.
        r.mistake(
            "redis.url",
            "a text that is no such URL",
            "redis://[user:password@]host[:port][,host[:port]][/db]",
            Some("`danmaku doctor --redis URL` says what is wrong with it"),
        );
    }
}

fn class(
    entry: &Entry,
    default: &RoomClass,
    mistakes: &mut Vec<Mistake>,
) -> Option<(String, RoomClass)> {
    let array = ARRAYS.iter().find(|array| array.path == "rooms.class")?;
    let mut r = reader(array, entry, mistakes);
    let pattern = r.text("match");
    let name = pattern.strip_suffix('*').unwrap_or(&pattern);
    if !name.is_empty() && !crate::base::ids::RoomId::is_valid(name) || pattern.is_empty() {
        missing_as(
            &mut r,
            entry,
            "match",
            &format!("\"{pattern}\""),
            "a room id, or a prefix ending in *",
        );
    }
    let given = |key: &str| entry.values.contains_key(key);
    let class = RoomClass {
        access: match given("access") {
            true => access(&r.text("access")),
            false => default.access,
        },
        history_lines: r
            .number_given("history_lines")
            .map_or(default.history_lines, |n| n as usize),
        log_bytes_max: r
            .number_given("log_bytes_max")
            .map_or(default.log_bytes_max, |n| n as usize),
        tick: match given("tick") {
            true => tick(&r.text("tick")),
            false => default.tick,
        },
        deliver_per_s_max: r
            .number_given("deliver_per_s_max")
            .unwrap_or(u64::from(default.deliver_per_s_max)) as u32,
        idle_after_ms: r
            .number_given("idle_after")
            .unwrap_or(default.idle_after_ms),
    };
    Some((pattern, class))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
