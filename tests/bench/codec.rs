//! What one frame costs: decoding and encoding, ours against tungstenite's.
//!
//! `cargo bench --bench codec`; `measure` says how. In-place decoding spoils its input, so ours copies the burst afresh each
//! round; that copy is in its figure, as it is in tungstenite's, which reads into a buffer of its own.

mod measure;

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use danmaku_gateway::proto::ws::decode::{Decoder, Event};
use danmaku_gateway::proto::ws::encode;
use measure::Piece;
use tungstenite::Error;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

/// Frames in a burst: about what fills a shard's read scratch.
const FRAMES: usize = 1000;
/// Bursts under valgrind.
const BURSTS: usize = 10;
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

fn main() -> ExitCode {
    // Text that is all ASCII is checked far faster than text that is not, by everyone.
    let ascii = "a danmaku in plain letters, as it flies by; ";
    let mixed = "a danmaku of many bytes; 一半是中文, as it flies. ";
    let scripts = [
        ("ASCII", ascii, 50),
        ("mixed", mixed, 50),
        ("mixed", mixed, 1000),
    ];
    let pieces = scripts.into_iter().flat_map(|(script, sample, bytes)| {
        let long = sample.repeat(bytes);
        compare(&long[..long.floor_char_boundary(bytes)], script)
    });
    measure::measure(pieces.collect())
}

fn compare(text: &str, script: &str) -> Vec<Piece> {
    let frames = (FRAMES, "frame");
    let decode = |what: &str, decode: fn(&[u8]) -> usize| {
        let what = format!("decode, {what}, {} B {script}", text.len());
        let text = text.to_owned();
        Piece::new(what, frames, BURSTS, move || {
            let burst = burst(text.as_bytes());
            move || decode(&burst)
        })
    };
    let encode = |what: &str, encode: fn(&bytes::Bytes, &mut Vec<u8>)| {
        let what = format!("encode, {what}, {} B {script}", text.len());
        let payload = bytes::Bytes::from(text.to_owned());
        Piece::new(what, frames, BURSTS, move || {
            let payload = payload.clone();
            let mut out = Vec::with_capacity(2 * FRAMES * (payload.len() + 14));
            move || {
                out.clear();
                (0..FRAMES).for_each(|_| encode(black_box(&payload), &mut out));
                FRAMES
            }
        })
    };
    vec![
        decode("ours, in place", |burst| ours(burst, burst.len())),
        decode("ours, input cut every 37 bytes", |burst| ours(burst, 37)),
        decode("tungstenite, WebSocketContext", theirs),
        encode("ours", |payload, out| encode::text(payload, out)),
        encode("tungstenite, Frame::format", |payload, out| {
            let frame = Frame::message(payload.clone(), OpCode::Data(Data::Text), true);
            frame.format(out).expect("a Vec takes everything");
        }),
    ]
}

/// Masked text frames, each with a mask of its own.
fn burst(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for index in 0..FRAMES as u32 {
        let mask = index.wrapping_mul(0x9e37_79b9).to_be_bytes();
        let header_at = out.len();
        encode::header(OpCode::Data(Data::Text), payload.len(), &mut out);
        out[header_at + 1] |= 0x80;
        out.extend(mask);
        out.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
    }
    out
}

fn ours(burst: &[u8], read_bytes: usize) -> usize {
    let mut decoder = Decoder::new();
    let mut scratch = burst.to_vec();
    let mut frames = 0;
    for read in scratch.chunks_mut(read_bytes) {
        let mut at = 0;
        loop {
            let step = decoder
                .next(&mut read[at..], MESSAGE_BYTES_MAX)
                .expect("good frames");
            at += step.consumed;
            match step.event {
                Some(Event::Text(text)) => frames += usize::from(!black_box(text).is_empty()),
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
    }
    frames
}

/// The burst, then "would block".
struct Sent<'a>(&'a [u8]);

impl Read for Sent<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Sent<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(burst: &[u8]) -> usize {
    let config = WebSocketConfig::default().read_buffer_size(64 * 1024);
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let mut sent = Sent(burst);
    let mut frames = 0;
    loop {
        match context.read(&mut sent) {
            Ok(Message::Text(text)) => frames += usize::from(!black_box(text).is_empty()),
            Ok(other) => panic!("{other:?}"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return frames,
            Err(error) => panic!("{error}"),
        }
    }
}
