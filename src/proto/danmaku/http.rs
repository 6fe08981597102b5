//! The JSON bodies of HTTP requests: pushes, broadcasts, kicks, room settings, batches.
//!
//! Called by `api` with a whole body in hand (`limits.body_bytes_max` bounds it). Bytes in, checked values out; what a caller
//! may do (name another author, send events) is not judged here. Fields a body does not know are ignored; `null` counts as
//! absent. Errors are refusals that name the field: `bad_message` for the shape, `bad_room`, `bad_text`, `bad_style`,
//! `bad_user`, `bad_event` for what stands in it.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::Style;
use super::client::{bad_room, required, room_id};
use super::json::{self, bad, excerpt, missing};
use super::text::{check_event_name, clean, clean_text, is_removed, parse_style};
use crate::base::identity::{Access, User};
use crate::base::ids::{RoomId, USER_ID_BYTES_MAX, USER_NAME_BYTES_MAX, UserId};
use crate::base::refusal::{Code, Refusal};

/// Most rooms of one push.
pub const ROOMS_PER_PUSH_MAX: usize = 1000;
/// Most requests of one batch.
pub const BATCH_REQUESTS_MAX: usize = 100;
/// Most bytes of a room's own `data`, which its home keeps; a push's is bounded by the body.
pub const ROOM_DATA_BYTES_MAX: usize = 8 * 1024;
/// Longest room title in bytes.
pub const TITLE_BYTES_MAX: usize = 256;
/// Longest reason in bytes: what a close frame can carry beside its code (RFC 6455 section 5.5).
pub const REASON_BYTES_MAX: usize = 123;
/// Longest gathering time of a room in milliseconds.
pub const TICK_MS_MAX: u32 = 10_000;
/// Lines per second a room may be bound to at most: beyond it there is no bound.
const DELIVER_PER_S_MAX: u32 = 1_000_000;
/// Longest path of a request in a batch, in bytes.
pub const PATH_BYTES_MAX: usize = 2048;

/// `POST /api/v1/danmaku/push`.
#[derive(Clone, Debug)]
pub struct PushBody {
    /// Where to.
    pub target: Target,
    /// In whose name; only API keys may give one.
    pub user: Option<User>,
    /// What.
    pub content: PushContent,
}

/// Where a push goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `room`.
    One(RoomId),
    /// `rooms`, 1..=1000 in the order given, repetitions included: each has its place in the answer.
    Many(Vec<Entry>),
}

/// One of `rooms`. An ill-spelt one does not keep the line from the others.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Spelt right.
    Room(RoomId),
    /// Spelt wrong.
    Refused {
        /// Its first characters, for the answer.
        room: Box<str>,
        /// `bad_room`.
        refusal: Refusal,
    },
}

/// What is pushed.
#[derive(Clone, Debug)]
pub enum PushContent {
    /// `"type":"danmaku"`, or no type.
    Line {
        /// Cleaned, 1..=`text_bytes_max` bytes.
        text: Arc<str>,
        /// Looks, if given.
        style: Option<Style>,
        /// The publisher's own JSON, on one line.
        data: Option<Box<RawValue>>,
    },
    /// `"type":"event"`.
    Event {
        /// Checked name.
        event: Box<str>,
        /// The publisher's own JSON, on one line.
        data: Option<Box<RawValue>>,
    },
}

/// `POST /api/v1/broadcast` and `POST /api/v1/users/{user}/push`.
#[derive(Clone, Debug)]
pub struct BroadcastBody {
    /// Checked name.
    pub event: Box<str>,
    /// The publisher's own JSON, on one line.
    pub data: Option<Box<RawValue>>,
}

/// `POST /api/v1/users/{user}/disconnect`; the body may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisconnectBody {
    /// What the user is told: up to 123 bytes, without control characters; `None` if nothing is left.
    pub reason: Option<Box<str>>,
    /// Whether they may come back (close 4400) or not (4008).
    pub reconnect: bool,
}

/// `POST /api/v1/rooms/{room}/kick`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KickBody {
    /// Whom.
    pub user: UserId,
    /// What they are told; see [`DisconnectBody::reason`].
    pub reason: Option<Box<str>>,
}

/// `PUT /api/v1/rooms/{room}`: what is given changes, the rest stays; the body may be empty.
#[derive(Clone, Debug, Default)]
pub struct RoomPatchBody {
    /// Up to 256 bytes, without control characters; may be empty.
    pub title: Option<Box<str>>,
    /// Who gets in.
    pub access: Option<Access>,
    /// Gathering time, 0..=10,000; 0 sends at the end of the turn.
    pub tick_ms: Option<u32>,
    /// Lines per second each viewer gets at most; 0 = off.
    pub deliver_per_s_max: Option<u32>,
    /// The platform's own JSON, on one line, up to 8 KiB.
    pub data: Option<Box<RawValue>>,
}

/// `POST /api/v1/batch`.
#[derive(Clone, Debug)]
pub struct BatchBody<'a> {
    /// 1..=100, in order.
    pub requests: Vec<BatchRequest<'a>>,
}

/// One request of a batch.
#[derive(Clone, Debug)]
pub struct BatchRequest<'a> {
    /// A token of capital letters; whether the path knows it, the route table says.
    pub method: Cow<'a, str>,
    /// Begins with `/`; printable ASCII, up to 2,048 bytes, query included.
    pub path: Cow<'a, str>,
    /// The body as it stands in the batch.
    pub body: Option<&'a RawValue>,
}

/// Reads a push. `text_bytes_max` is the setting of that name.
pub fn parse_push(body: &[u8], text_bytes_max: usize) -> Result<PushBody, Refusal> {
    const NAMES: [&str; 8] = [
        "type", "room", "rooms", "user", "text", "style", "event", "data",
    ];
    let [kind, room, rooms, user, text, style, event, data] =
        json::object(utf8(body)?, "the body", &NAMES)?.sound()?;
    let target = read_target(room, rooms)?;
    let user = user.map(read_user).transpose()?;
    let kind = kind.map(|kind| json::string("type", kind)).transpose()?;
    let content = match kind.as_deref() {
        None | Some("danmaku") => {
            if text.is_none() && event.is_some() {
                return Err(bad(
                    "text is missing; to push an event say \"type\":\"event\"",
                ));
            }
            PushContent::Line {
                text: clean_text(&required("text", text)?, text_bytes_max)?.into(),
                style: style.map(parse_style).transpose()?,
                data: read_data(data)?,
            }
        }
        Some("event") => PushContent::Event {
            event: read_event(event)?,
            data: read_data(data)?,
        },
        Some(other) => {
            let other = excerpt(other);
            return Err(bad(format!(
                "type must be danmaku or event, found \"{other}\""
            )));
        }
    };
    Ok(PushBody {
        target,
        user,
        content,
    })
}

/// Reads a broadcast or a push to one user.
pub fn parse_broadcast(body: &[u8]) -> Result<BroadcastBody, Refusal> {
    let [event, data] = json::object(utf8(body)?, "the body", &["event", "data"])?.sound()?;
    Ok(BroadcastBody {
        event: read_event(event)?,
        data: read_data(data)?,
    })
}

/// Reads a disconnect.
pub fn parse_disconnect(body: &[u8]) -> Result<DisconnectBody, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(DisconnectBody::default());
    }
    let names = ["reason", "reconnect"];
    let [reason, reconnect] = json::object(utf8(body)?, "the body", &names)?.sound()?;
    Ok(DisconnectBody {
        reason: read_reason(reason)?,
        reconnect: reconnect.map_or(Ok(false), |raw| json::boolean("reconnect", raw))?,
    })
}

/// Reads the close of a room: a reason, or nothing.
pub fn parse_close(body: &[u8]) -> Result<Option<Box<str>>, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let [reason] = json::object(utf8(body)?, "the body", &["reason"])?.sound()?;
    read_reason(reason)
}

/// Reads a kick.
pub fn parse_kick(body: &[u8]) -> Result<KickBody, Refusal> {
    let [user, reason] = json::object(utf8(body)?, "the body", &["user", "reason"])?.sound()?;
    Ok(KickBody {
        user: read_user_id("user", user).map_err(as_bad_user)?,
        reason: read_reason(reason)?,
    })
}

/// Reads a change to a room.
pub fn parse_room_patch(body: &[u8]) -> Result<RoomPatchBody, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(RoomPatchBody::default());
    }
    let names = ["title", "access", "tick_ms", "deliver_per_s_max", "data"];
    let [title, access, tick_ms, deliver, data] =
        json::object(utf8(body)?, "the body", &names)?.sound()?;
    Ok(RoomPatchBody {
        title: title
            .map(|raw| read_words("title", raw, TITLE_BYTES_MAX))
            .transpose()?,
        access: access.map(read_access).transpose()?,
        tick_ms: tick_ms
            .map(|raw| read_u32("tick_ms", raw, TICK_MS_MAX))
            .transpose()?,
        deliver_per_s_max: deliver
            .map(|raw| read_u32("deliver_per_s_max", raw, DELIVER_PER_S_MAX))
            .transpose()?,
        data: read_room_data(data)?,
    })
}

/// Reads a batch. A request that is ill-shaped refuses the whole batch, named by its index: nothing has been done yet.
pub fn parse_batch(body: &[u8]) -> Result<BatchBody<'_>, Refusal> {
    let [requests] = json::object(utf8(body)?, "the body", &["requests"])?.sound()?;
    let requests = requests.ok_or_else(|| missing("requests"))?;
    let requests = json::array("requests", requests, BATCH_REQUESTS_MAX)?
        .into_iter()
        .enumerate()
        .map(|(index, raw)| read_request(&format!("requests[{index}]"), raw))
        .collect::<Result<_, _>>()?;
    Ok(BatchBody { requests })
}

fn read_request<'a>(what: &str, raw: &'a RawValue) -> Result<BatchRequest<'a>, Refusal> {
    let names = ["method", "path", "body"];
    let [method, path, body] = json::object(raw.get(), what, &names)?.sound()?;
    let method = required(&format!("{what}.method"), method)?;
    let path = required(&format!("{what}.path"), path)?;
    if !(1..=16).contains(&method.len()) || !method.bytes().all(|b| b.is_ascii_uppercase()) {
        let method = excerpt(&method);
        return Err(bad(format!(
            "{what}.method must be an HTTP method in capitals, found \"{method}\""
        )));
    }
    let printable = path.bytes().all(|b| b.is_ascii_graphic());
    if !path.starts_with('/') || !printable || path.len() > PATH_BYTES_MAX {
        return Err(bad(format!(
            "{what}.path must begin with / and be up to {PATH_BYTES_MAX} bytes of printable ASCII, found \"{}\" ({} bytes)",
            excerpt(&path),
            path.len()
        )));
    }
    Ok(BatchRequest { method, path, body })
}

fn read_target(room: Option<&RawValue>, rooms: Option<&RawValue>) -> Result<Target, Refusal> {
    match (room, rooms) {
        (Some(_), Some(_)) => Err(bad("room and rooms are both there; send one of them")),
        (None, None) => Err(bad("room is missing; send room, or rooms with an API key")),
        (Some(_), None) => Ok(Target::One(room_id("room", room)?)),
        (None, Some(rooms)) => {
            let entries = json::array("rooms", rooms, ROOMS_PER_PUSH_MAX)?
                .into_iter()
                .enumerate()
                .map(|(index, raw)| read_entry(&format!("rooms[{index}]"), raw))
                .collect::<Result<_, _>>()?;
            Ok(Target::Many(entries))
        }
    }
}

fn read_entry(field: &str, raw: &RawValue) -> Result<Entry, Refusal> {
    let name = json::string(field, raw)?;
    Ok(match RoomId::parse(&name) {
        Some(room) => Entry::Room(room),
        None => Entry::Refused {
            room: excerpt(&name).into(),
            refusal: bad_room(field, &name),
        },
    })
}

fn read_user(raw: &RawValue) -> Result<User, Refusal> {
    let [id, name] = json::object(raw.get(), "user", &["id", "name"])
        .and_then(json::Object::sound)
        .map_err(as_bad_user)?;
    let id = read_user_id("user.id", id).map_err(as_bad_user)?;
    let name: Arc<str> = match name {
        None => id.as_str().into(),
        Some(raw) => read_user_name(raw).map_err(as_bad_user)?,
    };
    Ok(User { id, name })
}

fn read_user_id(field: &str, raw: Option<&RawValue>) -> Result<UserId, Refusal> {
    let id = required(field, raw)?;
    UserId::parse(&id).ok_or_else(|| {
        bad(format!(
            "{field} is \"{}\" ({} bytes); allowed are 1 to {USER_ID_BYTES_MAX} bytes without control characters",
            excerpt(&id),
            id.len()
        ))
    })
}

fn read_user_name(raw: &RawValue) -> Result<Arc<str>, Refusal> {
    let name = json::string("user.name", raw)?;
    if name.len() > USER_NAME_BYTES_MAX || name.contains(is_removed) {
        return Err(bad(format!(
            "user.name is \"{}\" ({} bytes); allowed are up to {USER_NAME_BYTES_MAX} bytes without control or direction characters",
            excerpt(&name),
            name.len()
        )));
    }
    Ok(name.into())
}

fn as_bad_user(refusal: Refusal) -> Refusal {
    Refusal {
        code: Code::BadUser,
        ..refusal
    }
}

fn read_event(raw: Option<&RawValue>) -> Result<Box<str>, Refusal> {
    let event = required("event", raw)?;
    check_event_name(&event)?;
    Ok(event.into())
}

fn read_data(raw: Option<&RawValue>) -> Result<Option<Box<RawValue>>, Refusal> {
    raw.map(json::data).transpose()
}

fn read_room_data(raw: Option<&RawValue>) -> Result<Option<Box<RawValue>>, Refusal> {
    let data = read_data(raw)?;
    let bytes = data.as_ref().map_or(0, |data| data.get().len());
    if bytes > ROOM_DATA_BYTES_MAX {
        return Err(bad(format!(
            "data has {bytes} bytes; allowed are {ROOM_DATA_BYTES_MAX}"
        )));
    }
    Ok(data)
}

fn read_reason(raw: Option<&RawValue>) -> Result<Option<Box<str>>, Refusal> {
    let reason = raw
        .map(|raw| read_words("reason", raw, REASON_BYTES_MAX))
        .transpose()?;
    Ok(reason.filter(|reason| !reason.is_empty()))
}

/// A sentence for people: cleaned like a line's text, but it may be empty.
fn read_words(field: &str, raw: &RawValue, bytes_max: usize) -> Result<Box<str>, Refusal> {
    let words = json::string(field, raw)?;
    let words = clean(&words);
    if words.len() > bytes_max {
        let bytes = words.len();
        return Err(bad(format!(
            "{field} has {bytes} bytes; allowed are {bytes_max}"
        )));
    }
    Ok(words.into())
}

fn read_access(raw: &RawValue) -> Result<Access, Refusal> {
    let word = json::string("access", raw)?;
    Access::parse(&word).ok_or_else(|| {
        let word = excerpt(&word);
        bad(format!(
            "access must be public, login or private, found \"{word}\""
        ))
    })
}

fn read_u32(field: &str, raw: &RawValue, max: u32) -> Result<u32, Refusal> {
    // The bound makes the conversion exact.
    json::whole(field, raw, u64::from(max)).map(|number| number as u32)
}

fn utf8(body: &[u8]) -> Result<&str, Refusal> {
    simdutf8::compat::from_utf8(body).map_err(|error| {
        bad(format!(
            "the body is not UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
