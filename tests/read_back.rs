//! HISTORY: what was published comes back from the database, page by page, off the loop.
#![cfg(feature = "database")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::{Wire, encode, node};
use tickring::node::{DatabaseSettings, JournalSettings, Node};
use tickring::writer::follow::Target;
use tickring_protocol::{
    Candle, Command, Cursor, ErrorCode, ErrorFrame, EventKind, Frame, Goodbye, History, Micros,
    PUBLISH, Publish, Series, StoredTick, Trade,
};

/// A directory of its own for each test, gone when the test is over.
struct Data(PathBuf);

impl Data {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tickring-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn database(&self) -> DatabaseSettings {
        DatabaseSettings::new(Target::Sqlite(self.0.join("tickring.sqlite")))
    }

    fn node(
        &self,
        cores: usize,
        max_reads: (usize, usize),
        change: impl FnOnce(&mut DatabaseSettings),
    ) -> Node {
        let mut database = self.database();
        change(&mut database);
        node(|config| {
            config.cores = cores;
            (config.limits.max_reads, config.limits.max_connection_reads) = max_reads;
            config.journal = Some(JournalSettings {
                database: Some(database),
                ..JournalSettings::new(self.0.join("journal"))
            });
        })
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn trade(seq: u64) -> Trade {
    Trade {
        price: Micros(1_000_000 + seq as i64),
        qty: Micros(2_000_000),
        ..Trade::default()
    }
}

/// Publishes `count` trades, three to each event time, and waits until the last is accepted.
fn publish(wire: &mut Wire, topic: &str, count: u64) {
    for seq in 1..=count {
        let mut body = Vec::new();
        trade(seq).encode(&mut body);
        let mut payload = Vec::new();
        Publish {
            kind: EventKind::Trade as u16,
            event_ns: event_ns(seq),
            body: &body,
        }
        .encode(&mut payload);
        wire.send(&Frame::Command(Command {
            request_id: seq,
            topic_id: 0,
            command: PUBLISH,
            topic,
            payload: &payload,
            quiet: seq < count,
        }));
    }
    wire.expect(|frame| matches!(frame, Frame::Reply(reply) if reply.seq == count));
}

fn event_ns(seq: u64) -> u64 {
    1_000_000_000 * (1 + seq / 3) // 0 would mean the time of the server
}

fn all(request_id: u64, topic: &str) -> History<'_> {
    History {
        request_id,
        series: Series::Ticks,
        newest_first: false,
        limit: 0,
        from_ns: 0,
        to_ns: u64::MAX,
        cursor: Cursor::START,
        topic,
    }
}

/// Asks for one page; gives its rows, whether there are more, and where they are.
fn page(wire: &mut Wire, history: &History<'_>) -> (Vec<u8>, bool, Cursor) {
    wire.send(&Frame::History(*history));
    wire.next(|frame| match frame {
        Frame::HistoryPage(page) => {
            assert_eq!(page.request_id, history.request_id);
            assert_eq!(page.series, history.series);
            (page.rows.to_vec(), page.more, page.next)
        }
        other => panic!("{other:?} instead of HISTORY_PAGE"),
    })
}

/// All pages of a read, and how many there were.
fn pages(wire: &mut Wire, mut history: History<'_>) -> (Vec<u8>, u32) {
    let (mut rows, mut count) = (Vec::new(), 0);
    loop {
        let (page, more, next) = page(wire, &history);
        if history.limit > 0 {
            assert!(page.len() <= history.limit as usize * history.series.row_len());
        }
        rows.extend(page);
        count += 1;
        if !more {
            return (rows, count);
        }
        (history.cursor, history.request_id) = (next, history.request_id + 1);
    }
}

fn ticks(rows: &[u8]) -> Vec<StoredTick> {
    let rows = rows.chunks(StoredTick::LEN);
    rows.map(|row| StoredTick::decode(row).unwrap()).collect()
}

fn candles(rows: &[u8]) -> Vec<Candle> {
    let rows = rows.chunks(Candle::LEN);
    rows.map(|row| Candle::decode(row).unwrap()).collect()
}

/// Waits until the database has followed the stream up to `count` ticks.
fn stored(wire: &mut Wire, topic: &str, count: u64) {
    let give_up = Instant::now() + Duration::from_secs(30);
    let newest = History {
        newest_first: true,
        limit: 1,
        ..all(1, topic)
    };
    loop {
        let newest = ticks(&page(wire, &newest).0);
        if newest.first().is_some_and(|tick| tick.seq == count) {
            return;
        }
        assert!(Instant::now() < give_up, "the database does not follow");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The next frame must be a refusal of `request_id`; gives its code and when to try again.
fn refusal(wire: &mut Wire, request_id: u64) -> (u16, u32) {
    wire.next(|frame| match frame {
        Frame::Error(ErrorFrame {
            code,
            fatal: false,
            request_id: refused,
            retry_after_ms,
            ..
        }) if *refused == request_id => (*code, *retry_after_ms),
        other => panic!("{other:?} instead of a refusal"),
    })
}

#[test]
fn every_tick_and_candle_comes_back_once_in_pages_of_any_size_in_both_directions() {
    let data = Data::new("read-back");
    let node = data.node(2, (256, 4), |_| ());
    let mut wire = Wire::open(&node);
    publish(&mut wire, "market/X", 2_000);
    publish(&mut wire, "market/Y", 10);
    stored(&mut wire, "market/X", 2_000);

    let oldest_first: Vec<StoredTick> = (1..=2_000)
        .collect::<Vec<u64>>()
        .into_iter()
        .map(|seq| StoredTick {
            seq,
            event_ns: event_ns(seq),
            node_ns: 0,
            session: tickring_protocol::TradingSession::Regular,
            content: tickring_protocol::TickContent::Trade(trade(seq)),
        })
        .collect();
    let without_node_ns = |rows: &[u8]| {
        let mut ticks = ticks(rows);
        ticks.iter_mut().for_each(|tick| tick.node_ns = 0);
        ticks
    };
    for limit in [0, 7, 500] {
        let asked = History {
            limit,
            ..all(10, "market/X")
        };
        let (rows, count) = pages(&mut wire, asked);
        assert_eq!(without_node_ns(&rows), oldest_first, "by {limit}");
        assert!(
            limit != 0 || (2..5).contains(&count),
            "a page fits the outbox: {count}"
        );
        let (rows, _) = pages(
            &mut wire,
            History {
                newest_first: true,
                ..asked
            },
        );
        let mut mirrored = without_node_ns(&rows);
        mirrored.reverse();
        assert_eq!(mirrored, oldest_first, "newest first by {limit}");
    }
    // One row a page, within a span whose times are shared by three rows each.
    let span = History {
        limit: 1,
        from_ns: event_ns(300),
        to_ns: event_ns(330),
        ..all(10, "market/X")
    };
    let (rows, count) = pages(&mut wire, span);
    assert_eq!(without_node_ns(&rows), oldest_first[299..329]);
    assert_eq!(count, 30);
    for (from_ns, to_ns) in [(5, 5), (7, 3), (u64::MAX - 1, u64::MAX), (0, 0)] {
        let (rows, more, next) = page(
            &mut wire,
            &History {
                from_ns,
                to_ns,
                ..all(10, "market/X")
            },
        );
        assert!(rows.is_empty() && !more && next == Cursor::START);
    }

    for (series, seconds) in [
        (Series::Second, 1),
        (Series::Minute, 60),
        (Series::Hour, 3_600),
        (Series::Day, 86_400),
    ] {
        let (rows, _) = pages(
            &mut wire,
            History {
                series,
                limit: 100,
                ..all(10, "market/X")
            },
        );
        let found = candles(&rows);
        let span = |seq| event_ns(seq) / 1_000_000_000 / seconds;
        let spans = span(2_000) - span(1) + 1;
        assert_eq!(found.len() as u64, spans, "{series:?}");
        assert!(found.is_sorted_by_key(|candle| candle.start_ns));
        assert_eq!(found.iter().map(|candle| candle.trades).sum::<u64>(), 2_000);
        let (rows, _) = pages(
            &mut wire,
            History {
                series,
                limit: 7,
                newest_first: true,
                ..all(10, "market/X")
            },
        );
        let mut mirrored = candles(&rows);
        mirrored.reverse();
        assert_eq!(mirrored, found, "{series:?}");
    }
    node.shutdown();
    node.wait().unwrap();
}

#[test]
fn an_instrument_of_which_nothing_is_stored_has_an_empty_page_and_is_not_made() {
    let data = Data::new("read-nothing");
    let node = data.node(1, (256, 4), |_| ());
    let mut wire = Wire::open(&node);
    for topic in ["market/NONE", "log/x", "nothing/x"] {
        let (rows, more, next) = page(&mut wire, &all(9, topic));
        assert!(rows.is_empty() && !more && next == Cursor::START, "{topic}");
    }
    wire.send(&Frame::History(all(10, "no slash")));
    assert_eq!(refusal(&mut wire, 10), (ErrorCode::BadName as u16, 0));
    let long = format!("market/{}", "x".repeat(300));
    wire.send(&Frame::History(all(11, &long)));
    assert_eq!(refusal(&mut wire, 11), (ErrorCode::NameTooLong as u16, 0));
    assert!(
        page(&mut wire, &all(12, "market/NONE")).0.is_empty(),
        "the connection goes on"
    );
}

#[test]
fn a_server_without_a_database_says_so() {
    let node = node(|_| ());
    let mut wire = Wire::open(&node);
    wire.send(&Frame::History(all(3, "market/X")));
    assert_eq!(refusal(&mut wire, 3), (ErrorCode::NoDatabase as u16, 0));
}

#[test]
fn reads_beyond_a_bound_are_told_when_to_try_again_and_those_before_are_answered() {
    let data = Data::new("read-bounds");
    // No thread comes to a read before all are sent: they come in one segment.
    let node = data.node(1, (5, 3), |_| ());
    let mut bytes = Vec::new();
    for request_id in 1..=5 {
        bytes.extend(encode(&Frame::History(all(request_id, "market/X"))));
    }
    let mut wire = Wire::open(&node);
    wire.bytes(&bytes);
    let (mut refused, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        wire.next(|frame| match frame {
            Frame::Error(error) => {
                assert_eq!(
                    (error.code, error.fatal),
                    (ErrorCode::Overloaded as u16, false)
                );
                assert!(error.retry_after_ms > 0);
                refused.push(error.request_id);
            }
            Frame::HistoryPage(page) => answered.push(page.request_id),
            other => panic!("{other:?}"),
        });
    }
    answered.sort_unstable();
    assert_eq!(
        (refused.as_slice(), answered.as_slice()),
        ([4, 5].as_slice(), [1, 2, 3].as_slice())
    );
    // Answered reads make room for others.
    assert!(page(&mut wire, &all(6, "market/X")).0.is_empty());
}

#[test]
fn a_read_holds_up_neither_the_end_of_its_connection_nor_that_of_the_node() {
    let data = Data::new("read-end");
    let node = data.node(1, (256, 4), |_| ());
    let mut wire = Wire::open(&node);
    publish(&mut wire, "market/X", 500);
    let mut bytes = encode(&Frame::History(all(1, "market/X")));
    bytes.extend(encode(&Frame::Goodbye(Goodbye {
        code: 0,
        retry_after_ms: 0,
        text: "",
    })));
    wire.bytes(&bytes);
    wire.expect(|frame| matches!(frame, Frame::Goodbye(_)));
    assert!(wire.is_closed(), "nothing follows GOODBYE");

    let mut wire = Wire::open(&node);
    wire.send(&Frame::History(all(1, "market/X")));
    node.shutdown();
    node.wait().unwrap();
}

#[test]
fn a_read_that_waits_too_long_is_refused_and_told_when_to_try_again() {
    let data = Data::new("read-late");
    let node = data.node(1, (256, 4), |database| {
        database.read_timeout = Duration::ZERO;
    });
    let mut wire = Wire::open(&node);
    wire.send(&Frame::History(all(1, "market/X")));
    let (code, retry) = refusal(&mut wire, 1);
    assert_eq!(code, ErrorCode::Overloaded as u16);
    assert!(retry > 0);
}
