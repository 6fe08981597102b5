//! A room that several nodes share: its lines are numbered by the cluster, and every node takes them in that order. What is
//! judged, gathered, sealed and sent stays what it is in a room of one node.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Home, Kind, batched_as};
use crate::base::clock::Now;
use crate::base::identity::Access;
use crate::base::ids::Epoch;
use crate::base::refusal::Refusal;
use crate::config::checked::Limits;
use crate::proto::danmaku::http::parse_room_patch;
use crate::proto::danmaku::server;
use crate::proto::node::{self, Lines, Totals};
use crate::room::ask::{Once, Patch, Publish, Published, Speaker};
use crate::room::history::{History, Kept};
use crate::room::presence::Moves;

/// The body of a `PUT`.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tick_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_per_s_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

impl Home {
    /// Judges what the cluster is to number; `Some` if it has been numbered before, by its idempotency key.
    ///
    /// # Errors
    /// `login_required`, `room_forbidden`, `rate_limited`, `idempotency_mismatch`.
    pub fn judge_shared(
        &mut self,
        publish: &Publish,
        limits: &Limits,
        now: Now,
    ) -> Result<Option<Published>, Refusal> {
        self.active_ms = now.mono_ms();
        let judged = self.judge(publish, limits, now);
        if let Ok(None) = judged {
            self.note_said(publish, now);
        }
        judged
    }

    /// It has its number, for its idempotency key.
    pub fn was_numbered(&mut self, once: Option<Once>, published: Published, now: Now) {
        self.keep_once(once, published, now);
    }

    /// Lines of the cluster that follow on the newest one here. `speakers`, if any, are those of this node's own batch.
    pub fn take(&mut self, lines: &Lines, speakers: &[Option<Speaker>], now: Now) {
        for (index, (kind, rest)) in lines.items().enumerate() {
            if lines.first + index as u64 <= self.seq {
                continue;
            }
            let speaker = speakers.get(index).copied().flatten();
            self.take_one(kind, &rest, speaker, now);
        }
    }

    /// One line or event from behind its number on gets the next one here.
    pub fn take_one(
        &mut self,
        kind: node::Kind,
        rest: &Bytes,
        speaker: Option<Speaker>,
        now: Now,
    ) -> Published {
        self.seq += 1;
        let (room, seq) = (&self.id, self.seq);
        let (kind, numbered) = batched_as(kind);
        self.batch.put_by(speaker, kind, now.mono_ns, |out| {
            server::numbered(out, numbered, room, seq);
            out.extend_from_slice(rest);
        });
        self.gather_above_budget(now);
        self.active_ms = now.mono_ms();
        Published {
            epoch: self.epoch,
            seq,
        }
    }

    /// Numbers up to `seq` have passed without their lines: `told` of them are missing, and the members are told so. The batch that
    /// is open must have been sealed.
    pub fn pass(&mut self, seq: u64, told: u64, now: Now) {
        self.seq = self.seq.max(seq);
        self.sealed_seq = self.seq;
        self.history = History::default();
        if told > 0 && self.here() > 0 {
            let (room, upto) = (&self.id, self.seq);
            let lines = u32::try_from(told).unwrap_or(u32::MAX);
            self.batch.put(Kind::Told(lines), now.mono_ns, |out| {
                server::left_out(out, room, told, upto);
            });
        }
    }

    /// Another numbering from here on, and the members are told. The batch that is open must have been sealed.
    pub fn renumber(&mut self, epoch: Epoch, seq: u64, now: Now) {
        (self.epoch, self.seq, self.sealed_seq) = (epoch, seq, seq);
        self.history = History::default();
        if self.here() > 0 {
            let room = &self.id;
            self.batch.put(Kind::News, now.mono_ns, |out| {
                server::epoch(out, room, epoch, seq);
            });
        }
    }

    /// Lines said before anybody was here, for who resumes or asks what was said: in order, the last of them the newest there
    /// is.
    pub fn remember<'a>(&mut self, batches: impl Iterator<Item = &'a Lines>) {
        let keep = self.settings.keep();
        for lines in batches {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for (seq, (kind, rest)) in (lines.first..).zip(lines.items()) {
                let (_, numbered) = batched_as(kind);
                server::numbered(&mut bytes, numbered, &self.id, seq);
                bytes.extend_from_slice(&rest);
                ends.push(bytes.len() as u32);
            }
            let kept = Kept {
                bytes: bytes.into(),
                ends,
            };
            self.history.extend(lines.last(), kept, keep);
        }
    }

    /// How many lines the cluster's log is to keep for this room.
    pub fn history_lines(&self) -> usize {
        self.settings.class.history_lines
    }

    /// What the owner has said of the room, as the body of a `PUT` that says all of it.
    pub fn settings(&self) -> Vec<u8> {
        let settings = &self.settings;
        let said = Said {
            title: Some(&*settings.title).filter(|title| !title.is_empty()),
            access: settings.access.map(Access::as_str),
            tick_ms: settings.tick_ms,
            deliver_per_s_max: settings.deliver_per_s_max,
            data: settings.data.as_deref(),
        };
        // Words, numbers and JSON that has been read before: it cannot fail.
        serde_json::to_vec(&said).unwrap_or_default()
    }

    /// What was said of the room could not be told to the cluster.
    pub fn set_untold(&mut self) {
        self.settings.untold = true;
    }

    /// What is still to be told to it.
    pub fn take_untold(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.settings.untold).then(|| self.settings())
    }

    /// What was said of the room on another node.
    ///
    /// # Errors
    /// It is no such body.
    pub fn take_settings(&mut self, json: &[u8]) -> Result<(), Refusal> {
        let body = parse_room_patch(json)?;
        let configured = self.settings.configured;
        self.put(Patch {
            title: body.title,
            access: body.access,
            tick_ms: body.tick_ms,
            deliver_per_s_max: body.deliver_per_s_max,
            data: body.data,
        });
        // They stand in Redis: this node need not keep a room for them.
        self.settings.configured = configured;
        Ok(())
    }

    /// From now on remembers who comes and goes, beginning with everybody here.
    pub fn watch(&mut self) {
        self.presence.watch();
    }

    /// Remembers no more.
    pub fn unwatch(&mut self) {
        self.presence.unwatch();
    }

    /// Who came and went since this was last asked.
    pub fn moves(&mut self, max: usize) -> Moves {
        self.presence.moves(max)
    }

    /// What all nodes have counted together.
    pub fn set_totals(&mut self, totals: Totals) {
        self.totals = Some(totals);
    }

    /// Connections on the other nodes.
    pub fn set_elsewhere(&mut self, connections: u32, now: Now) {
        if connections != self.elsewhere {
            self.online_moves(now);
            self.elsewhere = connections;
        }
    }
}
