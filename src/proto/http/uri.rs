//! Percent-decoding of paths and queries. Strict: a broken escape is told, never passed on half decoded.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::base::refusal::{Code, Refusal};

/// Most pairs read from one query; after them the iterator says so once and ends.
pub const QUERY_PAIRS_MAX: usize = 128;

/// What is wrong with an encoded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// A `%` without two hexadecimal digits after it.
    #[error("the address holds a % that is not followed by two hexadecimal digits")]
    Escape,
    /// Decoded bytes that are no UTF-8.
    #[error("the address, decoded, is not UTF-8")]
    Utf8,
    /// More than [`QUERY_PAIRS_MAX`].
    #[error("the query has more than {QUERY_PAIRS_MAX} parameters")]
    TooManyPairs,
}

impl From<UriError> for Refusal {
    fn from(error: UriError) -> Refusal {
        Refusal::new(Code::BadRequest, error.to_string())
    }
}

/// One decoded name and value.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Decodes one segment of a path; `+` stays `+`.
///
/// # Errors
/// [`UriError::Escape`], [`UriError::Utf8`].
pub fn decode_segment(segment: &str) -> Result<Cow<'_, str>, UriError> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let escapes_whole = segment.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if !escapes_whole {
        return Err(UriError::Escape);
    }
    percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| UriError::Utf8)
}

/// The decoded segments of a path that begins with `/`; `/a/` has an empty one at its end. Segments are decoded after they are
/// cut, so `%2F` never makes one more.
pub fn path_segments(path: &str) -> impl Iterator<Item = Result<Cow<'_, str>, UriError>> {
    path.strip_prefix('/')
        .unwrap_or(path)
        .split('/')
        .map(decode_segment)
}

/// The decoded pairs of a query, as forms write them: `+` is a space, a name without `=` has an empty value, empty pairs are left
/// out. Bounded by [`QUERY_PAIRS_MAX`].
pub fn query_pairs(query: &str) -> impl Iterator<Item = Result<Pair<'_>, UriError>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .take(QUERY_PAIRS_MAX + 1)
        .enumerate()
        .map(|(index, pair)| {
            if index == QUERY_PAIRS_MAX {
                return Err(UriError::TooManyPairs);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode_form(name)?, decode_form(value)?))
        })
}

/// The value of the first pair called `name`, if there is one.
///
/// # Errors
/// Any that [`query_pairs`] meets on the way there.
pub fn query_first<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, UriError> {
    for pair in query_pairs(query) {
        let (found, value) = pair?;
        if found == name {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn decode_form(text: &str) -> Result<Cow<'_, str>, UriError> {
    if !text.contains('+') {
        return decode_segment(text);
    }
    let spaced = text.replace('+', " ");
    Ok(Cow::Owned(decode_segment(&spaced)?.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn pairs(query: &str) -> Result<Vec<(String, String)>, UriError> {
        query_pairs(query)
            .map(|pair| pair.map(|(n, v)| (n.into_owned(), v.into_owned())))
            .collect()
    }

    #[test]
    fn queries_are_read_as_forms_write_them() {
        let owned = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(pairs(""), Ok(vec![]));
        assert_eq!(
            pairs("room=1001&room=a%3Ab&&token=x%2By+z&flag&=v&e=a=b"),
            Ok(vec![
                owned("room", "1001"),
                owned("room", "a:b"),
                owned("token", "x+y z"),
                owned("flag", ""),
                owned("", "v"),
                owned("e", "a=b"),
            ])
        );
        assert_eq!(pairs("r=%E6%88%BF%e9%97%b4"), Ok(vec![owned("r", "房间")]));
    }

    #[test]
    fn broken_escapes_are_told() {
        for query in ["a=%", "a=%4", "a=%zz", "a=%%41", "%=1", "a=+%"] {
            assert_eq!(pairs(query), Err(UriError::Escape), "{query}");
        }
        assert_eq!(pairs("a=%ff"), Err(UriError::Utf8));
        assert_eq!(pairs("a=%ed%a0%80"), Err(UriError::Utf8));
        assert_eq!(query_first("a=1&b=%", "a"), Ok(Some("1".into())));
        assert_eq!(query_first("b=%&a=1", "a"), Err(UriError::Escape));
        assert_eq!(query_first("b=1", "a"), Ok(None));
        assert_eq!(Refusal::from(UriError::Utf8).code, Code::BadRequest);
    }

    #[test]
    fn a_query_is_bounded() {
        let query = |pairs: usize| vec!["a=1"; pairs].join("&");
        assert_eq!(pairs(&query(QUERY_PAIRS_MAX)).unwrap().len(), 128);
        assert_eq!(
            pairs(&query(QUERY_PAIRS_MAX + 1)),
            Err(UriError::TooManyPairs)
        );
        let endless = query(QUERY_PAIRS_MAX * 4);
        assert_eq!(query_pairs(&endless).count(), QUERY_PAIRS_MAX + 1);
    }

    #[test]
    fn paths_are_cut_before_they_are_decoded() {
        let segments = |path| path_segments(path).collect::<Result<Vec<_>, _>>();
        assert_eq!(
            segments("/rooms/a%2Fb/x+y").unwrap(),
            ["rooms", "a/b", "x+y"]
        );
        assert_eq!(segments("/a/").unwrap(), ["a", ""]);
        assert_eq!(segments("/a/%c3%28"), Err(UriError::Utf8));
        assert_eq!(segments("/a/%c"), Err(UriError::Escape));
    }

    proptest! {
        #[test]
        fn decoding_takes_back_encoding(name in "\\PC{0,12}", value in ".{0,40}") {
            use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
            let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let query = format!("{}={}", encode(&name), encode(&value));
            prop_assert_eq!(pairs(&query), Ok(vec![(name, value)]));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            for pair in query_pairs(&text) {
                let _ = pair;
            }
            for segment in path_segments(&text) {
                let _ = segment;
            }
        }
    }
}
