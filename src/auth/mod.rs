//! Who may enter: tokens and the keys that verify them, API keys, browser origins, client addresses.
//!
//! Pure rules on values. A key set is made on the main thread at start and on reload, then shared read-only by every shard;
//! everything here runs on the thread that asks. Nothing reads a clock, a file or a socket, and no answer ever repeats a
//! token or a key.

pub mod address;
mod algorithm;
pub mod api_keys;
mod claims;
pub mod credentials;
pub mod keys;
pub mod mint;
pub mod origin;
mod pem;
