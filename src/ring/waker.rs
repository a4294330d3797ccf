//! Waking a ring that sleeps in the kernel.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Names a ring to whoever wants to wake it. Another ring does it with [`Ring::wake`](super::Ring::wake), which costs no
/// system call of its own; any other thread, or a signal handler's thread, with [`Waker::wake`].
#[derive(Clone)]
pub struct Waker(Arc<Bell>);

struct Bell {
    eventfd: OwnedFd,
    /// Descriptor of the ring, or -1 once it is gone.
    ring: AtomicI32,
}

impl Waker {
    pub(super) fn new(ring: RawFd) -> io::Result<Self> {
        // Not EFD_NONBLOCK: io_uring then fails the read instead of waiting for it.
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(Bell {
            eventfd,
            ring: AtomicI32::new(ring),
        })))
    }

    /// Wakes the ring by a write to its eventfd: one system call. The ring reports
    /// [`Completion::Woken`](super::Completion::Woken). Does nothing if the ring is gone.
    pub fn wake(&self) {
        // Cannot fail but by overflow of a 64-bit count, which would mean that a wake-up is pending anyway.
        let _ = rustix::io::write(&self.0.eventfd, &1u64.to_ne_bytes());
    }

    pub(super) fn eventfd(&self) -> impl AsFd + '_ {
        &self.0.eventfd
    }

    /// The ring's descriptor while it lives. A ring that goes away right after this answer is no harm: the message then
    /// fails, or is an unasked-for wake-up of the ring that got the same number.
    pub(super) fn ring(&self) -> Option<RawFd> {
        let ring = self.0.ring.load(Ordering::Relaxed);
        (ring >= 0).then_some(ring)
    }

    pub(super) fn forget_ring(&self) {
        self.0.ring.store(-1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Waker")
            .field("ring", &self.ring())
            .finish_non_exhaustive()
    }
}
