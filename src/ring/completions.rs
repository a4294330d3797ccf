//! What the kernel has to say.

use std::io;

use io_uring::cqueue;

use super::slots::{Phase, Sending, Slot};
use super::tag::{Operation, Tag};
use super::{Ring, StableBytes};

/// Something that has come to pass on a ring.
#[derive(Debug)]
pub enum Completion<'a, P> {
    /// A connection was accepted. Nothing is armed on it yet.
    Accepted(Slot),
    /// Accepting has stopped; `rearm_accept` goes on. `ENFILE`: the table of direct descriptors is full (the connection
    /// at hand was dropped). `EMFILE`, `ENOMEM`, ...: as of `accept(2)`. A connection that its client gave up is not
    /// reported.
    AcceptFailed(io::Error),
    /// Bytes have arrived: at least one, at most a buffer. They are valid during the call only.
    Received {
        /// Whose.
        slot: Slot,
        /// The bytes, next in order.
        bytes: &'a [u8],
    },
    /// No more bytes will be reported, unless `recv` is called again.
    ReceiveEnded {
        /// Whose.
        slot: Slot,
        /// `Ok`: the peer has finished sending (or the receive was cancelled). `Err`: the connection has failed.
        result: io::Result<()>,
        /// Whether `stop_recv` ended it, so that more bytes may be waiting in the socket.
        cancelled: bool,
    },
    /// A send has ended, and here is its payload.
    Sent {
        /// Whose.
        slot: Slot,
        /// What was given to `send`.
        payload: P,
        /// `Ok`: the kernel took all of it; its bytes. `Err`: the connection failed, or was
        /// closed (`ECANCELED`), and some beginning of it may have gone out.
        result: io::Result<usize>,
    },
    /// A connect has ended.
    Connected {
        /// Whose.
        slot: Slot,
        /// Whether it is connected.
        result: io::Result<()>,
    },
    /// The socket is closed, and the name `slot` is free.
    Closed(Slot),
    /// Somebody woke this ring.
    Woken,
}

impl<P: StableBytes> Ring<P> {
    /// Calls `f` for completions that have arrived, at most `limit` of the kernel's, in order. Returns how many it took;
    /// less than `limit` means that there are no more. Receive buffers go back to the kernel when this returns.
    ///
    /// Some of the kernel's completions are of no interest outside, and are counted without a call.
    pub fn for_each_completion(
        &mut self,
        limit: usize,
        mut f: impl FnMut(Completion<'_, P>),
    ) -> usize {
        let mut taken = 0;
        while taken < limit {
            // One at a time, so that a panic in `f` loses none.
            let Some(entry) = self.uring.completion().next() else {
                break;
            };
            taken += 1;
            self.complete(&entry, &mut f);
        }
        self.buffers.publish();
        self.rearm_starved();
        taken
    }

    #[inline]
    fn complete(&mut self, entry: &cqueue::Entry, f: &mut impl FnMut(Completion<'_, P>)) {
        let Some(tag) = Tag::from_bits(entry.user_data()) else {
            debug_assert!(false, "a completion of an unknown operation");
            return;
        };
        let more = cqueue::more(entry.flags());
        if !more && tag.operation.is_counted() {
            self.outstanding -= 1;
        }
        match tag.operation {
            Operation::Receive => self.received(tag, entry, f),
            Operation::Send => self.sent(tag, entry.result(), f),
            Operation::Accept => self.accepted(entry.result(), more, f),
            Operation::Connect => self.connected(tag, entry.result(), f),
            Operation::Shutdown => self.shut_down(tag),
            Operation::Close => self.closed(tag, f),
            Operation::Woken => f(Completion::Woken),
            Operation::Event => {
                if !self.ending {
                    self.await_event();
                }
                f(Completion::Woken);
            }
            // There was nothing to cancel any more; or the other ring is gone, or so busy that it cannot be asleep.
            Operation::Cancel | Operation::Notify => {}
        }
    }

    #[inline]
    fn received(&mut self, tag: Tag, entry: &cqueue::Entry, f: &mut impl FnMut(Completion<'_, P>)) {
        let slot = Slot(tag.slot);
        let flags = entry.flags();
        let open = self.slots[slot.index()].phase == Phase::Open;
        debug_assert_eq!(
            self.slots[slot.index()].generation,
            tag.generation,
            "a receive outlived its connection"
        );
        if let Some(id) = cqueue::buffer_select(flags) {
            let len = entry.result().max(0) as u32;
            if len > 0 && open {
                f(Completion::Received {
                    slot,
                    bytes: self.buffers.arrived(id, len),
                });
            }
            self.buffers.consumed(id, len, cqueue::buffer_more(flags));
        }
        if !cqueue::more(flags) {
            self.receive_ended(slot, entry.result(), f);
        }
    }

    /// The kernel has let go of a receive: arm it again, or say why not.
    fn receive_ended(&mut self, slot: Slot, result: i32, f: &mut impl FnMut(Completion<'_, P>)) {
        let state = &mut self.slots[slot.index()];
        if state.phase == Phase::Open && !state.receive_cancelled && !self.ending {
            if result > 0 {
                return self.arm_receive(slot);
            }
            if result == -libc::ENOBUFS {
                // To be armed when this batch has given its buffers back; now it would fail again.
                return self.starved.push(slot);
            }
        }
        state.receiving = false;
        if state.phase != Phase::Open {
            return self.close_if_idle(slot);
        }
        let cancelled = result > 0 || matches!(-result, libc::ECANCELED | libc::ENOBUFS);
        let result = if cancelled {
            Ok(())
        } else {
            outcome(result).map(drop)
        };
        f(Completion::ReceiveEnded {
            slot,
            result,
            cancelled,
        });
    }

    fn rearm_starved(&mut self) {
        while let Some(slot) = self.starved.pop() {
            let state = &mut self.slots[slot.index()];
            // Not open, or cancelled: only if a panic of the owner's kept an earlier batch from coming this far.
            if state.phase != Phase::Open {
                state.receiving = false;
                self.close_if_idle(slot);
            } else if !self.ending {
                state.receive_cancelled = false;
                self.arm_receive(slot);
            }
        }
    }

    #[inline]
    fn sent(&mut self, tag: Tag, result: i32, f: &mut impl FnMut(Completion<'_, P>)) {
        let slot = Slot(tag.slot);
        let state = &mut self.slots[slot.index()];
        debug_assert_eq!(
            state.generation, tag.generation,
            "a send outlived its connection"
        );
        let sending = state.sending.as_mut();
        let sending = sending.expect("a slot owns the payload until its send's last completion");
        sending.sent += result.max(0) as usize;
        let short = result > 0 && sending.sent < sending.total;
        if short && state.phase == Phase::Open && !self.ending {
            return self.arm_send(slot);
        }
        let Sending { payload, total, .. } = state.sending.take().expect("seen above");
        if state.phase != Phase::Open {
            self.close_if_idle(slot);
        }
        let result = if short { -libc::ECANCELED } else { result };
        let result = outcome(result).map(|_| total);
        f(Completion::Sent {
            slot,
            payload,
            result,
        });
    }

    fn accepted(&mut self, result: i32, more: bool, f: &mut impl FnMut(Completion<'_, P>)) {
        if !more {
            self.accepting = false;
            if self.stopped {
                self.listener = None;
            }
        }
        match result {
            index if index >= 0 => {
                let slot = Slot(index as u32);
                if self.slots[slot.index()].phase == Phase::Closing {
                    // The kernel has closed and reused the index; the completion of the close comes later.
                    self.slots[slot.index()].phase = Phase::Free;
                    f(Completion::Closed(slot));
                }
                debug_assert_eq!(
                    self.slots[slot.index()].phase,
                    Phase::Free,
                    "accepted into a slot in use"
                );
                self.slots[slot.index()].open();
                if !more {
                    // The completion queue was full.
                    self.rearm_accept();
                }
                f(Completion::Accepted(slot));
            }
            error => match -error {
                libc::ECANCELED => {}
                libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => self.rearm_accept(),
                error => f(Completion::AcceptFailed(io::Error::from_raw_os_error(
                    error,
                ))),
            },
        }
    }

    fn connected(&mut self, tag: Tag, result: i32, f: &mut impl FnMut(Completion<'_, P>)) {
        let slot = Slot(tag.slot);
        let state = &mut self.slots[slot.index()];
        state.connecting = false;
        if state.phase == Phase::Open {
            f(Completion::Connected {
                slot,
                result: outcome(result).map(drop),
            });
        } else {
            self.close_if_idle(slot);
        }
    }

    fn shut_down(&mut self, tag: Tag) {
        let slot = Slot(tag.slot);
        // A failure means that the connection is gone, which the receive tells better.
        self.slots[slot.index()].shutdowns -= 1;
        if self.slots[slot.index()].phase != Phase::Open {
            self.close_if_idle(slot);
        }
    }

    fn closed(&mut self, tag: Tag, f: &mut impl FnMut(Completion<'_, P>)) {
        let slot = Slot(tag.slot);
        let state = &mut self.slots[slot.index()];
        if state.generation != tag.generation {
            // Already told, when the kernel reused the index.
            return;
        }
        state.phase = Phase::Free;
        if let Some(free) = &mut self.installable {
            free.push(slot);
        }
        f(Completion::Closed(slot));
    }
}

/// A completion's result: a count, or a negated error number.
fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
