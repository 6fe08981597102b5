//! Sans-IO codecs: bytes in, events out. Nothing here knows a socket, a thread or the time.
pub mod danmaku;
pub mod http;
pub mod node;
pub mod ws;
