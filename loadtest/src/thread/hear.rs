//! What a client hears, and what it means to its tally. Part of a client thread's turn; the path of every delivery.

use super::recall::Recall;
use super::{Phase, Stage, Thread, bump};
use crate::books::{Accepted, Gaps, Membership, Seen, Tally, fingerprint};
use crate::client::frames::Hear;
use crate::dialect::{Dialect, Heard, Line, Room};
use crate::meter::{Meter, Sample};
use crate::stamp::Stamper;

/// A client's side of one read: lines and what decides about lines act at once, all else is set aside for after the read.
struct Ear<'a> {
    dialect: &'a Dialect,
    stamper: &'a Stamper,
    room: &'a Room,
    meter: &'a Meter,
    sample: &'a mut Sample,
    seat: Seat<'a>,
    now_us: u64,
    /// Whether its latencies count: not those of a viewer that chose not to read, or that comes and goes in a storm.
    timed: bool,
    /// The node it is on.
    node: u16,
    /// Whether it looks out for its own lines: where an ack leaves open which numbering it is of.
    looks_out: bool,
    /// Lines counted in this read.
    lines: u64,
    /// Of those, events.
    events: u64,
    /// Lines that came by resuming.
    recovered: u64,
    recall: &'a mut Recall,
    recall_bytes_max: usize,
    /// Where in it the next frame is looked for.
    place: &'a mut u64,
    /// The line of the frame being read, and its fingerprint.
    read: Option<(Line, u64)>,
    /// Messages in it.
    messages: usize,
    later: &'a mut Vec<Later>,
}

/// A client's membership, as far as lines change it.
struct Seat<'a> {
    at: u32,
    number: u32,
    room: u32,
    member: bool,
    /// Whether a pong is waited for.
    unproven: bool,
    /// Whether an answer to a join is due.
    joining: bool,
    /// Whether an answer to a leave is due.
    leaving: bool,
    /// Lines a resume reaches back, as far as is known.
    history_lines: u64,
    /// Whether the run's first line is not due yet.
    before_lines: bool,
    /// Whether the membership began then.
    early: bool,
    tally: &'a mut Tally,
    gaps: &'a mut Gaps,
    ended: &'a mut Vec<Membership>,
}

/// What is acted upon after the read.
enum Later {
    Heard(Heard),
    /// In its room, for the first time or again.
    Seated,
    /// What a server that keeps the protocol does not do.
    Fault(&'static str),
    Closed(u16),
    /// The room's numbering began anew.
    Renumbered(u64),
    /// A line of its own node, perhaps its own.
    Own {
        line: u64,
        epoch: u64,
        seq: u64,
    },
    /// A line was accepted, in the numbering of that moment.
    Accepted {
        line: u64,
        epoch: u64,
        seq: u64,
    },
}

impl Hear for Ear<'_> {
    fn message(&mut self, payload: &[u8]) {
        // `danmaku.v1.batch` puts several messages into a frame, a line each; JSON has no raw newline inside.
        let mut rest = payload;
        while self.dialect.is_gateway()
            && let Some(end) = memchr::memchr(b'\n', rest)
        {
            self.one(&rest[..end]);
            rest = &rest[end + 1..];
        }
        self.one(rest);
    }

    fn frame(&mut self, frame: &[u8], head: usize) {
        (self.read, self.messages) = (None, 0);
        self.message(&frame[head..]);
        if let (Some((line, fingerprint)), 1) = (self.read, self.messages) {
            let epoch = self.seat.tally.epoch;
            let bytes_max = self.recall_bytes_max;
            *self.place = self
                .recall
                .learn(frame, line, fingerprint, epoch, bytes_max);
        }
    }

    fn known(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while self.seat.member
            && let Some((length, line, fingerprint)) =
                self.recall
                    .at(*self.place, self.seat.tally.epoch, &bytes[at..])
        {
            self.count(line, fingerprint);
            *self.place += 1;
            at += length;
        }
        at
    }

    fn close(&mut self, code: u16) {
        self.later.push(Later::Closed(code));
    }
}

impl Ear<'_> {
    fn one(&mut self, message: &[u8]) {
        if message.is_empty() {
            return;
        }
        self.messages += 1;
        match self.dialect.hear(message, self.room, self.stamper) {
            Heard::Line(line) => self.line(line),
            Heard::Other => {}
            Heard::Pong if !self.seat.unproven => {}
            Heard::Joined {
                epoch,
                seq,
                recovered,
                messages,
            } => {
                self.joined(epoch, seq, recovered, &messages);
                self.later.push(Later::Seated);
            }
            Heard::Epoch { epoch, seq } if self.seat.member => {
                self.seat.leave(true);
                self.seat.enter(epoch, seq);
                self.recall.renumber(epoch);
                self.later.push(Later::Renumbered(epoch));
            }
            Heard::Dropped { count, upto } => self.seat.told(count, upto),
            Heard::Ack { line, seq } => {
                let epoch = self.seat.tally.epoch;
                self.later.push(Later::Accepted { line, epoch, seq });
            }
            Heard::Left => {
                if !std::mem::take(&mut self.seat.leaving) {
                    self.fault("put out of its room without having asked");
                }
                self.seat.leave(false);
                self.later.push(Later::Heard(Heard::Left));
            }
            heard => self.later.push(Later::Heard(heard)),
        }
    }

    /// In its room: for the first time, or again after a cut.
    fn joined(&mut self, epoch: u64, seq: u64, recovered: bool, missed: &[Line]) {
        let seat = &mut self.seat;
        let asked = std::mem::take(&mut seat.joining);
        let same = seat.member && epoch == seat.tally.epoch;
        if recovered && same {
            self.recovered += missed.len() as u64;
            for line in missed {
                let fingerprint = fingerprint(line.seq, line.stamp.map(|stamp| stamp.line));
                seat.line(line.seq, fingerprint, self.meter);
            }
        } else {
            let within = seq.saturating_sub(seat.tally.last) <= seat.history_lines;
            seat.leave(false);
            seat.enter(epoch, seq);
            self.recall.renumber(epoch);
            if recovered {
                self.fault("recovered what it had never seen");
            } else if same && within {
                self.fault("not recovered, within the history");
            }
        }
        if !asked {
            self.fault("joined without having asked");
        }
    }

    fn fault(&mut self, what: &'static str) {
        self.later.push(Later::Fault(what));
    }

    fn line(&mut self, line: Line) {
        if !self.seat.member {
            // Of another server nobody knows when one is in a room: who came late is not counted.
            if self.dialect.is_gateway() {
                self.fault("a line for a client that is in no room");
            }
            return;
        }
        let fingerprint = fingerprint(line.seq, line.stamp.map(|stamp| stamp.line));
        self.read = Some((line, fingerprint));
        self.count(line, fingerprint);
    }

    /// A line for a member.
    fn count(&mut self, line: Line, fingerprint: u64) {
        self.lines += 1;
        self.events += u64::from(line.event);
        self.seat.line(line.seq, fingerprint, self.meter);
        if let Some(stamp) = line.stamp
            && self.looks_out
            && stamp.node == self.node
        {
            self.later.push(Later::Own {
                line: stamp.line,
                epoch: self.seat.tally.epoch,
                seq: line.seq,
            });
        }
        if let Some(stamp) = line.stamp
            && self.timed
        {
            let took_us = self.now_us.saturating_sub(stamp.due_us).max(1);
            self.sample.deliveries.saturating_record(took_us);
            if stamp.node != self.node {
                self.sample.across.saturating_record(took_us);
            }
        }
    }
}

impl Seat<'_> {
    fn line(&mut self, seq: u64, fingerprint: u64, meter: &Meter) {
        match self.tally.line(seq, fingerprint, self.at, self.gaps) {
            Seen::Next => {}
            Seen::Gap | Seen::Late | Seen::Again => meter.faults.add(1),
        }
    }

    fn told(&mut self, count: u64, upto: Option<u64>) {
        self.tally.told = self.tally.told.saturating_add(count);
        if let Some(upto) = upto.filter(|_| self.member) {
            self.tally.skip(upto, self.at, self.gaps);
        }
    }

    fn enter(&mut self, epoch: u64, seq: u64) {
        *self.tally = Tally::joined(epoch, seq);
        self.member = true;
        self.early = self.before_lines;
    }

    /// Writes the membership down, as of now; `renumbered` if the viewer stays, in another numbering.
    fn leave(&mut self, renumbered: bool) {
        if std::mem::take(&mut self.member) {
            self.ended.push(Membership {
                viewer: self.number,
                room: self.room,
                tally: *self.tally,
                missing: self.gaps.remove(&self.at).unwrap_or_default(),
                cut_short: false,
                to_the_end: false,
                early: self.early,
                renumbered,
            });
        }
    }
}

impl Thread {
    /// Bytes lie in `scratch[..length]`.
    pub(super) fn take(&mut self, at: u32, length: usize) {
        let mut from = 0;
        if self.clients[at as usize].stage != Stage::Open {
            match self.answered(at, length) {
                Some(head_bytes) => from = head_bytes,
                None => return,
            }
        }
        self.hear(at, from, length);
    }

    fn hear(&mut self, at: u32, from: usize, to: usize) {
        let now_us = self.clock.now_us();
        let mut later = Vec::new();
        let client = &mut self.clients[at as usize];
        let viewer = self.plan.viewers[client.number as usize];
        let node = self.plan.node(client.number);
        let recall = client.room as usize * self.plan.targets.len() + usize::from(node);
        let mut ear = Ear {
            dialect: &self.plan.dialect,
            stamper: &self.plan.stamper,
            room: &self.plan.rooms[client.room as usize],
            meter: &self.meter,
            sample: &mut self.sample,
            seat: Seat {
                at,
                number: client.number,
                room: client.room,
                member: client.member,
                unproven: client.unproven,
                joining: client.joining,
                leaving: client.leaving,
                history_lines: self.plan.history_lines,
                before_lines: self.phase == Phase::Ramp,
                early: client.early,
                tally: &mut client.tally,
                gaps: &mut self.gaps,
                ended: &mut self.notes.memberships,
            },
            now_us,
            timed: viewer.reads && !viewer.cut,
            node,
            looks_out: client.speaking && self.plan.targets.len() > 1,
            lines: 0,
            events: 0,
            recovered: 0,
            recall: &mut self.recalls[recall],
            recall_bytes_max: self.recall_bytes_max,
            place: &mut client.place,
            read: None,
            messages: 0,
            later: &mut later,
        };
        let quiet = client.out.is_empty();
        let bytes = &self.scratch[from..to];
        let taken = client.decoder.take(bytes, &mut client.out, &mut ear);
        self.meter.deliveries.add(ear.lines);
        self.notes.events += ear.events;
        self.notes.recovered += ear.recovered;
        client.member = ear.seat.member;
        client.early = ear.seat.early;
        client.joining = ear.seat.joining;
        client.leaving = ear.seat.leaving;
        if quiet && !client.out.is_empty() {
            self.dirty.push(at);
        }
        for later in later {
            self.act(at, later, now_us);
        }
        if let Err(fault) = taken {
            self.fault(&fault.0);
            self.lost(at, "1002");
        }
    }

    fn act(&mut self, at: u32, later: Later, now_us: u64) {
        match later {
            Later::Seated => self.seated(at),
            Later::Fault(what) => self.fault(what),
            Later::Renumbered(epoch) => {
                let client = &self.clients[at as usize];
                let node = self.plan.node(client.number);
                self.notes.told.heard(client.room, node, epoch, now_us);
            }
            Later::Closed(code) => {
                self.write_out(at);
                self.lost(at, &code.to_string());
            }
            Later::Accepted { line, epoch, seq } => self.acked(line, epoch, seq),
            Later::Own { line, epoch, seq } => self.own_line(at, line, epoch, seq),
            Later::Heard(heard) => self.heard(at, heard, now_us),
        }
    }

    fn heard(&mut self, at: u32, heard: Heard, now_us: u64) {
        match heard {
            Heard::Welcome => self.welcomed(at, now_us),
            Heard::Left => self.left(at),
            Heard::Error { line, code } => self.line_refused(line, &code),
            Heard::ComeBack(ms) => self.clients[at as usize].notice_ms = Some(ms),
            Heard::Pong => self.proven(at, true),
            Heard::Unknown(what) => self.fault(&what),
            Heard::Epoch { .. } => self.fault("a new numbering for a client that is in no room"),
            Heard::Line(_)
            | Heard::Ack { .. }
            | Heard::Joined { .. }
            | Heard::Dropped { .. }
            | Heard::Other => {}
        }
    }

    fn welcomed(&mut self, at: u32, now_us: u64) {
        self.count_connect(at, now_us);
        let client = &mut self.clients[at as usize];
        if std::mem::take(&mut client.resumes) {
            let room = &self.plan.rooms[client.room as usize];
            let resume = Dialect::resume(room, client.tally.epoch, client.tally.last);
            client.joining = true;
            self.say(at, resume);
        }
    }

    /// Out of its room: by its own wish it goes to another one; otherwise it stays away from rooms.
    fn left(&mut self, at: u32) {
        self.hush(at);
        let number = self.clients[at as usize].number;
        if self.plan.viewers[number as usize].moves && self.phase == Phase::Run {
            self.move_room(at);
            let client = &mut self.clients[at as usize];
            client.joining = true;
            let room = client.room as usize;
            let enter = Dialect::enter(&self.plan.rooms[room]);
            self.say(at, enter);
        }
    }

    pub(super) fn acked(&mut self, line: u64, epoch: u64, seq: u64) {
        let Some(sent) = self.sent.remove(&line) else {
            return self.fault("an ack for nothing");
        };
        self.meter.pending.sub(1);
        let accepted = Accepted {
            room: sent.room,
            epoch,
            seq,
            line,
            node: self.plan.node(self.clients[sent.client as usize].number),
        };
        if self.plan.targets.len() < 2 {
            return self.write_accepted(accepted);
        }
        self.meter.accepted.add(1);
        // An ack says a number and not of which numbering, and goes a way of its own: that is learnt from the line itself.
        match self.own_heard.remove(&line) {
            Some(heard) => self.place(accepted, heard),
            None => drop(self.unplaced.insert(line, (sent.client, accepted))),
        }
    }

    /// A line of the client's node has come: if it is its own, its numbering is now known.
    fn own_line(&mut self, at: u32, line: u64, epoch: u64, seq: u64) {
        let is_own = |client: u32| client == at;
        if self.sent.get(&line).is_some_and(|sent| is_own(sent.client)) {
            self.own_heard.insert(line, (epoch, seq));
        } else if let Some((client, accepted)) = self.unplaced.get(&line).copied()
            && is_own(client)
        {
            self.unplaced.remove(&line);
            self.place(accepted, (epoch, seq));
        }
    }

    /// A line that was acked and heard by its author.
    fn place(&mut self, accepted: Accepted, (epoch, seq): (u64, u64)) {
        if accepted.seq != seq {
            self.fault("acked under one number and delivered to its author under another");
        }
        self.notes.accepted.push(Accepted { epoch, ..accepted });
    }

    /// Lines whose authors never heard them stand in the numbering in which they were acked.
    pub(super) fn place_rest(&mut self) {
        let rest = std::mem::take(&mut self.unplaced).into_values();
        self.notes
            .accepted
            .extend(rest.map(|(_, accepted)| accepted));
    }

    pub(super) fn write_accepted(&mut self, accepted: Accepted) {
        self.meter.accepted.add(1);
        self.notes.accepted.push(accepted);
    }

    pub(super) fn line_refused(&mut self, line: Option<u64>, code: &str) {
        match line.and_then(|line| self.sent.remove(&line)) {
            Some(_) => {
                self.meter.pending.sub(1);
                bump(&mut self.notes.lines_refused, code);
            }
            None => self.fault(&format!("refused: {code}")),
        }
    }
}
