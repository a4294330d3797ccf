//! What waits to be sent to one connection, within its byte budget.

use super::batch::{Payload, Range, Segment, TurnLog, push_range};

/// The queue of one connection.
///
/// While nothing is in flight, ranges are queued by reference and leave together when it is the
/// connection's turn. While a send is in flight, which means that the socket's buffer
/// is full, what comes is copied to `backlog`: a slow reader then keeps alive only the batches of
/// the one send that it is stuck in, and its own copies.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queued: Vec<Range>,
    queued_bytes: u32,
    flying_bytes: u32,
    backlog: Vec<u8>,
}

/// Vectors to be used again, shared by the outboxes of a core.
#[derive(Debug, Default)]
pub(crate) struct OutboxPool {
    ranges: Vec<Vec<Range>>,
    segments: Vec<Vec<Segment>>,
    bytes: Vec<Vec<u8>>,
}

/// Spare vectors kept of each sort; beyond it memory goes back to the allocator.
const SPARE: usize = 1024;
/// A spare byte vector larger than this goes back to the allocator.
const SPARE_BYTES: usize = 64 << 10;
/// The most slices that one send carries; the kernel's own limit is 1,024.
const MOST_SEGMENTS: usize = 1024;

impl Outbox {
    /// Bytes not yet taken by the socket.
    pub(crate) fn bytes(&self) -> usize {
        self.queued_bytes as usize + self.flying_bytes as usize + self.backlog.len()
    }

    /// Bytes that earlier turns left behind.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.flying_bytes as usize + self.backlog.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Whether so many ranges are queued that they should go before there are more: a send carries only
    /// so many slices.
    pub(crate) fn is_crowded(&self) -> bool {
        self.queued.len() >= MOST_SEGMENTS / 2
    }

    pub(crate) fn is_flying(&self) -> bool {
        self.flying_bytes > 0
    }

    /// Appends a range of the current turn.
    pub(crate) fn push(&mut self, range: Range, log: &mut TurnLog, pool: &mut OutboxPool) {
        if self.is_flying() || !self.backlog.is_empty() {
            if self.backlog.capacity() == 0 {
                self.backlog = pool.bytes.pop().unwrap_or_default();
            }
            self.backlog.extend_from_slice(log.bytes(range));
            return;
        }
        if self.queued.capacity() == 0 {
            self.queued = pool.ranges.pop().unwrap_or_default();
        }
        if push_range(&mut self.queued, range) {
            log.hold(range.batch);
        }
        self.queued_bytes += range.len() as u32;
    }

    /// What to send now, if anything; it is in flight from here on.
    pub(crate) fn take(&mut self, log: &mut TurnLog, pool: &mut OutboxPool) -> Option<Payload> {
        if self.is_flying() {
            return None;
        }
        let payload = if !self.backlog.is_empty() {
            debug_assert!(
                self.queued.is_empty(),
                "a backlog keeps later ranges behind it"
            );
            Payload::Own(std::mem::take(&mut self.backlog))
        } else {
            let mut queued = std::mem::take(&mut self.queued);
            let payload = match queued.as_slice() {
                [] => return None,
                [one] => Payload::One(log.segment(*one)),
                many if many.len() <= MOST_SEGMENTS => {
                    let mut segments = pool.segments.pop().unwrap_or_default();
                    segments.extend(many.iter().map(|range| log.segment(*range)));
                    Payload::Many(segments)
                }
                many => {
                    let mut bytes = pool.bytes.pop().unwrap_or_default();
                    for range in many {
                        bytes.extend_from_slice(log.bytes(*range));
                        log.let_go(range.batch);
                    }
                    Payload::Own(bytes)
                }
            };
            queued.clear();
            self.queued_bytes = 0;
            keep(&mut pool.ranges, queued);
            payload
        };
        self.flying_bytes = payload.byte_len() as u32;
        Some(payload)
    }

    /// Forgets what is queued.
    pub(crate) fn clear(&mut self, log: &mut TurnLog) {
        let queued = self.queued.drain(..);
        queued.for_each(|range| log.let_go(range.batch));
        self.queued_bytes = 0;
    }

    /// The send is over; the socket took `sent` bytes of it. What it did not take comes first in
    /// the next one.
    pub(crate) fn sent(&mut self, payload: Payload, sent: usize, pool: &mut OutboxPool) {
        let missing = (self.flying_bytes as usize).saturating_sub(sent);
        self.flying_bytes = 0;
        if missing > 0 {
            let mut rest = Vec::with_capacity(missing + self.backlog.len());
            let mut skip = sent;
            for slice in payload.slices() {
                rest.extend_from_slice(&slice[skip.min(slice.len())..]);
                skip = skip.saturating_sub(slice.len());
            }
            rest.extend_from_slice(&self.backlog);
            self.backlog = rest;
        }
        pool.recycle(payload);
    }
}

impl OutboxPool {
    /// Takes a payload's vectors back.
    pub(crate) fn recycle(&mut self, payload: Payload) {
        match payload {
            Payload::One(_) => {}
            Payload::Many(mut segments) => {
                segments.clear();
                keep(&mut self.segments, segments);
            }
            Payload::Own(mut bytes) => {
                bytes.clear();
                if bytes.capacity() <= SPARE_BYTES {
                    keep(&mut self.bytes, bytes);
                }
            }
        }
    }
}

fn keep<T>(pool: &mut Vec<Vec<T>>, vector: Vec<T>) {
    debug_assert!(vector.is_empty());
    if pool.len() < SPARE && vector.capacity() > 0 {
        pool.push(vector);
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::Purpose;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the socket takes of each send, the bytes come out as they went in.
        #[test]
        fn bytes_leave_in_order_whatever_the_socket_takes(
            turns in prop::collection::vec((prop::collection::vec(1usize..300, 0..6), any::<bool>(), 0usize..400), 1..60)
        ) {
            let (mut log, mut pool) = (TurnLog::default(), OutboxPool::default());
            let mut outbox = Outbox::default();
            let (mut wanted, mut got) = (Vec::new(), Vec::new());
            let mut flying: Option<Payload> = None;
            let mut counter = 0u8;
            for (sizes, finish, taken) in turns {
                if let Some(payload) = flying.take_if(|_| finish) {
                    let all: Vec<u8> = payload.slices().flatten().copied().collect();
                    let taken = taken.min(all.len());
                    got.extend_from_slice(&all[..taken]);
                    outbox.sent(payload, taken, &mut pool);
                }
                for (i, size) in sizes.iter().enumerate() {
                    counter = counter.wrapping_add(1);
                    let purpose = if i % 2 == 0 { Purpose::Event } else { Purpose::Unicast };
                    let range = log.append(purpose, *size, |out| out.resize(out.len() + size, counter));
                    wanted.extend_from_slice(log.bytes(range));
                    outbox.push(range, &mut log, &mut pool);
                }
                if let Some(payload) = outbox.take(&mut log, &mut pool) {
                    prop_assert!(flying.is_none());
                    flying = Some(payload);
                }
                log.end_turn();
                prop_assert_eq!(outbox.bytes(), wanted.len() - got.len());
            }
            while let Some(payload) = flying.take() {
                let all: Vec<u8> = payload.slices().flatten().copied().collect();
                got.extend_from_slice(&all);
                outbox.sent(payload, all.len(), &mut pool);
                flying = outbox.take(&mut log, &mut pool);
            }
            prop_assert_eq!(got, wanted);
        }
    }
}
