//! Frames from client to server, as events. Owns the cut-off header, the unfinished payload and the text check of one
//! connection; the bytes themselves stay in the shard's read scratch as long as they can.
//!
//! Runs on the connection's shard thread. It must never reserve what a header merely declares, never hold more than
//! the message bound and one control frame, and never accept what RFC 6455 lets a server refuse: a client that gets
//! its framing wrong hears so at the first byte that shows it.
//!
//! The way of a byte: `next` reads a header (straight from the input, or gathered in `head` if it came in pieces), judges
//! it before any payload, then unmasks what is there of the payload, in place. A frame that is a whole message and lies
//! wholly in the input becomes an event that borrows from the input. Only what is cut off by the end of the input or by
//! fragmentation is copied into `held`: the message so far, then a control frame so far, which may come between fragments.

use std::io::Cursor;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::close::may_be_sent;
use super::encode::CONTROL_BYTES_MAX;
use super::utf8::{BadUtf8, Utf8};

pub use super::fault::Fault;

/// Longest header a client writes: 2 bytes, an 8-byte length, a mask (RFC 6455 section 5.2).
const HEAD_BYTES_MAX: usize = 14;

/// First allocation for an unfinished payload: most danmaku fit, and doubling from here is soon done.
const HELD_BYTES_MIN: usize = 64;

/// One viewer's decoder. Between messages it owns no heap; a connection that is only listening costs these bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Payload that outlived its input: of the message, then `control_bytes` of an unfinished control frame.
    held: Vec<u8>,
    /// The frame whose payload is still arriving.
    frame: Option<Frame>,
    /// A header that came in pieces, as far as it came.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: u8,
    /// How much at the end of `held` belongs to a control frame.
    control_bytes: u8,
    /// permessage-deflate was agreed upon: RSV1 may stand in the first frame of a message (RFC 7692 section 6).
    deflates: bool,
    /// The message under way, from the header of its first frame to its event.
    message: Option<Kind>,
    /// Check of the text message under way, as far as it is in `held`. Between messages it stands at a character's end:
    /// a text that does not is a fault.
    utf8: Utf8,
}

const _: () = assert!(size_of::<Decoder>() <= 64);

/// What one call used and found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Bytes of the input that are done with, from its beginning. They have been unmasked in place: do not give them again.
    pub consumed: usize,
    /// `None`: all was consumed and more must arrive.
    pub event: Option<Event<'a>>,
}

/// A whole message or control frame, unmasked and checked. Payloads lie in the input or in the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message. Whether such are wanted is the session's matter.
    Binary(&'a [u8]),
    /// A message as it was compressed. What [`super::deflate::Inflator`] makes of it may be larger than the message bound,
    /// and is text, if it is, only once [`checked_text`] has seen it.
    Deflated {
        /// Whether it was sent as text.
        is_text: bool,
        /// At most the message bound.
        packed: &'a [u8],
    },
    /// To be answered by a pong with the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// An answer to our ping, or a sign of life unasked; at most 125 bytes.
    Pong(&'a [u8]),
    /// The client closes: a code that `close::may_be_sent` and a reason of at most 123 bytes, or neither. The last event:
    /// whatever follows is to be thrown away (RFC 6455 section 1.4).
    Close(Option<(u16, &'a str)>),
}

/// What a message is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Deflated { is_text: bool },
}

/// What a frame is for.
#[derive(Clone, Copy, Debug)]
enum Use {
    /// A part of the message under way.
    Data,
    /// A message of its own that may stand between such parts.
    Control(Sign),
}

/// Kinds of control frame.
#[derive(Clone, Copy, Debug)]
enum Sign {
    Ping,
    Pong,
    Close,
}

/// A frame whose header was judged and found good.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Payload bytes still to come; the limits were checked.
    left_bytes: usize,
    /// Turned so that its first byte is for the next payload byte.
    mask: [u8; 4],
    used: Use,
    fin: bool,
}

/// A header as it stood on the wire.
struct Head {
    header: FrameHeader,
    payload_bytes: u64,
    /// Its own length.
    head_bytes: usize,
}

/// How far a frame's payload got.
enum Progress {
    /// Its end is not here yet; the input is used up.
    Waits,
    /// It was a part, and the next frame may follow.
    GoesOn,
    /// It completes an event.
    Ready(Whole),
}

/// An event's payload, before it is borrowed.
enum Whole {
    Message(Kind, Place),
    Control(Sign, Place),
}

/// Where it lies.
enum Place {
    Input(Range<usize>),
    Held(usize),
}

impl Decoder {
    /// Before the first byte. Allocates nothing.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// The same where permessage-deflate was agreed upon.
    pub fn deflating() -> Decoder {
        Decoder {
            deflates: true,
            ..Decoder::default()
        }
    }

    /// Takes the beginning of what arrived, up to the end of one event at most, and unmasks it in place. Call it again with the
    /// rest until there is no event: that last call, also with an empty input, gives back the memory of an assembled
    /// message, of which nothing is kept for reuse (a message cut in two is rare, a listener's idle memory is not).
    ///
    /// `message_bytes_max` bounds a message, all its fragments together; it may change from call to call and holds for the
    /// frames whose headers are read from then on. The decoder holds at most that and a control frame's 125 bytes.
    ///
    /// # Errors
    /// The first fault in the stream, at the byte that shows it: for text inside an unfinished frame too. It does not depend on
    /// how the stream was split.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        message_bytes_max: usize,
    ) -> Result<Step<'a>, Fault> {
        self.give_back();
        let mut at = 0;
        let whole = loop {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_head(input, &mut at)? {
                    Some(head) => self.judge(&head, message_bytes_max)?,
                    None => break None,
                },
            };
            match self.take_payload(frame, input, &mut at, message_bytes_max)? {
                Progress::Waits => break None,
                Progress::GoesOn => {}
                Progress::Ready(whole) => break Some(whole),
            }
        };
        let event = match whole {
            None => None,
            Some(Whole::Message(kind, place)) => Some(message(kind, self.payload(input, place))?),
            Some(Whole::Control(sign, place)) => Some(control(sign, self.payload(input, place))?),
        };
        Ok(Step {
            consumed: at,
            event,
        })
    }

    /// Bytes of heap it holds: none between messages, never over the message bound and 125.
    pub fn heap_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// What the last event borrowed is free now. With no frame under way, a control frame's bytes belong to an event given,
    /// and so does everything if there is no message under way either.
    fn give_back(&mut self) {
        if self.frame.is_some() || self.held.capacity() == 0 {
            return;
        }
        if self.message.is_none() {
            self.held = Vec::new();
        } else {
            self.held.truncate(self.message_bytes());
        }
        self.control_bytes = 0;
    }

    /// How much of the message is in `held`.
    fn message_bytes(&self) -> usize {
        self.held.len() - usize::from(self.control_bytes)
    }

    /// The next header, once all of it is there; until then every byte of the input goes into `head`.
    fn read_head(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Head>, Fault> {
        if self.head_bytes == 0
            && let Some(head) = parse(&input[*at..])?
        {
            *at += head.head_bytes;
            return Ok(Some(head));
        }
        for &byte in &input[*at..] {
            self.head[usize::from(self.head_bytes)] = byte;
            self.head_bytes += 1;
            *at += 1;
            match parse(&self.head[..usize::from(self.head_bytes)]) {
                Ok(None) => {}
                // Fourteen bytes always end here, so the array cannot run over.
                whole => {
                    self.head_bytes = 0;
                    return whole;
                }
            }
        }
        Ok(None)
    }

    /// Whether such a frame may come now. Everything a header can get wrong is found here, before any payload.
    fn judge(&mut self, head: &Head, message_bytes_max: usize) -> Result<Frame, Fault> {
        let (header, payload_bytes) = (&head.header, head.payload_bytes);
        let opcode = u8::from(header.opcode);
        let begins = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
        let bits = u8::from(header.rsv1 && !(self.deflates && begins)) << 2
            | u8::from(header.rsv2) << 1
            | u8::from(header.rsv3);
        if bits != 0 {
            return Err(Fault::ReservedBits { bits });
        }
        let mask = header.mask.ok_or(Fault::Unmasked)?;
        if payload_bytes >> 63 != 0 {
            return Err(Fault::LengthTopBit {
                length: payload_bytes,
            });
        }
        if header.len(payload_bytes) != head.head_bytes {
            let form_bits = if head.head_bytes == HEAD_BYTES_MAX {
                64
            } else {
                16
            };
            return Err(Fault::LengthNotMinimal {
                length: payload_bytes,
                form_bits,
            });
        }
        let used = match header.opcode {
            OpCode::Control(control) => {
                if !header.is_final {
                    return Err(Fault::ControlFragmented { opcode });
                }
                if payload_bytes > CONTROL_BYTES_MAX as u64 {
                    return Err(Fault::ControlTooLong {
                        opcode,
                        payload_bytes,
                    });
                }
                Use::Control(match control {
                    Control::Ping => Sign::Ping,
                    Control::Pong => Sign::Pong,
                    Control::Close => Sign::Close,
                    Control::Reserved(opcode) => return Err(Fault::UnknownOpcode { opcode }),
                })
            }
            OpCode::Data(data) => {
                self.judge_data(data, header.rsv1, payload_bytes, message_bytes_max)?;
                Use::Data
            }
        };
        // Within one of two limits that are themselves a `usize`, so nothing is cut off here.
        let left_bytes = payload_bytes as usize;
        Ok(Frame {
            left_bytes,
            mask,
            used,
            fin: header.is_final,
        })
    }

    /// The same for data: its place in a message, and the size of that. Begins a message.
    fn judge_data(
        &mut self,
        data: Data,
        deflated: bool,
        payload_bytes: u64,
        message_bytes_max: usize,
    ) -> Result<(), Fault> {
        let kind = match data {
            Data::Continue => self.message.ok_or(Fault::ContinuationWithoutStart)?,
            Data::Text | Data::Binary if deflated => Kind::Deflated {
                is_text: data == Data::Text,
            },
            Data::Text => Kind::Text,
            Data::Binary => Kind::Binary,
            Data::Reserved(opcode) => return Err(Fault::UnknownOpcode { opcode }),
        };
        if data != Data::Continue {
            if self.message.is_some() {
                return Err(Fault::MessageInsideMessage {
                    opcode: u8::from(OpCode::Data(data)),
                });
            }
            self.message = Some(kind);
        }
        let message_bytes = payload_bytes.saturating_add(self.message_bytes() as u64);
        if message_bytes > message_bytes_max as u64 {
            return Err(Fault::TooBig {
                message_bytes,
                message_bytes_max,
            });
        }
        Ok(())
    }

    /// Unmasks what is here of a frame's payload and passes it on: in place if that is all of an event, else into `held`.
    fn take_payload(
        &mut self,
        mut frame: Frame,
        input: &mut [u8],
        at: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Progress, Fault> {
        let here = *at..*at + frame.left_bytes.min(input.len() - *at);
        *at = here.end;
        frame.left_bytes -= here.len();
        let bytes = &mut input[here.clone()];
        unmask(bytes, frame.mask);
        let here_bytes = here.len();
        let ends = frame.left_bytes == 0;

        let whole = match frame.used {
            Use::Data => self.take_data(bytes, here, ends && frame.fin, message_bytes_max)?,
            Use::Control(sign) => self.take_control(sign, bytes, here, ends, message_bytes_max),
        };
        if let Some(whole) = whole {
            return Ok(Progress::Ready(whole));
        }
        if ends {
            return Ok(Progress::GoesOn);
        }
        frame.mask.rotate_left(here_bytes % 4);
        self.frame = Some(frame);
        Ok(Progress::Waits)
    }

    /// A piece of a message, unmasked, which lies `here` in the input; the message, if this was its last piece.
    fn take_data(
        &mut self,
        bytes: &[u8],
        here: Range<usize>,
        last: bool,
        message_bytes_max: usize,
    ) -> Result<Option<Whole>, Fault> {
        let kind = self.message.ok_or(Fault::ContinuationWithoutStart)?;
        if last {
            self.message = None;
            if self.held.is_empty() {
                return Ok(Some(Whole::Message(kind, Place::Input(here))));
            }
        }
        if kind == Kind::Text {
            let before = self.held.len();
            self.utf8.push(bytes).map_err(|bad| bad_text(before, bad))?;
            if last {
                self.utf8
                    .finish()
                    .map_err(|bad| bad_text(before + bytes.len(), bad))?;
            }
        }
        self.hold(bytes, message_bytes_max);
        Ok(last.then_some(Whole::Message(kind, Place::Held(0))))
    }

    /// The same for a control frame.
    fn take_control(
        &mut self,
        sign: Sign,
        bytes: &[u8],
        here: Range<usize>,
        last: bool,
        message_bytes_max: usize,
    ) -> Option<Whole> {
        if last && self.control_bytes == 0 {
            return Some(Whole::Control(sign, Place::Input(here)));
        }
        self.hold(bytes, message_bytes_max);
        // `judge` lets no control frame pass that has more than 125.
        self.control_bytes += bytes.len() as u8;
        last.then(|| Whole::Control(sign, Place::Held(self.message_bytes())))
    }

    /// Keeps payload that arrived. Memory doubles with what arrives, never with what was declared, and stops at the bound.
    fn hold(&mut self, bytes: &[u8], message_bytes_max: usize) {
        let needed = self.held.len() + bytes.len();
        if needed > self.held.capacity() {
            let doubled = (2 * self.held.capacity()).max(HELD_BYTES_MIN);
            let bound = message_bytes_max.saturating_add(CONTROL_BYTES_MAX);
            self.held
                .reserve_exact(doubled.min(bound).max(needed) - self.held.len());
        }
        self.held.extend_from_slice(bytes);
    }

    fn payload<'a>(&'a self, input: &'a [u8], place: Place) -> &'a [u8] {
        match place {
            Place::Input(range) => &input[range],
            Place::Held(from) => &self.held[from..],
        }
    }
}

/// A header at the beginning of these bytes; `None` if it is cut off.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Fault> {
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Ok(parsed) => Ok(parsed.map(|(header, payload_bytes)| Head {
            header,
            payload_bytes,
            head_bytes: cursor.position() as usize,
        })),
        // Reading from memory does not fail, so this is the one thing it finds wrong itself.
        Err(_) => Err(Fault::UnknownOpcode {
            opcode: bytes.first().map_or(0, |first| first & 0x0f),
        }),
    }
}

/// RFC 6455 section 5.3, eight bytes at a time, in a form the compiler makes wider still.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// A text out of `held` was checked as it came and is checked here once more, at memory speed: the price of a `str` without
/// `unsafe`.
fn message(kind: Kind, payload: &[u8]) -> Result<Event<'_>, Fault> {
    match kind {
        Kind::Binary => Ok(Event::Binary(payload)),
        Kind::Deflated { is_text } => Ok(Event::Deflated {
            is_text,
            packed: payload,
        }),
        Kind::Text => checked_text(payload).map(Event::Text),
    }
}

fn control(sign: Sign, payload: &[u8]) -> Result<Event<'_>, Fault> {
    Ok(match sign {
        Sign::Ping => Event::Ping(payload),
        Sign::Pong => Event::Pong(payload),
        Sign::Close => Event::Close(close(payload)?),
    })
}

/// RFC 6455 section 5.5.1.
fn close(payload: &[u8]) -> Result<Option<(u16, &str)>, Fault> {
    match payload {
        [] => Ok(None),
        [_] => Err(Fault::CloseTooShort),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Fault::CloseCode { code });
            }
            let reason =
                text(reason).map_err(|bad| Fault::BadCloseReason { offset: bad.offset })?;
            Ok(Some((code, reason)))
        }
    }
}

/// The bytes of a message as text.
///
/// # Errors
/// [`Fault::BadText`].
pub fn checked_text(payload: &[u8]) -> Result<&str, Fault> {
    text(payload).map_err(|bad| bad_text(0, bad))
}

/// The bytes as text, checked at once; where they are not, the slower check says where.
fn text(bytes: &[u8]) -> Result<&str, BadUtf8> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| {
        let mut utf8 = Utf8::default();
        match utf8.push(bytes) {
            Err(bad) => bad,
            Ok(()) => BadUtf8 {
                offset: bytes.len(),
            },
        }
    })
}

fn bad_text(before: usize, bad: BadUtf8) -> Fault {
    Fault::BadText {
        offset: before + bad.offset,
    }
}

#[cfg(test)]
mod tests;
