//! The one unsafe room: io_uring behind a small safe API.
//!
//! A [`Ring`] belongs to one thread. Its owner turns the same crank for ever:
//!
//! 1. queue work with [`Ring::recv`], [`Ring::send`], [`Ring::close`], ...; nothing reaches the kernel yet,
//! 2. [`Ring::submit_and_wait`]: one `io_uring_enter` submits all of it and sleeps until something completes,
//! 3. [`Ring::for_each_completion`]: look at what has completed, and decide what to queue next.
//!
//! Sockets live in the ring's table of direct descriptors and are named by [`Slot`]. Received bytes sit in buffers that
//! all sockets of the ring share, so an idle connection costs none. Payloads that are being sent are owned by the ring
//! until the kernel is done with them, which is why no safe code can free memory that the kernel still reads.
//!
//! # What keeps a reused slot clean
//! [`Ring::close`] cancels what is in flight on a slot and waits for the last completion of every operation before it
//! gives the descriptor back to the kernel. So no completion of the old connection can be taken for one of the new. The
//! one completion that can be late is the close's own: the kernel may accept into the freed index before that completion
//! is posted. The generation in each operation's tag tells the two apart.
//!
//! # Layout
//! `config`, `error`, `probe`: what is asked for, what the kernel has. `ring`, `operations`, `completions`: the ring.
//! `slots`, `buffers`, `arena`, `tag`: its parts. `waker`: waking a ring from elsewhere. `socket`, `machine`: safe set-up
//! calls. `spsc`, `sync`: the raw slots of the mailboxes, which are here because they need `unsafe`.
#![allow(unsafe_code)]

mod arena;
mod buffers;
mod completions;
mod config;
mod error;
pub mod machine;
mod operations;
mod probe;
#[expect(clippy::module_inception, reason = "the file of the type `Ring`")]
mod ring;
mod slots;
pub mod socket;
pub(crate) mod spsc;
mod stable;
pub(crate) mod sync;
mod tag;
mod waker;

pub use completions::Completion;
pub use config::{RingConfig, Techniques};
pub use error::RingError;
pub use operations::MAX_SLICES;
pub use probe::{Features, probe};
pub use ring::Ring;
pub use slots::Slot;
pub use stable::StableBytes;
pub use waker::Waker;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
