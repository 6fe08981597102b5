//! The messages between shards.
