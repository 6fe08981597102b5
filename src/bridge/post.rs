//! What the bridge's threads put into the shards' mailboxes. A full one makes them wait, not the shard: what Redis has for it waits in
//! the connection meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::base::ids::{RoomId, ShardId};
use crate::bus::{Address, Brief, Inward, Msg, ReplyTo};
use crate::sync::mailbox::Wake;

/// Between two tries.
const PAUSE: Duration = Duration::from_micros(200);

/// The shards' addresses.
#[derive(Clone)]
pub struct Post {
    addresses: Vec<Address>,
    shared: Arc<Shared>,
}

impl Post {
    pub fn new(addresses: Vec<Address>, shared: Arc<Shared>) -> Post {
        Post { addresses, shared }
    }

    /// To a room's home.
    pub fn to_home(&self, room: &RoomId, inward: Inward) {
        self.to(room.home(self.addresses.len()), inward);
    }

    /// To the shard that gathers for a key of another node.
    pub fn to_any(&self, key: u64, inward: Inward) {
        let shards = self.addresses.len() as u64;
        self.to(ShardId((key % shards.max(1)) as u16), inward);
    }

    /// A list of rooms, to whoever asked for it.
    pub fn listed(&self, to: ReplyTo, rooms: Vec<Brief>) {
        if let Some(shard) = to.shard() {
            self.to(shard, Inward::Rooms { to, rooms });
        }
    }

    /// To every shard.
    pub fn to_all(&self, mut inward: impl FnMut() -> Inward) {
        for shard in 0..self.addresses.len() {
            self.to(ShardId(shard as u16), inward());
        }
    }

    /// To one shard; one that this node does not have gets nothing.
    pub fn to(&self, shard: ShardId, inward: Inward) {
        let Some(address) = self.addresses.get(shard.index()) else {
            return;
        };
        let mut msg = Msg::Cluster(Box::new(inward));
        loop {
            match address.mailbox.post(msg) {
                Ok(Wake::Needed) => {
                    // The poller is gone when the process ends.
                    let _ = address.bell.ring();
                    return;
                }
                Ok(Wake::AlreadyComing) => return,
                Err(back) if self.shared.stops() => {
                    drop(back);
                    return;
                }
                Err(back) => {
                    msg = back;
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}
