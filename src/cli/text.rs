//! What happens on a topic as lines for people, in columns.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};

use tickring_client::protocol::{
    Candle, Event, Gap, MarketState, Micros, Quote, Series, Snapshot, StoredTick, TickContent,
    Trade,
};

use super::body::{Body, reason_name};
use super::clock::{TimeOfDay, utc, utc_seconds};

/// Bytes of a message that are shown.
const SHOWN: usize = 4096;

/// Writes lines whose columns stand under each other.
#[derive(Debug, Default)]
pub(super) struct Columns {
    topic_width: usize,
    cell: String,
}

impl Columns {
    /// For topics of at most this many characters.
    pub(super) fn new(topic_width: usize) -> Self {
        Self {
            topic_width,
            cell: String::new(),
        }
    }

    pub(super) fn event(
        &mut self,
        out: &mut impl Write,
        topic: &str,
        event: &Event<'_>,
    ) -> io::Result<()> {
        let body = Body::read(event.kind, event.body);
        self.head(out, topic, event.seq, event.event_ns, body.name())?;
        self.body(out, &body)
    }

    pub(super) fn snapshot(
        &mut self,
        out: &mut impl Write,
        topic: &str,
        snapshot: &Snapshot<'_>,
    ) -> io::Result<()> {
        self.head(out, topic, snapshot.seq, snapshot.event_ns, "snapshot")?;
        self.body(out, &Body::read(snapshot.kind, snapshot.body))
    }

    pub(super) fn gap(&mut self, out: &mut impl Write, topic: &str, gap: &Gap) -> io::Result<()> {
        let (width, reason) = (self.topic_width, reason_name(gap.reason));
        write!(
            out,
            "{topic:<width$} {:>10} {:15} gap      ",
            gap.last_seq, ""
        )?;
        match gap.first_seq <= gap.last_seq {
            true => writeln!(
                out,
                "{} to {} do not come ({reason})",
                gap.first_seq, gap.last_seq
            ),
            false => writeln!(out, "what was known is void ({reason})"),
        }
    }

    fn head(
        &mut self,
        out: &mut impl Write,
        topic: &str,
        seq: u64,
        ns: u64,
        kind: &str,
    ) -> io::Result<()> {
        let width = self.topic_width;
        write!(
            out,
            "{topic:<width$} {seq:>10} {} {kind:<8} ",
            TimeOfDay(ns)
        )
    }

    fn body(&mut self, out: &mut impl Write, body: &Body<'_>) -> io::Result<()> {
        match body {
            Body::Trade(trade) => self.trade(out, trade)?,
            Body::Quote(quote) => self.quote(out, quote)?,
            Body::Market(state) => self.market(out, state)?,
            Body::Stats(stats) => write!(
                out,
                "{} connections, {} subscriptions, {} topics, {} events, {} delivered",
                stats.connections, stats.subscriptions, stats.topics, stats.events, stats.delivered
            )?,
            Body::Candle(candle) => self.candle(out, candle)?,
            Body::Message(bytes) => message(out, bytes)?,
            Body::Other(kind, bytes) => {
                write!(out, "kind {kind}: ")?;
                message(out, bytes)?;
            }
        }
        writeln!(out)
    }

    fn trade(&mut self, out: &mut impl Write, trade: &Trade) -> io::Result<()> {
        write!(out, "{:<7} ", trade.side.name())?;
        self.right(out, trade.price.display(trade.price_decimals))?;
        write!(out, " x {}", trade.qty.display(trade.qty_decimals))
    }

    fn quote(&mut self, out: &mut impl Write, quote: &Quote) -> io::Result<()> {
        self.right(out, quote.bid_qty.display(quote.qty_decimals))?;
        write!(out, " x ")?;
        self.right(out, quote.bid.display(quote.price_decimals))?;
        write!(out, " | {}", quote.ask.display(quote.price_decimals))?;
        write!(out, " x {}", quote.ask_qty.display(quote.qty_decimals))
    }

    fn candle(&mut self, out: &mut impl Write, candle: &Candle) -> io::Result<()> {
        write!(
            out,
            "from {} open {}, high {}, low {}, close {}, volume {} in {} trades",
            utc_seconds(candle.start_ns),
            candle.open.display(0),
            candle.high.display(0),
            candle.low.display(0),
            candle.close.display(0),
            candle.volume.display(0),
            candle.trades
        )
    }

    fn market(&mut self, out: &mut impl Write, state: &MarketState) -> io::Result<()> {
        if let Some((_, trade)) = &state.trade {
            let price = |price: Micros| price.display(trade.price_decimals);
            let qty = trade.qty.display(trade.qty_decimals);
            write!(out, "last {} x {qty}, ", price(trade.price))?;
            match state.trades {
                0 => write!(out, "none of the day yet; ")?,
                trades => write!(
                    out,
                    "open {}, high {}, low {}, volume {} in {trades} trades; ",
                    price(state.open),
                    price(state.high),
                    price(state.low),
                    state.volume.display(trade.qty_decimals),
                )?,
            }
        }
        match &state.quote {
            Some((_, quote)) => write!(
                out,
                "bid {}, ask {}",
                quote.bid.display(quote.price_decimals),
                quote.ask.display(quote.price_decimals)
            ),
            None => write!(out, "no quote yet"),
        }
    }

    /// A number, right-aligned in a column of 12.
    fn right(&mut self, out: &mut impl Write, value: impl Display) -> io::Result<()> {
        self.cell.clear();
        write!(self.cell, "{value}").map_err(io::Error::other)?;
        write!(out, "{:>12}", self.cell)
    }
}

/// Writes stored rows as a table.
#[derive(Debug, Default)]
pub(super) struct Stored(Columns);

impl Stored {
    pub(super) fn heading(&self, out: &mut impl Write, series: Series) -> io::Result<()> {
        match series {
            Series::Ticks => writeln!(
                out,
                "{:26} {:>10} {:8} kind",
                "time (UTC)", "seq", "session"
            ),
            _ => writeln!(
                out,
                "{:19} {:>14} {:>14} {:>14} {:>14} {:>16} {:>9}",
                "start (UTC)", "open", "high", "low", "close", "volume", "trades"
            ),
        }
    }

    pub(super) fn tick(&mut self, out: &mut impl Write, tick: &StoredTick) -> io::Result<()> {
        let (time, session) = (utc(tick.event_ns), tick.session.name());
        write!(out, "{time} {:>10} {session:8} ", tick.seq)?;
        match &tick.content {
            TickContent::Trade(trade) => {
                write!(out, "trade    ")?;
                self.0.trade(out, trade)?;
            }
            TickContent::Quote(quote) => {
                write!(out, "quote    ")?;
                self.0.quote(out, quote)?;
            }
        }
        writeln!(out)
    }

    pub(super) fn candle(&mut self, out: &mut impl Write, candle: &Candle) -> io::Result<()> {
        let text = |value: Micros| value.display(0).to_string();
        writeln!(
            out,
            "{} {:>14} {:>14} {:>14} {:>14} {:>16} {:>9}",
            utc_seconds(candle.start_ns),
            text(candle.open),
            text(candle.high),
            text(candle.low),
            text(candle.close),
            text(candle.volume),
            candle.trades
        )
    }
}

/// Shows text as it is but for control characters, which could play tricks on a terminal.
fn message(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    for chunk in shown.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character.is_control() {
                true => write!(out, "{}", character.escape_default())?,
                false => write!(out, "{character}")?,
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    match bytes.len() - shown.len() {
        0 => Ok(()),
        more => write!(out, " ... and {more} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_send_escapes_to_the_terminal() {
        let mut out = Vec::new();
        message(&mut out, b"a\x1b[2Jb\xff\tc").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\\u{1b}[2Jb\\xff\\tc");
    }
}
