//! Routes about rooms: list, detail, history, members, create and set, close, kick.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::Question;
use super::plan::{Fold, Plan, single, unexpected};
use super::route::{Action, Found};
use crate::base::identity::Caller;
use crate::base::ids::RoomId;
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Answer, NodeAsk, RoomAsk};
use crate::proto::danmaku::http::{parse_close, parse_kick, parse_room_patch};
use crate::proto::http::Request;
use crate::proto::http::reply::Reply;
use crate::proto::http::uri::query_first;
use crate::room::ask::{Detail, HistoryPage, MembersPage, Patch};

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1000;

/// How answers about rooms are shown.
#[derive(Debug)]
pub enum View {
    /// One room.
    Detail,
    /// Recent lines.
    History(RoomId),
    /// Who is in.
    Members,
    /// A room was closed.
    Closed(RoomId),
    /// How many connections it concerned.
    Connections,
    /// The best of every shard's best.
    List {
        /// At most so many.
        limit: usize,
    },
}

/// `GET /rooms`.
pub fn list(request: &Request) -> Plan {
    let limit = limit(request)?;
    let after = match query_first(&request.query, "after")? {
        None => None,
        Some(after) => Some(position(&after).ok_or_else(|| {
            let reason = "after is what the last page gave as next";
            Refusal::new(Code::BadRequest, reason)
        })?),
    };
    // One more from each shard than is shown: so that it is known whether there are more.
    let ask = NodeAsk::Rooms {
        limit: limit + 1,
        after,
    };
    let view = View::List { limit };
    Ok((Fold::Room(view), vec![Question::Node(ask)]))
}

/// `ONLINE:ROOM`, where a page ended.
fn position(text: &str) -> Option<(u32, Box<str>)> {
    let (online, room) = text.split_once(':')?;
    let room = RoomId::is_valid(room).then(|| room.into())?;
    Some((online.parse().ok()?, room))
}

/// `GET /rooms/{room}` and its history: whoever may enter may read.
pub fn read(request: &Request, found: &Found, caller: &Caller) -> Plan {
    let room = found.room()?;
    let (view, ask) = match found.action {
        Action::History => {
            let since = number(request, "since")?;
            let limit = limit(request)?;
            (
                View::History(room.clone()),
                RoomAsk::History { since, limit },
            )
        }
        _ => (View::Detail, RoomAsk::Detail),
    };
    let who = match caller {
        Caller::Key(_) => return Ok(about(view, room, ask)),
        Caller::User(identity) => Some(identity.clone()),
        Caller::Anonymous => None,
    };
    let then = Box::new(ask);
    Ok(about(view, room, RoomAsk::Admit { who, then }))
}

/// Routes of the server API about one room.
pub fn manage(request: &Request, found: &Found) -> Plan {
    let room = found.room()?;
    Ok(match found.action {
        Action::PutRoom => {
            let body = parse_room_patch(&request.body)?;
            if body.deliver_per_s_max.is_some_and(|max| max > 0) {
                let reason = "deliver_per_s_max is not available in this version";
                return Err(Refusal::new(Code::NotImplemented, reason));
            }
            let patch = Patch {
                title: body.title,
                access: body.access,
                tick_ms: body.tick_ms,
                data: body.data,
            };
            about(View::Detail, room, RoomAsk::Put(Box::new(patch)))
        }
        Action::CloseRoom => {
            let reason = parse_close(&request.body)?;
            let reason = reason.as_deref().unwrap_or("the room was closed").into();
            about(View::Closed(room.clone()), room, RoomAsk::Close { reason })
        }
        Action::Kick => {
            let body = parse_kick(&request.body)?;
            let reason = body.reason.as_deref().unwrap_or("removed from the room");
            let kick = RoomAsk::Kick {
                user: body.user,
                reason: reason.into(),
            };
            about(View::Connections, room, kick)
        }
        _ => {
            let after = query_first(&request.query, "after")?.map(|after| after.into());
            let limit = limit(request)?;
            about(View::Members, room, RoomAsk::Members { limit, after })
        }
    })
}

fn about(view: View, room: RoomId, ask: RoomAsk) -> (Fold, Vec<Question>) {
    (Fold::Room(view), vec![Question::Room { room, ask }])
}

fn limit(request: &Request) -> Result<usize, Refusal> {
    match number(request, "limit")? {
        None => Ok(LIMIT_DEFAULT),
        Some(limit @ 1..=1000) => Ok(limit as usize),
        Some(limit) => {
            let reason = format!("limit is 1..{LIMIT_MAX}, not {limit}");
            Err(Refusal::new(Code::BadRequest, reason))
        }
    }
}

fn number(request: &Request, name: &'static str) -> Result<Option<u64>, Refusal> {
    let Some(text) = query_first(&request.query, name)? else {
        return Ok(None);
    };
    let number = text.parse().map_err(|_| {
        let reason = format!("{name} is a whole number, not {text:.32}");
        Refusal::new(Code::BadRequest, reason)
    })?;
    Ok(Some(number))
}

impl View {
    /// The reply.
    pub fn reply(&self, answers: Vec<Vec<Result<Answer, Refusal>>>) -> Reply {
        if let View::List { limit } = self {
            return list_reply(answers, *limit);
        }
        match (self, single(answers)) {
            (_, Err(reply)) => reply,
            (View::Detail, Ok(Answer::Detail(detail))) => Reply::json(200, detail_json(&detail)),
            (View::History(room), Ok(Answer::History(page))) => {
                Reply::raw_json(200, history_json(room, &page))
            }
            (View::Members, Ok(Answer::Members(page))) => Reply::json(200, members_json(&page)),
            (View::Closed(room), Ok(Answer::Connections(connections))) => {
                let closed = json!({"room": room.as_str(), "connections": connections});
                Reply::json(200, closed)
            }
            (View::Connections, Ok(Answer::Connections(connections))) => {
                Reply::json(200, json!({ "connections": connections }))
            }
            _ => unexpected(),
        }
    }
}

fn list_reply(answers: Vec<Vec<Result<Answer, Refusal>>>, limit: usize) -> Reply {
    let mut rooms: Vec<Detail> = Vec::new();
    for answer in answers.into_iter().flatten() {
        if let Ok(Answer::Rooms(of_shard)) = answer {
            rooms.extend(of_shard);
        }
    }
    rooms.sort_by(|a, b| (Reverse(a.online), &a.room).cmp(&(Reverse(b.online), &b.room)));
    let more = rooms.len() > limit;
    rooms.truncate(limit);
    let last = rooms.last().filter(|_| more);
    let next = last.map(|room| format!("{}:{}", room.online, room.room));
    let rooms: Vec<Value> = rooms.iter().map(detail_json).collect();
    Reply::json(200, json!({"rooms": rooms, "next": next}))
}

fn detail_json(detail: &Detail) -> Value {
    // A publisher's own JSON was parsed when it came; it is shown as a value, since numbers keep their digits.
    let data = detail
        .data
        .as_ref()
        .and_then(|data| serde_json::from_str::<Value>(data.get()).ok());
    json!({
        "room": detail.room.as_str(),
        "online": detail.online,
        "users": detail.users,
        "seq": detail.seq,
        "epoch": detail.epoch.0,
        "title": detail.title,
        "access": detail.access.as_str(),
        "tick_ms": detail.tick_ms,
        "data": data,
        "created": detail.created_ms,
        "peak": detail.peak,
    })
}

/// The messages are JSON already: they are put together, not parsed.
fn history_json(room: &RoomId, page: &HistoryPage) -> Vec<u8> {
    let head = format!(
        "{{\"room\":\"{room}\",\"epoch\":{},\"seq\":{},\"messages\":[",
        page.epoch.0, page.seq
    );
    let mut out = head.into_bytes();
    for (index, message) in page.messages.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(message);
    }
    out.extend_from_slice(b"]}");
    out
}

fn members_json(page: &MembersPage) -> Value {
    let member = |entry: &crate::room::ask::MemberEntry| {
        let user = entry
            .user
            .as_ref()
            .map(|user| json!({"id": user.id.as_str(), "name": user.name}));
        json!({"user": user, "connections": entry.connections, "joined": entry.joined_ms})
    };
    let members: Vec<Value> = page.members.iter().map(member).collect();
    json!({"members": members, "next": page.next})
}
