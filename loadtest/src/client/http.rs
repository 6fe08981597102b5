//! HTTP/1.1 as far as a client of this kind needs it: heads of answers by `httparse`, bodies by their length. Pure functions.

use std::io::Write as _;

/// Headers an answer may have.
const HEADERS_MAX: usize = 64;

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Length of the head, its blank line included.
    pub head_bytes: usize,
    /// Length of the body; 0 where none was declared.
    pub body_bytes: usize,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u64>,
    /// `Sec-WebSocket-Accept`.
    pub accept_key: Option<String>,
    /// Whether the server closes after this answer.
    pub closes: bool,
}

impl Answer {
    /// Length of head and body.
    pub fn length(&self) -> usize {
        self.head_bytes.saturating_add(self.body_bytes)
    }
}

/// The head at the beginning of `bytes`; `None` while its end has not come.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn answer(bytes: &[u8]) -> Result<Option<Answer>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not an HTTP answer: {error}")),
    };
    let mut answer = Answer {
        status: response.code.unwrap_or(0),
        head_bytes,
        ..Answer::default()
    };
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        match header.name {
            name if name.eq_ignore_ascii_case("content-length") => {
                let length = value.parse();
                answer.body_bytes = length.map_err(|_| format!("Content-Length: {value}"))?;
            }
            name if name.eq_ignore_ascii_case("transfer-encoding") => {
                return Err(format!("Transfer-Encoding: {value}"));
            }
            name if name.eq_ignore_ascii_case("retry-after") => {
                answer.retry_after_s = value.parse().ok();
            }
            name if name.eq_ignore_ascii_case("sec-websocket-accept") => {
                answer.accept_key = Some(value.to_owned());
            }
            name if name.eq_ignore_ascii_case("connection") => {
                answer.closes = value.eq_ignore_ascii_case("close");
            }
            _ => {}
        }
    }
    Ok(Some(answer))
}

/// Appends a POST of JSON.
pub fn post(out: &mut Vec<u8>, host: &str, path: &str, bearer: Option<&str>, body: &[u8]) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "POST {path} HTTP/1.1\r\nHost: {host}\r\n");
    if let Some(key) = bearer {
        let _ = write!(out, "Authorization: Bearer {key}\r\n");
    }
    let _ = write!(
        out,
        "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_answers() {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello";
        let head = answer(ok).unwrap().unwrap();
        assert_eq!(
            (head.status, head.closes, head.length()),
            (200, true, ok.len())
        );
        assert_eq!(answer(&ok[..20]), Ok(None));
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(answer(b"hello\r\n\r\n").is_err());
    }

    #[test]
    fn a_post_declares_its_length() {
        let mut out = Vec::new();
        post(&mut out, "h", "/p", Some("k"), b"{}");
        assert_eq!(
            out,
            b"POST /p HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        );
    }
}
