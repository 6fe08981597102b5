//! The bytes a server sends, as messages. On client threads; it never touches a socket.
//!
//! Almost all that comes is whole, unfragmented text: it is taken where it lies, by tungstenite's `FrameHeader`, so that a
//! client at rest needs no buffer. Whatever else comes (control frames, fragments) goes through a whole tungstenite
//! context, which also writes the answers that are due.

use std::io::{self, Cursor, Read, Write};

use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

/// The largest frame taken from a server, bytes.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// What a server's bytes held.
pub trait Hear {
    /// A whole message, text or binary.
    fn message(&mut self, payload: &[u8]);
    /// A frame that is a whole message; its payload begins at `head`.
    fn frame(&mut self, frame: &[u8], head: usize) {
        self.message(&frame[head..]);
    }
    /// How much at the beginning of `bytes` is whole frames that need not be read because their like was read before; they have
    /// been heard when this returns.
    fn known(&mut self, _bytes: &[u8]) -> usize {
        0
    }
    /// The server closes; 1005 where it gave no code.
    fn close(&mut self, code: u16);
}

/// A server that broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// What is left between two reads of one connection: nothing, for a client at rest.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a frame whose end has not come.
    tail: Vec<u8>,
    /// Takes over at the first fragment and stays.
    context: Option<Box<WebSocketContext>>,
}

impl Decoder {
    /// Bytes that belong before those read next.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Sets bytes aside that are not frames yet: the beginning of an upgrade's answer.
    pub fn keep(&mut self, bytes: &[u8]) {
        keep(&mut self.tail, bytes);
    }

    /// Takes `bytes`, which begin with [`Decoder::tail`]. What must be answered is appended to `out`.
    ///
    /// # Errors
    /// What broke RFC 6455; the connection is of no use afterwards.
    pub fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        hear: &mut impl Hear,
    ) -> Result<(), Fault> {
        if self.context.is_some() {
            return self.through_context(bytes, out, hear);
        }
        let mut at = hear.known(bytes);
        while let Some(frame) = whole_frame(&bytes[at..])? {
            let raw = &bytes[at..at + frame.length];
            if frame.plain {
                hear.frame(raw, frame.head);
            } else {
                self.through_context(raw, out, hear)?;
                if self.context.is_some() {
                    self.tail.clear();
                    return self.through_context(&bytes[at + frame.length..], out, hear);
                }
            }
            at += frame.length;
            at += hear.known(&bytes[at..]);
        }
        keep(&mut self.tail, &bytes[at..]);
        Ok(())
    }

    /// One or more frames by tungstenite's own rules. A context that was made for a control frame is let go at once; one
    /// that a fragment began stays for good, since nothing tells from outside whether its message is complete.
    fn through_context(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        hear: &mut impl Hear,
    ) -> Result<(), Fault> {
        let fragment = bytes.first().is_some_and(|first| first & 0x80 == 0);
        let fresh = self.context.is_none();
        let mut context = self.context.take().unwrap_or_else(new_context);
        let mut pipe = Pipe { bytes, out };
        loop {
            match context.read(&mut pipe) {
                Ok(Message::Text(text)) => hear.message(text.as_bytes()),
                Ok(Message::Binary(bytes)) => hear.message(&bytes),
                Ok(Message::Close(frame)) => {
                    hear.close(frame.map_or(1005, |frame| frame.code.into()));
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => break,
                Err(error) => return Err(Fault(error.to_string())),
            }
        }
        let _ = context.flush(&mut pipe);
        if !fresh || fragment {
            self.context = Some(context);
        }
        Ok(())
    }
}

/// Where a frame ends.
struct Whole {
    head: usize,
    length: usize,
    /// A whole text or binary message without anything special.
    plain: bool,
}

/// The frame at the beginning of `bytes`, if all of it is there.
fn whole_frame(bytes: &[u8]) -> Result<Option<Whole>, Fault> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|error| Fault(error.to_string()))?;
    let Some((header, payload)) = parsed else {
        return Ok(None);
    };
    if header.mask.is_some() {
        return Err(Fault("the server masked a frame".into()));
    }
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Fault("the server set a reserved bit".into()));
    }
    if payload > FRAME_BYTES_MAX as u64 {
        return Err(Fault(format!("a frame of {payload} bytes")));
    }
    let head = cursor.position() as usize;
    let length = head + payload as usize;
    if bytes.len() < length {
        return Ok(None);
    }
    let data = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
    if data
        && header.opcode == OpCode::Data(Data::Text)
        && std::str::from_utf8(&bytes[head..length]).is_err()
    {
        return Err(Fault("a text frame that is not UTF-8".into()));
    }
    Ok(Some(Whole {
        head,
        length,
        plain: data && header.is_final,
    }))
}

/// Appends a text message as a client sends it.
pub fn text(out: &mut Vec<u8>, payload: Vec<u8>, mask: [u8; 4]) {
    let mut frame = Frame::message(payload, OpCode::Data(Data::Text), true);
    frame.header_mut().mask = Some(mask);
    // Writing to a vector cannot fail.
    let _ = frame.format(out);
}

/// Appends a pong nobody asked for: a sign of life that wants no answer (RFC 6455 section 5.5.3).
pub fn pong(out: &mut Vec<u8>, mask: [u8; 4]) {
    let mut frame = Frame::pong(Vec::new());
    frame.header_mut().mask = Some(mask);
    // Writing to a vector cannot fail.
    let _ = frame.format(out);
}

/// Appends a close frame as a client sends it.
pub fn close(out: &mut Vec<u8>, mask: [u8; 4]) {
    let mut frame = Frame::close(None);
    frame.header_mut().mask = Some(mask);
    let _ = frame.format(out);
}

/// The rest of a read, kept without holding on to more memory than it needs.
fn keep(tail: &mut Vec<u8>, rest: &[u8]) {
    if rest.is_empty() {
        *tail = Vec::new();
    } else {
        tail.clear();
        tail.reserve_exact(rest.len());
        tail.extend_from_slice(rest);
    }
}

fn new_context() -> Box<WebSocketContext> {
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    Box::new(WebSocketContext::new(Role::Client, Some(config)))
}

/// Bytes already read on one side, answers on the other.
struct Pipe<'a> {
    bytes: &'a [u8],
    out: &'a mut Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.read(into)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tungstenite::protocol::frame::coding::Control;

    #[derive(Debug, Default, PartialEq)]
    struct Log(Vec<String>);

    impl Hear for Log {
        fn message(&mut self, payload: &[u8]) {
            self.0.push(String::from_utf8_lossy(payload).into_owned());
        }
        fn close(&mut self, code: u16) {
            self.0.push(format!("CLOSE {code}"));
        }
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        if payload.len() < 126 {
            bytes.push(payload.len() as u8);
        } else {
            bytes.push(126);
            bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    fn stream() -> Vec<u8> {
        [
            frame(0x81, b"one"),
            frame(0x89, b"are you there"),
            frame(0x81, &[b'x'; 300]),
            frame(0x01, b"frag"),
            frame(0x89, b"in between"),
            frame(0x80, b"ment"),
            frame(0x81, b"after"),
            frame(0x88, b"\x03\xe9going"),
        ]
        .concat()
    }

    fn hear_in_pieces(bytes: &[u8], cuts: &[usize]) -> (Log, Vec<u8>) {
        let mut decoder = Decoder::default();
        let (mut log, mut out) = (Log::default(), Vec::new());
        let mut from = 0;
        for to in cuts.iter().copied().chain([bytes.len()]) {
            let read = [decoder.tail(), &bytes[from..to]].concat();
            decoder.take(&read, &mut out, &mut log).unwrap();
            from = to;
        }
        (log, out)
    }

    fn expected() -> Log {
        Log(["one", &"x".repeat(300), "fragment", "after", "CLOSE 1001"]
            .map(String::from)
            .to_vec())
    }

    #[test]
    fn pings_are_answered_with_what_they_carried() {
        let (log, out) = hear_in_pieces(&frame(0x89, b"abc"), &[]);
        assert!(log.0.is_empty());
        let mut cursor = Cursor::new(&out[..]);
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        assert_eq!(header.opcode, OpCode::Control(Control::Pong));
        assert_eq!((header.mask.is_some(), length), (true, 3));
    }

    #[test]
    fn what_breaks_the_protocol_is_a_fault() {
        for bytes in [
            &b"\x81\x80\0\0\0\0"[..],
            b"\xc1\x01x",
            b"\x81\x02\xff\xff",
            b"\x83\x00",
            b"\x80\x01x",
            b"\x09\x00",
        ] {
            let mut decoder = Decoder::default();
            let heard = decoder.take(bytes, &mut Vec::new(), &mut Log::default());
            assert!(heard.is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_client_at_rest_holds_no_memory() {
        let mut decoder = Decoder::default();
        let bytes = [frame(0x81, b"one"), frame(0x89, b"")].concat();
        let mut log = Log::default();
        decoder
            .take(&bytes[..4], &mut Vec::new(), &mut log)
            .unwrap();
        assert_eq!(decoder.tail().len(), 4);
        decoder.take(&bytes, &mut Vec::new(), &mut log).unwrap();
        assert_eq!(
            (decoder.tail.capacity(), decoder.context.is_none()),
            (0, true)
        );
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(mut cuts in proptest::collection::vec(0usize..400, 0..8)) {
            let bytes = stream();
            cuts.retain(|cut| *cut < bytes.len());
            cuts.sort_unstable();
            let (log, out) = hear_in_pieces(&bytes, &cuts);
            prop_assert_eq!(log, expected());
            prop_assert!(out.len() > 30, "two pongs and the close are answered");
        }
    }
}
