//! A swarm of clients that load-tests a danmaku gateway, and checks every line it receives.

pub mod books;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod clock;
pub mod dialect;
pub mod fd;
pub mod machine;
pub mod meter;
pub mod plan;
pub mod probe;
mod record;
pub mod report;
pub mod run;
pub mod scenario;
pub mod spawn;
pub mod stamp;
mod tell;
pub mod thread;
#[cfg(feature = "cli")]
pub mod ui;
pub mod voice;
