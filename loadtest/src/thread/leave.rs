//! Clients go: refused, failed, lost, cut, or moving on; and when they come back. Part of a client thread's turn.

use std::time::Duration;

use super::timers::What;
use super::{Phase, Stage, Thread, bump};
use crate::client::frames::{self, Decoder};
use crate::client::upgrade::Refusal;
use crate::dialect::Dialect;

/// The first wait after a failure the server said nothing about, microseconds; it doubles up to the next.
const BACK_OFF_US: u64 = 200_000;
/// The longest such wait.
const BACK_OFF_US_MAX: u64 = 10_000_000;
/// The longest wait a server is believed, milliseconds.
const COME_BACK_MS_MAX: u64 = 3_600_000;
/// Clients cut in one turn, so that the others are read meanwhile.
const CUTS_PER_TURN: usize = 128;
/// How long a viewer that wants to leave waits for an answer before it looks again, microseconds.
const ANSWER_US: u64 = 50_000;

impl Thread {
    /// The connection is gone, by the server's will or by accident; `code` is the close code.
    pub(super) fn lost(&mut self, at: u32, code: &str) {
        match self.clients[at as usize].stage {
            Stage::Connecting | Stage::Asking => return self.failed(at, "closed"),
            Stage::Away | Stage::Gone => return,
            Stage::Open => {}
        }
        bump(&mut self.notes.closed, code);
        let number = self.clients[at as usize].number;
        let deaf = &mut self.notes.deaf;
        *match (self.plan.viewers[number as usize].reads, code) {
            (true, _) => &mut self.notes.readers_closed,
            (false, "4413") => &mut deaf.closed,
            (false, "1006") => &mut deaf.wordless,
            (false, _) => &mut deaf.wrongly,
        } += 1;
        self.leave_open(at);
        if matches!(code.parse(), Ok(4000..=4099)) {
            return self.gone(at);
        }
        match self.clients[at as usize].notice_ms.take() {
            Some(ms) => self.come_back_after(at, ms),
            None => self.back_off(at),
        }
    }

    pub(super) fn refused(&mut self, at: u32, refusal: Refusal) {
        self.meter.refused.add(1);
        bump(&mut self.notes.refused, &refusal.code);
        self.drop_stream(at);
        self.in_flight -= 1;
        if !refusal.comes_back() {
            return self.gone(at);
        }
        match refusal.retry_after_ms {
            Some(ms) => self.come_back_after(at, ms),
            None => self.back_off(at),
        }
    }

    /// A connect that came to nothing without an answer.
    pub(super) fn failed(&mut self, at: u32, why: &str) {
        bump(&mut self.notes.failed, why);
        self.drop_stream(at);
        self.in_flight -= 1;
        self.back_off(at);
    }

    /// No longer connected: sums up what its end means for others.
    fn leave_open(&mut self, at: u32) {
        self.meter.connected.sub(1);
        self.hush(at);
        self.proven(at, false);
        self.forget_sent(at);
        self.drop_stream(at);
        let deaf = std::mem::take(&mut self.clients[at as usize].deaf);
        let epoch = self.clients[at as usize].tally.epoch;
        let client = &mut self.clients[at as usize];
        // Only the gateway's own numbering can be resumed.
        client.resumes = client.member && epoch != 0 && !deaf;
        (client.joining, client.leaving) = (false, false);
        if !client.resumes {
            self.end_membership(at, false);
        }
    }

    /// It no longer speaks. Where one connection speaks for a room, another one does from now on.
    pub(super) fn hush(&mut self, at: u32) {
        if !std::mem::take(&mut self.clients[at as usize].speaking) {
            return;
        }
        self.speakers.retain(|speaker| *speaker != at);
        if self.plan.dialect.is_gateway() {
            return;
        }
        let room = self.clients[at as usize].room;
        let heir = (0..self.clients.len() as u32).find(|heir| {
            let client = &self.clients[*heir as usize];
            let speaks = self.plan.viewers[client.number as usize].speaks;
            *heir != at && client.stage == Stage::Open && client.room == room && speaks
        });
        if let Some(heir) = heir {
            self.let_speak(heir);
        }
    }

    /// As the server asked.
    fn come_back_after(&mut self, at: u32, ms: u64) {
        self.notes.backed_off += 1;
        let wait_us = self.chance.jittered_us(ms.min(COME_BACK_MS_MAX) * 1000);
        self.away_for(at, wait_us);
    }

    fn back_off(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        let doubled = BACK_OFF_US << client.attempts.min(8);
        client.attempts = client.attempts.saturating_add(1);
        let wait_us = self.chance.jittered_us(doubled.min(BACK_OFF_US_MAX));
        self.away_for(at, wait_us);
    }

    /// Away now, back after so long. The connect's latency counts from now on, waits included.
    fn away_for(&mut self, at: u32, wait_us: u64) {
        let now_us = self.clock.now_us();
        let client = &mut self.clients[at as usize];
        client.stage = Stage::Away;
        client.due_us = client.due_us.min(now_us);
        let generation = client.generation;
        self.timers
            .arm(now_us + wait_us, at, generation, What::Arrive);
    }

    fn gone(&mut self, at: u32) {
        self.end_membership(at, false);
        self.clients[at as usize].stage = Stage::Gone;
        self.meter.given_up.add(1);
    }

    /// Closes without ceremony: a reset, as when a network goes, and no port left waiting.
    pub(super) fn drop_stream(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        if let Some(mut stream) = client.stream.take() {
            let _ = self.poll.registry().deregister(&mut stream);
            let socket = socket2::SockRef::from(&stream);
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        client.out = Vec::new();
        client.decoder = Decoder::default();
    }

    /// Notes everyone who can be cut.
    pub(super) fn cut_all(&mut self) {
        self.cutting = (0..self.clients.len() as u32).collect();
    }

    /// Cuts some of those noted.
    pub(super) fn cut_some(&mut self) {
        let now_us = self.clock.now_us();
        for _ in 0..CUTS_PER_TURN {
            let Some(at) = self.cutting.pop_front() else {
                return;
            };
            let client = &self.clients[at as usize];
            if client.stage == Stage::Open && self.plan.viewers[client.number as usize].cut {
                self.notes.cut += 1;
                self.leave_open(at);
                let client = &mut self.clients[at as usize];
                client.stage = Stage::Away;
                client.due_us = now_us;
                self.ready.push_back(at);
            }
        }
    }

    /// Half of those who move change the room, half go and are followed by someone new.
    pub(super) fn move_on(&mut self, at: u32) {
        if self.phase != Phase::Run || self.clients[at as usize].stage != Stage::Open {
            return;
        }
        if self.awaits_answers(at) {
            // Whoever leaves before its lines are answered never learns their numbers.
            let (now_us, generation) = (self.clock.now_us(), self.clients[at as usize].generation);
            return self
                .timers
                .arm(now_us + ANSWER_US, at, generation, What::Move);
        }
        if self.chance.unit() < 0.5 {
            let client = &self.clients[at as usize];
            if client.member {
                let leave = Dialect::leave(&self.plan.rooms[client.room as usize]);
                self.clients[at as usize].leaving = true;
                self.hush(at);
                self.say(at, leave);
            }
            return;
        }
        let mask = (self.chance.bits() as u32).to_be_bytes();
        let client = &mut self.clients[at as usize];
        frames::close(&mut client.out, mask);
        self.write_out(at);
        if self.clients[at as usize].stage != Stage::Open {
            return; // It was lost in the attempt.
        }
        self.leave_open(at);
        self.end_membership(at, false);
        self.clients[at as usize].resumes = false;
        self.move_room(at);
        self.clients[at as usize].due_us = u64::MAX;
        self.away_for_someone_new(at);
    }

    /// The room a client is to be in from now on.
    pub(super) fn move_room(&mut self, at: u32) {
        let room = self.plan.popularity.pick(&mut self.chance);
        self.clients[at as usize].room = room;
    }

    fn away_for_someone_new(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        client.stage = Stage::Away;
        let generation = client.generation;
        let wait_us = self.chance.wait_us(1_000_000);
        let now_us = self.clock.now_us();
        self.timers
            .arm(now_us + wait_us, at, generation, What::Arrive);
    }
}
