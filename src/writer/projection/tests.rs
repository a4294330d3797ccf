//! The projection over real stores: whatever happens on the way, the tables are the fold of the
//! records, and the candles what SQL reckons from the ticks.

use std::collections::BTreeMap;

use tickring_protocol::{EventKind, Micros, Side};

use super::*;
use crate::market::{Candle, Period};
use crate::writer::store::tests::Place;
use crate::writer::store::{CandleRow, Database, PageQuery, Pages, Recent};

const JOURNAL: u64 = 0xfeed;

/// A record with what it needs to be one.
#[derive(Clone, Debug)]
struct Owned {
    topic: String,
    seq: u64,
    event_ns: u64,
    kind: u16,
    body: Vec<u8>,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        Record {
            topic: &self.topic,
            epoch: 1,
            seq: self.seq,
            event_ns: self.event_ns,
            node_ns: self.event_ns + 5,
            kind: self.kind,
            session: 0,
            body: &self.body,
        }
    }
}

fn trade(topic: &str, seq: u64, event_ns: u64, price: i64, qty: i64) -> Owned {
    let trade = Trade {
        price: Micros(price),
        qty: Micros(qty),
        side: Side::Buy,
        ..Trade::default()
    };
    let mut body = Vec::new();
    trade.encode(&mut body);
    Owned {
        topic: topic.to_owned(),
        seq,
        event_ns,
        kind: EventKind::Trade as u16,
        body,
    }
}

fn quote(topic: &str, seq: u64, event_ns: u64, bid: i64) -> Owned {
    let mut body = Vec::new();
    Quote {
        bid: Micros(bid),
        ask: Micros(bid + 1),
        ..Quote::default()
    }
    .encode(&mut body);
    Owned {
        topic: topic.to_owned(),
        seq,
        event_ns,
        kind: EventKind::Quote as u16,
        body,
    }
}

fn message(topic: &str, seq: u64, event_ns: u64) -> Owned {
    let body = format!("message {seq}").into_bytes();
    Owned {
        topic: topic.to_owned(),
        seq,
        event_ns,
        kind: EventKind::Message as u16,
        body,
    }
}

/// A lane's records: trades that are up to a day and a half late, quotes, and messages.
fn journal(random: &mut fastrand::Rng, records: usize) -> Vec<Owned> {
    let mut seqs: BTreeMap<String, u64> = BTreeMap::new();
    let mut now = 1_723_161_256_000_000_000;
    (0..records)
        .map(|_| {
            let topic = match random.u8(0..10) {
                0 => "chat/lobby".to_owned(),
                _ => format!("market/S{}", random.u8(0..5)),
            };
            let seq = seqs.entry(topic.clone()).or_default();
            *seq += 1;
            now += random.u64(0..400_000_000);
            let late = match random.u8(0..10) {
                0..=5 => 0,
                6..=7 => random.u64(0..3_000_000_000),
                8 => random.u64(0..300_000_000_000),
                _ => random.u64(0..130_000_000_000_000),
            };
            let event_ns = now - late;
            match random.u8(0..4) {
                _ if topic.starts_with("chat") => message(&topic, *seq, event_ns),
                0 => quote(&topic, *seq, event_ns, random.i64(1..1_000_000_000)),
                _ => {
                    let (price, qty) = (random.i64(-5..2_000_000_000), random.i64(0..9_000_000));
                    trade(&topic, *seq, event_ns, price, qty)
                }
            }
        })
        .collect()
}

/// A store whose commits fail now and then: before the database has them, or after, when only
/// the answer is lost. Any other call may fail too.
struct Flaky<'a> {
    store: Database,
    random: &'a mut fastrand::Rng,
    one_in: u32,
}

impl Flaky<'_> {
    fn fails(&mut self) -> Result<(), StoreError> {
        match self.random.u32(0..self.one_in) {
            0 => Err(StoreError::Lost {
                reason: "as the test wanted".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

impl Pages for Flaky<'_> {
    async fn find_topic(&mut self, name: &str) -> Result<Option<u32>, StoreError> {
        self.store.find_topic(name).await
    }
    async fn page_ticks(&mut self, query: &PageQuery) -> Result<Vec<TickRow>, StoreError> {
        self.store.page_ticks(query).await
    }
    async fn page_candles(
        &mut self,
        period: Period,
        query: &PageQuery,
    ) -> Result<Vec<Candle>, StoreError> {
        self.store.page_candles(period, query).await
    }
}

impl Store for Flaky<'_> {
    async fn checkpoints(&mut self) -> Result<Vec<Checkpoint>, StoreError> {
        self.store.checkpoints().await
    }
    async fn topic_ids(&mut self, topics: &[TopicKey]) -> Result<Vec<u32>, StoreError> {
        self.fails()?;
        self.store.topic_ids(topics).await
    }
    async fn recent(&mut self, topics: &[u32]) -> Result<Vec<Recent>, StoreError> {
        self.fails()?;
        self.store.recent(topics).await
    }
    async fn candles(
        &mut self,
        period: Period,
        keys: &[(u32, u64)],
    ) -> Result<Vec<CandleRow>, StoreError> {
        self.fails()?;
        self.store.candles(period, keys).await
    }
    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<(), StoreError> {
        self.fails()?;
        self.store.commit(batch).await?;
        self.fails()
    }
    async fn page_events(
        &mut self,
        topic: u32,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<EventRow>, StoreError> {
        self.store.page_events(topic, after_seq, limit).await
    }
}

async fn open<S: Store>(store: &mut S) -> (Projection, u64) {
    let limits = PaceLimits::default();
    Projection::open(store, 0, JOURNAL, Calendars::built_in(), limits)
        .await
        .unwrap()
}

/// Pushes records `from..` and commits after every `step` of them.
async fn project<S: Store>(store: &mut S, records: &[Owned], step: usize) -> Projection {
    let (mut projection, from) = open(store).await;
    let rest = &records[from as usize..];
    for (chunk, n) in rest.chunks(step).zip(0..) {
        let start = from as usize + n * step;
        for (record, at) in chunk.iter().zip(start + 1..) {
            projection.push(&record.record(), at as u64, Instant::now());
        }
        projection.commit(store).await.unwrap();
    }
    projection
}

/// Candles as SQL reckons them from the ticks, and as they are stored.
async fn candles_equal_sql(place: &Place) {
    // The calendar of all instruments here is that of UTC.
    let lens: [u64; 4] = [1, 60, 3_600, 86_400].map(|seconds| seconds * 1_000_000_000);
    for (period, len) in Period::ALL.into_iter().zip(lens) {
        let reckoned = place
            .sql(&format!(
                "WITH t AS (SELECT topic_id, event_ns - event_ns % {len} AS start_ns, event_ns, seq, \
                 price, qty, \
                 ROW_NUMBER() OVER (PARTITION BY topic_id, event_ns - event_ns % {len} ORDER BY event_ns, seq) AS up, \
                 ROW_NUMBER() OVER (PARTITION BY topic_id, event_ns - event_ns % {len} ORDER BY event_ns DESC, seq DESC) AS down \
                 FROM ticks WHERE price IS NOT NULL) \
                 SELECT topic_id, start_ns, MAX(CASE WHEN up=1 THEN price END), MAX(price), MIN(price), \
                 MAX(CASE WHEN down=1 THEN price END), SUM(qty), COUNT(*), MIN(event_ns), MAX(event_ns), \
                 MIN(seq), MAX(seq) FROM t GROUP BY topic_id, start_ns ORDER BY topic_id, start_ns"
            ))
            .await;
        let stored = format!(
            "SELECT * FROM candles_{} ORDER BY topic_id, start_ns",
            period.name()
        );
        let stored = place.sql(&stored).await;
        assert!(!stored.is_empty());
        assert_eq!(stored, reckoned, "{period:?}");
    }
}

/// Ticks, events and latest rows against the records themselves.
async fn rows_equal_records(place: &Place, records: &[Owned]) {
    let mut store = place.open().await;
    let mut topics: BTreeMap<&str, Vec<&Owned>> = BTreeMap::new();
    for record in records {
        topics.entry(&record.topic).or_default().push(record);
    }
    for (name, of_topic) in topics {
        let id = store.find_topic(name).await.unwrap().unwrap();
        if name.starts_with("chat/") {
            let found = store.page_events(id, 0, 10_000).await.unwrap();
            let bodies = found.iter().map(|row| (row.seq, row.body.as_slice()));
            let expected = of_topic
                .iter()
                .map(|record| (record.seq, record.body.as_slice()));
            assert!(bodies.eq(expected), "{name}");
            continue;
        }
        let mut found = store.page_ticks(&PageQuery::all(id, 10_000)).await.unwrap();
        found.sort_by_key(|row| row.seq);
        assert_eq!(found.len(), of_topic.len(), "{name}");
        let (mut trade, mut quote) = (None, None);
        for (row, record) in found.iter().zip(&of_topic) {
            assert_eq!((row.seq, row.event_ns), (record.seq, record.event_ns));
            assert_eq!(Some(row.content), tick(&record.record()));
            match row.content {
                TickContent::Trade(now) => {
                    trade = trade.max_by_time(row.event_ns, now);
                }
                TickContent::Quote(now) => {
                    quote = quote.max_by_time(row.event_ns, now);
                }
            }
        }
        let latest = store.recent(&[id]).await.unwrap()[0].latest.unwrap();
        assert_eq!((latest.trade, latest.quote), (trade, quote), "{name}");
        assert_eq!(latest.seq, of_topic.len() as u64);
    }
}

trait ByTime<T> {
    fn max_by_time(self, at: u64, value: T) -> Self;
}

impl<T> ByTime<T> for Option<(u64, T)> {
    fn max_by_time(self, at: u64, value: T) -> Self {
        if self.as_ref().is_some_and(|(newest, _)| *newest > at) {
            self
        } else {
            Some((at, value))
        }
    }
}

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
    tables_equal_the_records_and_candles_what_sql_reckons
    crashes_and_lost_answers_neither_lose_nor_double_anything
    records_given_again_from_the_start_change_nothing
    a_database_of_another_journal_is_refused
    a_trade_that_overflows_a_candle_is_kept_as_a_tick_and_counted
}

async fn tables_equal_the_records_and_candles_what_sql_reckons(place: Place) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let records = journal(&mut fastrand::Rng::with_seed(seed), 3_000);
    let mut store = place.open().await;
    let projection = project(&mut store, &records, 271).await;
    assert_eq!(projection.counters().records, 3_000);
    assert!(projection.counters().late > 100);
    assert_eq!(store.checkpoints().await.unwrap()[0].position, 3_000);
    candles_equal_sql(&place).await;
    rows_equal_records(&place, &records).await;
}

async fn crashes_and_lost_answers_neither_lose_nor_double_anything(place: Place) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let records = journal(&mut random, 2_000);
    let mut failures = 0;
    let (mut crashes, mut done) = (0, 0);
    while done < records.len() as u64 {
        // A new process: all it has is the checkpoint.
        let mut luck = fastrand::Rng::with_seed(random.u64(..));
        let mut store = Flaky {
            store: place.open().await,
            random: &mut luck,
            one_in: 12,
        };
        let (mut projection, mut at) = open(&mut store).await;
        assert_eq!(at, done);
        for _ in 0..random.u8(1..8) {
            let until = (at as usize + random.usize(1..90)).min(records.len());
            for record in &records[at as usize..until] {
                at += 1;
                projection.push(&record.record(), at, Instant::now());
            }
            if random.u8(0..8) == 0 {
                break; // crash with records that were never committed
            }
            while let Err(error) = projection.commit(&mut store).await {
                assert!(error.is_lost());
                failures += 1;
            }
        }
        done = store
            .checkpoints()
            .await
            .unwrap()
            .first()
            .map_or(0, |at| at.position);
        crashes += 1;
    }
    assert!(crashes > 3 && failures > 3, "{crashes} {failures}");
    candles_equal_sql(&place).await;
    rows_equal_records(&place, &records).await;
}

async fn records_given_again_from_the_start_change_nothing(place: Place) {
    let records = journal(&mut fastrand::Rng::with_seed(7), 600);
    let mut store = place.open().await;
    project(&mut store, &records, 100).await;
    let before = place.everything().await;
    let (mut projection, _) = open(&mut store).await;
    for (record, at) in records.iter().zip(1..) {
        projection.push(&record.record(), at, Instant::now());
        if at % 77 == 0 {
            projection.commit(&mut store).await.unwrap();
        }
    }
    projection.commit(&mut store).await.unwrap();
    assert_eq!(place.everything().await, before);
}

async fn a_database_of_another_journal_is_refused(place: Place) {
    let mut store = place.open().await;
    project(
        &mut store,
        &journal(&mut fastrand::Rng::with_seed(1), 10),
        10,
    )
    .await;
    let opened = Projection::open(
        &mut store,
        0,
        0xbeef,
        Calendars::built_in(),
        PaceLimits::default(),
    )
    .await;
    let error = opened.err().unwrap().to_string();
    assert!(
        error.contains("another journal") && error.contains("000000000000feed"),
        "{error}"
    );
}

async fn a_trade_that_overflows_a_candle_is_kept_as_a_tick_and_counted(place: Place) {
    let mut store = place.open().await;
    let records = [
        trade("market/BIG", 1, 1_000, 5, i64::MAX),
        trade("market/BIG", 2, 2_000, 9, 1),
        trade("market/BIG", 3, 3_000, 7, 0),
    ];
    let projection = project(&mut store, &records, 3).await;
    assert_eq!(projection.counters().refused, 1);
    let id = store.find_topic("market/BIG").await.unwrap().unwrap();
    assert_eq!(
        store
            .page_ticks(&PageQuery::all(id, 9))
            .await
            .unwrap()
            .len(),
        3
    );
    for candle in store.recent(&[id]).await.unwrap()[0].candles {
        let candle = candle.unwrap();
        assert_eq!((candle.volume, candle.trades), (Micros::MAX, 2));
        assert_eq!((candle.high, candle.close), (Micros(7), Micros(7)));
    }
}

#[tokio::test]
async fn sessions_come_from_the_instruments_calendar_and_derived_topics_are_left_out() {
    let place = Place::sqlite();
    let mut store = place.open().await;
    let calendars = Calendars::load("[instruments]\nAAPL = 'us-equity'")
        .unwrap()
        .into();
    let limits = PaceLimits::default();
    let (mut projection, _) = Projection::open(&mut store, 0, JOURNAL, calendars, limits)
        .await
        .unwrap();
    let at = 1_772_442_000_000_000_000; // 2026-03-02 09:00 UTC, 04:00 in New York
    let hour = 3_600_000_000_000;
    let records = [
        trade("market/AAPL", 1, at - 1, 5, 1),
        trade("market/AAPL", 2, at, 5, 1),
        trade("market/AAPL", 3, at + 6 * hour, 5, 1),
        trade("market/AAPL", 4, at + 13 * hour, 5, 1),
        trade("market/BTC", 1, at - 1, 5, 1),
        message("candle/1m/AAPL", 1, at),
        message("node/core-0", 1, at),
    ];
    for (record, position) in records.iter().zip(1..) {
        projection.push(&record.record(), position, Instant::now());
    }
    assert_eq!(projection.commit(&mut store).await.unwrap(), 7);
    let sessions = place
        .sql("SELECT session FROM ticks ORDER BY topic_id, seq")
        .await
        .concat();
    let mut sorted = sessions.clone();
    sorted.sort();
    assert_eq!(sorted, ["0", "1", "2", "2", "3"], "{sessions:?}");
    // Of a share, only the regular session makes the day's candle, which begins with the day in
    // New York; every trade is in its hour.
    let id = store.find_topic("market/AAPL").await.unwrap().unwrap();
    let days = store
        .page_candles(Period::Day, &PageQuery::all(id, 10))
        .await;
    let days = days.unwrap();
    assert_eq!(days.len(), 1, "{days:?}");
    assert_eq!(days[0].start_ns, at - 4 * hour);
    assert_eq!((days[0].trades, days[0].first_seq), (1, 3));
    let hours = store
        .page_candles(Period::Hour, &PageQuery::all(id, 10))
        .await;
    assert_eq!(hours.unwrap().len(), 4);
    assert!(place.sql("SELECT * FROM events").await.is_empty());
    assert_eq!(
        place.sql("SELECT name FROM topics ORDER BY name").await,
        [["market/AAPL"], ["market/BTC"]]
    );
}

#[tokio::test]
async fn a_batch_is_due_when_it_is_full_or_its_oldest_record_has_waited() {
    let place = Place::sqlite();
    let mut store = place.open().await;
    let (mut projection, _) = open(&mut store).await;
    let now = Instant::now();
    assert!(!projection.is_due(now) && projection.due_in(now).is_none());
    projection.push(&trade("market/X", 1, 1, 1, 1).record(), 1, now);
    assert!(!projection.is_due(now));
    assert!(projection.is_due(now + Duration::from_millis(10)));
    for seq in 2..=projection.pace().records() as u64 {
        projection.push(&trade("market/X", seq, seq, 1, 1).record(), seq, now);
    }
    assert!(projection.is_due(now) && projection.is_full());
    projection.commit(&mut store).await.unwrap();
    assert!(!projection.is_due(now + Duration::from_secs(9)));
}
