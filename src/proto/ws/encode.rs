//! Frames from server to client: never masked (RFC 6455 section 5.1), never fragmented.
//!
//! Runs on shard threads. It only ever appends to what it is given, and never looks into a payload.

use bytes::Bytes;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest header a server writes: 2 bytes and an 8-byte length.
pub const HEADER_BYTES_MAX: usize = 10;

/// Longest payload of a ping, pong or close (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The bit in a frame's first byte that says its message is compressed.
const RSV1: u8 = 0x40;

/// Appends one whole frame with FIN set.
pub fn frame(op: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    header(op, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends one text frame; `payload` is UTF-8.
pub fn text(payload: &[u8], out: &mut Vec<u8>) {
    frame(OpCode::Data(Data::Text), payload, out);
}

/// Appends one text frame whose payload is UTF-8 compressed by permessage-deflate, which RSV1 says (RFC 7692 section 6.1).
pub fn deflated_text(packed: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    text(packed, out);
    out[start] |= RSV1;
}

/// The payload of one of our own frames, which bear no mask.
pub fn payload(frame: &Bytes) -> Bytes {
    let header = match frame.get(1).copied().unwrap_or_default() {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame.slice(header.min(frame.len())..)
}

/// Appends one text frame whose payload `write` appends: rendered in place, and moved by two or eight bytes only if it is
/// longer than 125.
pub fn text_with(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    write(out);
    let end = out.len();
    // The header goes behind the payload, and then before it.
    header(OpCode::Data(Data::Text), end - start - 2, out);
    let header_bytes = out.len() - end;
    match header_bytes {
        2 => {
            out.copy_within(end.., start);
            out.truncate(end);
        }
        _ => {
            out[start..].rotate_right(header_bytes);
            out.drain(start + header_bytes..start + header_bytes + 2);
        }
    }
}

/// Appends a ping; `payload` is at most [`CONTROL_BYTES_MAX`] bytes.
pub fn ping(payload: &[u8], out: &mut Vec<u8>) {
    control(Control::Ping, payload, out);
}

/// Appends a pong; `payload` is that of the ping it answers (RFC 6455 section 5.5.3).
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    control(Control::Pong, payload, out);
}

/// Appends a close frame with a payload already made: empty, or a code and its reason. `close::put_close` makes one.
pub fn close(payload: &[u8], out: &mut Vec<u8>) {
    control(Control::Close, payload, out);
}

/// Appends the header alone, for a payload the caller appends itself (RFC 6455 section 5.2).
pub fn header(op: OpCode, payload_bytes: usize, out: &mut Vec<u8>) {
    out.push(0x80 | u8::from(op));
    match payload_bytes {
        0..=125 => out.push(payload_bytes as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

fn control(op: Control, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(
        payload.len() <= CONTROL_BYTES_MAX,
        "{op:?} of {} bytes",
        payload.len()
    );
    frame(OpCode::Control(op), payload, out);
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Result, Write};

    use tungstenite::Message;
    use tungstenite::protocol::{Role, WebSocket};

    use super::super::close::put_close;
    use super::*;

    /// What we wrote, for a client to read; what the client answers is of no interest.
    struct Written(Cursor<Vec<u8>>);

    impl Read for Written {
        fn read(&mut self, into: &mut [u8]) -> Result<usize> {
            self.0.read(into)
        }
    }

    impl Write for Written {
        fn write(&mut self, from: &[u8]) -> Result<usize> {
            Ok(from.len())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn client(written: Vec<u8>) -> WebSocket<Written> {
        WebSocket::from_raw_socket(Written(Cursor::new(written)), Role::Client, None)
    }

    #[test]
    fn a_client_reads_every_length_form() {
        for (payload_bytes, header_bytes) in [
            (0, 2),
            (1, 2),
            (125, 2),
            (126, 4),
            (65_535, 4),
            (65_536, 10),
        ] {
            let payload = "x".repeat(payload_bytes);
            let mut out = Vec::new();
            text(payload.as_bytes(), &mut out);
            frame(OpCode::Data(Data::Binary), payload.as_bytes(), &mut out);
            assert_eq!(
                out.len(),
                2 * (header_bytes + payload_bytes),
                "{payload_bytes}"
            );
            let mut client = client(out);
            assert_eq!(
                client.read().unwrap(),
                Message::text(payload.clone()),
                "{payload_bytes}"
            );
            assert_eq!(
                client.read().unwrap(),
                Message::binary(payload),
                "{payload_bytes}"
            );
        }
    }

    #[test]
    fn a_client_reads_control_frames() {
        let longest = [7; CONTROL_BYTES_MAX];
        let mut out = Vec::new();
        ping(b"", &mut out);
        ping(&longest, &mut out);
        pong(b"echo", &mut out);
        put_close(4429, "慢一点", &mut out);
        let mut client = client(out);
        assert_eq!(client.read().unwrap(), Message::Ping(Vec::new().into()));
        assert_eq!(
            client.read().unwrap(),
            Message::Ping(longest.to_vec().into())
        );
        assert_eq!(
            client.read().unwrap(),
            Message::Pong(b"echo".to_vec().into())
        );
        let Message::Close(Some(end)) = client.read().unwrap() else {
            panic!("no close with a code");
        };
        assert_eq!((u16::from(end.code), end.reason.as_str()), (4429, "慢一点"));
    }

    #[test]
    fn a_close_may_say_nothing() {
        let mut out = Vec::new();
        close(b"", &mut out);
        assert_eq!(out, [0x88, 0]);
        assert_eq!(client(out).read().unwrap(), Message::Close(None));
    }

    #[test]
    fn a_payload_rendered_in_place_reads_the_same() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = "x".repeat(length);
            let (mut whole, mut in_place) = (b"before".to_vec(), b"before".to_vec());
            text(payload.as_bytes(), &mut whole);
            text_with(&mut in_place, |out| {
                out.extend_from_slice(payload.as_bytes())
            });
            assert!(whole == in_place, "{length}");
        }
    }
}
