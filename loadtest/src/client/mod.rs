//! One client as bytes in and bytes out: frames, the upgrade, HTTP answers. It never touches a socket or a clock.

pub mod frames;
pub mod http;
pub mod upgrade;
