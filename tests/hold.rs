//! Many connections at once: 15,000 held by one process with default settings, each of them reached by a broadcast.
//!
//! `HOLD` sets how many and `HOLD_SHARDS` on how many shards; the figures in docs/bench were made with 60,000 on 4. Each
//! client thread has its own descriptor table and source address, so that neither descriptors nor ports run out first.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use danmaku_gateway::net::fd;
use socket2::{Domain, Socket, Type};
use support::{Node, wait_for};

/// Connections per client thread: below the 20,000 descriptors some machines allow a table.
const PER_THREAD: usize = 15_000;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// Connects from an address that is this thread's alone, with a port of our choice: the kernel's own search for a free one
/// takes longer the fewer are left.
fn connect(from: Ipv4Addr, port: &mut u16, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    loop {
        *port = port.checked_add(1).expect("a free port");
        match socket.bind(&SocketAddr::from((from, *port)).into()) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => continue,
            bound => break bound.expect("a source address"),
        }
    }
    socket.connect(&to.into()).expect("a connection");
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

/// Reads until `end` has come, byte by byte at the end of small messages.
fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.windows(end.len()).any(|window| window == end) {
        let bytes = stream.read(&mut buffer).expect("bytes");
        assert!(
            bytes > 0,
            "closed after {:?}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&buffer[..bytes]);
    }
}

/// One thread's viewers: connected, then told to wait, then each has read the broadcast.
fn hold(
    index: usize,
    count: usize,
    to: SocketAddr,
    connected: &mpsc::Sender<usize>,
    go_on: &mpsc::Receiver<()>,
) -> usize {
    fd::own_table().expect("a descriptor table of its own");
    fd::raise_limit();
    let from = Ipv4Addr::new(127, 0, 0, 10 + index as u8);
    let request = format!(
        "GET /ws?room=r{index} HTTP/1.1\r\nHost: {to}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let mut port = 10_000;
    let mut viewers: Vec<TcpStream> = (0..count)
        .map(|_| {
            let mut stream = connect(from, &mut port, to);
            stream
                .write_all(request.as_bytes())
                .expect("a request sent");
            read_until(&mut stream, b"\"type\":\"joined\"");
            stream
        })
        .collect();
    connected.send(count).unwrap();
    go_on.recv().unwrap();
    for stream in &mut viewers {
        read_until(stream, b"\"type\":\"broadcast\"");
    }
    viewers.len()
}

#[test]
fn fifteen_thousand_with_default_settings() {
    let count = number("HOLD", 15_000);
    let shards = number("HOLD_SHARDS", 0);
    let node = Node::start(&format!("[server]\nshards = {shards}\n"));
    let (connected_tx, connected) = mpsc::channel();
    let before = node.metric("process_resident_memory_bytes");
    let begun = Instant::now();
    let threads: Vec<_> = (0..count.div_ceil(PER_THREAD))
        .map(|index| {
            let share = PER_THREAD.min(count - index * PER_THREAD);
            let (go_tx, go_on) = mpsc::channel();
            let (to, connected) = (node.public, connected_tx.clone());
            let thread = thread::spawn(move || hold(index, share, to, &connected, &go_on));
            (thread, go_tx)
        })
        .collect();
    drop(connected_tx);
    let all: usize = connected.iter().take(threads.len()).sum();
    assert_eq!(all, count);
    let took = begun.elapsed();
    node.metric_becomes("danmaku_connections", count as f64);
    let after = node.metric("process_resident_memory_bytes");
    let told = node.api(
        "POST",
        "/api/v1/broadcast",
        r#"{"event":"hello","data":null}"#,
    );
    assert_eq!(told.json()["connections"], count);
    for (_, go_on) in &threads {
        go_on.send(()).unwrap();
    }
    let reached: usize = threads
        .into_iter()
        .map(|(thread, _)| thread.join().unwrap())
        .sum();
    assert_eq!(reached, count);
    println!(
        "{count} viewers connected in {took:?}, all reached by a broadcast; {:.0} B resident each",
        (after - before) / count as f64
    );
    node.metric_becomes("danmaku_connections", 0.0);
    // Half of what they took at least is given back; some of the rest is the code and the tables a first storm touches.
    wait_for("memory given back", || {
        let left = node.metric("process_resident_memory_bytes") - before;
        left <= (after - before) / 2.0
    });
    node.metric_becomes("danmaku_connection_permits_in_use", 0.0);
    assert_eq!(
        node.metric("danmaku_refusals_total{reason=\"connections_full\"}"),
        0.0
    );
}
