//! Bodies of events, snapshots and the PUBLISH command.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use crate::{ErrorCode, MAX_NAME_LEN, Micros, wire};

/// The command that publishes one event: payload is a [`Publish`].
pub const PUBLISH: u16 = 1;

/// Why a body is not of its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Shorter or longer than the layout.
    #[error("body has another length than its layout")]
    Length,
    /// A field has a value outside its meaning.
    #[error("field `{0}` has a value that means nothing")]
    Field(&'static str),
}

impl BodyError {
    /// The code that a server answers with.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Length => ErrorCode::BadCommand,
            Self::Field(_) => ErrorCode::BadField,
        }
    }
}

/// What the body of an event or snapshot is. Kinds from 0x8000 on are free for machines that
/// embedders register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum EventKind {
    /// Bytes that the publisher chose.
    Message = 1,
    /// A [`Trade`].
    Trade = 2,
    /// A [`Quote`].
    Quote = 3,
    /// A [`MarketState`], in snapshots.
    MarketState = 4,
    /// A [`NodeStats`].
    NodeStats = 5,
    /// A [`Candle`](crate::Candle).
    Candle = 6,
}

impl EventKind {
    /// The kind of a number on the wire, or `None` if this version does not know it.
    pub const fn from_u16(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Message,
            2 => Self::Trade,
            3 => Self::Quote,
            4 => Self::MarketState,
            5 => Self::NodeStats,
            6 => Self::Candle,
            _ => return None,
        })
    }
}

/// Payload of [`PUBLISH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The body's layout: an [`EventKind`] as a number.
    pub kind: u16,
    /// When it happened, in nanoseconds since 1970-01-01 UTC; 0: when the node takes it in.
    pub event_ns: u64,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let head = wire::Publish {
            kind: self.kind.into(),
            reserved: 0.into(),
            reserved2: 0.into(),
            event_ns: self.event_ns.into(),
        };
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.body);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`BodyError::Length`] when it is shorter than its fixed part.
    pub fn decode(payload: &'a [u8]) -> Result<Self, BodyError> {
        let (w, body) = wire::Publish::ref_from_prefix(payload).map_err(|_| BodyError::Length)?;
        Ok(Self {
            kind: w.kind.get(),
            event_ns: w.event_ns.get(),
            body,
        })
    }
}

/// Who started a trade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Side {
    /// The source does not tell.
    #[default]
    Unknown = 0,
    /// The buyer took the offer.
    Buy = 1,
    /// The seller hit the bid.
    Sell = 2,
}

impl Side {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Unknown,
            1 => Self::Buy,
            2 => Self::Sell,
            _ => return None,
        })
    }

    /// `buy`, `sell` or `unknown`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }
}

/// One trade of an instrument.
///
/// ```
/// use tickring_protocol::{EventKind, Micros, Publish, Side, Trade};
///
/// let (price, price_decimals) = Micros::parse_scaled("61800.30")?;
/// let (qty, qty_decimals) = Micros::parse_scaled("0.006")?;
/// let mut body = Vec::new();
/// let trade = Trade { price, qty, side: Side::Buy, price_decimals, qty_decimals };
/// trade.encode(&mut body);
/// assert_eq!(Trade::decode(&body), Ok(trade));
///
/// // What a COMMAND with the command `PUBLISH` carries:
/// let mut payload = Vec::new();
/// let kind = EventKind::Trade as u16;
/// Publish { kind, event_ns: 1_723_161_256_322_000_000, body: &body }.encode(&mut payload);
/// assert_eq!(payload.len(), 16 + Trade::LEN);
/// # Ok::<(), tickring_protocol::MicrosError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trade {
    /// Price.
    pub price: Micros,
    /// Quantity.
    pub qty: Micros,
    /// Who started it.
    pub side: Side,
    /// Decimals that the source writes prices with (0 to 6): for showing, never for reckoning.
    pub price_decimals: u8,
    /// Decimals that the source writes quantities with (0 to 6).
    pub qty_decimals: u8,
}

impl Trade {
    /// Bytes of the body.
    pub const LEN: usize = size_of::<wire::Trade>();

    fn to_wire(self) -> wire::Trade {
        wire::Trade {
            price: self.price.0.into(),
            qty: self.qty.0.into(),
            side: self.side as u8,
            price_decimals: self.price_decimals,
            qty_decimals: self.qty_decimals,
            reserved: [0; 5],
        }
    }

    fn from_wire(w: &wire::Trade) -> Result<Self, BodyError> {
        Ok(Self {
            price: Micros(w.price.get()),
            qty: Micros(w.qty.get()),
            side: Side::from_byte(w.side).ok_or(BodyError::Field("side"))?,
            price_decimals: decimals(w.price_decimals, "price_decimals")?,
            qty_decimals: decimals(w.qty_decimals, "qty_decimals")?,
        })
    }

    /// Appends the body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.to_wire().as_bytes());
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`BodyError`] when it is not of this layout.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        Self::from_wire(wire::Trade::ref_from_bytes(body).map_err(|_| BodyError::Length)?)
    }
}

/// The best bid and offer of an instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// Highest price that somebody would buy at.
    pub bid: Micros,
    /// Quantity wanted at that price.
    pub bid_qty: Micros,
    /// Lowest price that somebody would sell at.
    pub ask: Micros,
    /// Quantity on offer at that price.
    pub ask_qty: Micros,
    /// Decimals that the source writes prices with (0 to 6): for showing, never for reckoning.
    pub price_decimals: u8,
    /// Decimals that the source writes quantities with (0 to 6).
    pub qty_decimals: u8,
}

impl Quote {
    /// Bytes of the body.
    pub const LEN: usize = size_of::<wire::Quote>();

    fn to_wire(self) -> wire::Quote {
        wire::Quote {
            bid: self.bid.0.into(),
            bid_qty: self.bid_qty.0.into(),
            ask: self.ask.0.into(),
            ask_qty: self.ask_qty.0.into(),
            price_decimals: self.price_decimals,
            qty_decimals: self.qty_decimals,
            reserved: [0; 6],
        }
    }

    fn from_wire(w: &wire::Quote) -> Result<Self, BodyError> {
        Ok(Self {
            bid: Micros(w.bid.get()),
            bid_qty: Micros(w.bid_qty.get()),
            ask: Micros(w.ask.get()),
            ask_qty: Micros(w.ask_qty.get()),
            price_decimals: decimals(w.price_decimals, "price_decimals")?,
            qty_decimals: decimals(w.qty_decimals, "qty_decimals")?,
        })
    }

    /// Appends the body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.to_wire().as_bytes());
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`BodyError`] when it is not of this layout.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        Self::from_wire(wire::Quote::ref_from_bytes(body).map_err(|_| BodyError::Length)?)
    }
}

fn decimals(byte: u8, field: &'static str) -> Result<u8, BodyError> {
    if byte <= 6 {
        Ok(byte)
    } else {
        Err(BodyError::Field(field))
    }
}

/// An instrument's state: the snapshot of a `market/` topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarketState {
    /// The date of the trading day that open, high, low, volume and trades belong to, in days since
    /// 1970-01-01.
    pub day: i32,
    /// Event time and content of the last trade.
    pub trade: Option<(u64, Trade)>,
    /// Event time and content of the newest quote.
    pub quote: Option<(u64, Quote)>,
    /// Price of the day's trade with the smallest (event time, seq).
    pub open: Micros,
    /// Highest price of the day.
    pub high: Micros,
    /// Lowest price of the day.
    pub low: Micros,
    /// Quantity traded in the day.
    pub volume: Micros,
    /// Trades of the day; 0: there was none yet, and `day` to `volume` mean nothing.
    pub trades: u64,
}

impl MarketState {
    /// Bytes of the body.
    pub const LEN: usize = size_of::<wire::MarketState>();

    /// Appends the body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (trade_ns, trade) = self.trade.unwrap_or_default();
        let (quote_ns, quote) = self.quote.unwrap_or_default();
        let flags = u32::from(self.trade.is_some()) | u32::from(self.quote.is_some()) << 1;
        let state = wire::MarketState {
            flags: flags.into(),
            day: self.day.into(),
            trade_ns: trade_ns.into(),
            trade: trade.to_wire(),
            quote_ns: quote_ns.into(),
            quote: quote.to_wire(),
            open: self.open.0.into(),
            high: self.high.0.into(),
            low: self.low.0.into(),
            volume: self.volume.0.into(),
            trades: self.trades.into(),
        };
        out.extend_from_slice(state.as_bytes());
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`BodyError`] when it is not of this layout.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let w = wire::MarketState::ref_from_bytes(body).map_err(|_| BodyError::Length)?;
        let flags = w.flags.get();
        let some = |bit: u32| flags & bit != 0;
        Ok(Self {
            day: w.day.get(),
            trade: some(1)
                .then(|| Trade::from_wire(&w.trade).map(|t| (w.trade_ns.get(), t)))
                .transpose()?,
            quote: some(2)
                .then(|| Quote::from_wire(&w.quote).map(|q| (w.quote_ns.get(), q)))
                .transpose()?,
            open: Micros(w.open.get()),
            high: Micros(w.high.get()),
            low: Micros(w.low.get()),
            volume: Micros(w.volume.get()),
            trades: w.trades.get(),
        })
    }
}

/// What one core has done and holds: the event of a `node/core-N` topic, one a second while
/// somebody subscribes. Counters run from the node's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Which core.
    pub core: u32,
    /// How many cores the node has.
    pub cores: u32,
    /// Time since the node started, in nanoseconds.
    pub uptime_ns: u64,
    /// Open connections.
    pub connections: u32,
    /// Subscriptions of those connections.
    pub subscriptions: u32,
    /// Topics that the core owns.
    pub topics: u32,
    /// Connections that are behind now.
    pub slow: u32,
    /// Events that the core's topics made.
    pub events: u64,
    /// Events handed to subscribers of this core.
    pub delivered: u64,
    /// Commands applied by the core's topics.
    pub commands: u64,
    /// Sends submitted.
    pub sends: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// GAPs told.
    pub gaps: u64,
    /// Bytes waiting in outboxes.
    pub outbox_bytes: u64,
    /// Bytes of events kept for replay.
    pub history_bytes: u64,
}

/// One connection that is behind; listed in [`NodeStats`] bodies, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowClient<'a> {
    /// What the connection calls itself.
    pub name: &'a str,
    /// Bytes waiting in its outbox.
    pub behind_bytes: u64,
    /// For how long it has been behind, in nanoseconds.
    pub since_ns: u64,
    /// Subscriptions that are waiting to catch up.
    pub topics: u32,
}

impl NodeStats {
    /// Appends the body, with `slow` behind it, to `out`. Names are cut at [`MAX_NAME_LEN`] bytes.
    pub fn encode<'c>(&self, slow: impl IntoIterator<Item = SlowClient<'c>>, out: &mut Vec<u8>) {
        let stats = wire::NodeStats {
            core: self.core.into(),
            cores: self.cores.into(),
            uptime_ns: self.uptime_ns.into(),
            connections: self.connections.into(),
            subscriptions: self.subscriptions.into(),
            topics: self.topics.into(),
            slow: self.slow.into(),
            events: self.events.into(),
            delivered: self.delivered.into(),
            commands: self.commands.into(),
            sends: self.sends.into(),
            sent_bytes: self.sent_bytes.into(),
            turns: self.turns.into(),
            gaps: self.gaps.into(),
            outbox_bytes: self.outbox_bytes.into(),
            history_bytes: self.history_bytes.into(),
        };
        out.extend_from_slice(stats.as_bytes());
        for client in slow {
            let name = shortened(client.name, MAX_NAME_LEN).as_bytes();
            let head = wire::SlowClient {
                behind_bytes: client.behind_bytes.into(),
                since_ns: client.since_ns.into(),
                topics: client.topics.into(),
                name_len: (name.len() as u16).into(),
                reserved: 0.into(),
            };
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(name);
        }
    }

    /// Reads a body: the figures, and the slow clients one by one.
    ///
    /// # Errors
    /// [`BodyError`] when it is not of this layout; a broken list of slow clients ends early.
    pub fn decode(body: &[u8]) -> Result<(Self, impl Iterator<Item = SlowClient<'_>>), BodyError> {
        let (w, mut rest) =
            wire::NodeStats::ref_from_prefix(body).map_err(|_| BodyError::Length)?;
        let get = |v: U64| v.get();
        let stats = Self {
            core: w.core.get(),
            cores: w.cores.get(),
            uptime_ns: get(w.uptime_ns),
            connections: w.connections.get(),
            subscriptions: w.subscriptions.get(),
            topics: w.topics.get(),
            slow: w.slow.get(),
            events: get(w.events),
            delivered: get(w.delivered),
            commands: get(w.commands),
            sends: get(w.sends),
            sent_bytes: get(w.sent_bytes),
            turns: get(w.turns),
            gaps: get(w.gaps),
            outbox_bytes: get(w.outbox_bytes),
            history_bytes: get(w.history_bytes),
        };
        let slow = std::iter::from_fn(move || {
            let (head, tail) = wire::SlowClient::ref_from_prefix(rest).ok()?;
            let (name, tail) = tail.split_at_checked(head.name_len.get() as usize)?;
            let name = std::str::from_utf8(name).ok()?;
            rest = tail;
            Some(SlowClient {
                name,
                behind_bytes: head.behind_bytes.get(),
                since_ns: head.since_ns.get(),
                topics: head.topics.get(),
            })
        });
        Ok((stats, slow))
    }
}

/// The longest start of `text` that has at most `max` bytes and ends with a whole character.
fn shortened(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_clients_name_is_cut_between_characters() {
        let client = |name| SlowClient {
            name,
            behind_bytes: 9,
            since_ns: 8,
            topics: 7,
        };
        // The 64th byte falls into the middle of the 32nd two-byte letter behind the `x`.
        let long = format!("x{}", "é".repeat(40));
        let mut body = Vec::new();
        NodeStats::default().encode([client(&long), client("next")], &mut body);
        let (_, slow) = NodeStats::decode(&body).unwrap();
        let cut = format!("x{}", "é".repeat(31));
        assert_eq!(
            slow.collect::<Vec<_>>(),
            [client(cut.as_str()), client("next")]
        );
    }
}
