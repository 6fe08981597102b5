//! Cuts in the byte stream never matter: the same requests, the same bytes taken, the same refusal.

use super::*;

use proptest::prelude::*;

/// One valid request on the wire and what it must be read as: path, body, whether it waits for 100.
fn valid_request() -> impl Strategy<Value = (Vec<u8>, String, Vec<u8>, bool)> {
    let body = proptest::collection::vec(any::<u8>(), 0..=64);
    let cuts = proptest::collection::vec(1usize..20, 1..8);
    (
        "[a-z0-9%._-]{0,20}",
        body,
        cuts,
        0u8..3,
        any::<bool>(),
        0usize..3,
    )
        .prop_map(|(path, body, cuts, kind, waits, blanks)| {
            let mut wire = b"\r\n".repeat(blanks);
            let expect = if waits {
                "Expect: 100-continue\r\n"
            } else {
                ""
            };
            let path = format!("/{path}");
            let (framing, sent, body) = match kind {
                0 => (String::new(), Vec::new(), Vec::new()),
                1 => (
                    format!("Content-Length: {}\r\n", body.len()),
                    body.clone(),
                    body,
                ),
                _ => (
                    "Transfer-Encoding: chunked\r\n".to_owned(),
                    chunked(&body, &cuts),
                    body,
                ),
            };
            let method = if kind == 0 { "GET" } else { "POST" };
            wire.extend_from_slice(
                format!("{method} {path}?q={blanks} HTTP/1.1\r\nHost: x\r\n{expect}{framing}\r\n")
                    .as_bytes(),
            );
            wire.extend_from_slice(&sent);
            let waits = waits && !sent.is_empty();
            (wire, path, body, waits)
        })
}

fn chunked(body: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut wire = Vec::new();
    let (mut rest, mut lengths) = (body, cuts.iter().cycle());
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
        let extension = if chunk.len() % 2 == 0 {
            ""
        } else {
            " ;e=\"1\""
        };
        wire.extend_from_slice(format!("{:02X}{extension}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
        rest = after;
    }
    let trailer = if cuts.len().is_multiple_of(2) {
        ""
    } else {
        "T: v\r\n"
    };
    wire.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
    wire
}

proptest! {
    #[test]
    fn cuts_in_pipelined_requests_do_not_matter(
        requests in proptest::collection::vec(valid_request(), 1..6),
        piece_bytes in proptest::collection::vec(1usize..80, 1..12),
    ) {
        let stream: Vec<u8> = requests.iter().flat_map(|(wire, ..)| wire.clone()).collect();
        let (heard, reader) = hear(&stream, &piece_bytes);
        prop_assert!(reader.is_idle());
        prop_assert_eq!(heard.refused, None);
        let mut steps = heard.steps.into_iter();
        let mut end = 0;
        for (wire, path, body, waits) in requests {
            end += wire.len();
            if waits {
                prop_assert!(matches!(steps.next(), Some((at, Step::Continue)) if at < end));
            }
            let Some((at, Step::Request(request))) = steps.next() else {
                return Err(TestCaseError::fail("a request is missing"));
            };
            prop_assert_eq!((at, request.path, request.body), (end, path, body));
        }
        prop_assert_eq!(steps.next(), None);
    }

    #[test]
    fn garbage_is_heard_the_same_however_it_is_cut(
        stream in proptest::collection::vec(any::<u8>(), 0..600),
        piece_bytes in proptest::collection::vec(1usize..40, 1..6),
    ) {
        prop_assert_eq!(hear(&stream, &[usize::MAX / 2]).0, hear(&stream, &piece_bytes).0);
    }

    #[test]
    fn spoilt_requests_are_heard_the_same_however_they_are_cut(
        requests in proptest::collection::vec(valid_request(), 1..4),
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        piece_bytes in proptest::collection::vec(1usize..40, 1..6),
    ) {
        let mut stream: Vec<u8> = requests.into_iter().flat_map(|(wire, ..)| wire).collect();
        for (at, byte) in spoils {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        prop_assert_eq!(hear(&stream, &[usize::MAX / 2]).0, hear(&stream, &piece_bytes).0);
    }
}
