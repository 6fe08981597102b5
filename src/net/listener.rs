//! Listening sockets. Each shard has its own on the same address (`SO_REUSEPORT`): the kernel spreads the connections.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

/// Holds an address for the shards: bound, never listening, so that no connection can arrive at it.
#[derive(Debug)]
pub struct Reserved {
    _socket: Socket,
    /// The address with the port the system chose where 0 was asked for.
    pub address: SocketAddr,
}

/// Reserves `address`, and finds out whether anyone else listens there: with `SO_REUSEPORT` alone a second gateway would
/// silently share the port.
///
/// # Errors
/// `AddrInUse` and whatever else `bind` says.
pub fn reserve(address: SocketAddr) -> io::Result<Reserved> {
    if address.port() != 0 {
        let probe = socket(address)?;
        probe.set_reuse_address(true)?;
        probe.bind(&address.into())?;
        probe.listen(1)?;
    }
    let socket = socket(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    let address = socket
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(Reserved {
        _socket: socket,
        address,
    })
}

/// What accepted connections are to be like. On Linux they inherit it from the listener, which spares a call for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Bytes the kernel takes beyond what is on its way (`TCP_NOTSENT_LOWAT`); 0 = its own measure. Without it a client that
    /// never reads fills megabytes of kernel memory before it is seen to be slow.
    pub unsent_bytes_max: u32,
}

/// A shard's listener on a reserved address. `backlog` is what the kernel holds for us; it caps it at `somaxconn`.
///
/// # Errors
/// Whatever `bind` and `listen` say.
pub fn listen(address: SocketAddr, backlog: i32, traits: Traits) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    set_traits(&socket, traits)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

#[cfg(target_os = "linux")]
fn set_traits(socket: &Socket, traits: Traits) -> io::Result<()> {
    // Small frames go out at once (no Nagle).
    socket.set_tcp_nodelay(true)?;
    match traits.unsent_bytes_max {
        0 => Ok(()),
        bytes => socket.set_tcp_notsent_lowat(bytes),
    }
}

#[cfg(not(target_os = "linux"))]
fn set_traits(_: &Socket, _: Traits) -> io::Result<()> {
    Ok(())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAITS: Traits = Traits {
        unsent_bytes_max: 70_000,
    };

    #[test]
    fn a_taken_port_is_noticed_even_with_reuseport() {
        let first = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let _listening = listen(first.address, 16, TRAITS).unwrap();
        let second = reserve(first.address);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn shards_share_a_reserved_address() {
        let reserved = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let _a = listen(reserved.address, 16, TRAITS).unwrap();
        let _b = listen(reserved.address, 16, TRAITS).unwrap();
        std::net::TcpStream::connect(reserved.address).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn accepted_connections_inherit_what_the_listener_is() {
        let reserved = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let listening = listen(reserved.address, 16, TRAITS).unwrap();
        let _client = std::net::TcpStream::connect(reserved.address).unwrap();
        let (accepted, _) = listening.accept().unwrap();
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 70_000);
        assert!(accepted.nonblocking().unwrap());
    }
}
