//! How a worker's main thread and its other threads talk: phases down, findings up, and a few
//! counters that anybody may read at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::outcome::Outcome;

/// What the publishers sent, told to everybody who waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Published {
    /// Messages by counter, see [`crate::topics::Topics::counter_of`].
    pub sent: Vec<u64>,
    /// Those of them that the server refused.
    pub refused: Vec<u64>,
}

/// Where a run stands. A run goes through the phases in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Threads set themselves up.
    #[default]
    Preparing,
    /// Connections are opened.
    Connecting,
    /// The load runs from this moment of the clock on.
    Running(u64),
    /// Everything was published; the last events arrive.
    Draining(Arc<Published>),
}

/// What one thread tells the worker.
#[derive(Debug)]
pub enum Report {
    /// Ready to connect.
    Prepared,
    /// All connections and subscriptions stand.
    Ready,
    /// Everything was published.
    Published(Published),
    /// The thread is done.
    Done(Box<Outcome>),
    /// The thread cannot go on.
    Failed(String),
}

/// Counters for the progress bar; each thread adds what is new now and then.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each name is a count of an Outcome")]
pub struct Progress {
    pub connected: AtomicU64,
    pub delivered: AtomicU64,
    pub published: AtomicU64,
    pub cycles: AtomicU64,
}

/// Adds what a thread's own count grew by since the last call to a shared one.
#[derive(Debug, Default)]
pub struct Growth(u64);

impl Growth {
    /// The thread's count is now `count`.
    pub fn update(&mut self, shared: &AtomicU64, count: u64) {
        if count != self.0 {
            shared.fetch_add(count.wrapping_sub(self.0), Ordering::Relaxed);
            self.0 = count;
        }
    }
}

/// The phase, shared by the threads of a worker.
#[derive(Debug, Default)]
pub struct Control {
    phase: Mutex<Phase>,
    changed: Condvar,
    epoch: AtomicU64,
    /// For the progress bar.
    pub progress: Progress,
}

impl Control {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.epoch.fetch_add(1, Ordering::Release);
        self.changed.notify_all();
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.phase
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes with every phase: cheap to look at in a loop.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Sleeps until the first phase is over.
    pub fn wait_until_connecting(&self) {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.changed
                .wait_while(phase, |phase| *phase == Phase::Preparing),
        );
    }
}
