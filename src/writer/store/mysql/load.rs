//! Rows as the text of `LOAD DATA LOCAL INFILE`: sent from memory, in pieces, while the server works
//! on the pieces before. Nothing of this machine's files is ever sent: there is no handler but ours.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tickring_protocol::Micros;

use super::super::StoreError;
use super::super::batch::{Batch, CandleRow, LatestRow, TickContent, TickRow};
use super::super::schema::{CANDLE_COLUMNS, CANDLE_TABLES, LATEST_COLUMNS, TICK_COLUMNS};
use super::connect::{Target, meaning};

/// Bytes of a piece: large enough that its system call does not count, small enough that encoding
/// it does not hold up the journal on the same thread (some 0.1 ms).
const PIECE: usize = 64 << 10;
/// Bytes that a row takes at most as text: 16 numbers of 21 digits.
const ROW: usize = 512;
/// How many of the server's warnings are looked at.
const WARNINGS: u16 = 64;
/// The server's number of the warning for a row whose key is there already.
const DUPLICATE: u16 = 1062;

/// Which rows of a batch.
#[derive(Clone, Copy, Debug)]
enum Rows {
    Ticks,
    Latest,
    Candles(usize),
}

impl Rows {
    const ALL: [Self; 6] = [
        Self::Ticks,
        Self::Latest,
        Self::Candles(0),
        Self::Candles(1),
        Self::Candles(2),
        Self::Candles(3),
    ];

    fn count(self, batch: &Batch) -> usize {
        match self {
            Self::Ticks => batch.ticks.len(),
            Self::Latest => batch.latest.len(),
            Self::Candles(at) => batch.candles[at].len(),
        }
    }

    fn sql(self) -> String {
        // A tick that is there stays; other rows come with their full state.
        let (duplicates, table, columns) = match self {
            Self::Ticks => ("IGNORE", "ticks", TICK_COLUMNS),
            Self::Latest => ("REPLACE", "latest", LATEST_COLUMNS),
            Self::Candles(at) => ("REPLACE", CANDLE_TABLES[at], CANDLE_COLUMNS),
        };
        format!(
            "LOAD DATA LOCAL INFILE 'rows' {duplicates} INTO TABLE {table} CHARACTER SET binary \
             FIELDS TERMINATED BY ',' LINES TERMINATED BY '\\n' ({columns})"
        )
    }
}

/// Whether this connection may load rows so: the server allows it, and the user may replace rows.
pub(super) async fn is_allowed(conn: &mut Conn) -> Result<bool, Error> {
    for rows in [Rows::Ticks, Rows::Latest] {
        let empty = Pieces {
            batch: Arc::default(),
            rows,
            next: 0,
        };
        conn.set_infile_handler(async move { Ok(Box::pin(empty) as _) });
        match conn.query_drop(rows.sql()).await {
            Ok(()) => {}
            Err(Error::Server(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Sends the ticks, latest rows and candles of a batch, within the connection's transaction.
pub(super) async fn send(
    conn: &mut Conn,
    target: &Target,
    batch: &Arc<Batch>,
) -> Result<(), StoreError> {
    for rows in Rows::ALL {
        let count = rows.count(batch);
        if count == 0 {
            continue;
        }
        let pieces = Pieces {
            batch: Arc::clone(batch),
            rows,
            next: 0,
        };
        conn.set_infile_handler(async move { Ok(Box::pin(pieces) as _) });
        let sent = conn.query_drop(rows.sql()).await;
        sent.map_err(|error| meaning(target, error))?;
        // With LOCAL what does not fit a column is a warning and not an error.
        if conn.get_warnings() > 0 {
            heed_warnings(conn, target, count).await?;
        }
    }
    Ok(())
}

async fn heed_warnings(conn: &mut Conn, target: &Target, rows: usize) -> Result<(), StoreError> {
    let sql = format!("SHOW WARNINGS LIMIT {WARNINGS}");
    let warnings: Vec<(String, u16, String)> = conn
        .query(sql)
        .await
        .map_err(|error| meaning(target, error))?;
    match warnings.iter().find(|(_, code, _)| *code != DUPLICATE) {
        None => Ok(()),
        Some((_, code, message)) => Err(StoreError::Refused {
            reason: format!("loading {rows} rows: {message} ({code})"),
        }),
    }
}

/// A batch's rows of one table, as text, piece by piece.
struct Pieces {
    batch: Arc<Batch>,
    rows: Rows,
    next: usize,
}

impl Stream for Pieces {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let left = self.rows.count(&self.batch) - self.next;
        if left == 0 {
            return Poll::Ready(None);
        }
        let mut text = Text(BytesMut::with_capacity(PIECE));
        let (batch, from) = (&self.batch, self.next);
        let done = match self.rows {
            Rows::Ticks => text.fill(&batch.ticks[from..], Text::tick),
            Rows::Latest => text.fill(&batch.latest[from..], Text::latest),
            Rows::Candles(at) => text.fill(&batch.candles[at][from..], Text::candle),
        };
        self.next += done;
        Poll::Ready(Some(Ok(text.0.freeze())))
    }
}

/// Rows as lines of fields, each field followed by a comma and the last one by a line feed.
struct Text(BytesMut);

impl Text {
    /// Writes rows while there is room, and tells how many.
    fn fill<T>(&mut self, rows: &[T], line: fn(&mut Self, &T)) -> usize {
        let mut done = 0;
        while done < rows.len() && self.0.capacity() - self.0.len() >= ROW {
            line(self, &rows[done]);
            let last = self.0.len() - 1; // a row has fields
            self.0[last] = b'\n';
            done += 1;
        }
        done
    }

    fn tick(&mut self, row: &TickRow) {
        self.ints(&[row.topic.into(), row.event_ns, row.seq, row.node_ns]);
        self.smalls(&[row.content.kind() as u8, row.session as u8]);
        let decimals = match row.content {
            TickContent::Trade(t) => {
                self.prices(&[t.price, t.qty]);
                self.smalls(&[t.side as u8]);
                self.nulls(4);
                [t.price_decimals, t.qty_decimals]
            }
            TickContent::Quote(q) => {
                self.nulls(3);
                self.prices(&[q.bid, q.bid_qty, q.ask, q.ask_qty]);
                [q.price_decimals, q.qty_decimals]
            }
        };
        self.smalls(&decimals);
    }

    fn latest(&mut self, row: &LatestRow) {
        self.ints(&[row.topic.into(), row.seq, row.node_ns]);
        match row.trade {
            None => self.nulls(6),
            Some((at, t)) => {
                self.ints(&[at]);
                self.prices(&[t.price, t.qty]);
                self.smalls(&[t.side as u8, t.price_decimals, t.qty_decimals]);
            }
        }
        match row.quote {
            None => self.nulls(7),
            Some((at, q)) => {
                self.ints(&[at]);
                self.prices(&[q.bid, q.bid_qty, q.ask, q.ask_qty]);
                self.smalls(&[q.price_decimals, q.qty_decimals]);
            }
        }
    }

    fn candle(&mut self, row: &CandleRow) {
        let c = &row.candle;
        self.ints(&[row.topic.into(), c.start_ns]);
        self.prices(&[c.open, c.high, c.low, c.close, c.volume]);
        self.ints(&[c.trades, c.open_ns, c.close_ns, c.first_seq, c.last_seq]);
    }

    /// As signed numbers: those beyond only occur where order does not count.
    fn ints(&mut self, numbers: &[u64]) {
        let mut digits = itoa::Buffer::new();
        for &number in numbers {
            self.0.put_slice(digits.format(number as i64).as_bytes());
            self.0.put_u8(b',');
        }
    }

    fn smalls(&mut self, numbers: &[u8]) {
        let mut digits = itoa::Buffer::new();
        for &number in numbers {
            self.0.put_slice(digits.format(number).as_bytes());
            self.0.put_u8(b',');
        }
    }

    fn prices(&mut self, prices: &[Micros]) {
        prices.iter().for_each(|&price| self.micros(price));
    }

    fn nulls(&mut self, count: usize) {
        for _ in 0..count {
            self.0.put_slice(b"\\N,");
        }
    }

    /// As decimal text without zeros at its end, which is the less to parse.
    fn micros(&mut self, value: Micros) {
        let (units, scale) = (value.0.unsigned_abs(), Micros::SCALE.unsigned_abs());
        if value.0 < 0 {
            self.0.put_u8(b'-');
        }
        let mut digits = itoa::Buffer::new();
        self.0.put_slice(digits.format(units / scale).as_bytes());
        let mut rest = units % scale;
        if rest > 0 {
            let mut fraction = *b".000000";
            let mut end = 1;
            for (at, digit) in fraction.iter_mut().enumerate().skip(1).rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
                if end == 1 && *digit != b'0' {
                    end = at + 1;
                }
            }
            self.0.put_slice(&fraction[..end]);
        }
        self.0.put_u8(b',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millionths_become_exact_text_without_zeros_at_the_end() {
        for (units, text) in [
            (0, "0,"),
            (1, "0.000001,"),
            (-1, "-0.000001,"),
            (1_500_000, "1.5,"),
            (-61_800_300_000, "-61800.3,"),
            (10_000_000, "10,"),
            (i64::MAX, "9223372036854.775807,"),
            (i64::MIN, "-9223372036854.775808,"),
        ] {
            let mut out = Text(BytesMut::with_capacity(64));
            out.micros(Micros(units));
            assert_eq!(out.0, text.as_bytes());
        }
    }

    #[test]
    fn the_longest_rows_fit_their_bound() {
        let most = Micros(i64::MIN);
        let quote = tickring_protocol::Quote {
            bid: most,
            bid_qty: most,
            ask: most,
            ask_qty: most,
            price_decimals: u8::MAX,
            qty_decimals: u8::MAX,
        };
        let trade = tickring_protocol::Trade {
            price: most,
            qty: most,
            ..Default::default()
        };
        let mut text = Text(BytesMut::with_capacity(PIECE));
        text.latest(&LatestRow {
            topic: u32::MAX,
            seq: 1 << 63,
            node_ns: 1 << 63,
            trade: Some((1 << 63, trade)),
            quote: Some((1 << 63, quote)),
        });
        assert!(text.0.len() <= ROW, "{}", text.0.len());
    }
}
