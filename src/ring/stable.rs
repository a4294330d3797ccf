//! Payloads that the kernel may read while Rust moves their owner around.

use std::sync::Arc;

/// A value to be sent, as one or more slices.
///
/// # Safety
/// While the value is owned and not mutated, every slice must stay at the same address, with the same length and the
/// same bytes, even when the value is moved. So bytes may not live inline in the value, and no other owner may write to
/// them. Both methods must answer the same each time.
pub unsafe trait StableBytes {
    /// How many slices there are.
    fn slice_count(&self) -> usize;
    /// Slice `index`, which is below [`slice_count`](Self::slice_count).
    fn slice(&self, index: usize) -> &[u8];
}

// SAFETY: a vector's bytes are on the heap; moving the vector does not move them, and nobody else can reach them.
unsafe impl StableBytes for Vec<u8> {
    fn slice_count(&self) -> usize {
        1
    }
    fn slice(&self, _index: usize) -> &[u8] {
        self
    }
}

// SAFETY: the bytes are on the heap and immutable while this owner keeps the count above zero: `Arc::get_mut` of another
// owner fails as long as this one exists.
unsafe impl StableBytes for Arc<[u8]> {
    fn slice_count(&self) -> usize {
        1
    }
    fn slice(&self, _index: usize) -> &[u8] {
        self
    }
}

// SAFETY: the vector's buffer of `Arc`s may not be reached by others, and each `Arc` is stable as said above.
unsafe impl StableBytes for Vec<Arc<[u8]>> {
    fn slice_count(&self) -> usize {
        self.len()
    }
    fn slice(&self, index: usize) -> &[u8] {
        &self[index]
    }
}

#[cfg(not(loom))] // there is no core under the model checker
// SAFETY: `Own` is a vector, as above. `One` and `Many` are ranges of vectors inside `Rc<Arc<Vec<u8>>>`: a segment holds
// the `Rc`, which holds the `Arc`, so that neither `Rc::get_mut` nor `Arc::get_mut` gives anybody the vector to write to
// while the segment lives; and the core writes to a batch by no other way. Segments lie on the heap of a `Vec` or in the
// value, but the bytes they name never do.
unsafe impl StableBytes for crate::core::Payload {
    #[inline]
    fn slice_count(&self) -> usize {
        self.slice_count()
    }
    #[inline]
    fn slice(&self, index: usize) -> &[u8] {
        self.slice(index)
    }
}
