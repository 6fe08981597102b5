//! The reader as a whole: what is read, and every refusal with its code.

mod cuts;

use super::*;

const LIMITS: HttpLimits = HttpLimits {
    head_bytes_max: 512,
    body_bytes_max: 64,
};

/// What a stream of bytes comes to: the steps, the bytes they took, and the refusal at the end if there is one.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    steps: Vec<(usize, Step)>,
    refused: Option<Code>,
}

/// Feeds `stream` in pieces of the lengths given, over and over; what is not consumed is fed again with the next piece.
fn hear(stream: &[u8], piece_bytes: &[usize]) -> (Heard, Reader) {
    let mut reader = Reader::new(LIMITS);
    let mut heard = Heard {
        steps: Vec::new(),
        refused: None,
    };
    let mut lengths = piece_bytes.iter().cycle();
    let (mut at, mut arrived) = (0, 0);
    while arrived < stream.len() {
        arrived = stream.len().min(arrived + lengths.next().unwrap());
        while at < arrived {
            match reader.feed(&stream[at..arrived]) {
                Ok(fed) => {
                    at += fed.consumed;
                    assert!(at <= arrived);
                    match fed.step {
                        Step::NeedMore => assert_eq!(at, arrived, "NeedMore leaves nothing"),
                        step => heard.steps.push((at, step)),
                    }
                }
                Err(refusal) => {
                    heard.refused = Some(refusal.code);
                    return (heard, reader);
                }
            }
        }
    }
    (heard, reader)
}

/// The one request `stream` is; fed whole and byte by byte.
fn read(stream: &str) -> Request {
    let (whole, reader) = hear(stream.as_bytes(), &[usize::MAX / 2]);
    let (bytewise, _) = hear(stream.as_bytes(), &[1]);
    assert_eq!(whole, bytewise, "{stream:?}");
    assert!(reader.is_idle());
    match whole.steps.as_slice() {
        [(at, Step::Request(request))] if *at == stream.len() => (**request).clone(),
        _ => panic!("{stream:?}: {whole:?}"),
    }
}

/// The code `stream` is refused with; fed whole and byte by byte.
fn refused(stream: &[u8]) -> Option<Code> {
    let (whole, _) = hear(stream, &[usize::MAX / 2]);
    let (bytewise, mut reader) = hear(stream, &[1]);
    assert_eq!(whole, bytewise, "{:?}", String::from_utf8_lossy(stream));
    if whole.refused.is_some() {
        assert!(reader.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").is_err());
        assert!(!reader.is_idle());
    }
    whole.refused
}

#[test]
fn a_request_is_read_whole() {
    let request = read(
        "POST /api/v1/danmaku/push?room=a%3Ab&x HTTP/1.1\r\nHost: example.com:8080\r\nX-Empty:\r\n\
         content-LENGTH: 5\r\nX-A:  one \t\r\nx-a: two\r\n\r\nhello",
    );
    assert_eq!(request.method, Method::Post);
    assert_eq!(request.path, "/api/v1/danmaku/push");
    assert_eq!(request.query, "room=a%3Ab&x");
    assert_eq!((request.version_minor, request.keep_alive), (1, true));
    assert_eq!(request.body, b"hello");
    let headers = &request.headers;
    assert_eq!((headers.len(), headers.is_empty()), (5, false));
    assert_eq!(headers.first("HOST"), Some("example.com:8080"));
    assert_eq!(headers.first("x-empty"), Some(""));
    assert_eq!(headers.first("x-none"), None);
    assert_eq!(headers.all("X-A").collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(headers.iter().next(), Some(("Host", "example.com:8080")));
    assert!(!format!("{headers:?}").contains("example.com"));
    assert!(Headers::default().is_empty());
}

#[test]
fn targets_come_in_three_forms() {
    let target = |target: &str| {
        let request = read(&format!("GET {target} HTTP/1.1\r\nHost: front\r\n\r\n"));
        let host = request.headers.first("host").unwrap().to_owned();
        (request.path, request.query, host)
    };
    let owned = |p: &str, q: &str, h: &str| (p.to_owned(), q.to_owned(), h.to_owned());
    assert_eq!(target("/"), owned("/", "", "front"));
    assert_eq!(target("//a?b?c"), owned("//a", "b?c", "front"));
    assert_eq!(target("http://back:1/p?q"), owned("/p", "q", "back:1"));
    assert_eq!(target("HTTPS://[::1]?q"), owned("/", "q", "[::1]"));
    assert_eq!(target("http://back"), owned("/", "", "back"));
    let any = read("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(any.path, "*");
}

#[test]
fn staying_follows_version_and_connection() {
    let stays = |version: &str, connection: &str| {
        read(&format!(
            "GET / HTTP/{version}\r\nHost: x\r\n{connection}\r\n"
        ))
        .keep_alive
    };
    assert!(stays("1.1", ""));
    assert!(stays("1.7", "Connection: foo\r\n"));
    assert!(!stays("1.1", "Connection: foo, Close\r\n"));
    assert!(!stays(
        "1.1",
        "Connection: keep-alive\r\nConnection: close\r\n"
    ));
    assert!(!stays("1.0", ""));
    assert!(stays("1.0", "Connection: Keep-Alive\r\n"));
    assert!(!stays("1.0", "Connection: keep-alive, close\r\n"));
    assert_eq!(read("GET / HTTP/1.0\r\n\r\n").version_minor, 0);
}

#[test]
fn chunks_are_put_together_and_what_is_round_them_dropped() {
    let request = read(
        "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n\
         5\r\nhello\r\n0001 ;a=b;c=\"d\"\r\n,\r\nA\t; q\r\n0123456789\r\n000;last\r\nX-Sum: 1\r\nY:\r\n\r\n",
    );
    assert_eq!(request.body, b"hello,0123456789");
    assert_eq!(request.headers.len(), 2, "trailers are no headers");
    assert!(
        read("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            .body
            .is_empty()
    );
}

#[test]
fn a_client_that_waits_is_told_to_go_on_once() {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n";
    for framing in [
        "Content-Length: 2\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
    ] {
        let body = if framing.starts_with('C') {
            "ab"
        } else {
            "2\r\nab\r\n0\r\n\r\n"
        };
        let stream = format!("{head}{framing}{body}");
        let head_bytes = head.len() + framing.len();
        for piece_bytes in [1, head_bytes, stream.len()] {
            let (heard, _) = hear(stream.as_bytes(), &[piece_bytes]);
            assert_eq!(heard.steps.len(), 2);
            assert_eq!(heard.steps[0], (head_bytes, Step::Continue));
            assert!(matches!(&heard.steps[1], (_, Step::Request(r)) if r.body == b"ab"));
        }
    }
    let without_body = format!("{head}Content-Length: 0\r\n\r\n");
    assert!(read(&without_body).body.is_empty());
    let old = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab";
    assert_eq!(read(old).body, b"ab");
    let too_large = format!("{head}Content-Length: 65\r\n\r\n");
    assert_eq!(refused(too_large.as_bytes()), Some(Code::BodyTooLarge));
}

#[test]
fn line_ends_before_a_request_are_forgiven_and_no_request() {
    assert_eq!(read("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").path, "/");
    let mut reader = Reader::new(LIMITS);
    assert_eq!(reader.feed(b"\r\n").unwrap().consumed, 2);
    assert!(reader.is_idle());
    reader.feed(b"G").unwrap();
    assert!(!reader.is_idle());
}

#[test]
fn deadlines_can_tell_head_and_body_apart() {
    let mut reader = Reader::new(LIMITS);
    assert_eq!((reader.phase(), reader.is_idle()), (Phase::Head, true));
    reader.feed(b"PUT / HTTP/1.1\r\nHost: x\r\n").unwrap();
    assert_eq!((reader.phase(), reader.is_idle()), (Phase::Head, false));
    reader.feed(b"Content-Length: 2\r\n\r\n").unwrap();
    assert_eq!((reader.phase(), reader.is_idle()), (Phase::Body, false));
    reader.feed(b"a").unwrap();
    assert_eq!(reader.phase(), Phase::Body);
    assert!(matches!(reader.feed(b"b").unwrap().step, Step::Request(_)));
    assert_eq!((reader.phase(), reader.is_idle()), (Phase::Head, true));
}

#[test]
fn text_that_is_no_utf8_is_let_through_and_means_nothing() {
    let stream =
        b"GET / HTTP/1.1\r\nHost: x\r\nX-City: S\xe3o\r\nConnection: clos\xe9\r\n\r\n".to_vec();
    let (heard, _) = hear(&stream, &[7]);
    let [(_, Step::Request(request))] = heard.steps.as_slice() else {
        panic!("{heard:?}");
    };
    assert_eq!(request.headers.first("x-city"), Some("S?o"));
    assert!(request.keep_alive);
    assert_eq!(
        read("GET / HTTP/1.1\r\nHost: x\r\nX-City: 上海\r\n\r\n")
            .headers
            .first("x-city"),
        Some("上海")
    );
    let smuggled = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\xa0\r\n\r\n";
    assert_eq!(refused(smuggled), Some(Code::NotImplemented));
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n"),
        Some(Code::BadRequest)
    );
}

#[test]
fn what_a_request_line_gets_wrong() {
    use Code::{BadRequest, NotImplemented, VersionNotSupported};
    for (line, code) in [
        ("GET / HTTP/2.0", VersionNotSupported),
        ("PRI * HTTP/2.0", VersionNotSupported),
        ("GET / HTTP/3", VersionNotSupported),
        ("GET / HTTP/0.9", VersionNotSupported),
        ("GET /", VersionNotSupported),
        ("GET / HTTP/", BadRequest),
        ("GET / http/1.1", BadRequest),
        ("GET / HTTP/1.1 ", BadRequest),
        ("GET  / HTTP/1.1", BadRequest),
        ("GET / /HTTP/1.1", BadRequest),
        ("GET", BadRequest),
        ("GET\t/ HTTP/1.1", BadRequest),
        ("G\"T / HTTP/1.1", BadRequest),
        ("get / HTTP/1.1", NotImplemented),
        ("BREW / HTTP/1.1", NotImplemented),
        ("TRACE / HTTP/1.1", NotImplemented),
        ("CONNECT example.com:80 HTTP/1.1", NotImplemented),
        ("GET example.com:80 HTTP/1.1", BadRequest),
        ("GET * HTTP/1.1", BadRequest),
        ("GET ftp://x/ HTTP/1.1", BadRequest),
        ("GET http:///a HTTP/1.1", BadRequest),
        ("GET http://me@x/ HTTP/1.1", BadRequest),
        ("GET /a#b HTTP/1.1", BadRequest),
        ("GET /房间 HTTP/1.1", BadRequest),
        ("GET /\x7f HTTP/1.1", BadRequest),
        ("GET /\rX HTTP/1.1", BadRequest),
    ] {
        let stream = format!("{line}\r\nHost: x\r\n\r\n");
        assert_eq!(refused(stream.as_bytes()), Some(code), "{line:?}");
    }
    for start in [
        "\n",
        "\rG",
        " GET",
        "\r\n\r\n\r\n",
        "\x16\x03\x01",
        "\0",
        "{",
    ] {
        assert_eq!(refused(start.as_bytes()), Some(BadRequest), "{start:?}");
    }
}

#[test]
fn what_headers_get_wrong() {
    use Code::{BadRequest, BodyTooLarge, ExpectationFailed, LengthRequired, NotImplemented};
    for (fields, code) in [
        ("", BadRequest),
        ("Host: x\r\nHost: x\r\n", BadRequest),
        ("Host: a b\r\n", BadRequest),
        ("Host: me@x\r\n", BadRequest),
        ("Host: x/y\r\n", BadRequest),
        ("Host: x\r\n", LengthRequired),
        ("Host: x\r\nExpect: 100-continue\r\n", LengthRequired),
        (
            "Host: x\r\nExpect: gold\r\nContent-Length: 1\r\n",
            ExpectationFailed,
        ),
        (
            "Host: x\r\nExpect: 100-continue, 200-ok\r\nContent-Length: 1\r\n",
            ExpectationFailed,
        ),
        (
            "Host: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            BadRequest,
        ),
        (
            "Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            BadRequest,
        ),
        (
            "Host: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
            BadRequest,
        ),
        (
            "Host: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            BadRequest,
        ),
        ("Host: x\r\nContent-Length: 1, 2\r\n", BadRequest),
        ("Host: x\r\nContent-Length: +1\r\n", BadRequest),
        ("Host: x\r\nContent-Length: -1\r\n", BadRequest),
        ("Host: x\r\nContent-Length: 0x1\r\n", BadRequest),
        ("Host: x\r\nContent-Length: 1 1\r\n", BadRequest),
        ("Host: x\r\nContent-Length:\r\n", BadRequest),
        ("Host: x\r\nContent-Length: 65\r\n", BodyTooLarge),
        (
            "Host: x\r\nContent-Length: 99999999999999999999999999\r\n",
            BodyTooLarge,
        ),
        ("Host: x\r\nTransfer-Encoding: gzip\r\n", NotImplemented),
        (
            "Host: x\r\nTransfer-Encoding: gzip, chunked\r\n",
            NotImplemented,
        ),
        ("Host: x\r\nTransfer-Encoding: xchunked\r\n", NotImplemented),
        (
            "Host: x\r\nTransfer-Encoding: chunked;q=1\r\n",
            NotImplemented,
        ),
        ("Host: x\r\nTransfer-Encoding: identity\r\n", NotImplemented),
        (
            "Host: x\r\nTransfer-Encoding: chunked, chunked\r\n",
            BadRequest,
        ),
        (
            "Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            BadRequest,
        ),
        ("Host: x\r\nTransfer-Encoding:\r\n", BadRequest),
        ("Host: x\r\nTransfer-Encoding: ,chunked\r\n", BadRequest),
        ("Host: x\r\nTransfer-Encoding: \x0bchunked\r\n", BadRequest),
        ("Host: x\r\nContent-Length : 1\r\n", BadRequest),
        ("Host: x\r\n Content-Length: 1\r\n", BadRequest),
        ("Host: x\r\nA: b\r\n c\r\n", BadRequest),
        ("Host: x\r\nA: b\r\n\tc\r\n", BadRequest),
        (" Host: x\r\n", BadRequest),
        ("Host: x\r\nno colon\r\n", BadRequest),
        ("Host: x\r\n: v\r\n", BadRequest),
        ("Host: x\r\nA(): v\r\n", BadRequest),
        ("Host: x\r\nÄ: v\r\n", BadRequest),
        ("Host: x\r\nA: b\rc\r\n", BadRequest),
        ("Host: x\r\nA: b\r\r\n", BadRequest),
        ("Host: x\r\nA: b\0c\r\n", BadRequest),
        ("Host: x\r\nA: b\x7f\r\n", BadRequest),
        ("Host: x\nContent-Length: 1\r\n", BadRequest),
        ("Host: x\r\nContent-Length: 1\n", BadRequest),
    ] {
        let stream = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(refused(stream.as_bytes()), Some(code), "{fields:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(old.as_bytes()), Some(BadRequest));
    let old = "GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n";
    assert_eq!(refused(old.as_bytes()), Some(BadRequest));
    for method in ["PUT", "PATCH"] {
        let stream = format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(refused(stream.as_bytes()), Some(LengthRequired));
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let request = read(&format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(Method::parse(method), Some(request.method));
    }
}

#[test]
fn what_chunks_get_wrong() {
    use Code::{BadRequest, BodyTooLarge, HeadTooLarge};
    let long = "x".repeat(LIMITS.head_bytes_max);
    let many = "1;aaaaaaaaaaaaaaa\r\na\r\n".repeat(33);
    for (body, code) in [
        ("\r\n", BadRequest),
        ("g\r\n", BadRequest),
        ("-1\r\n", BadRequest),
        ("0x1\r\n", BadRequest),
        (" 1\r\n", BadRequest),
        (";a\r\n", BadRequest),
        ("1 \r\n", BadRequest),
        ("1 1\r\n", BadRequest),
        ("1\na", BadRequest),
        ("1\rXa", BadRequest),
        ("1;a\na", BadRequest),
        ("1;a\rX", BadRequest),
        ("1;a\0", BadRequest),
        ("1\r\nab", BadRequest),
        ("1\r\na\n", BadRequest),
        ("1\r\na\rX", BadRequest),
        ("00000000000000001\r\n", BadRequest),
        ("0\r\n folded: 1\r\n", BadRequest),
        ("0\r\nno colon\r\n", BadRequest),
        ("0\r\n:\r\n", BadRequest),
        ("0\r\nA: b\n", BadRequest),
        ("0\r\nA: b\0\r\n", BadRequest),
        ("0\r\nA: b\r\n\rX", BadRequest),
        ("0\r\n\n", BadRequest),
        ("41", BodyTooLarge),
        ("ffffffffffffffff", BodyTooLarge),
        ("ffffffffffffffffffffffff", BodyTooLarge),
        (
            "40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n1",
            BodyTooLarge,
        ),
        (&format!("1;{long}"), HeadTooLarge),
        (&format!("0\r\nA: {long}"), HeadTooLarge),
        (&format!("0\r\n{long}:"), HeadTooLarge),
        (
            &format!("1{}", " ".repeat(LIMITS.head_bytes_max + 1)),
            HeadTooLarge,
        ),
        (&many, HeadTooLarge),
    ] {
        let stream =
            format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_eq!(refused(stream.as_bytes()), Some(code), "{body:?}");
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let head = |bytes: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n".len();
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
            "a".repeat(bytes - frame)
        )
    };
    assert_eq!(read(&head(LIMITS.head_bytes_max)).headers.len(), 2);
    let over = head(LIMITS.head_bytes_max + 1);
    assert_eq!(refused(over.as_bytes()), Some(Code::HeadTooLarge));
    assert_eq!(refused(&over.as_bytes()[..LIMITS.head_bytes_max]), None);

    let target = format!("GET /{} HTTP/1.1\r\n", "a".repeat(LIMITS.head_bytes_max));
    assert_eq!(refused(target.as_bytes()), Some(Code::UriTooLong));

    let fields = |count: usize| {
        let others = "a:\r\n".repeat(count - 1);
        format!("GET / HTTP/1.1\r\nHost: x\r\n{others}\r\n")
    };
    assert_eq!(read(&fields(FIELDS_MAX)).headers.len(), FIELDS_MAX);
    assert_eq!(
        refused(fields(FIELDS_MAX + 1).as_bytes()),
        Some(Code::HeadTooLarge)
    );

    let body = "b".repeat(LIMITS.body_bytes_max);
    let put = "PUT / HTTP/1.1\r\nHost: x\r\n";
    assert_eq!(
        read(&format!("{put}Content-Length: 64\r\n\r\n{body}"))
            .body
            .len(),
        64
    );
    let chunked = format!("{put}Transfer-Encoding: chunked\r\n\r\n40\r\n{body}\r\n0\r\n\r\n");
    assert_eq!(read(&chunked).body.len(), 64);
}

#[test]
fn a_reason_shows_little_of_what_was_sent() {
    assert_eq!(shown("a\tb\u{7}c"), "abc");
    assert_eq!(shown(&"字".repeat(64)), "字".repeat(64));
    assert_eq!(shown(&"字".repeat(65)), format!("{}...", "字".repeat(64)));
}

#[test]
fn an_idle_reader_is_small() {
    assert!(size_of::<Reader>() <= 96, "{}", size_of::<Reader>());
}
