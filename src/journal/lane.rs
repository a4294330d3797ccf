//! One lane as a state machine without I/O: what to do to its files next, and what is committed.

mod operation;
mod spare;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;

use super::Limits;
use super::record::{self, Head, MAX_GROUP, Record};
use super::segment::{HEADER, Header, SegmentInfo};
use spare::Spare;

pub use operation::{AppendError, Failure, LaneStart, Operation, OperationKind, Outcome, Released};

/// How long after the disk was full the same operation is tried again, in nanoseconds.
const ROOM_RETRY_NS: u64 = 100_000_000;

/// A lane. Sans-I/O: call [`Lane::append`] when batches come, [`Lane::poll_operation`] until there
/// is none, [`Lane::on_done`] when an operation is over, and then look at [`Lane::committed`] and
/// [`Lane::released`].
#[derive(Debug)]
pub struct Lane {
    lane: u32,
    journal: u128,
    run: u64,
    limits: Limits,
    /// Oldest first; the last one's end counts what is pending.
    segments: VecDeque<SegmentInfo>,
    /// Whether the last segment is of this run. Those of before are never continued.
    continues: bool,
    /// Bytes of all segments' files, the pending write included.
    disk_bytes: u64,
    committed: u64,
    pending: Pending,
    /// The write under way.
    work: Option<Work>,
    /// A buffer to gather the next write in.
    spare: Vec<u8>,
    removing: Option<(u64, u64)>,
    removal_failed: bool,
    retain: (u64, u64),
    flush: bool,
    next_operation: u64,
    sources: Vec<Source>,
    topics: HashMap<u32, Bound>,
    /// Topics of earlier runs that this run has not written yet, and where their recovery begins.
    unsaved: HashMap<Box<str>, u64>,
    appends: u64,
    failure: Option<Failure>,
    room: Room,
    spare_file: Spare,
    /// Whether the segment that is begun next takes the spare file, whose bytes count as its own.
    claimed: bool,
    /// Whether the disk had room for a spare file.
    spare_room: Room,
    commits: u64,
}

/// Whether the disk had room for the operation that was tried last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    /// It was full; when to try again is not set yet.
    None,
    /// It was full; the time to try again.
    RetryAt(u64),
}

/// What gathers for the next write.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Whether it begins a segment; its bytes then begin with the header.
    begins_segment: bool,
    /// Offset in the segment's file.
    offset: u64,
    since_ns: u64,
    /// Whether it is to be written without waiting for company.
    due: bool,
}

/// A topic's binding and where it is.
#[derive(Debug)]
struct Bound {
    record: Vec<u8>,
    /// First position of the newest segment that has it.
    segment: Option<u64>,
    /// No record before this position is needed to recover the topic: where a state of it is on
    /// disk, or its first record.
    saved_at: Option<u64>,
    /// The same once the lane has committed beyond it: nothing may go for a state that is only on
    /// its way to the disk.
    saving_at: Option<u64>,
    /// The append that counted it as needed.
    counted: u64,
}

/// The tickets of one source of batches.
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    pending: u64,
    in_flight: u64,
    committed: u64,
}

/// One write on its way to the disk.
#[derive(Debug)]
struct Work {
    stage: Stage,
    /// The operation that was handed out for this stage.
    operation: Option<u64>,
    segment: u64,
    offset: u64,
    bytes: Vec<u8>,
    skip: usize,
    since_ns: u64,
    /// Position behind its last record.
    end: u64,
    begins_segment: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Create,
    Write,
    Sync,
    SyncDirectory,
}

impl Lane {
    /// A lane that goes on where `start` says, in a new segment. `sources` is the number of those
    /// who hand in batches. The limits must have passed [`Limits::check`].
    #[must_use]
    pub fn new(start: LaneStart, limits: Limits, sources: usize) -> Self {
        Self {
            lane: start.lane,
            journal: start.journal,
            run: start.run,
            limits,
            disk_bytes: start.segments.iter().map(|s| s.file_bytes).sum(),
            segments: start.segments.into(),
            continues: false,
            committed: start.position,
            pending: Pending::default(),
            work: None,
            spare: Vec::new(),
            removing: None,
            removal_failed: false,
            retain: (0, 0),
            flush: false,
            next_operation: 1,
            sources: vec![Source::default(); sources],
            topics: HashMap::new(),
            unsaved: start.topics,
            appends: 0,
            failure: None,
            room: Room::Enough,
            spare_file: Spare::None,
            claimed: false,
            spare_room: Room::Enough,
            commits: 0,
        }
    }

    /// Takes a batch of whole groups from `source`. `ticket` is greater than that of the source's
    /// batch before, and is released by [`Lane::released`] when the batch is on disk. Topic
    /// records in it are kept, and put before a topic's first record in every segment. `now_ns` is
    /// of any clock that never goes back.
    ///
    /// # Errors
    /// [`AppendError`]: nothing of the batch was taken.
    pub fn append(
        &mut self,
        source: usize,
        ticket: u64,
        batch: &[u8],
        now_ns: u64,
    ) -> Result<(), AppendError> {
        debug_assert!(ticket > self.sources[source].pending, "tickets grow");
        if self.failure.is_some() {
            return Err(AppendError::Failed);
        }
        let begins = self.pending.bytes.is_empty();
        if !begins && self.pending.bytes.len() + batch.len() > self.limits.group_bytes {
            self.pending.due = true;
            return Err(AppendError::Busy);
        }
        let segment = self.target(begins);
        let bindings = self.check(batch, segment)?;
        let overhead = if begins { record::MARK_LEN } else { 0 };
        self.take_room(segment, (batch.len() + bindings + overhead) as u64)?;
        if begins {
            self.begin_pending(segment, now_ns);
        }
        self.copy(batch, segment);
        self.sources[source].pending = ticket;
        Ok(())
    }

    /// The segment that the next record goes to; `begins` says that it begins a write.
    fn target(&self, begins: bool) -> u64 {
        match self.segments.back() {
            Some(last) if self.continues => {
                let full = last.end - last.first >= self.limits.segment_bytes;
                if begins && full { last.end } else { last.first }
            }
            _ => self.committed,
        }
    }

    /// Checks the batch's records and learns its topics. Returns the bytes of the bindings that
    /// `segment` does not have yet.
    fn check(&mut self, batch: &[u8], segment: u64) -> Result<usize, AppendError> {
        if batch.len() > MAX_GROUP {
            return Err(AppendError::Malformed("longer than MAX_GROUP"));
        }
        self.appends += 1;
        let (mut rest, mut last, mut bindings) = (batch, true, 0);
        while !rest.is_empty() {
            let head = Head::peek(rest).map_err(|bad| AppendError::Malformed(bad.why()))?;
            if head.is_mark() {
                return Err(AppendError::Malformed("marks are the lane's own"));
            }
            if head.is_topic() {
                self.bind(&rest[..head.len])?;
                // What is kept is not written here, so it cannot be what ends a group.
                if head.last && !last {
                    return Err(AppendError::Malformed("a topic ends a group"));
                }
            } else {
                let Some(bound) = self.topics.get_mut(&head.topic) else {
                    return Err(AppendError::Malformed("a record of an unbound topic"));
                };
                if bound.segment != Some(segment) && bound.counted != self.appends {
                    bound.counted = self.appends;
                    bindings += bound.record.len();
                }
                last = head.last;
            }
            rest = &rest[head.len..];
        }
        if last {
            Ok(bindings)
        } else {
            Err(AppendError::Malformed("the last group has no end"))
        }
    }

    fn bind(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let damaged = AppendError::Malformed("a damaged topic record");
        let Ok((Record::Topic(topic), _)) = record::decode(bytes) else {
            return Err(damaged);
        };
        let mut record = Vec::new();
        if topic.encode(false, &mut record).is_err() {
            return Err(damaged);
        }
        match self.topics.get(&topic.number) {
            Some(bound) if bound.record == record => Ok(()),
            Some(_) => Err(AppendError::Malformed("a topic's number was bound anew")),
            None => {
                let bound = Bound {
                    record,
                    segment: None,
                    saved_at: self.unsaved.remove(topic.name),
                    saving_at: None,
                    counted: 0,
                };
                self.topics.insert(topic.number, bound);
                Ok(())
            }
        }
    }

    /// Takes the disk's room for `growth` bytes of records in `segment`, or refuses.
    fn take_room(&mut self, segment: u64, growth: u64) -> Result<(), AppendError> {
        let (used, has) = match self.segments.back() {
            Some(last) if last.first == segment && self.continues => {
                (HEADER as u64 + (last.end - last.first), last.file_bytes)
            }
            // Preallocated, so all of it is used at once.
            _ => (HEADER as u64, 0),
        };
        let needs = (used + growth).max(self.preallocation());
        let has_spare = matches!(self.spare_file, Spare::Making(_) | Spare::Ready);
        let claims = has == 0 && has_spare && !self.claimed;
        let has_all = if claims { self.preallocation() } else { has };
        let asked = needs.saturating_sub(has_all);
        if self.disk_bytes + asked > self.limits.journal_bytes {
            return Err(AppendError::Full);
        }
        self.disk_bytes += asked;
        if has > 0 {
            let last = self.segments.back_mut();
            last.expect("it was just looked at").file_bytes += asked;
        } else {
            self.continues = true;
            self.claimed |= claims;
            self.segments.push_back(SegmentInfo {
                first: segment,
                end: segment,
                newest_ns: 0,
                file_bytes: needs,
            });
        }
        Ok(())
    }

    fn preallocation(&self) -> u64 {
        HEADER as u64 + self.limits.segment_bytes
    }

    fn begin_pending(&mut self, segment: u64, now_ns: u64) {
        let last = self.segments.back_mut().expect("room was taken in it");
        let pending = &mut self.pending;
        pending.begins_segment = last.end == segment;
        pending.since_ns = now_ns;
        pending.due = false;
        if pending.begins_segment {
            pending.offset = 0;
            let header = Header {
                lane: self.lane,
                journal: self.journal,
                first: segment,
                run: self.run,
            };
            pending.bytes.extend_from_slice(&header.encode());
        } else {
            pending.offset = HEADER as u64 + (last.end - segment);
        }
        record::encode_mark(last.end, self.journal as u64, &mut pending.bytes);
        last.end += record::MARK_LEN as u64;
    }

    /// Copies the records, each topic's binding before its first one in the segment. Runs of
    /// records that need no binding are copied at once.
    fn copy(&mut self, batch: &[u8], segment: u64) {
        let before = self.pending.bytes.len();
        // Where the batch begins: a little early for its later records, which does no harm.
        let position = self.segments.back().map_or(0, |last| last.end);
        let (mut copied, mut at, mut newest_ns) = (0, 0, 0);
        while at < batch.len() {
            let rest = &batch[at..];
            let head = Head::peek(rest).expect("check has seen the same bytes");
            newest_ns = newest_ns.max(head.node_ns(rest));
            let next = at + head.len;
            if head.is_topic() {
                self.pending.bytes.extend_from_slice(&batch[copied..at]);
                copied = next;
            } else {
                let bound = self.topics.get_mut(&head.topic);
                let bound = bound.expect("check has found its topic bound");
                if head.is_snapshot() || bound.saved_at.or(bound.saving_at).is_none() {
                    bound.save_at(position, self.committed);
                }
                if bound.segment != Some(segment) {
                    bound.segment = Some(segment);
                    self.pending.bytes.extend_from_slice(&batch[copied..at]);
                    self.pending.bytes.extend_from_slice(&bound.record);
                    copied = at;
                }
            }
            at = next;
        }
        self.pending.bytes.extend_from_slice(&batch[copied..]);
        let last = self.segments.back_mut().expect("room was taken in it");
        last.end += (self.pending.bytes.len() - before) as u64;
        last.newest_ns = last.newest_ns.max(newest_ns);
    }

    /// What to do next; `None` when there is nothing to do until something happens or
    /// [`Lane::deadline`].
    pub fn poll_operation(&mut self, now_ns: u64) -> Option<Operation> {
        if self.failure.is_some() {
            return None;
        }
        if self.write_due().is_some_and(|at| at <= now_ns) {
            self.begin_work();
        }
        let write = match self.has_waited(now_ns) {
            true => self.next_write(),
            false => None,
        };
        let kind = write
            .or_else(|| self.next_removal())
            .or_else(|| self.next_spare(now_ns))?;
        let id = self.next_operation;
        self.next_operation += 1;
        match (&kind, &mut self.work) {
            (OperationKind::Remove { segment }, _) => self.removing = Some((id, *segment)),
            (OperationKind::Prepare { bytes }, _) => {
                self.spare_file = Spare::Making(id);
                self.disk_bytes += bytes;
            }
            (_, Some(work)) => work.operation = Some(id),
            (_, None) => unreachable!("only a write under way asks for anything else"),
        }
        Some(Operation { id, kind })
    }

    /// Whether what the disk had no room for may be tried now. A lane that is to end does not wait.
    fn has_waited(&mut self, now_ns: u64) -> bool {
        self.flush || self.room.may_try(now_ns)
    }

    /// When, by the clock of `append`, a write is due that no operation under way holds up.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if let Room::RetryAt(at) = self.room
            && self.work.as_ref().is_some_and(|w| w.operation.is_none())
        {
            return Some(at);
        }
        let spare = match self.spare_room {
            Room::RetryAt(at) if self.wants_spare() => Some(at),
            _ => None,
        };
        let write = self.write_due();
        spare.into_iter().chain(write).min()
    }

    fn write_due(&self) -> Option<u64> {
        if self.pending.bytes.is_empty() || self.work.is_some() || self.failure.is_some() {
            return None;
        }
        let delay = self.limits.max_delay.as_nanos() as u64;
        let at_once = self.flush || self.pending.due;
        Some(self.pending.since_ns + if at_once { 0 } else { delay })
    }

    fn begin_work(&mut self) {
        let spare = mem::take(&mut self.spare);
        let bytes = mem::replace(&mut self.pending.bytes, spare);
        let last = self.segments.back().expect("pending records are in it");
        for source in &mut self.sources {
            source.in_flight = source.pending;
        }
        let begins_segment = self.pending.begins_segment;
        self.work = Some(Work {
            stage: if begins_segment {
                Stage::Create
            } else {
                Stage::Write
            },
            operation: None,
            segment: last.first,
            offset: self.pending.offset,
            bytes,
            skip: 0,
            since_ns: self.pending.since_ns,
            end: last.end,
            begins_segment,
        });
    }

    fn next_write(&mut self) -> Option<OperationKind> {
        let bytes = self.preallocation();
        let spare = self.claimed && self.spare_file == Spare::Ready;
        let awaited = self.claimed && matches!(self.spare_file, Spare::Making(_));
        let work = self.work.as_mut().filter(|w| w.operation.is_none())?;
        let segment = work.segment;
        Some(match work.stage {
            Stage::Create if awaited => return None,
            Stage::Create => OperationKind::Create {
                segment,
                bytes,
                spare,
            },
            Stage::Write => OperationKind::Write {
                segment,
                offset: work.offset,
                bytes: mem::take(&mut work.bytes),
                skip: work.skip,
            },
            Stage::Sync => OperationKind::Sync { segment },
            Stage::SyncDirectory => OperationKind::SyncDirectory,
        })
    }

    /// The oldest segment goes if nobody needs it, and if the next one is certain to be on disk:
    /// a lane without any segment would forget its position.
    fn next_removal(&self) -> Option<OperationKind> {
        let (oldest, next) = (self.segments.front()?, self.segments.get(1)?);
        let (position, older_than_ns) = self.retain;
        let goes = self.removing.is_none()
            && !self.removal_failed
            && oldest.end <= position
            && oldest.newest_ns < older_than_ns
            && next.first < self.committed;
        goes.then_some(OperationKind::Remove {
            segment: oldest.first,
        })
    }

    /// Operation `id` is over.
    pub fn on_done(&mut self, id: u64, outcome: Outcome) -> Released {
        if let Some((_, segment)) = self.removing.filter(|(removal, _)| *removal == id) {
            return self.on_removed(segment, outcome);
        }
        if self.spare_file == Spare::Making(id) {
            return self.on_prepared(outcome);
        }
        let Some(mut work) = self.work.take().filter(|w| w.operation == Some(id)) else {
            debug_assert!(false, "operation {id} was not under way");
            return Released::default();
        };
        work.operation = None;
        let result = match outcome {
            Outcome::Done(result) => result,
            Outcome::Written(bytes, result) => {
                work.bytes = bytes;
                result.and_then(|written| work.written(written))
            }
        };
        if let Err(cause) = result {
            if self.may_retry(&work, &cause) {
                self.room = Room::None;
                self.work = Some(work);
            } else {
                self.fail(&work, cause);
            }
            return Released::default();
        }
        self.room = Room::Enough;
        if work.stage == Stage::Create && mem::take(&mut self.claimed) {
            self.spare_file = Spare::None;
        }
        work.stage = match work.stage {
            Stage::Create => Stage::Write,
            Stage::Write if work.skip < work.bytes.len() => Stage::Write,
            Stage::Write => Stage::Sync,
            Stage::Sync if work.begins_segment => Stage::SyncDirectory,
            Stage::Sync | Stage::SyncDirectory => return self.commit(work),
        };
        self.work = Some(work);
        Released::default()
    }

    fn commit(&mut self, work: Work) -> Released {
        debug_assert!(work.end > self.committed);
        self.committed = work.end;
        self.commits += 1;
        for source in &mut self.sources {
            source.committed = source.in_flight;
        }
        self.spare = work.bytes;
        self.spare.clear();
        Released {
            committed: true,
            room: false,
        }
    }

    /// A full disk is waited for: nothing was lost by an operation that found no room, as it may be
    /// by a sync that fails, and what was taken is still in memory. Not while the lane is ending.
    fn may_retry(&self, work: &Work, cause: &io::Error) -> bool {
        is_full(cause) && matches!(work.stage, Stage::Create | Stage::Write) && !self.flush
    }

    fn fail(&mut self, work: &Work, cause: io::Error) {
        let doing = match work.stage {
            Stage::Create => "create",
            Stage::Write => "write to",
            Stage::Sync => "sync",
            Stage::SyncDirectory => "sync the directory of",
        };
        self.failure = Some(Failure {
            doing,
            segment: work.segment,
            cause,
        });
    }

    fn on_removed(&mut self, segment: u64, outcome: Outcome) -> Released {
        self.removing = None;
        if let Outcome::Done(Ok(())) = outcome {
            let removed = self.segments.pop_front().expect("it was the oldest");
            debug_assert_eq!(removed.first, segment);
            self.disk_bytes -= removed.file_bytes;
            return Released {
                committed: false,
                room: true,
            };
        }
        // Not known whether it is gone: leave it and all newer ones, so that no gap can arise.
        self.removal_failed = true;
        Released::default()
    }

    /// Lets whole segments go that lie below `position` and whose newest record is older than
    /// `older_than_ns` (nanoseconds since 1970-01-01 UTC).
    ///
    /// `position` is the lowest that anybody still needs: the projection's checkpoint, and for each
    /// topic of the lane the newest snapshot that recovery would begin with.
    pub fn retain(&mut self, position: u64, older_than_ns: u64) {
        self.retain = (position.min(self.committed), older_than_ns);
    }

    /// The lowest position that is still needed to recover the lane's topics: that of the oldest
    /// of their newest states. Costs a look at every topic.
    #[must_use]
    pub fn needed(&self) -> u64 {
        let unsaved = self.unsaved.values().copied();
        let bound = self.topics.values();
        let saved = bound.filter_map(|bound| bound.needed(self.committed));
        saved.chain(unsaved).min().unwrap_or(self.committed)
    }

    /// From now on nothing waits for company; until [`Lane::is_idle`] the driver goes on.
    pub fn flush(&mut self) {
        self.flush = true;
    }

    /// Whether all that was taken is committed and no operation is under way, or the lane failed
    /// and none is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let written = self.pending.bytes.is_empty() && self.work.is_none();
        let making = matches!(self.spare_file, Spare::Making(_));
        self.removing.is_none() && !making && (written || self.failure.is_some())
    }

    /// All records before this position are on disk.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Whether the disk is full, so that nothing more should be asked of the lane: it is tried again
    /// ten times a second. What was taken and finds no room waits in memory.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        let short = self.spare_room != Room::Enough && self.is_short();
        (self.room != Room::Enough || short) && self.failure.is_none()
    }

    /// Bytes that were taken and are not on disk yet.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.segments
            .back()
            .map_or(0, |s| s.end.saturating_sub(self.committed))
    }

    /// When the oldest of those was taken, by the clock of `append`.
    #[must_use]
    pub fn unsynced_since(&self) -> Option<u64> {
        let pending = (!self.pending.bytes.is_empty()).then_some(self.pending.since_ns);
        self.work.as_ref().map(|work| work.since_ns).or(pending)
    }

    /// The newest ticket of `source` that is on disk, and with it all before; 0: none yet.
    #[must_use]
    pub fn released(&self, source: usize) -> u64 {
        self.sources[source].committed
    }

    /// Which lane it is.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.lane
    }

    /// Writes that were brought to disk.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Bytes of the lane's files, the preallocated and the pending ones included.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Position of the oldest record that there is.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.segments.front().map_or(self.committed, |s| s.first)
    }

    /// Why the lane stopped, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

fn is_full(cause: &io::Error) -> bool {
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&cause.kind())
}

impl Room {
    /// Whether what found no room may be tried now.
    fn may_try(&mut self, now_ns: u64) -> bool {
        if *self == Self::None {
            *self = Self::RetryAt(now_ns + ROOM_RETRY_NS);
        }
        match self {
            Self::Enough => true,
            Self::RetryAt(at) => *at <= now_ns,
            Self::None => false,
        }
    }
}

impl Bound {
    /// A state that begins at `position` is on its way.
    fn save_at(&mut self, position: u64, committed: u64) {
        match self.saving_at {
            // One is on its way already: the earlier one will count first.
            Some(saving) if saving >= committed => {}
            before => {
                self.saved_at = before.or(self.saved_at);
                self.saving_at = Some(position);
            }
        }
    }

    /// Where its recovery would begin now; `None`: nothing of it is on disk.
    fn needed(&self, committed: u64) -> Option<u64> {
        let saving = self.saving_at.filter(|saving| *saving < committed);
        saving.or(self.saved_at)
    }
}

impl Work {
    /// The file took `written` bytes of what was asked.
    fn written(&mut self, written: usize) -> io::Result<()> {
        if written == 0 || written > self.bytes.len() - self.skip {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.skip += written;
        self.offset += written as u64;
        Ok(())
    }
}
