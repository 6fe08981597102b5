//! What a storm grew is given back: when what the node needs has fallen far below what it needed, the allocator's spare
//! memory goes to the system. Main thread.

use crate::net::heap;
use crate::shard::Node;
use crate::telemetry::block::gauge_sum;
use crate::telemetry::process;
use crate::telemetry::table::Gauge;

/// What a viewer takes, roughly, with its share of rooms.
const VIEWER_BYTES: u64 = 512;
/// It is not worth looking for less.
const FALLEN_BYTES_MIN: u64 = 4 << 20;

/// Watches how much is needed.
#[derive(Debug, Default)]
pub struct Memory {
    most_bytes: u64,
}

impl Memory {
    /// Looks at the node, and gives back if it is time.
    pub fn look(&mut self, node: &Node) {
        let viewers = node.connections.in_use() as u64;
        let logs = gauge_sum(&node.blocks, Gauge::LogBytes);
        let outboxes = gauge_sum(&node.blocks, Gauge::OutboxBytes);
        if !self.has_fallen_to(viewers * VIEWER_BYTES + logs + outboxes) {
            return;
        }
        let before = process::resident_bytes();
        heap::give_back();
        let after = process::resident_bytes();
        tracing::info!(
            before_mib = before >> 20,
            after_mib = after >> 20,
            "spare memory given back"
        );
    }

    /// Whether `needed` is so far below the most since the last time that it is time again.
    fn has_fallen_to(&mut self, needed: u64) -> bool {
        self.most_bytes = self.most_bytes.max(needed);
        let fallen = self.most_bytes - needed;
        let is_time = fallen >= FALLEN_BYTES_MIN && fallen >= needed;
        if is_time {
            self.most_bytes = needed;
        }
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_when_half_is_gone_and_once_for_each_fall() {
        let mib = |n: u64| n << 20;
        let mut memory = Memory::default();
        assert!(!memory.has_fallen_to(0));
        assert!(!memory.has_fallen_to(mib(100)));
        assert!(!memory.has_fallen_to(mib(51)));
        assert!(memory.has_fallen_to(mib(50)));
        assert!(!memory.has_fallen_to(mib(50)));
        assert!(!memory.has_fallen_to(mib(30)));
        assert!(memory.has_fallen_to(mib(20)));
        assert!(memory.has_fallen_to(mib(3)));
        assert!(!memory.has_fallen_to(0), "too little to look for");
    }
}
