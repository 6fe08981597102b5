//! Whose address a request comes from when proxies stand in between. Pure; runs on the shard that admits. It must never
//! believe a hop that no trusted proxy wrote.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::checked::IpNet;

/// The client's address: walking from `peer` leftwards through `X-Forwarded-For`, the first hop that is not a trusted proxy.
///
/// `forwarded_for` yields the header's lines in the order received; each may hold several hops. A peer that is not trusted
/// is the client, whatever it wrote. A hop that is no address (`unknown`) ends the walk: the hop to its right is answered.
/// If every hop is trusted it is the leftmost. Hops may carry a port; IPv4-mapped addresses come back as IPv4.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded_for: impl Iterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(ip));
    if !is_trusted(peer) {
        return peer.to_canonical();
    }
    // Read left to right, yet keep what a walk from the right would answer: an untrusted hop hides all before it, a
    // trusted one lets the walk pass on to what is there already, and what is no address cuts it off.
    let mut answer: Option<IpAddr> = None;
    for hop in forwarded_for.flat_map(|line| line.split(',')) {
        let hop = hop.trim();
        if hop.is_empty() {
            // RFC 9110 section 5.6.1.2: empty list elements do not count.
            continue;
        }
        match parse(hop) {
            None => answer = None,
            Some(ip) if is_trusted(ip) => answer = answer.or(Some(ip)),
            Some(ip) => answer = Some(ip),
        }
    }
    answer.unwrap_or_else(|| peer.to_canonical())
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn parse(hop: &str) -> Option<IpAddr> {
    let bracketed = || -> Option<Ipv6Addr> {
        let inner = hop.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse().ok()
    };
    let ip = hop
        .parse::<IpAddr>()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .or_else(|| bracketed().map(IpAddr::V6))?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn nets() -> Vec<IpNet> {
        let net = |address: &str, prefix_bits| IpNet {
            address: address.parse().unwrap(),
            prefix_bits,
        };
        vec![net("10.0.0.0", 8), net("fd00::", 8)]
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        client_address(peer.parse().unwrap(), lines.iter().copied(), &nets()).to_string()
    }

    #[test]
    fn a_peer_that_is_no_proxy_is_the_client() {
        assert_eq!(client("8.8.8.8", &["1.1.1.1"]), "8.8.8.8");
        assert_eq!(client("::ffff:8.8.8.8", &[]), "8.8.8.8");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
    }

    #[test]
    fn the_rightmost_untrusted_hop_is_the_client() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(
            client("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"]),
            "1.1.1.1"
        );
        assert_eq!(
            client("10.0.0.1", &["6.6.6.6", "1.1.1.1,10.0.0.2"]),
            "1.1.1.1"
        );
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client("fd00::1", &["2001:db8::1, fd00::2"]), "2001:db8::1");
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, junk, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(
            client("10.0.0.1", &["1.1.1.1, x, 10.0.0.3, 10.0.0.2"]),
            "10.0.0.3"
        );
        assert_eq!(client("10.0.0.1", &["junk, 1.1.1.1"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, , 10.0.0.2,", ""]), "1.1.1.1");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        for (hop, ip) in [
            ("1.1.1.1:4711", "1.1.1.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:1.1.1.1", "1.1.1.1"),
            ("[::ffff:1.1.1.1]:80", "1.1.1.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[hop]), ip);
        }
        for junk in [
            "[1.1.1.1]",
            "1.1.1",
            "1.1.1.1:",
            "1.1.1.1:70000",
            "fe80::1%eth0",
            "\"1.1.1.1\"",
        ] {
            assert_eq!(client("10.0.0.1", &[junk]), "10.0.0.1", "{junk}");
        }
    }

    /// The rule as it is told: from the right, step by step.
    fn walked(peer: IpAddr, hops: &[&str], trusted: &[IpNet]) -> IpAddr {
        let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(ip));
        let mut client = peer;
        for hop in hops.iter().rev() {
            if !is_trusted(client) {
                break;
            }
            match hop.parse() {
                Ok(ip) => client = ip,
                Err(_) => break,
            }
        }
        client
    }

    proptest! {
        #[test]
        fn reading_forwards_answers_as_walking_backwards(
            peer in prop::sample::select(vec!["10.0.0.1", "8.8.8.8"]),
            hops in prop::collection::vec(
                prop::sample::select(vec!["10.0.0.2", "10.0.0.3", "1.1.1.1", "2.2.2.2", "junk"]), 0..8),
        ) {
            let (peer, line) = (peer.parse().unwrap(), hops.join(", "));
            let got = client_address(peer, std::iter::once(line.as_str()), &nets());
            prop_assert_eq!(got, walked(peer, &hops, &nets()));
        }
    }
}
