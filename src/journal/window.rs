//! A moving view of a segment's records: finds whole, checked groups in what was read so far. It
//! does no I/O: whoever owns it reads where it says.

use super::record::{Bad, HEAD, Head, MAX_GROUP};
use super::segment::HEADER;

/// The most bytes of a group on disk: a batch, and a binding for each of its topics.
const LARGEST: usize = 2 * MAX_GROUP;

#[derive(Debug)]
pub(super) struct Window {
    buffer: Vec<u8>,
    /// Unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Offset in the file of `buffer[start]`.
    offset: u64,
    /// Bytes from `start` on that are good records of a group whose end has not come yet.
    checked: usize,
    chunk: usize,
}

/// What stands at the window's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole group of this many bytes; [`Window::group`] has them, [`Window::advance`] passes it.
    Group(usize),
    /// More of the file is needed to tell.
    More,
    /// No record: the offset in the file, and why.
    Bad(u64, Bad),
}

impl Window {
    /// A window that reads `chunk` bytes at a time.
    pub(super) fn new(chunk: usize) -> Self {
        Self {
            buffer: vec![0; chunk.max(HEAD)],
            start: 0,
            end: 0,
            offset: HEADER as u64,
            checked: 0,
            chunk: chunk.max(HEAD),
        }
    }

    /// Goes to another place, in the same file or another one.
    pub(super) fn seek(&mut self, offset: u64) {
        (self.start, self.end, self.offset, self.checked) = (0, 0, offset, 0);
    }

    /// Offset in the file of the next group.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether nothing is left of what was read.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Looks at the next group. Bytes from offset `limit` on do not exist for it.
    #[inline]
    pub(super) fn find(&mut self, limit: u64) -> Found {
        let room = usize::try_from(limit.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let end = self.end.min(self.start.saturating_add(room));
        let bytes = &self.buffer[self.start..end];
        loop {
            match Head::verify(&bytes[self.checked..]) {
                Ok(head) => {
                    self.checked += head.len;
                    if head.last {
                        return Found::Group(self.checked);
                    }
                }
                Err(Bad::Short(_)) if self.checked < LARGEST => return Found::More,
                Err(bad) => return Found::Bad(self.offset + self.checked as u64, bad),
            }
        }
    }

    /// As [`Window::find`], but for as many whole groups as there are in what was read.
    pub(super) fn find_all(&mut self, limit: u64) -> Found {
        let mut whole = None;
        loop {
            match self.find(limit) {
                Found::Group(len) => whole = Some(Found::Group(len)),
                other => return whole.unwrap_or(other),
            }
        }
    }

    /// The group that was found.
    pub(super) fn group(&self, len: usize) -> &[u8] {
        &self.buffer[self.start..self.start + len]
    }

    /// Passes the group that was found.
    pub(super) fn advance(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
        self.checked = 0;
    }

    /// Where more of the file goes, and from which offset. At least one byte long.
    pub(super) fn space(&mut self) -> (&mut [u8], u64) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() - self.end < self.chunk / 2 {
            self.buffer.resize(self.end + self.chunk, 0);
        }
        let from = self.offset + self.end as u64;
        (&mut self.buffer[self.end..], from)
    }

    /// So many bytes were read into [`Window::space`].
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
        debug_assert!(self.end <= self.buffer.len());
    }
}
