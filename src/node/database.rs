//! The database that the journal is projected into, and how HISTORY is answered from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tickring_protocol::ErrorCode;
use tokio::runtime::Runtime;

use super::readers::Job;
use crate::core::{ReadDone, ReadRefusal};
use crate::market::Calendars;
use crate::writer::{follow::Target, projection::PaceLimits, read::PageReader, store::StoreError};

/// When a read may be tried again that the database did not answer.
const RETRY_MS: u32 = 1_000;

/// The database that the journal is projected into.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// Which.
    pub target: Target,
    /// The sessions of instruments.
    pub calendars: Arc<Calendars>,
    /// The bounds of batches.
    pub pace: PaceLimits,
    /// Threads that read for HISTORY, each with a connection of its own; at least 1.
    pub readers: usize,
    /// How long a read may take before it is refused, its wait for a thread included.
    pub read_timeout: Duration,
}

impl DatabaseSettings {
    /// Projects into `target` with the default bounds.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            calendars: Calendars::built_in(),
            pace: PaceLimits::default(),
            readers: 2,
            read_timeout: Duration::from_secs(5),
        }
    }
}

/// One reading thread's side of the database.
pub(super) struct PageThread {
    reader: PageReader,
    runtime: Runtime,
    /// Whether the last read failed; all threads share it, so that the log tells once.
    failing: Arc<AtomicBool>,
}

impl PageThread {
    pub(super) fn new(target: Target, failing: Arc<AtomicBool>) -> std::io::Result<Self> {
        Ok(Self {
            reader: PageReader::new(target),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            failing,
        })
    }

    /// Answers a read: with its page, or by the time it is due with why there is none.
    pub(super) fn read(&mut self, job: Job) -> ReadDone {
        let due = tokio::time::Instant::from_std(job.due);
        let late = Instant::now() >= job.due;
        let page = match late {
            true => None,
            false => self.runtime.block_on(async {
                let history = job.read.history();
                let page = self.reader.page(&history);
                tokio::time::timeout_at(due, page).await.ok()
            }),
        };
        let outcome = match page {
            Some(page) => page,
            None => {
                if !late {
                    self.reader.disconnect();
                }
                Err(StoreError::Lost {
                    reason: "it has not answered within read_timeout".into(),
                })
            }
        };
        job.read.done(self.told(outcome))
    }

    /// Puts a failure into the log, and into words for the client: not the database's own, which
    /// are not for everybody.
    fn told(&self, outcome: Result<Vec<u8>, StoreError>) -> Result<Vec<u8>, ReadRefusal> {
        let was_failing = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        outcome
            .inspect(|_| {
                if was_failing {
                    tracing::info!("the database answers reads again");
                }
            })
            .map_err(|error| {
                if !was_failing {
                    tracing::warn!(%error, "the database does not answer reads");
                }
                let passing = error.is_passing();
                let (code, retry_after_ms, text) = match passing {
                    true => (
                        ErrorCode::Overloaded,
                        RETRY_MS,
                        "the database does not answer at present",
                    ),
                    false => (
                        ErrorCode::Internal,
                        0,
                        "the database refused the read; the server's log says why",
                    ),
                };
                ReadRefusal {
                    code,
                    retry_after_ms,
                    text: text.to_owned(),
                }
            })
    }
}
