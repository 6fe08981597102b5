//! Where a client thread's sockets come from. Owned by its thread.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// Ports a source address is used with.
const PORTS: std::ops::Range<u16> = 10_000..60_000;
/// Ports tried for one connection, before the system's word is taken for it.
const TRIES: usize = 256;
/// How far to the next port after one that is taken.
const LEAP: u16 = 997;
/// Source addresses of one thread: 127.(1 + thread).0.1 and following, so that threads never share one.
const ADDRESSES: u8 = 200;
/// Receive buffer of a viewer that does not read: small, so that it is slow for the server and not for the kernel.
const DEAF_BUFFER_BYTES: usize = 8 << 10;

/// Where a thread's connections come from. To one address and port the kernel has some 28,000 source ports for each source
/// address; on loopback every address of 127/8 is ours, so ports never run out. The port is chosen here because the
/// kernel's own search becomes slow when few are left.
#[derive(Debug)]
pub(super) struct Source {
    thread: u8,
    address: u8,
    port: u16,
}

impl Source {
    /// Begins at a port by chance: two swarms on one server then seldom meet.
    pub(super) fn new(thread: usize, chance: u64) -> Source {
        let ports = u64::from(PORTS.end - PORTS.start);
        Source {
            thread: (thread % 250) as u8,
            address: 1,
            port: PORTS.start + (chance % ports) as u16,
        }
    }

    fn next(&mut self) -> SocketAddr {
        self.port += 1;
        if self.port >= PORTS.end {
            self.port = PORTS.start;
            self.address = self.address % ADDRESSES + 1;
        }
        let ip = Ipv4Addr::new(127, 1 + self.thread, 0, self.address);
        SocketAddr::new(IpAddr::V4(ip), self.port)
    }

    /// Away from ports that another swarm holds in a row.
    fn leap(&mut self) {
        let ports = PORTS.end - PORTS.start;
        self.port = PORTS.start + (self.port - PORTS.start + LEAP) % ports;
    }

    /// A socket on its way to `target`. A port that someone else uses for this target is passed over.
    pub(super) fn connect(&mut self, target: SocketAddr, reads: bool) -> io::Result<TcpStream> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_connect(target, reads) {
                Err(error) if is_loopback(target) && tries < TRIES && is_taken(&error) => {
                    self.leap()
                }
                tried => return tried,
            }
        }
    }

    fn try_connect(&mut self, target: SocketAddr, reads: bool) -> io::Result<TcpStream> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        if !reads {
            socket.set_recv_buffer_size(DEAF_BUFFER_BYTES)?;
        }
        if is_loopback(target) {
            socket.set_reuse_address(true)?;
            socket.bind(&self.next().into())?;
        }
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error) if in_progress(&error) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(socket.into());
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

/// Whether an address is in use: by a listener (at `bind`), or by another connection to the same target (at `connect`).
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// Whether a peer is on this machine, so that source addresses of 127.0.0.0/8 reach it.
fn is_loopback(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V4(v4) if *v4.ip() == Ipv4Addr::LOCALHOST || v4.ip().is_loopback())
}
