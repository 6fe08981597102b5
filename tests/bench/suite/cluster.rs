//! Nodes that share a Redis: a redis-server and gateways on free ports, in a folder of their own, all on the server's core. It
//! starts them, hurts them on demand, and says what stands in Redis. What was started is ended.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use danmaku_swarm::clock::fresh_seed;
use danmaku_swarm::{fd, probe};
use redis::{Client, Connection};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::drive::{Ending, scratch};

/// How long each of them may take to serve.
const START: Duration = Duration::from_secs(20);
/// How long Redis or a node may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Tries to find a port that is still free when the redis-server comes to it.
const PORTS_TRIED: usize = 5;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub gateway: PathBuf,
    pub nodes: usize,
    pub cores: Vec<usize>,
    /// `redis.lease`; the gateway's own where none is given.
    pub lease: Option<&'static str>,
}

/// Some nodes and their Redis.
pub struct Cluster {
    wanted: Wanted,
    folder: PathBuf,
    redis: Ending,
    redis_port: u16,
    pub nodes: Vec<Node>,
    /// HS256 secret of all nodes.
    pub secret: String,
    /// CPU of nodes that are gone, seconds.
    spent_s: f64,
}

/// One gateway.
pub struct Node {
    pub public: SocketAddr,
    pub internal: SocketAddr,
    process: Ending,
}

/// What stands in Redis about who is in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Connections.
    pub total: i64,
    /// Users by name.
    pub users: BTreeSet<String>,
}

/// What Redis has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Commands, those inside scripts included.
    pub commands: f64,
    /// Scripts.
    pub scripts: f64,
    /// Messages published.
    pub published: f64,
    /// CPU seconds.
    pub cpu_s: f64,
}

#[derive(Deserialize)]
struct Ready {
    public: SocketAddr,
    internal: SocketAddr,
}

impl Node {
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Asks its public listener; status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        let failed = |error: std::io::Error| format!("http://{}{path}: {error}", self.public);
        let mut stream = TcpStream::connect_timeout(&self.public, ANSWER).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: suite\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status.unwrap_or(0), body.to_owned()))
    }

    /// Connections in a room on all nodes, as this one tells whoever asks; `None` where it says that there is no such room.
    pub fn online(&self, room: &str) -> Result<Option<i64>, String> {
        #[derive(Deserialize)]
        struct Room {
            online: i64,
        }
        let (status, body) = self.get(&format!("/api/v1/rooms/{room}"))?;
        match serde_json::from_str(&body) {
            Ok(Room { online }) => Ok(Some(online)),
            Err(_) if status == 404 => Ok(None),
            Err(error) => Err(format!("room {room} at {}: {error}: {body}", self.public)),
        }
    }
}

impl Cluster {
    /// Starts all of it and waits until every node has found Redis.
    pub fn start(wanted: Wanted) -> Result<Cluster, String> {
        let folder = scratch(&format!("cluster-{:08x}", fresh_seed() as u32))?;
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (redis, redis_port) = start_redis(&folder, &wanted.cores)?;
        let mut cluster = Cluster {
            folder,
            redis,
            redis_port,
            nodes: Vec::new(),
            secret: format!("{:016x}{:016x}", fresh_seed(), fresh_seed()),
            spent_s: 0.0,
            wanted,
        };
        for at in 0..cluster.wanted.nodes {
            let node = cluster.start_node(at, None)?;
            cluster.nodes.push(node);
        }
        for node in &cluster.nodes {
            until(START, "a node that has found Redis", || {
                Ok(node.get("/readyz")?.0 == 200)
            })?;
        }
        Ok(cluster)
    }

    fn start_node(
        &self,
        at: usize,
        again: Option<(SocketAddr, SocketAddr)>,
    ) -> Result<Node, String> {
        let (ready, log) = (format!("node-{at}.ready"), format!("node-{at}.log"));
        let (ready, log) = (self.folder.join(ready), self.folder.join(log));
        let _ = fs::remove_file(&ready);
        let failed = |error: std::io::Error| format!("node {at}: {error}");
        let said = File::options().create(true).append(true).open(&log);
        let said = said.map_err(failed)?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (public, internal) = again.unwrap_or((any, any));
        let mut command = Command::new(&self.wanted.gateway);
        // What is set in the environment is meant for another gateway.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DANMAKU_") {
                command.env_remove(name);
            }
        }
        command
            .args(["serve", "--ready-file"])
            .arg(&ready)
            .env("DANMAKU_LISTEN__PUBLIC", public.to_string())
            .env("DANMAKU_LISTEN__INTERNAL", internal.to_string())
            .env("DANMAKU_SERVER__SHARDS", "1")
            .env(
                "DANMAKU_REDIS__URL",
                format!("redis://127.0.0.1:{}", self.redis_port),
            )
            .env("DANMAKU_AUTH__ANONYMOUS", "speak")
            .env("DANMAKU_AUTH__SECRET", &self.secret)
            .env("DANMAKU_API_KEY", "of-the-bench-suite-and-nobody-else")
            .env("DANMAKU_LIMITS__LINES_PER_S", "1000000")
            .env("DANMAKU_LIMITS__LINE_BURST", "1000000")
            .env("DANMAKU_LOG__LEVEL", "warn")
            .stdin(Stdio::null())
            .stdout(said.try_clone().map_err(failed)?)
            .stderr(said);
        if let Some(lease) = self.wanted.lease {
            command.env("DANMAKU_REDIS__LEASE", lease);
        }
        fd::die_with_parent(&mut command);
        let started = fd::while_pinned(&self.wanted.cores, || command.spawn()).map_err(failed)?;
        let mut process = Ending(started.map_err(failed)?);
        let mut found = None;
        until(START, "a node that serves", || {
            if process.over_within(Duration::from_millis(10)) {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("node {at} ended at once:\n{said}"));
            }
            let text = fs::read_to_string(&ready).unwrap_or_default();
            found = serde_json::from_str::<Ready>(&text).ok();
            Ok(found.is_some())
        })?;
        let Ready { public, internal } = found.ok_or("no address")?;
        Ok(Node {
            public,
            internal,
            process,
        })
    }

    /// Ends a node without a warning (SIGKILL).
    pub fn kill(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        self.spent_s += probe::process(node.pid()).map_or(0.0, |used| used.cpu_s);
        let _ = node.process.0.kill();
        let _ = node.process.0.wait();
    }

    /// Starts a node that is gone anew, where it was.
    pub fn restart(&mut self, at: usize) -> Result<(), String> {
        let (public, internal) = (self.nodes[at].public, self.nodes[at].internal);
        self.nodes[at] = self.start_node(at, Some((public, internal)))?;
        let node = &self.nodes[at];
        until(START, "a node that has found Redis", || {
            Ok(node.get("/readyz")?.0 == 200)
        })
    }

    /// Stops Redis where it is (SIGSTOP), or lets it go on.
    pub fn redis_stands_still(&self, still: bool) -> Result<(), String> {
        let signal = if still { Signal::STOP } else { Signal::CONT };
        let sent = kill_process(Pid::from_child(&self.redis.0), signal);
        sent.map_err(|error| format!("redis-server: {error}"))
    }

    /// The process of the redis-server.
    pub fn redis_pid(&self) -> Pid {
        Pid::from_child(&self.redis.0)
    }

    /// A connection to Redis.
    pub fn ask(&self) -> Result<Connection, String> {
        let url = format!("redis://127.0.0.1:{}", self.redis_port);
        let failed = |error: redis::RedisError| format!("redis-server: {error}");
        let client = Client::open(url).map_err(failed)?;
        let connection = client.get_connection_with_timeout(ANSWER).map_err(failed)?;
        connection.set_read_timeout(Some(ANSWER)).map_err(failed)?;
        Ok(connection)
    }

    /// What Redis has done so far.
    pub fn work(&self) -> Result<Work, String> {
        let mut info = redis::cmd("INFO");
        let text: String = info
            .arg("commandstats")
            .query(&mut self.ask()?)
            .map_err(|error| format!("INFO: {error}"))?;
        let cpu_s = probe::process(self.redis.0.id()).map_or(0.0, |used| used.cpu_s);
        Ok(work(&text, cpu_s))
    }

    /// CPU of everything here, nodes that are gone included, seconds.
    pub fn cpu_s(&self) -> f64 {
        let living = self.nodes.iter().map(Node::pid).chain([self.redis.0.id()]);
        let used = living.filter_map(probe::process).map(|used| used.cpu_s);
        self.spent_s + used.sum::<f64>()
    }
}

/// What stands in Redis about a room; nothing where nobody is in it.
pub fn counted(redis: &mut Connection, room: &str) -> Result<Counted, String> {
    let mut command = redis::cmd("HGETALL");
    let fields: Vec<(String, String)> = command
        .arg(format!("live:room:{room}"))
        .query(redis)
        .map_err(|error| format!("HGETALL live:room:{room}: {error}"))?;
    let mut counted = Counted::default();
    for (name, value) in fields {
        match name.strip_prefix("user:") {
            Some(user) => drop(counted.users.insert(user.to_owned())),
            None if name == "total" => {
                let total = value.parse();
                counted.total = total.map_err(|_| format!("room {room} has a total of {value}"))?;
            }
            None => return Err(format!("room {room} has a field {name}")),
        }
    }
    Ok(counted)
}

/// Rooms that Redis says somebody is in.
pub fn rooms_counted(redis: &mut Connection) -> Result<Vec<String>, String> {
    let mut command = redis::cmd("KEYS");
    let keys: Vec<String> = command
        .arg("live:room:*")
        .query(redis)
        .map_err(|error| format!("KEYS: {error}"))?;
    let rooms = keys.iter().filter_map(|key| key.strip_prefix("live:room:"));
    Ok(rooms.map(str::to_owned).collect())
}

/// Sums of `INFO commandstats`; what this suite itself asks is left out.
fn work(info: &str, cpu_s: f64) -> Work {
    let mut work = Work {
        cpu_s,
        ..Work::default()
    };
    for line in info.lines() {
        let Some((name, rest)) = line
            .strip_prefix("cmdstat_")
            .and_then(|l| l.split_once(':'))
        else {
            continue;
        };
        let calls = rest
            .strip_prefix("calls=")
            .and_then(|rest| rest.split(',').next());
        let calls: f64 = calls.and_then(|calls| calls.parse().ok()).unwrap_or(0.0);
        match name {
            "info" | "hgetall" | "keys" => continue,
            "eval" | "evalsha" => work.scripts += calls,
            "publish" => work.published += calls,
            _ => {}
        }
        work.commands += calls;
    }
    work
}

fn start_redis(folder: &Path, cores: &[usize]) -> Result<(Ending, u16), String> {
    let failed =
        |error: std::io::Error| format!("redis-server (Debian package redis-server): {error}");
    for _ in 0..PORTS_TRIED {
        // It takes no port 0: one that was free a moment ago is tried.
        let free = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let port = free.local_addr().map_err(failed)?.port();
        drop(free);
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        fd::die_with_parent(&mut command);
        let started = fd::while_pinned(cores, || command.spawn()).map_err(failed)?;
        let mut process = Ending(started.map_err(failed)?);
        let begun = Instant::now();
        while begun.elapsed() < START && !process.over_within(Duration::from_millis(10)) {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok((process, port));
            }
        }
    }
    Err("redis-server does not listen".into())
}

/// Looks again and again until it is so.
pub fn until(
    limit: Duration,
    what: &str,
    mut is_so: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > limit {
            return Err(format!("waited {limit:?} in vain for {what}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_redis_are_counted_without_our_own() {
        let info = "# Commandstats\r\ncmdstat_info:calls=5,usec=1\r\ncmdstat_evalsha:calls=10,usec=9,usec_per_call=1.0\r\n\
            cmdstat_publish:calls=12,usec=3\r\ncmdstat_hgetall:calls=100,usec=3\r\ncmdstat_client|setinfo:calls=2,usec=1\r\nodd\r\n";
        let work = work(info, 1.5);
        assert_eq!(
            (work.commands, work.scripts, work.published, work.cpu_s),
            (24.0, 10.0, 12.0, 1.5)
        );
    }
}
