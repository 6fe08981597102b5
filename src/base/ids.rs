//! Ids are types. Each is checked where it enters and trusted afterwards; cloning one is a reference count.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Longest room id in bytes (`docs/PROTOCOL.md`).
pub const ROOM_ID_BYTES_MAX: usize = 128;
/// Longest user id in bytes (the `sub` claim, or `user.id` of a push).
pub const USER_ID_BYTES_MAX: usize = 128;
/// Longest display name in bytes.
pub const USER_NAME_BYTES_MAX: usize = 256;

/// A room's name: 1..=128 bytes of `[A-Za-z0-9_.:-]`, so it needs no escaping in JSON, a URL path or a Redis key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(Arc<str>);

impl RoomId {
    /// Checks and takes a room name; `None` for an empty, too long or ill-spelt one.
    pub fn parse(text: &str) -> Option<RoomId> {
        RoomId::is_valid(text).then(|| RoomId(text.into()))
    }

    /// Whether `text` may name a room.
    pub fn is_valid(text: &str) -> bool {
        (1..=ROOM_ID_BYTES_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one shard that numbers this room's lines.
    pub fn home(&self, shards: usize) -> ShardId {
        home_of(self.0.as_bytes(), shards)
    }
}

impl Borrow<str> for RoomId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user's id as the platform knows it (`sub`): 1..=128 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks and takes a user id.
    pub fn parse(text: &str) -> Option<UserId> {
        let fits = (1..=USER_ID_BYTES_MAX).contains(&text.len());
        (fits && !text.chars().any(char::is_control)).then(|| UserId(text.into()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one shard that keeps this user's flood bucket.
    pub fn home(&self, shards: usize) -> ShardId {
        home_of(self.0.as_bytes(), shards)
    }
}

impl Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A shard's index, 0-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// As an index into per-shard tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A connection of one shard: its slab slot and the generation of that slot, so that a late answer never reaches a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Slab slot.
    pub slot: u32,
    /// Which tenant of the slot.
    pub generation: u32,
}

/// Which life of a room's numbering a `seq` belongs to. Below 2^53, so that JavaScript holds it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// An epoch for a room that begins now: milliseconds since 1970 and 12 bits of chance.
    pub fn begin(unix_ms: u64, chance: u64) -> Epoch {
        Epoch((unix_ms & ((1 << 41) - 1)) << 12 | (chance & 0xfff))
    }

    /// When it began, in milliseconds since 1970.
    pub fn began_ms(self) -> u64 {
        self.0 >> 12
    }
}

/// Which life of a room on this node: a room that was closed and began anew has another, and what was still under way for the
/// old one is not meant for it. Numberings may change within a life, where several nodes share a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life(pub u64);

/// FNV-1a, then multiply-shift: stable across versions and nodes, which a hand-over of rooms relies on.
fn home_of(name: &[u8], shards: usize) -> ShardId {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for &byte in name {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    ShardId(((mixed * shards as u64) >> 32) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ids_are_checked_at_the_door() {
        for good in ["1001", "vip-a:b.c_D", &"x".repeat(128)] {
            assert!(RoomId::parse(good).is_some(), "{good}");
        }
        for bad in ["", "a b", "é", "a/b", "a\n", &"x".repeat(129)] {
            assert!(RoomId::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn homes_are_stable_and_spread() {
        let mut counts = [0usize; 4];
        for room in 0..4000 {
            let id = RoomId::parse(&room.to_string()).unwrap();
            assert_eq!(id.home(4), id.home(4));
            counts[id.home(4).index()] += 1;
        }
        assert!(counts.iter().all(|&n| n > 700), "{counts:?}");
        assert_eq!(RoomId::parse("1001").unwrap().home(1), ShardId(0));
    }

    #[test]
    fn an_epoch_is_exact_in_javascript() {
        assert!(Epoch::begin(u64::MAX, u64::MAX).0 < 1 << 53);
        assert_ne!(Epoch::begin(5, 1), Epoch::begin(6, 1));
    }
}
