//! What the ring knows about each direct descriptor.

use super::StableBytes;
use super::tag::GENERATION_MASK;

/// Names a socket in a ring's table of direct descriptors. Names are reused after
/// [`Completion::Closed`](super::Completion::Closed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// The slot with this index, for owners that keep plain numbers. Operations panic if it is not open.
    #[must_use]
    pub const fn at(index: u32) -> Self {
        Self(index)
    }

    /// Index in the table, below [`RingConfig::descriptors`](super::RingConfig::descriptors).
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How far the life of a slot has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Free,
    Open,
    /// Closed by the owner; operations in flight have been cancelled and have not all ended.
    Ending,
    /// As `Ending`, and the socket is being shut down first (see `Features::prompt_close`).
    ShuttingDown,
    /// The close is with the kernel.
    Closing,
}

/// State of one direct descriptor.
#[derive(Debug)]
pub(super) struct SlotState<P> {
    pub(super) phase: Phase,
    /// Counts the lives of the slot, modulo 2^24.
    pub(super) generation: u32,
    pub(super) receiving: bool,
    pub(super) receive_cancelled: bool,
    pub(super) connecting: bool,
    /// Shutdown operations with the kernel.
    pub(super) shutdowns: u8,
    /// What is being sent, until the kernel is done with it.
    pub(super) sending: Option<Sending<P>>,
}

/// A payload on its way.
#[derive(Debug)]
pub(super) struct Sending<P> {
    pub(super) payload: P,
    /// Bytes of the payload.
    pub(super) total: usize,
    /// Bytes that the kernel has taken.
    pub(super) sent: usize,
}

impl<P: StableBytes> Sending<P> {
    pub(super) fn new(payload: P) -> Self {
        let total = (0..payload.slice_count())
            .map(|index| payload.slice(index).len())
            .sum();
        Self {
            payload,
            total,
            sent: 0,
        }
    }

    /// Index of the slice that is next, and the bytes of it that are sent. After the last slice if nothing is left.
    pub(super) fn position(&self) -> (usize, usize) {
        let mut before = self.sent;
        if before == 0 {
            return (0, 0);
        }
        for index in 0..self.payload.slice_count() {
            let len = self.payload.slice(index).len();
            if before < len {
                return (index, before);
            }
            before -= len;
        }
        (self.payload.slice_count(), 0)
    }
}

impl<P> SlotState<P> {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Free,
            generation: 0,
            receiving: false,
            receive_cancelled: false,
            connecting: false,
            shutdowns: 0,
            sending: None,
        }
    }

    /// Begins a new life.
    pub(super) fn open(&mut self) {
        debug_assert!(self.is_idle(), "a reused slot has operations in flight");
        self.phase = Phase::Open;
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        self.receive_cancelled = false;
    }

    /// Whether no operation but a close is in flight.
    pub(super) fn is_idle(&self) -> bool {
        !self.receiving && !self.connecting && self.shutdowns == 0 && self.sending.is_none()
    }
}
