//! Close codes of `docs/PROTOCOL.md`, and close frames (RFC 6455 section 5.5.1).

use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::encode;

/// Longest reason in a close frame: 125 bytes of control payload less the code.
pub const REASON_BYTES_MAX: usize = 123;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        /// Why a viewer is closed. 4000..=4099 do not come back; 4400..=4499 come back with back-off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Close { $($(#[$doc])* $name,)* }

        impl Close {
            /// Every code.
            pub const ALL: &'static [Close] = &[$(Close::$name,)*];

            /// The number on the wire.
            pub fn code(self) -> u16 { match self { $(Close::$name => $code,)* } }
        }
    };
}

codes! {
    /// Done.
    Normal = 1000;
    /// The node is being emptied.
    GoingAway = 1001;
    /// Against RFC 6455.
    Protocol = 1002;
    /// Binary messages.
    Unsupported = 1003;
    /// Text that is no UTF-8.
    BadUtf8 = 1007;
    /// A message over `limits.message_bytes_max`.
    TooBig = 1009;
    /// A renewed token that is no good.
    BadToken = 4001;
    /// May not be here.
    Forbidden = 4003;
    /// Banned.
    Banned = 4004;
    /// Disconnected by the back end.
    Kicked = 4008;
    /// Asked to connect again.
    AskedToReconnect = 4400;
    /// Silent for two heartbeat intervals.
    Heartbeat = 4408;
    /// The token has ended.
    TokenExpired = 4410;
    /// Does not read fast enough.
    TooSlow = 4413;
    /// Too many bad or too fast messages.
    Flood = 4429;
}

impl Close {
    /// Whether a client should connect again (with back-off).
    pub fn comes_back(self) -> bool {
        matches!(self.code(), 1001 | 4400..=4499)
    }
}

/// Whether a peer may send this code (RFC 6455 section 7.4, and the IANA registry's 1012 to 1014).
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends a close frame; the reason is cut at a character to 123 bytes.
pub fn put_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    encode::header(OpCode::Control(Control::Close), 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        put_close(4008, &"é".repeat(100), &mut out);
        assert_eq!(out[..4], [0x88, 124, 0x0f, 0xa8]);
        assert_eq!(std::str::from_utf8(&out[4..]).unwrap().len(), 122);
    }

    #[test]
    fn codes_may_be_sent_and_come_back_by_their_range() {
        for close in Close::ALL {
            assert!(may_be_sent(close.code()), "{close:?}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert!(!may_be_sent(code), "{code}");
        }
        assert!(Close::Heartbeat.comes_back() && !Close::Kicked.comes_back());
    }
}
