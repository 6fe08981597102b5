//! What a line costs the gateway itself: sealed once at its home, then handed to each member by the walk. No socket and no
//! kernel: what is left of a delivery when the `send` is taken away.
//!
//! `cargo bench --bench fanout`; `measure` says how. The walk is the room's own part of it (`room::stream`); the shard's part,
//! which finds the connection and writes, is in the swarm's figures.

mod measure;

use std::hint::black_box;
use std::process::ExitCode;

use danmaku_gateway::proto::ws::deflate::Deflator;
use danmaku_gateway::room::ask::{Chunk, Encoding};
use danmaku_gateway::room::history::Keep;
use danmaku_gateway::room::seal::{Batch, Kind};
use danmaku_gateway::room::stream::{Due, Stream};
use measure::Piece;

/// What history keeps by default.
const KEEP: Keep = Keep {
    lines_max: 100,
    bytes_max: LOG_BYTES_MAX,
};
const LOG_BYTES_MAX: usize = 256 * 1024;
const MEMBERS: usize = 10_000;

fn main() -> ExitCode {
    let mut pieces = Vec::new();
    for encoding in Encoding::ALL {
        for lines in [1, 32, 500] {
            pieces.push(seal(encoding, lines));
        }
    }
    for encoding in [Encoding::Plain, Encoding::Batch] {
        for lines in [1, 32] {
            pieces.push(walk(encoding, lines));
        }
    }
    pieces.push(up_to_date());
    pieces.push(cut_off());
    measure::measure(pieces)
}

/// A batch with so many lines, sealed for one encoding.
fn seal(encoding: Encoding, lines: usize) -> Piece {
    let what = format!("seal, a batch of {lines}, {encoding:?}");
    Piece::new(what, (lines, "line"), 20_000 / lines, move || {
        let spoken = spoken(lines);
        let mut sealer = (Batch::default(), Deflator::default());
        move || {
            black_box(sealed(&mut sealer, encoding, &spoken));
            lines
        }
    })
}

/// Lines as viewers speak them: alike in form, of another author and another text each.
fn spoken(lines: usize) -> Vec<Vec<u8>> {
    const WORDS: [&str; 8] = [
        "哈哈哈",
        "666",
        "awesome",
        "主播",
        "yes",
        "来了",
        "好听",
        "gg",
    ];
    let line = |n: usize| {
        let chance = n.wrapping_mul(0x9e37_79b9) >> 7;
        let (one, two) = (WORDS[chance % 8], WORDS[chance / 8 % 8]);
        format!(
            r##"{{"type":"danmaku","room":"1001","seq":{n},"ts":{},"user":{{"id":"u{}","name":"viewer {}"}},"text":"{one} {two} {one}","style":{{"color":"#{:06x}","mode":"scroll","size":25}}}}"##,
            1_795_377_714_000 + chance % 50,
            chance % 99_991,
            chance % 9_973,
            chance % 0xff_ffff,
        )
    };
    (0..lines).map(|n| line(n).into_bytes()).collect()
}

fn sealed(
    (batch, deflator): &mut (Batch, Deflator),
    encoding: Encoding,
    spoken: &[Vec<u8>],
) -> Chunk {
    for line in spoken {
        batch.put(Kind::Line, 1, |out| out.extend_from_slice(black_box(line)));
    }
    let uses = Encoding::ALL.map(|each| each == encoding);
    let mut sealed = batch.seal(uses, KEEP, deflator);
    let chunk = sealed.chunks[encoding.index()].take();
    chunk.expect("it was asked for")
}

/// A stream with its members, and a chunk to be handed to all of them.
fn hall(encoding: Encoding, lines: usize) -> (Stream, Chunk) {
    let mut stream = Stream::new(encoding, LOG_BYTES_MAX);
    for slot in 0..MEMBERS as u32 {
        stream.join(slot);
    }
    let chunk = sealed(&mut Default::default(), encoding, &spoken(lines));
    (stream, chunk)
}

/// One round of the walk: each member is handed so many lines at once, and its socket takes them.
fn walk(encoding: Encoding, lines: usize) -> Piece {
    let what = format!("walk, {lines} pending, {encoding:?}");
    Piece::new(what, (MEMBERS, "visit"), 10, move || {
        let (mut stream, chunk) = hall(encoding, lines);
        move || {
            stream.append(&chunk, None, 1, 1);
            let visits = round(&mut stream, |due| due);
            stream.settle();
            visits
        }
    })
}

/// Visits whoever is behind; `takes` says how many of the due bytes its socket takes.
fn round(stream: &mut Stream, takes: impl Fn(usize) -> usize) -> usize {
    let mut visits = 0;
    while let Some(at) = stream.next_behind(1) {
        if let Due::Frames(frames) = stream.due(at) {
            let taken = takes(black_box(frames).len());
            black_box(stream.sent(at, taken));
            visits += 1;
        }
    }
    visits
}

/// A round in which nobody is behind.
fn up_to_date() -> Piece {
    let what = "walk, passing over who is up to date";
    Piece::new(what, (MEMBERS, "member"), 10, || {
        let (mut stream, _) = hall(Encoding::Plain, 1);
        let nothing = Chunk {
            bytes: Default::default(),
            marks: Default::default(),
        };
        move || {
            stream.append(&nothing, None, 1, 1);
            match stream.next_behind(1) {
                None => stream.len(),
                Some(_) => 0,
            }
        }
    })
}

/// Sockets that stop inside a frame: the rest of it goes to the member's outbox.
fn cut_off() -> Piece {
    let what = "walk, 32 pending, sockets stop in the middle";
    Piece::new(what, (2 * MEMBERS, "visit"), 10, || {
        let (mut stream, chunk) = hall(Encoding::Plain, 32);
        move || {
            stream.append(&chunk, None, 1, 1);
            let first = round(&mut stream, |due| due / 2);
            stream.append(&chunk, None, 1, 1);
            let second = round(&mut stream, |due| due);
            stream.settle();
            first + second
        }
    })
}
