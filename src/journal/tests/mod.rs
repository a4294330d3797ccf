//! The journal under a simulated disk and on real files.

mod files;
mod lane;
mod records;
mod replies;
mod simulation;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::record::{Event, Record, Topic};
use super::{Entry, Limits};

/// A directory that goes with the test.
struct TempDir(PathBuf);

impl TempDir {
    /// On a real disk, or wherever temporary files are.
    fn new() -> Self {
        Self::under(&std::env::temp_dir())
    }

    /// In memory where there is such a place: for tests that simulate the disk themselves.
    fn in_memory() -> Self {
        let shm = Path::new("/dev/shm");
        if shm.is_dir() {
            Self::under(shm)
        } else {
            Self::new()
        }
    }

    fn under(parent: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("tickring-journal-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A small generator whose seed a failing test prints.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// Segments of 4 KiB: many rolls with little data.
fn small() -> Limits {
    Limits {
        segment_bytes: 4 << 10,
        journal_bytes: 64 << 10,
        group_bytes: 4 << 10,
        ..Limits::default()
    }
}

fn bind(number: u32, name: &str, out: &mut Vec<u8>) {
    let epoch = 7;
    Topic {
        number,
        epoch,
        name,
    }
    .encode(false, out)
    .unwrap();
}

fn event(topic: u32, seq: u64, body: &[u8]) -> Event<'_> {
    Event {
        topic,
        kind: 1,
        seq,
        session: 5,
        request_id: seq,
        event_ns: seq,
        node_ns: 1_000 + seq,
        body,
    }
}

/// The seqs of events handed out.
fn seq_of(entry: &Entry<'_>) -> Option<u64> {
    match entry.record {
        Record::Event(event) => Some(event.seq),
        _ => None,
    }
}
