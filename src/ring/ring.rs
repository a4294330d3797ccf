//! The ring itself: set-up, submission, end.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};

use super::arena::Arena;
use super::buffers::{Buffers, GROUP};
use super::slots::{Slot, SlotState};
use super::tag::{Operation, Tag};
use super::{Features, RingConfig, RingError, StableBytes, Techniques, Waker, machine, probe};

/// How long a ring that goes away waits for the kernel to give back its memory. After that the memory is leaked.
const DRAIN: Duration = Duration::from_secs(2);

/// One thread's io_uring, with its sockets, its receive buffers and the payloads that it is sending.
///
/// See the [module](super) for how to use it. Not `Send`: the kernel ties the ring to the thread that made it.
pub struct Ring<P: StableBytes> {
    pub(super) uring: IoUring,
    /// Submissions that found the queue full while the kernel would take no more. Empty but in trouble.
    backlog: VecDeque<squeue::Entry>,
    /// Operations with the kernel whose last completion is still to come.
    pub(super) outstanding: usize,
    /// The ring is going away: nothing is armed again.
    pub(super) ending: bool,

    // The kernel writes to or reads from these while operations are in flight.
    pub(super) slots: ManuallyDrop<Box<[SlotState<P>]>>,
    pub(super) buffers: ManuallyDrop<Buffers>,
    event: ManuallyDrop<Box<[u8; 8]>>,

    // The kernel reads these until it has taken the submission that points to them.
    pub(super) iovecs: Arena<libc::iovec>,
    pub(super) headers: Arena<libc::msghdr>,
    pub(super) addresses: Arena<libc::sockaddr_storage>,

    pub(super) listener: Option<OwnedFd>,
    pub(super) accepting: bool,
    pub(super) stopped: bool,
    /// Slots that the kernel does not know to be free because this side picks them; None once the ring has listened.
    pub(super) installable: Option<Vec<Slot>>,
    /// Slots whose receive ended for want of a buffer.
    pub(super) starved: Vec<Slot>,

    waker: Waker,
    pub(super) features: Features,
    pub(super) techniques: Techniques,
    /// Not `Send`, not `Sync`.
    thread: PhantomData<*mut ()>,
}

impl<P: StableBytes> Ring<P> {
    /// Makes a ring that belongs to the calling thread.
    ///
    /// # Errors
    /// Those of [`probe`], a field out of its bounds, or a table larger than the open file limit.
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        check(config)?;
        let features = probe()?;
        let asked = config.techniques;
        let techniques = Techniques {
            // An arrival's place in a shared buffer follows from the order of completions, which only multishot
            // receives guarantee (see `buffers`).
            incremental_buffers: asked.incremental_buffers
                && asked.multishot_recv
                && features.incremental_buffers,
            ..asked
        };
        let uring = build(config, techniques).map_err(RingError::system("creating the ring"))?;
        uring
            .submitter()
            .register_files_sparse(config.descriptors)
            .map_err(RingError::system(
                "registering the table of direct descriptors",
            ))?;
        let incremental = techniques.incremental_buffers;
        let buffers = Buffers::register(
            &uring,
            config.recv_buffers,
            config.recv_buffer_len,
            incremental,
        )
        .map_err(RingError::system("registering the receive buffers"))?;
        let waker =
            Waker::new(uring.as_raw_fd()).map_err(RingError::system("creating an eventfd"))?;
        let mut ring = Self {
            uring,
            backlog: VecDeque::new(),
            outstanding: 0,
            ending: false,
            slots: ManuallyDrop::new((0..config.descriptors).map(|_| SlotState::new()).collect()),
            buffers: ManuallyDrop::new(buffers),
            event: ManuallyDrop::new(Box::new([0; 8])),
            iovecs: Arena::new(),
            headers: Arena::new(),
            addresses: Arena::new(),
            listener: None,
            accepting: false,
            stopped: false,
            installable: Some((0..config.descriptors).rev().map(Slot).collect()),
            starved: Vec::new(),
            waker,
            features,
            techniques,
            thread: PhantomData,
        };
        ring.await_event();
        Ok(ring)
    }

    /// What the kernel has.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What is in use: what was asked for, less what the kernel lacks.
    pub fn techniques(&self) -> Techniques {
        self.techniques
    }

    /// The name of this ring, for those who may have to wake it.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Hands what is queued to the kernel without waiting. No system call if nothing is queued.
    ///
    /// # Errors
    /// Those of `io_uring_enter(2)` that mean a broken ring; passing trouble (interrupted, busy, out of memory) is none,
    /// the entries stay queued.
    pub fn submit(&mut self) -> io::Result<()> {
        self.drain_backlog()?;
        if self.uring.submission().is_empty() {
            Ok(())
        } else {
            self.enter(0, EnterFlags::empty(), None)
        }
    }

    /// Hands what is queued to the kernel and waits for a completion, in one system call. Returns early if there is one
    /// already. `None` waits for ever, zero does not wait but collects what is ready.
    ///
    /// # Errors
    /// As [`submit`](Self::submit). That the time is over is no error.
    pub fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.drain_backlog()?;
        let ready = !self.uring.completion().is_empty() || !self.backlog.is_empty();
        let want = if ready || timeout == Some(Duration::ZERO) {
            0
        } else {
            1
        };
        // Deferred completion work runs, and overflown completions are moved, only by an enter that asks for events.
        self.enter(
            want,
            EnterFlags::GETEVENTS,
            if want == 0 { None } else { timeout },
        )
    }

    /// As [`submit_and_wait`](Self::submit_and_wait), but returns when `pause` is over, however much completes before:
    /// what comes meanwhile wakes nobody, and is found together.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_and_gather(&mut self, pause: Duration) -> io::Result<()> {
        self.drain_backlog()?;
        // The kernel takes it as a signed number, and caps it at the length of the completion queue.
        self.enter(i32::MAX as u32, EnterFlags::GETEVENTS, Some(pause))
    }

    /// Hands what is queued to the kernel and looks for a completion for `window`, without sleeping. Whether there is one.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_and_spin(&mut self, window: Duration) -> io::Result<bool> {
        self.submit_and_wait(Some(Duration::ZERO))?;
        let end = Instant::now() + window;
        loop {
            if !self.uring.completion().is_empty() || !self.backlog.is_empty() {
                return Ok(true);
            }
            if self.uring.submission().taskrun() {
                self.enter(0, EnterFlags::GETEVENTS, None)?;
            } else if Instant::now() >= end {
                return Ok(false);
            }
            std::hint::spin_loop();
        }
    }

    /// Queues a submission. Never loses it: a full queue is submitted first.
    ///
    /// # Safety
    /// What the entry points to must stay valid for as long as the kernel uses it. It may not point into the arenas,
    /// which submitting a full queue empties: see [`make_room`](Self::make_room).
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry, operation: Operation) {
        self.make_room();
        // SAFETY: promised by the caller.
        unsafe { self.enqueue(entry, operation) }
    }

    /// Submits a full queue. To be called before something is stored in the arenas for an entry that is enqueued next.
    #[inline]
    pub(super) fn make_room(&mut self) {
        if self.uring.submission().is_full() && self.backlog.is_empty() {
            // A broken ring shows at the next submit of the owner, who can tell; until then the backlog keeps entries.
            let _ = self.enter(0, EnterFlags::empty(), None);
        }
    }

    /// Queues a submission without submitting anything.
    ///
    /// # Safety
    /// What the entry points to must stay valid for as long as the kernel uses it, or be in the arenas.
    pub(super) unsafe fn enqueue(&mut self, entry: &squeue::Entry, operation: Operation) {
        if operation.is_counted() {
            self.outstanding += 1;
        }
        // SAFETY: promised by the caller; the arenas keep what they hold until the kernel has taken every entry.
        if !self.backlog.is_empty() || unsafe { self.uring.submission().push(entry) }.is_err() {
            self.backlog.push_back(entry.clone());
        }
    }

    /// Moves the backlog to the submission queue, in order, as far as the kernel takes it.
    fn drain_backlog(&mut self) -> io::Result<()> {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: promised to `enqueue` when the entry was queued; the arenas are not reset while there is a backlog.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                self.backlog.pop_front();
                continue;
            }
            self.enter(0, EnterFlags::empty(), None)?;
            if self.uring.submission().is_full() {
                break;
            }
        }
        Ok(())
    }

    fn enter(&mut self, want: u32, flags: EnterFlags, timeout: Option<Duration>) -> io::Result<()> {
        let timespec = timeout.map(Timespec::from);
        let args = SubmitArgs::new();
        let args = match &timespec {
            Some(timespec) => args.timespec(timespec),
            None => args,
        };
        let queued = self.uring.submission().len() as u32;
        let flags = flags.union(EnterFlags::EXT_ARG).bits();
        // SAFETY: the argument is what EXT_ARG promises and outlives the call; the entries were vouched for in `enqueue`.
        let result = unsafe {
            self.uring
                .submitter()
                .enter(queued, want, flags, Some(&args))
        };
        if self.backlog.is_empty() && self.uring.submission().is_empty() {
            // The kernel has taken every submission and has copied what they point to (IORING_FEAT_SUBMIT_STABLE).
            self.iovecs.reset();
            self.headers.reset();
            self.addresses.reset();
        }
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Arms the read of the eventfd.
    pub(super) fn await_event(&mut self) {
        let eventfd = Fd(self.waker.eventfd().as_fd().as_raw_fd());
        let read = opcode::Read::new(eventfd, self.event.as_mut_ptr(), 8).build();
        let read = read.user_data(Tag::of(Operation::Event).to_bits());
        // SAFETY: the eight bytes are on the heap and are leaked rather than freed while the read is in flight; the
        // descriptor is held open by `self.waker`.
        unsafe { self.push(&read, Operation::Event) }
    }

    /// Cancels everything and waits until the kernel has let go of the ring's memory. Whether it did in time.
    fn drain(&mut self) -> bool {
        self.ending = true;
        let deadline = Instant::now() + DRAIN;
        self.cancel_all_of_slots();
        loop {
            if self.outstanding == 0 {
                return true;
            }
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            let cancel = cancel.user_data(Tag::of(Operation::Cancel).to_bits());
            // SAFETY: a cancellation points to nothing.
            unsafe { self.push(&cancel, Operation::Cancel) }
            let waited = self.submit_and_wait(Some(Duration::from_millis(50)));
            while self.for_each_completion(usize::MAX, |_| ()) > 0 {}
            if waited.is_err() || Instant::now() > deadline {
                return self.outstanding == 0;
            }
        }
    }
}

impl<P: StableBytes> Drop for Ring<P> {
    fn drop(&mut self) {
        self.waker.forget_ring();
        if !self.drain() {
            // The kernel may still use the payloads, the buffers and the event's bytes: they are never freed.
            return;
        }
        let _ = self.uring.submitter().unregister_buf_ring(GROUP);
        // SAFETY: dropped once, here; no operation is in flight, so the kernel does not use them any more.
        unsafe {
            ManuallyDrop::drop(&mut self.slots);
            ManuallyDrop::drop(&mut self.buffers);
            ManuallyDrop::drop(&mut self.event);
        }
    }
}

impl<P: StableBytes> std::fmt::Debug for Ring<P> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ring")
            .field("outstanding", &self.outstanding)
            .field("techniques", &self.techniques)
            .finish_non_exhaustive()
    }
}

fn build(config: &RingConfig, techniques: Techniques) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_clamp()
        .setup_cqsize(config.cq_entries)
        .setup_single_issuer()
        .setup_submit_all();
    if techniques.coop_taskrun || techniques.defer_taskrun {
        // The flag tells `submit_and_spin` that there is work without asking the kernel.
        builder.setup_coop_taskrun().setup_taskrun_flag();
    }
    if techniques.defer_taskrun {
        builder.setup_defer_taskrun();
    }
    builder.build(config.entries)
}

fn check(config: &RingConfig) -> Result<(), RingError> {
    let refuse = |field, value: u32, bound| {
        Err(RingError::Config {
            field,
            value: value.into(),
            bound,
        })
    };
    if !config.entries.is_power_of_two() || config.entries > 32_768 {
        return refuse("entries", config.entries, "a power of two up to 32768");
    }
    if config.cq_entries < config.entries || config.cq_entries > 65_536 {
        return refuse("cq_entries", config.cq_entries, "between entries and 65536");
    }
    if !config.recv_buffers.is_power_of_two() || config.recv_buffers > 32_768 {
        return refuse(
            "recv_buffers",
            config.recv_buffers.into(),
            "a power of two up to 32768",
        );
    }
    if config.recv_buffer_len == 0 || config.recv_buffer_len > 1 << 24 {
        return refuse(
            "recv_buffer_len",
            config.recv_buffer_len,
            "between 1 and 16 MiB",
        );
    }
    if config.descriptors == 0 || config.descriptors > 1 << 20 {
        return refuse("descriptors", config.descriptors, "between 1 and 1048576");
    }
    let limit = machine::open_file_limit();
    if u64::from(config.descriptors) > limit {
        return Err(RingError::Descriptors {
            asked: config.descriptors,
            limit,
        });
    }
    Ok(())
}
