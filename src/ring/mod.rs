//! The one unsafe room: io_uring behind a small safe API.
#![allow(unsafe_code)]
