//! tickring: client.
#![forbid(unsafe_code)]
