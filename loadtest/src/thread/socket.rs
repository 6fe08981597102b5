//! Reading from and writing to the clients' sockets. Part of a client thread's turn; sockets are edge-triggered, so a read goes on
//! until the socket is empty.

use std::io::{self, Read, Write};

use super::{SCRATCH_BYTES, Stage, Thread};
use crate::client::frames;

impl Thread {
    pub(super) fn writable(&mut self, at: u32) {
        match self.clients[at as usize].stage {
            Stage::Connecting => self.connected(at),
            Stage::Asking | Stage::Open => self.write_out(at),
            Stage::Away | Stage::Gone => {}
        }
    }

    pub(super) fn write_out(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        let Some(stream) = client.stream.as_mut() else {
            return;
        };
        while !client.out.is_empty() {
            match stream.write(&client.out) {
                Ok(written) if written == client.out.len() => client.out = Vec::new(),
                Ok(written) => drop(client.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.broken(at),
            }
        }
    }

    /// Writing fails: the server has let go. What it said before may still be unread, by a client that does not read.
    fn broken(&mut self, at: u32) {
        if std::mem::take(&mut self.clients[at as usize].deaf) {
            self.readable(at, true);
        }
        self.lost(at, "1006");
    }

    /// Writes what is noted.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            self.write_out(at);
        }
        self.dirty = dirty;
    }

    /// Reads what has come, until the socket is empty.
    pub(super) fn readable(&mut self, at: u32, ends: bool) {
        loop {
            let client = &mut self.clients[at as usize];
            if client.deaf {
                return;
            }
            let Some(stream) = client.stream.as_mut() else {
                return;
            };
            let tail = client.decoder.tail().len();
            if self.scratch.len() < tail + SCRATCH_BYTES {
                self.scratch.resize(tail + SCRATCH_BYTES, 0);
            }
            self.scratch[..tail].copy_from_slice(client.decoder.tail());
            let read = stream.read(&mut self.scratch[tail..]);
            let room = self.scratch.len() - tail;
            match read {
                Ok(0) => return self.lost(at, "1006"),
                Ok(read) => {
                    self.meter.bytes.add(read as u64);
                    self.take(at, tail + read);
                    // A short read empties the socket, and what comes later is a new edge; but an end that came with these
                    // bytes is not: its edge was this one.
                    if read < room && !ends {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.lost(at, "1006"),
            }
        }
    }

    /// A text message for the server, sent at the end of the turn.
    pub(super) fn say(&mut self, at: u32, message: String) {
        let mask = (self.chance.bits() as u32).to_be_bytes();
        let client = &mut self.clients[at as usize];
        if client.out.is_empty() {
            self.dirty.push(at);
        }
        frames::text(&mut client.out, message.into_bytes(), mask);
    }
}
