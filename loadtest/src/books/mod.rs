//! The books: what was accepted, what each viewer received, and whether the two agree to the line. Pure values and
//! functions; tallies are kept by client threads, accounts are settled by the main thread when a run is over.
//!
//! Within a room every line has a number (`seq`), and the publisher learns it from the answer to its line. A viewer's
//! tally keeps the number it joined at, the last one it has seen, how many came, and the sum of a fingerprint of each
//! line's identity. So a membership can be held against the room's ledger line by line without remembering a single
//! line: the fingerprints between two numbers must add up to the viewer's own sum, less those known to be missing.

mod ledger;
mod settle;
mod tally;
mod told;

pub use ledger::{Accepted, Ledger};
pub use settle::{Books, settle};
pub use tally::{Gaps, Membership, Missing, Seen, Tally};
pub use told::{Tellings, Told};

use crate::clock::mix;

/// What a line adds to a sum under its number: another line, or the same line under another number, adds another amount. A
/// line without our stamp adds nothing.
pub fn fingerprint(seq: u64, line: Option<u64>) -> u64 {
    line.map_or(0, |line| mix(seq ^ mix(line.wrapping_add(1))))
}
