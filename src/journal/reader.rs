//! Reading a lane from a position on, up to what is committed, while it grows.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::JournalError;
use super::catalog::Place;
use super::record::{self, Head, Record, Topic};
use super::recover::Entry;
use super::scan::{Scan, check_mark, read_up_to};
use super::segment::{self, HEADER, Header};
use super::topics::{RecoveredTopic, TopicTable};
use super::window::{Found, Window};

/// Bytes read at a time: little enough that a read from the page cache does not hold up a writer's
/// runtime (some ten microseconds).
const CHUNK: usize = 256 << 10;

/// Reads a lane in order. It follows the lane while that grows: [`Reader::batch`] is given the
/// committed position each time and never looks beyond it.
///
/// A segment must not be removed before the reader is through with it: its position bounds
/// [`Lane::retain`](super::Lane::retain).
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    lane: u32,
    journal: Option<u128>,
    segment: Option<Segment>,
    /// Position of the next group.
    position: u64,
    window: Window,
    /// Bytes of the window that were handed out last.
    taken: usize,
    topics: TopicTable,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    header: Header,
}

/// Some whole groups, as they are in the reader's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    position: u64,
    bytes: &'a [u8],
    topics: &'a TopicTable,
}

impl Reader {
    /// A reader of the lane in `dir` that begins at `position`: the beginning of the lane's oldest
    /// segment, or the end of a batch that was read before. Reads the segment's bytes before it, in
    /// order to know its topics.
    ///
    /// # Errors
    /// [`JournalError::Expired`] if the lane no longer reaches back to `position`,
    /// [`JournalError::NoSuchPosition`] if no group begins there; others as [`recover`](super::recover).
    pub fn open(dir: &Path, lane: u32, position: u64) -> Result<Self, JournalError> {
        let mut reader = Self::new(dir, lane, position);
        let Some(first) = reader.segment_of(position)? else {
            return Ok(reader);
        };
        if first == position {
            // Entered with its first batch: until that is on disk, its header need not be either.
            return Ok(reader);
        }
        reader.position = first;
        reader.enter(first)?;
        while reader.position < position {
            if reader.batch(position)?.is_none() {
                break;
            }
            reader.pass();
        }
        if reader.position == position {
            return Ok(reader);
        }
        Err(JournalError::NoSuchPosition {
            dir: dir.into(),
            position,
        })
    }

    /// A reader that begins at an event of one topic and knows the topics only that are bound from
    /// there on; records of others are left out until then. Needs no look at what is before.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_at(
        dir: &Path,
        lane: u32,
        (name, epoch): (&str, u64),
        place: Place,
    ) -> Result<Self, JournalError> {
        let mut reader = Self::new(dir, lane, place.position);
        let Some(first) = reader.segment_of(place.position)? else {
            return Ok(reader);
        };
        reader.enter(first)?;
        reader.window.seek(HEADER as u64 + (place.position - first));
        reader.topics.bind(&Topic {
            number: place.number,
            epoch,
            name,
        });
        Ok(reader)
    }

    fn new(dir: &Path, lane: u32, position: u64) -> Self {
        Self {
            dir: dir.into(),
            lane,
            journal: None,
            segment: None,
            position,
            window: Window::new(CHUNK),
            taken: 0,
            topics: TopicTable::default(),
        }
    }

    /// The first position of the segment that holds `position`; `None` if the lane has not begun.
    fn segment_of(&self, position: u64) -> Result<Option<u64>, JournalError> {
        let firsts = segment::list(&self.dir)?;
        match firsts.partition_point(|first| *first <= position) {
            0 => match firsts.first() {
                None if position == 0 => Ok(None),
                oldest => Err(JournalError::Expired {
                    wanted: position,
                    oldest: oldest.copied().unwrap_or(0),
                }),
            },
            after => Ok(Some(firsts[after - 1])),
        }
    }

    /// Begins to read the segment that begins at `first`.
    fn enter(&mut self, first: u64) -> Result<(), JournalError> {
        let scan = match Scan::open(&self.dir, first) {
            Ok(scan) => scan,
            Err(JournalError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(self.missing(first)?);
            }
            Err(error) => return Err(error),
        };
        let Some(header) = scan.header(self.lane, self.journal, false)? else {
            return Err(self.missing(first)?);
        };
        let (path, file) = scan.into_parts();
        self.journal = Some(header.journal);
        self.topics.begin_segment();
        self.window.seek(HEADER as u64);
        self.segment = Some(Segment { path, file, header });
        Ok(())
    }

    fn missing(&self, first: u64) -> Result<JournalError, JournalError> {
        let firsts = segment::list(&self.dir)?;
        let after = firsts.iter().find(|f| **f > first);
        Ok(match firsts.first() {
            Some(oldest) if *oldest > first => JournalError::Expired {
                wanted: first,
                oldest: *oldest,
            },
            _ => JournalError::Gap {
                file: segment::path(&self.dir, *after.unwrap_or(&first)),
                expected: first,
                found: *after.unwrap_or(&first),
            },
        })
    }

    /// Position of the first record that was not handed out yet, or of the batch handed out last
    /// until the next call of [`Reader::batch`].
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Position behind all that was handed out.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + self.taken as u64
    }

    /// The topics seen so far, by [`Entry::topic`]; only names and epochs are kept up.
    #[must_use]
    pub fn topics(&self) -> &[RecoveredTopic] {
        &self.topics.list
    }

    /// The next whole groups, all of them below `committed`; `None` if there are none yet. The
    /// batch before it is then passed.
    ///
    /// # Errors
    /// [`JournalError`]
    pub fn batch(&mut self, committed: u64) -> Result<Option<Batch<'_>>, JournalError> {
        self.pass();
        if self.position >= committed {
            return Ok(None);
        }
        if self.segment.is_none() {
            self.enter(self.position)?;
        }
        let len = loop {
            let Some(segment) = &self.segment else {
                return Ok(None);
            };
            let limit = HEADER as u64 + (committed - segment.header.first);
            let offset = self.window.offset();
            match self.window.find_all(limit) {
                Found::Group(len) => break len,
                Found::Bad(offset, bad) => {
                    return Err(corrupt(segment, offset, bad.why()));
                }
                Found::More => {}
            }
            let (space, from) = self.window.space();
            if from >= limit {
                return Err(JournalError::NoSuchPosition {
                    dir: self.dir.clone(),
                    position: committed,
                });
            }
            let len = space
                .len()
                .min(usize::try_from(limit - from).unwrap_or(usize::MAX));
            let read = read_up_to(&segment.file, &mut space[..len], from)
                .map_err(JournalError::io("read", &segment.path))?;
            self.window.filled(read);
            if read == 0 && self.window.is_empty() {
                self.enter(self.position)?;
            } else if read == 0 {
                return Err(corrupt(segment, offset, "the record is cut off"));
            }
        };
        self.learn(len)?;
        self.taken = len;
        Ok(Some(Batch {
            position: self.position,
            bytes: self.window.group(len),
            topics: &self.topics,
        }))
    }

    /// Passes what was handed out.
    fn pass(&mut self) {
        self.window.advance(self.taken);
        self.position += self.taken as u64;
        self.taken = 0;
    }

    /// Takes note of the topics in the next `len` bytes. A number stays the same throughout a
    /// segment, so it does no harm to know it early.
    fn learn(&mut self, len: usize) -> Result<(), JournalError> {
        let segment = self.segment.as_ref().expect("a group was found in it");
        let wrong = |offset, why| corrupt(segment, offset, why);
        let (mut rest, mut offset) = (self.window.group(len), self.window.offset());
        while !rest.is_empty() {
            let head = Head::peek(rest).map_err(|bad| wrong(offset, bad.why()))?;
            let (bytes, tail) = rest.split_at(head.len);
            if head.is_topic()
                && let Ok((Record::Topic(topic), _)) = record::decode_verified(bytes)
            {
                self.topics.bind(&topic);
            } else if head.is_mark() {
                let position = segment.header.first + (offset - HEADER as u64);
                check_mark(segment.header, position, bytes).map_err(|why| wrong(offset, why))?;
            }
            offset += head.len as u64;
            rest = tail;
        }
        Ok(())
    }
}

fn corrupt(segment: &Segment, offset: u64, why: &'static str) -> JournalError {
    JournalError::Corrupt {
        file: segment.path.clone(),
        offset,
        why,
    }
}

impl<'a> Batch<'a> {
    /// Position of its first record.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Position behind its last record: where a reader goes on after it, and what a checkpoint
    /// holds.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    /// Name and epoch of a topic in it.
    #[must_use]
    pub fn topic(&self, index: usize) -> (&'a str, u64) {
        let topic = &self.topics.list[index];
        (&topic.name, topic.epoch)
    }

    /// Its records in order, without marks and without records of topics that the reader does not
    /// know ([`Reader::open_at`]).
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let Self {
            mut position,
            bytes: mut rest,
            topics,
        } = *self;
        std::iter::from_fn(move || {
            loop {
                let (record, head) = record::decode_verified(rest).ok()?;
                let at = position;
                position += head.len as u64;
                rest = &rest[head.len..];
                let number = match record {
                    Record::Mark { .. } => continue,
                    Record::Topic(topic) => topic.number,
                    Record::Event(event) => event.topic,
                    Record::Reply(reply) => reply.topic,
                    Record::Snapshot(snapshot) => snapshot.topic,
                };
                if let Some(topic) = topics.index(number) {
                    return Some(Entry {
                        position: at,
                        topic,
                        record,
                    });
                }
            }
        })
    }
}
