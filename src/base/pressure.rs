//! How hard-pressed a shard is, and what it gives up for that: levels with hysteresis, and the share of the crowd's lines
//! that is still sent.
//!
//! Plain values on the shard's thread; time and signals are arguments. It decides, and does nothing itself.

/// How often a shard judges itself, milliseconds.
pub const JUDGED_EVERY_MS: u64 = 100;
/// How long the signals must have been low before a level is left, milliseconds.
const HOLD_MS: u64 = 1000;
/// A level is left when the signals are below this part of what enters it, percent.
const LEAVE_PERCENT: u64 = 70;
/// A whole share: every line of the crowd is sent.
pub const WHOLE: u32 = 1000;
/// The least share, in parts of [`WHOLE`]: a hundredth is a line now and then in the hottest room.
const SHARE_MIN: u32 = 10;

/// Sending less helps only a shard that spends more than this part of its time in walks, in thousandths; ...
const WALKS: u64 = 500;
/// ... and one that spends less than this could send more.
const WALKS_LITTLE: u64 = 400;

/// What is given up; a level gives up what those before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Calm,
    /// Online counts.
    Comfort,
    /// A part of the crowd's lines.
    Crowd,
    /// New anonymous viewers.
    Arrivals,
    /// Lines pushed by HTTP.
    Pushes,
    /// Viewers that take nothing.
    Slow,
    /// Guests in no room.
    Idle,
}

impl Level {
    /// All of them, lowest first.
    pub const ALL: [Level; 7] = [
        Level::Calm,
        Level::Comfort,
        Level::Crowd,
        Level::Arrivals,
        Level::Pushes,
        Level::Slow,
        Level::Idle,
    ];

    /// Its name, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Calm => "calm",
            Level::Comfort => "comfort",
            Level::Crowd => "crowd",
            Level::Arrivals => "arrivals",
            Level::Pushes => "pushes",
            Level::Slow => "slow",
            Level::Idle => "idle",
        }
    }

    /// The level with this number; the highest for any beyond.
    pub fn of(number: u32) -> Level {
        let at = (number as usize).min(Level::ALL.len() - 1);
        Level::ALL[at]
    }

    fn below(self) -> Level {
        Level::of((self as u32).saturating_sub(1))
    }
}

/// What a shard sees of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// How late it is, milliseconds: its longest turn, or the oldest line a walk still carries round.
    pub lag_ms: u64,
    /// Its time spent in walks since the last judgement, in thousandths.
    pub walking: u64,
    /// Memory of the process, in thousandths of what it may have.
    pub memory: u64,
    /// Sockets, in thousandths of what the shard may hold.
    pub sockets: u64,
    /// Bytes that wait for viewers one by one, in thousandths of what is reasonable.
    pub outboxes: u64,
}

/// From which value on each signal asks for a level.
const MEMORY: [(u64, Level); 4] = [
    (800, Level::Arrivals),
    (850, Level::Pushes),
    (900, Level::Slow),
    (950, Level::Idle),
];
const SOCKETS: [(u64, Level); 1] = [(1000, Level::Idle)];
const OUTBOXES: [(u64, Level); 2] = [(500, Level::Comfort), (1000, Level::Slow)];

impl Signals {
    /// The level they ask for, where lines are late from `late_ms` on. With `percent` below 100 each threshold counts as so
    /// much lower.
    fn level(&self, late_ms: u64, percent: u64) -> Level {
        let lag = [
            (late_ms * 2 / 5, Level::Comfort),
            (late_ms, Level::Crowd),
            (late_ms * 4, Level::Arrivals),
            (late_ms * 8, Level::Pushes),
        ];
        let asked = |signal: u64, steps: &[(u64, Level)]| {
            let reached = steps
                .iter()
                .rev()
                .find(|(from, _)| signal * 100 > from * percent);
            reached.map_or(Level::Calm, |(_, level)| *level)
        };
        // Full is reached, not passed.
        let at_least = |signal: u64, steps: &[(u64, Level)]| asked(signal + 1, steps);
        asked(self.lag_ms, &lag)
            .max(at_least(self.memory, &MEMORY))
            .max(at_least(self.sockets, &SOCKETS))
            .max(at_least(self.outboxes, &OUTBOXES))
    }
}

/// A shard's own judgement.
#[derive(Debug)]
pub struct Pressure {
    level: Level,
    /// Since when the signals have been low enough to leave the level, monotonic ms.
    low_since_ms: Option<u64>,
    share: u32,
}

impl Default for Pressure {
    fn default() -> Pressure {
        Pressure {
            level: Level::Calm,
            low_since_ms: None,
            share: WHOLE,
        }
    }
}

impl Pressure {
    /// The level now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The part of the crowd's lines that is sent, of [`WHOLE`].
    pub fn share(&self) -> u32 {
        self.share
    }

    /// Judges, every [`JUDGED_EVERY_MS`]. A higher level is entered at once; a lower one step by step, each after the signals
    /// have been low for a second. The share falls by a fifth each time lines are late, and comes back by a tenth each
    /// time they are not: so it settles where the shard is just busy.
    pub fn judge(&mut self, signals: &Signals, late_ms: u64, now_ms: u64) {
        let asked = signals.level(late_ms, 100);
        if asked >= self.level {
            self.level = asked;
            self.low_since_ms = None;
        } else if signals.level(late_ms, LEAVE_PERCENT) >= self.level {
            self.low_since_ms = None;
        } else {
            let since_ms = *self.low_since_ms.get_or_insert(now_ms);
            if now_ms >= since_ms + HOLD_MS {
                self.level = self.level.below();
                self.low_since_ms = Some(now_ms);
            }
        }
        self.adjust(signals, late_ms);
    }

    fn adjust(&mut self, signals: &Signals, late_ms: u64) {
        let lag_ms = signals.lag_ms;
        if self.level < Level::Crowd {
            self.share = WHOLE;
        } else if lag_ms > late_ms && signals.walking > WALKS {
            self.share = (self.share - self.share / 5).max(SHARE_MIN);
        } else if lag_ms * 100 < late_ms * LEAVE_PERCENT || signals.walking < WALKS_LITTLE {
            self.share = (self.share + self.share / 10 + 1).min(WHOLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LATE_MS: u64 = 250;

    fn lag(lag_ms: u64) -> Signals {
        Signals {
            lag_ms,
            walking: 900,
            ..Signals::default()
        }
    }

    #[test]
    fn each_signal_asks_for_its_levels() {
        let full = |signals: Signals| signals.level(LATE_MS, 100);
        let lags = [99, 101, 251, 1001, 2001].map(|ms| full(lag(ms)));
        assert_eq!(lags, Level::ALL[..5]);
        let memory = |memory| {
            full(Signals {
                memory,
                ..Signals::default()
            })
        };
        let levels = [799, 800, 850, 900, 2000].map(memory);
        let expected = [
            Level::Calm,
            Level::Arrivals,
            Level::Pushes,
            Level::Slow,
            Level::Idle,
        ];
        assert_eq!(levels, expected);
        let sockets = Signals {
            sockets: 1000,
            ..Signals::default()
        };
        assert_eq!(full(sockets), Level::Idle);
        let outboxes = Signals {
            outboxes: 500,
            ..Signals::default()
        };
        assert_eq!(full(outboxes), Level::Comfort);
    }

    #[test]
    fn up_at_once_and_down_step_by_step() {
        let mut pressure = Pressure::default();
        pressure.judge(&lag(3000), LATE_MS, 0);
        assert_eq!(pressure.level(), Level::Pushes);
        let mut left = Vec::new();
        for now_ms in (100..=8000).step_by(100) {
            let before = pressure.level();
            pressure.judge(&lag(0), LATE_MS, now_ms);
            if pressure.level() != before {
                left.push((now_ms, pressure.level()));
            }
        }
        let expected = [
            (1100, Level::Arrivals),
            (2100, Level::Crowd),
            (3100, Level::Comfort),
            (4100, Level::Calm),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn a_signal_between_the_thresholds_holds_the_level() {
        let mut pressure = Pressure::default();
        pressure.judge(&lag(300), LATE_MS, 0);
        for now_ms in (100..10_000).step_by(100) {
            pressure.judge(&lag(200), LATE_MS, now_ms);
        }
        assert_eq!(pressure.level(), Level::Crowd);
    }

    #[test]
    fn the_share_falls_while_late_and_comes_back() {
        let mut pressure = Pressure::default();
        for nth in 0..10 {
            pressure.judge(&lag(400), LATE_MS, nth * 100);
        }
        assert!(
            (80..200).contains(&pressure.share()),
            "{}",
            pressure.share()
        );
        let low = pressure.share();
        pressure.judge(&lag(200), LATE_MS, 1000);
        assert_eq!(pressure.share(), low, "between the two it stays");
        for nth in 0..100 {
            pressure.judge(&lag(400), LATE_MS, 1100 + nth * 100);
        }
        assert_eq!(pressure.share(), SHARE_MIN);
        for nth in 0..40 {
            pressure.judge(&lag(10), LATE_MS, 12_000 + nth * 100);
        }
        assert_eq!((pressure.level(), pressure.share()), (Level::Calm, WHOLE));
    }

    #[test]
    fn what_sending_less_does_not_help_is_not_tried() {
        let mut pressure = Pressure::default();
        for nth in 0..50 {
            let signals = Signals {
                walking: 300,
                ..lag(900)
            };
            pressure.judge(&signals, LATE_MS, nth * 100);
        }
        assert_eq!((pressure.level(), pressure.share()), (Level::Crowd, WHOLE));
    }

    proptest! {
        #[test]
        fn it_never_flaps_and_always_calms_down(lags in prop::collection::vec(0u64..3000, 1..200)) {
            let mut pressure = Pressure::default();
            let (mut now_ms, mut fell_ms) = (0, None::<u64>);
            for lag_ms in lags {
                let before = pressure.level();
                pressure.judge(&lag(lag_ms), LATE_MS, now_ms);
                prop_assert!(pressure.level() >= lag(lag_ms).level(LATE_MS, 100));
                prop_assert!((SHARE_MIN..=WHOLE).contains(&pressure.share()));
                if pressure.level() < before {
                    prop_assert!(fell_ms.is_none_or(|fell_ms| now_ms - fell_ms >= HOLD_MS));
                    prop_assert_eq!(before.below(), pressure.level());
                    fell_ms = Some(now_ms);
                }
                now_ms += JUDGED_EVERY_MS;
            }
            for _ in 0..70 {
                pressure.judge(&lag(0), LATE_MS, now_ms);
                now_ms += JUDGED_EVERY_MS;
            }
            prop_assert_eq!((pressure.level(), pressure.share()), (Level::Calm, WHOLE));
        }
    }
}
