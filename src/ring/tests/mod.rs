//! Rings against real sockets on loopback.

mod cancel;
mod echo;
mod limits;
mod wake;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::socket::{self, ListenOptions};
use super::{Completion, Ring, RingConfig, Slot, StableBytes, Techniques};

/// Longer than any step of a test takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> RingConfig {
    RingConfig {
        entries: 64,
        cq_entries: 1024,
        descriptors: 256,
        recv_buffers: 16,
        recv_buffer_len: 2048,
        techniques: Techniques::ALL,
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    listener_with(&ListenOptions::default())
}

fn listener_with(options: &ListenOptions) -> (TcpListener, SocketAddr) {
    let listener = socket::listener(SocketAddr::from(([127, 0, 0, 1], 0)), options).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A completion that has been copied out of the ring.
#[derive(Debug)]
enum Seen<P> {
    Accepted(Slot),
    AcceptFailed(Option<i32>),
    Received(Slot, Vec<u8>),
    ReceiveEnded(Slot, Result<(), Option<i32>>, bool),
    Sent(Slot, P, Result<usize, Option<i32>>),
    Connected(Slot, Result<(), Option<i32>>),
    Closed(Slot),
    Woken,
}

impl<P> From<Completion<'_, P>> for Seen<P> {
    fn from(completion: Completion<'_, P>) -> Self {
        match completion {
            Completion::Accepted(slot) => Self::Accepted(slot),
            Completion::AcceptFailed(error) => Self::AcceptFailed(error.raw_os_error()),
            Completion::Received { slot, bytes } => {
                assert!(!bytes.is_empty());
                Self::Received(slot, bytes.to_vec())
            }
            Completion::ReceiveEnded {
                slot,
                result,
                cancelled,
            } => Self::ReceiveEnded(
                slot,
                result.map_err(|error| error.raw_os_error()),
                cancelled,
            ),
            Completion::Sent {
                slot,
                payload,
                result,
            } => Self::Sent(slot, payload, result.map_err(|error| error.raw_os_error())),
            Completion::Connected { slot, result } => {
                Self::Connected(slot, result.map_err(|error| error.raw_os_error()))
            }
            Completion::Closed(slot) => Self::Closed(slot),
            Completion::Woken => Self::Woken,
        }
    }
}

/// One turn: what completed within a short while.
fn turn<P: StableBytes>(ring: &mut Ring<P>) -> Vec<Seen<P>> {
    ring.submit_and_wait(Some(Duration::from_millis(20)))
        .unwrap();
    let mut seen = Vec::new();
    while ring.for_each_completion(64, |completion| seen.push(completion.into())) == 64 {}
    seen
}

/// Turns until `wanted` picks something out of what completes; everything else is passed over.
fn until<P: StableBytes + std::fmt::Debug, R>(
    ring: &mut Ring<P>,
    mut wanted: impl FnMut(Seen<P>) -> Option<R>,
) -> R {
    let deadline = Instant::now() + PATIENCE;
    let mut found = None;
    while found.is_none() {
        assert!(Instant::now() < deadline, "nothing of the kind completed");
        for seen in turn(ring) {
            let answer = wanted(seen);
            if found.is_none() {
                found = answer;
            }
        }
    }
    found.unwrap()
}

fn accepted<P: StableBytes + std::fmt::Debug>(ring: &mut Ring<P>) -> Slot {
    until(ring, |seen| {
        if let Seen::Accepted(slot) = seen {
            Some(slot)
        } else {
            None
        }
    })
}

fn closed<P: StableBytes + std::fmt::Debug>(ring: &mut Ring<P>, slot: Slot) {
    until(ring, |seen| {
        matches!(seen, Seen::Closed(closed) if closed == slot).then_some(())
    })
}

/// A small random sequence that is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}
