//! The JSON protocol of `docs/PROTOCOL.md`: client messages in, server messages out.

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
