//! When each message is due, and how to be there in time without burning a core.

use crate::clock::now_ns;

/// An open-loop schedule: message `i` is due `i / rate` seconds after the start, whatever became
/// of the messages before it.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    total: u64,
}

impl Schedule {
    /// `rate` messages a second (above 0) for `seconds`, from `start_ns` on.
    pub fn new(start_ns: u64, rate: f64, seconds: f64) -> Self {
        Self {
            start_ns,
            interval_ns: 1e9 / rate,
            total: (rate * seconds).round() as u64,
        }
    }

    /// How many messages there are in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When message `index` is due.
    #[inline]
    pub fn due_ns(&self, index: u64) -> u64 {
        // Exact to the nanosecond for 2^53 ns (104 days) of schedule.
        self.start_ns + (index as f64 * self.interval_ns) as u64
    }

    /// How long before a message is due the thread should be awake, at most: waking up takes a
    /// timer and the kernel's scheduler some microseconds, which a short spin hides. A fifth of
    /// the interval caps it, so that spinning never takes more than that share of the core.
    pub fn spin_ns(&self) -> u64 {
        MAX_SPIN_NS.min((self.interval_ns / 5.0) as u64)
    }
}

/// The most that is spun for one message.
const MAX_SPIN_NS: u64 = 30_000;

/// Spins until `due_ns`, which must be near.
pub fn spin_until(due_ns: u64) {
    while now_ns() < due_ns {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_evenly_from_the_start() {
        let schedule = Schedule::new(1_000, 10_000.0, 2.0);
        assert_eq!(schedule.total(), 20_000);
        assert_eq!(schedule.due_ns(0), 1_000);
        assert_eq!(schedule.due_ns(3), 301_000);
        assert_eq!(schedule.due_ns(19_999), 1_999_901_000);
    }

    #[test]
    fn spinning_takes_a_fifth_of_the_time_at_most() {
        assert_eq!(Schedule::new(0, 100_000.0, 1.0).spin_ns(), 2_000);
        assert_eq!(Schedule::new(0, 10.0, 1.0).spin_ns(), MAX_SPIN_NS);
    }
}
