//! permessage-deflate without context takeover (RFC 7692 section 7.2): payloads in, payloads out.
//!
//! One pair for each shard, on its thread; what they need is allocated when the first message asks for it, and nothing is
//! kept from one message to the next. They must never give out more than they were told to, whatever a payload unpacks to.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::encode;
use super::fault::Fault;

/// The window our messages need, as the power of two of its bytes: 4 KiB. A message of ours is some dozens of lines, so a
/// larger one gains nothing, and this one stays in the caches, here and at the client.
pub const WINDOW_BITS: u8 = 12;
/// Payloads smaller than this go out as they are: what little they lose is not worth anybody's time.
pub const PAYLOAD_BYTES_MIN: usize = 256;
/// What a flush leaves at the end, which is not sent (RFC 7692 section 7.2.1).
const FLUSH_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Scratch kept between messages.
const IDLE_BYTES_MAX: usize = 64 * 1024;

/// From so many receivers on a message is compressed as well as zlib does by default, which makes it smaller by a third and
/// takes three times as long: then still nothing beside what sending it to them takes.
const THOROUGH_FROM: u32 = 1000;

/// What a deflator has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that became smaller.
    pub messages: u32,
    /// Bytes of their payloads before, ...
    pub before_bytes: u64,
    /// ... and after.
    pub after_bytes: u64,
}

/// Makes payloads smaller.
#[derive(Debug, Default)]
pub struct Deflator {
    fast: Option<Compress>,
    thorough: Option<Compress>,
    receivers: u32,
    packed: Vec<u8>,
    tally: Tally,
}

impl Deflator {
    /// How many will get what is compressed from now on: what that may cost depends on it.
    pub fn suit(&mut self, receivers: u32) {
        self.receivers = receivers;
    }

    /// Appends one text frame with FIN set: compressed and marked so by RSV1 if that pays, else as it is (RFC 7692 section
    /// 6.1 leaves that to each message).
    pub fn text(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        match self.deflate(payload) {
            Some(packed) => encode::deflated_text(packed, out),
            None => encode::text(payload, out),
        }
    }

    /// What was counted since the last time.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn deflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() < PAYLOAD_BYTES_MIN {
            return None;
        }
        let (state, level) = match self.receivers {
            ..THOROUGH_FROM => (&mut self.fast, Compression::fast()),
            _ => (&mut self.thorough, Compression::default()),
        };
        let state =
            state.get_or_insert_with(|| Compress::new_with_window_bits(level, false, WINDOW_BITS));
        state.reset();
        self.packed.clear();
        self.packed.shrink_to(IDLE_BYTES_MAX);
        // With no more room than the payload had, what does not become smaller does not become ready.
        self.packed.reserve_exact(payload.len());
        state
            .compress_vec(payload, &mut self.packed, FlushCompress::Sync)
            .ok()?;
        // A flush that used up its room may have more to say.
        let is_whole = self.packed.len() < self.packed.capacity();
        let packed = self.packed.strip_suffix(&FLUSH_TAIL)?;
        if !is_whole || packed.len() >= payload.len() {
            return None;
        }
        self.tally.messages += 1;
        self.tally.before_bytes += payload.len() as u64;
        self.tally.after_bytes += packed.len() as u64;
        Some(packed)
    }
}

/// Unpacks what clients send.
#[derive(Debug, Default)]
pub struct Inflator {
    state: Option<Decompress>,
    /// One byte more than a message may have, which shows that it has more.
    unpacked: Vec<u8>,
}

impl Inflator {
    /// The message a client compressed, with whatever window (RFC 7692 section 7.2.2).
    ///
    /// # Errors
    /// [`Fault::TooBig`] as soon as it has more than `message_bytes_max` bytes, of which only one more is ever unpacked;
    /// [`Fault::BadDeflate`] where the payload is no deflated data.
    pub fn inflate(&mut self, payload: &[u8], message_bytes_max: usize) -> Result<&[u8], Fault> {
        let room = message_bytes_max.saturating_add(1);
        if self.unpacked.len() != room {
            self.unpacked = vec![0; room];
        }
        let state = self.state.get_or_insert_with(|| Decompress::new(false));
        state.reset(false);
        let mut end = 0;
        for part in [payload, &FLUSH_TAIL] {
            end = inflate_part(state, part, &mut self.unpacked, end)?;
        }
        Ok(&self.unpacked[..end])
    }
}

/// Unpacks `part` behind `end`; returns the new end.
fn inflate_part(
    state: &mut Decompress,
    mut part: &[u8],
    unpacked: &mut [u8],
    mut end: usize,
) -> Result<usize, Fault> {
    loop {
        let (before_in, before_out) = (state.total_in(), state.total_out());
        let status = state
            .decompress(part, &mut unpacked[end..], FlushDecompress::Sync)
            .map_err(|_| Fault::BadDeflate)?;
        let (taken, given) = (state.total_in() - before_in, state.total_out() - before_out);
        part = &part[taken as usize..];
        end += given as usize;
        if end == unpacked.len() {
            return Err(Fault::TooBig {
                message_bytes: end as u64,
                message_bytes_max: end - 1,
            });
        }
        if status == Status::StreamEnd {
            // A sender may end a message with a block that is marked as the last one (RFC 7692 section 7.2.3.4).
            state.reset(false);
        }
        if part.is_empty() {
            return Ok(end);
        }
        if taken == 0 && given == 0 {
            return Err(Fault::BadDeflate);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::DeflateEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::base::rng::Rng;

    const MAX: usize = 64 * 1024;

    fn lines(count: usize) -> Vec<u8> {
        let line = |n: usize| {
            format!(
                r#"{{"type":"danmaku","room":"1001","seq":{n},"ts":1795377714{:03},"user":{{"id":"u{}","name":"viewer {}"}},"text":"弹幕 number {n}"}}"#,
                n % 1000,
                n * 7919 % 1000,
                n * 31 % 97
            )
        };
        let lines: Vec<String> = (0..count).map(line).collect();
        lines.join("\n").into_bytes()
    }

    /// Through the inflator, and through one that has no more than the window we promise.
    fn unpacked(packed: &[u8], bytes: usize) -> Vec<u8> {
        let whole = [packed, &FLUSH_TAIL].concat();
        let mut strict = Decompress::new_with_window_bits(false, WINDOW_BITS);
        let mut small = Vec::with_capacity(bytes + 1);
        strict
            .decompress_vec(&whole, &mut small, FlushDecompress::Sync)
            .unwrap();
        assert_eq!(Inflator::default().inflate(packed, MAX), Ok(&small[..]));
        small
    }

    #[test]
    fn a_batch_becomes_a_quarter_and_comes_back() {
        let mut deflator = Deflator::default();
        for (count, receivers) in [(3, 1), (32, 1), (200, 10_000), (32, 10_000), (3, 999)] {
            let payload = lines(count);
            deflator.suit(receivers);
            let packed = deflator.deflate(&payload).unwrap().to_vec();
            assert_eq!(unpacked(&packed, payload.len()), payload);
            if count >= 32 {
                assert!(
                    packed.len() * 4 < payload.len(),
                    "{count}: {}",
                    packed.len()
                );
            }
        }
        let tally = deflator.take_tally();
        assert_eq!(tally.messages, 5);
        assert!(tally.after_bytes * 3 < tally.before_bytes);
        assert_eq!(deflator.take_tally(), Tally::default());
    }

    #[test]
    fn for_many_it_is_made_smaller() {
        let mut deflator = Deflator::default();
        let payload = lines(32);
        let for_few = deflator.deflate(&payload).unwrap().len();
        deflator.suit(THOROUGH_FROM);
        let for_many = deflator.deflate(&payload).unwrap().len();
        assert!(for_many * 5 < for_few * 4, "{for_few}, {for_many}");
    }

    #[test]
    fn what_does_not_pay_goes_out_as_it_is() {
        let mut deflator = Deflator::default();
        let mut chance = Rng::seed(1);
        let noise: Vec<u8> = (0..2000).map(|_| chance.next_u64() as u8).collect();
        for payload in [&lines(1)[..], &noise, b""] {
            let mut out = Vec::new();
            deflator.text(payload, &mut out);
            let mut plain = Vec::new();
            encode::text(payload, &mut plain);
            assert_eq!(out, plain);
        }
        assert_eq!(deflator.take_tally(), Tally::default());
        let mut out = Vec::new();
        deflator.text(&lines(9), &mut out);
        assert_eq!(out[0], 0xc1, "FIN, RSV1, text");
    }

    /// RFC 7692 section 7.2.3: one block, a stored block, a block marked as the last, two blocks, an empty message.
    #[test]
    fn the_examples_of_the_rfc_unpack() {
        let mut inflator = Inflator::default();
        let examples: [(&[u8], &str); 5] = [
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], "Hello"),
            (
                &[
                    0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
                ],
                "Hello",
            ),
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], "Hello"),
            (
                &[
                    0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
                ],
                "Hello",
            ),
            (&[0x00], ""),
        ];
        for (packed, text) in examples {
            assert_eq!(
                inflator.inflate(packed, 5),
                Ok(text.as_bytes()),
                "{packed:02x?}"
            );
        }
        assert_eq!(inflator.inflate(&[], 5), Ok(&b""[..]));
    }

    #[test]
    fn a_bomb_is_unpacked_no_further_than_the_bound() {
        let mut bomb = Vec::new();
        let zeros = std::io::repeat(0).take(64 << 20);
        DeflateEncoder::new(zeros, Compression::best())
            .read_to_end(&mut bomb)
            .unwrap();
        let mut inflator = Inflator::default();
        let too_big = Fault::TooBig {
            message_bytes: 1001,
            message_bytes_max: 1000,
        };
        assert_eq!(inflator.inflate(&bomb, 1000), Err(too_big));
        assert_eq!(inflator.unpacked.capacity(), 1001);
        assert_eq!(
            inflator.inflate(&[0xf2, 0x48, 0x05, 0x00], 1000),
            Ok(&b"He"[..])
        );
    }

    #[test]
    fn what_is_no_deflate_is_refused_and_the_next_message_is_read() {
        let mut inflator = Inflator::default();
        for bad in [
            &[0xff, 0xff, 0xff][..],
            &[0x06],
            &[0x00, 0x05, 0x00, 0x05, 0x00],
        ] {
            assert_eq!(
                inflator.inflate(bad, 100),
                Err(Fault::BadDeflate),
                "{bad:02x?}"
            );
            let good = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
            assert_eq!(inflator.inflate(&good, 100), Ok(&b"Hello"[..]));
        }
    }

    proptest! {
        #[test]
        fn any_payload_comes_back(payload in prop::collection::vec(any::<u8>(), 0..6000), repeat in 1usize..8) {
            let payload = payload.repeat(repeat);
            let mut deflator = Deflator::default();
            if let Some(packed) = deflator.deflate(&payload) {
                let packed = packed.to_vec();
                prop_assert!(packed.len() < payload.len());
                prop_assert_eq!(unpacked(&packed, payload.len()), payload);
            }
        }

        #[test]
        fn random_bytes_never_unpack_beyond_the_bound(packed in prop::collection::vec(any::<u8>(), 0..300), max in 0usize..2000) {
            if let Ok(unpacked) = Inflator::default().inflate(&packed, max) {
                prop_assert!(unpacked.len() <= max);
            }
        }
    }
}
