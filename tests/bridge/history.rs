//! Pages of stored rows, through the bridge.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tickring::node::{DatabaseSettings, JournalSettings};
use tickring::writer::follow::Target;
use tickring_bridge::Bridge;
use tickring_protocol::{Cursor, Decoded, Frame, History, Micros, Series, TickContent, decode};
use tungstenite::Message;

use crate::client::{Json, PATIENCE, bridge, upgrade};
use crate::faults::{encode, hello};
use crate::support::{Wire, node};
use crate::{publish_trade, stop};

const TRADES: i64 = 30;
const EVENT_NS: u64 = 1_700_000_000_000_000_000;

/// A page in JSON, of ten rows at most.
fn page(client: &mut Json, series: &str, cursor: &Value) -> Value {
    client.send(json!({"type": "history", "id": 7, "topic": "market/X", "series": series, "limit": 10, "cursor": cursor}));
    let page = client.expect("history_page");
    assert_eq!((&page["id"], &page["series"]), (&json!(7), &json!(series)));
    page
}

/// Seqs and prices of a binary client's page of ticks, and where the next begins.
fn binary_page(bridge: &Bridge, cursor: Cursor) -> (Vec<(u64, Micros)>, Option<Cursor>) {
    let protocol = [("sec-websocket-protocol", "tickring.bin.v1")];
    let (mut socket, _) = upgrade(bridge.local_addr(), &protocol).unwrap();
    socket.send(Message::binary(hello())).unwrap();
    let ask = encode(&Frame::History(History {
        request_id: 8,
        series: Series::Ticks,
        newest_first: true,
        limit: 20,
        from_ns: 0,
        to_ns: u64::MAX,
        cursor,
        topic: "market/X",
    }));
    socket.send(Message::binary(ask)).unwrap();
    loop {
        let bytes = socket.read().unwrap().into_data();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (frame, len) = match decode(rest, 16 << 20).unwrap() {
                Decoded::Frame { frame, len } => (frame, len),
                Decoded::Skipped { len } => {
                    rest = &rest[len..]; // whether there is a server
                    continue;
                }
                Decoded::NeedMore { .. } => panic!("a message holds whole frames: {rest:?}"),
            };
            if let Frame::HistoryPage(page) = frame {
                assert_eq!((page.request_id, page.series), (8, Series::Ticks));
                let row = |tick: tickring_protocol::StoredTick| match tick.content {
                    TickContent::Trade(trade) => (tick.seq, trade.price),
                    other => panic!("{other:?} was never published"),
                };
                let rows = page.ticks().map(|tick| row(tick.unwrap())).collect();
                return (rows, page.more.then_some(page.next));
            }
            assert!(
                matches!(frame, Frame::Welcome(_)),
                "{frame:?} instead of HISTORY_PAGE"
            );
            rest = &rest[len..];
        }
    }
}

#[test]
fn stored_rows_come_in_pages_in_both_sub_protocols() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bridge-history");
    let _ = std::fs::remove_dir_all(&dir); // of a run before
    let node = node(|config| {
        let sqlite = Target::Sqlite(dir.join("tickring.sqlite"));
        config.journal = Some(JournalSettings {
            database: Some(DatabaseSettings::new(sqlite)),
            ..JournalSettings::new(dir.join("journal"))
        });
    });
    let bridge = bridge(node.local_addr(), |_| {});
    let mut wire = Wire::open(&node);
    for n in 1..=TRADES {
        publish_trade(&mut wire, "market/X", n);
    }
    let (mut client, _) = Json::open(&bridge);
    let began = Instant::now();
    loop {
        client.send(json!({"type": "history", "id": 1, "topic": "market/X", "series": "ticks", "newest_first": true, "limit": 1}));
        if client.expect("history_page")["rows"][0]["seq"] == TRADES {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the database does not follow");
        std::thread::sleep(Duration::from_millis(20));
    }

    let (mut cursor, mut seq) = (Value::Null, 0);
    loop {
        let page = page(&mut client, "ticks", &cursor);
        for row in page["rows"].as_array().unwrap() {
            seq += 1;
            assert_eq!(row["seq"], seq);
            assert_eq!(row["kind"], "trade");
            assert_eq!(row["price"], format!("{seq}.30"));
            assert_eq!(row["qty"], "0.006");
            assert_eq!(row["side"], "sell");
            assert_eq!(row["ts_event_ns"], (EVENT_NS + seq as u64).to_string());
        }
        if page["more"] == false {
            break;
        }
        assert_eq!(page["rows"].as_array().unwrap().len(), 10);
        cursor = page["next"].clone();
    }
    assert_eq!(seq, TRADES);

    let candles = page(&mut client, "1m", &Value::Null);
    let candle = json!({
        "start_ns": (EVENT_NS - EVENT_NS % 60_000_000_000).to_string(),
        "open": "1.3", "high": "30.3", "low": "1.3", "close": "30.3", "volume": "0.18", "trades": TRADES,
    });
    assert_eq!(candles["rows"], json!([candle]));
    assert_eq!(candles["more"], false);

    let (newest, next) = binary_page(&bridge, Cursor::START);
    let (oldest, end) = binary_page(&bridge, next.expect("20 of 30 rows"));
    assert_eq!((newest.len(), oldest.len(), end), (20, 10, None));
    let expected = (1..=TRADES)
        .rev()
        .map(|n| (n as u64, Micros(n * 1_000_000 + 300_000)));
    assert!(newest.into_iter().chain(oldest).eq(expected));

    bridge.stop();
    stop(node);
    let _ = std::fs::remove_dir_all(dir);
}
