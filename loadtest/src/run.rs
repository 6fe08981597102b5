//! A run from its first connect to its report. On the main thread, which steers the client threads, looks at the clock and at
//! the server, and writes down a second at a time; it holds no connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self as std_thread, JoinHandle};
use std::time::Duration;

use crate::clock::Clock;
use crate::meter::{Meter, Sample};
use crate::plan::Plan;
use crate::probe;
use crate::record::{Mark, Moment, Record, Totals};
use crate::report::live::{Live, Phase as Shown};
use crate::report::{Ended, Report};
use crate::tell;
use crate::thread::{self, Helm, Notes, Start};

/// How often the main thread looks.
const LOOK: Duration = Duration::from_millis(200);
/// Between the last viewer's arrival and the first line, microseconds: joins are answered meanwhile.
const SETTLE_US: u64 = 500_000;
/// A ramp that has had no more connections than before for so long is over, microseconds.
const RAMP_STUCK_US: u64 = 30_000_000;
/// Nothing new for so long, and the tail is over, microseconds.
const QUIET_US: u64 = 1_000_000;
/// The same while a member lacks lines that others have: the kernel may wait for seconds before it sends anew what got lost.
const LATE_US_MAX: u64 = 5_000_000;
/// The same while an answer is awaited.
const ANSWER_US_MAX: u64 = 10_000_000;
/// The tail is over at the latest after so long, microseconds.
const TAIL_US_MAX: u64 = 60_000_000;

/// Seconds the face needs.
const MOMENTS_SHOWN: usize = 2;

/// Ends a run before its time.
#[derive(Debug, Default)]
pub struct Stop(AtomicU8);

impl Stop {
    /// Asks once more: the first time ends the run with what is under way, the second time with nothing more.
    pub fn ask(&self) {
        // It stays at two, however often it is called.
        if self.0.fetch_add(1, Ordering::Relaxed) >= 2 {
            self.0.store(2, Ordering::Relaxed);
        }
    }

    fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn at_once(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 1
    }
}

/// What a run needs beside its plan.
pub struct Order<'a> {
    /// What is done.
    pub plan: Arc<Plan>,
    /// The server's processes, if they are on this machine: one for each node.
    pub server_pid: Option<Vec<u32>>,
    /// Where the server's metrics are, one place for each node.
    pub metrics: Option<Vec<SocketAddr>>,
    /// Set by Ctrl-C.
    pub stop: Arc<Stop>,
    /// Whether the server still runs.
    pub server_alive: &'a mut dyn FnMut() -> bool,
    /// Shown a few times a second.
    pub face: &'a mut dyn FnMut(&Live),
}

/// Runs the plan.
pub fn run(order: Order<'_>) -> Report {
    let plan = order.plan.clone();
    let mut watch = Watch::begin(order);
    let ended = watch.all_phases();
    let record = watch.finish(ended);
    tell::report(&plan, record)
}

struct Watch<'a> {
    order: Order<'a>,
    clock: Clock,
    helm: Arc<Helm>,
    meters: Vec<Arc<Meter>>,
    threads: Vec<JoinHandle<Result<Notes, String>>>,
    samples: Receiver<Sample>,
    /// Of the second that goes on.
    sample: Sample,
    all: Sample,
    parts: Vec<Sample>,
    moments: Vec<Moment>,
    marks: Vec<Mark>,
    run_begins_us: u64,
    ramp_done_us: Option<u64>,
    phase: Shown,
    phase_begins_us: u64,
    last_moment: Mark,
    peak: u64,
    rss_peak: (u64, u64),
    metrics_error: Option<String>,
    /// Why a client thread could not be started.
    no_thread: Option<String>,
}

impl<'a> Watch<'a> {
    fn begin(order: Order<'a>) -> Watch<'a> {
        let (tx, samples) = mpsc::channel();
        let mut watch = Watch {
            clock: Clock::start(),
            helm: Arc::default(),
            meters: Vec::new(),
            threads: Vec::new(),
            samples,
            sample: Sample::empty(),
            all: Sample::empty(),
            parts: order.plan.parts.iter().map(|_| Sample::empty()).collect(),
            moments: Vec::new(),
            marks: Vec::new(),
            run_begins_us: u64::MAX,
            ramp_done_us: None,
            phase: Shown::Ramp,
            phase_begins_us: 0,
            last_moment: Mark::default(),
            peak: 0,
            rss_peak: (0, 0),
            metrics_error: None,
            no_thread: None,
            order,
        };
        watch.mark();
        watch.last_moment = watch.marks[0].clone();
        watch.start_threads(&tx);
        watch
    }

    fn start_threads(&mut self, samples: &Sender<Sample>) {
        for index in 0..self.order.plan.threads {
            let meter = Arc::new(Meter::default());
            self.meters.push(meter.clone());
            let start = Start {
                index,
                plan: self.order.plan.clone(),
                clock: self.clock,
                helm: self.helm.clone(),
                meter,
                samples: samples.clone(),
            };
            let body = move || thread::run(start).map_err(|error| error.to_string());
            let named = std_thread::Builder::new().name(format!("swarm-{index}"));
            match named.spawn(body) {
                Ok(thread) => self.threads.push(thread),
                Err(error) => self.no_thread = Some(format!("cannot start a thread: {error}")),
            }
        }
    }

    /// Ramp, run, tail. Each ends early when the run is interrupted or the server is gone.
    fn all_phases(&mut self) -> Ended {
        let mut ended = self.ramp();
        self.mark();
        if ended == Ended::Completed {
            self.run_begins_us = self.clock.now_us() + SETTLE_US;
            let ends_us = match self.order.plan.run_us {
                Some(run_us) => self.run_begins_us + run_us,
                None => u64::MAX,
            };
            self.enter(Shown::Run);
            self.helm.run(self.run_begins_us, ends_us);
            ended = self.until(self.run_begins_us, |_, _| false);
            self.mark();
            if ended == Ended::Completed {
                ended = self.until(ends_us, |_, _| false);
            }
        } else {
            self.mark();
        }
        self.mark();
        self.enter(Shown::Tail);
        self.helm.tail(self.clock.now_us());
        self.tail();
        ended
    }

    fn ramp(&mut self) -> Ended {
        let wanted = self.order.plan.ramping() as u64;
        // With a rate, the next one may be long in coming.
        let stuck_us = match self.order.plan.ramp_per_s {
            per_s if per_s > 0.0 => RAMP_STUCK_US.max((3e6 / per_s) as u64),
            _ => RAMP_STUCK_US,
        };
        let (mut most, mut since_us) = (0, 0);
        let ended = self.until(u64::MAX, |watch, now_us| {
            let totals = watch.totals();
            // Those that come and go again and again are no progress.
            if totals.connected > most {
                (most, since_us) = (totals.connected, now_us);
            }
            let all = totals.connected + totals.given_up >= wanted;
            if all {
                watch.ramp_done_us = Some(watch.last_connect_us());
            }
            all || now_us - since_us > stuck_us
        });
        if ended == Ended::Completed && self.totals().connected == 0 && wanted > 0 {
            return Ended::Failed("not one client got in".into());
        }
        ended
    }

    /// Until everything under way has arrived: no answer is awaited and nothing new comes.
    fn tail(&mut self) {
        let begins_us = self.clock.now_us();
        let (mut last, mut since_us) = (u64::MAX, begins_us);
        loop {
            let now_us = self.clock.now_us();
            let totals = self.totals();
            let seen = totals.deliveries.wrapping_add(totals.accepted);
            if seen != last {
                (last, since_us) = (seen, now_us);
            }
            let patience_us = match (totals.pending, totals.behind) {
                (0, 0) => QUIET_US,
                (0, _) => LATE_US_MAX,
                _ => ANSWER_US_MAX,
            };
            let over = now_us - since_us > patience_us || now_us - begins_us > TAIL_US_MAX;
            if over || self.order.stop.at_once() {
                return;
            }
            self.look(LOOK);
        }
    }

    /// Looks until `done` says so, or until `deadline_us`.
    fn until(&mut self, deadline_us: u64, mut done: impl FnMut(&mut Self, u64) -> bool) -> Ended {
        loop {
            let now_us = self.clock.now_us();
            if now_us >= deadline_us || done(self, now_us) {
                return Ended::Completed;
            }
            if self.order.stop.asked() {
                return Ended::Interrupted;
            }
            if !(self.order.server_alive)() {
                return Ended::Failed("the server is gone".into());
            }
            if let Some(why) = self.no_thread.take() {
                return Ended::Failed(why);
            }
            if self.threads.iter().any(JoinHandle::is_finished) {
                return Ended::Failed("a client thread ended early".into());
            }
            self.look(Duration::from_micros(deadline_us - now_us).min(LOOK));
        }
    }

    fn enter(&mut self, phase: Shown) {
        self.phase = phase;
        self.phase_begins_us = self.clock.now_us();
    }

    /// Waits a little, writes down a second if one is over, shows the face.
    fn look(&mut self, wait: Duration) {
        std_thread::sleep(wait);
        self.take_samples();
        let totals = self.totals();
        self.peak = self.peak.max(totals.connected);
        let now_us = self.clock.now_us();
        if now_us - self.last_moment.at_us >= 1_000_000 {
            self.write_down();
        }
        let live = self.live(now_us, totals);
        (self.order.face)(&live);
    }

    /// What client threads handed over. A sample belongs to the part of the run in which it ended.
    fn take_samples(&mut self) {
        while let Ok(sample) = self.samples.try_recv() {
            self.sample.add(&sample);
            if let Some(at) = self.part(sample.at_us) {
                self.parts[at].add(&sample);
            }
        }
    }

    fn write_down(&mut self) {
        let mark = self.now(false);
        if let Some(server) = mark.server {
            self.rss_peak.0 = self.rss_peak.0.max(server.rss);
        }
        self.rss_peak.1 = self.rss_peak.1.max(mark.swarm.rss);
        self.all.add(&self.sample);
        let latencies = &self.sample.deliveries;
        self.last_moment = mark.clone();
        self.moments.push(Moment {
            mark,
            phase: self.phase,
            p50_us: latencies.value_at_quantile(0.5),
            p99_us: latencies.value_at_quantile(0.99),
            max_us: latencies.max(),
        });
        if !self.order.plan.keeps_books {
            let old = self.moments.len().saturating_sub(MOMENTS_SHOWN);
            self.moments.drain(..old);
        }
        self.sample.reset();
    }

    /// The plan's part that goes on at an instant.
    fn part(&self, at_us: u64) -> Option<usize> {
        let since_us = at_us.checked_sub(self.run_begins_us)?;
        let mut parts = self.order.plan.parts.iter();
        parts.position(|(_, from, to)| (*from + 1..=*to).contains(&since_us))
    }

    fn live(&self, now_us: u64, totals: Totals) -> Live {
        let plan = &self.order.plan;
        let (last, before) = match self.moments.as_slice() {
            [.., before, last] => (Some(last), Some(&before.mark)),
            [last] => (Some(last), Some(&self.marks[0])),
            [] => (None, None),
        };
        let mut live = Live {
            phase: self.phase,
            at: Duration::from_micros(now_us - self.phase_begins_us),
            planned: match self.phase {
                Shown::Run => plan
                    .run_us
                    .map(|run_us| Duration::from_micros(run_us + SETTLE_US)),
                _ => None,
            },
            wanted: plan.ramping() as u64,
            connected: totals.connected,
            refused: totals.refused,
            faults: totals.faults,
            begins_in: match self.phase {
                Shown::Run => Some(Duration::from_micros(
                    self.run_begins_us.saturating_sub(now_us),
                )),
                _ => None,
            },
            ..Live::default()
        };
        if let (Some(last), Some(before)) = (last, before) {
            let span_s = (last.mark.at_us - before.at_us).max(1) as f64 / 1e6;
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / span_s;
            live.connects_per_s = rate(last.mark.totals.connects, before.totals.connects);
            live.published_per_s = rate(last.mark.totals.accepted, before.totals.accepted);
            live.deliveries_per_s = rate(last.mark.totals.deliveries, before.totals.deliveries);
            live.p50_us = last.p50_us;
            live.p99_us = last.p99_us;
            if let (Some(server), Some(then)) = (last.mark.server, before.server) {
                live.server_cpu = Some((server.cpu_s - then.cpu_s) / span_s);
                live.server_rss_bytes = Some(server.rss);
            }
        }
        live
    }

    fn last_connect_us(&self) -> u64 {
        let last = self
            .meters
            .iter()
            .map(|meter| meter.last_connect_us.value());
        last.max().unwrap_or(0)
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for meter in &self.meters {
            totals.connected += meter.connected.value();
            totals.connects += meter.connects.value();
            totals.given_up += meter.given_up.value();
            totals.refused += meter.refused.value();
            totals.accepted += meter.accepted.value();
            totals.pending += meter.pending.value();
            totals.behind += meter.behind.value();
            totals.deliveries += meter.deliveries.value();
            totals.bytes += meter.bytes.value();
            totals.faults += meter.faults.value();
        }
        totals
    }

    fn now(&mut self, with_metrics: bool) -> Mark {
        let metrics = match &self.order.metrics {
            Some(addresses) if with_metrics => match probe::metrics_of(addresses, self.clock) {
                Ok(metrics) => Some(metrics),
                Err(why) => {
                    self.metrics_error = Some(why);
                    None
                }
            },
            _ => None,
        };
        Mark {
            at_us: self.clock.now_us(),
            totals: self.totals(),
            server: self.order.server_pid.as_deref().and_then(probe::processes),
            swarm: probe::own(),
            metrics,
        }
    }

    fn mark(&mut self) {
        let mark = self.now(true);
        self.marks.push(mark);
    }

    /// Ends the client threads and gathers what they wrote down.
    fn finish(mut self, mut ended: Ended) -> Record {
        self.mark();
        self.helm.end();
        let mut notes = Notes::default();
        for thread in std::mem::take(&mut self.threads) {
            match thread.join() {
                Ok(Ok(more)) => gather(&mut notes, more),
                Ok(Err(why)) => ended = Ended::Failed(format!("a client thread ended: {why}")),
                Err(_) => ended = Ended::Failed("a client thread panicked".into()),
            }
        }
        self.take_samples();
        self.write_down();
        let mut marks = std::mem::take(&mut self.marks);
        marks.resize(5, Mark::default());
        let marks = std::array::from_fn(|at| std::mem::take(&mut marks[at]));
        Record {
            marks,
            run_begins_us: self.run_begins_us,
            ramp_done_us: self.ramp_done_us,
            moments: self.moments,
            all: self.all,
            parts: self.parts,
            peak: self.peak,
            rss_peak: self.rss_peak,
            notes,
            ended,
            metrics_error: self.metrics_error,
        }
    }
}

fn gather(all: &mut Notes, more: Notes) {
    all.accepted.extend(more.accepted);
    all.unsure.extend(more.unsure);
    all.memberships.extend(more.memberships);
    all.events += more.events;
    all.recovered += more.recovered;
    all.cut += more.cut;
    all.scheduled += more.scheduled;
    all.backed_off += more.backed_off;
    all.unanswered += more.unanswered;
    all.ignored += more.ignored;
    all.readers_closed += more.readers_closed;
    for (into, from) in [
        (&mut all.deaf.answered, more.deaf.answered),
        (&mut all.deaf.closed, more.deaf.closed),
        (&mut all.deaf.wordless, more.deaf.wordless),
        (&mut all.deaf.wrongly, more.deaf.wrongly),
        (&mut all.deaf.silent, more.deaf.silent),
    ] {
        *into += from;
    }
    all.told.gather(more.told);
    all.away += more.away;
    all.outside += more.outside;
    for (into, from) in [
        (&mut all.refused, more.refused),
        (&mut all.failed, more.failed),
        (&mut all.closed, more.closed),
        (&mut all.lines_refused, more.lines_refused),
        (&mut all.faults, more.faults),
    ] {
        for (name, count) in from {
            *into.entry(name).or_default() += count;
        }
    }
}
