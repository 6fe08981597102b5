//! Viewers that the suite itself holds: they come, change rooms and go on command, so that who is where is known to the last one.
//! They say nothing and hear only what answers them. Blocking sockets, on the calling thread.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use danmaku_swarm::client::frames;
use danmaku_swarm::client::upgrade::{Outcome, Upgrade, outcome};
use danmaku_swarm::clock::Chance;
use danmaku_swarm::plan::Minter;
use socket2::SockRef;

use crate::cluster::Counted;

/// How long a node may take to answer a join.
const ANSWER: Duration = Duration::from_secs(5);
/// How often those that stay show that they live.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Where the gateway says that one is in a room.
const JOINED: &[u8] = br#""type":"joined""#;
/// The mask of frames that hold nothing worth hiding.
const MASK: [u8; 4] = [1, 2, 3, 4];

/// A viewer.
pub struct Guest {
    stream: TcpStream,
    pub room: u32,
    /// Its number as a user; `None` of an anonymous one.
    pub user: Option<u32>,
}

/// Where and how guests come.
pub struct Door<'a> {
    pub node: SocketAddr,
    pub minter: &'a Minter,
    /// What the rooms' names begin with.
    pub rooms: &'a str,
}

impl Door<'_> {
    fn room(&self, room: u32) -> String {
        format!("{}{room}", self.rooms)
    }

    /// Comes into a room and waits until it is in.
    pub fn enter(&self, room: u32, user: Option<u32>) -> Result<Guest, String> {
        let failed = |error: std::io::Error| format!("a guest at {}: {error}", self.node);
        let mut stream = TcpStream::connect_timeout(&self.node, ANSWER).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER)).map_err(failed)?;
        let token = user.map(|user| self.minter.token(user)).transpose()?;
        let upgrade = Upgrade {
            host: self.node.to_string(),
            path: "/ws".into(),
            subprotocol: None,
            origin: None,
        };
        let request = upgrade.request(Some(&self.room(room)), token.as_deref());
        stream.write_all(&request).map_err(failed)?;
        let mut guest = Guest { stream, room, user };
        guest.wait_joined(true)?;
        Ok(guest)
    }

    /// Leaves its room for another one, on the same connection.
    pub fn change(&self, guest: &mut Guest, room: u32) -> Result<(), String> {
        let mut out = Vec::new();
        for (kind, room) in [("leave", guest.room), ("join", room)] {
            let message = format!(r#"{{"type":"{kind}","room":"{}"}}"#, self.room(room));
            frames::text(&mut out, message.into_bytes(), MASK);
        }
        let written = guest.stream.write_all(&out);
        written.map_err(|error| format!("a guest at {}: {error}", self.node))?;
        guest.room = room;
        guest.wait_joined(false)
    }
}

impl Guest {
    fn wait_joined(&mut self, upgrading: bool) -> Result<(), String> {
        let mut heard = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let read = self.stream.read(&mut piece);
            let waits = |error| {
                let heard = String::from_utf8_lossy(&heard);
                format!(
                    "a guest waits for room {}: {error}; it heard {heard}",
                    self.room
                )
            };
            match read.map_err(waits)? {
                0 => {
                    return Err(format!(
                        "a guest was sent away: {}",
                        String::from_utf8_lossy(&heard)
                    ));
                }
                read => heard.extend_from_slice(&piece[..read]),
            }
            if upgrading && let Outcome::Refused(refusal) = outcome(&heard) {
                return Err(format!("a guest was refused: {}", refusal.code));
            }
            if heard.windows(JOINED.len()).any(|window| window == JOINED) {
                return Ok(());
            }
        }
    }

    /// Takes what has come; the room may talk.
    fn hear(&mut self, piece: &mut [u8]) -> std::io::Result<()> {
        self.stream.set_nonblocking(true)?;
        let heard = loop {
            match self.stream.read(piece) {
                Ok(0) => break Err(std::io::Error::other("it was sent away")),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        heard.and(self.stream.set_nonblocking(false))
    }

    /// Shows that it lives, as the heartbeat asks.
    fn show(&mut self) -> std::io::Result<()> {
        let mut out = Vec::new();
        frames::pong(&mut out, MASK);
        self.stream.write_all(&out)
    }

    /// Goes: with a word, or as when a network goes.
    pub fn leave(mut self, politely: bool) {
        if politely {
            let mut out = Vec::new();
            frames::close(&mut out, MASK);
            // Whoever is thrown out already need not say goodbye.
            let _ = self.stream.write_all(&out);
        } else {
            // No port is left waiting.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Guests that stay for a while in a room that talks: they must read, and be seen to live.
pub struct Company {
    pub guests: Vec<Guest>,
    shown: Instant,
    piece: Vec<u8>,
}

impl Company {
    pub fn new(guests: Vec<Guest>) -> Company {
        Company {
            guests,
            shown: Instant::now(),
            piece: vec![0; 64 << 10],
        }
    }

    /// Everyone takes what has come for it; to be called a few times a second.
    pub fn hear(&mut self) -> Result<(), String> {
        let shows = self.shown.elapsed() > HEARTBEAT;
        if shows {
            self.shown = Instant::now();
        }
        for guest in &mut self.guests {
            let heard = guest.hear(&mut self.piece);
            let shown = heard.and_then(|()| if shows { guest.show() } else { Ok(()) });
            shown.map_err(|error| format!("a guest in room {} was lost: {error}", guest.room))?;
        }
        Ok(())
    }

    /// Hears until so long is over.
    pub fn stay(&mut self, long: Duration) -> Result<(), String> {
        const PAUSE: Duration = Duration::from_millis(200);
        let begun = Instant::now();
        while begun.elapsed() < long {
            self.hear()?;
            std::thread::sleep(PAUSE.min(long.saturating_sub(begun.elapsed())));
        }
        Ok(())
    }
}

/// What is to stand in Redis for these guests, by room.
pub fn truth<'a>(
    guests: impl Iterator<Item = &'a Guest>,
    rooms: &str,
) -> BTreeMap<String, Counted> {
    let mut truth: BTreeMap<String, Counted> = BTreeMap::new();
    for guest in guests {
        let room = truth.entry(format!("{rooms}{}", guest.room)).or_default();
        room.total += 1;
        room.users.extend(guest.user.map(user));
    }
    truth
}

/// A user's name, as the minter has it.
pub fn user(number: u32) -> String {
    format!("swarm-{number}")
}

/// A bustle: how many come in each second, where, and how many stay.
#[derive(Clone, Copy, Debug)]
pub struct Bustle {
    pub joins_per_s: f64,
    pub for_s: u64,
    pub rooms: usize,
    /// Users there are; each may have several connections.
    pub users: usize,
    /// Guests that are there at a time, about.
    pub stay: usize,
    pub seed: u64,
}

/// What came of it.
pub struct Bustled {
    pub guests: VecDeque<Guest>,
    pub joins: u64,
    /// How long it took.
    pub took_s: f64,
}

/// Guests come to a node by the clock, half of them anew and half from another room; who has been in one for longest goes. A
/// quarter is anonymous; half of them come to the first room.
pub fn bustle(door: &Door<'_>, bustle: Bustle) -> Result<Bustled, String> {
    let mut chance = Chance::new(bustle.seed);
    let mut guests: VecDeque<Guest> = VecDeque::new();
    let begun = Instant::now();
    let mut joins = 0;
    loop {
        let due = Duration::from_secs_f64(joins as f64 / bustle.joins_per_s);
        if due >= Duration::from_secs(bustle.for_s) {
            break;
        }
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        let room = match chance.unit() < 0.5 {
            true => 0,
            false => chance.below(bustle.rooms) as u32,
        };
        joins += 1;
        if chance.unit() < 0.5
            && let Some(mut guest) = guests.pop_front()
        {
            // Into another one: to be let into the room one is in is no join.
            let room = match room == guest.room {
                true => (room + 1) % bustle.rooms as u32,
                false => room,
            };
            door.change(&mut guest, room)?;
            // Not the next one again: a connection may not change rooms as often as it likes.
            guests.push_back(guest);
            continue;
        }
        let user = (chance.unit() < 0.75).then(|| chance.below(bustle.users) as u32);
        guests.push_back(door.enter(room, user)?);
        if guests.len() > bustle.stay
            && let Some(guest) = guests.pop_front()
        {
            guest.leave(chance.unit() < 0.5);
        }
    }
    Ok(Bustled {
        guests,
        joins,
        took_s: begun.elapsed().as_secs_f64(),
    })
}
