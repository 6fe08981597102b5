//! What a body is said to be. Kind where kindness is safe: a body without a type is taken for JSON.

use crate::base::refusal::{Code, Refusal};

use super::shown;

/// Whether a body of that `Content-Type` is taken for JSON: none named, `application/json`, `text/json`, or any `+json`.
/// Parameters do not matter (RFC 9110 section 8.3.1).
pub fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else {
        return true;
    };
    let essence = content_type.split(';').next().unwrap_or_default();
    let essence = essence.trim_matches([' ', '\t']).to_ascii_lowercase();
    matches!(essence.as_str(), "" | "application/json" | "text/json")
        || essence
            .split_once('/')
            .is_some_and(|(_, subtype)| subtype.len() > "+json".len() && subtype.ends_with("+json"))
}

/// Refuses a body that is not JSON with 415; the reason names the type that was sent and the flag that mends it.
///
/// # Errors
/// [`Code::UnsupportedMedia`].
pub fn require_json(content_type: Option<&str>) -> Result<(), Refusal> {
    if is_json(content_type) {
        return Ok(());
    }
    let sent = shown(content_type.unwrap_or_default());
    Err(Refusal::new(
        Code::UnsupportedMedia,
        format!(
            "the body is said to be {sent}; JSON is needed (curl: -H 'Content-Type: application/json')"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_by_many_names() {
        for name in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "text/json",
            "application/vnd.api+json",
            "application/json ;x=y",
            "",
        ] {
            assert_eq!(require_json(Some(name)), Ok(()), "{name}");
        }
        assert!(is_json(None));
    }

    #[test]
    fn what_is_not_json_is_told_how_to_be() {
        for name in [
            "application/x-www-form-urlencoded",
            "text/plain",
            "application/jsonx",
            "application/+json",
            "+json",
            "json",
        ] {
            let refusal = require_json(Some(name)).unwrap_err();
            assert_eq!(refusal.code, Code::UnsupportedMedia);
            assert!(refusal.reason.contains(name), "{}", refusal.reason);
            assert!(
                refusal
                    .reason
                    .contains("-H 'Content-Type: application/json'")
            );
        }
    }
}
