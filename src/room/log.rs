//! The room log of one encoding on one hosting shard: sealed frames back to back, and where each of them ends.
//!
//! Owned by one shard thread. It never copies for a viewer and never knows one: a viewer is a cursor, an offset in here.
//! Offsets are logical, count from 0 since the stream began, and only grow. What the bound lets go of moves the floor.

use std::collections::VecDeque;

use super::ask::Mark;

/// While members are still to be visited the log may hold this many times its bound, so that a burst of one turn is not
/// lost to members that keep up. The stream settles it back when the walk is round.
pub const BURST_FACTOR: usize = 4;

/// Bytes an empty log keeps for the next lines: small, so that logs of many busy rooms stay in the processor's caches.
const IDLE_BYTES: usize = 16 * 1024;
/// Places for frames it keeps likewise.
const IDLE_FRAMES: usize = 64;

/// Bounded bytes with frame boundaries. At rest at most `bytes_max` bytes (or one frame, if that is larger).
#[derive(Debug, Default)]
pub struct Log {
    bytes: Vec<u8>,
    /// Logical offset of `bytes[0]`; at most `floor`.
    base: u64,
    /// Where the oldest kept frame begins.
    floor: u64,
    /// Lines ever appended or told of below the floor; wraps.
    floor_lines: u32,
    /// Of those, the told.
    floor_told: u32,
    /// Lines ever appended or told of as not sent; wraps. Differences are exact while a log holds fewer than 2^32 lines.
    lines: u32,
    /// Of those, the told; wraps.
    told: u32,
    marks: VecDeque<FrameEnd>,
}

/// The end of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEnd {
    /// Logical offset just past it.
    pub end: u64,
    /// Lines ever appended or told of up to here; wraps.
    pub lines: u32,
    /// Of those, the told; wraps.
    pub told: u32,
}

impl Log {
    /// Where the oldest kept frame begins.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Just past the newest frame.
    pub fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Lines ever appended or told of as not sent; wraps.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// The same below the floor; wraps.
    pub fn floor_lines(&self) -> u32 {
        self.floor_lines
    }

    /// Bytes kept.
    pub fn kept_bytes(&self) -> usize {
        (self.end() - self.floor) as usize
    }

    /// Appends a sealed chunk; then lets go of the oldest frames above `BURST_FACTOR` times `bytes_max`.
    pub fn append(&mut self, bytes: &[u8], marks: &[Mark], bytes_max: usize) {
        debug_assert_eq!(
            marks.last().map_or(0, |mark| mark.end as usize),
            bytes.len()
        );
        let start = self.end();
        self.bytes.extend_from_slice(bytes);
        for mark in marks {
            self.told = self.told.wrapping_add(mark.told);
            self.lines = self.lines.wrapping_add(mark.lines + mark.told);
            self.marks.push_back(FrameEnd {
                end: start + u64::from(mark.end),
                lines: self.lines,
                told: self.told,
            });
        }
        self.trim(bytes_max.saturating_mul(BURST_FACTOR));
    }

    /// Lets go of the oldest frames until at most `bytes_max` bytes are left, but never of the newest frame.
    pub fn trim(&mut self, bytes_max: usize) {
        while self.kept_bytes() > bytes_max && self.marks.len() > 1 {
            if let Some(gone) = self.marks.pop_front() {
                self.floor = gone.end;
                self.floor_lines = gone.lines;
                self.floor_told = gone.told;
            }
        }
        let dead = (self.floor - self.base) as usize;
        // Moving the living part costs at most what was appended since the last time.
        if dead >= 4096 && dead * 2 >= self.bytes.len() {
            self.bytes.drain(..dead);
            self.base = self.floor;
        }
    }

    /// Lets go of everything, and of memory beyond what an ordinary turn needs. The floor moves to the end.
    pub fn clear(&mut self) {
        self.floor = self.end();
        self.floor_lines = self.lines;
        self.floor_told = self.told;
        self.base = self.floor;
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_BYTES);
        self.marks.clear();
        self.marks.shrink_to(IDLE_FRAMES);
    }

    /// Lets go of everything and of all memory, for a room that went quiet.
    pub fn forget(&mut self) {
        self.clear();
        self.bytes = Vec::new();
        self.marks = VecDeque::new();
    }

    /// Everything from `cursor` (at or above the floor) to the end.
    pub fn since(&self, cursor: u64) -> &[u8] {
        debug_assert!(cursor >= self.floor && cursor <= self.end());
        &self.bytes[(cursor - self.base) as usize..]
    }

    /// Bytes `from..to`, both at or above the floor.
    pub fn slice(&self, from: u64, to: u64) -> &[u8] {
        &self.bytes[(from - self.base) as usize..(to - self.base) as usize]
    }

    /// The end of the frame that holds the byte just before `offset`, for a send that stopped there. `offset` lies above
    /// the floor and at most at the end.
    pub fn frame_end_at(&self, offset: u64) -> FrameEnd {
        let index = self.marks.partition_point(|mark| mark.end < offset);
        self.marks[index]
    }

    /// The frames that end after `cursor`.
    pub fn frames_after(&self, cursor: u64) -> impl Iterator<Item = FrameEnd> + '_ {
        let index = self.marks.partition_point(|mark| mark.end <= cursor);
        self.marks.range(index..).copied()
    }

    /// How many kept frames end at or before `cursor`; two of these differ by the frames between them.
    pub fn frame_at(&self, cursor: u64) -> usize {
        match cursor == self.end() {
            true => self.marks.len(),
            false => self.marks.partition_point(|mark| mark.end <= cursor),
        }
    }

    /// Lines ever told of as not sent before the kept frame with this index, as [`Log::frame_at`] counts; wraps.
    pub fn told_before(&self, index: usize) -> u32 {
        match index
            .checked_sub(1)
            .and_then(|before| self.marks.get(before))
        {
            Some(frame) => frame.told,
            None => self.floor_told,
        }
    }

    /// Frames kept.
    pub fn frames(&self) -> usize {
        self.marks.len()
    }

    /// Bytes of memory held, kept or not.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.marks.capacity() * size_of::<FrameEnd>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(end: u32, lines: u32) -> Mark {
        Mark {
            end,
            lines,
            told: 0,
            events: 0,
        }
    }

    #[test]
    fn the_bound_moves_the_floor_to_a_frame_boundary() {
        let mut log = Log::default();
        for i in 0..100u8 {
            log.append(&[i; 10], &[mark(5, 1), mark(10, 1)], 1 << 20);
        }
        log.trim(23);
        assert_eq!(log.kept_bytes(), 20);
        assert_eq!(log.floor(), 980);
        assert_eq!(log.lines().wrapping_sub(log.floor_lines()), 4);
        assert_eq!(log.since(990), &[99; 10]);
    }

    #[test]
    fn a_burst_is_kept_until_the_walk_is_round() {
        let mut log = Log::default();
        for _ in 0..4 {
            log.append(&[7; 100], &[mark(100, 1)], 100);
        }
        assert_eq!(log.kept_bytes(), 400);
        log.append(&[7; 100], &[mark(100, 1)], 100);
        assert_eq!(log.kept_bytes(), 400);
        assert_eq!(log.floor(), 100);
        log.trim(100);
        assert_eq!(log.kept_bytes(), 100);
    }

    #[test]
    fn one_frame_over_the_bound_still_fits() {
        let mut log = Log::default();
        log.append(&[1; 5000], &[mark(5000, 1)], 100);
        assert_eq!(log.kept_bytes(), 5000);
    }

    #[test]
    fn a_stopped_send_finds_its_frame() {
        let mut log = Log::default();
        log.append(&[0; 30], &[mark(10, 1), mark(20, 2), mark(30, 0)], 1 << 20);
        assert_eq!(log.frame_end_at(1).end, 10);
        assert_eq!(log.frame_end_at(10).end, 10);
        assert_eq!(
            log.frame_end_at(11),
            FrameEnd {
                end: 20,
                lines: 3,
                told: 0
            }
        );
        assert_eq!(log.frames_after(10).count(), 2);
    }

    #[test]
    fn memory_is_given_back() {
        let mut log = Log::default();
        for _ in 0..1000 {
            log.append(&[1; 1000], &[mark(1000, 1)], 10_000);
            log.trim(10_000);
        }
        assert!(log.held_bytes() < 200_000, "{}", log.held_bytes());
        log.forget();
        assert_eq!(log.held_bytes(), 0);
        assert_eq!(log.end(), 1_000_000);
        log.append(&[2; 10], &[mark(10, 1)], 10_000);
        assert_eq!(log.since(1_000_000), &[2; 10]);
    }
}
