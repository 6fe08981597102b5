//! What a room accepted: which line has which number. Built by the main thread from the publishers' answers.

use super::fingerprint;

/// One accepted line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Accepted {
    /// The room's index in the plan.
    pub room: u32,
    /// The room's numbering.
    pub epoch: u64,
    /// Its number in the room.
    pub seq: u64,
    /// Its id within the run.
    pub line: u64,
    /// The node it was said at, by its index in the plan.
    pub node: u16,
}

/// One room's accepted lines, by number.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Ascending numbers.
    seqs: Vec<u64>,
    /// `sums[i]`: fingerprints of the first `i` lines, added up.
    sums: Vec<u64>,
    /// The node of each.
    nodes: Vec<u16>,
    /// Numbers given out twice: the server's fault, and said so.
    pub given_twice: u64,
}

impl Ledger {
    /// From one room's accepted lines, in any order.
    pub fn new(mut accepted: Vec<Accepted>) -> Ledger {
        accepted.sort_unstable();
        let mut ledger = Ledger {
            sums: vec![0],
            ..Ledger::default()
        };
        for line in accepted {
            if ledger.seqs.last() == Some(&line.seq) {
                ledger.given_twice += 1;
                continue;
            }
            let sum = ledger.sums[ledger.seqs.len()];
            ledger.seqs.push(line.seq);
            ledger.nodes.push(line.node);
            let line = fingerprint(line.seq, Some(line.line));
            ledger.sums.push(sum.wrapping_add(line));
        }
        ledger
    }

    /// Lines in it.
    pub fn lines(&self) -> u64 {
        self.seqs.len() as u64
    }

    /// The highest number; 0 in an empty room.
    pub fn last(&self) -> u64 {
        self.seqs.last().copied().unwrap_or(0)
    }

    /// Lines said at a node with numbers above `from` and up to `to`.
    pub fn said_at(&self, node: u16, from: u64, to: u64) -> u64 {
        let at = |seq: u64| self.seqs.partition_point(|known| *known <= seq);
        let (first, end) = (at(from), at(to).max(at(from)));
        let of_node = self.nodes[first..end].iter().filter(|of| **of == node);
        of_node.count() as u64
    }

    /// Lines with numbers above `from` and up to `to`, and the sum of their fingerprints.
    pub fn between(&self, from: u64, to: u64) -> (u64, u64) {
        let at = |seq: u64| self.seqs.partition_point(|known| *known <= seq);
        let (first, end) = (at(from), at(to).max(at(from)));
        let sum = self.sums[end].wrapping_sub(self.sums[first]);
        ((end - first) as u64, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(seq: u64, line: u64) -> Accepted {
        Accepted {
            room: 0,
            epoch: 9,
            seq,
            line,
            node: (seq % 2) as u16,
        }
    }

    #[test]
    fn windows_add_up() {
        let ledger = Ledger::new(vec![accepted(3, 30), accepted(1, 10), accepted(2, 20)]);
        let print = |seq, line| fingerprint(seq, Some(line));
        assert_eq!(ledger.between(0, 3).0, 3);
        let both = print(2, 20).wrapping_add(print(3, 30));
        assert_eq!(ledger.between(1, 3), (2, both));
        assert_eq!(ledger.between(3, 9), (0, 0));
        assert_eq!(ledger.between(2, 1), (0, 0));
        assert_eq!((ledger.last(), ledger.lines()), (3, 3));
        assert_eq!([ledger.said_at(1, 0, 3), ledger.said_at(1, 1, 9)], [2, 1]);
        assert_eq!([ledger.said_at(0, 0, 3), ledger.said_at(0, 2, 1)], [1, 0]);
    }

    #[test]
    fn a_number_given_twice_is_noticed() {
        let ledger = Ledger::new(vec![accepted(1, 10), accepted(1, 11), accepted(2, 20)]);
        assert_eq!((ledger.given_twice, ledger.lines()), (1, 2));
    }
}
