//! What happens is told to the sinks of the event pipeline, where there are any. Part of the shard's turn: it waits for none of them.

use bytes::Bytes;

use super::Shard;
use crate::base::identity::User;
use crate::base::ids::{RoomId, UserId};
use crate::bus::Happened;
use crate::proto::danmaku::happened;
use crate::proto::danmaku::server::Numbered;
use crate::proto::node::Kind;
use crate::room::ask::{Leave, Published};

impl Shard {
    /// Whether anybody is told.
    pub(super) fn tells_events(&self) -> bool {
        !self.sinks.is_empty()
    }

    /// Somebody came into a room.
    pub(super) fn tell_join(&self, room: &RoomId, user: Option<&User>) {
        let ts_ms = self.now.unix_ms;
        self.happened("join", Some(room), |out| {
            happened::join(out, room, user, ts_ms);
        });
    }

    /// Somebody is about to go.
    pub(super) fn tell_leave(&mut self, room: &RoomId, leave: &Leave) {
        if !self.tells_events() {
            return;
        }
        // Members of a room that was closed are told of by that.
        let Some(home) = self
            .homes
            .find(room)
            .ok()
            .filter(|home| home.life() == leave.life)
        else {
            return;
        };
        let who = leave.who.as_ref();
        let known = who.and_then(|who| home.user(who)).cloned();
        let ts_ms = self.now.unix_ms;
        self.happened("leave", Some(room), |out| {
            happened::leave(out, room, known.as_ref(), ts_ms);
        });
    }

    /// A line or event has its number; `rest` is its object from behind it on.
    pub(super) fn tell_line(&self, room: &RoomId, kind: Kind, published: Published, rest: &[u8]) {
        let (word, kind) = match kind {
            Kind::Line | Kind::Host => ("danmaku", Numbered::Danmaku),
            Kind::Event => ("event", Numbered::Event),
        };
        let at = (published.epoch, published.seq);
        self.happened(word, Some(room), |out| {
            happened::numbered(out, kind, room, at, rest);
        });
    }

    /// A user was sent out of a room.
    pub(super) fn tell_kick(&self, room: &RoomId, user: &UserId, reason: &str) {
        let ts_ms = self.now.unix_ms;
        self.happened("kick", Some(room), |out| {
            happened::kick(out, room, user, reason, ts_ms);
        });
    }

    /// A room was closed.
    pub(super) fn tell_close(&self, room: &RoomId, reason: &str) {
        let ts_ms = self.now.unix_ms;
        self.happened("close", Some(room), |out| {
            happened::close(out, room, reason, ts_ms);
        });
    }

    /// A user's connections were closed.
    pub(super) fn tell_disconnect(&self, user: &UserId, reason: &str) {
        let ts_ms = self.now.unix_ms;
        self.happened("disconnect", None, |out| {
            happened::disconnect(out, user, reason, ts_ms);
        });
    }

    fn happened(
        &self,
        kind: &'static str,
        room: Option<&RoomId>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if !self.tells_events() {
            return;
        }
        let mut json = Vec::with_capacity(256);
        write(&mut json);
        let happened = Happened {
            kind,
            room: room.cloned(),
            json: Bytes::from(json),
        };
        for sink in self.sinks.iter() {
            let bytes = happened.json.len() as u64;
            if !sink.stats.has_place(bytes) {
                sink.stats.dropped(1);
            } else if sink.queue.try_send(happened.clone()).is_err() {
                sink.stats.took(bytes);
                sink.stats.dropped(1);
            }
        }
    }
}
