//! Seats: a connection enters a hosted room, leaves it, leaves all. Part of the shard's turn.

use super::Shard;
use super::conn::Kind;
use crate::base::ids::{ConnId, Life, RoomId, UserId};
use crate::proto::danmaku::server;
use crate::room::ask::{Chunk, Encoding, Joined, Leave, Mark, Own, Sealed, Seat};
use crate::session::viewer::reply;
use crate::telemetry::table::{Counter, Dropped};

impl Shard {
    /// Seats a connection in a room it has been let into.
    pub(super) fn take_seat(
        &mut self,
        id: ConnId,
        room: &RoomId,
        joined: &Joined,
        encoding: Encoding,
    ) {
        let log_bytes_max = self
            .policy
            .config
            .rooms
            .class_of(room.as_str())
            .log_bytes_max;
        if let Some(conn) = self.conns.get_mut(id.slot as usize) {
            self.hosting
                .seat(room, joined.life, conn, id.slot, encoding, log_bytes_max);
            self.metrics.inc(Counter::JoinsTotal);
        }
    }

    /// Takes a room's sealed batch into its logs here. Who spoke and was left out is first handed its own version of it.
    pub(super) fn host(&mut self, sealed: &Sealed) {
        for own in &sealed.own {
            if own.speaker.seat.shard == self.id {
                self.hand_own(sealed, own);
            }
        }
        self.hosting.append(sealed, self.now);
    }

    /// A viewer whose socket is full gets no version of its own: it reads from the log when it can, like any slow viewer.
    fn hand_own(&mut self, sealed: &Sealed, own: &Own) {
        let encoding = own.speaker.seat.encoding;
        let id = own.speaker.conn;
        let Some(index) = self.seat_index(id, sealed.room.as_str()) else {
            return;
        };
        let Some(chunk) = &sealed.chunks[encoding.index()] else {
            return;
        };
        let Some(conn) = self.conns.get_mut(id.slot as usize) else {
            return;
        };
        let seat = conn.seats[index];
        let room = &self.hosting.rooms[seat.hosted as usize];
        if conn.is_held() || room.life != sealed.life {
            return;
        }
        let Some(stream) = self.hosting.stream(seat.hosted, encoding) else {
            return;
        };
        let out = conn.outbox.tail();
        let Some(handed) = stream.hand_over(seat.member as usize, chunk, &own.bytes, out) else {
            return;
        };
        let lines = u64::from(handed.lines + own.lines);
        let frames = u64::from(handed.frames + own.frames);
        let told = u64::from(handed.told + own.told);
        self.metrics.add(Counter::DeliveriesTotal, lines);
        self.metrics.add(Counter::FramesOutTotal, frames);
        self.metrics.dropped(Dropped::Sampled, told);
        self.note_flush(id);
    }

    /// Which of a connection's seats is in that room. A room closed and begun anew is another room.
    pub(super) fn seat_index(&mut self, id: ConnId, room: &str) -> Option<usize> {
        let hosted = self.hosting.find(room)?;
        let conn = self.conn(id)?;
        conn.seats.iter().position(|seat| seat.hosted == hosted)
    }

    /// Gives up one seat and tells the room's home.
    pub(super) fn leave_seat(&mut self, id: ConnId, index: usize) {
        let Some(conn) = self.conns.get(id.slot as usize) else {
            return;
        };
        let (encoding, who) = match &conn.kind {
            Kind::Viewer(viewer) => (viewer.encoding(), viewer.identity()),
            Kind::Http(http) => match &http.upgrading {
                Some(upgrading) => (upgrading.encoding(), upgrading.identity()),
                None => return,
            },
        };
        let who = who.map(|identity| identity.user.id.clone());
        let (told, undelivered) = self
            .hosting
            .unseat(&mut self.conns, id.slot, index, encoding);
        self.metrics.inc(Counter::LeavesTotal);
        self.metrics.dropped(Dropped::Left, u64::from(undelivered));
        if let Some((room, life)) = told {
            let seat = Seat {
                shard: self.id,
                encoding,
            };
            self.post_leave(room, Leave { who, life, seat });
        }
    }

    /// Gives up every seat.
    pub(super) fn leave_all(&mut self, id: ConnId) {
        while let Some(conn) = self.conns.get(id.slot as usize)
            && !conn.seats.is_empty()
        {
            let last = conn.seats.len() - 1;
            self.leave_seat(id, last);
        }
    }

    /// A home has kicked a user: whoever of theirs sits here leaves, is told why, and stays connected.
    pub(super) fn kick(&mut self, room: &RoomId, life: Life, user: &UserId, reason: &str) {
        let Some(hosted) = self.hosting.find(room.as_str()) else {
            return;
        };
        if self.hosting.rooms[hosted as usize].life != life {
            return;
        }
        // By seats, not by `by_user`: someone whose upgrade still waits for another room sits here already.
        for slot in self.hosting.slots(hosted) {
            let Some(conn) = self.conns.get(slot as usize) else {
                continue;
            };
            let id = conn.id(slot);
            let identity = match &conn.kind {
                Kind::Viewer(viewer) => viewer.identity(),
                Kind::Http(http) => http.upgrading.as_ref().and_then(|up| up.identity()),
            };
            if identity.is_none_or(|identity| identity.user.id != *user) {
                continue;
            }
            let Some(index) = self.seat_index(id, room.as_str()) else {
                continue;
            };
            self.leave_seat(id, index);
            let left = |json: &mut Vec<u8>| {
                server::left(json, None, room, Some(("kicked", reason)));
            };
            match self.http(id).and_then(|http| http.upgrading.as_mut()) {
                Some(upgrading) => reply(upgrading.joined_tail(), left),
                None => self.tell(id, left),
            }
        }
    }

    /// A home has closed its room: the news goes by the log, as an event, behind everything said before; the walk lets
    /// go of whoever has read it.
    pub(super) fn room_closed(&mut self, room: &RoomId, life: Life, reason: &str) {
        let Some(hosted) = self.hosting.close(room, life) else {
            return;
        };
        let mut frame = Vec::new();
        reply(&mut frame, |json| {
            server::left(json, None, room, Some(("room_closed", reason)));
        });
        let mark = Mark {
            end: frame.len() as u32,
            lines: 0,
            told: 0,
            events: 1,
        };
        let chunk = Chunk {
            bytes: frame.into(),
            marks: [mark].into(),
        };
        let found = &mut self.hosting.rooms[hosted as usize];
        for encoding in Encoding::ALL {
            if let Some(hall) = &mut found.streams[encoding.index()] {
                let now_ns = self.now.mono_ns;
                hall.stream.append(&chunk, Some(&chunk), now_ns, now_ns);
                if !hall.queued {
                    hall.queued = true;
                    self.hosting.walking.push_back((hosted, encoding));
                }
            }
        }
    }
}
