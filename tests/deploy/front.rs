//! An nginx with a shipped configuration before nodes under test: addresses and paths are exchanged, everything else is as shipped.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderValue, StatusCode};
use tungstenite::{Message, WebSocket};

use crate::files;
use crate::support::{PATIENCE, scratch};

/// One of the shipped files and what in it belongs to one place only.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Below `docs/deploy`.
    pub file: &'static str,
    /// Where it listens for viewers, and its other listeners.
    pub listens: &'static str,
    pub others: &'static [&'static str],
    pub nodes: [&'static str; 3],
    pub tls: bool,
}

pub const COMPOSE: Shipped = Shipped {
    file: "compose/nginx.conf",
    listens: "listen 80 ",
    others: &[],
    nodes: ["172.30.8.11:8080", "172.30.8.12:8080", "172.30.8.13:8080"],
    tls: false,
};
pub const BOXES: Shipped = Shipped {
    file: "nginx-keepalived/nginx.conf",
    listens: "listen 10.0.0.10:443 ",
    others: &["listen 10.0.0.10:80 "],
    nodes: ["10.0.0.21:8080", "10.0.0.22:8080", "10.0.0.23:8080"],
    tls: true,
};

/// A port of loopback that nobody listens at.
pub fn nobody() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

/// The running nginx; ended when dropped.
#[derive(Debug)]
pub struct Front {
    child: Child,
    pub folder: PathBuf,
    pub door: SocketAddr,
    /// Where `/alive` is.
    pub alive: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// The file as it is used here, in a folder of its own, with certificate and keys where it wants them.
pub fn prepare(
    shipped: Shipped,
    nodes: [SocketAddr; 3],
    edit: &[(&str, &str)],
) -> (PathBuf, SocketAddr, SocketAddr) {
    let folder = scratch("nginx");
    fs::create_dir_all(folder.join("tls")).unwrap();
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout live.key -out live.pem \
          -subj /CN=live.example -addext subjectAltName=DNS:live.example -addext basicConstraints=critical,CA:FALSE
        openssl rand -out tickets.key 80";
    let mut made = Command::new("sh");
    files::run(
        "openssl",
        made.args(["-c", script]).current_dir(folder.join("tls")),
    );
    let mut text = files::text(shipped.file);
    let (door, alive) = (nobody(), nobody());
    let here = folder.to_str().unwrap();
    let mut changes = vec![
        (shipped.listens.to_owned(), format!("listen {door} ")),
        (
            "listen 127.0.0.1:8089;".to_owned(),
            format!("listen {alive};"),
        ),
        ("/run/nginx.pid".to_owned(), format!("{here}/nginx.pid")),
        // Debian's nginx keeps these where only root may write.
        (
            "http {\n".to_owned(),
            format!(
                "http {{\n{}",
                ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|of| format!("{of}_temp_path {here}/{of};\n"))
                    .concat()
            ),
        ),
    ];
    for (shipped, node) in shipped.nodes.iter().zip(nodes) {
        changes.push(((*shipped).to_owned(), node.to_string()));
    }
    for other in shipped.others {
        changes.push(((*other).to_owned(), format!("listen {} ", nobody())));
    }
    for (from, to) in edit {
        changes.push(((*from).to_owned(), (*to).to_owned()));
    }
    for (from, to) in changes {
        assert!(text.contains(&from), "{}: no {from}", shipped.file);
        text = text.replace(&from, &to);
    }
    for (from, to) in [
        // The user of nginx' own image is called otherwise.
        ("user nginx;", "user www-data;".to_owned()),
        ("/etc/nginx/tls", format!("{here}/tls")),
        ("/var/log/nginx/", format!("{here}/")),
        ("/dev/stdout", format!("{here}/access.log")),
        ("/dev/stderr", format!("{here}/error.log")),
        (" buffer=64k flush=5s", String::new()),
    ] {
        text = text.replace(from, &to);
    }
    fs::write(folder.join("nginx.conf"), text).unwrap();
    (folder, door, alive)
}

/// nginx with the file of a prepared folder.
pub fn nginx(folder: &std::path::Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-c").arg(folder.join("nginx.conf"));
    command
        .arg("-e")
        .arg(folder.join("first.log"))
        .arg("-p")
        .arg(folder);
    command
}

impl Front {
    /// Starts it before three nodes.
    pub fn start(shipped: Shipped, nodes: [SocketAddr; 3], edit: &[(&str, &str)]) -> Front {
        let (folder, door, alive) = prepare(shipped, nodes, edit);
        let path = std::env::var("PATH").unwrap() + ":/usr/sbin";
        let child = nginx(&folder)
            .args(["-g", "daemon off;"])
            .env("PATH", path)
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("said.log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("nginx (Debian package nginx): {error}"));
        let tls = shipped.tls.then(|| {
            let authority = CertificateDer::from_pem_file(folder.join("tls/live.pem")).unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = rustls::ClientConfig::builder_with_provider(provider);
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
        });
        let front = Front {
            child,
            folder,
            door,
            alive,
            tls,
        };
        let begun = Instant::now();
        while TcpStream::connect(door).is_err() || TcpStream::connect(alive).is_err() {
            let said = front.said();
            assert!(begun.elapsed() < PATIENCE, "nginx does not listen: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        front
    }

    /// What it has said and logged.
    pub fn said(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        ["said.log", "first.log", "error.log", "access.log"]
            .map(read)
            .concat()
    }

    /// Tells the master to read its file again.
    pub fn reload(&self) {
        let pid = self.child.id().to_string();
        files::run("procps", Command::new("kill").args(["-HUP", &pid]));
    }

    /// A WebSocket from an address of loopback, or the answer that refused it.
    pub fn connect(&self, from: u8, query: &str) -> Result<Through, (StatusCode, String, String)> {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0);
        socket.bind(&from.into()).unwrap();
        socket.connect(&self.door.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let stream: Box<dyn Wire> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from("live.example").unwrap();
                let client = rustls::ClientConnection::new(tls.clone(), name).unwrap();
                Box::new(rustls::StreamOwned::new(client, stream))
            }
        };
        let mut request = format!("ws://live.example/ws{query}")
            .into_client_request()
            .unwrap();
        // A page of the same origin, and a client that lies about its address.
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        for (name, value) in [
            ("Origin", format!("{scheme}://live.example")),
            ("X-Forwarded-For", "9.9.9.9".to_owned()),
        ] {
            request
                .headers_mut()
                .insert(name, HeaderValue::from_str(&value).unwrap());
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Through { socket }),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                let after = answer.headers().get("retry-after");
                let after = after.map_or("", |value| value.to_str().unwrap()).to_owned();
                let body = answer.body().clone().unwrap_or_default();
                Err((answer.status(), after, String::from_utf8(body).unwrap()))
            }
            Err(error) => panic!("{error}: {}", self.said()),
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // TERM, so that the workers end as well; it may have ended already.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

/// Plain or encrypted.
pub trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// A viewer that came through nginx.
pub struct Through {
    socket: WebSocket<Box<dyn Wire>>,
}

impl std::fmt::Debug for Through {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Through")
    }
}

impl Through {
    pub fn send(&mut self, message: &serde_json::Value) {
        self.socket
            .send(Message::text(message.to_string()))
            .unwrap();
    }

    /// The next message of this type; others may come before it.
    pub fn expect(&mut self, kind: &str) -> serde_json::Value {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => {
                    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                    if value["type"] == kind {
                        return value;
                    }
                }
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }
}
