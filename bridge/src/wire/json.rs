//! `tickring.json.v1`: frames as JSON.

use std::fmt::{Display, Write};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tickring_protocol::{
    Candle, Date, ErrorCode, EventKind, Frame, FrameType, GapReason, MarketState, Micros,
    NodeStats, Policy, Quote, StoredTick, TickContent, Trade,
};

use super::{Extra, Protocol, code_name};

pub(super) fn status(up: bool) -> Bytes {
    let state = if up { "up" } else { "down" };
    Object::of("status").quoted("upstream", state).end()
}

/// One array of several objects.
pub(super) fn array(objects: &[Bytes]) -> Bytes {
    let mut out = Vec::with_capacity(objects.iter().map(|o| o.len() + 1).sum::<usize>() + 1);
    for (index, object) in objects.iter().enumerate() {
        out.push(if index == 0 { b'[' } else { b',' });
        out.extend_from_slice(object);
    }
    out.push(b']');
    out.into()
}

pub(super) fn encode(frame: &Frame<'_>, topic: &str, extra: Extra) -> Bytes {
    match *frame {
        Frame::Event(event) => Object::of("event")
            .text("topic", topic)
            .number("seq", event.seq)
            .body(event.kind, event.event_ns, event.node_ns, event.body)
            .end(),
        Frame::Snapshot(snapshot) => Object::of("snapshot")
            .text("topic", topic)
            .number("seq", snapshot.seq)
            .body(
                snapshot.kind,
                snapshot.event_ns,
                snapshot.node_ns,
                snapshot.body,
            )
            .end(),
        Frame::Gap(gap) => {
            let told = Object::of("gap")
                .text("topic", topic)
                .quoted("reason", reason(gap.reason))
                .number("first_seq", gap.first_seq)
                .number("last_seq", gap.last_seq);
            match extra {
                Extra::Epoch(epoch) => told.quoted("epoch", epoch).end(),
                _ => told.end(),
            }
        }
        Frame::Subscribed(told) => Object::of("subscribed")
            .number("id", told.request_id)
            .text("topic", topic)
            .quoted("policy", policy(told.policy))
            .number("next_seq", told.next_seq)
            .number("last_seq", told.last_seq)
            .quoted("epoch", told.epoch)
            .end(),
        Frame::Unsubscribed(told) => Object::of("unsubscribed")
            .number("id", told.request_id)
            .text("topic", topic)
            .number("last_seq", told.last_seq)
            .end(),
        Frame::Reply(reply) => {
            let told = Object::of("reply")
                .number("id", reply.request_id)
                .text("topic", topic)
                .quoted("code", code_name(reply.code))
                .number("seq", reply.seq)
                .number("retry_after_ms", reply.retry_after_ms.into());
            match reply.code {
                0 => told.data(reply.payload).end(),
                _ => told
                    .text("text", &String::from_utf8_lossy(reply.payload))
                    .end(),
            }
        }
        Frame::HistoryPage(page) => {
            let mut told = Object::of("history_page")
                .number("id", page.request_id)
                .text("topic", topic)
                .quoted("series", page.series.name())
                .raw("more", page.more);
            let (ns, seq) = (page.next.event_ns, page.next.seq);
            told.key("next");
            told.put(format_args!("{{\"ns\":\"{ns}\",\"seq\":\"{seq}\"}}"));
            told.key("rows");
            told.rows(
                page.ticks()
                    .flatten()
                    .map(|tick| Object::new().tick(&tick).0)
                    .chain(page.candles().flatten().map(|c| Object::new().candle(&c).0)),
            );
            told.end()
        }
        Frame::Welcome(welcome) => {
            let up = matches!(extra, Extra::Upstream(true));
            Object::of("welcome")
                .quoted("protocol", Protocol::Json.name())
                .quoted("session", format_args!("{:032x}", welcome.session))
                .raw("resumed", welcome.resumed)
                .number("max_message_bytes", welcome.max_frame.into())
                .number("max_subscriptions", welcome.max_subscriptions.into())
                .quoted("node_ns", welcome.node_ns)
                .quoted("upstream", if up { "up" } else { "down" })
                .end()
        }
        Frame::Pong(pong) => Object::of("pong")
            .number("token", pong.token)
            .quoted("node_ns", pong.node_ns)
            .end(),
        Frame::Error(error) => {
            let mut told = Object::of("error").number("id", error.request_id);
            if !topic.is_empty() {
                told = told.text("topic", topic);
            }
            if let Some(refused) = refused(error.frame_type) {
                told = told.quoted("refused", refused);
            }
            told.quoted("code", code_name(error.code))
                .raw("fatal", error.fatal)
                .number("retry_after_ms", error.retry_after_ms.into())
                .text("text", error.text)
                .end()
        }
        Frame::Goodbye(goodbye) => Object::of("goodbye")
            .quoted("code", code_name(goodbye.code))
            .number("retry_after_ms", goodbye.retry_after_ms.into())
            .text("text", goodbye.text)
            .end(),
        // A client's own messages, and PING, are not sent to it.
        Frame::Hello(_)
        | Frame::Subscribe(_)
        | Frame::Unsubscribe(_)
        | Frame::Command(_)
        | Frame::Ping(_)
        | Frame::History(_) => Object::of("error")
            .quoted("code", ErrorCode::Internal.name())
            .end(),
    }
}

/// What a client asked for with a frame of that type.
pub(crate) fn refused(frame_type: u8) -> Option<&'static str> {
    Some(match FrameType::from_byte(frame_type)? {
        FrameType::Hello => "hello",
        FrameType::Subscribe => "subscribe",
        FrameType::Unsubscribe => "unsubscribe",
        FrameType::Command => "command",
        FrameType::History => "history",
        _ => return None,
    })
}

fn reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Delayed => "delayed",
        GapReason::Conflated => "conflated",
        GapReason::Expired => "expired",
        GapReason::Reset => "reset",
    }
}

fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Default => "default",
        Policy::Conflate => "conflate",
        Policy::Resume => "resume",
        Policy::Disconnect => "disconnect",
    }
}

/// One object under way. Values that are `quoted` need no escapes.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn of(kind: &str) -> Self {
        let mut out = String::with_capacity(256);
        out.push_str("{\"type\":\"");
        out.push_str(kind);
        out.push('"');
        Self(out)
    }

    fn end(mut self) -> Bytes {
        self.0.push('}');
        self.0.into()
    }

    fn put(&mut self, args: std::fmt::Arguments<'_>) {
        // Writing to a String never fails.
        let _ = self.0.write_fmt(args);
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.put(format_args!("\"{key}\":"));
    }

    fn raw(mut self, key: &str, value: impl Display) -> Self {
        self.key(key);
        self.put(format_args!("{value}"));
        self
    }

    fn number(self, key: &str, value: u64) -> Self {
        self.raw(key, value)
    }

    fn quoted(mut self, key: &str, value: impl Display) -> Self {
        self.key(key);
        self.put(format_args!("\"{value}\""));
        self
    }

    fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        self.0
            .push_str(&serde_json::to_string(value).unwrap_or_default());
        self
    }

    fn decimal(self, key: &str, value: Micros, decimals: u8) -> Self {
        self.quoted(key, value.display(decimals))
    }

    fn data(self, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text("data", text),
            Err(_) => self.quoted("data_base64", Base64Display::new(bytes, &STANDARD)),
        }
    }

    fn rows(&mut self, rows: impl Iterator<Item = String>) {
        self.0.push('[');
        for (index, row) in rows.enumerate() {
            if index > 0 {
                self.0.push(',');
            }
            self.0.push_str(&row);
            self.0.push('}');
        }
        self.0.push(']');
    }

    /// Kind, times and fields of an event or snapshot. A body that is not of its kind's layout is
    /// handed on as bytes.
    fn body(self, kind: u16, event_ns: u64, node_ns: u64, body: &[u8]) -> Self {
        let known = EventKind::from_u16(kind);
        let head = |told: Self, name: &str| {
            told.quoted("kind", name)
                .quoted("ts_event_ns", event_ns)
                .quoted("ts_node_ns", node_ns)
        };
        match known {
            Some(EventKind::Message) => return head(self, "message").data(body),
            Some(EventKind::Trade) => {
                if let Ok(trade) = Trade::decode(body) {
                    return head(self, "trade").trade(&trade);
                }
            }
            Some(EventKind::Quote) => {
                if let Ok(quote) = Quote::decode(body) {
                    return head(self, "quote").quote(&quote);
                }
            }
            Some(EventKind::MarketState) => {
                if let Ok(state) = MarketState::decode(body) {
                    return head(self, "market_state").market(&state);
                }
            }
            Some(EventKind::Candle) => {
                if let Ok(candle) = Candle::decode(body) {
                    return head(self, "candle").candle(&candle);
                }
            }
            Some(EventKind::NodeStats) => {
                if let Ok((stats, _)) = NodeStats::decode(body) {
                    return head(self, "node_stats").stats(&stats);
                }
            }
            _ => {}
        }
        head(self, "event")
            .number("event_kind", kind.into())
            .data(body)
    }

    fn trade(self, trade: &Trade) -> Self {
        self.decimal("price", trade.price, trade.price_decimals)
            .decimal("qty", trade.qty, trade.qty_decimals)
            .quoted("side", trade.side.name())
    }

    fn quote(self, quote: &Quote) -> Self {
        self.decimal("bid", quote.bid, quote.price_decimals)
            .decimal("bid_qty", quote.bid_qty, quote.qty_decimals)
            .decimal("ask", quote.ask, quote.price_decimals)
            .decimal("ask_qty", quote.ask_qty, quote.qty_decimals)
    }

    /// What there is of it: without a trade yet there is no price and no day.
    fn market(mut self, state: &MarketState) -> Self {
        if let Some((at, trade)) = &state.trade {
            self = self.quoted("ts_trade_ns", *at).trade(trade);
        }
        if let Some((at, quote)) = &state.quote {
            self = self.quoted("ts_quote_ns", *at).quote(quote);
        }
        if let Some((_, trade)) = &state.trade {
            self = self
                .quoted("day", Date(state.day))
                .decimal("open", state.open, trade.price_decimals)
                .decimal("high", state.high, trade.price_decimals)
                .decimal("low", state.low, trade.price_decimals)
                .decimal("volume", state.volume, trade.qty_decimals)
                .number("trades", state.trades);
        }
        self
    }

    fn candle(self, candle: &Candle) -> Self {
        self.quoted("start_ns", candle.start_ns)
            .decimal("open", candle.open, 0)
            .decimal("high", candle.high, 0)
            .decimal("low", candle.low, 0)
            .decimal("close", candle.close, 0)
            .decimal("volume", candle.volume, 0)
            .number("trades", candle.trades)
    }

    fn tick(self, tick: &StoredTick) -> Self {
        let kind = match tick.content {
            TickContent::Trade(_) => "trade",
            TickContent::Quote(_) => "quote",
        };
        let told = self
            .number("seq", tick.seq)
            .quoted("kind", kind)
            .quoted("ts_event_ns", tick.event_ns)
            .quoted("ts_node_ns", tick.node_ns)
            .quoted("session", tick.session.name());
        match &tick.content {
            TickContent::Trade(trade) => told.trade(trade),
            TickContent::Quote(quote) => told.quote(quote),
        }
    }

    fn stats(mut self, stats: &NodeStats) -> Self {
        for (key, value) in [
            ("core", stats.core),
            ("cores", stats.cores),
            ("connections", stats.connections),
            ("subscriptions", stats.subscriptions),
            ("topics", stats.topics),
            ("slow", stats.slow),
        ] {
            self = self.number(key, value.into());
        }
        for (key, value) in [
            ("uptime_ns", stats.uptime_ns),
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
            self = self.quoted(key, value);
        }
        self
    }
}
