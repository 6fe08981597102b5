//! The keys that verify tokens, and the verification (RFC 7515, RFC 7519).
//!
//! A [`KeySet`] is made on the main thread at start and on each reload, and swapped whole; shards share it read-only. The
//! algorithm belongs to the key: what a token says about itself only ever refuses it. Nothing here reads a clock, and no
//! reason repeats a token or a key.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, crypto};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::algorithm::{backend, is_hmac, needed};
use super::claims::{self, Expected};
use super::pem;
use crate::base::identity::Identity;
use crate::base::refusal::{Code, Refusal};
use crate::config::checked::{Algorithm, Auth, KeyMaterial, KeySpec};

/// Longest token looked at, in bytes; a longer one is refused before it costs anything.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Shortest secret of an HS key, in bytes (RFC 7518 section 3.2, for HS256).
pub const SECRET_BYTES_MIN: usize = 32;

/// A key of `[[auth.keys]]` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("auth.keys {kid:?}: found {found}; {algorithm} needs {needed}")]
pub struct KeyMistake {
    /// Which key.
    pub kid: String,
    /// The algorithm configured for it.
    pub algorithm: &'static str,
    /// What it holds instead.
    pub found: String,
    /// What that algorithm needs, and how to get it.
    pub needed: &'static str,
}

/// Verification keys and what is required of every token.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    issuer: Option<String>,
    audience: Option<String>,
    leeway_s: u64,
}

/// One key, with the one algorithm it verifies.
#[derive(Debug)]
struct Key {
    kid: String,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// The parts of a JOSE header we read (RFC 7515 section 4.1); a member given twice is refused.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl KeySet {
    /// Reads every key. Errors: all keys that cannot be used, in their order.
    pub fn new(auth: &Auth) -> Result<KeySet, Vec<KeyMistake>> {
        let mut keys = Vec::with_capacity(auth.keys.len());
        let mut mistakes = Vec::new();
        for spec in &auth.keys {
            match Key::new(spec) {
                Ok(key) => keys.push(key),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(KeySet {
            keys,
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            leeway_s: auth.leeway_s,
        })
    }

    /// Clock difference forgiven on `exp` and `nbf`, in seconds. A live connection ends at `exp` plus this.
    pub fn leeway_s(&self) -> u64 {
        self.leeway_s
    }

    /// The bearer of `token`, judged at `now_unix_s` (seconds since 1970).
    ///
    /// A token is good while `now < exp + leeway` and `now + leeway >= nbf`. Errors: `token_expired` for those two,
    /// `token_invalid` for everything else; the reason names the claim. The claims are not looked at before the signature
    /// is found good.
    pub fn verify(&self, token: &str, now_unix_s: u64) -> Result<Arc<Identity>, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            let bytes = token.len();
            return Err(invalid(format!(
                "the token has {bytes} bytes; {TOKEN_BYTES_MAX} are allowed"
            )));
        }
        let (message, header, payload, signature) = split(token)?;
        let key = self.key_for(header)?;
        if !key.verifies(message, signature) {
            let kid = &key.kid;
            return Err(invalid(format!(
                "the token's signature was not made with the key {kid:?}"
            )));
        }
        let payload = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| invalid("the token's payload is not base64url without padding"))?;
        let expected = Expected {
            issuer: self.issuer.as_deref(),
            audience: self.audience.as_deref(),
            leeway_s: self.leeway_s,
            now_s: now_unix_s,
        };
        claims::identity(&payload, &expected).map(Arc::new)
    }

    /// The key a token's header asks for, if the header's algorithm is that key's.
    fn key_for(&self, header: &str) -> Result<&Key, Refusal> {
        let bytes = URL_SAFE_NO_PAD
            .decode(header)
            .map_err(|_| invalid("the token's header is not base64url without padding"))?;
        let header: Header<'_> = serde_json::from_slice(&bytes)
            .map_err(|_| invalid("the token's header is not a JSON object with alg once"))?;
        if header.crit.is_some() {
            // RFC 7515 section 4.1.11: an extension that must be understood and is not.
            return Err(invalid(
                "the token's header has crit, which is not supported",
            ));
        }
        let key = match (header.kid, self.keys.as_slice()) {
            (_, []) => return Err(invalid("no key is configured in auth.keys")),
            (None, [only]) => only,
            (None, _) => {
                return Err(invalid(
                    "the token's header has no kid, and auth.keys has several keys",
                ));
            }
            (Some(kid), keys) => keys
                .iter()
                .find(|key| key.kid == kid)
                .ok_or_else(|| invalid("no key of auth.keys has the token's kid"))?,
        };
        let algorithm = key.algorithm.as_str();
        if header.alg == algorithm {
            return Ok(key);
        }
        let kid = &key.kid;
        Err(invalid(format!(
            "the token's alg is not {algorithm}, the algorithm of the key {kid:?}"
        )))
    }
}

impl Key {
    fn new(spec: &KeySpec) -> Result<Key, KeyMistake> {
        let mistake = |found: String| KeyMistake {
            kid: spec.kid.clone(),
            algorithm: spec.algorithm.as_str(),
            found,
            needed: needed(spec.algorithm),
        };
        let decoding = match (&spec.material, is_hmac(spec.algorithm)) {
            (KeyMaterial::Secret(secret), true) if secret.len() < SECRET_BYTES_MIN => {
                return Err(mistake(format!("a secret of {} bytes", secret.len())));
            }
            (KeyMaterial::Secret(secret), true)
                if secret.trim_ascii_start().starts_with(b"-----BEGIN") =>
            {
                // A key file by the wrong door: whoever has the public key could sign.
                return Err(mistake("a PEM block in place of a secret".to_owned()));
            }
            (KeyMaterial::Secret(secret), true) => DecodingKey::from_secret(secret),
            (KeyMaterial::PublicPem(pem), false) => {
                pem::public_key(spec.algorithm, pem).map_err(mistake)?
            }
            (KeyMaterial::Secret(_), false) => return Err(mistake("a secret".to_owned())),
            (KeyMaterial::PublicPem(_), true) => {
                return Err(mistake("a public key file".to_owned()));
            }
        };
        Ok(Key {
            kid: spec.kid.clone(),
            algorithm: spec.algorithm,
            decoding,
        })
    }

    /// Whether `signature` (base64url) is this key's over `message`. HMACs are compared in constant time by the backend.
    fn verifies(&self, message: &str, signature: &str) -> bool {
        let algorithm = backend(self.algorithm);
        crypto::verify(signature, message.as_bytes(), &self.decoding, algorithm).unwrap_or(false)
    }
}

/// Signed message, header, payload and signature of a compact token (RFC 7515 section 7.1).
fn split(token: &str) -> Result<(&str, &str, &str, &str), Refusal> {
    token
        .rsplit_once('.')
        .and_then(|(message, signature)| {
            let (header, payload) = message.split_once('.')?;
            (!payload.contains('.')).then_some((message, header, payload, signature))
        })
        .ok_or_else(|| invalid("the token is not three parts separated by dots"))
}

fn invalid(reason: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::TokenInvalid, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    use jsonwebtoken::EncodingKey;
    use proptest::prelude::*;

    use crate::base::identity::{Role, RoomScope};
    use crate::config::checked::{Anonymous, Origins};

    const NOW_S: u64 = 1_800_000_000;
    const SECRET: &[u8] = b"an HS test secret of 64 bytes, long enough for every HS algorithm";
    const RSA_PEM: &[u8] = include_bytes!("testdata/rsa2048.pub.pem");

    fn hs(kid: &str, algorithm: Algorithm) -> KeySpec {
        KeySpec {
            kid: kid.to_owned(),
            algorithm,
            material: KeyMaterial::Secret(SECRET.to_vec()),
        }
    }

    fn public(kid: &str, algorithm: Algorithm, pem: &[u8]) -> KeySpec {
        KeySpec {
            kid: kid.to_owned(),
            algorithm,
            material: KeyMaterial::PublicPem(pem.to_vec()),
        }
    }

    fn settings(keys: Vec<KeySpec>) -> Auth {
        Auth {
            anonymous: Anonymous::Deny,
            origins: Origins::Same,
            issuer: None,
            audience: None,
            leeway_s: 5,
            keys,
        }
    }

    fn set(keys: Vec<KeySpec>) -> KeySet {
        KeySet::new(&settings(keys)).unwrap()
    }

    fn every_kind() -> KeySet {
        set(vec![
            hs("hs256", Algorithm::Hs256),
            hs("hs384", Algorithm::Hs384),
            hs("hs512", Algorithm::Hs512),
            public("rs", Algorithm::Rs256, RSA_PEM),
            public(
                "es",
                Algorithm::Es256,
                include_bytes!("testdata/p256.pub.pem"),
            ),
            public(
                "ed",
                Algorithm::EdDsa,
                include_bytes!("testdata/ed25519.pub.pem"),
            ),
        ])
    }

    /// Tokens signed by other hands, with every algorithm.
    const VECTORS: [&str; 6] = [
        include_str!("testdata/hs256.jwt"),
        include_str!("testdata/hs384.jwt"),
        include_str!("testdata/hs512.jwt"),
        include_str!("testdata/rs256.jwt"),
        include_str!("testdata/es256.jwt"),
        include_str!("testdata/eddsa.jwt"),
    ];

    /// A token with this header and payload, signed with an HMAC over `secret` by the algorithm named.
    fn forge(header: &str, payload: &str, secret: &[u8], by: jsonwebtoken::Algorithm) -> String {
        let (header, payload) = (
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload),
        );
        let message = format!("{header}.{payload}");
        let key = EncodingKey::from_secret(secret);
        let signature = crypto::sign(message.as_bytes(), &key, by).unwrap();
        format!("{message}.{signature}")
    }

    fn hs256(header: &str) -> String {
        let payload = r#"{"sub":"u1","exp":1800000060}"#;
        forge(header, payload, SECRET, jsonwebtoken::Algorithm::HS256)
    }

    #[track_caller]
    fn refused(keys: &KeySet, token: &str, word: &str) {
        let refusal = keys.verify(token, NOW_S).unwrap_err();
        assert_eq!(refusal.code, Code::TokenInvalid, "{refusal:?}");
        assert!(refusal.reason.contains(word), "{refusal:?}");
    }

    #[test]
    fn every_algorithm_verifies_a_token_signed_elsewhere() {
        let keys = every_kind();
        for token in VECTORS {
            let who = keys.verify(token.trim(), NOW_S).unwrap();
            assert_eq!((who.user.id.as_str(), &*who.user.name), ("u1", "Ada"));
            assert_eq!((who.role, who.exp_s), (Role::Host, 4_102_444_800));
            let rooms = RoomScope::Listed(["1001".into(), "vip-*".into()].into());
            assert_eq!(who.rooms, rooms);
        }
        let late = keys.verify(VECTORS[0].trim(), 4_102_444_805).unwrap_err();
        assert_eq!(late.code, Code::TokenExpired);
    }

    #[test]
    fn one_changed_character_anywhere_is_refused() {
        let keys = every_kind();
        for token in VECTORS {
            let token = token.trim();
            for place in 0..token.len() {
                let mut changed = token.as_bytes().to_vec();
                changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(changed).unwrap();
                assert!(keys.verify(&changed, NOW_S).is_err(), "{place} of {token}");
            }
        }
    }

    #[test]
    fn the_algorithm_is_the_keys_never_the_tokens() {
        // The classic: the public key, which everyone has, as an HMAC secret.
        let keys = set(vec![public("rs", Algorithm::Rs256, RSA_PEM)]);
        let payload = r#"{"sub":"u1","exp":1800000060}"#;
        let forge = |header: &str| forge(header, payload, RSA_PEM, jsonwebtoken::Algorithm::HS256);
        refused(
            &keys,
            &forge(r#"{"alg":"HS256","kid":"rs"}"#),
            "alg is not RS256",
        );
        refused(&keys, &forge(r#"{"alg":"HS256"}"#), "alg is not RS256");
        refused(&keys, &forge(r#"{"alg":"RS256"}"#), "signature");

        let keys = set(vec![hs("a", Algorithm::Hs512)]);
        refused(&keys, &hs256(r#"{"alg":"HS256"}"#), "alg is not HS512");
        refused(&keys, &hs256(r#"{"alg":"HS512"}"#), "signature");
    }

    #[test]
    fn none_is_no_algorithm() {
        let keys = set(vec![hs("a", Algorithm::Hs256)]);
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"u1","exp":1800000060}"#);
        for alg in ["none", "None", "NONE", "hs256", ""] {
            let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":{alg:?}}}"#));
            refused(&keys, &format!("{header}.{payload}."), "alg is not HS256");
        }
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        refused(&keys, &format!("{header}.{payload}."), "signature");
    }

    #[test]
    fn a_key_is_found_by_kid_or_by_being_the_only_one() {
        let one = set(vec![hs("a", Algorithm::Hs256)]);
        assert!(one.verify(&hs256(r#"{"alg":"HS256"}"#), NOW_S).is_ok());
        assert!(
            one.verify(&hs256(r#"{"alg":"HS256","kid":"a"}"#), NOW_S)
                .is_ok()
        );
        refused(&one, &hs256(r#"{"alg":"HS256","kid":"b"}"#), "kid");

        let two = set(vec![hs("a", Algorithm::Hs256), hs("b", Algorithm::Hs512)]);
        assert!(
            two.verify(&hs256(r#"{"alg":"HS256","kid":"a"}"#), NOW_S)
                .is_ok()
        );
        refused(&two, &hs256(r#"{"alg":"HS256"}"#), "several keys");
        refused(
            &two,
            &hs256(r#"{"alg":"HS256","kid":"b"}"#),
            "alg is not HS512",
        );

        let none = set(Vec::new());
        refused(&none, &hs256(r#"{"alg":"HS256"}"#), "no key");
    }

    #[test]
    fn headers_we_cannot_honour_are_refused() {
        let keys = set(vec![hs("a", Algorithm::Hs256)]);
        refused(
            &keys,
            &hs256(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#),
            "crit",
        );
        for bad in [
            "{}",
            "[]",
            "",
            r#"{"alg":1}"#,
            r#"{"alg":"HS256","kid":7}"#,
            r#"{"alg":"RS256","alg":"HS256"}"#,
        ] {
            refused(&keys, &hs256(bad), "header");
        }
        assert!(
            keys.verify(&hs256(r#"{"alg":"HS256","typ":"JWT","jku":"x"}"#), NOW_S)
                .is_ok()
        );
    }

    #[test]
    fn shapes_that_are_no_token_are_refused() {
        let keys = set(vec![hs("a", Algorithm::Hs256)]);
        let good = hs256(r#"{"alg":"HS256"}"#);
        for bad in ["", ".", "a", "a.b", "a.b.c.d", &format!("{good}.x")] {
            refused(&keys, bad, "three parts");
        }
        for bad in ["..", "é.é.é", "a=.b.c", &format!(" {good}")] {
            refused(&keys, bad, "header");
        }
        refused(&keys, &format!("{good}="), "signature");
        let long = format!("{good}{}", "x".repeat(TOKEN_BYTES_MAX + 1 - good.len()));
        refused(&keys, &long, "4097 bytes");
        // One byte less and it is judged on its merits.
        refused(&keys, &long[..TOKEN_BYTES_MAX], "signature");
    }

    #[test]
    fn no_reason_repeats_the_token() {
        let keys = set(vec![hs("a", Algorithm::Hs256)]);
        let marks = [
            r#"{"sub":"MARK\u0000","exp":1800000060}"#,
            r#"{"sub":"u","exp":"MARK"}"#,
            r#"{"sub":"u","exp":1800000060,"role":"MARK"}"#,
            r#"{"sub":"u","exp":1800000060,"rooms":["MARK MARK"]}"#,
            r#"{"sub":"u","exp":1800000060,"MARK"}"#,
        ];
        for payload in marks {
            let by = jsonwebtoken::Algorithm::HS256;
            let token = forge(r#"{"alg":"HS256"}"#, payload, SECRET, by);
            let refusal = keys.verify(&token, NOW_S).unwrap_err();
            assert!(!refusal.reason.contains("MARK"), "{refusal:?}");
        }
        for header in [r#"{"alg":"MARK"}"#, r#"{"alg":"HS256","kid":"MARK"}"#] {
            let refusal = keys.verify(&hs256(header), NOW_S).unwrap_err();
            assert!(!refusal.reason.contains("MARK"), "{refusal:?}");
        }
        assert!(!format!("{keys:?}").contains("test secret"));
    }

    #[test]
    fn every_bad_key_is_named_at_once() {
        let mut short = hs("short", Algorithm::Hs256);
        short.material = KeyMaterial::Secret(b"31 bytes are one byte too few..".to_vec());
        let mut pem_secret = hs("door", Algorithm::Hs512);
        pem_secret.material = KeyMaterial::Secret(RSA_PEM.to_vec());
        let mistakes = KeySet::new(&settings(vec![
            short,
            hs("secret", Algorithm::Es256),
            hs("good", Algorithm::Hs256),
            public("pem", Algorithm::Hs256, RSA_PEM),
            pem_secret,
            public("kind", Algorithm::EdDsa, RSA_PEM),
            public("junk", Algorithm::Rs256, b"junk"),
        ]))
        .unwrap_err();
        let said: Vec<String> = mistakes.iter().map(KeyMistake::to_string).collect();
        let beginnings = [
            "auth.keys \"short\": found a secret of 31 bytes; HS256 needs secret or",
            "auth.keys \"secret\": found a secret; ES256 needs public_key_file, an EC",
            "auth.keys \"pem\": found a public key file; HS256 needs secret",
            "auth.keys \"door\": found a PEM block in place of a secret; HS512",
            "auth.keys \"kind\": found an RSA public key; EdDSA needs public_key_file",
            "auth.keys \"junk\": found no PEM block; RS256 needs public_key_file",
        ];
        assert_eq!(said.len(), beginnings.len(), "{said:#?}");
        for (said, beginning) in said.iter().zip(beginnings) {
            assert!(said.starts_with(beginning), "{said}");
        }
    }

    proptest! {
        #[test]
        fn random_strings_never_panic_and_never_verify(
            text in "\\PC{0,80}",
            parts in "[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}",
            payload in "\\PC{0,80}",
            now_s in any::<u64>(),
        ) {
            let keys = every_kind();
            prop_assert!(keys.verify(&text, now_s).is_err());
            prop_assert!(keys.verify(&parts, now_s).is_err());
            // Rightly signed nonsense reaches the claims.
            let header = r#"{"alg":"HS256","kid":"hs256"}"#;
            let by = jsonwebtoken::Algorithm::HS256;
            let token = forge(header, &payload, SECRET, by);
            prop_assert!(keys.verify(&token, now_s).is_err());
        }
    }
}
