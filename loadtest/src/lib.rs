//! A swarm of clients that load-tests a danmaku gateway, and checks every line it receives.

pub mod report;
#[cfg(feature = "cli")]
pub mod ui;
