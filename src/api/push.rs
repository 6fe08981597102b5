//! `POST /api/v1/danmaku/push`: a line or an event into one room or many. Who may name an author, send an event or many rooms is
//! judged here; the room's own rules (access, flood, numbering) are judged by its home.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::call::{Call, Step};
use super::gather::{Gather, Show, mismatched, timeout};
use super::{Ctx, Question};
use crate::base::identity::{Caller, Role, User};
use crate::base::ids::RoomId;
use crate::base::limits::OVERLOADED_RETRY_MS;
use crate::base::refusal::{Code, Refusal};
use crate::bus::Answer;
use crate::proto::danmaku::http::{Entry, PushBody, PushContent, Target, parse_push};
use crate::proto::http::reply::Reply;
use crate::room::ask::{Author, Content, Once, Publish, Published};

/// Handles a push.
pub(super) fn push(call: &Call, ctx: &Ctx) -> Result<Step, Refusal> {
    let body = parse_push(call.body, ctx.policy.config.limits.text_bytes_max)?;
    permit(call, &body)?;
    if !ctx.takes_pushes && matches!(body.content, PushContent::Line { .. }) {
        let reason = "this node is overloaded and takes no pushed lines; events it takes";
        return Err(Refusal::new(Code::Overloaded, reason).retry(OVERLOADED_RETRY_MS));
    }
    let publish = Publish {
        author: author(call, body.user),
        who: call.identity().cloned(),
        exempt: call.by_key() || is_admin(call),
        content: match body.content {
            PushContent::Line { text, style, data } => Content::Line { text, style, data },
            PushContent::Event { event, data } => Content::Event { event, data },
        },
        speaker: None,
        once: call.once.map(|key| once(call, key)).transpose()?,
    };
    let judge_user = call.identity().is_some() && !is_admin(call);
    let question = |room: &RoomId, publish: Publish| Question::Publish {
        room: room.clone(),
        publish: Box::new(publish),
        judge_user,
    };
    match body.target {
        Target::One(room) => {
            let questions = vec![question(&room, publish)];
            Ok(Step::Ask(questions, Gather::room(room, Show::Published)))
        }
        Target::Many(entries) => {
            let (results, rooms) = Results::new(entries);
            if rooms.is_empty() {
                return Ok(Step::Done(results.reply()));
            }
            let questions = rooms
                .iter()
                .map(|room| question(room, publish.clone()))
                .collect();
            Ok(Step::Ask(questions, Gather::Many(results)))
        }
    }
}

/// Naming an author is the back end's; an event needs someone who runs the room; many rooms need someone with a name, because
/// flood control counts by user.
fn permit(call: &Call, body: &PushBody) -> Result<(), Refusal> {
    let role = call.identity().map(|identity| identity.role);
    let reason = match (&body.content, &body.target, role) {
        _ if call.by_key() => return Ok(()),
        _ if body.user.is_some() => {
            "user may be named with an API key only; a token's own user is the author"
        }
        (PushContent::Event { .. }, _, role) if role < Some(Role::Host) => {
            "an event needs an API key, or a token with role host, moderator or admin"
        }
        (_, Target::Many(_), None) => "rooms needs a token or an API key; without one send room",
        _ => return Ok(()),
    };
    Err(Refusal::new(Code::Forbidden, reason))
}

fn author(call: &Call, named: Option<User>) -> Author {
    let user = match call.caller {
        Caller::User(identity) => Some(identity.user.clone()),
        Caller::Key(_) => named,
        Caller::Anonymous => None,
    };
    user.map_or(Author::Anonymous, Author::User)
}

fn is_admin(call: &Call) -> bool {
    call.identity()
        .is_some_and(|identity| identity.role == Role::Admin)
}

/// An `Idempotency-Key` in its caller's name. Names hold no control character and the key no newline, so two callers' keys
/// never meet.
fn once(call: &Call, key: &str) -> Result<Once, Refusal> {
    let key = match call.caller {
        Caller::Key(name) => format!("key:{name}\n{key}"),
        Caller::User(identity) => format!("user:{}\n{key}", identity.user.id.as_str()),
        Caller::Anonymous => {
            let reason = "an Idempotency-Key belongs to someone: send a token or an API key too";
            return Err(Refusal::new(Code::BadRequest, reason));
        }
    };
    Ok(Once {
        key: key.into(),
        fingerprint: fingerprint(call),
    })
}

/// What the request is, in 64 bits that are the same on every node and in every version.
fn fingerprint(call: &Call) -> u64 {
    let mut digest = Sha256::new();
    digest.update(call.method.as_str());
    digest.update([0]);
    digest.update(call.path);
    digest.update([0]);
    digest.update(call.body);
    let digest: [u8; 32] = digest.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The answers to a push to many rooms: one place for each of `rooms`, in their order.
#[derive(Debug)]
pub(super) struct Results {
    places: Vec<Place>,
    /// By part; a timeout until the home has answered.
    answers: Vec<Result<Published, Refusal>>,
    answered: Vec<bool>,
    missing: usize,
}

/// One of `rooms`.
#[derive(Debug)]
enum Place {
    /// Asked for; a room named twice gets the line once and shows its one answer twice.
    Asked { room: RoomId, part: usize },
    /// Never asked for.
    Refused { room: Box<str>, refusal: Refusal },
}

impl Results {
    /// Places for the entries, and the rooms to ask, each once, in the order of their parts.
    fn new(entries: Vec<Entry>) -> (Results, Vec<RoomId>) {
        let mut parts: HashMap<RoomId, usize> = HashMap::new();
        let mut rooms = Vec::new();
        let mut place = |entry| match entry {
            Entry::Refused { room, refusal } => Place::Refused { room, refusal },
            Entry::Room(room) => {
                let part = match parts.entry(room.clone()) {
                    Slot::Occupied(slot) => *slot.get(),
                    Slot::Vacant(slot) => {
                        rooms.push(room.clone());
                        *slot.insert(rooms.len() - 1)
                    }
                };
                Place::Asked { room, part }
            }
        };
        let places = entries.into_iter().map(&mut place).collect();
        let results = Results {
            places,
            answers: vec![Err(timeout()); rooms.len()],
            answered: vec![false; rooms.len()],
            missing: rooms.len(),
        };
        (results, rooms)
    }

    /// Takes one answer; the reply when it was the last. A part that was never asked, or is answered already, is nothing new.
    pub fn take(&mut self, part: u32, answer: Result<Answer, Refusal>) -> Option<Reply> {
        let part = part as usize;
        let answered = self.answered.get_mut(part)?;
        if std::mem::replace(answered, true) {
            return None;
        }
        self.answers[part] = match answer {
            Ok(Answer::Published(published)) => Ok(published),
            Ok(_) => Err(mismatched()),
            Err(refusal) => Err(refusal),
        };
        self.missing -= 1;
        (self.missing == 0).then(|| self.reply())
    }

    /// The reply when time is up: who has been answered is told so, because those lines are on their way. `None` if nobody has.
    pub fn timed_out(&self) -> Option<Reply> {
        (self.missing < self.answers.len()).then(|| self.reply())
    }

    fn reply(&self) -> Reply {
        let results: Vec<Outcome> = self.places.iter().map(|p| self.outcome(p)).collect();
        Reply::json(200, Shown { results })
    }

    fn outcome<'a>(&'a self, place: &'a Place) -> Outcome<'a> {
        match place {
            Place::Refused { room, refusal } => Outcome::refused(room, refusal),
            Place::Asked { room, part } => match &self.answers[*part] {
                Ok(published) => Outcome::Published(Accepted::new(room, *published)),
                Err(refusal) => Outcome::refused(room.as_str(), refusal),
            },
        }
    }
}

/// `{"room","seq","epoch"}`.
#[derive(Debug, Serialize)]
pub(super) struct Accepted<'a> {
    room: &'a str,
    seq: u64,
    epoch: u64,
}

impl<'a> Accepted<'a> {
    /// What a push into `room` came to.
    pub fn new(room: &'a RoomId, published: Published) -> Accepted<'a> {
        Accepted {
            room: room.as_str(),
            seq: published.seq,
            epoch: published.epoch.0,
        }
    }
}

/// The answer to a push to many rooms. Written from these borrowed parts, because it is as long as its rooms are many.
#[derive(Serialize)]
struct Shown<'a> {
    results: Vec<Outcome<'a>>,
}

/// One entry of `results`.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Published(Accepted<'a>),
    Refused {
        room: &'a str,
        code: &'static str,
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u32>,
    },
}

impl<'a> Outcome<'a> {
    fn refused(room: &'a str, refusal: &'a Refusal) -> Outcome<'a> {
        Outcome::Refused {
            room,
            code: refusal.code.as_str(),
            reason: &refusal.reason,
            retry_after_ms: refusal.retry_after_ms,
        }
    }
}
