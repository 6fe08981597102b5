//! What happened, for whoever looks later: one JSON object for each event of the pipeline (`live:events`, Kafka). A line or event is what
//! viewers got of it, with its numbering.

use crate::base::identity::User;
use crate::base::ids::{Epoch, RoomId, UserId};
use crate::proto::danmaku::server::{self, Numbered, Object};

/// Somebody came into a room; `user` is `None` for an anonymous viewer. Times are milliseconds since 1970.
pub fn join(out: &mut Vec<u8>, room: &RoomId, user: Option<&User>, ts_ms: u64) {
    Object::open(out, "join")
        .room(room)
        .number("ts", ts_ms)
        .user(user)
        .close();
}

/// Somebody went.
pub fn leave(out: &mut Vec<u8>, room: &RoomId, user: Option<&User>, ts_ms: u64) {
    Object::open(out, "leave")
        .room(room)
        .number("ts", ts_ms)
        .user(user)
        .close();
}

/// A line or event was numbered; `rest` is its object from behind its number on.
pub fn numbered(
    out: &mut Vec<u8>,
    kind: Numbered,
    room: &RoomId,
    (epoch, seq): (Epoch, u64),
    rest: &[u8],
) {
    server::numbered(out, kind, room, seq);
    let epoch = Object { out }.number("epoch", epoch.0);
    epoch.out.extend_from_slice(rest);
}

/// A user was sent out of a room.
pub fn kick(out: &mut Vec<u8>, room: &RoomId, user: &UserId, reason: &str, ts_ms: u64) {
    Object::open(out, "kick")
        .room(room)
        .number("ts", ts_ms)
        .text("user", user.as_str())
        .text("reason", reason)
        .close();
}

/// A room was closed.
pub fn close(out: &mut Vec<u8>, room: &RoomId, reason: &str, ts_ms: u64) {
    Object::open(out, "close")
        .room(room)
        .number("ts", ts_ms)
        .text("reason", reason)
        .close();
}

/// A user's connections were closed.
pub fn disconnect(out: &mut Vec<u8>, user: &UserId, reason: &str, ts_ms: u64) {
    Object::open(out, "disconnect")
        .number("ts", ts_ms)
        .text("user", user.as_str())
        .text("reason", reason)
        .close();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn each_is_an_object_of_its_own() {
        let room = RoomId::parse("r").unwrap();
        let user = User {
            id: UserId::parse("a\"b").unwrap(),
            name: "n".into(),
        };
        let shown = json!({"id": "a\"b", "name": "n"});
        assert_eq!(
            written(|out| join(out, &room, Some(&user), 5)),
            json!({"type": "join", "room": "r", "ts": 5, "user": shown})
        );
        assert_eq!(
            written(|out| leave(out, &room, None, 5)),
            json!({"type": "leave", "room": "r", "ts": 5, "user": null})
        );
        let rest = br#","ts":5,"text":"x"}"#;
        let at = (Epoch(9), 4);
        assert_eq!(
            written(|out| numbered(out, Numbered::Danmaku, &room, at, rest)),
            json!({"type": "danmaku", "room": "r", "epoch": 9, "seq": 4, "ts": 5, "text": "x"})
        );
        assert_eq!(
            written(|out| kick(out, &room, &user.id, "why", 5)),
            json!({"type": "kick", "room": "r", "ts": 5, "user": "a\"b", "reason": "why"})
        );
        assert_eq!(
            written(|out| close(out, &room, "why", 5)),
            json!({"type": "close", "room": "r", "ts": 5, "reason": "why"})
        );
        assert_eq!(
            written(|out| disconnect(out, &user.id, "why", 5)),
            json!({"type": "disconnect", "ts": 5, "user": "a\"b", "reason": "why"})
        );
    }
}
