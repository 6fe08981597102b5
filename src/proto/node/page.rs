//! A page of a room's members, as one node tells another that was asked for it.

use serde::{Deserialize, Serialize};

/// Entries a node never exceeds: what holds more is another program's.
const ENTRIES_MAX: usize = 10_000;

/// Members at one node, by user id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The entries; the one of anonymous connections is last.
    pub members: Vec<Entry>,
    /// There are more behind the last.
    pub more: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Id and name; `None`: everybody without one.
    pub user: Option<(String, String)>,
    /// Connections in the room.
    pub connections: u32,
    /// Milliseconds since 1970 of the first of them.
    pub joined: u64,
}

impl Page {
    /// As it crosses Redis: on one line.
    pub fn write(&self) -> Vec<u8> {
        // Words and numbers: it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what a node told; `None` if it is no such thing.
    pub fn read(json: &str) -> Option<Page> {
        let page: Page = serde_json::from_str(json).ok()?;
        (page.members.len() <= ENTRIES_MAX).then_some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_across() {
        let entry = |user| Entry {
            user,
            connections: 2,
            joined: 7,
        };
        let page = Page {
            members: vec![
                entry(Some(("a b".into(), "Ann \"A\" \u{7}é".into()))),
                entry(None),
            ],
            more: true,
        };
        let json = String::from_utf8(page.write()).unwrap();
        assert!(!json.contains('\n'));
        assert_eq!(Page::read(&json), Some(page));
        for strange in ["", "{}", "[]", r#"{"members":[{}],"more":false}"#] {
            assert_eq!(Page::read(strange), None);
        }
        let long = Page {
            members: vec![entry(None); ENTRIES_MAX + 1],
            more: false,
        };
        assert_eq!(Page::read(&String::from_utf8(long.write()).unwrap()), None);
    }
}
