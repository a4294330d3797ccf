//! tickring's load generator: thread-per-core on io_uring, several processes when one cannot hold
//! the descriptors, open loop, and every event of every connection checked for loss, duplicates
//! and order.
//!
//! One process leads ([`process::run`]) and starts workers of itself ([`process::work`]). A worker
//! runs threads, each in one [`role`]; a thread has its connections in a [`net::Net`], speaks the
//! server's protocol through a [`target::Target`], checks what comes in with
//! [`deliveries::Deliveries`], and returns an [`outcome::Outcome`]. Outcomes add up to the
//! [`report::Report`].
#![forbid(unsafe_code)]

pub mod check;
pub mod clock;
pub mod control;
pub mod deliveries;
pub mod framer;
pub mod latency;
pub mod net;
pub mod options;
pub mod outcome;
pub mod payload;
pub mod plan;
pub mod process;
pub mod progress;
pub mod report;
pub mod role;
pub mod schedule;
pub mod server;
pub mod target;
pub mod topics;
