//! The header fields of one request: one buffer and ranges into it, so that a head costs two allocations however many
//! fields it has. Read-only once made.

use std::fmt;

/// Header fields in the order they came. Names compare without regard to case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// The whole head as it came; bytes that are no UTF-8 have become `?`.
    text: Box<str>,
    entries: Box<[Entry]>,
}

/// Where one field stands in the text. A head stays far below 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Span,
    pub(super) value: Span,
}

/// A range of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    begin: u32,
    end: u32,
}

impl Span {
    /// Where `part` stands in `whole`, of which it is a part.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Span {
        let begin = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        debug_assert!(begin + part.len() <= whole.len());
        Span {
            begin: begin as u32,
            end: (begin + part.len()) as u32,
        }
    }

    /// That part of `text`.
    pub(super) fn within(self, text: &str) -> &str {
        text.get(self.begin as usize..self.end as usize)
            .unwrap_or_default()
    }
}

impl Headers {
    pub(super) fn new(text: Box<str>, entries: Box<[Entry]>) -> Headers {
        Headers { text, entries }
    }

    /// Lets every field called `name` have the value at `value`.
    pub(super) fn repoint(&mut self, name: &str, value: Span) {
        for entry in &mut self.entries {
            if entry.name.within(&self.text).eq_ignore_ascii_case(name) {
                entry.value = value;
            }
        }
    }

    /// The value of the first field with that name, without the blanks around it.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all fields with that name, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The elements of a comma-separated list, over all fields with that name; empty ones are left out
    /// (RFC 9110 section 5.6.1). For lists without quoted strings only.
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(|element| element.trim_matches([' ', '\t']))
            .filter(|element| !element.is_empty())
    }

    /// Whether such a list holds `token`, case apart: `Connection`, `Upgrade`.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|t| t.eq_ignore_ascii_case(token))
    }

    /// Names and values, in order, names spelt as sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = &*self.text;
        self.entries
            .iter()
            .map(move |entry| (entry.name.within(text), entry.value.within(text)))
    }

    /// How many fields there are; at most [`super::FIELDS_MAX`].
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Names only: values hold tokens and keys, which must not reach a log.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}
