//! Looking at a lane without changing it: what `tickring journal verify`, `stat` and `dump` show.

use std::path::Path;

use super::record::Record;
use super::recover::{Entry, read_lane};
use super::replay::STEP;
use super::segment;
use super::{Cut, JournalError, Progress, RecoveredTopic};

/// The most broken seqs that a report lists.
const LISTED: usize = 100;

/// What one segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentReport {
    /// Position of its first record.
    pub first: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Bindings of topics.
    pub topics: u64,
    /// Events.
    pub events: u64,
    /// Replies.
    pub replies: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Node time of its oldest event, in nanoseconds since 1970-01-01 UTC; 0: none.
    pub oldest_ns: u64,
    /// Node time of its newest event; 0: none.
    pub newest_ns: u64,
}

/// An event whose seq does not follow that of the event before it in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeqBreak {
    /// The topic.
    pub topic: Box<str>,
    /// Position of the event's record.
    pub position: u64,
    /// The seq that was due.
    pub expected: u64,
    /// The seq that it has.
    pub found: u64,
}

/// What a lane holds, as far as it can be read.
#[derive(Debug, Default)]
pub struct LaneReport {
    /// Its segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Its topics; empty if reading ended with an error.
    pub topics: Vec<RecoveredTopic>,
    /// Position behind the last good record; 0 if reading ended with an error.
    pub position: u64,
    /// A torn tail that the next start will cut: the mark of a crash, and no damage.
    pub torn: Option<Cut>,
    /// Broken orders, the first hundred: a mistake in the program that wrote them.
    pub seq_breaks: Vec<SeqBreak>,
    /// What ended reading.
    pub error: Option<JournalError>,
}

impl LaneReport {
    /// Whether the lane is sound.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.error.is_none() && self.seq_breaks.is_empty()
    }
}

/// Reads all of a lane, checks checksums and the order of seqs, and counts. `progress` tells how far
/// it is.
///
/// # Errors
/// [`JournalError`] if its directory cannot be listed. What is wrong with its content is in the
/// report.
pub fn verify(dir: &Path, lane: u32, progress: &Progress) -> Result<LaneReport, JournalError> {
    let mut report = LaneReport::default();
    for first in segment::list(dir)? {
        let path = segment::path(dir, first);
        let file_bytes = std::fs::metadata(&path)
            .map_err(JournalError::io("look at", path))?
            .len();
        report.segments.push(SegmentReport {
            first,
            file_bytes,
            ..SegmentReport::default()
        });
    }
    let total_bytes = report
        .segments
        .iter()
        .map(|segment| segment.file_bytes)
        .sum();
    let begin = report.segments.first().map_or(0, |segment| segment.first);
    progress.set(0, 0, total_bytes);
    let (mut current, mut topics) = (0, Vec::<(Box<str>, u64)>::new());
    let mut records = 0;
    let read = read_lane(dir, lane, |entry| {
        while report
            .segments
            .get(current + 1)
            .is_some_and(|next| next.first <= entry.position)
        {
            current += 1;
        }
        records += 1;
        if records % STEP == 0 {
            progress.set(records, entry.position - begin, total_bytes);
        }
        report.segments[current].count(entry);
        check_order(entry, &mut topics, &mut report.seq_breaks);
    });
    match read {
        Ok(findings) => {
            report.topics = findings.recovered.topics;
            report.position = findings.recovered.position;
            report.torn = findings.recovered.cut;
        }
        Err(error) => report.error = Some(error),
    }
    Ok(report)
}

impl SegmentReport {
    fn count(&mut self, entry: &Entry<'_>) {
        match entry.record {
            Record::Topic(_) => self.topics += 1,
            Record::Event(event) => {
                self.events += 1;
                if self.oldest_ns == 0 {
                    self.oldest_ns = event.node_ns;
                }
                self.newest_ns = self.newest_ns.max(event.node_ns);
            }
            Record::Reply(_) => self.replies += 1,
            Record::Snapshot(_) => self.snapshots += 1,
            Record::Mark { .. } => {}
        }
    }
}

/// `topics` holds each topic's name and the seq of its newest event; 0: none yet.
fn check_order(entry: &Entry<'_>, topics: &mut Vec<(Box<str>, u64)>, breaks: &mut Vec<SeqBreak>) {
    match entry.record {
        Record::Topic(topic) if entry.topic == topics.len() => topics.push((topic.name.into(), 0)),
        Record::Event(event) => {
            let (name, newest) = &mut topics[entry.topic];
            if *newest != 0 && event.seq != *newest + 1 && breaks.len() < LISTED {
                breaks.push(SeqBreak {
                    topic: name.clone(),
                    position: entry.position,
                    expected: *newest + 1,
                    found: event.seq,
                });
            }
            *newest = event.seq;
        }
        _ => {}
    }
}

/// Hands every readable record of a lane to `visit`, in order.
///
/// # Errors
/// [`JournalError`]: the place where reading ended, after all records before it were handed out.
pub fn dump(dir: &Path, lane: u32, visit: impl FnMut(&Entry<'_>)) -> Result<(), JournalError> {
    read_lane(dir, lane, visit).map(|_| ())
}
