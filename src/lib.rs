//! tickring: a real-time server for markets and live rooms.

pub mod mailbox;
pub mod ring;
