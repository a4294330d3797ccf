//! Waking the owner of mailboxes exactly when it sleeps.

use crossbeam::utils::CachePadded;

use crate::ring::sync::{AtomicBool, Ordering, fence};

/// Says whether the owner of some mailboxes is asleep. Shared by the owner and all who send to it.
///
/// # Why no wake-up is lost
/// The owner writes "asleep", then reads the mailboxes. A sender writes to a mailbox, then reads "asleep". Each has a
/// sequentially consistent fence between its two steps, and such fences have one order. If the owner's comes first, the
/// sender reads "asleep" and wakes the owner. If the sender's comes first, the owner finds the mail and stays up. Both
/// may happen, which costs a needless wake-up; neither cannot. Without the second look at the mailboxes, or without
/// either fence, both sides could read the old values, and the mail would lie there until something else woke the owner.
#[derive(Debug)]
pub struct Doorbell {
    asleep: CachePadded<AtomicBool>,
}

impl Doorbell {
    /// A doorbell whose owner is awake.
    #[must_use]
    pub fn new() -> Self {
        Self {
            asleep: CachePadded::new(AtomicBool::new(false)),
        }
    }

    /// The owner is about to sleep. It must look at all of its mailboxes after this and before it sleeps, and stay up if
    /// one of them has mail.
    pub fn arm(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner is up again. Spares its senders needless wake-ups; a wake-up that is on its way comes all the same.
    pub fn disarm(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// A sender has put mail. True if the owner sleeps, or is about to: then the caller, and no other sender, must wake
    /// it. Call it after the last letter of a batch.
    #[must_use = "if true, the owner sleeps until it is woken"]
    #[inline]
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // The plain read first: an owner that is up, which is the usual case under load, costs no write to its line.
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
    }
}
