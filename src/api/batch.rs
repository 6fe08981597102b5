//! `POST /api/v1/batch`: up to 100 requests, one after the other, with their caller's authority.

use std::collections::VecDeque;

use serde_json::json;

use super::exchange::refusal_reply;
use super::plan::{Planned, plan};
use super::route::{self, Action};
use super::{Ctx, Progress};
use crate::base::identity::Caller;
use crate::base::refusal::{Code, Refusal};
use crate::bus::Answer;
use crate::proto::danmaku::http::{BatchRequest, parse_batch};
use crate::proto::http::accept::require_json;
use crate::proto::http::headers::Headers;
use crate::proto::http::reply::Reply;
use crate::proto::http::{Method, Request};

/// A batch under way.
#[derive(Debug)]
pub struct Batch {
    caller: Caller,
    rest: VecDeque<Request>,
    /// The one whose questions are out.
    current: Option<Planned>,
    /// `{"status","body"}` so far, as JSON.
    responses: Vec<Vec<u8>>,
}

impl Batch {
    /// Takes a batch and runs it as far as it goes without an answer from elsewhere.
    ///
    /// # Errors
    /// The batch as a whole is wrong.
    pub fn begin(
        request: &Request,
        caller: Caller,
        ctx: &Ctx<'_>,
    ) -> Result<(Batch, Progress), Refusal> {
        require_json(request.headers.first("content-type"))?;
        let body = parse_batch(&request.body)?;
        let rest = body
            .requests
            .iter()
            .map(|one| inner(request, one))
            .collect::<Result<_, _>>()?;
        let mut batch = Batch {
            caller,
            rest,
            current: None,
            responses: Vec::new(),
        };
        let progress = batch.run(ctx);
        Ok((batch, progress))
    }

    /// An answer for the request under way.
    pub fn answered(
        &mut self,
        part: u32,
        answer: Result<Answer, Refusal>,
        ctx: &Ctx<'_>,
    ) -> Option<Progress> {
        let reply = self.current.as_mut()?.answered(part, answer, ctx)?;
        self.current = None;
        self.note(&reply);
        Some(self.run(ctx))
    }

    /// The request under way took too long: it and the rest are answered so.
    pub fn timed_out(&mut self, reply: Reply, ctx: &Ctx<'_>) -> Reply {
        let unanswered = usize::from(self.current.take().is_some()) + self.rest.len();
        self.rest.clear();
        for _ in 0..unanswered {
            self.note(&reply);
        }
        match self.run(ctx) {
            Progress::Done(reply) => reply,
            _ => reply,
        }
    }

    fn run(&mut self, ctx: &Ctx<'_>) -> Progress {
        while let Some(request) = self.rest.pop_front() {
            match self.start(&request, ctx) {
                Ok((planned, Progress::Ask(questions))) => {
                    self.current = Some(planned);
                    return Progress::Ask(questions);
                }
                Ok((_, Progress::Done(reply))) => self.note(&reply),
                Ok((_, Progress::Special(_))) => {
                    let reason = "this path cannot be asked for in a batch";
                    self.note(&refusal_reply(Refusal::new(Code::BadRequest, reason)));
                }
                Err(refusal) => self.note(&refusal_reply(refusal)),
            }
        }
        let mut out = b"{\"responses\":[".to_vec();
        out.extend(self.responses.join(&b","[..]));
        out.extend_from_slice(b"]}");
        Progress::Done(Reply::raw_json(200, out))
    }

    fn start(&self, request: &Request, ctx: &Ctx<'_>) -> Result<(Planned, Progress), Refusal> {
        let found = route::find(request.method, &request.path, ctx.listener)
            .map_err(|missed| missed.refusal)?;
        if found.action == Action::Page {
            let reason = "this path cannot be asked for in a batch";
            return Err(Refusal::new(Code::BadRequest, reason));
        }
        plan(request, &found, &self.caller, ctx)
    }

    fn note(&mut self, reply: &Reply) {
        let mut response = format!("{{\"status\":{},\"body\":", reply.status).into_bytes();
        match reply.body.is_empty() {
            true => response.extend_from_slice(json!(null).to_string().as_bytes()),
            false => response.extend_from_slice(&reply.body),
        }
        response.push(b'}');
        self.responses.push(response);
    }
}

/// One of a batch's requests as a request of its own. It has none of the batch's headers: an Idempotency-Key there would
/// stand for all of them.
fn inner(outer: &Request, one: &BatchRequest<'_>) -> Result<Request, Refusal> {
    let method = Method::parse(&one.method).ok_or_else(|| {
        let reason = format!("{:.32} is not a method", one.method);
        Refusal::new(Code::BadMessage, reason)
    })?;
    let (path, query) = one.path.split_once('?').unwrap_or((&one.path, ""));
    Ok(Request {
        method,
        path: path.into(),
        query: query.into(),
        version_minor: outer.version_minor,
        headers: Headers::default(),
        body: one
            .body
            .map_or(Vec::new(), |body| body.get().as_bytes().to_vec()),
        keep_alive: outer.keep_alive,
    })
}
