//! The `danmaku` binary.
fn main() {}
