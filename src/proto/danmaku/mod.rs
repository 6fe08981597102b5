//! The JSON protocol of `docs/PROTOCOL.md`: client messages in, server messages out, and the bodies of HTTP requests.
//!
//! Sans-IO and without state: text in, checked values out, and back. Runs on whichever shard holds the connection. It never
//! blocks, knows neither socket nor time, and never panics whatever the text is.

pub mod client;
pub mod happened;
pub mod http;
mod json;
pub mod server;
pub mod text;

pub use client::{Id, Incoming, Message, Rejected};
pub use text::{check_event_name, clean_text, parse_style};

/// How a line looks. Checked: only values a client may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// `0xRRGGBB`.
    pub color: u32,
    /// Where it flies.
    pub mode: Mode,
    /// Font size in CSS pixels, 12..=64.
    pub size: u8,
}

impl Default for Style {
    /// White, scrolling, 25 px: what a line without a style looks like.
    fn default() -> Style {
        Style {
            color: 0xff_ffff,
            mode: Mode::Scroll,
            size: 25,
        }
    }
}

/// Where a line flies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Right to left.
    Scroll,
    /// Stands at the top.
    Top,
    /// Stands at the bottom.
    Bottom,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 3] = [Mode::Scroll, Mode::Top, Mode::Bottom];

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Scroll => "scroll",
            Mode::Top => "top",
            Mode::Bottom => "bottom",
        }
    }

    /// The mode with that word.
    pub fn parse(word: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

/// Text as nobody would type it, for property tests: `any::<String>()` never holds a control character.
#[cfg(test)]
const ANY_TEXT: &str = "(?s:.{0,8}[\\x00-\\xa0\\x{2028}\\x{202e}\\x{feff}弹👩]{0,40}.{0,8})";
