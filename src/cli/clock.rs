//! Times for people: UTC, from nanoseconds since 1970-01-01.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tickring_client::protocol::Date;

const DAY_SECONDS: u64 = 86_400;

/// Nanoseconds since 1970-01-01 UTC.
pub(super) fn wall_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Date and time of day in UTC, `2024-08-08 09:41:23.123456`, of nanoseconds since 1970-01-01.
pub(super) fn utc(ns: u64) -> String {
    let days = (ns / 1_000_000_000 / DAY_SECONDS) as i32; // 2^64 ns are 213,503 days
    format!("{} {}", Date(days), TimeOfDay(ns))
}

/// Date and time of day in UTC to the second, `2024-08-08 09:41:23`.
pub(super) fn utc_seconds(ns: u64) -> String {
    let mut text = utc(ns);
    text.truncate(text.len() - ".000000".len());
    text
}

/// The time of day in UTC to the microsecond, `09:41:23.123456`, of nanoseconds since 1970-01-01.
pub(super) struct TimeOfDay(pub(super) u64);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (
            self.0 / 1_000_000_000 % DAY_SECONDS,
            self.0 / 1000 % 1_000_000,
        );
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(f, "{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_shown_to_the_microsecond() {
        assert_eq!(
            TimeOfDay(1_723_161_256_322_000_999).to_string(),
            "23:54:16.322000"
        );
    }
}
