//! Bodies of events and snapshots, and the payload of PUBLISH.

use serde_json::{Value, json};
use tickring_protocol::{
    BodyError, Candle, MarketState, Micros, NodeStats, Publish, Quote, Side, SlowClient,
    StoredTick, TickContent, Trade, TradingSession,
};

use crate::{cases, hex_bytes, hex_text, int, text};

const SIDES: [Side; 3] = [Side::Unknown, Side::Buy, Side::Sell];

#[test]
fn every_golden_body_decodes_to_its_meaning() {
    for (layout, case) in cases("body") {
        let (key, found) = match decoded(&layout, &case.bytes) {
            Ok(value) => ("value", value),
            Err(error) => ("error", json!(error.code().name())),
        };
        assert_eq!((key, &found), (key, &case.value[key]), "{}", case.name);
    }
}

#[test]
fn every_golden_body_meaning_encodes_to_its_bytes() {
    for (layout, case) in cases("body") {
        if case.value["value"].is_null() {
            continue;
        }
        let bytes = encoded(&layout, &case.value["value"]);
        assert_eq!(hex_text(&bytes), hex_text(&case.bytes), "{}", case.name);
    }
}

fn decoded(layout: &str, bytes: &[u8]) -> Result<Value, BodyError> {
    Ok(match layout {
        "TRADE" => trade_meaning(&Trade::decode(bytes)?),
        "QUOTE" => quote_meaning(&Quote::decode(bytes)?),
        "MARKET_STATE" => market_meaning(&MarketState::decode(bytes)?),
        "NODE_STATS" => {
            let (stats, clients) = NodeStats::decode(bytes)?;
            node_meaning(&stats, clients)
        }
        "PUBLISH" => {
            let publish = Publish::decode(bytes)?;
            json!({
                "kind": publish.kind, "event_ns": publish.event_ns.to_string(),
                "body": hex_text(publish.body),
            })
        }
        "CANDLE" => candle_meaning(&Candle::decode(bytes)?),
        "TICK" => tick_meaning(&StoredTick::decode(bytes)?),
        other => panic!("no body is called {other}"),
    })
}

pub(crate) fn encoded(layout: &str, v: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match layout {
        "TRADE" => trade(v).encode(&mut out),
        "QUOTE" => quote(v).encode(&mut out),
        "MARKET_STATE" => market(v).encode(&mut out),
        "NODE_STATS" => {
            let clients = v["clients"].as_array().unwrap().iter();
            node(v).encode(clients.map(slow_client), &mut out);
        }
        "PUBLISH" => Publish {
            kind: int(&v["kind"]),
            event_ns: int(&v["event_ns"]),
            body: &hex_bytes(&v["body"]),
        }
        .encode(&mut out),
        "CANDLE" => candle(v).encode(&mut out),
        "TICK" => tick(v).encode(&mut out),
        other => panic!("no body is called {other}"),
    }
    out
}

fn wide(value: Micros) -> Value {
    json!(value.0.to_string())
}

fn trade_meaning(t: &Trade) -> Value {
    json!({
        "price": wide(t.price), "qty": wide(t.qty), "side": t.side.name(),
        "price_decimals": t.price_decimals, "qty_decimals": t.qty_decimals,
    })
}

fn trade(v: &Value) -> Trade {
    let side = text(&v["side"]);
    Trade {
        price: Micros(int(&v["price"])),
        qty: Micros(int(&v["qty"])),
        side: *SIDES.iter().find(|s| s.name() == side).unwrap(),
        price_decimals: int(&v["price_decimals"]),
        qty_decimals: int(&v["qty_decimals"]),
    }
}

fn quote_meaning(q: &Quote) -> Value {
    json!({
        "bid": wide(q.bid), "bid_qty": wide(q.bid_qty),
        "ask": wide(q.ask), "ask_qty": wide(q.ask_qty),
        "price_decimals": q.price_decimals, "qty_decimals": q.qty_decimals,
    })
}

fn quote(v: &Value) -> Quote {
    Quote {
        bid: Micros(int(&v["bid"])),
        bid_qty: Micros(int(&v["bid_qty"])),
        ask: Micros(int(&v["ask"])),
        ask_qty: Micros(int(&v["ask_qty"])),
        price_decimals: int(&v["price_decimals"]),
        qty_decimals: int(&v["qty_decimals"]),
    }
}

pub(crate) fn candle_meaning(c: &Candle) -> Value {
    json!({
        "start_ns": c.start_ns.to_string(), "open": wide(c.open), "high": wide(c.high),
        "low": wide(c.low), "close": wide(c.close), "volume": wide(c.volume),
        "trades": c.trades.to_string(),
    })
}

fn candle(v: &Value) -> Candle {
    Candle {
        start_ns: int(&v["start_ns"]),
        open: Micros(int(&v["open"])),
        high: Micros(int(&v["high"])),
        low: Micros(int(&v["low"])),
        close: Micros(int(&v["close"])),
        volume: Micros(int(&v["volume"])),
        trades: int(&v["trades"]),
    }
}

pub(crate) fn tick_meaning(t: &StoredTick) -> Value {
    let (key, body) = match &t.content {
        TickContent::Trade(trade) => ("trade", trade_meaning(trade)),
        TickContent::Quote(quote) => ("quote", quote_meaning(quote)),
    };
    json!({
        "seq": t.seq.to_string(), "event_ns": t.event_ns.to_string(),
        "node_ns": t.node_ns.to_string(), "session": t.session.name(), key: body,
    })
}

fn tick(v: &Value) -> StoredTick {
    let session = (0..4).find_map(|n| {
        let session = TradingSession::from_byte(n)?;
        (session.name() == text(&v["session"])).then_some(session)
    });
    StoredTick {
        seq: int(&v["seq"]),
        event_ns: int(&v["event_ns"]),
        node_ns: int(&v["node_ns"]),
        session: session.unwrap(),
        content: match v["quote"].is_null() {
            true => TickContent::Trade(trade(&v["trade"])),
            false => TickContent::Quote(quote(&v["quote"])),
        },
    }
}

fn timed(event_ns: u64, mut value: Value) -> Value {
    value["event_ns"] = json!(event_ns.to_string());
    value
}

fn market_meaning(m: &MarketState) -> Value {
    json!({
        "day": m.day,
        "trade": m.trade.map(|(ns, t)| timed(ns, trade_meaning(&t))),
        "quote": m.quote.map(|(ns, q)| timed(ns, quote_meaning(&q))),
        "open": wide(m.open), "high": wide(m.high), "low": wide(m.low),
        "volume": wide(m.volume), "trades": m.trades.to_string(),
    })
}

fn market(v: &Value) -> MarketState {
    let some = |v: &Value| (!v.is_null()).then(|| int(&v["event_ns"]));
    MarketState {
        day: int(&v["day"]),
        trade: some(&v["trade"]).map(|ns| (ns, trade(&v["trade"]))),
        quote: some(&v["quote"]).map(|ns| (ns, quote(&v["quote"]))),
        open: Micros(int(&v["open"])),
        high: Micros(int(&v["high"])),
        low: Micros(int(&v["low"])),
        volume: Micros(int(&v["volume"])),
        trades: int(&v["trades"]),
    }
}

fn slow_client(v: &Value) -> SlowClient<'_> {
    SlowClient {
        name: text(&v["name"]),
        behind_bytes: int(&v["behind_bytes"]),
        since_ns: int(&v["since_ns"]),
        topics: int(&v["topics"]),
    }
}

fn node_meaning<'a>(s: &NodeStats, clients: impl Iterator<Item = SlowClient<'a>>) -> Value {
    let clients: Vec<Value> = clients
        .map(|c| {
            json!({
                "name": c.name, "behind_bytes": c.behind_bytes.to_string(),
                "since_ns": c.since_ns.to_string(), "topics": c.topics,
            })
        })
        .collect();
    json!({
        "core": s.core, "cores": s.cores, "uptime_ns": s.uptime_ns.to_string(),
        "connections": s.connections, "subscriptions": s.subscriptions, "topics": s.topics,
        "slow": s.slow, "events": s.events.to_string(), "delivered": s.delivered.to_string(),
        "commands": s.commands.to_string(), "sends": s.sends.to_string(),
        "sent_bytes": s.sent_bytes.to_string(), "turns": s.turns.to_string(),
        "gaps": s.gaps.to_string(), "outbox_bytes": s.outbox_bytes.to_string(),
        "history_bytes": s.history_bytes.to_string(), "clients": clients,
    })
}

fn node(v: &Value) -> NodeStats {
    NodeStats {
        core: int(&v["core"]),
        cores: int(&v["cores"]),
        uptime_ns: int(&v["uptime_ns"]),
        connections: int(&v["connections"]),
        subscriptions: int(&v["subscriptions"]),
        topics: int(&v["topics"]),
        slow: int(&v["slow"]),
        events: int(&v["events"]),
        delivered: int(&v["delivered"]),
        commands: int(&v["commands"]),
        sends: int(&v["sends"]),
        sent_bytes: int(&v["sent_bytes"]),
        turns: int(&v["turns"]),
        gaps: int(&v["gaps"]),
        outbox_bytes: int(&v["outbox_bytes"]),
        history_bytes: int(&v["history_bytes"]),
    }
}
