//! Bodies of events and snapshots, read by their kind.

use tickring_client::protocol::{
    Candle, EventKind, GapReason, MarketState, NodeStats, Quote, Trade,
};

/// What a body says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Body<'a> {
    Trade(Trade),
    Quote(Quote),
    Market(MarketState),
    Stats(NodeStats),
    Candle(Candle),
    Message(&'a [u8]),
    /// Of a kind that this version does not know, or not of its kind's layout.
    Other(u16, &'a [u8]),
}

impl<'a> Body<'a> {
    pub(super) fn read(kind: u16, bytes: &'a [u8]) -> Self {
        let read = match EventKind::from_u16(kind) {
            Some(EventKind::Message) => Some(Self::Message(bytes)),
            Some(EventKind::Trade) => Trade::decode(bytes).ok().map(Self::Trade),
            Some(EventKind::Quote) => Quote::decode(bytes).ok().map(Self::Quote),
            Some(EventKind::MarketState) => MarketState::decode(bytes).ok().map(Self::Market),
            Some(EventKind::NodeStats) => {
                NodeStats::decode(bytes).ok().map(|(s, _)| Self::Stats(s))
            }
            Some(EventKind::Candle) => Candle::decode(bytes).ok().map(Self::Candle),
            _ => None,
        };
        read.unwrap_or(Self::Other(kind, bytes))
    }

    /// The kind's name in output; `event` for one that only a server's embedder knows.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Trade(_) => "trade",
            Self::Quote(_) => "quote",
            Self::Market(_) => "market_state",
            Self::Stats(_) => "node_stats",
            Self::Candle(_) => "candle",
            Self::Message(_) => "message",
            Self::Other(..) => "event",
        }
    }
}

/// A reason's name in output.
pub(super) fn reason_name(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Delayed => "delayed",
        GapReason::Conflated => "conflated",
        GapReason::Expired => "expired",
        GapReason::Reset => "reset",
    }
}
