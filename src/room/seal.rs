//! A room's open batch, and how it is sealed: every object rendered once, framed once per encoding for the whole node.
//! Owned by the room's home.

use super::ask::{Chunk, Encoding, Mark, Own, Speaker};
use super::budget::Choice;
use super::history::{Keep, Kept};
use crate::base::rng::Rng;
use crate::proto::ws::deflate::Deflator;
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
    /// A numbered line of the crowd: may be left out, may be missed, and is counted when it is.
    Line,
    /// A numbered line of someone who runs the room: never left out, but missed like any other.
    Host,
    /// A numbered event: never missed.
    Event,
    /// Not numbered, not kept, not counted: the online count.
    Comfort,
    /// Says that so many lines were left out.
    Told(u32),
    /// Not numbered and not kept, but never missed: the numbering began anew.
    News,
}

/// Objects since the last seal.
#[derive(Debug, Default)]
pub struct Batch {
    json: Vec<u8>,
    items: Vec<Item>,
    /// Lines among them that may be left out.
    crowd: u32,
    begun_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    start: usize,
    end: usize,
    kind: Kind,
    /// Who said it.
    speaker: Option<Speaker>,
    /// Left out: sent to its speaker alone.
    out: bool,
}

/// A closed batch.
#[derive(Debug)]
pub struct SealedBatch {
    /// The newest of the numbered objects.
    pub kept: Kept,
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
        self.put_by(None, kind, now_ns, write);
    }

    /// Appends one object that a viewer said.
    pub fn put_by(
        &mut self,
        speaker: Option<Speaker>,
        kind: Kind,
        now_ns: u64,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.items.is_empty() {
            self.begun_ns = now_ns;
        }
        let start = self.json.len();
        write(&mut self.json);
        let end = self.json.len();
        self.crowd += u32::from(kind == Kind::Line);
        self.items.push(Item {
            start,
            end,
            kind,
            speaker,
            out: false,
        });
    }

    /// When the oldest object came; `None` while there is none.
    pub fn begun_ns(&self) -> Option<u64> {
        (!self.items.is_empty()).then_some(self.begun_ns)
    }

    /// Bytes of the objects in it, without frames.
    pub fn bytes(&self) -> usize {
        self.json.len()
    }

    /// Lines in it that may be left out.
    pub fn crowd(&self) -> u32 {
        self.crowd
    }

    /// Lines in it that a budget is asked for.
    pub fn lines(&self) -> u32 {
        let hosts = self.items.iter().filter(|item| item.kind == Kind::Host);
        self.crowd + hosts.count() as u32
    }

    /// Leaves out as many of the crowd's lines as do not fit into `left`, chosen by chance. Returns how many.
    pub fn leave_out(&mut self, left: u32, chance: &mut Rng) -> u32 {
        let hosts = self.lines() - self.crowd;
        let mut choice = Choice::new(left.saturating_sub(hosts), self.crowd);
        let mut out = 0;
        for item in &mut self.items {
            if item.kind == Kind::Line && !choice.next(chance) {
                item.out = true;
                out += 1;
            }
        }
        out
    }

    /// What each speaker of a line that was left out gets instead of the chunk, as long as all of it together stays within
    /// `bytes_max`. `tell` writes the message that so many are missing.
    pub fn own(&self, bytes_max: usize, tell: impl Fn(&mut Vec<u8>, u32)) -> Box<[Own]> {
        let mut speakers: Vec<Speaker> = Vec::new();
        let left_out = self.items.iter().filter(|item| item.out);
        let all = left_out.clone().count() as u32;
        let (mut owns, mut bytes) = (Vec::new(), 0);
        for speaker in left_out.filter_map(|item| item.speaker) {
            if speakers.contains(&speaker) {
                continue;
            }
            speakers.push(speaker);
            let own = self.own_of(speaker, all, &tell);
            bytes += own.bytes.len();
            if bytes > bytes_max {
                break;
            }
            owns.push(own);
        }
        owns.into()
    }

    fn own_of(&self, speaker: Speaker, all: u32, tell: &impl Fn(&mut Vec<u8>, u32)) -> Own {
        let said = |item: &Item| item.out && item.speaker == Some(speaker);
        let told = all - self.items.iter().filter(|item| said(item)).count() as u32;
        let mut message = Vec::new();
        if told > 0 {
            tell(&mut message, told);
        }
        let told_of = (told > 0).then_some((&message[..], Kind::Told(told)));
        let sent = self.items.iter();
        let sent = sent.filter(|item| !item.out || said(item));
        let sent = sent.filter(|item| !matches!(item.kind, Kind::Told(_)));
        let objects = sent
            .map(|item| (self.json_of(item), item.kind))
            .chain(told_of);
        // Compressed for one viewer it would not pay.
        let chunk = match speaker.seat.encoding.gathers() {
            false => one_each(objects, encode::text),
            true => gathered(objects, encode::text),
        };
        Own {
            speaker,
            frames: chunk.marks.len() as u32,
            lines: chunk.marks.iter().map(|mark| mark.lines).sum(),
            told,
            bytes: chunk.bytes,
        }
    }

    /// Closes the batch. `uses` says by encoding whether anybody reads it, `keep` how much of it history can hold.
    pub fn seal(
        &mut self,
        uses: [bool; Encoding::COUNT],
        keep: Keep,
        deflator: &mut Deflator,
    ) -> SealedBatch {
        let objects = || self.objects();
        let chunks = Encoding::ALL
            .map(|encoding| uses[encoding.index()].then(|| sealed(encoding, objects(), deflator)));
        let is_event = |(_, kind): &(&[u8], Kind)| matches!(kind, Kind::Event | Kind::News);
        let has_events = objects().any(|object| is_event(&object));
        let sealed = SealedBatch {
            kept: self.newest(keep),
            chunks,
            events: has_events.then(|| one_each(objects().filter(is_event), encode::text)),
            lines: objects()
                .filter(|(_, kind)| matches!(kind, Kind::Line | Kind::Host))
                .count() as u32,
        };
        self.json.clear();
        self.json.shrink_to(IDLE_BYTES_MAX);
        self.crowd = 0;
        self.items.clear();
        self.items.shrink_to(IDLE_ITEMS_MAX);
        sealed
    }

    /// The objects that are sent, in order.
    fn objects(&self) -> impl Iterator<Item = (&[u8], Kind)> + Clone {
        let sent = self.items.iter().filter(|item| !item.out);
        sent.map(|item| (self.json_of(item), item.kind))
    }

    fn json_of(&self, item: &Item) -> &[u8] {
        &self.json[item.start..item.end]
    }

    /// Copies of the newest numbered objects, sent or left out, as many as `keep` allows. Copies, because a slice of the
    /// whole batch would hold all of it in memory for the sake of a few lines.
    fn newest(&self, keep: Keep) -> Kept {
        let numbered =
            |item: &&Item| !matches!(item.kind, Kind::Comfort | Kind::Told(_) | Kind::News);
        let (mut bytes, mut kept) = (0, 0);
        for item in self.items.iter().rev().filter(numbered) {
            let more = bytes + item.end - item.start;
            if kept == keep.lines_max || more > keep.bytes_max {
                break;
            }
            (bytes, kept) = (more, kept + 1);
        }
        let all = self.items.iter().filter(numbered).count();
        let mut buffer = Vec::with_capacity(bytes);
        let mut ends = Vec::with_capacity(kept);
        for item in self.items.iter().filter(numbered).skip(all - kept) {
            buffer.extend_from_slice(self.json_of(item));
            ends.push(buffer.len() as u32);
        }
        Kept {
            bytes: buffer.into(),
            ends,
        }
    }
}

/// The objects as the members of one encoding get them.
fn sealed<'a>(
    encoding: Encoding,
    objects: impl Iterator<Item = (&'a [u8], Kind)> + Clone,
    deflator: &mut Deflator,
) -> Chunk {
    let deflated = |payload: &[u8], out: &mut Vec<u8>| deflator.text(payload, out);
    match encoding {
        Encoding::Plain => one_each(objects, encode::text),
        Encoding::Batch => gathered(objects, encode::text),
        Encoding::PlainDeflated => one_each(objects, deflated),
        Encoding::BatchDeflated => gathered(objects, deflated),
    }
}

/// One frame per object, as `frame` appends it. Sized before it is filled: every log that holds the chunk holds its spare
/// capacity too.
fn one_each<'a>(
    objects: impl Iterator<Item = (&'a [u8], Kind)> + Clone,
    mut frame: impl FnMut(&[u8], &mut Vec<u8>),
) -> Chunk {
    let room = |(object, _): (&[u8], Kind)| FRAME_HEADER_BYTES + object.len();
    let mut bytes = Vec::with_capacity(objects.clone().map(room).sum());
    let mut marks = Vec::with_capacity(objects.clone().count());
    for (object, kind) in objects {
        frame(object, &mut bytes);
        let mut mark = Mark {
            end: bytes.len() as u32,
            lines: 0,
            told: 0,
            events: 0,
        };
        count(&mut mark, kind);
        marks.push(mark);
    }
    chunk(bytes, marks)
}

/// As many objects to a frame as its payload bound holds, newline-separated.
fn gathered<'a>(
    objects: impl Iterator<Item = (&'a [u8], Kind)> + Clone,
    mut frame: impl FnMut(&[u8], &mut Vec<u8>),
) -> Chunk {
    // A newline for each object is more than the headers of the frames they share; only giants want a header each.
    let room = |(object, _): (&[u8], Kind)| 1 + object.len();
    let total: usize = objects.clone().map(room).sum();
    let headers = (2 * total / BATCH_PAYLOAD_BYTES + 1) * FRAME_HEADER_BYTES;
    let (mut bytes, mut marks) = (Vec::with_capacity(total + headers), Vec::new());
    let mut payload: Vec<u8> = Vec::new();
    let mut open = Mark {
        end: 0,
        lines: 0,
        told: 0,
        events: 0,
    };
    let mut close = |payload: &mut Vec<u8>, open: &mut Mark| {
        frame(payload, &mut bytes);
        payload.clear();
        open.end = bytes.len() as u32;
        marks.push(*open);
        (open.lines, open.told, open.events) = (0, 0, 0);
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
    chunk(bytes, marks)
}

fn chunk(mut bytes: Vec<u8>, marks: Vec<Mark>) -> Chunk {
    // Compressed frames need less than was made ready for them.
    if bytes.len() < bytes.capacity() - bytes.capacity() / 64 {
        bytes.shrink_to_fit();
    }
    Chunk {
        bytes: bytes.into(),
        marks: marks.into(),
    }
}

fn count(mark: &mut Mark, kind: Kind) {
    match kind {
        Kind::Line | Kind::Host => mark.lines += 1,
        Kind::Told(lines) => mark.told += lines,
        Kind::Event | Kind::News => mark.events += 1,
        Kind::Comfort => {}
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use crate::proto::ws::deflate::Inflator;
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
            let payload = &chunk.bytes[start..end];
            let mut inflator = Inflator::default();
            let payload = match header.rsv1 {
                true => inflator.inflate(payload, 1 << 20).unwrap(),
                false => payload,
            };
            payloads.push(String::from_utf8(payload.to_vec()).unwrap());
            cursor.set_position(end as u64);
        }
        assert_eq!(cursor.position() as usize, chunk.bytes.len());
        payloads
    }

    fn texts(kept: &Kept) -> Vec<bytes::Bytes> {
        kept.messages().collect()
    }

    fn batch(items: &[(Kind, &str)]) -> Batch {
        let mut batch = Batch::default();
        for (kind, text) in items {
            batch.put(*kind, 5, |out| out.extend_from_slice(text.as_bytes()));
        }
        batch
    }

    #[test]
    fn every_encoding_holds_the_same_objects_in_order() {
        let mut open = batch(&[
            (Kind::Line, "{1}"),
            (Kind::Event, "{2}"),
            (Kind::Comfort, "{o}"),
            (Kind::Line, "{3}"),
        ]);
        assert_eq!(open.begun_ns(), Some(5));
        let sealed = open.seal([true; 4], ALL, &mut Deflator::default());
        assert_eq!((open.begun_ns(), open.bytes()), (None, 0));
        assert_eq!(texts(&sealed.kept), ["{1}", "{2}", "{3}"]);
        assert_eq!(sealed.lines, 2);
        let [
            Some(plain),
            Some(gathered),
            Some(small),
            Some(small_gathered),
        ] = &sealed.chunks
        else {
            panic!("all were asked for");
        };
        // What is too small to be compressed is the same.
        assert_eq!(small.bytes, plain.bytes);
        assert_eq!(small_gathered.bytes, gathered.bytes);
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
    fn what_pays_is_compressed_and_counts_the_same() {
        let long = format!("{{{}}}", "danmaku ".repeat(60));
        let items: Vec<(Kind, &str)> = (0..60)
            .map(|n| match n % 4 {
                0 => (Kind::Line, &*long),
                1 => (Kind::Event, "{2}"),
                2 => (Kind::Told(3), "{told}"),
                _ => (Kind::Line, "{3}"),
            })
            .collect();
        let sealed = batch(&items).seal([true; 4], ALL, &mut Deflator::default());
        let [plain, gathered, small, small_gathered] = sealed.chunks.map(Option::unwrap);
        for (whole, deflated) in [(&plain, &small), (&gathered, &small_gathered)] {
            assert!(deflated.bytes.len() * 3 < whole.bytes.len());
            assert_eq!(payloads(deflated), payloads(whole));
            let counts = |chunk: &Chunk| -> Vec<(u32, u32, u32)> {
                let marks = chunk.marks.iter();
                marks.map(|m| (m.lines, m.told, m.events)).collect()
            };
            assert_eq!(counts(deflated), counts(whole));
        }
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
        let sealed = open.seal([false, true, false, false], ALL, &mut Deflator::default());
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
            let nobody = [false; Encoding::COUNT];
            let sealed = batch(&items).seal(nobody, keep, &mut Deflator::default());
            texts(&sealed.kept)
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
        let sealed = open.seal([true; 4], ALL, &mut Deflator::default());
        assert!(open.json.capacity() <= IDLE_BYTES_MAX);
        assert!(open.items.capacity() <= IDLE_ITEMS_MAX);
        for chunk in sealed.chunks.into_iter().flatten() {
            let length = chunk.bytes.len();
            let capacity = Vec::from(chunk.bytes).capacity();
            assert!(capacity - length <= length / 100, "{capacity} of {length}");
        }
    }
}
