//! Several processes as one generator: the parent starts workers, tells them when to do what over
//! their standard input, and reads what they found from their standard output, as JSON lines.

mod run;
mod worker;

use serde::{Deserialize, Serialize};

use crate::control::Published;
use crate::outcome::Outcome;
use crate::plan::Plan;

pub use run::{Cost, Finished, RunError, run};
pub use worker::work;

/// From the parent to a worker, in this order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    /// What to do.
    Plan(Box<Plan>),
    /// Open the connections.
    Connect,
    /// Begin at this moment of the clock.
    Go(u64),
    /// This was published: wait for it, then tell.
    Drain(Published),
}

/// From a worker to the parent. `Prepared`, `Ready` and `Done` come once for each thread.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum News {
    /// Ready to connect.
    Prepared,
    /// Connections and subscriptions stand.
    Ready,
    /// Everything was published.
    Published(Published),
    /// A thread is done.
    Done(Box<Outcome>),
    /// The worker cannot go on.
    Failed(String),
    /// Counts so far.
    Progress(Counts),
}

/// How far a worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each name is a count of an Outcome")]
struct Counts {
    connected: u64,
    delivered: u64,
    published: u64,
    cycles: u64,
}
