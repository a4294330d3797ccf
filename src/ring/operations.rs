//! What a ring can be asked to do. Everything is queued, and goes to the kernel with the next submit.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use io_uring::types::{Fd, Fixed};
use io_uring::{opcode, squeue};
use socket2::SockAddr;

use super::buffers::GROUP;
use super::slots::{Phase, Sending, Slot};
use super::tag::{Operation, Tag};
use super::{Ring, StableBytes, Waker};

/// Most slices that go to the kernel at once (`UIO_MAXIOV`: it refuses more). A payload with more takes several steps.
pub const MAX_SLICES: usize = 1024;

/// Most bytes of one slice that go to the kernel at once.
const MAX_SEND: usize = 1 << 30;

impl<P: StableBytes> Ring<P> {
    /// Accepts connections of this listening socket into direct descriptors from now on:
    /// [`Accepted`](super::Completion::Accepted) for each. When accepting fails,
    /// [`AcceptFailed`](super::Completion::AcceptFailed) says why and accepting pauses until
    /// [`rearm_accept`](Self::rearm_accept). With a full table the kernel takes each next connection only to drop it, so
    /// stop in time.
    ///
    /// # Errors
    /// If the socket's flags cannot be changed. `InvalidInput` if the ring listens already, or has installed sockets:
    /// either the kernel picks the slots or this side does.
    pub fn listen(&mut self, listener: impl Into<OwnedFd>) -> io::Result<()> {
        let all_free = self
            .installable
            .as_ref()
            .is_none_or(|free| free.len() == self.slots.len());
        if self.listener.is_some() || !all_free {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this ring listens, or has installed sockets",
            ));
        }
        let listener = listener.into();
        make_blocking(&listener)?;
        self.installable = None;
        self.listener = Some(listener);
        self.stopped = false;
        self.rearm_accept();
        Ok(())
    }

    /// Goes on accepting after [`AcceptFailed`](super::Completion::AcceptFailed). Nothing happens if accepting never
    /// stopped or the ring does not listen.
    pub fn rearm_accept(&mut self) {
        if let Some(listener) = &self.listener
            && !self.accepting
            && !self.stopped
            && !self.ending
        {
            let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
                .allocate_file_index(true)
                .build();
            self.accepting = true;
            // SAFETY: a multishot accept points to nothing; the descriptor is held open until the accept has ended.
            unsafe {
                self.push(
                    &accept.user_data(Tag::of(Operation::Accept).to_bits()),
                    Operation::Accept,
                )
            }
        }
    }

    /// Accepts no more. Connections that the kernel accepted before it heard of it are still reported. The listening
    /// socket is closed once the kernel is done with it.
    pub fn stop_listening(&mut self) {
        if !self.accepting {
            self.listener = None;
        } else if !self.stopped {
            // The descriptor stays open until the accept has ended: its submission may still be in the queue.
            self.stopped = true;
            self.cancel(Tag::of(Operation::Accept));
        }
    }

    /// Moves a socket into the table of direct descriptors; its regular descriptor is closed.
    ///
    /// # Errors
    /// `InvalidInput` on a ring that has listened (see [`listen`](Self::listen)), `QuotaExceeded` if the table is full,
    /// and those of `io_uring_register(2)`.
    pub fn install(&mut self, socket: impl Into<OwnedFd>) -> io::Result<Slot> {
        let socket = socket.into();
        make_blocking(&socket)?;
        let Some(free) = &mut self.installable else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a ring that has listened cannot install",
            ));
        };
        let Some(&slot) = free.last() else {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the table of direct descriptors is full",
            ));
        };
        self.uring
            .submitter()
            .register_files_update(slot.0, &[socket.as_raw_fd()])?;
        free.pop();
        self.slots[slot.index()].open();
        Ok(slot)
    }

    /// Connects an installed socket; [`Connected`](super::Completion::Connected) follows.
    ///
    /// # Panics
    /// If the slot is not open, or is connecting.
    pub fn connect(&mut self, slot: Slot, address: SocketAddr) {
        let tag = self.tag(slot, Operation::Connect);
        let state = &mut self.slots[slot.index()];
        assert!(!state.connecting, "{slot:?} is connecting");
        state.connecting = true;
        let address = SockAddr::from(address);
        // SAFETY: `address` outlives the use, and its storage has the layout of `sockaddr_storage`.
        let storage = unsafe { *address.as_ptr().cast::<libc::sockaddr_storage>() };
        self.make_room();
        let stored = self.addresses.store([storage].into_iter());
        let connect =
            opcode::Connect::new(Fixed(slot.0), stored.cast_const().cast(), address.len()).build();
        // SAFETY: the address stays in the arena until the kernel has taken the submission, which copies it.
        unsafe { self.enqueue(&connect.user_data(tag.to_bits()), Operation::Connect) }
    }

    /// Receives from now on: [`Received`](super::Completion::Received) for each arrival, in order, until
    /// [`ReceiveEnded`](super::Completion::ReceiveEnded). Stays armed by itself, also when buffers run out.
    ///
    /// # Panics
    /// If the slot is not open, or is receiving.
    pub fn recv(&mut self, slot: Slot) {
        let _ = self.tag(slot, Operation::Receive);
        let state = &mut self.slots[slot.index()];
        assert!(!state.receiving, "{slot:?} is receiving");
        state.receiving = true;
        state.receive_cancelled = false;
        self.arm_receive(slot);
    }

    pub(super) fn arm_receive(&mut self, slot: Slot) {
        let generation = self.slots[slot.index()].generation;
        let receive = if self.techniques.multishot_recv {
            opcode::RecvMulti::new(Fixed(slot.0), GROUP).build()
        } else {
            // Length zero: as much as the buffer holds.
            let receive = opcode::Recv::new(Fixed(slot.0), std::ptr::null_mut(), 0)
                .buf_group(GROUP)
                .build();
            receive.flags(squeue::Flags::BUFFER_SELECT)
        };
        let tag = Tag::new(Operation::Receive, generation, slot.0);
        // SAFETY: the kernel writes only to the registered buffers, which outlive every operation of the ring.
        unsafe { self.push(&receive.user_data(tag.to_bits()), Operation::Receive) }
    }

    /// Receives no more; [`ReceiveEnded`](super::Completion::ReceiveEnded) follows, after what has arrived before.
    /// Nothing happens if the slot is not receiving.
    ///
    /// # Panics
    /// If the slot is not open.
    pub fn stop_recv(&mut self, slot: Slot) {
        let tag = self.tag(slot, Operation::Receive);
        let state = &mut self.slots[slot.index()];
        if state.receiving && !state.receive_cancelled {
            state.receive_cancelled = true;
            self.cancel(tag);
        }
    }

    /// Sends a payload, however long; [`Sent`](super::Completion::Sent) gives it back when the kernel has taken all of
    /// it, or the connection has failed. One at a time: what comes meanwhile is the caller's to collect.
    ///
    /// # Panics
    /// If the slot is not open or is sending.
    pub fn send(&mut self, slot: Slot, payload: P) {
        let _ = self.tag(slot, Operation::Send);
        let state = &mut self.slots[slot.index()];
        assert!(state.sending.is_none(), "{slot:?} is sending");
        state.sending = Some(Sending::new(payload));
        self.arm_send(slot);
    }

    /// Hands what is left of the slot's payload to the kernel.
    ///
    /// A short send comes back here instead of going on in the kernel (`MSG_WAITALL`): there a send that has waited 128
    /// times for a slow reader moves to a thread of its own, and slow readers may not cost threads.
    pub(super) fn arm_send(&mut self, slot: Slot) {
        self.make_room();
        let state = &self.slots[slot.index()];
        let sending = state
            .sending
            .as_ref()
            .expect("the callers have just put it there, or seen it");
        let (first, skip) = sending.position();
        let slices = sending.payload.slice_count() - first;
        // No SIGPIPE when the peer is gone.
        let flags = libc::MSG_NOSIGNAL;
        let send = if slices <= 1 {
            let bytes = if slices == 0 {
                &[]
            } else {
                &sending.payload.slice(first)[skip..]
            };
            let len = bytes.len().min(MAX_SEND) as u32;
            opcode::Send::new(Fixed(slot.0), bytes.as_ptr(), len)
                .flags(flags)
                .build()
        } else {
            let slices = slices.min(MAX_SLICES);
            let iovecs = self.iovecs.store((first..first + slices).map(|index| {
                let bytes = &sending.payload.slice(index)[if index == first { skip } else { 0 }..];
                libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                }
            }));
            // SAFETY: a message header is plain integers and pointers, for all of which zero is a value. Zeroed because
            // some C libraries have private padding fields in it.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_iov = iovecs;
            // The type differs between C libraries; 1024 fits each.
            header.msg_iovlen = slices as _;
            let header = self.headers.store([header].into_iter());
            opcode::SendMsg::new(Fixed(slot.0), header.cast_const())
                .flags(flags as u32)
                .build()
        };
        let tag = Tag::new(Operation::Send, state.generation, slot.0);
        // SAFETY: the bytes are stable (the contract of `StableBytes`) and owned by the slot until the last completion,
        // or leaked. Header and iovecs stay in the arena until the kernel has taken the submission. It copies both when
        // it prepares the message, before or at its first attempt, and keeps the copy for later attempts.
        unsafe { self.enqueue(&send.user_data(tag.to_bits()), Operation::Send) }
    }

    /// Says to the peer that nothing more will be sent, once what is in the socket has gone. Do it after
    /// [`Sent`](super::Completion::Sent). The kernel uses a helper thread for it: not for every message.
    ///
    /// # Panics
    /// If the slot is not open.
    pub fn shutdown_write(&mut self, slot: Slot) {
        let _ = self.tag(slot, Operation::Shutdown);
        self.shutdown(slot, libc::SHUT_WR);
    }

    fn shutdown(&mut self, slot: Slot, how: i32) {
        let state = &mut self.slots[slot.index()];
        state.shutdowns += 1;
        let tag = Tag::new(Operation::Shutdown, state.generation, slot.0);
        let shutdown = opcode::Shutdown::new(Fixed(slot.0), how).build();
        // SAFETY: points to nothing.
        unsafe { self.push(&shutdown.user_data(tag.to_bits()), Operation::Shutdown) }
    }

    /// Closes the socket. What is in flight is cancelled. [`Closed`](super::Completion::Closed) follows when all of it
    /// has ended; until then the slot is not reused, and the only other completion it may yield is the
    /// [`Sent`](super::Completion::Sent) that gives a payload back.
    ///
    /// # Panics
    /// If the slot is not open.
    pub fn close(&mut self, slot: Slot) {
        let _ = self.tag(slot, Operation::Close);
        self.slots[slot.index()].phase = Phase::Ending;
        self.cancel_all_of(slot);
        self.close_if_idle(slot);
    }

    /// Takes the next step of closing once nothing else is in flight on the slot.
    pub(super) fn close_if_idle(&mut self, slot: Slot) {
        let prompt = self.features().prompt_close;
        let state = &mut self.slots[slot.index()];
        if !state.is_idle() || self.ending {
            return;
        }
        match state.phase {
            Phase::Ending if !prompt => {
                state.phase = Phase::ShuttingDown;
                self.shutdown(slot, libc::SHUT_RDWR);
            }
            Phase::Ending | Phase::ShuttingDown => {
                state.phase = Phase::Closing;
                let tag = Tag::new(Operation::Close, state.generation, slot.0);
                let close = opcode::Close::new(Fixed(slot.0))
                    .build()
                    .user_data(tag.to_bits());
                // SAFETY: points to nothing.
                unsafe { self.push(&close, Operation::Close) }
            }
            Phase::Free | Phase::Open | Phase::Closing => {}
        }
    }

    /// Wakes another ring with the next submit: it reports [`Woken`](super::Completion::Woken). Does nothing if that
    /// ring is gone.
    pub fn wake(&mut self, other: &Waker) {
        if !self.techniques.message_wake {
            return other.wake();
        }
        if let Some(ring) = other.ring() {
            let woken = Tag::of(Operation::Woken).to_bits();
            let message = opcode::MsgRingData::new(Fd(ring), 0, woken, None).build();
            let message = message.flags(squeue::Flags::SKIP_SUCCESS);
            // SAFETY: points to nothing; a descriptor that is no ring any more fails the message.
            unsafe {
                self.push(
                    &message.user_data(Tag::of(Operation::Notify).to_bits()),
                    Operation::Notify,
                )
            }
        }
    }

    /// Cancels what is in flight on every slot, each by its tag: the kernel finds it by its hash. To cancel "any" it goes
    /// through all it has cancelled before, which takes seconds with ten thousand connections.
    pub(super) fn cancel_all_of_slots(&mut self) {
        for index in 0..self.slots.len() as u32 {
            self.cancel_all_of(Slot(index));
        }
    }

    fn cancel_all_of(&mut self, slot: Slot) {
        let state = &self.slots[slot.index()];
        let in_flight = [
            (
                state.receiving && !state.receive_cancelled,
                Operation::Receive,
            ),
            (state.sending.is_some(), Operation::Send),
            (state.connecting, Operation::Connect),
        ];
        let generation = state.generation;
        for (_, operation) in in_flight.into_iter().filter(|(is, _)| *is) {
            self.cancel(Tag::new(operation, generation, slot.0));
        }
    }

    fn cancel(&mut self, target: Tag) {
        let cancel = opcode::AsyncCancel::new(target.to_bits())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        let tag = Tag {
            operation: Operation::Cancel,
            ..target
        };
        // SAFETY: points to nothing.
        unsafe { self.push(&cancel.user_data(tag.to_bits()), Operation::Cancel) }
    }

    /// The tag for an operation on an open slot.
    fn tag(&self, slot: Slot, operation: Operation) -> Tag {
        let state = &self.slots[slot.index()];
        assert_eq!(state.phase, Phase::Open, "{operation:?} on {slot:?}");
        Tag::new(operation, state.generation, slot.0)
    }
}

/// The ring waits for sockets by itself; one in non-blocking mode makes it fail with `EAGAIN` instead.
fn make_blocking(socket: &OwnedFd) -> io::Result<()> {
    socket2::SockRef::from(&socket.as_fd()).set_nonblocking(false)
}
