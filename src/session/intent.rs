//! What a viewer's messages ask of the shard, checked as far as one connection can check them.

use std::borrow::Cow;
use std::sync::Arc;

use crate::base::identity::Identity;
use crate::base::ids::{Epoch, RoomId};
use crate::base::refusal::Code;
use crate::proto::danmaku::Style;

/// `id` of a client message as raw JSON, echoed in the answer.
pub type EchoId = Option<Box<str>>;

/// Something to be done for a viewer.
#[derive(Clone, Debug)]
pub enum Intent {
    /// Enter a room.
    Join {
        /// Which.
        room: RoomId,
        /// The last line seen there.
        resume: Option<(Epoch, u64)>,
        /// Echoed.
        id: EchoId,
    },
    /// Leave a room.
    Leave {
        /// Which.
        room: RoomId,
        /// Echoed.
        id: EchoId,
    },
    /// Say something; text and style are clean, the connection's flood bucket has been asked.
    Speak {
        /// Where.
        room: RoomId,
        /// What.
        text: Arc<str>,
        /// How it looks.
        style: Option<Style>,
        /// Echoed; without it there is no ack.
        id: EchoId,
    },
    /// Show what happens in a room, as figures, or no more.
    Stats {
        /// Which.
        room: RoomId,
        /// Whether they are wanted.
        on: bool,
        /// Echoed.
        id: EchoId,
    },
    /// A message was answered with an error: for the count of refusals.
    Refused {
        /// Why.
        code: Code,
    },
    /// Go on under a new token of the same user.
    Renew {
        /// The new token's bearer.
        identity: Arc<Identity>,
    },
}

/// Why a session ends, as a close frame says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Close code of `docs/PROTOCOL.md`.
    pub code: u16,
    /// A sentence, at most 123 bytes on the wire.
    pub reason: Cow<'static, str>,
}

impl End {
    /// An end with this code and sentence.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> End {
        End {
            code,
            reason: reason.into(),
        }
    }
}
