//! The deterministic simulator: cores, clients, sockets, mail and the journal's disks of one node in
//! one thread, all from one seed, judged by the rules of the design.
//!
//! A seed draws a world: 1 to 4 cores with small random bounds, clients that subscribe, publish,
//! stall, send malformed bytes and vanish, a network that cuts streams anywhere and completes
//! operations late, mailboxes of few parcels, and a journal on disks that tear, fail and lose what was
//! not synced, whose node is stopped, killed or robbed of its power and starts again with any number
//! of cores. A recorder around each topic's machine keeps
//! what really happened, in the order of its owner; every frame that a client reads is held
//! against that record and against `protocol/SPEC.md`. The same seed gives the same run, to the
//! byte.
#![forbid(unsafe_code)]

mod client;
mod coverage;
mod dice;
mod judge;
mod lanes;
mod memory;
mod model;
mod node;
mod plan;
mod reads;
mod run;
mod shadow;
mod socket;
mod trace;
mod world;

pub use coverage::Coverage;
pub use run::{Failure, Report, replay, run};
pub use tickring::core::Plant;

/// Returns an error with a formatted text unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use ensure;
