//! tickring: feed.
#![forbid(unsafe_code)]
