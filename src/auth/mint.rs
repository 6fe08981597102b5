//! Signs a token with the gateway's own HS key, for `danmaku token` and the start-up greeting. Runs on the main thread; it
//! must never sign what [`super::keys::KeySet`] would refuse.

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use super::algorithm::backend;
use super::claims::{DATE_MAX_S, ROOMS_MAX, is_room_pattern};
use super::keys::TOKEN_BYTES_MAX;
use crate::base::identity::Role;
use crate::base::ids::{USER_NAME_BYTES_MAX, UserId};
use crate::config::checked::{Auth, KeyMaterial, KeySpec};

/// What the token shall say.
#[derive(Clone, Copy, Debug)]
pub struct MintClaims<'a> {
    /// `sub`: 1..=128 bytes without control characters.
    pub user: &'a str,
    /// `name`: up to 256 bytes.
    pub name: Option<&'a str>,
    /// `rooms`: room ids or beginnings with `*`, at most 256; with none the claim is left out (every room not private).
    pub rooms: &'a [String],
    /// `role`.
    pub role: Role,
    /// Seconds until `exp`, at least 1.
    pub ttl_s: u64,
    /// Seconds since 1970.
    pub now_unix_s: u64,
}

/// Why no token was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// Nothing to sign with.
    #[error(
        "auth.keys has no HS256, HS384 or HS512 key to sign with: set DANMAKU_AUTH__SECRET to at least 32 random bytes (`openssl rand -hex 32`), or add one to [[auth.keys]]"
    )]
    NoSecret,
    /// Not a user id.
    #[error("the user id must be 1..128 bytes without control characters; it has {bytes}")]
    BadUser {
        /// Its length.
        bytes: usize,
    },
    /// The name is too long.
    #[error("the name has {bytes} bytes; {max} are allowed", max = USER_NAME_BYTES_MAX)]
    BadName {
        /// Its length.
        bytes: usize,
    },
    /// Not a room, nor the beginning of one.
    #[error(
        "{room:?} is neither a room id (1..128 bytes of [A-Za-z0-9_.:-]) nor the beginning of one with *"
    )]
    BadRoom {
        /// As given.
        room: String,
    },
    /// Too many rooms.
    #[error("{count} rooms; a token takes {max}", max = ROOMS_MAX)]
    TooManyRooms {
        /// How many were given.
        count: usize,
    },
    /// It would be dead at birth or outlive the calendar.
    #[error("a time to live of {ttl_s} s is out of range: 1 s up to the end of the year 9999")]
    BadTtl {
        /// As given.
        ttl_s: u64,
    },
    /// Longer than a token may be.
    #[error("the token would have {bytes} bytes; {max} are allowed: name fewer rooms", max = TOKEN_BYTES_MAX)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The crypto backend failed.
    #[error("signing failed: {0}")]
    Signing(String),
}

/// The payload, in the order it is read by people.
#[derive(Serialize)]
struct Payload<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    role: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    rooms: &'a [String],
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// A token signed with the first HS key of `auth.keys`, with its `kid`, and `iss` and `aud` where they are configured.
pub fn mint(auth: &Auth, claims: &MintClaims<'_>) -> Result<String, MintError> {
    let (spec, secret) = auth
        .keys
        .iter()
        .find_map(signing_secret)
        .ok_or(MintError::NoSecret)?;
    let exp = check(claims)?;
    let payload = Payload {
        sub: claims.user,
        name: claims.name,
        role: claims.role.as_str(),
        rooms: claims.rooms,
        iat: claims.now_unix_s,
        exp,
        iss: auth.issuer.as_deref(),
        aud: auth.audience.as_deref(),
    };
    let mut header = Header::new(backend(spec.algorithm));
    header.kid = Some(spec.kid.clone());
    let token = jsonwebtoken::encode(&header, &payload, &EncodingKey::from_secret(secret))
        .map_err(|error| MintError::Signing(error.to_string()))?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(MintError::TooLong { bytes: token.len() });
    }
    Ok(token)
}

/// A key's secret, if it is an HS key.
fn signing_secret(spec: &KeySpec) -> Option<(&KeySpec, &[u8])> {
    match &spec.material {
        KeyMaterial::Secret(secret) => Some((spec, secret)),
        KeyMaterial::PublicPem(_) => None,
    }
}

/// Checks what the verifier would check, and answers `exp`.
fn check(claims: &MintClaims<'_>) -> Result<u64, MintError> {
    if UserId::parse(claims.user).is_none() {
        let bytes = claims.user.len();
        return Err(MintError::BadUser { bytes });
    }
    if let Some(name) = claims.name
        && name.len() > USER_NAME_BYTES_MAX
    {
        return Err(MintError::BadName { bytes: name.len() });
    }
    if let Some(room) = claims.rooms.iter().find(|room| !is_room_pattern(room)) {
        return Err(MintError::BadRoom { room: room.clone() });
    }
    let count = claims.rooms.len();
    if count > ROOMS_MAX {
        return Err(MintError::TooManyRooms { count });
    }
    let ttl_s = claims.ttl_s;
    claims
        .now_unix_s
        .checked_add(ttl_s)
        .filter(|&exp| ttl_s > 0 && exp <= DATE_MAX_S)
        .ok_or(MintError::BadTtl { ttl_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::auth::keys::KeySet;
    use crate::base::identity::RoomScope;
    use crate::base::refusal::Code;
    use crate::config::checked::{Algorithm, Anonymous, Origins};

    const NOW_S: u64 = 1_800_000_000;

    fn key(kid: &str, algorithm: Algorithm, material: KeyMaterial) -> KeySpec {
        KeySpec {
            kid: kid.to_owned(),
            algorithm,
            material,
        }
    }

    fn secret(byte: u8) -> KeyMaterial {
        KeyMaterial::Secret(vec![byte; 64])
    }

    fn settings(keys: Vec<KeySpec>) -> Auth {
        Auth {
            anonymous: Anonymous::Deny,
            origins: Origins::Same,
            issuer: Some("platform".to_owned()),
            audience: Some("danmaku".to_owned()),
            leeway_s: 5,
            keys,
        }
    }

    fn claims() -> MintClaims<'static> {
        MintClaims {
            user: "u1",
            name: None,
            rooms: &[],
            role: Role::Viewer,
            ttl_s: 60,
            now_unix_s: NOW_S,
        }
    }

    #[test]
    fn what_is_minted_verifies_with_every_hs_algorithm() {
        let pem = KeyMaterial::PublicPem(include_bytes!("testdata/rsa2048.pub.pem").to_vec());
        for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
            let auth = settings(vec![
                key("rsa", Algorithm::Rs256, pem.clone()),
                key("first", algorithm, secret(1)),
                key("second", Algorithm::Hs256, secret(2)),
            ]);
            let rooms = ["1001".to_owned(), "vip-*".to_owned()];
            let claims = MintClaims {
                name: Some("Ada"),
                rooms: &rooms,
                role: Role::Moderator,
                ..claims()
            };
            let token = mint(&auth, &claims).unwrap();
            let keys = KeySet::new(&auth).unwrap();
            let who = keys.verify(&token, NOW_S).unwrap();
            assert_eq!((who.user.id.as_str(), &*who.user.name), ("u1", "Ada"));
            assert_eq!((who.role, who.exp_s), (Role::Moderator, NOW_S + 60));
            let listed = RoomScope::Listed(["1001".into(), "vip-*".into()].into());
            assert_eq!(who.rooms, listed);
            let late = keys.verify(&token, NOW_S + 65).unwrap_err();
            assert_eq!(late.code, Code::TokenExpired);
        }
    }

    #[test]
    fn no_rooms_means_no_claim() {
        let auth = settings(vec![key("k", Algorithm::Hs256, secret(1))]);
        let token = mint(&auth, &claims()).unwrap();
        let who = KeySet::new(&auth).unwrap().verify(&token, NOW_S).unwrap();
        assert_eq!((&who.rooms, &*who.user.name), (&RoomScope::EveryOpen, "u1"));
    }

    #[test]
    fn without_a_secret_it_says_how_to_set_one() {
        let error = mint(&settings(Vec::new()), &claims()).unwrap_err();
        assert_eq!(error, MintError::NoSecret);
        assert!(error.to_string().contains("DANMAKU_AUTH__SECRET"));
    }

    #[test]
    fn what_the_verifier_would_refuse_is_not_signed() {
        let auth = settings(vec![key("k", Algorithm::Hs256, secret(1))]);
        let error = |claims: MintClaims<'_>| mint(&auth, &claims).unwrap_err();
        let room = ["a b".to_owned()];
        let many = vec!["r".to_owned(); 257];
        let long: Vec<String> = (100..200)
            .map(|n| format!("{n}{}", "x".repeat(60)))
            .collect();
        assert_eq!(
            error(MintClaims {
                user: "",
                ..claims()
            }),
            MintError::BadUser { bytes: 0 }
        );
        let name = "x".repeat(257);
        let named = MintClaims {
            name: Some(&name),
            ..claims()
        };
        assert_eq!(error(named), MintError::BadName { bytes: 257 });
        let named = MintError::BadRoom {
            room: "a b".to_owned(),
        };
        assert_eq!(
            error(MintClaims {
                rooms: &room,
                ..claims()
            }),
            named
        );
        let crowded = MintError::TooManyRooms { count: 257 };
        assert_eq!(
            error(MintClaims {
                rooms: &many,
                ..claims()
            }),
            crowded
        );
        for ttl_s in [0, u64::MAX, DATE_MAX_S] {
            assert_eq!(
                error(MintClaims { ttl_s, ..claims() }),
                MintError::BadTtl { ttl_s }
            );
        }
        let long = error(MintClaims {
            rooms: &long,
            ..claims()
        });
        assert!(matches!(long, MintError::TooLong { bytes } if bytes > TOKEN_BYTES_MAX));
    }
}
