//! Looks into a public key's PEM and says what it holds, so that a wrong key is a sentence at start and not a riddle at the first
//! token. Runs on the main thread at start and on reload; it must never accept a key the verifier would later refuse.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::DecodingKey;

use crate::config::checked::Algorithm;

/// Smallest and largest RSA modulus the verifier takes, in bits (RFC 7518 section 3.3 asks for 2048 at least).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

// Object identifiers as DER bytes, tag and length included.
const OID_RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const OID_EC: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
const OID_P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const OID_ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";

/// What a PEM turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Rsa,
    P256,
    OtherCurve,
    Ed25519,
    Private,
    Certificate,
    Other,
    NotPem,
}

impl Found {
    /// As part of a sentence.
    fn as_str(self) -> &'static str {
        match self {
            Found::Rsa => "an RSA public key",
            Found::P256 => "an EC public key on P-256",
            Found::OtherCurve => "an EC public key on a curve other than P-256",
            Found::Ed25519 => "an Ed25519 public key",
            Found::Private => "a private key",
            Found::Certificate => "a certificate",
            Found::Other => "a PEM block of another kind",
            Found::NotPem => "no PEM block",
        }
    }
}

/// The verification key in `pem`, if it is one for `algorithm`; else what was found instead. HS algorithms have no PEM.
pub(super) fn public_key(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, String> {
    let found = inspect(pem);
    let parsed = match (algorithm, found) {
        (Algorithm::Rs256, Found::Rsa) => DecodingKey::from_rsa_pem(pem),
        (Algorithm::Es256, Found::P256) => DecodingKey::from_ec_pem(pem),
        (Algorithm::EdDsa, Found::Ed25519) => DecodingKey::from_ed_pem(pem),
        _ => return Err(found.as_str().to_owned()),
    };
    let damaged = || format!("{}, damaged", found.as_str());
    let key = parsed.map_err(|_| damaged())?;
    let content = key.try_get_as_bytes().map_err(|_| damaged())?;
    match found {
        Found::Rsa => {
            let bits = modulus_bits(content).ok_or_else(damaged)?;
            if !RSA_BITS.contains(&bits) {
                return Err(format!("an RSA public key of {bits} bits"));
            }
        }
        // An uncompressed point (SEC 1 section 2.3.3): 04, x, y.
        Found::P256 if content.len() == 65 && content.first() == Some(&4) => {}
        Found::Ed25519 if content.len() == 32 => {}
        _ => return Err(damaged()),
    }
    Ok(key)
}

/// The kind of the first PEM block (RFC 7468), by its label and the object identifiers inside.
fn inspect(pem: &[u8]) -> Found {
    let Some((label, body)) = std::str::from_utf8(pem).ok().and_then(first_block) else {
        return Found::NotPem;
    };
    match label {
        "PUBLIC KEY" => {}
        "RSA PUBLIC KEY" => return Found::Rsa,
        "CERTIFICATE" => return Found::Certificate,
        label if label.ends_with("PRIVATE KEY") => return Found::Private,
        _ => return Found::Other,
    }
    let base64: String = body.split_ascii_whitespace().collect();
    let Ok(der) = STANDARD.decode(base64) else {
        return Found::NotPem;
    };
    let names = |oid: &[u8]| der.windows(oid.len()).any(|window| window == oid);
    if names(OID_EC) {
        let on_p256 = names(OID_P256);
        if on_p256 {
            Found::P256
        } else {
            Found::OtherCurve
        }
    } else if names(OID_RSA) {
        Found::Rsa
    } else if names(OID_ED25519) {
        Found::Ed25519
    } else {
        Found::Other
    }
}

/// Label and body of the first block.
fn first_block(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    Some((label, body))
}

/// Bits of the modulus of a PKCS#1 public key (RFC 8017 appendix A.1.1: a SEQUENCE that begins with the INTEGER n).
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let sequence = der_value(der, 0x30)?;
    let modulus = der_value(sequence, 0x02)?;
    let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
    let significant = modulus.get(zeros..)?;
    let first = significant.first()?;
    Some(significant.len() * 8 - first.leading_zeros() as usize)
}

/// The value of the DER element that `bytes` begins with, if it has this tag (X.690 section 8.1).
fn der_value(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (&found, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = digits.iter().fold(0, |sum, &d| sum << 8 | usize::from(d));
            (length, rest)
        }
        _ => return None,
    };
    if found == tag {
        rest.get(..length)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const RSA: &[u8] = include_bytes!("testdata/rsa2048.pub.pem");
    const P256: &[u8] = include_bytes!("testdata/p256.pub.pem");
    const ED: &[u8] = include_bytes!("testdata/ed25519.pub.pem");

    fn found(algorithm: Algorithm, pem: &[u8]) -> String {
        public_key(algorithm, pem).unwrap_err()
    }

    #[test]
    fn each_algorithm_takes_its_own_kind_and_names_the_others() {
        let own = [
            (Algorithm::Rs256, RSA, "an RSA public key"),
            (Algorithm::Es256, P256, "an EC public key on P-256"),
            (Algorithm::EdDsa, ED, "an Ed25519 public key"),
        ];
        for (algorithm, _, _) in own {
            for (owner, pem, name) in own {
                if algorithm == owner {
                    assert!(public_key(algorithm, pem).is_ok(), "{name}");
                } else {
                    assert_eq!(found(algorithm, pem), name);
                }
            }
        }
        let pkcs1 = include_bytes!("testdata/rsa2048-pkcs1.pub.pem");
        assert!(public_key(Algorithm::Rs256, pkcs1).is_ok());
    }

    #[test]
    fn weak_strange_and_private_keys_are_named() {
        let rs = |pem: &[u8]| found(Algorithm::Rs256, pem);
        let es = |pem: &[u8]| found(Algorithm::Es256, pem);
        let weak = include_bytes!("testdata/rsa1024.pub.pem");
        assert_eq!(rs(weak), "an RSA public key of 1024 bits");
        let other = "an EC public key on a curve other than P-256";
        assert_eq!(es(include_bytes!("testdata/p384.pub.pem")), other);
        assert_eq!(es(include_bytes!("testdata/secp256k1.pub.pem")), other);
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        assert_eq!(rs(block("PRIVATE KEY").as_bytes()), "a private key");
        assert_eq!(rs(block("RSA PRIVATE KEY").as_bytes()), "a private key");
        assert_eq!(rs(block("CERTIFICATE").as_bytes()), "a certificate");
        assert_eq!(rs(block("X").as_bytes()), "a PEM block of another kind");
        assert_eq!(rs(b"secret"), "no PEM block");
        assert_eq!(rs(b"\xff\xfe"), "no PEM block");
    }

    #[test]
    fn a_key_cut_short_is_damaged_or_unknown() {
        let text = std::str::from_utf8(P256).unwrap();
        let (head, tail) = text.split_once('\n').unwrap();
        let cut = format!("{head}\n{}", tail.replacen(&tail[60..64], "", 1));
        assert!(public_key(Algorithm::Es256, cut.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), place in 0usize..600) {
            for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
                prop_assert!(public_key(algorithm, &bytes).is_err());
            }
            let mut damaged = RSA.to_vec();
            let place = place.min(damaged.len());
            damaged.splice(place..place, bytes.drain(..));
            let _ = public_key(Algorithm::Rs256, &damaged);
            let _ = modulus_bits(&damaged);
        }
    }
}
