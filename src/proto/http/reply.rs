//! Answers: one value per answer, written into a buffer in one go. Knows no time: the Date is made of a number it is told.

use std::borrow::Cow;
use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;

use crate::base::refusal::{Code, Refusal};

use super::is_token_byte;

/// The interim answer to [`super::Step::Continue`] (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The content type of every JSON body.
pub const JSON: &str = "application/json";

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200..=599.
    pub status: u16,
    /// None where there is no body.
    pub content_type: Option<&'static str>,
    /// Further fields. `Date`, `Content-Type`, `Content-Length`, `Connection` and a refusal's `Retry-After` are not among them
    /// until [`Reply::write`] adds what it owns.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// Shared, so that an embedded page is never copied.
    pub body: Bytes,
}

/// How an answer stands on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// The request was HEAD: all headers, no body (RFC 9110 section 9.3.2).
    pub head_only: bool,
    /// Whether the connection stays after this answer.
    pub keep_alive: bool,
    /// The request's minor version, which decides what staying must be called.
    pub version_minor: u8,
}

/// The JSON body of a refusal (`docs/PROTOCOL.md`).
#[derive(Serialize)]
struct RefusalBody<'a> {
    code: &'static str,
    reason: &'a str,
    hint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
}

impl Reply {
    /// A JSON answer. A value that cannot be JSON (a map with keys that are no strings) becomes a 500.
    pub fn json(status: u16, value: impl Serialize) -> Reply {
        match serde_json::to_vec(&value) {
            Ok(body) => Reply::with_body(status, JSON, body),
            Err(error) => Reply::refusal(&Refusal::new(
                Code::Internal,
                format!("the answer could not be written: {error}"),
            )),
        }
    }

    /// JSON that is written already.
    pub fn raw_json(status: u16, body: impl Into<Bytes>) -> Reply {
        Reply::with_body(status, JSON, body)
    }

    /// Plain text.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Reply {
        Reply::with_body(status, "text/plain; charset=utf-8", body)
    }

    /// A page.
    pub fn html(status: u16, body: impl Into<Bytes>) -> Reply {
        Reply::with_body(status, "text/html; charset=utf-8", body)
    }

    /// Any other kind of body.
    pub fn with_body(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
        Reply {
            status,
            content_type: Some(content_type),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// No body.
    pub fn empty(status: u16) -> Reply {
        Reply {
            status,
            content_type: None,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// `{"code","reason","hint","retry_after_ms"?}`. 429 and 503 with a time to come back also say it as `Retry-After`, in whole
    /// seconds rounded up. The caller adds what only it knows, such as 405's `Allow`.
    pub fn refusal(refusal: &Refusal) -> Reply {
        let status = refusal.code.status();
        let reply = Reply::json(
            status,
            RefusalBody {
                code: refusal.code.as_str(),
                reason: &refusal.reason,
                hint: refusal.code.hint(),
                retry_after_ms: refusal.retry_after_ms,
            },
        );
        match refusal.retry_after_ms {
            Some(after_ms) if matches!(status, 429 | 503) => {
                reply.header("Retry-After", after_ms.div_ceil(1000).max(1).to_string())
            }
            _ => reply,
        }
    }

    /// The same with one more header field. See [`Reply::write`] for what becomes of an ill-formed one.
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Appends the whole answer. `unix_s` is seconds since 1970, for the Date. The length is always said except where
    /// RFC 9110 section 8.6 forbids it: 1xx and 204, and 304, whose body would be somewhere else. A header field that could
    /// break out of its line is a fault of ours: left out, and asserted against in debug builds.
    pub fn write(&self, framing: Framing, unix_s: u64, out: &mut Vec<u8>) {
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        out.reserve(256 + self.body.len());
        out.extend_from_slice(b"HTTP/1.1 ");
        number(u64::from(self.status), out);
        out.push(b' ');
        out.extend_from_slice(status_reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\nDate: ");
        write_date(unix_s, out);
        out.extend_from_slice(b"\r\n");
        if let Some(content_type) = self.content_type {
            field("Content-Type", content_type, out);
        }
        if !bodiless {
            out.extend_from_slice(b"Content-Length: ");
            number(self.body.len() as u64, out);
            out.extend_from_slice(b"\r\n");
        }
        match (framing.version_minor, framing.keep_alive) {
            (0, true) => field("Connection", "keep-alive", out),
            (1.., false) => field("Connection", "close", out),
            _ => {}
        }
        for (name, value) in &self.headers {
            let sound = is_sound(name, value);
            debug_assert!(sound, "header {name:?} would break out of its line");
            if sound {
                field(name, value, out);
            }
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && !framing.head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

/// The phrase that belongs to a status (RFC 9110 section 15); clients ignore it.
pub fn status_reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// Appends the moment as an IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7). `unix_s` is seconds since
/// 1970; years past 9999 have no such form and are written as the end of 9999.
pub fn write_date(unix_s: u64, out: &mut Vec<u8>) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    const END_OF_9999_S: u64 = 253_402_300_799;
    let unix_s = unix_s.min(END_OF_9999_S);
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Years are counted from March so that the leap day is a year's last, eras are 400 years; day 719,468 of era 0 is 1970-01-01.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let written = write!(
        out,
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        second / 3600,
        second / 60 % 60,
        second % 60,
    );
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

fn field(name: &str, value: &str, out: &mut Vec<u8>) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Whether a field stays on its line.
fn is_sound(name: &str, value: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(is_token_byte)
        && !value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Framing = Framing {
        head_only: false,
        keep_alive: true,
        version_minor: 1,
    };

    fn written(reply: &Reply, framing: Framing) -> String {
        let mut out = Vec::new();
        reply.write(framing, 784_111_777, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_says_date_type_and_length() {
        let reply = Reply::json(200, serde_json::json!({"a": 1})).header("X-Room", "1001");
        assert_eq!(
            written(&reply, KEPT),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\n\
             Content-Length: 7\r\nX-Room: 1001\r\n\r\n{\"a\":1}"
        );
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let framing = Framing {
            head_only: true,
            ..KEPT
        };
        let answer = written(&Reply::text(200, "hello"), framing);
        assert!(answer.contains("Content-Length: 5\r\n"));
        assert!(answer.ends_with("\r\n\r\n"));
    }

    #[test]
    fn what_has_no_body_says_no_length() {
        for status in [204, 304] {
            let mut reply = Reply::empty(status);
            assert!(!written(&reply, KEPT).contains("Content-Length"));
            reply.body = Bytes::from_static(b"stray");
            assert!(written(&reply, KEPT).ends_with("\r\n\r\n"));
        }
        assert!(written(&Reply::empty(200), KEPT).contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn staying_is_said_where_it_is_not_the_default() {
        let connection = |version_minor, keep_alive| {
            let framing = Framing {
                head_only: false,
                keep_alive,
                version_minor,
            };
            let answer = written(&Reply::empty(204), framing);
            answer
                .lines()
                .find_map(|l| l.strip_prefix("Connection: ").map(str::to_owned))
        };
        assert_eq!(connection(1, true), None);
        assert_eq!(connection(1, false).as_deref(), Some("close"));
        assert_eq!(connection(0, true).as_deref(), Some("keep-alive"));
        assert_eq!(connection(0, false), None);
    }

    #[test]
    fn a_refusal_says_code_reason_hint_and_when() {
        let refusal = Refusal::new(Code::RateLimited, "6 lines in a second; 5 are allowed");
        let reply = Reply::refusal(&refusal);
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.status, 429);
        assert_eq!(body["code"], "rate_limited");
        assert_eq!(body["reason"], "6 lines in a second; 5 are allowed");
        assert_eq!(body["hint"], Code::RateLimited.hint());
        assert!(body.get("retry_after_ms").is_none() && reply.headers.is_empty());

        for (after_ms, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (60_000, "60")] {
            let reply = Reply::refusal(&refusal.clone().retry(after_ms));
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(body["retry_after_ms"], after_ms);
            assert_eq!(
                reply.headers,
                [(Cow::from("Retry-After"), seconds.to_owned())]
            );
        }
        let timeout = Reply::refusal(&Refusal::new(Code::Timeout, "late").retry(5));
        assert!(timeout.headers.is_empty(), "504 has no Retry-After");
    }

    #[test]
    fn a_value_that_is_no_json_is_our_fault() {
        let map = std::collections::HashMap::from([((1, 2), 3)]);
        assert_eq!(Reply::json(200, map).status, 500);
    }

    #[test]
    fn a_header_cannot_break_out_of_its_line() {
        assert!(is_sound("Allow", "GET, HEAD") && is_sound("X", ""));
        for (name, value) in [
            ("X", "a\r\nSet-Cookie: b"),
            ("X", "a\nb"),
            ("X", "a\rb"),
            ("X", "a\0"),
            ("X: y", "a"),
            ("X\r\nY", "a"),
            ("", "a"),
        ] {
            assert!(!is_sound(name, value), "{name:?} {value:?}");
        }
    }

    #[test]
    fn dates_follow_the_calendar() {
        let date = |unix_s| {
            let mut out = Vec::new();
            write_date(unix_s, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(68_169_599), "Mon, 28 Feb 1972 23:59:59 GMT");
        assert_eq!(date(68_169_600), "Tue, 29 Feb 1972 00:00:00 GMT");
        assert_eq!(date(951_868_800), "Wed, 01 Mar 2000 00:00:00 GMT");
        assert_eq!(date(1_735_689_599), "Tue, 31 Dec 2024 23:59:59 GMT");
        assert_eq!(date(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn every_refusal_has_a_phrase() {
        for code in Code::ALL {
            assert_ne!(status_reason(code.status()), "Unknown", "{code:?}");
        }
    }
}
