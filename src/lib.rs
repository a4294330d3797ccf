//! tickring: a real-time server for markets and live rooms.
//!
//! Everything live is a **topic**: a named, sequenced stream of events behind which stands one
//! deterministic state machine. `docs/ARCHITECTURE.md` tells how the parts work together.

// Under the model checker only the mailboxes are built: tokio, which the journal needs, has a loom
// mode of its own that tokio-uring does not know.
#[cfg(not(loom))]
pub mod core;
#[cfg(not(loom))]
pub mod histogram;
#[cfg(not(loom))]
pub mod journal;
#[cfg(not(loom))]
pub mod machines;
pub mod mailbox;
#[cfg(not(loom))]
pub mod market;
#[cfg(all(feature = "metrics", not(loom)))]
pub mod metrics;
#[cfg(not(loom))]
pub mod node;
pub mod ring;
#[cfg(not(loom))]
mod topic;
#[cfg(all(feature = "database", not(loom)))]
pub mod writer;
