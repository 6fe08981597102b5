//! `danmaku-gateway`: one process that holds hundreds of thousands of long connections for live rooms.
//!
//! ```text
//! main/control   signals, reload, drain, joins the others
//! shard 0..N-1   one reactor each: mio::Poll, SO_REUSEPORT listeners, connections, timer wheel, rooms
//! redis-*        one that asks Redis, one for each master that hears it, one that tells it what happens; only where Redis is configured
//! log            non-blocking writer
//! bots           `danmaku demo` only: client threads of the swarm
//! ```
//!
//! Floors; imports go down only, and siblings of a floor never import each other (`tests/tidy.rs` holds it):
//!
//! | floor | modules | what |
//! |---|---|---|
//! | L0 | `base` | vocabulary, std only |
//! | L1 | `sync`, `telemetry`, `config`, `proto` | primitives, metrics and logs, settings, sans-IO codecs |
//! | L2 | `auth`, `room`, `net` | tokens and keys, the domain, I/O leaves |
//! | L2½ | `bus` | the messages between shards, made of L2's values |
//! | L3 | `session`, `api`, `web` | one connection's state machine, HTTP routes, embedded pages |
//! | L4 | `shard`, `bridge` | the reactor; the way to Redis |
//! | L5 | `gateway`, `doctor` | the process; what the machine can hold |
//! | L6 | `demo` | the process with bots in it |

pub mod api;
pub mod auth;
pub mod base;
pub mod bridge;
pub mod bus;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod gateway;
pub mod net;
pub mod proto;
pub mod room;
pub mod session;
pub mod shard;
pub mod sync;
pub mod telemetry;
pub mod web;
