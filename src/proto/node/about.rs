//! What a node says of itself to the others, and to whoever asks one of them which nodes there are.

use serde::{Deserialize, Serialize};

/// A node never says more than this of itself: what is longer is another program's.
const BYTES_MAX: usize = 4096;

/// A node, by its own account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// `server.node`, or the random name of this run.
    pub node: String,
    /// Where viewers reach it.
    pub address: String,
    /// `server.region`; empty if none.
    pub region: String,
    /// Viewers.
    pub connections: u64,
    /// Viewers it may hold.
    pub connections_max: u64,
    /// Rooms it numbers lines of.
    pub rooms: u64,
    /// Whether a new viewer may be sent there.
    pub takes_viewers: bool,
    /// What it gives up because it is overloaded, or why it takes no viewers; `None`: all is well.
    pub state: Option<String>,
    /// Its version.
    pub version: String,
    /// Milliseconds since 1970 when it began to serve.
    pub started: u64,
    /// When it said so, in milliseconds of Redis' clock.
    pub said_ms: u64,
}

impl About {
    /// As it crosses Redis.
    pub fn write(&self) -> Vec<u8> {
        // Words and numbers: it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what a node said; `None` if it is no such thing.
    pub fn read(bytes: &[u8]) -> Option<About> {
        let fits = bytes.len() <= BYTES_MAX;
        fits.then(|| serde_json::from_slice(bytes).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_comes_across() {
        let about = About {
            node: "a".into(),
            state: Some("draining".into()),
            connections: 7,
            ..About::default()
        };
        assert_eq!(About::read(&about.write()), Some(about.clone()));
        let long = About {
            region: "x".repeat(BYTES_MAX),
            ..about
        };
        for strange in [&b"{}"[..], b"1", b"", &long.write()] {
            assert_eq!(About::read(strange), None);
        }
    }
}
