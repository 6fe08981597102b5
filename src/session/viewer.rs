//! A viewer's WebSocket session: frames in, replies into its outbox, intents to the shard.
//!
//! Owned by one connection on its shard's thread. It answers what it can by itself (pings, errors, flood control) and
//! never blocks, writes to a socket or knows who else is in a room.

use std::sync::Arc;

use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::intent::{End, Intent};
use crate::auth::keys::KeySet;
use crate::base::clock::Now;
use crate::base::identity::{Identity, Role};
use crate::base::ids::RoomId;
use crate::base::limits;
use crate::base::rate::{Bucket, Rate};
use crate::base::refusal::{Code, Refusal};
use crate::config::checked::{Anonymous, Limits};
use crate::proto::danmaku::client::{self, Id, Message};
use crate::proto::danmaku::{server, text};
use crate::proto::ws::close::{self, Close};
use crate::proto::ws::decode::{self, Decoder, Event};
use crate::proto::ws::deflate::Inflator;
use crate::proto::ws::encode;
use crate::room::ask::Encoding;

/// What a session needs of the rest of the node to judge a message.
pub struct Env<'a> {
    /// This turn's time.
    pub now: Now,
    /// What a client may send.
    pub limits: &'a Limits,
    /// What anonymous viewers may do.
    pub anonymous: Anonymous,
    /// For token renewal.
    pub keys: &'a KeySet,
}

/// One viewer. Its seats in rooms are the shard's; this is what its own messages are judged by.
#[derive(Debug)]
pub struct Viewer {
    decoder: Decoder,
    identity: Option<Arc<Identity>>,
    lines: Bucket,
    commands: Bucket,
    /// Bad or too fast messages not yet forgiven.
    strikes: u32,
    /// Second on the monotonic clock at which strikes were last forgiven.
    forgiven_s: u32,
    /// Questions to home shards not yet answered.
    questions: u16,
    encoding: Encoding,
    tally: Tally,
    /// We have sent a close frame, or the peer has: its messages count no more.
    closing: bool,
    /// The stream is out of frame, or over: nothing in it can be understood any more.
    deaf: bool,
}

impl Viewer {
    /// A session that begins now. `identity` `None` is anonymous.
    pub fn new(identity: Option<Arc<Identity>>, encoding: Encoding) -> Viewer {
        Viewer {
            decoder: match encoding.deflates() {
                false => Decoder::new(),
                true => Decoder::deflating(),
            },
            identity,
            lines: Bucket::default(),
            commands: Bucket::default(),
            strikes: 0,
            forgiven_s: 0,
            questions: 0,
            tally: Tally::default(),
            encoding,
            closing: false,
            deaf: false,
        }
    }

    /// Who it is.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// How its rooms' lines are sealed for it.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether a close frame has been sent.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether role admin: no flood limits, speaks in any room.
    pub fn is_admin(&self) -> bool {
        self.identity
            .as_ref()
            .is_some_and(|identity| identity.role == Role::Admin)
    }

    /// The shard accepted a renewed token.
    pub fn renew(&mut self, identity: Arc<Identity>) {
        self.identity = Some(identity);
    }

    /// Appends a close frame; from now on the peer's messages count no more.
    pub fn close(&mut self, end: &End, out: &mut Vec<u8>) {
        if !self.closing {
            self.closing = true;
            close::put_close(end.code, &end.reason, out);
        }
    }

    /// What was counted since the last time.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Takes bytes from the socket; compressed messages are unpacked by `inflator`. Replies are appended to `out`, whole
    /// frames each; what the shard is to do to `intents`.
    ///
    /// # Errors
    /// The session is over: the shard closes with this code, unless a close frame has been sent already.
    pub fn input(
        &mut self,
        bytes: &mut [u8],
        env: &Env<'_>,
        inflator: &mut Inflator,
        out: &mut Vec<u8>,
        intents: &mut Vec<Intent>,
    ) -> Result<(), End> {
        if self.deaf {
            return Ok(());
        }
        // The decoder is taken out so that its event may borrow it while the message is judged.
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut at = 0;
        let mut ended = Ok(());
        // The call that finds nothing more gives back the memory of the last message.
        loop {
            let step = match decoder.next(&mut bytes[at..], env.limits.message_bytes_max) {
                Ok(step) => step,
                Err(fault) => {
                    // Where the next frame begins is not known any more: what still comes is read and thrown away.
                    self.deaf = true;
                    if !self.closing && ended.is_ok() {
                        ended = Err(End::new(fault.close_code(), fault.reason()));
                    }
                    break;
                }
            };
            at += step.consumed;
            let Some(event) = step.event else {
                break;
            };
            // After its end a session is only listened to for the peer's close frame.
            if matches!(event, Event::Close(_)) || (ended.is_ok() && !self.closing) {
                let closed = matches!(event, Event::Close(_));
                let over = self.event(event, env, inflator, out, intents);
                if ended.is_ok() {
                    ended = over;
                }
                if closed {
                    self.deaf = true;
                    break;
                }
            }
        }
        self.decoder = decoder;
        ended
    }

    fn event(
        &mut self,
        event: Event<'_>,
        env: &Env<'_>,
        inflator: &mut Inflator,
        out: &mut Vec<u8>,
        intents: &mut Vec<Intent>,
    ) -> Result<(), End> {
        self.tally.messages_in += 1;
        match event {
            Event::Close(why) => {
                // The answer carries the code we got; a peer that sent none gets 1000.
                let code = why.map_or(Close::Normal.code(), |(code, _)| code);
                return Err(End::new(code, ""));
            }
            Event::Ping(payload) => {
                self.tally.frames_out += 1;
                encode::frame(OpCode::Control(Control::Pong), payload, out);
            }
            Event::Pong(_) => {}
            Event::Deflated {
                is_text: true,
                packed,
            } => {
                let bytes_max = env.limits.message_bytes_max;
                let text = inflator
                    .inflate(packed, bytes_max)
                    .and_then(decode::checked_text)
                    .map_err(|fault| End::new(fault.close_code(), fault.reason()))?;
                self.tally.inflated += 1;
                self.text(text, env, out, intents)?;
            }
            Event::Text(text) => self.text(text, env, out, intents)?,
            Event::Binary(_) | Event::Deflated { .. } => {
                let end = "this protocol is JSON in text frames";
                return Err(End::new(Close::Unsupported.code(), end));
            }
        }
        Ok(())
    }

    /// One message, or several to a frame.
    fn text(
        &mut self,
        text: &str,
        env: &Env<'_>,
        out: &mut Vec<u8>,
        intents: &mut Vec<Intent>,
    ) -> Result<(), End> {
        if !self.encoding.gathers() {
            return self.message(text, env, out, intents);
        }
        for object in client::objects(text) {
            self.message(object, env, out, intents)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        text: &str,
        env: &Env<'_>,
        out: &mut Vec<u8>,
        intents: &mut Vec<Intent>,
    ) -> Result<(), End> {
        let incoming = match client::parse(text) {
            Ok(incoming) => incoming,
            Err(rejected) => {
                let id = rejected.id.map(Id::as_raw);
                return self.refuse(id, &rejected.refusal, env, out, intents);
            }
        };
        let id = incoming.id.map(Id::as_raw);
        match self.judge(incoming.message, id, env, out) {
            Ok(Some(intent)) => intents.push(intent),
            Ok(None) => {}
            Err(Verdict::Refused(refusal)) => return self.refuse(id, &refusal, env, out, intents),
            Err(Verdict::Over(refusal, end)) => {
                self.answer(out, |json| server::error(json, id, &refusal));
                return Err(end);
            }
        }
        Ok(())
    }

    fn judge(
        &mut self,
        message: Message<'_>,
        id: Option<&str>,
        env: &Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Intent>, Verdict> {
        let echo = || id.map(Box::from);
        match message {
            Message::Ping => {
                self.answer(out, |json| server::pong(json, id, env.now.unix_ms));
                Ok(None)
            }
            Message::Danmaku { room, text, style } => {
                if self.identity.is_none() && env.anonymous != Anonymous::Speak {
                    let reason = "anonymous viewers may only watch here";
                    return Err(Refusal::new(Code::SpeakForbidden, reason).into());
                }
                self.spend_line(env)?;
                let room = room_id(&room)?;
                let text = text::clean_text(&text, env.limits.text_bytes_max)?;
                self.ask()?;
                Ok(Some(Intent::Speak {
                    room,
                    text: text.into(),
                    style,
                    id: echo(),
                }))
            }
            Message::Join { room, resume } => {
                self.spend_command(env)?;
                self.ask()?;
                let id = echo();
                Ok(Some(Intent::Join { room, resume, id }))
            }
            Message::Leave { room } => {
                self.spend_command(env)?;
                Ok(Some(Intent::Leave { room, id: echo() }))
            }
            Message::Stats { room, on } => {
                self.spend_command(env)?;
                let role = self.identity.as_ref().map(|identity| identity.role);
                if role.is_none_or(|role| role < Role::Host) {
                    let reason = "a room's figures are for role host, moderator and admin";
                    return Err(Refusal::new(Code::Forbidden, reason).into());
                }
                self.ask()?;
                let id = echo();
                Ok(Some(Intent::Stats { room, on, id }))
            }
            Message::Auth { token } => {
                self.spend_command(env)?;
                self.renewal(&token, id, env, out).map(Some)
            }
        }
    }

    fn renewal(
        &mut self,
        token: &str,
        id: Option<&str>,
        env: &Env<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Intent, Verdict> {
        let Some(current) = self.identity.clone() else {
            let reason = "this connection entered without a token: connect again with one";
            return Err(Refusal::new(Code::Forbidden, reason).into());
        };
        let over = |refusal: Refusal| {
            let end = End::new(Close::BadToken.code(), refusal.reason.clone());
            Verdict::Over(refusal, end)
        };
        let identity = env.keys.verify(token, env.now.unix_s()).map_err(over)?;
        if identity.user.id != current.user.id {
            let reason = "the new token is another user's";
            return Err(over(Refusal::new(Code::TokenInvalid, reason)));
        }
        self.answer(out, |json| server::authed(json, id, identity.exp_s));
        Ok(Intent::Renew { identity })
    }

    fn spend_line(&mut self, env: &Env<'_>) -> Result<(), Refusal> {
        if self.is_admin() {
            return Ok(());
        }
        let rate = Rate {
            per_s: env.limits.lines_per_s,
            burst: env.limits.line_burst,
        };
        self.lines.take(rate, env.now.mono_ms()).map_err(|wait_ms| {
            let reason = format!("more than {} lines per second", rate.per_s);
            Refusal::new(Code::RateLimited, reason).retry(wait_ms)
        })
    }

    fn spend_command(&mut self, env: &Env<'_>) -> Result<(), Refusal> {
        if self.is_admin() {
            return Ok(());
        }
        self.commands
            .take(limits::COMMANDS, env.now.mono_ms())
            .map_err(|wait_ms| {
                let reason = "too many joins, leaves or renewals";
                Refusal::new(Code::RateLimited, reason).retry(wait_ms)
            })
    }

    /// Counts a question to a home shard, up to the bound.
    fn ask(&mut self) -> Result<(), Refusal> {
        if usize::from(self.questions) >= limits::QUESTIONS_PER_CONNECTION_MAX {
            let reason = "too many of your messages wait for an answer";
            return Err(Refusal::new(Code::Busy, reason).retry(100));
        }
        self.questions += 1;
        Ok(())
    }

    /// A question was answered, or never had to be asked.
    pub fn answered(&mut self) {
        self.questions = self.questions.saturating_sub(1);
    }

    fn answer(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        self.tally.frames_out += 1;
        reply(out, write);
    }

    /// Answers a bad message, and ends the session after too many of them.
    fn refuse(
        &mut self,
        id: Option<&str>,
        refusal: &Refusal,
        env: &Env<'_>,
        out: &mut Vec<u8>,
        intents: &mut Vec<Intent>,
    ) -> Result<(), End> {
        intents.push(Intent::Refused { code: refusal.code });
        self.answer(out, |json| server::error(json, id, refusal));
        if refusal.code == Code::Busy {
            // The node is slow, not the client bad.
            return Ok(());
        }
        let now_s = (env.now.mono_ms() / 1000) as u32;
        let forgiven = (now_s - self.forgiven_s).saturating_mul(limits::STRIKES_FORGIVEN_PER_S);
        self.strikes = self.strikes.saturating_sub(forgiven) + 1;
        self.forgiven_s = now_s;
        if self.strikes > limits::STRIKES_MAX {
            let end = "too many bad or too fast messages";
            return Err(End::new(Close::Flood.code(), end));
        }
        Ok(())
    }
}

/// A room as a message names it: spelt right already, or the message would not have been parsed.
fn room_id(room: &str) -> Result<RoomId, Refusal> {
    RoomId::parse(room).ok_or_else(|| Refusal::new(Code::BadRoom, "not a room id"))
}

/// What a session counts, for its shard's metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages and control frames received.
    pub messages_in: u32,
    /// Messages among them that were compressed.
    pub inflated: u32,
    /// Frames it has answered by itself.
    pub frames_out: u32,
}

/// Why a message was not carried out.
enum Verdict {
    /// It is answered with an error, and counts as a strike.
    Refused(Refusal),
    /// It is answered with an error, and the session ends.
    Over(Refusal, End),
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Verdict {
        Verdict::Refused(refusal)
    }
}

/// Appends one JSON object as a text frame, rendered straight into `out`.
pub fn reply(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    encode::text_with(out, write);
}
