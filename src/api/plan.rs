//! What a routed request needs: an answer at once, or questions and a way to fold their answers into one.

use super::exchange::refusal_reply;
use super::route::{Action, Found};
use super::{Ctx, Progress, Question, Special, push, rooms, users};
use crate::base::identity::Caller;
use crate::base::refusal::{Code, Refusal};
use crate::bus::Answer;
use crate::proto::http::Request;
use crate::proto::http::accept::require_json;
use crate::proto::http::reply::Reply;
use crate::web;

/// A request whose questions are out.
#[derive(Debug)]
pub struct Planned {
    fold: Fold,
    answers: Vec<Vec<Result<Answer, Refusal>>>,
    /// Answers still to come, by question.
    missing: Vec<usize>,
}

/// How answers become one reply.
#[derive(Debug)]
pub enum Fold {
    /// The one answer.
    Push(push::One),
    /// An answer per room.
    PushMany(push::Many),
    /// Answers about one room.
    Room(rooms::View),
    /// An answer per shard.
    Shards(users::View),
}

/// A plan that asks.
pub type Plan = Result<(Fold, Vec<Question>), Refusal>;

/// Plans a request.
///
/// # Errors
/// Whatever is wrong with it.
pub fn plan(
    request: &Request,
    found: &Found,
    caller: &Caller,
    ctx: &Ctx<'_>,
) -> Result<(Planned, Progress), Refusal> {
    if !request.body.is_empty() {
        require_json(request.headers.first("content-type"))?;
    }
    let at_once = |progress| Ok((Planned::empty(), progress));
    let (fold, questions) = match found.action {
        Action::Health => {
            return at_once(Progress::Done(Reply::raw_json(200, "{\"status\":\"ok\"}")));
        }
        Action::Ready => return at_once(Progress::Special(Special::Ready)),
        Action::Metrics => return at_once(Progress::Special(Special::Metrics)),
        Action::Page => return page(ctx).map(|reply| (Planned::empty(), Progress::Done(reply))),
        Action::Batch => {
            return Err(Refusal::new(Code::BadRequest, "a batch inside a batch"));
        }
        Action::Push => push::plan(request, caller, ctx)?,
        Action::Rooms => rooms::list(request)?,
        Action::Room | Action::History => rooms::read(request, found, caller)?,
        Action::PutRoom | Action::CloseRoom | Action::Members | Action::Kick => {
            rooms::manage(request, found)?
        }
        Action::Broadcast | Action::UserPush | Action::UserDisconnect | Action::Info => {
            users::plan(request, found, ctx)?
        }
    };
    let missing = questions.iter().map(|question| match question {
        Question::Node(_) => ctx.shards,
        _ => 1,
    });
    let planned = Planned {
        fold,
        answers: questions.iter().map(|_| Vec::new()).collect(),
        missing: missing.collect(),
    };
    if questions.is_empty() {
        // Everything was refused on its own, like each room of a push.
        let reply = planned.fold.reply(Vec::new(), ctx);
        return Ok((Planned::empty(), Progress::Done(reply)));
    }
    Ok((planned, Progress::Ask(questions)))
}

fn page(ctx: &Ctx<'_>) -> Result<Reply, Refusal> {
    match web::page("/").filter(|_| ctx.policy.config.server.demo_page) {
        Some((content_type, bytes)) => Ok(Reply::with_body(200, content_type, bytes)),
        None => {
            let reason =
                "no page here: viewers connect to /ws?room=R, pushes go to /api/v1/danmaku/push";
            Err(Refusal::new(Code::NotFound, reason))
        }
    }
}

impl Planned {
    fn empty() -> Planned {
        Planned {
            fold: Fold::Shards(users::View::Info),
            answers: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Takes an answer; the reply when it was the last.
    pub fn answered(
        &mut self,
        part: u32,
        answer: Result<Answer, Refusal>,
        ctx: &Ctx<'_>,
    ) -> Option<Reply> {
        let part = part as usize;
        let missing = self.missing.get_mut(part)?;
        *missing = missing.checked_sub(1)?;
        self.answers.get_mut(part)?.push(answer);
        if self.missing.iter().any(|missing| *missing > 0) {
            return None;
        }
        let answers = std::mem::take(&mut self.answers);
        Some(self.fold.reply(answers, ctx))
    }
}

impl Fold {
    fn reply(&self, answers: Vec<Vec<Result<Answer, Refusal>>>, ctx: &Ctx<'_>) -> Reply {
        match self {
            Fold::Push(one) => one.reply(answers),
            Fold::PushMany(many) => many.reply(answers),
            Fold::Room(view) => view.reply(answers),
            Fold::Shards(view) => view.reply(answers, ctx),
        }
    }
}

/// The only answer, or the refusal that took its place, as a reply.
pub fn single(mut answers: Vec<Vec<Result<Answer, Refusal>>>) -> Result<Answer, Reply> {
    match answers.pop().and_then(|mut of_one| of_one.pop()) {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(refusal)) => Err(refusal_reply(refusal)),
        None => Err(unexpected()),
    }
}

/// A home answered something that does not belong to the question.
pub fn unexpected() -> Reply {
    refusal_reply(Refusal::new(
        Code::Internal,
        "a shard gave an answer that does not fit",
    ))
}
