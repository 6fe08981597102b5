//! What the house tells about itself: metrics and logs.
//!
//! [`table`] declares every metric once; each shard writes its own [`Block`]; whoever answers `/metrics` reads all of them
//! and calls [`render::render`]. [`log`] sets up the log lines. Nothing here ever blocks a shard.

pub mod block;
#[cfg(test)]
mod docs;
mod line;
pub mod log;
pub mod process;
pub mod redis;
pub mod render;
pub mod sink;
pub mod table;

pub use block::Block;
pub use process::ProcessStats;
pub use render::{NodeStats, View, render};
pub use table::{Bucket, Counter, Dropped, Gauge, Hist};
