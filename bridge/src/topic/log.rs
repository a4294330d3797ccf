//! What the server said of a topic, word for word, as far back as there is room.
//!
//! Every record has a *position*, counted up from 0. A reader is nothing but a position: what a
//! slow client has not read yet costs no memory of its own.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::Protocol;

/// An EVENT, SNAPSHOT or GAP, encoded once for each sub-protocol.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) encoded: [Bytes; 2],
    /// Seq of the event that comes next for a reader behind this record.
    pub(crate) next_seq: u64,
    /// The numbering that it belongs to.
    pub(crate) epoch: u64,
    /// Bytes of all records up to this one, of each sub-protocol.
    end: [u64; 2],
}

/// The records of a topic.
#[derive(Debug, Default)]
pub(crate) struct Log {
    records: VecDeque<Record>,
    /// Position of the oldest record.
    first: u64,
    /// Bytes of all records ever, of each sub-protocol.
    end: [u64; 2],
    held: usize,
    /// Position and seq from which on there is one event after the other.
    run: (u64, u64),
    /// Seq of the event that comes next.
    next_seq: u64,
}

/// What a record costs beside its bytes.
const RECORD_COST: usize = 2 * size_of::<Record>();

impl Log {
    /// Starts where the server does.
    pub(crate) fn begin(&mut self, next_seq: u64) {
        self.next_seq = next_seq;
        self.run = (self.end_position(), next_seq);
    }

    /// Adds the event `next_seq`.
    pub(crate) fn event(&mut self, encoded: [Bytes; 2], epoch: u64) {
        self.next_seq += 1;
        self.push(encoded, epoch);
    }

    /// Adds a GAP or SNAPSHOT, behind which the next event is `next_seq`.
    pub(crate) fn cut(&mut self, encoded: [Bytes; 2], epoch: u64, next_seq: u64) {
        self.next_seq = next_seq;
        self.push(encoded, epoch);
        self.run = (self.end_position(), next_seq);
    }

    fn push(&mut self, encoded: [Bytes; 2], epoch: u64) {
        for (end, bytes) in self.end.iter_mut().zip(&encoded) {
            *end += bytes.len() as u64;
        }
        self.held += cost(&encoded);
        self.records.push_back(Record {
            encoded,
            next_seq: self.next_seq,
            epoch,
            end: self.end,
        });
    }

    /// Drops the oldest record; how many bytes that freed.
    pub(crate) fn drop_oldest(&mut self) -> usize {
        let Some(record) = self.records.pop_front() else {
            return 0;
        };
        let freed = cost(&record.encoded);
        self.first += 1;
        self.held -= freed;
        freed
    }

    /// Bytes of memory.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Position of the record that comes next.
    pub(crate) fn end_position(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Whether a reader at that position misses nothing.
    pub(crate) fn reaches(&self, position: u64) -> bool {
        position >= self.first && position <= self.end_position()
    }

    /// Where the event `seq` is, or will be if it is the next one.
    pub(crate) fn position_of(&self, seq: u64) -> Option<u64> {
        let (run, run_seq) = self.run;
        let position = run + seq.checked_sub(run_seq)?;
        (seq <= self.next_seq && self.reaches(position)).then_some(position)
    }

    /// The record at a position that is reached.
    pub(crate) fn get(&self, position: u64) -> Option<&Record> {
        let index = position.checked_sub(self.first)?;
        self.records.get(usize::try_from(index).ok()?)
    }

    /// Bytes of all records before `position`, in that sub-protocol; before the oldest, if
    /// that one is later.
    pub(crate) fn bytes_before(&self, position: u64, protocol: Protocol) -> u64 {
        let which = protocol as usize;
        match self.get(position.max(self.first)) {
            Some(record) => record.end[which] - record.encoded[which].len() as u64,
            None => self.end[which],
        }
    }
}

fn cost(encoded: &[Bytes; 2]) -> usize {
    encoded.iter().map(Bytes::len).sum::<usize>() + RECORD_COST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> [Bytes; 2] {
        [Bytes::copy_from_slice(text.as_bytes()), Bytes::new()]
    }

    fn log() -> Log {
        let mut log = Log::default();
        log.begin(5);
        for text in ["five", "six", "seven"] {
            log.event(record(text), 1);
        }
        log
    }

    #[test]
    fn a_seq_has_a_position_while_its_event_is_kept_or_is_the_next() {
        let mut log = log();
        assert_eq!(log.position_of(4), None);
        assert_eq!(log.position_of(5), Some(0));
        assert_eq!(log.position_of(8), Some(3));
        assert_eq!(log.position_of(9), None);
        log.drop_oldest();
        assert_eq!(log.position_of(5), None);
        assert_eq!(&log.get(1).unwrap().encoded[0][..], b"six");
        assert!(!log.reaches(0));
    }

    #[test]
    fn no_seq_before_a_cut_has_a_position() {
        let mut log = log();
        log.cut(record("gap"), 1, 20);
        assert_eq!(log.position_of(7), None);
        assert_eq!(log.position_of(20), Some(4));
        log.event(record("twenty"), 1);
        assert_eq!((log.position_of(20), log.next_seq()), (Some(4), 21));
        assert_eq!(log.get(3).unwrap().next_seq, 20);
    }

    #[test]
    fn bytes_are_counted_from_the_beginning_however_much_is_dropped() {
        let mut log = log();
        let before = |log: &Log, position| log.bytes_before(position, Protocol::Json);
        assert_eq!(
            (before(&log, 0), before(&log, 1), before(&log, 3)),
            (0, 4, 12)
        );
        log.drop_oldest();
        assert_eq!(
            (before(&log, 0), before(&log, 1), before(&log, 3)),
            (4, 4, 12)
        );
    }
}
