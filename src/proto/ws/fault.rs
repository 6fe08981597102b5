//! What a client's frames can get wrong, with the facts, and what it is told then.
//!
//! Plain values. Nothing here decides to close; that is the session's.

use std::borrow::Cow;

use super::close::Close;

/// What the client got wrong. The connection must be failed (RFC 6455 section 7.1.7): the decoder is not to be fed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame without a mask (section 5.1).
    Unmasked,
    /// Reserved bits set that no extension gave a meaning (section 5.2): RSV1 is 4, RSV2 is 2, RSV3 is 1.
    ReservedBits { bits: u8 },
    /// An opcode that means nothing: 3 to 7 or 11 to 15.
    UnknownOpcode { opcode: u8 },
    /// A length with its highest bit set (section 5.2).
    LengthTopBit { length: u64 },
    /// A length not in its shortest form (section 5.2), but in this many bits.
    LengthNotMinimal { length: u64, form_bits: u8 },
    /// A ping, pong or close without FIN (section 5.5).
    ControlFragmented { opcode: u8 },
    /// A ping, pong or close over 125 bytes (section 5.5).
    ControlTooLong { opcode: u8, payload_bytes: u64 },
    /// A continuation where no message is under way (section 5.4).
    ContinuationWithoutStart,
    /// A new message where a continuation was due (section 5.4).
    MessageInsideMessage { opcode: u8 },
    /// A message, all its frames so far together, over the limit. Known from the header alone.
    TooBig {
        message_bytes: u64,
        message_bytes_max: usize,
    },
    /// A message marked as compressed that is no deflated data (RFC 7692 section 7.2.2).
    BadDeflate,
    /// Text that is not UTF-8 (section 8.1): index in the message of the first byte that cannot be.
    BadText { offset: usize },
    /// A close payload of a single byte (section 5.5.1).
    CloseTooShort,
    /// A close code nobody may send (section 7.4).
    CloseCode { code: u16 },
    /// A close reason that is not UTF-8: index in the reason of the first byte that cannot be.
    BadCloseReason { offset: usize },
}

impl Fault {
    /// The close code to answer with: 1002, 1007 or 1009.
    pub fn close_code(&self) -> u16 {
        match self {
            Fault::BadText { .. } | Fault::BadCloseReason { .. } | Fault::BadDeflate => {
                Close::BadUtf8.code()
            }
            Fault::TooBig { .. } => Close::TooBig.code(),
            _ => Close::Protocol.code(),
        }
    }

    /// The sentence to send with it, with the facts, at most 123 bytes.
    pub fn reason(&self) -> Cow<'static, str> {
        match *self {
            Fault::Unmasked => "frames from a client must be masked".into(),
            Fault::ReservedBits { bits } => {
                format!("reserved bits {bits:03b} are set, which no extension allows here").into()
            }
            Fault::UnknownOpcode { opcode } => format!("opcode {opcode} has no meaning").into(),
            Fault::LengthTopBit { length } => {
                format!("the payload length {length:#x} has its highest bit set").into()
            }
            Fault::LengthNotMinimal { length, form_bits } => format!(
                "the payload length {length} is written in {form_bits} bits; fewer would do"
            )
            .into(),
            Fault::ControlFragmented { opcode } => {
                format!("a control frame must not be fragmented, and this one (opcode {opcode}) is")
                    .into()
            }
            Fault::ControlTooLong { payload_bytes, .. } => format!(
                "a control frame carries at most 125 bytes, this one declares {payload_bytes}"
            )
            .into(),
            Fault::ContinuationWithoutStart => {
                "a continuation came, but no message was begun".into()
            }
            Fault::MessageInsideMessage { opcode } => {
                format!("a continuation was due, and a new message came (opcode {opcode})").into()
            }
            Fault::TooBig {
                message_bytes,
                message_bytes_max,
            } => format!(
                "a message may have {message_bytes_max} bytes, this one has {message_bytes} or more"
            )
            .into(),
            Fault::BadDeflate => {
                "the message is marked as compressed, and is no deflated data".into()
            }
            Fault::BadText { offset } => {
                format!("the text is not UTF-8: byte {offset} cannot be there").into()
            }
            Fault::CloseTooShort => {
                "a close payload has no byte or at least two, this one has one".into()
            }
            Fault::CloseCode { code } => format!("close code {code} must not be sent").into(),
            Fault::BadCloseReason { offset } => {
                format!("the close reason is not UTF-8: byte {offset} cannot be there").into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::close::REASON_BYTES_MAX;
    use super::*;

    #[test]
    fn every_reason_fits_a_close_frame_with_the_largest_facts() {
        let faults = [
            (Fault::Unmasked, 1002),
            (Fault::ReservedBits { bits: 7 }, 1002),
            (Fault::UnknownOpcode { opcode: 15 }, 1002),
            (Fault::LengthTopBit { length: u64::MAX }, 1002),
            (
                Fault::LengthNotMinimal {
                    length: 65_535,
                    form_bits: 64,
                },
                1002,
            ),
            (Fault::ControlFragmented { opcode: 10 }, 1002),
            (
                Fault::ControlTooLong {
                    opcode: 10,
                    payload_bytes: u64::MAX,
                },
                1002,
            ),
            (Fault::ContinuationWithoutStart, 1002),
            (Fault::MessageInsideMessage { opcode: 2 }, 1002),
            (
                Fault::TooBig {
                    message_bytes: u64::MAX,
                    message_bytes_max: usize::MAX,
                },
                1009,
            ),
            (Fault::BadDeflate, 1007),
            (Fault::BadText { offset: usize::MAX }, 1007),
            (Fault::CloseTooShort, 1002),
            (Fault::CloseCode { code: u16::MAX }, 1002),
            (Fault::BadCloseReason { offset: usize::MAX }, 1007),
        ];
        for (fault, code) in faults {
            assert_eq!(fault.close_code(), code, "{fault:?}");
            let reason = fault.reason();
            assert!((1..=REASON_BYTES_MAX).contains(&reason.len()), "{reason}");
        }
    }

    #[test]
    fn a_reason_states_the_facts() {
        let fault = Fault::TooBig {
            message_bytes: 20_000,
            message_bytes_max: 16_384,
        };
        assert_eq!(
            fault.reason(),
            "a message may have 16384 bytes, this one has 20000 or more"
        );
        assert_eq!(
            Fault::ReservedBits { bits: 4 }.reason(),
            "reserved bits 100 are set, which no extension allows here"
        );
    }
}
