//! The journal: append-only checksummed segment files, the truth after a crash.
//!
//! A journal is a directory with one folder for each **lane**; a lane is an endless stream of
//! bytes, cut into segment files, and has one writer. A topic stays in one lane for ever
//! ([`lane_of`]), so the order of its records in the lane is the order of its events.
//!
//! ```text
//! data/lane-0/00000000000000000000.seg     header, records ...
//!            /00000000000067109021.seg     named after the position of its first record
//!            /spare                        holds nothing yet: the next segment's file
//! ```
//!
//! A **position** is an offset in the lane's stream of records, in bytes; headers do not count, so
//! that a segment begins at the very position where the one before it ends, and a segment that is
//! missing shows. Positions and seqs only grow; they are never used twice.
//!
//! # The road of a record
//! 1. A core encodes it ([`record`]) into the batch of its turn: no allocation, tens of ns. What
//!    one command gives (its events and its reply) is one **group**: the last record of a group is
//!    marked, and after a crash a group is there as a whole or not at all.
//! 2. The batch goes to the lane's [`Writer`] by a mailbox ([`Port::send`]), with a **ticket**, a
//!    number that grows with each batch of that core.
//! 3. [`Lane`] copies it to its pending write. While one write and its fdatasync are under way,
//!    whatever comes gathers to the next one (**group commit**): alone a batch is written at once,
//!    under load one fdatasync carries many, and no timer is needed. [`Limits::max_delay`] can
//!    make a lane wait for company, where a disk prefers few large writes.
//! 4. When the fdatasync is over, the ticket is released to its core ([`Port::committed`]).
//!
//! # States of a lane, and what can fail
//! ```text
//!           append                poll            done           done
//!   Idle ───────────▶ pending ─┬─────────────▶ Writing ──▶ Syncing ──▶ Idle, tickets released
//!                              └▶ Creating ──▶ Writing ──▶ Syncing ──▶ SyncingDirectory ──▶ Idle
//!   any of them ── an operation failed ──▶ Failed, for good
//! ```
//! | step | what can fail | then |
//! |---|---|---|
//! | append | the lane would pass `journal_bytes` | refused as `Full`; nothing that was taken is lost; goes on when [`Lane::retain`] has made room. [`Lane::is_short`] says so before: while the next segment has no file, nobody should ask for more than the present one still holds |
//! | append | the pending write has `group_bytes` already | refused as `Busy` until the write under way is done |
//! | append | the batch is no series of whole groups | refused as `Malformed`: a mistake in the program |
//! | prepare | the disk is full | the lane is short, and it is tried again ten times a second |
//! | create, write | the disk is full | what was taken waits in memory, and it is tried again ten times a second; a lane that is ending fails |
//! | create, write, fdatasync, fsync of the directory | any other error of the disk | the lane is **failed**: it releases nothing more until it is opened again |
//! | remove | any error of the disk | no more is removed; appends go on to the bound |
//!
//! A failed fsync is never tried again, because a second one that succeeds proves nothing: Linux
//! marks the pages that it could not write as clean and reports the error once, so that the next
//! fsync has nothing to write and says that all is well. Only writing the same bytes again would
//! help, and that is what [`recover`] does: it rewrites the last segment before it trusts it.
//!
//! # After a crash
//! Only the last write can be torn, and it is in the last segment, because a segment is begun only
//! when all before is on disk. Each write begins with a **mark** that holds its own position and so
//! says "all before me is on disk". [`recover`] cuts at the last whole group before the first bad
//! byte; but if a mark lies behind the bad byte, those bytes had been on disk, something else broke
//! them, and recovery stops with an error that names the place instead of dropping acknowledged
//! events.
//!
//! After recovery a lane goes on in a new segment. So no file is ever continued, bytes behind a
//! cut cannot come back, and the short numbers of topics hold for one run of the node.
//!
//! # Bounds
//! [`Limits`] has them by name: bytes of a segment, of the lane, of one write. Memory of a lane:
//! two buffers of `group_bytes` plus one batch each, a name for each topic, 40 bytes for each
//! segment. Memory of a reader: one chunk, and one group if that is larger
//! ([`record::MAX_GROUP`]). A segment is full when it has `segment_bytes`; it may exceed that by
//! one write.
//!
//! # Cost
//! On disk 64 bytes and the body for an event; 32 bytes for a write; once in each segment, and only
//! for topics that occur in it, 24 bytes and its name. On the core one checksum and one copy. In
//! the writer one pass over the record heads and one copy. The checksum is CRC-32C by the `crc32c`
//! crate: one instruction for 8 bytes on x86-64 and aarch64 and a table elsewhere, no configuration
//! and no dependencies; `crc-fast` is faster from some KiB on, which records do not reach, and needs
//! a newer compiler than tickring does. Segments are preallocated: an fdatasync that need not grow
//! the file took about half of the time here (ext4, writes of 4 KiB, median of 300: 250 to 280
//! microseconds against 350 to 470; zeros written beforehand: 170, but twice the bytes). A full disk
//! then also shows when a segment is begun, before anything of it is taken for written.
//!
//! # Figures
//! `cargo run --release --example journal_throughput -- DIR 20000000` measures. On two shared cores
//! under other load (load average 7 to 11), ext4, 112 bytes on disk for an event: encoding 36 to
//! 61 ns; one core into one lane 1.2 to 1.6 million events/s on disk by about 40 large fdatasyncs a
//! second; a batch alone is released after 0.5 ms (median); recovery 6.8 to 14.9 million events/s on
//! one core, a reader 11 to 20 million.

mod catalog;
#[cfg(any(test, feature = "simulation"))]
#[doc(hidden)]
pub mod disk;
mod driver;
mod error;
mod inspect;
mod lane;
mod reader;
pub mod record;
mod recover;
mod replay;
mod replies;
mod retention;
mod scan;
mod segment;
mod topics;
mod window;

#[cfg(test)]
mod tests;

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

pub use catalog::{Catalog, Place};
pub use driver::{
    Companion, Desk, Port, Refused, Status, Wake, Writer, WriterConfig, port_capacity,
};
pub use error::{JournalError, advice};
pub use inspect::{LaneReport, SegmentReport, SeqBreak, dump, verify};
pub use lane::{
    AppendError, Failure, Lane, LaneStart, Operation, OperationKind, Outcome, Released,
};
pub use reader::{Batch, Reader};
pub use recover::{Cut, Entry, Recovered, lane_dir, lanes, recover};
pub use replay::{Progress, recover_lanes};
pub use replies::{Remembered, ReplyLimits, ReplyWindow, Seen};
pub use retention::Retention;
pub use segment::SegmentInfo;
pub use topics::RecoveredTopic;

/// The bounds of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes at which a segment is full and the next one is begun. 4 KiB to 2 GiB.
    pub segment_bytes: u64,
    /// Bytes that the lane's files may have on disk. At least four segments.
    pub journal_bytes: u64,
    /// Bytes that wait for the next write. 4 KiB to 64 MiB.
    pub group_bytes: usize,
    /// How long a batch waits for company before it is written; zero writes at once.
    pub max_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            journal_bytes: 16 << 30,
            group_bytes: 4 << 20,
            max_delay: Duration::ZERO,
        }
    }
}

impl Limits {
    /// Checks the bounds against each other.
    ///
    /// # Errors
    /// [`JournalError::Limit`] names the field and what it must be.
    pub fn check(&self) -> Result<(), JournalError> {
        let wrong = |field, value, must| Err(JournalError::Limit { field, value, must });
        if !(4 << 10..=2 << 30).contains(&self.segment_bytes) {
            return wrong("segment_bytes", self.segment_bytes, "4 KiB to 2 GiB");
        }
        if self.journal_bytes < 4 * self.segment_bytes {
            return wrong("journal_bytes", self.journal_bytes, "at least 4 segments");
        }
        if !(4 << 10..=64 << 20).contains(&self.group_bytes) {
            return wrong("group_bytes", self.group_bytes as u64, "4 KiB to 64 MiB");
        }
        Ok(())
    }
}

/// The lane of a topic in a journal of `lanes` lanes: a stable hash of its name. The number of
/// lanes is fixed when the journal is made ([`lanes`] tells it), whatever the number of cores is.
#[must_use]
pub fn lane_of(topic: &str, lanes: u32) -> u32 {
    (xxh3_64(topic.as_bytes()) % u64::from(lanes.max(1))) as u32
}
