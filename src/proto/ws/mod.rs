//! WebSocket (RFC 6455), server side, sans-IO.
pub mod close;
pub mod decode;
pub mod encode;
mod fault;
pub mod handshake;
pub mod utf8;
