//! A simulated connection: two pipes with bounded buffers, and the operations that a core has
//! under way on its end.

use std::collections::VecDeque;
use std::io;

use tickring::core::Payload;

use crate::coverage::Coverage;
use crate::dice::Dice;

/// How the client's side of the stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It shut its side in order.
    Eof,
    /// It was cut off.
    Reset,
}

/// A send under way.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) payload: Payload,
    bytes: usize,
    taken: usize,
    /// How it ended, once it has.
    pub(crate) result: Option<io::Result<usize>>,
}

/// One connection between a client and a core.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) core: usize,
    pub(crate) slot: u32,
    pub(crate) client: usize,
    /// From the client, not yet received.
    pub(crate) up: VecDeque<u8>,
    pub(crate) up_end: Option<End>,
    /// To the client, not yet read.
    pub(crate) down: VecDeque<u8>,
    /// Whether the server has ended its side.
    pub(crate) down_end: bool,
    /// Whether the core has a receive under way, and whether it has asked to stop it.
    pub(crate) receiving: bool,
    pub(crate) stopping: bool,
    pub(crate) flight: Option<Flight>,
    pub(crate) closing: bool,
    pub(crate) closed: bool,
    /// Whether the client is gone, so that sends fail.
    pub(crate) gone: bool,
    /// Whether a failure was injected.
    pub(crate) failed: bool,
    pub(crate) capacity: usize,
    pub(crate) accepted_at: u64,
    /// When the core last received bytes.
    pub(crate) heard_at: u64,
    /// Whether the core was full when it was accepted.
    pub(crate) over_limit: bool,
}

impl Socket {
    pub(crate) fn new(core: usize, client: usize, capacity: usize) -> Self {
        Self {
            core,
            slot: u32::MAX,
            client,
            up: VecDeque::new(),
            up_end: None,
            down: VecDeque::new(),
            down_end: false,
            receiving: false,
            stopping: false,
            flight: None,
            closing: false,
            closed: false,
            gone: false,
            failed: false,
            capacity,
            accepted_at: 0,
            heard_at: 0,
            over_limit: false,
        }
    }

    /// A send begins.
    pub(crate) fn send(&mut self, payload: Payload) {
        let bytes = payload.byte_len();
        self.flight = Some(Flight {
            payload,
            bytes,
            taken: 0,
            result: None,
        });
    }

    /// Moves bytes of the send under way into the socket's buffer; says whether anything moved.
    pub(crate) fn advance(
        &mut self,
        dice: &mut Dice,
        failures: usize,
        coverage: &mut Coverage,
    ) -> bool {
        let Some(flight) = self.flight.as_mut().filter(|f| f.result.is_none()) else {
            return false;
        };
        if self.closing || self.gone || dice.below(10_000) < failures {
            // As the kernel has it: what was taken counts, only nothing taken is a failure.
            if !self.closing && !self.gone {
                self.failed = true;
            }
            flight.result = Some(match flight.taken {
                0 => {
                    coverage.failed_sends += 1;
                    Err(io::ErrorKind::BrokenPipe.into())
                }
                taken => Ok(taken),
            });
            return true;
        }
        let room = self.capacity.saturating_sub(self.down.len());
        let rest = flight.bytes - flight.taken;
        let most = room.min(rest);
        if most == 0 {
            return false;
        }
        let count = if dice.chance(60) {
            most
        } else {
            dice.between(1, most)
        };
        let mut skip = flight.taken;
        let mut left = count;
        for slice in flight.payload.slices() {
            let from = skip.min(slice.len());
            let to = (from + left).min(slice.len());
            self.down.extend(&slice[from..to]);
            skip -= from;
            left -= to - from;
        }
        flight.taken += count;
        if flight.taken == flight.bytes {
            flight.result = Some(Ok(flight.taken));
        } else if dice.chance(20) {
            coverage.short_sends += 1;
            flight.result = Some(Ok(flight.taken));
        }
        true
    }

    /// Whether nothing is on its way in either direction.
    pub(crate) fn is_quiet(&self) -> bool {
        self.up.is_empty() && self.down.is_empty() && !self.in_flight()
    }

    /// Bytes of the send under way that are not in the socket's buffer.
    pub(crate) fn in_flight(&self) -> bool {
        self.flight.is_some()
    }
}
