//! Bytes that many connections send: written once, then shared by reference.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of one turn, shared by the outboxes of a core (the `Rc`) and, where other cores have
/// subscribers, by cores (the `Arc`): counting references per delivery costs no atomic operation.
pub(crate) type Batch = Rc<Arc<Vec<u8>>>;

const SMALL: usize = 4 << 10;
const LARGE: usize = 64 << 10;

/// A part of a batch, named by its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) batch: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Range {
    pub(crate) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// Appends `range` to `ranges`, as one with the last if it begins where that ends; whether it
/// stands by itself.
pub(crate) fn push_range(ranges: &mut Vec<Range>, range: Range) -> bool {
    match ranges.last_mut() {
        Some(last) if last.batch == range.batch && last.end == range.start => {
            last.end = range.end;
            false
        }
        _ => {
            ranges.push(range);
            true
        }
    }
}

/// A part of a batch that is on its way to a socket.
#[derive(Clone, Debug)]
pub struct Segment {
    batch: Batch,
    start: u32,
    end: u32,
}

impl Segment {
    /// The bytes. They stay where they are, unchanged, for as long as the segment lives.
    pub fn bytes(&self) -> &[u8] {
        &self.batch[self.start as usize..self.end as usize]
    }
}

/// What one send carries. It owns its bytes or keeps them alive, and comes back to the core when
/// the send is over, so that its memory is used again.
#[derive(Debug)]
pub enum Payload {
    /// One shared segment.
    One(Segment),
    /// Several shared segments, in order.
    Many(Vec<Segment>),
    /// Bytes of this connection alone.
    Own(Vec<u8>),
}

impl Payload {
    /// How many slices it is made of.
    pub fn slice_count(&self) -> usize {
        match self {
            Self::One(_) | Self::Own(_) => 1,
            Self::Many(segments) => segments.len(),
        }
    }

    /// The slice with this index, below [`Payload::slice_count`].
    pub fn slice(&self, index: usize) -> &[u8] {
        match self {
            Self::One(segment) => segment.bytes(),
            Self::Many(segments) => segments[index].bytes(),
            Self::Own(bytes) => bytes,
        }
    }

    /// The slices in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.slice_count()).map(|i| self.slice(i))
    }

    /// Bytes in all.
    pub fn byte_len(&self) -> usize {
        self.slices().map(<[u8]>::len).sum()
    }
}

/// The batches that outboxes refer to, those of the turn that is under way last, and memory for
/// those to come.
#[derive(Debug, Default)]
pub(crate) struct TurnLog {
    batches: VecDeque<Lent>,
    /// The number of the first of them; numbers start again at 0 after the last.
    first: u32,
    /// Bytes in them.
    bytes: usize,
    /// Number of the batch that takes events, and of the one that takes everything else: kept
    /// apart because only the former is handed to other cores.
    events: Option<u32>,
    unicast: Option<u32>,
    spare: Spare,
}

/// Batches of past turns: those that are free, and those that somebody still sends.
#[derive(Debug, Default)]
struct Spare {
    small: Vec<Batch>,
    large: Vec<Batch>,
    lent: VecDeque<Lent>,
    lent_bytes: usize,
    /// Reference counters without bytes, for batches of other cores.
    shells: Vec<Batch>,
    nothing: Arc<Vec<u8>>,
}

#[derive(Debug)]
struct Lent {
    batch: Batch,
    /// Whether its bytes belong to another core, which wants them back.
    adopted: bool,
    /// Ranges of it that are queued in outboxes.
    queued: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Event,
    Unicast,
}

impl TurnLog {
    /// Appends what `write` writes, which is about `expected` bytes, and says where it lies.
    pub(crate) fn append(
        &mut self,
        purpose: Purpose,
        expected: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Range {
        let current = match purpose {
            Purpose::Event => self.events,
            Purpose::Unicast => self.unicast,
        };
        let batch = match current {
            Some(batch) if self.has_room(batch, expected) => batch,
            _ => self.begin(purpose, expected),
        };
        let bytes = unique(&mut self.at(batch).batch).expect("one with room is not shared");
        let start = bytes.len() as u32;
        write(bytes);
        let end = bytes.len() as u32;
        self.bytes += (end - start) as usize;
        Range { batch, start, end }
    }

    /// Whether `expected` bytes may be appended to a batch: nobody sends of it, and they fit.
    fn has_room(&mut self, batch: u32, expected: usize) -> bool {
        unique(&mut self.at(batch).batch)
            .is_some_and(|bytes| bytes.capacity() - bytes.len() >= expected)
    }

    #[inline]
    fn at(&mut self, batch: u32) -> &mut Lent {
        &mut self.batches[batch.wrapping_sub(self.first) as usize]
    }

    fn begin(&mut self, purpose: Purpose, expected: usize) -> u32 {
        let number = self.first.wrapping_add(self.batches.len() as u32);
        let slot = match purpose {
            Purpose::Event => &mut self.events,
            Purpose::Unicast => &mut self.unicast,
        };
        // A turn begins small, so that a slow reader of a quiet server keeps little alive.
        let capacity = if slot.is_none() { SMALL } else { LARGE };
        *slot = Some(number);
        let batch = self.spare.take(capacity.max(expected));
        self.push(batch, false);
        number
    }

    fn push(&mut self, batch: Batch, adopted: bool) {
        self.batches.push_back(Lent {
            batch,
            adopted,
            queued: 0,
        });
    }

    /// The bytes of a range.
    pub(crate) fn bytes(&self, range: Range) -> &[u8] {
        let batch = &self.batches[range.batch.wrapping_sub(self.first) as usize].batch;
        &batch[range.start as usize..range.end as usize]
    }

    /// A range that an outbox held, as a segment to send. No more may be appended to its batch
    /// meanwhile.
    #[inline]
    pub(crate) fn segment(&mut self, range: Range) -> Segment {
        let lent = self.at(range.batch);
        lent.queued -= 1;
        Segment {
            batch: Rc::clone(&lent.batch),
            start: range.start,
            end: range.end,
        }
    }

    /// An outbox refers to a batch once more: it is kept at least until that is sent or
    /// [let go](Self::let_go).
    #[inline]
    pub(crate) fn hold(&mut self, batch: u32) {
        self.at(batch).queued += 1;
    }

    /// An outbox no longer refers to a batch.
    #[inline]
    pub(crate) fn let_go(&mut self, batch: u32) {
        self.at(batch).queued -= 1;
    }

    /// A batch of this turn, to be handed to another core.
    pub(crate) fn share(&self, batch: u32) -> Arc<Vec<u8>> {
        Arc::clone(&self.batches[batch.wrapping_sub(self.first) as usize].batch)
    }

    /// Takes a batch of another core into this turn, to be referred to by ranges.
    pub(crate) fn adopt(&mut self, bytes: Arc<Vec<u8>>) -> u32 {
        let number = self.first.wrapping_add(self.batches.len() as u32);
        if let Some(last) = self.batches.back()
            && Arc::ptr_eq(&last.batch, &bytes)
        {
            return number.wrapping_sub(1);
        }
        self.bytes += bytes.len();
        let batch = match self.spare.shells.pop() {
            Some(mut shell) => {
                *Rc::get_mut(&mut shell).expect("a spare shell is nobody else's") = bytes;
                shell
            }
            None => Rc::new(bytes),
        };
        self.push(batch, true);
        number
    }

    /// Ends the turn: ranges that no outbox holds mean nothing any more.
    pub(crate) fn end_turn(&mut self) {
        let mut ended = 0;
        while self.batches.front().is_some_and(|lent| lent.queued == 0)
            && let Some(lent) = self.batches.pop_front()
        {
            for slot in [&mut self.events, &mut self.unicast] {
                slot.take_if(|batch| *batch == self.first);
            }
            self.first = self.first.wrapping_add(1);
            self.bytes -= lent.batch.len();
            self.spare.lent_bytes += lent.batch.capacity();
            self.spare.lent.push_back(lent);
            ended += 1;
        }
        self.spare.reclaim(ended + 4);
    }

    /// Bytes that outboxes refer to.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of past batches that somebody still sends, and of free ones.
    pub(crate) fn held_bytes(&self) -> usize {
        let free = self.spare.small.len() * SMALL + self.spare.large.len() * LARGE;
        self.bytes + self.spare.lent_bytes + free
    }
}

impl Spare {
    fn take(&mut self, capacity: usize) -> Batch {
        let reused = match capacity {
            SMALL => self.small.pop(),
            LARGE => self.large.pop(),
            _ => None,
        };
        reused.unwrap_or_else(|| Rc::new(Arc::new(Vec::with_capacity(capacity))))
    }

    /// Looks through the `most` oldest lent batches for those that nobody needs any more: a few
    /// more than came in this turn, so that it keeps pace and never is a long loop.
    fn reclaim(&mut self, most: usize) {
        for _ in 0..self.lent.len().min(most) {
            let Some(mut lent) = self.lent.pop_front() else {
                return;
            };
            let size = lent.batch.capacity();
            if lent.adopted {
                match Rc::get_mut(&mut lent.batch) {
                    Some(bytes) => *bytes = Arc::clone(&self.nothing),
                    None => {
                        self.lent.push_back(lent);
                        continue;
                    }
                }
                keep(&mut self.shells, lent.batch);
            } else {
                match unique(&mut lent.batch) {
                    Some(bytes) => bytes.clear(),
                    None => {
                        self.lent.push_back(lent);
                        continue;
                    }
                }
                match size {
                    SMALL => keep(&mut self.small, lent.batch),
                    LARGE => keep(&mut self.large, lent.batch),
                    _ => {}
                }
            }
            self.lent_bytes -= size;
        }
    }
}

fn keep(spare: &mut Vec<Batch>, batch: Batch) {
    if spare.len() < 64 {
        spare.push(batch);
    }
}

fn unique(batch: &mut Batch) -> Option<&mut Vec<u8>> {
    Arc::get_mut(Rc::get_mut(batch)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_its_bytes_while_later_turns_write() {
        let mut log = TurnLog::default();
        let range = log.append(Purpose::Event, 3, |out| out.extend_from_slice(b"abc"));
        log.hold(range.batch);
        let segment = log.segment(range);
        log.end_turn();
        for _ in 0..100 {
            log.append(Purpose::Event, 3, |out| out.extend_from_slice(b"xyz"));
            log.end_turn();
        }
        assert_eq!(segment.bytes(), b"abc");
        assert!(log.spare.lent.len() <= 2, "free batches are used again");
    }

    #[test]
    fn what_does_not_fit_a_batch_gets_another() {
        let mut log = TurnLog::default();
        let ranges: Vec<Range> = (0..10)
            .map(|i| {
                log.append(Purpose::Event, LARGE - 1, |out| {
                    out.resize(out.len() + LARGE - 1, i)
                })
            })
            .collect();
        for (i, range) in ranges.iter().enumerate() {
            assert!(log.bytes(*range).iter().all(|b| *b == i as u8));
        }
    }
}
