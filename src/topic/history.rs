//! A topic's newest events, encoded, for replay: bounded per topic and per core.

use std::collections::VecDeque;

use tickring_protocol::HEADER_LEN;

const SMALLEST_CHUNK: usize = 1 << 10;
const LARGEST_CHUNK: usize = 64 << 10;

/// Bounds of history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryLimits {
    /// Bytes kept for one topic.
    pub(crate) topic_bytes: usize,
    /// Bytes kept for all topics of a core.
    pub(crate) core_bytes: usize,
}

/// The frames of a topic's newest events in chunks, oldest first. Chunks grow with the topic, so
/// that thousands of quiet topics stay small.
#[derive(Debug, Default)]
pub(crate) struct History {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    /// Its place in the order in which the core's chunks were begun.
    place: u32,
    first_seq: u64,
    frames: Vec<u8>,
}

/// What all histories of a core share: the order in which chunks were begun, and spare memory.
#[derive(Debug)]
pub(crate) struct ChunkPool {
    limits: HistoryLimits,
    order: Order,
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

/// The topics of all chunks in the order in which the chunks were begun: a doubly linked list in a
/// vector, so that any chunk can leave at once and a steady state allocates nothing.
#[derive(Debug)]
struct Order {
    /// Place 0 is the list's end and beginning.
    links: Vec<Link>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
    topic: usize,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            links: vec![Link {
                before: 0,
                after: 0,
                topic: usize::MAX,
            }],
            free: Vec::new(),
        }
    }
}

impl Order {
    fn oldest(&self) -> Option<usize> {
        let first = self.links[0].after;
        (first != 0).then(|| self.links[first as usize].topic)
    }

    fn push(&mut self, topic: usize) -> u32 {
        let newest = self.links[0].before;
        let link = Link {
            before: newest,
            after: 0,
            topic,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.links[place as usize] = link;
                place
            }
            None => {
                self.links.push(link);
                self.links.len() as u32 - 1
            }
        };
        self.links[newest as usize].after = place;
        self.links[0].before = place;
        place
    }

    fn remove(&mut self, place: u32) {
        let Link { before, after, .. } = self.links[place as usize];
        self.links[before as usize].after = after;
        self.links[after as usize].before = before;
        self.free.push(place);
    }
}

impl ChunkPool {
    pub(crate) fn new(limits: HistoryLimits) -> Self {
        Self {
            limits,
            order: Order::default(),
            spare: Vec::new(),
            bytes: 0,
        }
    }

    /// Capacity of all chunks in use, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The topic whose oldest chunk must go for the core to be within its bound.
    pub(crate) fn over_limit(&self) -> Option<usize> {
        if self.bytes <= self.limits.core_bytes {
            return None;
        }
        self.order.oldest()
    }

    fn begin(&mut self, topic: usize, first_seq: u64, capacity: usize) -> Chunk {
        let place = self.order.push(topic);
        let frames = match capacity {
            LARGEST_CHUNK => self
                .spare
                .pop()
                .unwrap_or_else(|| Vec::with_capacity(capacity)),
            _ => Vec::with_capacity(capacity),
        };
        self.bytes += frames.capacity();
        Chunk {
            place,
            first_seq,
            frames,
        }
    }

    fn give_back(&mut self, chunk: Chunk) {
        self.order.remove(chunk.place);
        let mut frames = chunk.frames;
        self.bytes -= frames.capacity();
        if frames.capacity() == LARGEST_CHUNK && self.spare.len() < 64 {
            frames.clear();
            self.spare.push(frames);
        }
    }
}

impl History {
    /// Keeps the frame of event `seq` of the topic with index `topic`.
    pub(crate) fn append(&mut self, topic: usize, seq: u64, frame: &[u8], pool: &mut ChunkPool) {
        let room = self
            .chunks
            .back()
            .is_some_and(|c| c.frames.capacity() - c.frames.len() >= frame.len());
        if !room {
            let grown = self
                .chunks
                .back()
                .map_or(SMALLEST_CHUNK, |c| c.frames.capacity() * 2);
            let capacity = grown.clamp(SMALLEST_CHUNK, LARGEST_CHUNK).max(frame.len());
            let chunk = pool.begin(topic, seq, capacity);
            self.bytes += chunk.frames.capacity();
            self.chunks.push_back(chunk);
            while self.bytes > pool.limits.topic_bytes && self.chunks.len() > 1 {
                self.drop_oldest(pool);
            }
        }
        let chunk = self
            .chunks
            .back_mut()
            .expect("a chunk with room was just ensured");
        chunk.frames.extend_from_slice(frame);
    }

    /// Gives up the oldest chunk.
    pub(crate) fn drop_oldest(&mut self, pool: &mut ChunkPool) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.frames.capacity();
            pool.give_back(chunk);
        }
    }

    /// The frames, oldest first, in runs: of a history whose pool is no longer of interest.
    pub(crate) fn into_frames(self) -> impl Iterator<Item = Vec<u8>> {
        self.chunks.into_iter().map(|chunk| chunk.frames)
    }

    /// Oldest seq that can be replayed; `None` when there is none.
    pub(crate) fn first_seq(&self) -> Option<u64> {
        self.chunks.front().map(|c| c.first_seq)
    }

    /// Appends the frames of the events from `from_seq` on to `out`, at most `max_bytes` but at
    /// least one if there is one. Returns the seq behind the last one appended.
    ///
    /// `from_seq` must not lie before [`History::first_seq`].
    pub(crate) fn replay(&self, from_seq: u64, max_bytes: usize, out: &mut Vec<u8>) -> u64 {
        debug_assert!(self.first_seq().is_none_or(|first| first <= from_seq));
        let start = out.len();
        let mut next = from_seq;
        let first = self
            .chunks
            .partition_point(|c| c.first_seq <= from_seq)
            .saturating_sub(1);
        for chunk in self.chunks.iter().skip(first) {
            let mut seq = chunk.first_seq;
            let mut rest = chunk.frames.as_slice();
            while let Some(len) = frame_len(rest) {
                let (frame, tail) = rest.split_at(len);
                if seq >= from_seq {
                    if out.len() > start && out.len() - start + len > max_bytes {
                        return next;
                    }
                    out.extend_from_slice(frame);
                    next = seq + 1;
                }
                rest = tail;
                seq += 1;
            }
        }
        next
    }
}

/// Length of the frame at the start of `frames`; `None` at the end.
pub(crate) fn frame_len(frames: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(*frames.first_chunk()?) as usize;
    debug_assert!(
        (HEADER_LEN..=frames.len()).contains(&len),
        "history holds whole frames"
    );
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(len: usize, seq: u64) -> Vec<u8> {
        let mut frame = vec![seq as u8; len];
        frame[..4].copy_from_slice(&(len as u32).to_le_bytes());
        frame
    }

    proptest! {
        #[test]
        fn replay_gives_each_kept_event_once_within_the_bounds(
            sizes in prop::collection::vec((0usize..3, HEADER_LEN..3000), 1..400),
            topic_bytes in 4_000usize..200_000,
            core_bytes in 4_000usize..300_000,
            step in 1usize..9_000,
        ) {
            let mut pool = ChunkPool::new(HistoryLimits { topic_bytes, core_bytes });
            let mut topics: Vec<(History, u64)> = (0..3).map(|_| (History::default(), 0)).collect();
            for &(topic, size) in &sizes {
                topics[topic].1 += 1;
                let seq = topics[topic].1;
                topics[topic].0.append(topic, seq, &frame(size, seq), &mut pool);
                while let Some(over) = pool.over_limit() {
                    topics[over].0.drop_oldest(&mut pool);
                }
            }
            prop_assert!(pool.bytes() <= core_bytes);
            prop_assert_eq!(pool.bytes(), topics.iter().map(|(h, _)| h.bytes).sum::<usize>());
            for (index, (history, last)) in topics.iter().enumerate() {
                let mine: Vec<usize> =
                    sizes.iter().filter(|s| s.0 == index).map(|s| s.1).collect();
                let Some(first) = history.first_seq() else { continue };
                prop_assert!(history.chunks.len() == 1 || history.bytes <= topic_bytes);
                let (mut next, mut seen) = (first, Vec::new());
                while next <= *last {
                    let mut out = Vec::new();
                    let after = history.replay(next, step, &mut out);
                    prop_assert!(after > next);
                    prop_assert!(after == next + 1 || out.len() <= step);
                    seen.extend_from_slice(&out);
                    next = after;
                }
                let expected: Vec<u8> = (first..=*last)
                    .flat_map(|seq| frame(mine[seq as usize - 1], seq))
                    .collect();
                prop_assert_eq!(seen, expected);
            }
        }
    }
}
