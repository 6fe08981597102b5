//! A gateway of the swarm's own, as a child process: found or built, configured for load, watched, ended.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::clock::fresh_seed;
use crate::fd;

/// How long the gateway may take to serve.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(20);

/// What is wanted of the gateway.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its program; `None` = beside this one, built first if this runs from the source tree.
    pub program: Option<PathBuf>,
    /// `server.shards`; 0 = one per core.
    pub shards: usize,
    /// Cores it is bound to; none = all.
    pub cores: Vec<usize>,
    /// Further settings, as key path and value as an environment variable has it: they win over the swarm's own.
    pub settings: Vec<(String, String)>,
}

/// A running gateway. Dropped, it is killed.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    folder: Folder,
    /// Where viewers connect.
    pub public: SocketAddr,
    /// Where pushes and metrics are.
    pub internal: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// Its API key.
    pub api_key: String,
    /// Its HS256 secret.
    pub secret: String,
}

/// A folder of this run's own; gone when it is dropped, whatever else went wrong.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    /// It holds keys, if only of this run: nobody else looks into it, and nobody else made it.
    fn make() -> Result<Folder, String> {
        let name = format!(
            "danmaku-swarm-{}-{:08x}",
            std::process::id(),
            fresh_seed() as u32
        );
        let folder = std::env::temp_dir().join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Deserialize)]
struct Ready {
    public: SocketAddr,
    internal: SocketAddr,
    pid: u32,
}

/// Starts a gateway on free ports and waits until it serves.
///
/// # Errors
/// A sentence that says what is missing, or what the gateway itself said.
pub fn spawn(wanted: &Wanted) -> Result<Spawned, String> {
    let program = match &wanted.program {
        Some(program) => program.clone(),
        None => find()?,
    };
    let folder = Folder::make()?;
    let secret = format!("{:016x}{:016x}", fresh_seed(), fresh_seed());
    let api_key = format!("{:016x}{:016x}", fresh_seed(), fresh_seed());
    let written = write_files(&folder.0, &secret, &api_key, wanted);
    written.map_err(|error| format!("{}: {error}", folder.0.display()))?;
    let child = start(&program, &folder.0, wanted)?;
    let mut spawned = Spawned {
        pid: child.id(),
        child,
        folder,
        public: SocketAddr::from(([127, 0, 0, 1], 0)),
        internal: SocketAddr::from(([127, 0, 0, 1], 0)),
        api_key,
        secret,
    };
    let ready = spawned.wait_ready()?;
    (spawned.public, spawned.internal, spawned.pid) = (ready.public, ready.internal, ready.pid);
    Ok(spawned)
}

fn write_files(folder: &Path, secret: &str, api_key: &str, wanted: &Wanted) -> io::Result<()> {
    let config = format!(
        "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n\
         [server]\nshards = {}\n\
         [auth]\nanonymous = \"speak\"\n\
         [[auth.keys]]\nkid = \"swarm\"\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n\
         [[api_keys]]\nname = \"swarm\"\nkey = \"{api_key}\"\n\
         [limits]\nlines_per_s = 1000000\nline_burst = 1000000\n\
         [log]\nlevel = \"warn\"\n",
        wanted.shards
    );
    fs::write(folder.join("danmaku.toml"), config)
}

fn start(program: &Path, folder: &Path, wanted: &Wanted) -> Result<Child, String> {
    let log = fs::File::create(folder.join("gateway.log"));
    let log = log.map_err(|error| format!("{}: {error}", folder.display()))?;
    let (out, err) = (log.try_clone().map_err(|error| error.to_string())?, log);
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg("--config")
        .arg(folder.join("danmaku.toml"))
        .arg("--ready-file")
        .arg(folder.join("ready"))
        // Ctrl-C is for the swarm, which ends the gateway when it is done.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    // What is set in the environment is meant for another gateway; here it would win over the file.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DANMAKU_") {
            command.env_remove(name);
        }
    }
    for (path, value) in &wanted.settings {
        let name = path.to_uppercase().replace('.', "__");
        command.env(format!("DANMAKU_{name}"), value);
    }
    fd::die_with_parent(&mut command);
    let started = fd::while_pinned(&wanted.cores, || command.spawn());
    started
        .map_err(|error| format!("--pin-server {:?}: {error}", wanted.cores))?
        .map_err(|error| format!("cannot start {}: {error}", program.display()))
}

/// The gateway's program: beside this one. Run by `cargo run`, it is built first, so that what is measured is what the
/// sources say.
fn find() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = own.parent().unwrap_or(Path::new("."));
    let program = folder.join(format!("danmaku{}", std::env::consts::EXE_SUFFIX));
    if let (Some(cargo), Some(package)) = (
        std::env::var_os("CARGO"),
        std::env::var_os("CARGO_MANIFEST_DIR"),
    ) {
        let mut build = Command::new(cargo);
        build
            .arg("build")
            .arg("--quiet")
            .arg("--bin")
            .arg("danmaku");
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(Path::new(&package).join(".."));
        // A first build takes minutes; silence would look like a hang.
        eprintln!("building the gateway first ...");
        match build.status() {
            Ok(status) if status.success() => {}
            Ok(_) => return Err("the gateway does not build; see above".into()),
            Err(error) => return Err(format!("cannot run cargo: {error}")),
        }
    }
    if program.exists() {
        return Ok(program);
    }
    Err(format!(
        "no gateway at {}: build it (cargo build --release), name it (--gateway PATH), or name a running one (--url ws://HOST:PORT/ws)",
        program.display()
    ))
}

impl Spawned {
    fn wait_ready(&mut self) -> Result<Ready, String> {
        let begun = Instant::now();
        let file = self.folder.0.join("ready");
        loop {
            if let Ok(text) = fs::read_to_string(&file)
                && let Ok(ready) = serde_json::from_str(&text)
            {
                return Ok(ready);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!(
                    "the gateway ended at once ({status}):\n{}",
                    self.log()
                ));
            }
            if begun.elapsed() > START {
                return Err(format!(
                    "the gateway does not serve after {START:?}:\n{}",
                    self.log()
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the gateway wrote, its last lines.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.0.join("gateway.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it: asks first, insists later.
    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let begun = Instant::now();
        // A first signal drains, a second one stops at once.
        for _ in 0..2 {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            std::thread::sleep(Duration::from_millis(50));
        }
        while begun.elapsed() < STOP {
            if !self.alive() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.alive() {
            self.stop();
        }
    }
}
