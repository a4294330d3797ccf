//! What outlives a server: durable events, volatile states, and answers to commands that come again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::{Path, PathBuf};

use support::{Wire, message, node};
use tickring::node::{JournalSettings, Node, NodeConfig, NodeError};
use tickring_protocol::{
    Candle, Command, ErrorCode, EventKind, Frame, Hello, MarketState, Micros, PUBLISH, Publish,
    Trade, VERSION_MAJOR, VERSION_MINOR,
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

    fn node(&self, cores: usize) -> Node {
        node(|config| self.config(config, cores))
    }

    fn config(&self, config: &mut NodeConfig, cores: usize) {
        config.cores = cores;
        config.journal = Some(JournalSettings {
            lanes: 2,
            ..JournalSettings::new(&self.0)
        });
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn stop(node: Node) {
    node.shutdown();
    node.wait().unwrap();
}

/// Greets with a session's token, 0 for a new one; gives the token and whether it was taken up.
fn greet(node: &Node, session: u128) -> (Wire, u128, bool) {
    let mut wire = Wire::connect(node);
    wire.send(&Frame::Hello(Hello {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        session,
        name: "test",
        credentials: b"",
    }));
    let (token, resumed) = wire.next(|frame| match frame {
        Frame::Welcome(welcome) => (welcome.session, welcome.resumed),
        other => panic!("{other:?} instead of WELCOME"),
    });
    (wire, token, resumed)
}

fn publish(wire: &mut Wire, request_id: u64, topic: &str, payload: &[u8]) {
    wire.send(&Frame::Command(Command {
        request_id,
        topic_id: 0,
        command: PUBLISH,
        topic,
        payload,
        quiet: false,
    }));
}

/// The next frame must be the reply to `request_id`; gives its code and seq.
fn reply(wire: &mut Wire, request_id: u64) -> (u16, u64) {
    wire.next(|frame| match frame {
        Frame::Reply(reply) if reply.request_id == request_id => (reply.code, reply.seq),
        other => panic!("{other:?} instead of the reply to {request_id}"),
    })
}

/// Subscribes; gives the epoch, `next_seq` and `last_seq`.
fn subscribe(wire: &mut Wire, topic: &str, from_seq: u64) -> (u64, u64, u64) {
    wire.send(&support::subscribe(topic, from_seq));
    wire.next(|frame| match frame {
        Frame::Subscribed(told) => (told.epoch, told.next_seq, told.last_seq),
        other => panic!("{other:?} instead of SUBSCRIBED"),
    })
}

fn event(wire: &mut Wire) -> (u64, Vec<u8>) {
    wire.next(|frame| match frame {
        Frame::Event(event) => (event.seq, event.body.to_vec()),
        other => panic!("{other:?} instead of EVENT"),
    })
}

#[test]
fn durable_events_survive_a_restart_with_their_seqs_and_their_epoch() {
    let data = Data::new("restart");
    let topics: Vec<String> = (0..8).map(|n| format!("log/{n}")).collect();
    let mut epochs = Vec::new();
    for (round, cores) in [1, 2, 3, 1].into_iter().enumerate() {
        let node = data.node(cores);
        let (mut wire, ..) = greet(&node, 0);
        for (number, topic) in topics.iter().enumerate() {
            let before = round as u64 * 5;
            let (epoch, next, last) = subscribe(&mut wire, topic, 1);
            assert_eq!((next, last), (1, before), "{topic} in round {round}");
            match epochs.get(number) {
                Some(known) => assert_eq!(epoch, *known, "{topic} goes on in its epoch"),
                None => epochs.push(epoch),
            }
            for seq in 1..=before {
                let body = format!("{topic} {seq}").into_bytes();
                assert_eq!(event(&mut wire), (seq, body));
            }
            for seq in before + 1..=before + 5 {
                let body = format!("{topic} {seq}").into_bytes();
                publish(&mut wire, number as u64 * 100 + seq, topic, &message(&body));
                let (mut told, mut seen) = (None, None);
                while told.is_none() || seen.is_none() {
                    wire.next(|frame| match frame {
                        Frame::Reply(reply) => told = Some((reply.code, reply.seq)),
                        Frame::Event(event) => seen = Some((event.seq, event.body.to_vec())),
                        other => panic!("{other:?}"),
                    });
                }
                assert_eq!((told, seen), (Some((0, seq)), Some((seq, body))));
            }
        }
        drop(wire);
        stop(node);
    }
}

#[test]
fn a_command_sent_again_gets_its_first_reply_and_changes_nothing() {
    let data = Data::new("again");
    let (mut token, kinds) = (0, ["log/a", "market/a"]);
    let mut trade = Vec::new();
    Trade {
        price: Micros(7_000_000),
        qty: Micros(1),
        ..Trade::default()
    }
    .encode(&mut trade);
    let mut market = Vec::new();
    Publish {
        kind: EventKind::Trade as u16,
        event_ns: 5,
        body: &trade,
    }
    .encode(&mut market);
    let payloads = [message(b"once"), market];
    for cores in [1, 2] {
        let node = data.node(cores);
        let (mut wire, session, resumed) = greet(&node, token);
        assert_eq!(resumed, token != 0);
        token = session;
        for _ in 0..2 {
            for (id, (topic, payload)) in kinds.iter().zip(&payloads).enumerate() {
                publish(&mut wire, 10 + id as u64, topic, payload);
                assert_eq!(reply(&mut wire, 10 + id as u64), (0, 1), "{topic}");
                // What was refused is refused again, and the reason is the first one.
                publish(&mut wire, 20 + id as u64, topic, b"");
                let (refused, _) = reply(&mut wire, 20 + id as u64);
                publish(&mut wire, 20 + id as u64, topic, payload);
                assert_eq!(reply(&mut wire, 20 + id as u64), (refused, 0), "{topic}");
                assert_ne!(refused, 0);
            }
        }
        let (mut other, ..) = greet(&node, 0);
        for topic in kinds {
            let (_, next, last) = subscribe(&mut other, topic, 0);
            assert_eq!((next, last), (2, 1), "{topic}");
            if topic.starts_with("market") {
                other.expect(|frame| matches!(frame, Frame::Snapshot(s) if s.seq == 1));
            }
        }
        drop((wire, other));
        stop(node);
    }
}

#[test]
fn a_volatile_topic_goes_on_with_its_state_in_a_new_epoch() {
    let data = Data::new("volatile");
    let mut epochs = Vec::new();
    for round in 0..3u64 {
        let node = data.node(1);
        let (mut wire, ..) = greet(&node, 0);
        let (epoch, next, last) = subscribe(&mut wire, "market/a", 0);
        assert_eq!((next, last), (round + 1, round));
        assert!(epochs.last().is_none_or(|before| *before < epoch));
        epochs.push(epoch);
        if round > 0 {
            wire.next(|frame| match frame {
                Frame::Snapshot(state) => {
                    let state = MarketState::decode(state.body).unwrap();
                    assert_eq!((state.trades, state.volume), (round, Micros(round as i64)));
                }
                other => panic!("{other:?} instead of SNAPSHOT"),
            });
        }
        let (mut body, mut payload) = (Vec::new(), Vec::new());
        Trade {
            price: Micros(1),
            qty: Micros(1),
            ..Trade::default()
        }
        .encode(&mut body);
        Publish {
            kind: EventKind::Trade as u16,
            event_ns: 5,
            body: &body,
        }
        .encode(&mut payload);
        publish(&mut wire, 1, "market/a", &payload);
        let mut frames = 0;
        while frames < 2 {
            wire.next(|frame| match frame {
                Frame::Event(event) => assert_eq!(event.seq, round + 1),
                Frame::Reply(reply) => assert_eq!((reply.code, reply.seq), (0, round + 1)),
                other => panic!("{other:?}"),
            });
            frames += 1;
        }
        drop(wire);
        stop(node);
    }
}

#[test]
fn without_a_journal_durable_topics_are_refused() {
    let node = node(|_| {});
    let mut wire = Wire::open(&node);
    publish(&mut wire, 1, "log/a", &message(b"x"));
    assert_eq!(reply(&mut wire, 1), (ErrorCode::NoJournal as u16, 0));
    wire.send(&support::subscribe("log/a", 0));
    assert_eq!(wire.expect_error().0, ErrorCode::NoJournal as u16);
}

#[test]
fn two_servers_cannot_use_one_journal() {
    let data = Data::new("lock");
    let first = data.node(1);
    let mut config = NodeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..NodeConfig::default()
    };
    data.config(&mut config, 1);
    let error = Node::start(config).unwrap_err();
    assert!(matches!(error, NodeError::InUse(_)), "{error}");
    assert!(
        error.to_string().contains("in use by another tickring"),
        "{error}"
    );
    stop(first);
    stop(data.node(1));
}

#[test]
fn a_server_does_not_start_from_a_journal_of_kinds_that_it_does_not_know() {
    let data = Data::new("kinds");
    let first = data.node(1);
    let (mut wire, ..) = greet(&first, 0);
    publish(&mut wire, 1, "log/a", &message(b"x"));
    assert_eq!(reply(&mut wire, 1), (0, 1));
    drop(wire);
    stop(first);
    let mut config = NodeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        registry: tickring::machines::Registry::empty().into(),
        ..NodeConfig::default()
    };
    data.config(&mut config, 1);
    let error = Node::start(config).unwrap_err().to_string();
    assert!(
        error.contains("log/a") && error.contains("knows no topics of that kind"),
        "{error}"
    );
    assert!(Path::new(&data.0).join("lane-0").exists());
}

#[test]
fn the_running_candle_goes_on_after_a_restart() {
    let data = Data::new("candle");
    let body = |price| {
        let mut body = Vec::new();
        Trade {
            price: Micros(price),
            qty: Micros(1),
            ..Trade::default()
        }
        .encode(&mut body);
        let mut payload = Vec::new();
        Publish {
            kind: EventKind::Trade as u16,
            event_ns: 61_000_000_000 + price as u64,
            body: &body,
        }
        .encode(&mut payload);
        payload
    };
    for (cores, prices) in [(1, [10, 30]), (2, [5, 20]), (1, [7, 8])] {
        let node = data.node(cores);
        let (mut wire, ..) = greet(&node, 0);
        for price in prices {
            publish(&mut wire, price as u64, "market/X", &body(price));
            assert_eq!(reply(&mut wire, price as u64).0, 0);
        }
        stop(node);
    }
    let node = data.node(2);
    let mut wire = Wire::open(&node);
    wire.subscribe("candle/1m/X", 0);
    let candle = wire.next(|frame| match frame {
        Frame::Snapshot(it) => Candle::decode(it.body).unwrap(),
        other => panic!("{other:?} instead of SNAPSHOT"),
    });
    let expected = Candle {
        start_ns: 60_000_000_000,
        open: Micros(5), // the prices are the order of the event times
        high: Micros(30),
        low: Micros(5),
        close: Micros(30),
        volume: Micros(6),
        trades: 6,
    };
    assert_eq!(candle, expected);
    stop(node);
}

#[test]
fn a_command_whose_reply_had_no_room_is_refused_also_by_the_next_server() {
    let data = Data::new("crowded");
    // One core and one lane, so that both topics' replies are in one window.
    let small = |config: &mut NodeConfig| {
        data.config(config, 1);
        let journal = config.journal.as_mut().unwrap();
        (journal.lanes, journal.replies.bytes) = (1, 1_000);
    };
    let first = node(small);
    let (mut wire, session, _) = greet(&first, 0);
    publish(&mut wire, 1, "log/a", &message(b"once"));
    assert_eq!(reply(&mut wire, 1), (0, 1));
    let (mut other, ..) = greet(&first, 0);
    for request_id in 1..=20 {
        publish(&mut other, request_id, "log/b", &message(b"crowds it out"));
        assert_eq!(reply(&mut other, request_id), (0, request_id));
    }
    let forgotten = (ErrorCode::Forgotten as u16, 0);
    publish(&mut wire, 1, "log/a", &message(b"once"));
    assert_eq!(reply(&mut wire, 1), forgotten);
    stop(first);

    let second = node(small);
    let (mut wire, ..) = greet(&second, session);
    publish(&mut wire, 1, "log/a", &message(b"once"));
    assert_eq!(reply(&mut wire, 1), forgotten);
    publish(&mut wire, 2, "log/a", &message(b"again"));
    assert_eq!(reply(&mut wire, 2), (0, 2), "it was carried out once");
    stop(second);
}
