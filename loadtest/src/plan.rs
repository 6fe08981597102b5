//! What a run will do, decided before it begins: who joins which room and when, how often someone speaks, who is cut. Values
//! only; client threads read them and change nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::client::upgrade::Upgrade;
use crate::clock::Chance;
use crate::dialect::{Dialect, Room};
use crate::stamp::Stamper;
use crate::voice::Voice;

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the clients connect to, and how they ask: one for each node, at least one.
    pub targets: Vec<Target>,
    /// How the server is spoken to.
    pub dialect: Dialect,
    /// Finds the swarm's lines again.
    pub stamper: Stamper,
    /// What is said.
    pub voice: Voice,
    /// Rooms, by index.
    pub rooms: Vec<Room>,
    /// Whether viewers enter a room at all.
    pub enters: bool,
    /// How likely each room is when a viewer moves.
    pub popularity: Popularity,
    /// Every viewer, by number.
    pub viewers: Vec<Viewer>,
    /// Client threads.
    pub threads: usize,
    /// Lines spoken per second, all threads together.
    pub lines_per_s: f64,
    /// A stretch of the run in which lines come faster, if there is one. Gifts do not.
    pub surge: Option<Surge>,
    /// Whether lines go over the speakers' connections or by HTTP.
    pub via: Via,
    /// Gifts pushed per second by HTTP.
    pub gifts_per_s: f64,
    /// HTTP connections that push, over all threads.
    pub pushers: usize,
    /// Rooms one push goes to, each getting a line of its own number.
    pub rooms_per_push: usize,
    /// Length of the run's own phase, microseconds; `None` = until stopped.
    pub run_us: Option<u64>,
    /// Arrivals per second while ramping up; 0 = as fast as they are admitted.
    pub ramp_per_s: f64,
    /// Connects in flight per thread.
    pub in_flight: usize,
    /// A connect that takes longer has failed, microseconds.
    pub connect_timeout_us: u64,
    /// How often a client sends its own ping, microseconds; 0 = never, it only answers the server's.
    pub heartbeat_us: u64,
    /// When viewers that can be cut are, microseconds after the run's begin.
    pub cuts_us: Vec<u64>,
    /// How long a viewer that moves stays, mean, microseconds.
    pub stay_us: u64,
    /// Named parts of the run, for figures of their own: name, begin and end in microseconds after the run's begin.
    pub parts: Vec<(String, u64, u64)>,
    /// Lines a resume reaches back, as far as is known of the server; 0 = not known.
    pub history_lines: u64,
    /// Whether every line is written down, to be checked when the run is over. Not for a run without an end.
    pub keeps_books: bool,
    /// Makes the run repeatable.
    pub seed: u64,
}

/// The server, or one of its nodes.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// How the upgrade is asked for.
    pub upgrade: Upgrade,
    /// Where pushes go, if they can.
    pub api: Option<Api>,
    /// Signs a token for each viewer, if it can.
    pub minter: Option<Arc<Minter>>,
}

/// The HTTP side that takes pushes.
#[derive(Clone, Debug)]
pub struct Api {
    /// Its address.
    pub address: SocketAddr,
    /// Its API key.
    pub key: Option<String>,
}

/// How lines travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Via {
    /// The speakers' own connections
    #[cfg_attr(feature = "cli", value(name = "ws"))]
    WebSocket,
    /// HTTP pushes with the API key
    Http,
}

/// A stretch of the run in which lines come faster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surge {
    /// Its begin, microseconds after the run's.
    pub from_us: u64,
    /// Its end, likewise.
    pub to_us: u64,
    /// How many times as fast.
    pub factor: f64,
}

/// One viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// Its room's index.
    pub room: u32,
    /// When it comes.
    pub arrives: Arrives,
    /// Whether it speaks.
    pub speaks: bool,
    /// Whether it reads what it receives.
    pub reads: bool,
    /// Whether it is among those cut.
    pub cut: bool,
    /// Whether it goes elsewhere after a while.
    pub moves: bool,
}

impl Viewer {
    /// One that comes with the ramp, reads and stays.
    pub fn of(room: u32) -> Viewer {
        Viewer {
            room,
            arrives: Arrives::Ramp,
            speaks: false,
            reads: true,
            cut: false,
            moves: false,
        }
    }
}

/// When a viewer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrives {
    /// Before the run begins.
    Ramp,
    /// So many microseconds into the run.
    At(u64),
}

impl Plan {
    /// The node a viewer or publisher is on, by its number: one after the other, so that all have as many.
    pub fn node(&self, number: u32) -> u16 {
        (number as usize % self.targets.len().max(1)) as u16
    }

    /// The target of a viewer or publisher.
    pub fn target(&self, number: u32) -> &Target {
        &self.targets[usize::from(self.node(number))]
    }

    /// Whether lines can be pushed by HTTP.
    pub fn can_push(&self) -> bool {
        self.targets.iter().all(|target| target.api.is_some())
    }

    /// Numbers of the viewers of one thread.
    pub fn share(&self, thread: usize) -> impl Iterator<Item = u32> + '_ {
        (thread..self.viewers.len())
            .step_by(self.threads)
            .map(|number| number as u32)
    }

    /// Which part of the lines a thread speaks, as index and number of parts; `None` if it speaks none. Lines by templates
    /// are numbered by their publisher, so one thread speaks them all.
    pub fn speaking_share(&self, thread: usize) -> Option<(u64, u64)> {
        let has_speaker = |thread: usize| match self.via {
            Via::Http => true,
            Via::WebSocket => self
                .share(thread)
                .any(|at| self.viewers[at as usize].speaks),
        };
        let mut speaking: Vec<usize> = (0..self.threads).filter(|at| has_speaker(*at)).collect();
        if !self.dialect.is_gateway() {
            speaking.truncate(1);
        }
        let index = speaking.iter().position(|at| *at == thread)?;
        Some((index as u64, speaking.len() as u64))
    }

    /// Viewers that come before the run begins.
    pub fn ramping(&self) -> usize {
        let ramps = |viewer: &&Viewer| viewer.arrives == Arrives::Ramp;
        self.viewers.iter().filter(ramps).count()
    }
}

/// How likely each room is.
#[derive(Clone, Debug, Default)]
pub struct Popularity {
    /// Ascending; the last is the sum.
    cumulative: Vec<f64>,
}

impl Popularity {
    /// By weight.
    pub fn new(weights: impl IntoIterator<Item = f64>) -> Popularity {
        let mut sum = 0.0;
        let cumulative = weights
            .into_iter()
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        Popularity { cumulative }
    }

    /// Zipf's law: the room of rank `r` weighs `1 / r^exponent`; 0 makes all alike.
    pub fn zipf(rooms: usize, exponent: f64) -> Popularity {
        Popularity::new((1..=rooms).map(|rank| (rank as f64).powf(-exponent)))
    }

    /// A room.
    pub fn pick(&self, chance: &mut Chance) -> u32 {
        let sum = self.cumulative.last().copied().unwrap_or(0.0);
        let at = chance.unit() * sum;
        let picked = self.cumulative.partition_point(|upto| *upto <= at);
        picked.min(self.cumulative.len().saturating_sub(1)) as u32
    }

    /// How many of `viewers` each room gets, as its weight says.
    pub fn spread(&self, viewers: usize) -> Vec<usize> {
        let sum = self.cumulative.last().copied().unwrap_or(0.0);
        let mut before = 0;
        let shares = self.cumulative.iter().map(|upto| {
            let until = (upto / sum * viewers as f64).round() as usize;
            let share = until - before;
            before = until;
            share
        });
        shares.collect()
    }
}

/// Makes a viewer's token from its number.
pub struct Minter(Box<Mint>);

type Mint = dyn Fn(u32) -> Result<String, String> + Send + Sync;

#[derive(Serialize)]
struct Claims {
    sub: String,
    exp: u64,
}

impl Minter {
    /// By a function of the caller's.
    pub fn new(mint: impl Fn(u32) -> Result<String, String> + Send + Sync + 'static) -> Minter {
        Minter(Box::new(mint))
    }

    /// With the server's HS256 secret; good until `expires_unix_s`.
    pub fn hs256(secret: &[u8], expires_unix_s: u64) -> Minter {
        let key = EncodingKey::from_secret(secret);
        Minter::new(move |viewer| {
            let claims = Claims {
                sub: format!("swarm-{viewer}"),
                exp: expires_unix_s,
            };
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
                .map_err(|error| format!("cannot sign a token: {error}"))
        })
    }

    /// A token for one viewer.
    ///
    /// # Errors
    /// What the signer says.
    pub fn token(&self, viewer: u32) -> Result<String, String> {
        (self.0)(viewer)
    }
}

impl std::fmt::Debug for Minter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Minter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popularity_spreads_everyone() {
        let even = Popularity::zipf(4, 0.0);
        assert_eq!(even.spread(40), [10; 4]);
        let steep = Popularity::zipf(3, 1.0);
        assert_eq!(steep.spread(11), [6, 3, 2]);
        assert_eq!(steep.spread(12).iter().sum::<usize>(), 12);
        let mut chance = Chance::new(1);
        let mut picked = [0u32; 3];
        for _ in 0..11_000 {
            picked[steep.pick(&mut chance) as usize] += 1;
        }
        assert!((5800..6200).contains(&picked[0]), "{picked:?}");
        assert!((1800..2200).contains(&picked[2]), "{picked:?}");
    }
}
