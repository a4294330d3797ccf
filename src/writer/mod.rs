//! The writer pool: what happens to events once they are made, off the cores' loops.

pub mod follow;
pub mod projection;
pub mod store;
