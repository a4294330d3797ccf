//! Rows to bound values and back.

use mysql_async::{Row, Value};
use tickring_protocol::{Micros, Quote, Trade};

use super::super::StoreError;
use super::super::batch::{CandleRow, EventRow, LatestRow, TickContent, TickRow, side};
use crate::market::{Candle, Session};

/// Numbers beyond i64 only occur where order does not count (epochs, journals, sessions).
pub(super) fn int(number: u64) -> Value {
    Value::Int(number as i64)
}

/// As decimal text: the one form in which both MySQL and MariaDB take an exact DECIMAL.
fn micros(value: Micros) -> Value {
    let mut text = Vec::with_capacity(21);
    let units = value.0.unsigned_abs();
    if value.0 < 0 {
        text.push(b'-');
    }
    let mut digits = [b'0'; 20];
    let (mut at, mut rest) = (20, units);
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let at = at.min(13); // at least one digit before the point and six behind it
    text.extend_from_slice(&digits[at..14]);
    text.push(b'.');
    text.extend_from_slice(&digits[14..]);
    Value::Bytes(text)
}

fn or_null<T>(value: Option<T>, make: impl Fn(T) -> Value) -> Value {
    value.map_or(Value::NULL, make)
}

fn small(value: u8) -> Value {
    Value::Int(value.into())
}

pub(super) fn tick(row: &TickRow, out: &mut Vec<Value>) {
    let (trade, quote, decimals) = match row.content {
        TickContent::Trade(t) => (Some(t), None, (t.price_decimals, t.qty_decimals)),
        TickContent::Quote(q) => (None, Some(q), (q.price_decimals, q.qty_decimals)),
    };
    out.extend([
        int(row.topic.into()),
        int(row.event_ns),
        int(row.seq),
        int(row.node_ns),
        int(row.content.kind().into()),
        small(row.session as u8),
        or_null(trade, |t| micros(t.price)),
        or_null(trade, |t| micros(t.qty)),
        or_null(trade, |t| small(t.side as u8)),
        or_null(quote, |q| micros(q.bid)),
        or_null(quote, |q| micros(q.bid_qty)),
        or_null(quote, |q| micros(q.ask)),
        or_null(quote, |q| micros(q.ask_qty)),
        small(decimals.0),
        small(decimals.1),
    ]);
}

pub(super) fn latest(row: &LatestRow, out: &mut Vec<Value>) {
    let (trade, quote) = (row.trade.map(|t| t.1), row.quote.map(|q| q.1));
    out.extend([
        int(row.topic.into()),
        int(row.seq),
        int(row.node_ns),
        or_null(row.trade, |t| int(t.0)),
        or_null(trade, |t| micros(t.price)),
        or_null(trade, |t| micros(t.qty)),
        or_null(trade, |t| small(t.side as u8)),
        or_null(trade, |t| small(t.price_decimals)),
        or_null(trade, |t| small(t.qty_decimals)),
        or_null(row.quote, |q| int(q.0)),
        or_null(quote, |q| micros(q.bid)),
        or_null(quote, |q| micros(q.bid_qty)),
        or_null(quote, |q| micros(q.ask)),
        or_null(quote, |q| micros(q.ask_qty)),
        or_null(quote, |q| small(q.price_decimals)),
        or_null(quote, |q| small(q.qty_decimals)),
    ]);
}

pub(super) fn candle(row: &CandleRow, out: &mut Vec<Value>) {
    let c = &row.candle;
    out.extend([int(row.topic.into()), int(c.start_ns)]);
    out.extend([c.open, c.high, c.low, c.close, c.volume].map(micros));
    out.extend([c.trades, c.open_ns, c.close_ns, c.first_seq, c.last_seq].map(int));
}

pub(super) fn event(row: &EventRow, out: &mut Vec<Value>) {
    let numbers = [
        row.topic.into(),
        row.seq,
        row.kind.into(),
        row.event_ns,
        row.node_ns,
        row.session,
    ];
    out.extend(numbers.map(int));
    out.push(Value::Bytes(row.body.clone()));
}

/// A row of an answer, read column by column.
pub(super) struct Columns(Row);

impl From<Row> for Columns {
    fn from(row: Row) -> Self {
        Self(row)
    }
}

impl Columns {
    fn corrupt(&self, column: usize) -> StoreError {
        let columns = self.0.columns_ref();
        let name = columns
            .get(column)
            .map_or_else(Default::default, |c| c.name_str());
        StoreError::Corrupt {
            reason: format!("column `{name}`: {:?}", self.0.as_ref(column)),
        }
    }

    pub(super) fn opt_int(&self, column: usize) -> Result<Option<u64>, StoreError> {
        match self.0.as_ref(column) {
            Some(Value::NULL) => Ok(None),
            Some(Value::Int(number)) => Ok(Some(*number as u64)),
            Some(Value::UInt(number)) => Ok(Some(*number)),
            Some(Value::Bytes(text)) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .map(|number| Some(number as u64))
                .ok_or_else(|| self.corrupt(column)),
            _ => Err(self.corrupt(column)),
        }
    }

    pub(super) fn int(&self, column: usize) -> Result<u64, StoreError> {
        self.opt_int(column)?.ok_or_else(|| self.corrupt(column))
    }

    pub(super) fn narrow<T: TryFrom<u64>>(&self, column: usize) -> Result<T, StoreError> {
        T::try_from(self.int(column)?).map_err(|_| self.corrupt(column))
    }

    pub(super) fn text(&self, column: usize) -> Result<String, StoreError> {
        String::from_utf8(self.bytes(column)?).map_err(|_| self.corrupt(column))
    }

    fn bytes(&self, column: usize) -> Result<Vec<u8>, StoreError> {
        match self.0.as_ref(column) {
            Some(Value::Bytes(bytes)) => Ok(bytes.clone()),
            _ => Err(self.corrupt(column)),
        }
    }

    fn micros(&self, column: usize) -> Result<Micros, StoreError> {
        match self.0.as_ref(column) {
            Some(Value::Bytes(text)) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| self.corrupt(column)),
            _ => Err(self.corrupt(column)),
        }
    }

    fn trade(&self, at: usize, decimals: usize) -> Result<Trade, StoreError> {
        Ok(Trade {
            price: self.micros(at)?,
            qty: self.micros(at + 1)?,
            side: side(self.narrow(at + 2)?),
            price_decimals: self.narrow(decimals)?,
            qty_decimals: self.narrow(decimals + 1)?,
        })
    }

    fn quote(&self, at: usize, decimals: usize) -> Result<Quote, StoreError> {
        Ok(Quote {
            bid: self.micros(at)?,
            bid_qty: self.micros(at + 1)?,
            ask: self.micros(at + 2)?,
            ask_qty: self.micros(at + 3)?,
            price_decimals: self.narrow(decimals)?,
            qty_decimals: self.narrow(decimals + 1)?,
        })
    }

    pub(super) fn tick(&self) -> Result<TickRow, StoreError> {
        let content = match self.0.as_ref(6) {
            Some(Value::NULL) => TickContent::Quote(self.quote(9, 13)?),
            _ => TickContent::Trade(self.trade(6, 13)?),
        };
        Ok(TickRow {
            topic: self.narrow(0)?,
            event_ns: self.int(1)?,
            seq: self.int(2)?,
            node_ns: self.int(3)?,
            session: Session::from_number(self.narrow(5)?).ok_or_else(|| self.corrupt(5))?,
            content,
        })
    }

    pub(super) fn latest(&self) -> Result<LatestRow, StoreError> {
        Ok(LatestRow {
            topic: self.narrow(0)?,
            seq: self.int(1)?,
            node_ns: self.int(2)?,
            trade: self
                .opt_int(3)?
                .map(|at| self.trade(4, 7).map(|t| (at, t)))
                .transpose()?,
            quote: self
                .opt_int(9)?
                .map(|at| self.quote(10, 14).map(|q| (at, q)))
                .transpose()?,
        })
    }

    pub(super) fn candle(&self) -> Result<CandleRow, StoreError> {
        Ok(CandleRow {
            topic: self.narrow(0)?,
            candle: Candle {
                start_ns: self.int(1)?,
                open: self.micros(2)?,
                high: self.micros(3)?,
                low: self.micros(4)?,
                close: self.micros(5)?,
                volume: self.micros(6)?,
                trades: self.int(7)?,
                open_ns: self.int(8)?,
                close_ns: self.int(9)?,
                first_seq: self.int(10)?,
                last_seq: self.int(11)?,
            },
        })
    }

    pub(super) fn event(&self) -> Result<EventRow, StoreError> {
        Ok(EventRow {
            topic: self.narrow(0)?,
            seq: self.int(1)?,
            kind: self.narrow(2)?,
            event_ns: self.int(3)?,
            node_ns: self.int(4)?,
            session: self.int(5)?,
            body: self.bytes(6)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millionths_become_the_same_text_as_the_protocol_shows() {
        for units in [
            0,
            1,
            -1,
            999_999,
            1_000_000,
            -1_000_000,
            61_800_300_000,
            i64::MAX,
            i64::MIN,
        ] {
            let text = Micros(units).display(6).to_string();
            assert_eq!(micros(Micros(units)), Value::Bytes(text.into_bytes()));
        }
    }
}
