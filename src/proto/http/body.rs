//! Bodies: counted by Content-Length, or chunked (RFC 9112 section 7.1).
//!
//! Owns the bytes of an unfinished body, and never more of them than have come: a declared length reserves nothing.
//! Chunk extensions and trailers are checked, bounded and dropped.

use crate::base::refusal::{Code, Refusal};

use super::head::bad;
use super::{HttpLimits, is_token_byte};

/// Most hexadecimal digits of a chunk size: zeros in front may not go on for ever.
const SIZE_DIGITS_MAX: u8 = 16;

/// How a body's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes, not above the limit.
    Length(usize),
    /// In chunks.
    Chunked,
}

/// An unfinished body.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    state: State,
    /// Bytes of chunk extensions and trailers so far.
    extra_bytes: usize,
}

/// What the next byte is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Content of a body of known length, so many bytes more.
    Content { remaining: usize },
    /// A chunk's size line.
    Size { size: usize, digits: u8 },
    /// Blanks after the size; an extension must follow.
    SizeBlank { size: usize },
    /// A chunk extension.
    Extension { size: usize },
    /// The LF of the size line.
    SizeLf { size: usize },
    /// Content of a chunk.
    Data { remaining: usize },
    /// The CR after a chunk.
    DataCr,
    /// The LF after a chunk.
    DataLf,
    /// The first byte of a trailer line, or the last CR.
    Trailer,
    /// A trailer's name.
    TrailerName,
    /// A trailer's value.
    TrailerValue,
    /// The LF of a trailer line.
    TrailerLf,
    /// The last LF.
    LastLf,
    /// Whole.
    Done,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Body {
        let state = match framing {
            Framing::Length(remaining) => State::Content { remaining },
            Framing::Chunked => State::Size { size: 0, digits: 0 },
        };
        Body {
            bytes: Vec::new(),
            state,
            extra_bytes: 0,
        }
    }

    /// The content.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes bytes up to the end of the body: how many, and whether it is whole.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        limits: &HttpLimits,
    ) -> Result<(usize, bool), Refusal> {
        let mut rest = input;
        while self.state != State::Done {
            let Some((&byte, after)) = rest.split_first() else {
                break;
            };
            rest = match self.state {
                State::Content { remaining } => {
                    let (remaining, rest) = self.take(rest, remaining);
                    self.state = match remaining {
                        0 => State::Done,
                        _ => State::Content { remaining },
                    };
                    rest
                }
                State::Data { remaining } => {
                    let (remaining, rest) = self.take(rest, remaining);
                    self.state = match remaining {
                        0 => State::DataCr,
                        _ => State::Data { remaining },
                    };
                    rest
                }
                state => {
                    self.state = self.step(state, byte, limits)?;
                    after
                }
            };
        }
        Ok((input.len() - rest.len(), self.state == State::Done))
    }

    /// Moves up to `remaining` bytes of `input` into the content: how many are still to come, and the rest of the input.
    fn take<'a>(&mut self, input: &'a [u8], remaining: usize) -> (usize, &'a [u8]) {
        let (content, rest) = input.split_at(input.len().min(remaining));
        self.bytes.extend_from_slice(content);
        (remaining - content.len(), rest)
    }

    /// One byte of what stands round the content.
    fn step(&mut self, state: State, byte: u8, limits: &HttpLimits) -> Result<State, Refusal> {
        let next = match (state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return bad("a chunk size has more than 16 digits");
                }
                let size = self.sum(size, byte, limits)?;
                let digits = digits + 1;
                State::Size { size, digits }
            }
            (State::Size { digits: 0, .. }, _) => return bad("a chunk must begin with its size"),
            (State::Size { size, .. }, b' ' | b'\t') => State::SizeBlank { size },
            (State::SizeBlank { size }, b' ' | b'\t') => State::SizeBlank { size },
            (State::Size { size, .. } | State::SizeBlank { size }, b';') => {
                State::Extension { size }
            }
            (State::Size { size, .. } | State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { size }, _) if is_text_byte(byte) => State::Extension { size },
            (State::SizeLf { size: 0 }, b'\n') => State::Trailer,
            (State::SizeLf { size }, b'\n') => State::Data { remaining: size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::Trailer, b'\r') => State::LastLf,
            (State::Trailer | State::TrailerName, _) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text_byte(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::LastLf, b'\n') => State::Done,
            _ => return bad(expectation(state)),
        };
        self.count_extra(next, limits)?;
        Ok(next)
    }

    /// The chunk size with one more digit, unless that makes the body too large.
    fn sum(&self, size: usize, digit: u8, limits: &HttpLimits) -> Result<usize, Refusal> {
        let value = (digit as char).to_digit(16).unwrap_or_default() as usize;
        let size = size.saturating_mul(16).saturating_add(value);
        if size > limits.body_bytes_max.saturating_sub(self.bytes.len()) {
            return Err(too_large(limits));
        }
        Ok(size)
    }

    fn count_extra(&mut self, state: State, limits: &HttpLimits) -> Result<(), Refusal> {
        if matches!(
            state,
            State::SizeBlank { .. }
                | State::Extension { .. }
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLf
        ) {
            self.extra_bytes += 1;
        }
        if self.extra_bytes > limits.head_bytes_max {
            return Err(Refusal::new(
                Code::HeadTooLarge,
                format!(
                    "chunk extensions and trailers are longer than limits.head_bytes_max, {} bytes",
                    limits.head_bytes_max
                ),
            ));
        }
        Ok(())
    }
}

/// Blank, visible or obsolete text: what may stand in a field value or an extension (RFC 9110 section 5.5).
fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// What was wrong with a byte that is not allowed after `state`.
fn expectation(state: State) -> &'static str {
    match state {
        State::Size { .. } | State::SizeBlank { .. } => {
            "a chunk size must be followed by CR LF or an extension"
        }
        State::Extension { .. } => "a chunk extension holds a control character",
        State::DataCr | State::DataLf => "a chunk is longer than its size says",
        State::Trailer | State::TrailerName => "a trailer line must be NAME: VALUE",
        State::TrailerValue => "a trailer's value holds a control character",
        _ => "a CR in a chunked body is not followed by LF",
    }
}

/// More than the limit allows.
pub(super) fn too_large(limits: &HttpLimits) -> Refusal {
    Refusal::new(
        Code::BodyTooLarge,
        format!(
            "the body is longer than limits.body_bytes_max, {} bytes",
            limits.body_bytes_max
        ),
    )
}
