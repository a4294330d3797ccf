//! A segment's name and header.

use std::path::{Path, PathBuf};

use super::JournalError;

/// Bytes of a segment's header; its records follow.
pub(super) const HEADER: usize = 64;
/// The newest format that this code reads, and the one that it writes.
pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"\x89TRJRNL\x0a";
const DIGITS: usize = 20;
const SUFFIX: &str = ".seg";
const SPARE: &str = "spare";

/// What is known of one segment of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Position of its first record.
    pub first: u64,
    /// Position behind its last record.
    pub end: u64,
    /// When its newest record was written, in nanoseconds since 1970-01-01 UTC; 0: it has none.
    pub newest_ns: u64,
    /// Bytes of its file on disk.
    pub file_bytes: u64,
}

/// The head of a segment file:
///
/// | offset | bytes | |
/// |---|---|---|
/// | 0 | 8 | magic |
/// | 8 | 4 | format version |
/// | 12 | 4 | lane |
/// | 16 | 16 | the journal's identity, the same in all segments of a lane |
/// | 32 | 8 | position of the first record |
/// | 40 | 8 | the run of the node that wrote it |
/// | 48 | 12 | zero |
/// | 60 | 4 | CRC-32C of all before |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) lane: u32,
    pub(super) journal: u128,
    pub(super) first: u64,
    pub(super) run: u64,
}

/// Why bytes are no header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Nothing was written, or not all of it: a crash at the segment's beginning.
    Unwritten,
    /// Not a segment.
    Magic,
    /// Of a newer format.
    Newer(u32),
    /// A segment's, but damaged.
    Damaged,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.lane.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.journal.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.run.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a header from the first bytes of a file, which may be fewer than [`HEADER`].
    pub(super) fn decode(file: &[u8]) -> Result<Self, BadHeader> {
        let head = &file[..file.len().min(HEADER)];
        let Some(bytes) = file.first_chunk::<HEADER>() else {
            let beginning = MAGIC.starts_with(&head[..head.len().min(8)]);
            let unwritten = beginning || head.iter().all(|byte| *byte == 0);
            return Err(if unwritten {
                BadHeader::Unwritten
            } else {
                BadHeader::Magic
            });
        };
        if bytes[..8] != MAGIC {
            // In a preallocated file a beginning that was cut off is followed by zeros.
            let written = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |at| at + 1);
            let cut = MAGIC.starts_with(&bytes[..written]);
            return Err(if cut {
                BadHeader::Unwritten
            } else {
                BadHeader::Magic
            });
        }
        let u32_at = |at: usize| u32::from_le_bytes(array(&bytes[at..at + 4]));
        let u64_at = |at: usize| u64::from_le_bytes(array(&bytes[at..at + 8]));
        // The version comes first: what follows it may be laid out anew in another one.
        match u32_at(8) {
            VERSION => {}
            newer if newer > VERSION && newer < 1 << 16 => return Err(BadHeader::Newer(newer)),
            _ => return Err(BadHeader::Damaged),
        }
        if u32_at(60) != crc32c::crc32c(&bytes[..60]) {
            return Err(BadHeader::Damaged);
        }
        Ok(Self {
            lane: u32_at(12),
            journal: u128::from_le_bytes(array(&bytes[16..32])),
            first: u64_at(32),
            run: u64_at(40),
        })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

/// The file of the segment that begins at `first`.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:0DIGITS$}{SUFFIX}"))
}

/// The file that the lane's next segment is made of. It holds nothing, and what an earlier run has
/// left of it is of no use.
pub(super) fn spare(dir: &Path) -> PathBuf {
    dir.join(SPARE)
}

/// The position in a segment's file name.
pub(super) fn position_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() != DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The first positions of a lane's segments, ascending.
///
/// # Errors
/// [`JournalError::Foreign`] if there is anything else in the directory.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(JournalError::io("list", dir))? {
        let entry = entry.map_err(JournalError::io("list", dir))?;
        let name = entry.file_name();
        match name.to_str().and_then(position_of) {
            Some(first) => found.push(first),
            None if name == SPARE => {}
            None => {
                return Err(JournalError::Foreign {
                    file: entry.path(),
                    why: "its name is not a position of 20 digits and .seg".into(),
                });
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
