//! Which secrets are too weak to start with: short, or with so little variety that they can be guessed.

use super::checked::Algorithm;
use super::given::Mistake;

/// Different bytes a secret must have: "secretsecretsecret.." has five.
const VARIETY_MIN: usize = 8;
/// Shortest API key.
const API_KEY_BYTES_MIN: usize = 16;
/// Words that no secret may be made of.
const WORDS: &[&str] = &[
    "secret", "changeme", "password", "danmaku", "example", "default", "token", "test",
];

/// Why a secret is refused; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weak {
    found: String,
    bytes_min: usize,
}

impl Weak {
    /// As a mistake of the settings.
    pub fn mistake(&self, place: &str, key: &str) -> Mistake {
        Mistake {
            place: place.into(),
            key: key.into(),
            found: self.found.clone(),
            allowed: format!("at least {} random bytes", self.bytes_min),
            hint: Some("`openssl rand -base64 48` makes a good one".into()),
        }
    }
}

/// Judges a shared signing secret. RFC 7518 section 3.2: at least as long as the hash's output.
///
/// # Errors
/// It is too weak.
pub fn check_secret(secret: &[u8], algorithm: Algorithm) -> Result<(), Weak> {
    let bytes_min = match algorithm {
        Algorithm::Hs384 => 48,
        Algorithm::Hs512 => 64,
        _ => 32,
    };
    check(secret, bytes_min)
}

/// Judges an API key.
///
/// # Errors
/// It is too weak.
pub fn check_api_key(key: &str) -> Result<(), Weak> {
    check(key.as_bytes(), API_KEY_BYTES_MIN)
}

fn check(secret: &[u8], bytes_min: usize) -> Result<(), Weak> {
    let weak = |found: String| Err(Weak { found, bytes_min });
    if secret.len() < bytes_min {
        return weak(format!("{} bytes", secret.len()));
    }
    let mut seen = [false; 256];
    for &byte in secret {
        seen[usize::from(byte)] = true;
    }
    let variety = seen.iter().filter(|seen| **seen).count();
    if variety < VARIETY_MIN {
        return weak(format!("only {variety} different bytes"));
    }
    let text = String::from_utf8_lossy(secret).to_lowercase();
    let mut rest = text.clone();
    for word in WORDS {
        rest = rest.replace(word, "");
    }
    if rest.len() * 2 < text.len() {
        return weak("well-known words".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_guessed_is_refused() {
        let strong = "q8Zr1vT4mX7nB2kL9sD3fG6hJ0pW5yUc";
        assert_eq!(check_secret(strong.as_bytes(), Algorithm::Hs256), Ok(()));
        assert!(check_secret(&strong.as_bytes()[1..], Algorithm::Hs256).is_err());
        assert!(check_secret(strong.as_bytes(), Algorithm::Hs384).is_err());
        assert!(check_secret(&[b'a'; 64], Algorithm::Hs512).is_err());
        assert!(check_secret(b"changemechangemechangemechangeme!!", Algorithm::Hs256).is_err());
        assert!(check_secret(b"1234123412341234123412341234123412", Algorithm::Hs256).is_err());
        assert!(check_api_key("short").is_err());
        assert!(check_api_key("integration-api-key-0123").is_ok());
    }

    #[test]
    fn the_secret_is_not_repeated() {
        let weak = check_secret(b"changeme", Algorithm::Hs256).unwrap_err();
        let said = weak
            .mistake("environment", "DANMAKU_AUTH__SECRET")
            .to_string();
        assert!(!said.contains("changeme"), "{said}");
        assert!(said.contains("32") && said.contains("8 bytes"), "{said}");
    }
}
