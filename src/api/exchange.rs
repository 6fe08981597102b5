//! One HTTP request under way: routed, judged, answered at once or after its questions came back.

use super::batch::Batch;
use super::plan::{Planned, plan};
use super::route::{self, Action};
use super::{Ctx, Listener, Progress, caller, cors};
use crate::base::identity::Caller;
use crate::base::refusal::{Code, Refusal};
use crate::bus::Answer;
use crate::proto::http::reply::Reply;
use crate::proto::http::{Method, Request};

/// A request under way. Kept by the shard while questions are out.
#[derive(Debug)]
pub struct Exchange {
    listener: Listener,
    facts: Facts,
    origin: Option<String>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Answered at once.
    Answered,
    One(Planned),
    Batch(Box<Batch>),
}

/// What the access log says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its method.
    pub method: Method,
    /// Its path, without the query: tokens stand there.
    pub path: String,
    /// Who: an API key's name, a user id, or `-`.
    pub caller: String,
}

impl Exchange {
    /// Takes a request.
    pub fn begin(request: Request, ctx: &Ctx<'_>) -> (Exchange, Progress) {
        let origins = &ctx.policy.config.auth.origins;
        let mut exchange = Exchange {
            listener: ctx.listener,
            facts: Facts {
                method: request.method,
                path: request.path.clone(),
                caller: "-".into(),
            },
            origin: cors::allowed_origin(&request, origins),
            state: State::Answered,
        };
        if let Some(reply) = cors::preflight(&request, origins, ctx.listener) {
            return (exchange, Progress::Done(reply));
        }
        let progress = match exchange.start(&request, ctx) {
            Ok(progress) => progress,
            Err(reply) => Progress::Done(*reply),
        };
        let progress = exchange.decorated(progress);
        (exchange, progress)
    }

    fn start(&mut self, request: &Request, ctx: &Ctx<'_>) -> Result<Progress, Box<Reply>> {
        let found = route::find(request.method, &request.path, ctx.listener).map_err(|missed| {
            let reply = Reply::refusal(&missed.refusal);
            Box::new(match missed.allow {
                Some(allow) => reply.header("Allow", allow),
                None => reply,
            })
        })?;
        let refused = |refusal: Refusal| Box::new(refusal_reply(refusal));
        cors::judge(request, &ctx.policy.config.auth.origins).map_err(refused)?;
        let caller = caller::identify(request, found.reach, ctx.listener, ctx.policy, ctx.now)
            .map_err(refused)?;
        self.facts.caller = match &caller {
            Caller::Anonymous => "-".into(),
            Caller::User(identity) => identity.user.id.as_str().into(),
            Caller::Key(name) => name.to_string(),
        };
        if found.action == Action::Batch {
            let (batch, progress) = Batch::begin(request, caller, ctx).map_err(refused)?;
            self.state = State::Batch(Box::new(batch));
            return Ok(progress);
        }
        match plan(request, &found, &caller, ctx).map_err(refused)? {
            (planned, progress @ Progress::Ask(_)) => {
                self.state = State::One(planned);
                Ok(progress)
            }
            (_, progress) => Ok(progress),
        }
    }

    /// An answer to one of the questions; `None` while others are out.
    pub fn answered(
        &mut self,
        part: u32,
        answer: Result<Answer, Refusal>,
        ctx: &Ctx<'_>,
    ) -> Option<Progress> {
        let progress = match &mut self.state {
            State::Answered => None,
            State::One(planned) => planned.answered(part, answer, ctx).map(Progress::Done),
            State::Batch(batch) => batch.answered(part, answer, ctx),
        };
        progress.map(|progress| self.decorated(progress))
    }

    /// The answer when a home shard took too long.
    pub fn timed_out(&mut self, ctx: &Ctx<'_>) -> Reply {
        let refusal = Refusal::new(Code::Timeout, "a room's shard did not answer in time");
        let reply = match &mut self.state {
            State::Batch(batch) => batch.timed_out(refusal_reply(refusal), ctx),
            State::Answered | State::One(_) => refusal_reply(refusal),
        };
        cors::decorate(reply, self.origin.clone())
    }

    /// By which listener it came in.
    pub fn listener(&self) -> Listener {
        self.listener
    }

    /// For the access log.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    fn decorated(&self, progress: Progress) -> Progress {
        match progress {
            Progress::Done(reply) => Progress::Done(cors::decorate(reply, self.origin.clone())),
            other => other,
        }
    }
}

/// A refusal as an answer. What is refused for now always says when to come back.
pub fn refusal_reply(refusal: Refusal) -> Reply {
    let passing = matches!(refusal.code.status(), 429 | 503 | 504);
    let refusal = match refusal.retry_after_ms {
        None if passing => refusal.retry(1000),
        _ => refusal,
    };
    Reply::refusal(&refusal)
}
