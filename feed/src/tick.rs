//! One trade or quote of an instrument, wherever it came from.

use tickring_protocol::{EventKind, Quote, Trade};

/// One trade or quote of an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick<'a> {
    /// The instrument, as the source calls it.
    pub symbol: &'a str,
    /// When whoever recorded it received it, in nanoseconds since 1970-01-01 UTC; the event time
    /// where the source does not tell. Replays are paced by it.
    pub received_ns: u64,
    /// When it happened, by its source; nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// What happened.
    pub content: Content,
}

/// What a tick is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A trade.
    Trade(Trade),
    /// A new best bid and offer.
    Quote(Quote),
}

impl Content {
    /// The layout of the event's body.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Trade(_) => EventKind::Trade,
            Self::Quote(_) => EventKind::Quote,
        }
    }

    /// Appends the event's body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Trade(trade) => trade.encode(out),
            Self::Quote(quote) => quote.encode(out),
        }
    }
}
