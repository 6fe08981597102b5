//! Our decoder against tungstenite's `WebSocketContext` on random client streams, good and bad, under random splits.
//!
//! Both must report the same messages in the same order and both accept or both refuse. Where the two differ by intent,
//! [`check`] names the difference and holds each side to its part of it.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Formatter};
use std::io::{self, Read, Write};

use danmaku_gateway::proto::ws::close::may_be_sent;
use danmaku_gateway::proto::ws::decode::{Decoder, Event, Fault};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tungstenite::Error;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

/// Message limit of both sides. Above 125, because tungstenite holds control frames to it as well.
const LIMIT: usize = 400;
/// More than any frame within the limit still lacks.
const PADDING_BYTES: usize = LIMIT + 16;

/// What a side reported.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// How it ended.
#[derive(Debug, PartialEq)]
enum End<F> {
    /// It would read on.
    Waits,
    /// The client closed.
    Closed,
    Refused(F),
}

fn ours(bytes: &[u8], cuts: &[usize]) -> (Vec<Said>, End<Fault>) {
    let mut decoder = Decoder::new();
    let mut said = Vec::new();
    let mut from = 0;
    for &to in cuts.iter().chain([&bytes.len()]) {
        let mut input = bytes[from..to].to_vec();
        from = to;
        let mut at = 0;
        loop {
            let step = match decoder.next(&mut input[at..], LIMIT) {
                Ok(step) => step,
                Err(fault) => return (said, End::Refused(fault)),
            };
            at += step.consumed;
            let Some(event) = step.event else { break };
            said.push(match event {
                Event::Deflated { .. } => unreachable!("nobody agreed upon compression"),
                Event::Text(text) => Said::Text(text.to_owned()),
                Event::Binary(data) => Said::Binary(data.to_owned()),
                Event::Ping(data) => Said::Ping(data.to_owned()),
                Event::Pong(data) => Said::Pong(data.to_owned()),
                Event::Close(reason) => {
                    said.push(Said::Close(
                        reason.map(|(code, why)| (code, why.to_owned())),
                    ));
                    return (said, End::Closed);
                }
            });
        }
        assert_eq!(at, input.len(), "no event, so all is consumed");
        assert!(decoder.heap_bytes() <= LIMIT + 125);
    }
    (said, End::Waits)
}

/// A stream in memory: what the client sent, then "would block"; what is answered is thrown away.
struct Sent {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Sent {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match (&self.bytes[self.at..]).read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => {
                self.at += read;
                Ok(read)
            }
        }
    }
}

impl Write for Sent {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The other implementation, kept alive so that more can be sent to it.
struct Theirs {
    context: WebSocketContext,
    sent: Sent,
}

impl Theirs {
    fn new(bytes: &[u8]) -> Theirs {
        let config = WebSocketConfig::default()
            .read_buffer_size(512)
            .max_message_size(Some(LIMIT))
            .max_frame_size(Some(LIMIT));
        let sent = Sent {
            bytes: bytes.to_vec(),
            at: 0,
        };
        Theirs {
            context: WebSocketContext::new(Role::Server, Some(config)),
            sent,
        }
    }

    fn read_all(&mut self) -> (Vec<Said>, End<String>) {
        let mut said = Vec::new();
        loop {
            said.push(match self.context.read(&mut self.sent) {
                Ok(Message::Text(text)) => Said::Text(text.as_str().to_owned()),
                Ok(Message::Binary(data)) => Said::Binary(data.to_vec()),
                Ok(Message::Ping(data)) => Said::Ping(data.to_vec()),
                Ok(Message::Pong(data)) => Said::Pong(data.to_vec()),
                Ok(Message::Close(reason)) => {
                    let reason = reason.map(|r| (u16::from(r.code), r.reason.as_str().to_owned()));
                    said.push(Said::Close(reason));
                    return (said, End::Closed);
                }
                Ok(Message::Frame(_)) => unreachable!("never read, by its documentation"),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return (said, End::Waits);
                }
                Err(error) => return (said, End::Refused(error.to_string())),
            });
        }
    }
}

/// Holds both sides against each other on one stream; `Err` says what does not fit.
fn check(bytes: &[u8], cuts: &[usize]) -> Result<(), String> {
    let (our_said, our_end) = ours(bytes, cuts);
    let unsplit = ours(bytes, &[]);
    if (&our_said, &our_end) != (&unsplit.0, &unsplit.1) {
        return Err(format!("split {our_said:?} {our_end:?}\nwhole {unsplit:?}"));
    }
    let mut theirs = Theirs::new(bytes);
    let (their_said, their_end) = theirs.read_all();
    let differ = |why: &str| {
        Err(format!(
            "{why}\nours   {our_said:?} {our_end:?}\ntheirs {their_said:?} {their_end:?}"
        ))
    };
    let same = our_said == their_said;
    match (&our_end, &their_end) {
        (End::Waits, End::Waits) | (End::Closed, End::Closed) if same => Ok(()),
        (End::Refused(_), End::Refused(_)) if same => Ok(()),

        // Close code 1014 (bad gateway) is in the IANA registry; tungstenite does not know it and reports a protocol violation.
        (End::Closed, End::Closed)
            if matches!(our_said.last(), Some(Said::Close(Some((1014, _)))))
                && replaced_close(&our_said, &their_said) =>
        {
            Ok(())
        }

        // A code that must not be sent: we refuse with 1002, tungstenite reports a close and itself answers with 1002.
        (End::Refused(Fault::CloseCode { code }), End::Closed) => {
            let forbidden = !may_be_sent(*code) && !CloseCode::from(*code).is_allowed();
            let before = &their_said[..their_said.len() - 1];
            if forbidden && before == our_said && is_violation(their_said.last()) {
                Ok(())
            } else {
                differ("a close code")
            }
        }

        // A length not in its shortest form: section 5.2 says MUST, tungstenite reads it all the same and goes on.
        (End::Refused(Fault::LengthNotMinimal { .. }), _) => {
            if their_said.starts_with(&our_said) {
                Ok(())
            } else {
                differ("before a length not in its shortest form")
            }
        }

        // We judge at the header, and text at each byte; tungstenite judges a frame when all of it is there. So where the stream
        // ended inside that frame it still waits, and must refuse once the frame is filled up, with no message in between.
        (End::Refused(_), End::Waits) if same => {
            theirs.sent.bytes.extend([0; PADDING_BYTES]);
            match theirs.read_all() {
                (said, End::Refused(_)) if said.is_empty() => Ok(()),
                (said, end) => differ(&format!("filled up, tungstenite said {said:?} {end:?}")),
            }
        }

        _ => differ("no difference that is known"),
    }
}

/// Whether their messages are ours but for a close at the end that became a protocol violation.
fn replaced_close(our_said: &[Said], their_said: &[Said]) -> bool {
    our_said.len() == their_said.len()
        && our_said[..our_said.len() - 1] == their_said[..their_said.len() - 1]
        && is_violation(their_said.last())
}

fn is_violation(said: Option<&Said>) -> bool {
    matches!(said, Some(Said::Close(Some((1002, why)))) if why == "Protocol violation")
}

/// A frame as a client would write it, or as it should not.
#[derive(Clone, Debug)]
struct Frame {
    fin: bool,
    reserved: u8,
    opcode: u8,
    mask: Option<[u8; 4]>,
    /// 7, 16 or 64.
    length_bits: u8,
    top_bit: bool,
    payload: Vec<u8>,
}

impl Frame {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode);
        let masked = u8::from(self.mask.is_some()) << 7;
        let payload_bytes = self.payload.len() as u64;
        match self.length_bits {
            7 if payload_bytes < 126 => out.push(masked | payload_bytes as u8),
            7 | 16 => {
                out.push(masked | 126);
                out.extend((payload_bytes as u16).to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend((payload_bytes | u64::from(self.top_bit) << 63).to_be_bytes());
            }
        }
        let mask = self.mask.unwrap_or_default();
        out.extend(self.mask.into_iter().flatten());
        out.extend(
            self.payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
    }
}

/// One thing done to a stream to make it bad, or merely odd.
#[derive(Clone, Debug)]
enum Mutation {
    Fin,
    Reserved(u8),
    Opcode(u8),
    Unmasked,
    LengthBits(u8),
    TopBit,
    PayloadByte(Index, u8),
    Payload(Vec<u8>),
    Lost,
    Twice,
}

impl Mutation {
    fn apply(self, frames: &mut Vec<Frame>, at: usize) {
        let Some(frame) = frames.get_mut(at) else {
            return;
        };
        match self {
            Mutation::Fin => frame.fin = !frame.fin,
            Mutation::Reserved(bits) => frame.reserved = bits,
            Mutation::Opcode(opcode) => frame.opcode = opcode,
            Mutation::Unmasked => frame.mask = None,
            Mutation::LengthBits(bits) => frame.length_bits = bits,
            Mutation::TopBit => (frame.length_bits, frame.top_bit) = (64, true),
            Mutation::PayloadByte(index, byte) => {
                if !frame.payload.is_empty() {
                    let index = index.index(frame.payload.len());
                    frame.payload[index] = byte;
                }
            }
            Mutation::Payload(payload) => frame.payload = payload,
            Mutation::Lost => drop(frames.remove(at)),
            Mutation::Twice => {
                let twin = frame.clone();
                frames.insert(at, twin);
            }
        }
    }
}

fn frame(opcode: u8, fin: bool, payload: Vec<u8>, mask: [u8; 4]) -> Frame {
    Frame {
        fin,
        reserved: 0,
        opcode,
        mask: Some(mask),
        length_bits: 7,
        top_bit: false,
        payload,
    }
}

fn control() -> impl Strategy<Value = Frame> {
    let payload = prop::collection::vec(any::<u8>(), 0..=125);
    (prop_oneof![Just(9u8), Just(10)], payload, any::<[u8; 4]>())
        .prop_map(|(opcode, payload, mask)| frame(opcode, true, payload, mask))
}

fn close() -> impl Strategy<Value = Frame> {
    let code = prop_oneof![
        4 => prop_oneof![Just(1000u16), Just(1001), 1007u16..=1014, 3000u16..=4999],
        1 => prop_oneof![0u16..=1020, 2990u16..=3000, 4999u16..=5001, any::<u16>()],
    ];
    let payload = prop_oneof![
        1 => Just(Vec::new()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
        6 => (code, ".{0,20}").prop_map(|(code, why)| [&code.to_be_bytes(), why.as_bytes()].concat()),
    ];
    (payload, any::<[u8; 4]>()).prop_map(|(payload, mask)| frame(8, true, payload, mask))
}

/// A message of one to five frames, cut anywhere, also inside a character, with control frames in between.
fn message() -> impl Strategy<Value = Vec<Frame>> {
    let payload = prop_oneof![
        4 => ".{0,40}".prop_map(|text| (1u8, text.into_bytes())),
        1 => "[a-z弹幕]{40,130}".prop_map(|text| (1u8, text.into_bytes())),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(|data| (1u8, data)),
        2 => prop::collection::vec(any::<u8>(), 0..=LIMIT + 4).prop_map(|data| (2u8, data)),
    ];
    let cuts = prop_oneof![
        1 => Just(Vec::new()),
        1 => prop::collection::vec((any::<Index>(), prop::option::weighted(0.3, control())), 1..5),
    ];
    (payload, cuts, any::<[u8; 4]>()).prop_map(|((opcode, payload), cuts, mask)| {
        let mut places: Vec<usize> = cuts
            .iter()
            .map(|(cut, _)| cut.index(payload.len() + 1))
            .collect();
        places.sort_unstable();
        let mut frames = Vec::new();
        let mut from = 0;
        for (to, (_, between)) in places.into_iter().zip(cuts) {
            let opcode = if frames.is_empty() { opcode } else { 0 };
            frames.push(frame(opcode, false, payload[from..to].to_vec(), mask));
            frames.extend(between);
            from = to;
        }
        let opcode = if frames.is_empty() { opcode } else { 0 };
        frames.push(frame(opcode, true, payload[from..].to_vec(), mask));
        frames
    })
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        Just(Mutation::Fin),
        (1u8..8).prop_map(Mutation::Reserved),
        (0u8..16).prop_map(Mutation::Opcode),
        Just(Mutation::Unmasked),
        prop_oneof![Just(16u8), Just(64)].prop_map(Mutation::LengthBits),
        Just(Mutation::TopBit),
        (any::<Index>(), any::<u8>()).prop_map(|(index, byte)| Mutation::PayloadByte(index, byte)),
        prop::collection::vec(any::<u8>(), 120..140).prop_map(Mutation::Payload),
        Just(Mutation::Lost),
        Just(Mutation::Twice),
    ]
}

/// The bytes of a whole stream, printed so that a failure can be replayed.
#[derive(Clone)]
struct Stream(Vec<u8>);

impl Debug for Stream {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.0)
    }
}

fn stream() -> impl Strategy<Value = Stream> {
    let script = prop::collection::vec(
        prop_oneof![
            6 => message(),
            3 => control().prop_map(|frame| vec![frame]),
            1 => close().prop_map(|frame| vec![frame]),
        ],
        1..6,
    );
    let mutations = prop_oneof![
        2 => Just(Vec::new()),
        3 => prop::collection::vec((any::<Index>(), mutation()), 1..3),
    ];
    let noise = prop::option::weighted(0.1, (any::<Index>(), any::<u8>()));
    let end = prop::option::weighted(0.3, any::<Index>());
    (script, mutations, noise, end).prop_map(|(script, mutations, noise, end)| {
        let mut frames = script.concat();
        for (at, mutation) in mutations {
            let at = at.index(frames.len().max(1));
            mutation.apply(&mut frames, at);
        }
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.put(&mut bytes));
        if let Some((at, byte)) = noise
            && !bytes.is_empty()
        {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        Stream(bytes)
    })
}

fn sorted(cuts: &[Index], bytes: &[u8]) -> Vec<usize> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_say_the_same(stream in stream(), cuts in prop::collection::vec(any::<Index>(), 0..8)) {
        let cuts = sorted(&cuts, &stream.0);
        check(&stream.0, &cuts).map_err(|why| TestCaseError::fail(format!("{why}\ncut at {cuts:?}")))?;
    }

    #[test]
    fn both_say_the_same_byte_by_byte(stream in stream()) {
        let cuts: Vec<usize> = (0..stream.0.len()).collect();
        check(&stream.0, &cuts).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn noise_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes, &[]).map_err(TestCaseError::fail)?;
    }
}

/// A search that never meets a fault proves nothing about it.
#[test]
fn the_random_streams_meet_every_fault_and_every_event() {
    let mut runner = TestRunner::deterministic();
    let strategy = stream();
    let mut met = BTreeSet::new();
    for _ in 0..3000 {
        let bytes = strategy
            .new_tree(&mut runner)
            .expect("a stream")
            .current()
            .0;
        let (said, end) = ours(&bytes, &[]);
        met.extend(said.iter().map(|said| name(&format!("{said:?}"))));
        met.insert(match end {
            End::Refused(fault) => name(&format!("{fault:?}")),
            End::Waits => "Waits".to_owned(),
            End::Closed => "Closed".to_owned(),
        });
    }
    let all = [
        ["Text", "Binary", "Ping", "Pong", "Close", "Waits", "Closed"].as_slice(),
        &[
            "Unmasked",
            "ReservedBits",
            "UnknownOpcode",
            "LengthTopBit",
            "LengthNotMinimal",
        ],
        &[
            "ControlFragmented",
            "ControlTooLong",
            "ContinuationWithoutStart",
            "MessageInsideMessage",
        ],
        &[
            "TooBig",
            "BadText",
            "CloseTooShort",
            "CloseCode",
            "BadCloseReason",
        ],
    ]
    .concat();
    let missed: Vec<_> = all.iter().filter(|name| !met.contains(**name)).collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
    assert_eq!(met.len(), all.len(), "{met:?}");
}

/// The variant of a value, from how it prints.
fn name(printed: &str) -> String {
    printed
        .chars()
        .take_while(|c| c.is_alphanumeric())
        .collect()
}

/// The streams that random search would have to be lucky to find, one for each known difference.
#[test]
fn the_known_differences_are_what_they_are_said_to_be() {
    let put = |frames: &[Frame]| {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.put(&mut bytes));
        bytes
    };
    let mask = [1, 2, 3, 4];
    let short = frame(1, true, b"hi".to_vec(), mask);
    let long_form = Frame {
        length_bits: 64,
        ..short.clone()
    };
    let unfinished = frame(1, true, b"\xed\xa0 and more".to_vec(), mask);
    let too_big = frame(2, true, vec![0; LIMIT + 1], mask);
    for (bytes, our_end, their_end) in [
        (
            put(&[short.clone(), long_form]),
            End::Refused(Fault::LengthNotMinimal {
                length: 2,
                form_bits: 64,
            }),
            End::Waits,
        ),
        (
            put(&[short.clone(), unfinished])[..8 + 8].to_vec(),
            End::Refused(Fault::BadText { offset: 1 }),
            End::Waits,
        ),
        (
            put(&[short.clone(), frame(9, true, vec![0; 126], mask)])[..8 + 10].to_vec(),
            End::Refused(Fault::ControlTooLong {
                opcode: 9,
                payload_bytes: 126,
            }),
            End::Waits,
        ),
        (
            put(&[short.clone(), too_big])[..8 + 8].to_vec(),
            End::Refused(Fault::TooBig {
                message_bytes: 401,
                message_bytes_max: LIMIT,
            }),
            End::Refused("Space limit exceeded: Message too long: 401 > 400".to_owned()),
        ),
        (
            put(&[short.clone(), frame(8, true, vec![0x03, 0xed], mask)]),
            End::Refused(Fault::CloseCode { code: 1005 }),
            End::Closed,
        ),
        (
            put(&[short, frame(8, true, vec![0x03, 0xf6], mask)]),
            End::Closed,
            End::Closed,
        ),
    ] {
        assert_eq!(ours(&bytes, &[]).1, our_end, "{bytes:02x?}");
        assert_eq!(Theirs::new(&bytes).read_all().1, their_end, "{bytes:02x?}");
        assert_eq!(check(&bytes, &[]), Ok(()), "{bytes:02x?}");
    }
}
