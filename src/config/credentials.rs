//! Token keys and API keys as they were given: whole, strong enough, each name once. Part of loading; reads the files they
//! are kept in.

use std::path::Path;

use super::checked::{Algorithm, ApiKey, KeyMaterial, KeySpec};
use super::given::{Entry, Gathered, Mistake};
use super::keys::{ARRAYS, Array};
use super::read::Reader;
use super::secrets::{check_api_key, check_secret};

/// `[[auth.keys]]` and `DANMAKU_AUTH__SECRET`.
pub fn keys(gathered: &Gathered, mistakes: &mut Vec<Mistake>) -> Vec<KeySpec> {
    let mut specs: Vec<KeySpec> = Vec::new();
    for (array, entry) in entries(gathered, "auth.keys") {
        let mut r = reader(array, entry, mistakes);
        let kid = r.text("kid");
        let algorithm = match r.text("algorithm").as_str() {
            "HS256" => Some(Algorithm::Hs256),
            "HS384" => Some(Algorithm::Hs384),
            "HS512" => Some(Algorithm::Hs512),
            "RS256" => Some(Algorithm::Rs256),
            "ES256" => Some(Algorithm::Es256),
            "EdDSA" => Some(Algorithm::EdDsa),
            _ => None,
        };
        if !entry.values.contains_key("algorithm") {
            missing(
                &mut r,
                entry,
                "algorithm",
                "HS256, HS384, HS512, RS256, ES256 or EdDSA",
            );
        }
        if kid.is_empty() {
            missing(&mut r, entry, "kid", "a name, unique among the keys");
        } else if specs.iter().any(|spec| spec.kid == kid) {
            r.mistake(
                "kid",
                format!("\"{kid}\" a second time"),
                "a name, unique among the keys",
                None,
            );
        }
        let material = key_material(&mut r, entry, algorithm);
        if let (Some(algorithm), Some(material)) = (algorithm, material) {
            specs.push(KeySpec {
                kid,
                algorithm,
                material,
            });
        }
    }
    if let Some(secret) = &gathered.secret {
        match check_secret(secret.as_bytes(), Algorithm::Hs256) {
            Ok(()) => specs.push(KeySpec {
                kid: "default".into(),
                algorithm: Algorithm::Hs256,
                material: KeyMaterial::Secret(secret.clone().into_bytes()),
            }),
            Err(weak) => mistakes.push(weak.mistake("environment", "DANMAKU_AUTH__SECRET")),
        }
    }
    specs
}

fn key_material(
    r: &mut Reader<'_>,
    entry: &Entry,
    algorithm: Option<Algorithm>,
) -> Option<KeyMaterial> {
    let given: Vec<&str> = ["secret", "secret_file", "public_key_file"]
        .into_iter()
        .filter(|name| entry.values.contains_key(name))
        .collect();
    let [name] = given[..] else {
        let found = match given.len() {
            0 => "none of them".to_string(),
            _ => given.join(" and "),
        };
        let allowed = "exactly one of secret, secret_file and public_key_file";
        missing_as(r, entry, "secret", &found, allowed);
        return None;
    };
    let value = r.text(name);
    let bytes = match name {
        "secret" => value.into_bytes(),
        file => read_file(r, file, &value)?,
    };
    let algorithm = algorithm?;
    let shared = matches!(
        algorithm,
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512
    );
    if shared == (name == "public_key_file") {
        let allowed = match shared {
            true => "secret or secret_file, for an HS algorithm",
            false => "public_key_file, for RS256, ES256 and EdDSA",
        };
        r.mistake(name, name, allowed, None);
        return None;
    }
    if !shared {
        return Some(KeyMaterial::PublicPem(bytes));
    }
    match check_secret(&bytes, algorithm) {
        Ok(()) => Some(KeyMaterial::Secret(bytes)),
        Err(weak) => {
            let place = r.given.get(name).map_or("", |given| given.place.as_str());
            let mistake = weak.mistake(place, &format!("auth.keys.{name}"));
            r.mistakes.push(mistake);
            None
        }
    }
}

/// `[[api_keys]]` and `DANMAKU_API_KEY`.
pub fn api_keys(gathered: &Gathered, mistakes: &mut Vec<Mistake>) -> Vec<ApiKey> {
    let mut keys: Vec<ApiKey> = Vec::new();
    for (array, entry) in entries(gathered, "api_keys") {
        let mut r = reader(array, entry, mistakes);
        let name = r.text("name");
        if name.is_empty() {
            missing(&mut r, entry, "name", "a name, unique among the keys");
        } else if keys.iter().any(|key| key.name == name) {
            r.mistake(
                "name",
                format!("\"{name}\" a second time"),
                "a name, unique among the keys",
                None,
            );
        }
        let (key, path) = match (r.text_given("key"), r.text_given("key_file")) {
            (Some(key), None) => (Some(key), "key"),
            (None, Some(file)) => {
                let bytes = read_file(&mut r, "key_file", &file);
                (
                    bytes.and_then(|bytes| String::from_utf8(bytes).ok()),
                    "key_file",
                )
            }
            (given, _) => {
                let found = if given.is_some() {
                    "both"
                } else {
                    "none of them"
                };
                missing_as(
                    &mut r,
                    entry,
                    "key",
                    found,
                    "exactly one of key and key_file",
                );
                continue;
            }
        };
        let Some(key) = key else { continue };
        match check_api_key(&key) {
            Ok(()) => keys.push(ApiKey { name, key }),
            Err(weak) => {
                let place = r.given.get(path).map_or("", |given| given.place.as_str());
                let mistake = weak.mistake(place, &format!("api_keys.{path}"));
                r.mistakes.push(mistake);
            }
        }
    }
    if let Some(key) = &gathered.api_key {
        match check_api_key(key) {
            Ok(()) => keys.push(ApiKey {
                name: "default".into(),
                key: key.clone(),
            }),
            Err(weak) => mistakes.push(weak.mistake("environment", "DANMAKU_API_KEY")),
        }
    }
    keys
}

fn entries<'a>(
    gathered: &'a Gathered,
    path: &str,
) -> impl Iterator<Item = (&'static Array, &'a Entry)> {
    let array = ARRAYS.iter().find(|array| array.path == path);
    let entries = gathered.arrays.get(path).map_or(&[][..], Vec::as_slice);
    array
        .into_iter()
        .flat_map(move |array| entries.iter().map(move |entry| (array, entry)))
}

/// Reads one entry of an array of tables.
pub fn reader<'a>(
    array: &'static Array,
    entry: &'a Entry,
    mistakes: &'a mut Vec<Mistake>,
) -> Reader<'a> {
    Reader {
        keys: array.keys,
        above: format!("{}.", array.path),
        given: &entry.values,
        mistakes,
    }
}

fn missing(r: &mut Reader<'_>, entry: &Entry, name: &str, allowed: &str) {
    missing_as(r, entry, name, "nothing", allowed);
}

/// Notes that an entry lacks something, or has something wrong that no one key shows.
pub fn missing_as(r: &mut Reader<'_>, entry: &Entry, name: &str, found: &str, allowed: &str) {
    r.mistakes.push(Mistake {
        place: entry.place.clone(),
        key: format!("{}{name}", r.above),
        found: found.into(),
        allowed: allowed.into(),
        hint: None,
    });
}

/// A file's content without the line end that editors leave.
fn read_file(r: &mut Reader<'_>, key: &str, path: &str) -> Option<Vec<u8>> {
    match std::fs::read(Path::new(path)) {
        Ok(mut bytes) => {
            while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                bytes.pop();
            }
            Some(bytes)
        }
        Err(error) => {
            r.mistake(
                key,
                format!("\"{path}\": {error}"),
                "a file that can be read",
                None,
            );
            None
        }
    }
}
