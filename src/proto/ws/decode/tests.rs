//! The decoder by hand-written frames. Random streams against another implementation are in `tests/ws_differential.rs`.

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LIMIT: usize = 16 * 1024;

const CONTINUE: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;

/// A client's frame; `first` is FIN, reserved bits and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

/// A header that declares what it likes.
fn header(first: u8, second: u8, length: &[u8]) -> Vec<u8> {
    [&[first, second], length, &MASK].concat()
}

/// Everything the pieces say, one string for each event.
fn feed(decoder: &mut Decoder, pieces: &[&[u8]]) -> Result<Vec<String>, Fault> {
    let mut events = Vec::new();
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut at = 0;
        loop {
            let given = input.len() - at;
            let step = decoder.next(&mut input[at..], LIMIT)?;
            at += step.consumed;
            match step.event {
                Some(event) => events.push(format!("{event:?}")),
                None => {
                    assert_eq!(step.consumed, given, "no event, so all is consumed");
                    break;
                }
            }
        }
    }
    Ok(events)
}

fn fault(bytes: &[u8]) -> Fault {
    let whole = feed(&mut Decoder::new(), &[bytes]).expect_err("refused");
    let each: Vec<&[u8]> = bytes.chunks(1).collect();
    let by_byte = feed(&mut Decoder::new(), &each).expect_err("refused byte by byte");
    assert_eq!(whole, by_byte);
    whole
}

#[test]
fn a_whole_frame_is_read_in_place() {
    for payload_bytes in [0, 1, 7, 8, 9, 50, 125, 126, 4096] {
        let payload = "弹幕 danmaku! ".repeat(300);
        let payload = &payload[..payload.floor_char_boundary(payload_bytes)];
        let mut input = [frame(FIN | TEXT, payload.as_bytes()), vec![FIN | PING]].concat();
        let span = input.as_ptr_range();
        let used = input.len() - 1;
        let mut decoder = Decoder::new();
        let step = decoder.next(&mut input, LIMIT).unwrap();
        assert_eq!(
            (step.consumed, step.event),
            (used, Some(Event::Text(payload)))
        );
        let Some(Event::Text(text)) = step.event else {
            panic!()
        };
        assert!(
            text.is_empty() || span.contains(&text.as_ptr()),
            "{payload_bytes} copied"
        );
        assert_eq!(decoder.heap_bytes(), 0);
    }
}

#[test]
fn every_cut_in_two_gives_the_same_events() {
    let stream = [
        frame(FIN | TEXT, "第一".as_bytes()),
        frame(BINARY, b"one "),
        frame(FIN | PING, b"between"),
        frame(CONTINUE, b""),
        frame(FIN | PONG, b""),
        frame(FIN | CONTINUE, &[b'x'; 130]),
        frame(TEXT, &"弹".as_bytes()[..1]),
        frame(CONTINUE, &"弹".as_bytes()[1..2]),
        frame(FIN | CONTINUE, &"弹".as_bytes()[2..]),
        frame(TEXT, b""),
        frame(FIN | CONTINUE, b"whole"),
        frame(
            FIN | CLOSE,
            &[&[0x03, 0xe8][..], "再见".as_bytes()].concat(),
        ),
    ]
    .concat();
    let whole = feed(&mut Decoder::new(), &[&stream]).unwrap();
    assert_eq!(whole.len(), 7);
    assert_eq!(whole[0], r#"Text("第一")"#);
    assert_eq!(whole[1], format!("{:?}", Event::Ping(b"between")));
    assert_eq!(whole[4], r#"Text("弹")"#);
    assert_eq!(whole[5], r#"Text("whole")"#);
    assert_eq!(whole[6], r#"Close(Some((1000, "再见")))"#);
    for cut in 0..=stream.len() {
        let (left, right) = stream.split_at(cut);
        let mut decoder = Decoder::new();
        assert_eq!(
            feed(&mut decoder, &[left, right]).as_ref(),
            Ok(&whole),
            "cut at {cut}"
        );
        assert_eq!(decoder.heap_bytes(), 0, "cut at {cut}");
    }
    let each: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(feed(&mut Decoder::new(), &each), Ok(whole));
}

#[test]
fn memory_grows_with_what_arrives_and_is_given_back() {
    let mut decoder = Decoder::new();
    let payload = vec![b'a'; LIMIT];
    let stream = frame(FIN | TEXT, &payload);
    assert_eq!(feed(&mut decoder, &[&stream[..8]]), Ok(vec![]));
    assert_eq!(
        decoder.heap_bytes(),
        0,
        "a declared length reserves nothing"
    );
    feed(&mut decoder, &[&stream[8..18]]).unwrap();
    assert_eq!(decoder.heap_bytes(), HELD_BYTES_MIN);
    for piece in stream[18..stream.len() - 1].chunks(100) {
        feed(&mut decoder, &[piece]).unwrap();
        assert!(decoder.heap_bytes() <= LIMIT + CONTROL_BYTES_MAX);
    }
    let mut last = [stream[stream.len() - 1]];
    let step = decoder.next(&mut last, LIMIT).unwrap();
    assert!(matches!(step.event, Some(Event::Text(text)) if text.len() == LIMIT));
    assert_eq!(
        decoder.next(&mut [], LIMIT),
        Ok(Step {
            consumed: 0,
            event: None
        })
    );
    assert_eq!(decoder.heap_bytes(), 0);
}

#[test]
fn a_cut_off_ping_inside_a_cut_off_message_leaves_it_alone() {
    let message = frame(TEXT, b"before ");
    let ping = frame(FIN | PING, &[9; 125]);
    let rest = frame(FIN | CONTINUE, b"after");
    let mut decoder = Decoder::new();
    let events = feed(
        &mut decoder,
        &[&message, &ping[..60], &ping[60..], &rest[..8], &rest[8..]],
    )
    .unwrap();
    assert_eq!(events[0], format!("{:?}", Event::Ping(&[9; 125])));
    assert_eq!(events[1], r#"Text("before after")"#);
    assert_eq!(decoder.heap_bytes(), 0);
}

#[test]
fn bad_text_fails_at_its_first_bad_byte() {
    // The frame is not over, nor is the message; the bad byte is the last that arrived.
    let first = frame(TEXT, "κόσμε".as_bytes());
    let second = frame(CONTINUE, b"\xf4\x90 and more");
    let mut decoder = Decoder::new();
    assert_eq!(feed(&mut decoder, &[&first, &second[..7]]), Ok(vec![]));
    assert_eq!(
        feed(&mut decoder, &[&second[7..8]]),
        Err(Fault::BadText { offset: 11 })
    );

    for (payload, offset) in [
        (&b"\xed\xa0\x80"[..], 1),
        (b"ok\xff", 2),
        (b"cut \xe5\xbc", 6),
    ] {
        assert_eq!(
            fault(&frame(FIN | TEXT, payload)),
            Fault::BadText { offset },
            "{payload:x?}"
        );
    }
    let cut = [frame(TEXT, b"a\xe5"), frame(FIN | CONTINUE, b"\xbc")].concat();
    assert_eq!(fault(&cut), Fault::BadText { offset: 3 });
    let noise = frame(FIN | BINARY, b"\xed\xa0");
    assert_eq!(
        feed(&mut Decoder::new(), &[&noise]).unwrap().len(),
        1,
        "binary is not checked"
    );
}

#[test]
fn headers_are_judged_before_their_payload() {
    for (bytes, expected) in [
        (vec![FIN | TEXT, 5], Fault::Unmasked),
        (
            header(FIN | 0x40 | TEXT, 0x85, &[]),
            Fault::ReservedBits { bits: 4 },
        ),
        (
            header(FIN | 0x20 | PING, 0x85, &[]),
            Fault::ReservedBits { bits: 2 },
        ),
        (
            header(FIN | 0x10 | TEXT, 0x85, &[]),
            Fault::ReservedBits { bits: 1 },
        ),
        (
            header(FIN | 3, 0x85, &[]),
            Fault::UnknownOpcode { opcode: 3 },
        ),
        (
            header(FIN | 0xf, 0xff, &[0; 8]),
            Fault::UnknownOpcode { opcode: 15 },
        ),
        (
            header(FIN | TEXT, 0xff, &[0xff; 8]),
            Fault::LengthTopBit { length: u64::MAX },
        ),
        (
            header(FIN | TEXT, 0xfe, &[0, 125]),
            Fault::LengthNotMinimal {
                length: 125,
                form_bits: 16,
            },
        ),
        (
            header(FIN | TEXT, 0xff, &[0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            Fault::LengthNotMinimal {
                length: 65_535,
                form_bits: 64,
            },
        ),
        (
            header(PING, 0x80, &[]),
            Fault::ControlFragmented { opcode: 9 },
        ),
        (
            header(FIN | CLOSE, 0xfe, &[0, 126]),
            Fault::ControlTooLong {
                opcode: 8,
                payload_bytes: 126,
            },
        ),
        (
            header(FIN | CONTINUE, 0x81, &[]),
            Fault::ContinuationWithoutStart,
        ),
        (
            [frame(TEXT, b"a"), header(FIN | BINARY, 0x81, &[])].concat(),
            Fault::MessageInsideMessage { opcode: 2 },
        ),
        (
            header(FIN | TEXT, 0xfe, &[0x40, 0x01]),
            Fault::TooBig {
                message_bytes: 16_385,
                message_bytes_max: LIMIT,
            },
        ),
        (
            [
                frame(TEXT, &[b'a'; 16_000]),
                header(FIN | CONTINUE, 0xfe, &[0x01, 0x81]),
            ]
            .concat(),
            Fault::TooBig {
                message_bytes: 16_385,
                message_bytes_max: LIMIT,
            },
        ),
        (
            header(
                TEXT,
                0xff,
                &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            ),
            Fault::TooBig {
                message_bytes: u64::MAX >> 1,
                message_bytes_max: LIMIT,
            },
        ),
    ] {
        assert_eq!(fault(&bytes), expected, "{bytes:02x?}");
    }
}

#[test]
fn the_limit_is_the_last_size_that_passes() {
    let exact = [
        frame(TEXT, &[b'a'; 16_000]),
        frame(FIN | CONTINUE, &[b'a'; 384]),
    ]
    .concat();
    assert_eq!(feed(&mut Decoder::new(), &[&exact]).unwrap().len(), 1);
    // A control frame is not a message: a limit below 125 does not bind it.
    let mut ping = frame(FIN | PING, &[1; 125]);
    let mut decoder = Decoder::new();
    assert_eq!(
        decoder.next(&mut ping, 10).unwrap().event,
        Some(Event::Ping(&[1; 125]))
    );
}

#[test]
fn close_payloads() {
    let said = |payload: &[u8]| feed(&mut Decoder::new(), &[&frame(FIN | CLOSE, payload)]);
    assert_eq!(said(b""), Ok(vec!["Close(None)".into()]));
    assert_eq!(
        said(&[0x0f, 0xa0]),
        Ok(vec![r#"Close(Some((4000, "")))"#.into()])
    );
    assert_eq!(fault(&frame(FIN | CLOSE, &[3])), Fault::CloseTooShort);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535u16] {
        assert_eq!(
            fault(&frame(FIN | CLOSE, &code.to_be_bytes())),
            Fault::CloseCode { code }
        );
    }
    let payload = [&[0x03, 0xe8][..], b"bye \xed\xa0"].concat();
    assert_eq!(
        fault(&frame(FIN | CLOSE, &payload)),
        Fault::BadCloseReason { offset: 5 }
    );
}

#[test]
fn a_spent_decoder_fed_again_neither_panics_nor_grows() {
    let bad = header(FIN | 0xb, 0xff, &[0; 8]);
    let mut decoder = Decoder::new();
    for _ in 0..4 {
        for byte in bad.iter().chain(&frame(FIN | PING, &[1; 125])) {
            // Which faults follow a fault is nobody's business.
            let _ = decoder.next(&mut [*byte], LIMIT);
        }
        assert!(decoder.heap_bytes() <= LIMIT + CONTROL_BYTES_MAX);
    }
}

#[test]
fn a_compressed_message_is_handed_on_as_it_came_in_whatever_pieces() {
    let packed = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let whole = frame(FIN | RSV1 | TEXT, &packed);
    let first = frame(RSV1 | TEXT, &packed[..3]);
    let rest = frame(FIN | CONTINUE, &packed[3..]);
    let cut = [first, frame(FIN | PING, b"p"), rest].concat();
    let binary = frame(FIN | RSV1 | BINARY, &packed);
    let plain = frame(FIN | TEXT, "plain".as_bytes());
    let stream = [whole, cut, binary, plain].concat();
    let deflated = |is_text: bool| {
        let packed = &packed[..];
        format!("{:?}", Event::Deflated { is_text, packed })
    };
    let expected = [
        deflated(true),
        format!("{:?}", Event::Ping(b"p")),
        deflated(true),
        deflated(false),
        format!("{:?}", Event::Text("plain")),
    ];
    assert_eq!(
        feed(&mut Decoder::deflating(), &[&stream]),
        Ok(expected.to_vec())
    );
    let each: Vec<&[u8]> = stream.chunks(1).collect();
    let mut decoder = Decoder::deflating();
    assert_eq!(feed(&mut decoder, &each), Ok(expected.to_vec()));
    assert_eq!(decoder.heap_bytes(), 0);
}

#[test]
fn rsv1_stands_in_the_first_frame_of_a_message_or_nowhere() {
    let bits = Fault::ReservedBits { bits: 4 };
    assert_eq!(fault(&frame(FIN | RSV1 | TEXT, b"x")), bits);
    for stream in [
        frame(FIN | RSV1 | PING, b""),
        frame(FIN | RSV1 | CLOSE, b""),
        [frame(RSV1 | TEXT, b"x"), frame(FIN | RSV1 | CONTINUE, b"")].concat(),
        [frame(TEXT, b"x"), frame(FIN | RSV1 | CONTINUE, b"")].concat(),
    ] {
        assert_eq!(feed(&mut Decoder::deflating(), &[&stream]), Err(bits));
    }
    let others = frame(FIN | RSV1 | 0x30 | TEXT, b"x");
    let bits = Fault::ReservedBits { bits: 3 };
    assert_eq!(feed(&mut Decoder::deflating(), &[&others]), Err(bits));
}
