//! Memory for what the kernel copies when it takes a submission: iovecs, message headers, addresses.

use std::mem::MaybeUninit;

/// Items per chunk. Also the longest run that fits.
pub(super) const CHUNK: usize = 2048;

/// A bump allocator whose items keep their address until [`reset`](Self::reset). Chunks are kept for reuse, so that a
/// steady load allocates nothing.
#[derive(Debug)]
pub(super) struct Arena<T: Copy> {
    chunks: Vec<Box<[MaybeUninit<T>]>>,
    chunk: usize,
    used: usize,
}

impl<T: Copy> Arena<T> {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            chunk: 0,
            used: 0,
        }
    }

    /// Stores the items side by side and returns the address of the first, good until the next reset.
    ///
    /// # Panics
    /// If there are more than [`CHUNK`] items.
    pub(super) fn store(&mut self, items: impl ExactSizeIterator<Item = T>) -> *mut T {
        let count = items.len();
        assert!(
            count <= CHUNK,
            "{count} items do not fit a chunk of {CHUNK}"
        );
        if self.used + count > CHUNK {
            self.chunk += 1;
            self.used = 0;
        }
        if self.chunk == self.chunks.len() {
            self.chunks.push(Box::new_uninit_slice(CHUNK));
        }
        let run = &mut self.chunks[self.chunk][self.used..self.used + count];
        self.used += count;
        let first = run.as_mut_ptr().cast::<T>();
        for (place, item) in run.iter_mut().zip(items) {
            place.write(item);
        }
        first
    }

    /// Forgets all items. What [`store`](Self::store) returned may be overwritten from now on.
    pub(super) fn reset(&mut self) {
        self.chunk = 0;
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stay_in_place_until_the_reset_and_chunks_are_reused() {
        let mut arena = Arena::new();
        let runs: Vec<*mut usize> = (0..10)
            .map(|run| arena.store((0..1000).map(move |item| run * 1000 + item)))
            .collect();
        for (run, first) in runs.iter().enumerate() {
            for item in 0..1000 {
                // SAFETY: the arena has not been reset, and the run has 1,000 items.
                assert_eq!(unsafe { *first.add(item) }, run * 1000 + item);
            }
        }
        let chunks = arena.chunks.len();
        arena.reset();
        for _ in 0..10 {
            arena.store(0..1000);
        }
        assert_eq!(arena.chunks.len(), chunks);
    }
}
