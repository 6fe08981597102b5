//! The `danmaku-swarm` binary: argv → plan → run → report → exit code. Everything else is the library's.
//!
//! Exit codes: 0 every promise held, 1 one did not, 2 the command line, the target or a file was wrong, 130 interrupted.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use danmaku_swarm::cli::{Cli, Ready, shown};
use danmaku_swarm::clock::unix_ms;
use danmaku_swarm::machine::machine;
use danmaku_swarm::report::compare::compare;
use danmaku_swarm::report::live::Live;
use danmaku_swarm::report::table::table;
use danmaku_swarm::report::{Ended, Report, file};
use danmaku_swarm::run::{Order, Stop, run};
use danmaku_swarm::ui::{Face, Style};

/// Width where nothing says how wide the terminal is.
const WIDTH: usize = 100;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match attend(&cli) {
        Ok(Report {
            ended: Ended::Interrupted,
            ..
        }) => ExitCode::from(130),
        Ok(report) if report.held() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("danmaku-swarm: {why}");
            ExitCode::from(2)
        }
    }
}

/// The whole visit: what must be there is looked at first, then the run, then what is told of it.
fn attend(cli: &Cli) -> Result<Report, String> {
    // Read before the run, so that a wrong name is not found out after ten minutes.
    let old = match &cli.compare {
        Some(path) => Some(file::read_json(path).map_err(|error| error.to_string())?),
        None => None,
    };
    let stop = on_ctrl_c()?;
    let report = visit(cli, cli.prepare()?, stop);
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut text = table(&report, WIDTH, coloured);
    if let Some(old) = &old {
        text.push_str(&compare(&report, old).text(WIDTH, coloured));
    }
    // A closed standard output is no reason not to write the files.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if let Some(path) = &cli.json {
        file::write_json(path, &report).map_err(|error| error.to_string())?;
    }
    if let Some(path) = &cli.html {
        file::write_html(path, &report, old.as_ref()).map_err(|error| error.to_string())?;
    }
    Ok(report)
}

/// The run itself, with its face.
fn visit(cli: &Cli, mut ready: Ready, stop: Arc<Stop>) -> Report {
    let started_ms = unix_ms();
    let mut spawned = ready.spawned.take();
    let mut server_alive = || spawned.as_mut().is_none_or(|spawned| spawned.alive());
    let mut face = Face::new(match (cli.quiet, cli.plain) {
        (true, _) => Style::Quiet,
        (_, true) => Style::Plain,
        _ => Style::Auto,
    });
    let settings = cli.settings(&ready.options);
    let mut begins = cli.ready_file.as_deref();
    let mut report = run(Order {
        plan: Arc::new(ready.plan),
        server_pid: ready.server_pid,
        metrics: ready.metrics,
        stop,
        server_alive: &mut server_alive,
        face: &mut |live: &Live| {
            if let (Some(path), Some(begins_in)) = (begins, live.begins_in) {
                begins = None;
                if let Err(error) = write_ready(path, begins_in) {
                    eprintln!("danmaku-swarm: --ready-file {}: {error}", path.display());
                }
            }
            face.show(live);
        },
    });
    face.finish();
    if let (Ended::Failed(why), Some(spawned)) = (&mut report.ended, &mut spawned)
        && !spawned.alive()
    {
        why.push_str(&format!("; its last words:\n{}", spawned.log()));
    }
    report.scenario = ready.options.scenario.name().to_owned();
    report.arguments = shown(std::env::args().skip(1));
    report.settings = settings;
    report.url = ready.url;
    report.started_ms = started_ms;
    report.machine = machine();
    report
}

/// Says when the first line is due, to who waits for the file: it is there as a whole or not at all.
fn write_ready(path: &Path, begins_in: Duration) -> std::io::Result<()> {
    let begins_ms = unix_ms() + begins_in.as_millis() as u64;
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, format!("{{\"run_begins_ms\":{begins_ms}}}\n"))?;
    std::fs::rename(&unfinished, path)
}

/// The first Ctrl-C ends the run with a report of what was done and arrives, a second one without waiting for more. A
/// gateway that was started is ended either way.
fn on_ctrl_c() -> Result<Arc<Stop>, String> {
    let stop = Arc::new(Stop::default());
    let asked = Arc::clone(&stop);
    let failed = |error| format!("cannot listen for signals: {error}");
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let listen = move || signals.forever().for_each(|_| asked.ask());
    let named = std::thread::Builder::new().name("signals".into());
    named.spawn(listen).map_err(failed)?;
    Ok(stop)
}
