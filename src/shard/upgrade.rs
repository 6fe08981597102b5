//! The way in: admission before the upgrade, room admission at the rooms' homes, and the moment an HTTP client becomes a
//! viewer. Part of the shard's turn; a refusal is an HTTP answer, and every permit returns on every path because it is
//! owned by what is dropped.

use std::sync::Arc;

use super::Shard;
use super::accept::handshakes_full;
use super::conn::{Kind, Listener, Permits};
use super::viewer::shown;
use crate::auth::address::client_address;
use crate::auth::credentials::{Presented, presented};
use crate::auth::origin::origin_allowed;
use crate::base::identity::Identity;
use crate::base::ids::{ConnId, RoomId};
use crate::base::pressure::Level;
use crate::base::rate::Rate;
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Msg, ReplyTo, RoomAsk};
use crate::config::checked::Anonymous;
use crate::proto::danmaku::server;
use crate::proto::http::{Request, uri};
use crate::proto::ws::handshake::{self, Offer, Protocol};
use crate::room::ask::{Encoding, Join, Joined, Seat};
use crate::session::viewer::{Viewer, reply};
use crate::telemetry::table::{Counter, Hist, Shed};

/// A client that has passed the door and waits for its rooms.
#[derive(Debug)]
pub struct Upgrading {
    offer: Offer,
    identity: Option<Arc<Identity>>,
    /// Rooms that have not answered yet.
    waiting: usize,
    /// `joined` frames so far.
    joined: Vec<u8>,
    began_ns: u64,
}

impl Upgrading {
    /// How its rooms' lines will be sealed for it.
    pub fn encoding(&self) -> Encoding {
        encoding_of(&self.offer)
    }

    /// Where what it is told before it is a viewer goes.
    pub fn joined_tail(&mut self) -> &mut Vec<u8> {
        &mut self.joined
    }

    /// Who it is.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }
}

/// What the door found out.
struct Entry {
    offer: Offer,
    identity: Option<Arc<Identity>>,
    rooms: Vec<RoomId>,
    permits: Permits,
}

impl Shard {
    /// `GET /ws`: admission in the order of `docs/PROTOCOL.md`, then the rooms.
    pub(super) fn upgrade(&mut self, id: ConnId, request: &Request, refused: Option<Refusal>) {
        let now_ns = self.now.mono_ns;
        let began_ns = self.http(id).map_or(now_ns, |http| http.since_ns);
        match self.judge_entry(id, request, refused) {
            Err(refusal) => self.refuse_entry(id, &refusal),
            Ok(entry) => {
                let encoding = encoding_of(&entry.offer);
                let who = entry.identity.clone();
                let upgrading = Upgrading {
                    offer: entry.offer,
                    identity: entry.identity,
                    waiting: entry.rooms.len(),
                    joined: Vec::new(),
                    began_ns,
                };
                let Some(conn) = self.conn(id) else {
                    return;
                };
                conn.permits = entry.permits;
                if let Kind::Http(http) = &mut conn.kind {
                    http.upgrading = Some(Box::new(upgrading));
                }
                if entry.rooms.is_empty() {
                    self.complete_upgrade(id);
                    return;
                }
                let timeout_ms = self.policy.config.admission.handshake_timeout_ms;
                self.set_deadline(id, self.now.mono_ms() + timeout_ms);
                for room in entry.rooms {
                    let seat = Seat {
                        shard: self.id,
                        encoding,
                    };
                    let ask = RoomAsk::Join(Join {
                        who: who.clone(),
                        seat,
                        resume: None,
                    });
                    let from = ReplyTo::Conn {
                        shard: self.id,
                        conn: id,
                        id: None,
                    };
                    let home = room.home(self.shards());
                    self.mail.post(home, Msg::Ask { room, ask, from });
                }
            }
        }
    }

    fn judge_entry(
        &mut self,
        id: ConnId,
        request: &Request,
        refused: Option<Refusal>,
    ) -> Result<Entry, Refusal> {
        let mut offer = handshake::check(request)?;
        if !self.policy.config.server.compression {
            offer.deflate = None;
        }
        if self.sweeps.is_draining() {
            let reason = "this node is being emptied";
            return Err(Refusal::new(Code::Draining, reason).retry(1000));
        }
        let config = &self.policy.config;
        let rate = Rate {
            per_s: config.admission.accepts_per_s,
            burst: config.admission.accept_burst,
        };
        self.node
            .accept_rate
            .try_take(rate, self.now.mono_ns)
            .map_err(|wait_ms| {
                let reason = format!("more than {} new viewers per second", rate.per_s);
                Refusal::new(Code::AcceptRate, reason).retry(wait_ms)
            })?;
        let connection = self.node.connections.try_acquire().ok_or_else(|| {
            let reason = format!("this node holds {} viewers", self.node.connections.max());
            Refusal::new(Code::ConnectionsFull, reason).retry(2000)
        })?;
        self.hold_handshake(id, refused)?;
        let config = &self.policy.config;
        let headers = &request.headers;
        let peer = self.conns[id.slot as usize].peer;
        let forwarded = headers.all("x-forwarded-for");
        let address = client_address(peer, forwarded, &config.admission.trusted_proxies);
        let address = match config.admission.per_address_max {
            0 => None,
            max => Some(self.node.addresses.try_enter(address, max).ok_or_else(|| {
                let reason = format!("{max} viewers from {address} already");
                Refusal::new(Code::AddressFull, reason).retry(10_000)
            })?),
        };
        if headers.all("origin").count() > 1 {
            let reason = "more than one Origin header";
            return Err(Refusal::new(Code::BadRequest, reason));
        }
        origin_allowed(
            &config.auth.origins,
            headers.first("origin"),
            headers.first("host"),
        )?;
        let query = Query::read(request)?;
        let identity = self.identify(request, &query, &offer)?;
        if identity.is_none() && self.overload.gives_up(Level::Arrivals) {
            let reason = "this node is overloaded and lets in nobody without a token";
            return Err(self.overloaded(Shed::Arrivals, reason));
        }
        let rooms_max = self.policy.config.limits.rooms_per_connection_max;
        if query.rooms.len() > rooms_max {
            let reason = format!("{} rooms, at most {rooms_max}", query.rooms.len());
            return Err(Refusal::new(Code::TooManyRooms, reason));
        }
        Ok(Entry {
            offer,
            identity,
            rooms: query.rooms,
            permits: Permits {
                connection: Some(connection),
                address,
            },
        })
    }

    /// A permit of the handshake semaphore for the length of this upgrade: the one taken at the door, or, for a
    /// connection that has none (it found none free, or has made another request before), one now.
    fn hold_handshake(&mut self, id: ConnId, refused: Option<Refusal>) -> Result<(), Refusal> {
        let handshakes = std::sync::Arc::clone(&self.node.handshakes);
        match self.http(id) {
            Some(http) if http.handshake.is_none() && http.listener == Listener::Public => {
                let refusal = refused.unwrap_or_else(handshakes_full);
                http.handshake = Some(handshakes.try_acquire().ok_or(refusal)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn identify(
        &self,
        request: &Request,
        query: &Query,
        offer: &Offer,
    ) -> Result<Option<Arc<Identity>>, Refusal> {
        let presented = presented(
            request.headers.first("authorization"),
            query.token.as_deref(),
            offer.bearer.as_deref(),
        )?;
        match presented {
            Presented::Bearer(token) => {
                let unix_s = self.now.unix_s();
                self.policy.keys.verify(token, unix_s).map(Some)
            }
            Presented::None if self.policy.config.auth.anonymous == Anonymous::Deny => {
                Err(Refusal::new(
                    Code::TokenMissing,
                    "this node lets nobody in without a token",
                ))
            }
            Presented::None => Ok(None),
        }
    }

    /// A home let an upgrading client in: its seat is taken now, exactly behind every chunk sealed before the answer.
    pub(super) fn upgrade_joined(&mut self, id: ConnId, room: &RoomId, joined: &Joined) {
        let Some(encoding) = self
            .http(id)
            .and_then(|http| http.upgrading.as_ref())
            .map(|upgrading| upgrading.encoding())
        else {
            return;
        };
        self.take_seat(id, room, joined, encoding);
        let Some(upgrading) = self.http(id).and_then(|http| http.upgrading.as_mut()) else {
            return;
        };
        upgrading.waiting -= 1;
        upgrading.joined.reserve(JOINED_BYTES);
        reply(&mut upgrading.joined, |json| {
            server::joined(json, None, &shown(room, joined));
        });
        if upgrading.waiting == 0 {
            self.complete_upgrade(id);
        }
    }

    /// What logs and `welcome` call a connection: unique on this node while it lives, and for long after.
    fn connection_name(&self, id: ConnId) -> String {
        use std::fmt::Write as _;
        let mut name = String::with_capacity(self.node.name.len() + 24);
        // Writing to a string cannot fail.
        let _ = write!(
            name,
            "{}-{}-{:x}-{:x}",
            self.node.name, self.id.0, id.slot, id.generation
        );
        name
    }

    fn complete_upgrade(&mut self, id: ConnId) {
        let now_ms = self.now.mono_ms();
        let connection = self.connection_name(id);
        let heartbeat_ms = self.policy.config.heartbeat.interval_ms;
        let Some(http) = self.http(id) else {
            return;
        };
        let Some(upgrading) = http.upgrading.take() else {
            return;
        };
        let mut tail = std::mem::take(&mut http.tail);
        let encoding = upgrading.encoding();
        let user = upgrading.identity.as_ref().map(|identity| &identity.user);
        let viewer = Viewer::new(upgrading.identity.clone(), encoding);
        let Some(conn) = self.conn(id) else {
            return;
        };
        let out = conn.outbox.tail();
        out.reserve(RESPONSE_BYTES + upgrading.joined.len());
        handshake::write_response(&upgrading.offer, out);
        reply(out, |json| {
            server::welcome(json, &connection, user, heartbeat_ms, SERVER);
        });
        out.extend_from_slice(&upgrading.joined);
        // The HTTP side goes with its handshake permit.
        conn.kind = Kind::Viewer(viewer);
        conn.flags.viewer = true;
        conn.deadline_ms = 0;
        conn.heard_ms = now_ms;
        self.viewers += 1;
        if let Some(identity) = &upgrading.identity {
            let user = identity.user.id.clone();
            self.by_user.entry(user.clone()).or_default().push(id);
            self.logged_in(user, id);
        }
        self.metrics.inc(Counter::ConnectionsAcceptedTotal);
        self.metrics.observe(
            Hist::HandshakeSeconds,
            self.now.mono_ns - upgrading.began_ns,
        );
        self.rearm_viewer(id);
        self.note_flush(id);
        // A client may have spoken before it read our answer.
        self.consume(id, &mut tail);
        self.note_resume(id);
    }
}

/// What an answer to an upgrade and its `welcome` mostly take; a longer one grows once more.
const RESPONSE_BYTES: usize = 512;
/// What a `joined` without lines mostly takes.
const JOINED_BYTES: usize = 256;
/// How the node names itself to viewers.
const SERVER: &str = concat!("danmaku-gateway/", env!("CARGO_PKG_VERSION"));

fn encoding_of(offer: &Offer) -> Encoding {
    let gathers = offer.protocol == Some(Protocol::DanmakuV1Batch);
    match (gathers, offer.deflate.is_some()) {
        (false, false) => Encoding::Plain,
        (true, false) => Encoding::Batch,
        (false, true) => Encoding::PlainDeflated,
        (true, true) => Encoding::BatchDeflated,
    }
}

/// `?room=R&room=R2&token=T`.
struct Query {
    rooms: Vec<RoomId>,
    token: Option<String>,
}

impl Query {
    fn read(request: &Request) -> Result<Query, Refusal> {
        let mut query = Query {
            rooms: Vec::new(),
            token: None,
        };
        for pair in uri::query_pairs(&request.query) {
            let (key, value) = pair?;
            match &*key {
                "room" => {
                    let room = RoomId::parse(&value).ok_or_else(|| {
                        let short: String = value.chars().take(32).collect();
                        let reason = format!("?room={short:?} is no room id");
                        Refusal::new(Code::BadRoom, reason)
                    })?;
                    if !query.rooms.contains(&room) {
                        query.rooms.push(room);
                    }
                }
                "token" => query.token = Some(value.into_owned()),
                _ => {}
            }
        }
        Ok(query)
    }
}
