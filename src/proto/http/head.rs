//! Request line and header fields: gathers one head, line by line, and judges it once it is whole.
//!
//! Owns the bytes of an unfinished head. Refusals depend on the bytes alone, never on how they were cut into reads, and
//! no byte is looked at more than a fixed number of times.

use std::ops::ControlFlow;

use crate::base::refusal::{Code, Refusal};

use super::body::Framing;
use super::headers::{Entry, Headers, Span};
use super::{FIELDS_MAX, HttpLimits, Method, Request, is_token_byte, shown};

/// Line ends tolerated before a request line: old clients send one after a POST body (RFC 9112 section 2.2).
const BLANK_BYTES_MAX: u8 = 4;

/// An unfinished head. The buffer begins at the request line.
#[derive(Debug, Default)]
pub(super) struct Head {
    buffer: Vec<u8>,
    /// Where the line that is coming in begins.
    line_begin: usize,
    line: Option<RequestLine>,
    fields: usize,
    /// Bytes of line ends seen before the request line.
    blank_bytes: u8,
}

/// A checked request line.
#[derive(Clone, Copy, Debug)]
struct RequestLine {
    method: Method,
    target: Span,
    version_minor: u8,
}

/// A head that is whole and good.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Its body is still empty.
    pub(super) request: Request,
    pub(super) framing: Framing,
    /// The client waits for `100 Continue`; only ever with a body.
    pub(super) expects_continue: bool,
}

impl Head {
    /// Whether no byte of a request line has come.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes bytes up to the end of the head: how many, and the head if it is whole. Then it must not be fed again.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        limits: &HttpLimits,
    ) -> Result<(usize, Option<Parsed>), Refusal> {
        let mut consumed = 0;
        if self.buffer.is_empty() {
            consumed = self.skip_blank(input)?;
        }
        let rest = input.get(consumed..).unwrap_or_default();
        let room = limits.head_bytes_max.saturating_sub(self.buffer.len());
        let (window, over) = rest.split_at(rest.len().min(room));
        self.buffer.reserve(window.len());
        for piece in window.split_inclusive(|&b| b == b'\n') {
            consumed += piece.len();
            self.buffer.extend_from_slice(piece);
            if piece.ends_with(b"\n") && self.line_end()?.is_break() {
                return Ok((consumed, Some(self.parse(limits)?)));
            }
        }
        if over.is_empty() {
            return Ok((consumed, None));
        }
        let (code, what) = match self.line {
            None => (Code::UriTooLong, "request line is"),
            Some(_) => (Code::HeadTooLarge, "request line and headers are"),
        };
        Err(Refusal::new(
            code,
            format!(
                "the {what} longer than limits.head_bytes_max, {} bytes",
                limits.head_bytes_max
            ),
        ))
    }

    /// Skips line ends before the request line and looks at its first byte: how many bytes were skipped.
    fn skip_blank(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        for (index, &byte) in input.iter().enumerate() {
            let after_cr = self.blank_bytes % 2 == 1;
            match byte {
                b'\r' if !after_cr && self.blank_bytes < BLANK_BYTES_MAX => self.blank_bytes += 1,
                b'\n' if after_cr => self.blank_bytes += 1,
                0x16 => {
                    return bad(
                        "this port speaks plain HTTP, but the client began a TLS handshake: use ws:// or http://, or put a TLS proxy before it",
                    );
                }
                _ if is_token_byte(byte) && !after_cr => return Ok(index),
                _ => return bad("a request must begin with a method"),
            }
        }
        Ok(input.len())
    }

    /// A line is whole; breaks at the empty one that ends the head.
    fn line_end(&mut self) -> Result<ControlFlow<()>, Refusal> {
        let line = self.buffer.get(self.line_begin..).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return bad("a line of the head ends with LF alone; CR LF is required");
        };
        if self.line.is_none() {
            self.line = Some(RequestLine::parse(line, &self.buffer)?);
        } else if line.is_empty() {
            return Ok(ControlFlow::Break(()));
        } else {
            self.fields += 1;
            if self.fields > FIELDS_MAX {
                return Err(Refusal::new(
                    Code::HeadTooLarge,
                    format!("the head has more than {FIELDS_MAX} header fields"),
                ));
            }
        }
        self.line_begin = self.buffer.len();
        Ok(ControlFlow::Continue(()))
    }

    fn parse(&mut self, limits: &HttpLimits) -> Result<Parsed, Refusal> {
        let Some(line) = self.line else {
            return bad("a request must begin with a request line");
        };
        let (text, entries) = fields(std::mem::take(&mut self.buffer))?;
        let target = Target::parse(line.method, line.target.within(&text))?;
        let authority = target
            .authority
            .map(|authority| Span::of(authority.as_bytes(), text.as_bytes()));
        let (path, query) = (target.path.to_owned(), target.query.to_owned());
        let mut headers = Headers::new(text, entries);
        check_host(&headers, line.version_minor)?;
        if let Some(authority) = authority {
            headers.repoint("host", authority);
        }
        let expects_continue = expects_continue(&headers)? && line.version_minor >= 1;
        let framing = framing(&headers, line, limits)?;
        let keep_alive = !headers.has_token("connection", "close")
            && (line.version_minor >= 1 || headers.has_token("connection", "keep-alive"));
        Ok(Parsed {
            request: Request {
                method: line.method,
                path,
                query,
                version_minor: line.version_minor,
                headers,
                body: Vec::new(),
                keep_alive,
            },
            framing,
            expects_continue,
        })
    }
}

impl RequestLine {
    /// Checks `line`, which is a part of `head` (RFC 9112 section 3): exactly one space between the parts.
    fn parse(line: &[u8], head: &[u8]) -> Result<RequestLine, Refusal> {
        let mut parts = line.splitn(3, |&b| b == b' ');
        let method = parts.next().unwrap_or_default();
        let target = parts.next().unwrap_or_default();
        let version = parts.next();
        if target.is_empty() || !method.iter().all(|&b| is_token_byte(b)) {
            return bad("the request line must be METHOD SP TARGET SP VERSION");
        }
        let version_minor = parse_version(version)?;
        if let Some(&byte) = target.iter().find(|&&b| !b.is_ascii_graphic() || b == b'#') {
            return bad(format!(
                "the request target holds the byte 0x{byte:02x}, which must be percent-encoded"
            ));
        }
        let word = String::from_utf8_lossy(method);
        let Some(method) = Method::parse(&word) else {
            return Err(Refusal::new(
                Code::NotImplemented,
                format!(
                    "no address of this server knows the method {}",
                    shown(&word)
                ),
            ));
        };
        Ok(RequestLine {
            method,
            target: Span::of(target, head),
            version_minor,
        })
    }
}

/// 0 for HTTP/1.0, 1 for any newer 1.x (RFC 9110 section 2.5).
fn parse_version(version: Option<&[u8]>) -> Result<u8, Refusal> {
    match version {
        Some(b"HTTP/1.1") => Ok(1),
        Some(b"HTTP/1.0") => Ok(0),
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor]) if minor.is_ascii_digit() => Ok(1),
        Some(other) => match other.strip_prefix(b"HTTP/") {
            Some(number)
                if number.first().is_some_and(u8::is_ascii_digit)
                    && number.iter().all(|b| b.is_ascii_digit() || *b == b'.') =>
            {
                Err(Refusal::new(
                    Code::VersionNotSupported,
                    format!(
                        "HTTP/{} is not spoken here",
                        shown(&String::from_utf8_lossy(number))
                    ),
                ))
            }
            _ => bad("the request line must end with HTTP/1.1"),
        },
        None => Err(Refusal::new(
            Code::VersionNotSupported,
            "a request line without a version is HTTP/0.9, which is not spoken here",
        )),
    }
}

/// The parts of a request target (RFC 9112 section 3.2).
struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    /// Origin-form, absolute-form with http or https, or `*` for OPTIONS.
    fn parse(method: Method, target: &'a str) -> Result<Target<'a>, Refusal> {
        if target == "*" && method == Method::Options {
            return Ok(Target {
                authority: None,
                path: "*",
                query: "",
            });
        }
        if target.starts_with('/') {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            return Ok(Target {
                authority: None,
                path,
                query,
            });
        }
        let Some(rest) = after_scheme(target) else {
            return bad("the request target must begin with / or be an http address");
        };
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(authority_end);
        if authority.is_empty() || !is_host(authority) {
            return bad("the request target names no valid host");
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Ok(Target {
            authority: Some(authority),
            path: if path.is_empty() { "/" } else { path },
            query,
        })
    }
}

/// What follows `http://` or `https://`, case apart.
fn after_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// The whole head as text, and where its fields stand.
fn fields(head: Vec<u8>) -> Result<(Box<str>, Box<[Entry]>), Refusal> {
    let fields_begin = head.iter().position(|&b| b == b'\n').map_or(0, |lf| lf + 1);
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let parsed = httparse::parse_headers(head.get(fields_begin..).unwrap_or_default(), &mut slots);
    let entries = match parsed {
        Ok(httparse::Status::Complete((_, found))) => found
            .iter()
            .map(|field| Entry {
                name: Span::of(field.name.as_bytes(), &head),
                value: Span::of(field.value, &head),
            })
            .collect(),
        Err(httparse::Error::HeaderValue) => {
            return bad("a header's value holds a control character");
        }
        Ok(httparse::Status::Partial) | Err(_) => {
            return bad(
                "a header line must be NAME: VALUE, with no blank before the colon and not folded",
            );
        }
    };
    // Obsolete text (RFC 9110 section 5.5) is let through but never read as something it is not: byte for byte it becomes
    // `?`, so that every range stays true and no such value can equal one that has a meaning.
    let text = String::from_utf8(head).unwrap_or_else(|error| {
        let ascii = |byte: u8| if byte.is_ascii() { byte as char } else { '?' };
        error.into_bytes().into_iter().map(ascii).collect()
    });
    Ok((text.into_boxed_str(), entries))
}

/// RFC 9112 section 3.2: exactly one `Host` in HTTP/1.1, at most one in HTTP/1.0, and a valid one.
fn check_host(headers: &Headers, version_minor: u8) -> Result<(), Refusal> {
    let mut hosts = headers.all("host");
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => bad("the head has more than one Host"),
        (None, None) if version_minor >= 1 => bad("an HTTP/1.1 request must have a Host header"),
        (Some(host), None) if !is_host(host) => bad("the Host header is not a host and port"),
        _ => Ok(()),
    }
}

/// Whether `text` can be a host with an optional port (RFC 3986 section 3.2.2), without user information.
fn is_host(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&b))
}

/// Whether the client expects `100 Continue`; an expectation of any other kind is refused (RFC 9110 section 10.1.1).
fn expects_continue(headers: &Headers) -> Result<bool, Refusal> {
    let mut expects = false;
    for expectation in headers.list("expect") {
        if !expectation.eq_ignore_ascii_case("100-continue") {
            return Err(Refusal::new(
                Code::ExpectationFailed,
                format!("Expect: {} cannot be met", shown(expectation)),
            ));
        }
        expects = true;
    }
    Ok(expects)
}

/// Where the body ends (RFC 9112 section 6.3). Whatever two parsers could read in two ways is refused.
fn framing(headers: &Headers, line: RequestLine, limits: &HttpLimits) -> Result<Framing, Refusal> {
    let chunked = transfer_chunked(headers, line.version_minor)?;
    let mut lengths = headers.all("content-length");
    let framing = match (chunked, lengths.next(), lengths.next()) {
        (true, Some(_), _) => return bad("the head has both Content-Length and Transfer-Encoding"),
        (_, _, Some(_)) => return bad("the head has more than one Content-Length"),
        (true, None, None) => Framing::Chunked,
        (false, Some(length), None) => Framing::Length(content_length(length, limits)?),
        (false, None, None) if line.method.needs_length() => {
            return Err(Refusal::new(
                Code::LengthRequired,
                format!(
                    "a {} must say how long its body is, even if it has none",
                    line.method
                ),
            ));
        }
        (false, None, None) => Framing::Length(0),
    };
    Ok(framing)
}

/// Whether the body is chunked; any other transfer coding is refused (RFC 9112 sections 6.1 and 7). Stricter than the list
/// grammar on purpose: the one spelling every parser agrees on.
fn transfer_chunked(headers: &Headers, version_minor: u8) -> Result<bool, Refusal> {
    let mut values = headers.all("transfer-encoding");
    let Some(value) = values.next() else {
        return Ok(false);
    };
    if version_minor == 0 {
        return bad("HTTP/1.0 has no Transfer-Encoding");
    }
    if value.eq_ignore_ascii_case("chunked") && values.next().is_none() {
        return Ok(true);
    }
    match headers
        .list("transfer-encoding")
        .find(|coding| !coding.eq_ignore_ascii_case("chunked"))
    {
        Some(other) => Err(Refusal::new(
            Code::NotImplemented,
            format!(
                "the transfer coding {} is not known here; chunked is",
                shown(other)
            ),
        )),
        None => bad("Transfer-Encoding must be chunked and nothing else"),
    }
}

fn content_length(text: &str, limits: &HttpLimits) -> Result<usize, Refusal> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return bad(format!(
            "Content-Length must be a number, not {}",
            shown(text)
        ));
    }
    // Only digits: what does not fit a usize is too large, whatever the limit.
    match text.parse() {
        Ok(length) if length <= limits.body_bytes_max => Ok(length),
        _ => Err(super::body::too_large(limits)),
    }
}

/// A request HTTP/1.1 does not allow.
pub(super) fn bad<T>(reason: impl Into<std::borrow::Cow<'static, str>>) -> Result<T, Refusal> {
    Err(Refusal::new(Code::BadRequest, reason))
}
