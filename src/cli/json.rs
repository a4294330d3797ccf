//! What happens on a topic as JSON, one object a line.
//!
//! Every line has `topic`, `seq` and `kind`; after a line with `seq` n the topic's next event is
//! n + 1. Decimals are strings with the decimals of their source. Nothing here allocates.

use std::fmt::Display;
use std::io::{self, Write};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use tickring_client::protocol::{
    Candle, Date, Event, Gap, MarketState, NodeStats, Quote, Series, Snapshot, StoredTick,
    TickContent, Trade,
};

use super::body::{Body, reason_name};

/// Writes an event, of kind `trade`, `quote`, `message`, `candle`, `node_stats` or `event`.
pub(super) fn event(out: &mut impl Write, topic: &str, event: &Event<'_>) -> io::Result<()> {
    let body = Body::read(event.kind, event.body);
    let mut line = Line::begin(out, topic, event.seq, body.name())?;
    line.plain("ts_event_ns", event.event_ns)?;
    line.body(&body)?;
    line.end()
}

/// Writes a topic's state, of kind `snapshot`.
pub(super) fn snapshot(
    out: &mut impl Write,
    topic: &str,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let mut line = Line::begin(out, topic, snapshot.seq, "snapshot")?;
    line.plain("ts_event_ns", snapshot.event_ns)?;
    line.body(&Body::read(snapshot.kind, snapshot.body))?;
    line.end()
}

/// Writes that events will not come, of kind `gap`; `seq` is the last of them.
pub(super) fn gap(out: &mut impl Write, topic: &str, gap: &Gap) -> io::Result<()> {
    let mut line = Line::begin(out, topic, gap.last_seq, "gap")?;
    line.plain("first_seq", gap.first_seq)?;
    line.plain("last_seq", gap.last_seq)?;
    line.quoted("reason", reason_name(gap.reason))?;
    line.end()
}

/// Writes a stored trade or quote, as it was and with what the node knows of it.
pub(super) fn stored_tick(out: &mut impl Write, topic: &str, tick: &StoredTick) -> io::Result<()> {
    let kind = match tick.content {
        TickContent::Trade(_) => "trade",
        TickContent::Quote(_) => "quote",
    };
    let mut line = Line::begin(out, topic, tick.seq, kind)?;
    line.plain("ts_event_ns", tick.event_ns)?;
    line.plain("ts_node_ns", tick.node_ns)?;
    line.quoted("session", tick.session.name())?;
    match &tick.content {
        TickContent::Trade(trade) => line.trade(trade)?,
        TickContent::Quote(quote) => line.quote(quote)?,
    }
    line.end()
}

/// Writes a stored candle; it has no `seq`, but a `period`.
pub(super) fn stored_candle(
    out: &mut impl Write,
    topic: &str,
    series: Series,
    candle: &Candle,
) -> io::Result<()> {
    out.write_all(b"{\"topic\":")?;
    serde_json::to_writer(&mut *out, topic)?;
    let mut line = Line(out);
    line.quoted("kind", "candle")?;
    line.quoted("period", series.name())?;
    line.candle(candle)?;
    line.end()
}

/// One object under way. Keys, and values that are `quoted`, need no escapes.
struct Line<'a, W>(&'a mut W);

impl<'a, W: Write> Line<'a, W> {
    fn begin(out: &'a mut W, topic: &str, seq: u64, kind: &str) -> io::Result<Self> {
        out.write_all(b"{\"topic\":")?;
        serde_json::to_writer(&mut *out, topic)?;
        let mut line = Self(out);
        line.plain("seq", seq)?;
        line.quoted("kind", kind)?;
        Ok(line)
    }

    fn end(self) -> io::Result<()> {
        self.0.write_all(b"}\n")
    }

    fn plain(&mut self, key: &str, value: u64) -> io::Result<()> {
        write!(self.0, ",\"{key}\":{value}")
    }

    fn quoted(&mut self, key: &str, value: impl Display) -> io::Result<()> {
        write!(self.0, ",\"{key}\":\"{value}\"")
    }

    fn body(&mut self, body: &Body<'_>) -> io::Result<()> {
        match body {
            Body::Trade(trade) => self.trade(trade),
            Body::Quote(quote) => self.quote(quote),
            Body::Market(state) => self.market(state),
            Body::Stats(stats) => self.stats(stats),
            Body::Candle(candle) => self.candle(candle),
            Body::Message(bytes) => self.data(bytes),
            Body::Other(kind, bytes) => {
                self.plain("event_kind", u64::from(*kind))?;
                self.data(bytes)
            }
        }
    }

    fn trade(&mut self, trade: &Trade) -> io::Result<()> {
        self.quoted("price", trade.price.display(trade.price_decimals))?;
        self.quoted("qty", trade.qty.display(trade.qty_decimals))?;
        self.quoted("side", trade.side.name())
    }

    fn quote(&mut self, quote: &Quote) -> io::Result<()> {
        self.quoted("bid", quote.bid.display(quote.price_decimals))?;
        self.quoted("bid_qty", quote.bid_qty.display(quote.qty_decimals))?;
        self.quoted("ask", quote.ask.display(quote.price_decimals))?;
        self.quoted("ask_qty", quote.ask_qty.display(quote.qty_decimals))
    }

    /// What there is of it: without a trade yet there is no price, and without one that counts for
    /// the day there is no day.
    fn market(&mut self, state: &MarketState) -> io::Result<()> {
        if let Some((at, trade)) = &state.trade {
            self.plain("ts_trade_ns", *at)?;
            self.trade(trade)?;
        }
        if let Some((at, quote)) = &state.quote {
            self.plain("ts_quote_ns", *at)?;
            self.quote(quote)?;
        }
        if let Some((_, trade)) = state.trade.filter(|_| state.trades > 0) {
            self.quoted("day", Date(state.day))?;
            self.quoted("open", state.open.display(trade.price_decimals))?;
            self.quoted("high", state.high.display(trade.price_decimals))?;
            self.quoted("low", state.low.display(trade.price_decimals))?;
            self.quoted("volume", state.volume.display(trade.qty_decimals))?;
            self.plain("trades", state.trades)?;
        }
        Ok(())
    }

    /// A candle does not tell how many decimals its source writes.
    fn candle(&mut self, candle: &Candle) -> io::Result<()> {
        self.plain("ts_start_ns", candle.start_ns)?;
        self.quoted("open", candle.open.display(0))?;
        self.quoted("high", candle.high.display(0))?;
        self.quoted("low", candle.low.display(0))?;
        self.quoted("close", candle.close.display(0))?;
        self.quoted("volume", candle.volume.display(0))?;
        self.plain("trades", candle.trades)
    }

    fn stats(&mut self, stats: &NodeStats) -> io::Result<()> {
        for (key, value) in [
            ("core", u64::from(stats.core)),
            ("cores", u64::from(stats.cores)),
            ("uptime_ns", stats.uptime_ns),
            ("connections", u64::from(stats.connections)),
            ("subscriptions", u64::from(stats.subscriptions)),
            ("topics", u64::from(stats.topics)),
            ("slow", u64::from(stats.slow)),
            ("events", stats.events),
            ("delivered", stats.delivered),
            ("commands", stats.commands),
            ("sends", stats.sends),
            ("sent_bytes", stats.sent_bytes),
            ("turns", stats.turns),
            ("gaps", stats.gaps),
            ("outbox_bytes", stats.outbox_bytes),
            ("history_bytes", stats.history_bytes),
        ] {
            self.plain(key, value)?;
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                self.0.write_all(b",\"data\":")?;
                Ok(serde_json::to_writer(&mut *self.0, text)?)
            }
            Err(_) => self.quoted("data_base64", Base64Display::new(bytes, &STANDARD)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickring_client::protocol::{EventKind, GapReason, Micros, Side};

    fn shown(kind: EventKind, body: &[u8]) -> String {
        let mut out = Vec::new();
        let shown = Event {
            topic_id: 1,
            kind: kind as u16,
            seq: 7,
            event_ns: 5,
            node_ns: 6,
            body,
        };
        event(&mut out, "market/A\"B", &shown).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_trade_is_shown_with_the_decimals_of_its_source() {
        let mut body = Vec::new();
        Trade {
            price: Micros(61_800_300_000),
            qty: Micros(6000),
            side: Side::Sell,
            price_decimals: 2,
            qty_decimals: 3,
        }
        .encode(&mut body);
        assert_eq!(
            shown(EventKind::Trade, &body),
            "{\"topic\":\"market/A\\\"B\",\"seq\":7,\"kind\":\"trade\",\"ts_event_ns\":5,\"price\":\"61800.30\",\"qty\":\"0.006\",\"side\":\"sell\"}\n"
        );
    }

    #[test]
    fn a_message_is_text_if_it_can_be_and_base64_otherwise() {
        assert!(shown(EventKind::Message, "é\n".as_bytes()).ends_with(",\"data\":\"é\\n\"}\n"));
        assert!(shown(EventKind::Message, b"\xff\0").ends_with(",\"data_base64\":\"/wA=\"}\n"));
    }

    #[test]
    fn a_body_of_another_layout_is_handed_on_as_bytes() {
        assert!(
            shown(EventKind::Trade, b"x").ends_with(
                ",\"kind\":\"event\",\"ts_event_ns\":5,\"event_kind\":2,\"data\":\"x\"}\n"
            )
        );
    }

    #[test]
    fn a_snapshot_shows_what_there_is_of_the_state() {
        let mut body = Vec::new();
        let trade = Trade {
            price: Micros(2_500_000),
            qty: Micros(1_000_000),
            side: Side::Buy,
            price_decimals: 2,
            qty_decimals: 0,
        };
        let state = MarketState {
            day: 19_943,
            trade: Some((3, trade)),
            open: Micros(2_000_000),
            high: Micros(3_000_000),
            low: Micros(1_000_000),
            volume: Micros(9_000_000),
            trades: 4,
            quote: None,
        };
        state.encode(&mut body);
        let mut out = Vec::new();
        let shown = Snapshot {
            topic_id: 1,
            kind: EventKind::MarketState as u16,
            seq: 9,
            event_ns: 3,
            node_ns: 4,
            body: &body,
        };
        snapshot(&mut out, "market/A", &shown).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"topic\":\"market/A\",\"seq\":9,\"kind\":\"snapshot\",\"ts_event_ns\":3,\"ts_trade_ns\":3,\"price\":\"2.50\",\"qty\":\"1\",\"side\":\"buy\",\"day\":\"2024-08-08\",\"open\":\"2.00\",\"high\":\"3.00\",\"low\":\"1.00\",\"volume\":\"9\",\"trades\":4}\n"
        );
    }

    #[test]
    fn a_gap_tells_which_events_do_not_come() {
        let mut out = Vec::new();
        let told = Gap {
            topic_id: 1,
            reason: GapReason::Expired,
            first_seq: 3,
            last_seq: 8,
        };
        gap(&mut out, "stream/a", &told).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"topic\":\"stream/a\",\"seq\":8,\"kind\":\"gap\",\"first_seq\":3,\"last_seq\":8,\"reason\":\"expired\"}\n"
        );
    }
}
