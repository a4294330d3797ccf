//! Opening a lane: its segments are read in order, checked, handed to a visitor, and mended.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::record::{self, Record};
use super::scan::{CHUNK, Scan};
use super::segment::{self, HEADER, SegmentInfo};
use super::topics::{RecoveredTopic, TopicTable};
use super::{JournalError, LaneStart};

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
            topics: self.recovery_begins(),
        }
    }
}

impl Recovered {
    /// Where the recovery of each topic begins: at the newest state of its newest numbering.
    fn recovery_begins(&self) -> HashMap<Box<str>, u64> {
        let oldest = self.segments.first().map_or(self.position, |s| s.first);
        let known = self.topics.iter().filter(|topic| topic.last_seq > 0);
        known
            .map(|topic| {
                let begins = topic.snapshot.map_or(oldest, |(position, _)| position);
                (topic.name.clone(), begins)
            })
            .collect()
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
