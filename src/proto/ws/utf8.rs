//! UTF-8 checked as it arrives, whatever the pieces. Owns three bytes of state and no text.
//!
//! Runs on a shard thread, inside the decoder. It must never accept a byte after which no valid text is possible:
//! a text message fails at its first bad byte, not at the end of its frame (RFC 6455 section 8.1).

/// Lowest and highest continuation byte, where the lead byte does not narrow them (RFC 3629 section 4).
const CONTINUATION: (u8, u8) = (0x80, 0xbf);

/// The first byte that no valid text can have at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUtf8 {
    /// Its index in the bytes given to the call that failed. [`Utf8::finish`] gives 0: the byte that should have come next.
    pub offset: usize,
}

/// Where a text stands between two pieces: how many bytes its last character lacks, and what the next of them may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8 {
    /// Continuation bytes the last character lacks, 0..=3.
    lacking: u8,
    /// Range of the next of them; means nothing while `lacking` is 0.
    low: u8,
    high: u8,
}

impl Utf8 {
    /// Takes the next piece, of any length. Whole stretches go through SIMD; a character cut off at the end waits for the next
    /// piece.
    ///
    /// # Errors
    /// The earliest byte at which no valid continuation exists: of `ED A0` (a surrogate) and `F4 90` (past U+10FFFF) it is the
    /// second. The state is then spent.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BadUtf8> {
        let mut offset = 0;
        while self.lacking > 0 {
            let Some(&byte) = bytes.get(offset) else {
                return Ok(());
            };
            self.step(byte).ok_or(BadUtf8 { offset })?;
            offset += 1;
        }
        let (_, fresh) = bytes.split_at(offset);
        let (whole, cut) = fresh.split_at(fresh.len() - cut_off_bytes(fresh));
        let unchecked = match simdutf8::basic::from_utf8(whole) {
            Ok(_) => {
                offset += whole.len();
                cut
            }
            // The fast check only says that something is wrong; this says where.
            Err(_) => fresh,
        };
        for (index, &byte) in unchecked.iter().enumerate() {
            self.step(byte).ok_or(BadUtf8 {
                offset: offset + index,
            })?;
        }
        Ok(())
    }

    /// The text ends here.
    ///
    /// # Errors
    /// Its last character is cut off.
    pub fn finish(&self) -> Result<(), BadUtf8> {
        if self.lacking == 0 {
            Ok(())
        } else {
            Err(BadUtf8 { offset: 0 })
        }
    }

    /// One byte, by the table of RFC 3629 section 4; `None` if it cannot stand here.
    fn step(&mut self, byte: u8) -> Option<()> {
        if self.lacking > 0 {
            if !(self.low..=self.high).contains(&byte) {
                return None;
            }
            self.lacking -= 1;
            (self.low, self.high) = CONTINUATION;
            return Some(());
        }
        (self.low, self.high) = match byte {
            0xe0 => (0xa0, 0xbf),
            0xed => (0x80, 0x9f),
            0xf0 => (0x90, 0xbf),
            0xf4 => (0x80, 0x8f),
            _ => CONTINUATION,
        };
        self.lacking = continuation_bytes(byte)?;
        Some(())
    }
}

/// How many bytes follow this first byte of a character; `None` if no character begins so.
fn continuation_bytes(lead: u8) -> Option<u8> {
    match lead {
        0x00..=0x7f => Some(0),
        0xc2..=0xdf => Some(1),
        0xe0..=0xef => Some(2),
        0xf0..=0xf4 => Some(3),
        _ => None,
    }
}

/// Bytes at the end that begin a character and do not finish it, 0..=3. Says nothing about their validity.
fn cut_off_bytes(bytes: &[u8]) -> usize {
    for (after, &byte) in bytes.iter().rev().take(3).enumerate() {
        if (0x80..=0xbf).contains(&byte) {
            continue;
        }
        return match continuation_bytes(byte) {
            Some(following) if usize::from(following) > after => after + 1,
            _ => 0,
        };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes the pieces that `cuts` makes of `bytes`; the offset of an error counts from the beginning of the text.
    fn in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<(), BadUtf8> {
        let mut utf8 = Utf8::default();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut from = 0;
        for to in cuts {
            utf8.push(&bytes[from..to]).map_err(|bad| BadUtf8 {
                offset: from + bad.offset,
            })?;
            from = to;
        }
        utf8.finish().map_err(|_| BadUtf8 {
            offset: bytes.len(),
        })
    }

    /// The same from the standard library: a prefix is still possible if it is valid or merely cut off.
    fn by_std(bytes: &[u8]) -> Result<(), BadUtf8> {
        for end in 1..=bytes.len() {
            if let Err(error) = std::str::from_utf8(&bytes[..end])
                && error.error_len().is_some()
            {
                return Err(BadUtf8 { offset: end - 1 });
            }
        }
        std::str::from_utf8(bytes).map(|_| ()).map_err(|_| BadUtf8 {
            offset: bytes.len(),
        })
    }

    #[test]
    fn fails_at_the_first_byte_without_a_valid_continuation() {
        for (bytes, offset) in [
            (&b"\xed\xa0\x80"[..], 1),
            (b"\xf4\x90\x80\x80", 1),
            (b"\xe0\x9f\xbf", 1),
            (b"\xf0\x8f\xbf\xbf", 1),
            (b"\xc0\xaf", 0),
            (b"\xc1\xbf", 0),
            (b"\xf5", 0),
            (b"\x80", 0),
            (b"ab\xc3(", 3),
            (b"\xe5\xbc(", 2),
            (b"\xe5\xbc\xe5", 2),
            (b"\xf0\x9f\x92", 3),
        ] {
            assert_eq!(in_pieces(bytes, &[]), Err(BadUtf8 { offset }), "{bytes:x?}");
            let each: Vec<usize> = (0..bytes.len()).collect();
            assert_eq!(
                in_pieces(bytes, &each),
                Err(BadUtf8 { offset }),
                "{bytes:x?} byte by byte"
            );
        }
    }

    #[test]
    fn every_character_passes_cut_anywhere() {
        for character in
            ('\0'..=char::MAX)
                .step_by(7)
                .chain(['\u{7ff}', '\u{800}', '\u{ffff}', '\u{10ffff}'])
        {
            let mut room = [0; 4];
            let bytes = character.encode_utf8(&mut room).as_bytes();
            for cut in 0..bytes.len() {
                assert_eq!(
                    in_pieces(bytes, &[cut]),
                    Ok(()),
                    "{character:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn the_state_is_three_bytes() {
        assert_eq!(size_of::<Utf8>(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_std_for_any_split(
            text in ".{0,60}",
            damage in prop::option::weighted(0.7, (any::<prop::sample::Index>(), any::<u8>())),
            cuts in prop::collection::vec(any::<usize>(), 0..5),
        ) {
            let mut bytes = text.into_bytes();
            if let Some((at, byte)) = damage && !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            prop_assert_eq!(in_pieces(&bytes, &cuts), by_std(&bytes), "{:x?} cut at {:?}", bytes, cuts);
        }

        #[test]
        fn agrees_with_std_on_noise(
            bytes in prop::collection::vec(prop_oneof![Just(0xedu8), Just(0xf4), Just(0xe0), 0x80u8..0xc0, any::<u8>()], 0..12),
            cuts in prop::collection::vec(any::<usize>(), 0..5),
        ) {
            prop_assert_eq!(in_pieces(&bytes, &cuts), by_std(&bytes), "{:x?} cut at {:?}", bytes, cuts);
        }
    }
}
