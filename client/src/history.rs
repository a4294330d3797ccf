//! Reading stored ticks and candles back.

use bytes::Bytes;
use tickring_protocol::{BodyError, Candle, Cursor, HistoryPage, Series, StoredTick};

/// Which stored rows of an instrument to read; the default: all its ticks, oldest first.
///
/// ```no_run
/// use std::time::Duration;
/// use tickring_client::protocol::Series;
/// use tickring_client::{HistoryQuery, Options};
///
/// let mut client = Options::new("127.0.0.1:7400").connect()?;
/// let mut query = HistoryQuery::of(Series::Minute);
/// loop {
///     let page = client.history("market/BTCUSDT", query, Duration::from_secs(5))?;
///     for candle in page.candles() {
///         println!("{:?}", candle?);
///     }
///     if !page.more {
///         break;
///     }
///     query.cursor = page.next;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Which rows.
    pub series: Series,
    /// Whether the newest row comes first.
    pub newest_first: bool,
    /// The most rows of a page; 0: as many as the server puts into one.
    pub limit: u32,
    /// From this event time on, nanoseconds since 1970-01-01 UTC.
    pub from_ns: u64,
    /// Up to before this event time; `u64::MAX`: without an end.
    pub to_ns: u64,
    /// Behind this row; [`HistoryRows::next`] of the page before.
    pub cursor: Cursor,
}

impl HistoryQuery {
    /// All rows of a series, oldest first.
    #[must_use]
    pub const fn of(series: Series) -> Self {
        Self {
            series,
            newest_first: false,
            limit: 0,
            from_ns: 0,
            to_ns: u64::MAX,
            cursor: Cursor::START,
        }
    }
}

impl Default for HistoryQuery {
    fn default() -> Self {
        Self::of(Series::Ticks)
    }
}

/// A page of stored rows. A clone shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRows {
    /// What the rows are.
    pub series: Series,
    /// Whether there were more rows in the span when the page was read.
    pub more: bool,
    /// Where the next page begins.
    pub next: Cursor,
    rows: Bytes,
}

impl HistoryRows {
    pub(crate) fn of(page: &HistoryPage<'_>) -> Self {
        Self {
            series: page.series,
            more: page.more,
            next: page.next,
            rows: Bytes::copy_from_slice(page.rows),
        }
    }

    /// The page as it is on the wire, for handing it on; its request id is 0.
    #[must_use]
    pub fn page(&self) -> HistoryPage<'_> {
        HistoryPage {
            request_id: 0,
            series: self.series,
            more: self.more,
            next: self.next,
            rows: &self.rows,
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.page().len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as ticks; none when the series is one of candles.
    pub fn ticks(&self) -> impl Iterator<Item = Result<StoredTick, BodyError>> + use<'_> {
        self.page().ticks()
    }

    /// The rows as candles; none when the series is that of ticks.
    pub fn candles(&self) -> impl Iterator<Item = Result<Candle, BodyError>> + use<'_> {
        self.page().candles()
    }
}
