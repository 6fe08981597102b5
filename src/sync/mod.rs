//! Cross-thread primitives.
