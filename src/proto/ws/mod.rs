//! WebSocket (RFC 6455), server side, sans-IO.
pub mod close;
pub mod decode;
pub mod deflate;
pub mod encode;
pub mod extension;
mod fault;
pub mod handshake;
pub mod utf8;
