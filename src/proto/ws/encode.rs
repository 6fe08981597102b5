//! Frames from server to client: never masked (RFC 6455 section 5.1), never fragmented.

use tungstenite::protocol::frame::coding::{Data, OpCode};

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
