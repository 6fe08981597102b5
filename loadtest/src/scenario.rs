//! The scenarios: from what was asked for to a plan. Values and pure functions.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Chance;
use crate::dialect::{Dialect, Room};
use crate::plan::{Arrives, Plan, Popularity, Surge, Target, Via, Viewer};
use crate::stamp::Stamper;
use crate::voice::Voice;

/// What kind of evening it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Scenario {
    /// Connections that say nothing
    Idle,
    /// One hot room
    Room,
    /// Many rooms, popular as Zipf's law has it
    Rooms,
    /// Everyone comes at once, is cut, and comes back as the server asks
    Storm,
    /// One hot room in which some never read
    Slow,
    /// Lines by HTTP push
    Push,
    /// A prime-time evening: arrivals, a hot room, gifts, leaves
    Mixed,
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Idle => "idle",
            Scenario::Room => "room",
            Scenario::Rooms => "rooms",
            Scenario::Storm => "storm",
            Scenario::Slow => "slow",
            Scenario::Push => "push",
            Scenario::Mixed => "mixed",
        }
    }
}

/// What was asked for. [`Options::of`] gives each scenario's own defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which.
    pub scenario: Scenario,
    /// Clients in all.
    pub viewers: usize,
    /// Rooms; 0 = viewers enter none (`idle`).
    pub rooms: usize,
    /// Exponent of the rooms' popularity; 0 = all alike.
    pub zipf: f64,
    /// Share of the viewers in the first room, beyond its popularity (`mixed`).
    pub hot: f64,
    /// What the names of rooms begin with.
    pub room_prefix: String,
    /// Lines per second, all together.
    pub lines_per_s: f64,
    /// How many times as fast lines come in the run's middle third; 1 = no faster.
    pub surge: f64,
    /// Bytes of text in a line.
    pub text_bytes: usize,
    /// How lines travel.
    pub via: Via,
    /// Viewers that speak; 0 = all.
    pub speakers: usize,
    /// Gifts per second.
    pub gifts_per_s: f64,
    /// HTTP publishers.
    pub pushers: usize,
    /// Rooms one push goes to.
    pub rooms_per_push: usize,
    /// The run's own phase.
    pub duration: Duration,
    /// Arrivals per second; 0 = as fast as admitted.
    pub ramp_per_s: f64,
    /// Connects in flight.
    pub in_flight: usize,
    /// Client threads.
    pub threads: usize,
    /// The clients' own pings; zero = none.
    pub heartbeat: Duration,
    /// Patience with a connect.
    pub connect_timeout: Duration,
    /// Share of the viewers that never read (`slow`).
    pub slow_share: f64,
    /// Viewers that are there before the storm (`storm`).
    pub existing: usize,
    /// How often those of the storm are cut again (`storm`).
    pub cuts: usize,
    /// Mean stay (`mixed`).
    pub stay: Duration,
    /// Makes the run repeatable.
    pub seed: u64,
}

/// Calm before a storm, and after each cut, at least.
const CALM_SHARE: f64 = 0.2;

impl Options {
    /// A scenario's defaults.
    pub fn of(scenario: Scenario) -> Options {
        let base = Options {
            scenario,
            viewers: 10_000,
            rooms: 1,
            zipf: 0.0,
            hot: 0.0,
            room_prefix: "swarm-".into(),
            lines_per_s: 10.0,
            surge: 1.0,
            text_bytes: 128,
            via: Via::WebSocket,
            speakers: 10,
            gifts_per_s: 0.0,
            pushers: 16,
            rooms_per_push: 1,
            duration: Duration::from_secs(30),
            ramp_per_s: 0.0,
            in_flight: 256,
            threads: 1,
            heartbeat: Duration::from_secs(25),
            connect_timeout: Duration::from_secs(10),
            slow_share: 0.0,
            existing: 0,
            cuts: 0,
            stay: Duration::from_secs(60),
            seed: 1,
        };
        match scenario {
            Scenario::Idle => Options {
                rooms: 0,
                lines_per_s: 0.0,
                ..base
            },
            Scenario::Room => base,
            Scenario::Rooms => Options {
                rooms: 1000,
                zipf: 1.0,
                lines_per_s: 1000.0,
                speakers: 0,
                ..base
            },
            Scenario::Storm => Options {
                viewers: 15_000,
                rooms: 21,
                existing: 1000,
                cuts: 1,
                lines_per_s: 40.0,
                speakers: 20,
                ..base
            },
            Scenario::Slow => Options {
                viewers: 500,
                lines_per_s: 200.0,
                // Enough to fill what the kernel holds for a socket, a few MB, within the run.
                text_bytes: 1000,
                slow_share: 0.02,
                ..base
            },
            Scenario::Push => Options {
                viewers: 1000,
                rooms: 10,
                lines_per_s: 500.0,
                via: Via::Http,
                ..base
            },
            Scenario::Mixed => Options {
                rooms: 200,
                zipf: 1.0,
                hot: 0.3,
                lines_per_s: 200.0,
                gifts_per_s: 5.0,
                speakers: 0,
                ..base
            },
        }
    }

    /// What was asked for, in the words of the command line, for reports and for telling two of them apart.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let via = match self.via {
            Via::WebSocket => "ws",
            Via::Http => "http",
        };
        let mut all = vec![
            ("viewers", self.viewers.to_string()),
            ("rooms", self.rooms.to_string()),
            ("rate", self.lines_per_s.to_string()),
            ("text-bytes", self.text_bytes.to_string()),
            ("via", via.to_owned()),
            ("rooms-per-push", self.rooms_per_push.to_string()),
            ("speakers", self.speakers.to_string()),
            ("duration", format!("{:?}", self.duration)),
            ("connect-rate", self.ramp_per_s.to_string()),
            ("in-flight", self.in_flight.to_string()),
            ("threads", self.threads.to_string()),
            ("heartbeat", format!("{:?}", self.heartbeat)),
            ("seed", self.seed.to_string()),
        ];
        match self.scenario {
            Scenario::Rooms => all.push(("zipf", self.zipf.to_string())),
            Scenario::Slow => all.push(("slow-share", self.slow_share.to_string())),
            Scenario::Push => all.push(("publishers", self.pushers.to_string())),
            Scenario::Storm => all.extend([
                ("existing", self.existing.to_string()),
                ("cuts", self.cuts.to_string()),
            ]),
            Scenario::Mixed => all.extend([
                ("zipf", self.zipf.to_string()),
                ("gifts", self.gifts_per_s.to_string()),
                ("stay", format!("{:?}", self.stay)),
            ]),
            Scenario::Idle | Scenario::Room => {}
        }
        if self.surge != 1.0 {
            all.push(("surge", self.surge.to_string()));
        }
        if self.scenario == Scenario::Room && self.gifts_per_s > 0.0 {
            all.push(("gifts", self.gifts_per_s.to_string()));
        }
        let named = all
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        named.collect()
    }

    /// The plan, against a target.
    pub fn plan(&self, target: Target, dialect: Dialect, marker: &str, voice: Voice) -> Plan {
        let mut chance = Chance::new(self.seed);
        let popularity = self.popularity();
        let viewers = self.viewers(&popularity, &mut chance);
        let run_us = self.duration.as_micros() as u64;
        let (cuts_us, parts) = self.course(run_us);
        let can_push = target.api.is_some();
        let rooms = (0..self.rooms.max(1)).map(|at| Room::new(format!("{}{at}", self.room_prefix)));
        Plan {
            targets: vec![target],
            dialect,
            stamper: Stamper::new(marker),
            voice,
            rooms: rooms.collect(),
            enters: self.rooms > 0,
            popularity,
            viewers,
            threads: self.threads.max(1),
            lines_per_s: self.lines_per_s,
            surge: self.surge_of(run_us),
            via: self.via,
            gifts_per_s: if can_push { self.gifts_per_s } else { 0.0 },
            pushers: self.pushers.max(self.threads),
            rooms_per_push: self.rooms_per_push.clamp(1, self.rooms.max(1)),
            run_us: Some(run_us),
            ramp_per_s: self.ramp_per_s,
            in_flight: (self.in_flight / self.threads.max(1)).max(1),
            connect_timeout_us: self.connect_timeout.as_micros() as u64,
            heartbeat_us: self.heartbeat.as_micros() as u64,
            cuts_us,
            stay_us: self.stay.as_micros() as u64,
            parts,
            history_lines: 0,
            keeps_books: true,
            seed: self.seed,
        }
    }

    fn popularity(&self) -> Popularity {
        let rooms = self.rooms.max(1);
        if self.hot <= 0.0 || rooms == 1 {
            return Popularity::zipf(rooms, self.zipf);
        }
        let weight = |rank: usize| (rank as f64).powf(-self.zipf);
        let others: f64 = (2..=rooms).map(weight).sum();
        let hot = others * self.hot / (1.0 - self.hot.min(0.99));
        Popularity::new(std::iter::once(hot).chain((2..=rooms).map(weight)))
    }

    fn viewers(&self, popularity: &Popularity, chance: &mut Chance) -> Vec<Viewer> {
        if self.scenario == Scenario::Storm {
            return self.storm(chance);
        }
        let spread = popularity.spread(self.viewers);
        let rooms = spread
            .iter()
            .enumerate()
            .flat_map(|(room, count)| std::iter::repeat_n(room as u32, *count));
        let mut viewers: Vec<Viewer> = rooms.map(Viewer::of).collect();
        // Viewers of one room come in no order, and not all to one thread.
        for at in (1..viewers.len()).rev() {
            viewers.swap(at, chance.below(at + 1));
        }
        let slow = (self.slow_share * viewers.len() as f64).round() as usize;
        let speakers = if self.speakers == 0 {
            viewers.len()
        } else {
            self.speakers
        };
        let all = viewers.len();
        for (at, viewer) in viewers.iter_mut().enumerate() {
            viewer.speaks = at < speakers;
            viewer.reads = at < all - slow.min(all);
            viewer.speaks &= viewer.reads;
            viewer.moves = self.scenario == Scenario::Mixed;
        }
        viewers
    }

    /// A few in a room that talks, and everyone else at once into the other rooms. In each of those one viewer is there before
    /// and speaks, so that who is cut has something to resume.
    fn storm(&self, chance: &mut Chance) -> Vec<Viewer> {
        let existing = self.existing.min(self.viewers);
        let calm_us = (self.duration.as_micros() as f64 * CALM_SHARE) as u64;
        let others = self.rooms.max(2) - 1;
        // The hot room keeps at least half of those who were there before.
        let hosts = others.min(existing / 2);
        let hot = existing - hosts;
        let viewer = |at: usize| {
            if at < hot {
                Viewer {
                    speaks: self.speakers == 0 || at < self.speakers,
                    ..Viewer::of(0)
                }
            } else if at < existing {
                Viewer {
                    speaks: true,
                    ..Viewer::of(1 + (at - hot) as u32)
                }
            } else {
                Viewer {
                    arrives: Arrives::At(calm_us),
                    cut: true,
                    ..Viewer::of(1 + chance.below(others) as u32)
                }
            }
        };
        (0..self.viewers).map(viewer).collect()
    }

    fn surge_of(&self, run_us: u64) -> Option<Surge> {
        (self.surge != 1.0).then_some(Surge {
            from_us: run_us / 3,
            to_us: 2 * run_us / 3,
            factor: self.surge,
        })
    }

    /// When who is cut, and the named parts of the run.
    fn course(&self, run_us: u64) -> (Vec<u64>, Vec<(String, u64, u64)>) {
        if let Some(Surge { from_us, to_us, .. }) = self.surge_of(run_us) {
            let ends = [
                ("before", 0, from_us),
                ("surge", from_us, to_us),
                ("after", to_us, run_us),
            ];
            let parts = ends.map(|(name, from, to)| (name.to_owned(), from, to));
            return (Vec::new(), parts.into());
        }
        if self.scenario != Scenario::Storm {
            return (Vec::new(), Vec::new());
        }
        let calm_us = (run_us as f64 * CALM_SHARE) as u64;
        let each_us = (run_us - calm_us) / (self.cuts as u64 + 1);
        let mut parts = vec![("before".to_owned(), 0, calm_us)];
        let mut cuts_us = Vec::new();
        for nth in 0..=self.cuts as u64 {
            let begins_us = calm_us + nth * each_us;
            let name = if nth == 0 {
                "storm".into()
            } else {
                format!("cut {nth}")
            };
            if nth > 0 {
                cuts_us.push(begins_us);
            }
            parts.push((name, begins_us, begins_us + each_us));
        }
        (cuts_us, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::upgrade::Upgrade;

    fn plan(change: impl FnOnce(&mut Options), scenario: Scenario) -> Plan {
        let mut options = Options::of(scenario);
        change(&mut options);
        let target = Target {
            address: "127.0.0.1:1".parse().unwrap(),
            upgrade: Upgrade {
                host: "h".into(),
                path: "/ws".into(),
                subprotocol: None,
                origin: None,
            },
            api: None,
            minter: None,
        };
        options.plan(
            target,
            Dialect::Danmaku,
            "~s:",
            Voice::Stamped { bytes: 10 },
        )
    }

    #[test]
    fn every_scenario_has_its_viewers_in_its_rooms() {
        for scenario in [
            Scenario::Idle,
            Scenario::Room,
            Scenario::Rooms,
            Scenario::Storm,
            Scenario::Slow,
            Scenario::Push,
            Scenario::Mixed,
        ] {
            let plan = plan(|options| options.threads = 3, scenario);
            assert_eq!(plan.viewers.len(), Options::of(scenario).viewers);
            assert!(
                plan.viewers
                    .iter()
                    .all(|viewer| (viewer.room as usize) < plan.rooms.len())
            );
            let shares: usize = (0..3).map(|thread| plan.share(thread).count()).sum();
            assert_eq!(shares, plan.viewers.len(), "every viewer is one thread's");
            if plan.lines_per_s > 0.0 {
                assert!(
                    (0..3).any(|thread| plan.speaking_share(thread).is_some()),
                    "{scenario:?}"
                );
            }
        }
    }

    #[test]
    fn viewers_and_speakers_are_spread_over_nodes_evenly() {
        let mut plan = plan(|options| options.speakers = 30, Scenario::Room);
        plan.targets = vec![plan.targets[0].clone(); 3];
        let at = |node: u16, speaking: bool| {
            let numbers = (0..plan.viewers.len() as u32).filter(|at| plan.node(*at) == node);
            let speaks = |at: &u32| !speaking || plan.viewers[*at as usize].speaks;
            numbers.filter(speaks).count()
        };
        for node in 0..3 {
            assert!((3333..=3334).contains(&at(node, false)));
            assert_eq!(at(node, true), 10);
        }
    }

    #[test]
    fn a_surge_is_the_middle_third() {
        let surging = |options: &mut Options| options.surge = 5.0;
        let surge = plan(surging, Scenario::Room);
        let s = 1_000_000;
        let expected = Surge {
            from_us: 10 * s,
            to_us: 20 * s,
            factor: 5.0,
        };
        assert_eq!(surge.surge, Some(expected));
        let parts: Vec<(&str, u64, u64)> = surge
            .parts
            .iter()
            .map(|(name, from, to)| (&**name, *from, *to))
            .collect();
        let thirds = [
            ("before", 0, 10 * s),
            ("surge", 10 * s, 20 * s),
            ("after", 20 * s, 30 * s),
        ];
        assert_eq!(parts, thirds);
        let even = plan(|_| {}, Scenario::Room);
        assert!(even.surge.is_none() && even.parts.is_empty());
    }

    #[test]
    fn a_storm_has_its_calm_and_its_cuts() {
        let plan = plan(
            |options| {
                options.viewers = 100;
                options.existing = 30;
                options.cuts = 2;
                options.duration = Duration::from_secs(50);
            },
            Scenario::Storm,
        );
        assert_eq!(plan.ramping(), 30);
        let coming = plan
            .viewers
            .iter()
            .filter(|viewer| viewer.cut && viewer.room > 0);
        assert_eq!(coming.count(), 70);
        let hosts = plan.viewers[..30].iter().filter(|viewer| viewer.room > 0);
        assert!(hosts.clone().all(|viewer| viewer.speaks && !viewer.cut));
        assert_eq!(hosts.count(), 15);
        let s = 1_000_000;
        let parts: Vec<(&str, u64, u64)> = plan
            .parts
            .iter()
            .map(|(name, from, to)| (&**name, *from, *to))
            .collect();
        let (third, third_end) = (10 * s + 2 * (40 * s / 3), 10 * s + 3 * (40 * s / 3));
        assert_eq!(parts[0], ("before", 0, 10 * s));
        assert_eq!(parts[3], ("cut 2", third, third_end));
        assert_eq!(plan.cuts_us.len(), 2);
    }

    #[test]
    fn the_slow_do_not_speak_and_the_hot_room_is_hot() {
        let slow = plan(|options| options.speakers = 0, Scenario::Slow);
        assert_eq!(
            slow.viewers.iter().filter(|viewer| !viewer.reads).count(),
            10
        );
        assert!(
            slow.viewers
                .iter()
                .all(|viewer| viewer.speaks == viewer.reads)
        );
        let mixed = plan(|_| {}, Scenario::Mixed);
        let hot = mixed
            .viewers
            .iter()
            .filter(|viewer| viewer.room == 0)
            .count();
        assert_eq!(hot, 3000);
    }

    #[test]
    fn only_one_thread_numbers_for_another_server() {
        let mut plan = plan(
            |options| {
                options.threads = 4;
                options.speakers = 0;
            },
            Scenario::Room,
        );
        plan.dialect = Dialect::Templates {
            join: None,
            publish: "{text}".into(),
        };
        let shares: Vec<_> = (0..4).map(|thread| plan.speaking_share(thread)).collect();
        assert_eq!(shares, [Some((0, 1)), None, None, None]);
    }
}
