//! Recovery of all lanes at once, with its progress.

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use super::recover::{Entry, Recovered, lane_dir, recover};
use super::segment;
use super::{JournalError, lanes};

/// Records between two updates of the progress: an atomic operation for each would cost as much as
/// the record.
pub(super) const STEP: u64 = 4_096;

/// How far recovery has come; looked at from another thread, such as one that shows a bar.
#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    bytes: AtomicU64,
    records: AtomicU64,
}

impl Progress {
    /// Bytes of all segments' files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that were read; a little less than [`Progress::total_bytes`] in the end, because
    /// headers and preallocated bytes do not count.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Sets how far it is: of a lane that is looked at alone.
    pub(super) fn set(&self, records: u64, bytes: u64, total_bytes: u64) {
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.records.store(records, Ordering::Relaxed);
    }

    /// Records that were handed out, rounded down to some thousands while it runs.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

/// Recovers every lane of the journal in `dir` as [`recover`] does, on at most `threads` threads.
/// A journal that is not there yet is made with `fresh_lanes` lanes. For each lane `make` gives the
/// state that `visit` gathers the lane's records in; both come back, by lane.
///
/// A topic is in one lane, so nothing has to be merged, and it does not matter how many cores wrote
/// the journal. A topic's state is the fold of its records in order: a snapshot replaces the state;
/// an event is applied if its seq follows that of the state, and left out if the state has it
/// already or no state reaches up to it, because older segments were removed after a later
/// snapshot was taken.
///
/// # Errors
/// The first [`JournalError`] of the lowest lane that has one.
pub fn recover_lanes<S: Send>(
    dir: &Path,
    fresh_lanes: u32,
    threads: usize,
    progress: &Progress,
    make: impl Fn(u32) -> S + Sync,
    visit: impl Fn(&mut S, &Entry<'_>) + Sync,
) -> Result<Vec<(Recovered, S)>, JournalError> {
    let count = match lanes(dir)? {
        0 => fresh_lanes.max(1),
        found => found,
    };
    progress
        .total_bytes
        .store(total_bytes(dir, count)?, Ordering::Relaxed);
    let next = AtomicU32::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, count as usize) {
            scope.spawn(|| {
                loop {
                    let lane = next.fetch_add(1, Ordering::Relaxed);
                    if lane >= count {
                        return;
                    }
                    let result = recover_lane(dir, lane, progress, make(lane), &visit);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((lane, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(lane, _)| *lane);
    done.into_iter().map(|(_, result)| result).collect()
}

fn recover_lane<S>(
    dir: &Path,
    lane: u32,
    progress: &Progress,
    mut state: S,
    visit: &impl Fn(&mut S, &Entry<'_>),
) -> Result<(Recovered, S), JournalError> {
    let (mut records, mut reported) = (0, None);
    let add = |records: u64, bytes: u64| {
        progress.records.fetch_add(records, Ordering::Relaxed);
        progress.bytes.fetch_add(bytes, Ordering::Relaxed);
    };
    let recovered = recover(&lane_dir(dir, lane), lane, |entry| {
        visit(&mut state, entry);
        records += 1;
        let from = *reported.get_or_insert(entry.position);
        if records == STEP {
            add(records, entry.position - from);
            (records, reported) = (0, Some(entry.position));
        }
    })?;
    add(
        records,
        recovered.position - reported.unwrap_or(recovered.position),
    );
    Ok((recovered, state))
}

fn total_bytes(dir: &Path, count: u32) -> Result<u64, JournalError> {
    let mut total = 0;
    for lane in 0..count {
        let dir = lane_dir(dir, lane);
        if !dir.exists() {
            continue;
        }
        for first in segment::list(&dir)? {
            let path = segment::path(&dir, first);
            let file = std::fs::metadata(&path).map_err(JournalError::io("look at", path))?;
            total += file.len();
        }
    }
    Ok(total)
}
