//! The `danmaku-swarm` binary: argv → plan → run → report → exit code. Everything else is the library's.
//!
//! Exit codes: 0 every promise held, 1 one did not, 2 the command line or the target was wrong, 130 interrupted.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;

use danmaku_swarm::cli::{Cli, Ready};
use danmaku_swarm::clock::unix_ms;
use danmaku_swarm::machine::machine;
use danmaku_swarm::report::{Ended, Report};
use danmaku_swarm::run::{Order, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second signal ends at once; the first is only noted.
        let armed =
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())
                .and_then(|_| signal_hook::flag::register(signal, interrupted.clone()));
        if let Err(error) = armed {
            return fail(&format!("cannot listen for signals: {error}"));
        }
    }
    let ready = match cli.prepare() {
        Ok(ready) => ready,
        Err(why) => return fail(&why),
    };
    let report = attend(&cli, ready, &interrupted);
    println!(
        "{}",
        serde_json::to_string_pretty(&report).unwrap_or_default()
    );
    match report.ended {
        Ended::Interrupted => ExitCode::from(130),
        _ if report.held() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Runs the plan with its face, and completes the report.
fn attend(cli: &Cli, mut ready: Ready, interrupted: &Arc<AtomicBool>) -> Report {
    let started_ms = unix_ms();
    let mut spawned = ready.spawned.take();
    let mut server_alive = || spawned.as_mut().is_none_or(|spawned| spawned.alive());
    let mut face = |live: &danmaku_swarm::report::live::Live| {
        if !cli.quiet {
            eprintln!("{live:?}")
        }
    };
    let mut report = run(Order {
        plan: Arc::new(ready.plan),
        server_pid: ready.server_pid,
        metrics: ready.metrics,
        interrupted: interrupted.clone(),
        server_alive: &mut server_alive,
        face: &mut face,
    });
    report.scenario = ready.options.scenario.name().to_owned();
    report.arguments = std::env::args().skip(1).collect();
    report.url = ready.url;
    report.started_ms = started_ms;
    report.machine = machine();
    report
}

fn fail(why: &str) -> ExitCode {
    eprintln!("danmaku-swarm: {why}");
    ExitCode::from(2)
}
