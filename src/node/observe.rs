//! Looking at a running node from outside its cores: a core that is asked gives a copy of all its
//! figures at the end of its turn, through a mailbox. One that is not asked spends one look at a
//! number on it, once a turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Bells, LaneView, Shared};
use crate::core::Figures;
use crate::mailbox::{Receiver, Sender, channel};

/// Reports that fit a core's mailbox: the one asked for, and one that came too late for its asker.
const REPORTS: usize = 2;

/// What a core tells when it is asked.
#[derive(Clone, Debug)]
pub struct CoreReport {
    /// What the core knows.
    pub figures: Figures,
    /// What lies in its mailboxes.
    pub mail: MailDepth,
    /// Turns after which something was left for lack of room in another's mailbox.
    pub crowded_turns: u64,
}

/// Parcels and batches that nobody has taken in yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailDepth {
    /// Parcels of requests from other cores.
    pub requests: usize,
    /// Parcels of deliveries from other cores.
    pub deliveries: usize,
    /// Batches that the journal's lanes have not taken from this core.
    pub journal: usize,
}

/// What an earlier run had left, and how long it took to take it over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Lanes of the journal.
    pub lanes: usize,
    /// Topics taken over.
    pub topics: usize,
    /// Events read.
    pub events: u64,
    /// Threads that read.
    pub threads: usize,
    /// How long it took.
    pub took: Duration,
}

impl Recovery {
    /// Events per second and thread.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64().max(1e-9) / self.threads.max(1) as f64
    }
}

/// A core's end.
pub(super) struct Reporter {
    asked: Arc<AtomicU64>,
    answered: u64,
    reports: Sender<(u64, Box<CoreReport>)>,
}

impl Reporter {
    /// Whether somebody wants a report that was not given yet.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) != self.answered
    }

    /// Gives a report. Without room it is dropped: then nobody waits for it any more.
    pub(super) fn give(&mut self, report: CoreReport) {
        self.answered = self.asked.load(Ordering::Relaxed);
        let _ = self.reports.try_send((self.answered, Box::new(report)));
    }
}

/// The other end of one core.
struct Watched {
    asked: Arc<AtomicU64>,
    reports: Receiver<(u64, Box<CoreReport>)>,
    last: Option<Box<CoreReport>>,
    answered: u64,
}

/// Looks at a node; got from [`Node::observer`](super::Node::observer). [`Observer::ask`], then
/// [`Observer::collect`] now and then until it is true, then look.
pub struct Observer {
    asked: u64,
    cores: Vec<Watched>,
    bells: Bells,
    shared: Arc<Shared>,
    lanes: Arc<[LaneView]>,
    recovery: Option<Recovery>,
}

impl Observer {
    pub(super) fn new(bells: Bells, shared: Arc<Shared>) -> (Self, Vec<Reporter>) {
        let ends = (0..bells.doorbells.len()).map(|_| {
            let (sender, receiver) = channel(REPORTS);
            let asked = Arc::new(AtomicU64::new(0));
            let reporter = Reporter {
                asked: Arc::clone(&asked),
                answered: 0,
                reports: sender,
            };
            let watched = Watched {
                asked,
                reports: receiver,
                last: None,
                answered: 0,
            };
            (watched, reporter)
        });
        let (cores, reporters) = ends.unzip();
        let observer = Self {
            asked: 0,
            cores,
            bells,
            shared,
            lanes: Arc::default(),
            recovery: None,
        };
        (observer, reporters)
    }

    pub(super) fn set_journal(&mut self, lanes: Arc<[LaneView]>, recovery: Recovery) {
        (self.lanes, self.recovery) = (lanes, Some(recovery));
    }

    /// Asks each core for a report, and wakes those that sleep.
    pub fn ask(&mut self) {
        self.asked += 1;
        for (index, core) in self.cores.iter_mut().enumerate() {
            core.take();
            core.asked.store(self.asked, Ordering::Relaxed);
            self.bells.ring(index);
        }
    }

    /// Takes what has come; whether every core has answered.
    pub fn collect(&mut self) -> bool {
        self.cores.iter_mut().for_each(Watched::take);
        let asked = self.asked;
        self.cores.iter().all(|core| core.answered == asked)
    }

    /// Of each core its newest report, `None` before the first, and whether it has answered what
    /// was asked last.
    pub fn cores(&self) -> impl Iterator<Item = (Option<&CoreReport>, bool)> {
        let report = |core: &'_ Watched| core.answered == self.asked;
        self.cores
            .iter()
            .map(move |core| (core.last.as_deref(), report(core)))
    }

    /// The journal's lanes; empty without a journal.
    pub fn lanes(&self) -> &[LaneView] {
        &self.lanes
    }

    /// What was taken over from an earlier run; `None` without a journal.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    /// Whether the node is stopping, or has stopped.
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// The most connections of the node.
    pub fn max_connections(&self) -> usize {
        self.shared.max_connections
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer")
            .field("cores", &self.cores.len())
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl Watched {
    fn take(&mut self) {
        while let Some((number, report)) = self.reports.try_recv() {
            (self.answered, self.last) = (number, Some(report));
        }
    }
}
