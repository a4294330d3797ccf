//! What is read back from the store: candles and ticks, as HISTORY_PAGE carries them.

use zerocopy::{FromBytes, IntoBytes};

use crate::{BodyError, EventKind, Micros, Quote, Trade, wire};

/// Which rows of an instrument HISTORY asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Series {
    /// Every trade and quote: rows are [`StoredTick`]s.
    #[default]
    Ticks = 0,
    /// Candles of one second: rows are [`Candle`]s, as with all that follow.
    Second = 1,
    /// Candles of one minute.
    Minute = 2,
    /// Candles of one hour.
    Hour = 3,
    /// Candles of one day of the instrument's calendar.
    Day = 4,
}

impl Series {
    /// Every series, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Ticks,
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
    ];

    /// The series of a number on the wire.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Ticks,
            1 => Self::Second,
            2 => Self::Minute,
            3 => Self::Hour,
            4 => Self::Day,
            _ => return None,
        })
    }

    /// `ticks`, `1s`, `1m`, `1h` or `1d`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ticks => "ticks",
            Self::Second => "1s",
            Self::Minute => "1m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }

    /// Bytes of each of its rows.
    pub const fn row_len(self) -> usize {
        match self {
            Self::Ticks => StoredTick::LEN,
            _ => Candle::LEN,
        }
    }
}

/// How far a reader of a series is: behind the row of that event time and seq. A client takes it
/// from one page to the next as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cursor {
    /// Event time of the last row seen; of a candle, its start. Nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// Its seq; of a candle, 1. 0 together with a time of 0: at the beginning of the span.
    pub seq: u64,
}

impl Cursor {
    /// Before the first row.
    pub const START: Self = Self {
        event_ns: 0,
        seq: 0,
    };
}

/// A candle: the trades of one span of event time. The event and the snapshot of a `candle/`
/// topic, and a row of HISTORY_PAGE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

impl Candle {
    /// Bytes of the body.
    pub const LEN: usize = size_of::<wire::Candle>();

    /// Appends the body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let candle = wire::Candle {
            start_ns: self.start_ns.into(),
            open: self.open.0.into(),
            high: self.high.0.into(),
            low: self.low.0.into(),
            close: self.close.0.into(),
            volume: self.volume.0.into(),
            trades: self.trades.into(),
        };
        out.extend_from_slice(candle.as_bytes());
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`BodyError::Length`] when it is not of this layout.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let w = wire::Candle::ref_from_bytes(body).map_err(|_| BodyError::Length)?;
        Ok(Self {
            start_ns: w.start_ns.get(),
            open: Micros(w.open.get()),
            high: Micros(w.high.get()),
            low: Micros(w.low.get()),
            close: Micros(w.close.get()),
            volume: Micros(w.volume.get()),
            trades: w.trades.get(),
        })
    }
}

/// The part of a trading day that a tick falls into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TradingSession {
    /// Outside every session of the instrument's calendar.
    #[default]
    Closed = 0,
    /// Before the regular hours.
    Pre = 1,
    /// The regular hours.
    Regular = 2,
    /// After the regular hours.
    After = 3,
}

impl TradingSession {
    /// The session of a number on the wire.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
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

/// What a stored tick says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickContent {
    /// A trade.
    Trade(Trade),
    /// A best bid and offer.
    Quote(Quote),
}

/// A stored trade or quote: a row of HISTORY_PAGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredTick {
    /// Its seq in the topic.
    pub seq: u64,
    /// When it happened, by its source; nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// When the node took it in; nanoseconds since 1970-01-01 UTC.
    pub node_ns: u64,
    /// In which session of its instrument's calendar it falls.
    pub session: TradingSession,
    /// What it says.
    pub content: TickContent,
}

impl StoredTick {
    /// Bytes of a row.
    pub const LEN: usize = size_of::<wire::StoredTick>();

    /// Appends the row to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self.content {
            TickContent::Trade(_) => EventKind::Trade,
            TickContent::Quote(_) => EventKind::Quote,
        };
        let start = out.len();
        let head = wire::StoredTick {
            seq: self.seq.into(),
            event_ns: self.event_ns.into(),
            node_ns: self.node_ns.into(),
            kind: (kind as u16).into(),
            session: self.session as u8,
            reserved: [0; 5],
            body: [0; Quote::LEN],
        };
        out.extend_from_slice(&head.as_bytes()[..Self::LEN - Quote::LEN]);
        match self.content {
            TickContent::Trade(trade) => trade.encode(out),
            TickContent::Quote(quote) => quote.encode(out),
        }
        out.resize(start + Self::LEN, 0);
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`BodyError`] when it is not of this layout.
    pub fn decode(row: &[u8]) -> Result<Self, BodyError> {
        let w = wire::StoredTick::ref_from_bytes(row).map_err(|_| BodyError::Length)?;
        let content = match EventKind::from_u16(w.kind.get()) {
            Some(EventKind::Trade) => TickContent::Trade(Trade::decode(&w.body[..Trade::LEN])?),
            Some(EventKind::Quote) => TickContent::Quote(Quote::decode(&w.body)?),
            _ => return Err(BodyError::Field("kind")),
        };
        Ok(Self {
            seq: w.seq.get(),
            event_ns: w.event_ns.get(),
            node_ns: w.node_ns.get(),
            session: TradingSession::from_byte(w.session).ok_or(BodyError::Field("session"))?,
            content,
        })
    }
}
