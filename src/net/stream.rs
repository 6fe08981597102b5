//! One client's bytes. Everything reads and writes through [`Stream`], so that TLS will be one more variant here.

use std::io::{self, IoSlice, Read, Write};

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// A non-blocking client connection.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
}

/// What came of a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing now; the poller will tell.
    Blocked,
    /// The other side is done sending (reads only).
    End,
    /// The connection is broken.
    Broken,
}

impl Stream {
    /// Reads once.
    pub fn read(&mut self, into: &mut [u8]) -> Moved {
        let Stream::Tcp(tcp) = self;
        loop {
            return match tcp.read(into) {
                Ok(0) => Moved::End,
                Ok(bytes) => Moved::Bytes(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => moved(&error),
            };
        }
    }

    /// Writes once. `from` is not empty.
    pub fn write(&mut self, from: &[u8]) -> Moved {
        let Stream::Tcp(tcp) = self;
        loop {
            return match tcp.write(from) {
                Ok(0) => Moved::Broken,
                Ok(bytes) => Moved::Bytes(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => moved(&error),
            };
        }
    }

    /// Writes two pieces at once, as one. Neither is empty.
    pub fn write_both(&mut self, first: &[u8], second: &[u8]) -> Moved {
        let Stream::Tcp(tcp) = self;
        let pieces = [IoSlice::new(first), IoSlice::new(second)];
        loop {
            return match tcp.write_vectored(&pieces) {
                Ok(0) => Moved::Broken,
                Ok(bytes) => Moved::Bytes(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => moved(&error),
            };
        }
    }

    /// Small frames go out at once (no Nagle), where that is not inherited from the listener. A socket that does not take the
    /// option works all the same.
    #[cfg(not(target_os = "linux"))]
    pub fn set_up(&mut self) {
        let Stream::Tcp(tcp) = self;
        let _ = tcp.set_nodelay(true);
    }

    /// Says that we are done sending; what was sent still arrives.
    pub fn end_sending(&mut self) {
        let Stream::Tcp(tcp) = self;
        // A peer that is gone already makes this fail, and then there is nobody to tell.
        let _ = tcp.shutdown(std::net::Shutdown::Write);
    }

    /// Registers for both directions, edge-triggered.
    ///
    /// # Errors
    /// What the poller says (no memory, too many watches).
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let Stream::Tcp(tcp) = self;
        tcp.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }
}

fn moved(error: &io::Error) -> Moved {
    match error.kind() {
        io::ErrorKind::WouldBlock => Moved::Blocked,
        _ => Moved::Broken,
    }
}
