//! tickring: loadgen.
#![forbid(unsafe_code)]
