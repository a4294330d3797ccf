//! When a recorded tick is due.

use std::time::Duration;

/// How fast to replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was recorded.
    Times(f64),
    /// Without waiting.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse() {
            Ok(times) if f64::is_finite(times) && times > 0.0 => Ok(Self::Times(times)),
            _ => Err("a speed is `max` or a number above 0, such as 1 or 10"),
        }
    }
}

/// Turns the times of a recording into times since the start of its replay. It reads no clock.
///
/// ```
/// use std::time::Duration;
/// use tickring_feed::{Pace, Speed};
///
/// let mut pace = Pace::new(Speed::Times(10.0));
/// assert_eq!(pace.due(1_000_000_000), Duration::ZERO);
/// assert_eq!(pace.due(6_000_000_000), Duration::from_millis(500));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    speed: Speed,
    start_ns: Option<u64>,
    due: Duration,
}

impl Pace {
    /// A replay that has not begun.
    pub const fn new(speed: Speed) -> Self {
        Self {
            speed,
            start_ns: None,
            due: Duration::ZERO,
        }
    }

    /// When the tick received at `received_ns` is due, counted from the first tick, which is due
    /// at once. Never sooner than the tick before it, also where the recorder's clock was set
    /// back.
    pub fn due(&mut self, received_ns: u64) -> Duration {
        let start_ns = *self.start_ns.get_or_insert(received_ns);
        if let Speed::Times(times) = self.speed {
            let elapsed = Duration::from_nanos(received_ns.saturating_sub(start_ns));
            let due = Duration::try_from_secs_f64(elapsed.as_secs_f64() / times);
            self.due = self.due.max(due.unwrap_or(Duration::MAX));
        }
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards() {
        let mut pace = Pace::new(Speed::Times(2.0));
        let due: Vec<_> = [4_000, 10_000, 2_000, 11_000].map(|ns| pace.due(ns)).into();
        assert_eq!(due, [0, 3_000, 3_000, 3_500].map(Duration::from_nanos));
    }

    #[test]
    fn at_full_speed_everything_is_due_at_once() {
        let mut pace = Pace::new(Speed::Max);
        assert_eq!([pace.due(5), pace.due(u64::MAX)], [Duration::ZERO; 2]);
    }

    #[test]
    fn speeds_are_numbers_above_zero_or_max() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for bad in ["0", "-1", "inf", "NaN", "", "fast"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_crawl_is_due_at_the_end_of_time_and_no_panic() {
        let mut pace = Pace::new(Speed::Times(f64::MIN_POSITIVE));
        pace.due(0);
        assert_eq!(pace.due(u64::MAX), Duration::MAX);
    }
}
