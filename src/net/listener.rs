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

/// A shard's listener on a reserved address. `backlog` is what the kernel holds for us; it caps it at `somaxconn`.
///
/// # Errors
/// Whatever `bind` and `listen` say.
pub fn listen(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
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

    #[test]
    fn a_taken_port_is_noticed_even_with_reuseport() {
        let first = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let _listening = listen(first.address, 16).unwrap();
        let second = reserve(first.address);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn shards_share_a_reserved_address() {
        let reserved = reserve("127.0.0.1:0".parse().unwrap()).unwrap();
        let _a = listen(reserved.address, 16).unwrap();
        let _b = listen(reserved.address, 16).unwrap();
        std::net::TcpStream::connect(reserved.address).unwrap();
    }
}
