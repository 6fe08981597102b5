//! The table: each case's runs, the figures asked of them, and the bounds. Values; nothing here runs anything.

use std::collections::BTreeMap;

use danmaku_swarm::report::Report;

use crate::course::*;
use crate::drive::{Cores, Drive, Server, Setup};
use crate::peak::Ladder;
use crate::results::Bound::{AtLeast, AtMost};
use crate::results::Done;
use crate::{dashboard, hurt, nodes};

/// How large everything is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Small and short.
    pub quick: bool,
    /// 200k for ten minutes.
    pub long: bool,
    /// Another number of rounds than usual.
    pub rounds: Option<usize>,
}

impl Size {
    pub fn rounds(self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    pub fn seconds(self, full: u64) -> u64 {
        if self.quick { 2 } else { full }
    }

    pub fn many(self, full: usize) -> usize {
        if self.quick { full.div_ceil(50) } else { full }
    }
}

/// One case.
pub struct Case {
    pub name: &'static str,
    pub work: &'static str,
    pub kind: Kind,
}

/// How a case is measured.
pub enum Kind {
    /// Rounds of runs, medians of what they say.
    Rounds(fn(Size) -> Course),
    /// The highest rate without loss, and what is beyond it.
    Peak(fn(Size) -> Ladder),
    /// Rounds at a multiple of that ladder's peak.
    Overload(fn(Size) -> Ladder),
    /// Several nodes, each case a course of its own.
    Nodes(OnNodes),
    /// The same, but so long that it is run only when it is named.
    Named(OnNodes),
    /// Micro-benches by these names.
    Micro(&'static [&'static str]),
}

type OnNodes = fn(Size, &Drive, &mut Done) -> Result<(), String>;

/// Every case, in the order in which they are run and shown.
pub const TABLE: &[Case] = &[
    Case {
        name: "idle",
        work: "15,000 connections that say nothing",
        kind: Kind::Rounds(idle),
    },
    Case {
        name: "room",
        work: "one room of 10,000, 100,000 deliveries/s, against the bare send loop",
        kind: Kind::Rounds(room),
    },
    Case {
        name: "peak",
        work: "one room of 10,000, as many deliveries as can be had without loss, against the bare walk",
        kind: Kind::Peak(room_peak),
    },
    Case {
        name: "rooms",
        work: "1,000 rooms of ten, as many deliveries as can be had with a twentieth told as left out at most; lines are pushed to a hundred rooms at a time",
        kind: Kind::Peak(rooms_peak),
    },
    Case {
        name: "overload",
        work: "one room of 10,000, five times its peak offered for ten seconds",
        kind: Kind::Overload(room_peak),
    },
    Case {
        name: "lively",
        work: "one room of 1,000, 1,000 lines/s",
        kind: Kind::Rounds(lively),
    },
    Case {
        name: "shards",
        work: "one room of 10,000, 50,000 deliveries/s, by one shard and by two",
        kind: Kind::Rounds(shards),
    },
    Case {
        name: "storm",
        work: "15,000 come at once with HS256 tokens into 20 rooms, alone and beside a room of 980 that talks",
        kind: Kind::Rounds(storm),
    },
    Case {
        name: "slow",
        work: "one room of 15,000, 200 lines/s for a minute; 150 of them never read",
        kind: Kind::Rounds(slow),
    },
    Case {
        name: "200k",
        work: "200,000 connections in one process, held through heartbeats",
        kind: Kind::Rounds(two_hundred_thousand),
    },
    Case {
        name: "nodes",
        work: "three nodes and a Redis: one room of 3 x 5,000, 200 lines/s from all nodes",
        kind: Kind::Nodes(nodes::one_room),
    },
    Case {
        name: "churn",
        work: "three nodes and a Redis: 1,000 joins/s and as many leaves for a minute; who is there is counted",
        kind: Kind::Nodes(nodes::churn),
    },
    Case {
        name: "dashboard",
        work: "three nodes and a Redis: viewers come, and a moderator is shown that they did",
        kind: Kind::Nodes(dashboard::dashboard),
    },
    Case {
        name: "deaths",
        work: "three nodes and a Redis: one of them is killed twenty times (five minutes; only when named)",
        kind: Kind::Named(hurt::deaths),
    },
    Case {
        name: "absence",
        work: "three nodes and a Redis: Redis stands still for a minute, ten times (sixteen minutes; only when named)",
        kind: Kind::Named(hurt::absence),
    },
    Case {
        name: "micro",
        work: "what a frame, a seal and a visit cost, in nanoseconds and instructions",
        kind: Kind::Micro(&["codec", "fanout"]),
    },
];

/// A gateway of one shard, pinned.
fn gateway(words: String, run_s: u64) -> Setup {
    Setup {
        name: "gateway",
        server: Server::Gateway,
        cores: Cores::apart(),
        words: words + " --shards 1",
        run_s,
        offered_per_s: None,
    }
}

// The cases.

fn idle(size: Size) -> Course {
    let words = format!("idle --viewers {}", size.many(15_000));
    Course {
        rounds: size.rounds(),
        setups: vec![gateway(words, size.seconds(10))],
        readings: vec![
            says(
                "gateway",
                "resident for each connection",
                "B",
                AtMost(450.0),
                memory_each,
            ),
            says(
                "gateway",
                "CPU for each connection made",
                "us",
                None,
                connect_us,
            ),
            all_held("gateway"),
        ],
        note: None,
    }
}

fn room(size: Size) -> Course {
    let viewers = size.many(10_000);
    let words = format!("room --viewers {viewers} --rate 10");
    let offered_per_s = Some(viewers as f64 * 10.0);
    let run_s = size.seconds(10);
    let bare = Setup {
        name: "bare send",
        server: Server::BareSend,
        cores: Cores::apart(),
        words: words.clone(),
        run_s,
        offered_per_s,
    };
    let gateway = Setup {
        offered_per_s,
        ..gateway(words, run_s)
    };
    let pair = ["gateway", "bare send"];
    Course {
        rounds: size.rounds(),
        setups: vec![gateway, bare],
        readings: vec![
            ratio(
                pair,
                "CPU for each delivery, times the bare loop's",
                AtMost(1.05),
                cpu_us,
            ),
            ratio(pair, "p99, times the bare loop's", AtMost(1.05), p99_ms),
            says("gateway", "CPU for each delivery", "us", None, cpu_us),
            says(
                "bare send",
                "CPU for each delivery, bare send",
                "us",
                None,
                cpu_us,
            ),
            says("gateway", "p99", "ms", None, p99_ms),
            says("bare send", "p99, bare send", "ms", None, p99_ms),
            all_held("gateway"),
        ],
        note: None,
    }
}

fn room_peak(size: Size) -> Ladder {
    let viewers = size.many(10_000);
    Ladder {
        words: format!("room --viewers {viewers}"),
        members: viewers as f64,
        start_per_s: if size.quick { 10_000.0 } else { 1_000_000.0 },
        at_least_per_s: 4_500_000.0,
        beyond_at_least: None,
        ..Ladder::of(size)
    }
}

fn rooms_peak(size: Size) -> Ladder {
    let rooms = size.many(1000);
    // A hundred rooms to a push: what is to be measured is the way out, and a swarm that speaks each line by itself is used up
    // before the gateway is.
    Ladder {
        servers: &[Server::Gateway],
        words: format!(
            "push --viewers {} --rooms {rooms} --rooms-per-push {} --publishers 256",
            10 * rooms,
            rooms.min(100)
        ),
        members: 10.0,
        start_per_s: if size.quick { 10_000.0 } else { 250_000.0 },
        // A round of the walk over 10,000 sockets in 1,000 rooms takes a tenth of a second whatever the rate: from early on the core
        // is used up, and the peak is where more than a twentieth of the lines comes too late to be sent, not where p99 crosses
        // what one room is held to.
        p99_ms_max: 1000.0,
        told_share_max: 0.05,
        at_least_per_s: 2_200_000.0,
        beyond_at_least: Some(0.9),
        ..Ladder::of(size)
    }
}

/// Before and after the surge the room is at a fifth of its peak.
const CALM_SHARE: f64 = 0.2;
const SURGE: f64 = 5.0;
/// Above this a second is not a normal one, ms.
const NORMAL_P99_MS: f64 = 250.0;

/// The room's peak five times over, in the middle of a run.
pub fn overload(size: Size, peak_per_s: f64) -> Course {
    let viewers = size.many(10_000);
    let rate = CALM_SHARE * peak_per_s / viewers as f64;
    let words = format!(
        "room --viewers {viewers} --rate {rate:.2} --surge {} --gifts 10 --speakers 50",
        SURGE / CALM_SHARE
    );
    let setup = Setup {
        offered_per_s: Some(SURGE * peak_per_s),
        ..gateway(words, size.seconds(10) * 3)
    };
    let delivered = move |report: &Report| Some(surge_per_s(report)? / peak_per_s);
    let events = |report: &Report| {
        let metrics = report.metrics.as_ref()?;
        let total = |page: &BTreeMap<String, f64>| page.get("danmaku_events_total").copied();
        let accepted = total(&metrics.after)? - total(&metrics.before).unwrap_or(0.0);
        Some(report.deliveries.events as f64 / (accepted * report.connections.peak as f64))
    };
    let answers = |report: &Report| {
        let lines = &report.published;
        Some((lines.unanswered + lines.unsent) as f64)
    };
    let closed = |report: &Report| Some(report.connections.closed.values().sum::<u64>() as f64);
    let wrong = |report: &Report| {
        let found = &report.deliveries;
        Some((found.lost + found.duplicated + found.out_of_order + found.corrupted) as f64)
    };
    Course {
        rounds: size.rounds(),
        setups: vec![setup],
        readings: vec![
            says(
                "gateway",
                "delivered in the surge, times the peak",
                "x",
                AtLeast(0.9),
                delivered,
            ),
            says(
                "gateway",
                "events received, of those accepted for every member",
                "x",
                AtLeast(1.0),
                events,
            ),
            says(
                "gateway",
                "lines that got no answer",
                "",
                AtMost(0.0),
                answers,
            ),
            says("gateway", "connections closed", "", AtMost(0.0), closed),
            says(
                "gateway",
                "lines lost untold, doubled, out of order or wrong",
                "",
                AtMost(0.0),
                wrong,
            ),
            says(
                "gateway",
                "resident growth from before the surge",
                "MiB",
                AtMost(16.0),
                surge_growth_mib,
            ),
            says(
                "gateway",
                "last second above 250 ms begins after the surge by",
                "s",
                AtMost(2.0),
                restless_s,
            ),
            says("gateway", "p99 in the surge", "ms", None, |report| {
                Some(part(report, "surge")?.latency.p99_us as f64 / 1000.0)
            }),
        ],
        note: None,
    }
}

/// Deliveries per second in the surge, of the seconds that lie wholly in it.
fn surge_per_s(report: &Report) -> Option<f64> {
    let surge = part(report, "surge")?;
    let (mut deliveries, mut span_s) = (0, 0.0);
    for pair in report.timeline.windows(2) {
        let (begins_s, ends_s) = (pair[0].at_s, pair[1].at_s);
        if begins_s >= surge.begins_s && ends_s <= surge.ends_s {
            deliveries += pair[1].deliveries;
            span_s += ends_s - begins_s;
        }
    }
    (span_s > 0.0).then(|| deliveries as f64 / span_s)
}

/// The most resident in any second after the first part, above that part's own last second.
fn surge_growth_mib(report: &Report) -> Option<f64> {
    let calm_ends_s = part(report, "before")?.ends_s;
    let (before, after): (Vec<_>, Vec<_>) = report
        .timeline
        .iter()
        .partition(|second| second.at_s <= calm_ends_s);
    let calm = before.last()?.server_rss as f64;
    let most = after.iter().map(|second| second.server_rss).max()? as f64;
    Some((most - calm) / f64::from(1 << 20))
}

/// How long after the surge the last second began in which viewers waited or got nothing. The timeline is by the second, and
/// a second's latencies may be those of the one before: so its begin, not its end.
fn restless_s(report: &Report) -> Option<f64> {
    let (ends_s, over_s) = (part(report, "surge")?.ends_s, part(report, "after")?.ends_s);
    let mut begins_s = 0.0;
    let mut last = 0.0;
    for second in &report.timeline {
        let within = second.at_s > ends_s && second.at_s <= over_s;
        let is_normal = second.deliveries > 0 && second.p99_us as f64 <= NORMAL_P99_MS * 1000.0;
        if within && !is_normal {
            last = f64::max(begins_s - ends_s, 0.0);
        }
        begins_s = second.at_s;
    }
    Some(last)
}

fn lively(size: Size) -> Course {
    let viewers = size.many(1000);
    let setup = Setup {
        offered_per_s: Some(viewers as f64 * 1000.0),
        ..gateway(
            format!("room --viewers {viewers} --rate 1000"),
            size.seconds(10),
        )
    };
    Course {
        rounds: size.rounds(),
        setups: vec![setup],
        readings: vec![
            says("gateway", "p99", "ms", AtMost(20.0), p99_ms),
            says(
                "gateway",
                "deliveries that did not arrive",
                "",
                AtMost(0.0),
                not_delivered,
            ),
            says("gateway", "p50", "ms", None, p50_ms),
            says("gateway", "CPU for each delivery", "us", None, cpu_us),
            all_held("gateway"),
        ],
        note: None,
    }
}

const ONE: &str = "1 shard";
const ONE_SHARING: &str = "1 shard, all on both cores";
const TWO: &str = "2 shards, all on both cores";

/// Two shards want two cores, and the swarm one more. Where there are only two it sits among them: so one shard is measured
/// both ways.
fn shards(size: Size) -> Course {
    let viewers = size.many(10_000);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let together = Cores {
        server: vec![0, 1],
        swarm: if cores > 2 { vec![2] } else { vec![0, 1] },
    };
    let setup = |name, shards: u32, cores: Cores| Setup {
        name,
        server: Server::Gateway,
        cores,
        words: format!("room --viewers {viewers} --rate 5 --shards {shards} --threads 1"),
        run_s: size.seconds(10),
        offered_per_s: Some(viewers as f64 * 5.0),
    };
    let setups = vec![
        setup(ONE, 1, Cores::apart()),
        setup(ONE_SHARING, 1, together.clone()),
        setup(TWO, 2, together),
    ];
    let mut readings = Vec::new();
    for setup in [ONE, ONE_SHARING, TWO] {
        let mut shown = |what: &str, unit, read: fn(&Report) -> Option<f64>| {
            readings.push(says(setup, &format!("{what}, {setup}"), unit, None, read));
        };
        shown("CPU for each delivery", "us", cpu_us);
        shown("p50", "ms", p50_ms);
        shown("p99", "ms", p99_ms);
    }
    readings.push(ratio(
        [TWO, ONE_SHARING],
        "CPU for each delivery, 2 shards to 1 on the same cores",
        None,
        cpu_us,
    ));
    readings.push(all_held(TWO));
    Course {
        rounds: size.rounds(),
        setups,
        readings,
        note: Some(what_limits_the_second),
    }
}

fn what_limits_the_second(round: &Round) -> String {
    let Some(two) = round.get(TWO) else {
        return String::new();
    };
    let run_s = two
        .timeline
        .iter()
        .filter(|second| second.phase == "run")
        .count()
        .max(1) as f64;
    let server = server(two).map_or(0.0, |usage| usage.cpu_run_s) / run_s;
    let swarm = two.swarm.cpu_run_s / run_s;
    let all = f64::from(two.machine.cores.max(2));
    let verdict = if server + swarm >= 0.93 * all {
        "every core is used up: the second shard has none of its own, it shares with the swarm"
    } else {
        "no core is used up: at this rate one shard suffices, and what the second costs more is its share of wake-ups and colder caches"
    };
    format!(
        "With two shards the server uses {server:.2} and the swarm {swarm:.2} of {all} cores; {verdict}."
    )
}

fn storm(size: Size) -> Course {
    let (existing, coming) = (size.many(1000), size.many(15_000));
    let storm = |name, existing: usize| {
        // Nearly all who speak are in the room of those who were there before: the others' lines would be counted as the
        // cost of their arrival.
        let words = format!(
            "storm --viewers {} --existing {existing} --speakers {} --rate 20 --cuts 0",
            existing + coming,
            existing.max(1),
        );
        Setup {
            name,
            ..gateway(words, size.seconds(5) * 2)
        }
    };
    let idle = |name, words: &str| Setup {
        name,
        ..gateway(format!("idle --viewers {coming} {words}"), size.seconds(5))
    };
    let (alone, beside) = ("alone", "beside a room");
    let (bare, token) = ("bare, no token, no room", "a token, no room");
    let arrival_us = |report: &Report| {
        let (calm, storm) = (part(report, "before")?, part(report, "storm")?);
        let calm_s = calm.server_cpu_s / length_s(calm) * length_s(storm);
        Some((storm.server_cpu_s - calm_s) / storm.connects as f64 * 1e6)
    };
    let p99_of = |name: &str, report: &Report| {
        let latency = &part(report, name)?.latency;
        (latency.count > 0).then_some(latency.p99_us as f64 / 1000.0)
    };
    Course {
        rounds: size.rounds(),
        setups: vec![
            storm(alone, 0),
            storm(beside, existing),
            idle(token, "--tokens"),
            Setup {
                server: Server::BareWalk,
                words: format!("idle --viewers {coming}"),
                ..idle(bare, "")
            },
        ],
        readings: vec![
            says(
                alone,
                "CPU for each connection: upgrade, token, room, its count told, heartbeats",
                "us",
                AtMost(24.0),
                arrival_us,
            ),
            says(
                token,
                "of it the upgrade with its token",
                "us",
                None,
                connect_us,
            ),
            says(
                bare,
                "the bare loop's upgrade, without a token",
                "us",
                None,
                connect_us,
            ),
            says(
                beside,
                "p99 of the room in the storm, times before",
                "x",
                AtMost(2.0),
                move |report| Some(p99_of("storm", report)? / p99_of("before", report)?),
            ),
            says(
                beside,
                "p99 of the room before",
                "ms",
                None,
                move |report| p99_of("before", report),
            ),
            says(
                beside,
                "p99 of the room in the storm",
                "ms",
                None,
                move |report| p99_of("storm", report),
            ),
            says(
                beside,
                "CPU for each connection beside a room, above calm",
                "us",
                None,
                arrival_us,
            ),
            all_held(beside),
        ],
        note: None,
    }
}

fn slow(size: Size) -> Course {
    let viewers = size.many(15_000);
    let setup = |name, share: f64| {
        let words =
            format!("slow --viewers {viewers} --slow-share {share} --rate 200 --text-bytes 128");
        Setup {
            name,
            offered_per_s: Some(viewers as f64 * 200.0),
            ..gateway(words, size.seconds(60))
        }
    };
    let (some, none) = ("some never read", "all read");
    Course {
        rounds: size.rounds(),
        setups: vec![setup(some, 0.01), setup(none, 0.0)],
        readings: vec![
            ratio(
                [some, none],
                "p99 of the others, times a room where all read",
                AtMost(1.2),
                p99_ms,
            ),
            says(some, "resident growth", "MiB", AtMost(16.0), growth_mib),
            says(some, "lines lost untold", "", AtMost(0.0), |report| {
                Some(report.deliveries.lost as f64)
            }),
            says(some, "p99 of the others", "ms", None, p99_ms),
            says(none, "p99 where all read", "ms", None, p99_ms),
            all_held(some),
        ],
        note: None,
    }
}

fn two_hundred_thousand(size: Size) -> Course {
    let viewers = size.many(200_000);
    let run_s = if size.long { 600 } else { size.seconds(60) };
    let setup = Setup {
        words: format!("idle --viewers {viewers} --shards 12"),
        ..gateway(String::new(), run_s)
    };
    let each_us = move |report: &Report| {
        let cpu_s = server(report)?.cpu_run_s;
        Some(cpu_s / run_s as f64 / report.connections.at_end as f64 * 1e6)
    };
    Course {
        rounds: 1,
        setups: vec![setup],
        readings: vec![
            says(
                "gateway",
                "CPU for each connection and second",
                "us",
                AtMost(1.0),
                each_us,
            ),
            says(
                "gateway",
                "connections held to the end",
                "",
                AtLeast(viewers as f64),
                |report| Some(report.connections.at_end as f64),
            ),
            says(
                "gateway",
                "resident for each connection",
                "B",
                None,
                memory_each,
            ),
            all_held("gateway"),
        ],
        note: None,
    }
}

#[cfg(test)]
mod tests {
    use danmaku_swarm::report::{Latency, Part, Second};

    use super::*;

    fn surge() -> Report {
        let parts = [
            ("before", 0.0, 10.0),
            ("surge", 10.0, 20.0),
            ("after", 20.0, 30.0),
        ];
        let part = |(name, begins_s, ends_s): (&str, f64, f64)| Part {
            name: name.into(),
            begins_s,
            ends_s,
            ..Part::default()
        };
        let second = |at: u32| Second {
            at_s: f64::from(at) + 0.5,
            deliveries: 1,
            p99_us: if (10..22).contains(&at) {
                400_000
            } else {
                100_000
            },
            server_rss: if at < 10 { 10 << 20 } else { 13 << 20 },
            ..Second::default()
        };
        Report {
            parts: parts.map(part).into(),
            timeline: (0..30).map(second).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn a_surge_is_over_when_its_last_bad_second_began() {
        let mut report = surge();
        assert_eq!(restless_s(&report), Some(0.5));
        report.timeline[25].deliveries = 0;
        assert_eq!(
            restless_s(&report),
            Some(4.5),
            "a silent second is not a normal one"
        );
        assert_eq!(surge_growth_mib(&report), Some(3.0));
        assert_eq!(surge_per_s(&report), Some(1.0));
        assert_eq!(restless_s(&Report::default()), None);
    }

    #[test]
    fn a_ratio_is_within_a_round() {
        let of = |p99_us| Report {
            latency: Latency {
                count: 1,
                p99_us,
                ..Latency::default()
            },
            ..Report::default()
        };
        let reading = ratio(["a", "b"], "", None, p99_ms);
        let mut round = Round::from([("a", of(3000)), ("b", of(2000))]);
        assert_eq!((reading.of)(&round), Some(1.5));
        round.remove("b");
        assert_eq!((reading.of)(&round), None);
    }

    #[test]
    fn every_case_has_a_name_of_its_own_and_a_bound_or_says_why_not() {
        for (at, case) in TABLE.iter().enumerate() {
            assert!(TABLE[..at].iter().all(|other| other.name != case.name));
            if let Kind::Rounds(course) = case.kind {
                for size in [
                    Size::default(),
                    Size {
                        quick: true,
                        ..Size::default()
                    },
                ] {
                    let course = course(size);
                    assert!(
                        course
                            .readings
                            .iter()
                            .any(|reading| reading.bound.is_some()),
                        "{}",
                        case.name
                    );
                    assert!(course.setups.iter().all(|setup| setup.run_s > 0));
                }
            }
        }
    }
}
