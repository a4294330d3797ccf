use super::super::{Clock, InstrumentKind, Moment, Session};
use super::*;

fn ns(text: &str) -> u64 {
    text.parse::<jiff::Timestamp>().unwrap().as_nanosecond() as u64
}

fn session(calendar: &str, at: &str) -> &'static str {
    let calendars = Calendars::load(&format!("[instruments]\nX = '{calendar}'")).unwrap();
    calendars.of("X").session_at(ns(at)).0.name()
}

#[test]
fn a_share_has_a_pre_a_regular_and_an_after_session() {
    // New York is at UTC-5 in winter and at UTC-4 in summer.
    for (at, expected) in [
        ("2026-03-02T08:59:59Z", "closed"),
        ("2026-03-02T09:00:00Z", "pre"),
        ("2026-03-02T14:29:59.999999999Z", "pre"),
        ("2026-03-02T14:30:00Z", "regular"),
        ("2026-03-02T20:59:59Z", "regular"),
        ("2026-03-02T21:00:00Z", "after"),
        ("2026-03-03T01:00:00Z", "closed"),
        ("2026-07-06T13:30:00Z", "regular"),
        ("2026-07-06T20:00:00Z", "after"),
    ] {
        assert_eq!(session("us-equity", at), expected, "{at}");
    }
}

#[test]
fn nothing_trades_on_a_holiday_or_a_weekend_and_an_early_close_ends_the_day() {
    assert_eq!(session("us-equity", "2026-12-25T15:00:00Z"), "closed");
    assert_eq!(session("us-equity", "2026-03-01T15:00:00Z"), "closed");
    assert_eq!(session("us-equity", "2026-11-27T17:59:59Z"), "regular");
    assert_eq!(session("us-equity", "2026-11-27T18:00:00Z"), "closed");
    assert_eq!(session("us-equity", "2026-11-27T21:30:00Z"), "closed");
}

#[test]
fn currencies_trade_from_sunday_evening_to_friday_evening() {
    for (at, expected) in [
        ("2026-03-01T21:59:59Z", "closed"),
        ("2026-03-01T22:00:00Z", "regular"),
        ("2026-03-04T03:00:00Z", "regular"),
        ("2026-03-04T22:00:00Z", "regular"),
        ("2026-03-06T21:59:59Z", "regular"),
        ("2026-03-06T22:00:00Z", "closed"),
    ] {
        assert_eq!(session("fx", at), expected, "{at}");
    }
}

#[test]
fn a_future_pauses_for_an_hour_each_day_and_crypto_never() {
    assert_eq!(session("us-future", "2026-03-03T21:59:59Z"), "regular");
    assert_eq!(session("us-future", "2026-03-03T22:30:00Z"), "closed");
    assert_eq!(session("us-future", "2026-03-03T23:00:00Z"), "regular");
    assert_eq!(session("always", "2026-03-01T00:00:00Z"), "regular");
    assert_eq!(session("always", "2026-12-25T23:59:59Z"), "regular");
}

#[test]
fn an_instrument_is_found_by_name_then_by_the_longest_beginning_then_by_default() {
    let calendars = Calendars::load(
        "default = 'us-equity'\n[instruments]\n'E*' = 'us-bond'\n'EUR*' = 'fx'\nEURX = 'us-index'",
    )
    .unwrap();
    let kind = |name| calendars.of(name).kind();
    assert_eq!(kind("EURX"), InstrumentKind::Index);
    assert_eq!(kind("EURUSD"), InstrumentKind::Fx);
    assert_eq!(kind("ESTX"), InstrumentKind::Bond);
    assert_eq!(kind("AAPL"), InstrumentKind::Equity);
    assert_eq!(
        Calendars::built_in().of("AAPL").kind(),
        InstrumentKind::Crypto
    );
}

#[test]
fn a_wrong_file_is_refused_with_the_place_and_what_to_write() {
    let calendar = |body: &str| {
        let head = "[calendars.mine]\nkind = 'bond'\n";
        Calendars::load(&format!("{head}{body}"))
            .unwrap_err()
            .to_string()
    };
    let day = "days = ['mon']\n";
    let hours = "sessions = [{ session = 'regular', open = '09:00', close = '17:00' }]\n";
    for (body, expected) in [
        (
            format!("time_zone = 'Mars/Base'\n{day}{hours}"),
            "no time zone is called `Mars/Base`",
        ),
        (
            format!("time_zone = 'UTC'\ndays = ['monday']\n{hours}"),
            "`monday` is no day of the week",
        ),
        (
            format!("time_zone = 'UTC'\n{day}sessions = []\n"),
            "`sessions` is empty",
        ),
        (
            format!(
                "time_zone = 'UTC'\n{day}sessions = [{{ session = 'pre', open = '9:00', close = '17:00' }}]"
            ),
            "`open`: `9:00` is no time of day",
        ),
        (
            format!(
                "time_zone = 'UTC'\n{day}sessions = [{{ session = 'pre', open = '08:00', close = '10:00' }}, \
                 {{ session = 'regular', open = '09:00', close = '17:00' }}]"
            ),
            "the regular session begins before",
        ),
    ] {
        let error = calendar(&body);
        assert!(
            error.contains("[calendars.mine]") && error.contains(expected),
            "{error}"
        );
    }
    let unknown = Calendars::load("[instruments]\nAAPL = 'nyse'")
        .unwrap_err()
        .to_string();
    assert!(
        unknown.contains("`AAPL` names the calendar `nyse`"),
        "{unknown}"
    );
    assert!(
        Calendars::load("holiday = 1")
            .unwrap_err()
            .to_string()
            .contains("holiday")
    );
}

#[test]
fn a_clock_answers_as_the_calendar_does() {
    let calendars = Calendars::load("default = 'us-equity'").unwrap();
    let calendar = calendars.of("AAPL");
    let start = ns("2026-03-05T00:00:00Z"); // over the change to summer time on 2026-03-08
    let mut clock = Clock::default();
    let mut seen = [0; 4];
    for minute in 0..6 * 24 * 60 {
        let at = start + minute * 60_000_000_000;
        let moment = clock.at(calendar, at);
        assert_eq!(moment, calendar.moment_at(at).0);
        assert_eq!(moment.session, calendar.session_at(at).0);
        seen[moment.session as usize] += 1;
    }
    // Thursday, Friday, Monday, Tuesday with 5.5, 6.5 and 4 hours each, and before them the last
    // hour of Wednesday evening in New York.
    assert_eq!(seen[1..], [4 * 330, 4 * 390, 4 * 240 + 60]);
    assert_eq!(Session::from_number(2), Some(Session::Regular));
}

/// The trading day that holds a moment: its date in days since 1970, and its start.
fn day(calendar: &str, at: &str) -> (i32, u64) {
    let calendars = Calendars::load(&format!("[instruments]\nX = '{calendar}'")).unwrap();
    let (moment, holds) = calendars.of("X").moment_at(ns(at));
    assert!(holds.contains(&ns(at)), "{at}");
    let Moment {
        day, day_start_ns, ..
    } = moment;
    (day, day_start_ns)
}

#[test]
fn a_trading_day_begins_at_midnight_or_with_a_session_that_opens_on_the_evening_before() {
    const MARCH_2: i32 = 20_514; // a Monday of 2026, in days since 1970
    for (calendar, at, date, start) in [
        (
            "always",
            "2026-03-02T00:00:00Z",
            MARCH_2,
            "2026-03-02T00:00:00Z",
        ),
        (
            "always",
            "2026-03-01T23:59:59Z",
            MARCH_2 - 1,
            "2026-03-01T00:00:00Z",
        ),
        // New York's midnight, in winter and, six days later, in summer.
        (
            "us-equity",
            "2026-03-02T04:59:59Z",
            MARCH_2 - 1,
            "2026-03-01T05:00:00Z",
        ),
        (
            "us-equity",
            "2026-03-02T05:00:00Z",
            MARCH_2,
            "2026-03-02T05:00:00Z",
        ),
        (
            "us-equity",
            "2026-03-09T04:00:00Z",
            MARCH_2 + 7,
            "2026-03-09T04:00:00Z",
        ),
        // Currencies: Monday begins on Sunday at 17:00 in New York.
        (
            "fx",
            "2026-03-01T21:59:59Z",
            MARCH_2 - 1,
            "2026-02-28T22:00:00Z",
        ),
        (
            "fx",
            "2026-03-01T22:00:00Z",
            MARCH_2,
            "2026-03-01T22:00:00Z",
        ),
        (
            "fx",
            "2026-03-02T21:59:59Z",
            MARCH_2,
            "2026-03-01T22:00:00Z",
        ),
        (
            "fx",
            "2026-03-02T22:00:00Z",
            MARCH_2 + 1,
            "2026-03-02T22:00:00Z",
        ),
        // Futures: the pause before 18:00 belongs to the day that ends with it.
        (
            "us-future",
            "2026-03-02T22:59:59Z",
            MARCH_2,
            "2026-03-01T23:00:00Z",
        ),
        (
            "us-future",
            "2026-03-02T23:00:00Z",
            MARCH_2 + 1,
            "2026-03-02T23:00:00Z",
        ),
    ] {
        assert_eq!(day(calendar, at), (date, ns(start)), "{calendar} at {at}");
    }
}

#[test]
fn trading_days_follow_each_other_without_a_gap_over_clock_changes_and_to_the_end_of_time() {
    for calendar in ["always", "us-equity", "fx", "us-future"] {
        let calendars = Calendars::load(&format!("default = '{calendar}'")).unwrap();
        let calendar = calendars.of("X");
        let (mut at, mut before) = (ns("2026-01-01T12:00:00Z"), None);
        while at < ns("2027-01-02T00:00:00Z") {
            let (date, span) = calendar.day_at(at);
            if let Some((yesterday, end)) = before {
                assert_eq!((date, span.start), (yesterday + 1, end));
            }
            let hours = (span.end - span.start) / 3_600_000_000_000;
            assert!((23..=25).contains(&hours), "{hours} hours");
            before = Some((date, span.end));
            at = span.end;
        }
        for extreme in [0, 1, u64::MAX - 1, u64::MAX] {
            let (moment, holds) = calendar.moment_at(extreme);
            assert!(moment.day_start_ns <= extreme, "{moment:?}");
            assert!(holds.contains(&extreme) || extreme == u64::MAX, "{holds:?}");
        }
    }
}

/// The rules by which exchanges in New York close, from the calendar's own arithmetic.
mod rules {
    use jiff::ToSpan;
    use jiff::civil::{Date, Weekday, date};

    pub(super) fn nth(year: i16, month: i8, weekday: Weekday, n: i8) -> Date {
        date(year, month, 1)
            .nth_weekday_of_month(n, weekday)
            .unwrap()
    }

    /// Easter Sunday of the Gregorian calendar, by the tables of the church: the Sunday behind
    /// the first full moon from 21 March on, as the golden number and the epact give it.
    pub(super) fn easter(year: i16) -> Date {
        let y = i32::from(year);
        let (golden, century) = (y % 19 + 1, y / 100 + 1);
        let (solar, lunar) = (3 * century / 4 - 12, (8 * century + 5) / 25 - 5);
        let mut epact = (11 * golden + 20 + lunar - solar).rem_euclid(30);
        if (epact == 25 && golden > 11) || epact == 24 {
            epact += 1;
        }
        let mut moon = 44 - epact; // day of March
        if moon < 21 {
            moon += 30;
        }
        let moon = date(year, 3, 1) + (moon - 1).days();
        moon.nth_weekday(1, Weekday::Sunday).unwrap()
    }

    /// A holiday of a fixed date: on a Saturday it is kept on the Friday before, on a Sunday on the
    /// Monday behind. New Year's Day alone is not moved back: that Friday ends a year's accounts.
    fn kept(day: Date) -> Option<Date> {
        match day.weekday() {
            Weekday::Saturday if day.month() == 1 => None,
            Weekday::Saturday => day.yesterday().ok(),
            Weekday::Sunday => day.tomorrow().ok(),
            _ => Some(day),
        }
    }

    pub(super) fn is_holiday(day: Date) -> bool {
        let year = day.year();
        let fixed = [(1, 1), (6, 19), (7, 4), (12, 25)].map(|(m, d)| kept(date(year, m, d)));
        let moving = [
            nth(year, 1, Weekday::Monday, 3),    // Martin Luther King, Jr.
            nth(year, 2, Weekday::Monday, 3),    // Washington's Birthday
            easter(year) - 2.days(),             // Good Friday
            nth(year, 5, Weekday::Monday, -1),   // Memorial Day
            nth(year, 9, Weekday::Monday, 1),    // Labor Day
            nth(year, 11, Weekday::Thursday, 4), // Thanksgiving
        ];
        fixed.contains(&Some(day)) || moving.contains(&day)
    }

    pub(super) fn is_trading_day(day: Date) -> bool {
        let weekend = matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
        let mourning = day == date(2025, 1, 9); // for President Carter
        !(weekend || mourning || is_holiday(day))
    }

    /// 13:00 on the day before Independence Day, the day behind Thanksgiving, and Christmas Eve.
    pub(super) fn closes_early(day: Date) -> bool {
        let year = day.year();
        let eves = [
            date(year, 7, 3),
            nth(year, 11, Weekday::Thursday, 4) + 1.days(),
            date(year, 12, 24),
        ];
        is_trading_day(day) && eves.contains(&day)
    }
}

#[test]
fn new_yorks_holidays_and_early_closes_are_those_of_its_rules() {
    use jiff::civil::date;
    for (year, month, day) in [
        (2024, 3, 31),
        (2025, 4, 20),
        (2026, 4, 5),
        (2038, 4, 25),
        (1961, 4, 2),
    ] {
        assert_eq!(rules::easter(year), date(year, month, day));
    }
    let calendars =
        Calendars::load("default = 'us-equity'\n[instruments]\nSPX = 'us-index'").unwrap();
    let (mut day, mut open, mut early) = (date(2024, 1, 1), 0, 0);
    while day < date(2029, 1, 1) {
        for instrument in ["AAPL", "SPX"] {
            let calendar = calendars.of(instrument);
            let session = |hour: i8, minute: i8| {
                let at = day
                    .at(hour, minute, 0, 0)
                    .in_tz("America/New_York")
                    .unwrap();
                calendar.session_at(at.timestamp().as_nanosecond() as u64).0
            };
            let trades = rules::is_trading_day(day);
            assert_eq!(
                session(9, 30) == Session::Regular,
                trades,
                "{instrument} on {day}"
            );
            assert_eq!(
                session(12, 59) == Session::Regular,
                trades,
                "{instrument} on {day}"
            );
            let full = trades && !rules::closes_early(day);
            assert_eq!(
                session(13, 0) == Session::Regular,
                full,
                "{instrument} on {day}"
            );
            assert_eq!(
                session(15, 59) == Session::Regular,
                full,
                "{instrument} on {day}"
            );
            open += u32::from(trades);
            early += u32::from(trades && !full);
        }
        day = day.tomorrow().unwrap();
    }
    // Of 1,305 weekdays, ten holidays a year, but nine in 2028, and in 2025 a day of mourning.
    assert_eq!((open, early), (2 * (1_305 - 50), 2 * 11));
}
