//! The command line: its flags, and what a report may repeat of them. [`prepare`] makes a run of them.

mod prepare;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::plan::Via;
use crate::scenario::{Options, Scenario};

pub use prepare::Ready;

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
    /// Rooms [idle: 0, viewers enter none; room, slow: 1; push: 10; storm: 21; mixed: 200; rooms: 1000]
    #[arg(long, value_name = "N", help_heading = "The evening")]
    pub rooms: Option<usize>,
    /// Exponent of the rooms' popularity, 0 = all alike [rooms, mixed: 1; else 0]
    #[arg(long, value_name = "S", help_heading = "The evening")]
    pub zipf: Option<f64>,
    /// Lines per second, all together [room: 10; storm: 40; slow: 200; mixed: 200; push: 500; rooms: 1000]
    #[arg(long, value_name = "PER_S", help_heading = "The evening")]
    pub rate: Option<f64>,
    /// Lines come so many times as fast in the middle third of the run [room, rooms, push, mixed]
    #[arg(long, value_name = "FACTOR", help_heading = "The evening")]
    pub surge: Option<f64>,
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
    /// HTTP publishers (push, and gifts)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        help_heading = "The evening"
    )]
    pub publishers: usize,
    /// Rooms one HTTP push goes to, a line in each
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1000),
        help_heading = "The evening"
    )]
    pub rooms_per_push: u16,
    /// Gifts per second, by HTTP [mixed: 5; room: 0]
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

    /// Where viewers connect: ws://HOST:PORT/PATH; without it a gateway is started. Of several nodes that share their rooms one
    /// for each, apart by commas or by repeating the flag: viewers and publishers are spread over them evenly
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "The server"
    )]
    pub url: Vec<String>,
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
    /// Its internal listener, for pushes and metrics: HOST:PORT; of several nodes one for each, in the order of the URLs
    #[arg(
        long,
        value_name = "ADDR",
        value_delimiter = ',',
        help_heading = "The server"
    )]
    pub internal: Vec<String>,
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
    /// Its process, for CPU and memory; several are added up
    #[arg(
        long,
        value_name = "PID",
        value_delimiter = ',',
        conflicts_with = "spawn",
        help_heading = "The server"
    )]
    pub pid: Vec<u32>,
    /// Lines its rooms remember: a resume within them must succeed [100 for the started gateway, unless --set says otherwise]
    #[arg(long, value_name = "N", help_heading = "The server")]
    pub history: Option<u64>,
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

    /// A stretch of the run with figures of its own, like late=20s-30s; may be repeated [idle, room, rooms, slow, push, mixed]
    #[arg(long = "part", value_name = "NAME=FROM-TO", value_parser = part, help_heading = "The report")]
    pub parts: Vec<(String, Duration, Duration)>,
    /// Where to write when the first line is due, as JSON, as soon as everyone is in
    #[arg(long, value_name = "FILE", help_heading = "The report")]
    pub ready_file: Option<PathBuf>,
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

impl Cli {
    /// Everything asked for that makes two runs comparable or not.
    pub fn settings(&self, options: &Options) -> BTreeMap<String, String> {
        let mut settings = options.settings();
        for (key, value) in &self.settings {
            let shown = if is_secret(key) {
                "...".to_owned()
            } else {
                veiled(value)
            };
            settings.insert(format!("set {key}"), shown);
        }
        let cores = |cores: &[usize]| {
            let words: Vec<String> = cores.iter().map(usize::to_string).collect();
            words.join(",")
        };
        let others = [
            (
                "nodes",
                (self.url.len() > 1).then(|| self.url.len().to_string()),
            ),
            (
                "shards",
                (self.url.is_empty() && self.shards > 0).then(|| self.shards.to_string()),
            ),
            ("pin", (!self.pin.is_empty()).then(|| cores(&self.pin))),
            (
                "pin-server",
                (!self.pin_server.is_empty()).then(|| cores(&self.pin_server)),
            ),
            ("subprotocol", self.subprotocol.clone()),
            ("publish", self.publish.as_deref().map(veiled)),
        ];
        let given = others
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        settings.extend(given);
        settings
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
                _ => veiled(&argument),
            }
        })
        .collect()
}

/// A text without the secrets it may hold: the value of a setting whose key says it is one, a token, a URL's password.
pub fn veiled(text: &str) -> String {
    let text = match text.split_once('=') {
        Some((key, _)) if is_secret(key) => return format!("{key}=..."),
        Some(("--set", setting)) => match setting.split_once('=') {
            Some((key, _)) if is_secret(key) => return format!("--set={key}=..."),
            _ => text,
        },
        _ => text,
    };
    without_password(&without_token(text))
}

/// Whether a setting's key names something secret.
fn is_secret(key: &str) -> bool {
    let last = key.rsplit(['.', '_']).next().unwrap_or(key);
    key.contains('.') && ["secret", "key", "password", "token"].contains(&last)
}

/// Hides what follows `token=` in a query, or `"token":` in JSON, up to the end of the value.
fn without_token(text: &str) -> String {
    let Some(at) = text.find("token") else {
        return text.to_owned();
    };
    let (before, rest) = text.split_at(at + "token".len());
    let begins = rest.trim_start_matches(['"', ' ', ':', '=']);
    let mark = &rest[..rest.len() - begins.len()];
    if !mark.contains(['=', ':']) {
        return format!("{before}{}", without_token(rest));
    }
    let ends = begins.find(['"', '&', ' ', ',', '}']);
    let after = &begins[ends.unwrap_or(begins.len())..];
    format!("{before}{mark}...{}", without_token(after))
}

/// Hides `user:password` before the `@` of a URL.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://...{}", &rest[at..]),
        None => text.to_owned(),
    }
}

fn part(text: &str) -> Result<(String, Duration, Duration), String> {
    let parsed = || {
        let (name, span) = text.split_once('=')?;
        let (from, to) = span.split_once('-')?;
        let from = humantime::parse_duration(from).ok()?;
        let to = humantime::parse_duration(to).ok()?;
        (!name.is_empty() && from < to).then(|| (name.to_owned(), from, to))
    };
    parsed().ok_or_else(|| "NAME=FROM-TO, like late=20s-30s, times after the first line".into())
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE, like rooms.tick=50ms".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
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
    fn nothing_secret_is_left_in_settings_and_urls() {
        for (given, expected) in [
            ("auth.secret=abc", "auth.secret=..."),
            ("--set=api_keys.0.key=abc", "--set=api_keys.0.key=..."),
            ("rooms.tick=50ms", "rooms.tick=50ms"),
            ("ws://h/ws?token=abc&room=1", "ws://h/ws?token=...&room=1"),
            (r#"{"token":"abc","x":1}"#, r#"{"token":"...","x":1}"#),
            (
                "redis.url=redis://me:pw@h:1/0",
                "redis.url=redis://...@h:1/0",
            ),
            ("--tokens", "--tokens"),
            ("a token and token: x", "a token and token: ..."),
        ] {
            assert_eq!(veiled(given), expected);
        }
    }
}
