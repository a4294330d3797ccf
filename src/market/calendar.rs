//! Session calendars: when an instrument trades, and in which session a tick falls.
//!
//! Civil time comes from `jiff`: one crate for zones, civil dates and the rules for clock changes
//! (`chrono-tz` needs `chrono` besides), with the zone database built in, so that a node without
//! `/usr/share/zoneinfo` answers as any other.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use serde::Deserialize;

/// What kind of thing an instrument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstrumentKind {
    /// A share.
    Equity,
    /// A bond.
    Bond,
    /// A pair of currencies.
    Fx,
    /// An index.
    Index,
    /// A future.
    Future,
    /// A crypto currency.
    Crypto,
}

/// The part of a trading day that a tick falls into; the number is that of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Session {
    /// Outside every session.
    #[default]
    Closed = 0,
    /// Before the market's regular hours.
    Pre = 1,
    /// The market's regular hours.
    Regular = 2,
    /// After the market's regular hours.
    After = 3,
}

impl Session {
    /// The session of a number in the tables.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Closed,
            1 => Self::Pre,
            2 => Self::Regular,
            3 => Self::After,
            _ => return None,
        })
    }

    /// `closed`, `pre`, `regular` or `after`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Pre => "pre",
            Self::Regular => "regular",
            Self::After => "after",
        }
    }
}

/// Why a calendar cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalendarError {
    /// The zone database has no such zone.
    #[error("`time_zone`: no time zone is called `{0}`; write one such as America/New_York or UTC")]
    Zone(String),
    /// Not a time of day.
    #[error("`{field}`: `{text}` is no time of day; write HH:MM, from 00:00 to 24:00")]
    Time {
        /// `open`, `close` or `early_closes`.
        field: &'static str,
        /// What stands there.
        text: String,
    },
    /// No day of the week.
    #[error("`days`: `{0}` is no day of the week; write mon, tue, wed, thu, fri, sat or sun")]
    Day(String),
    /// Two windows of one day overlap.
    #[error("`sessions`: the {0} session begins before the one above it ends")]
    Overlap(&'static str),
    /// Nothing ever trades.
    #[error("`{0}` is empty: nothing would ever trade")]
    Empty(&'static str),
    /// No session makes the candle of the day.
    #[error("`day_candle` is empty: leave it out to count the trades of all sessions")]
    NoDay,
}

/// One session of every trading day, in minutes since that day's midnight; the open may be
/// negative: then it is the evening before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    session: Session,
    open: i32,
    close: i32,
}

/// When one group of instruments trades.
///
/// # Trading days
/// A trading day begins when the first session of that date opens, if that is on the evening
/// before, and otherwise at midnight of the calendar's zone; it ends where the next one begins. So
/// every moment belongs to one trading day, weekends, holidays and pauses included.
#[derive(Clone, Debug)]
pub struct Calendar {
    kind: InstrumentKind,
    zone: TimeZone,
    windows: Vec<Window>,
    days: [bool; 7],
    /// Days without trading (`None`), or that end early, at these minutes.
    special: BTreeMap<Date, Option<i32>>,
    /// By [`Session`]: whether its trades make up the candle of the day.
    in_day: [bool; 4],
}

/// What a calendar says of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The session.
    pub session: Session,
    /// The date of the trading day, in days since 1970-01-01.
    pub day: i32,
    /// When the trading day began, in nanoseconds since 1970-01-01 UTC.
    pub day_start_ns: u64,
}

/// A calendar as a config file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CalendarText {
    kind: InstrumentKind,
    time_zone: String,
    days: Vec<String>,
    sessions: Vec<WindowText>,
    day_candle: Option<Vec<Session>>,
    #[serde(default)]
    holidays: Vec<Date>,
    #[serde(default)]
    early_closes: BTreeMap<Date, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowText {
    session: Session,
    open: String,
    close: String,
}

const DAY_MINUTES: i32 = 24 * 60;
const NS: i128 = 1_000_000_000;
const UTC_DAY_NS: u64 = 86_400_000_000_000;

impl Calendar {
    /// Checks a calendar of a config file.
    pub(super) fn new(text: &CalendarText) -> Result<Self, CalendarError> {
        let zone = TimeZone::get(&text.time_zone)
            .map_err(|_| CalendarError::Zone(text.time_zone.clone()))?;
        let mut days = [false; 7];
        for day in &text.days {
            let at = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
                .iter()
                .position(|name| name == day)
                .ok_or_else(|| CalendarError::Day(day.clone()))?;
            days[at] = true;
        }
        if text.days.is_empty() {
            return Err(CalendarError::Empty("days"));
        }
        let mut windows: Vec<Window> = Vec::new();
        for window in &text.sessions {
            let (open, close) = (
                minutes("open", &window.open)?,
                minutes("close", &window.close)?,
            );
            // An open at or after its close is meant for the evening before.
            let open = if open >= close {
                open - DAY_MINUTES
            } else {
                open
            };
            if windows.last().is_some_and(|before| open < before.close) {
                return Err(CalendarError::Overlap(window.session.name()));
            }
            windows.push(Window {
                session: window.session,
                open,
                close,
            });
        }
        if windows.is_empty() {
            return Err(CalendarError::Empty("sessions"));
        }
        let mut special: BTreeMap<Date, Option<i32>> =
            text.holidays.iter().map(|&day| (day, None)).collect();
        for (&day, close) in &text.early_closes {
            special.insert(day, Some(minutes("early_closes", close)?));
        }
        let in_day = match &text.day_candle {
            None => [true; 4],
            Some(sessions) if sessions.is_empty() => {
                return Err(CalendarError::NoDay);
            }
            Some(sessions) => {
                let mut in_day = [false; 4];
                for session in sessions {
                    in_day[*session as usize] = true;
                }
                in_day
            }
        };
        Ok(Self {
            kind: text.kind,
            zone,
            windows,
            days,
            special,
            in_day,
        })
    }

    /// What its instruments are.
    pub fn kind(&self) -> InstrumentKind {
        self.kind
    }

    /// Whether trades of a session make up the candle of the day. They are part of the shorter
    /// candles in any case.
    pub fn is_in_day(&self, session: Session) -> bool {
        self.in_day[session as usize]
    }

    /// What the calendar says of a time in nanoseconds since 1970-01-01 UTC, and from when
    /// (inclusive) to when (exclusive) that holds at least.
    pub fn moment_at(&self, event_ns: u64) -> (Moment, std::ops::Range<u64>) {
        let (session, holds) = self.session_at(event_ns);
        let (day, span) = self.day_at(event_ns);
        let moment = Moment {
            session,
            day,
            day_start_ns: span.start,
        };
        let holds = holds.start.max(span.start)..holds.end.min(span.end);
        (moment, holds)
    }

    /// The trading day of a time: its date in days since 1970-01-01, and from when to when it is.
    pub(super) fn day_at(&self, event_ns: u64) -> (i32, std::ops::Range<u64>) {
        const EPOCH: Date = Date::constant(1970, 1, 1);
        let Ok(at) = Timestamp::from_nanosecond(i128::from(event_ns)) else {
            let start = event_ns - event_ns % UTC_DAY_NS; // see `session_at`
            return (
                (event_ns / UTC_DAY_NS) as i32,
                start..start.saturating_add(UTC_DAY_NS),
            );
        };
        let mut day = at.to_zoned(self.zone.clone()).date();
        // Where the evening belongs to the next date, that date's day may have begun.
        if let Ok(next) = day.tomorrow()
            && self.day_start(next) <= event_ns
        {
            day = next;
        }
        let start = self.day_start(day);
        let end = day.tomorrow().map_or(u64::MAX, |next| self.day_start(next));
        (
            EPOCH.until(day).map_or(0, |span| span.get_days()),
            start..end,
        )
    }

    fn day_start(&self, day: Date) -> u64 {
        let first = self.windows.first().map_or(0, |window| window.open);
        self.instant(day, first.min(0))
    }

    /// The session at a time in nanoseconds since 1970-01-01 UTC, and from when (inclusive) to
    /// when (exclusive) that answer holds at least.
    pub fn session_at(&self, event_ns: u64) -> (Session, std::ops::Range<u64>) {
        let Ok(at) = Timestamp::from_nanosecond(i128::from(event_ns)) else {
            return (Session::Closed, event_ns..u64::MAX); // beyond the year 9999
        };
        let today = at.to_zoned(self.zone.clone()).date();
        let (mut from, mut to) = (0, u64::MAX);
        // Midnight of the zone bounds the answer, since only the days around it are looked at.
        for edge in [Some(today), today.tomorrow().ok()].into_iter().flatten() {
            narrow(self.instant(edge, 0), event_ns, &mut from, &mut to);
        }
        let mut found = Session::Closed;
        for day in [Some(today), today.tomorrow().ok()].into_iter().flatten() {
            for window in self.windows_of(day) {
                let (open, close) = (
                    self.instant(day, window.open),
                    self.instant(day, window.close),
                );
                narrow(open, event_ns, &mut from, &mut to);
                narrow(close, event_ns, &mut from, &mut to);
                if (open..close).contains(&event_ns) {
                    found = window.session;
                }
            }
        }
        (found, from..to)
    }

    /// The sessions of a trading day; none if nothing trades on it. On a day that ends early the
    /// regular session closes then, and what follows it does not take place.
    fn windows_of(&self, day: Date) -> impl Iterator<Item = Window> {
        let special = self.special.get(&day).copied();
        let trades = self.days[weekday(day.weekday())] && special != Some(None);
        let end = special.flatten().unwrap_or(i32::MAX);
        self.windows
            .iter()
            .filter(move |window| trades && window.open < end)
            .map(move |window| Window {
                close: window.close.min(end),
                ..*window
            })
    }

    /// A wall-clock time of the zone, in minutes from a day's midnight, as nanoseconds since 1970.
    fn instant(&self, day: Date, minutes: i32) -> u64 {
        let day = match minutes.div_euclid(DAY_MINUTES) {
            0 => Some(day),
            1 => day.tomorrow().ok(),
            _ => day.yesterday().ok(),
        };
        let minutes = minutes.rem_euclid(DAY_MINUTES);
        let time = Time::constant((minutes / 60) as i8, (minutes % 60) as i8, 0, 0);
        // A time that a clock change skips or doubles is taken as the zone's rules say.
        day.and_then(|day| {
            self.zone
                .to_ambiguous_zoned(day.to_datetime(time))
                .compatible()
                .ok()
        })
        .map_or(u64::MAX, |zoned| {
            let ns = i128::from(zoned.timestamp().as_second()) * NS;
            u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
        })
    }
}

/// Pulls the ends of a span around `at` in to `edge`.
fn narrow(edge: u64, at: u64, from: &mut u64, to: &mut u64) {
    if edge <= at {
        *from = (*from).max(edge);
    } else {
        *to = (*to).min(edge);
    }
}

fn weekday(day: Weekday) -> usize {
    day.to_monday_zero_offset() as usize
}

/// `HH:MM` in minutes.
fn minutes(field: &'static str, text: &str) -> Result<i32, CalendarError> {
    let wrong = || CalendarError::Time {
        field,
        text: text.to_owned(),
    };
    let (hours, rest) = text.split_once(':').ok_or_else(wrong)?;
    let number = |digits: &str| {
        (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| digits.parse::<i32>().ok())
            .flatten()
            .ok_or_else(wrong)
    };
    let (hours, rest) = (number(hours)?, number(rest)?);
    let total = hours * 60 + rest;
    if rest > 59 || total > DAY_MINUTES {
        Err(wrong())
    } else {
        Ok(total)
    }
}

/// Tells what a calendar says of tick after tick: remembers the last answer and for how long it
/// holds, so that most ticks cost two comparisons.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    moment: Moment,
    holds: std::ops::Range<u64>,
}

impl Clock {
    /// What `calendar`, which must be the same at each call, says of a time in nanoseconds since
    /// 1970-01-01 UTC.
    #[inline]
    pub fn at(&mut self, calendar: &Calendar, event_ns: u64) -> Moment {
        if !self.holds.contains(&event_ns) {
            (self.moment, self.holds) = calendar.moment_at(event_ns);
        }
        self.moment
    }
}
