//! Candle topics over real sockets: what a trade shows, when, and to whom.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use support::{Wire, node};
use tickring::machines::Registry;
use tickring::market::Calendars;
use tickring::node::Node;
use tickring_protocol::{
    Candle, Command, ErrorCode, EventKind, Frame, Micros, PUBLISH, Policy, Publish, Trade,
};

const SECOND: u64 = 1_000_000_000;

/// Publishes a trade and waits for the reply; gives its code.
fn trade(wire: &mut Wire, topic: &str, event_ns: u64, price: i64, qty: i64) -> u16 {
    let mut body = Vec::new();
    Trade {
        price: Micros(price),
        qty: Micros(qty),
        ..Trade::default()
    }
    .encode(&mut body);
    let mut payload = Vec::new();
    Publish {
        kind: EventKind::Trade as u16,
        event_ns,
        body: &body,
    }
    .encode(&mut payload);
    wire.send(&Frame::Command(Command {
        request_id: event_ns,
        topic_id: 0,
        command: PUBLISH,
        topic,
        payload: &payload,
        quiet: false,
    }));
    wire.next(|frame| match frame {
        Frame::Reply(reply) => reply.code,
        other => panic!("{other:?} instead of REPLY"),
    })
}

/// What a subscriber of a candle topic sees next: seq, and the candle as start, open, high, low,
/// close, volume and trades; `true` for an event, `false` for a snapshot.
fn next(wire: &mut Wire) -> (bool, u64, [i64; 7]) {
    wire.next(|frame| {
        let (is_event, seq, kind, body) = match frame {
            Frame::Event(it) => (true, it.seq, it.kind, it.body),
            Frame::Snapshot(it) => (false, it.seq, it.kind, it.body),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind, EventKind::Candle as u16);
        (is_event, seq, row(&Candle::decode(body).unwrap()))
    })
}

fn row(c: &Candle) -> [i64; 7] {
    let start = (c.start_ns / SECOND) as i64;
    let [open, high, low, close, volume] = [c.open, c.high, c.low, c.close, c.volume].map(|m| m.0);
    [start, open, high, low, close, volume, c.trades as i64]
}

fn both(change: impl Fn(&Node)) {
    for cores in [1, 2] {
        let node = node(|config| config.cores = cores);
        change(&node);
        node.shutdown();
        node.wait().unwrap();
    }
}

#[test]
fn a_candle_can_be_subscribed_to_before_its_market_and_shows_each_change() {
    both(|node| {
        // Several, so that on two cores some of them live on either.
        for symbol in ["A", "B", "C/D", "E"] {
            let (mut reader, mut feed) = (Wire::open(node), Wire::open(node));
            reader.subscribe(&format!("candle/1s/{symbol}"), 0);
            let market = format!("market/{symbol}");
            assert_eq!(trade(&mut feed, &market, 5 * SECOND, 100, 2), 0);
            assert_eq!(next(&mut reader), (true, 1, [5, 100, 100, 100, 100, 2, 1]));
            trade(&mut feed, &market, 5 * SECOND + 1, 90, 1);
            assert_eq!(next(&mut reader), (true, 2, [5, 100, 100, 90, 90, 3, 2]));
            trade(&mut feed, &market, 7 * SECOND, 95, 1);
            assert_eq!(next(&mut reader), (true, 3, [7, 95, 95, 95, 95, 1, 1]));
        }
    });
}

#[test]
fn a_newcomer_starts_from_the_running_candle_and_trades_in_between_are_in_the_next_event() {
    both(|node| {
        let mut feed = Wire::open(node);
        trade(&mut feed, "market/X", 61 * SECOND, 10, 1);
        trade(&mut feed, "market/X", 62 * SECOND, 12, 1);
        let mut reader = Wire::open(node);
        let id = reader.subscribe("candle/1m/X", 0);
        assert_eq!(next(&mut reader), (false, 1, [60, 10, 12, 10, 12, 2, 2]));
        // Nobody looks; who comes back with the seq that it knows gets what it missed as one event.
        reader.send(&Frame::Unsubscribe(tickring_protocol::Unsubscribe {
            request_id: 9,
            topic_id: id,
        }));
        reader.expect(|frame| matches!(frame, Frame::Unsubscribed(u) if u.last_seq == 1));
        trade(&mut feed, "market/X", 63 * SECOND, 9, 1);
        trade(&mut feed, "market/X", 64 * SECOND, 11, 1);
        reader.subscribe("candle/1m/X", 2);
        assert_eq!(next(&mut reader), (true, 2, [60, 10, 12, 9, 11, 4, 4]));
        trade(&mut feed, "market/X", 65 * SECOND, 8, 1);
        assert_eq!(next(&mut reader), (true, 3, [60, 10, 12, 8, 8, 5, 5]));
    });
}

#[test]
fn a_late_trade_shows_the_candle_before_again_and_then_the_newest() {
    both(|node| {
        let (mut reader, mut feed) = (Wire::open(node), Wire::open(node));
        reader.subscribe("candle/1s/X", 0);
        for second in [1, 2, 3] {
            trade(&mut feed, "market/X", second * SECOND, 10, 1);
            next(&mut reader);
        }
        trade(&mut feed, "market/X", 2 * SECOND + 5, 30, 1);
        assert_eq!(next(&mut reader), (true, 4, [2, 10, 30, 10, 30, 2, 2]));
        assert_eq!(next(&mut reader), (true, 5, [3, 10, 10, 10, 10, 1, 1]));
        // Later still: the topic is silent, and the database puts that candle right.
        trade(&mut feed, "market/X", SECOND, 99, 1);
        trade(&mut feed, "market/X", 4 * SECOND, 11, 1);
        assert_eq!(next(&mut reader), (true, 6, [4, 11, 11, 11, 11, 1, 1]));
        let mut newcomer = Wire::open(node);
        newcomer.subscribe("candle/1s/X", 0);
        assert_eq!(next(&mut newcomer), (false, 6, [4, 11, 11, 11, 11, 1, 1]));
    });
}

#[test]
fn the_last_event_of_each_candle_is_its_final_state_however_many_trades_a_turn_has() {
    both(|node| {
        let (mut reader, mut feed) = (Wire::open(node), Wire::open(node));
        reader.send(&Frame::Subscribe(tickring_protocol::Subscribe {
            request_id: 1,
            from_seq: 0,
            epoch: 0,
            policy: Policy::Resume,
            topic: "candle/1s/X",
        }));
        reader.expect(|frame| matches!(frame, Frame::Subscribed(_)));
        let mut burst = Vec::new();
        for n in 0..1_000u64 {
            let mut body = Vec::new();
            Trade {
                price: Micros(n as i64),
                qty: Micros(1),
                ..Trade::default()
            }
            .encode(&mut body);
            let mut payload = Vec::new();
            Publish {
                kind: EventKind::Trade as u16,
                event_ns: (n + 1) * SECOND / 10,
                body: &body,
            }
            .encode(&mut payload);
            Frame::Command(Command {
                request_id: n,
                topic_id: 0,
                command: PUBLISH,
                topic: "market/X",
                payload: &payload,
                quiet: true,
            })
            .encode(&mut burst);
        }
        feed.bytes(&burst);
        let (mut last, mut events) = (std::collections::BTreeMap::new(), 0);
        while !last.contains_key(&100) {
            let (_, seq, candle) = next(&mut reader);
            events += 1;
            assert_eq!(seq, events);
            last.insert(candle[0], candle);
        }
        for second in 1..100 {
            let first = second * 10 - 1; // the trade at that second
            let expected = [second, first, first + 9, first, first + 9, 10, 10];
            assert_eq!(last[&second], expected);
        }
        assert!(events < 1_000, "a turn gives one event a candle: {events}");
    });
}

#[test]
fn a_candle_topic_is_refused_when_it_is_badly_named_and_takes_no_commands() {
    both(|node| {
        let mut wire = Wire::open(node);
        for name in ["candle/2m/X", "candle/1m", "candle/1m/", "candle/X"] {
            wire.send(&support::subscribe(name, 0));
            wire.next(|frame| match frame {
                Frame::Error(error) => {
                    assert_eq!(
                        (error.code, error.fatal),
                        (ErrorCode::BadName as u16, false)
                    );
                    assert!(
                        error.text.contains("candle/PERIOD/INSTRUMENT"),
                        "{}",
                        error.text
                    );
                }
                other => panic!("{other:?} instead of ERROR"),
            });
            assert_eq!(trade(&mut wire, name, 1, 1, 1), ErrorCode::BadName as u16);
        }
        let refused = ErrorCode::UnknownCommand as u16;
        assert_eq!(trade(&mut wire, "candle/1m/X", 1, 1, 1), refused);
    });
}

#[test]
fn the_day_of_a_share_is_its_exchanges_and_counts_the_regular_session_alone() {
    let calendars = Calendars::load("[instruments]\nAAPL = 'us-equity'").unwrap();
    let registry = Arc::new(Registry::with_calendars(Arc::new(calendars)));
    let node = node(|config| config.registry = registry);
    let (mut days, mut minutes) = (Wire::open(&node), Wire::open(&node));
    let mut feed = Wire::open(&node);
    days.subscribe("candle/1d/AAPL", 0);
    minutes.subscribe("candle/1m/AAPL", 0);
    let midnight = 1_772_427_600; // 2026-03-02 00:00 in New York, 05:00 UTC
    let at = |hour: u64, minute: u64| (midnight + hour * 3_600 + minute * 60) * SECOND;
    trade(&mut feed, "market/AAPL", at(8, 0), 50, 1); // before the market
    trade(&mut feed, "market/AAPL", at(9, 30), 60, 2);
    trade(&mut feed, "market/AAPL", at(16, 0), 70, 4); // after it
    let day = midnight as i64;
    assert_eq!(next(&mut days), (true, 1, [day, 60, 60, 60, 60, 2, 1]));
    trade(&mut feed, "market/AAPL", at(24 + 10, 0), 80, 8);
    let day = day + 24 * 3_600;
    assert_eq!(next(&mut days), (true, 2, [day, 80, 80, 80, 80, 8, 1]));
    let volumes: Vec<i64> = (0..4).map(|_| next(&mut minutes).2[5]).collect();
    assert_eq!(volumes, [1, 2, 4, 8]);
}

/// Trades in an order of their own, some of them late by seconds, over the change of a trading day.
#[cfg(feature = "database")]
#[test]
fn the_running_candle_is_the_same_live_and_in_the_database_whatever_came_late() {
    use tickring::market::Period;
    use tickring::node::{DatabaseSettings, JournalSettings};
    use tickring::writer::follow::Target;
    use tickring::writer::store::{PageQuery, Pages};

    let dir = std::env::temp_dir().join(format!("tickring-candles-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let target = Target::Sqlite(dir.join("tickring.sqlite"));
    let calendars = Arc::new(Calendars::load("default = 'fx'").unwrap());
    let start = 1_772_488_800 * SECOND - 60 * SECOND; // a minute before 2026-03-02 17:00 in New York
    let mut random = fastrand::Rng::with_seed(7);
    for run in 0..3 {
        let node = node(|config| {
            config.cores = 2;
            config.registry = Arc::new(Registry::with_calendars(Arc::clone(&calendars)));
            config.journal = Some(JournalSettings {
                database: Some(DatabaseSettings {
                    calendars: Arc::clone(&calendars),
                    ..DatabaseSettings::new(target.clone())
                }),
                ..JournalSettings::new(&dir)
            });
        });
        let mut feed = Wire::open(&node);
        for n in 0..300 {
            let at = start + (run * 300 + n) * SECOND / 5 - random.u64(..3 * SECOND);
            let (price, qty) = (random.i64(1..100), random.i64(0..10));
            assert_eq!(trade(&mut feed, "market/EURUSD", at, price, qty), 0);
        }
        let mut live = Vec::new();
        for period in Period::ALL {
            let mut wire = Wire::open(&node);
            wire.subscribe(&format!("candle/{}/EURUSD", period.name()), 0);
            live.push(next(&mut wire).2);
        }
        node.shutdown();
        node.wait().unwrap();
        let read = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut store = read.block_on(target.connect()).unwrap();
        let id = read
            .block_on(store.find_topic("market/EURUSD"))
            .unwrap()
            .unwrap();
        for (period, live) in Period::ALL.into_iter().zip(live) {
            let stored = read.block_on(store.page_candles(period, &PageQuery::all(id, 10_000)));
            let newest = stored.unwrap().last().unwrap().shown();
            assert_eq!(row(&newest), live, "{period:?}, run {run}");
        }
        let days = read.block_on(store.page_candles(Period::Day, &PageQuery::all(id, 10)));
        assert_eq!(days.unwrap().len(), if run == 0 { 1 } else { 2 });
    }
    std::fs::remove_dir_all(dir).unwrap();
}
