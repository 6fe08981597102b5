//! A Prometheus server under test: real, on a free port, with real configuration in which only times and targets are changed.
#![allow(dead_code)] // Each test program uses its part.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::support::{PATIENCE, scratch};

/// A Prometheus server with the configuration operators copy, in a hurry; ended when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Scrapes `target` and evaluates five times a second, by the configuration and rules of a folder.
    pub fn start(folder: &Path, target: SocketAddr) -> Prometheus {
        let home = scratch("prometheus");
        std::fs::create_dir_all(&home).unwrap();
        for file in ["recording.yml", "alerts.yml"] {
            std::fs::copy(folder.join(file), home.join(file)).unwrap();
        }
        let mut config = std::fs::read_to_string(folder.join("prometheus.yml")).unwrap();
        for (kept, hurried) in [
            ("scrape_interval: 15s", "scrape_interval: 200ms"),
            ("scrape_timeout: 10s", "scrape_timeout: 200ms"),
            ("evaluation_interval: 30s", "evaluation_interval: 200ms"),
            ("127.0.0.1:8081", &target.to_string()),
        ] {
            assert!(config.contains(kept), "{kept}");
            config = config.replace(kept, hurried);
        }
        std::fs::write(home.join("prometheus.yml"), config).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                home.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                home.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is missing: apt-get install prometheus");
        Prometheus { child, address }
    }

    /// The `data` of an API answer; `None` while it does not answer. HTTP/1.0, so that the body is not chunked.
    pub fn ask(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "GET /api/v1/{path} HTTP/1.0\r\nHost: {}\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let body: Value = serde_json::from_str(body).ok()?;
        (body["status"] == "success").then(|| body["data"].clone())
    }

    /// What an instant query finds; fails the test when there is no answer.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.ask(&format!("query?query={encoded}"));
        let data = data.unwrap_or_else(|| panic!("no answer to {expression}"));
        data["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
