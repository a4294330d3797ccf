//! Answers HISTORY from the database: one page a call, on a connection that can only read.

use tickring_protocol::{
    self as protocol, Cursor, Frame, History, HistoryPage, Series, StoredTick, TradingSession,
};

use super::follow::Target;
use super::store::{MAX_PAGE, PageQuery, Pages, ReadOnly, StoreError, TickContent, TickRow};
use crate::market::{Candle, Period};

/// Reads pages of one database. Connects when it must: at first, and again once a connection is
/// lost.
pub struct PageReader {
    target: Target,
    connection: Option<ReadOnly>,
}

impl PageReader {
    /// Reads from `target`, whose tables a writer has made. Nothing is connected yet.
    pub const fn new(target: Target) -> Self {
        Self {
            target,
            connection: None,
        }
    }

    /// The frame HISTORY_PAGE that answers `history`, which asks for at least one row.
    ///
    /// The caller bounds the time, and calls [`PageReader::disconnect`] if it has given up.
    ///
    /// # Errors
    /// [`StoreError`]; the connection is made anew by the next call if it has to be.
    pub async fn page(&mut self, history: &History<'_>) -> Result<Vec<u8>, StoreError> {
        // The server may have closed a connection that was not used for long.
        let used_before = self.connection.is_some();
        match self.read(history).await {
            Err(error) if error.is_lost() && used_before => {
                self.disconnect();
                self.read(history).await
            }
            done => done,
        }
        .inspect_err(|error| {
            if error.is_lost() {
                self.connection = None;
            }
        })
    }

    /// Forgets the connection, whose last question may be unanswered.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    async fn read(&mut self, history: &History<'_>) -> Result<Vec<u8>, StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => empty.insert(self.target.connect_read_only().await?),
        };
        read(connection, history).await
    }
}

async fn read<P: Pages>(database: &mut P, history: &History<'_>) -> Result<Vec<u8>, StoreError> {
    let limit = (history.limit as usize).min(MAX_PAGE - 1);
    let mut page = Page::of(history, limit);
    let Some(topic) = database.find_topic(history.topic).await? else {
        return Ok(page.frame(history));
    };
    let query = PageQuery {
        topic,
        from_ns: history.from_ns,
        until_ns: history.to_ns,
        behind: (history.cursor != Cursor::START)
            .then_some((history.cursor.event_ns, history.cursor.seq)),
        newest_first: history.newest_first,
        limit: limit + 1, // one more tells whether there is more
    };
    match period(history.series) {
        None => {
            let rows = database.page_ticks(&query).await?;
            page.more = rows.len() > limit;
            rows.iter().take(limit).for_each(|row| page.tick(row));
        }
        Some(period) => {
            let rows = database.page_candles(period, &query).await?;
            page.more = rows.len() > limit;
            rows.iter().take(limit).for_each(|row| page.candle(row));
        }
    }
    Ok(page.frame(history))
}

fn period(series: Series) -> Option<Period> {
    Some(match series {
        Series::Ticks => return None,
        Series::Second => Period::Second,
        Series::Minute => Period::Minute,
        Series::Hour => Period::Hour,
        Series::Day => Period::Day,
    })
}

/// A page that is being put together.
struct Page {
    more: bool,
    next: Cursor,
    rows: Vec<u8>,
}

impl Page {
    fn of(history: &History<'_>, limit: usize) -> Self {
        Self {
            more: false,
            next: history.cursor,
            rows: Vec::with_capacity(limit.min(1_000) * history.series.row_len()),
        }
    }

    fn tick(&mut self, row: &TickRow) {
        self.next = Cursor {
            event_ns: row.event_ns,
            seq: row.seq,
        };
        let content = match row.content {
            TickContent::Trade(trade) => protocol::TickContent::Trade(trade),
            TickContent::Quote(quote) => protocol::TickContent::Quote(quote),
        };
        let tick = StoredTick {
            seq: row.seq,
            event_ns: row.event_ns,
            node_ns: row.node_ns,
            session: TradingSession::from_byte(row.session as u8).unwrap_or_default(),
            content,
        };
        tick.encode(&mut self.rows);
    }

    fn candle(&mut self, row: &Candle) {
        self.next = Cursor {
            event_ns: row.start_ns,
            seq: 1,
        };
        let candle = protocol::Candle {
            start_ns: row.start_ns,
            open: row.open,
            high: row.high,
            low: row.low,
            close: row.close,
            volume: row.volume,
            trades: row.trades,
        };
        candle.encode(&mut self.rows);
    }

    fn frame(&self, history: &History<'_>) -> Vec<u8> {
        const HEAD: usize = 40; // header and fixed part of HISTORY_PAGE
        let mut frame = Vec::with_capacity(HEAD + self.rows.len());
        Frame::HistoryPage(HistoryPage {
            request_id: history.request_id,
            series: history.series,
            more: self.more,
            next: self.next,
            rows: &self.rows,
        })
        .encode(&mut frame);
        frame
    }
}
