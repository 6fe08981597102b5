//! What one node has counted in a room lately, as it crosses Redis and stands there.

use serde::{Deserialize, Serialize};

use crate::base::ids::UserId;

/// A part never takes more than this: twenty speakers with the longest ids and names.
const BYTES_MAX: usize = 32 << 10;

/// One node's part of a room's statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Viewers there now.
    pub viewers: u32,
    /// Joins of the last minute.
    pub joins: u32,
    /// Leaves of the last minute.
    pub leaves: u32,
    /// Lines of the last five seconds, those this node took.
    pub lines: u32,
    /// Who said most of them in the last one to two minutes, the busiest first.
    pub speakers: Vec<Spoke>,
}

/// A speaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoke {
    /// Who.
    #[serde(with = "user_id")]
    pub id: UserId,
    /// Their name.
    pub name: Box<str>,
    /// What they said.
    pub lines: u32,
}

impl Part {
    /// As it crosses Redis.
    pub fn write(&self) -> Vec<u8> {
        // Words and numbers: it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a part; `None` if it is none.
    pub fn read(bytes: &[u8]) -> Option<Part> {
        let fits = bytes.len() <= BYTES_MAX;
        fits.then(|| serde_json::from_slice(bytes).ok()).flatten()
    }
}

mod user_id {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::base::ids::UserId;

    pub fn serialize<S: Serializer>(id: &UserId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(id.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UserId, D::Error> {
        let text = String::deserialize(from)?;
        UserId::parse(&text).ok_or_else(|| D::Error::custom("not a user's id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_comes_across_and_nothing_else_does() {
        let spoke = |id: &str| Spoke {
            id: UserId::parse(id).unwrap(),
            name: "x".repeat(256).into(),
            lines: 3,
        };
        let part = Part {
            viewers: 7,
            speakers: (0..20).map(|n| spoke(&format!("{n:0128}"))).collect(),
            ..Part::default()
        };
        assert_eq!(Part::read(&part.write()), Some(part));
        for strange in [
            &b""[..],
            b"{}",
            br#"{"viewers":1,"joins":0,"leaves":0,"lines":0,"speakers":[{"id":"","name":"a","lines":1}]}"#,
            br#"{"viewers":-1,"joins":0,"leaves":0,"lines":0,"speakers":[]}"#,
        ] {
            assert_eq!(Part::read(strange), None);
        }
    }
}
