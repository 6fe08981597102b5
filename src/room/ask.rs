//! What is asked of a room's home, and what it answers. Plain values: they cross shards in mailboxes.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::base::identity::{Access, Identity, User};
use crate::base::ids::{ConnId, Epoch, Life, RoomId, ShardId, UserId};
use crate::proto::danmaku::Style;

/// How a viewer's lines are sealed. A value, never an `if` in the walk: a new tongue is a new row here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `danmaku.v1`: one JSON object per text frame.
    Plain,
    /// `danmaku.v1.batch`: one or more objects per text frame, newline-separated.
    Batch,
    /// [`Encoding::Plain`] to viewers that agreed upon permessage-deflate: what pays is compressed.
    PlainDeflated,
    /// [`Encoding::Batch`] likewise.
    BatchDeflated,
}

impl Encoding {
    /// How many there are, for tables by encoding.
    pub const COUNT: usize = 4;
    /// All of them, in table order.
    pub const ALL: [Encoding; Encoding::COUNT] = [
        Encoding::Plain,
        Encoding::Batch,
        Encoding::PlainDeflated,
        Encoding::BatchDeflated,
    ];

    /// Its row in such a table.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether objects share frames.
    pub fn gathers(self) -> bool {
        matches!(self, Encoding::Batch | Encoding::BatchDeflated)
    }

    /// Whether frames may be compressed, in both directions.
    pub fn deflates(self) -> bool {
        matches!(self, Encoding::PlainDeflated | Encoding::BatchDeflated)
    }
}

/// Where a member sits: the shard that holds its connection, and how it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Hosting shard.
    pub shard: ShardId,
    /// Its encoding.
    pub encoding: Encoding,
}

/// A viewer wants in.
#[derive(Clone, Debug)]
pub struct Join {
    /// Who; `None` is anonymous.
    pub who: Option<Arc<Identity>>,
    /// Where its connection is.
    pub seat: Seat,
    /// The last line it saw, if it comes back.
    pub resume: Option<(Epoch, u64)>,
}

/// It is in. Lines numbered above `seq` reach its shard after this answer.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Which life of the room it has joined.
    pub life: Life,
    /// The numbering.
    pub epoch: Epoch,
    /// The newest number; 0 before the first line.
    pub seq: u64,
    /// Connections in the room, this one included.
    pub online: u32,
    /// Whether everything after the resume point is in `messages`.
    pub recovered: bool,
    /// With a good resume point: the JSON objects after it, oldest first.
    pub messages: Option<Vec<Bytes>>,
}

/// A member went, or its connection did.
#[derive(Clone, Debug)]
pub struct Leave {
    /// Who; `None` is anonymous.
    pub who: Option<UserId>,
    /// The life it had joined: a room that was closed and began anew does not know it.
    pub life: Life,
    /// Where it was.
    pub seat: Seat,
}

/// Who is named as the author of a line or event.
#[derive(Clone, Debug, PartialEq)]
pub enum Author {
    /// Nobody: `"user":null`.
    Anonymous,
    /// A user.
    User(User),
}

/// What is to be numbered and sent.
#[derive(Clone, Debug)]
pub enum Content {
    /// A line of text, already trimmed and cleaned (`proto::danmaku::clean_text`).
    Line {
        /// 1..=`limits.text_bytes_max` bytes.
        text: Arc<str>,
        /// Looks, already checked.
        style: Option<Style>,
        /// A publisher's own JSON, sent along as it came.
        data: Option<Box<RawValue>>,
    },
    /// A gift, a notice: never dropped.
    Event {
        /// 1..=64 bytes of `[A-Za-z0-9_.:-]`.
        event: Box<str>,
        /// A publisher's own JSON.
        data: Option<Box<RawValue>>,
    },
}

/// The connection a line came by: it is sent its own line whatever becomes of the crowd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Its shard and encoding.
    pub seat: Seat,
    /// Itself, on that shard.
    pub conn: ConnId,
}

/// A line or event on its way to the home.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Named author.
    pub author: Author,
    /// The sender's identity, for room admission; `None` for anonymous and API keys.
    pub who: Option<Arc<Identity>>,
    /// Exempt from flood control and room admission: API keys and role admin.
    pub exempt: bool,
    /// What.
    pub content: Content,
    /// The viewer that said it; `None` for HTTP.
    pub speaker: Option<Speaker>,
    /// `Idempotency-Key`, if sent.
    pub once: Option<Once>,
}

/// An `Idempotency-Key` and what it was first used for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Once {
    /// Whose key it is (API key name or user id) and the key: 1..=128 bytes of client choice.
    pub key: Box<str>,
    /// Fingerprint of the request; the same key with another one is refused.
    pub fingerprint: u64,
}

/// Numbered by the home shard, and on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The numbering.
    pub epoch: Epoch,
    /// Its number.
    pub seq: u64,
}

/// `PUT /rooms/{room}`: what is given changes, the rest stays.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// Title, up to 256 bytes.
    pub title: Option<Box<str>>,
    /// Who gets in.
    pub access: Option<Access>,
    /// Gathering time; 0 sends at the end of the turn.
    pub tick_ms: Option<u32>,
    /// Lines per second each viewer is sent; 0 = no bound.
    pub deliver_per_s_max: Option<u32>,
    /// The platform's own JSON, up to 8 KiB.
    pub data: Option<Box<RawValue>>,
}

/// What `GET /rooms/{room}` shows.
#[derive(Clone, Debug)]
pub struct Detail {
    /// Its name.
    pub room: RoomId,
    /// Connections in it.
    pub online: u32,
    /// Different users among them; anonymous connections are not users.
    pub users: u32,
    /// The numbering.
    pub epoch: Epoch,
    /// The newest number.
    pub seq: u64,
    /// Title, empty if none.
    pub title: Box<str>,
    /// Who gets in.
    pub access: Access,
    /// Gathering time; `None` = auto.
    pub tick_ms: Option<u32>,
    /// Lines per second each viewer is sent; 0 = no bound.
    pub deliver_per_s_max: u32,
    /// The platform's own JSON.
    pub data: Option<Arc<RawValue>>,
    /// Milliseconds since 1970 when the room began.
    pub created_ms: u64,
    /// Most connections at once since it began.
    pub peak: u32,
    /// Different users that have been in it, give or take a hundredth; `None` where nobody counts them.
    pub visitors: Option<u64>,
    /// Redis is away: what the other nodes have counted is what was last heard.
    pub stale: bool,
}

/// What `GET /rooms/{room}/history` shows.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// The numbering.
    pub epoch: Epoch,
    /// The newest number of the room.
    pub seq: u64,
    /// JSON objects, ascending.
    pub messages: Vec<Bytes>,
}

/// One entry of `GET /rooms/{room}/members`.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberEntry {
    /// `None` is the one entry that counts all anonymous connections.
    pub user: Option<User>,
    /// Their connections in this room.
    pub connections: u32,
    /// Milliseconds since 1970 of the first of them.
    pub joined_ms: u64,
}

/// A page of members by user id, the anonymous entry last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MembersPage {
    /// Up to `limit` entries.
    pub members: Vec<MemberEntry>,
    /// What to send as `after` for the next page.
    pub next: Option<String>,
    /// Members on other nodes may be missing.
    pub stale: bool,
}

/// Frames of one encoding, sealed once for the node.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// Whole frames, back to back.
    pub bytes: Bytes,
    /// Where each frame ends and what it carries; the last `end` is `bytes.len()`.
    pub marks: Arc<[Mark]>,
}

/// One frame of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Offset in the chunk just past the frame.
    pub end: u32,
    /// Lines in the frame.
    pub lines: u32,
    /// Lines the frame tells of as not sent. A viewer that misses the frame is told of them all the same.
    pub told: u32,
    /// Events in the frame: a viewer that misses it gets them from `Sealed::events`.
    pub events: u32,
}

/// A home room's open batch, sealed: one message to each shard that hosts members.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The room.
    pub room: RoomId,
    /// The life of the room it belongs to.
    pub life: Life,
    /// By [`Encoding::index`]; `None` where no member uses it.
    pub chunks: [Option<Chunk>; Encoding::COUNT],
    /// The events among them once more, each in a frame of its own (valid in every encoding), `lines` 0.
    pub events: Option<Chunk>,
    /// Lines sent in the batch.
    pub lines: u32,
    /// Lines left out.
    pub left_out: u32,
    /// What the authors of lines that were not sent get in place of the chunk.
    pub own: Box<[Own]>,
    /// Monotonic nanoseconds of the turn in which the first of them was numbered, for the fan-out histogram.
    pub begun_ns: u64,
}

/// A batch as one viewer gets it that spoke and was not chosen: the chunk of all, with its own lines in their places.
#[derive(Clone, Debug)]
pub struct Own {
    /// Whose.
    pub speaker: Speaker,
    /// Whole frames.
    pub bytes: Bytes,
    /// Frames in it.
    pub frames: u32,
    /// Lines in it.
    pub lines: u32,
    /// Lines it tells of as not sent.
    pub told: u32,
}
