//! UTF-8 checked as bytes arrive (RFC 3629): the first byte that no valid text can have here fails at once, also in the
//! middle of an unfinished frame. Five bytes of state; whole stretches go through `simdutf8`.

/// Text so far is no UTF-8: nothing that could follow would make it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUtf8;

/// Where in a character the text stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8 {
    /// Continuation bytes still to come.
    missing: u8,
    /// The range of the next one; narrower after E0, ED, F0 and F4.
    low: u8,
    high: u8,
}

impl Utf8 {
    /// Takes the next bytes of the text.
    ///
    /// # Errors
    /// One of them cannot stand where it does.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), BadUtf8> {
        while self.missing > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(());
            };
            self.step(byte)?;
            bytes = rest;
        }
        let Err(error) = simdutf8::compat::from_utf8(bytes) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(BadUtf8);
        }
        // The beginning of a character is left over.
        for &byte in &bytes[error.valid_up_to()..] {
            self.step(byte)?;
        }
        Ok(())
    }

    /// The text ends here.
    ///
    /// # Errors
    /// In the middle of a character.
    pub fn finish(&mut self) -> Result<(), BadUtf8> {
        match std::mem::take(self).missing {
            0 => Ok(()),
            _ => Err(BadUtf8),
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), BadUtf8> {
        if self.missing > 0 {
            if !(self.low..=self.high).contains(&byte) {
                return Err(BadUtf8);
            }
            self.missing -= 1;
            (self.low, self.high) = (0x80, 0xbf);
            return Ok(());
        }
        (self.missing, self.low, self.high) = match byte {
            0x00..=0x7f => (0, 0x80, 0xbf),
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            _ => return Err(BadUtf8),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the standard library says of the whole.
    fn judge(bytes: &[u8]) -> (bool, bool) {
        match std::str::from_utf8(bytes) {
            Ok(_) => (true, true),
            Err(error) => (error.error_len().is_none(), false),
        }
    }

    proptest! {
        #[test]
        fn any_split_is_judged_as_the_whole(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "\\PC{0,20}".prop_map(String::into_bytes),
                ("\\PC{0,10}", any::<usize>(), any::<u8>()).prop_map(|(text, at, byte)| {
                    let mut bytes = text.into_bytes();
                    if !bytes.is_empty() {
                        let at = at % bytes.len();
                        bytes[at] = byte;
                    }
                    bytes
                }),
            ],
            cuts in prop::collection::vec(0usize..40, 0..5),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut utf8, mut from) = (Utf8::default(), 0);
            for to in cuts {
                let pushed = utf8.push(&bytes[from..to]);
                let (so_far, _) = judge(&bytes[..to]);
                prop_assert_eq!(pushed.is_ok(), so_far);
                if pushed.is_err() {
                    return Ok(());
                }
                from = to;
            }
            prop_assert_eq!(utf8.finish().is_ok(), judge(&bytes).1);
        }
    }

    #[test]
    fn surrogates_and_giants_fail_at_their_second_byte() {
        for bad in [[0xed, 0xa0], [0xf4, 0x90], [0xe0, 0x80], [0xf0, 0x80]] {
            let mut utf8 = Utf8::default();
            assert_eq!(utf8.push(&bad[..1]), Ok(()));
            assert_eq!(utf8.push(&bad[1..]), Err(BadUtf8));
        }
        assert_eq!(Utf8::default().push(&[0xc0]), Err(BadUtf8));
        assert_eq!(Utf8::default().push(&[0xf5]), Err(BadUtf8));
    }
}
