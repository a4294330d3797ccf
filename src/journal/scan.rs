//! One segment file, read from its beginning: its header, its groups, and what a bad byte in it means.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::JournalError;
use super::record::{self, Bad, MARK_LEN, Record};
use super::segment::{self, BadHeader, HEADER, Header, VERSION};
use super::window::{Found, Window};

/// Bytes read at a time.
pub(super) const CHUNK: usize = 1 << 20;

/// Where the good groups of a segment end.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentEnd {
    /// Offset in the file behind the last good group.
    pub(super) offset: u64,
    /// The first record that is none, if the file has bytes behind the last good group.
    pub(super) bad: Option<(u64, Bad)>,
}

/// One segment being read from its beginning.
pub(super) struct Scan {
    pub(super) path: PathBuf,
    file: File,
    first: u64,
}

impl Scan {
    pub(super) fn open(dir: &Path, first: u64) -> Result<Self, JournalError> {
        let path = segment::path(dir, first);
        let file = File::open(&path).map_err(JournalError::io("open", &path))?;
        Ok(Self { path, file, first })
    }

    /// Its path and file, for whoever reads on.
    pub(super) fn into_parts(self) -> (PathBuf, File) {
        (self.path, self.file)
    }

    /// The segment's header; `None` if a crash kept it from being written, which only the last
    /// segment may show.
    pub(super) fn header(
        &self,
        lane: u32,
        journal: Option<u128>,
        is_last: bool,
    ) -> Result<Option<Header>, JournalError> {
        let mut bytes = [0; HEADER];
        let read =
            read_up_to(&self.file, &mut bytes, 0).map_err(JournalError::io("read", &self.path))?;
        let damaged = |why| JournalError::Corrupt {
            file: self.path.clone(),
            offset: 0,
            why,
        };
        let foreign = |why: String| JournalError::Foreign {
            file: self.path.clone(),
            why,
        };
        match Header::decode(&bytes[..read]) {
            Ok(header) if header.first != self.first => Err(foreign(format!(
                "its header is that of position {}",
                header.first
            ))),
            Ok(header) if header.lane != lane => {
                Err(foreign(format!("it belongs to lane {}", header.lane)))
            }
            Ok(header) if journal.is_some_and(|journal| journal != header.journal) => {
                Err(foreign("it belongs to another journal".into()))
            }
            Ok(header) => Ok(Some(header)),
            // Torn anywhere, the header may be there in part.
            Err(BadHeader::Unwritten | BadHeader::Damaged) if is_last && self.is_unwritten()? => {
                Ok(None)
            }
            Err(BadHeader::Unwritten | BadHeader::Damaged) => Err(damaged("its header is damaged")),
            Err(BadHeader::Magic) => Err(foreign("it does not begin like one".into())),
            Err(BadHeader::Newer(found)) => Err(JournalError::Newer {
                file: self.path.clone(),
                found,
                known: VERSION,
            }),
        }
    }

    /// Whether the segment never had a second write: its header went to disk with the first.
    fn is_unwritten(&self) -> Result<bool, JournalError> {
        let first = self.first;
        let found = self.find_mark(HEADER as u64, |offset, position, _| {
            position.checked_sub(first) == offset.checked_sub(HEADER as u64)
                && offset > HEADER as u64
        })?;
        Ok(!found)
    }

    /// Hands every good group and its position to `visit`, which may find it impossible.
    pub(super) fn groups(
        &mut self,
        header: Header,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), &'static str>,
    ) -> Result<SegmentEnd, JournalError> {
        let mut window = Window::new(CHUNK);
        loop {
            let offset = window.offset();
            match window.find(u64::MAX) {
                Found::Group(len) => {
                    let position = self.first + (offset - HEADER as u64);
                    let group = window.group(len);
                    check_mark(header, position, group)
                        .and_then(|()| visit(position, group))
                        .map_err(|why| JournalError::Corrupt {
                            file: self.path.clone(),
                            offset,
                            why,
                        })?;
                    window.advance(len);
                }
                Found::Bad(at, bad) => {
                    return Ok(SegmentEnd {
                        offset,
                        bad: Some((at, bad)),
                    });
                }
                Found::More => {
                    let (space, from) = window.space();
                    let read = self
                        .file
                        .read_at(space, from)
                        .map_err(JournalError::io("read", &self.path))?;
                    if read == 0 {
                        let bad = (!window.is_empty()).then_some((offset, Bad::Short(0)));
                        return Ok(SegmentEnd { offset, bad });
                    }
                    window.filled(read);
                }
            }
        }
    }

    /// Whether a mark of this journal lies behind `offset`, which says that the bytes there had
    /// been on disk.
    pub(super) fn has_later_mark(&self, header: Header, offset: u64) -> Result<bool, JournalError> {
        self.find_mark(offset + 1, |at, position, key| {
            key == header.journal as u64
                && position.checked_sub(self.first) == at.checked_sub(HEADER as u64)
        })
    }

    /// Whether there is a mark from offset `from` on that `is` finds right, by its offset in the
    /// file, its position and its key.
    fn find_mark(
        &self,
        from: u64,
        is: impl Fn(u64, u64, u64) -> bool,
    ) -> Result<bool, JournalError> {
        let head = (MARK_LEN as u32).to_le_bytes();
        let mut buffer = vec![0; CHUNK];
        let (mut offset, mut kept) = (from, 0);
        loop {
            let read = read_up_to(&self.file, &mut buffer[kept..], offset + kept as u64)
                .map_err(JournalError::io("read", &self.path))?;
            let bytes = &buffer[..kept + read];
            for (at, candidate) in bytes.windows(MARK_LEN).enumerate() {
                if candidate[..4] == head
                    && let Ok((Record::Mark { position, key }, _)) = record::decode(candidate)
                    && is(offset + at as u64, position, key)
                {
                    return Ok(true);
                }
            }
            if read == 0 {
                return Ok(false);
            }
            let len = bytes.len();
            let next = len.saturating_sub(MARK_LEN - 1);
            buffer.copy_within(next..len, 0);
            (offset, kept) = (offset + next as u64, len - next);
        }
    }

    /// Whether the file has only zeros from `offset` on: preallocated, and never written.
    pub(super) fn is_zero_from(&self, mut offset: u64) -> Result<bool, JournalError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = read_up_to(&self.file, &mut buffer, offset)
                .map_err(JournalError::io("read", &self.path))?;
            if read == 0 {
                return Ok(true);
            }
            if buffer[..read].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += read as u64;
        }
    }
}

/// A mark must be of this journal and say its own position.
pub(super) fn check_mark(header: Header, at: u64, group: &[u8]) -> Result<(), &'static str> {
    if group.len() != MARK_LEN {
        return Ok(());
    }
    match record::decode_verified(group) {
        Ok((Record::Mark { position, key }, _))
            if position != at || key != header.journal as u64 =>
        {
            Err("a mark of another place or journal")
        }
        _ => Ok(()),
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
