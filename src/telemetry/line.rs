//! How an event becomes one line of the log: text for people, or a JSON object.
//!
//! Runs on whichever thread logs. Fields may quote what a client sent, so whatever they hold, a line stays one line, its
//! length is bounded, and JSON stays JSON.

use std::fmt::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::base::clock::Clock;

/// Longest text of one field; what is longer is cut and ends in `…`. Fields may quote what a client sent.
pub(super) const FIELD_BYTES_MAX: usize = 1024;

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Plain,
    /// One JSON object: `ts` (RFC 3339), `level`, `target`, `message`, and the event's fields beside them.
    Json,
}

/// How an event becomes a line.
pub(super) struct Lines {
    /// For `ts`.
    pub(super) clock: Clock,
    /// Which shape.
    pub(super) format: Format,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let since_1970 = Duration::from_millis(self.clock.now().unix_ms);
        let at = humantime::format_rfc3339_millis(UNIX_EPOCH + since_1970);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let mut line = String::with_capacity(256);
        match self.format {
            Format::Plain => {
                write!(line, "{at} {level:<5} {target}:")?;
                event.record(&mut PlainFields(&mut line));
            }
            Format::Json => {
                write!(line, "{{\"ts\":\"{at}\",\"level\":\"{level}\",\"target\":")?;
                json_string(target, &mut line);
                event.record(&mut JsonFields(&mut line));
                line.push('}');
            }
        }
        line.push('\n');
        out.write_str(&line)
    }
}

/// ` message key=value`, on one line whatever a value holds: a client cannot forge lines or move a terminal's cursor.
struct PlainFields<'a>(&'a mut String);

impl PlainFields<'_> {
    fn put(&mut self, field: &Field, text: &str) {
        self.0.push(' ');
        if field.name() == "message" {
            for char in text.chars() {
                match char.is_control() {
                    true => self.0.extend(char.escape_default()),
                    false => self.0.push(char),
                }
            }
            return;
        }
        self.0.push_str(field.name());
        self.0.push('=');
        let bare =
            |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\'));
        // Writing into a String cannot fail.
        let _ = match !text.is_empty() && text.chars().all(bare) {
            true => self.0.write_str(text),
            false => write!(self.0, "{text:?}"),
        };
    }
}

impl Visit for PlainFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &Bounded::of(format_args!("{value}")));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &Bounded::of(format_args!("{value:?}")));
    }
}

/// `,"key":value`: numbers and booleans as such, the rest as strings.
struct JsonFields<'a>(&'a mut String);

impl JsonFields<'_> {
    fn key(&mut self, field: &Field) {
        self.0.push(',');
        match field.name() {
            // The line's own keys stay what they are.
            name @ ("ts" | "level" | "target") => json_string(&format!("field.{name}"), self.0),
            name => json_string(name, self.0),
        }
        self.0.push(':');
    }

    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.key(field);
        // Writing into a String cannot fail.
        let _ = write!(self.0, "{value}");
    }
}

impl Visit for JsonFields<'_> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for NaN and the infinities: they become null.
        self.bare(field, serde_json::Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.key(field);
        json_string(&Bounded::of(format_args!("{value}")), self.0);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.key(field);
        json_string(&Bounded::of(format_args!("{value:?}")), self.0);
    }
}

fn json_string(text: &str, out: &mut String) {
    // A string always serialises.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// Text of at most [`FIELD_BYTES_MAX`] bytes, cut while it is made.
struct Bounded(String);

impl Bounded {
    fn of(text: fmt::Arguments<'_>) -> String {
        let mut bounded = Bounded(String::new());
        if bounded.write_fmt(text).is_err() {
            bounded.0.push('…');
        }
        bounded.0
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = FIELD_BYTES_MAX - self.0.len();
        let cut = text.floor_char_boundary(room);
        self.0.push_str(text.get(..cut).unwrap_or_default());
        if cut < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}
