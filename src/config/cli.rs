//! The command line (`docs/PROTOCOL.md`), by clap. Flags win over the environment, the environment over the file.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::given::Gathered;
use super::read::ms_of;
use crate::base::identity::Role;

/// A realtime gateway for live rooms.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "danmaku",
    version,
    about,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

impl Cli {
    /// What is to be done; `serve` if nothing is said.
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// What is to be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the gateway (what happens without a word, too)
    Serve(Serve),
    /// Show it to someone: the gateway, its page, and a few thousand bots that chat
    #[cfg(feature = "demo")]
    Demo(Demo),
    /// Check the settings: every mistake at once, or the settings as they take effect
    CheckConfig(Serve),
    /// Print an annotated TOML file with every key and its default
    DefaultConfig,
    /// Print a signed token
    Token(Token),
    /// What this machine can hold, what limits it first, and the commands that mend it
    Doctor(Doctor),
    /// Print a shell's completion script
    Completions {
        /// bash, zsh, fish, elvish or powershell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

/// Flags of `serve` and `check-config`.
#[derive(Clone, Debug, Default, Args)]
pub struct Serve {
    /// Config file (TOML); also DANMAKU_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Public address (listen.public)
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Internal address (listen.internal)
    #[arg(long, value_name = "ADDR")]
    pub internal_listen: Option<String>,
    /// Reactor threads (server.shards)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub shards: Option<String>,
    /// Not available in this version: it runs as one node
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Least severe level written (log.level)
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// plain or json (log.format)
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Write one line of JSON with the addresses here, once it serves
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
}

impl Serve {
    pub(super) fn flags(&self, gathered: &mut Gathered) {
        let flags = [
            ("listen.public", "--listen", &self.listen),
            (
                "listen.internal",
                "--internal-listen",
                &self.internal_listen,
            ),
            ("server.shards", "--shards", &self.shards),
            ("redis.url", "--redis", &self.redis),
            ("log.level", "--log-level", &self.log_level),
            ("log.format", "--log-format", &self.log_format),
        ];
        for (path, flag, value) in flags {
            gathered.flag(path, flag, value.as_deref());
        }
    }
}

/// Flags of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// Config file (TOML); also DANMAKU_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Reactor threads to judge by (server.shards)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub shards: Option<String>,
    /// Try this Redis: round trip, version, eviction
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// For programs: one object on one line
    #[arg(long)]
    pub json: bool,
}

/// Flags of `demo`: its own and those of `serve`.
#[cfg(feature = "demo")]
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Bots that watch and chat
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub bots: u32,
    /// Lines a second they say, all together
    #[arg(long, value_name = "PER_S", default_value_t = 25, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub rate: u32,
    /// Gifts a minute they make
    #[arg(long, value_name = "PER_MIN", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub gifts: u32,
    /// Settings and flags of `serve`
    #[command(flatten)]
    pub serve: Serve,
}

/// Flags of `token`.
#[derive(Clone, Debug, Args)]
pub struct Token {
    /// Config file (TOML); also DANMAKU_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// User id (sub)
    #[arg(long, value_name = "U")]
    pub user: String,
    /// A room, or a prefix ending in *; may be repeated; without it every room that is not private
    #[arg(long = "room", value_name = "R")]
    pub rooms: Vec<String>,
    /// viewer, host, moderator or admin
    #[arg(long, default_value = "viewer", value_parser = role)]
    pub role: Role,
    /// Display name
    #[arg(long, value_name = "N")]
    pub name: Option<String>,
    /// How long it is good for, like 30m or 24h
    #[arg(long, default_value = "1h", value_parser = ttl_s)]
    pub ttl: u64,
}

/// A shell's completion script, for the words of this command line.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut <Cli as CommandFactory>::command(),
        "danmaku",
        &mut script,
    );
    script
}

fn role(word: &str) -> Result<Role, String> {
    Role::parse(word).ok_or_else(|| "one of viewer, host, moderator, admin".into())
}

fn ttl_s(text: &str) -> Result<u64, String> {
    match ms_of(text).map(|ms| ms / 1000) {
        Some(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("a duration of at least a second, like 30m or 24h".into()),
    }
}
