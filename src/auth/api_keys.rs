//! The back ends' API keys. Read-only after start or reload; runs on the shard that is asked. A look-up must never take a
//! time that depends on how much of a key was guessed.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::config::checked::ApiKey;

/// Every configured key, as a digest: digests have one length, so a key's length does not show either.
pub struct ApiKeys {
    keys: Vec<(Arc<str>, [u8; 32])>,
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKeys(..)")
    }
}

impl ApiKeys {
    /// Digests the keys.
    pub fn new(keys: &[ApiKey]) -> ApiKeys {
        let digested = |key: &ApiKey| (key.name.as_str().into(), digest(&key.key));
        ApiKeys {
            keys: keys.iter().map(digested).collect(),
        }
    }

    /// The name of the key presented, if it is one of ours. Every key is compared, in constant time, whichever matches;
    /// of two equal keys the later one's name is given.
    pub fn check(&self, presented: &str) -> Option<Arc<str>> {
        let presented = digest(presented);
        let mut matched = u64::MAX;
        for (index, (_, digest)) in self.keys.iter().enumerate() {
            matched.conditional_assign(&(index as u64), digest.ct_eq(&presented));
        }
        let index = usize::try_from(matched).ok()?;
        self.keys.get(index).map(|(name, _)| Arc::clone(name))
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pairs: &[(&str, &str)]) -> ApiKeys {
        let key = |(name, key): &(&str, &str)| ApiKey {
            name: (*name).to_owned(),
            key: (*key).to_owned(),
        };
        ApiKeys::new(&pairs.iter().map(key).collect::<Vec<_>>())
    }

    #[test]
    fn a_key_is_known_by_its_name_and_nothing_near_it_is() {
        let keys = keys(&[("shop", "0123456789abcdef"), ("bot", "fedcba9876543210")]);
        assert_eq!(keys.check("0123456789abcdef").as_deref(), Some("shop"));
        assert_eq!(keys.check("fedcba9876543210").as_deref(), Some("bot"));
        for bad in [
            "",
            "shop",
            "0123456789abcde",
            "0123456789abcdefg",
            "0123456789ABCDEF",
        ] {
            assert_eq!(keys.check(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_keys_nothing_matches() {
        assert_eq!(keys(&[]).check(""), None);
    }
}
