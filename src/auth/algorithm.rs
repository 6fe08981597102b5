//! What there is to know about each signature algorithm: its name in the crypto backend, the key it needs. One row
//! per algorithm and nothing else; a token never gets to choose among them.

use crate::config::checked::Algorithm;

/// The algorithm in the crypto backend's vocabulary.
pub(super) fn backend(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::Hs384 => jsonwebtoken::Algorithm::HS384,
        Algorithm::Hs512 => jsonwebtoken::Algorithm::HS512,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}

/// Whether the key is a shared secret.
pub(super) fn is_hmac(algorithm: Algorithm) -> bool {
    use Algorithm::{Hs256, Hs384, Hs512};
    matches!(algorithm, Hs256 | Hs384 | Hs512)
}

/// What the key of an algorithm must be.
pub(super) fn needed(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
            "secret or secret_file, at least 32 random bytes (`openssl rand -hex 32`)"
        }
        Algorithm::Rs256 => {
            "public_key_file, an RSA public key of 2048..8192 bits in PEM (`openssl pkey -in private.pem -pubout`)"
        }
        Algorithm::Es256 => {
            "public_key_file, an EC public key on P-256 in PEM (`openssl pkey -in private.pem -pubout`)"
        }
        Algorithm::EdDsa => {
            "public_key_file, an Ed25519 public key in PEM (`openssl pkey -in private.pem -pubout`)"
        }
    }
}
