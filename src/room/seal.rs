//! A room's open batch, and how it is sealed: every object rendered once, framed once per encoding for the whole node.
//! Owned by the room's home.

use bytes::Bytes;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::ask::{Chunk, Encoding, Mark};
use super::history::Keep;
use crate::proto::ws::encode;

/// Payload of a batch frame; one object larger than this gets a frame of its own. Far below what clients bound a message
/// by, and what a slow viewer loses at once.
const BATCH_PAYLOAD_BYTES: usize = 16 * 1024;
/// Header of a frame of up to 65,535 bytes (RFC 6455 section 5.2): what an object is reckoned at when memory is sized.
const FRAME_HEADER_BYTES: usize = 4;
/// Memory an empty batch keeps for the next one: the lines of an ordinary turn. What a rush needed goes back.
const IDLE_BYTES_MAX: usize = 16 * 1024;
/// Places for objects an empty batch keeps likewise.
const IDLE_ITEMS_MAX: usize = 128;

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
    start: usize,
    end: usize,
    kind: Kind,
}

/// A closed batch.
#[derive(Debug)]
pub struct SealedBatch {
    /// The newest of the numbered objects, in order, back to back in a buffer that holds nothing else.
    pub kept: Vec<Bytes>,
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
        let start = self.json.len();
        write(&mut self.json);
        let end = self.json.len();
        self.items.push(Item { start, end, kind });
    }

    /// When the oldest object came; `None` while there is none.
    pub fn begun_ns(&self) -> Option<u64> {
        (!self.items.is_empty()).then_some(self.begun_ns)
    }

    /// Bytes of the objects in it, without frames.
    pub fn bytes(&self) -> usize {
        self.json.len()
    }

    /// Closes the batch. `uses` says by encoding whether anybody reads it, `keep` how much of it history can hold.
    pub fn seal(&mut self, uses: [bool; Encoding::COUNT], keep: Keep) -> SealedBatch {
        let objects = || self.objects();
        let plain = uses[Encoding::Plain.index()].then(|| one_each(objects()));
        let batch = uses[Encoding::Batch.index()].then(|| gathered(objects()));
        let is_event = |(_, kind): &(&[u8], Kind)| *kind == Kind::Event;
        let has_events = objects().any(|object| is_event(&object));
        let sealed = SealedBatch {
            kept: self.newest(keep),
            chunks: [plain, batch],
            events: has_events.then(|| one_each(objects().filter(is_event))),
            lines: objects().filter(|(_, kind)| *kind == Kind::Line).count() as u32,
        };
        self.json.clear();
        self.json.shrink_to(IDLE_BYTES_MAX);
        self.items.clear();
        self.items.shrink_to(IDLE_ITEMS_MAX);
        sealed
    }

    /// The objects, in order.
    fn objects(&self) -> impl DoubleEndedIterator<Item = (&[u8], Kind)> + Clone {
        self.items
            .iter()
            .map(|item| (&self.json[item.start..item.end], item.kind))
    }

    /// Copies of the newest numbered objects, as many as `keep` allows. Copies, because a slice of the whole batch would
    /// hold all of it in memory for the sake of a few lines.
    fn newest(&self, keep: Keep) -> Vec<Bytes> {
        let numbered = self.objects().filter(|(_, kind)| *kind != Kind::Comfort);
        let mut bytes = 0;
        let mut newest: Vec<&[u8]> = numbered
            .map(|(object, _)| object)
            .rev()
            .take(keep.lines_max)
            .take_while(|object| {
                bytes += object.len();
                bytes <= keep.bytes_max
            })
            .collect();
        newest.reverse();
        let buffer = Bytes::from(newest.concat());
        let mut start = 0;
        let slice = |object: &&[u8]| {
            let from = start;
            start += object.len();
            buffer.slice(from..start)
        };
        newest.iter().map(slice).collect()
    }
}

/// One text frame per object. Sized before it is filled: every log that holds the chunk holds its spare capacity too.
fn one_each<'a>(objects: impl Iterator<Item = (&'a [u8], Kind)> + Clone) -> Chunk {
    let room = |(object, _): (&[u8], Kind)| FRAME_HEADER_BYTES + object.len();
    let mut bytes = Vec::with_capacity(objects.clone().map(room).sum());
    let mut marks = Vec::with_capacity(objects.clone().count());
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
fn gathered<'a>(objects: impl Iterator<Item = (&'a [u8], Kind)> + Clone) -> Chunk {
    // A newline for each object is more than the headers of the frames they share; only giants want a header each.
    let room = |(object, _): (&[u8], Kind)| 1 + object.len();
    let total: usize = objects.clone().map(room).sum();
    let headers = (2 * total / BATCH_PAYLOAD_BYTES + 1) * FRAME_HEADER_BYTES;
    let (mut bytes, mut marks) = (Vec::with_capacity(total + headers), Vec::new());
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
pub(super) mod tests {
    use std::io::Cursor;

    use tungstenite::protocol::frame::FrameHeader;

    use super::*;

    const ALL: Keep = Keep {
        lines_max: usize::MAX,
        bytes_max: usize::MAX,
    };

    /// Every frame of a chunk as tungstenite reads it; each must end at its mark.
    pub fn payloads(chunk: &Chunk) -> Vec<String> {
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
        let sealed = open.seal([true, true], ALL);
        assert_eq!((open.begun_ns(), open.bytes()), (None, 0));
        assert_eq!(sealed.kept, ["{1}", "{2}", "{3}"]);
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
        let sealed = open.seal([false, true], ALL);
        assert!(sealed.chunks[0].is_none() && sealed.events.is_none());
        let sizes: Vec<usize> = payloads(sealed.chunks[1].as_ref().unwrap())
            .iter()
            .map(String::len)
            .collect();
        assert_eq!(sizes, [12_001, 6000, 40_000, 6000]);
    }

    #[test]
    fn only_the_newest_are_kept_within_both_bounds() {
        let items = [
            (Kind::Line, "{1}"),
            (Kind::Event, "{22}"),
            (Kind::Comfort, "{o}"),
            (Kind::Line, "{333}"),
        ];
        let kept = |lines_max, bytes_max| {
            let keep = Keep {
                lines_max,
                bytes_max,
            };
            batch(&items).seal([false, false], keep).kept
        };
        assert_eq!(kept(2, 100), ["{22}", "{333}"]);
        assert_eq!(kept(9, 9), ["{22}", "{333}"]);
        assert_eq!(kept(9, 8), ["{333}"]);
        assert!(kept(9, 4).is_empty() && kept(0, 100).is_empty());
    }

    #[test]
    fn memory_of_a_rush_is_given_back_and_chunks_have_none_to_spare() {
        let line = "x".repeat(900);
        let mut open = Batch::default();
        for _ in 0..1000 {
            open.put(Kind::Line, 5, |out| out.extend_from_slice(line.as_bytes()));
        }
        let sealed = open.seal([true, true], ALL);
        assert!(open.json.capacity() <= IDLE_BYTES_MAX);
        assert!(open.items.capacity() <= IDLE_ITEMS_MAX);
        for chunk in sealed.chunks.into_iter().flatten() {
            let length = chunk.bytes.len();
            let capacity = Vec::from(chunk.bytes).capacity();
            assert!(capacity - length <= length / 100, "{capacity} of {length}");
        }
    }
}
