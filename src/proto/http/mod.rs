//! HTTP/1.1, server side (RFC 9110, RFC 9112): bytes in, requests out; replies in, bytes out.
//!
//! Owns the parsing state of one connection. Runs on the shard thread that owns the connection. Knows no socket and no
//! time, never blocks, and never guesses: a request two parsers could read in two ways is refused, because that is what
//! request smuggling is made of.

pub mod accept;
mod body;
mod head;
pub mod headers;
pub mod reply;
pub mod uri;

use std::fmt;

use crate::base::refusal::{Code, Refusal};

use body::{Body, Framing};
use head::Head;
use headers::Headers;

/// Most header fields in one head; more are refused with 431.
pub const FIELDS_MAX: usize = 64;

/// What one request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of request line and headers, their line ends included. Bounds chunk extensions and trailers too.
    pub head_bytes_max: usize,
    /// Bytes of the body after chunked decoding.
    pub body_bytes_max: usize,
}

/// The methods some route of this server may know; any other is refused with 501 (RFC 9110 section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Reads the headers alone.
    Head,
    /// Acts.
    Post,
    /// Creates or replaces.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
    /// Asks what is allowed; the CORS preflight.
    Options,
}

impl Method {
    /// Every method.
    pub const ALL: [Method; 7] = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Patch,
        Method::Delete,
        Method::Options,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }

    /// The method with that word; case matters (RFC 9110 section 9.1).
    pub fn parse(word: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|m| m.as_str() == word)
    }

    /// Whether a request must say how long its body is, even if it is empty.
    fn needs_length(self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Patch)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// As sent, still percent-encoded: begins with `/`, or is `*` (OPTIONS only).
    pub path: String,
    /// What followed the first `?`, still encoded; empty if nothing did. See [`uri::query_pairs`].
    pub query: String,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1 and what claims to be newer 1.x.
    pub version_minor: u8,
    /// The header fields. With an absolute-form target `Host` is the target's authority (RFC 9112 section 3.2.2).
    pub headers: Headers,
    /// At most `body_bytes_max` bytes, chunked coding taken off.
    pub body: Vec<u8>,
    /// Whether the client wants the connection to stay after the answer (RFC 9112 section 9.3).
    pub keep_alive: bool,
}

/// What one [`Reader::feed`] came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that are done with, never past the end of one request.
    pub consumed: usize,
    /// What to do now.
    pub step: Step,
}

/// What to do after a [`Reader::feed`].
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// All input was consumed; feed what comes next.
    NeedMore,
    /// Write [`reply::CONTINUE`] and feed the rest: the client waits for it (RFC 9110 section 10.1.1). At most once a request.
    Continue,
    /// Answer this, then feed the rest.
    Request(Box<Request>),
}

/// Which part of a request the reader waits for, so that each can have its own deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Request line and headers, also between requests.
    Head,
    /// The body.
    Body,
}

/// Reads the requests of one connection. Between requests it owns no heap.
#[derive(Debug)]
pub struct Reader {
    limits: HttpLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Body(Box<Pending>),
    /// Framing is lost: where the next request would begin is unknown.
    Refused,
}

/// A request whose body is on its way.
#[derive(Debug)]
struct Pending {
    request: Box<Request>,
    body: Body,
}

impl Reader {
    /// A reader before its first byte.
    pub fn new(limits: HttpLimits) -> Reader {
        // Ranges into a head are 32 bits wide.
        let head_bytes_max = limits.head_bytes_max.min(u32::MAX as usize);
        Reader {
            limits: HttpLimits {
                head_bytes_max,
                ..limits
            },
            state: State::Head(Head::default()),
        }
    }

    /// Takes bytes as they come, in pieces of any size; the result does not depend on where they are cut.
    ///
    /// # Errors
    /// A refusal to be answered, after which the connection must be closed: 400, 411, 413, 414, 417, 431, 501 or 505.
    /// Every later call is refused too.
    pub fn feed(&mut self, input: &[u8]) -> Result<Fed, Refusal> {
        // Whatever returns early with an error leaves `Refused` behind.
        match std::mem::replace(&mut self.state, State::Refused) {
            State::Head(head) => self.feed_head(head, input),
            State::Body(pending) => self.feed_body(pending, input, 0),
            State::Refused => Err(Refusal::new(
                Code::BadRequest,
                "an earlier request of this connection was refused, so it must be closed",
            )),
        }
    }

    /// Whether no byte of a request has been seen since the last one: such a connection may be closed at any time.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.is_empty())
    }

    /// Which part it waits for.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Body(_) => Phase::Body,
            State::Head(_) | State::Refused => Phase::Head,
        }
    }

    fn feed_head(&mut self, mut head: Head, input: &[u8]) -> Result<Fed, Refusal> {
        let (consumed, parsed) = head.feed(input, &self.limits)?;
        let Some(parsed) = parsed else {
            self.state = State::Head(head);
            return Ok(Fed {
                consumed,
                step: Step::NeedMore,
            });
        };
        let request = Box::new(parsed.request);
        if parsed.framing == Framing::Length(0) {
            return Ok(self.finish(consumed, request));
        }
        let body = Body::new(parsed.framing);
        let pending = Box::new(Pending { request, body });
        if parsed.expects_continue {
            self.state = State::Body(pending);
            return Ok(Fed {
                consumed,
                step: Step::Continue,
            });
        }
        self.feed_body(pending, input, consumed)
    }

    /// `begin` is where the body's bytes begin in `input`.
    fn feed_body(
        &mut self,
        mut pending: Box<Pending>,
        input: &[u8],
        begin: usize,
    ) -> Result<Fed, Refusal> {
        let rest = input.get(begin..).unwrap_or_default();
        let (body_bytes, done) = pending.body.feed(rest, &self.limits)?;
        let consumed = begin + body_bytes;
        if !done {
            self.state = State::Body(pending);
            return Ok(Fed {
                consumed,
                step: Step::NeedMore,
            });
        }
        let Pending { mut request, body } = *pending;
        request.body = body.into_bytes();
        Ok(self.finish(consumed, request))
    }

    fn finish(&mut self, consumed: usize, request: Box<Request>) -> Fed {
        self.state = State::Head(Head::default());
        Fed {
            consumed,
            step: Step::Request(request),
        }
    }
}

/// Whether a byte may stand in a method or a field name (RFC 9110 section 5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// At most 64 printable characters of something a client sent, for a reason.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    let mut chars = text.chars().filter(|c| !c.is_control());
    let mut shown: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    if chars.next().is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests;
