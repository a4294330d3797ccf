//! The file that a lane makes before it needs it: whoever is told that there is no room is told so
//! while there still is room for all that was taken before.

use super::{Lane, OperationKind, Outcome, Released, Room, Stage, Work, is_full};

/// The file that the next segment is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    None,
    /// It is being made, by this operation.
    Making(u64),
    Ready,
    /// It could not be made, and not for want of room: making the segment will tell why.
    Failed,
}

impl Lane {
    /// Whether the next segment should have its file by now: from the start on, and then when a
    /// quarter of the one before it is used. The bound must have room for it.
    pub(super) fn wants_spare(&self) -> bool {
        let begins = self.claimed || self.gathers_segment();
        let begins = begins || self.work.as_ref().is_some_and(|w| w.begins_segment);
        let due = match self.segments.back() {
            Some(last) if self.continues => {
                4 * (last.end - last.first) >= self.limits.segment_bytes
            }
            _ => true,
        };
        let fits = self.disk_bytes + self.preallocation() <= self.limits.journal_bytes;
        self.spare_file == Spare::None && due && !begins && fits && !self.flush
    }

    pub(super) fn next_spare(&mut self, now_ns: u64) -> Option<OperationKind> {
        let goes = self.wants_spare() && self.spare_room.may_try(now_ns);
        goes.then(|| OperationKind::Prepare {
            bytes: self.preallocation(),
        })
    }

    pub(super) fn on_prepared(&mut self, outcome: Outcome) -> Released {
        let Outcome::Done(Err(cause)) = outcome else {
            (self.spare_file, self.spare_room) = (Spare::Ready, Room::Enough);
            return Released {
                committed: false,
                room: true,
            };
        };
        if !std::mem::take(&mut self.claimed) {
            self.disk_bytes -= self.preallocation();
        }
        if is_full(&cause) {
            (self.spare_file, self.spare_room) = (Spare::None, Room::None);
        } else {
            self.spare_file = Spare::Failed;
        }
        Released::default()
    }

    /// Whether the lane's bound has no room for another segment's file.
    #[must_use]
    pub fn is_at_bound(&self) -> bool {
        let none = self.spare_file == Spare::None;
        none && self.disk_bytes + self.preallocation() > self.limits.journal_bytes
    }

    /// Whether nothing more should be asked of the lane: half of the segment is used, or none is
    /// begun on disk, and the next one has no file. What was asked before then has its room on disk,
    /// as long as it is less than the other half.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let made = matches!(self.spare_file, Spare::Ready | Spare::Failed);
        let used_half = match self.segments.back() {
            Some(last) if self.continues => {
                2 * (last.end - last.first) >= self.limits.segment_bytes
            }
            _ => true,
        };
        // A claimed one is no longer the next.
        let short = match self.claimed {
            true => used_half || !made,
            false => (used_half || self.has_no_file()) && !made,
        };
        short && self.failure.is_none()
    }

    /// Whether the write that gathers begins a segment.
    fn gathers_segment(&self) -> bool {
        !self.pending.bytes.is_empty() && self.pending.begins_segment
    }

    /// Whether a segment is begun that has no file yet, so that a full disk may still be in its way.
    fn has_no_file(&self) -> bool {
        let making = |work: &Work| work.stage == Stage::Create;
        self.gathers_segment() || self.work.as_ref().is_some_and(making)
    }
}
