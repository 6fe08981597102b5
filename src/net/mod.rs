//! I/O leaves without a domain word: listeners, streams, descriptor tables, the allocator. The only `unsafe` of the gateway is in `fd` and
//! `heap`.

pub mod bell;
pub mod fd;
pub mod heap;
pub mod listener;
pub mod stream;
