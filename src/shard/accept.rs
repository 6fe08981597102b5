//! Accepting: a bounded number per turn, pausing when descriptors run out. Part of the shard's turn.

use std::io;
use std::net::IpAddr;

use mio::net::TcpListener;
use mio::{Interest, Token};

use super::conn::{Conn, Flags, HttpConn, Kind, Listener, Permits};
use super::{Shard, Start};
use crate::base::limits;
use crate::base::refusal::{Code, Refusal};
use crate::net::listener;
use crate::net::stream::Stream;
use crate::proto::http::reply::{Framing, Reply};
use crate::proto::http::{HttpLimits, Reader};
use crate::room::outbox::Outbox;
use crate::telemetry::table::Counter;

/// Pause after the descriptors ran out. Edge-triggered accept stalls for ever without it: no new edge comes for those
/// who wait already.
const PAUSE_MS: u64 = 50;

/// Sockets of the descriptor reserve that only the internal listener may take.
const INTERNAL_RESERVE: usize = limits::DESCRIPTOR_RESERVE / 4;

/// The shard's two listeners.
pub struct Listeners {
    both: [Listening; 2],
}

struct Listening {
    which: Listener,
    socket: TcpListener,
    /// There may be someone to accept.
    pending: bool,
    /// Out of descriptors: not before this monotonic ms.
    paused_until_ms: Option<u64>,
}

impl Listeners {
    /// Opens both and registers them.
    pub fn open(start: &Start) -> io::Result<Listeners> {
        let traits = listener::Traits {
            unsent_bytes_max: start.policy.config.slow.unsent_bytes_max,
        };
        let open = |which, address, token| {
            let mut socket = listener::listen(address, limits::LISTEN_BACKLOG, traits)?;
            let registry = start.poll.registry();
            registry.register(&mut socket, token, Interest::READABLE)?;
            Ok::<_, io::Error>(Listening {
                which,
                socket,
                pending: true,
                paused_until_ms: None,
            })
        };
        Ok(Listeners {
            both: [
                open(Listener::Public, start.public, token(0))?,
                open(Listener::Internal, start.internal, token(1))?,
            ],
        })
    }

    /// Notes an event if the token is a listener's.
    pub fn take(&mut self, event: Token) -> bool {
        for (index, listening) in self.both.iter_mut().enumerate() {
            if event == token(index) {
                listening.pending = true;
                return true;
            }
        }
        false
    }

    /// Whether there is someone to accept at once.
    pub fn has_pending(&self) -> bool {
        self.both
            .iter()
            .any(|one| one.pending && one.paused_until_ms.is_none())
    }

    /// When the soonest pause ends.
    pub fn resume_ms(&self) -> Option<u64> {
        self.both.iter().filter_map(|one| one.paused_until_ms).min()
    }
}

fn token(index: usize) -> Token {
    Token(usize::MAX - 1 - index)
}

impl Shard {
    /// The accept step of the turn.
    pub(super) fn accept_paused_or_pending(&mut self) {
        for index in 0..self.listeners.both.len() {
            let now_ms = self.now.mono_ms();
            let listening = &mut self.listeners.both[index];
            if listening.paused_until_ms.is_some_and(|at| at <= now_ms) {
                listening.paused_until_ms = None;
            }
            if listening.pending && listening.paused_until_ms.is_none() {
                self.accept_from(index);
            }
        }
    }

    fn accept_from(&mut self, index: usize) {
        for _ in 0..limits::ACCEPTS_PER_TURN {
            let listening = &mut self.listeners.both[index];
            match listening.socket.accept() {
                Ok((tcp, peer)) => {
                    let which = listening.which;
                    self.metrics.inc(Counter::AcceptsTotal);
                    self.take_in(Stream::Tcp(tcp), peer.ip().to_canonical(), which);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        listening.pending = false;
                        return;
                    }
                    // The client was gone before we came: RFC-less, but accept(2) says to go on.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => {
                        listening.paused_until_ms = Some(self.now.mono_ms() + PAUSE_MS);
                        self.metrics.inc(Counter::ListenerPausesTotal);
                        tracing::warn!(%error, "accepting pauses for {PAUSE_MS} ms");
                        return;
                    }
                },
            }
        }
    }

    fn take_in(&mut self, mut stream: Stream, peer: IpAddr, listener: Listener) {
        // An operator gets in where viewers do not any more: that is what part of the reserve is for.
        let reserve = match listener {
            Listener::Internal => INTERNAL_RESERVE,
            Listener::Public => 0,
        };
        if self.conns.len() >= self.sockets_max + reserve {
            self.turn_away(stream);
            return;
        }
        let entry = self.conns.vacant_entry();
        let slot = entry.key() as u32;
        let generation = self.next_generation;
        // 2^31 generations, so that no connection's token is the bell's or a listener's.
        self.next_generation = (self.next_generation + 1) & (u32::MAX >> 1);
        let token = Token((generation as usize) << 32 | slot as usize);
        #[cfg(not(target_os = "linux"))]
        stream.set_up();
        if let Err(error) = stream.register(self.poll.registry(), token) {
            tracing::warn!(%error, "a connection could not be watched");
            return;
        }
        let policy = &self.policy.config;
        let now_ms = self.now.mono_ms();
        let (handshake, refused) = match listener {
            Listener::Internal => (None, None),
            Listener::Public => match self.node.handshakes.try_acquire() {
                Some(permit) => (Some(permit), None),
                None => (None, Some(handshakes_full())),
            },
        };
        let deadline_ms = now_ms + policy.admission.handshake_timeout_ms;
        entry.insert(Conn {
            stream,
            generation,
            flags: Flags {
                // Its first bytes are often here already, and an edge for them will come: nothing to do now.
                ..Flags::default()
            },
            kind: Kind::Http(Box::new(HttpConn {
                reader: Reader::new(HttpLimits {
                    head_bytes_max: policy.limits.head_bytes_max,
                    body_bytes_max: policy.limits.body_bytes_max,
                }),
                listener,
                tail: Vec::new(),
                exchange: None,
                upgrading: None,
                handshake,
                refused,
                framing: Framing {
                    head_only: false,
                    keep_alive: false,
                    version_minor: 1,
                },
                requests: 0,
                since_ns: self.now.mono_ns,
                in_body: false,
            })),
            outbox: Outbox::default(),
            seats: Vec::new(),
            heard_ms: now_ms,
            stuck_ms: 0,
            deadline_ms,
            peer,
            permits: Permits::default(),
        });
        self.arm(slot, deadline_ms);
    }

    /// No socket left for a client: one canned answer, and gone. The reserve of descriptors is for this.
    fn turn_away(&mut self, mut stream: Stream) {
        self.metrics.refused(Code::ConnectionsFull);
        let refusal = Refusal::new(
            Code::ConnectionsFull,
            format!("this node holds {} connections per shard", self.sockets_max),
        );
        let refusal = refusal.retry(self.rng.jitter(2000, 50));
        let mut answer = Vec::new();
        let framing = Framing {
            head_only: false,
            keep_alive: false,
            version_minor: 1,
        };
        Reply::refusal(&refusal).write(framing, self.now.unix_s(), &mut answer);
        // What the client has sent is read so that our answer is not lost to a reset; one try each, no waiting.
        let _ = stream.read(&mut self.scratch);
        let _ = stream.write(&answer);
        stream.end_sending();
    }
}

/// No permit of the handshake semaphore is free.
pub(super) fn handshakes_full() -> Refusal {
    Refusal::new(
        Code::HandshakesFull,
        "admission.handshakes_max connections are entering already",
    )
    .retry(1000)
}
