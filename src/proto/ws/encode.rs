//! Frames from server to client: never masked (RFC 6455 section 5.1), never fragmented.

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest header a server writes: 2 bytes and an 8-byte length.
pub const HEADER_BYTES_MAX: usize = 10;

/// Appends one whole frame with FIN set.
pub fn frame(op: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    header(op, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends one text frame; `payload` is UTF-8.
pub fn text(payload: &[u8], out: &mut Vec<u8>) {
    frame(OpCode::Data(Data::Text), payload, out);
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

/// Appends a ping; `payload` is at most 125 bytes.
pub fn ping(payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(payload.len() <= 125);
    frame(OpCode::Control(Control::Ping), payload, out);
}

/// Appends a pong; `payload` is at most 125 bytes, as the ping's was.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(payload.len() <= 125);
    frame(OpCode::Control(Control::Pong), payload, out);
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::Message;
    use tungstenite::protocol::{Role, WebSocket};

    use super::*;

    #[test]
    fn tungstenites_client_reads_what_we_write() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = "x".repeat(length);
            let mut stream = Vec::new();
            text(payload.as_bytes(), &mut stream);
            text_with(&mut stream, |out| out.extend_from_slice(payload.as_bytes()));
            ping(b"p", &mut stream);
            pong(b"q", &mut stream);
            let mut client = WebSocket::from_raw_socket(Cursor::new(stream), Role::Client, None);
            assert_eq!(client.read().unwrap(), Message::text(payload.clone()));
            assert_eq!(client.read().unwrap(), Message::text(payload));
            assert_eq!(client.read().unwrap(), Message::Ping(b"p"[..].into()));
            assert_eq!(client.read().unwrap(), Message::Pong(b"q"[..].into()));
        }
    }
}
