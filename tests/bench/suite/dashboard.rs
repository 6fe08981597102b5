//! From a join to the figures of who runs the room: viewers come to all nodes by the clock, and a moderator on one of them looks on.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use danmaku_swarm::clock::{Chance, unix_ms};
use danmaku_swarm::plan::Minter;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use tungstenite::{Message, WebSocket};

use crate::cases::Size;
use crate::cluster::Cluster;
use crate::crowd::{Door, Guest};
use crate::drive::Drive;
use crate::nodes::{NODES, ROOMS, Sheet, TOKEN_S, minter, start};
use crate::results::Bound::AtMost;
use crate::results::Done;

/// Joins a second on all nodes, and for how long, seconds.
const PACES: [(f64, u64); 3] = [(2.0, 30), (20.0, 20), (100.0, 10)];
/// What a join may take until it is shown, in 99 of 100.
const SHOWN_MS: f64 = 500.0;
/// A join that is not shown by then will not be.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the moderator waits to hear before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// The case: each pace in a room of its own.
pub fn dashboard(size: Size, drive: &Drive, done: &mut Done) -> Result<(), String> {
    let mut sheet = Sheet::default();
    let cluster = start(drive, None)?;
    let minter = minter(&cluster);
    for nth in 0..size.rounds() {
        eprintln!("bench:   round {} of {}", nth + 1, size.rounds());
        for (at, (pace, full_s)) in PACES.into_iter().enumerate() {
            let room = (nth * PACES.len() + at) as u32;
            let joins = (pace * size.seconds(full_s) as f64) as usize;
            let mut shown = joins_shown(&cluster, &minter, room, pace, joins)?;
            shown.sort_by(f64::total_cmp);
            let of_them = |share: f64| shown.get((share * (joins - 1) as f64) as usize).copied();
            let (p50, p99) = (of_them(0.5), of_them(0.99));
            let at_pace = format!("at {pace} joins/s");
            let row = |what: &str| format!("a join is shown to the moderator, {at_pace}, {what}");
            sheet.put(&row("p99"), "ms", AtMost(SHOWN_MS), p99);
            sheet.put(&row("p50"), "ms", None, p50);
        }
    }
    done.notes.push(
        "The moderator is on one node, the viewers come to all three, and the time runs from before the connection is made.".into(),
    );
    sheet.close(done);
    Ok(())
}

/// After how many milliseconds each join was shown.
fn joins_shown(
    cluster: &Cluster,
    minter: &Minter,
    room: u32,
    pace: f64,
    joins: usize,
) -> Result<Vec<f64>, String> {
    let mut moderator = Moderator::come(cluster, room)?;
    let over = AtomicBool::new(false);
    let (mut begun, seen) = std::thread::scope(|scope| {
        let looks = scope.spawn(|| moderator.looks_on(&over));
        let came: Vec<_> = (0..NODES)
            .map(|node| {
                let door = Door {
                    node: cluster.nodes[node].public,
                    minter,
                    rooms: ROOMS,
                };
                let mine = (node..joins).step_by(NODES);
                scope.spawn(move || come_by_the_clock(&door, room, pace, mine))
            })
            .collect();
        let came: Result<Vec<_>, String> = came.into_iter().map(joined).collect();
        std::thread::sleep(PATIENCE);
        over.store(true, Ordering::Release);
        let seen = joined(looks)?;
        let begun: Vec<Instant> = came?
            .into_iter()
            .flat_map(|(begun, _guests)| begun)
            .collect();
        Ok::<_, String>((begun, seen))
    })?;
    begun.sort();
    let shown = begun.iter().enumerate().map(|(nth, begun)| {
        let first = seen.iter().find(|(_, viewers)| *viewers > nth);
        let (at, _) = first.ok_or("a join was never shown to the moderator")?;
        Ok(at.saturating_duration_since(*begun).as_secs_f64() * 1000.0)
    });
    shown.collect()
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    let panicked = |_| Err("a thread of the case panicked".into());
    thread.join().unwrap_or_else(panicked)
}

/// These of the joins, each about when it is due. When they began; the guests stay as long as they are held.
fn come_by_the_clock(
    door: &Door<'_>,
    room: u32,
    pace: f64,
    mine: impl Iterator<Item = usize>,
) -> Result<(Vec<Instant>, Vec<Guest>), String> {
    let started = Instant::now();
    let mut chance = Chance::new(u64::from(room) << 8 | u64::from(door.node.port()));
    let (mut begun, mut guests) = (Vec::new(), Vec::new());
    for nth in mine {
        // By chance within its turn, so that it keeps no step with what is pushed once a second.
        let due = Duration::from_secs_f64((nth as f64 + chance.unit()) / pace);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        begun.push(Instant::now());
        guests.push(door.enter(room, None)?);
    }
    Ok((begun, guests))
}

/// Who is shown a room's figures.
struct Moderator(WebSocket<TcpStream>);

#[derive(Serialize)]
struct Claims {
    sub: &'static str,
    role: &'static str,
    exp: u64,
}

#[derive(Deserialize)]
struct Figures {
    viewers: usize,
}

impl Moderator {
    fn come(cluster: &Cluster, room: u32) -> Result<Moderator, String> {
        let claims = Claims {
            sub: "moderator",
            role: "moderator",
            exp: unix_ms() / 1000 + TOKEN_S,
        };
        let key = EncodingKey::from_secret(cluster.secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
            .map_err(|error| format!("cannot sign a token: {error}"))?;
        let node: SocketAddr = cluster.nodes[0].public;
        let failed = |error: String| format!("the moderator at {node}: {error}");
        let stream = TcpStream::connect(node).map_err(|error| failed(error.to_string()))?;
        let url = format!("ws://{node}/ws?token={token}");
        let (mut socket, _) =
            tungstenite::client(url, stream).map_err(|error| failed(error.to_string()))?;
        let asks = format!(r#"{{"type":"stats","room":"{ROOMS}{room}"}}"#);
        let asked = socket.send(Message::text(asks));
        asked.map_err(|error| failed(error.to_string()))?;
        let patience = socket.get_ref().set_read_timeout(Some(LOOK));
        patience.map_err(|error| failed(error.to_string()))?;
        Ok(Moderator(socket))
    }

    /// Until it is over. What was shown, and when.
    fn looks_on(&mut self, over: &AtomicBool) -> Result<Vec<(Instant, usize)>, String> {
        let mut seen = Vec::new();
        while !over.load(Ordering::Acquire) {
            match self.0.read() {
                Ok(Message::Text(text)) => {
                    let figures = serde_json::from_str::<Figures>(&text);
                    seen.extend(figures.map(|figures| (Instant::now(), figures.viewers)));
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("the moderator: {error}")),
            }
        }
        Ok(seen)
    }
}
