//! `POST /api/v1/batch`: many requests in one body, run one after the other with the batch caller's API key. Owns what is left to
//! run and the answers so far; an entry's failure never keeps the next from running, except when time is up.

use std::vec;

use super::call::{Call, Step};
use super::gather::{Gather, refuse};
use super::{Ctx, Listener, Progress, route};
use crate::base::identity::Caller;
use crate::base::refusal::{Code, Refusal};
use crate::bus::Answer;
use crate::proto::danmaku::http::parse_batch;
use crate::proto::http::Method;
use crate::proto::http::reply::{JSON, Reply};

/// Most bytes of all answers' bodies together; what would exceed it is to be asked for alone.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A batch under way.
#[derive(Debug)]
pub(super) struct Batch {
    caller: Caller,
    once: Option<String>,
    left: vec::IntoIter<Entry>,
    begun: usize,
    waiting: Option<Gather>,
    /// `{"responses":[` and the answers so far.
    body: Vec<u8>,
}

/// One request of the batch.
#[derive(Debug)]
struct Entry {
    method: String,
    path: String,
    body: Vec<u8>,
}

/// Handles a batch. Its entries are run by the exchange.
pub(super) fn batch(call: &Call, _: &Ctx) -> Result<Step, Refusal> {
    let parsed = parse_batch(call.body)?;
    let entries: Vec<Entry> = parsed
        .requests
        .into_iter()
        .map(|request| Entry {
            method: request.method.into_owned(),
            path: request.path.into_owned(),
            body: request.body.map_or_else(Vec::new, |b| b.get().into()),
        })
        .collect();
    Ok(Step::Batch(Batch {
        caller: call.caller.clone(),
        once: call.once.map(str::to_owned),
        left: entries.into_iter(),
        begun: 0,
        waiting: None,
        body: br#"{"responses":["#.to_vec(),
    }))
}

impl Batch {
    /// Runs entries until one has to ask, or all are answered.
    pub fn advance(&mut self, ctx: &Ctx) -> Progress {
        while let Some(entry) = self.left.next() {
            match self.run(&entry, ctx) {
                Step::Done(reply) => self.add(&reply),
                Step::Ask(questions, gather) => {
                    self.waiting = Some(gather);
                    return Progress::Ask(questions);
                }
                Step::Special(_) => self.add(&not_here("this path answers a request of its own")),
                Step::Batch(_) => self.add(&not_here("a batch holds no batches")),
            }
        }
        Progress::Done(self.finish())
    }

    /// Takes an answer to what the entry under way asked.
    pub fn take(
        &mut self,
        part: u32,
        answer: Result<Answer, Refusal>,
        ctx: &Ctx,
    ) -> Option<Progress> {
        let reply = self.waiting.as_mut()?.take(part, answer, ctx)?;
        self.waiting = None;
        self.add(&reply);
        Some(self.advance(ctx))
    }

    /// The entry under way has waited too long; the rest is not begun, because their order was part of what was asked.
    pub fn timed_out(&mut self) -> Reply {
        if let Some(waiting) = self.waiting.take() {
            self.add(&waiting.timed_out());
        }
        let rest = refuse(Refusal::new(
            Code::Timeout,
            "not run: an earlier request of the batch timed out",
        ));
        for _ in self.left.by_ref() {
            add(&mut self.body, &rest);
        }
        self.finish()
    }

    fn run(&mut self, entry: &Entry, ctx: &Ctx) -> Step {
        let index = self.begun;
        self.begun += 1;
        let Some(method) = Method::parse(&entry.method) else {
            let reason = format!("there is no method {}", entry.method);
            return Step::Done(refuse(Refusal::new(Code::NotImplemented, reason)));
        };
        if method == Method::Options {
            return Step::Done(not_here("OPTIONS is for browsers"));
        }
        let (path, query) = entry.path.split_once('?').unwrap_or((&entry.path, ""));
        let found = match route::find(method, path, Listener::Internal) {
            Ok(found) => found,
            Err(reply) => return Step::Done(reply),
        };
        // A batch sent again with its key does not push its lines again either.
        let once = self.once.as_ref().map(|key| format!("{key}#{index}"));
        let call = Call {
            method,
            path,
            query,
            body: &entry.body,
            caller: &self.caller,
            once: once.as_deref(),
            upgrade: false,
        };
        found
            .run(&call, ctx)
            .unwrap_or_else(|refusal| Step::Done(refuse(refusal)))
    }

    fn add(&mut self, reply: &Reply) {
        if self.body.len() + reply.body.len() > ANSWER_BYTES_MAX {
            let bytes = reply.body.len();
            let reason = format!(
                "carried out, but its answer of {bytes} bytes would take the batch's past {ANSWER_BYTES_MAX}: ask alone, or for less"
            );
            let instead = refuse(Refusal::new(Code::BodyTooLarge, reason));
            add(&mut self.body, &instead);
        } else {
            add(&mut self.body, reply);
        }
    }

    fn finish(&mut self) -> Reply {
        let mut body = std::mem::take(&mut self.body);
        body.extend_from_slice(b"]}");
        Reply::raw_json(200, body)
    }
}

/// Appends one answer. What is not JSON has no place in the body and is left out as null.
fn add(out: &mut Vec<u8>, reply: &Reply) {
    if out.last() != Some(&b'[') {
        out.push(b',');
    }
    out.extend_from_slice(br#"{"status":"#);
    out.extend_from_slice(itoa::Buffer::new().format(reply.status).as_bytes());
    out.extend_from_slice(br#","body":"#);
    match reply.content_type {
        Some(JSON) => out.extend_from_slice(&reply.body),
        _ => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

fn not_here(why: &'static str) -> Reply {
    refuse(Refusal::new(
        Code::BadRequest,
        format!("not in a batch: {why}"),
    ))
}
