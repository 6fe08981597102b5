//! What crosses Redis between the nodes of a cluster: batches of a room's lines, and how many each node holds of it.
//!
//! Sans-IO: bytes in, values out. It trusts nobody: whatever stands in Redis is checked, and what does not parse is no message. A
//! batch is made up by the node that took its lines; Redis puts its numbering before it, publishes it and keeps it:
//!
//! ```text
//! L 7421843201228 118 2 node-a.5f3c 41\n   lines: epoch, number of the first, how many, whose batch, which of them
//! l 0000007d ,"ts":..}                     an item: kind, length (u32, big-endian), the object from behind its number on
//! e 00000061 ,"ts":..}
//! N node-a.5f3c 250\n                      a node's connections in the room
//! ```

use bytes::Bytes;

use crate::base::ids::Epoch;

/// A header is never longer: a node's name of 128 bytes and five numbers.
const HEADER_BYTES_MAX: usize = 256;
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
    },
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
        "N" => Message::Count {
            node: words.next()?.into(),
            connections: words.next()?.parse().ok()?,
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
        };
        assert_eq!(message("N n 12\n", b""), Some(count));
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
        assert_eq!(message("N n -1\n", b""), None);
    }

    proptest! {
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
