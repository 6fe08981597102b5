//! The end of a run: what is still under way arrives, and every account is closed. Part of a client thread's turn.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use mio::{Interest, Token};

use super::timers::What;
use super::{Client, Phase, Stage, Thread};
use crate::books::Missing;
use crate::client::frames;
use crate::plan::Arrives;

/// How long after it began to read a viewer is asked whether it is still one, microseconds.
const PROVE_US: u64 = 1_000_000;
/// How often it is looked who still lacks something, microseconds.
const LOOK_US: u64 = 100_000;

impl Thread {
    /// No one speaks any more, and who did not read does so now: what the server still has for it must be told or
    /// delivered. A ping then shows whether the server let go of it meanwhile: its goodbye may be stuck behind what the
    /// kernel still holds.
    pub(super) fn begin_tail(&mut self) {
        let ends_us = self.helm.run_ends_us.load(Ordering::Relaxed);
        self.speech.end(ends_us);
        for at in 0..self.clients.len() {
            if std::mem::take(&mut self.clients[at].deaf) {
                self.clients[at].unproven = true;
                self.meter.pending.add(1);
                let generation = self.clients[at].generation;
                let prove_us = self.clock.now_us() + PROVE_US;
                self.timers
                    .arm(prove_us, at as u32, generation, What::Prove);
                let registry = self.poll.registry();
                if let Some(stream) = self.clients[at].stream.as_mut() {
                    let both = Interest::READABLE | Interest::WRITABLE;
                    let _ = registry.register(stream, Token(at), both);
                }
            }
        }
    }

    /// Counts those that lack lines others have, and were not told of them: they may still be on their way. The kernel sends what
    /// it had to send twice after a while only.
    pub(super) fn look_behind(&mut self) {
        let now_us = self.clock.now_us();
        if self.phase != Phase::Tail || now_us < self.looked_us + LOOK_US {
            return;
        }
        self.looked_us = now_us;
        let members = || {
            self.clients
                .iter()
                .enumerate()
                .filter(|(_, client)| client.member)
        };
        let mut ends: HashMap<(u32, u64), u64> = HashMap::new();
        for (_, client) in members() {
            let end = ends.entry((client.room, client.tally.epoch)).or_default();
            *end = client.tally.last.max(*end);
        }
        let lacks = |(at, client): &(usize, &Client)| {
            let tally = &client.tally;
            let missing = self.gaps.get(&(*at as u32)).map_or(0, Missing::lines);
            let end = ends.get(&(client.room, tally.epoch)).copied();
            let ahead = end.unwrap_or(0).saturating_sub(tally.last);
            client.stage == Stage::Open && ahead > tally.told.saturating_sub(missing)
        };
        let behind = members().filter(lacks).count();
        self.meter.behind.set(behind as u64);
    }

    /// Closes every account and says goodbye to the server.
    pub(super) fn finish(&mut self) {
        self.notes.scheduled = self.speech.scheduled();
        for at in 0..self.clients.len() as u32 {
            self.note_where(at);
            let open = self.clients[at as usize].stage == Stage::Open;
            let unproven = self.clients[at as usize].unproven;
            self.notes.deaf.silent += u64::from(open && unproven);
            self.end_membership(at, open && !unproven);
            if open {
                let mask = (self.chance.bits() as u32).to_be_bytes();
                frames::close(&mut self.clients[at as usize].out, mask);
                self.write_out(at);
            }
        }
        self.place_rest();
        self.notes.ignored += self.sent.len() as u64;
        for sent in self.sent.values() {
            self.notes.unsure.insert(sent.room);
        }
        for asked in self.pushers.iter().filter_map(|pusher| pusher.asked) {
            self.notes.ignored += u64::from(asked.rooms.count);
            let rooms = asked.rooms.of(self.plan.rooms.len());
            self.notes.unsure.extend(rooms);
        }
        let now_us = self.clock.now_us();
        self.hand_over(now_us);
    }

    /// Whether a client that has no reason to be elsewhere is where it should be, at the end of the run.
    fn note_where(&mut self, at: u32) {
        let client = &self.clients[at as usize];
        let viewer = self.plan.viewers[client.number as usize];
        let due = match viewer.arrives {
            Arrives::Ramp => true,
            Arrives::At(after_us) => {
                let begins_us = self.helm.run_begins_us.load(Ordering::Relaxed);
                begins_us.saturating_add(after_us) < self.helm.run_ends_us.load(Ordering::Relaxed)
            }
        };
        if viewer.moves || !viewer.reads || !due {
            return;
        }
        if client.stage != Stage::Open {
            self.notes.away += 1;
        } else if !client.member && self.plan.enters && self.plan.dialect.is_gateway() {
            self.notes.outside += 1;
        }
    }

    /// No longer in doubt: the server answered, or the connection is known to be gone.
    pub(super) fn proven(&mut self, at: u32, answered: bool) {
        if std::mem::take(&mut self.clients[at as usize].unproven) {
            self.meter.pending.sub(1);
            self.notes.deaf.answered += u64::from(answered);
        }
    }
}
