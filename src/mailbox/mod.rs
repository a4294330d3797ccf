//! Mailboxes: bounded lock-free rings from one thread to another, and the doorbell that wakes a sleeping owner.
//!
//! A core owns one [`Receiver`] for each thread that sends to it, and one [`Doorbell`] for all of them. A sender puts
//! mail with [`Sender::try_send`] and calls [`Doorbell::ring`] once per batch; only if that says so does it pay for
//! waking the owner. The owner goes to sleep like this:
//!
//! ```
//! # let (_sender, receiver) = tickring::mailbox::channel::<u32>(8);
//! # let doorbell = tickring::mailbox::Doorbell::new();
//! doorbell.arm();
//! if receiver.is_empty() {
//!     // Sleep in the kernel. Mail that comes from now on finds the doorbell armed, and wakes.
//! }
//! doorbell.disarm();
//! ```

mod channel;
mod doorbell;

pub use channel::{Receiver, Sender, channel};
pub use doorbell::Doorbell;

#[cfg(test)]
#[cfg(loom)]
mod model;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
