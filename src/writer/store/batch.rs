//! The rows of one transaction.

use tickring_protocol::{Quote, Trade};

use crate::market::{Candle, Session};

/// A topic and one numbering of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicKey {
    /// `kind/name`.
    pub name: Box<str>,
    /// Which numbering its seqs belong to.
    pub epoch: u64,
}

/// How far a lane of the journal is in the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The lane.
    pub lane: u32,
    /// Which journal: two data directories must not write into one database by mistake.
    pub journal: u64,
    /// Everything before this position of the lane is in the tables. What a position counts is
    /// the journal's affair; it only ever grows.
    pub position: u64,
}

/// What a tick says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickContent {
    /// A trade.
    Trade(Trade),
    /// A best bid and offer.
    Quote(Quote),
}

/// A row of `ticks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRow {
    /// Id of the topic in the tables.
    pub topic: u32,
    /// Its seq in the topic.
    pub seq: u64,
    /// When it happened, nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// When the node took it in.
    pub node_ns: u64,
    /// In which session of its instrument it falls.
    pub session: Session,
    /// What it says.
    pub content: TickContent,
}

/// A row of `latest`: the trade and the quote with the newest event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatestRow {
    /// Id of the topic in the tables.
    pub topic: u32,
    /// The largest seq that it covers.
    pub seq: u64,
    /// When the node took that one in.
    pub node_ns: u64,
    /// Event time and content of the last trade.
    pub trade: Option<(u64, Trade)>,
    /// Event time and content of the newest quote.
    pub quote: Option<(u64, Quote)>,
}

/// A row of `candles_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandleRow {
    /// Id of the topic in the tables.
    pub topic: u32,
    /// The full state.
    pub candle: Candle,
}

/// A row of `events`: an event of a topic that is no market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Id of the topic in the tables.
    pub topic: u32,
    /// Its seq in the topic.
    pub seq: u64,
    /// The body's layout.
    pub kind: u16,
    /// When it happened, nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// When the node took it in.
    pub node_ns: u64,
    /// A number that stands for the sender's session (never its token); 0: none.
    pub session: u64,
    /// The body.
    pub body: Vec<u8>,
}

/// What one transaction writes. Rows may come in any order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Rows of `ticks`.
    pub ticks: Vec<TickRow>,
    /// Rows of `latest`, at most one per topic.
    pub latest: Vec<LatestRow>,
    /// Rows of the candle tables, in the order of [`Period::ALL`](crate::market::Period::ALL),
    /// at most one per candle.
    pub candles: [Vec<CandleRow>; 4],
    /// Rows of `events`.
    pub events: Vec<EventRow>,
    /// The lane's position behind this batch.
    pub checkpoint: Checkpoint,
}

impl Batch {
    /// How many rows it writes, its checkpoint aside.
    pub fn rows(&self) -> usize {
        let candles: usize = self.candles.iter().map(Vec::len).sum();
        self.ticks.len() + self.latest.len() + candles + self.events.len()
    }

    /// Takes every row out and keeps the room.
    pub fn clear(&mut self) {
        self.ticks.clear();
        self.latest.clear();
        self.candles.iter_mut().for_each(Vec::clear);
        self.events.clear();
    }

    /// Puts rows in the order of the tables' keys: neighbours land on one page of the database,
    /// and transactions of several lanes take their locks in one order.
    pub fn sort(&mut self) {
        self.ticks
            .sort_unstable_by_key(|row| (row.topic, row.event_ns, row.seq));
        self.latest.sort_unstable_by_key(|row| row.topic);
        for rows in &mut self.candles {
            rows.sort_unstable_by_key(|row| (row.topic, row.candle.start_ns));
        }
        self.events.sort_unstable_by_key(|row| (row.topic, row.seq));
    }
}

impl TickContent {
    /// The kind of its event, as in the tables.
    pub fn kind(&self) -> u16 {
        match self {
            Self::Trade(_) => tickring_protocol::EventKind::Trade as u16,
            Self::Quote(_) => tickring_protocol::EventKind::Quote as u16,
        }
    }
}

/// The side of a number in the tables.
pub(super) fn side(number: u8) -> tickring_protocol::Side {
    match number {
        1 => tickring_protocol::Side::Buy,
        2 => tickring_protocol::Side::Sell,
        _ => tickring_protocol::Side::Unknown,
    }
}
