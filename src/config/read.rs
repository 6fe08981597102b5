//! From what was given to typed values: every value that is not allowed becomes a mistake, and the default stands in for it
//! so that the rest can be checked too.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::given::{Given, Mistake, Raw};
use super::keys::{Key, Kind, did_you_mean};

/// Reads the values of one table (or of all plain keys) by their rows.
pub struct Reader<'a> {
    pub keys: &'static [Key],
    /// What stands before a key's name in a mistake: an array's path and a point, or nothing.
    pub above: String,
    pub given: &'a HashMap<&'static str, Given>,
    pub mistakes: &'a mut Vec<Mistake>,
}

/// A value that was understood.
enum Value {
    Whole(u64),
    Share(f64),
    Text(String),
    Flag(bool),
    List(Vec<String>),
}

impl Reader<'_> {
    /// A whole number, a size in bytes, or a duration in milliseconds.
    pub fn number(&mut self, path: &str) -> u64 {
        match self.value(path) {
            Some(Value::Whole(n)) => n,
            _ => 0,
        }
    }

    /// The same, where the key may be left out.
    pub fn number_given(&mut self, path: &str) -> Option<u64> {
        self.given.contains_key(path).then(|| self.number(path))
    }

    /// A text or a word.
    pub fn text(&mut self, path: &str) -> String {
        match self.value(path) {
            Some(Value::Text(text)) => text,
            _ => String::new(),
        }
    }

    /// The same, `None` for an empty one.
    pub fn text_given(&mut self, path: &str) -> Option<String> {
        Some(self.text(path)).filter(|text| !text.is_empty())
    }

    /// A number from 0 to 1.
    pub fn share(&mut self, path: &str) -> f64 {
        match self.value(path) {
            Some(Value::Share(share)) => share,
            _ => 0.0,
        }
    }

    /// True or false.
    pub fn is_set(&mut self, path: &str) -> bool {
        matches!(self.value(path), Some(Value::Flag(true)))
    }

    /// A list of texts.
    pub fn list(&mut self, path: &str) -> Vec<String> {
        match self.value(path) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    /// An address.
    pub fn address(&mut self, path: &str) -> SocketAddr {
        let text = self.text(path);
        // Checked when it was read, or the default; the fallback is never served, because a mistake is noted.
        text.parse()
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Notes a mistake of a key that its kind alone does not show.
    pub fn mistake(
        &mut self,
        path: &str,
        found: impl Into<String>,
        allowed: &str,
        hint: Option<&str>,
    ) {
        let place = self
            .given
            .get(path)
            .map_or("default".into(), |given| given.place.clone());
        self.mistakes.push(Mistake {
            place,
            key: format!("{}{path}", self.above),
            found: found.into(),
            allowed: allowed.into(),
            hint: hint.map(Into::into),
        });
    }

    fn value(&mut self, path: &str) -> Option<Value> {
        let key = self.keys.iter().find(|key| key.path == path)?;
        if let Some(given) = self.given.get(key.path) {
            match understand(key.kind, &given.raw, given.loose) {
                Some(value) => return Some(value),
                None => {
                    let raw = given.raw.clone();
                    let hint = hint(key.kind, &raw, given.loose);
                    let allowed = key.kind.allowed();
                    self.mistake(path, shown(key, &raw), &allowed, hint.as_deref());
                }
            }
        }
        default(key)
    }
}

/// A value in a message; what may be a secret only by its length.
fn shown(key: &Key, raw: &Raw) -> String {
    match raw {
        Raw::Text(text) if key.path.contains("secret") || key.path == "key" => {
            format!("a text of {} bytes", text.len())
        }
        raw => raw.to_string(),
    }
}

fn default(key: &Key) -> Option<Value> {
    let text = key.default.trim_matches('"');
    match key.kind {
        Kind::List => Some(Value::List(Vec::new())),
        Kind::Text | Kind::Word(_) => Some(Value::Text(text.into())),
        kind => understand(kind, &Raw::Text(text.into()), true),
    }
}

fn understand(kind: Kind, raw: &Raw, loose: bool) -> Option<Value> {
    match (kind, raw) {
        (Kind::Text, Raw::Text(text)) => Some(Value::Text(text.clone())),
        (Kind::Address, Raw::Text(text)) => {
            text.parse::<SocketAddr>().ok()?;
            Some(Value::Text(text.clone()))
        }
        (Kind::Word(words), Raw::Text(text)) => words
            .contains(&text.as_str())
            .then(|| Value::Text(text.clone())),
        (Kind::Flag, Raw::Flag(flag)) => Some(Value::Flag(*flag)),
        (Kind::Flag, Raw::Text(text)) if loose => text.parse().ok().map(Value::Flag),
        (Kind::List, Raw::List(items)) => Some(Value::List(items.clone())),
        (Kind::List, Raw::Text(text)) if loose => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Some(Value::List(items.map(Into::into).collect()))
        }
        (Kind::Share, Raw::Float(share)) => share_of(*share),
        (Kind::Share, Raw::Whole(n)) => share_of(*n as f64),
        (Kind::Share, Raw::Text(text)) if loose => share_of(text.parse().ok()?),
        (Kind::Whole(min, max) | Kind::Size(min, max), Raw::Whole(n)) => {
            within(u64::try_from(*n).ok()?, min, max)
        }
        (Kind::Whole(min, max), Raw::Text(text)) if loose => within(text.parse().ok()?, min, max),
        (Kind::Size(min, max), Raw::Text(text)) => within(bytes_of(text, loose)?, min, max),
        (Kind::Duration(min, max), Raw::Text(text)) => within(ms_of(text)?, min, max),
        (Kind::Tick, Raw::Text(text)) if text == "auto" => Some(Value::Text(text.clone())),
        (Kind::Tick, Raw::Text(text)) => {
            within(ms_of(text)?, 0, 10_000).map(|_| Value::Text(text.clone()))
        }
        _ => None,
    }
}

fn share_of(share: f64) -> Option<Value> {
    (0.0..=1.0).contains(&share).then_some(Value::Share(share))
}

fn within(n: u64, min: u64, max: u64) -> Option<Value> {
    (min..=max).contains(&n).then_some(Value::Whole(n))
}

/// `64KiB`, `1MiB`, `512B`; a bare number only where everything is text.
fn bytes_of(text: &str, loose: bool) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" if loose => 1,
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// `500ms`, `30s`, `5m`, `1h`: milliseconds.
pub fn ms_of(text: &str) -> Option<u64> {
    let duration = humantime::parse_duration(text).ok()?;
    u64::try_from(duration.as_millis()).ok()
}

fn hint(kind: Kind, raw: &Raw, loose: bool) -> Option<String> {
    match (kind, raw) {
        (Kind::Duration(..), Raw::Whole(n)) => {
            Some(format!("give the unit: \"{n}s\" or \"{n}ms\""))
        }
        (Kind::Word(words), Raw::Text(text)) => did_you_mean(text, words.iter().copied())
            .map(|word| format!("did you mean \"{word}\"?")),
        (Kind::Whole(..), Raw::Text(text)) if !loose && text.parse::<u64>().is_ok() => {
            Some("without quotes".into())
        }
        (Kind::Address, raw) => address_hint(raw),
        (Kind::Size(..), Raw::Text(text)) if text.ends_with("KB") || text.ends_with("MB") => {
            Some("units are KiB, MiB, GiB".into())
        }
        (Kind::List, Raw::Text(text)) => Some(format!("in brackets: [\"{text}\"]")),
        _ => None,
    }
}

/// What was probably meant by an address that is none: a port alone, or a name.
fn address_hint(raw: &Raw) -> Option<String> {
    let text = match raw {
        Raw::Text(text) => text.clone(),
        Raw::Whole(port) => port.to_string(),
        _ => return None,
    };
    let (host, port) = text.rsplit_once(':').unwrap_or(("", &text));
    let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
    if is_address(&text) {
        return Some("give the port too: 8080 is usual".into());
    }
    let port: u16 = port.parse().ok()?;
    Some(match host {
        "" | "*" => {
            format!("\"127.0.0.1:{port}\" for this machine alone, \"0.0.0.0:{port}\" for all")
        }
        "localhost" => format!("\"127.0.0.1:{port}\": names are not looked up"),
        _ => "names are not looked up: give the address itself".into(),
    })
}
