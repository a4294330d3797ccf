//! The order of one subscription: which seq must come next, and from where to resume.

use tickring_protocol::{Gap, GapReason};

/// Where a subscription stands.
///
/// `next` is the only seq that the next event may have. `settled` is what to ask for after a
/// reconnect: it follows `next`, but stays behind while a snapshot that makes up for a gap is
/// owed, so that a connection lost between the two costs no state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sequence {
    next: u64,
    settled: u64,
    epoch: u64,
    /// Seq of the snapshot that may come now.
    snapshot: Option<u64>,
    /// The server does not go on where it was asked to, so a GAP must come first; the seq that
    /// it must reach at least.
    owed_gap: Option<u64>,
}

/// A seq that is not the one that had to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfOrder {
    pub(crate) expected: u64,
    pub(crate) got: u64,
}

impl Sequence {
    /// A subscription that was not confirmed yet.
    pub(crate) fn asked(from_seq: u64, epoch: u64) -> Self {
        Self {
            next: 0,
            settled: from_seq,
            epoch,
            ..Self::default()
        }
    }

    /// What to ask for: first seq (0: the state and what follows) and its epoch.
    pub(crate) fn resume(&self) -> (u64, u64) {
        match self.settled {
            // Without a position there is nothing that an epoch could be wrong about.
            0 => (0, 0),
            seq => (seq, self.epoch),
        }
    }

    /// Takes SUBSCRIBED in, after [`Sequence::resume`] was asked for. When the state was asked
    /// for anew although a position had been reached, what was passed over is returned.
    pub(crate) fn begin(
        &mut self,
        next_seq: u64,
        last_seq: u64,
        epoch: u64,
    ) -> Result<Option<Gap>, OutOfOrder> {
        let newest = last_seq.checked_add(1);
        if next_seq == 0 || newest.is_none_or(|end| next_seq > end) {
            return Err(OutOfOrder {
                expected: newest.unwrap_or(u64::MAX),
                got: next_seq,
            });
        }
        let before = *self;
        if before.settled > 0 {
            let anew = before.epoch != 0 && before.epoch != epoch;
            *self = Self {
                next: before.settled,
                settled: before.settled,
                epoch,
                snapshot: None,
                owed_gap: (anew || next_seq != before.settled).then_some(next_seq),
            };
            return Ok(None);
        }
        *self = Self {
            next: next_seq,
            settled: if last_seq == 0 { next_seq } else { 0 },
            epoch,
            snapshot: Some(last_seq),
            owed_gap: None,
        };
        let reason = match (before.next, before.epoch == epoch) {
            (0, _) => return Ok(None),
            (reached, true) if reached == next_seq => return Ok(None),
            (reached, true) if reached < next_seq => GapReason::Expired,
            _ => GapReason::Reset,
        };
        Ok(Some(Gap {
            topic_id: 0,
            reason,
            first_seq: before.next,
            last_seq: next_seq - 1,
        }))
    }

    /// The newest seq that was delivered or told of; 0: none.
    pub(crate) fn reached(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Whether a snapshot may still come that a reconnect must not cost.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.settled != self.next
    }

    /// No snapshot comes any more: topics without state have none.
    pub(crate) fn settle(&mut self) {
        if self.owed_gap.is_none() {
            self.settled = self.next;
        }
    }

    pub(crate) fn event(&mut self, seq: u64) -> Result<(), OutOfOrder> {
        if seq != self.next || self.owed_gap.is_some() {
            return Err(OutOfOrder {
                expected: self.next,
                got: seq,
            });
        }
        self.next = after(seq)?;
        self.settled = self.next;
        self.snapshot = None;
        Ok(())
    }

    pub(crate) fn snapshot(&mut self, seq: u64) -> Result<(), OutOfOrder> {
        if self.snapshot != Some(seq) {
            return Err(OutOfOrder {
                expected: self.snapshot.unwrap_or(self.next.saturating_sub(1)),
                got: seq,
            });
        }
        self.snapshot = None;
        self.settled = self.next;
        Ok(())
    }

    pub(crate) fn gap(&mut self, gap: &Gap) -> Result<(), OutOfOrder> {
        // A reset speaks of another numbering: its first seq is the one that was asked for.
        if gap.reason != GapReason::Reset && gap.first_seq != self.next {
            return Err(OutOfOrder {
                expected: self.next,
                got: gap.first_seq,
            });
        }
        match gap.reason {
            GapReason::Delayed => return Ok(()),
            _ if self.owed_gap.is_some_and(|seq| gap.last_seq < seq - 1) => {
                return Err(OutOfOrder {
                    expected: self.owed_gap.unwrap_or_default(),
                    got: gap.last_seq,
                });
            }
            GapReason::Conflated | GapReason::Expired if gap.last_seq < gap.first_seq => {
                return Err(OutOfOrder {
                    expected: gap.first_seq,
                    got: gap.last_seq,
                });
            }
            GapReason::Conflated | GapReason::Expired => self.next = after(gap.last_seq)?,
            GapReason::Reset => {
                self.next = after(gap.last_seq)?;
                // The old position means nothing in the new numbering.
                self.settled = if gap.last_seq == 0 { self.next } else { 0 };
            }
        }
        self.owed_gap = None;
        self.snapshot = Some(gap.last_seq);
        Ok(())
    }
}

fn after(seq: u64) -> Result<u64, OutOfOrder> {
    // No event can follow the last number that there is.
    seq.checked_add(1).ok_or(OutOfOrder {
        expected: u64::MAX - 1,
        got: seq,
    })
}
