//! One run: a server on its core, a swarm on another, a report. Every wait is bounded; what was started is ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use danmaku_swarm::fd;
use danmaku_swarm::probe;
use danmaku_swarm::report::file::read_json;
use danmaku_swarm::report::{Ended, Report};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::cluster::Cluster;

/// What a run may take beyond its own phase: start, ramp, tail and the end of the server.
const AROUND: Duration = Duration::from_secs(180);
/// What an interrupted swarm may take for its report.
const GOODBYE: Duration = Duration::from_secs(30);
/// A line to the bare server. It goes to everyone as it is, and is as long as the gateway's own lines: both sides hand the
/// kernel the same bytes.
const BARE_LINE: &str = r##"{"type":"danmaku","room":"{room}","seq":1000000,"ts":1795377714000,"user":null,"text":"{text}","style":{"color":"#ffffff","mode":"scroll","size":25}}"##;

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The gateway, started by the swarm.
    Gateway,
    /// The bare loop, one send for each line and member.
    BareSend,
    /// The bare walk, one send for each member with all it lacks.
    BareWalk,
    /// Gateways that share a Redis; they are there already.
    Nodes,
}

/// Which cores are whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    pub server: Vec<usize>,
    pub swarm: Vec<usize>,
}

impl Cores {
    /// One each.
    pub fn apart() -> Cores {
        Cores {
            server: vec![0],
            swarm: vec![1],
        }
    }
}

/// A server and what the swarm does with it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// For the table.
    pub name: &'static str,
    pub server: Server,
    pub cores: Cores,
    /// The swarm's arguments, but for the server and the cores.
    pub words: String,
    /// Length of the run's own phase.
    pub run_s: u64,
    /// Deliveries per second that are asked for, where that is the point.
    pub offered_per_s: Option<f64>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Taken {
    pub report: Report,
    /// To do it by hand.
    pub command: String,
    /// Cores that neither server nor swarm used, and that were not idle.
    pub others_cores: f64,
}

/// Where the programs are.
#[derive(Debug)]
pub struct Drive {
    swarm: PathBuf,
    pub gateway: PathBuf,
    bare: PathBuf,
}

/// A path in a scratch folder of this call.
pub fn scratch(name: &str) -> Result<PathBuf, String> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER
        .get_or_init(|| std::env::temp_dir().join(format!("danmaku-bench-{}", std::process::id())));
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder.join(name))
}

impl Drop for Drive {
    fn drop(&mut self) {
        if let Ok(path) = scratch("") {
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Drive {
    /// Beside this program, as cargo leaves them.
    pub fn new() -> Result<Drive, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let examples = own.parent().unwrap_or(Path::new("."));
        let programs = examples.parent().unwrap_or(Path::new("."));
        let drive = Drive {
            swarm: programs.join("danmaku-swarm"),
            gateway: programs.join("danmaku"),
            bare: examples.join("bare"),
        };
        for program in [&drive.swarm, &drive.gateway, &drive.bare] {
            if !program.exists() {
                return Err(format!(
                    "{} is not there: scripts/bench.sh builds it",
                    program.display()
                ));
            }
        }
        Ok(drive)
    }

    /// Runs a setup once.
    pub fn run(&self, setup: &Setup) -> Result<Taken, String> {
        let json = scratch("report.json")?;
        let _ = fs::remove_file(&json);
        let mut words: Vec<String> = setup.words.split_whitespace().map(str::to_owned).collect();
        words.extend(["--duration".into(), format!("{}s", setup.run_s)]);
        words.extend(["--pin".into(), list(&setup.cores.swarm)]);
        let mut command = Command::new(&self.swarm);
        command.args(&words);
        let bare = match setup.server {
            Server::Gateway => {
                let pin_server = ["--pin-server".into(), list(&setup.cores.server)];
                command
                    .args(&pin_server)
                    .arg("--gateway")
                    .arg(&self.gateway);
                words.extend(pin_server);
                None
            }
            Server::BareSend => Some(Bare::start(&self.bare, "send", &setup.cores.server)?),
            Server::BareWalk => Some(Bare::start(&self.bare, "walk", &setup.cores.server)?),
            Server::Nodes => return Err(format!("{}: wants its nodes", setup.name)),
        };
        let mut by_hand = format!("danmaku-swarm {}", words.join(" "));
        if let Some(bare) = &bare {
            let url = format!("ws://{}/", bare.ready.public);
            command.args(["--url", &url, "--pid", &bare.ready.pid.to_string()]);
            command.args(["--join", "join {room}", "--publish", BARE_LINE]);
            by_hand
                .push_str(" --url ws://127.0.0.1:PORT/ --pid PID --join 'join {room}' --publish '");
            by_hand.push_str(BARE_LINE);
            by_hand.push('\'');
        }
        command.arg("--quiet").arg("--json").arg(&json);
        let limit = Duration::from_secs(setup.run_s) + AROUND;
        let (begun, busy_s) = (Instant::now(), busy_s());
        let last_words = bounded(command, limit)?;
        let (took_s, busy_s) = (begun.elapsed().as_secs_f64(), self::busy_s() - busy_s);
        let report = completed(&json, &by_hand, &last_words)?;
        let server_s = report.server.as_ref().map_or(0.0, |usage| usage.cpu_s);
        let ours_s = server_s + report.swarm.cpu_s;
        Ok(Taken {
            report,
            command: by_hand,
            others_cores: ((busy_s - ours_s) / took_s).max(0.0),
        })
    }

    /// Begins a run against some of a cluster's nodes, which goes on while the caller does something to them.
    pub fn begin(
        &self,
        setup: &Setup,
        cluster: &Cluster,
        nodes: &[usize],
    ) -> Result<Under, String> {
        let (json, ready) = (scratch("report.json")?, scratch("begun")?);
        for old in [&json, &ready] {
            let _ = fs::remove_file(old);
        }
        let mut words: Vec<String> = setup.words.split_whitespace().map(str::to_owned).collect();
        words.extend(["--duration".into(), format!("{}s", setup.run_s)]);
        words.extend(["--pin".into(), list(&setup.cores.swarm)]);
        let by_hand = format!(
            "SWARM_SECRET=SECRET danmaku-swarm {} --url NODES --internal NODES --pid PIDS",
            words.join(" ")
        );
        let of = |say: fn(&crate::cluster::Node) -> String| {
            let said = nodes
                .iter()
                .filter_map(|at| cluster.nodes.get(*at))
                .map(say);
            said.collect::<Vec<_>>().join(",")
        };
        let mut command = Command::new(&self.swarm);
        command
            .args(&words)
            .args(["--url", &of(|node| format!("ws://{}/ws", node.public))])
            .args(["--internal", &of(|node| node.internal.to_string())])
            .args(["--pid", &of(|node| node.pid().to_string())])
            .env("SWARM_SECRET", &cluster.secret)
            .args(["--quiet", "--json"])
            .arg(&json)
            .arg("--ready-file")
            .arg(&ready);
        let (begun, busy_s) = (Instant::now(), busy_s());
        let ours_s = cluster.cpu_s() + probe::own().cpu_s;
        let (child, said) = launched(command)?;
        Ok(Under {
            child,
            said,
            json,
            ready,
            by_hand,
            limit: Duration::from_secs(setup.run_s) + AROUND,
            begun,
            busy_s,
            ours_s,
        })
    }
}

/// A run under way.
pub struct Under {
    child: Ending,
    said: PathBuf,
    json: PathBuf,
    ready: PathBuf,
    by_hand: String,
    limit: Duration,
    begun: Instant,
    busy_s: f64,
    ours_s: f64,
}

#[derive(Deserialize)]
struct Begins {
    run_begins_ms: u64,
}

impl Under {
    /// Waits until everyone is in; when the first line is due, in milliseconds since 1970.
    pub fn begins_ms(&mut self) -> Result<u64, String> {
        while self.begun.elapsed() < AROUND {
            if let Ok(text) = fs::read_to_string(&self.ready)
                && let Ok(Begins { run_begins_ms }) = serde_json::from_str(&text)
            {
                return Ok(run_begins_ms);
            }
            if self.child.over_within(Duration::from_millis(20)) {
                break;
            }
        }
        let said = fs::read_to_string(&self.said).unwrap_or_default();
        Err(format!("{}: did not begin\n{said}", self.by_hand))
    }

    /// Waits for its end.
    pub fn finish(self, cluster: &Cluster) -> Result<Taken, String> {
        let Under {
            child,
            said,
            json,
            by_hand,
            limit,
            begun,
            ..
        } = self;
        ended(child, limit.saturating_sub(begun.elapsed()));
        let (took_s, busy_s) = (begun.elapsed().as_secs_f64(), busy_s() - self.busy_s);
        let last_words = fs::read_to_string(said).unwrap_or_default();
        let report = completed(&json, &by_hand, &last_words)?;
        let ours_s = cluster.cpu_s() + probe::own().cpu_s - self.ours_s + report.swarm.cpu_s;
        Ok(Taken {
            report,
            command: by_hand,
            others_cores: ((busy_s - ours_s) / took_s).max(0.0),
        })
    }
}

/// The report of a run that went to its end.
fn completed(json: &Path, by_hand: &str, last_words: &str) -> Result<Report, String> {
    let report = read_json(json).map_err(|error| format!("{by_hand}: {error}\n{last_words}"))?;
    match report.ended {
        Ended::Completed => Ok(report),
        Ended::Interrupted => Err(format!("{by_hand}: was interrupted, or not over in time")),
        Ended::Failed(why) => Err(format!("{by_hand}: {why}")),
    }
}

/// Seconds all cores together have not been idle since the machine began, time taken by other machines on its host included.
fn busy_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = all
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are among the first two.
    let busy: f64 = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|at| ticks.get(*at))
        .sum();
    busy / rustix::param::clock_ticks_per_second() as f64
}

fn list(cores: &[usize]) -> String {
    let words: Vec<String> = cores.iter().map(usize::to_string).collect();
    words.join(",")
}

/// Runs a swarm to its end, which comes after `limit` at the latest. Returns what it said on standard error.
fn bounded(command: Command, limit: Duration) -> Result<String, String> {
    let (child, said) = launched(command)?;
    ended(child, limit);
    Ok(fs::read_to_string(&said).unwrap_or_default())
}

/// Starts a swarm; what it says on standard error goes to the file.
fn launched(mut command: Command) -> Result<(Ending, PathBuf), String> {
    let said = scratch("said")?;
    let file = File::create(&said).map_err(|error| format!("{}: {error}", said.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    fd::die_with_parent(&mut command);
    let child = command
        .spawn()
        .map_err(|error| format!("cannot start the swarm: {error}"))?;
    Ok((Ending(child), said))
}

/// Waits for a swarm's end; one that takes too long is asked, then made to.
fn ended(mut child: Ending, limit: Duration) {
    if !child.over_within(limit) {
        let pid = Pid::from_child(&child.0);
        let _ = kill_process(pid, Signal::INT);
        child.over_within(GOODBYE);
    }
}

/// A process that is killed and waited for when this goes.
#[derive(Debug)]
pub struct Ending(pub Child);

impl Ending {
    pub fn over_within(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running bare server.
struct Bare {
    ready: Ready,
    #[expect(dead_code, reason = "held to be ended")]
    process: Ending,
}

#[derive(Deserialize)]
struct Ready {
    public: String,
    pid: u32,
}

impl Bare {
    fn start(program: &Path, mode: &str, cores: &[usize]) -> Result<Bare, String> {
        let mut command = Command::new(program);
        command
            .arg(mode)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", program.display());
        let spawned = fd::while_pinned(cores, || command.spawn()).map_err(failed)?;
        let mut process = Ending(spawned.map_err(failed)?);
        let mut line = String::new();
        let stdout = process.0.stdout.take();
        if let Some(stdout) = stdout {
            // It says so at once or ends, and then this does too.
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(failed)?;
        }
        let ready = serde_json::from_str(&line).map_err(|error| {
            format!(
                "{} {mode} did not say where it listens: {error}",
                program.display()
            )
        })?;
        Ok(Bare { ready, process })
    }
}
