//! What can go wrong with a journal, in its user's words.

use std::io;
use std::path::PathBuf;

/// Why a journal cannot be read or written. Each text names the file and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A bound of the configuration is wrong.
    #[error("journal configuration: {field} is {value}, must be {must}")]
    Limit {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        must: &'static str,
    },
    /// An operation on a file failed.
    #[error("cannot {doing} {}: {cause}{}", file.display(), advice(cause))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// What the operating system answered.
        cause: io::Error,
    },
    /// A file that tickring did not write.
    #[error(
        "{} is not a segment of this journal ({why}): move it out of the journal's directory",
        file.display()
    )]
    Foreign {
        /// The file.
        file: PathBuf,
        /// How it shows.
        why: String,
    },
    /// Written by a newer tickring.
    #[error(
        "{} has journal format {found}; this tickring reads up to format {known}: start the tickring \
         that wrote it, or a newer one",
        file.display()
    )]
    Newer {
        /// The segment.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that can be read.
        known: u32,
    },
    /// Bytes that had been on disk are damaged.
    #[error(
        "{} is damaged at byte {offset} ({why}), and what comes behind it was acknowledged: restore \
         the file from a backup or another disk; `tickring journal verify` shows what can be read, \
         and only moving this and all later segments away, which loses their events, lets tickring \
         start without it",
        file.display()
    )]
    Corrupt {
        /// The segment.
        file: PathBuf,
        /// Offset of the first bad byte in the file.
        offset: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// A segment between two others is missing or too short.
    #[error(
        "{} begins at position {found}, but the segment before it ends at {expected}: restore the \
         missing or shortened segment from a backup",
        file.display()
    )]
    Gap {
        /// The segment behind the gap.
        file: PathBuf,
        /// Where the lane's records end before it.
        expected: u64,
        /// Where it begins.
        found: u64,
    },
    /// The journal no longer reaches back this far.
    #[error("the journal begins at position {oldest}; position {wanted} was removed")]
    Expired {
        /// The position asked for.
        wanted: u64,
        /// The oldest position there is.
        oldest: u64,
    },
    /// A position that is not the beginning of a group, or that the lane has not reached.
    #[error("position {position} of {} is not the beginning of a record group", dir.display())]
    NoSuchPosition {
        /// The lane's directory.
        dir: PathBuf,
        /// The position.
        position: u64,
    },
    /// The lane's thread is gone because of a panic.
    #[error("the journal's writer of {} panicked", dir.display())]
    Panicked {
        /// The lane's directory.
        dir: PathBuf,
    },
}

impl JournalError {
    pub(super) fn io(
        doing: &'static str,
        file: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |cause| Self::Io { doing, file, cause }
    }
}

/// What to do about an error of the operating system.
#[must_use]
pub fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ". The user that runs tickring must be able to write there: check owner, mode and mount \
             options, or choose another directory with --data"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". The disk is full: make room and start tickring again"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            ". A file is in the way: move it, or choose another directory with --data"
        }
        _ => "",
    }
}
