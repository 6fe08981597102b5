//! The long cases of several nodes: a node that is killed again and again, a Redis that stands still again and again. Others are
//! not to notice, and everything is to be exact again in time.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use danmaku_swarm::clock::unix_ms;
use danmaku_swarm::plan::Minter;
use danmaku_swarm::report::{Part, Report};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cases::Size;
use crate::cluster::{Cluster, Counted, counted};
use crate::course;
use crate::crowd::{Company, Door, Guest, truth, user};
use crate::drive::Drive;
use crate::nodes::{
    NODES, Off, ROOMS, Sheet, come, minter, ms, off, online_off, read_whole, settled, setup, start,
};
use crate::results::Bound::AtMost;
use crate::results::{Done, Purpose, Run};

/// The lease of the nodes whose deaths are looked at, seconds: so that twenty of them fit into minutes.
const LEASE_S: u64 = 3;
const LEASE: &str = "3s";
/// What is exact again after a death is so within the lease and this, seconds.
const AFTER_LEASE_S: u64 = 5;
/// From one death to the next, seconds.
const DEATH_S: u64 = 15;
/// How often counts are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The node that dies.
const VICTIM: usize = NODES - 1;

/// What was seen of the counts after something had happened.
#[derive(Default)]
struct Seen {
    /// The smallest total.
    least: i64,
    /// Seconds after which counts were exact and stayed so.
    exact_s: Option<f64>,
    /// How far they were off in the end.
    off: Off,
}

/// One of three nodes is killed again and again.
pub fn deaths(size: Size, drive: &Drive, done: &mut Done) -> Result<(), String> {
    let deaths = size.rounds.unwrap_or(if size.quick { 2 } else { 20 });
    let (viewers, guests) = (2 * size.many(1000), size.many(500));
    let mut cluster = start(drive, Some(LEASE))?;
    let words = format!("room --viewers {viewers} --rate 100 --speakers 20 --tokens");
    let run_s = (deaths as u64 + 1) * DEATH_S;
    let setup = setup("the other two nodes", words, run_s, viewers as f64 * 100.0);
    let mut under = drive.begin(&setup, &cluster, &[0, 1])?;
    under.begins_ms()?;
    let minter = minter(&cluster);
    let door = Door {
        node: cluster.nodes[VICTIM].public,
        minter: &minter,
        rooms: ROOMS,
    };
    let mut sheet = Sheet::default();
    let newcomers = || come(&door, guests, viewers as u32).map(Company::new);
    let mut members = newcomers()?;
    for nth in 0..deaths {
        let begun = Instant::now();
        eprintln!("bench:   death {} of {deaths}", nth + 1);
        let full = with_swarm(&members.guests, viewers);
        let (before, _) = settled(&cluster, &full, Duration::from_secs(AFTER_LEASE_S))?;
        sheet.put(
            "connections and users off before a death",
            "",
            AtMost(0.0),
            before.sum(),
        );
        cluster.kill(VICTIM);
        let killed = Instant::now();
        members.guests.clear();
        // Every other time it is back at once and so are its viewers; else it stays away until the others have counted it out.
        let comes_back = nth % 2 == 1;
        if comes_back {
            cluster.restart(VICTIM)?;
            members = newcomers()?;
        }
        let truth = with_swarm(&members.guests, viewers);
        let until_s = LEASE_S + AFTER_LEASE_S;
        let seen = watch(&cluster, &truth, &mut members, killed, until_s)?;
        let within = (LEASE_S + AFTER_LEASE_S) as f64;
        sheet.put(
            "exact again after a death, after",
            "s",
            AtMost(within),
            seen.exact_s.unwrap_or(DEATH_S as f64),
        );
        sheet.put(
            "the smallest total after a death",
            "",
            None,
            seen.least as f64,
        );
        sheet.put(
            "totals below zero",
            "",
            AtMost(0.0),
            f64::from(u8::from(seen.least < 0)),
        );
        sheet.put(
            "users that are gone and still stand there",
            "",
            AtMost(0.0),
            seen.off.ghosts as f64,
        );
        sheet.put(
            "connections and users off in the end",
            "",
            AtMost(0.0),
            seen.off.sum(),
        );
        if !comes_back {
            cluster.restart(VICTIM)?;
            members = newcomers()?;
        }
        members.stay(Duration::from_secs(DEATH_S).saturating_sub(begun.elapsed()))?;
    }
    let taken = under.finish(&cluster)?;
    read_others(&mut sheet, &taken.report);
    done.runs.push(Run::of(&setup, Purpose::Round, &taken));
    done.notes.push(format!(
        "The lease is {LEASE_S} s here. {guests} connections are at the node that is killed, a quarter of them of users that are at another node too; every other time it is started again at once, and its viewers are back before its lease has run out."
    ));
    sheet.close(done);
    Ok(())
}

/// What is to stand in Redis while the swarm is there, with a token for each viewer, and these guests.
fn with_swarm(guests: &[Guest], viewers: usize) -> BTreeMap<String, Counted> {
    let mut truth = truth(guests.iter(), ROOMS);
    let room = truth.entry(format!("{ROOMS}0")).or_default();
    room.total += viewers as i64;
    room.users.extend((0..viewers as u32).map(user));
    truth
}

/// Looks at the counts from an instant on until so many seconds are over; meanwhile these guests go on hearing.
fn watch(
    cluster: &Cluster,
    truth: &BTreeMap<String, Counted>,
    guests: &mut Company,
    since: Instant,
    until_s: u64,
) -> Result<Seen, String> {
    let mut redis = cluster.ask()?;
    let mut seen = Seen {
        least: i64::MAX,
        ..Seen::default()
    };
    while since.elapsed() < Duration::from_secs(until_s) {
        let at_s = since.elapsed().as_secs_f64();
        for room in truth.keys() {
            seen.least = seen.least.min(counted(&mut redis, room)?.total);
        }
        seen.off = off(&mut redis, truth)?;
        seen.exact_s = match seen.off.exact() {
            true => seen.exact_s.or(Some(at_s)),
            false => None,
        };
        guests.hear()?;
        sleep(LOOK);
    }
    Ok(seen)
}

/// What those at the other nodes noticed.
fn read_others(sheet: &mut Sheet, report: &Report) {
    let found = &report.deliveries;
    let closed: u64 = report.connections.closed.values().sum();
    sheet.put(
        "viewers at the others: connections closed",
        "",
        AtMost(0.0),
        closed as f64,
    );
    let renumbered = found.renumbered as f64;
    sheet.put(
        "viewers at the others: told of a new numbering",
        "",
        AtMost(0.0),
        renumbered,
    );
    read_whole(sheet, "viewers at the others: ", report);
    sheet.put(
        "viewers at the others: p99",
        "ms",
        None,
        course::p99_ms(report),
    );
    let slowest = report
        .timeline
        .iter()
        .filter(|second| second.phase == "run");
    let slowest = slowest.map(|second| second.max_us as f64 / 1000.0);
    sheet.put(
        "viewers at the others: slowest line",
        "ms",
        None,
        slowest.reduce(f64::max),
    );
}

/// One absence of Redis, seconds after it began.
#[derive(Clone, Copy)]
struct Stretch {
    before: u64,
    away: u64,
    settle: u64,
    after: u64,
}

impl Stretch {
    fn of(size: Size) -> Stretch {
        Stretch {
            before: if size.quick { 4 } else { 15 },
            away: if size.quick { 5 } else { 60 },
            // What is promised of the return.
            settle: 10,
            after: if size.quick { 3 } else { 10 },
        }
    }

    fn all(self) -> u64 {
        self.before + self.away + self.settle + self.after
    }

    /// The swarm's words for the parts of the nth one.
    fn parts(self, nth: usize) -> String {
        let mut at = nth as u64 * self.all();
        let named = [
            ("before", self.before),
            ("away", self.away),
            ("back", self.settle),
            ("after", self.after),
        ];
        let mut words = String::new();
        for (name, length) in named {
            words += &format!(" --part {name}-{nth}={at}s-{}s", at + length);
            at += length;
        }
        words
    }
}

/// When Redis came back, milliseconds since 1970, and what was counted then.
struct Absence {
    back_ms: u64,
    seen: Seen,
    online_off: f64,
}

/// Redis stands still again and again while all nodes talk.
pub fn absence(size: Size, drive: &Drive, done: &mut Done) -> Result<(), String> {
    let rounds = size.rounds.unwrap_or(if size.quick { 1 } else { 10 });
    let stretch = Stretch::of(size);
    // So few that their core is half idle: it is the wait for Redis that is to be seen, not the wait for the core.
    let viewers = NODES * size.many(300);
    let guests = size.many(150);
    let cluster = start(drive, None)?;
    lets_go_on(cluster.redis_pid())?;
    let parts: String = (0..rounds).map(|nth| stretch.parts(nth)).collect();
    let words = format!("room --viewers {viewers} --rate 300 --speakers 30 --tokens{parts}");
    let run_s = rounds as u64 * stretch.all();
    let setup = setup("three nodes", words, run_s, viewers as f64 * 300.0);
    let all: Vec<usize> = (0..NODES).collect();
    let mut under = drive.begin(&setup, &cluster, &all)?;
    let begins_ms = under.begins_ms()?;
    let minter = minter(&cluster);
    let mut crowd = Crowd::come(&cluster, &minter, guests, viewers)?;
    let mut absences = Vec::new();
    for nth in 0..rounds {
        eprintln!("bench:   absence {} of {rounds}", nth + 1);
        let from_ms = begins_ms + 1000 * (nth as u64 * stretch.all() + stretch.before);
        crowd.stay_until(from_ms)?;
        cluster.redis_stands_still(true)?;
        let gone = crowd.change(&cluster, &minter, from_ms + 1000 * stretch.away);
        cluster.redis_stands_still(false)?;
        gone?;
        absences.push(crowd.counts_after(&cluster, stretch.settle)?);
    }
    let taken = under.finish(&cluster)?;
    let mut sheet = Sheet::default();
    for (nth, absence) in absences.iter().enumerate() {
        read_absence(&mut sheet, &taken.report, stretch, nth, absence);
    }
    read_whole(&mut sheet, "", &taken.report);
    sheet.put(
        "lines times members, said where nodes were apart",
        "",
        None,
        taken.report.deliveries.apart as f64,
    );
    let closed: u64 = taken.report.connections.closed.values().sum();
    sheet.put("connections closed", "", AtMost(0.0), closed as f64);
    done.runs.push(Run::of(&setup, Purpose::Round, &taken));
    done.notes.push(format!(
        "Redis stands still for {} s each time. {guests} connections more are at the nodes; half of them go while it does, and others come: every other time fewer than went, then more.",
        stretch.away
    ));
    sheet.close(done);
    Ok(())
}

/// A Redis that stands still does not end with this program: on Ctrl-C it is let go on first.
fn lets_go_on(redis: Pid) -> Result<(), String> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = kill_process(redis, Signal::CONT);
            let _ = kill_process(redis, Signal::TERM);
            std::process::exit(130);
        }
    });
    Ok(())
}

/// The suite's own viewers, a share at each node.
struct Crowd {
    company: Company,
    /// How many they are at most.
    full: usize,
    /// Viewers of the swarm.
    viewers: usize,
}

impl Crowd {
    fn come(
        cluster: &Cluster,
        minter: &Minter,
        count: usize,
        viewers: usize,
    ) -> Result<Crowd, String> {
        let mut crowd = Crowd {
            company: Company::new(Vec::new()),
            full: count,
            viewers,
        };
        crowd.more(cluster, minter, count)?;
        Ok(crowd)
    }

    fn more(&mut self, cluster: &Cluster, minter: &Minter, count: usize) -> Result<(), String> {
        for node in &cluster.nodes {
            let door = Door {
                node: node.public,
                minter,
                rooms: ROOMS,
            };
            let came = come(&door, count / NODES, self.viewers as u32)?;
            self.company.guests.extend(came);
        }
        Ok(())
    }

    /// Stays until an instant, milliseconds since 1970.
    fn stay_until(&mut self, until_ms: u64) -> Result<(), String> {
        let left_ms = until_ms.saturating_sub(unix_ms());
        self.company.stay(Duration::from_millis(left_ms))
    }

    /// While Redis is away half of them go and others come: every other time fewer than went, then more.
    fn change(&mut self, cluster: &Cluster, minter: &Minter, until_ms: u64) -> Result<(), String> {
        self.company.stay(Duration::from_secs(2))?;
        let guests = &mut self.company.guests;
        let going = guests.split_off(guests.len() / 2);
        for (nth, guest) in going.into_iter().enumerate() {
            guest.leave(nth % 2 == 0);
        }
        let left = self.company.guests.len();
        let fewer = self.full * 3 / 4;
        let wanted = if left * 2 >= self.full {
            fewer
        } else {
            self.full
        };
        self.more(cluster, minter, wanted.saturating_sub(left))?;
        self.stay_until(until_ms)
    }

    /// What is counted after Redis is back, until so many seconds are over.
    fn counts_after(&mut self, cluster: &Cluster, settle_s: u64) -> Result<Absence, String> {
        let (back_ms, back) = (unix_ms(), Instant::now());
        let truth = with_swarm(&self.company.guests, self.viewers);
        let seen = watch(cluster, &truth, &mut self.company, back, settle_s)?;
        Ok(Absence {
            back_ms,
            seen,
            online_off: online_off(cluster, &truth)?,
        })
    }
}

/// One absence, as viewers and Redis saw it.
fn read_absence(
    sheet: &mut Sheet,
    report: &Report,
    stretch: Stretch,
    nth: usize,
    absence: &Absence,
) {
    let part = |name: &str| course::part(report, &format!("{name}-{nth}"));
    let local = |part: Option<&Part>| ms(part?.local_latency.as_ref(), |latency| latency.p99_us);
    let across = |part: Option<&Part>| ms(part?.across_latency.as_ref(), |latency| latency.p99_us);
    let (before, away) = (part("before"), part("away"));
    let grown = || Some(local(away)? - local(before)?);
    sheet.put(
        "p99 within a node while Redis is away, above that before",
        "ms",
        AtMost(5.0),
        grown(),
    );
    sheet.put("p99 within a node before", "ms", None, local(before));
    sheet.put(
        "p99 within a node while Redis is away",
        "ms",
        None,
        local(away),
    );
    let later = away.and_then(|away| slowest_second_ms(report, away));
    sheet.put(
        "p99 of the slowest second from the third on",
        "ms",
        None,
        later,
    );
    let settle_s = stretch.settle as f64;
    let whole = whole_after_s(report, absence.back_ms, settle_s + stretch.after as f64);
    sheet.put(
        "one numbering at all nodes again, after",
        "s",
        AtMost(settle_s),
        whole.unwrap_or(2.0 * settle_s),
    );
    sheet.put(
        "counts exact again, after",
        "s",
        AtMost(settle_s),
        absence.seen.exact_s.unwrap_or(2.0 * settle_s),
    );
    sheet.put(
        "connections and users off then",
        "",
        AtMost(0.0),
        absence.seen.off.sum(),
    );
    sheet.put(
        "connections off in what nodes say",
        "",
        AtMost(0.0),
        absence.online_off,
    );
    sheet.put(
        "totals below zero",
        "",
        AtMost(0.0),
        f64::from(u8::from(absence.seen.least < 0)),
    );
    sheet.put(
        "the smallest total after the return",
        "",
        None,
        absence.seen.least as f64,
    );
    sheet.put("p99 across nodes before", "ms", None, across(before));
    sheet.put("p99 across nodes after", "ms", None, across(part("after")));
    let calm = told_between(
        report,
        absence.back_ms,
        settle_s,
        settle_s + stretch.after as f64,
    );
    sheet.put(
        "members told of a new numbering later than 10 s after the return",
        "",
        AtMost(0.0),
        calm,
    );
}

/// The highest p99 of a second of a part, but for its first two: how long a node waits for Redis is told by these.
fn slowest_second_ms(report: &Report, part: &Part) -> Option<f64> {
    let within = |at_s: f64| at_s > part.begins_s + 3.0 && at_s <= part.ends_s;
    let seconds = report.timeline.iter().filter(|second| within(second.at_s));
    let p99s = seconds.map(|second| second.p99_us as f64 / 1000.0);
    p99s.reduce(f64::max)
}

/// Seconds from an instant until the last member had been told of the numbering that all nodes share again; `None` if one
/// of them was told of another one or of none.
fn whole_after_s(report: &Report, from_ms: u64, within_s: f64) -> Option<f64> {
    let from_s = since_start_s(report, from_ms)?;
    let told = report.numberings.iter();
    let told = told.filter(|told| told.to_s >= from_s && told.from_s <= from_s + within_s);
    // By node, what it was told last.
    let mut last: BTreeMap<u16, (f64, u64)> = BTreeMap::new();
    for told in told {
        let known = last.entry(told.node).or_default();
        if told.to_s > known.0 {
            *known = (told.to_s, told.epoch);
        }
    }
    let epoch = last.values().next()?.1;
    let is_one = last.len() == NODES && last.values().all(|(_, other)| *other == epoch);
    let latest_s = last.values().map(|(to_s, _)| *to_s).fold(0.0, f64::max);
    is_one.then_some(latest_s - from_s)
}

/// Members told of a new numbering in a stretch after an instant, seconds.
fn told_between(report: &Report, from_ms: u64, begin_s: f64, end_s: f64) -> Option<f64> {
    let from_s = since_start_s(report, from_ms)?;
    let (begin_s, end_s) = (from_s + begin_s, from_s + end_s);
    let told = report.numberings.iter();
    let told = told.filter(|told| told.to_s >= begin_s && told.from_s <= end_s);
    Some(told.map(|told| told.members).sum::<u64>() as f64)
}

/// An instant by the swarm's own clock, seconds.
fn since_start_s(report: &Report, at_ms: u64) -> Option<f64> {
    let since_ms = at_ms.checked_sub(report.started_ms)?;
    Some(since_ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use danmaku_swarm::report::Numbering;

    use super::*;

    fn told(node: u16, epoch: u64, from_s: f64, to_s: f64) -> Numbering {
        Numbering {
            node,
            epoch,
            from_s,
            to_s,
            members: 5,
            ..Numbering::default()
        }
    }

    #[test]
    fn nodes_are_whole_when_the_last_of_them_is_back_in_one_numbering() {
        let away = (0..3).map(|node| told(node, 90 + u64::from(node), 5.0, 5.3));
        let back = (0..3).map(|node| told(node, 7, 11.0, 11.5 + f64::from(node)));
        let mut report = Report {
            started_ms: 1_000_000,
            numberings: away.chain(back).collect(),
            ..Report::default()
        };
        let whole = |report: &Report| whole_after_s(report, 1_010_000, 20.0);
        assert_eq!(whole(&report), Some(3.5));
        assert_eq!(told_between(&report, 1_010_000, 10.0, 20.0), Some(0.0));
        report.numberings.push(told(1, 8, 12.0, 15.0));
        assert_eq!(whole(&report), None, "one of them is in another numbering");
        report.numberings.pop();
        report.numberings.pop();
        assert_eq!(whole(&report), None, "one of them did not come back");
        assert_eq!(whole_after_s(&report, 0, 20.0), None);
    }

    #[test]
    fn the_parts_of_absences_follow_each_other() {
        let stretch = Stretch::of(Size::default());
        assert_eq!(stretch.all(), 95);
        let words = stretch.parts(1);
        assert!(words.starts_with(" --part before-1=95s-110s --part away-1=110s-170s"));
        assert!(words.ends_with("--part after-1=180s-190s"));
    }
}
