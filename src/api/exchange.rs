//! One HTTP request from its first byte understood to its reply: route, origin, caller, handler, answers. Owned by the shard of the
//! client, kept by it while other shards are asked; it must never wait for anything itself.

use super::batch::Batch;
use super::call::{Call, Step};
use super::caller::{self, CallerName};
use super::cors::{self, Origin};
use super::gather::{Gather, refuse, timeout};
use super::{Ctx, Listener, Progress, node, route};
use crate::base::identity::Caller;
use crate::base::refusal::{Code, Refusal};
use crate::bus::Answer;
use crate::proto::http::reply::Reply;
use crate::proto::http::{Method, Request, accept};

/// Longest `Idempotency-Key` in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// One HTTP request under way.
#[derive(Debug)]
pub struct Exchange {
    listener: Listener,
    method: Method,
    path: String,
    caller: CallerName,
    origin: Origin,
    work: Work,
}

/// What is still to be done.
#[derive(Debug)]
enum Work {
    /// Nothing: it is answered, or the reactor answers it.
    Over,
    /// Answers are awaited.
    Gather(Gather),
    /// One entry's answers are awaited.
    Batch(Batch),
}

/// What the access log says of a request. All of it is [`std::fmt::Display`]; none of it holds a token.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// As sent.
    pub method: Method,
    /// As sent, without the query.
    pub path: &'a str,
    /// `anonymous`, `user:ID` or `key:NAME`; anonymous until the caller is known.
    pub caller: &'a CallerName,
}

impl Exchange {
    /// Takes a request as far as it goes without asking anyone.
    pub fn begin(mut request: Request, ctx: &Ctx) -> (Exchange, Progress) {
        let path = std::mem::take(&mut request.path);
        let mut exchange = Exchange {
            listener: ctx.listener,
            method: request.method,
            path,
            caller: CallerName(Caller::Anonymous),
            origin: Origin::None,
            work: Work::Over,
        };
        let step = match exchange.run(&request, ctx) {
            Ok(Step::Done(reply)) => Step::Done(node::unless_known(reply, &request.headers)),
            Ok(step) => step,
            Err(reply) => Step::Done(reply),
        };
        let progress = exchange.begun(step, ctx);
        (exchange, progress)
    }

    /// Takes one answer. `part` is the index of the question in the last [`Progress::Ask`]. `None`: more are awaited, or this
    /// one was not.
    pub fn answered(
        &mut self,
        part: u32,
        answer: Result<Answer, Refusal>,
        ctx: &Ctx,
    ) -> Option<Progress> {
        let progress = match &mut self.work {
            Work::Over => None,
            Work::Gather(gather) => gather.take(part, answer, ctx).map(Progress::Done),
            Work::Batch(batch) => batch.take(part, answer, ctx),
        }?;
        if matches!(progress, Progress::Done(_)) {
            self.work = Work::Over;
        }
        Some(self.dressed(progress))
    }

    /// The reply when answers have been awaited for too long: 504 `timeout`, or what is known by then of a push to many rooms or of
    /// a batch.
    pub fn timed_out(&mut self, _: &Ctx) -> Reply {
        let reply = match std::mem::replace(&mut self.work, Work::Over) {
            Work::Over => refuse(timeout()),
            Work::Gather(gather) => gather.timed_out(),
            Work::Batch(mut batch) => batch.timed_out(),
        };
        self.origin.dress(reply)
    }

    /// Where the request came in.
    pub fn listener(&self) -> Listener {
        self.listener
    }

    /// For the access log.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            method: self.method,
            path: &self.path,
            caller: &self.caller,
        }
    }

    /// The middleware, in order: origin, route, may this page act, caller, body, handler.
    fn run(&mut self, request: &Request, ctx: &Ctx) -> Result<Step, Reply> {
        if self.listener == Listener::Public {
            let origins = &ctx.policy.config.auth.origins;
            self.origin = Origin::judge(request, origins).map_err(refuse)?;
            if self.method == Method::Options {
                return self.options(request);
            }
        }
        let path = self.path.clone();
        let found = match route::find(self.method, &path, self.listener) {
            Ok(found) => found,
            Err(reply) => return Ok(Step::Done(self.page(ctx).unwrap_or(reply))),
        };
        self.origin.permits(self.method).map_err(refuse)?;
        let caller = caller::admit(found.needs(), request, ctx).map_err(refuse)?;
        self.caller = CallerName(caller.clone());
        let call = Call {
            method: self.method,
            path: &path,
            query: &request.query,
            body: &request.body,
            caller: &caller,
            once: idempotency_key(request).map_err(refuse)?,
            upgrade: request
                .headers
                .list("Upgrade")
                .any(|protocol| protocol.eq_ignore_ascii_case("websocket")),
        };
        if !call.body.is_empty() {
            accept::require_json(request.headers.first("Content-Type")).map_err(refuse)?;
        }
        found.run(&call, ctx).map_err(refuse)
    }

    /// OPTIONS on the public listener; `*` means the server as a whole (RFC 9110 section 9.3.7).
    fn options(&self, request: &Request) -> Result<Step, Reply> {
        let methods = match self.path.as_str() {
            "*" => vec![Method::Get, Method::Head, Method::Post, Method::Options],
            path => route::methods(path, self.listener),
        };
        if methods.is_empty() {
            return Err(route::not_found(&self.path));
        }
        Ok(Step::Done(cors::options(request, &methods, &self.origin)))
    }

    /// An embedded page that is no route: scripts, styles, icons. On the public listener only.
    fn page(&self, ctx: &Ctx) -> Option<Reply> {
        let reads = matches!(self.method, Method::Get | Method::Head);
        (reads && self.listener == Listener::Public)
            .then(|| node::page(&self.path, ctx))
            .flatten()
    }

    fn begun(&mut self, step: Step, ctx: &Ctx) -> Progress {
        let progress = match step {
            Step::Done(reply) => Progress::Done(reply),
            Step::Special(special) => Progress::Special(special),
            Step::Ask(questions, gather) => {
                self.work = Work::Gather(gather);
                Progress::Ask(questions)
            }
            Step::Batch(mut batch) => {
                let progress = batch.advance(ctx);
                if matches!(progress, Progress::Ask(_)) {
                    self.work = Work::Batch(batch);
                }
                progress
            }
        };
        self.dressed(progress)
    }

    fn dressed(&self, progress: Progress) -> Progress {
        match progress {
            Progress::Done(reply) => Progress::Done(self.origin.dress(reply)),
            other => other,
        }
    }
}

/// The `Idempotency-Key` of a request. Routes that do not push have no use for it and take no notice.
fn idempotency_key(request: &Request) -> Result<Option<&str>, Refusal> {
    let mut fields = request.headers.all("Idempotency-Key");
    let Some(key) = fields.next() else {
        return Ok(None);
    };
    let visible = key.bytes().all(|b| b.is_ascii_graphic());
    let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len());
    if fields.next().is_some() || !visible || !fits {
        let bytes = key.len();
        return Err(Refusal::new(
            Code::BadRequest,
            format!(
                "Idempotency-Key must stand there once, as 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters; found {bytes} bytes"
            ),
        ));
    }
    Ok(Some(key))
}
