//! The rules for what people read: the text of a line, its looks, an event's name.
//!
//! Pure functions, called on the sender's shard before anything goes to a room. They never judge content (that is moderation's).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::json::{self, bad, excerpt};
use super::{Mode, Style};
use crate::base::refusal::{Code, Refusal};

/// Longest event name in bytes.
pub const EVENT_NAME_BYTES_MAX: usize = 64;
/// Font sizes in CSS pixels a client must be able to show.
pub const SIZE_RANGE: std::ops::RangeInclusive<u8> = 12..=64;

/// Cleans the text of a line: control characters, line separators and bidirectional overrides removed, then trimmed. Borrowed
/// from `text` unless something inside had to go. The joiners and selectors that emoji are made of stay.
///
/// Errors: `bad_text` if nothing visible is left, or more than `text_bytes_max` bytes.
pub fn clean_text(text: &str, text_bytes_max: usize) -> Result<Cow<'_, str>, Refusal> {
    let cleaned = clean(text);
    if cleaned.chars().all(is_invisible) {
        let reason = format!(
            "text is empty after trimming ({} bytes came); allowed are 1 to {text_bytes_max} bytes",
            text.len()
        );
        return Err(Refusal::new(Code::BadText, reason));
    }
    if cleaned.len() > text_bytes_max {
        let reason = format!(
            "text has {} bytes after trimming; allowed are 1 to {text_bytes_max}",
            cleaned.len()
        );
        return Err(Refusal::new(Code::BadText, reason));
    }
    Ok(cleaned)
}

/// [`clean_text`] without its bounds, for titles and reasons.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    let trimmed = text.trim();
    if !trimmed.contains(is_removed) {
        return Cow::Borrowed(trimmed);
    }
    let kept: String = trimmed.chars().filter(|&c| !is_removed(c)).collect();
    // What was removed at an edge may have had whitespace behind it.
    Cow::Owned(match kept.trim() {
        all if all.len() == kept.len() => kept,
        less => less.to_owned(),
    })
}

/// Characters that would break lines, hide text or turn its direction on someone else's screen.
pub(super) fn is_removed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Characters that show nothing by themselves: a line of only these is empty.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{2800}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// Reads a line's looks, `{"color":"#rrggbb","mode":"scroll|top|bottom","size":12..64}`. Every field may be left out; unknown
/// ones are ignored.
///
/// Errors: `bad_style`, naming the field.
pub fn parse_style(raw: &RawValue) -> Result<Style, Refusal> {
    read_style(raw).map_err(|refusal| Refusal {
        code: Code::BadStyle,
        ..refusal
    })
}

fn read_style(raw: &RawValue) -> Result<Style, Refusal> {
    let names = ["color", "mode", "size"];
    let [color, mode, size] = json::object(raw.get(), "style", &names)?.sound()?;
    let default = Style::default();
    Ok(Style {
        color: color.map_or(Ok(default.color), read_color)?,
        mode: mode.map_or(Ok(default.mode), read_mode)?,
        size: size.map_or(Ok(default.size), read_size)?,
    })
}

fn read_color(raw: &RawValue) -> Result<u32, Refusal> {
    let word = json::string("style.color", raw)?;
    let digits = word
        .strip_prefix('#')
        .filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()));
    digits
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(|| {
            bad(format!(
                "style.color must be #rrggbb, found \"{}\"",
                excerpt(&word)
            ))
        })
}

fn read_mode(raw: &RawValue) -> Result<Mode, Refusal> {
    let word = json::string("style.mode", raw)?;
    Mode::parse(&word).ok_or_else(|| {
        bad(format!(
            "style.mode must be scroll, top or bottom, found \"{}\"",
            excerpt(&word)
        ))
    })
}

fn read_size(raw: &RawValue) -> Result<u8, Refusal> {
    let size = json::whole("style.size", raw, u64::from(*SIZE_RANGE.end()))?;
    u8::try_from(size)
        .ok()
        .filter(|size| SIZE_RANGE.contains(size))
        .ok_or_else(|| {
            bad(format!(
                "style.size must be {} to {}, found {size}",
                SIZE_RANGE.start(),
                SIZE_RANGE.end()
            ))
        })
}

/// Checks an event's name: 1..=64 bytes of `[A-Za-z0-9_.:-]`.
///
/// Errors: `bad_event`.
pub fn check_event_name(name: &str) -> Result<(), Refusal> {
    let spelt = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    if (1..=EVENT_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(spelt) {
        return Ok(());
    }
    let reason = format!(
        "event is \"{}\" ({} bytes); allowed are 1 to {EVENT_NAME_BYTES_MAX} bytes of [A-Za-z0-9_.:-]",
        excerpt(name),
        name.len()
    );
    Err(Refusal::new(Code::BadEvent, reason))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ANY_TEXT;
    use super::*;

    #[test]
    fn text_is_trimmed_and_borrowed_where_nothing_inside_goes() {
        for (text, clean) in [
            ("6", "6"),
            ("  弹幕 666\n", "弹幕 666"),
            ("\u{3000}a\u{a0}", "a"),
            ("👩\u{200d}👧❤\u{fe0f}", "👩\u{200d}👧❤\u{fe0f}"),
        ] {
            assert!(
                matches!(clean_text(text, 64), Ok(Cow::Borrowed(found)) if found == clean),
                "{text:?}"
            );
        }
        for (text, clean) in [
            ("a\nb\u{7f}\u{85}c", "abc"),
            ("\u{0} a \u{0}", "a"),
            ("\u{202e}evil\u{2069}\u{feff}", "evil"),
            ("a\u{2028}b", "ab"),
        ] {
            assert_eq!(clean_text(text, 64).unwrap(), clean, "{text:?}");
        }
    }

    #[test]
    fn empty_and_invisible_lines_are_refused() {
        for text in [
            "",
            " \t\n",
            "\u{200b}\u{200d}",
            "\u{feff}",
            "\u{0}\u{1}",
            "\u{fe0f} \u{2060}",
            "\u{3164}",
        ] {
            let refusal = clean_text(text, 64).unwrap_err();
            assert_eq!(refusal.code, Code::BadText, "{text:?}");
            assert!(refusal.reason.contains("empty"));
        }
    }

    #[test]
    fn length_counts_bytes_after_trimming() {
        assert_eq!(clean_text("  ééé\n", 6).unwrap(), "ééé");
        let refusal = clean_text("  éééx\n", 6).unwrap_err();
        assert_eq!(
            refusal.reason,
            "text has 7 bytes after trimming; allowed are 1 to 6"
        );
    }

    fn style(json: &str) -> Result<Style, Refusal> {
        parse_style(&RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn styles_have_defaults_and_bounds() {
        assert_eq!(style("{}"), Ok(Style::default()));
        assert_eq!(style(r#"{"x":1,"mode":null}"#), Ok(Style::default()));
        assert_eq!(
            style(r##"{"color":"#0a0B0c","mode":"bottom","size":64}"##),
            Ok(Style {
                color: 0x0a0b0c,
                mode: Mode::Bottom,
                size: 64
            })
        );
        for (json, field) in [
            ("7", "style "),
            (r##"{"color":"#fff"}"##, "style.color"),
            (r##"{"color":"#+fffff"}"##, "style.color"),
            (r#"{"color":16777215}"#, "style.color"),
            (r#"{"mode":"spin"}"#, "style.mode"),
            (r#"{"size":11}"#, "style.size"),
            (r#"{"size":65}"#, "style.size"),
            (r#"{"size":25.5}"#, "style.size"),
            (r#"{"size":25,"size":25}"#, "size stands there twice"),
        ] {
            let refusal = style(json).unwrap_err();
            assert_eq!(refusal.code, Code::BadStyle, "{json}");
            assert!(
                refusal.reason.starts_with(field),
                "{json}: {}",
                refusal.reason
            );
        }
    }

    #[test]
    fn event_names_are_words() {
        for good in ["gift", "a.b:c-d_E9", &"x".repeat(64)] {
            assert_eq!(check_event_name(good), Ok(()));
        }
        for bad in ["", "a b", "é", "a\n", &"x".repeat(65)] {
            assert_eq!(check_event_name(bad).unwrap_err().code, Code::BadEvent);
        }
    }

    proptest! {
        #[test]
        fn cleaning_is_complete_and_repeats_to_the_same(text in ANY_TEXT) {
            if let Ok(once) = clean_text(&text, 1024) {
                prop_assert!(!once.contains(is_removed) && !once.is_empty());
                prop_assert_eq!(once.trim(), &*once);
                prop_assert_eq!(clean_text(&once, 1024).unwrap(), &*once);
            }
        }
    }
}
