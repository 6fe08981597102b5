//! The decoder under any split of the stream, and every rule by name.

use proptest::prelude::*;

use super::*;

const MAX: usize = 1000;

/// An event that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Said {
        match event {
            Event::Text(text) => Said::Text(text.into()),
            Event::Binary(bytes) => Said::Binary(bytes.into()),
            Event::Ping(bytes) => Said::Ping(bytes.into()),
            Event::Pong(bytes) => Said::Pong(bytes.into()),
            Event::Close(why) => Said::Close(why.map(|(code, reason)| (code, reason.into()))),
        }
    }
}

/// A client's frame.
fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        n @ 0..=125 => bytes.push(0x80 | n as u8),
        n => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k);
    bytes.extend(masked);
    bytes
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Feeds a stream in pieces; what was said, and how it ended.
fn feed(stream: &[u8], cuts: &[usize]) -> (Vec<Said>, Result<(), Fault>) {
    let mut decoder = Decoder::new();
    let mut said = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.push(stream.len());
    cuts.sort_unstable();
    let mut from = 0;
    for to in cuts {
        let mut piece = stream[from..to].to_vec();
        from = to;
        let mut at = 0;
        while at < piece.len() {
            match decoder.next(&mut piece[at..], MAX) {
                Ok(step) => {
                    assert!(step.consumed > 0, "no progress");
                    let consumed = step.consumed;
                    match step.event {
                        Some(event) => said.push(event.into()),
                        None => assert_eq!(at + consumed, piece.len()),
                    }
                    at += consumed;
                }
                Err(fault) => return (said, Err(fault)),
            }
        }
        decoder.settle();
    }
    (said, Ok(()))
}

/// A message in fragments, with control frames between them, and what it says.
fn message() -> impl Strategy<Value = (Vec<u8>, Vec<Said>)> {
    let mask = any::<[u8; 4]>();
    let control = prop::option::weighted(0.3, prop::collection::vec(any::<u8>(), 0..125));
    let text = "\\PC{0,80}".prop_map(|text| (true, text.into_bytes()));
    let binary = prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (false, bytes));
    (
        prop_oneof![text, binary],
        prop::collection::vec((any::<usize>(), mask, control), 0..4),
        any::<[u8; 4]>(),
    )
        .prop_map(|((is_text, payload), fragments, last_mask)| {
            let mut stream = Vec::new();
            let mut said = Vec::new();
            let mut opcode = if is_text { 1 } else { 2 };
            let mut from = 0;
            for (cut, mask, control) in fragments {
                let to = from + cut % (payload.len() - from + 1);
                stream.extend(frame(opcode, mask, &payload[from..to]));
                (opcode, from) = (0, to);
                if let Some(ping) = control {
                    stream.extend(frame(0x89, mask, &ping));
                    said.push(Said::Ping(ping));
                }
            }
            stream.extend(frame(0x80 | opcode, last_mask, &payload[from..]));
            said.push(match is_text {
                true => Said::Text(String::from_utf8(payload).unwrap()),
                false => Said::Binary(payload),
            });
            (stream, said)
        })
}

proptest! {
    #[test]
    fn any_split_says_the_same(
        messages in prop::collection::vec(message(), 1..6),
        cuts in prop::collection::vec(any::<usize>(), 0..30),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let wanted: Vec<Said> = messages.into_iter().flat_map(|(_, said)| said).collect();
        let (said, end) = feed(&stream, &cuts);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(said, wanted);
    }

    #[test]
    fn any_bytes_end_the_same_in_any_split(
        stream in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x81u8), Just(0x85), Just(0x01)], 0..200),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let (whole, end) = feed(&stream, &[]);
        let (split, split_end) = feed(&stream, &cuts);
        prop_assert_eq!(end, split_end);
        prop_assert_eq!(whole, split);
    }
}

fn fault(stream: &[u8]) -> Fault {
    let whole = feed(stream, &[]).1.unwrap_err();
    let bytewise: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(feed(stream, &bytewise).1, Err(whole));
    whole
}

#[test]
fn every_rule_has_its_name() {
    assert_eq!(fault(&[0x81, 0x02, b'h', b'i']), Fault::Unmasked);
    assert_eq!(fault(&frame(0xc1, MASK, b"x")), Fault::ReservedBits);
    assert_eq!(fault(&frame(0x83, MASK, b"x")), Fault::Opcode { opcode: 3 });
    assert_eq!(
        fault(&frame(0x8b, MASK, b"x")),
        Fault::Opcode { opcode: 11 }
    );
    assert_eq!(fault(&frame(0x80, MASK, b"x")), Fault::Continuation);
    let nested = [frame(0x01, MASK, b"x"), frame(0x81, MASK, b"y")].concat();
    assert_eq!(fault(&nested), Fault::Nested);
    assert_eq!(fault(&frame(0x09, MASK, b"")), Fault::ControlFragmented);
    assert_eq!(
        fault(&frame(0x89, MASK, &[0; 126])),
        Fault::ControlTooLong { bytes: 126 }
    );
    assert_eq!(
        fault(&[0x81, 0xfe, 0, 125, 0, 0, 0, 0]),
        Fault::LengthNotMinimal
    );
    assert_eq!(
        fault(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]),
        Fault::LengthNotMinimal
    );
    assert_eq!(
        fault(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Fault::TooBig { limit: MAX }
    );
    assert_eq!(
        fault(&frame(0x82, MASK, &[0; MAX + 1])),
        Fault::TooBig { limit: MAX }
    );
    let in_parts = [frame(0x02, MASK, &[0; MAX]), frame(0x80, MASK, &[0; 1])];
    assert_eq!(fault(&in_parts.concat()), Fault::TooBig { limit: MAX });
    assert_eq!(fault(&frame(0x88, MASK, &[3])), Fault::ClosePayload);
    assert_eq!(
        fault(&frame(0x88, MASK, &[0x03, 0xee])),
        Fault::CloseCode { code: 1006 }
    );
    assert_eq!(fault(&frame(0x88, MASK, &[0x03, 0xe8, 0xff])), Fault::Utf8);
    assert_eq!(fault(&frame(0x81, MASK, &[0xc0, 0x80])), Fault::Utf8);
    let cut_short = [frame(0x01, MASK, &[0xe4]), frame(0x80, MASK, b"")].concat();
    assert_eq!(fault(&cut_short), Fault::Utf8);
}

#[test]
fn codes_and_reasons_of_faults() {
    assert_eq!(Fault::TooBig { limit: 5 }.close(), Close::TooBig);
    assert_eq!(Fault::Utf8.close(), Close::BadUtf8);
    assert_eq!(Fault::Nested.close(), Close::Protocol);
    let long = Fault::ControlTooLong { bytes: u64::MAX };
    assert!(long.reason().len() <= 123);
}

#[test]
fn bad_text_fails_inside_an_unfinished_frame() {
    let whole = frame(0x81, MASK, b"0123456789\xff0123456789");
    let mut decoder = Decoder::new();
    let mut part = whole[..6 + 10].to_vec();
    assert_eq!(decoder.next(&mut part, MAX).unwrap().event, None);
    let mut bad = whole[16..17].to_vec();
    assert_eq!(decoder.next(&mut bad, MAX), Err(Fault::Utf8));
}

#[test]
fn memory_is_what_has_arrived_and_goes_with_the_message() {
    let mut decoder = Decoder::new();
    let mut header = vec![0x82, 0xff, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(decoder.next(&mut header, 1 << 30).unwrap().event, None);
    assert_eq!(decoder.kept.capacity(), 0);
    let mut decoder = Decoder::new();
    let whole = frame(0x81, MASK, &[b'x'; 500]);
    decoder.next(&mut whole[..100].to_vec(), MAX).unwrap();
    assert!(decoder.kept.capacity() >= 90);
    let mut rest = whole[100..].to_vec();
    assert!(decoder.next(&mut rest, MAX).unwrap().event.is_some());
    decoder.settle();
    assert_eq!(decoder.kept.capacity(), 0);
}

#[test]
fn a_close_frame_is_read() {
    let (said, end) = feed(&frame(0x88, MASK, b"\x0f\xa8bye"), &[3]);
    assert_eq!(
        (said, end),
        (vec![Said::Close(Some((4008, "bye".into())))], Ok(()))
    );
    assert_eq!(feed(&frame(0x88, MASK, b""), &[]).0, [Said::Close(None)]);
}
