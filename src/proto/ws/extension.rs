//! `Sec-WebSocket-Extensions`: reading what a client offers (RFC 6455 section 9.1) and choosing among its offers of
//! permessage-deflate (RFC 7692 section 7.1), the one extension known here.
//!
//! Pure, over header values. Must never accept an offer that the deflator of this node could not keep.

use super::deflate::WINDOW_BITS;
use crate::proto::http::is_token_byte;

/// The extension as it is named on the wire.
const NAME: &str = "permessage-deflate";

/// permessage-deflate as it was agreed upon. Neither side keeps a context from one message to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The client asked for a bound of the server's window, so it is told the one there is.
    tells_window: bool,
}

impl Deflate {
    /// Appends the value of the answer's header (RFC 7692 section 7.1.1, 7.1.2).
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(NAME.as_bytes());
        out.extend_from_slice(b"; server_no_context_takeover; client_no_context_takeover");
        if self.tells_window {
            out.extend_from_slice(b"; server_max_window_bits=");
            out.extend_from_slice(itoa::Buffer::new().format(WINDOW_BITS).as_bytes());
        }
    }
}

/// A header that does not follow the grammar; RFC 6455 section 9.1 lets no connection come of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// The first offer of permessage-deflate that can be kept, over all headers of a request in order. Extensions that are not
/// known, and offers with a parameter that is unknown, doubled or out of range, are passed over.
///
/// # Errors
/// [`Malformed`].
pub fn deflate_offered<'a>(
    values: impl Iterator<Item = &'a str>,
) -> Result<Option<Deflate>, Malformed> {
    let mut chosen = None;
    for value in values {
        let mut scan = Scan { rest: value };
        loop {
            while scan.takes(b',') {}
            if scan.rest.is_empty() {
                break;
            }
            let deflate = scan.extension()?;
            chosen = chosen.or(deflate);
            if !scan.rest.is_empty() && !scan.takes(b',') {
                return Err(Malformed);
            }
        }
    }
    Ok(chosen)
}

/// The parameters of one offer.
#[derive(Default)]
struct Offer {
    declined: bool,
    server_no_context: bool,
    client_no_context: bool,
    server_bits: Option<u8>,
    client_bits: Option<Option<u8>>,
}

impl Offer {
    fn take(&mut self, name: &str, value: Option<&str>) {
        let (is_new, is_good) = match name {
            "server_no_context_takeover" => {
                let before = std::mem::replace(&mut self.server_no_context, true);
                (!before, value.is_none())
            }
            "client_no_context_takeover" => {
                let before = std::mem::replace(&mut self.client_no_context, true);
                (!before, value.is_none())
            }
            "server_max_window_bits" => {
                let bits = value.and_then(window_bits);
                let before = std::mem::replace(&mut self.server_bits, bits);
                (before.is_none(), bits.is_some())
            }
            // Our inflator reads any window, so the value is only looked at.
            "client_max_window_bits" => {
                let bits = value.and_then(window_bits);
                let before = self.client_bits.replace(bits);
                (before.is_none(), value.is_none() || bits.is_some())
            }
            _ => (false, false),
        };
        self.declined |= !(is_new && is_good);
    }

    fn accept(&self) -> Option<Deflate> {
        let too_small = self.server_bits.is_some_and(|bits| bits < WINDOW_BITS);
        (!self.declined && !too_small).then_some(Deflate {
            tells_window: self.server_bits.is_some(),
        })
    }
}

/// 8..=15, without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok()?;
    (matches!(bits, 8..=15) && !value.starts_with(['0', '+'])).then_some(bits)
}

/// A header value, from where it is still to be read.
struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    /// Takes this byte if it is next, with the blanks around it.
    fn takes(&mut self, byte: u8) -> bool {
        self.blanks();
        let taken = self.rest.as_bytes().first() == Some(&byte);
        if taken {
            self.rest = &self.rest[1..];
            self.blanks();
        }
        taken
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn token(&mut self) -> Result<&'a str, Malformed> {
        let end = self.rest.bytes().position(|byte| !is_token_byte(byte));
        let (token, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        match token.is_empty() {
            true => Err(Malformed),
            false => Ok(token),
        }
    }

    /// One extension with its parameters, up to the comma; what came of it, if it is permessage-deflate.
    fn extension(&mut self) -> Result<Option<Deflate>, Malformed> {
        let name = self.token()?;
        let mut offer = Offer::default();
        while self.takes(b';') {
            let name = self.token()?;
            let value = match self.takes(b'=') {
                true => Some(self.value()?),
                false => None,
            };
            offer.take(name, value.as_deref());
        }
        Ok((name == NAME).then(|| offer.accept()).flatten())
    }

    /// A token, in quotes or not.
    fn value(&mut self) -> Result<String, Malformed> {
        if !self.takes(b'"') {
            return self.token().map(str::to_owned);
        }
        let mut value = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, char)) = chars.next() {
            let char = match char {
                '"' if value.is_empty() => return Err(Malformed),
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(value);
                }
                '\\' => chars.next().ok_or(Malformed)?.1,
                char => char,
            };
            // What stands in the quotes must be a token too (RFC 6455 section 9.1).
            if !u8::try_from(char).is_ok_and(is_token_byte) {
                return Err(Malformed);
            }
            value.push(char);
        }
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(values: &[&str]) -> Result<Option<String>, Malformed> {
        let deflate = deflate_offered(values.iter().copied())?;
        Ok(deflate.map(|deflate| {
            let mut out = Vec::new();
            deflate.write(&mut out);
            String::from_utf8(out).unwrap()
        }))
    }

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn what_real_clients_offer_is_accepted() {
        let told = format!("{PLAIN}; server_max_window_bits=12");
        for (offer, expected) in [
            // Chromium, Firefox, npm ws, Python websockets.
            ("permessage-deflate; client_max_window_bits", PLAIN),
            ("permessage-deflate", PLAIN),
            // Safari's older prefixed name is passed over for the one it offers beside it.
            ("x-webkit-deflate-frame, permessage-deflate", PLAIN),
            (
                "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15",
                &told,
            ),
            (
                "permessage-deflate;server_max_window_bits=\"12\";server_no_context_takeover",
                &told,
            ),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                PLAIN,
            ),
        ] {
            assert_eq!(answer(&[offer]), Ok(Some(expected.into())), "{offer}");
        }
    }

    #[test]
    fn an_offer_that_cannot_be_kept_is_passed_over_for_the_next() {
        for declined in [
            "permessage-deflate; server_max_window_bits=11",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=012",
            "permessage-deflate; server_max_window_bits=+12",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=x",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=x; client_max_window_bits=9",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover=1",
            "permessage-deflate; mystery",
            "permessage-bzip2",
            "Permessage-Deflate",
        ] {
            assert_eq!(answer(&[declined]), Ok(None), "{declined}");
            let good = "permessage-deflate";
            assert_eq!(answer(&[declined, good]), Ok(Some(PLAIN.into())));
            let list = format!("{declined} ,, {good}");
            assert_eq!(answer(&[&list]), Ok(Some(PLAIN.into())), "{list}");
        }
        assert_eq!(answer(&[]), Ok(None));
        assert_eq!(answer(&["", " , "]), Ok(None));
    }

    #[test]
    fn what_is_no_list_of_extensions_is_said_to_be_none() {
        for malformed in [
            ";",
            "permessage-deflate;",
            "permessage-deflate; =1",
            "permessage-deflate; a=",
            "permessage-deflate; a=\"",
            "permessage-deflate; a=\"\"",
            "permessage-deflate; a=\"b c\"",
            "permessage-deflate; a=\"b\\",
            "permessage-deflate; a=\"弹\"",
            "permessage-deflate x",
            "permessage-deflate; a b",
            "permessage/deflate",
        ] {
            assert_eq!(answer(&[malformed]), Err(Malformed), "{malformed}");
            assert_eq!(answer(&["permessage-deflate", malformed]), Err(Malformed));
        }
    }
}
