//! One suite, run against SQLite always and against the database of `TICKRING_TEST_MYSQL`
//! (`mysql://…`, with rights to create databases) where it is set.

mod pages;
mod place;

use std::sync::Arc;

use tickring_protocol::{Micros, Quote, Side, Trade};

use super::*;
use crate::market::Session;
use pages::{
    a_read_only_connection_reads_what_is_written_meanwhile_and_writes_nothing,
    pages_give_every_candle_once_in_order_both_ways, pages_give_every_tick_once_in_order_both_ways,
};
pub(crate) use place::Place;

fn trade(price: i64, qty: i64) -> Trade {
    Trade {
        price: Micros(price),
        qty: Micros(qty),
        side: Side::Sell,
        price_decimals: 2,
        qty_decimals: 3,
    }
}

fn tick(topic: u32, seq: u64, event_ns: u64, content: TickContent) -> TickRow {
    TickRow {
        topic,
        seq,
        event_ns,
        node_ns: event_ns + 7,
        session: Session::Regular,
        content,
    }
}

fn trade_tick(topic: u32, seq: u64, price: i64) -> TickRow {
    tick(
        topic,
        seq,
        1_000 * seq,
        TickContent::Trade(trade(price, 10)),
    )
}

fn candle(last_seq: u64, volume: i64) -> Candle {
    let mut candle = Candle::new(60_000_000_000, 1, 61_000_000_000, &trade(5, volume));
    candle.last_seq = last_seq;
    candle
}

fn at(position: u64) -> Checkpoint {
    Checkpoint {
        lane: 3,
        journal: u64::MAX,
        position,
    }
}

async fn topic(store: &mut Database, name: &str) -> u32 {
    store
        .topic_ids(&[TopicKey {
            name: name.into(),
            epoch: 1,
        }])
        .await
        .unwrap()[0]
}

async fn commit(store: &mut Database, batch: Batch) {
    store.commit(&Arc::new(batch)).await.unwrap();
}

/// Makes a test of each database for every scenario.
macro_rules! on_both {
    ($($scenario:ident)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(super::Place::sqlite()).await;
            })*
        }
        mod mysql {
            $(#[tokio::test]
            async fn $scenario() {
                if let Some(place) = super::Place::mysql().await {
                    super::$scenario(place).await;
                }
            })*
        }
    };
}

on_both! {
    every_row_comes_back_as_it_was_written
    the_ends_of_the_range_survive_to_the_last_decimal
    a_batch_that_comes_again_or_late_changes_nothing
    a_batch_that_fails_half_way_leaves_nothing_behind
    ids_are_kept_and_names_are_told_apart_to_the_letter
    events_are_read_by_pages
    pages_give_every_tick_once_in_order_both_ways
    pages_give_every_candle_once_in_order_both_ways
    a_read_only_connection_reads_what_is_written_meanwhile_and_writes_nothing
    what_is_recent_is_found_for_many_topics_at_once
    tables_of_a_newer_tickring_are_refused
    opening_again_keeps_what_is_there
    two_lanes_commit_at_once_without_losing_anything
}

#[tokio::test]
async fn a_server_with_another_journal_cannot_write_to_the_same_tables() {
    let Some(place) = Place::mysql().await else {
        return;
    };
    let (mut store, mut other) = (place.open().await, place.open().await);
    commit(&mut store, at_journal(1, 5)).await;
    let error = other.commit(&Arc::new(at_journal(2, 9))).await.unwrap_err();
    assert!(error.to_string().contains("another journal"), "{error}");
    let checkpoints = store.checkpoints().await.unwrap();
    assert_eq!((checkpoints[0].journal, checkpoints[0].position), (1, 5));
}

fn at_journal(journal: u64, position: u64) -> Batch {
    Batch {
        checkpoint: Checkpoint {
            lane: 0,
            journal,
            position,
        },
        ..Batch::default()
    }
}

/// Every way that rows travel writes the same rows.
#[tokio::test]
async fn all_insert_modes_write_the_same() {
    let mut written = Vec::new();
    for mode in [InsertMode::MultiRow, InsertMode::Bulk, InsertMode::Load] {
        let Some(place) = Place::mysql().await else {
            return;
        };
        let Database::MySql(store) = place.open().await else {
            unreachable!("a MySQL place opens MySQL")
        };
        if mode == InsertMode::Load && store.mode() != mode {
            continue; // not allowed by this server
        }
        let mut store = Database::MySql(store.with_mode(mode));
        let mut batch = at_journal(1, 1);
        for seq in 1..=2_000 {
            batch.ticks.push(trade_tick(1, seq, i64::MAX - seq as i64));
            let quote = Quote {
                bid: Micros(-(seq as i64)),
                ..Quote::default()
            };
            batch
                .ticks
                .push(tick(2, seq, seq, TickContent::Quote(quote)));
            for rows in &mut batch.candles {
                rows.push(CandleRow {
                    topic: seq as u32,
                    candle: candle(seq, seq as i64),
                });
            }
        }
        commit(&mut store, batch.clone()).await;
        batch.checkpoint.position = 2;
        batch.candles[0][7].candle = candle(9_999, 3);
        commit(&mut store, batch).await;
        written.push(place.everything().await);
    }
    assert!(written.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(written[0][0].len(), 4_000);
}

async fn every_row_comes_back_as_it_was_written(place: Place) {
    let mut store = place.open().await;
    let id = topic(&mut store, "market/AAPL").await;
    let quote = Quote {
        bid: Micros(-5),
        bid_qty: Micros(0),
        ask: Micros(61_800_300_000),
        ask_qty: Micros(1),
        price_decimals: 6,
        qty_decimals: 0,
    };
    let ticks = vec![
        tick(id, 1, 50, TickContent::Trade(trade(123_456_789, 5))),
        tick(id, 2, 60, TickContent::Quote(quote)),
    ];
    let latest = LatestRow {
        topic: id,
        seq: 2,
        node_ns: 67,
        trade: Some((50, trade(123_456_789, 5))),
        quote: Some((60, quote)),
    };
    let only_quote = LatestRow {
        topic: id + 1,
        trade: None,
        ..latest
    };
    let event = EventRow {
        topic: id,
        seq: 9,
        kind: 0x8001,
        event_ns: MAX_TIME_NS,
        node_ns: 3,
        session: u64::MAX,
        body: vec![0, 255, b'\'', 0],
    };
    let mut batch = Batch {
        ticks: ticks.clone(),
        latest: vec![latest, only_quote],
        events: vec![event.clone()],
        checkpoint: at(5),
        ..Batch::default()
    };
    for rows in &mut batch.candles {
        let candle = Candle::new(99_000_000_000, 1, 99_000_000_000, &trade(7, 8));
        rows.push(CandleRow { topic: id, candle });
    }
    let candles = batch.candles.clone();
    commit(&mut store, batch).await;

    assert_eq!(
        store.page_ticks(&PageQuery::all(id, 10)).await.unwrap(),
        ticks
    );
    assert_eq!(store.page_events(id, 0, 10).await.unwrap(), [event]);
    for (rows, period) in candles.iter().zip(Period::ALL) {
        let found = store
            .page_candles(period, &PageQuery::all(id, 10))
            .await
            .unwrap();
        assert_eq!(found, [rows[0].candle]);
        let keys = [(id, rows[0].candle.start_ns), (id, 1)];
        assert_eq!(store.candles(period, &keys).await.unwrap(), *rows);
    }
    let recent = store.recent(&[id + 1, id]).await.unwrap();
    assert_eq!(recent[0].latest, Some(only_quote));
    assert_eq!(recent[1].latest, Some(latest));
    assert_eq!(store.checkpoints().await.unwrap(), [at(5)]);
}

async fn the_ends_of_the_range_survive_to_the_last_decimal(place: Place) {
    const LARGEST: &str = "9223372036854.775807";
    let mut store = place.open().await;
    let id = topic(&mut store, "market/X").await;
    let values = [
        LARGEST.to_owned(),
        format!("-{LARGEST}"),
        "-9223372036854.775808".to_owned(),
    ];
    let mut batch = Batch {
        checkpoint: at(1),
        ..Batch::default()
    };
    for (text, seq) in values.iter().zip(1..) {
        let value: Micros = text.parse().unwrap();
        let content = Trade {
            price: value,
            qty: value,
            ..Trade::default()
        };
        batch
            .ticks
            .push(tick(id, seq, seq, TickContent::Trade(content)));
        let candle = Candle::new(seq * 1_000_000_000, seq, seq * 1_000_000_000, &content);
        batch.candles[0].push(CandleRow { topic: id, candle });
    }
    let sent = batch.clone();
    commit(&mut store, batch).await;
    assert_eq!(
        store.page_ticks(&PageQuery::all(id, 10)).await.unwrap(),
        sent.ticks
    );
    let found = store
        .page_candles(Period::Second, &PageQuery::all(id, 10))
        .await
        .unwrap();
    assert_eq!(
        found,
        sent.candles[0]
            .iter()
            .map(|row| row.candle)
            .collect::<Vec<_>>()
    );

    // What a person sees in the tables is the same text.
    let suffix = place.text_suffix();
    let shown = place
        .sql(&format!("SELECT price FROM ticks{suffix} ORDER BY seq"))
        .await;
    assert_eq!(shown.concat(), values);
    let sums =
        format!("SELECT open, high, low, close, volume FROM candles_1s{suffix} ORDER BY start_ns");
    for (row, text) in place.sql(&sums).await.iter().zip(&values) {
        assert!(row.iter().all(|shown| shown == text), "{row:?}");
    }
    // And the next value never gets this far: the fold names the field.
    let mut full = sent.candles[0][0].candle;
    let error = full
        .fold(9, full.start_ns, &trade(1, 1))
        .unwrap_err()
        .to_string();
    assert!(error.contains("`volume`"), "{error}");
}

async fn a_batch_that_comes_again_or_late_changes_nothing(place: Place) {
    let mut store = place.open().await;
    let id = topic(&mut store, "market/X").await;
    let batch = |price: i64, seq: u64, position: u64| {
        let latest = LatestRow {
            topic: id,
            seq,
            node_ns: seq,
            trade: Some((seq, trade(price, 1))),
            quote: None,
        };
        let mut batch = Batch {
            ticks: vec![trade_tick(id, 1, 11), trade_tick(id, seq, price)],
            latest: vec![latest],
            checkpoint: at(position),
            ..Batch::default()
        };
        batch.candles[1].push(CandleRow {
            topic: id,
            candle: candle(seq, price),
        });
        batch
    };
    commit(&mut store, batch(20, 5, 100)).await;
    let before = place.everything().await;
    commit(&mut store, batch(20, 5, 100)).await;
    assert_eq!(place.everything().await, before);
    // An older state, and another content for rows that are there.
    let mut older = batch(99, 5, 50);
    older.latest[0].seq = 4;
    older.candles[1][0].candle.last_seq = 4;
    commit(&mut store, older).await;
    assert_eq!(place.everything().await, before);
    commit(&mut store, batch(30, 6, 101)).await;
    let recent = store.recent(&[id]).await.unwrap();
    assert_eq!(recent[0].candles[1].unwrap().volume, Micros(30));
    assert_eq!(recent[0].latest.unwrap().seq, 6);
    assert_eq!(store.checkpoints().await.unwrap(), [at(101)]);
}

async fn a_batch_that_fails_half_way_leaves_nothing_behind(place: Place) {
    let mut store = place.open().await;
    let id = topic(&mut store, "market/X").await;
    let batch = Batch {
        ticks: vec![trade_tick(id, 1, 5)],
        checkpoint: at(1),
        ..Batch::default()
    };
    let batch = Arc::new(batch);
    // The checkpoint is the last statement of the transaction.
    place.sql("ALTER TABLE checkpoints RENAME TO hidden").await;
    let error = store.commit(&batch).await.unwrap_err();
    assert!(error.to_string().contains("checkpoints"), "{error}");
    assert!(place.sql("SELECT * FROM ticks").await.is_empty());
    place.sql("ALTER TABLE hidden RENAME TO checkpoints").await;
    store.commit(&batch).await.unwrap();
    assert_eq!(place.sql("SELECT seq FROM ticks").await, [["1"]]);
    assert_eq!(store.checkpoints().await.unwrap(), [at(1)]);
}

async fn ids_are_kept_and_names_are_told_apart_to_the_letter(place: Place) {
    let mut store = place.open().await;
    let key = |name: &str, epoch| TopicKey {
        name: name.into(),
        epoch,
    };
    let keys: Vec<TopicKey> = (0..700)
        .map(|n| key(&format!("market/{n}"), 1))
        .chain([
            key("market/aapl", 1),
            key("market/AAPL", 1),
            key("market/AAPL ", u64::MAX),
        ])
        .collect();
    let ids = store.topic_ids(&keys).await.unwrap();
    let mut distinct = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), keys.len());
    assert!(!ids.contains(&0));
    assert_eq!(place.open().await.topic_ids(&keys).await.unwrap(), ids);
    // A new numbering is another topic, and the one that a reader finds.
    let newer = store.topic_ids(&[key("market/AAPL", 2)]).await.unwrap()[0];
    assert!(!ids.contains(&newer));
    assert_eq!(store.find_topic("market/AAPL").await.unwrap(), Some(newer));
    assert_eq!(
        store.find_topic("market/aapl").await.unwrap(),
        Some(ids[700])
    );
    assert_eq!(store.find_topic("market/none").await.unwrap(), None);
}

async fn events_are_read_by_pages(place: Place) {
    let mut store = place.open().await;
    let id = topic(&mut store, "chat/x").await;
    let event = |seq| EventRow {
        topic: id,
        seq,
        kind: 1,
        event_ns: 1_000 + (seq * 7_919) % 97,
        node_ns: 0,
        session: 0,
        body: vec![1],
    };
    let batch = Batch {
        events: (1..=2_500).map(event).collect(),
        checkpoint: at(1),
        ..Batch::default()
    };
    commit(&mut store, batch).await;
    let (mut seqs, mut last) = (Vec::new(), 0);
    loop {
        let page = store.page_events(id, last, 999).await.unwrap();
        let Some(row) = page.last() else { break };
        last = row.seq;
        seqs.extend(page.iter().map(|row| row.seq));
    }
    assert_eq!(seqs, (1..=2_500).collect::<Vec<_>>());
}

async fn what_is_recent_is_found_for_many_topics_at_once(place: Place) {
    let mut store = place.open().await;
    let mut batch = Batch {
        checkpoint: at(1),
        ..Batch::default()
    };
    for topic in 1..=600 {
        for minute in 0..3 {
            let event_ns = minute * 60_000_000_000;
            let candle = Candle::new(event_ns, minute + 1, event_ns, &trade(topic.into(), 1));
            batch.candles[1].push(CandleRow { topic, candle });
        }
    }
    commit(&mut store, batch).await;
    let asked: Vec<u32> = (1..=601).rev().collect();
    let recent = store.recent(&asked).await.unwrap();
    assert_eq!(recent[0], Recent::default());
    for (topic, recent) in asked.iter().zip(&recent).skip(1) {
        let newest = recent.candles[1].unwrap();
        assert_eq!(
            (newest.start_ns, newest.open),
            (120_000_000_000, Micros((*topic).into()))
        );
    }
    let keys: Vec<(u32, u64)> = (1..=600).map(|topic| (topic, 60_000_000_000)).collect();
    assert_eq!(
        store.candles(Period::Minute, &keys).await.unwrap().len(),
        600
    );
}

async fn tables_of_a_newer_tickring_are_refused(place: Place) {
    drop(place.open().await);
    place.sql("INSERT INTO schema_version VALUES (99)").await;
    let error = place.try_open().await.err().unwrap();
    assert!(matches!(
        error,
        StoreError::NewerSchema {
            found: 99,
            known: SCHEMA_VERSION
        }
    ));
    let text = error.to_string();
    assert!(
        text.contains("version 99") && text.contains("start the tickring that made them"),
        "{text}"
    );
}

async fn opening_again_keeps_what_is_there(place: Place) {
    let mut store = place.open().await;
    let batch = Batch {
        ticks: vec![trade_tick(1, 1, 5)],
        checkpoint: at(8),
        ..Batch::default()
    };
    commit(&mut store, batch).await;
    drop(store);
    let before = place.everything().await;
    let mut store = place.open().await;
    assert_eq!(store.checkpoints().await.unwrap(), [at(8)]);
    assert_eq!(place.everything().await, before);
    let version = place.sql("SELECT version FROM schema_version").await;
    assert_eq!(version, [[SCHEMA_VERSION.to_string()]]);
}

async fn two_lanes_commit_at_once_without_losing_anything(place: Place) {
    let lane = async |lane: u32| {
        let mut store = place.open().await;
        let topics: Vec<TopicKey> = (0..50)
            .map(|n| TopicKey {
                name: format!("market/{lane}-{n}").into(),
                epoch: 1,
            })
            .collect();
        let ids = store.topic_ids(&topics).await.unwrap();
        for round in 1..=20 {
            let mut batch = Batch {
                checkpoint: Checkpoint {
                    lane,
                    journal: 1,
                    position: round,
                },
                ..Batch::default()
            };
            for &id in &ids {
                batch.ticks.push(trade_tick(id, round, 5));
                batch.candles[1].push(CandleRow {
                    topic: id,
                    candle: candle(round, round as i64),
                });
            }
            batch.sort();
            commit(&mut store, batch).await;
        }
    };
    tokio::join!(lane(0), lane(1));
    assert_eq!(place.sql("SELECT COUNT(*) FROM ticks").await, [["2000"]]);
    let whole = "SELECT COUNT(*) FROM candles_1m WHERE last_seq = 20";
    assert_eq!(place.sql(whole).await, [["100"]]);
    assert_eq!(
        place.sql("SELECT position FROM checkpoints").await,
        [["20"], ["20"]]
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_or_is_not_ours_is_refused_with_what_to_do() {
    let place = Place::sqlite();
    let error = SqliteStore::open(place.path().join("no/such/dir/x.db"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("no/such/dir/x.db") && error.contains("directory exists"),
        "{error}"
    );

    let foreign = place.path().join("foreign.db");
    let other = rusqlite::Connection::open(&foreign).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error = SqliteStore::open(&foreign).err().unwrap().to_string();
    assert!(error.contains("tables of another program"), "{error}");

    let garbage = place.path().join("garbage.db");
    std::fs::write(&garbage, [7; 5_000]).unwrap();
    let error = SqliteStore::open(&garbage).err().unwrap().to_string();
    assert!(
        error.contains("garbage.db") && error.contains("not a database"),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_says_what_to_do() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("mysql://u:secret@{free}/db");
    let error = MySqlStore::connect(&url).await.err().unwrap();
    assert!(error.is_lost());
    let text = error.to_string();
    assert!(
        text.contains(&free.to_string()) && text.contains("check that it runs"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_wrong_password_a_missing_database_and_a_missing_right_are_told_apart() {
    let Some(place) = Place::mysql().await else {
        return;
    };
    let error = async |url: &str| {
        let error = MySqlStore::connect(url).await.err().unwrap();
        assert!(!error.is_passing(), "{error}");
        error.to_string()
    };
    let wrong = error(&place.url_as("nobody_at_all", "secret", None)).await;
    assert!(
        wrong.contains("wrong user or password") && !wrong.contains("secret"),
        "{wrong}"
    );
    let none = error(&place.url_in("no_such_database")).await;
    assert!(
        none.contains("no database `no_such_database`") && none.contains("CREATE DATABASE"),
        "{none}"
    );

    let database = place.database();
    place
        .sql(&format!(
            "CREATE USER reader_{database}@'%' IDENTIFIED BY 'p'"
        ))
        .await;
    place
        .sql(&format!(
            "GRANT SELECT ON {database}.* TO reader_{database}@'%'"
        ))
        .await;
    let reader = place.url_as(&format!("reader_{database}"), "p", None);
    let denied = error(&reader).await;
    place.sql(&format!("DROP USER reader_{database}@'%'")).await;
    assert!(
        denied.contains("lacks a privilege") && denied.contains("GRANT SELECT, INSERT"),
        "{denied}"
    );
}

#[tokio::test]
async fn a_connection_that_is_cut_is_told_as_lost_and_the_batch_can_go_again() {
    let Some(place) = Place::mysql().await else {
        return;
    };
    let mut store = place.open().await;
    let batch = Arc::new(Batch {
        ticks: vec![trade_tick(1, 1, 5)],
        checkpoint: at(1),
        ..Batch::default()
    });
    let Database::MySql(mysql) = &store else {
        unreachable!("a MySQL place opens MySQL")
    };
    place.sql(&format!("KILL {}", mysql.connection_id())).await;
    let error = store.commit(&batch).await.unwrap_err();
    assert!(error.is_lost(), "{error}");
    place.open().await.commit(&batch).await.unwrap();
    assert_eq!(place.sql("SELECT COUNT(*) FROM ticks").await, [["1"]]);
}

#[tokio::test]
async fn ticks_that_an_administrator_has_partitioned_by_time_are_written_and_read_as_ever() {
    let Some(place) = Place::mysql().await else {
        return;
    };
    drop(place.open().await); // makes the tables
    let partitions =
        "PARTITION old VALUES LESS THAN (2000), PARTITION later VALUES LESS THAN MAXVALUE";
    let by_time = format!("ALTER TABLE ticks PARTITION BY RANGE (event_ns) ({partitions})");
    place.sql(&by_time).await;
    let mut store = place.open().await;
    let id = topic(&mut store, "market/X").await;
    let ticks: Vec<TickRow> = (1..=3).map(|seq| trade_tick(id, seq, 5)).collect();
    for position in [1, 1, 2] {
        let batch = Batch {
            ticks: ticks.clone(),
            checkpoint: at(position),
            ..Batch::default()
        };
        commit(&mut store, batch).await;
    }
    let all = PageQuery::all(id, 10);
    assert_eq!(store.page_ticks(&all).await.unwrap(), ticks);
    place.sql("ALTER TABLE ticks DROP PARTITION old").await;
    assert_eq!(store.page_ticks(&all).await.unwrap(), ticks[1..]);
}

#[tokio::test]
async fn a_user_new_to_mysql_signs_in_over_tls_and_without_it() {
    let Some(place) = Place::mysql().await else {
        return;
    };
    if place.sql("SELECT VERSION()").await.concat()[0].contains("MariaDB") {
        return; // it has no caching_sha2_password
    }
    // That keeps a short proof of who has signed in once. A new user has to send the password:
    // within TLS as it is, otherwise under the server's RSA key.
    let tls = "?require_ssl=true&verify_ca=false&verify_identity=false";
    for (name, options) in [("tls", tls), ("rsa", "")] {
        let user = format!("{name}_{}", std::process::id());
        place
            .sql(&format!(
                "CREATE USER {user}@'%' IDENTIFIED WITH caching_sha2_password BY 'p'"
            ))
            .await;
        let rights = format!("GRANT ALL ON {}.* TO {user}@'%'", place.database());
        place.sql(&rights).await;
        for word in ["wrong", "p"] {
            let url = format!("{}{options}", place.url_as(&user, word, None));
            match MySqlStore::connect(&url).await {
                Ok(_) => assert_eq!(word, "p"),
                Err(error) => assert!(
                    word == "wrong" && error.to_string().contains("wrong user or password"),
                    "{name}: {error}"
                ),
            }
        }
        place.sql(&format!("DROP USER {user}@'%'")).await;
    }
}

#[tokio::test]
async fn a_url_that_asks_for_tls_gets_it() {
    let Some(place) = Place::mysql().await else {
        return;
    };
    let url = format!(
        "{}?require_ssl=true&verify_ca=false&verify_identity=false",
        place.url()
    );
    let connected = MySqlStore::connect(&url).await;
    if place.sql("SELECT VERSION()").await.concat()[0].contains("MariaDB") {
        // MariaDB 10.11 has TLS only with certificates of one's own: asked for, it must not be left out.
        let error = connected.err().unwrap().to_string();
        assert!(error.contains("SSL"), "{error}");
        return;
    }
    let id = connected.as_ref().unwrap().connection_id();
    let version = place
        .sql(&format!(
            "SELECT s.VARIABLE_VALUE FROM performance_schema.status_by_thread s \
             JOIN performance_schema.threads t USING (THREAD_ID) \
             WHERE t.PROCESSLIST_ID={id} AND s.VARIABLE_NAME='Ssl_version'"
        ))
        .await;
    assert_eq!(version, [["TLSv1.3"]]);
}
