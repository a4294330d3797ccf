//! tickring: a real-time server for markets and live rooms.
//!
//! Everything live is a **topic**: a named, sequenced stream of events behind which stands one
//! deterministic state machine. `docs/ARCHITECTURE.md` tells how the parts work together.

pub mod core;
#[cfg(not(loom))]
pub mod journal;
pub mod machines;
pub mod mailbox;
#[cfg(feature = "database")]
pub mod market;
pub mod node;
pub mod ring;
mod topic;
#[cfg(feature = "database")]
pub mod writer;
