//! I/O leaves without a domain word: listeners, streams, descriptor tables. The only `unsafe` of the gateway is in `fd`.

pub mod fd;
pub mod listener;
pub mod stream;
