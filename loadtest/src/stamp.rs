//! The stamp a line carries inside its text: who sent it, under which number of the swarm's, and when its time had come.
//! Pure functions, on client threads.
//!
//! `~swarm-7f3a:12.345.` — the marker (it ends in a random word, so that two swarms in one room do not take each
//! other's lines for their own), the line's id, the microsecond it was due, a full stop; where it was said at another node
//! than the first, that node's index and one more. Filler follows up to the asked size. Only ASCII that JSON leaves alone,
//! so that the stamp is found in the raw bytes of any message around it.

use memchr::memmem::Finder;

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The line's id, unique within the run.
    pub line: u64,
    /// When it was due, in microseconds of the run's clock.
    pub due_us: u64,
    /// The node it was said at, by its index in the plan.
    pub node: u16,
}

/// Writes stamps and finds them again.
#[derive(Clone, Debug)]
pub struct Stamper {
    marker: Vec<u8>,
    finder: Finder<'static>,
}

impl Stamper {
    /// With a marker that no other text contains.
    pub fn new(marker: &str) -> Stamper {
        Stamper {
            marker: marker.as_bytes().to_vec(),
            finder: Finder::new(marker).into_owned(),
        }
    }

    /// A text of `bytes` bytes (more if the stamp alone is longer).
    pub fn text(&self, stamp: Stamp, bytes: usize) -> String {
        let marker = String::from_utf8_lossy(&self.marker);
        let mut text = format!("{marker}{}.{}.", stamp.line, stamp.due_us);
        if stamp.node > 0 {
            text.push_str(&format!("{}.", stamp.node));
        }
        let missing = bytes.saturating_sub(text.len());
        text.extend(FILLER.chars().cycle().take(missing));
        text
    }

    /// The stamp in a message's bytes, if it is one of ours.
    pub fn find(&self, message: &[u8]) -> Option<Stamp> {
        let at = self.finder.find(message)?;
        let rest = message.get(at + self.marker.len()..)?;
        let (line, rest) = number(rest)?;
        let (due_us, rest) = number(rest)?;
        let node = number(rest).and_then(|(node, _)| u16::try_from(node).ok());
        Some(Stamp {
            line,
            due_us,
            node: node.unwrap_or(0),
        })
    }
}

/// What people would say, more or less: compressible like speech, but for the stamp.
const FILLER: &str =
    "what a moment, the whole hall is singing along now and nobody sits any more, ";

/// Decimal digits up to a full stop, which is consumed.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    for (at, byte) in bytes.iter().enumerate().take(21) {
        match byte {
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
            }
            b'.' if at > 0 => return Some((value, &bytes[at + 1..])),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stamp_is_found_inside_any_message() {
        let stamper = Stamper::new("~swarm-7f3a:");
        let stamp = Stamp {
            line: 12,
            due_us: 345,
            node: 0,
        };
        let text = stamper.text(stamp, 64);
        assert_eq!(text.len(), 64);
        let message = format!(r#"{{"type":"danmaku","text":"{text}","style":{{}}}}"#);
        assert_eq!(stamper.find(message.as_bytes()), Some(stamp));
        assert_eq!(serde_json::to_string(&text).unwrap(), format!("\"{text}\""));
        assert!(
            stamper.text(stamp, 0).ends_with("12.345."),
            "the stamp is never cut"
        );
    }

    #[test]
    fn what_only_looks_like_a_stamp_is_none() {
        let stamper = Stamper::new("~s:");
        for text in [
            "",
            "~s:",
            "~s:1",
            "~s:1.",
            "~s:1.2",
            "~s:.1.2.",
            "~s:x.2.",
            "~t:1.2.",
            "~s:99999999999999999999.1.",
        ] {
            assert_eq!(stamper.find(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_stamp_comes_back(line: u64, due_us: u64, node: u16, bytes in 0usize..300) {
            let stamper = Stamper::new("~swarm-0:");
            let stamp = Stamp { line, due_us, node };
            prop_assert_eq!(stamper.find(stamper.text(stamp, bytes).as_bytes()), Some(stamp));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>) {
            let _ = Stamper::new("~").find(&bytes);
        }
    }
}
