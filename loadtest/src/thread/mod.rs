//! A client thread: one poller, its own descriptor table, and its share of the viewers. It owns its sockets, tallies and
//! timers alone; with the main thread it shares counters and the run's phase, and it never waits for anyone.
//!
//! One turn: poll → what can be read or written → lines that are due → timers → connects → what is to be sent.

mod connect;
mod hear;
mod leave;
mod push;
mod recall;
mod socket;
mod source;
mod speak;
mod tail;
mod timers;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Poll, Token};

use self::recall::Recall;
use crate::books::{Accepted, Gaps, Membership, Tally, Tellings};
use crate::client::frames::Decoder;
use crate::clock::{Chance, Clock, fresh_seed};
use crate::fd;
use crate::meter::{Meter, Sample};
use crate::plan::{Arrives, Plan};

use push::Pusher;
use source::Source;
use timers::{Timers, What};

/// Bytes read from a socket at once.
const SCRATCH_BYTES: usize = 256 << 10;
/// Events taken from the poller at once.
const EVENTS: usize = 1024;
/// How long a turn waits at most, so that a change of phase is seen soon.
const WAIT: Duration = Duration::from_millis(20);
/// How often distributions are handed over, microseconds.
const SAMPLE_US: u64 = 1_000_000;
/// Tokens of pushers begin here; viewers' are below.
const PUSHERS: usize = 1 << 32;

/// What the run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Viewers arrive.
    Ramp = 0,
    /// Lines are spoken.
    Run = 1,
    /// No one speaks any more; what is under way still arrives.
    Tail = 2,
    /// Over.
    End = 3,
}

/// How the main thread steers the client threads.
#[derive(Debug, Default)]
pub struct Helm {
    phase: AtomicU8,
    run_begins_us: AtomicU64,
    run_ends_us: AtomicU64,
}

impl Helm {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Ramp,
            1 => Phase::Run,
            2 => Phase::Tail,
            _ => Phase::End,
        }
    }

    /// Lets the lines begin, and says when they end.
    pub fn run(&self, begins_us: u64, ends_us: u64) {
        self.run_begins_us.store(begins_us, Ordering::Relaxed);
        self.run_ends_us.store(ends_us, Ordering::Relaxed);
        self.phase.store(Phase::Run as u8, Ordering::Release);
    }

    /// No more lines, from `now_us` on.
    pub fn tail(&self, now_us: u64) {
        self.run_ends_us.fetch_min(now_us, Ordering::Relaxed);
        self.phase.store(Phase::Tail as u8, Ordering::Release);
    }

    /// Over.
    pub fn end(&self) {
        self.phase.store(Phase::End as u8, Ordering::Release);
    }
}

/// What a thread is started with.
#[derive(Debug)]
pub struct Start {
    /// Its index.
    pub index: usize,
    /// The run.
    pub plan: Arc<Plan>,
    /// The run's clock.
    pub clock: Clock,
    /// Says when what is done.
    pub helm: Arc<Helm>,
    /// Its counters.
    pub meter: Arc<Meter>,
    /// Its distributions, once a second.
    pub samples: Sender<Sample>,
}

/// What a thread wrote down, when it is over.
#[derive(Debug, Default)]
pub struct Notes {
    /// Lines with their numbers.
    pub accepted: Vec<Accepted>,
    /// Rooms in which an answer was lost.
    pub unsure: HashSet<u32>,
    /// Memberships.
    pub memberships: Vec<Membership>,
    /// Events received as they happened.
    pub events: u64,
    /// Lines received by resuming.
    pub recovered: u64,
    /// Upgrades refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Connects that failed otherwise.
    pub failed: BTreeMap<String, u64>,
    /// Connections the server ended, by close code.
    pub closed: BTreeMap<String, u64>,
    /// Connections the swarm cut.
    pub cut: u64,
    /// Waits the server asked for.
    pub backed_off: u64,
    /// Lines whose time came within the run.
    pub scheduled: u64,
    /// Lines refused, by code.
    pub lines_refused: BTreeMap<String, u64>,
    /// Lines whose connection went before their answer came.
    pub unanswered: u64,
    /// Lines never answered on a connection that lasted.
    pub ignored: u64,
    /// Viewers that should be connected at the end, and are not.
    pub away: u64,
    /// Viewers that are connected at the end, but not in their room.
    pub outside: u64,
    /// Of the closed ones, those of viewers that read: nothing excuses them.
    pub readers_closed: u64,
    /// What became of viewers that did not read.
    pub deaf: Deaf,
    /// What else was wrong.
    pub faults: BTreeMap<String, u64>,
    /// New numberings that members were told of.
    pub told: Tellings,
}

/// What became of viewers that did not read: each is settled one way or the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deaf {
    /// Answered at the end, so that the server has nothing more for them.
    pub answered: u64,
    /// Ended with the server's word that they were too slow (4413).
    pub closed: u64,
    /// Ended without a word that came through: the goodbye may be stuck behind what the kernel holds.
    pub wordless: u64,
    /// Ended with a word that has nothing to do with being slow.
    pub wrongly: u64,
    /// Connected at the end, and silent when asked.
    pub silent: u64,
}

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not connected; it will be when a timer or the queue says so.
    Away,
    /// The socket connects.
    Connecting,
    /// The upgrade was asked for.
    Asking,
    /// Messages flow.
    Open,
    /// It will not come back.
    Gone,
}

/// One viewer's connection and tally.
#[derive(Debug)]
struct Client {
    /// The viewer's number in the plan.
    number: u32,
    room: u32,
    stage: Stage,
    /// Whether `tally` is of a membership that goes on.
    member: bool,
    /// Whether that membership began before the run's first line was due.
    early: bool,
    /// Whether it asked to join, and awaits the answer.
    joining: bool,
    /// Whether it asked to leave, and awaits the answer.
    leaving: bool,
    /// Whether it was connected before; it then resumes.
    resumes: bool,
    /// Whether it does not read, for now.
    deaf: bool,
    /// Whether it did not read until the tail, and has not shown since that the server still has it.
    unproven: bool,
    /// Whether it is among the thread's speakers.
    speaking: bool,
    /// When the server wants to see it again, once it closes.
    notice_ms: Option<u64>,
    /// Failed attempts in a row.
    attempts: u8,
    /// Grows with each connection, so that an old timer means nothing to a new one.
    generation: u32,
    /// When this connection was due, for the connect latency; `u64::MAX` once it was counted.
    due_us: u64,
    stream: Option<TcpStream>,
    decoder: Decoder,
    out: Vec<u8>,
    tally: Tally,
    /// Where in its room's [`Recall`] it is.
    place: u64,
}

/// One client thread.
struct Thread {
    plan: Arc<Plan>,
    clock: Clock,
    helm: Arc<Helm>,
    meter: Arc<Meter>,
    samples: Sender<Sample>,
    poll: Poll,
    scratch: Vec<u8>,
    chance: Chance,
    clients: Vec<Client>,
    timers: Timers,
    /// Clients that want to connect, in order.
    ready: VecDeque<u32>,
    /// Connects under way.
    in_flight: usize,
    source: Source,
    /// Clients with something to send.
    dirty: Vec<u32>,
    speech: speak::Schedules,
    /// Lines on their way, by id.
    sent: HashMap<u64, speak::Sent>,
    /// Of several nodes: lines acked and not yet heard by their authors, with these.
    unplaced: HashMap<u64, (u32, Accepted)>,
    /// Lines heard by their authors and not yet acked: numbering and number.
    own_heard: HashMap<u64, (u64, u64)>,
    speakers: Vec<u32>,
    /// Clients that are to be cut, a few in each turn.
    cutting: VecDeque<u32>,
    /// A line is due, but no speaker or publisher is free: another look comes with the next event, or a little later.
    speechless: bool,
    pushers: Vec<Pusher>,
    /// Whose turn it is.
    next_pusher: usize,
    /// When publishers were last looked at for patience.
    pushes_looked_us: u64,
    gaps: Gaps,
    /// When it was last looked who lacks something.
    looked_us: u64,
    /// By room, and by node within it: nodes that cannot reach each other number by themselves.
    recalls: Vec<Recall>,
    recall_bytes_max: usize,
    sample: Sample,
    notes: Notes,
    phase: Phase,
}

/// Runs a client thread to the run's end. The calling thread is its own from here on.
///
/// # Errors
/// What the system refused: a poller, or a descriptor table.
pub fn run(start: Start) -> io::Result<Notes> {
    // Without a table of its own the thread shares the process's limit, which is right for small swarms.
    let _ = fd::own_table();
    let mut thread = Thread::new(start)?;
    let mut events = Events::with_capacity(EVENTS);
    let mut sampled_us = thread.clock.now_us();
    while thread.phase != Phase::End {
        thread.turn(&mut events)?;
        let now_us = thread.clock.now_us();
        let ends_us = thread.sample_ends_us(sampled_us);
        if now_us >= ends_us {
            sampled_us = now_us;
            thread.hand_over(ends_us);
        }
    }
    thread.finish();
    Ok(thread.notes)
}

impl Thread {
    fn new(start: Start) -> io::Result<Thread> {
        let Start {
            index,
            plan,
            clock,
            helm,
            meter,
            samples,
        } = start;
        let clients: Vec<Client> = plan
            .share(index)
            .map(|number| Client::new(number, plan.viewers[number as usize].room))
            .collect();
        let pushers = push::share(&plan, index);
        let recalls = plan.rooms.len() * plan.targets.len();
        let mut thread = Thread {
            chance: Chance::new(plan.seed.wrapping_add(index as u64 + 1)),
            source: Source::new(index, fresh_seed()),
            speech: speak::Schedules::new(&plan, index),
            poll: Poll::new()?,
            scratch: vec![0; SCRATCH_BYTES],
            timers: Timers::default(),
            ready: VecDeque::new(),
            in_flight: 0,
            dirty: Vec::new(),
            sent: HashMap::new(),
            unplaced: HashMap::new(),
            own_heard: HashMap::new(),
            speakers: Vec::new(),
            cutting: VecDeque::new(),
            speechless: false,
            next_pusher: 0,
            pushes_looked_us: 0,
            gaps: Gaps::default(),
            looked_us: 0,
            recalls: (0..recalls).map(|_| Recall::default()).collect(),
            recall_bytes_max: Recall::bytes_max(recalls),
            sample: Sample::empty(),
            notes: Notes::default(),
            phase: Phase::Ramp,
            clients,
            pushers,
            plan,
            clock,
            helm,
            meter,
            samples,
        };
        thread.plan_arrivals();
        Ok(thread)
    }

    /// Arrivals of the ramp: by timer at the asked rate, or all at once into the queue.
    fn plan_arrivals(&mut self) {
        let now_us = self.clock.now_us();
        for at in 0..self.clients.len() as u32 {
            let number = self.clients[at as usize].number;
            if self.plan.viewers[number as usize].arrives != Arrives::Ramp {
                continue;
            }
            if self.plan.ramp_per_s > 0.0 {
                let after_us = f64::from(number) / self.plan.ramp_per_s * 1e6;
                self.timers
                    .arm(now_us + after_us as u64, at, 0, What::Arrive);
            } else {
                self.ready.push_back(at);
            }
        }
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let now_us = self.clock.now_us();
        let wait = Duration::from_micros(self.next_due_us().saturating_sub(now_us)).min(WAIT);
        match self.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in events.iter() {
            let Token(token) = event.token();
            if token >= PUSHERS {
                self.pusher_event(token - PUSHERS);
                continue;
            }
            let at = token as u32;
            if event.is_writable() {
                self.writable(at);
            }
            let ends = event.is_read_closed() || event.is_write_closed() || event.is_error();
            if event.is_readable() || ends {
                self.readable(at, ends);
            }
        }
        self.see_phase();
        self.speak();
        self.expire();
        self.cut_some();
        self.connect_some();
        self.flush();
        self.look_behind();
        Ok(())
    }

    /// When something of this thread's own is due.
    fn next_due_us(&self) -> u64 {
        let can_connect = self.phase != Phase::Tail && self.in_flight < self.plan.in_flight;
        let more = !self.dirty.is_empty() || !self.cutting.is_empty();
        if more || (can_connect && !self.ready.is_empty()) {
            return 0;
        }
        let speech_us = if self.speechless {
            u64::MAX
        } else {
            self.speech.next_due_us()
        };
        self.timers.next_us().min(speech_us)
    }

    fn see_phase(&mut self) {
        let phase = self.helm.phase();
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        match phase {
            Phase::Run => self.begin_run(),
            Phase::Tail => self.begin_tail(),
            Phase::Ramp | Phase::End => {}
        }
    }

    fn begin_run(&mut self) {
        let begins_us = self.helm.run_begins_us.load(Ordering::Relaxed);
        let ends_us = self.helm.run_ends_us.load(Ordering::Relaxed);
        self.speech.begin(begins_us, ends_us);
        for cut_us in &self.plan.cuts_us {
            self.timers.arm(begins_us + cut_us, 0, 0, What::CutAll);
        }
        for at in 0..self.clients.len() as u32 {
            let number = self.clients[at as usize].number;
            let viewer = self.plan.viewers[number as usize];
            if let Arrives::At(after_us) = viewer.arrives {
                self.timers.arm(begins_us + after_us, at, 0, What::Arrive);
            } else if viewer.moves {
                let stays_us = self.chance.wait_us(self.plan.stay_us);
                let generation = self.clients[at as usize].generation;
                self.timers
                    .arm(begins_us + stays_us, at, generation, What::Move);
            }
        }
    }

    fn hand_over(&mut self, now_us: u64) {
        self.sample.at_us = now_us;
        // The main thread may be gone already; then nobody wants to know.
        let _ = self.samples.send(self.sample.clone());
        self.sample.reset();
        if !self.plan.keeps_books {
            self.notes.accepted.clear();
            self.notes.memberships.clear();
        }
    }

    /// When the sample that began then is over: after a second, or where a part of the run begins or ends.
    fn sample_ends_us(&self, begun_us: u64) -> u64 {
        let run_us = self.helm.run_begins_us.load(Ordering::Relaxed);
        let parts = self.plan.parts.iter();
        let ends = parts.flat_map(|(_, from_us, to_us)| [run_us + from_us, run_us + to_us]);
        let next = ends.filter(|end_us| *end_us > begun_us).min();
        let second_us = begun_us + SAMPLE_US;
        match next {
            Some(end_us) if self.phase != Phase::Ramp => second_us.min(end_us),
            _ => second_us,
        }
    }

    /// Writes a membership down; `to_the_end` if the viewer is still in it when the run is over.
    fn end_membership(&mut self, at: u32, to_the_end: bool) {
        let client = &mut self.clients[at as usize];
        if !std::mem::take(&mut client.member) {
            return;
        }
        self.notes.memberships.push(Membership {
            viewer: client.number,
            room: client.room,
            tally: client.tally,
            missing: self.gaps.remove(&at).unwrap_or_default(),
            cut_short: !to_the_end && !self.plan.viewers[client.number as usize].reads,
            to_the_end,
            early: client.early,
            renumbered: false,
        });
    }

    fn fault(&mut self, what: &str) {
        self.meter.faults.add(1);
        bump(&mut self.notes.faults, what);
    }
}

impl Client {
    fn new(number: u32, room: u32) -> Client {
        Client {
            number,
            room,
            stage: Stage::Away,
            member: false,
            early: false,
            joining: false,
            leaving: false,
            resumes: false,
            deaf: false,
            unproven: false,
            speaking: false,
            notice_ms: None,
            attempts: 0,
            generation: 0,
            due_us: u64::MAX,
            stream: None,
            decoder: Decoder::default(),
            out: Vec::new(),
            tally: Tally::default(),
            place: 0,
        }
    }
}

/// Adds one under a name, of which there are at most a hundred: a server must not fill the swarm's memory with words.
fn bump(counts: &mut BTreeMap<String, u64>, name: &str) {
    const NAMES_MAX: usize = 100;
    if let Some(count) = counts.get_mut(name) {
        *count += 1;
    } else if counts.len() < NAMES_MAX {
        counts.insert(name.to_owned(), 1);
    } else {
        *counts.entry("other".to_owned()).or_default() += 1;
    }
}
