//! Why a connection ends: the close codes of `docs/PROTOCOL.md`, and close frames with a reason that fits.
//!
//! Plain values, used on a shard thread. Nothing here decides to close; that is the session's.

use super::encode;

/// Longest close reason: a control frame's 125 bytes without the code (RFC 6455 section 5.5.1).
pub const REASON_BYTES_MAX: usize = encode::CONTROL_BYTES_MAX - 2;

macro_rules! closes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $comes_back:literal, $reason:literal;)*) => {
        /// Why the gateway closes a connection. The numbers are part of the public contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Close { $($(#[$doc])* $name,)* }

        impl Close {
            /// Every one.
            pub const ALL: &'static [Close] = &[$(Close::$name,)*];

            /// The number on the wire (RFC 6455 section 7.4).
            pub fn code(self) -> u16 { match self { $(Close::$name => $code,)* } }

            /// The sentence to send where nothing more exact is known, at most [`REASON_BYTES_MAX`] bytes.
            pub fn reason(self) -> &'static str { match self { $(Close::$name => $reason,)* } }

            /// Whether a well-behaved client connects again, with back-off. Where it is false, coming back would only
            /// meet the same end.
            pub fn comes_back(self) -> bool { match self { $(Close::$name => $comes_back,)* } }
        }
    };
}

closes! {
    /// The viewer said goodbye.
    Normal = 1000, false, "goodbye";
    /// The node drains.
    GoingAway = 1001, true, "this node is going away: connect again, another node will take you";
    /// A frame RFC 6455 does not allow.
    Protocol = 1002, false, "that is not WebSocket as RFC 6455 has it";
    /// A binary message.
    Unsupported = 1003, false, "this gateway takes text messages only";
    /// Text that is not UTF-8.
    BadUtf8 = 1007, false, "a text message must be UTF-8";
    /// Over `limits.message_bytes_max`.
    TooBig = 1009, false, "the message is larger than this gateway takes";
    /// The token was not accepted.
    BadToken = 4001, false, "the token was not accepted: get another one";
    /// Not allowed here.
    Forbidden = 4003, false, "this token does not allow that";
    /// Banned.
    Banned = 4004, false, "you are banned";
    /// Thrown out.
    Kicked = 4008, false, "you were disconnected by a moderator";
    /// The back end asked it to connect anew.
    AskedToReconnect = 4400, true, "please connect again";
    /// Silent for twice the heartbeat interval.
    Heartbeat = 4408, true, "nothing was heard for two heartbeat intervals: send {\"type\":\"ping\"}";
    /// The token ran out on a living connection.
    TokenExpired = 4410, true, "the token has expired: get a new one and connect again";
    /// Did not read what it was sent.
    TooSlow = 4413, true, "too slow: what was sent to you was not read in time";
    /// Too many bad or too fast messages.
    Flood = 4429, true, "too many bad or too fast messages: slow down";
}

/// Whether a close frame may carry this code (RFC 6455 section 7.4 and the IANA registry: 1012 to 1014 came later).
/// 1004 to 1006 and 1015 are never sent, below 1000 and from 5000 on nothing is defined, 1016 to 2999 is reserved.
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends a close frame with a code that [`may_be_sent`]. A reason over [`REASON_BYTES_MAX`] bytes is cut at a character
/// boundary, so it stays UTF-8.
pub fn put_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    debug_assert!(may_be_sent(code), "{code} is not a code to send");
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let mut payload = [0; encode::CONTROL_BYTES_MAX];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason);
    encode::close(&payload[..2 + reason.len()], out);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_sendable_and_come_back_by_their_range() {
        let mut seen = HashSet::new();
        for close in Close::ALL {
            assert!(seen.insert(close.code()), "{close:?} twice");
            assert!(may_be_sent(close.code()), "{close:?}");
            assert!(
                (1..=REASON_BYTES_MAX).contains(&close.reason().len()),
                "{close:?}"
            );
            match close.code() {
                4000..=4099 => assert!(!close.comes_back(), "{close:?}"),
                4400..=4499 => assert!(close.comes_back(), "{close:?}"),
                code => assert_eq!(close.comes_back(), code == 1001, "{close:?}"),
            }
        }
        assert_eq!(seen.len(), 15);
    }

    #[test]
    fn which_codes_may_be_sent() {
        for code in [
            1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999,
        ] {
            assert!(may_be_sent(code), "{code}");
        }
        for code in [
            0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            assert!(!may_be_sent(code), "{code}");
        }
    }

    #[test]
    fn a_reason_is_cut_at_a_character_boundary() {
        for (reason, kept) in [
            (String::new(), 0),
            ("a".repeat(123), 123),
            ("a".repeat(124), 123),
            ("弹".repeat(50), 123),
            (format!("aa{}", "弹".repeat(50)), 122),
            (format!("a{}", "\u{1f4a9}".repeat(50)), 121),
        ] {
            let mut out = Vec::new();
            put_close(4008, &reason, &mut out);
            assert_eq!(out[..4], [0x88, 2 + kept as u8, 0x0f, 0xa8], "{reason}");
            assert_eq!(&out[4..], &reason.as_bytes()[..kept]);
            assert!(std::str::from_utf8(&out[4..]).is_ok());
        }
    }
}
