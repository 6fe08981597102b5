//! Rooms over HTTP: list, detail, history, members, set, close, kick. Questions to home shards and the JSON made of their
//! answers; access of public callers is judged by the room's home, which alone knows it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::call::{Call, Step};
use super::gather::{Gather, NodeWide, Show};
use super::{Ctx, Question};
use crate::base::identity::{Caller, Identity};
use crate::base::ids::RoomId;
use crate::base::refusal::{Code, Refusal};
use crate::bus::{NodeAsk, RoomAsk};
use crate::proto::danmaku::clean_text;
use crate::proto::danmaku::http::{
    REASON_BYTES_MAX, parse_disconnect, parse_kick, parse_room_patch,
};
use crate::proto::http::reply::Reply;
use crate::room::ask::{Detail, HistoryPage, MemberEntry, MembersPage, Patch};

/// `GET /api/v1/rooms?limit=&after=`.
pub(super) fn list(call: &Call, ctx: &Ctx) -> Result<Step, Refusal> {
    let limit = call.limit()?;
    let after = call.parameter("after")?;
    let after = after.as_deref().map(parse_cursor).transpose()?;
    let listing = Listing {
        limit,
        sees: match call.caller {
            Caller::Key(_) => Sees::All,
            Caller::User(identity) => Sees::Admitted(Some(Arc::clone(identity))),
            Caller::Anonymous => Sees::Admitted(None),
        },
        found: Vec::new(),
        stale: false,
        after: after.clone(),
    };
    // One more than is shown, so that the last page knows that it is the last.
    let ask = NodeAsk::Rooms {
        limit: limit + 1,
        after,
    };
    Ok(NodeWide::rooms(listing).ask(ask, ctx))
}

/// `GET /api/v1/rooms/{room}`.
pub(super) fn detail(call: &Call, room: &RoomId, _: &Ctx) -> Result<Step, Refusal> {
    let question = call.read_room(room, RoomAsk::Detail);
    Ok(one(question, room, Show::Detail))
}

/// `GET /api/v1/rooms/{room}/history?since=&limit=`.
pub(super) fn history(call: &Call, room: &RoomId, _: &Ctx) -> Result<Step, Refusal> {
    let since = call.number("since", 0..=u64::MAX)?;
    let limit = call.limit()?;
    let question = call.read_room(room, RoomAsk::History { since, limit });
    Ok(one(question, room, Show::History))
}

/// `GET /api/v1/rooms/{room}/members?limit=&after=`.
pub(super) fn members(call: &Call, room: &RoomId, _: &Ctx) -> Result<Step, Refusal> {
    let limit = call.limit()?;
    let after = call.parameter("after")?.map(|after| after.into());
    let question = call.read_room(room, RoomAsk::Members { limit, after });
    Ok(one(question, room, Show::Members))
}

/// `PUT /api/v1/rooms/{room}`.
pub(super) fn put(call: &Call, room: &RoomId, _: &Ctx) -> Result<Step, Refusal> {
    let body = parse_room_patch(call.body)?;
    let patch = Box::new(Patch {
        title: body.title,
        access: body.access,
        tick_ms: body.tick_ms,
        deliver_per_s_max: body.deliver_per_s_max,
        data: body.data,
    });
    Ok(one(ask(room, RoomAsk::Put(patch)), room, Show::Detail))
}

/// `DELETE /api/v1/rooms/{room}`; the reason in the body or as `?reason=`.
pub(super) fn close(call: &Call, room: &RoomId, _: &Ctx) -> Result<Step, Refusal> {
    let mut reason = parse_disconnect(call.body)?.reason;
    if reason.is_none()
        && let Some(words) = call.parameter("reason")?.filter(|w| !w.trim().is_empty())
    {
        let cleaned = clean_text(&words, REASON_BYTES_MAX);
        let cleaned = cleaned.map_err(|refusal| Refusal {
            code: Code::BadRequest,
            reason: format!("reason: {}", refusal.reason).into(),
            ..refusal
        })?;
        reason = Some(cleaned.into());
    }
    let reason = reason.map_or_else(|| "the room was closed".into(), Arc::from);
    let question = ask(room, RoomAsk::Close { reason });
    Ok(one(question, room, Show::Closed))
}

/// `POST /api/v1/rooms/{room}/kick`.
pub(super) fn kick(call: &Call, room: &RoomId, _: &Ctx) -> Result<Step, Refusal> {
    let body = parse_kick(call.body)?;
    let kick = RoomAsk::Kick {
        user: body.user,
        reason: body.reason.map_or_else(
            || "a moderator removed you from this room".into(),
            Arc::from,
        ),
    };
    Ok(one(ask(room, kick), room, Show::Kicked))
}

fn ask(room: &RoomId, ask: RoomAsk) -> Question {
    Question::Room {
        room: room.clone(),
        ask,
    }
}

fn one(question: Question, room: &RoomId, show: Show) -> Step {
    Step::Ask(vec![question], Gather::room(room.clone(), show))
}

/// `ONLINE:ROOM`, the position behind a page's last room. Opaque to clients.
fn parse_cursor(after: &str) -> Result<(u32, Box<str>), Refusal> {
    let parsed = after.split_once(':').and_then(|(online, room)| {
        let room = RoomId::parse(room)?;
        Some((online.parse().ok()?, room.as_str().into()))
    });
    parsed.ok_or_else(|| {
        let reason = "after must be the next of an earlier page, as it was";
        Refusal::new(Code::BadRequest, reason)
    })
}

/// The shards' parts of one page of rooms.
#[derive(Debug)]
pub(super) struct Listing {
    limit: usize,
    sees: Sees,
    found: Vec<Detail>,
    stale: bool,
    after: Option<(u32, Box<str>)>,
}

/// Which rooms a caller may see.
#[derive(Debug)]
enum Sees {
    All,
    /// Those this viewer could enter.
    Admitted(Option<Arc<Identity>>),
}

impl Listing {
    /// Adds one shard's part: at most one more room than the page shows. A room may be in two of them: at home, and as it stands in
    /// Redis. One that has more viewers by now than where the last page ended is passed over: a page leads on from where it began.
    pub fn add(&mut self, rooms: Vec<Detail>, stale: bool) {
        let place = |online: u32, room: &str| (Reverse(online), room.to_owned());
        let after = self.after.as_ref();
        let after = after.map(|(online, room)| place(*online, room));
        let leads_on = |room: &Detail| {
            let place = place(room.online, room.room.as_str());
            after.as_ref().is_none_or(|after| place > *after)
        };
        self.found.extend(rooms.into_iter().filter(leads_on));
        self.stale |= stale;
    }

    /// The page: most viewers first, then by id. Rooms the caller could not enter take their place in it without being shown, so
    /// a page may be short and still have a next one.
    pub fn reply(&mut self) -> Reply {
        let order = |a: &Detail, b: &Detail| (b.online, &a.room).cmp(&(a.online, &b.room));
        self.found.sort_unstable_by(order);
        // Its home knows a room better than what was last read of it.
        let at_home = self.found.iter().filter(|detail| !detail.stale);
        let at_home: HashSet<RoomId> = at_home.map(|detail| detail.room.clone()).collect();
        let mut shown = HashSet::new();
        self.found.retain(|detail| {
            let is_best = !detail.stale || !at_home.contains(&detail.room);
            is_best && shown.insert(detail.room.clone())
        });
        let more = self.found.len() > self.limit;
        self.found.truncate(self.limit);
        let last = self.found.last().filter(|_| more);
        let next = last.map(|last| format!("{}:{}", last.online, last.room));
        let rooms = self.found.iter().filter(|detail| self.shows(detail));
        let rooms = rooms.map(DetailBody::new).collect();
        let stale = self.stale;
        Reply::json(200, ListBody { rooms, next, stale })
    }

    fn shows(&self, detail: &Detail) -> bool {
        match &self.sees {
            Sees::All => true,
            Sees::Admitted(who) => detail.access.admits(who.as_deref(), &detail.room).is_ok(),
        }
    }
}

#[derive(Serialize)]
struct ListBody<'a> {
    rooms: Vec<DetailBody<'a>>,
    next: Option<String>,
    /// They are as they were when Redis was last heard of.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
}

/// One room as JSON.
#[derive(Serialize)]
struct DetailBody<'a> {
    room: &'a str,
    online: u32,
    users: u32,
    seq: u64,
    epoch: u64,
    title: &'a str,
    access: &'static str,
    tick_ms: Option<u32>,
    deliver_per_s_max: u32,
    data: Option<&'a RawValue>,
    created: u64,
    peak: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    visitors: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
}

impl<'a> DetailBody<'a> {
    fn new(detail: &'a Detail) -> DetailBody<'a> {
        DetailBody {
            room: detail.room.as_str(),
            online: detail.online,
            users: detail.users,
            seq: detail.seq,
            epoch: detail.epoch.0,
            title: &detail.title,
            access: detail.access.as_str(),
            tick_ms: detail.tick_ms,
            deliver_per_s_max: detail.deliver_per_s_max,
            data: detail.data.as_deref(),
            created: detail.created_ms,
            peak: detail.peak,
            visitors: detail.visitors,
            stale: detail.stale,
        }
    }
}

/// The answer to detail and put.
pub(super) fn detail_reply(detail: &Detail) -> Reply {
    Reply::json(200, DetailBody::new(detail))
}

/// The answer to history. The messages are JSON already and go in as they are.
pub(super) fn history_reply(room: &RoomId, page: &HistoryPage) -> Reply {
    let bytes: usize = page.messages.iter().map(|message| message.len() + 1).sum();
    // A room id needs no escaping.
    let mut head = String::with_capacity(256);
    let written = write!(
        head,
        r#"{{"room":"{room}","epoch":{},"seq":{},"messages":["#,
        page.epoch.0, page.seq
    );
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
    let mut body = head.into_bytes();
    body.reserve(bytes + 2);
    for (index, message) in page.messages.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(message);
    }
    body.extend_from_slice(b"]}");
    Reply::raw_json(200, body)
}

#[derive(Serialize)]
struct MembersBody<'a> {
    members: Vec<MemberBody<'a>>,
    next: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
}

#[derive(Serialize)]
struct MemberBody<'a> {
    user: Option<UserBody<'a>>,
    connections: u32,
    joined: u64,
}

#[derive(Serialize)]
struct UserBody<'a> {
    id: &'a str,
    name: &'a str,
}

/// The answer to members.
pub(super) fn members_reply(page: &MembersPage) -> Reply {
    fn member(entry: &MemberEntry) -> MemberBody<'_> {
        MemberBody {
            user: entry.user.as_ref().map(|user| UserBody {
                id: user.id.as_str(),
                name: &user.name,
            }),
            connections: entry.connections,
            joined: entry.joined_ms,
        }
    }
    Reply::json(
        200,
        MembersBody {
            members: page.members.iter().map(member).collect(),
            next: page.next.as_deref(),
            stale: page.stale,
        },
    )
}
