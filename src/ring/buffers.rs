//! Receive buffers that all sockets of a ring share: the kernel takes one when bytes arrive, not before.
//!
//! Plain buffers: each arrival takes a whole buffer. Incremental buffers: arrivals fill a buffer one after the other, and
//! it comes back when it is full. The kernel does not say where in the buffer an arrival begins, so the pool counts. That
//! count is right because completions are posted in the order in which the bytes were placed: a multishot receive posts
//! its completion right away, except when the completion queue is full, and then all later ones queue up behind it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::{BufRingEntry, IOU_PBUF_RING_INC};

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;
/// The kernel wants its ring of buffers on a page boundary.
const PAGE: usize = 4096;

/// A zeroed, page-aligned block that is freed when dropped.
#[derive(Debug)]
struct Pages {
    base: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(PAGE), PAGE)
            .expect("at most 32,768 buffers of u32 bytes");
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        Self {
            base: NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout)),
            layout,
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// The buffers and the ring by which they go to the kernel.
///
/// The owner must keep it until no receive is in flight: the kernel writes to it.
#[derive(Debug)]
pub(super) struct Buffers {
    ring: Pages,
    bytes: Pages,
    count: u16,
    len: u32,
    /// Where the next arrival begins, by buffer. Stays zero for plain buffers.
    filled: Box<[u32]>,
    incremental: bool,
    /// What the kernel will see as the tail after the next [`publish`](Self::publish).
    tail: u16,
    published: u16,
}

impl Buffers {
    /// Allocates `count` buffers (a power of two, at most 32,768) of `len` bytes and gives all of them to the kernel.
    pub(super) fn register(
        uring: &IoUring,
        count: u16,
        len: u32,
        incremental: bool,
    ) -> io::Result<Self> {
        assert!(
            count.is_power_of_two() && count <= 1 << 15 && len > 0,
            "checked by the caller"
        );
        let mut buffers = Self {
            ring: Pages::new(usize::from(count) * size_of::<BufRingEntry>()),
            bytes: Pages::new(usize::from(count) * len as usize),
            count,
            len,
            filled: vec![0; usize::from(count)].into(),
            incremental,
            tail: 0,
            published: 0,
        };
        let flags = if incremental {
            IOU_PBUF_RING_INC as u16
        } else {
            0
        };
        let address = buffers.ring.base.as_ptr().addr() as u64;
        // SAFETY: the memory is page-aligned, holds `count` entries, and the owner keeps it as the type demands.
        unsafe {
            uring
                .submitter()
                .register_buf_ring_with_flags(address, count, GROUP, flags)?
        };
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The `len` bytes that the kernel has just placed in buffer `id`.
    #[inline]
    pub(super) fn arrived(&self, id: u16, len: u32) -> &[u8] {
        let start = self.filled[usize::from(id)];
        assert!(
            len <= self.len - start,
            "the kernel wrote past the end of a receive buffer"
        );
        // SAFETY: within the block, as asserted. Initialised: zeroed at first, written by the kernel since. The kernel
        // does not write to it again before `consumed`, which needs `&mut self`.
        unsafe {
            let first = self
                .bytes
                .base
                .as_ptr()
                .add(usize::from(id) * self.len as usize + start as usize);
            std::slice::from_raw_parts(first, len as usize)
        }
    }

    /// The bytes of that arrival have been read. `more`: the kernel goes on filling the buffer.
    #[inline]
    pub(super) fn consumed(&mut self, id: u16, len: u32, more: bool) {
        if !self.incremental {
            self.give_back(id);
        } else if len == 0 {
            // The end of a stream may name a buffer though it takes nothing from it, and not every kernel says "more"
            // then. Giving the buffer back would hand it to the kernel twice.
        } else if more {
            self.filled[usize::from(id)] += len;
        } else {
            self.give_back(id);
        }
    }

    fn give_back(&mut self, id: u16) {
        self.filled[usize::from(id)] = 0;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` is below `count`, the entries are in our block, and the kernel looks at this entry only after
        // `publish`. The entry's tail field (entry 0) is not written by these setters.
        let entry = unsafe { &mut *self.ring.base.as_ptr().cast::<BufRingEntry>().add(index) };
        // SAFETY: `id` is below `count`: it came from the kernel, which was given only such ids, and indexed `filled`.
        let first = unsafe {
            self.bytes
                .base
                .as_ptr()
                .add(usize::from(id) * self.len as usize)
        };
        entry.set_addr(first.addr() as u64);
        entry.set_len(self.len);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given back. Once per batch of completions.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.tail == self.published {
            return;
        }
        // SAFETY: the base of a registered ring, valid while `self` is.
        let tail = unsafe { BufRingEntry::tail(self.ring.base.as_ptr().cast::<BufRingEntry>()) };
        // SAFETY: aligned for u16, valid while `self` is, and shared only with the kernel, which reads it atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entries are in place before the kernel sees the tail.
        tail.store(self.tail, Ordering::Release);
        self.published = self.tail;
    }
}

/// Whether this kernel has incremental buffers: it refuses the flag if not. Leaves the ring without a buffer group.
pub(super) fn incremental_supported(uring: &IoUring) -> bool {
    let registered = Buffers::register(uring, 1, 64, true);
    // No operation has been submitted to this ring, so nothing can be writing to the buffers that are freed here.
    registered.is_ok() && uring.submitter().unregister_buf_ring(GROUP).is_ok()
}
