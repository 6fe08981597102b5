//! Holds what operators copy (`docs/deploy`) against what the gateway does, and has each file read by the program it is for.

#[path = "../support/prometheus.rs"]
mod prometheus;
#[path = "../support/promql.rs"]
mod promql;
#[path = "../support/mod.rs"]
mod support;

mod compose;
mod files;
mod front;
mod keepalived;
mod kubernetes;
mod monitoring;
mod nginx;
