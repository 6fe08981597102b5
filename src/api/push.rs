//! `POST /api/v1/danmaku/push`: lines and events into one room or many.

use serde_json::{Value, json};

use super::plan::{Fold, Plan, single, unexpected};
use super::{Ctx, Question};
use crate::base::identity::{Caller, Role};
use crate::base::ids::RoomId;
use crate::base::refusal::{Code, Refusal};
use crate::bus::Answer;
use crate::config::checked::Anonymous;
use crate::proto::danmaku::http::{Entry, PushBody, PushContent, Target, parse_push};
use crate::proto::http::Request;
use crate::proto::http::reply::Reply;
use crate::room::ask::{Author, Content, Once, Publish, Published};

/// Longest `Idempotency-Key`.
const KEY_BYTES_MAX: usize = 128;

/// One room: its answer is the reply.
#[derive(Debug)]
pub struct One {
    room: RoomId,
}

/// Many rooms: a result each, in the order asked for.
#[derive(Debug)]
pub struct Many {
    results: Vec<Slot>,
}

#[derive(Debug)]
enum Slot {
    /// The answer to the question with this index.
    Asked(RoomId, usize),
    Refused(Box<str>, Refusal),
}

/// Plans a push.
pub fn plan(request: &Request, caller: &Caller, ctx: &Ctx<'_>) -> Plan {
    let config = &ctx.policy.config;
    if *caller == Caller::Anonymous && config.auth.anonymous != Anonymous::Speak {
        let reason = "a push needs a token or an API key here";
        return Err(Refusal::new(Code::TokenMissing, reason));
    }
    let body = parse_push(&request.body, config.limits.text_bytes_max)?;
    may_push(&body, caller)?;
    let once = once(request, caller)?;
    let publish = publish(&body, caller, once);
    let judge_user = matches!(caller, Caller::User(_)) && !publish.exempt;
    let question = |room: &RoomId| Question::Publish {
        room: room.clone(),
        publish: Box::new(publish.clone()),
        judge_user,
    };
    match body.target {
        Target::One(room) => {
            let questions = vec![question(&room)];
            Ok((Fold::Push(One { room }), questions))
        }
        Target::Many(entries) => {
            let (mut results, mut questions) = (Vec::new(), Vec::new());
            let mut asked: Vec<RoomId> = Vec::new();
            for entry in entries {
                results.push(match entry {
                    Entry::Refused { room, refusal } => Slot::Refused(room, refusal),
                    // A room named twice is pushed to once, and answered twice.
                    Entry::Room(room) => match asked.iter().position(|known| *known == room) {
                        Some(index) => Slot::Asked(room, index),
                        None => {
                            questions.push(question(&room));
                            asked.push(room.clone());
                            Slot::Asked(room, questions.len() - 1)
                        }
                    },
                });
            }
            Ok((Fold::PushMany(Many { results }), questions))
        }
    }
}

fn may_push(body: &PushBody, caller: &Caller) -> Result<(), Refusal> {
    let forbidden = |reason: &'static str| Err(Refusal::new(Code::Forbidden, reason));
    let is_event = matches!(body.content, PushContent::Event { .. });
    match caller {
        Caller::Key(_) => Ok(()),
        _ if body.user.is_some() => forbidden("only an API key may name another user"),
        _ if matches!(body.target, Target::Many(_)) && *caller == Caller::Anonymous => {
            forbidden("many rooms at once need a token or an API key")
        }
        Caller::User(identity) if is_event && identity.role < Role::Host => {
            forbidden("events need an API key, or a token of role host or above")
        }
        Caller::Anonymous if is_event => forbidden("events need an API key"),
        Caller::User(_) | Caller::Anonymous => Ok(()),
    }
}

fn publish(body: &PushBody, caller: &Caller, once: Option<Once>) -> Publish {
    let content = match &body.content {
        PushContent::Line { text, style, data } => Content::Line {
            text: text.clone(),
            style: *style,
            data: data.clone(),
        },
        PushContent::Event { event, data } => Content::Event {
            event: event.clone(),
            data: data.clone(),
        },
    };
    let (author, who, exempt) = match caller {
        Caller::Anonymous => (Author::Anonymous, None, false),
        Caller::User(identity) => (
            Author::User(identity.user.clone()),
            Some(identity.clone()),
            identity.role == Role::Admin,
        ),
        Caller::Key(_) => match &body.user {
            Some(user) => (Author::User(user.clone()), None, true),
            None => (Author::Anonymous, None, true),
        },
    };
    Publish {
        author,
        who,
        exempt,
        content,
        once,
    }
}

/// `Idempotency-Key`, for its caller alone, with a fingerprint of what it was sent with.
fn once(request: &Request, caller: &Caller) -> Result<Option<Once>, Refusal> {
    let Some(key) = request.headers.first("idempotency-key") else {
        return Ok(None);
    };
    let good =
        (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if !good {
        let reason = format!("an Idempotency-Key is 1..{KEY_BYTES_MAX} visible ASCII characters");
        return Err(Refusal::new(Code::BadRequest, reason));
    }
    let scope = match caller {
        Caller::Anonymous => {
            let reason = "an Idempotency-Key needs a token or an API key";
            return Err(Refusal::new(Code::BadRequest, reason));
        }
        Caller::User(identity) => format!("u:{}", identity.user.id.as_str()),
        Caller::Key(name) => format!("k:{name}"),
    };
    Ok(Some(Once {
        key: format!("{scope}:{key}").into(),
        fingerprint: fingerprint(&request.body),
    }))
}

/// FNV-1a: stable, and no protection against a caller who wants to fool itself.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn accepted(room: &RoomId, published: Published) -> Value {
    json!({"room": room.as_str(), "seq": published.seq, "epoch": published.epoch.0})
}

impl One {
    /// The reply.
    pub fn reply(&self, answers: Vec<Vec<Result<Answer, Refusal>>>) -> Reply {
        match single(answers) {
            Ok(Answer::Published(published)) => Reply::json(200, accepted(&self.room, published)),
            Ok(_) => unexpected(),
            Err(reply) => reply,
        }
    }
}

impl Many {
    /// The reply: 200 with a result for each room.
    pub fn reply(&self, answers: Vec<Vec<Result<Answer, Refusal>>>) -> Reply {
        let results: Vec<Value> = self
            .results
            .iter()
            .map(|slot| match slot {
                Slot::Refused(room, refusal) => refused(room, refusal),
                Slot::Asked(room, index) => {
                    match answers.get(*index).and_then(|of_one| of_one.first()) {
                        Some(Ok(Answer::Published(published))) => accepted(room, *published),
                        Some(Err(refusal)) => refused(room.as_str(), refusal),
                        _ => refused(room.as_str(), &Refusal::new(Code::Internal, "no answer")),
                    }
                }
            })
            .collect();
        Reply::json(200, json!({ "results": results }))
    }
}

fn refused(room: &str, refusal: &Refusal) -> Value {
    let mut result = json!({"room": room, "code": refusal.code.as_str(), "reason": refusal.reason});
    if let Some(retry_after_ms) = refusal.retry_after_ms {
        result["retry_after_ms"] = retry_after_ms.into();
    }
    result
}
