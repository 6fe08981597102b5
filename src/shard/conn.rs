//! One connection as its shard holds it. Owned by the shard's slab; everything that waits for its socket is here.

use std::net::IpAddr;

use crate::base::ids::ConnId;
use crate::base::refusal::Refusal;
use crate::net::stream::{Moved, Stream};
use crate::proto::http::Reader;
use crate::room::outbox::Outbox;
use crate::session::viewer::Viewer;
use crate::sync::addresses::AddressPermit;
use crate::sync::gate::Permit;
use crate::telemetry::block::Block;
use crate::telemetry::table::Gauge;

use super::upgrade::Upgrading;

/// A connection: a viewer, or an HTTP client that may become one.
///
/// What a walk looks at comes first and fills one cache line: between two visits the kernel has used the caches for itself, and each
/// line more would come from memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Conn {
    pub outbox: Outbox,
    /// Monotonic ms since which the socket has taken nothing while something waits; 0 = not stuck.
    pub stuck_ms: u64,
    pub stream: Stream,
    pub generation: u32,
    pub flags: Flags,
    pub kind: Kind,
    pub seats: Vec<SeatRef>,
    /// Monotonic ms at which anything was last heard.
    pub heard_ms: u64,
    /// Monotonic ms at which a close under way, or an HTTP wait, is given up; 0 = none.
    pub deadline_ms: u64,
    /// The peer as accepted.
    pub peer: IpAddr,
    /// Viewers only: a place under `admission.connections_max` and `per_address_max`.
    pub permits: Permits,
}

/// What a connection that is only listening costs, seats aside.
const _: () = assert!(size_of::<Conn>() <= 320);
/// What a walk looks at is one cache line. (A debug build's sockets remember their poller, and are larger.)
#[cfg(not(debug_assertions))]
const _: () = assert!(std::mem::offset_of!(Conn, kind) <= 64);

/// What a viewer gives back by going.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "held only to be dropped")]
pub struct Permits {
    pub connection: Option<Permit>,
    pub address: Option<AddressPermit>,
}

/// What speaks on a connection.
#[derive(Debug)]
pub enum Kind {
    /// HTTP/1.1, perhaps on its way to an upgrade.
    Http(Box<HttpConn>),
    /// A WebSocket session.
    Viewer(Viewer),
}

/// Which listener a connection came in by.
pub use crate::api::Listener;

/// The HTTP side of a connection; boxed, because viewers are many and these are few and short.
#[derive(Debug)]
pub struct HttpConn {
    pub reader: Reader,
    pub listener: Listener,
    /// Bytes read ahead while a request is being answered; at most one read.
    pub tail: Vec<u8>,
    /// A request is with home shards: its key in `Shard::exchanges`.
    pub exchange: Option<u64>,
    /// An upgrade waits for room admission.
    pub upgrading: Option<Box<Upgrading>>,
    /// Held until the first request has been judged.
    pub handshake: Option<Permit>,
    /// No handshake permit could be had: what the first request is answered, unless one is free by then.
    pub refused: Option<Refusal>,
    /// How the answer under way is framed.
    pub framing: crate::proto::http::reply::Framing,
    pub requests: u32,
    /// Monotonic ns at which the client was accepted, or its last answer written: when a handshake begins.
    pub since_ns: u64,
    /// The body's deadline runs.
    pub in_body: bool,
}

/// A seat in a hosted room: the room's slot and the position in the stream of this connection's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatRef {
    pub hosted: u32,
    pub member: u32,
}

/// Answers that may wait for an HTTP client before its next request is taken.
const ANSWER_BYTES_AHEAD: usize = 64 * 1024;

/// Small facts of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// It is a viewer: what [`Kind`] says as well, further away.
    pub viewer: bool,
    /// The socket is full: a writable edge will come.
    pub blocked: bool,
    /// There may be bytes to read that no further edge will announce.
    pub readable: bool,
    /// The peer has said that it is done sending.
    pub peer_done: bool,
    /// On the resume list.
    pub resuming: bool,
    /// On the flush list.
    pub flushing: bool,
    /// On the close list: nothing is to be done with it any more.
    pub doomed: bool,
    /// Its timer has been brought forward for being stuck.
    pub stuck_armed: bool,
    /// Pinged since it was last heard.
    pub pinged: bool,
    /// Close as soon as the outbox is empty.
    pub close_when_flushed: bool,
    /// HTTP: everything is said; what still arrives is read and thrown away so that the last answer is not reset.
    pub lingering: bool,
}

impl Conn {
    /// Whether the walk must pass it by: its socket is full, or it may not be written to yet or any more.
    pub fn is_held(&self) -> bool {
        self.flags.blocked || self.flags.doomed || !self.flags.viewer
    }

    /// Writes as much of the outbox as the socket takes. Returns bytes written, or `None` when the connection is broken.
    pub fn flush_outbox(&mut self, now_ms: u64) -> Option<usize> {
        let mut written = 0;
        while !self.outbox.is_empty() && !self.flags.blocked {
            match self.stream.write(self.outbox.pending()) {
                Moved::Bytes(bytes) => {
                    written += bytes;
                    self.flags.blocked = bytes < self.outbox.len();
                    self.outbox.advance(bytes);
                }
                Moved::Blocked => self.flags.blocked = true,
                Moved::End | Moved::Broken => return None,
            }
        }
        if self.outbox.is_empty() {
            self.stuck_ms = 0;
        } else {
            self.note_blocked(written > 0, now_ms);
        }
        Some(written)
    }

    /// Keeps the shard's sum of what waits up to date; asked wherever an outbox may have become another.
    pub fn count_outbox(&mut self, metrics: &Block) {
        let change = self.outbox.change();
        if change != 0 {
            metrics.shift(Gauge::OutboxBytes, change);
        }
    }

    /// The socket is full while something is due: keeps the time since which it has taken nothing.
    pub fn note_blocked(&mut self, progressed: bool, now_ms: u64) {
        self.flags.blocked = true;
        if progressed || self.stuck_ms == 0 {
            self.stuck_ms = now_ms.max(1);
        }
    }

    /// Whether the next HTTP request must wait: one is being answered, or answers are not read.
    pub fn is_busy(&self) -> bool {
        match &self.kind {
            Kind::Http(http) => {
                // A client that does not read its answers gets no further ones.
                let unread = self.outbox.len() > ANSWER_BYTES_AHEAD;
                http.exchange.is_some()
                    || http.upgrading.is_some()
                    || !http.tail.is_empty()
                    || unread
            }
            Kind::Viewer(_) => false,
        }
    }

    /// Its id, given its slot.
    pub fn id(&self, slot: u32) -> ConnId {
        ConnId {
            slot,
            generation: self.generation,
        }
    }
}
