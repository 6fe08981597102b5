//! From the command line to a run: options, a target, a plan, and a gateway of its own if none is named. Mistakes say what was
//! given and what is possible.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use super::{Cli, veiled};
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
/// The gateway's `rooms.history_lines` where nothing else is set.
const HISTORY_LINES: u64 = 100;
/// How long a token is good for, seconds.
const TOKEN_S: u64 = 24 * 3600;

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
    /// The server's processes, if any are known.
    pub server_pid: Option<Vec<u32>>,
    /// Where its metrics are, one place for each node.
    pub metrics: Option<Vec<SocketAddr>>,
}

impl Cli {
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
        let mut ready = match self.url.is_empty() {
            false => self.remote(options)?,
            true => self.local(options)?,
        };
        ready.plan.parts.extend(self.parts.iter().map(as_planned));
        fd::pin(&self.pin).map_err(|error| format!("--pin {:?}: {error}", self.pin))?;
        let needs_api = ready.options.via == Via::Http && ready.options.lines_per_s > 0.0;
        if needs_api && !ready.plan.can_push() {
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
        let named = (!self.pid.is_empty()).then(|| self.pid.clone());
        ready.server_pid = ready.server_pid.or(named);
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
        let gift_rooms = [Scenario::Room, Scenario::Mixed];
        belongs(self.gifts.is_some(), "--gifts", &gift_rooms)?;
        let even = [
            Scenario::Room,
            Scenario::Rooms,
            Scenario::Push,
            Scenario::Mixed,
        ];
        belongs(self.surge.is_some(), "--surge", &even)?;
        self.check_parts()?;
        set(&mut options.viewers, self.viewers);
        set(&mut options.rooms, self.rooms);
        set(&mut options.zipf, self.zipf);
        set(&mut options.lines_per_s, self.rate);
        set(&mut options.speakers, self.speakers);
        set(&mut options.gifts_per_s, self.gifts);
        set(&mut options.surge, self.surge);
        set(&mut options.slow_share, self.slow_share);
        set(&mut options.existing, self.existing);
        set(&mut options.cuts, self.cuts);
        set(&mut options.stay, self.stay);
        set(&mut options.via, self.via);
        set(&mut options.text_bytes, self.text_bytes);
        options.duration = self.duration;
        options.ramp_per_s = self.connect_rate;
        options.pushers = self.publishers;
        options.rooms_per_push = usize::from(self.rooms_per_push);
        options.in_flight = self.in_flight;
        options.heartbeat = self.heartbeat;
        options.connect_timeout = self.connect_timeout;
        options.seed = self.seed;
        check(&options)?;
        Ok(options)
    }

    /// Parts are of a run that has none of its own, one after the other, and within it.
    fn check_parts(&self) -> Result<(), String> {
        if !self.parts.is_empty() && (self.scenario == Scenario::Storm || self.surge.is_some()) {
            return Err("--part: a storm and a surge have parts of their own".into());
        }
        let mut ended = Duration::ZERO;
        for (name, from, to) in &self.parts {
            if *from < ended || *to > self.duration {
                return Err(format!(
                    "--part {name}={from:?}-{to:?}: parts follow each other, and end within --duration {:?}",
                    self.duration
                ));
            }
            ended = *to;
        }
        Ok(())
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
        let mut plan = self.plan(&options, target);
        plan.history_lines = self.history.unwrap_or_else(|| self.history_lines());
        Ok(Ready {
            url: format!("ws://{}/ws", spawned.public),
            server_pid: Some(vec![spawned.pid]),
            metrics: Some(vec![spawned.internal]),
            spawned: Some(spawned),
            options,
            plan,
        })
    }

    /// Lines the started gateway's rooms remember: the default, unless a setting says otherwise.
    fn history_lines(&self) -> u64 {
        let about_history = |key: &str| key.starts_with("rooms.");
        if self.settings.iter().any(|(key, _)| about_history(key)) {
            return 0;
        }
        HISTORY_LINES
    }

    fn remote(&self, options: Options) -> Result<Ready, String> {
        if self.tokens && self.secret.is_none() {
            return Err(
                "--tokens needs --secret SECRET (or SWARM_SECRET), the server's HS256 key".into(),
            );
        }
        if !self.internal.is_empty() && self.internal.len() != self.url.len() {
            return Err(format!(
                "--internal names {} listeners and --url {} nodes: one for each, in the same order",
                self.internal.len(),
                self.url.len()
            ));
        }
        let resolved: Result<Vec<SocketAddr>, String> =
            self.internal.iter().map(|host| resolve(host)).collect();
        let internal = Some(resolved?).filter(|internal| !internal.is_empty());
        let mut targets = Vec::new();
        for (at, url) in self.url.iter().enumerate() {
            let api = internal.as_ref().map(|internal| internal[at]);
            targets.push(self.node(url, api)?);
        }
        let Some(first) = targets.first().cloned() else {
            return Err("--url wants a URL".into());
        };
        let mut plan = self.plan(&options, first);
        plan.targets = targets;
        plan.history_lines = self.history.unwrap_or(0);
        let shown: Vec<String> = self.url.iter().map(|url| veiled(url)).collect();
        Ok(Ready {
            url: shown.join(","),
            server_pid: None,
            metrics: internal.filter(|_| plan.dialect.is_gateway()),
            spawned: None,
            options,
            plan,
        })
    }

    /// One node, which must be there.
    fn node(&self, url: &str, internal: Option<SocketAddr>) -> Result<Target, String> {
        let (host, path) = split_url(url)?;
        let address = resolve(&host)?;
        if let Err(error) = TcpStream::connect_timeout(&address, self.connect_timeout) {
            return Err(format!(
                "nothing to test at {address}: {error}\n  start the server there, correct --url, or leave it out: then a gateway is started"
            ));
        }
        Ok(Target {
            address,
            upgrade: self.upgrade(host, path),
            api: internal.map(|address| Api {
                address,
                key: self.api_key.clone(),
            }),
            minter: self.secret.as_deref().map(minter),
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

/// A part in the plan's words.
fn as_planned((name, from, to): &(String, Duration, Duration)) -> (String, u64, u64) {
    let us = |span: &Duration| span.as_micros() as u64;
    (name.clone(), us(from), us(to))
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
        ("--surge", options.surge),
    ] {
        if !value.is_finite() || value < 0.0 {
            return Err(format!("{flag} {value}: a number of at least 0"));
        }
    }
    if options.surge == 0.0 {
        return Err("--surge 0: lines that come at no rate at all; at least a little more".into());
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
    use clap::Parser as _;

    fn parse(words: &[&str]) -> Cli {
        Cli::try_parse_from(std::iter::once("danmaku-swarm").chain(words.iter().copied())).unwrap()
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
    fn parts_follow_each_other_within_the_run() {
        let parts = |words: &[&str]| parse(&[&["room", "--duration", "30s"], words].concat());
        let good = parts(&["--part", "a=0s-10s", "--part", "b=10s-30s"]);
        assert!(good.options().is_ok());
        let planned = as_planned(&good.parts[1]);
        assert_eq!(planned, ("b".into(), 10_000_000, 30_000_000));
        for wrong in ["a=5s-31s", "b=0s-1s"] {
            let words = ["--part", "c=1s-2s", "--part", wrong];
            assert!(parts(&words).options().is_err(), "{wrong}");
        }
        let storm = parse(&["storm", "--part", "a=1s-2s"]).options();
        assert!(storm.unwrap_err().contains("parts of their own"));
        let tried = |part| Cli::try_parse_from(["danmaku-swarm", "room", "--part", part]);
        for wrong in ["a", "a=1s", "=1s-2s", "a=2s-1s", "a=x-2s"] {
            assert!(tried(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nodes_are_named_by_commas_or_one_by_one() {
        let by_commas = parse(&["room", "--url", "ws://a:1/ws,ws://b:2/ws", "--pid", "1,2"]);
        let one_by_one = parse(&["room", "--url", "ws://a:1/ws", "--url", "ws://b:2/ws"]);
        assert_eq!(by_commas.url, one_by_one.url);
        assert_eq!(by_commas.pid, [1, 2]);
        let options = Options::of(Scenario::Room);
        assert_eq!(by_commas.settings(&options)["nodes"], "2");
        let words = ["room", "--url", "ws://a/,ws://b/", "--internal", "a:1"];
        let why = parse(&words).remote(options).unwrap_err();
        assert!(why.contains("names 1 listeners and --url 2 nodes"), "{why}");
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
