//! The thread that puts what happens into a stream of Redis, for whoever looks later: `live:events`. It has a connection of its own, so
//! that no line waits behind events, and keeps what it has not brought to Redis; what its queue has no place for is lost and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use redis::{Cmd, RedisError, Value, cmd};

use super::keys;
use super::wire::{Seeds, Wire};
use crate::base::clock::Clock;
use crate::base::rng::Rng;
use crate::bus::{Happened, Sink};
use crate::telemetry::sink::SinkStats;

/// Events that may wait for the thread; of bytes no more than [`crate::telemetry::sink::BYTES_MAX`].
const WAITING_MAX: usize = 65_536;
/// Events that go out together.
const TOGETHER_MAX: usize = 512;
/// An answer that takes so long is none.
const ANSWER: Duration = Duration::from_secs(2);
/// It looks whether the process ends this often.
const LOOKS_UP: Duration = Duration::from_millis(250);
/// The first wait before it is tried again, ...
const WAIT_MS: u64 = 100;
/// ... twice as long each time, up to this.
const WAIT_MS_MAX: u64 = 2_000;
/// What an ending process may take to bring what waits.
const FAREWELL_NS: u64 = 1_000_000_000;

/// What the thread is started with.
pub struct Start {
    /// `redis.url`, checked.
    pub url: String,
    /// `redis.cluster`.
    pub is_cluster: bool,
    /// This node.
    pub me: Arc<str>,
    /// `events.stream_max`: entries kept.
    pub stream_max: u64,
    /// For its pauses.
    pub clock: Clock,
    /// Where it tells of itself.
    pub stats: Arc<SinkStats>,
    /// Chance.
    pub seed: u64,
}

/// The running thread.
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Writer {
    seeds: Seeds,
    start: Start,
    stop: Arc<AtomicBool>,
    happened: Receiver<Happened>,
    /// What Redis has not confirmed. Asked for again on another connection, it may come twice.
    under_way: Vec<Happened>,
    chance: Rng,
    failures: u32,
}

impl Stream {
    /// Starts it. It connects by itself.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(start: Start) -> std::io::Result<(Stream, Sink)> {
        let (queue, happened) = bounded(WAITING_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let sink = Sink {
            queue,
            stats: Arc::clone(&start.stats),
        };
        let writer = Writer {
            seeds: Seeds::new(&start.url, start.is_cluster),
            stop: Arc::clone(&stop),
            happened,
            under_way: Vec::new(),
            chance: Rng::seed(start.seed),
            failures: 0,
            start,
        };
        let named = std::thread::Builder::new().name("redis-events".into());
        let thread = named.spawn(move || writer.run())?;
        Ok((Stream { stop, thread }, sink))
    }

    /// It is to end: what waits is brought to Redis, as far as a second suffices.
    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until it has ended.
    pub fn join(self) {
        // One that panicked has said so.
        let _ = self.thread.join();
    }
}

impl Writer {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let connected = self.seeds.dial(&self.start.me, self.start.clock, ANSWER);
            if let Err(error) = connected.and_then(|wire| self.serve(wire)) {
                self.seeds.turn();
                tracing::debug!(why = %error, "events wait for Redis");
                self.failures = self.failures.saturating_add(1);
                self.pause();
            }
        }
        let lost = self.under_way.len() + self.happened.len();
        self.start.stats.dropped(lost as u64);
    }

    /// Writes until the process ends, and then what is left.
    fn serve(&mut self, mut wire: Wire) -> Result<(), RedisError> {
        let mut ends_ns = None;
        loop {
            if self.under_way.is_empty() {
                match self.happened.recv_timeout(LOOKS_UP) {
                    Ok(happened) => self.under_way.push(happened),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
            }
            let free = TOGETHER_MAX - self.under_way.len();
            self.under_way.extend(self.happened.try_iter().take(free));
            if !self.under_way.is_empty() {
                self.write(&mut wire)?;
            }
            if self.stop.load(Ordering::Relaxed) {
                let now_ns = self.start.clock.mono_ns();
                let until_ns = *ends_ns.get_or_insert(now_ns + FAREWELL_NS);
                if self.happened.is_empty() || now_ns >= until_ns {
                    return Ok(());
                }
            }
        }
    }

    fn write(&mut self, wire: &mut Wire) -> Result<(), RedisError> {
        let entries: Vec<Cmd> = self.under_way.iter().map(|it| self.entry(it)).collect();
        let answers = wire.round(&entries, || false)?;
        for answer in answers.into_iter().flatten() {
            if let Value::ServerError(error) = answer {
                return Err(error.into());
            }
        }
        self.failures = 0;
        self.start.stats.confirmed(self.under_way.len() as u64);
        self.start.stats.waits(self.happened.len() as u64);
        let bytes = self.under_way.iter().map(|it| it.json.len() as u64);
        self.start.stats.took(bytes.sum());
        self.under_way.clear();
        Ok(())
    }

    fn entry(&self, happened: &Happened) -> Cmd {
        let mut command = cmd("XADD");
        command.arg(keys::EVENTS).arg("MAXLEN").arg("~");
        command.arg(self.start.stream_max).arg("*");
        command.arg("type").arg(happened.kind);
        command
            .arg("room")
            .arg(happened.room.as_ref().map_or("", |room| room.as_str()));
        command.arg("node").arg(&*self.start.me);
        command.arg("json").arg(&happened.json[..]);
        command
    }

    fn pause(&mut self) {
        let waiting = self.under_way.len() + self.happened.len();
        self.start.stats.waits(waiting as u64);
        let wait_ms = (WAIT_MS << self.failures.min(8)).min(WAIT_MS_MAX);
        let wait_ms = wait_ms / 2 + self.chance.below(wait_ms / 2 + 1);
        let until_ns = self.start.clock.mono_ns() + wait_ms * 1_000_000;
        while !self.stop.load(Ordering::Relaxed) && self.start.clock.mono_ns() < until_ns {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
