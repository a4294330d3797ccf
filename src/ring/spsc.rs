//! The raw slots of a mailbox: a bounded ring with one producer and one consumer.
//!
//! `head` counts what has been taken, `tail` what has been put; both only grow, modulo 2^64. The producer alone writes
//! `tail`, the consumer alone writes `head`. Slots `head..tail` are the consumer's, all others the producer's. A store
//! with release ordering hands a slot over, a load with acquire ordering takes it. Each side keeps its own index and the
//! last seen index of the other, and looks at the other's cache line only when that one does not suffice.

use std::mem::MaybeUninit;

use crossbeam::utils::CachePadded;

use super::sync::{Arc, AtomicUsize, Cell, Ordering};

struct Shared<T> {
    slots: Box<[Cell<MaybeUninit<T>>]>,
    head: CachePadded<AtomicUsize>,
    tail: CachePadded<AtomicUsize>,
}

// SAFETY: a value of `T` is put in by one thread and taken out by another, never looked at by two; the indices see to
// it. So `T: Send` suffices.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; dropping `Shared` drops the values that are left, on the thread that drops last.
unsafe impl<T: Send> Send for Shared<T> {}

/// The putting end.
pub(crate) struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// `head` as last seen; the real one is at least this.
    head: usize,
}

/// The taking end.
pub(crate) struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// `tail` as last seen; the real one is at least this.
    tail: usize,
}

/// A ring of at least `capacity` slots, rounded up to a power of two.
pub(crate) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let slots = (0..capacity.max(1).next_power_of_two())
        .map(|_| Cell::new(MaybeUninit::uninit()))
        .collect();
    let shared = Arc::new(Shared {
        slots,
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
    });
    (
        Producer {
            shared: Arc::clone(&shared),
            tail: 0,
            head: 0,
        },
        Consumer {
            shared,
            head: 0,
            tail: 0,
        },
    )
}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, index: usize) -> &Cell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

impl<T> Producer<T> {
    pub(crate) fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    #[inline]
    fn see_head(&mut self) {
        // Acquire: the consumer has finished reading the slots that are free by this.
        self.head = self.shared.head.load(Ordering::Acquire);
    }

    /// Slots that are free for sure; the consumer may free more at any time.
    #[inline]
    pub(crate) fn free(&mut self) -> usize {
        self.see_head();
        self.capacity() - self.tail.wrapping_sub(self.head)
    }

    /// Puts a value, or gives it back if the ring is full.
    #[inline]
    pub(crate) fn put(&mut self, value: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head) == self.capacity() {
            self.see_head();
            if self.tail.wrapping_sub(self.head) == self.capacity() {
                return Err(value);
            }
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: the slot is not in `head..tail`, so it is the producer's and empty; `&mut self` is the only one.
            unsafe { (*slot).write(value) };
        });
        self.tail = self.tail.wrapping_add(1);
        // Release: the value is in place before the consumer sees the index.
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    pub(crate) fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// Values that are there for sure; the producer may put more at any time.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.shared
            .tail
            .load(Ordering::Acquire)
            .wrapping_sub(self.head)
    }

    /// Takes the oldest value.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<T> {
        if self.head == self.tail {
            // Acquire: pairs with the release of the producer, so the value is seen with the index.
            self.tail = self.shared.tail.load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        let value = self.shared.slot(self.head).with_mut(|slot| {
            // SAFETY: the slot is in `head..tail`, so it is the consumer's and filled; after the store below it counts as
            // empty, so the value is moved out once.
            unsafe { (*slot).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        // Release: the value has been read before the producer may overwrite it.
        self.shared.head.store(self.head, Ordering::Release);
        Some(value)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends are gone, and the last one to go saw all that the other did (the reference count orders it).
        let tail = self.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        while head != tail {
            self.slot(head).with_mut(|slot| {
                // SAFETY: the slot is in `head..tail`, so it is filled; `&mut self`, and each is visited once.
                unsafe { (*slot).assume_init_drop() }
            });
            head = head.wrapping_add(1);
        }
    }
}
