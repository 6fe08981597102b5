//! Settings: what a person writes (`keys`, `given`, `cli`) and what the rest of the house trusts (`checked`).
//!
//! Runs on the main thread, at start and on reload. Parsed, then trusted: nothing after `load` checks a setting again.

pub mod checked;
pub mod cli;
mod credentials;
pub mod given;
pub mod keys;
pub mod load;
mod read;
pub mod redis_url;
mod secrets;
pub mod show;

pub use show::reload_diff;
