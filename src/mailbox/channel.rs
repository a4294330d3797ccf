//! The two ends of a mailbox.

use std::fmt;

use crate::ring::spsc::{Consumer, Producer, ring};

/// The end that puts mail. One thread has it.
pub struct Sender<T>(Producer<T>);

/// The end that takes mail. One thread has it.
pub struct Receiver<T>(Consumer<T>);

/// A mailbox for at least `capacity` letters; the capacity is rounded up to a power of two.
///
/// Letters that nobody took are dropped with the second end.
#[must_use]
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (producer, consumer) = ring(capacity);
    (Sender(producer), Receiver(consumer))
}

impl<T: Send> Sender<T> {
    /// Puts a letter.
    ///
    /// # Errors
    /// Gives the letter back if the mailbox is full.
    #[inline]
    pub fn try_send(&mut self, letter: T) -> Result<(), T> {
        self.0.put(letter)
    }

    /// Letters that can be put before the mailbox is full. The receiver may make more room at any time.
    #[inline]
    pub fn free(&mut self) -> usize {
        self.0.free()
    }

    /// Letters that the mailbox holds when full.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<T: Send> Receiver<T> {
    /// Takes the oldest letter, if there is one.
    #[inline]
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.take()
    }

    /// Letters that can be taken. The sender may put more at any time.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no letter. Looks at the sender's side, not at what was seen last, as [`Doorbell`] needs.
    ///
    /// [`Doorbell`]: super::Doorbell
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Letters that the mailbox holds when full.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sender")
            .field("capacity", &self.0.capacity())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Receiver")
            .field("len", &self.0.len())
            .finish_non_exhaustive()
    }
}
