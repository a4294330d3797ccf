//! The writer pool: what happens to events once they are made, off the cores' loops; and how they
//! are read back.

pub mod follow;
pub mod projection;
pub mod read;
pub mod store;
