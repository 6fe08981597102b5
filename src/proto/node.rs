//! What crosses Redis between the nodes of a cluster: batches of a room's lines, and how many each node holds of it.
//!
//! Sans-IO: bytes in, values out. It trusts nobody: whatever stands in Redis is checked, and what does not parse is no message. A
//! batch is made up by the node that took its lines; Redis puts its numbering before it, publishes it and keeps it:
//!
//! ```text
//! L 7421843201228 118 2 node-a.5f3c 41\n   lines: epoch, number of the first, how many, whose batch, which of them
//! l 0000007d ,"ts":..}                     an item: kind, length (u32, big-endian), the object from behind its number on
//! e 00000061 ,"ts":..}
//! N node-a.5f3c 250 312 400 9000\n         a node's connections in the room; users, most connections and different users on all
//! P node-a.5f3c\n{"viewers":250,..}        what happened at a node lately, as figures
//! W node-a.5f3c\n                         somebody there looks at the figures
//! S\n{"access":"private"}                    what a room's owner has said of it
//! O node-a.5f3c 1 77 kick 1001\nann\nbye   what every node is to do, and who awaits the answer
//! ```

pub mod about;
pub mod page;
pub mod part;

use std::collections::HashMap;

use bytes::Bytes;
use serde::de::IgnoredAny;

use self::part::Part;
use crate::base::ids::{Epoch, RoomId, ShardId, UserId};

/// A header is never longer: a node's name of 128 bytes and five numbers.
const HEADER_BYTES_MAX: usize = 256;
/// A reason is never longer: longer ones are cut before they get here.
const SENTENCE_BYTES_MAX: usize = 1024;
/// Kind and length of an item.
const ITEM_HEAD_BYTES: usize = 5;

/// What an item is to a viewer that cannot have everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line of the crowd.
    Line,
    /// A line of someone who runs the room.
    Host,
    /// An event.
    Event,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Line => b'l',
            Kind::Host => b'h',
            Kind::Event => b'e',
        }
    }

    fn of(byte: u8) -> Option<Kind> {
        match byte {
            b'l' => Some(Kind::Line),
            b'h' => Some(Kind::Host),
            b'e' => Some(Kind::Event),
            _ => None,
        }
    }
}

/// Appends an item to a batch's payload; `write` appends the object from behind its number on.
pub fn put(payload: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
    payload.push(kind.byte());
    let length_at = payload.len();
    payload.extend_from_slice(&[0; 4]);
    write(payload);
    let bytes = (payload.len() - length_at - 4) as u32;
    payload[length_at..length_at + 4].copy_from_slice(&bytes.to_be_bytes());
}

/// What came by a room's channel or stands in its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Numbered lines and events.
    Lines(Lines),
    /// A node's connections in the room.
    Count {
        /// Which node.
        node: Box<str>,
        /// How many.
        connections: u32,
        /// What all nodes have counted together.
        totals: Totals,
    },
    /// What happened at a node lately.
    Part {
        /// Which node.
        node: Box<str>,
        /// What.
        part: Part,
    },
    /// Somebody on a node looks at the room's figures.
    Watch {
        /// Which node.
        node: Box<str>,
    },
    /// What the room's owner has said of it, as the body of `PUT /rooms/{room}`.
    Settings(Bytes),
}

/// Who is in a room, on all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Different users.
    pub users: u32,
    /// Most connections at once.
    pub peak: u32,
    /// Different users that have been there, give or take a hundredth.
    pub visitors: u64,
}

/// A numbered batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// The numbering.
    pub epoch: Epoch,
    /// The number of the first.
    pub first: u64,
    /// How many; at least one.
    pub count: u32,
    /// Who made it up.
    pub node: Box<str>,
    /// Which of that node's batches of this room.
    pub batch: u64,
    items: Bytes,
}

impl Lines {
    /// The number of the last.
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }

    /// Bytes of the items.
    pub fn bytes(&self) -> usize {
        self.items.len()
    }

    /// The items, in order.
    pub fn items(&self) -> Items {
        items(self.items.clone())
    }
}

/// A payload's items; it has been checked or is our own.
pub fn items(payload: Bytes) -> Items {
    Items { rest: payload }
}

/// Runs through a payload.
#[derive(Clone, Debug)]
pub struct Items {
    rest: Bytes,
}

impl Iterator for Items {
    type Item = (Kind, Bytes);

    fn next(&mut self) -> Option<(Kind, Bytes)> {
        let kind = Kind::of(*self.rest.first()?)?;
        let length: [u8; 4] = self.rest.get(1..ITEM_HEAD_BYTES)?.try_into().ok()?;
        let end = ITEM_HEAD_BYTES.checked_add(u32::from_be_bytes(length) as usize)?;
        if self.rest.len() < end {
            return None;
        }
        let mut item = self.rest.split_to(end);
        Some((kind, item.split_off(ITEM_HEAD_BYTES)))
    }
}

/// Reads a message; `None` if it is none: another program's, or of a version that speaks otherwise.
pub fn parse(bytes: Bytes) -> Option<Message> {
    let window = bytes.get(..bytes.len().min(HEADER_BYTES_MAX))?;
    let end = window.iter().position(|byte| *byte == b'\n')?;
    let header = std::str::from_utf8(window.get(..end)?).ok()?;
    let mut words = header.split(' ');
    let message = match words.next()? {
        "L" => {
            let epoch = Epoch(words.next()?.parse().ok()?);
            let lines = Lines {
                epoch,
                first: words.next()?.parse().ok()?,
                count: words.next()?.parse().ok()?,
                node: words.next()?.into(),
                batch: words.next()?.parse().ok()?,
                items: bytes.slice(end + 1..),
            };
            is_whole(&lines).then_some(Message::Lines(lines))?
        }
        "P" => Message::Part {
            node: words.next()?.into(),
            part: Part::read(&bytes[end + 1..])?,
        },
        "W" => Message::Watch {
            node: words.next()?.into(),
        },
        "S" => Message::Settings(bytes.slice(end + 1..)),
        "N" => Message::Count {
            node: words.next()?.into(),
            connections: words.next()?.parse().ok()?,
            totals: Totals {
                users: words.next()?.parse().ok()?,
                peak: words.next()?.parse().ok()?,
                visitors: words.next()?.parse().ok()?,
            },
        },
        _ => return None,
    };
    words.next().is_none().then_some(message)
}

/// Whether there are as many items as it says, nothing beside them, and a number for each.
fn is_whole(lines: &Lines) -> bool {
    let mut items = lines.items();
    let count = items.by_ref().count();
    let numbered = lines.first.checked_add(u64::from(lines.count)).is_some();
    lines.first > 0
        && count > 0
        && count == lines.count as usize
        && items.rest.is_empty()
        && numbered
}

/// Who has asked every node for something, and under what key an answer reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The node.
    pub node: Box<str>,
    /// Its shard.
    pub shard: ShardId,
    /// The shard's key.
    pub key: u64,
}

/// What reaches every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// One JSON object to every viewer.
    Broadcast {
        /// The object.
        json: Bytes,
    },
    /// One JSON object to every connection of a user.
    Push {
        /// Whose.
        user: UserId,
        /// The object.
        json: Bytes,
    },
    /// Close every connection of a user.
    Disconnect {
        /// Whose.
        user: UserId,
        /// 4008, or 4400 if it may come back.
        code: u16,
        /// A sentence.
        reason: Box<str>,
    },
    /// Send a user out of a room.
    Kick {
        /// The room.
        room: RoomId,
        /// Who.
        user: UserId,
        /// A sentence.
        reason: Box<str>,
    },
    /// End a room.
    Close {
        /// The room.
        room: RoomId,
        /// A sentence.
        reason: Box<str>,
    },
    /// Tell who is in a room.
    Members {
        /// The room.
        room: RoomId,
        /// So many at most.
        limit: usize,
        /// Whose ids come after this one.
        after: Option<Box<str>>,
    },
}

/// Writes an order: a header, a line with the user where there is one, and the rest. Users hold no control characters.
pub fn write_order(asker: &Asker, order: &Order) -> Vec<u8> {
    let (word, user, rest): (String, Option<&UserId>, &[u8]) = match order {
        Order::Broadcast { json } => ("broadcast".into(), None, json),
        Order::Push { user, json } => ("push".into(), Some(user), json),
        Order::Disconnect { user, code, reason } => {
            (format!("disconnect {code}"), Some(user), reason.as_bytes())
        }
        Order::Kick { room, user, reason } => {
            (format!("kick {room}"), Some(user), reason.as_bytes())
        }
        Order::Close { room, reason } => (format!("close {room}"), None, reason.as_bytes()),
        Order::Members { room, limit, after } => {
            let after = after.as_deref().unwrap_or_default();
            (format!("members {room} {limit}"), None, after.as_bytes())
        }
    };
    let Asker { node, shard, key } = asker;
    let mut out = format!("O {node} {} {key} {word}\n", shard.0).into_bytes();
    if let Some(user) = user {
        out.extend_from_slice(user.as_str().as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(rest);
    out
}

/// Reads an order; `None` if it is none that this version knows.
pub fn parse_order(bytes: &Bytes) -> Option<(Asker, Order)> {
    let (header, rest) = line(bytes)?;
    let mut words = header.split(' ');
    if words.next()? != "O" {
        return None;
    }
    let asker = Asker {
        node: words.next()?.into(),
        shard: ShardId(words.next()?.parse().ok()?),
        key: words.next()?.parse().ok()?,
    };
    let user = |rest: &Bytes| {
        let (user, rest) = line(rest)?;
        Some((UserId::parse(user)?, rest))
    };
    let order = match words.next()? {
        "broadcast" => Order::Broadcast {
            json: object(rest)?,
        },
        "push" => {
            let (user, rest) = user(&rest)?;
            let json = object(rest)?;
            Order::Push { user, json }
        }
        "disconnect" => {
            let code = words.next()?.parse().ok()?;
            let (user, rest) = user(&rest)?;
            let reason = sentence(&rest)?;
            Order::Disconnect { user, code, reason }
        }
        "kick" => {
            let room = RoomId::parse(words.next()?)?;
            let (user, rest) = user(&rest)?;
            let reason = sentence(&rest)?;
            Order::Kick { room, user, reason }
        }
        "close" => Order::Close {
            room: RoomId::parse(words.next()?)?,
            reason: sentence(&rest)?,
        },
        "members" => {
            let (room, limit) = (RoomId::parse(words.next()?)?, words.next()?.parse().ok()?);
            let after = Some(sentence(&rest)?).filter(|after| !after.is_empty());
            Order::Members { room, limit, after }
        }
        _ => return None,
    };
    words.next().is_none().then_some((asker, order))
}

/// The first line, and what follows it.
fn line(bytes: &Bytes) -> Option<(&str, Bytes)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((
        std::str::from_utf8(&bytes[..end]).ok()?,
        bytes.slice(end + 1..),
    ))
}

/// A JSON object on one line, as it is sent to viewers.
fn object(bytes: Bytes) -> Option<Bytes> {
    let on_one_line = !bytes.contains(&b'\n');
    let is_object = serde_json::from_slice::<HashMap<String, IgnoredAny>>(&bytes).is_ok();
    (on_one_line && is_object).then_some(bytes)
}

/// What a person is told; it must fit into a close frame.
fn sentence(bytes: &Bytes) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let fits = text.len() <= SENTENCE_BYTES_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(header: &str, payload: &[u8]) -> Option<Message> {
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(payload);
        parse(bytes.into())
    }

    fn payload(items: &[(Kind, &str)]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (kind, rest) in items {
            put(&mut payload, *kind, |out| {
                out.extend_from_slice(rest.as_bytes())
            });
        }
        payload
    }

    #[test]
    fn a_batch_comes_back_as_it_went() {
        let said = [
            (Kind::Line, ",\"ts\":1}"),
            (Kind::Host, ""),
            (Kind::Event, "}"),
        ];
        let Some(Message::Lines(lines)) = message("L 77 5 3 node.1 9\n", &payload(&said)) else {
            panic!("no lines");
        };
        assert_eq!((lines.epoch, lines.first, lines.last()), (Epoch(77), 5, 7));
        assert_eq!((&*lines.node, lines.batch), ("node.1", 9));
        let found: Vec<_> = lines.items().collect();
        let wanted = said.map(|(kind, rest)| (kind, Bytes::from(rest)));
        assert_eq!(found, wanted);
        let count = Message::Count {
            node: "n".into(),
            connections: 12,
            totals: Totals {
                users: 9,
                peak: 20,
                visitors: 300,
            },
        };
        assert_eq!(message("N n 12 9 20 300\n", b""), Some(count));
    }

    #[test]
    fn what_is_no_message_is_none() {
        let one = payload(&[(Kind::Line, "}")]);
        assert!(message("L 77 5 1 n 9\n", &one).is_some());
        for header in [
            "L 77 5 2 n 9\n",
            "L 77 5 0 n 9\n",
            "L 77 0 1 n 9\n",
            "L 77 18446744073709551615 1 n 9\n",
            "L 77 5 1 n\n",
            "L 77 5 1 n 9 x\n",
            "L 77 5 1 n 9",
            "M 77 5 1 n 9\n",
            "L -1 5 1 n 9\n",
            "\n",
            "",
        ] {
            assert_eq!(message(header, &one), None, "{header:?}");
        }
        assert_eq!(message("L 77 5 1 n 9\n", &one[..one.len() - 1]), None);
        assert_eq!(message("L 77 5 1 n 9\n", &[&one[..], b"x"].concat()), None);
        assert_eq!(message("N n -1 9 20 300\n", b""), None);
    }

    fn orders() -> Vec<Order> {
        let user = || UserId::parse("ann b").unwrap();
        let room = || RoomId::parse("r:1").unwrap();
        let json = || Bytes::from_static(b"{\"type\":\"push\"}");
        vec![
            Order::Broadcast { json: json() },
            Order::Push {
                user: user(),
                json: json(),
            },
            Order::Disconnect {
                user: user(),
                code: 4008,
                reason: "bye now".into(),
            },
            Order::Kick {
                room: room(),
                user: user(),
                reason: "".into(),
            },
            Order::Close {
                room: room(),
                reason: "it is over".into(),
            },
            Order::Members {
                room: room(),
                limit: 100,
                after: None,
            },
            Order::Members {
                room: room(),
                limit: 7,
                after: Some("ann b".into()),
            },
        ]
    }

    fn asker() -> Asker {
        Asker {
            node: "n.1".into(),
            shard: ShardId(3),
            key: 77,
        }
    }

    #[test]
    fn orders_come_back_as_they_went() {
        for order in orders() {
            let written = write_order(&asker(), &order).into();
            assert_eq!(parse_order(&written), Some((asker(), order)));
        }
    }

    #[test]
    fn what_would_harm_a_viewer_is_no_order() {
        for bad in [
            "O n 1 2 broadcast\nno json",
            "O n 1 2 broadcast\n[1]",
            "O n 1 2 broadcast\n{\"a\":\n1}",
            "O n 1 2 broadcast more\n{}",
            "O n 1 2 push\n{}",
            "O n 1 2 disconnect x\nann\nbye",
            "O n 1 2 kick a b\nann\nbye",
            "O n 1 2 close r\nby\u{7}e",
            "O n 99999 2 close r\nbye",
            "O n 1 2 dance r\nbye",
            "O n 1 2 members r -1\n",
            "O n 1 2 members r\n",
            "P n 1 2 close r\nbye",
            "",
        ] {
            assert_eq!(parse_order(&Bytes::from(bad)), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_order_makes_it_panic(head in "O n 1 2 (push|kick r|close r|broadcast|disconnect 1|members r 9)\n", bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
            let mut whole = head.into_bytes();
            whole.extend_from_slice(&bytes);
            if let Some((asker, order)) = parse_order(&whole.into()) {
                let again = write_order(&asker, &order).into();
                prop_assert_eq!(parse_order(&again), Some((asker, order)));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), as_lines: bool) {
            let mut whole = if as_lines { b"L 1 1 1 n 1\n".to_vec() } else { Vec::new() };
            whole.extend_from_slice(&bytes);
            if let Some(Message::Lines(lines)) = parse(whole.into()) {
                prop_assert_eq!(lines.items().count(), lines.count as usize);
            }
        }
    }
}
