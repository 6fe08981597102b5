//! Timers of a client thread: a heap of what is due. An old entry is recognised by its generation and means nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Stage, Thread};
use crate::client::frames;

/// A client's own heartbeat.
const PING: &str = r#"{"type":"ping"}"#;
/// Timers handled in one turn.
const TIMERS_PER_TURN: usize = 1024;

/// What a timer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// The client comes, or comes back.
    Arrive,
    /// Its connect has taken too long.
    GiveUp,
    /// Its heartbeat.
    Ping,
    /// It shows whether the server still has it.
    Prove,
    /// It goes elsewhere.
    Move,
    /// All that can be cut are.
    CutAll,
}

/// One entry: when, whose, of which generation, what.
type Entry = (u64, u32, u32, What);

#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<Entry>>);

impl Timers {
    pub(super) fn arm(&mut self, at_us: u64, client: u32, generation: u32, what: What) {
        self.0.push(Reverse((at_us, client, generation, what)));
    }

    /// When the next one is due; `u64::MAX` if there is none.
    pub(super) fn next_us(&self) -> u64 {
        self.0.peek().map_or(u64::MAX, |Reverse(entry)| entry.0)
    }

    /// The next one that is due.
    pub(super) fn pop(&mut self, now_us: u64) -> Option<Entry> {
        if self.next_us() > now_us {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}

impl Thread {
    /// Timers that are due.
    pub(super) fn expire(&mut self) {
        self.expire_pushes(self.clock.now_us());
        for _ in 0..TIMERS_PER_TURN {
            let now_us = self.clock.now_us();
            let Some((due_us, at, generation, what)) = self.timers.pop(now_us) else {
                return;
            };
            let current =
                what == What::CutAll || self.clients[at as usize].generation == generation;
            if !current {
                continue;
            }
            match what {
                What::Arrive => self.arrive(at, due_us),
                What::GiveUp => self.give_up(at),
                What::Ping => self.ping(at, now_us),
                What::Prove => self.prove(at),
                What::Move => self.move_on(at),
                What::CutAll => self.cut_all(),
            }
        }
    }

    fn give_up(&mut self, at: u32) {
        if matches!(
            self.clients[at as usize].stage,
            Stage::Connecting | Stage::Asking
        ) {
            self.failed(at, "timeout");
        }
    }

    fn arrive(&mut self, at: u32, due_us: u64) {
        let client = &mut self.clients[at as usize];
        if client.stage == Stage::Away {
            // A first arrival was due when its timer said; who comes back was due when it went.
            client.due_us = client.due_us.min(due_us);
            self.ready.push_back(at);
        }
    }

    fn ping(&mut self, at: u32, now_us: u64) {
        let client = &self.clients[at as usize];
        if client.stage == Stage::Open && self.plan.dialect.is_gateway() {
            let generation = client.generation;
            if client.deaf {
                self.sign_of_life(at);
            } else {
                self.say(at, PING.to_owned());
            }
            let next_us = now_us + self.plan.heartbeat_us;
            self.timers.arm(next_us, at, generation, What::Ping);
        }
    }

    /// From a client that does not read: something that wants no answer.
    fn sign_of_life(&mut self, at: u32) {
        let mask = (self.chance.bits() as u32).to_be_bytes();
        let client = &mut self.clients[at as usize];
        if client.out.is_empty() {
            frames::pong(&mut client.out, mask);
            self.write_out(at);
        }
    }

    fn prove(&mut self, at: u32) {
        if self.clients[at as usize].stage == Stage::Open && self.plan.dialect.is_gateway() {
            self.say(at, PING.to_owned());
        }
    }
}
