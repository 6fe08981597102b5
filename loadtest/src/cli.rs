//! The command line: flags to options, a target and a plan. Mistakes say what was given and what is possible.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use crate::client::upgrade::Upgrade;
use crate::clock::{fresh_seed, unix_ms};
use crate::dialect::Dialect;
use crate::fd;
use crate::plan::{Api, Minter, Plan, Target, Via};
use crate::scenario::{Options, Scenario};
use crate::spawn::{self, Spawned, Wanted};
use crate::voice::Voice;

/// Descriptors a thread keeps for other things than viewers.
const DESCRIPTORS_KEPT: u64 = 200;
/// How long a token is good for, seconds.
const TOKEN_S: u64 = 24 * 3600;

/// Load-tests a danmaku gateway (or another WebSocket server) and checks every line.
///
/// Without --url it starts a gateway of its own, beside this program, with limits out of the way, and ends it afterwards.
#[derive(Clone, Debug, Parser)]
#[command(name = "danmaku-swarm", version)]
pub struct Cli {
    /// What kind of evening it is
    #[arg(value_enum)]
    pub scenario: Scenario,

    /// Clients in all [idle, room, rooms, mixed: 10000; storm: 15000; push: 1000; slow: 500]
    #[arg(long, value_name = "N", help_heading = "The evening")]
    pub viewers: Option<usize>,
    /// Rooms [idle: 0, viewers enter none; room, slow: 1; push: 10; storm: 100; mixed: 200; rooms: 1000]
    #[arg(long, value_name = "N", help_heading = "The evening")]
    pub rooms: Option<usize>,
    /// Exponent of the rooms' popularity, 0 = all alike [rooms, mixed: 1; else 0]
    #[arg(long, value_name = "S", help_heading = "The evening")]
    pub zipf: Option<f64>,
    /// Lines per second, all together [room: 10; storm: 20; slow: 200; mixed: 200; push: 500; rooms: 1000]
    #[arg(long, value_name = "PER_S", help_heading = "The evening")]
    pub rate: Option<f64>,
    /// Bytes of text in a line [slow: 1000; else 128]
    #[arg(long, value_name = "BYTES", help_heading = "The evening")]
    pub text_bytes: Option<usize>,
    /// How long lines are spoken, like 30s or 10m; the ramp before it and the tail after it come on top
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s", help_heading = "The evening")]
    pub duration: Duration,
    /// Arrivals per second; 0 = as fast as they are admitted
    #[arg(
        long,
        value_name = "PER_S",
        default_value_t = 0.0,
        help_heading = "The evening"
    )]
    pub connect_rate: f64,
    /// Viewers that speak; 0 = all [rooms, mixed: 0; else 10]
    #[arg(long, value_name = "N", help_heading = "The evening")]
    pub speakers: Option<usize>,
    /// How lines travel [push: http; else ws]
    #[arg(long, value_enum, help_heading = "The evening")]
    pub via: Option<Via>,
    /// HTTP publishers (push, and gifts in mixed)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        help_heading = "The evening"
    )]
    pub publishers: usize,
    /// Gifts per second, by HTTP [mixed: 5; else 0]
    #[arg(long, value_name = "PER_S", help_heading = "The evening")]
    pub gifts: Option<f64>,
    /// Share of the viewers that never read [slow: 0.02]
    #[arg(long, value_name = "SHARE", help_heading = "The evening")]
    pub slow_share: Option<f64>,
    /// Viewers that are there before the storm [storm: 1000]
    #[arg(long, value_name = "N", help_heading = "The evening")]
    pub existing: Option<usize>,
    /// How often those of the storm are cut and come back [storm: 1]
    #[arg(long, value_name = "N", help_heading = "The evening")]
    pub cuts: Option<usize>,
    /// Mean stay of a viewer before it moves on [mixed: 60s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "The evening")]
    pub stay: Option<Duration>,

    /// Where viewers connect: ws://HOST:PORT/PATH; without it a gateway is started
    #[arg(long, value_name = "URL", help_heading = "The server")]
    pub url: Option<String>,
    /// Start a gateway (what happens without --url, too)
    #[arg(long, conflicts_with = "url", help_heading = "The server")]
    pub spawn: bool,
    /// The gateway to start [beside this program]
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with = "url",
        help_heading = "The server"
    )]
    pub gateway: Option<PathBuf>,
    /// Shards of the started gateway; 0 = one per core
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        conflicts_with = "url",
        help_heading = "The server"
    )]
    pub shards: usize,
    /// A setting of the started gateway, like rooms.tick=50ms; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting, conflicts_with = "url", help_heading = "The server")]
    pub settings: Vec<(String, String)>,
    /// Its internal listener, for pushes and metrics: HOST:PORT
    #[arg(long, value_name = "ADDR", help_heading = "The server")]
    pub internal: Option<String>,
    /// Its API key, for pushes
    #[arg(
        long,
        value_name = "KEY",
        env = "SWARM_API_KEY",
        hide_env_values = true,
        help_heading = "The server"
    )]
    pub api_key: Option<String>,
    /// Its HS256 secret: every viewer then comes with a token of its own
    #[arg(
        long,
        value_name = "SECRET",
        env = "SWARM_SECRET",
        hide_env_values = true,
        help_heading = "The server"
    )]
    pub secret: Option<String>,
    /// With tokens, as --secret; for the started gateway, whose secret is known [storm: yes]
    #[arg(long, help_heading = "The server")]
    pub tokens: bool,
    /// Its process, for CPU and memory
    #[arg(
        long,
        value_name = "PID",
        conflicts_with = "spawn",
        help_heading = "The server"
    )]
    pub pid: Option<u32>,
    /// Subprotocol to ask for, like danmaku.v1.batch
    #[arg(long, value_name = "NAME", help_heading = "The server")]
    pub subprotocol: Option<String>,
    /// Origin to send
    #[arg(long, value_name = "ORIGIN", help_heading = "The server")]
    pub origin: Option<String>,
    /// Another server: what a client sends once connected, with {room} and {user}
    #[arg(
        long,
        value_name = "TEXT",
        requires = "publish",
        help_heading = "Another server than the gateway"
    )]
    pub join: Option<String>,
    /// Another server: one line, with {room}, {user} and {text}
    #[arg(
        long,
        value_name = "TEXT",
        requires = "url",
        help_heading = "Another server than the gateway"
    )]
    pub publish: Option<String>,
    /// What the swarm's lines begin with inside {text}, to be found again [~swarm- and a random word]
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "Another server than the gateway"
    )]
    pub marker: Option<String>,

    /// Client threads [as many as descriptors and cores ask for]
    #[arg(long, value_name = "N", help_heading = "The swarm")]
    pub threads: Option<usize>,
    /// Connects in flight, over all threads
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        help_heading = "The swarm"
    )]
    pub in_flight: usize,
    /// The clients' own pings; 0s = none, they only answer the server's
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "25s", help_heading = "The swarm")]
    pub heartbeat: Duration,
    /// Patience with a connect
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s", help_heading = "The swarm")]
    pub connect_timeout: Duration,
    /// Cores the swarm runs on, like 1 or 1,2
    #[arg(
        long,
        value_name = "CORES",
        value_delimiter = ',',
        help_heading = "The swarm"
    )]
    pub pin: Vec<usize>,
    /// Cores the started gateway runs on
    #[arg(
        long,
        value_name = "CORES",
        value_delimiter = ',',
        conflicts_with = "url",
        help_heading = "The swarm"
    )]
    pub pin_server: Vec<usize>,
    /// Makes arrivals and choices repeatable
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        help_heading = "The swarm"
    )]
    pub seed: u64,

    /// Write the report as JSON
    #[arg(long, value_name = "FILE", help_heading = "The report")]
    pub json: Option<PathBuf>,
    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE", help_heading = "The report")]
    pub html: Option<PathBuf>,
    /// An older report to compare with
    #[arg(long, value_name = "OLD.json", help_heading = "The report")]
    pub compare: Option<PathBuf>,
    /// Nothing while it runs
    #[arg(long, help_heading = "The report")]
    pub quiet: bool,
    /// A line now and then while it runs, and no bars
    #[arg(long, conflicts_with = "quiet", help_heading = "The report")]
    pub plain: bool,
}

/// Everything a run needs.
#[derive(Debug)]
pub struct Ready {
    /// The options, for the report.
    pub options: Options,
    /// The plan.
    pub plan: Plan,
    /// The URL, for the report.
    pub url: String,
    /// The started gateway, if one was.
    pub spawned: Option<Spawned>,
    /// The server's process.
    pub server_pid: Option<u32>,
    /// Where its metrics are.
    pub metrics: Option<SocketAddr>,
}

impl Cli {
    /// Everything asked for that makes two runs comparable or not.
    pub fn settings(&self, options: &Options) -> BTreeMap<String, String> {
        let mut settings = options.settings();
        for (key, value) in &self.settings {
            settings.insert(format!("set {key}"), value.clone());
        }
        let cores = |cores: &[usize]| {
            let words: Vec<String> = cores.iter().map(usize::to_string).collect();
            words.join(",")
        };
        let others = [
            (
                "shards",
                (self.url.is_none() && self.shards > 0).then(|| self.shards.to_string()),
            ),
            ("pin", (!self.pin.is_empty()).then(|| cores(&self.pin))),
            (
                "pin-server",
                (!self.pin_server.is_empty()).then(|| cores(&self.pin_server)),
            ),
            ("subprotocol", self.subprotocol.clone()),
            ("publish", self.publish.clone()),
        ];
        let given = others
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        settings.extend(given);
        settings
    }

    /// Starts what is to be started and makes the plan.
    ///
    /// # Errors
    /// A sentence that says what was given and what is possible.
    pub fn prepare(&self) -> Result<Ready, String> {
        let options = self.options()?;
        let descriptors = fd::raise_limit();
        let options = Options {
            threads: self.threads(&options, descriptors),
            ..options
        };
        let mut ready = match &self.url {
            Some(url) => self.remote(url, options)?,
            None => self.local(options)?,
        };
        fd::pin(&self.pin).map_err(|error| format!("--pin {:?}: {error}", self.pin))?;
        let needs_api = ready.options.via == Via::Http && ready.options.lines_per_s > 0.0;
        if needs_api && ready.plan.target.api.is_none() {
            return Err(
                "pushes need --internal HOST:PORT and --api-key KEY (or SWARM_API_KEY)".into(),
            );
        }
        if !ready.plan.dialect.is_gateway()
            && matches!(self.scenario, Scenario::Push | Scenario::Mixed)
        {
            return Err(format!(
                "{} speaks the gateway's own protocol; with --publish use idle, room, rooms, slow or storm",
                ready.options.scenario.name()
            ));
        }
        ready.server_pid = ready.server_pid.or(self.pid);
        Ok(ready)
    }

    fn options(&self) -> Result<Options, String> {
        let mut options = Options::of(self.scenario);
        let scenario = options.scenario;
        let belongs = |given: bool, flag: &str, to: &[Scenario]| {
            if given && !to.contains(&scenario) {
                let names: Vec<&str> = to.iter().map(|scenario| scenario.name()).collect();
                return Err(format!(
                    "{flag} belongs to {}, not to {}",
                    names.join(" and "),
                    scenario.name()
                ));
            }
            Ok(())
        };
        belongs(self.slow_share.is_some(), "--slow-share", &[Scenario::Slow])?;
        belongs(self.existing.is_some(), "--existing", &[Scenario::Storm])?;
        belongs(self.cuts.is_some(), "--cuts", &[Scenario::Storm])?;
        belongs(self.stay.is_some(), "--stay", &[Scenario::Mixed])?;
        belongs(self.gifts.is_some(), "--gifts", &[Scenario::Mixed])?;
        set(&mut options.viewers, self.viewers);
        set(&mut options.rooms, self.rooms);
        set(&mut options.zipf, self.zipf);
        set(&mut options.lines_per_s, self.rate);
        set(&mut options.speakers, self.speakers);
        set(&mut options.gifts_per_s, self.gifts);
        set(&mut options.slow_share, self.slow_share);
        set(&mut options.existing, self.existing);
        set(&mut options.cuts, self.cuts);
        set(&mut options.stay, self.stay);
        set(&mut options.via, self.via);
        set(&mut options.text_bytes, self.text_bytes);
        options.duration = self.duration;
        options.ramp_per_s = self.connect_rate;
        options.pushers = self.publishers;
        options.in_flight = self.in_flight;
        options.heartbeat = self.heartbeat;
        options.connect_timeout = self.connect_timeout;
        options.seed = self.seed;
        check(&options)?;
        Ok(options)
    }

    /// Threads: none holds more viewers than it has descriptors, and the gateway keeps a core for each of ours.
    fn threads(&self, options: &Options, descriptors: u64) -> usize {
        let each = descriptors.saturating_sub(DESCRIPTORS_KEPT).max(1);
        let by_descriptors = (options.viewers as u64).div_ceil(each) as usize;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let by_cores = if self.pin.is_empty() {
            cores / 2
        } else {
            self.pin.len()
        };
        self.threads
            .unwrap_or(0)
            .max(by_descriptors)
            .max(if self.threads.is_some() {
                1
            } else {
                by_cores.max(1)
            })
    }

    fn local(&self, options: Options) -> Result<Ready, String> {
        let spawned = spawn::spawn(&Wanted {
            program: self.gateway.clone(),
            shards: self.shards,
            cores: self.pin_server.clone(),
            settings: self.settings.clone(),
        })?;
        let target = Target {
            address: spawned.public,
            upgrade: self.upgrade(spawned.public.to_string(), "/ws".into()),
            api: Some(Api {
                address: spawned.internal,
                key: Some(
                    self.api_key
                        .clone()
                        .unwrap_or_else(|| spawned.api_key.clone()),
                ),
            }),
            minter: (self.tokens || options.scenario == Scenario::Storm)
                .then(|| minter(&spawned.secret)),
        };
        let plan = self.plan(&options, target);
        Ok(Ready {
            url: format!("ws://{}/ws", spawned.public),
            server_pid: Some(spawned.pid),
            metrics: Some(spawned.internal),
            spawned: Some(spawned),
            options,
            plan,
        })
    }

    fn remote(&self, url: &str, options: Options) -> Result<Ready, String> {
        let (host, path) = split_url(url)?;
        let internal = self.internal.as_deref().map(resolve).transpose()?;
        let address = resolve(&host)?;
        if let Err(error) = TcpStream::connect_timeout(&address, self.connect_timeout) {
            return Err(format!(
                "nothing to test at {address}: {error}\n  start the server there, correct --url, or leave it out: then a gateway is started"
            ));
        }
        if self.tokens && self.secret.is_none() {
            return Err(
                "--tokens needs --secret SECRET (or SWARM_SECRET), the server's HS256 key".into(),
            );
        }
        let target = Target {
            address,
            upgrade: self.upgrade(host, path),
            api: internal.map(|address| Api {
                address,
                key: self.api_key.clone(),
            }),
            minter: self.secret.as_deref().map(minter),
        };
        let plan = self.plan(&options, target);
        Ok(Ready {
            url: url.to_owned(),
            server_pid: None,
            metrics: internal.filter(|_| plan.dialect.is_gateway()),
            spawned: None,
            options,
            plan,
        })
    }

    fn upgrade(&self, host: String, path: String) -> Upgrade {
        Upgrade {
            host,
            path,
            subprotocol: self.subprotocol.clone(),
            origin: self.origin.clone(),
        }
    }

    fn plan(&self, options: &Options, target: Target) -> Plan {
        let dialect = match &self.publish {
            Some(publish) => Dialect::Templates {
                join: self.join.clone(),
                publish: publish.clone(),
            },
            None => Dialect::Danmaku,
        };
        let marker = match &self.marker {
            Some(marker) => marker.clone(),
            None => format!("~swarm-{:04x}:", fresh_seed() as u16),
        };
        let bytes = options.text_bytes;
        options.plan(target, dialect, &marker, Voice::Stamped { bytes })
    }
}

fn set<T>(into: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *into = given;
    }
}

fn check(options: &Options) -> Result<(), String> {
    let share = |flag: &str, value: f64| {
        if (0.0..=1.0).contains(&value) {
            Ok(())
        } else {
            Err(format!("{flag} {value}: a share is from 0 to 1"))
        }
    };
    share("--slow-share", options.slow_share)?;
    for (flag, value) in [
        ("--rate", options.lines_per_s),
        ("--connect-rate", options.ramp_per_s),
        ("--zipf", options.zipf),
        ("--gifts", options.gifts_per_s),
    ] {
        if !value.is_finite() || value < 0.0 {
            return Err(format!("{flag} {value}: a number of at least 0"));
        }
    }
    if options.viewers == 0 || options.in_flight == 0 {
        return Err("--viewers and --in-flight are at least 1".into());
    }
    if options.rooms == 0 && options.lines_per_s > 0.0 {
        return Err("--rooms 0 is for idle: lines need a room".into());
    }
    if options.duration.is_zero() {
        return Err("--duration is longer than nothing".into());
    }
    Ok(())
}

fn minter(secret: &str) -> Arc<Minter> {
    let expires_unix_s = unix_ms() / 1000 + TOKEN_S;
    Arc::new(Minter::hs256(secret.as_bytes(), expires_unix_s))
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE, like rooms.tick=50ms".into()),
    }
}

/// Arguments as a report may show them: without what must stay secret.
pub fn shown(arguments: impl Iterator<Item = String>) -> Vec<String> {
    const SECRETS: [&str; 2] = ["--secret", "--api-key"];
    let mut hide_next = false;
    arguments
        .map(|argument| {
            if std::mem::take(&mut hide_next) {
                return "...".to_owned();
            }
            hide_next = SECRETS.contains(&argument.as_str());
            match argument.split_once('=') {
                Some((flag, _)) if SECRETS.contains(&flag) => format!("{flag}=..."),
                _ => argument,
            }
        })
        .collect()
}

/// Host with port, and path with query.
fn split_url(url: &str) -> Result<(String, String), String> {
    let Some(rest) = url.strip_prefix("ws://") else {
        return Err(format!(
            "--url {url}: ws://HOST:PORT/PATH (TLS is not spoken)"
        ));
    };
    let (host, path) = match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes()[at] == b'/' => (&rest[..at], rest[at..].to_owned()),
        Some(at) => (&rest[..at], format!("/{}", &rest[at..])),
        None => (rest, "/".to_owned()),
    };
    let port_given = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if port_given {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    Ok((host, path))
}

fn resolve(host: &str) -> Result<SocketAddr, String> {
    let mut addresses = host
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?;
    let first = addresses
        .next()
        .ok_or_else(|| format!("{host}: no address"))?;
    // IPv4 first: loopback has many source addresses only there.
    Ok(addresses
        .find(SocketAddr::is_ipv4)
        .filter(|_| first.is_ipv6())
        .unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Cli {
        Cli::try_parse_from(std::iter::once("danmaku-swarm").chain(words.iter().copied())).unwrap()
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_scenario() {
        let options = parse(&["room", "--viewers", "50", "--rate", "7"])
            .options()
            .unwrap();
        assert_eq!(
            (options.viewers, options.lines_per_s, options.speakers),
            (50, 7.0, 10)
        );
        let error = parse(&["room", "--cuts", "3"]).options().unwrap_err();
        assert_eq!(error, "--cuts belongs to storm, not to room");
        for wrong in [
            ["room", "--rate", "-1"],
            ["slow", "--slow-share", "3"],
            ["idle", "--viewers", "0"],
        ] {
            let words = [wrong[0], &format!("{}={}", wrong[1], wrong[2])];
            assert!(parse(&words).options().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_thread_has_more_viewers_than_descriptors() {
        let cli = parse(&["idle", "--viewers", "200000"]);
        let options = cli.options().unwrap();
        assert_eq!(cli.threads(&options, 20_000), 11);
        assert_eq!(
            parse(&["idle", "--threads", "3"]).threads(&Options::of(Scenario::Idle), 20_000),
            3
        );
    }

    #[test]
    fn secrets_stay_out_of_reports() {
        let words = ["room", "--secret", "a", "--api-key=b", "--viewers", "5"];
        let shown = shown(words.map(String::from).into_iter());
        assert_eq!(
            shown,
            ["room", "--secret", "...", "--api-key=...", "--viewers", "5"]
        );
    }

    #[test]
    fn urls() {
        let split = |url: &str| split_url(url).unwrap();
        assert_eq!(split("ws://a:1/ws?x=1"), ("a:1".into(), "/ws?x=1".into()));
        assert_eq!(split("ws://a"), ("a:80".into(), "/".into()));
        assert_eq!(split("ws://a:2?x"), ("a:2".into(), "/?x".into()));
        assert!(split_url("wss://a/").unwrap_err().contains("TLS"));
        assert!(split_url("http://a/").is_err());
        assert!(resolve("127.0.0.1:x").is_err());
    }
}
