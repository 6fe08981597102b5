//! What is said to a server, and what its messages mean: the gateway's own protocol, or another server's by templates.
//! Shared by all client threads, read-only.
//!
//! Lines are recognised by how they begin, without parsing JSON: ten thousand viewers receive each one. Everything else is
//! parsed as the JSON it is.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::stamp::{Stamp, Stamper};

/// The highest number a line may have: what JSON readers hold exactly (RFC 8259 section 6).
const SEQ_MAX: u64 = 1 << 53;
const TOO_HIGH: &str = "a number beyond 2^53";

/// One line, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the room.
    pub seq: u64,
    /// Whether it is an event (a gift, a notice) and no one's talk.
    pub event: bool,
    /// Ours, if it is.
    pub stamp: Option<Stamp>,
}

/// What a message meant.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// A line or an event of the client's room.
    Line(Line),
    /// A line of ours was accepted.
    Ack {
        /// Its id.
        line: u64,
        /// Its number.
        seq: u64,
    },
    /// The client is in its room.
    Joined {
        /// The numbering.
        epoch: u64,
        /// The newest number before the join.
        seq: u64,
        /// Whether a resume succeeded.
        recovered: bool,
        /// What was missed, if so.
        messages: Vec<Line>,
    },
    /// The client left its room, or was made to.
    Left,
    /// The room's numbering began anew.
    Epoch {
        /// The numbering.
        epoch: u64,
        /// The newest number before what comes next.
        seq: u64,
    },
    /// So many lines were not delivered.
    Dropped {
        /// How many.
        count: u64,
        /// Everything up to this number has come, or is in a count.
        upto: Option<u64>,
    },
    /// Something was refused.
    Error {
        /// The line it was about, if one.
        line: Option<u64>,
        /// The server's code.
        code: String,
    },
    /// The server is about to close; come back after so many milliseconds.
    ComeBack(u64),
    /// The first message of a connection.
    Welcome,
    /// The answer to a ping.
    Pong,
    /// Nothing a swarm acts on (`online`, ...).
    Other,
    /// Not understood; what it was.
    Unknown(String),
}

/// A room of the plan.
#[derive(Clone, Debug)]
pub struct Room {
    /// Its id.
    pub id: String,
    line_begins: Vec<u8>,
    event_begins: Vec<u8>,
}

impl Room {
    /// By its id.
    pub fn new(id: String) -> Room {
        Room {
            line_begins: format!(r#"{{"type":"danmaku","room":"{id}","seq":"#).into_bytes(),
            event_begins: format!(r#"{{"type":"event","room":"{id}","seq":"#).into_bytes(),
            id,
        }
    }
}

/// How a server is spoken to.
#[derive(Clone, Debug)]
pub enum Dialect {
    /// `danmaku.v1`, as in the gateway's PROTOCOL.
    Danmaku,
    /// Another server's messages, with `{room}`, `{user}` and `{text}` in them. Lines are known by their stamp, and
    /// numbered by it.
    Templates {
        /// Sent once connected, if anything.
        join: Option<String>,
        /// One line.
        publish: String,
    },
}

/// What one says: stamped text, or what bots chat for people to see.
#[derive(Clone, Debug, Default)]
pub struct Speech {
    /// The text.
    pub text: String,
    /// The style's JSON, if any.
    pub style: Option<&'static str>,
    /// Who gives, for a gift that people are to see.
    pub giver: Option<&'static str>,
}

impl Dialect {
    /// What a client sends once connected; `None` where the URL said it all.
    pub fn join(&self, room: &Room, user: u32) -> Option<String> {
        match self {
            Dialect::Danmaku => None,
            Dialect::Templates { join, .. } => {
                let join = join.as_ref()?;
                Some(fill(join, &room.id, user, ""))
            }
        }
    }

    /// Joins by message, to resume after `last`.
    pub fn resume(room: &Room, epoch: u64, last: u64) -> String {
        format!(
            r#"{{"type":"join","room":"{}","epoch":{epoch},"seq":{last}}}"#,
            room.id
        )
    }

    /// Joins by message, anew.
    pub fn enter(room: &Room) -> String {
        format!(r#"{{"type":"join","room":"{}"}}"#, room.id)
    }

    /// Leaves by message.
    pub fn leave(room: &Room) -> String {
        format!(r#"{{"type":"leave","room":"{}"}}"#, room.id)
    }

    /// One line; its id comes back in the ack.
    pub fn publish(&self, room: &Room, user: u32, line: u64, speech: &Speech) -> String {
        match self {
            Dialect::Danmaku => {
                let style = speech
                    .style
                    .map_or(String::new(), |style| format!(r#","style":{style}"#));
                format!(
                    r#"{{"type":"danmaku","room":"{}","text":{}{style},"id":{line}}}"#,
                    room.id,
                    quoted(&speech.text)
                )
            }
            Dialect::Templates { publish, .. } => fill(publish, &room.id, user, &speech.text),
        }
    }

    /// The body of one HTTP push of the same words to several rooms.
    pub fn push_to<'a>(rooms: impl Iterator<Item = &'a Room>, speech: &Speech) -> String {
        let rooms: Vec<String> = rooms.map(|room| format!("\"{}\"", room.id)).collect();
        format!(
            r#"{{"rooms":[{}],"text":{}}}"#,
            rooms.join(","),
            quoted(&speech.text)
        )
    }

    /// The body of one line's HTTP push.
    pub fn push(room: &Room, speech: &Speech) -> String {
        let style = speech
            .style
            .map_or(String::new(), |style| format!(r#","style":{style}"#));
        format!(
            r#"{{"room":"{}","text":{}{style}}}"#,
            room.id,
            quoted(&speech.text)
        )
    }

    /// The body of one gift's HTTP push.
    pub fn gift(room: &Room, speech: &Speech) -> String {
        let giver = speech
            .giver
            .map_or(String::new(), |name| format!(r#","user":{}"#, quoted(name)));
        format!(
            r#"{{"room":"{}","type":"event","event":"gift","data":{{"gift":{}{giver}}}}}"#,
            room.id,
            quoted(&speech.text)
        )
    }

    /// Whether it is the gateway's own: lines are acked and numbered, lost ones told.
    pub fn is_gateway(&self) -> bool {
        matches!(self, Dialect::Danmaku)
    }

    /// What a message means to a client in `room`.
    pub fn hear(&self, message: &[u8], room: &Room, stamper: &Stamper) -> Heard {
        match self {
            Dialect::Danmaku => danmaku(message, room, stamper),
            Dialect::Templates { .. } => match stamper.find(message) {
                Some(stamp) if stamp.line <= SEQ_MAX => Heard::Line(Line {
                    seq: stamp.line,
                    event: false,
                    stamp: Some(stamp),
                }),
                _ => Heard::Other,
            },
        }
    }
}

fn danmaku(message: &[u8], room: &Room, stamper: &Stamper) -> Heard {
    for (begin, event) in [(&room.line_begins, false), (&room.event_begins, true)] {
        if let Some((seq, rest)) = message.strip_prefix(&begin[..]).and_then(digits) {
            let stamp = stamper.find(rest);
            if seq > SEQ_MAX {
                return Heard::Unknown(TOO_HIGH.into());
            }
            return Heard::Line(Line { seq, event, stamp });
        }
    }
    match serde_json::from_slice::<Message>(message) {
        Ok(parsed) => parsed.meaning(message, room, stamper),
        Err(error) => Heard::Unknown(format!("not a message: {error}")),
    }
}

/// Every field a message of the gateway may have.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    room: Option<&'a str>,
    seq: Option<u64>,
    epoch: Option<u64>,
    recovered: Option<bool>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
    count: Option<u64>,
    upto: Option<u64>,
    code: Option<&'a str>,
    retry_after_ms: Option<u64>,
}

impl Message<'_> {
    fn meaning(&self, message: &[u8], room: &Room, stamper: &Stamper) -> Heard {
        let line = self.id.and_then(|id| id.get().parse().ok());
        if self.seq.is_some_and(|seq| seq > SEQ_MAX) {
            return Heard::Unknown(TOO_HIGH.into());
        }
        match (self.kind, self.seq) {
            ("danmaku" | "event", Some(seq)) if self.room == Some(&room.id) => Heard::Line(Line {
                seq,
                event: self.kind == "event",
                stamp: stamper.find(message),
            }),
            ("danmaku" | "event", _) => Heard::Unknown("a line of another room".into()),
            ("ack", Some(seq)) => line.map_or(Heard::Other, |line| Heard::Ack { line, seq }),
            ("joined", Some(seq)) => Heard::Joined {
                epoch: self.epoch.unwrap_or(0),
                seq,
                recovered: self.recovered.unwrap_or(false),
                messages: self.missed(room, stamper),
            },
            ("left", _) => Heard::Left,
            ("dropped", _) => Heard::Dropped {
                count: self.count.unwrap_or(0),
                upto: self.upto.filter(|upto| *upto <= SEQ_MAX),
            },
            ("error", _) => Heard::Error {
                line,
                code: self.code.unwrap_or("error").to_owned(),
            },
            ("notice", _) => Heard::ComeBack(self.retry_after_ms.unwrap_or(0)),
            ("welcome", _) => Heard::Welcome,
            ("pong", _) => Heard::Pong,
            ("epoch", Some(seq)) if self.room == Some(&room.id) => Heard::Epoch {
                epoch: self.epoch.unwrap_or(0),
                seq,
            },
            ("online" | "broadcast" | "push" | "recall" | "authed", _) => Heard::Other,
            (kind, _) => Heard::Unknown(format!("a message of type {kind}")),
        }
    }

    fn missed(&self, room: &Room, stamper: &Stamper) -> Vec<Line> {
        let messages = self.messages.iter().flatten();
        messages
            .filter_map(|raw| match danmaku(raw.get().as_bytes(), room, stamper) {
                Heard::Line(line) => Some(line),
                _ => None,
            })
            .collect()
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn fill(template: &str, room: &str, user: u32, text: &str) -> String {
    template
        .replace("{room}", room)
        .replace("{user}", &user.to_string())
        .replace("{text}", text)
}

fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    Some((text.parse().ok()?, &bytes[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Room {
        Room::new("1001".into())
    }

    fn hear(message: &str) -> Heard {
        Dialect::Danmaku.hear(message.as_bytes(), &room(), &Stamper::new("~s:"))
    }

    fn line(seq: u64, line: u64, due_us: u64) -> Heard {
        Heard::Line(Line {
            seq,
            event: false,
            stamp: Some(Stamp {
                line,
                due_us,
                node: 0,
            }),
        })
    }

    #[test]
    fn lines_are_known_in_any_order_of_fields() {
        let text = r#""text":"~s:7.8.""#;
        let usual =
            format!(r#"{{"type":"danmaku","room":"1001","seq":5,"ts":1,"user":null,{text}}}"#);
        let odd = format!(r#"{{{text},"seq":5,"room":"1001","type":"danmaku"}}"#);
        assert_eq!(hear(&usual), line(5, 7, 8));
        assert_eq!(hear(&odd), line(5, 7, 8));
        let gift = r#"{"type":"event","room":"1001","seq":6,"ts":1,"event":"gift","data":{"note":"~s:1.2."}}"#;
        assert!(matches!(
            hear(gift),
            Heard::Line(Line {
                seq: 6,
                event: true,
                stamp: Some(_)
            })
        ));
        let foreign =
            r#"{"type":"danmaku","room":"1001","seq":5,"ts":1,"user":null,"text":"hello"}"#;
        assert_eq!(
            hear(foreign),
            Heard::Line(Line {
                seq: 5,
                event: false,
                stamp: None
            })
        );
        let elsewhere = usual.replace("1001", "1002");
        assert!(matches!(hear(&elsewhere), Heard::Unknown(_)));
    }

    #[test]
    fn everything_else_the_gateway_says() {
        assert_eq!(
            hear(r#"{"type":"ack","id":9,"room":"1001","seq":4}"#),
            Heard::Ack { line: 9, seq: 4 }
        );
        assert_eq!(
            hear(r#"{"type":"dropped","room":"1001","count":12}"#),
            Heard::Dropped {
                count: 12,
                upto: None
            }
        );
        assert_eq!(
            hear(r#"{"type":"notice","code":"reconnect","retry_after_ms":70}"#),
            Heard::ComeBack(70)
        );
        assert_eq!(
            hear(r#"{"type":"online","room":"1001","count":3}"#),
            Heard::Other
        );
        assert_eq!(
            hear(
                r#"{"type":"error","id":9,"code":"rate_limited","message":"..","retry_after_ms":5}"#
            ),
            Heard::Error {
                line: Some(9),
                code: "rate_limited".into(),
            }
        );
        let joined = r#"{"type":"joined","room":"1001","online":2,"epoch":3,"seq":8,"recovered":true,"messages":[{"type":"danmaku","room":"1001","seq":8,"text":"~s:1.2."}]}"#;
        assert_eq!(
            hear(joined),
            Heard::Joined {
                epoch: 3,
                seq: 8,
                recovered: true,
                messages: vec![Line {
                    seq: 8,
                    event: false,
                    stamp: Some(Stamp {
                        line: 1,
                        due_us: 2,
                        node: 0
                    })
                }]
            }
        );
        assert_eq!(
            hear(r#"{"type":"epoch","room":"1001","epoch":5,"seq":2}"#),
            Heard::Epoch { epoch: 5, seq: 2 }
        );
        let high = r#"{"type":"danmaku","room":"1001","seq":9007199254740993,"text":"x"}"#;
        let odd_high = r#"{"seq":9007199254740993,"type":"ack","id":1}"#;
        for odd in [
            high,
            odd_high,
            "",
            "{",
            "[]",
            r#"{"type":"surprise"}"#,
            "\u{0}",
        ] {
            assert!(matches!(hear(odd), Heard::Unknown(_)), "{odd}");
        }
    }

    #[test]
    fn another_server_by_templates() {
        let dialect = Dialect::Templates {
            join: Some(r#"{"sub":"{room}","as":"{user}"}"#.into()),
            publish: r#"{"to":"{room}","say":"{text}"}"#.into(),
        };
        let speech = Speech {
            text: "~s:7.8.".into(),
            ..Speech::default()
        };
        assert_eq!(
            dialect.join(&room(), 5).unwrap(),
            r#"{"sub":"1001","as":"5"}"#
        );
        let published = dialect.publish(&room(), 5, 7, &speech);
        assert_eq!(published, r#"{"to":"1001","say":"~s:7.8."}"#);
        let stamper = Stamper::new("~s:");
        assert_eq!(
            dialect.hear(published.as_bytes(), &room(), &stamper),
            line(7, 7, 8)
        );
        assert_eq!(
            dialect.hear(b"anything else", &room(), &stamper),
            Heard::Other
        );
    }

    #[test]
    fn what_is_published_is_json() {
        let speech = Speech {
            text: "a \"quote\" \u{1}".into(),
            style: Some(r##"{"color":"#ff0000"}"##),
            giver: Some("Mei"),
        };
        for json in [
            Dialect::Danmaku.publish(&room(), 1, 2, &speech),
            Dialect::push(&room(), &speech),
            Dialect::push_to([room(), room()].iter(), &speech),
            Dialect::gift(&room(), &speech),
        ] {
            serde_json::from_str::<serde_json::Value>(&json).unwrap();
        }
    }
}
