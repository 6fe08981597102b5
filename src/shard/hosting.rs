//! The rooms this shard hosts members of: their streams, and who sits where. Owned by the shard.
//!
//! A member is written down twice: in the stream (dense, for the walk) and in its connection's seats (to find it again).
//! Every move keeps both; that is all this file is for.

use std::collections::{HashMap, VecDeque};

use slab::Slab;

use super::conn::{Conn, SeatRef};
use crate::base::clock::Now;
use crate::base::ids::{Life, RoomId};
use crate::config::checked::Rooms;
use crate::room::ask::{Encoding, Sealed};
use crate::room::stream::Stream;

/// The hosted rooms of one shard.
#[derive(Debug, Default)]
pub struct Hosting {
    pub rooms: Slab<Hosted>,
    by_id: HashMap<RoomId, u32>,
    /// Streams with a walk to go on with, in turn.
    pub walking: VecDeque<(u32, Encoding)>,
    /// Seats taken.
    pub members: usize,
}

/// One hosted room.
#[derive(Debug)]
pub struct Hosted {
    pub id: RoomId,
    pub life: Life,
    /// By encoding; `None` where no member uses it.
    pub streams: [Option<Box<Hall>>; Encoding::COUNT],
    /// The room is gone: who has read to the end is let go.
    pub closed: bool,
    /// Monotonic ms of the last chunk.
    pub active_ms: u64,
    /// Its home is here, and has more for the walk when it comes.
    waits: bool,
}

/// A stream and whether it stands in the walk's queue.
#[derive(Debug)]
pub struct Hall {
    pub stream: Stream,
    pub queued: bool,
}

impl Hosting {
    /// The slot of a room, if members of it sit here.
    pub fn find(&self, room: &str) -> Option<u32> {
        self.by_id.get(room).copied()
    }

    /// The stream of a room in an encoding.
    pub fn stream(&mut self, hosted: u32, encoding: Encoding) -> Option<&mut Stream> {
        let room = self.rooms.get_mut(hosted as usize)?;
        room.streams[encoding.index()]
            .as_mut()
            .map(|hall| &mut hall.stream)
    }

    /// The same, to look at.
    pub fn stream_of(&self, hosted: u32, encoding: Encoding) -> Option<&Stream> {
        let room = self.rooms.get(hosted as usize)?;
        room.streams[encoding.index()]
            .as_ref()
            .map(|hall| &hall.stream)
    }

    /// For how long the walk that is next in turn has carried its oldest line round.
    pub fn lag_ns(&self, now_ns: u64) -> u64 {
        let next = self.walking.front();
        let stream = next.and_then(|(hosted, encoding)| self.stream_of(*hosted, *encoding));
        stream.map_or(0, |stream| stream.lag_ns(now_ns))
    }

    /// Seats a connection: it gets what is appended from now on.
    pub fn seat(
        &mut self,
        room: &RoomId,
        life: Life,
        conn: &mut Conn,
        slot: u32,
        encoding: Encoding,
        log_bytes_max: usize,
    ) {
        let hosted = match self.by_id.get(room.as_str()) {
            Some(&hosted) => hosted,
            None => {
                let hosted = self.rooms.insert(Hosted {
                    id: room.clone(),
                    life,
                    streams: [const { None }; Encoding::COUNT],
                    closed: false,
                    active_ms: 0,
                    waits: false,
                }) as u32;
                self.by_id.insert(room.clone(), hosted);
                hosted
            }
        };
        let hall = self.rooms[hosted as usize].streams[encoding.index()].get_or_insert_with(|| {
            Box::new(Hall {
                stream: Stream::new(encoding, log_bytes_max),
                queued: false,
            })
        });
        let member = hall.stream.join(slot) as u32;
        conn.seats.push(SeatRef { hosted, member });
        self.members += 1;
    }

    /// Removes the seat at `index` of a connection's seats. Returns the room left (if it still lives, so that its home
    /// is told) and the crowd lines that were still due.
    pub fn unseat(
        &mut self,
        conns: &mut Slab<Conn>,
        slot: u32,
        index: usize,
        encoding: Encoding,
    ) -> (Option<(RoomId, Life)>, u32) {
        let Some(conn) = conns.get_mut(slot as usize) else {
            return (None, 0);
        };
        let seat = conn.seats.swap_remove(index);
        if conn.seats.is_empty() {
            conn.seats = Vec::new();
        }
        self.members -= 1;
        let room = &mut self.rooms[seat.hosted as usize];
        let told = (!room.closed).then(|| (room.id.clone(), room.life));
        let Some(hall) = &mut room.streams[encoding.index()] else {
            return (told, 0);
        };
        let (moved, undelivered) = hall.stream.leave(seat.member as usize);
        if let Some(moved) = moved {
            let from = SeatRef {
                hosted: seat.hosted,
                member: hall.stream.len() as u32,
            };
            let seats = &mut conns[moved as usize].seats;
            if let Some(its) = seats.iter_mut().find(|its| **its == from) {
                its.member = seat.member;
            }
        }
        if hall.stream.is_empty() {
            room.streams[encoding.index()] = None;
            if room.streams.iter().all(Option::is_none) {
                let room = self.rooms.remove(seat.hosted as usize);
                if !room.closed {
                    self.by_id.remove(room.id.as_str());
                }
            }
        }
        (told, undelivered)
    }

    /// Appends sealed chunks to the room's logs here and queues their walks.
    pub fn append(&mut self, sealed: &Sealed, now: Now) {
        let Some(hosted) = self.find(sealed.room.as_str()) else {
            return;
        };
        let room = &mut self.rooms[hosted as usize];
        if room.life != sealed.life {
            return;
        }
        room.active_ms = now.mono_ms();
        for encoding in Encoding::ALL {
            let chunk = &sealed.chunks[encoding.index()];
            let hall = &mut room.streams[encoding.index()];
            let (Some(chunk), Some(hall)) = (chunk, hall) else {
                continue;
            };
            hall.stream
                .append(chunk, sealed.events.as_ref(), sealed.begun_ns, now.mono_ns);
            if !hall.queued {
                hall.queued = true;
                self.walking.push_back((hosted, encoding));
            }
        }
    }

    /// Whether a walk of the room is still to come, which then asks for what waits.
    pub fn wait(&mut self, room: &RoomId) -> bool {
        let Some(hosted) = self.find(room.as_str()) else {
            return false;
        };
        let room = &mut self.rooms[hosted as usize];
        room.waits = room.streams.iter().flatten().any(|hall| hall.queued);
        room.waits
    }

    /// The room a walk has come to, if something waits for that.
    pub fn waited(&mut self, hosted: u32) -> Option<RoomId> {
        let room = self.rooms.get_mut(hosted as usize)?;
        std::mem::take(&mut room.waits).then(|| room.id.clone())
    }

    /// The connections that sit in a room.
    pub fn slots(&self, hosted: u32) -> Vec<u32> {
        let halls = self.rooms[hosted as usize].streams.iter().flatten();
        halls
            .flat_map(|hall| hall.stream.members().iter().map(|member| member.slot))
            .collect()
    }

    /// New bounds for the logs, on reload.
    pub fn apply_classes(&mut self, rooms: &Rooms) {
        for (_, room) in &mut self.rooms {
            let bytes_max = rooms.class_of(room.id.as_str()).log_bytes_max;
            for hall in room.streams.iter_mut().flatten() {
                hall.stream.set_bytes_max(bytes_max);
            }
        }
    }

    /// The room is gone: nobody new finds it, and who has read to the end is let go by the walk. Returns whether it was
    /// here at all.
    pub fn close(&mut self, room: &RoomId, life: Life) -> Option<u32> {
        let hosted = self.find(room.as_str())?;
        let found = &mut self.rooms[hosted as usize];
        if found.life != life {
            return None;
        }
        found.closed = true;
        self.by_id.remove(room.as_str());
        Some(hosted)
    }
}
