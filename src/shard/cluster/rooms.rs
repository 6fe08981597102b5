//! The list of rooms where several nodes share them: this node's own, and what stands in Redis; without it, what was last read there.
//! Part of the shard's turn.

use std::collections::HashMap;

use crate::base::limits;
use crate::bus::{Answer, Brief, Outward, ReplyTo};
use crate::room::ask::Detail;
use crate::shard::Shard;

/// Redis is waited for so long.
const AWAITED_MS: u64 = 500;

/// Where a page of rooms goes on: a count and a room.
type After = Option<(u32, Box<str>)>;

/// Lists that wait for Redis, by the exchange they are for.
#[derive(Default)]
pub struct Listings(HashMap<(u64, u32), Listing>);

struct Listing {
    limit: usize,
    after: After,
    until_ms: u64,
}

impl Listings {
    /// When the first of them is waited for no longer.
    pub fn next_ms(&self) -> Option<u64> {
        self.0.values().map(|listing| listing.until_ms).min()
    }
}

impl Shard {
    /// Somebody wants a page of rooms, and this shard speaks for all the node.
    pub(in crate::shard) fn ask_rooms(&mut self, to: ReplyTo, limit: usize, after: After) {
        let until_ms = self.now.mono_ms() + AWAITED_MS;
        let shared = self.is_shared();
        if let (true, Some(cluster), Some(key)) = (shared, &mut self.cluster, key_of(&to))
            && cluster.listings.0.len() < limits::MESSAGES_PER_TURN
        {
            let listing = Listing {
                limit,
                after: after.clone(),
                until_ms,
            };
            cluster.listings.0.insert(key, listing);
            return cluster.ask(Outward::Rooms { to, limit, after });
        }
        let rooms = self.rooms_by_itself(limit, &after);
        self.answer_rooms(to, rooms);
    }

    /// Answers with this shard's part.
    pub(in crate::shard) fn answer_with_own(&mut self, to: ReplyTo, limit: usize, after: &After) {
        let rooms = self.homes.top(limit, after.as_ref(), self.is_shared());
        self.answer_rooms(to, rooms);
    }

    fn answer_rooms(&mut self, to: ReplyTo, rooms: Vec<Detail>) {
        let stale = self.cluster.as_ref().is_some_and(|cluster| !cluster.up);
        self.answer(to, None, Ok(Answer::Rooms { rooms, stale }));
    }

    /// Rooms as they stand in Redis.
    pub(super) fn rooms_came(&mut self, to: ReplyTo, found: &[Brief]) {
        let (Some(cluster), Some(key)) = (&mut self.cluster, key_of(&to)) else {
            return;
        };
        if let Some(listing) = cluster.listings.0.remove(&key) {
            let mut rooms = self.homes.top(listing.limit, listing.after.as_ref(), true);
            rooms.extend(self.shown(found));
            self.answer_rooms(to, rooms);
        }
    }

    /// Whoever has waited for Redis long enough gets what is known without it; everybody, when it is gone.
    pub(super) fn answer_listings(&mut self, everybody: bool) {
        let now_ms = self.now.mono_ms();
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let is_due = |_: &_, listing: &mut Listing| everybody || listing.until_ms <= now_ms;
        let due: Vec<_> = cluster.listings.0.extract_if(is_due).collect();
        for ((exchange, part), listing) in due {
            let rooms = self.rooms_by_itself(listing.limit, &listing.after);
            let to = ReplyTo::Exchange {
                shard: self.id,
                exchange,
                part,
            };
            self.answer(to, None, Ok(Answer::Rooms { rooms, stale: true }));
        }
    }

    /// The rooms at home here, and what was last read of the others.
    fn rooms_by_itself(&self, limit: usize, after: &After) -> Vec<Detail> {
        let mut rooms = self.homes.top(limit, after.as_ref(), false);
        let listed = self.node.listed.read();
        let behind = |brief: &&Brief| {
            let at = (std::cmp::Reverse(brief.online), brief.room.as_str());
            let follows =
                |(online, room): &(u32, Box<str>)| at > (std::cmp::Reverse(*online), room);
            after.as_ref().is_none_or(follows)
        };
        let known = listed.iter().filter(behind).take(limit);
        let known = known.flat_map(|brief| self.shown(std::slice::from_ref(brief)));
        rooms.extend(known.map(|detail| Detail {
            stale: true,
            ..detail
        }));
        rooms
    }

    fn shown(&self, found: &[Brief]) -> Vec<Detail> {
        let classes = &self.policy.config.rooms;
        let shown = |brief| self.homes.shown(brief, classes, self.now);
        found.iter().map(shown).collect()
    }
}

fn key_of(to: &ReplyTo) -> Option<(u64, u32)> {
    match to {
        ReplyTo::Exchange { exchange, part, .. } => Some((*exchange, *part)),
        _ => None,
    }
}
