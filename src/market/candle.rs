//! Candles: open, high, low, close and volume of the trades of one span of event time.
//!
//! # The rule for late trades
//! A trade belongs to the candle of **its own event time**, however late it comes. Nothing is
//! dropped for being late: who folds trades reads the candle's state back from where it is stored
//! and folds into that. So a candle is a function of the set of trades alone:
//!
//! - `open` is the price of the trade with the smallest (event time, seq), `close` that of the
//!   largest, `high` and `low` are the extremes, `volume` and `trades` the sums;
//! - a recomputation from stored ticks, in any order, gives the same candle.
//!
//! Trades are folded by ascending `seq`, which is the order of their topic. A trade whose `seq` a
//! candle already covers is a replay and changes nothing.

use tickring_protocol::{Micros, Trade};

/// The span of a candle. Spans of up to an hour start at whole multiples of their length since
/// 1970-01-01 UTC; that of a day is the trading day of the instrument's calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Period {
    /// One second.
    Second = 0,
    /// One minute.
    Minute = 1,
    /// One hour.
    Hour = 2,
    /// One trading day.
    Day = 3,
}

impl Period {
    /// Every period, shortest first.
    pub const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    /// Where the span that holds `event_ns` starts, both in nanoseconds since 1970-01-01 UTC;
    /// `day_start_ns` is where its [trading day](super::Moment) does.
    #[inline]
    pub const fn start(self, event_ns: u64, day_start_ns: u64) -> u64 {
        let len_ns = match self {
            Self::Second => 1_000_000_000,
            Self::Minute => 60_000_000_000,
            Self::Hour => 3_600_000_000_000,
            Self::Day => return day_start_ns,
        };
        event_ns - event_ns % len_ns
    }

    /// `1s`, `1m`, `1h` or `1d`, as in `candle/1m/AAPL`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "1s",
            Self::Minute => "1m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }

    /// The period that [`name`](Self::name) calls so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// Why a trade cannot be folded into a candle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CandleError {
    /// A sum would leave the range of its field; the candle is as it was.
    #[error("`{field}` would leave its range; the trade is not part of the candle")]
    Overflow {
        /// The field of the candle.
        field: &'static str,
    },
}

/// What [`Candle::fold`] did with a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// It is part of the candle now.
    Taken,
    /// The candle already covers its seq: a replay, nothing changed.
    Replay,
}

/// A candle's full state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candle {
    /// Start of the span, nanoseconds since 1970-01-01 UTC.
    pub start_ns: u64,
    /// Price of the trade with the smallest (event time, seq).
    pub open: Micros,
    /// Highest price.
    pub high: Micros,
    /// Lowest price.
    pub low: Micros,
    /// Price of the trade with the largest (event time, seq).
    pub close: Micros,
    /// Sum of the quantities.
    pub volume: Micros,
    /// How many trades.
    pub trades: u64,
    /// Event time of the opening trade.
    pub open_ns: u64,
    /// Event time of the closing trade.
    pub close_ns: u64,
    /// Smallest seq that the candle covers.
    pub first_seq: u64,
    /// Largest seq that the candle covers: of two states of a candle, the one with more is newer.
    pub last_seq: u64,
}

impl Candle {
    /// The candle that starts at `start_ns` and consists of one trade.
    pub fn new(start_ns: u64, seq: u64, event_ns: u64, trade: &Trade) -> Self {
        Self {
            start_ns,
            open: trade.price,
            high: trade.price,
            low: trade.price,
            close: trade.price,
            volume: trade.qty,
            trades: 1,
            open_ns: event_ns,
            close_ns: event_ns,
            first_seq: seq,
            last_seq: seq,
        }
    }

    /// Folds a trade of the candle's span into it. By ascending seq; one that the candle already
    /// covers changes nothing.
    ///
    /// # Errors
    /// [`CandleError::Overflow`] when a sum does not fit; the candle is then as it was.
    pub fn fold(&mut self, seq: u64, event_ns: u64, trade: &Trade) -> Result<Folded, CandleError> {
        if seq <= self.last_seq {
            return Ok(Folded::Replay);
        }
        self.volume = self.volume_with(trade)?;
        self.trades += 1; // seq is larger for each, so it cannot pass 2^64
        self.high = self.high.max(trade.price);
        self.low = self.low.min(trade.price);
        // The seq is larger than all before, so it decides ties of the event time.
        if event_ns < self.open_ns {
            (self.open, self.open_ns) = (trade.price, event_ns);
        }
        if event_ns >= self.close_ns {
            (self.close, self.close_ns) = (trade.price, event_ns);
        }
        self.last_seq = seq;
        Ok(Folded::Taken)
    }

    /// The volume that the candle would have with one more trade.
    ///
    /// # Errors
    /// As [`Candle::fold`].
    #[inline]
    pub fn volume_with(&self, trade: &Trade) -> Result<Micros, CandleError> {
        let volume = self.volume.checked_add(trade.qty);
        volume.ok_or(CandleError::Overflow { field: "volume" })
    }

    /// How many numbers a candle is written as.
    pub const WORDS: usize = 11;

    /// All of it as numbers of fixed width.
    pub(crate) fn words(&self) -> [u64; Self::WORDS] {
        let bits = |micros: Micros| micros.0 as u64; // the same 64 bits
        [
            self.start_ns,
            bits(self.open),
            bits(self.high),
            bits(self.low),
            bits(self.close),
            bits(self.volume),
            self.trades,
            self.open_ns,
            self.close_ns,
            self.first_seq,
            self.last_seq,
        ]
    }

    /// The candle of these words; `None` where they say that there is none, since a candle has a
    /// trade.
    pub(crate) fn from_words(words: &[u64; Self::WORDS]) -> Option<Self> {
        let [start_ns, open, high, low, close, volume, trades, rest @ ..] = *words;
        let [open_ns, close_ns, first_seq, last_seq] = rest;
        let micros = |bits: u64| Micros(bits as i64); // the same 64 bits
        (trades > 0).then_some(Self {
            start_ns,
            open: micros(open),
            high: micros(high),
            low: micros(low),
            close: micros(close),
            volume: micros(volume),
            trades,
            open_ns,
            close_ns,
            first_seq,
            last_seq,
        })
    }

    /// The candle as clients see it.
    pub fn shown(&self) -> tickring_protocol::Candle {
        tickring_protocol::Candle {
            start_ns: self.start_ns,
            open: self.open,
            high: self.high,
            low: self.low,
            close: self.close,
            volume: self.volume,
            trades: self.trades,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trade(price: i64, qty: i64) -> Trade {
        Trade {
            price: Micros(price),
            qty: Micros(qty),
            ..Trade::default()
        }
    }

    #[test]
    fn spans_start_at_whole_multiples_of_utc() {
        let at = 1_723_161_256_322_000_000; // 2024-08-08 23:54:16.322 UTC
        let starts = Period::ALL.map(|p| p.start(at, 7_000_000_000) / 1_000_000_000);
        assert_eq!(starts, [1_723_161_256, 1_723_161_240, 1_723_158_000, 7]);
        assert_eq!(
            Period::ALL.map(|p| Period::from_name(p.name())),
            Period::ALL.map(Some)
        );
        assert_eq!(Period::from_name("2m"), None);
    }

    #[test]
    fn a_late_trade_may_become_the_open_but_never_the_close() {
        let mut candle = Candle::new(0, 1, 500, &trade(10, 1));
        candle.fold(2, 400, &trade(30, 1)).unwrap();
        assert_eq!((candle.open, candle.close), (Micros(30), Micros(10)));
        assert_eq!((candle.first_seq, candle.last_seq), (1, 2));
    }

    #[test]
    fn of_trades_at_one_instant_the_first_seq_opens_and_the_last_closes() {
        let mut candle = Candle::new(0, 1, 500, &trade(10, 1));
        candle.fold(2, 500, &trade(20, 1)).unwrap();
        assert_eq!((candle.open, candle.close), (Micros(10), Micros(20)));
    }

    #[test]
    fn a_replayed_trade_changes_nothing() {
        let mut candle = Candle::new(0, 1, 500, &trade(10, 1));
        candle.fold(2, 501, &trade(20, 1)).unwrap();
        let before = candle;
        assert_eq!(candle.fold(2, 501, &trade(20, 1)), Ok(Folded::Replay));
        assert_eq!(candle.fold(1, 500, &trade(10, 1)), Ok(Folded::Replay));
        assert_eq!(candle, before);
    }

    #[test]
    fn a_volume_that_does_not_fit_is_refused_by_name_and_changes_nothing() {
        let mut candle = Candle::new(0, 1, 500, &trade(10, i64::MAX));
        let before = candle;
        let error = candle.fold(2, 501, &trade(99, 1)).unwrap_err();
        assert_eq!(error, CandleError::Overflow { field: "volume" });
        assert!(error.to_string().contains("`volume`"));
        assert_eq!(candle, before);
        assert_eq!(candle.fold(3, 502, &trade(99, 0)), Ok(Folded::Taken));
        assert_eq!(candle.volume, Micros::MAX);
    }

    proptest! {
        #[test]
        fn a_candle_is_a_function_of_the_set_of_its_trades(
            trades in prop::collection::vec((0u64..50, 1i64..100, 0i64..100), 1..60)
        ) {
            let rows: Vec<(u64, u64, Trade)> = trades
                .iter()
                .zip(1..)
                .map(|(&(at, price, qty), seq)| (at, seq, trade(price, qty)))
                .collect();
            let mut candle = Candle::new(0, 1, rows[0].0, &rows[0].2);
            for (at, seq, trade) in &rows[1..] {
                candle.fold(*seq, *at, trade).unwrap();
            }
            let by_time = |row: &&(u64, u64, Trade)| (row.0, row.1);
            prop_assert_eq!(candle.open, rows.iter().min_by_key(by_time).unwrap().2.price);
            prop_assert_eq!(candle.close, rows.iter().max_by_key(by_time).unwrap().2.price);
            prop_assert_eq!(candle.high, rows.iter().map(|r| r.2.price).max().unwrap());
            prop_assert_eq!(candle.low, rows.iter().map(|r| r.2.price).min().unwrap());
            prop_assert_eq!(candle.volume.0, rows.iter().map(|r| r.2.qty.0).sum::<i64>());
            prop_assert_eq!(candle.trades, rows.len() as u64);
        }
    }
}
