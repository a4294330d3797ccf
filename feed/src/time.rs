//! Times as text.

/// Reads a time as nanoseconds since 1970-01-01 UTC:
///
/// - `2013-01-01 22:00:00.295000+00:00`: date, blank or `T`, time with up to nine decimals of
///   seconds, then `Z`, an offset `+hh:mm`, or nothing for UTC;
/// - an integer of seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by
///   its size: below 10^11, 10^14, 10^17, or larger.
///
/// `None` when the text is neither, or the time is before 1970 or beyond 2554.
///
/// ```
/// use tickring_feed::parse_timestamp;
///
/// assert_eq!(parse_timestamp("1970-01-02 00:00:00.5+01:00"), Some(82_800_500_000_000));
/// assert_eq!(parse_timestamp("1723161256322"), Some(1_723_161_256_322_000_000));
/// assert_eq!(parse_timestamp("yesterday"), None);
/// ```
pub fn parse_timestamp(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return since_epoch(text.parse().ok()?);
    }
    let bytes = text.as_bytes();
    let date = bytes.get(..10)?;
    let [b'T' | b't' | b' '] = bytes.get(10..11)? else {
        return None;
    };
    let clock = bytes.get(11..19)?;
    if [date[4], date[7], clock[2], clock[5]] != *b"--::" {
        return None;
    }
    let (year, month, day) = (
        digits(&date[..4])?,
        digits(&date[5..7])?,
        digits(&date[8..])?,
    );
    let (hour, minute, second) = (
        digits(&clock[..2])?,
        digits(&clock[3..5])?,
        digits(&clock[6..])?,
    );
    // A leap second (:60) counts as the first second of the next minute, as in POSIX time.
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ns, zone) = fraction(&bytes[19..])?;
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let utc = u64::try_from(seconds.checked_sub(offset(zone)?)?).ok()?;
    utc.checked_mul(1_000_000_000)?.checked_add(fraction_ns)
}

fn since_epoch(value: u64) -> Option<u64> {
    let unit_ns = match value.checked_ilog10().unwrap_or(0) {
        0..=10 => 1_000_000_000,
        11..=13 => 1_000_000,
        14..=16 => 1000,
        _ => 1,
    };
    value.checked_mul(unit_ns)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, b| {
        b.is_ascii_digit().then(|| value * 10 + i64::from(b - b'0'))
    })
}

/// Nanoseconds of an optional `.123`, and what lies behind it.
fn fraction(text: &[u8]) -> Option<(u64, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (decimals, zone) = rest.split_at(len);
    if !(1..=9).contains(&len) {
        return None;
    }
    let scale = 10_u64.pow(9 - len as u32);
    Some((digits(decimals)?.unsigned_abs() * scale, zone))
}

/// Seconds east of UTC of `Z`, `+hh:mm` or nothing.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] if hours.len() == 2 => {
            let (hours, minutes) = (digits(hours)?, digits(&[*m1, *m2])?);
            let east = hours * 3600 + minutes * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let whole_years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let whole_months: i64 = (1..month).map(|m| days_in(year, m)).sum();
    whole_years + whole_months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times_are_read() {
        for (text, ns) in [
            ("1970-01-01T00:00:00Z", 0),
            (
                "2013-01-01 22:00:00.295000+00:00",
                1_357_077_600_295_000_000,
            ),
            ("2000-02-29T12:00:00", 951_825_600_000_000_000),
            ("2024-08-08T23:54:16.322000001Z", 1_723_161_256_322_000_001),
            ("2024-08-09 01:54:16+02:00", 1_723_161_256_000_000_000),
            ("1970-01-01 00:00:00-05:30", 19_800_000_000_000),
            ("1723161256", 1_723_161_256_000_000_000),
            ("1723161256322", 1_723_161_256_322_000_000),
            ("1723161256322001", 1_723_161_256_322_001_000),
            ("1723161256322001002", 1_723_161_256_322_001_002),
            ("0", 0),
        ] {
            assert_eq!(parse_timestamp(text), Some(ns), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-1",
            "1969-12-31T23:59:59Z",
            "1970-01-01 00:00:00+00:01",
            "2023-02-29 00:00:00",
            "2023-13-01 00:00:00",
            "2023-00-01 00:00:00",
            "2023-01-01",
            "2023-01-01 24:00:00",
            "2023-01-01 00:60:00",
            "2023-01-01 00:00:00.",
            "2023-01-01 00:00:00.1234567890",
            "2023-01-01 00:00:00 UTC",
            "2023-01-01 00:00:00+1:00",
            "2023/01/01 00:00:00",
            "99999999999999999999",
            "2023-01-01 00:00:0é",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,40}", like in "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.+Z-]{0,25}") {
            let _ = parse_timestamp(&text);
            let _ = parse_timestamp(&like);
        }

        #[test]
        fn each_day_is_a_day_after_the_one_before(day in 0..200_000_u64) {
            // Walks the calendar by its own rules up to the day.
            let (mut year, mut month, mut left) = (1970, 1, day as i64);
            loop {
                let (in_year, in_month) = (if is_leap(year) { 366 } else { 365 }, days_in(year, month));
                if month == 1 && left >= in_year {
                    left -= in_year;
                    year += 1;
                } else if left >= in_month {
                    left -= in_month;
                    month += 1;
                } else {
                    break;
                }
            }
            let text = format!("{year:04}-{month:02}-{:02} 00:00:00", left + 1);
            prop_assert_eq!(parse_timestamp(&text), Some(day * 86_400_000_000_000));
        }
    }
}
