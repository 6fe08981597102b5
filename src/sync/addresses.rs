//! How many viewers each client address has, for `admission.per_address_max`.
//!
//! Shared by all shards behind a few short locks. For the door only: taken once when a viewer enters and once when it
//! goes, never on the way of a line, and not at all while the cap is off.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Locks; addresses spread over them by a keyed hash, so that nobody can choose addresses that share one.
const SLICES: usize = 64;

/// Viewers by address. IPv6 counts by /64, which is what one customer gets; IPv4-mapped addresses as IPv4.
#[derive(Debug)]
pub struct Addresses {
    slices: Vec<Mutex<HashMap<IpAddr, u32>>>,
    hasher: RandomState,
}

impl Default for Addresses {
    fn default() -> Addresses {
        Addresses::new()
    }
}

impl Addresses {
    /// Nobody yet.
    pub fn new() -> Addresses {
        Addresses {
            slices: (0..SLICES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// A place for one more viewer from `ip`, if it has fewer than `max`.
    pub fn try_enter(self: &Arc<Addresses>, ip: IpAddr, max: u32) -> Option<AddressPermit> {
        let ip = counted_as(ip);
        let mut slice = self.slice(ip).lock();
        let viewers = slice.entry(ip).or_insert(0);
        if *viewers >= max {
            if *viewers == 0 {
                slice.remove(&ip);
            }
            return None;
        }
        *viewers += 1;
        Some(AddressPermit {
            addresses: Arc::clone(self),
            ip,
        })
    }

    /// Addresses that have a viewer.
    pub fn len(&self) -> usize {
        self.slices.iter().map(|slice| slice.lock().len()).sum()
    }

    /// Whether nobody is counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slice(&self, ip: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        &self.slices[self.hasher.hash_one(ip) as usize % SLICES]
    }
}

/// A viewer's place under its address; it returns when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct AddressPermit {
    addresses: Arc<Addresses>,
    ip: IpAddr,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut slice = self.addresses.slice(self.ip).lock();
        if let Some(viewers) = slice.get_mut(&self.ip) {
            *viewers -= 1;
            if *viewers == 0 {
                slice.remove(&self.ip);
            }
        }
    }
}

fn counted_as(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_counted_and_return() {
        let addresses = Arc::new(Addresses::new());
        let a = addresses.try_enter(ip("10.0.0.1"), 2);
        let b = addresses.try_enter(ip("::ffff:10.0.0.1"), 2);
        assert!(a.is_some() && b.is_some());
        assert!(addresses.try_enter(ip("10.0.0.1"), 2).is_none());
        assert!(addresses.try_enter(ip("10.0.0.2"), 2).is_some());
        drop(a);
        let again = addresses.try_enter(ip("10.0.0.1"), 2);
        assert!(again.is_some());
        drop((b, again));
        assert!(addresses.is_empty());
    }

    #[test]
    fn ipv6_counts_by_its_64() {
        let addresses = Arc::new(Addresses::new());
        let _a = addresses.try_enter(ip("2001:db8:1:2::1"), 1).unwrap();
        assert!(addresses.try_enter(ip("2001:db8:1:2:ffff::9"), 1).is_none());
        assert!(addresses.try_enter(ip("2001:db8:1:3::1"), 1).is_some());
        assert_eq!(addresses.len(), 1);
    }
}
