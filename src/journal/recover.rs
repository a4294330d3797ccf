//! Opening a lane: its segments are read in order, checked, handed to a visitor, and mended.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::record::{self, Bad, MARK_LEN, Record};
use super::segment::{self, BadHeader, HEADER, Header, SegmentInfo, VERSION};
use super::window::{Found, Window};
use super::{JournalError, LaneStart};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
const LANE: &str = "lane-";

/// The directory of a lane.
#[must_use]
pub fn lane_dir(journal: &Path, lane: u32) -> PathBuf {
    journal.join(format!("{LANE}{lane}"))
}

/// How many lanes the journal has; 0 if there is no journal yet. The number is fixed when it is
/// made, because a topic must stay in its lane.
///
/// # Errors
/// [`JournalError`] if the directory cannot be read, or a lane between others is missing.
pub fn lanes(journal: &Path) -> Result<u32, JournalError> {
    let entries = match std::fs::read_dir(journal) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(JournalError::io("list", journal)(error)),
    };
    let (mut count, mut highest) = (0, None);
    for entry in entries {
        let entry = entry.map_err(JournalError::io("list", journal))?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(LANE)?.parse::<u32>().ok());
        if let Some(number) = number {
            count += 1;
            highest = highest.max(Some(number));
        }
    }
    match highest {
        Some(highest) if highest + 1 != count => Err(JournalError::Foreign {
            file: lane_dir(journal, highest),
            why: format!("it is lane {highest} of a journal of {count} lanes"),
        }),
        _ => Ok(count),
    }
}

/// A record with what the lane knows about it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Position of the record.
    pub position: u64,
    /// Index of its topic in [`Recovered::topics`]; the same throughout the lane, while numbers
    /// change from run to run. A topic record comes before any other of its topic.
    pub topic: usize,
    /// The record; never a mark.
    pub record: Record<'a>,
}

/// A topic that was found in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredTopic {
    /// Its name.
    pub name: Box<str>,
    /// Names the numbering of its events.
    pub epoch: u64,
    /// Seq of the oldest event that is there; 0: none is.
    pub first_seq: u64,
    /// Newest seq that is known of, from an event or a snapshot; 0: none.
    pub last_seq: u64,
    /// Position and seq of its newest snapshot: where recovery begins.
    pub snapshot: Option<(u64, u64)>,
}

/// A torn tail that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub file: PathBuf,
    /// Offset in it from which on nothing is used.
    pub offset: u64,
    /// Why the first record behind it is none.
    pub why: &'static str,
}

/// What a lane holds.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Number of the lane.
    pub lane: u32,
    /// The journal's identity; `None` if the lane is empty.
    pub journal: Option<u128>,
    /// Where the lane goes on.
    pub position: u64,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Its topics, by [`Entry::topic`].
    pub topics: Vec<RecoveredTopic>,
    /// Events that were read.
    pub events: u64,
    /// The torn tail, if there was one.
    pub cut: Option<Cut>,
}

impl Recovered {
    /// What the [`Lane`](super::Lane) goes on from. `run` names this run of the node;
    /// `fresh_identity` is random and becomes the journal's if the lane is empty.
    #[must_use]
    pub fn start(&self, run: u64, fresh_identity: u128) -> LaneStart {
        LaneStart {
            lane: self.lane,
            journal: self.journal.unwrap_or(fresh_identity),
            run,
            position: self.position,
            segments: self.segments.clone(),
        }
    }
}

/// Opens a lane whose directory is `dir`, made if it is not there: hands every record to `visit`
/// in order, cuts a torn tail, and makes sure that all that was handed out is on disk. A group of
/// records is handed out as a whole or not at all.
///
/// # Errors
/// [`JournalError`]; what was handed out then must not be used. No file was changed, unless the
/// error is of mending the last segment.
pub fn recover(
    dir: &Path,
    lane: u32,
    visit: impl FnMut(&Entry<'_>),
) -> Result<Recovered, JournalError> {
    make_dir(dir)?;
    let mut findings = read_lane(dir, lane, visit)?;
    mend(dir, &mut findings)?;
    Ok(findings.recovered)
}

fn make_dir(dir: &Path) -> Result<(), JournalError> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(dir).map_err(JournalError::io("create", dir))?;
    // The names of all directories that may be new.
    let mut above = dir.parent();
    for _ in 0..2 {
        let Some(parent) = above.filter(|p| !p.as_os_str().is_empty()) else {
            break;
        };
        sync_dir(parent)?;
        above = parent.parent();
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(JournalError::io("sync", dir))
}

/// A lane as it was read, before anything is mended.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) recovered: Recovered,
    /// The last segment, if a file of it is there: its first position, and the offset behind its
    /// last good group (less than [`HEADER`]: it has no header).
    pub(super) last: Option<(u64, u64)>,
}

/// Reads a lane without changing it.
pub(super) fn read_lane(
    dir: &Path,
    lane: u32,
    mut visit: impl FnMut(&Entry<'_>),
) -> Result<Findings, JournalError> {
    let firsts = segment::list(dir)?;
    let mut recovered = Recovered {
        lane,
        position: firsts.first().copied().unwrap_or(0),
        ..Recovered::default()
    };
    let mut topics = TopicTable::default();
    let mut last = None;
    for (index, &first) in firsts.iter().enumerate() {
        let is_last = index + 1 == firsts.len();
        let mut scan = Scan::open(dir, first)?;
        if first != recovered.position {
            return Err(JournalError::Gap {
                file: scan.path,
                expected: recovered.position,
                found: first,
            });
        }
        let Some(header) = scan.header(lane, recovered.journal, is_last)? else {
            last = Some((first, 0));
            continue;
        };
        recovered.journal = Some(header.journal);
        topics.begin_segment();
        let mut newest_ns = 0;
        let end = scan.groups(header, |position, group| {
            let mut rest = group;
            let mut at = position;
            while !rest.is_empty() {
                let (record, head) = record::decode_verified(rest).map_err(|bad| bad.why())?;
                newest_ns = newest_ns.max(head.node_ns(rest));
                if let Some(topic) = topics.take(at, &record)? {
                    recovered.events += u64::from(matches!(record, Record::Event(_)));
                    visit(&Entry {
                        position: at,
                        topic,
                        record,
                    });
                }
                at += head.len as u64;
                rest = &rest[head.len..];
            }
            Ok(())
        })?;
        if let Some((offset, bad)) = end.bad {
            let clean = is_last && scan.is_zero_from(end.offset)?;
            if !is_last || (!clean && scan.has_later_mark(header, offset)?) {
                return Err(JournalError::Corrupt {
                    file: scan.path,
                    offset,
                    why: bad.why(),
                });
            }
            recovered.cut = (!clean).then(|| Cut {
                file: scan.path.clone(),
                offset: end.offset,
                why: bad.why(),
            });
        }
        recovered.position = first + (end.offset - HEADER as u64);
        recovered.segments.push(SegmentInfo {
            first,
            end: recovered.position,
            newest_ns,
            file_bytes: end.offset,
        });
        if is_last {
            last = Some((first, end.offset));
        }
    }
    recovered.topics = topics.list;
    Ok(Findings { recovered, last })
}

/// Writes the last segment's good bytes again, cuts what is behind them, and brings all of it to
/// disk: after a failed fsync the page cache may show what the disk never got.
fn mend(dir: &Path, findings: &mut Findings) -> Result<(), JournalError> {
    let Some((first, end)) = findings.last else {
        return Ok(());
    };
    let path = segment::path(dir, first);
    if end <= HEADER as u64 {
        std::fs::remove_file(&path).map_err(JournalError::io("remove", &path))?;
        findings.recovered.segments.retain(|s| s.first != first);
        return sync_dir(dir);
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(JournalError::io("write to", &path))?;
    rewrite(&file, end)
        .and_then(|()| file.set_len(end))
        .and_then(|()| file.sync_all())
        .map_err(JournalError::io("mend", &path))?;
    sync_dir(dir)
}

fn rewrite(file: &File, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < end {
        let len = (end - offset).min(CHUNK as u64) as usize;
        file.read_exact_at(&mut buffer[..len], offset)?;
        file.write_all_at(&buffer[..len], offset)?;
        offset += len as u64;
    }
    Ok(())
}

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
            Err(BadHeader::Unwritten) if is_last && self.is_unwritten()? => Ok(None),
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

/// The topics of a lane, and which number each has in the segment being read.
#[derive(Debug, Default)]
pub(super) struct TopicTable {
    pub(super) list: Vec<RecoveredTopic>,
    names: HashMap<(Box<str>, u64), usize>,
    numbers: Numbers,
}

impl TopicTable {
    pub(super) fn begin_segment(&mut self) {
        self.numbers = Numbers::default();
    }

    /// Takes note of a record; returns its topic, `None` if it is a mark.
    #[inline]
    pub(super) fn take(
        &mut self,
        position: u64,
        record: &Record<'_>,
    ) -> Result<Option<usize>, &'static str> {
        let number = match record {
            Record::Mark { .. } => return Ok(None),
            Record::Topic(topic) => return Ok(Some(self.bind(topic))),
            Record::Event(event) => event.topic,
            Record::Reply(reply) => reply.topic,
            Record::Snapshot(snapshot) => snapshot.topic,
        };
        let index = self
            .numbers
            .get(number)
            .ok_or("a record of an unbound topic")?;
        let topic = &mut self.list[index];
        match record {
            Record::Event(event) => {
                if topic.first_seq == 0 {
                    topic.first_seq = event.seq;
                }
                topic.last_seq = event.seq;
            }
            Record::Snapshot(snapshot) => {
                topic.snapshot = Some((position, snapshot.seq));
                topic.last_seq = topic.last_seq.max(snapshot.seq);
            }
            _ => {}
        }
        Ok(Some(index))
    }

    /// The topic that has this number in the segment being read.
    #[inline]
    pub(super) fn index(&self, number: u32) -> Option<usize> {
        self.numbers.get(number)
    }

    pub(super) fn bind(&mut self, topic: &record::Topic<'_>) -> usize {
        let next = self.list.len();
        let index = *self
            .names
            .entry((topic.name.into(), topic.epoch))
            .or_insert(next);
        if index == next {
            self.list.push(RecoveredTopic {
                name: topic.name.into(),
                epoch: topic.epoch,
                first_seq: 0,
                last_seq: 0,
                snapshot: None,
            });
        }
        self.numbers.set(topic.number, index);
        index
    }
}

/// The topics' numbers in one segment. Numbers are given out from 1 on, so nearly all of them fit a
/// plain table, which matters at millions of records a second; no number makes it grow beyond
/// its bound.
#[derive(Debug, Default)]
struct Numbers {
    /// Index + 1; 0: none.
    low: Vec<usize>,
    high: HashMap<u32, usize>,
}

impl Numbers {
    const LOW: usize = 1 << 20;

    #[inline]
    fn get(&self, number: u32) -> Option<usize> {
        match self.low.get(number as usize) {
            Some(0) => None,
            Some(index) => Some(index - 1),
            None => self.high.get(&number).copied(),
        }
    }

    fn set(&mut self, number: u32, index: usize) {
        let place = number as usize;
        if place >= Self::LOW {
            self.high.insert(number, index);
            return;
        }
        if self.low.len() <= place {
            self.low.resize(place + 1, 0);
        }
        self.low[place] = index + 1;
    }
}
