//! Reading back: pages of ticks and candles.

use super::*;

/// Reads all of a query's ticks, page by page.
async fn ticks<P: Pages>(store: &mut P, mut query: PageQuery) -> Vec<TickRow> {
    let mut found = Vec::new();
    loop {
        let page = store.page_ticks(&query).await.unwrap();
        assert!(page.len() <= query.limit);
        let Some(last) = page.last() else {
            return found;
        };
        query.behind = Some((last.event_ns, last.seq));
        found.extend(page);
    }
}

/// 600 ticks of each of two topics: many of one event time, none in order of time.
async fn fill(store: &mut Database) -> (u32, Vec<TickRow>) {
    let id = topic(store, "market/X").await;
    let mut batch = Batch {
        checkpoint: at(1),
        ..Batch::default()
    };
    for seq in 1..=600_u64 {
        let event_ns = 1_000 + (seq * 7_919) % 17;
        let content = TickContent::Trade(trade(seq as i64, 1));
        batch.ticks.push(tick(id, seq, event_ns, content));
        batch.ticks.push(tick(id + 1, seq, event_ns, content));
    }
    batch
        .ticks
        .push(tick(id, 601, MAX_TIME_NS, TickContent::Trade(trade(1, 1))));
    let of_topic = batch.ticks.iter().filter(|row| row.topic == id);
    let mut expected: Vec<TickRow> = of_topic.copied().collect();
    expected.sort_by_key(|row| (row.event_ns, row.seq));
    commit(store, batch).await;
    (id, expected)
}

pub(super) async fn pages_give_every_tick_once_in_order_both_ways(place: Place) {
    let mut store = place.open().await;
    let (id, expected) = fill(&mut store).await;
    let spans = [
        (0, u64::MAX),
        (1_003, 1_005),
        (1_003, 1_004),
        (1_016, MAX_TIME_NS),
        (1_005, 1_005),
        (1_006, 1_005),
        (2_000, 3_000),
        (0, 0),
    ];
    for (from_ns, until_ns) in spans {
        let within = |row: &&TickRow| {
            from_ns <= row.event_ns && (row.event_ns < until_ns || until_ns == u64::MAX)
        };
        let oldest_first: Vec<TickRow> = expected.iter().filter(within).copied().collect();
        let newest_first: Vec<TickRow> = oldest_first.iter().rev().copied().collect();
        // Pages of 35 end within a time that many rows share, and pages of 1 everywhere.
        for limit in [1, 35, 600, MAX_PAGE] {
            if limit == 1 && until_ns.saturating_sub(from_ns) > 10 {
                continue; // 600 questions say no more than 70
            }
            let mut query = PageQuery {
                from_ns,
                until_ns,
                ..PageQuery::all(id, limit)
            };
            let case = format!("{from_ns} to {until_ns} by {limit}");
            assert_eq!(ticks(&mut store, query).await, oldest_first, "{case}");
            query.newest_first = true;
            assert_eq!(
                ticks(&mut store, query).await,
                newest_first,
                "{case}, newest"
            );
        }
    }
}

pub(super) async fn pages_give_every_candle_once_in_order_both_ways(place: Place) {
    let mut store = place.open().await;
    let id = topic(&mut store, "market/X").await;
    let minute = 60_000_000_000_u64;
    let candle = |n: u64| Candle::new(n * minute, n + 1, n * minute, &trade(n as i64, 1));
    let expected: Vec<Candle> = (0..50).map(candle).collect();
    let rows = expected
        .iter()
        .flat_map(|&candle| [id, id + 1].map(|topic| CandleRow { topic, candle }));
    let mut batch = Batch {
        checkpoint: at(1),
        ..Batch::default()
    };
    batch.candles[Period::Minute as usize] = rows.collect();
    commit(&mut store, batch).await;
    for (from, until) in [(0, 50), (3, 7), (3, 3), (60, 70)] {
        let mut wanted: Vec<Candle> = expected
            .iter()
            .filter(|candle| (from * minute..until * minute).contains(&candle.start_ns))
            .copied()
            .collect();
        for newest_first in [false, true] {
            for limit in [1, 7, 50] {
                let mut query = PageQuery {
                    from_ns: from * minute,
                    until_ns: until * minute,
                    newest_first,
                    ..PageQuery::all(id, limit)
                };
                let mut found = Vec::new();
                loop {
                    let page = store.page_candles(Period::Minute, &query).await.unwrap();
                    let Some(last) = page.last() else { break };
                    query.behind = Some((last.start_ns, 1));
                    found.extend(page);
                }
                assert_eq!(
                    found, wanted,
                    "{from} to {until} by {limit}, {newest_first}"
                );
            }
            wanted.reverse();
        }
    }
}

pub(super) async fn a_read_only_connection_reads_what_is_written_meanwhile_and_writes_nothing(
    place: Place,
) {
    let mut store = place.open().await;
    let mut reader = place.open_read_only().await;
    let (id, expected) = fill(&mut store).await;
    assert_eq!(reader.find_topic("market/X").await.unwrap(), Some(id));
    assert_eq!(ticks(&mut reader, PageQuery::all(id, 100)).await, expected);
    let late = Batch {
        ticks: vec![tick(id, 602, 1, TickContent::Trade(trade(1, 1)))],
        checkpoint: at(2),
        ..Batch::default()
    };
    let row = late.ticks[0];
    commit(&mut store, late).await;
    assert_eq!(
        reader.page_ticks(&PageQuery::all(id, 1)).await.unwrap(),
        [row]
    );
    if let ReadOnly::MySql(reader) = &mut reader {
        let again = Arc::new(Batch {
            ticks: vec![row],
            checkpoint: at(3),
            ..Batch::default()
        });
        let error = reader.commit(&again).await.unwrap_err().to_string();
        assert!(error.to_lowercase().contains("read only"), "{error}");
    }
}

/// SQLite's plans are looked at beside its statements.
#[tokio::test]
async fn a_page_costs_its_own_rows_however_many_share_a_time() {
    let Some(place) = Place::mysql().await else {
        return;
    };
    let mut store = place.open().await;
    let id = topic(&mut store, "market/X").await;
    let content = TickContent::Trade(trade(1, 1));
    let batch = Batch {
        ticks: (1..=4_000).map(|seq| tick(id, seq, 7, content)).collect(),
        checkpoint: at(1),
        ..Batch::default()
    };
    commit(&mut store, batch).await;
    let Database::MySql(store) = &mut store else {
        unreachable!("a MySQL place opens MySQL")
    };
    for newest_first in [false, true] {
        let query = PageQuery {
            newest_first,
            behind: Some((7, 2_000)),
            ..PageQuery::all(id, 10)
        };
        let before = store.rows_read().await;
        assert_eq!(store.page_ticks(&query).await.unwrap().len(), 10);
        let rows = store.rows_read().await - before;
        assert!(
            rows <= 15,
            "{rows} rows read for a page of 10, {newest_first}"
        );
    }
}
