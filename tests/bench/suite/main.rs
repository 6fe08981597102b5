//! The bench suite: `scripts/bench.sh` builds and runs it. It starts servers and swarms, reads the swarm's reports, and holds
//! what they say against bounds; it measures nothing itself.
//!
//! ```text
//! main     the command line, case by case
//! cases    the table: what is run, what is read out of it, what it must be
//! peak     the search for the highest rate without loss
//! nodes    several nodes at work; hurt: nodes that die, a Redis that stands still; dashboard: who looks on
//! cluster  a Redis and its nodes; crowd: viewers that the suite holds itself
//! drive    one run: a server, a swarm, a report, bounded in time
//! results  what was found: the JSON file, medians and verdicts
//! page     RESULTS.md; plot: peak.svg
//! ```

mod cases;
mod cluster;
mod course;
mod crowd;
mod dashboard;
mod drive;
mod hurt;
mod nodes;
mod page;
mod peak;
mod plot;
mod results;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use cases::{Case, Kind, Size, TABLE};
use drive::Drive;
use peak::Found;
use results::{Done, Results, Session};

/// What was asked for.
struct Asked {
    size: Size,
    out: PathBuf,
    profile: String,
    cases: Vec<&'static Case>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = parse(&words).and_then(|asked| attend(&asked));
    match done {
        Ok(code) => code,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::from(2)
        }
    }
}

fn parse(words: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        size: Size::default(),
        out: PathBuf::from("docs/bench"),
        profile: "release".into(),
        cases: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next().cloned();
            value.ok_or_else(|| format!("{word} wants a value; see --help"))
        };
        match word.as_str() {
            "--quick" => asked.size.quick = true,
            "--long" => asked.size.long = true,
            "--rounds" => asked.size.rounds = Some(rounds(&value()?)?),
            "--out" => asked.out = value()?.into(),
            "--profile" => asked.profile = value()?,
            name => {
                let case = TABLE.iter().find(|case| case.name == name);
                let unknown = || format!("no case or option is called {name}; see --help");
                asked.cases.push(case.ok_or_else(unknown)?);
            }
        }
    }
    if asked.cases.is_empty() {
        let usual = |case: &&Case| !matches!(case.kind, Kind::Named(_));
        asked.cases = TABLE.iter().filter(usual).collect();
    }
    Ok(asked)
}

fn rounds(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rounds @ 1..=99) => Ok(rounds),
        _ => Err(format!("--rounds {text}: from 1 to 99")),
    }
}

/// Runs the cases and writes after each of them, so that an hour is not lost to the last one. 0 all bounds held, 1 one did
/// not, 2 a case could not be measured.
fn attend(asked: &Asked) -> Result<ExitCode, String> {
    let session = Session::now(asked.size.quick)?;
    let mut results = Results::read(&asked.out)?.of_machine(&session.machine);
    let drive = Drive::new()?;
    if session.load > 0.5 && !asked.size.quick {
        eprintln!(
            "bench: others are at work here (load average {:.1}): these figures will not repeat",
            session.load
        );
    }
    let mut found = Found::default();
    let mut worst = 0;
    for case in &asked.cases {
        eprintln!("bench: {}: {}", case.name, case.work);
        let mut done = Done::of(case, &session);
        if let Err(why) = run(case, asked, &drive, &mut found, &mut done) {
            eprintln!("bench: {}: {why}", case.name);
            done.failed = Some(why);
        }
        worst = worst.max(done.exit_code());
        let disturbed = done.runs.iter().filter(|run| !run.undisturbed()).count();
        if disturbed > 0 {
            eprintln!(
                "bench:   others used the machine during {disturbed} of {} runs",
                done.runs.len()
            );
        }
        for figure in &done.figures {
            eprintln!("bench:   {}", page::sentence(figure));
        }
        results.put(done);
        results.write(&asked.out)?;
    }
    Ok(ExitCode::from(worst))
}

fn run(
    case: &Case,
    asked: &Asked,
    drive: &Drive,
    found: &mut Found,
    done: &mut Done,
) -> Result<(), String> {
    match &case.kind {
        Kind::Rounds(course) => course::rounds(&course(asked.size), drive, done),
        Kind::Peak(ladder) => peak::peak(case.name, &ladder(asked.size), drive, found, done),
        Kind::Overload(ladder) => {
            let peak = found.peak_or_search(&ladder(asked.size), drive, done)?;
            course::rounds(&cases::overload(asked.size, peak), drive, done)
        }
        Kind::Nodes(course) | Kind::Named(course) => course(asked.size, drive, done),
        Kind::Micro(benches) => micro(benches, asked, done),
    }
}

/// The micro-benches, each with its instruction counts.
fn micro(benches: &[&str], asked: &Asked, done: &mut Done) -> Result<(), String> {
    for bench in benches {
        let table = drive::scratch(&format!("{bench}.tsv"))?;
        let mut cargo = Command::new("cargo");
        cargo
            .args([
                "bench",
                "--locked",
                "--quiet",
                "--profile",
                &asked.profile,
                "--bench",
                bench,
            ])
            .args(["--", "--instructions", "--table"])
            .arg(&table)
            .args(asked.size.quick.then_some("--quick"));
        let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
        if !status.success() {
            return Err(format!("the micro-bench {bench} failed; see above"));
        }
        let text = std::fs::read_to_string(&table).map_err(|error| error.to_string())?;
        done.micro
            .extend(text.lines().filter_map(results::Micro::parse));
    }
    Ok(())
}
