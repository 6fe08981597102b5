//! The cases of several nodes: three gateways and a Redis on the server's core, the swarm on its own. What the swarm hears, what
//! stands in Redis, and what both cost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use danmaku_swarm::clock::unix_ms;
use danmaku_swarm::fd;
use danmaku_swarm::plan::Minter;
use danmaku_swarm::report::{Latency, Report};

use crate::cases::Size;
use crate::cluster::{Cluster, Counted, Wanted, Work, counted, rooms_counted};
use crate::course;
use crate::crowd::{Bustle, Bustled, Door, Guest, bustle, truth};
use crate::drive::{Cores, Drive, Server, Setup};
use crate::results::Bound::{AtLeast, AtMost};
use crate::results::{Bound, Done, Figure, Purpose, Run};

/// How many nodes there are.
pub const NODES: usize = 3;
/// What the swarm calls its rooms.
pub const ROOMS: &str = "swarm-";
/// Nodes write a room at most once a second: a count that is not there after so long will not come.
const COUNTS_SETTLE: Duration = Duration::from_secs(5);
/// How long tokens of the suite's own guests are good for, seconds.
pub const TOKEN_S: u64 = 24 * 3600;

/// Figures that gather round by round, in the order in which they were first named.
#[derive(Default)]
pub struct Sheet(Vec<Row>);

struct Row {
    what: String,
    unit: &'static str,
    bound: Option<Bound>,
    values: Vec<Option<f64>>,
}

impl Sheet {
    pub fn put(
        &mut self,
        what: &str,
        unit: &'static str,
        bound: impl Into<Option<Bound>>,
        value: impl Into<Option<f64>>,
    ) {
        let value = value.into();
        match self.0.iter_mut().find(|row| row.what == what) {
            Some(row) => row.values.push(value),
            None => self.0.push(Row {
                what: what.to_owned(),
                unit,
                bound: bound.into(),
                values: vec![value],
            }),
        }
    }

    /// What it comes to.
    pub fn close(self, done: &mut Done) {
        let smoke = done.smoke;
        let judged = self.0.iter();
        let judged =
            judged.map(|row| Figure::judge(&row.what, row.unit, row.bound, &row.values, smoke));
        done.figures.extend(judged);
    }
}

/// Three nodes and their Redis.
pub fn start(drive: &Drive, lease: Option<&'static str>) -> Result<Cluster, String> {
    Cluster::start(Wanted {
        gateway: drive.gateway.clone(),
        nodes: NODES,
        cores: Cores::apart().server,
        lease,
    })
}

/// A run against nodes.
pub fn setup(name: &'static str, words: String, run_s: u64, offered_per_s: f64) -> Setup {
    Setup {
        name,
        server: Server::Nodes,
        cores: Cores::apart(),
        words,
        run_s,
        offered_per_s: Some(offered_per_s),
    }
}

pub fn minter(cluster: &Cluster) -> Minter {
    Minter::hs256(cluster.secret.as_bytes(), unix_ms() / 1000 + TOKEN_S)
}

pub fn ms(latency: Option<&Latency>, of: fn(&Latency) -> u64) -> Option<f64> {
    let latency = latency.filter(|latency| latency.count > 0)?;
    Some(of(latency) as f64 / 1000.0)
}

/// One room over three nodes, lines from all of them.
pub fn one_room(size: Size, drive: &Drive, done: &mut Done) -> Result<(), String> {
    let viewers = NODES * size.many(5000);
    let (rate, run_s) = (200, size.seconds(60));
    let mut sheet = Sheet::default();
    for nth in 0..size.rounds() {
        eprintln!("bench:   round {} of {}", nth + 1, size.rounds());
        let cluster = start(drive, None)?;
        // As many speakers at each node.
        let words = format!("room --viewers {viewers} --rate {rate} --speakers 30");
        let setup = setup("three nodes", words, run_s, (viewers * rate) as f64);
        let before = cluster.work()?;
        let all: Vec<usize> = (0..NODES).collect();
        let taken = drive.begin(&setup, &cluster, &all)?.finish(&cluster)?;
        let after = cluster.work()?;
        done.runs.push(Run::of(&setup, Purpose::Round, &taken));
        read_one_room(&mut sheet, &taken.report, before, after);
    }
    sheet.close(done);
    Ok(())
}

fn read_one_room(sheet: &mut Sheet, report: &Report, before: Work, after: Work) {
    let (local, across) = (
        report.local_latency.as_ref(),
        report.across_latency.as_ref(),
    );
    let p99 = |latency| ms(latency, |latency| latency.p99_us);
    let p50 = |latency| ms(latency, |latency| latency.p50_us);
    let above = || Some(p99(across)? - p99(local)?);
    sheet.put(
        "p99 across nodes, above that within a node",
        "ms",
        AtMost(20.0),
        above(),
    );
    sheet.put("p99 within a node", "ms", None, p99(local));
    sheet.put("p99 across nodes", "ms", None, p99(across));
    sheet.put("p50 within a node", "ms", None, p50(local));
    sheet.put("p50 across nodes", "ms", None, p50(across));
    read_whole(sheet, "", report);
    let renumbered = report.deliveries.renumbered as f64;
    sheet.put(
        "members told of a new numbering",
        "",
        AtMost(0.0),
        renumbered,
    );
    let lines = report.published.accepted as f64;
    read_work(sheet, "line", lines, before, after);
    sheet.put(
        "CPU of all nodes for each delivery",
        "us",
        None,
        course::cpu_us(report),
    );
}

/// Whether the swarm, or the part of it that is `who`, got everything once and in order.
pub fn read_whole(sheet: &mut Sheet, who: &str, report: &Report) {
    let found = &report.deliveries;
    let disorder = (found.duplicated + found.out_of_order + found.corrupted) as f64;
    let mut none = |what: &str, count: Option<f64>| {
        sheet.put(&format!("{who}{what}"), "", AtMost(0.0), count);
    };
    none(
        "deliveries that did not arrive",
        course::not_delivered(report),
    );
    none("lines twice, out of order or wrong", Some(disorder));
    none(
        "promises of the swarm that did not hold",
        course::broken(report),
    );
}

/// What Redis did for each of so many.
fn read_work(sheet: &mut Sheet, what: &str, many: f64, before: Work, after: Work) {
    let mut each = |name: &str, unit, of: fn(Work) -> f64| {
        let value = (many > 0.0).then(|| (of(after) - of(before)) / many);
        sheet.put(name, unit, None, value);
    };
    let commands = format!("Redis commands for each {what}, counts and leases included");
    each(&commands, "", |work| work.commands);
    each("of them scripts", "", |work| work.scripts);
    let cpu = format!("CPU of Redis for each {what}");
    each(&cpu, "us", |work| work.cpu_s * 1e6);
}

/// How far what stands in Redis is from what is so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Off {
    /// Connections too many or too few, over all rooms.
    pub connections: u64,
    /// Users that stand there and are gone.
    pub ghosts: u64,
    /// Users that are there and do not stand there.
    pub missing: u64,
    /// Totals below zero.
    pub negative: u64,
}

impl Off {
    pub fn exact(&self) -> bool {
        *self == Off::default()
    }

    /// Everything together.
    pub fn sum(&self) -> f64 {
        (self.connections + self.ghosts + self.missing + self.negative) as f64
    }

    fn add(&mut self, is: &Counted, should: &Counted) {
        self.connections += is.total.abs_diff(should.total);
        self.ghosts += is.users.difference(&should.users).count() as u64;
        self.missing += should.users.difference(&is.users).count() as u64;
        self.negative += u64::from(is.total < 0);
    }
}

/// Holds all rooms in Redis against what is so.
pub fn off(
    redis: &mut redis::Connection,
    truth: &BTreeMap<String, Counted>,
) -> Result<Off, String> {
    let mut off = Off::default();
    let nobody = Counted::default();
    for (room, should) in truth {
        off.add(&counted(redis, room)?, should);
    }
    for room in rooms_counted(redis)? {
        if !truth.contains_key(&room) {
            off.add(&counted(redis, &room)?, &nobody);
        }
    }
    Ok(off)
}

/// Waits until counts are exact, or for so long. What they are in the end, and after how many seconds that was so.
pub fn settled(
    cluster: &Cluster,
    truth: &BTreeMap<String, Counted>,
    limit: Duration,
) -> Result<(Off, f64), String> {
    let (mut redis, begun) = (cluster.ask()?, Instant::now());
    loop {
        let off = off(&mut redis, truth)?;
        if off.exact() || begun.elapsed() > limit {
            return Ok((off, begun.elapsed().as_secs_f64()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Hands at each node that come and go: one waits for an answer at a time.
const HANDS: usize = 4;
/// Rooms people change between.
const BUSTLING_ROOMS: usize = 20;

/// Viewers that come, change rooms and go at all nodes.
pub fn churn(size: Size, drive: &Drive, done: &mut Done) -> Result<(), String> {
    let (joins_per_s, for_s) = (size.many(1000) as f64, size.seconds(60));
    let mut sheet = Sheet::default();
    for nth in 0..size.rounds() {
        eprintln!("bench:   round {} of {}", nth + 1, size.rounds());
        let cluster = start(drive, None)?;
        let before = cluster.work()?;
        let came = everyone_bustles(&cluster, joins_per_s, for_s)?;
        let took_s = came.iter().map(|came| came.took_s).fold(0.0, f64::max);
        let joins: u64 = came.iter().map(|came| came.joins).sum();
        let guests = || came.iter().flat_map(|came| came.guests.iter());
        let truth = truth(guests(), ROOMS);
        let (there, there_s) = settled(&cluster, &truth, COUNTS_SETTLE)?;
        // The work of the bustle itself: what follows is a leave of everyone.
        let work = cluster.work()?;
        sheet.put(
            "joins a second",
            "/s",
            AtLeast(0.99 * joins_per_s),
            joins as f64 / took_s,
        );
        sheet.put(
            "connections and users off, when the last had come",
            "",
            AtMost(0.0),
            there.sum(),
        );
        sheet.put("exact after", "s", None, there_s);
        let users = truth.values().map(|room| room.users.len()).sum::<usize>();
        let told = online_off(&cluster, &truth)?;
        sheet.put(
            "connections off in what nodes say, when the last had come",
            "",
            AtMost(0.0),
            told,
        );
        for came in came {
            for (nth, guest) in came.guests.into_iter().enumerate() {
                guest.leave(nth % 2 == 0);
            }
        }
        let (gone, gone_s) = settled(&cluster, &BTreeMap::new(), COUNTS_SETTLE)?;
        sheet.put(
            "connections and users off, when all had gone",
            "",
            AtMost(0.0),
            gone.sum(),
        );
        sheet.put("exact after all had gone, after", "s", None, gone_s);
        read_work(&mut sheet, "join", joins as f64, before, work);
        if nth == 0 {
            let there: i64 = truth.values().map(|room| room.total).sum();
            done.notes.push(format!(
                "Half of the joins are new connections and half come from another room; when the last had come there were {there} connections in {} rooms, of {users} users and nobody.",
                truth.len()
            ));
        }
    }
    sheet.close(done);
    Ok(())
}

/// Several hands at each node at once, on the swarm's core.
fn everyone_bustles(
    cluster: &Cluster,
    joins_per_s: f64,
    for_s: u64,
) -> Result<Vec<Bustled>, String> {
    let hands = NODES * HANDS;
    let minter = &minter(cluster);
    let at = |hand: usize| {
        let door = Door {
            node: cluster.nodes[hand % NODES].public,
            minter,
            rooms: ROOMS,
        };
        move || {
            fd::pin(&Cores::apart().swarm).map_err(|error| format!("core 1: {error}"))?;
            let wanted = Bustle {
                joins_per_s: joins_per_s / hands as f64,
                for_s,
                rooms: BUSTLING_ROOMS,
                users: 2000,
                stay: 250,
                seed: hand as u64 + 1,
            };
            bustle(&door, wanted)
        }
    };
    std::thread::scope(|scope| {
        let hands: Vec<_> = (0..hands).map(|hand| scope.spawn(at(hand))).collect();
        let came = hands.into_iter().map(|hand| match hand.join() {
            Ok(came) => came,
            Err(_) => Err("a hand of the crowd panicked".into()),
        });
        came.collect()
    })
}

/// How far what each node tells whoever asks is from what is so, over all rooms. It hears of the others' counts a little later
/// than they stand in Redis.
pub fn online_off(cluster: &Cluster, truth: &BTreeMap<String, Counted>) -> Result<f64, String> {
    let begun = Instant::now();
    loop {
        let mut off = 0;
        for (node, (room, should)) in cluster
            .nodes
            .iter()
            .flat_map(|node| truth.iter().map(move |room| (node, room)))
        {
            // One that nobody is in may be no room.
            let said = node.online(room)?.unwrap_or(0);
            off += said.abs_diff(should.total);
        }
        if off == 0 || begun.elapsed() > COUNTS_SETTLE {
            return Ok(off as f64);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Guests at one node: some users of their own, some that are elsewhere too, some nobody knows.
pub fn come(door: &Door<'_>, count: usize, shared: u32) -> Result<Vec<Guest>, String> {
    let user = |nth: usize| match nth % 4 {
        // A user with two connections at this node.
        0 | 1 => Some(1_000_000 + (nth / 4) as u32),
        2 => Some((nth / 4) as u32 % shared.max(1)),
        _ => None,
    };
    (0..count).map(|nth| door.enter(0, user(nth))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(total: i64, users: &[&str]) -> Counted {
        Counted {
            total,
            users: users.iter().map(|user| (*user).to_owned()).collect(),
        }
    }

    #[test]
    fn ghosts_and_those_that_are_missing_are_told_apart() {
        let mut off = Off::default();
        off.add(&counted(3, &["a", "b"]), &counted(3, &["a", "b"]));
        assert!(off.exact());
        off.add(&counted(-1, &["a", "c"]), &counted(2, &["a", "b", "d"]));
        let expected = Off {
            connections: 3,
            ghosts: 1,
            missing: 2,
            negative: 1,
        };
        assert_eq!((off.sum(), &off), (7.0, &expected));
    }

    #[test]
    fn a_sheet_keeps_its_order_and_a_row_for_each_round() {
        let mut sheet = Sheet::default();
        for round in 0..2 {
            sheet.put("b", "ms", AtMost(1.0), f64::from(round));
            sheet.put("a", "", None, (round == 0).then_some(5.0));
        }
        let mut done = Done::default();
        sheet.close(&mut done);
        let names: Vec<&str> = done.figures.iter().map(|figure| &*figure.what).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(done.figures[0].values, [0.0, 1.0]);
        assert!(done.figures[1].values.is_empty(), "a round did not say");
    }
}
