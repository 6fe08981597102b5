//! What clients say over a WebSocket: one JSON object per message, borrowed from the text it came in.
//!
//! Runs on the connection's shard. A plain line costs one scan of its text and no allocation. A message is either understood
//! whole or refused; the refusal carries the `id` whenever the text is JSON, so the client can tell which request failed.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::json::{self, bad, excerpt, missing, wrong_type};
use super::{Style, text};
use crate::base::ids::{Epoch, RoomId};
use crate::base::refusal::{Code, Refusal};

/// Longest `id` in bytes as the client wrote it, a string's quotes not counted.
pub const ID_BYTES_MAX: usize = 64;

/// A client's own name for its request: the JSON text of a number or string, echoed byte for byte in the answer. It holds no
/// raw newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    /// The JSON text, a string's quotes included: fits into an answer as it is.
    pub fn as_raw(self) -> &'a str {
        self.0
    }
}

/// A message understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming<'a> {
    /// To be echoed in the answer.
    pub id: Option<Id<'a>>,
    /// What is wanted.
    pub message: Message<'a>,
}

/// What a client may want.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// A sign of life, answered with `pong`.
    Ping,
    /// Into a room.
    Join {
        /// Which.
        room: RoomId,
        /// The last line it saw, if it comes back.
        resume: Option<(Epoch, u64)>,
    },
    /// Out of a room.
    Leave {
        /// Which.
        room: RoomId,
    },
    /// A line for a room.
    Danmaku {
        /// Which: passes [`RoomId::is_valid`]. Borrowed, so that it can be looked up among the joined rooms without a copy.
        room: Cow<'a, str>,
        /// As sent; [`text::clean_text`] has not been over it yet.
        text: Cow<'a, str>,
        /// Looks, if the sender gave any.
        style: Option<Style>,
    },
    /// What happens in a room, as figures, from now on or no more.
    Stats {
        /// Which.
        room: RoomId,
        /// Whether they are wanted.
        on: bool,
    },
    /// A newer token for this connection.
    Auth {
        /// As sent, not verified.
        token: Cow<'a, str>,
    },
}

/// A message refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// To be echoed in the error; `None` if there was none, it was itself wrong, or the text is not JSON.
    pub id: Option<Id<'a>>,
    /// Why.
    pub refusal: Refusal,
}

/// Reads one message. Fields the message does not know are ignored; `null` counts as absent.
///
/// Errors: `bad_message` (not a JSON object, a known field twice, missing or of the wrong type; named in the reason),
/// `unknown_type`, `bad_room`, `bad_style`.
pub fn parse(text: &str) -> Result<Incoming<'_>, Rejected<'_>> {
    const NAMES: [&str; 9] = [
        "type", "id", "room", "text", "style", "token", "epoch", "seq", "on",
    ];
    let object = json::object(text, "a message", &NAMES)
        .map_err(|refusal| Rejected { id: None, refusal })?;
    let [kind, id, room, text, style, token, epoch, seq, on] = object.values;
    let id = id
        .map(read_id)
        .transpose()
        .map_err(|refusal| Rejected { id: None, refusal })?;
    let fields = Fields {
        kind,
        room,
        text,
        style,
        token,
        epoch,
        seq,
        on,
    };
    match object.fault.map_or_else(|| fields.message(), Err) {
        Ok(message) => Ok(Incoming { id, message }),
        Err(refusal) => Err(Rejected { id, refusal }),
    }
}

/// The objects of a `danmaku.v1.batch` frame: its lines, trimmed, without the empty ones. Not bounded here: the frame is, and
/// flood control counts each of them.
pub fn objects(frame: &str) -> impl Iterator<Item = &str> {
    frame
        .split('\n')
        .map(str::trim_ascii)
        .filter(|line| !line.is_empty())
}

/// The known fields, not yet looked into.
struct Fields<'a> {
    kind: Option<&'a RawValue>,
    room: Option<&'a RawValue>,
    text: Option<&'a RawValue>,
    style: Option<&'a RawValue>,
    token: Option<&'a RawValue>,
    epoch: Option<&'a RawValue>,
    seq: Option<&'a RawValue>,
    on: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn message(&self) -> Result<Message<'a>, Refusal> {
        match &*required("type", self.kind)? {
            "danmaku" => Ok(Message::Danmaku {
                room: room_name("room", self.room)?,
                text: required("text", self.text)?,
                style: self.style.map(text::parse_style).transpose()?,
            }),
            "ping" => Ok(Message::Ping),
            "join" => Ok(Message::Join {
                room: room_id("room", self.room)?,
                resume: self.resume()?,
            }),
            "leave" => Ok(Message::Leave {
                room: room_id("room", self.room)?,
            }),
            "stats" => Ok(Message::Stats {
                room: room_id("room", self.room)?,
                on: self.on.map_or(Ok(true), |on| json::boolean("on", on))?,
            }),
            "auth" => Ok(Message::Auth {
                token: required("token", self.token)?,
            }),
            other => {
                let reason = format!("there is no message of type \"{}\"", excerpt(other));
                Err(Refusal::new(Code::UnknownType, reason))
            }
        }
    }

    fn resume(&self) -> Result<Option<(Epoch, u64)>, Refusal> {
        match (self.epoch, self.seq) {
            (None, None) => Ok(None),
            (Some(epoch), Some(seq)) => {
                let seq = json::whole("seq", seq, u64::MAX)?;
                Ok(Some((read_epoch(epoch)?, seq)))
            }
            (Some(_), None) => Err(bad("epoch without seq; resuming needs both")),
            (None, Some(_)) => Err(bad("seq without epoch; resuming needs both")),
        }
    }
}

fn read_id(raw: &RawValue) -> Result<Id<'_>, Refusal> {
    let json = raw.get();
    let bytes = match json.strip_prefix('"').and_then(|s| s.strip_suffix('"')) {
        Some(inner) => inner.len(),
        None if json::is_number(json) => json.len(),
        None => return Err(wrong_type("id", "a number or a string", json)),
    };
    if bytes > ID_BYTES_MAX {
        return Err(bad(format!(
            "id has {bytes} bytes; allowed are {ID_BYTES_MAX}"
        )));
    }
    Ok(Id(json))
}

/// A number, or a string of digits for clients whose numbers are not exact.
fn read_epoch(raw: &RawValue) -> Result<Epoch, Refusal> {
    if !raw.get().starts_with('"') {
        return json::whole("epoch", raw, u64::MAX).map(Epoch);
    }
    let digits = json::string("epoch", raw)?;
    // `parse` alone would let a leading `+` through.
    let number = digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse() {
        Ok(epoch) if number => Ok(Epoch(epoch)),
        _ => Err(bad(format!(
            "epoch must be a whole number from 0 to {}, found \"{}\"",
            u64::MAX,
            excerpt(&digits)
        ))),
    }
}

/// A string that must be there.
pub(super) fn required<'a>(
    field: &str,
    raw: Option<&'a RawValue>,
) -> Result<Cow<'a, str>, Refusal> {
    json::string(field, raw.ok_or_else(|| missing(field))?)
}

/// A room's name that must be there and be spelt right.
fn room_name<'a>(field: &str, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, Refusal> {
    let name = required(field, raw)?;
    if RoomId::is_valid(&name) {
        Ok(name)
    } else {
        Err(bad_room(field, &name))
    }
}

/// The same, to keep.
pub(super) fn room_id(field: &str, raw: Option<&RawValue>) -> Result<RoomId, Refusal> {
    let name = required(field, raw)?;
    RoomId::parse(&name).ok_or_else(|| bad_room(field, &name))
}

/// The refusal of an ill-spelt room name.
pub(super) fn bad_room(field: &str, name: &str) -> Refusal {
    let reason = format!(
        "{field} is \"{}\" ({} bytes); allowed are 1 to 128 bytes of [A-Za-z0-9_.:-]",
        excerpt(name),
        name.len()
    );
    Refusal::new(Code::BadRoom, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{ANY_TEXT, Mode};
    use super::*;

    fn room(name: &str) -> RoomId {
        RoomId::parse(name).unwrap()
    }

    fn understood(text: &str) -> (Option<&str>, Message<'_>) {
        let incoming = parse(text).unwrap_or_else(|r| panic!("{text}: {r:?}"));
        (incoming.id.map(Id::as_raw), incoming.message)
    }

    fn refused(text: &str) -> (Option<&str>, Code, String) {
        let rejected = parse(text).expect_err(text);
        let refusal = rejected.refusal;
        (
            rejected.id.map(Id::as_raw),
            refusal.code,
            refusal.reason.into_owned(),
        )
    }

    #[test]
    fn every_message_of_the_page_is_understood() {
        assert_eq!(understood(r#"{"type":"ping"}"#), (None, Message::Ping));
        let join = |resume| Message::Join {
            room: room("a"),
            resume,
        };
        let resumed = join(Some((Epoch(7), 9)));
        assert_eq!(
            understood(r#"{"type":"join","room":"a","id":1}"#),
            (Some("1"), join(None))
        );
        assert_eq!(
            understood(r#"{"seq":9,"epoch":7,"room":"a","type":"join"}"#),
            (None, resumed.clone())
        );
        assert_eq!(
            understood(r#"{"type":"join","room":"a","epoch":"7","seq":9}"#),
            (None, resumed)
        );
        assert_eq!(
            understood(r#"{"type":"join","room":"a","epoch":null,"seq":null,"id":null}"#),
            (None, join(None))
        );
        assert_eq!(
            understood(r#"{"type":"leave","room":"a:b","id":"x"}"#),
            (Some("\"x\""), Message::Leave { room: room("a:b") })
        );
        assert_eq!(
            understood(r#"{"type":"auth","token":"T","id":4}"#),
            (Some("4"), Message::Auth { token: "T".into() })
        );
        let style = Style {
            color: 0x00ff10,
            mode: Mode::Top,
            size: 12,
        };
        assert_eq!(
            understood(
                r##"{"type":"danmaku","room":"a","text":"6\n6","style":{"color":"#00FF10","mode":"top","size":12,"glow":1}}"##
            ),
            (
                None,
                Message::Danmaku {
                    room: "a".into(),
                    text: "6\n6".into(),
                    style: Some(style)
                }
            )
        );
    }

    #[test]
    fn a_plain_line_is_borrowed_from_its_frame() {
        let (_, message) =
            understood(r#"{"type":"danmaku","room":"1001","text":"弹幕 666","id":3,"later":[{}]}"#);
        let Message::Danmaku { room, text, style } = message else {
            panic!("{message:?}")
        };
        assert!(matches!(room, Cow::Borrowed("1001")) && matches!(text, Cow::Borrowed("弹幕 666")));
        assert_eq!(style, None);
    }

    #[test]
    fn every_mistake_names_its_field_and_keeps_the_id() {
        use Code::{BadMessage, BadRoom, BadStyle, UnknownType};
        for (text, code, says) in [
            (r#"{"id":5}"#, BadMessage, "type is missing"),
            (
                r#"{"id":5,"type":7}"#,
                BadMessage,
                "type must be a string, found a number",
            ),
            (r#"{"id":5,"type":"shout"}"#, UnknownType, "\"shout\""),
            (r#"{"id":5,"type":"join"}"#, BadMessage, "room is missing"),
            (
                r#"{"id":5,"type":"join","room":1001}"#,
                BadMessage,
                "room must be a string, found a number",
            ),
            (
                r#"{"id":5,"type":"join","room":"a b"}"#,
                BadRoom,
                "\"a b\" (3 bytes)",
            ),
            (r#"{"id":5,"type":"leave","room":""}"#, BadRoom, "(0 bytes)"),
            (
                r#"{"id":5,"type":"join","room":"a","seq":1}"#,
                BadMessage,
                "seq without epoch",
            ),
            (
                r#"{"id":5,"type":"join","room":"a","epoch":1}"#,
                BadMessage,
                "epoch without seq",
            ),
            (
                r#"{"id":5,"type":"join","room":"a","epoch":1,"seq":-1}"#,
                BadMessage,
                "found -1",
            ),
            (
                r#"{"id":5,"type":"join","room":"a","epoch":1e999,"seq":1}"#,
                BadMessage,
                "found 1e999",
            ),
            (
                r#"{"id":5,"type":"join","room":"a","epoch":"+1","seq":1}"#,
                BadMessage,
                "epoch",
            ),
            (
                r#"{"id":5,"type":"join","room":"a","epoch":"","seq":1}"#,
                BadMessage,
                "epoch",
            ),
            (
                r#"{"id":5,"type":"join","room":"a","epoch":1,"seq":"1"}"#,
                BadMessage,
                "seq must be a number",
            ),
            (
                r#"{"id":5,"type":"danmaku","room":"a"}"#,
                BadMessage,
                "text is missing",
            ),
            (
                r#"{"id":5,"type":"danmaku","room":"a","text":["x"]}"#,
                BadMessage,
                "found an array",
            ),
            (
                r#"{"id":5,"type":"danmaku","room":"a","text":"\ud800"}"#,
                BadMessage,
                "text holds",
            ),
            (
                r#"{"id":5,"type":"danmaku","room":"a","text":"x","style":[]}"#,
                BadStyle,
                "style",
            ),
            (
                r#"{"id":5,"type":"danmaku","room":"a","text":"x","style":{"size":99}}"#,
                BadStyle,
                "style.size",
            ),
            (r#"{"id":5,"type":"auth"}"#, BadMessage, "token is missing"),
            (
                r#"{"id":5,"type":"ping","type":"ping"}"#,
                BadMessage,
                "type stands there twice",
            ),
        ] {
            let (id, found, reason) = refused(text);
            assert_eq!((id, found), (Some("5"), code), "{text}: {reason}");
            assert!(reason.contains(says), "{text}: {reason}");
        }
    }

    #[test]
    fn what_is_no_message_has_no_id() {
        for text in [
            "",
            "x",
            "[]",
            "\"id\"",
            "{",
            "{\"id\":5",
            "{\"id\":5} {}",
            "{\"id\":01}",
            "nul",
            "\u{feff}{}",
        ] {
            let (id, code, _) = refused(text);
            assert_eq!((id, code), (None, Code::BadMessage), "{text}");
        }
        let deep = format!(
            "{{\"id\":5,\"type\":\"ping\",\"x\":{}{}}}",
            "[".repeat(9000),
            "]".repeat(9000)
        );
        assert_eq!(refused(&deep).0, Some("5"));
        let long = format!("{{\"type\":\"{}\"}}", "é".repeat(500));
        assert!(
            refused(&long)
                .2
                .ends_with(&format!("\"{}\"", "é".repeat(32)))
        );
    }

    #[test]
    fn ids_are_numbers_or_short_strings() {
        let fits = format!("\"{}\"", "x".repeat(64));
        let digits = "9".repeat(64);
        for id in ["0", "-1.50e+3", "\"\"", "\"\\u00e9 \\\"\"", &fits, &digits] {
            let text = format!("{{\"type\":\"ping\",\"id\" : {id} }}");
            assert_eq!(understood(&text), (Some(id), Message::Ping));
        }
        let (long, many) = (format!("\"{}\"", "x".repeat(65)), "9".repeat(65));
        for id in ["true", "[1]", "{}", &long, &many] {
            let text = format!("{{\"type\":\"ping\",\"id\":{id}}}");
            let (echoed, code, reason) = refused(&text);
            assert_eq!((echoed, code), (None, Code::BadMessage));
            assert!(reason.starts_with("id "), "{reason}");
        }
    }

    #[test]
    fn a_batch_frame_holds_one_object_per_line() {
        let found: Vec<&str> = objects("\n{\"a\":1}\r\n\n  {}\n").collect();
        assert_eq!(found, ["{\"a\":1}", "{}"]);
        assert_eq!(objects(" \r\n").count(), 0);
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(text in "\\PC{0,64}|[\\[\\]{}\",:\\\\0-9a-z \n\u{0}]{0,64}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_cut_message_is_refused(cut in 1usize..60) {
            let whole = r#"{"type":"danmaku","room":"1001","text":"six","id":3,"style":{}}"#;
            prop_assert!(parse(whole).is_ok());
            prop_assert_eq!(parse(&whole[..cut]).unwrap_err().refusal.code, Code::BadMessage);
        }

        #[test]
        fn any_line_arrives_as_it_was_written(text in ANY_TEXT, id in "\\PC{0,10}") {
            let id = serde_json::to_string(&id).unwrap();
            let quoted = serde_json::to_string(&text).unwrap();
            let sent = format!("{{\"text\":{quoted},\"id\":{id},\"room\":\"a\",\"type\":\"danmaku\"}}");
            let (echoed, message) = understood(&sent);
            prop_assert_eq!(echoed, Some(&*id));
            prop_assert_eq!(message, Message::Danmaku { room: "a".into(), text: text.into(), style: None });
        }
    }
}
