//! Times for people: UTC, from nanoseconds since 1970-01-01.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// A date of the Gregorian calendar, `2024-08-08`, of days since 1970-01-01.
pub(super) struct Date(pub(super) i32);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Counted in years that begin in March, so that the leap day is a year's last, and in
        // eras of 400 years, after which the calendar repeats.
        let days = i64::from(self.0) + 719_468; // since 0000-03-01
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let months = (5 * day_of_year + 2) / 153; // since March
        let day = day_of_year - (153 * months + 2) / 5 + 1;
        let month = if months < 10 { months + 3 } else { months - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates_across_leap_years_and_centuries() {
        for (days, date) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_782, "2024-02-29"),
            (19_943, "2024-08-08"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(Date(days).to_string(), date);
        }
    }

    #[test]
    fn the_time_of_day_is_shown_to_the_microsecond() {
        assert_eq!(
            TimeOfDay(1_723_161_256_322_000_999).to_string(),
            "23:54:16.322000"
        );
    }
}
