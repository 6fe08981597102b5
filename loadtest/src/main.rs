//! The `danmaku-swarm` binary.

fn main() {}
