//! The clock that all processes of one machine share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC: the same in every process until the machine restarts, which
/// is what lets one process stamp a message and another one tell its latency.
#[inline]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The clock starts near zero at boot and never runs backwards, so both parts are positive.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
