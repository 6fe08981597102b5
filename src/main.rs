//! The `danmaku` binary: argv → config → the gateway → exit code. Everything else is the library's.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use danmaku_gateway::auth::mint::{MintClaims, mint};
use danmaku_gateway::base::clock::Clock;
use danmaku_gateway::config::checked::LogFormat;
use danmaku_gateway::config::cli::{self, Cli, Command, Serve, Token};
use danmaku_gateway::config::load::{Loaded, Machine, load};
use danmaku_gateway::config::show;
#[cfg(feature = "demo")]
use danmaku_gateway::demo;
use danmaku_gateway::doctor;
use danmaku_gateway::gateway::{self, Order, StartError};
use danmaku_gateway::telemetry::log;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let machine = match machine() {
        Ok(machine) => machine,
        Err(error) => return fail(&format!("no random bytes from the system: {error}"), 1),
    };
    match cli.command() {
        Command::Serve(serve) => run(serve, machine, gateway::serve),
        #[cfg(feature = "demo")]
        Command::Demo(asked) => {
            let serve = asked.serve.clone();
            run(serve, machine, |order| demo::serve(&asked, order))
        }
        Command::CheckConfig(serve) => {
            let (text, code) = show::check_config(&serve, &mut environment(), &machine);
            say(text.as_bytes());
            ExitCode::from(code)
        }
        Command::DefaultConfig => {
            say(show::default_config().as_bytes());
            ExitCode::SUCCESS
        }
        Command::Token(token) => print_token(token, &machine),
        Command::Doctor(asked) => {
            let (text, code) = doctor::examine(&asked, &mut environment(), &machine);
            say(text.as_bytes());
            ExitCode::from(code)
        }
        Command::Completions { shell } => {
            say(&cli::completions(shell));
            ExitCode::SUCCESS
        }
    }
}

/// Settings, log, and then what is to be served.
fn run(
    serve: Serve,
    machine: Machine,
    body: impl FnOnce(Order) -> Result<(), StartError>,
) -> ExitCode {
    let loaded = match load(&serve, &mut environment(), &machine) {
        Ok(loaded) => loaded,
        Err(mistakes) => return fail(&mistakes.to_string(), 2),
    };
    if let Err(error) = gateway::preflight(loaded.config.server.shards) {
        return fail(&error.to_string(), 1);
    }
    let settings = &loaded.config.log;
    let format = match settings.format {
        LogFormat::Plain => log::Format::Plain,
        LogFormat::Json => log::Format::Json,
    };
    let guard = match log::init(settings.level, format) {
        Ok(guard) => guard,
        Err(error) => return fail(&error.to_string(), 1),
    };
    let order = Order {
        ready_file: serve.ready_file.clone(),
        log: guard.handle(),
        reload: Box::new(move || reload(&serve, &machine)),
        loaded,
    };
    match body(order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), 1),
    }
}

fn reload(serve: &Serve, machine: &Machine) -> Result<Loaded, String> {
    load(serve, &mut environment(), machine).map_err(|mistakes| mistakes.to_string())
}

fn print_token(token: Token, machine: &Machine) -> ExitCode {
    let serve = Serve {
        config: token.config,
        ..Serve::default()
    };
    let loaded = match load(&serve, &mut environment(), machine) {
        Ok(loaded) => loaded,
        Err(mistakes) => return fail(&mistakes.to_string(), 2),
    };
    let mut auth = loaded.config.auth;
    if loaded.generated_secret {
        // A token signed with a key of this moment would be good for nothing.
        auth.keys.clear();
    }
    let claims = MintClaims {
        user: &token.user,
        name: token.name.as_deref(),
        rooms: &token.rooms,
        role: token.role,
        ttl_s: token.ttl,
        now_unix_s: Clock::start().now().unix_s(),
    };
    match mint(&auth, &claims) {
        Ok(token) => {
            say(format!("{token}\n").as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string(), 2),
    }
}

/// Our part of the environment; what is no UTF-8 elsewhere in it is none of our business.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .filter(|(name, _)| name.starts_with("DANMAKU_"))
}

fn machine() -> Result<Machine, getrandom::Error> {
    let mut random = [0; 64];
    getrandom::fill(&mut random)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Machine { cores, random })
}

/// To standard output. One that was closed (`| head`) is no failure worth a word.
fn say(text: &[u8]) {
    let _ = std::io::stdout().write_all(text);
}

fn fail(why: &str, code: u8) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(code)
}
