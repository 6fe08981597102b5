//! A room's open batch, and how it is sealed: every object rendered once, framed once per encoding for the whole node.
//! Owned by the room's home.

use bytes::Bytes;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::ask::{Chunk, Encoding, Mark};
use crate::proto::ws::encode;

/// Payload of a batch frame; one object larger than this gets a frame of its own. Far below what clients bound a message
/// by, and what a slow viewer loses at once.
const BATCH_PAYLOAD_BYTES: usize = 16 * 1024;

/// What an object is to a viewer that cannot have everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A numbered line of the crowd: may be missed, and is counted when it is.
    Line,
    /// A numbered event: never missed.
    Event,
    /// Not numbered, not kept, not counted: the online count.
    Comfort,
}

/// Objects since the last seal.
#[derive(Debug, Default)]
pub struct Batch {
    json: Vec<u8>,
    items: Vec<Item>,
    begun_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    end: usize,
    kind: Kind,
}

/// A closed batch.
#[derive(Debug)]
pub struct SealedBatch {
    /// The numbered objects, in order.
    pub numbered: Vec<Bytes>,
    /// By encoding; `None` where it was not asked for.
    pub chunks: [Option<Chunk>; Encoding::COUNT],
    /// The events once more, each in a frame of its own.
    pub events: Option<Chunk>,
    /// Lines in it.
    pub lines: u32,
}

impl Batch {
    /// Appends one object.
    pub fn put(&mut self, kind: Kind, now_ns: u64, write: impl FnOnce(&mut Vec<u8>)) {
        if self.items.is_empty() {
            self.begun_ns = now_ns;
        }
        write(&mut self.json);
        let end = self.json.len();
        self.items.push(Item { end, kind });
    }

    /// When the oldest object came; `None` while there is none.
    pub fn begun_ns(&self) -> Option<u64> {
        (!self.items.is_empty()).then_some(self.begun_ns)
    }

    /// Closes the batch. `uses` says by encoding whether anybody reads it.
    pub fn seal(&mut self, uses: [bool; Encoding::COUNT]) -> SealedBatch {
        let json = Bytes::from(std::mem::take(&mut self.json));
        let items = std::mem::take(&mut self.items);
        let spans = || {
            let starts = std::iter::once(0).chain(items.iter().map(|item| item.end));
            starts
                .zip(&items)
                .map(|(start, item)| (start..item.end, item.kind))
        };
        let numbered = spans()
            .filter(|(_, kind)| *kind != Kind::Comfort)
            .map(|(span, _)| json.slice(span))
            .collect();
        let objects = || spans().map(|(span, kind)| (&json[span], kind));
        let plain = uses[Encoding::Plain.index()].then(|| one_each(objects()));
        let batch = uses[Encoding::Batch.index()].then(|| gathered(objects()));
        let events: Vec<_> = objects().filter(|(_, kind)| *kind == Kind::Event).collect();
        SealedBatch {
            numbered,
            chunks: [plain, batch],
            events: (!events.is_empty()).then(|| one_each(events.into_iter())),
            lines: spans().filter(|(_, kind)| *kind == Kind::Line).count() as u32,
        }
    }
}

/// One text frame per object.
fn one_each<'a>(objects: impl Iterator<Item = (&'a [u8], Kind)>) -> Chunk {
    let (mut bytes, mut marks) = (Vec::new(), Vec::new());
    for (object, kind) in objects {
        encode::text(object, &mut bytes);
        let mut mark = Mark {
            end: bytes.len() as u32,
            lines: 0,
            events: 0,
        };
        count(&mut mark, kind);
        marks.push(mark);
    }
    Chunk {
        bytes: bytes.into(),
        marks: marks.into(),
    }
}

/// As many objects to a frame as its payload bound holds, newline-separated.
fn gathered<'a>(objects: impl Iterator<Item = (&'a [u8], Kind)>) -> Chunk {
    let (mut bytes, mut marks) = (Vec::new(), Vec::new());
    let mut payload: Vec<u8> = Vec::new();
    let mut open = Mark {
        end: 0,
        lines: 0,
        events: 0,
    };
    let mut close = |payload: &mut Vec<u8>, open: &mut Mark| {
        encode::header(OpCode::Data(Data::Text), payload.len(), &mut bytes);
        bytes.append(payload);
        open.end = bytes.len() as u32;
        marks.push(*open);
        (open.lines, open.events) = (0, 0);
    };
    for (object, kind) in objects {
        if !payload.is_empty() && payload.len() + 1 + object.len() > BATCH_PAYLOAD_BYTES {
            close(&mut payload, &mut open);
        }
        if !payload.is_empty() {
            payload.push(b'\n');
        }
        payload.extend_from_slice(object);
        count(&mut open, kind);
    }
    if !payload.is_empty() {
        close(&mut payload, &mut open);
    }
    Chunk {
        bytes: bytes.into(),
        marks: marks.into(),
    }
}

fn count(mark: &mut Mark, kind: Kind) {
    match kind {
        Kind::Line => mark.lines += 1,
        Kind::Event => mark.events += 1,
        Kind::Comfort => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::protocol::frame::FrameHeader;

    use super::*;

    /// Every frame of a chunk as tungstenite reads it; each must end at its mark.
    fn payloads(chunk: &Chunk) -> Vec<String> {
        let mut cursor = Cursor::new(&chunk.bytes[..]);
        let mut payloads = Vec::new();
        for mark in chunk.marks.iter() {
            let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert!(header.is_final && header.mask.is_none());
            let start = cursor.position() as usize;
            let end = start + length as usize;
            assert_eq!(end, mark.end as usize);
            payloads.push(String::from_utf8(chunk.bytes[start..end].to_vec()).unwrap());
            cursor.set_position(end as u64);
        }
        assert_eq!(cursor.position() as usize, chunk.bytes.len());
        payloads
    }

    fn batch(items: &[(Kind, &str)]) -> Batch {
        let mut batch = Batch::default();
        for (kind, text) in items {
            batch.put(*kind, 5, |out| out.extend_from_slice(text.as_bytes()));
        }
        batch
    }

    #[test]
    fn both_encodings_hold_the_same_objects_in_order() {
        let mut open = batch(&[
            (Kind::Line, "{1}"),
            (Kind::Event, "{2}"),
            (Kind::Comfort, "{o}"),
            (Kind::Line, "{3}"),
        ]);
        assert_eq!(open.begun_ns(), Some(5));
        let sealed = open.seal([true, true]);
        assert_eq!(open.begun_ns(), None);
        assert_eq!(sealed.numbered, ["{1}", "{2}", "{3}"]);
        assert_eq!(sealed.lines, 2);
        let [Some(plain), Some(gathered)] = &sealed.chunks else {
            panic!("both were asked for");
        };
        assert_eq!(payloads(plain), ["{1}", "{2}", "{o}", "{3}"]);
        assert_eq!(payloads(gathered), ["{1}\n{2}\n{o}\n{3}"]);
        let counts = |chunk: &Chunk| -> Vec<(u32, u32)> {
            chunk.marks.iter().map(|m| (m.lines, m.events)).collect()
        };
        assert_eq!(counts(plain), [(1, 0), (0, 1), (0, 0), (1, 0)]);
        assert_eq!(counts(gathered), [(2, 1)]);
        assert_eq!(payloads(sealed.events.as_ref().unwrap()), ["{2}"]);
    }

    #[test]
    fn a_batch_frame_has_a_bound_and_a_giant_its_own_frame() {
        let line = "x".repeat(6000);
        let giant = "y".repeat(40_000);
        let mut open = batch(&[
            (Kind::Line, &line),
            (Kind::Line, &line),
            (Kind::Line, &line),
            (Kind::Line, &giant),
            (Kind::Line, &line),
        ]);
        let sealed = open.seal([false, true]);
        assert!(sealed.chunks[0].is_none() && sealed.events.is_none());
        let sizes: Vec<usize> = payloads(sealed.chunks[1].as_ref().unwrap())
            .iter()
            .map(String::len)
            .collect();
        assert_eq!(sizes, [12_001, 6000, 40_000, 6000]);
    }
}
