//! Cross-thread primitives: small, model-checked, without a word of the domain.
//!
//! The model checks run with `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --lib sync`.

pub mod addresses;
pub mod doze;
pub mod gate;
pub mod latest;
pub mod mailbox;

/// Atomics of the standard library, or loom's under `--cfg loom`.
mod atomic {
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    #[cfg(not(loom))]
    pub use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}
