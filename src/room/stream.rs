//! One room in one encoding on one hosting shard: its log, its members, and the walk round them.
//!
//! Owned by one shard thread. Fan-out is the walk: a member behind the end is handed everything from its cursor to the
//! end as it is at that moment. Nothing is queued, counted or copied per member. The stream never writes: it says what is
//! due to a member and is told how much of it went.

use super::ask::{Chunk, Encoding};
use super::log::Log;
use std::collections::VecDeque;

/// A member: 16 bytes, dense, so that a walk over members that are up to date touches nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The next byte of the log it needs; always at a frame boundary.
    cursor: u64,
    /// Its connection's slot.
    pub slot: u32,
    /// [`Log::lines`] at the cursor, so that what it missed is exact after the log let go of it.
    lines: u32,
}

const _: () = assert!(size_of::<Member>() == 16);

/// What is due to a member.
#[derive(Debug, PartialEq, Eq)]
pub enum Due<'a> {
    /// It is up to date.
    Nothing,
    /// Whole frames, to be sent as far as its socket takes them; then [`Stream::sent`].
    Frames(&'a [u8]),
    /// It fell off the log; [`Stream::catch_up`] tells how far.
    Fallen,
}

/// What became of a send.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent<'a> {
    /// Lines the cursor went past.
    pub lines: u32,
    /// Lines it was told of as not sent.
    pub told: u32,
    /// Frames it went past.
    pub frames: u32,
    /// The rest of a frame the send stopped inside: it goes to the member's outbox, first out.
    pub remainder: &'a [u8],
}

/// What was due to a member before its own version of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Lines.
    pub lines: u32,
    /// Lines it was told of as not sent.
    pub told: u32,
    /// Frames.
    pub frames: u32,
}

/// It fell off the log of events: some were lost to it for good.
#[derive(Debug, PartialEq, Eq)]
pub struct EventsLost;

/// One room in one encoding on one shard.
#[derive(Debug)]
pub struct Stream {
    /// How its frames are sealed.
    pub encoding: Encoding,
    log: Log,
    events: Events,
    members: Vec<Member>,
    walk_at: usize,
    /// Members still to be looked at in this round; 0 = the walk is round.
    remaining: usize,
    /// Members still to be looked at in this pass. A pass is once round; a round that is always begun anew has many.
    pass: usize,
    /// Monotonic ns at which the oldest line of this pass was numbered, or the pass before ended.
    begun_ns: u64,
    /// Monotonic ns since which the walk has been carrying the oldest line of this pass.
    since_ns: u64,
    /// When the pass that was completed last had begun, until it is asked for.
    passed_ns: Option<u64>,
    bytes_max: usize,
}

impl Stream {
    /// An empty stream whose log holds `bytes_max` bytes at rest.
    pub fn new(encoding: Encoding, bytes_max: usize) -> Stream {
        Stream {
            encoding,
            log: Log::default(),
            events: Events::default(),
            members: Vec::new(),
            walk_at: 0,
            remaining: 0,
            pass: 0,
            begun_ns: 0,
            since_ns: 0,
            passed_ns: None,
            bytes_max,
        }
    }

    /// Takes a sealed chunk and begins a round (or makes the running one whole again).
    ///
    /// `begun_ns` is when its oldest line was numbered, `now_ns` is now.
    pub fn append(&mut self, chunk: &Chunk, events: Option<&Chunk>, begun_ns: u64, now_ns: u64) {
        if self.remaining == 0 {
            self.begun_ns = begun_ns;
            self.since_ns = now_ns;
            self.pass = self.members.len();
        }
        let start = self.log.end();
        self.log.append(&chunk.bytes, &chunk.marks, self.bytes_max);
        if let Some(events) = events {
            self.events.append(events, chunk, start, self.bytes_max / 4);
        }
        self.remaining = self.members.len();
    }

    /// A new member, up to date: it gets what is appended from now on. Returns its position.
    pub fn join(&mut self, slot: u32) -> usize {
        self.members.push(Member {
            cursor: self.log.end(),
            slot,
            lines: self.log.lines(),
        });
        self.members.len() - 1
    }

    /// Removes the member at `at`. The last member takes its position: its slot is returned, unless it was the last
    /// itself. Also returns the crowd lines that were still due to the one who left.
    pub fn leave(&mut self, at: usize) -> (Option<u32>, u32) {
        let gone = self.members.swap_remove(at);
        if self.remaining > 0 {
            // The one who moved may not have been visited yet and may now stand behind the walk: go round once more.
            self.remaining = self.members.len();
        }
        let undelivered = self.log.lines().wrapping_sub(gone.lines);
        (self.members.get(at).map(|moved| moved.slot), undelivered)
    }

    /// Members here.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All members, in no order that lasts.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member at `at`.
    pub fn member(&self, at: usize) -> Option<&Member> {
        self.members.get(at)
    }

    /// Whether members remain to be visited.
    pub fn is_walking(&self) -> bool {
        self.remaining > 0
    }

    /// Whether the running round, if its oldest line is not older than `since_ns`, is still to visit the member at `at`.
    pub fn will_visit(&self, at: usize, since_ns: u64) -> bool {
        let behind = |member: &Member| member.cursor != self.log.end();
        self.remaining > 0
            && self.begun_ns >= since_ns
            && self.members.get(at).is_some_and(behind)
            && self.is_ahead(at)
    }

    /// Whether the walk has not come past that position in this round.
    fn is_ahead(&self, at: usize) -> bool {
        let members = self.members.len();
        let from = if self.walk_at >= members {
            0
        } else {
            self.walk_at
        };
        let ahead = (at + members - from) % members.max(1);
        ahead < self.remaining
    }

    /// The next member of this round that is behind; `None` when the round is done. Members that are up to date are
    /// passed over at a nanosecond each.
    pub fn next_behind(&mut self, now_ns: u64) -> Option<usize> {
        let end = self.log.end();
        while self.remaining > 0 {
            if self.walk_at >= self.members.len() {
                self.walk_at = 0;
            }
            let at = self.walk_at;
            self.walk_at += 1;
            self.remaining -= 1;
            self.count_pass(now_ns);
            if self.members.get(at)?.cursor != end {
                return Some(at);
            }
        }
        None
    }

    fn count_pass(&mut self, now_ns: u64) {
        self.pass = self.pass.saturating_sub(1);
        if self.pass == 0 {
            self.passed_ns = Some(self.begun_ns);
            self.begun_ns = now_ns;
            self.since_ns = now_ns;
            self.pass = self.members.len();
        }
    }

    /// When the pass that was just completed had begun, once (monotonic ns).
    pub fn take_passed(&mut self) -> Option<u64> {
        self.passed_ns.take()
    }

    /// For how long the oldest line has been carried round, while members are still to be visited.
    pub fn lag_ns(&self, now_ns: u64) -> u64 {
        match self.is_walking() {
            true => now_ns.saturating_sub(self.since_ns),
            false => 0,
        }
    }

    /// The round is done: nobody needs what all have; what somebody lacks goes back to its bound.
    pub fn settle(&mut self) {
        match self.all_have_all() {
            true => self.clear(Log::clear),
            false => self.log.trim(self.bytes_max),
        }
    }

    fn all_have_all(&self) -> bool {
        let end = self.log.end();
        self.members.iter().all(|member| member.cursor == end)
    }

    /// Empties the logs, which nobody needs.
    fn clear(&mut self, empty: fn(&mut Log)) {
        empty(&mut self.log);
        empty(&mut self.events.log);
        self.events.at = VecDeque::new();
        self.events.lost_at = self.log.end();
    }

    /// What is due to the member at `at`.
    pub fn due(&self, at: usize) -> Due<'_> {
        let Some(member) = self.members.get(at) else {
            return Due::Nothing;
        };
        if member.cursor == self.log.end() {
            Due::Nothing
        } else if member.cursor < self.log.floor() {
            Due::Fallen
        } else {
            Due::Frames(self.log.since(member.cursor))
        }
    }

    /// The member at `at` fell off: moves it to the oldest kept frame, appends the events it missed to `out` as whole
    /// frames, and returns the crowd lines it missed, exactly.
    pub fn catch_up(&mut self, at: usize, out: &mut Vec<u8>) -> Result<u32, EventsLost> {
        let (floor, floor_lines) = (self.log.floor(), self.log.floor_lines());
        let Some(member) = self.members.get_mut(at) else {
            return Ok(0);
        };
        self.events.missed(member.cursor, floor, out)?;
        let missed = floor_lines.wrapping_sub(member.lines);
        member.cursor = floor;
        member.lines = floor_lines;
        Ok(missed)
    }

    /// The member's socket took `sent` of the bytes that were due (at least one). Its cursor moves to the next boundary;
    /// the rest of a frame it stopped inside is returned.
    pub fn sent(&mut self, at: usize, sent: usize) -> Sent<'_> {
        let Some(member) = self.members.get_mut(at) else {
            return Sent {
                lines: 0,
                told: 0,
                frames: 0,
                remainder: &[],
            };
        };
        let reached = member.cursor + sent as u64;
        let from = self.log.frame_at(member.cursor);
        let end = self.log.end();
        let (cursor, lines_at) = if reached == end {
            (end, self.log.lines())
        } else {
            let frame = self.log.frame_end_at(reached);
            (frame.end, frame.lines)
        };
        let past = lines_at.wrapping_sub(member.lines);
        member.cursor = cursor;
        member.lines = lines_at;
        let to = self.log.frame_at(cursor);
        let told = self
            .log
            .told_before(to)
            .wrapping_sub(self.log.told_before(from));
        Sent {
            lines: past.wrapping_sub(told),
            told,
            frames: (to - from) as u32,
            remainder: self.log.slice(reached, cursor),
        }
    }

    /// The member at `at` is handed `own` in place of the chunk that is appended next: `out` gets everything due to it, and
    /// then that. `None` if it fell off the log, which then goes its usual way.
    pub fn hand_over(
        &mut self,
        at: usize,
        chunk: &Chunk,
        own: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Handed> {
        let (floor, end) = (self.log.floor(), self.log.end());
        let member = self.members.get_mut(at)?;
        if member.cursor < floor {
            return None;
        }
        out.extend_from_slice(self.log.since(member.cursor));
        out.extend_from_slice(own);
        let from = self.log.frame_at(member.cursor);
        let told = self
            .log
            .told_before(self.log.frames())
            .wrapping_sub(self.log.told_before(from));
        let past = self.log.lines().wrapping_sub(member.lines);
        let in_chunk = chunk.marks.iter().map(|mark| mark.lines + mark.told).sum();
        member.cursor = end + chunk.bytes.len() as u64;
        member.lines = self.log.lines().wrapping_add(in_chunk);
        Some(Handed {
            lines: past.wrapping_sub(told),
            told,
            frames: (self.log.frames() - from) as u32,
        })
    }

    /// A quiet stream gives its memory back, unless a slow member still needs it. Returns whether it holds nothing now.
    pub fn forget_if_round(&mut self) -> bool {
        if self.remaining == 0 && self.log.held_bytes() > 0 && self.all_have_all() {
            self.clear(Log::forget);
        }
        self.log.held_bytes() == 0
    }

    /// Applies a new bound, on reload.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Bytes of lines kept for members.
    pub fn kept_bytes(&self) -> usize {
        self.log.kept_bytes() + self.events.log.kept_bytes()
    }
}

/// The events of the room once more, each in a frame of its own, kept longer than the crowd.
#[derive(Debug, Default)]
struct Events {
    log: Log,
    /// For each kept event, where the frame that carried it ends in the crowd's log.
    at: VecDeque<u64>,
    /// The same of the newest event let go of.
    lost_at: u64,
}

impl Events {
    fn append(&mut self, events: &Chunk, crowd: &Chunk, crowd_start: u64, bytes_max: usize) {
        for mark in crowd.marks.iter() {
            for _ in 0..mark.events {
                self.at.push_back(crowd_start + u64::from(mark.end));
            }
        }
        self.log.append(&events.bytes, &events.marks, bytes_max);
        self.log.trim(bytes_max);
        while self.at.len() > self.log.frames() {
            self.lost_at = self.at.pop_front().unwrap_or(self.lost_at);
        }
    }

    /// Appends the events a member missed whose cursor was `from` and is set to `to`.
    fn missed(&self, from: u64, to: u64, out: &mut Vec<u8>) -> Result<(), EventsLost> {
        if self.lost_at > from {
            return Err(EventsLost);
        }
        let first = self.at.partition_point(|&at| at <= from);
        let past = self.at.partition_point(|&at| at <= to);
        let mut start = self.log.floor();
        for (index, frame) in self.log.frames_after(start).enumerate() {
            if (first..past).contains(&index) {
                out.extend_from_slice(self.log.slice(start, frame.end));
            }
            start = frame.end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::ask::Mark;
    use super::*;

    /// Items are numbered; an event has an odd letter. One frame per item: 4 bytes of number, 1 of kind, padding.
    fn chunk(first: u32, kinds: &[bool]) -> (Chunk, Option<Chunk>) {
        let (mut all, mut marks) = (Vec::new(), Vec::new());
        let (mut only, mut only_marks) = (Vec::new(), Vec::new());
        for (i, &event) in kinds.iter().enumerate() {
            let number = first + i as u32;
            let frame: Vec<u8> = [&number.to_be_bytes()[..], &[u8::from(event); 6][..]].concat();
            all.extend_from_slice(&frame);
            marks.push(Mark {
                end: all.len() as u32,
                lines: u32::from(!event),
                told: 0,
                events: u32::from(event),
            });
            if event {
                only.extend_from_slice(&frame);
                only_marks.push(Mark {
                    end: only.len() as u32,
                    lines: 0,
                    told: 0,
                    events: 1,
                });
            }
        }
        let seal = |bytes: Vec<u8>, marks: Vec<Mark>| Chunk {
            bytes: bytes.into(),
            marks: marks.into(),
        };
        let events = (!only.is_empty()).then(|| seal(only, only_marks));
        (seal(all, marks), events)
    }

    const FRAME: usize = 10;

    /// A viewer in a test: what its socket took, what it was told it missed.
    #[derive(Default)]
    struct Viewer {
        took: Vec<u8>,
        outbox: Vec<u8>,
        told: u32,
        joined_after: u32,
        delivered: u32,
    }

    /// Visits one member with a socket that takes `room` bytes. `false` = it lost events.
    fn visit(stream: &mut Stream, at: usize, viewer: &mut Viewer, mut room: usize) -> bool {
        let flushed = viewer.outbox.len().min(room);
        viewer.took.extend(viewer.outbox.drain(..flushed));
        room -= flushed;
        if !viewer.outbox.is_empty() {
            return true;
        }
        if stream.due(at) == Due::Fallen {
            match stream.catch_up(at, &mut viewer.outbox) {
                Ok(missed) => viewer.told += missed,
                Err(EventsLost) => return false,
            }
            return visit(stream, at, viewer, room);
        }
        let Due::Frames(bytes) = stream.due(at) else {
            return true;
        };
        let taken = bytes.len().min(room);
        if taken > 0 {
            viewer.took.extend_from_slice(&bytes[..taken]);
            let sent = stream.sent(at, taken);
            viewer.delivered += sent.lines;
            viewer.outbox.extend_from_slice(sent.remainder);
        }
        true
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(Vec<bool>),
        Join,
        Leave(usize),
        Walk { visits: usize, room: Vec<usize> },
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop::collection::vec(prop::bool::weighted(0.1), 1..8).prop_map(Step::Append),
            2 => Just(Step::Join),
            1 => any::<usize>().prop_map(Step::Leave),
            6 => (1usize..6, prop::collection::vec(0usize..60, 1..4))
                .prop_map(|(visits, room)| Step::Walk { visits, room }),
            1 => Just(Step::Forget),
        ]
    }

    proptest! {
        /// Whatever joins, leaves, stops and falls off: each member gets every event once, every line once or counted
        /// as missed, in order, from the moment it joined.
        #[test]
        fn every_line_once_or_told(steps in prop::collection::vec(step(), 1..120)) {
            let mut stream = Stream::new(Encoding::Plain, 8 * FRAME);
            let mut viewers: HashMap<u32, Viewer> = HashMap::new();
            let (mut next_item, mut next_slot) = (1u32, 0u32);
            let mut kinds: Vec<bool> = vec![false];
            for step in steps {
                match step {
                    Step::Append(new) => {
                        let (all, events) = chunk(next_item, &new);
                        next_item += new.len() as u32;
                        kinds.extend(&new);
                        stream.append(&all, events.as_ref(), 0, 0);
                    }
                    Step::Join => {
                        stream.join(next_slot);
                        viewers.insert(next_slot, Viewer { joined_after: next_item - 1, ..Viewer::default() });
                        next_slot += 1;
                    }
                    Step::Leave(which) if !stream.is_empty() => {
                        let at = which % stream.len();
                        viewers.remove(&stream.member(at).unwrap().slot);
                        stream.leave(at);
                    }
                    Step::Leave(_) => {}
                    Step::Walk { visits, room } => {
                        for i in 0..visits {
                            let Some(at) = stream.next_behind(0) else {
                                stream.settle();
                                break;
                            };
                            let slot = stream.member(at).unwrap().slot;
                            let viewer = viewers.get_mut(&slot).unwrap();
                            if !visit(&mut stream, at, viewer, room[i % room.len()]) {
                                viewers.remove(&slot);
                                stream.leave(at);
                            }
                        }
                    }
                    Step::Forget => { stream.forget_if_round(); }
                }
            }
            // In the end everyone's socket is open again.
            let mut at = 0;
            while at < stream.len() {
                let slot = stream.member(at).unwrap().slot;
                let viewer = viewers.get_mut(&slot).unwrap();
                if visit(&mut stream, at, viewer, usize::MAX) {
                    at += 1;
                } else {
                    viewers.remove(&slot);
                    stream.leave(at);
                }
            }
            for viewer in viewers.values() {
                prop_assert!(viewer.outbox.is_empty());
                prop_assert_eq!(viewer.took.len() % FRAME, 0);
                let items: Vec<u32> = viewer.took.chunks(FRAME)
                    .map(|f| u32::from_be_bytes(f[..4].try_into().unwrap())).collect();
                prop_assert!(items.windows(2).all(|w| w[0] < w[1]), "order: {:?}", items);
                let due = (viewer.joined_after + 1)..next_item;
                let lines = due.clone().filter(|&i| !kinds[i as usize]).count() as u32;
                let events: Vec<u32> = due.filter(|&i| kinds[i as usize]).collect();
                let got_events: Vec<u32> = items.iter().copied().filter(|&i| kinds[i as usize]).collect();
                prop_assert_eq!(got_events, events);
                let got_lines = items.len() as u32 - items.iter().filter(|&&i| kinds[i as usize]).count() as u32;
                prop_assert_eq!(got_lines + viewer.told, lines);
                prop_assert_eq!(viewer.delivered, got_lines);
            }
        }
    }

    #[test]
    fn a_member_that_moved_behind_the_walk_is_still_visited() {
        let mut stream = Stream::new(Encoding::Plain, 1 << 16);
        for slot in 0..4 {
            stream.join(slot);
        }
        stream.append(&chunk(1, &[false]).0, None, 0, 0);
        assert_eq!(stream.next_behind(0), Some(0));
        stream.sent(0, FRAME);
        let (moved, undelivered) = stream.leave(0);
        assert_eq!((moved, undelivered), (Some(3), 0));
        let mut visited = Vec::new();
        while let Some(at) = stream.next_behind(0) {
            visited.push(stream.member(at).unwrap().slot);
            stream.sent(at, FRAME);
        }
        visited.sort_unstable();
        assert_eq!(visited, [1, 2, 3]);
    }

    #[test]
    fn falling_off_the_events_is_final() {
        let mut stream = Stream::new(Encoding::Plain, 4 * FRAME);
        stream.join(1);
        for i in 0..40 {
            let (all, events) = chunk(1 + i, &[true]);
            stream.append(&all, events.as_ref(), 0, 0);
        }
        stream.settle();
        assert_eq!(stream.due(0), Due::Fallen);
        assert_eq!(stream.catch_up(0, &mut Vec::new()), Err(EventsLost));
    }
}
