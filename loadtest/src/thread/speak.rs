//! Lines when their time has come, by the clock and never by what the server can take (an open loop): a server that is late
//! does not make the next line later. Part of a client thread's turn.

use std::collections::HashMap;

use super::{Phase, Stage, Thread};
use crate::dialect::Speech;
use crate::plan::{Plan, Surge, Via};
use crate::stamp::Stamp;

/// Lines sent in one turn.
const LINES_PER_TURN: usize = 256;
/// A speaker with more than this waiting for its socket is passed over, bytes.
const SPEAKER_OUT_BYTES_MAX: usize = 64 << 10;
/// Ids of one thread's lines begin with its index in these upper bits.
const THREAD_SHIFT: u32 = 40;

/// A line on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// The client that sent it.
    pub client: u32,
    /// The room's index.
    pub room: u32,
}

/// When lines and gifts are due.
#[derive(Debug)]
pub(super) struct Schedules {
    lines: Option<Schedule>,
    pub(super) gifts: Option<Schedule>,
    pub(super) via: Via,
    /// Whose turn it is.
    next_speaker: usize,
    /// The last id given.
    last_line: u64,
    /// The last number given in each room, where the publisher numbers.
    numbers: HashMap<u32, u64>,
    /// Lines said at each due time.
    at_once: u64,
}

/// One thread's part of an even stream.
#[derive(Debug)]
pub(super) struct Schedule {
    interval_us: f64,
    surge: Option<Surge>,
    index: u64,
    of: u64,
    begins_us: u64,
    ends_us: u64,
    /// How many were sent.
    sent: u64,
}

impl Schedule {
    fn new(per_s: f64, (index, of): (u64, u64)) -> Option<Schedule> {
        (per_s > 0.0).then(|| Schedule {
            interval_us: 1e6 / per_s,
            surge: None,
            index,
            of,
            begins_us: u64::MAX,
            ends_us: u64::MAX,
            sent: 0,
        })
    }

    /// When the next one is due; `u64::MAX` before the run and after it.
    pub(super) fn due_us(&self) -> u64 {
        if self.begins_us == u64::MAX {
            return u64::MAX;
        }
        let due_us = self.begins_us + self.after_us(self.sent * self.of + self.index);
        if due_us < self.ends_us {
            due_us
        } else {
            u64::MAX
        }
    }

    pub(super) fn advance(&mut self) {
        self.sent += 1;
    }

    /// When the nth of all threads' is due, microseconds after the begin.
    fn after_us(&self, nth: u64) -> u64 {
        let even_us = nth as f64 * self.interval_us;
        let Some(surge) = self.surge else {
            return even_us as u64;
        };
        // As if the surge took its factor longer, and then its clock ran so much faster.
        let (from_us, to_us) = (surge.from_us as f64, surge.to_us as f64);
        let surges_us = (even_us - from_us).clamp(0.0, (to_us - from_us) * surge.factor);
        (even_us - surges_us + surges_us / surge.factor) as u64
    }

    /// How many were due until the end.
    fn scheduled(&self) -> u64 {
        if self.begins_us == u64::MAX || self.ends_us <= self.begins_us {
            return 0;
        }
        let span_us = self.ends_us - self.begins_us;
        let extra_us = self.surge.map_or(0.0, |surge| {
            let surged_us = span_us.clamp(surge.from_us, surge.to_us) - surge.from_us;
            surged_us as f64 * (surge.factor - 1.0)
        });
        let mut all = ((span_us as f64 + extra_us) / self.interval_us).ceil() as u64;
        // To the line, although fractions are rounded here and there.
        while all > 0 && self.after_us(all - 1) >= span_us {
            all -= 1;
        }
        while self.after_us(all) < span_us {
            all += 1;
        }
        all.saturating_sub(self.index).div_ceil(self.of)
    }
}

impl Schedules {
    pub(super) fn new(plan: &Plan, thread: usize) -> Schedules {
        let share = plan.speaking_share(thread);
        let at_once = match plan.via {
            Via::Http => plan.rooms_per_push,
            Via::WebSocket => 1,
        };
        let per_s = plan.lines_per_s / at_once as f64;
        let lines = share.and_then(|share| Schedule::new(per_s, share));
        let lines = lines.map(|lines| Schedule {
            surge: plan.surge,
            ..lines
        });
        let gifts = Schedule::new(plan.gifts_per_s, (thread as u64, plan.threads as u64));
        Schedules {
            lines,
            gifts,
            via: plan.via,
            next_speaker: 0,
            last_line: (thread as u64) << THREAD_SHIFT,
            numbers: HashMap::new(),
            at_once: at_once as u64,
        }
    }

    fn both(&mut self) -> impl Iterator<Item = &mut Schedule> {
        self.lines.iter_mut().chain(self.gifts.iter_mut())
    }

    pub(super) fn begin(&mut self, begins_us: u64, ends_us: u64) {
        for schedule in self.both() {
            schedule.begins_us = begins_us;
            schedule.ends_us = ends_us;
        }
    }

    pub(super) fn end(&mut self, ends_us: u64) {
        for schedule in self.both() {
            schedule.ends_us = schedule.ends_us.min(ends_us);
        }
    }

    pub(super) fn scheduled(&self) -> u64 {
        let scheduled =
            |schedule: &Option<Schedule>| schedule.as_ref().map_or(0, Schedule::scheduled);
        scheduled(&self.lines) * self.at_once + scheduled(&self.gifts)
    }

    pub(super) fn next_due_us(&self) -> u64 {
        let both = self.lines.iter().chain(self.gifts.iter());
        both.map(Schedule::due_us).min().unwrap_or(u64::MAX)
    }

    pub(super) fn lines_due(&self, now_us: u64) -> Option<u64> {
        let due_us = self.lines.as_ref()?.due_us();
        (due_us <= now_us).then_some(due_us)
    }

    pub(super) fn line_sent(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.advance();
        }
    }

    /// The next line's id, unique in the run; where the publisher numbers, it is its number in the room.
    pub(super) fn next_line(&mut self, room: u32, acks: bool) -> u64 {
        if acks {
            self.last_line += 1;
            return self.last_line;
        }
        let number = self.numbers.entry(room).or_default();
        *number += 1;
        *number
    }
}

impl Thread {
    /// Sends what is due. What became due within the run is sent in its tail, too, if the thread was late.
    pub(super) fn speak(&mut self) {
        if !matches!(self.phase, Phase::Run | Phase::Tail) {
            return;
        }
        let now_us = self.clock.now_us();
        self.speechless = false;
        for _ in 0..LINES_PER_TURN {
            let Some(due_us) = self.speech.lines_due(now_us) else {
                break;
            };
            let sent = match self.speech.via {
                Via::WebSocket => self.speak_one(due_us),
                Via::Http => self.push_line(due_us),
            };
            if !sent {
                self.speechless = true;
                break;
            }
            self.speech.line_sent();
        }
        self.push_gifts(now_us);
    }

    /// One line by the next speaker that can; none can: it waits, and its latency goes on counting.
    fn speak_one(&mut self, due_us: u64) -> bool {
        let Some(at) = self.next_speaker() else {
            return false;
        };
        let client = &self.clients[at as usize];
        let (number, room) = (client.number, client.room);
        let acks = self.plan.dialect.is_gateway();
        let line = self.speech.next_line(room, acks);
        let speech = self.make_line(line, due_us, self.plan.node(number));
        let room_of = &self.plan.rooms[room as usize];
        let message = self.plan.dialect.publish(room_of, number, line, &speech);
        self.say(at, message);
        self.meter.pending.add(1);
        self.sent.insert(line, Sent { client: at, room });
        if !acks {
            // A server that does not answer lines is taken to have accepted them, under our number.
            self.acked(line, 0, line);
        }
        true
    }

    pub(super) fn make_line(&mut self, line: u64, due_us: u64, node: u16) -> Speech {
        let stamp = Stamp { line, due_us, node };
        self.plan
            .voice
            .line(&self.plan.stamper, stamp, &mut self.chance)
    }

    fn next_speaker(&mut self) -> Option<u32> {
        for _ in 0..self.speakers.len() {
            self.speech.next_speaker = (self.speech.next_speaker + 1) % self.speakers.len();
            let at = self.speakers[self.speech.next_speaker];
            let client = &self.clients[at as usize];
            if client.stage == Stage::Open && client.out.len() <= SPEAKER_OUT_BYTES_MAX {
                return Some(at);
            }
        }
        None
    }

    /// Whether lines of this client are on their way.
    pub(super) fn awaits_answers(&self, at: u32) -> bool {
        self.sent.values().any(|sent| sent.client == at)
    }

    /// Lines of a client that is no longer there: nobody will say what became of them.
    pub(super) fn forget_sent(&mut self, at: u32) {
        if !self.awaits_answers(at) {
            return;
        }
        let unsure = &mut self.notes.unsure;
        let mut lost = 0;
        self.sent.retain(|_, sent| {
            let keep = sent.client != at;
            if !keep {
                lost += 1;
                unsure.insert(sent.room);
            }
            keep
        });
        self.notes.unanswered += lost;
        self.meter.pending.sub(lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(per_s: f64, share: (u64, u64), seconds: u64) -> Schedule {
        let mut schedule = Schedule::new(per_s, share).unwrap();
        schedule.begins_us = 1_000_000;
        schedule.ends_us = 1_000_000 * (1 + seconds);
        schedule
    }

    fn dues(mut schedule: Schedule) -> Vec<u64> {
        let mut dues = Vec::new();
        while schedule.due_us() != u64::MAX {
            dues.push(schedule.due_us());
            schedule.advance();
        }
        dues
    }

    #[test]
    fn shares_make_up_the_whole_and_nothing_drifts() {
        let mut all: Vec<u64> = (0..3)
            .flat_map(|at| dues(schedule(30.0, (at, 3), 2)))
            .collect();
        all.sort_unstable();
        let even: Vec<u64> = (0..60)
            .map(|nth| 1_000_000 + (nth as f64 * 1e6 / 30.0) as u64)
            .collect();
        assert_eq!(all, even);
        for share in [(0, 3), (1, 3), (2, 3), (0, 7), (6, 7)] {
            let schedule = schedule(30.0, share, 2);
            let scheduled = schedule.scheduled();
            assert_eq!(dues(schedule).len() as u64, scheduled, "{share:?}");
        }
    }

    #[test]
    fn in_a_surge_lines_come_faster_and_then_as_before() {
        let second = 1_000_000;
        for (factor, share) in [(5.0, (0, 1)), (7.3, (1, 3)), (0.5, (2, 3))] {
            let mut schedule = schedule(30.0, share, 6);
            schedule.surge = Some(Surge {
                from_us: 2 * second,
                to_us: 4 * second,
                factor,
            });
            let scheduled = schedule.scheduled();
            let dues = dues(schedule);
            assert_eq!(dues.len() as u64, scheduled, "{factor} {share:?}");
            let between = |from: u64, to: u64| {
                let within = dues
                    .iter()
                    .filter(|due| (from..to).contains(&(*due / second)));
                within.count() as f64 * share.1 as f64
            };
            let parts = [between(1, 3), between(3, 5), between(5, 7)];
            let expected = [60.0, 60.0 * factor, 60.0];
            for (is, should) in parts.into_iter().zip(expected) {
                assert!((is - should).abs() <= share.1 as f64, "{parts:?}");
            }
        }
    }

    #[test]
    fn nothing_is_due_before_the_run_or_without_a_rate() {
        assert!(Schedule::new(0.0, (0, 1)).is_none());
        assert_eq!(Schedule::new(5.0, (0, 1)).unwrap().due_us(), u64::MAX);
    }
}
