//! The domain, sans-IO: a room's home (order, history, presence, flood control) and its log on each shard that hosts members.
//!
//! Runs on shard threads only; every structure here is owned by one shard and unshared. Nothing here knows a socket,
//! reads a clock or rolls a die: time and chance are arguments.

pub mod ask;
pub mod budget;
pub mod history;
pub mod home;
pub mod link;
pub mod log;
pub mod members;
mod once;
pub mod outbox;
pub mod presence;
pub mod seal;
pub mod stats;
pub mod stream;
