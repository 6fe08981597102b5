//! WebSocket (RFC 6455), server side, sans-IO.
pub mod encode;
pub mod handshake;
