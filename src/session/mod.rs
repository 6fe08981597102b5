//! The state machine of one connection, sans-IO: bytes and time come in, bytes and intents go out.
//!
//! A session's state is one plain struct that could be written down: nothing hides in closures or thread-locals. It runs
//! on its shard's thread, knows no socket and no room: what it wants of them it says as an [`Intent`].

pub mod heartbeat;
pub mod intent;
pub mod viewer;

pub use intent::{End, Intent};
