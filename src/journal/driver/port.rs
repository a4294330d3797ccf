//! Between a core and a lane's thread: batches one way, released tickets the other.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use tokio::sync::Notify;

use super::Wake;
use crate::histogram::{Histogram, SharedHistogram};
use crate::journal::Lane;
use crate::mailbox::{Receiver, Sender, channel};

/// Batches that may lie in a core's mailbox to a lane.
#[must_use]
pub const fn port_capacity() -> usize {
    64
}

/// A batch on its way.
pub(super) struct Letter {
    pub(super) ticket: u64,
    pub(super) batch: Vec<u8>,
}

/// A batch that had no room in the mailbox: try again after [`Port::committed`] has moved.
#[derive(Debug)]
pub struct Refused(pub Vec<u8>);

/// A core's end.
#[derive(Debug)]
pub struct Port {
    index: usize,
    ticket: u64,
    batches: Sender<Letter>,
    spares: Receiver<Vec<u8>>,
    status: Arc<Status>,
}

/// The lane's end.
pub(super) struct PortEnd {
    index: usize,
    batches: Receiver<Letter>,
    spares: Sender<Vec<u8>>,
    held: Option<Letter>,
    releases: bool,
    status: Arc<Status>,
    wake: Wake,
}

pub(super) fn port(
    index: usize,
    capacity: usize,
    status: Arc<Status>,
    wake: Wake,
) -> (Port, PortEnd) {
    let (batches, mail) = channel(capacity);
    let (spares_out, spares) = channel(capacity);
    let port = Port {
        index,
        ticket: 0,
        batches,
        spares,
        status: Arc::clone(&status),
    };
    let end = PortEnd {
        index,
        batches: mail,
        spares: spares_out,
        held: None,
        releases: true,
        status,
        wake,
    };
    (port, end)
}

impl Port {
    /// Sends a batch of whole groups of records; returns its ticket. Costs no system call while the
    /// lane's thread is awake.
    ///
    /// # Errors
    /// [`Refused`] if the mailbox is full: the lane is behind, full, or failed.
    pub fn send(&mut self, batch: Vec<u8>) -> Result<u64, Refused> {
        let ticket = self.ticket + 1;
        self.batches
            .try_send(Letter { ticket, batch })
            .map_err(|letter| Refused(letter.batch))?;
        self.ticket = ticket;
        self.status.ring();
        Ok(ticket)
    }

    /// Whether [`Port::send`] has room for a batch.
    #[must_use]
    pub fn has_room(&mut self) -> bool {
        self.batches.free() > 0
    }

    /// Batches that the lane has not taken yet.
    pub fn waiting(&mut self) -> usize {
        self.batches.capacity() - self.batches.free()
    }

    /// The newest ticket that is on disk, and with it all before; 0: none yet. A core that is about
    /// to sleep looks at it after arming its doorbell, as at a mailbox: it is a number and no
    /// letter, so that a slow core can never hold up the lane.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.status.tickets[self.index].load(Ordering::Acquire)
    }

    /// The ticket of the newest batch that was sent; 0: none yet.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.ticket
    }

    /// An empty vector to encode the next batch into: one that the lane is through with, if there
    /// is any.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spares.try_recv().unwrap_or_default()
    }

    /// What can be seen of the lane.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }
}

impl PortEnd {
    pub(super) fn take(&mut self) -> Option<Letter> {
        self.held.take().or_else(|| self.batches.try_recv())
    }

    /// Keeps a batch that the lane did not take, to be the next one.
    pub(super) fn hold(&mut self, letter: Letter) {
        self.held = Some(letter);
    }

    /// Gives a buffer back to the core; one that finds no room is dropped.
    pub(super) fn give_back(&mut self, mut batch: Vec<u8>) {
        batch.clear();
        let _ = self.spares.try_send(batch);
    }

    /// Wakes the core, so that it looks at the lane.
    pub(super) fn wake(&self) {
        (self.wake)();
    }

    pub(super) fn stop_releasing(&mut self) {
        self.releases = false;
    }

    pub(super) fn release(&self, ticket: u64) {
        let shown = &self.status.tickets[self.index];
        if self.releases && shown.load(Ordering::Relaxed) < ticket {
            shown.store(ticket, Ordering::Release);
            (self.wake)();
        }
    }
}

const NEVER: u64 = u64::MAX;

/// What can be seen of a lane, and asked of it, from any thread.
#[derive(Debug)]
pub struct Status {
    bell: Notify,
    grown: Notify,
    tickets: Box<[CachePadded<AtomicU64>]>,
    committed: AtomicU64,
    oldest: AtomicU64,
    disk_bytes: AtomicU64,
    commits: AtomicU64,
    commit_ns: SharedHistogram,
    batch_bytes: SharedHistogram,
    /// What the lane's nanoseconds count from.
    clock: Instant,
    unsynced_bytes: AtomicU64,
    /// [`NEVER`]: everything is on disk.
    unsynced_since_ns: AtomicU64,
    short: AtomicBool,
    full: AtomicBool,
    disk_full: AtomicBool,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
    stopping: AtomicBool,
    closed: AtomicBool,
    retain_position: AtomicU64,
    retain_older_ns: AtomicU64,
}

impl Status {
    pub(super) fn new(position: u64, ports: usize) -> Self {
        Self {
            bell: Notify::new(),
            grown: Notify::new(),
            tickets: (0..ports).map(|_| CachePadded::default()).collect(),
            committed: AtomicU64::new(position),
            oldest: AtomicU64::new(0),
            disk_bytes: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            commit_ns: SharedHistogram::default(),
            batch_bytes: SharedHistogram::default(),
            clock: Instant::now(),
            unsynced_bytes: AtomicU64::new(0),
            unsynced_since_ns: AtomicU64::new(NEVER),
            short: AtomicBool::new(true), // until it has a file to begin with
            full: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            retain_position: AtomicU64::new(0),
            retain_older_ns: AtomicU64::new(0),
        }
    }

    /// All records before this position are on disk.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Waits until [`Status::committed`] is beyond `position` or the lane is closed. For one task.
    pub async fn committed_beyond(&self, position: u64) {
        while self.committed() <= position && !self.is_closed() {
            self.grown.notified().await;
        }
    }

    /// Position of the oldest record that there is.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Relaxed)
    }

    /// Bytes of the lane's files.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// Writes that were brought to disk.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How long each write took from its begin until it was on disk, in nanoseconds.
    #[must_use]
    pub fn commit_ns(&self) -> Histogram {
        self.commit_ns.snapshot()
    }

    /// How many bytes each write carried.
    #[must_use]
    pub fn batch_bytes(&self) -> Histogram {
        self.batch_bytes.snapshot()
    }

    /// Bytes that the lane has taken and that are not on disk yet.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes.load(Ordering::Relaxed)
    }

    /// For how long the oldest of those has waited; zero: everything is on disk.
    #[must_use]
    pub fn unsynced_for(&self) -> Duration {
        match self.unsynced_since_ns.load(Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            since => self
                .clock
                .elapsed()
                .saturating_sub(Duration::from_nanos(since)),
        }
    }

    /// Whether the lane has no room, so that batches wait: it has reached `journal_bytes`, or the
    /// disk is full. Mailboxes then fill up, and the cores' commands wait and are refused with
    /// `overloaded`.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed) || self.is_disk_full()
    }

    /// Whether nothing more should be sent: it is full, or its next file is still being made. What
    /// was sent before has its room.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed) || self.is_full()
    }

    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Whether the lane releases nothing more, for good.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Why the lane failed.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }

    /// Whether the lane's thread is through with its work: nothing will be committed any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// As [`Lane::retain`]. Until it was called, nothing is removed.
    pub fn retain(&self, position: u64, older_than_ns: u64) {
        self.retain_older_ns.store(older_than_ns, Ordering::Relaxed);
        self.retain_position.store(position, Ordering::Release);
        self.ring();
    }

    pub(super) fn retained(&self) -> (u64, u64) {
        let position = self.retain_position.load(Ordering::Acquire);
        (position, self.retain_older_ns.load(Ordering::Relaxed))
    }

    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(super) fn rung(&self) -> impl Future<Output = ()> + '_ {
        self.bell.notified()
    }

    /// Tells the lane to bring all that it was given to disk, and to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.grown.notify_one();
    }

    pub(super) fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    pub(super) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    pub(super) fn fail(&self, why: String) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(why);
        self.failed.store(true, Ordering::Release);
    }

    /// The lane's monotonic time.
    pub(super) fn now_ns(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// A write of `bytes` was on disk after `took_ns`.
    pub(super) fn record(&self, took_ns: u64, bytes: usize) {
        self.commit_ns.record(took_ns);
        self.batch_bytes.record(bytes as u64);
    }

    pub(super) fn publish(&self, lane: &Lane) {
        self.unsynced_bytes
            .store(lane.unsynced_bytes(), Ordering::Relaxed);
        let since = lane.unsynced_since().unwrap_or(NEVER);
        self.unsynced_since_ns.store(since, Ordering::Relaxed);
        self.oldest.store(lane.oldest(), Ordering::Relaxed);
        self.disk_bytes.store(lane.disk_bytes(), Ordering::Relaxed);
        self.commits.store(lane.commits(), Ordering::Relaxed);
        self.disk_full
            .store(lane.waits_for_room(), Ordering::Relaxed);
        if let Some(failure) = lane.failure()
            && !self.is_failed()
        {
            self.fail(failure.to_string());
        }
        if self.committed.swap(lane.committed(), Ordering::Release) != lane.committed() {
            self.grown.notify_one();
        }
    }
}
