//! Who is in shared rooms: what this shard's rooms tell the cluster, and what it says of the other nodes. Part of the shard's turn.

use super::Standing;
use crate::base::ids::RoomId;
use crate::bus::{Outward, RoomRead};
use crate::shard::Shard;

/// A room's count is told once in so long at most: one write for a storm's second.
const COUNT_EVERY_MS: u64 = 1000;
/// Rooms with another count are looked at this often.
const COUNT_TICK_MS: u64 = 50;
/// What stands in Redis goes an hour after it was last written: a room with the same people in it writes it this often, and reads what
/// it may have missed.
const RENEW_EVERY_MS: u64 = 600_000;
/// Users told of at once.
const MOVES_MAX: usize = 1000;

impl Shard {
    pub(super) fn set_counts(&mut self, room: &RoomId, found: RoomRead) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        if let Some((home, tie)) = self.homes.tied(room) {
            tie.link
                .counts(found.counts.into_iter(), &cluster.outlet.me);
            home.set_totals(found.totals);
            home.set_elsewhere(tie.link.others(), self.now);
            self.homes.touched(room, self.now.mono_ms());
        }
    }

    /// Who is in a room here may have changed.
    pub(in crate::shard) fn note_count(&mut self, room: &RoomId) {
        let now_ms = self.now.mono_ms();
        let (Some(cluster), Some((_, tie))) = (&mut self.cluster, self.homes.tied(room)) else {
            return;
        };
        if tie.standing == Standing::Joined && !std::mem::replace(&mut tie.counting, true) {
            if cluster.counting.is_empty() {
                cluster.counts_at_ms = now_ms + COUNT_TICK_MS;
            }
            cluster.counting.push(room.clone());
        }
    }

    /// Tells the cluster who is in the rooms that changed, each at most once a second.
    pub(super) fn tell_counts(&mut self) {
        let now_ms = self.now.mono_ms();
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if cluster.counting.is_empty() || cluster.counts_at_ms > now_ms {
            return;
        }
        cluster.counts_at_ms = now_ms + COUNT_TICK_MS;
        for room in std::mem::take(&mut cluster.counting) {
            let Some((home, tie)) = self.homes.tied(&room) else {
                continue;
            };
            if tie.counted_ms + COUNT_EVERY_MS > now_ms && tie.counted_ms > 0 {
                cluster.counting.push(room);
                continue;
            }
            let (connections, moves) = (home.here(), home.moves(MOVES_MAX));
            tie.counting = moves.more;
            if moves.more {
                cluster.counting.push(room.clone());
            } else if moves.is_empty() && connections == tie.counted && !tie.renews {
                continue;
            }
            tie.renews = false;
            tie.counted = connections;
            // The rest of a great coming or going follows at once.
            tie.counted_ms = if moves.more { 0 } else { now_ms.max(1) };
            cluster.ask(Outward::Count {
                room,
                connections,
                moves,
            });
        }
    }

    /// Writes anew what would go, and reads what may have been missed; every ten minutes.
    pub(in crate::shard) fn renew(&mut self, room: &RoomId) {
        let now_ms = self.now.mono_ms();
        let Some((home, tie)) = self.homes.tied(room) else {
            return;
        };
        let is_due = tie.renewed_ms + RENEW_EVERY_MS <= now_ms;
        if !is_due || tie.standing != Standing::Joined || home.here() == 0 {
            return;
        }
        (tie.renews, tie.renewed_ms) = (true, now_ms);
        let reads = tie.link.read();
        self.note_count(room);
        if reads {
            let begin = Some(self.new_epoch());
            self.ask_cluster(Outward::Read {
                room: room.clone(),
                begin,
                subscribed: true,
            });
        }
    }

    /// What was counted counts no more: everybody here is told anew.
    pub(super) fn recount(&mut self) {
        self.tell_logins();
        for room in self.homes.ids() {
            if let Some((home, tie)) = self.homes.tied(&room)
                && tie.standing == Standing::Joined
            {
                home.watch();
                (tie.counted, tie.counted_ms, tie.renews) = (0, 0, true);
                self.note_count(&room);
            }
        }
    }
}
