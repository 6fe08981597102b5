//! A redis-server of a test's own.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, FromRedisValue};

use super::PATIENCE;

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
