//! What the server says: each function appends one JSON object, without a newline, to a buffer the caller owns.
//!
//! Field names and order are those of `docs/PROTOCOL.md`. Runs on shards; a room's line is written once for the node, by its
//! home. No writer allocates beyond the buffer's own growth, none fails, and none ever writes a raw newline: in a batch frame
//! newlines separate objects.
//!
//! An `id` is passed as the JSON text [`super::Id::as_raw`] gave, so that it may wait as plain text for a home's answer.
//!
//! Strings are escaped for JSON alone (RFC 8259 section 7). `<`, `&` and U+2028 pass as they are: keeping text from becoming
//! markup is the business of whoever shows it.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{Style, json};
use crate::base::identity::User;
use crate::base::ids::{Epoch, RoomId};
use crate::base::refusal::Refusal;
use crate::proto::node::part::Part;

/// A line of a room, but for where and its number.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Milliseconds since 1970 when it was numbered.
    pub ts_ms: u64,
    /// Who said it; `None` is anonymous and written `null`.
    pub user: Option<&'a User>,
    /// What, already cleaned.
    pub text: &'a str,
    /// Looks; where the sender gave none the defaults are written, so that clients need no rule of their own.
    pub style: Option<Style>,
    /// A publisher's own JSON; left out if `None`.
    pub data: Option<&'a RawValue>,
}

/// An event of a room, but for where and its number.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Milliseconds since 1970 when it was numbered.
    pub ts_ms: u64,
    /// Its name.
    pub event: &'a str,
    /// A publisher's own JSON; `null` if `None`.
    pub data: Option<&'a RawValue>,
}

/// The answer to a join.
#[derive(Clone, Copy, Debug)]
pub struct Joined<'a> {
    /// Where.
    pub room: &'a RoomId,
    /// Connections in it.
    pub online: u64,
    /// The numbering.
    pub epoch: Epoch,
    /// The newest number.
    pub seq: u64,
    /// Whether nothing was missed since the resume point.
    pub recovered: bool,
    /// What was missed, as whole JSON objects; left out if `None`.
    pub messages: Option<&'a [Bytes]>,
}

/// The first message of a connection. `user` is `None` for an anonymous one.
pub fn welcome(
    out: &mut Vec<u8>,
    connection: &str,
    user: Option<&User>,
    heartbeat_ms: u64,
    server: &str,
) {
    Object::open(out, "welcome")
        .text("connection", connection)
        .user(user)
        .number("heartbeat_ms", heartbeat_ms)
        .text("server", server)
        .close();
}

/// What bears a number in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbered {
    /// `danmaku`.
    Danmaku,
    /// `event`.
    Event,
}

/// The beginning of a numbered object, up to and with its number: who has the rest of it, from [`danmaku_rest`] or
/// [`event_rest`], appends that.
pub fn numbered(out: &mut Vec<u8>, kind: Numbered, room: &RoomId, seq: u64) {
    let kind = match kind {
        Numbered::Danmaku => "danmaku",
        Numbered::Event => "event",
    };
    Object::open(out, kind).room(room).number("seq", seq);
}

/// What follows a line's number.
pub fn danmaku_rest(out: &mut Vec<u8>, line: &Line<'_>) {
    let object = Object { out }
        .number("ts", line.ts_ms)
        .user(line.user)
        .text("text", line.text)
        .style(line.style.unwrap_or_default());
    match line.data {
        Some(data) => object.data(Some(data)).close(),
        None => object.close(),
    }
}

/// What follows an event's number.
pub fn event_rest(out: &mut Vec<u8>, event: &Event<'_>) {
    Object { out }
        .number("ts", event.ts_ms)
        .text("event", event.event)
        .data(event.data)
        .close();
}

/// The answer to a join, or the news of one asked for in the URL.
pub fn joined(out: &mut Vec<u8>, id: Option<&str>, joined: &Joined<'_>) {
    let mut object = Object::open(out, "joined")
        .id(id)
        .room(joined.room)
        .number("online", joined.online)
        .number("epoch", joined.epoch.0)
        .number("seq", joined.seq)
        .raw(
            "recovered",
            if joined.recovered { b"true" } else { b"false" },
        );
    if let Some(messages) = joined.messages {
        object = object.list("messages", messages);
    }
    object.close();
}

/// Out of the room: as asked (with the `id`), or because of `why` (a code word and a reason).
pub fn left(out: &mut Vec<u8>, id: Option<&str>, room: &RoomId, why: Option<(&str, &str)>) {
    let object = Object::open(out, "left").id(id).room(room);
    match why {
        Some((code, reason)) => object.text("code", code).text("reason", reason).close(),
        None => object.close(),
    }
}

/// The sender's line was numbered. `epoch` says in which numbering, where there may be another one before the ack is read.
pub fn ack(out: &mut Vec<u8>, id: &str, room: &RoomId, epoch: Option<Epoch>, seq: u64) {
    let object = Object::open(out, "ack").id(Some(id)).room(room);
    match epoch {
        Some(epoch) => object.number("epoch", epoch.0).number("seq", seq).close(),
        None => object.number("seq", seq).close(),
    }
}

/// The newer token was taken; it ends at `exp_s`, seconds since 1970.
pub fn authed(out: &mut Vec<u8>, id: Option<&str>, exp_s: u64) {
    Object::open(out, "authed")
        .id(id)
        .number("exp", exp_s)
        .close();
}

/// The answer to a ping. `ts_ms` is milliseconds since 1970.
pub fn pong(out: &mut Vec<u8>, id: Option<&str>, ts_ms: u64) {
    Object::open(out, "pong").id(id).number("ts", ts_ms).close();
}

/// How many connections the room has now.
pub fn online(out: &mut Vec<u8>, room: &RoomId, count: u64) {
    Object::open(out, "online")
        .room(room)
        .number("count", count)
        .close();
}

/// How many lines this viewer was too slow for.
pub fn dropped(out: &mut Vec<u8>, room: &RoomId, count: u64) {
    Object::open(out, "dropped")
        .room(room)
        .number("count", count)
        .close();
}

/// Lines that the room's budget had no place for; every line up to `upto` has been sent or is in a count.
pub fn left_out(out: &mut Vec<u8>, room: &RoomId, count: u64, upto: u64) {
    Object::open(out, "dropped")
        .room(room)
        .number("count", count)
        .number("upto", upto)
        .close();
}

/// Before a drain: connect anew after this long.
pub fn notice_reconnect(out: &mut Vec<u8>, retry_after_ms: u64) {
    Object::open(out, "notice")
        .text("code", "reconnect")
        .number("retry_after_ms", retry_after_ms)
        .close();
}

/// To every connection. `data` is written `null` if `None`; `ts_ms` is milliseconds since 1970.
pub fn broadcast(out: &mut Vec<u8>, event: &str, data: Option<&RawValue>, ts_ms: u64) {
    named(out, "broadcast", event, data, ts_ms);
}

/// To every connection of one user; like [`broadcast`] otherwise.
pub fn push(out: &mut Vec<u8>, event: &str, data: Option<&RawValue>, ts_ms: u64) {
    named(out, "push", event, data, ts_ms);
}

fn named(out: &mut Vec<u8>, kind: &str, event: &str, data: Option<&RawValue>, ts_ms: u64) {
    Object::open(out, kind)
        .text("event", event)
        .data(data)
        .number("ts", ts_ms)
        .close();
}

/// The room's numbering began anew at `seq`.
pub fn epoch(out: &mut Vec<u8>, room: &RoomId, epoch: Epoch, seq: u64) {
    Object::open(out, "epoch")
        .room(room)
        .number("epoch", epoch.0)
        .number("seq", seq)
        .close();
}

/// A room's figures are shown no more.
pub fn stats_off(out: &mut Vec<u8>, id: Option<&str>, room: &RoomId) {
    Object::open(out, "stats")
        .id(id)
        .room(room)
        .raw("on", b"false")
        .close();
}

/// What happens in a room, as figures. `tenths` are lines a second, in tenths; `ts_ms` is milliseconds since 1970.
pub fn stats(
    out: &mut Vec<u8>,
    id: Option<&str>,
    room: &RoomId,
    ts_ms: u64,
    part: &Part,
    tenths: u64,
) {
    let mut speakers = b"[".to_vec();
    for (index, spoke) in part.speakers.iter().enumerate() {
        if index > 0 {
            speakers.push(b',');
        }
        speakers.extend_from_slice(b"{\"user\":{\"id\":");
        string(&mut speakers, spoke.id.as_str());
        speakers.extend_from_slice(b",\"name\":");
        string(&mut speakers, &spoke.name);
        speakers.extend_from_slice(b"},\"lines\":");
        let mut lines = itoa::Buffer::new();
        speakers.extend_from_slice(lines.format(spoke.lines).as_bytes());
        speakers.push(b'}');
    }
    speakers.push(b']');
    Object::open(out, "stats")
        .id(id)
        .room(room)
        .number("ts", ts_ms)
        .number("viewers", u64::from(part.viewers))
        .number("joins_per_min", u64::from(part.joins))
        .number("leaves_per_min", u64::from(part.leaves))
        .raw(
            "lines_per_s",
            format!("{}.{}", tenths / 10, tenths % 10).as_bytes(),
        )
        .raw("top_speakers", &speakers)
        .close();
}

/// A message was refused.
pub fn error(out: &mut Vec<u8>, id: Option<&str>, refusal: &Refusal) {
    let object = Object::open(out, "error")
        .id(id)
        .text("code", refusal.code.as_str())
        .text("message", &refusal.reason)
        .text("hint", refusal.code.hint());
    match refusal.retry_after_ms {
        Some(after_ms) => object.number("retry_after_ms", u64::from(after_ms)).close(),
        None => object.close(),
    }
}

/// Appends a JSON string, quotes included.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = first_to_escape(rest) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = from.split_first() else {
            break;
        };
        escape(out, byte);
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digit = |nibble: u8| HEX[usize::from(nibble & 0xf)];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[digit(byte >> 4), digit(byte)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Where the first byte stands that may not be in a JSON string as it is: below 0x20, `"` or `\`. Eight bytes at a time.
fn first_to_escape(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // The lowest marked byte is exact: a borrow only runs upwards from a byte that is itself marked.
    let below = |x: u64, limit: u64| x.wrapping_sub(ONES * limit) & !x & HIGHS;
    let equals = |x: u64, byte: u8| below(x ^ (ONES * u64::from(byte)), 1);
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let x = u64::from_le_bytes(*word);
        let marks = below(x, 0x20) | equals(x, b'"') | equals(x, b'\\');
        if marks != 0 {
            return Some(index * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let at = tail
        .iter()
        .position(|&b| b < 0x20 || b == b'"' || b == b'\\')?;
    Some(bytes.len() - tail.len() + at)
}

/// An object being written. Names are literals that need no escaping.
pub(super) struct Object<'o> {
    pub out: &'o mut Vec<u8>,
}

impl<'o> Object<'o> {
    pub fn open(out: &'o mut Vec<u8>, kind: &str) -> Object<'o> {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        Object { out }
    }

    pub fn close(self) {
        self.out.push(b'}');
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn raw(mut self, name: &str, json: &[u8]) -> Self {
        self.name(name);
        self.out.extend_from_slice(json);
        self
    }

    pub fn number(self, name: &str, number: u64) -> Self {
        self.raw(name, itoa::Buffer::new().format(number).as_bytes())
    }

    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        string(self.out, text);
        self
    }

    fn id(self, id: Option<&str>) -> Self {
        match id {
            Some(id) => self.raw("id", id.as_bytes()),
            None => self,
        }
    }

    /// A room's name is made of characters that need no escaping.
    pub fn room(mut self, room: &RoomId) -> Self {
        self.name("room");
        self.out.push(b'"');
        self.out.extend_from_slice(room.as_str().as_bytes());
        self.out.push(b'"');
        self
    }

    pub fn user(mut self, user: Option<&User>) -> Self {
        let Some(user) = user else {
            return self.raw("user", b"null");
        };
        self.name("user");
        self.out.extend_from_slice(b"{\"id\":");
        string(self.out, user.id.as_str());
        self.out.extend_from_slice(b",\"name\":");
        string(self.out, &user.name);
        self.out.push(b'}');
        self
    }

    fn style(mut self, style: Style) -> Self {
        const HEX: [u8; 16] = *b"0123456789abcdef";
        let digit = |shift: u32| HEX[(style.color >> shift) as usize & 0xf];
        self.name("style");
        self.out.extend_from_slice(b"{\"color\":\"#");
        self.out
            .extend_from_slice(&[20, 16, 12, 8, 4, 0].map(digit));
        self.out.extend_from_slice(b"\",\"mode\":\"");
        self.out.extend_from_slice(style.mode.as_str().as_bytes());
        self.out.extend_from_slice(b"\",\"size\":");
        let mut size = itoa::Buffer::new();
        self.out
            .extend_from_slice(size.format(style.size).as_bytes());
        self.out.push(b'}');
        self
    }

    fn data(self, data: Option<&RawValue>) -> Self {
        let line = json::one_line(data.map_or("null", RawValue::get));
        self.raw("data", line.as_bytes())
    }

    fn list(mut self, name: &str, objects: &[Bytes]) -> Self {
        self.name(name);
        self.out.push(b'[');
        for (index, object) in objects.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(object);
        }
        self.out.push(b']');
        self
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
