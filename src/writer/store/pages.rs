//! Reading stored rows back, a page at a time.
//!
//! Pages go by key: each begins behind the last row of the one before, so it costs the same
//! however far into the span it lies, and rows that are stored meanwhile move nothing. Each page is
//! one statement, and so one moment of the database: a row that commits together with a later one
//! is never passed over.

use std::future::Future;

use super::{MAX_PAGE, MAX_TIME_NS, MySqlStore, SqliteReader, StoreError, TickRow};
use crate::market::{Candle, Period};

/// Which rows of a topic a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageQuery {
    /// Id of the topic in the tables.
    pub topic: u32,
    /// Rows from this event time on, nanoseconds since 1970-01-01 UTC; of candles, that start then
    /// or later.
    pub from_ns: u64,
    /// And before this one; beyond [`MAX_TIME_NS`]: without an end.
    pub until_ns: u64,
    /// Only rows behind this one, by (event time, seq); a candle's seq is 1.
    pub behind: Option<(u64, u64)>,
    /// Whether the newest row comes first, so that what is behind a row is older.
    pub newest_first: bool,
    /// The most rows, at most [`MAX_PAGE`].
    pub limit: usize,
}

/// The rows of a page as the tables' keys have them: those behind `start` in the page's direction,
/// and not beyond the event time `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) start: (i64, i64),
    pub(super) end: i64,
    pub(super) limit: i64,
}

impl PageQuery {
    /// All rows of a topic, oldest first.
    pub const fn all(topic: u32, limit: usize) -> Self {
        Self {
            topic,
            from_ns: 0,
            until_ns: u64::MAX,
            behind: None,
            newest_first: false,
            limit,
        }
    }

    /// `None`: no row can be meant.
    pub(super) fn keys(&self) -> Option<Keys> {
        let last_ns = match self.until_ns {
            until if until > MAX_TIME_NS => MAX_TIME_NS,
            until => until.checked_sub(1)?,
        };
        if self.from_ns > last_ns || self.limit == 0 {
            return None;
        }
        let (start, end) = if self.newest_first {
            let first = (last_ns, u64::MAX);
            (self.behind.map_or(first, |b| b.min(first)), self.from_ns)
        } else {
            let first = (self.from_ns, 0);
            (self.behind.map_or(first, |b| b.max(first)), last_ns)
        };
        Some(Keys {
            start: (signed(start.0), signed(start.1)),
            end: signed(end),
            limit: self.limit.min(MAX_PAGE) as i64,
        })
    }
}

impl Keys {
    /// First and last start of the candles that are meant; a candle's key is (start, 1).
    pub(super) fn candles(&self, newest_first: bool) -> (i64, i64) {
        let (time, seq) = self.start;
        if newest_first {
            (self.end, time - i64::from(seq <= 1))
        } else {
            (time.saturating_add(i64::from(seq >= 1)), self.end)
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A database whose tables can be read back.
pub trait Pages {
    /// The newest numbering (epoch) of a topic name: its id; `None` if nothing of it was stored.
    fn find_topic(
        &mut self,
        name: &str,
    ) -> impl Future<Output = Result<Option<u32>, StoreError>> + Send;

    /// Ticks of a topic, by (event time, seq).
    fn page_ticks(
        &mut self,
        query: &PageQuery,
    ) -> impl Future<Output = Result<Vec<TickRow>, StoreError>> + Send;

    /// Candles of a topic, by start.
    fn page_candles(
        &mut self,
        period: Period,
        query: &PageQuery,
    ) -> impl Future<Output = Result<Vec<Candle>, StoreError>> + Send;
}

/// A connection to either database that can only read.
#[allow(clippy::large_enum_variant, reason = "one per reading thread")]
pub enum ReadOnly {
    /// See [`SqliteReader`].
    Sqlite(SqliteReader),
    /// See [`MySqlStore::connect_read_only`].
    MySql(MySqlStore),
}

impl Pages for ReadOnly {
    async fn find_topic(&mut self, name: &str) -> Result<Option<u32>, StoreError> {
        match self {
            Self::Sqlite(reader) => reader.find_topic(name).await,
            Self::MySql(store) => store.find_topic(name).await,
        }
    }

    async fn page_ticks(&mut self, query: &PageQuery) -> Result<Vec<TickRow>, StoreError> {
        match self {
            Self::Sqlite(reader) => reader.page_ticks(query).await,
            Self::MySql(store) => store.page_ticks(query).await,
        }
    }

    async fn page_candles(
        &mut self,
        period: Period,
        query: &PageQuery,
    ) -> Result<Vec<Candle>, StoreError> {
        match self {
            Self::Sqlite(reader) => reader.page_candles(period, query).await,
            Self::MySql(store) => store.page_candles(period, query).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_span_means_no_row() {
        let all = PageQuery::all(1, 10);
        for (from_ns, until_ns) in [(5, 5), (6, 5), (0, 0), (u64::MAX, u64::MAX)] {
            let query = PageQuery {
                from_ns,
                until_ns,
                ..all
            };
            assert_eq!(query.keys(), None, "{from_ns} {until_ns}");
        }
        assert_eq!(PageQuery { limit: 0, ..all }.keys(), None);
    }

    #[test]
    fn a_page_begins_at_its_span_or_behind_the_row_before_whichever_is_further() {
        let span = PageQuery {
            from_ns: 10,
            until_ns: 20,
            ..PageQuery::all(1, 7)
        };
        let start = |behind, newest_first| {
            let query = PageQuery {
                behind,
                newest_first,
                ..span
            };
            let keys = query.keys().unwrap();
            (keys.start, keys.end)
        };
        assert_eq!(start(None, false), ((10, 0), 19));
        assert_eq!(start(Some((3, 9)), false), ((10, 0), 19));
        assert_eq!(start(Some((12, 9)), false), ((12, 9), 19));
        assert_eq!(start(None, true), ((19, i64::MAX), 10));
        assert_eq!(start(Some((30, 9)), true), ((19, i64::MAX), 10));
        assert_eq!(start(Some((12, 9)), true), ((12, 9), 10));
    }

    #[test]
    fn the_latest_possible_time_is_within_a_span_without_an_end() {
        let keys = PageQuery::all(1, 1).keys().unwrap();
        assert_eq!((keys.start, keys.end), ((0, 0), i64::MAX));
        assert_eq!(keys.candles(false), (0, i64::MAX));
    }
}
