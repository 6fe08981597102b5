//! One routed request as handlers see it, and what a handler may come to. Values of the shard that answers; nothing here
//! outlives the call except what a handler puts into its [`Step`].

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::batch::Batch;
use super::gather::Gather;
use super::{Question, Special};
use crate::base::identity::{Caller, Identity};
use crate::base::ids::RoomId;
use crate::base::refusal::{Code, Refusal};
use crate::bus::RoomAsk;
use crate::proto::http::Method;
use crate::proto::http::reply::Reply;
use crate::proto::http::uri;

/// One request whose caller is known and may use the route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// What is to be done.
    pub method: Method,
    /// As sent, still encoded.
    pub path: &'a str,
    /// Still encoded; empty if there is none.
    pub query: &'a str,
    /// At most `limits.body_bytes_max` bytes.
    pub body: &'a [u8],
    /// Who asks.
    pub caller: &'a Caller,
    /// The `Idempotency-Key`, already checked: 1..=128 visible ASCII characters (an entry of a batch adds its index).
    pub once: Option<&'a str>,
    /// Whether it asked to become a WebSocket, which only `/ws` does.
    pub upgrade: bool,
}

/// What a handler comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// Answered.
    Done(Reply),
    /// To be asked, and what makes an answer of the answers.
    Ask(Vec<Question>, Gather),
    /// The reactor's.
    Special(Special),
    /// Many calls, one after the other.
    Batch(Batch),
}

impl<'a> Call<'a> {
    /// The value of a query parameter, decoded.
    ///
    /// # Errors
    /// `bad_request` for a broken escape or too many parameters.
    pub fn parameter(&self, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        Ok(uri::query_first(self.query, name)?)
    }

    /// A query parameter that is a whole number within `allowed`.
    ///
    /// # Errors
    /// `bad_request`, naming the parameter, what was found and what is allowed.
    pub fn number(&self, name: &str, allowed: RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
        let Some(found) = self.parameter(name)? else {
            return Ok(None);
        };
        // `parse` alone would take a leading plus.
        let digits = found.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| found.parse().ok()).flatten();
        match number.filter(|number| allowed.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (from, to) = (allowed.start(), allowed.end());
                let found: String = found.chars().take(32).collect();
                Err(Refusal::new(
                    Code::BadRequest,
                    format!("{name} must be a whole number from {from} to {to}, found {found:?}"),
                ))
            }
        }
    }

    /// `?limit=`: 1..=1000, 50 if absent.
    pub fn limit(&self) -> Result<usize, Refusal> {
        const LIMIT_DEFAULT: u64 = 50;
        const LIMIT_MAX: u64 = 1000;
        let limit = self.number("limit", 1..=LIMIT_MAX)?;
        Ok(limit.unwrap_or(LIMIT_DEFAULT) as usize)
    }

    /// Whether a back end asks, with an API key: it may do everything.
    pub fn by_key(&self) -> bool {
        matches!(self.caller, Caller::Key(_))
    }

    /// The bearer of a token, if that is who asks.
    pub fn identity(&self) -> Option<&'a std::sync::Arc<Identity>> {
        match self.caller {
            Caller::User(identity) => Some(identity),
            Caller::Anonymous | Caller::Key(_) => None,
        }
    }

    /// Asks a room's home for something whoever may enter the room may read; API keys read every room.
    pub fn read_room(&self, room: &RoomId, ask: RoomAsk) -> Question {
        let ask = if self.by_key() {
            ask
        } else {
            RoomAsk::Admit {
                who: self.identity().cloned(),
                then: Box::new(ask),
            }
        };
        Question::Room {
            room: room.clone(),
            ask,
        }
    }
}
