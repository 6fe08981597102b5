//! Frames from client to server, decoded as they arrive (RFC 6455 sections 5 and 7), sans-IO.
//!
//! A message that lies whole in the input is unmasked in place and handed out as a slice of it: no copy. What is incomplete
//! is kept: a header's bytes inline, a payload's bytes as far as they have come. A declared length reserves nothing. One
//! decoder per viewer, on its shard's thread; an idle one owns no heap.

use std::borrow::Cow;
use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::close::{Close, may_be_sent};
use super::utf8::{BadUtf8, Utf8};

/// Longest header of a client's frame: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES_MAX: usize = 14;
/// Longest payload of a control frame (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// Something a client has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// A close frame: code and reason, if it has them.
    Close(Option<(u16, &'a str)>),
}

/// What a call has come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Bytes of the input that are done with, at most to the end of one message.
    pub consumed: usize,
    /// What they completed; without it all input was consumed and more is needed.
    pub event: Option<Event<'a>>,
}

/// What a client did wrong. Each ends the connection with the code of [`Fault::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame without mask (section 5.1).
    Unmasked,
    /// A reserved bit without an extension that gives it a meaning (section 5.2).
    ReservedBits,
    /// An opcode nobody has defined.
    Opcode {
        /// Which.
        opcode: u8,
    },
    /// A length in more bytes than it needs (section 5.2).
    LengthNotMinimal,
    /// A control frame without FIN (section 5.5).
    ControlFragmented,
    /// A control frame over 125 bytes (section 5.5).
    ControlTooLong {
        /// What it declared.
        bytes: u64,
    },
    /// A continuation of nothing (section 5.4).
    Continuation,
    /// A new message inside an unfinished one (section 5.4).
    Nested,
    /// A message over the limit, known from its headers.
    TooBig {
        /// `limits.message_bytes_max`.
        limit: usize,
    },
    /// Text, or a close reason, that is no UTF-8.
    Utf8,
    /// A close payload of one byte (section 5.5.1).
    ClosePayload,
    /// A close code that may not be sent (section 7.4).
    CloseCode {
        /// Which.
        code: u16,
    },
}

impl Fault {
    /// The close code it is answered with.
    pub fn close(self) -> Close {
        match self {
            Fault::TooBig { .. } => Close::TooBig,
            Fault::Utf8 => Close::BadUtf8,
            _ => Close::Protocol,
        }
    }

    /// A sentence for the close frame.
    pub fn reason(self) -> Cow<'static, str> {
        match self {
            Fault::Unmasked => "frames from a client must be masked".into(),
            Fault::ReservedBits => "a reserved bit is set, and no extension was agreed on".into(),
            Fault::Opcode { opcode } => format!("opcode {opcode} is not defined").into(),
            Fault::LengthNotMinimal => "a length in more bytes than it needs".into(),
            Fault::ControlFragmented => "a control frame may not be fragmented".into(),
            Fault::ControlTooLong { bytes } => {
                format!("a control frame of {bytes} bytes, at most {CONTROL_BYTES_MAX}").into()
            }
            Fault::Continuation => "a continuation of no message".into(),
            Fault::Nested => "a new message inside an unfinished one".into(),
            Fault::TooBig { limit } => format!("a message of more than {limit} bytes").into(),
            Fault::Utf8 => "text that is not UTF-8".into(),
            Fault::ClosePayload => "a close payload of one byte".into(),
            Fault::CloseCode { code } => format!("close code {code} may not be sent").into(),
        }
    }
}

impl From<BadUtf8> for Fault {
    fn from(_: BadUtf8) -> Fault {
        Fault::Utf8
    }
}

/// One client's frames.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The unfinished message, and behind it the unfinished control frame.
    kept: Vec<u8>,
    /// Where the unfinished control frame begins in `kept`.
    control_at: u32,
    /// Payload bytes of the current frame still to come.
    missing: u32,
    mask: [u8; 4],
    utf8: Utf8,
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// The fragmented message under way.
    message: Option<Data>,
    /// `kept` (from `control_at` for a control frame) has been handed out.
    handed_out: Option<Frame>,
}

const _: () = assert!(size_of::<Decoder>() <= 72);

/// What is read after a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Data { last: bool },
    Control(Control),
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Gives back the memory of a message that has been handed out. To be called when a message has been dealt with and
    /// nothing more is to be read now; `next` does it by itself.
    pub fn settle(&mut self) {
        match self.handed_out.take() {
            Some(Frame::Data { .. }) => self.kept = Vec::new(),
            Some(Frame::Control(_)) => {
                self.kept.truncate(self.control_at as usize);
                if self.kept.is_empty() {
                    self.kept = Vec::new();
                }
            }
            None => {}
        }
    }

    /// Takes bytes up to the end of one message or control frame, unmasking them in place.
    ///
    /// # Errors
    /// What the client did wrong. The stream is over; nothing more may be fed.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        message_bytes_max: usize,
    ) -> Result<Step<'a>, Fault> {
        self.settle();
        let mut at = 0;
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.read_header(&input[at..], message_bytes_max)? {
                    (taken, Some(frame)) => {
                        at += taken;
                        frame
                    }
                    (taken, None) => return Ok(Step::more(at + taken)),
                },
            };
            let take = (self.missing as usize).min(input.len() - at);
            let payload = at..at + take;
            let untouched = self.frame.is_none();
            unmask(&mut input[payload.clone()], &mut self.mask);
            self.missing -= take as u32;
            at += take;
            if untouched && self.missing == 0 && self.is_whole(frame) {
                let message = self.end_of(frame);
                let event = event(frame, message, &input[payload])?;
                return Ok(Step {
                    consumed: at,
                    event: Some(event),
                });
            }
            self.keep(frame, &input[payload])?;
            if self.missing > 0 {
                self.frame = Some(frame);
                return Ok(Step::more(at));
            }
            self.frame = None;
            match frame {
                Frame::Data { last: false } => continue,
                Frame::Data { last: true } => self.utf8.finish()?,
                Frame::Control(_) => {}
            }
            return self.hand_out(frame, at);
        }
    }

    /// Whether the frame is all there is to its message, so that its payload can be handed out where it lies.
    fn is_whole(&self, frame: Frame) -> bool {
        match frame {
            Frame::Control(_) => true,
            Frame::Data { last } => last && self.kept.is_empty() && self.utf8 == Utf8::default(),
        }
    }

    /// The message this frame ends; a control frame stands inside one and ends none.
    fn end_of(&mut self, frame: Frame) -> Option<Data> {
        match frame {
            Frame::Data { .. } => self.message.take(),
            Frame::Control(_) => None,
        }
    }

    fn keep(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Fault> {
        if matches!(frame, Frame::Data { .. }) && self.message == Some(Data::Text) {
            self.utf8.push(payload)?;
        }
        self.kept.extend_from_slice(payload);
        Ok(())
    }

    fn hand_out(&mut self, frame: Frame, consumed: usize) -> Result<Step<'_>, Fault> {
        self.handed_out = Some(frame);
        let message = self.end_of(frame);
        let from = match frame {
            Frame::Data { .. } => 0,
            Frame::Control(_) => self.control_at as usize,
        };
        Ok(Step {
            consumed,
            event: Some(event(frame, message, &self.kept[from..])?),
        })
    }

    /// Reads a header, across calls if need be. Returns the bytes taken and, when it is complete, the frame.
    fn read_header(
        &mut self,
        input: &[u8],
        message_bytes_max: usize,
    ) -> Result<(usize, Option<Frame>), Fault> {
        let known = usize::from(self.header_len);
        let room = (HEADER_BYTES_MAX - known).min(input.len());
        self.header[known..known + room].copy_from_slice(&input[..room]);
        let bytes = &self.header[..known + room];
        let Some(needed) = header_bytes(bytes).filter(|needed| *needed <= bytes.len()) else {
            self.header_len = (known + room) as u8;
            return Ok((room, None));
        };
        // Everything before this call was too little, so at least one byte of this input belongs to it.
        let taken = needed - known;
        self.header_len = 0;
        let header = self.header;
        let frame = self.begin(&header[..needed], message_bytes_max)?;
        Ok((taken, Some(frame)))
    }

    /// Judges a complete header and begins its frame.
    fn begin(&mut self, bytes: &[u8], message_bytes_max: usize) -> Result<Frame, Fault> {
        let opcode = bytes[0] & 0x0f;
        if bytes[0] & 0x70 != 0 {
            // permessage-deflate, once agreed on, will allow the first of them on the first frame of a message.
            return Err(Fault::ReservedBits);
        }
        let parsed = FrameHeader::parse(&mut Cursor::new(bytes));
        let Ok(Some((header, length))) = parsed else {
            return Err(Fault::Opcode { opcode });
        };
        let Some(mask) = header.mask else {
            return Err(Fault::Unmasked);
        };
        let minimal = match bytes[1] & 0x7f {
            126 => length > 125,
            127 => length > 0xffff,
            _ => true,
        };
        if !minimal {
            return Err(Fault::LengthNotMinimal);
        }
        let frame = match header.opcode {
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => {
                return Err(Fault::Opcode { opcode });
            }
            OpCode::Control(control) => {
                if !header.is_final {
                    return Err(Fault::ControlFragmented);
                }
                if length > CONTROL_BYTES_MAX {
                    return Err(Fault::ControlTooLong { bytes: length });
                }
                self.control_at = self.kept.len() as u32;
                Frame::Control(control)
            }
            OpCode::Data(data) => {
                match (data, self.message) {
                    (Data::Continue, None) => return Err(Fault::Continuation),
                    (Data::Continue, Some(_)) => {}
                    (_, Some(_)) => return Err(Fault::Nested),
                    (_, None) => self.message = Some(data),
                }
                let limit = message_bytes_max.min(u32::MAX as usize);
                if length > limit.saturating_sub(self.kept.len()) as u64 {
                    return Err(Fault::TooBig { limit });
                }
                Frame::Data {
                    last: header.is_final,
                }
            }
        };
        self.missing = length as u32;
        self.mask = mask;
        Ok(frame)
    }
}

impl Step<'_> {
    fn more(consumed: usize) -> Step<'static> {
        Step {
            consumed,
            event: None,
        }
    }
}

/// How long a header is whose first bytes these are; `None` when that is not known yet.
fn header_bytes(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    let length_bytes = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask_bytes = if second & 0x80 != 0 { 4 } else { 0 };
    Some(2 + length_bytes + mask_bytes)
}

/// What a complete payload says.
fn event(frame: Frame, message: Option<Data>, payload: &[u8]) -> Result<Event<'_>, Fault> {
    let text = |bytes| simdutf8::basic::from_utf8(bytes).map_err(|_| Fault::Utf8);
    match (frame, message) {
        (Frame::Data { .. }, Some(Data::Text)) => Ok(Event::Text(text(payload)?)),
        (Frame::Data { .. }, _) => Ok(Event::Binary(payload)),
        (Frame::Control(Control::Ping), _) => Ok(Event::Ping(payload)),
        (Frame::Control(Control::Close), _) => match payload {
            [] => Ok(Event::Close(None)),
            [_] => Err(Fault::ClosePayload),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                match may_be_sent(code) {
                    true => Ok(Event::Close(Some((code, text(reason)?)))),
                    false => Err(Fault::CloseCode { code }),
                }
            }
        },
        (Frame::Control(_), _) => Ok(Event::Pong(payload)),
    }
}

/// Unmasks in place (section 5.3), eight bytes at a time, and turns the mask to where the next byte of the frame stands.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(eight) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
        }
    }
    let rest = chunks.into_remainder();
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    mask.rotate_left(rest.len() % 4);
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
