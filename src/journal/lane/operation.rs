//! What goes into a lane and what it asks for.

use std::collections::HashMap;
use std::io;

use crate::journal::error::advice;
use crate::journal::segment::SegmentInfo;

/// What a lane begins with: what [`recover`](crate::journal::recover) found, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneStart {
    /// Number of the lane.
    pub lane: u32,
    /// Identity of the journal; the same for ever.
    pub journal: u128,
    /// Names this run of the node.
    pub run: u64,
    /// Where the lane goes on.
    pub position: u64,
    /// The segments on disk, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// The topics that have records in them, and the position where their recovery begins: what
    /// lies behind it is needed until this run has written their states.
    pub topics: HashMap<Box<str>, u64>,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The pending write has its bytes; again after the next commit.
    #[error("the journal's next write has group_bytes already")]
    Busy,
    /// The lane has its bytes; again when old segments were removed.
    #[error("the journal has journal_bytes on disk, and what it holds is still needed")]
    Full,
    /// An operation failed; the lane takes nothing more until it is opened again.
    #[error("the journal's disk failed; it takes nothing more until tickring is started again")]
    Failed,
    /// The batch is not a series of whole groups of records.
    #[error("the batch is no series of whole record groups: {0}")]
    Malformed(&'static str),
}

/// Something to be done to the lane's files; [`super::Lane::on_done`] must follow.
#[derive(Debug)]
pub struct Operation {
    /// Names it in [`super::Lane::on_done`].
    pub id: u64,
    /// What to do.
    pub kind: OperationKind,
}

/// What to do to the lane's files. A segment is named by its first position.
#[derive(Debug)]
pub enum OperationKind {
    /// Make the spare file, anew if there is one, with room for `bytes`: the next segment will be
    /// made of it, so that what was taken by then has its room.
    Prepare {
        /// Bytes to preallocate.
        bytes: u64,
    },
    /// Make the segment's file, which must not exist, with room for `bytes`.
    Create {
        /// The segment.
        segment: u64,
        /// Bytes to preallocate.
        bytes: u64,
        /// Whether the spare file becomes it, which has them already.
        spare: bool,
    },
    /// Write `bytes[skip..]` to the segment at `offset` of its file; a short write is all right.
    Write {
        /// The segment, which is the one created last.
        segment: u64,
        /// Offset in the file.
        offset: u64,
        /// The buffer, to be given back in [`Outcome::Written`].
        bytes: Vec<u8>,
        /// Bytes of the buffer that are written already.
        skip: usize,
    },
    /// Bring the segment's data to disk: fdatasync.
    Sync {
        /// The segment, which is the one created last.
        segment: u64,
    },
    /// Bring the directory to disk: fsync.
    SyncDirectory,
    /// Remove the segment's file, and bring the directory to disk before it is reported done, so
    /// that a crash cannot bring an older segment back without a newer one.
    Remove {
        /// The segment.
        segment: u64,
    },
}

/// How an operation ended.
#[derive(Debug)]
pub enum Outcome {
    /// A write: the buffer, and how many bytes the file took.
    Written(Vec<u8>, io::Result<usize>),
    /// Any other operation.
    Done(io::Result<()>),
}

/// What an operation released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Whether the committed position has moved.
    pub committed: bool,
    /// Whether there is more room on disk.
    pub room: bool,
}

/// Why a lane stopped.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {doing} the journal's segment {segment:020}.seg: {cause}{}",
    advice(cause)
)]
pub struct Failure {
    /// What was being done.
    pub doing: &'static str,
    /// The segment's first position.
    pub segment: u64,
    /// What the operating system answered.
    pub cause: io::Error,
}
