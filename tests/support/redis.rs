//! A redis-server of a test's own.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, FromRedisValue};

use super::{PATIENCE, wait_for};

/// A real Redis on a free port; ended when dropped.
pub struct Redis {
    child: Child,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts one that keeps nothing, with these further arguments.
    pub fn start(arguments: &[&str]) -> Redis {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        Redis::start_at(port, arguments)
    }

    fn start_at(port: u16, arguments: &[&str]) -> Redis {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        Redis {
            child: launch(port, &arguments),
            port,
            arguments,
        }
    }

    /// Where it is.
    pub fn url(&self, credentials: &str) -> String {
        format!("redis://{credentials}127.0.0.1:{}", self.port)
    }

    /// One that speaks TLS only, and the file with the authority that vouches for it. Its plain port is closed.
    pub fn start_with_tls() -> (Redis, std::path::PathBuf) {
        let folder = super::scratch("tls");
        std::fs::create_dir_all(&folder).unwrap();
        let script = "set -e
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=test-authority
            openssl req -newkey rsa:2048 -nodes -keyout redis.key -out redis.csr -subj /CN=localhost
            printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > names
            openssl x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out redis.pem";
        let made = Command::new("sh")
            .args(["-c", script])
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "openssl (Debian package openssl): {made:?}"
        );
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let arguments = vec![
            "--tls-port".to_owned(),
            port.to_string(),
            "--tls-cert-file".to_owned(),
            file("redis.pem"),
            "--tls-key-file".to_owned(),
            file("redis.key"),
            "--tls-ca-cert-file".to_owned(),
            file("ca.pem"),
            "--tls-auth-clients".to_owned(),
            "no".to_owned(),
            "--port".to_owned(),
            "0".to_owned(),
        ];
        let redis = Redis {
            child: launch(port, &arguments),
            port,
            arguments,
        };
        (redis, folder.join("ca.pem"))
    }

    /// One that follows another and takes nothing written, until it is promoted.
    pub fn start_replica(of: &Redis) -> Redis {
        let port = of.port().to_string();
        let replica = Redis::start(&[
            "--replicaof",
            "127.0.0.1",
            &port,
            "--repl-diskless-sync-delay",
            "0",
        ]);
        wait_for("the replica follows", || {
            replica
                .ask::<String>("INFO replication")
                .contains("master_link_status:up")
        });
        replica
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection of the test's own.
    pub fn connection(&self) -> Connection {
        Client::open(self.url(""))
            .and_then(|client| client.get_connection_with_timeout(PATIENCE))
            .unwrap()
    }

    /// Asks it something, the words apart by spaces.
    pub fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection()).unwrap()
    }

    /// Sends the process a signal by name.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// Kills it; everything in it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it anew, where it was.
    pub fn restart(&mut self) {
        self.child = launch(self.port, &self.arguments);
    }
}

fn launch(port: u16, arguments: &[String]) -> Child {
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .args(["--dir", std::env::temp_dir().to_str().unwrap()])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("redis-server (Debian package redis-server): {error}"));
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "redis-server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Redis Cluster on free ports: masters, and a replica for each.
pub struct RedisCluster {
    /// Its servers.
    pub servers: Vec<Redis>,
}

impl RedisCluster {
    /// Starts one of so many masters. A master that does not answer for a second is replaced.
    pub fn start(masters: usize) -> RedisCluster {
        let folder = super::scratch("redis-cluster");
        let server = |n: usize| {
            let folder = folder.join(n.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            let folder = folder.to_str().unwrap();
            // A server speaks to the others by a port ten thousand above its own.
            loop {
                let free = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = free.local_addr().unwrap().port();
                if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
                    drop(free);
                    let arguments = [
                        "--cluster-enabled",
                        "yes",
                        "--cluster-node-timeout",
                        "1000",
                        "--dir",
                        folder,
                    ];
                    return Redis::start_at(port, &arguments);
                }
            }
        };
        let servers: Vec<Redis> = (0..2 * masters).map(server).collect();
        let addresses = servers.iter().map(|it| format!("127.0.0.1:{}", it.port()));
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap_or_else(|error| panic!("redis-cli (Debian package redis-tools): {error}"));
        assert!(made.status.success(), "{made:?}");
        let cluster = RedisCluster { servers };
        wait_for("the cluster is whole", || {
            cluster.servers.iter().all(|it| {
                let info: String = it.ask("CLUSTER INFO");
                info.contains("cluster_state:ok")
                    && info.contains(&format!("cluster_known_nodes:{}", 2 * masters))
            })
        });
        wait_for("the replicas follow", || {
            let following = cluster.servers.iter().filter(|it| {
                it.ask::<String>("INFO replication")
                    .contains("master_link_status:up")
            });
            following.count() == masters
        });
        cluster
    }

    /// Where it is: two of its servers.
    pub fn url(&self) -> String {
        let ports: Vec<String> = self
            .servers
            .iter()
            .map(|it| format!("127.0.0.1:{}", it.port()))
            .collect();
        format!("redis://{},{}", ports[0], ports[1])
    }

    /// Asks whichever server has the key, the words apart by spaces.
    pub fn ask(&self, words: &str) -> String {
        let port = self
            .servers
            .iter()
            .find(|it| it.is_up())
            .unwrap()
            .port()
            .to_string();
        let said = Command::new("redis-cli")
            .args(["-c", "-p", &port])
            .args(words.split(' '))
            .output()
            .unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// The master that owns a key.
    pub fn owner(&mut self, key: &str) -> &mut Redis {
        let up = self.servers.iter().position(Redis::is_up).unwrap();
        let slot: u16 = self.servers[up].ask(&format!("CLUSTER KEYSLOT {key}"));
        let is_owner = |it: &&mut Redis| {
            it.is_up() && {
                let nodes: String = it.ask("CLUSTER NODES");
                let mine = nodes.lines().find(|line| line.contains("myself,master"));
                mine.is_some_and(|line| {
                    line.split(' ')
                        .skip(8)
                        .filter_map(|range| range.split_once('-'))
                        .any(|(from, to)| {
                            (from.parse().unwrap()..=to.parse::<u16>().unwrap()).contains(&slot)
                        })
                })
            }
        };
        self.servers.iter_mut().find(is_owner).unwrap()
    }

    /// Moves the slot of a key, and those before it, to the owner of another.
    pub fn move_slot(&mut self, key: &str, to: &str) {
        let slot: u16 = self.owner(key).ask(&format!("CLUSTER KEYSLOT {key}"));
        let (from, first) = {
            let owner = self.owner(key);
            let nodes: String = owner.ask("CLUSTER NODES");
            let mine = nodes.lines().find(|line| line.contains("myself"));
            let (first, _) = mine
                .unwrap()
                .split(' ')
                .nth(8)
                .unwrap()
                .split_once('-')
                .unwrap();
            (
                owner.ask::<String>("CLUSTER MYID"),
                first.parse::<u16>().unwrap(),
            )
        };
        let to: String = self.owner(to).ask("CLUSTER MYID");
        let up = self.servers.iter().find(|it| it.is_up()).unwrap();
        let count = (slot - first + 1).to_string();
        let moved = Command::new("redis-cli")
            .args(["--cluster", "reshard", &format!("127.0.0.1:{}", up.port())])
            .args(["--cluster-from", &from, "--cluster-to", &to])
            .args(["--cluster-slots", &count, "--cluster-yes"])
            .output()
            .unwrap();
        assert!(moved.status.success(), "{moved:?}");
    }
}
