//! What integration tests share: a gateway process on free ports, an HTTP client on std sockets, and tungstenite's
//! WebSocket client. Nothing here knows the gateway's insides.
#![allow(dead_code)] // Each test program uses its part.

pub mod clients;
pub mod cluster;
pub mod redis;

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

/// The longest a test waits for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The HS256 secret of the test node.
pub const SECRET: &str = "integration-tests-secret-0123456789abcdef";
/// Its API key.
pub const API_KEY: &str = "integration-api-key-0123";

static COUNTER: AtomicU32 = AtomicU32::new(0);

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

/// A fresh path below the system's scratch folder. The folder is this run's alone: process ids come again, and a ready file
/// left by an earlier run would name ports where nobody listens any more.
pub fn scratch(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let word = RandomState::new().hash_one(std::process::id());
        let folder = std::env::temp_dir().join(format!("danmaku-test-{word:016x}"));
        std::fs::create_dir(&folder).unwrap();
        end_if_stuck();
        folder
    });
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{n}-{name}"))
}

/// Waits until something is so; fails with `what` when patience ends.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The gateway's binary.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_danmaku"))
}

/// A gateway process on free ports; ended when dropped.
pub struct Node {
    pub child: Child,
    pub public: SocketAddr,
    pub internal: SocketAddr,
    pub config: PathBuf,
    pub log: PathBuf,
}

impl Node {
    /// Two shards, anonymous viewers may speak, one key, one API key; `extra` is TOML that comes after.
    pub fn start(extra: &str) -> Node {
        Node::with(&format!(
            "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n{extra}"
        ))
    }

    /// A node whose config is this TOML plus the test key, the API key and defaults for what it does not say.
    pub fn with(toml: &str) -> Node {
        Node::run(Node::write_config(toml))
    }

    /// A node with a further environment.
    pub fn start_in(extra: &str, environment: &[(&str, &str)]) -> Node {
        let mut command = Command::new(binary());
        command.envs(environment.iter().copied());
        let listen = "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n";
        Node::run_by(
            command,
            &["serve"],
            Node::write_config(&format!("{listen}{extra}")),
        )
    }

    /// A node run by another word than `serve`, and with further flags.
    pub fn start_as(words: &[&str]) -> Node {
        let toml = "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n";
        Node::run_by(Command::new(binary()), words, Node::write_config(toml))
    }

    fn write_config(toml: &str) -> PathBuf {
        let mut toml = toml.to_string();
        if !toml.contains("[server]") {
            toml.push_str("\n[server]\nshards = 2\n");
        }
        if !toml.contains("[overload]") {
            // A machine that is busy with other tests is no overloaded node.
            toml.push_str("\n[overload]\nlag = \"60s\"\n");
        }
        if !toml.contains("[auth]") {
            toml.push_str("\n[auth]\nanonymous = \"speak\"\n");
        }
        if !toml.contains("[[auth.keys]]") {
            toml.push_str(&format!(
                "\n[[auth.keys]]\nkid = \"t\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
            ));
        }
        if !toml.contains("[[api_keys]]") {
            toml.push_str(&format!(
                "\n[[api_keys]]\nname = \"backend\"\nkey = \"{API_KEY}\"\n"
            ));
        }
        let config = scratch("node.toml");
        std::fs::write(&config, toml).unwrap();
        config
    }

    /// A node from a config file as it is.
    pub fn run(config: PathBuf) -> Node {
        Node::run_by(Command::new(binary()), &["serve"], config)
    }

    /// The same, with only so many descriptors.
    pub fn run_with_descriptors(config: PathBuf, descriptors: u32) -> Node {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script]).arg(binary());
        Node::run_by(shell, &["serve"], config)
    }

    fn run_by(mut command: Command, words: &[&str], config: PathBuf) -> Node {
        let ready = scratch("ready.json");
        let log = scratch("node.log");
        let mut child = command
            .args(words)
            .args([
                "--config".as_ref(),
                config.as_os_str(),
                "--ready-file".as_ref(),
                ready.as_os_str(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !ready.exists() {
            if let Some(status) = child.try_wait().unwrap() {
                let log = std::fs::read_to_string(&log).unwrap();
                panic!("the node ended before it was ready: {status}\n{log}");
            }
            assert!(begun.elapsed() < PATIENCE, "the node is not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        let line = std::fs::read_to_string(&ready).unwrap();
        let facts: Value = serde_json::from_str(&line).unwrap();
        let address = |key: &str| facts[key].as_str().unwrap().parse().unwrap();
        Node {
            public: address("public"),
            internal: address("internal"),
            child,
            config,
            log,
        }
    }

    /// A token for `user` with the given further claims, signed with the test key by the gateway's own command.
    pub fn token(&self, arguments: &[&str]) -> String {
        let out = Command::new(binary())
            .args(["token", "--config"])
            .arg(&self.config)
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim().to_string()
    }

    /// A viewer at `/ws{query}`.
    pub fn connect(&self, query: &str) -> Viewer {
        Viewer::connect(self.public, query, &[])
    }

    /// A viewer in a room, after `welcome` and `joined`.
    pub fn join(&self, room: &str) -> Viewer {
        let mut viewer = self.connect(&format!("?room={room}"));
        viewer.expect("welcome");
        viewer.expect("joined");
        viewer
    }

    /// A request to the public listener.
    pub fn public(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        request(self.public, method, path, headers, body)
    }

    /// A request to the internal listener with the API key.
    pub fn api(&self, method: &str, path: &str, body: &str) -> Answer {
        let key = format!("Authorization: Bearer {API_KEY}");
        request(self.internal, method, path, &[&key], body)
    }

    /// One number of `/metrics`: the sample whose name and labels are `series`.
    pub fn metric(&self, series: &str) -> f64 {
        let page = request(self.internal, "GET", "/metrics", &[], "").text;
        let line = page.lines().find(|line| {
            line.strip_prefix(series)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        let line = line.unwrap_or_else(|| panic!("no series {series}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a metric has a value; some are set once a second.
    pub fn metric_becomes(&self, series: &str, wanted: f64) {
        let begun = Instant::now();
        loop {
            let value = self.metric(series);
            if value == wanted {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{series} is {value}, wanted {wanted}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends the process a signal by name.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the node does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the node's log\n{}", self.logged());
        }
    }
}

/// A WebSocket client: tungstenite's own, blocking.
pub struct Viewer {
    pub socket: WebSocket<TcpStream>,
    pub protocol: Option<String>,
    pub extensions: Option<String>,
    waiting: std::collections::VecDeque<Value>,
}

impl std::fmt::Debug for Viewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Viewer")
    }
}

impl Viewer {
    /// Connects, or gives the HTTP answer that refused it.
    pub fn try_connect(
        address: SocketAddr,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Viewer, Answer> {
        let mut request = format!("ws://{address}/ws{query}")
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(*name, value);
        }
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        match tungstenite::client(request, stream) {
            Ok((socket, response)) => Ok(Viewer {
                socket,
                protocol: header(&response, "sec-websocket-protocol"),
                extensions: header(&response, "sec-websocket-extensions"),
                waiting: std::collections::VecDeque::new(),
            }),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let headers = response
                    .headers()
                    .iter()
                    .map(|(name, value)| {
                        (name.as_str().to_string(), value.to_str().unwrap().into())
                    })
                    .collect();
                let text = response.body().clone().unwrap_or_default();
                Err(Answer {
                    status: response.status().as_u16(),
                    headers,
                    text: String::from_utf8(text).unwrap(),
                })
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects; a refusal fails the test.
    pub fn connect(address: SocketAddr, query: &str, headers: &[(&'static str, &str)]) -> Viewer {
        Viewer::try_connect(address, query, headers)
            .unwrap_or_else(|answer| panic!("refused: {} {}", answer.status, answer.text))
    }

    /// Sends one message.
    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    /// Sends text as it is.
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Sends bytes below the protocol.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).unwrap();
    }

    /// The next JSON object, whatever its type. A close or an end fails the test.
    pub fn next(&mut self) -> Value {
        loop {
            if let Some(value) = self.waiting.pop_front() {
                return value;
            }
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    for line in text.lines() {
                        self.waiting.push_back(serde_json::from_str(line).unwrap());
                    }
                }
                Ok(Message::Close(frame)) => panic!("closed: {frame:?}"),
                Ok(_) => {}
                Err(error) => panic!("no message: {error}"),
            }
        }
    }

    /// The next object of this type; `online` counts may come between, anything else fails the test.
    pub fn expect(&mut self, kind: &str) -> Value {
        loop {
            let value = self.next();
            if value["type"] == kind {
                return value;
            }
            assert_eq!(value["type"], "online", "wanted {kind}, got {value}");
        }
    }

    /// Whether nothing but `online` counts comes for a while.
    pub fn is_quiet_for(&mut self, time: Duration) -> bool {
        self.socket.get_mut().set_read_timeout(Some(time)).unwrap();
        let quiet = loop {
            match self.socket.read() {
                Ok(Message::Text(text)) if text.contains("\"type\":\"online\"") => {}
                Ok(_) => break false,
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::WouldBlock =>
                {
                    break true;
                }
                Err(error) => panic!("{error}"),
            }
        };
        self.socket
            .get_mut()
            .set_read_timeout(Some(PATIENCE))
            .unwrap();
        quiet
    }

    /// Reads until the node closes; the code and reason of its close frame. Messages on the way are thrown away.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(Some(frame))) => {
                    let code = match frame.code {
                        CloseCode::Library(code) => code,
                        code => code.into(),
                    };
                    // Answer it, as a client does.
                    let _ = self.socket.flush();
                    return (code, frame.reason.to_string());
                }
                Ok(Message::Close(None)) => return (1005, String::new()),
                Ok(_) => {}
                Err(error) => panic!("no close frame: {error}"),
            }
        }
    }
}

fn header(response: &tungstenite::handshake::client::Response, name: &str) -> Option<String> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap().to_string())
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let is = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(is)
            .map(|(_, value)| value.as_str())
    }

    /// Fails unless this is a refusal with that status and code, a reason and a hint.
    pub fn refuses(&self, status: u16, code: &str) {
        let json = self.json();
        assert_eq!(
            (self.status, json["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert!(
            json["reason"].as_str().is_some_and(|s| !s.is_empty()),
            "{json}"
        );
        assert!(
            json["hint"].as_str().is_some_and(|s| !s.is_empty()),
            "{json}"
        );
        if status == 429 || status == 503 {
            assert!(json["retry_after_ms"].as_u64().is_some(), "{json}");
            assert!(self.header("retry-after").is_some(), "{self:?}");
        }
    }
}

/// One HTTP request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    raw(
        address,
        format!("{head}\r\n{body}").as_bytes(),
        method == "HEAD",
    )
}

/// Bytes as they are, and one answer.
pub fn raw(address: SocketAddr, bytes: &[u8], head_only: bool) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut reader = BufReader::new(stream);
    read_answer(&mut reader, head_only).expect("an answer")
}

/// Reads one answer; `None` when the connection ended first.
pub fn read_answer(reader: &mut BufReader<TcpStream>, head_only: bool) -> Option<Answer> {
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap() == 0 {
        return None;
    }
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_string(), value.trim().to_string()));
    }
    let mut answer = Answer {
        status,
        headers,
        text: String::new(),
    };
    let length = answer
        .header("content-length")
        .map_or(0, |n| n.parse().unwrap());
    if !head_only && length > 0 {
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        answer.text = String::from_utf8(body).unwrap();
    }
    Some(answer)
}
