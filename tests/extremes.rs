//! The ends of the range of prices and quantities: on the wire, in the journal, over a restart, in
//! both databases, and back.
#![cfg(feature = "database")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::{Path, PathBuf};

use mysql_async::prelude::Queryable;
use support::{Wire, node};
use tickring::market::Period;
use tickring::node::{DatabaseSettings, JournalSettings, Node};
use tickring::writer::follow::Target;
use tickring::writer::store::{PageQuery, Pages, TickContent};
use tickring_protocol::{
    Candle, Command, ErrorCode, EventKind, Frame, MarketState, Micros, PUBLISH, Publish, Quote,
    Trade,
};

const LARGEST: Micros = Micros::MAX;
const NEGATIVE: Micros = Micros(-i64::MAX);
const LARGEST_TEXT: &str = "9223372036854.775807";
const NEGATIVE_TEXT: &str = "-9223372036854.775807";

/// What is published: topic, event time, and content.
fn ticks() -> [(&'static str, TickContent); 3] {
    let trade = |price| {
        TickContent::Trade(Trade {
            price,
            qty: LARGEST,
            ..Trade::default()
        })
    };
    let quote = Quote {
        bid: NEGATIVE,
        bid_qty: LARGEST,
        ask: LARGEST,
        ask_qty: LARGEST,
        ..Quote::default()
    };
    [
        ("market/high", trade(LARGEST)),
        ("market/low", trade(NEGATIVE)),
        ("market/quote", TickContent::Quote(quote)),
    ]
}

fn body(content: &TickContent) -> (EventKind, Vec<u8>) {
    let mut body = Vec::new();
    match content {
        TickContent::Trade(trade) => trade.encode(&mut body),
        TickContent::Quote(quote) => quote.encode(&mut body),
    }
    match content {
        TickContent::Trade(_) => (EventKind::Trade, body),
        TickContent::Quote(_) => (EventKind::Quote, body),
    }
}

/// Publishes; gives the reply's code and text.
fn publish(wire: &mut Wire, topic: &str, content: &TickContent) -> (u16, String) {
    let (kind, body) = body(content);
    let mut payload = Vec::new();
    Publish {
        kind: kind as u16,
        event_ns: 1_000_000_000,
        body: &body,
    }
    .encode(&mut payload);
    wire.send(&Frame::Command(Command {
        request_id: 0, // not remembered: each is a command of its own
        topic_id: 0,
        command: PUBLISH,
        topic,
        payload: &payload,
        quiet: false,
    }));
    wire.next(|frame| match frame {
        Frame::Reply(reply) => (
            reply.code,
            String::from_utf8_lossy(reply.payload).into_owned(),
        ),
        other => panic!("{other:?} instead of REPLY"),
    })
}

fn start(dir: &Path, target: &Target, cores: usize) -> Node {
    node(|config| {
        config.cores = cores;
        config.journal = Some(JournalSettings {
            database: Some(DatabaseSettings::new(target.clone())),
            ..JournalSettings::new(dir)
        });
    })
}

fn stop(node: Node) {
    node.shutdown();
    node.wait().unwrap();
}

/// Publishes the ends of the range, restarts, and reads them back live and from the database.
fn survive(dir: &Path, target: &Target) {
    let node = start(dir, target, 1);
    let (mut reader, mut feed) = (Wire::open(&node), Wire::open(&node));
    for (topic, content) in &ticks() {
        reader.subscribe(topic, 0);
        assert_eq!(publish(&mut feed, topic, content), (0, String::new()));
        reader.next(|frame| match frame {
            Frame::Event(event) => assert_eq!(event.body, body(content).1),
            other => panic!("{other:?} instead of EVENT"),
        });
    }
    // One unit more of volume does not fit, and nothing of that trade stays.
    let one = TickContent::Trade(Trade {
        qty: Micros(1),
        ..Trade::default()
    });
    let (code, text) = publish(&mut feed, "market/high", &one);
    assert_eq!(code, ErrorCode::OutOfRange as u16);
    assert_eq!(
        text,
        "qty would push the volume of the 1s candle out of range"
    );
    stop(node);

    let node = start(dir, target, 2);
    let mut wire = Wire::open(&node);
    for (topic, content) in &ticks() {
        wire.subscribe(topic, 0);
        let state = wire.next(|frame| match frame {
            Frame::Snapshot(it) => MarketState::decode(it.body).unwrap(),
            other => panic!("{other:?} instead of SNAPSHOT"),
        });
        match content {
            TickContent::Trade(trade) => assert_eq!(state.trade, Some((1_000_000_000, *trade))),
            TickContent::Quote(quote) => assert_eq!(state.quote, Some((1_000_000_000, *quote))),
        }
    }
    for (topic, price) in [("candle/1d/high", LARGEST), ("candle/1s/low", NEGATIVE)] {
        wire.subscribe(topic, 0);
        let candle = wire.next(|frame| match frame {
            Frame::Snapshot(it) => Candle::decode(it.body).unwrap(),
            other => panic!("{other:?} instead of SNAPSHOT"),
        });
        let prices = [candle.open, candle.high, candle.low, candle.close];
        assert_eq!((prices, candle.volume), ([price; 4], LARGEST));
    }
    stop(node);

    runtime().block_on(read_back(target));
}

/// The database has what was published, and nothing of what was refused.
async fn read_back(target: &Target) {
    let mut store = target.connect().await.unwrap();
    for (topic, content) in &ticks() {
        let id = store.find_topic(topic).await.unwrap().unwrap();
        let rows = store.page_ticks(&PageQuery::all(id, 10)).await.unwrap();
        let stored: Vec<TickContent> = rows.iter().map(|row| row.content).collect();
        assert_eq!(stored, [*content]);
        if let TickContent::Trade(trade) = content {
            for period in Period::ALL {
                let candles = store.page_candles(period, &PageQuery::all(id, 10)).await;
                let candle = candles.unwrap()[0];
                let prices = [candle.open, candle.high, candle.low, candle.close];
                assert_eq!((prices, candle.volume), ([trade.price; 4], LARGEST));
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// What `price` and `qty` of the trades, and `bid` and `ask` of the quotes, look like to a person.
fn expected() -> Vec<String> {
    let rows = [
        [LARGEST_TEXT; 2],
        [NEGATIVE_TEXT, LARGEST_TEXT],
        [NEGATIVE_TEXT, LARGEST_TEXT],
    ];
    rows.concat().into_iter().map(str::to_owned).collect()
}

const COLUMNS: &str = "COALESCE(price, bid), COALESCE(qty, ask)";

#[test]
fn the_ends_of_the_range_survive_wire_journal_restart_and_sqlite() {
    let dir = temporary("sqlite");
    let file = dir.join("tickring.sqlite");
    survive(&dir, &Target::Sqlite(file.clone()));
    let sql = format!(
        "SELECT {COLUMNS} FROM ticks_text JOIN topics ON topics.id = topic_id ORDER BY name"
    );
    let database = rusqlite::Connection::open(file).unwrap();
    let mut statement = database.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?]));
    let shown: Vec<[String; 2]> = rows.unwrap().map(Result::unwrap).collect();
    assert_eq!(shown.concat(), expected());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_ends_of_the_range_survive_wire_journal_restart_and_mysql() {
    let Ok(url) = std::env::var("TICKRING_TEST_MYSQL") else {
        eprintln!("skipped: TICKRING_TEST_MYSQL is not set");
        return;
    };
    let dir = temporary("mysql");
    let name = format!("tickring_extremes_{}", std::process::id());
    let run = runtime();
    let mut conn = run.block_on(mysql_async::Conn::from_url(&url)).unwrap();
    run.block_on(conn.query_drop(format!("CREATE DATABASE {name}")))
        .unwrap();
    let server = url.rsplit_once('/').unwrap().0;
    survive(&dir, &Target::MySql(format!("{server}/{name}")));
    let sql = format!(
        "SELECT {COLUMNS} FROM {name}.ticks JOIN {name}.topics ON topics.id = topic_id ORDER BY name"
    );
    let shown: Vec<(String, String)> = run.block_on(conn.query(sql)).unwrap();
    let shown: Vec<String> = shown.into_iter().flat_map(|(a, b)| [a, b]).collect();
    assert_eq!(shown, expected());
    run.block_on(conn.query_drop(format!("DROP DATABASE {name}")))
        .unwrap();
    run.block_on(conn.disconnect()).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

fn temporary(test: &str) -> PathBuf {
    let name = format!("tickring-extremes-{test}-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
