//! What the swarm's tests share: its program, a gateway's, scratch files.
#![allow(dead_code)] // Each test program uses its part.

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The gateway's program, built with the rest of the workspace; built here if only this package was asked for.
pub fn gateway() -> PathBuf {
    let swarm = Path::new(env!("CARGO_BIN_EXE_danmaku-swarm"));
    let gateway = swarm.with_file_name("danmaku");
    if !gateway.exists() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--bin", "danmaku"]).current_dir(top);
        assert!(cargo.status().unwrap().success(), "the gateway builds");
    }
    gateway
}

/// The longest a test program runs. The slowest takes two minutes on two cores; one that waits for ever has to fail.
const PROGRAM_MAX: Duration = Duration::from_secs(900);

/// Ends this program when it has run for too long; which test it was the runner has said after its first minute.
fn end_if_stuck() {
    std::thread::spawn(|| {
        std::thread::sleep(PROGRAM_MAX);
        // Not by `eprintln`: what a test's threads print so is shown when the test ends.
        let _ = writeln!(std::io::stderr(), "stuck: not over after {PROGRAM_MAX:?}");
        std::process::exit(101);
    });
}

/// A fresh path in the system's scratch folder. The folder is this run's alone: process ids come again.
pub fn scratch(name: &str) -> PathBuf {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let word = RandomState::new().hash_one(std::process::id());
        let folder = std::env::temp_dir().join(format!("danmaku-swarm-test-{word:016x}"));
        std::fs::create_dir(&folder).unwrap();
        end_if_stuck();
        folder
    });
    folder.join(format!(
        "{}-{name}",
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ))
}

pub fn swarm(words: &[&str], json: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_danmaku-swarm"));
    command
        .args(words)
        .args(["--quiet", "--threads", "1", "--json"])
        .arg(json)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if !words.contains(&"--url") {
        command.arg("--gateway").arg(gateway());
        // A machine that is busy with other tests is no overloaded node.
        command.args(["--set", "overload.lag=60s"]);
    }
    command
}

pub fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// A gateway that the swarm did not start, and its addresses.
pub struct Running {
    pub child: Child,
    pub public: String,
    pub internal: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Waits until `/readyz` answers 200.
    pub fn wait_ready(&self) {
        let begun = Instant::now();
        loop {
            let mut stream = TcpStream::connect(&self.public).unwrap();
            let request = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            if answer.starts_with("HTTP/1.1 200") {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub fn running() -> Running {
    running_with(&[])
}

/// A gateway with further arguments.
pub fn running_with(words: &[&str]) -> Running {
    let ready = scratch("ready");
    let mut command = Command::new(gateway());
    command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(["--internal-listen", "127.0.0.1:0", "--ready-file"])
        .arg(&ready)
        .args(words)
        // A machine that is busy with other tests is no overloaded node.
        .env("DANMAKU_OVERLOAD__LAG", "60s")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut running = Running {
        child: command.spawn().unwrap(),
        public: String::new(),
        internal: String::new(),
    };
    let begun = Instant::now();
    while running.public.is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the gateway serves"
        );
        let text = std::fs::read_to_string(&ready).unwrap_or_default();
        if let Ok(line) = serde_json::from_str::<serde_json::Value>(&text) {
            running.public = line["public"].as_str().unwrap().to_owned();
            running.internal = line["internal"].as_str().unwrap().to_owned();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

/// A redis-server on a free port that keeps nothing.
pub struct Redis {
    pub child: Child,
    pub url: String,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    pub fn start() -> Redis {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(std::env::temp_dir())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server (Debian package redis-server): {error}"));
        let redis = Redis {
            child,
            url: format!("redis://127.0.0.1:{port}"),
        };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let patience = Duration::from_secs(20);
            assert!(begun.elapsed() < patience, "redis-server listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    /// Sends the process a signal by name.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args([&format!("-{name}"), &self.child.id().to_string()]);
        assert!(kill.status().unwrap().success());
    }
}
