//! Reading JSON objects field by field without building a tree: one scan, values borrowed as they stand in the text.
//!
//! Shared by the readers of client messages and HTTP bodies. Owns no state. Every failure is a `bad_message` refusal that
//! names the field; a reader that has a more precise code puts it in place.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::base::refusal::{Code, Refusal};

/// Deepest nesting of one field's value. Values are scanned without recursion, so this bounds what comes after.
pub(super) const NESTING_MAX: usize = 64;
/// Deepest nesting of a publisher's `data`: it is sent to every viewer, whose parsers may be weaker than ours.
pub(super) const DATA_NESTING_MAX: usize = 32;
/// Characters of a wrong value that are shown back to whoever sent it.
const EXCERPT_CHARS: usize = 32;

/// The named fields of one object. Absent and `null` are both `None`.
pub(super) struct Object<'a, const N: usize> {
    /// In the order of the names asked for.
    pub values: [Option<&'a RawValue>; N],
    /// What is wrong with the object although it is JSON: a named field twice, or nesting too deep.
    pub fault: Option<Refusal>,
}

impl<'a, const N: usize> Object<'a, N> {
    /// The values, or the fault.
    pub fn sound(self) -> Result<[Option<&'a RawValue>; N], Refusal> {
        match self.fault {
            None => Ok(self.values),
            Some(fault) => Err(fault),
        }
    }
}

/// Takes the fields called `names` out of `json`, which is called `what` in refusals. Fields of other names are ignored: they
/// may be added to the protocol later.
///
/// Errors: not JSON (trailing text included), or not an object.
pub(super) fn object<'a, const N: usize>(
    json: &'a str,
    what: &str,
    names: &[&'static str; N],
) -> Result<Object<'a, N>, Refusal> {
    let start = json.trim_ascii_start();
    if !start.starts_with('{') {
        let found = if start.is_empty() {
            "nothing"
        } else {
            kind_of(start)
        };
        return Err(bad(format!("{what} must be a JSON object, found {found}")));
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let object = reader.deserialize_map(Fields { names });
    object
        .and_then(|object| reader.end().map(|()| object))
        .map_err(|error| bad(format!("{what} is not JSON: {error}")))
}

struct Fields<'n, const N: usize> {
    names: &'n [&'static str; N],
}

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = Object<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        let mut fault = None;
        while let Some((key, value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
            if fault.is_none() && nested_deeper(value.get(), NESTING_MAX) {
                let field = excerpt(&key.0);
                fault = Some(bad(format!(
                    "{field} is nested deeper than {NESTING_MAX} levels"
                )));
            }
            let slot = self
                .names
                .iter()
                .zip(values.iter_mut())
                .find(|(name, _)| **name == key.0);
            match slot {
                Some((name, Some(_))) => fault = Some(bad(format!("{name} stands there twice"))),
                Some((_, slot)) if value.get() != "null" => *slot = Some(value),
                _ => {}
            }
        }
        Ok(Object { values, fault })
    }
}

/// A field's name: borrowed unless it was written with escapes. (`Cow` itself always reads into an owned string.)
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Key(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Key(Cow::Owned(name.to_owned())))
    }
}

/// A string's content, borrowed unless it has escapes.
///
/// Errors: another type, or an escape that is half a surrogate pair.
pub(super) fn string<'a>(field: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, Refusal> {
    let json = raw.get();
    let inner = json.strip_prefix('"').and_then(|s| s.strip_suffix('"'));
    match inner {
        None => Err(wrong_type(field, "a string", json)),
        // The scan that made the raw value has already refused control characters.
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        Some(_) => match serde_json::from_str::<String>(json) {
            Ok(text) => Ok(Cow::Owned(text)),
            Err(_) => Err(bad(format!(
                "{field} holds an escape that is half a surrogate pair"
            ))),
        },
    }
}

/// A whole number in `0..=max`, written without sign, fraction or exponent.
pub(super) fn whole(field: &str, raw: &RawValue, max: u64) -> Result<u64, Refusal> {
    let json = raw.get();
    match json.parse::<u64>() {
        Ok(number) if number <= max => Ok(number),
        _ if is_number(json) => Err(bad(format!(
            "{field} must be a whole number from 0 to {max}, found {}",
            excerpt(json)
        ))),
        _ => Err(wrong_type(field, "a number", json)),
    }
}

/// `true` or `false`.
pub(super) fn boolean(field: &str, raw: &RawValue) -> Result<bool, Refusal> {
    match raw.get() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(wrong_type(field, "true or false", other)),
    }
}

/// The items of an array of 1..=`items_max`.
pub(super) fn array<'a>(
    field: &str,
    raw: &'a RawValue,
    items_max: usize,
) -> Result<Vec<&'a RawValue>, Refusal> {
    let items = serde_json::from_str::<Vec<&RawValue>>(raw.get())
        .map_err(|_| wrong_type(field, "an array", raw.get()))?;
    if !(1..=items_max).contains(&items.len()) {
        return Err(bad(format!(
            "{field} has {} entries; allowed are 1 to {items_max}",
            items.len()
        )));
    }
    Ok(items)
}

/// A publisher's own JSON, fit to be sent to others: at most [`DATA_NESTING_MAX`] levels, on one line (newlines separate objects
/// in a batch frame), and nothing a strict parser at the other end would choke on, such as `1e999` or half a surrogate pair.
/// Its length is bounded by the body it came in.
pub(super) fn data(raw: &RawValue) -> Result<Box<RawValue>, Refusal> {
    let json = raw.get();
    if nested_deeper(json, DATA_NESTING_MAX) {
        return Err(bad(format!(
            "data is nested deeper than {DATA_NESTING_MAX} levels"
        )));
    }
    serde_json::from_str::<serde_json::Value>(json)
        .map_err(|error| bad(format!("data cannot be passed on: {error}")))?;
    RawValue::from_string(one_line(json).into_owned())
        .map_err(|error| bad(format!("data is not JSON: {error}")))
}

/// Valid JSON on one line: as it is, or without any whitespace between tokens if there are raw newlines there. (Inside strings
/// JSON allows none.)
pub(super) fn one_line(json: &str) -> Cow<'_, str> {
    if !json.contains(['\n', '\r']) {
        return Cow::Borrowed(json);
    }
    let mut line = String::with_capacity(json.len());
    let mut within = Within::default();
    for c in json.chars() {
        if within.string(c) || !matches!(c, ' ' | '\t' | '\n' | '\r') {
            line.push(c);
        }
    }
    Cow::Owned(line)
}

/// Whether valid JSON opens more than `levels` brackets inside each other.
fn nested_deeper(json: &str, levels: usize) -> bool {
    if !json.starts_with(['{', '[']) {
        return false;
    }
    let mut within = Within::default();
    let mut depth = 0usize;
    for c in json.chars() {
        match c {
            _ if within.string(c) => {}
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > levels {
            return true;
        }
    }
    false
}

/// Where in valid JSON a scan stands.
#[derive(Default)]
struct Within {
    string: bool,
    escape: bool,
}

impl Within {
    /// Takes the next character; whether it belongs to a string (its quotes included).
    fn string(&mut self, c: char) -> bool {
        let was = self.string;
        match c {
            _ if self.escape => self.escape = false,
            '"' => self.string = !was,
            '\\' => self.escape = was,
            _ => {}
        }
        was || self.string
    }
}

/// A `bad_message` refusal.
pub(super) fn bad(reason: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::BadMessage, reason)
}

/// A field that must be there and is not.
pub(super) fn missing(field: &str) -> Refusal {
    bad(format!("{field} is missing"))
}

/// A field of another type.
pub(super) fn wrong_type(field: &str, wanted: &str, json: &str) -> Refusal {
    bad(format!("{field} must be {wanted}, found {}", kind_of(json)))
}

/// The first characters of what a client sent, for a refusal's reason.
pub(super) fn excerpt(text: &str) -> &str {
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

/// Whether a JSON value is a number.
pub(super) fn is_number(json: &str) -> bool {
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

fn kind_of(json: &str) -> &'static str {
    match json.bytes().next() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ if is_number(json) => "a number",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn fields_are_taken_by_name_and_null_is_absent() {
        let [a, b, c] = object(
            r#" {"b":[1, 2],"x":{},"\u0061":"q","c":null} "#,
            "it",
            &["a", "b", "c"],
        )
        .unwrap()
        .sound()
        .unwrap();
        assert_eq!(a.map(RawValue::get), Some("\"q\""));
        assert_eq!(b.map(RawValue::get), Some("[1, 2]"));
        assert!(c.is_none());
    }

    #[test]
    fn what_is_no_object_says_what_was_found() {
        for (json, found) in [
            ("", "nothing"),
            ("[1]", "an array"),
            (" 7", "a number"),
            ("?", "something else"),
        ] {
            let reason = object::<1>(json, "it", &["a"]).err().unwrap().reason;
            assert_eq!(reason, format!("it must be a JSON object, found {found}"));
        }
        for json in [
            "{",
            "{}x",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":\"\n\"}",
        ] {
            let reason = object::<1>(json, "it", &["a"]).err().unwrap().reason;
            assert!(reason.starts_with("it is not JSON: "), "{reason}");
        }
    }

    #[test]
    fn a_field_twice_or_too_deep_is_a_fault() {
        let twice = object(r#"{"a":1,"a":2}"#, "it", &["a"]).unwrap();
        assert_eq!(twice.fault.unwrap().reason, "a stands there twice");
        assert_eq!(twice.values[0].map(RawValue::get), Some("1"));
        for (levels, faulty) in [
            (NESTING_MAX, false),
            (NESTING_MAX + 1, true),
            (100_000, true),
        ] {
            let json = format!("{{\"deep\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
            let fault = object::<1>(&json, "it", &["a"]).unwrap().fault;
            assert_eq!(fault.is_some(), faulty, "{levels}");
        }
        let brackets_in_a_string = format!("{{\"a\":[\"\\\"{}\"]}}", "[".repeat(500));
        assert!(
            object::<1>(&brackets_in_a_string, "it", &["a"])
                .unwrap()
                .fault
                .is_none()
        );
    }

    #[test]
    fn data_is_put_on_one_line_and_kept_otherwise() {
        let spread = raw("{ \"a b\" :\r\n[1,\t\"x \\\" \\\\\" ] }");
        assert_eq!(data(&spread).unwrap().get(), r#"{"a b":[1,"x \" \\"]}"#);
        let spaced = raw(r#"{ "a": 1.50 }"#);
        assert_eq!(data(&spaced).unwrap().get(), spaced.get());
    }

    #[test]
    fn data_that_would_hurt_a_viewer_is_refused() {
        for json in [
            "1e999",
            r#"["\ud800"]"#,
            &format!("{}{}", "[".repeat(33), "]".repeat(33)),
        ] {
            assert_eq!(
                data(&raw(json)).err().map(|r| r.code),
                Some(Code::BadMessage),
                "{json}"
            );
        }
    }
}
