//! What a thread of a worker can be. Each role's `run_on` does all of its work: it tells
//! [`Report::Prepared`] and [`Report::Ready`] on the way and returns what it found.

mod churn;
mod everybody;
mod pingpong;
mod publisher;
mod stalled;
mod subscribers;

use std::io;
use std::sync::mpsc::Sender;

use tickring::ring::RingError;

use crate::control::{Control, Report};

pub use churn::Churn;
pub use everybody::Everybody;
pub use pingpong::PingPong;
pub use publisher::Publisher;
pub use stalled::Stalled;
pub use subscribers::Subscribers;

/// Why a thread cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Connections did not come to stand.
    #[error("{ready} of {wanted} connections stand: {why}")]
    Connect {
        /// Those that do.
        ready: u64,
        /// All.
        wanted: u64,
        /// The last error.
        why: String,
    },
    /// The server broke off what the run cannot do without.
    #[error("{0}")]
    Server(String),
    /// The kernel refused.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// The kernel refused in the middle of things.
    #[error("io_uring: {0}")]
    Kernel(#[from] io::Error),
}

/// What every role gets to talk with the rest of the worker.
#[derive(Debug)]
pub struct Line<'a> {
    /// Phases and progress.
    pub control: &'a Control,
    /// Findings.
    pub reports: Sender<Report>,
}

impl Line<'_> {
    /// Tells the worker. A worker that is gone takes the whole process along, so a failure to
    /// tell it is of no interest.
    pub fn tell(&self, report: Report) {
        drop(self.reports.send(report));
    }
}

/// How often a thread that has nothing to do looks at the phase.
pub(crate) const TICK_NS: u64 = 20_000_000;

/// Failed attempts to connect that a thread puts up with for `links` connections.
pub(crate) fn attempts_allowed(links: u32) -> u64 {
    8 + u64::from(links) / 50
}
