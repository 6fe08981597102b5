//! What was found: sessions, runs, figures and their verdicts, as they stand in `results.json`. Fields may be added but not
//! renamed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use danmaku_swarm::machine;
use danmaku_swarm::report::Machine;
use serde::{Deserialize, Serialize};

use crate::cases::{Case, TABLE};
use crate::drive::{Setup, Taken};
use crate::{page, plot};

const FORMAT: u32 = 1;
/// Cores: what the start and end of a server, and this suite itself, come to.
pub const OTHERS_MAX: f64 = 0.15;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// Layout of the file.
    pub format: u32,
    /// Where all of it was measured.
    pub machine: Machine,
    /// In the order of the table.
    pub cases: Vec<Done>,
}

/// What is alike for all cases of one call.
#[derive(Clone, Debug)]
pub struct Session {
    pub machine: Machine,
    pub load: f64,
    built: Built,
    at_ms: u64,
    smoke: bool,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Built {
    /// Version of the package.
    pub version: String,
    /// Commit, `-dirty` if more than that.
    pub commit: String,
    /// Compiler.
    pub rustc: String,
}

/// One case, measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// Its name in the table.
    pub name: String,
    /// What it is about.
    pub work: String,
    /// Milliseconds since 1970 at which the call began that measured it.
    pub at_ms: u64,
    /// What was measured.
    pub built: Built,
    /// Load average of the machine before.
    pub load: f64,
    /// A smoke run: its figures say nothing.
    pub smoke: bool,
    /// Why it could not be measured to the end.
    pub failed: Option<String>,
    /// What it comes to.
    pub figures: Vec<Figure>,
    /// Every run of the swarm.
    pub runs: Vec<Run>,
    /// Rows of micro-benches.
    pub micro: Vec<Micro>,
    /// What else is to be said.
    pub notes: Vec<String>,
}

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// How a figure stands to its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Held,
    Missed,
    /// It has no bound, or this is a smoke run.
    #[default]
    Shown,
    /// A run did not say.
    Unknown,
}

/// One figure over all rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figure {
    pub what: String,
    pub unit: String,
    pub bound: Option<Bound>,
    /// One for each round, as measured.
    pub values: Vec<f64>,
    /// The middle one (the lower of two).
    pub median: f64,
    pub verdict: Verdict,
}

impl Figure {
    /// Judges what each round gave; a round without a value leaves it unknown.
    pub fn judge(
        what: &str,
        unit: &str,
        bound: Option<Bound>,
        values: &[Option<f64>],
        smoke: bool,
    ) -> Figure {
        let known: Option<Vec<f64>> = values.iter().copied().collect();
        let values = known.unwrap_or_default();
        let middle = median(&values);
        let verdict = match (middle, bound) {
            (None, _) => Verdict::Unknown,
            (Some(_), None) => Verdict::Shown,
            (Some(_), Some(_)) if smoke => Verdict::Shown,
            (Some(middle), Some(Bound::AtMost(most))) if middle <= most => Verdict::Held,
            (Some(middle), Some(Bound::AtLeast(least))) if middle >= least => Verdict::Held,
            _ => Verdict::Missed,
        };
        Figure {
            what: what.to_owned(),
            unit: unit.to_owned(),
            bound,
            median: middle.unwrap_or_default(),
            values,
            verdict,
        }
    }

    /// Smallest and largest.
    pub fn range(&self) -> (f64, f64) {
        let smallest = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = self
            .values
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        (smallest, largest)
    }
}

/// The middle value, the lower of two; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// Why a run was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// One of the rounds whose median counts.
    #[default]
    Round,
    /// The search for a peak.
    Search,
    /// What happens above the peak.
    Beyond,
}

/// One run of the swarm: what matters of its report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// `gateway`, `bare send`, ...
    pub setup: String,
    pub purpose: Purpose,
    /// To do it by hand.
    pub command: String,
    /// Deliveries per second that were asked for.
    pub offered_per_s: Option<f64>,
    pub delivered_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// The server's CPU for each delivery, which is seconds per million.
    pub cpu_us_per_delivery: Option<f64>,
    pub bytes_per_connection: Option<f64>,
    /// Cores the server used while lines were spoken.
    pub server_cores: f64,
    /// The swarm's own.
    pub swarm_cores: f64,
    /// What others used of the machine meanwhile: above [`OTHERS_MAX`] the run says little.
    pub others_cores: f64,
    pub told_dropped: u64,
    /// What was delivered, of that and of what was told as dropped.
    pub delivered_share: f64,
    pub lost: u64,
    /// Promises that did not hold, and why.
    pub broken: Vec<String>,
}

impl Run {
    /// Of a setup's run.
    pub fn of(setup: &Setup, purpose: Purpose, taken: &Taken) -> Run {
        let (report, run_s) = (&taken.report, setup.run_s as f64);
        let ms = |us: u64| us as f64 / 1000.0;
        let server = report.server.clone().unwrap_or_default();
        let broken = report.promises.iter().filter(|promise| !promise.held);
        let told = broken.map(|promise| format!("{}: {}", promise.what, promise.detail));
        let mut broken: Vec<String> = told.collect();
        if !broken.is_empty() {
            // What showed it: whose, where, which numbers.
            broken.extend(report.deliveries.examples.iter().cloned());
        }
        let found = &report.deliveries;
        let due = (found.delivered + found.told_dropped).max(1);
        Run {
            setup: setup.name.to_owned(),
            purpose,
            command: taken.command.clone(),
            offered_per_s: setup.offered_per_s,
            delivered_per_s: found.per_s,
            p50_ms: ms(report.latency.p50_us),
            p99_ms: ms(report.latency.p99_us),
            cpu_us_per_delivery: server.cpu_s_per_million,
            bytes_per_connection: server.bytes_per_connection,
            server_cores: server.cpu_run_s / run_s,
            swarm_cores: report.swarm.cpu_run_s / run_s,
            others_cores: taken.others_cores,
            told_dropped: found.told_dropped,
            delivered_share: found.delivered as f64 / due as f64,
            lost: found.lost,
            broken,
        }
    }

    /// Whether it had the machine to itself.
    pub fn undisturbed(&self) -> bool {
        self.others_cores <= OTHERS_MAX
    }

    /// What it ran into, if it used up a core.
    pub fn limit(&self) -> &'static str {
        match (self.server_cores >= 0.93, self.swarm_cores >= 0.93) {
            (true, true) => "both cores",
            (true, false) => "the server's core",
            (false, true) => "the swarm's core",
            (false, false) => "",
        }
    }
}

/// A row of a micro-bench.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Micro {
    pub what: String,
    /// What the figures are for one of.
    pub per: String,
    pub ns: f64,
    pub instructions: f64,
}

impl Micro {
    /// A line of the micro-benches' `--table`.
    pub fn parse(line: &str) -> Option<Micro> {
        let mut cells = line.split('\t');
        Some(Micro {
            what: cells.next()?.to_owned(),
            per: cells.next()?.to_owned(),
            ns: cells.next()?.parse().ok()?,
            instructions: cells.next()?.parse().ok()?,
        })
    }
}

impl Session {
    pub fn now(smoke: bool) -> Result<Session, String> {
        let machine = machine::machine();
        if machine.cores < 2 {
            return Err("server and swarm want a core each, and this machine has one".into());
        }
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().and_then(|first| first.parse().ok());
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Session {
            machine,
            load: load.unwrap_or_default(),
            built: Built {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                commit: said("git", &["describe", "--always", "--dirty", "--abbrev=10"]),
                rustc: said("rustc", &["--version"]),
            },
            at_ms: since.map_or(0, |since| since.as_millis() as u64),
            smoke,
        })
    }
}

/// What a program says, on one line; empty if it is not there or fails.
fn said(program: &str, words: &[&str]) -> String {
    match Command::new(program).args(words).output() {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        _ => String::new(),
    }
}

impl Done {
    pub fn of(case: &Case, session: &Session) -> Done {
        Done {
            name: case.name.to_owned(),
            work: case.work.to_owned(),
            at_ms: session.at_ms,
            built: session.built.clone(),
            load: session.load,
            smoke: session.smoke,
            ..Done::default()
        }
    }

    /// 0 every bound held, 1 one was missed, 2 something was not measured.
    pub fn exit_code(&self) -> u8 {
        let has = |verdict| self.figures.iter().any(|figure| figure.verdict == verdict);
        match self.failed.is_some() || has(Verdict::Unknown) {
            true => 2,
            false => u8::from(has(Verdict::Missed)),
        }
    }
}

impl Results {
    /// What stands in a folder; nothing yet is no error, something else is.
    pub fn read(folder: &Path) -> Result<Results, String> {
        let path = folder.join("results.json");
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(Results::default());
        };
        let results: Results = serde_json::from_str(&text).map_err(|error| {
            format!("{} is not what this suite writes: {error}", path.display())
        })?;
        match results.format {
            FORMAT => Ok(results),
            other => Err(format!(
                "{} has format {other}, and this suite writes {FORMAT}: remove it",
                path.display()
            )),
        }
    }

    /// Only what was measured on this machine: figures of two do not belong into one table.
    pub fn of_machine(self, machine: &Machine) -> Results {
        let cases = match self.machine == *machine {
            true => self.cases,
            false => Vec::new(),
        };
        Results {
            format: FORMAT,
            machine: machine.clone(),
            cases,
        }
    }

    /// Adds a case, in place of an older one of that name.
    pub fn put(&mut self, done: Done) {
        self.cases.retain(|case| case.name != done.name);
        self.cases.push(done);
        let place = |done: &Done| TABLE.iter().position(|case| case.name == done.name);
        self.cases.sort_by_key(place);
    }

    /// Writes all three files.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        let json = serde_json::to_string_pretty(self).map_err(|error| error.to_string())? + "\n";
        let mut files = vec![("results.json", json), ("RESULTS.md", page::page(self))];
        if let Some(svg) = plot::peaks(self) {
            files.push(("peak.svg", svg));
        }
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(values: &[Option<f64>], bound: Bound) -> (f64, Verdict) {
        let figure = Figure::judge("x", "ms", Some(bound), values, false);
        (figure.median, figure.verdict)
    }

    #[test]
    fn the_median_is_held_against_the_bound() {
        let values = [Some(3.0), Some(1.0), Some(9.0)];
        assert_eq!(judged(&values, Bound::AtMost(3.0)), (3.0, Verdict::Held));
        assert_eq!(judged(&values, Bound::AtMost(2.9)), (3.0, Verdict::Missed));
        assert_eq!(judged(&values, Bound::AtLeast(3.0)), (3.0, Verdict::Held));
        assert_eq!(judged(&values, Bound::AtLeast(3.1)), (3.0, Verdict::Missed));
    }

    #[test]
    fn a_round_without_a_value_is_no_verdict() {
        let values = [Some(1.0), None, Some(1.0)];
        assert_eq!(judged(&values, Bound::AtMost(2.0)).1, Verdict::Unknown);
        assert_eq!(judged(&[], Bound::AtMost(2.0)).1, Verdict::Unknown);
        let nan = [Some(f64::NAN)];
        assert_eq!(judged(&nan, Bound::AtMost(2.0)).1, Verdict::Missed);
    }

    #[test]
    fn a_smoke_run_judges_nothing() {
        let figure = Figure::judge("x", "", Some(Bound::AtMost(1.0)), &[Some(2.0)], true);
        assert_eq!(figure.verdict, Verdict::Shown);
    }

    #[test]
    fn a_case_measured_again_takes_its_own_place() {
        let named = |name: &str, load| Done {
            name: name.into(),
            load,
            ..Done::default()
        };
        let mut results = Results::default();
        for (name, load) in [("room", 1.0), ("idle", 2.0), ("room", 3.0)] {
            results.put(named(name, load));
        }
        let order: Vec<(&str, f64)> = results
            .cases
            .iter()
            .map(|case| (&*case.name, case.load))
            .collect();
        assert_eq!(order, [("idle", 2.0), ("room", 3.0)]);
        let elsewhere = Machine {
            cores: 64,
            ..Machine::default()
        };
        assert!(results.of_machine(&elsewhere).cases.is_empty());
    }

    #[test]
    fn rows_of_micro_benches() {
        let row = Micro::parse("seal, 1 line\tline\t12.50\t30.1").unwrap();
        assert_eq!((&*row.per, row.ns, row.instructions), ("line", 12.5, 30.1));
        assert_eq!(Micro::parse("no instructions\tline\t12.5\t"), None);
    }
}
