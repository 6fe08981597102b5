//! Who is in a room: connections by user, by shard and by encoding. Owned by the room's home; exact on one node.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::ask::{Encoding, MemberEntry, MembersPage, Seat};
use super::members::last_user;
use crate::base::identity::User;
use crate::base::ids::{ShardId, UserId};

/// The members of one room.
#[derive(Debug)]
pub struct Presence {
    users: BTreeMap<UserId, Present>,
    anonymous: u32,
    /// Unix ms at which the first of the anonymous connections now here joined.
    anonymous_since_ms: u64,
    /// Connections by shard and encoding.
    seats: Box<[[u32; Encoding::COUNT]]>,
    online: u32,
    peak: u32,
    /// Users whose being here is to be told to the cluster; `None`: nobody is told.
    moved: Option<BTreeSet<UserId>>,
}

/// What changed since it was last told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Users that are here, and the unix ms at which they came.
    pub entered: Vec<(UserId, u64)>,
    /// Users that are not.
    pub left: Vec<UserId>,
    /// There are more.
    pub more: bool,
}

impl Moves {
    /// Whether nobody did.
    pub fn is_empty(&self) -> bool {
        self.entered.is_empty() && self.left.is_empty()
    }
}

#[derive(Debug)]
struct Present {
    user: User,
    joined_ms: u64,
    /// One entry per shard that holds connections of this user: nearly always one or two.
    connections: Vec<(ShardId, u32)>,
}

impl Present {
    fn total(&self) -> u32 {
        self.connections.iter().map(|(_, count)| count).sum()
    }
}

impl Presence {
    /// Nobody yet, on a node of `shards`.
    pub fn new(shards: usize) -> Presence {
        Presence {
            users: BTreeMap::new(),
            anonymous: 0,
            anonymous_since_ms: 0,
            seats: vec![[0; Encoding::COUNT]; shards].into(),
            online: 0,
            peak: 0,
            moved: None,
        }
    }

    /// From now on remembers who comes and goes, beginning with everybody here.
    pub fn watch(&mut self) {
        // Who went and has not been told of stays in it.
        let moved = self.moved.get_or_insert_default();
        moved.extend(self.users.keys().cloned());
    }

    /// Remembers no more.
    pub fn unwatch(&mut self) {
        self.moved = None;
    }

    /// What changed since this was last asked: `max` users at most.
    pub fn moves(&mut self, max: usize) -> Moves {
        let mut moves = Moves::default();
        let Some(moved) = &mut self.moved else {
            return moves;
        };
        for _ in 0..max {
            let Some(user) = moved.pop_first() else {
                break;
            };
            match self.users.get(&user) {
                Some(present) => moves.entered.push((user, present.joined_ms)),
                None => moves.left.push(user),
            }
        }
        moves.more = !moved.is_empty();
        moves
    }

    /// One more connection.
    pub fn enter(&mut self, user: Option<&User>, seat: Seat, unix_ms: u64) {
        if let Some(counts) = self.seats.get_mut(seat.shard.index()) {
            counts[seat.encoding.index()] += 1;
        }
        self.online += 1;
        self.peak = self.peak.max(self.online);
        let Some(user) = user else {
            if self.anonymous == 0 {
                self.anonymous_since_ms = unix_ms;
            }
            self.anonymous += 1;
            return;
        };
        if let Some(moved) = &mut self.moved
            && !self.users.contains_key(&user.id)
        {
            moved.insert(user.id.clone());
        }
        let present = self
            .users
            .entry(user.id.clone())
            .or_insert_with(|| Present {
                user: user.clone(),
                joined_ms: unix_ms,
                connections: Vec::new(),
            });
        match present
            .connections
            .iter_mut()
            .find(|(shard, _)| *shard == seat.shard)
        {
            Some((_, count)) => *count += 1,
            None => present.connections.push((seat.shard, 1)),
        }
    }

    /// One connection less.
    pub fn leave(&mut self, user: Option<&UserId>, seat: Seat) {
        if let Some(counts) = self.seats.get_mut(seat.shard.index()) {
            let count = &mut counts[seat.encoding.index()];
            debug_assert!(*count > 0);
            *count = count.saturating_sub(1);
        }
        self.online = self.online.saturating_sub(1);
        let Some(user) = user else {
            self.anonymous = self.anonymous.saturating_sub(1);
            return;
        };
        let Some(present) = self.users.get_mut(user) else {
            return;
        };
        if let Some(at) = present
            .connections
            .iter()
            .position(|(shard, _)| *shard == seat.shard)
        {
            present.connections[at].1 -= 1;
            if present.connections[at].1 == 0 {
                present.connections.swap_remove(at);
            }
        }
        if present.connections.is_empty() {
            if let Some(moved) = &mut self.moved {
                moved.insert(user.clone());
            }
            self.users.remove(user);
        }
    }

    /// Connections.
    pub fn online(&self) -> u32 {
        self.online
    }

    /// Different users; anonymous connections are not users.
    pub fn users(&self) -> u32 {
        self.users.len() as u32
    }

    /// Most connections at once.
    pub fn peak(&self) -> u32 {
        self.peak
    }

    /// Shards that hold connections.
    pub fn hosts(&self) -> impl Iterator<Item = ShardId> + '_ {
        let hosting =
            |(_, counts): &(usize, &[u32; Encoding::COUNT])| counts.iter().any(|n| *n > 0);
        self.seats
            .iter()
            .enumerate()
            .filter(hosting)
            .map(|(shard, _)| ShardId(shard as u16))
    }

    /// Whether any member uses the encoding.
    pub fn uses(&self, encoding: Encoding) -> bool {
        self.seats.iter().any(|counts| counts[encoding.index()] > 0)
    }

    /// A user that is here.
    pub fn user(&self, user: &UserId) -> Option<&User> {
        self.users.get(user).map(|present| &present.user)
    }

    /// A user's connections, and the shards that hold them.
    pub fn find(&self, user: &UserId) -> (u32, Vec<ShardId>) {
        match self.users.get(user) {
            None => (0, Vec::new()),
            Some(present) => (
                present.total(),
                present
                    .connections
                    .iter()
                    .map(|(shard, _)| *shard)
                    .collect(),
            ),
        }
    }

    /// Up to `limit` entries by user id after `after`; on the last page the anonymous connections, as one entry.
    pub fn page(&self, limit: usize, after: Option<&str>) -> MembersPage {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.users.range::<str, _>((from, Bound::Unbounded));
        let mut members: Vec<MemberEntry> = rest
            .by_ref()
            .take(limit)
            .map(|(_, present)| MemberEntry {
                user: Some(present.user.clone()),
                connections: present.total(),
                joined_ms: present.joined_ms,
            })
            .collect();
        let more = rest.next().is_some() || (self.anonymous > 0 && members.len() == limit);
        if !more && self.anonymous > 0 {
            members.push(MemberEntry {
                user: None,
                connections: self.anonymous,
                joined_ms: self.anonymous_since_ms,
            });
        }
        MembersPage {
            next: last_user(&members).filter(|_| more),
            members,
            stale: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> User {
        User {
            id: UserId::parse(id).unwrap(),
            name: id.into(),
        }
    }

    fn seat(shard: u16) -> Seat {
        Seat {
            shard: ShardId(shard),
            encoding: Encoding::Plain,
        }
    }

    #[test]
    fn several_connections_of_one_user_are_one_user() {
        let mut presence = Presence::new(3);
        let (a, b) = (user("a"), user("b"));
        presence.enter(Some(&a), seat(0), 10);
        presence.enter(Some(&a), seat(2), 20);
        presence.enter(Some(&b), seat(2), 30);
        presence.enter(None, seat(1), 40);
        assert_eq!((presence.online(), presence.users()), (4, 2));
        assert_eq!(presence.hosts().count(), 3);
        assert_eq!(presence.find(&a.id), (2, vec![ShardId(0), ShardId(2)]));
        presence.leave(Some(&a.id), seat(0));
        presence.leave(None, seat(1));
        assert_eq!(presence.hosts().collect::<Vec<_>>(), [ShardId(2)]);
        presence.leave(Some(&a.id), seat(2));
        assert_eq!(
            (presence.online(), presence.users(), presence.peak()),
            (1, 1, 4)
        );
        assert_eq!(presence.find(&a.id), (0, vec![]));
    }

    #[test]
    fn pages_end_with_the_anonymous() {
        let mut presence = Presence::new(1);
        for id in ["c", "a", "b"] {
            presence.enter(Some(&user(id)), seat(0), 1);
        }
        presence.enter(None, seat(0), 7);
        presence.enter(None, seat(0), 8);
        let ids = |page: &MembersPage| -> Vec<Option<String>> {
            let id = |m: &MemberEntry| m.user.as_ref().map(|u| u.id.as_str().to_string());
            page.members.iter().map(id).collect()
        };
        let some = |id: &str| Some(id.to_string());
        let page = presence.page(2, None);
        assert_eq!(
            (ids(&page), page.next.as_deref()),
            (vec![some("a"), some("b")], Some("b"))
        );
        let page = presence.page(1, Some("b"));
        assert_eq!(
            (ids(&page), page.next.as_deref()),
            (vec![some("c")], Some("c"))
        );
        let page = presence.page(1, Some("c"));
        assert_eq!((ids(&page), page.next.as_deref()), (vec![None], None));
        assert_eq!(
            (page.members[0].connections, page.members[0].joined_ms),
            (2, 7)
        );
        let page = presence.page(10, None);
        assert_eq!(ids(&page).len(), 4);
    }
}
