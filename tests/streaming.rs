//! Topics over real sockets: order, resume, slow clients, unsubscribing, stopping.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use support::{Wire, encode, message, node};
use tickring::machines::{self, Kind, Machine, Outcome, Refusal};
use tickring::node::Node;
use tickring_protocol::{
    Command, ErrorCode, Event, EventKind, Frame, Gap, GapReason, Goodbye, MarketState, Micros,
    NodeStats, PUBLISH, Policy, Publish, Subscribe, Subscribed, Trade, Unsubscribe,
};

fn publish_many(wire: &mut Wire, topic: &str, range: std::ops::Range<u64>, size: usize) {
    let mut burst = Vec::new();
    for n in range {
        let mut body = n.to_le_bytes().to_vec();
        body.resize(size.max(8), 0);
        let payload = message(&body);
        Frame::Command(Command {
            request_id: n,
            topic_id: 0,
            command: PUBLISH,
            topic,
            payload: &payload,
            quiet: true,
        })
        .encode(&mut burst);
        if burst.len() > 60_000 {
            wire.bytes(&burst);
            burst.clear();
        }
    }
    wire.bytes(&burst);
}

/// Everything published before is in once this returns.
fn barrier(wire: &mut Wire, topic: &str) -> u64 {
    let payload = message(b"last");
    wire.send(&Frame::Command(Command {
        request_id: u64::MAX,
        topic_id: 0,
        command: PUBLISH,
        topic,
        payload: &payload,
        quiet: false,
    }));
    let mut seq = 0;
    wire.next(|frame| match frame {
        Frame::Reply(reply) => {
            assert_eq!(reply.code, 0);
            seq = reply.seq;
        }
        other => panic!("{other:?}"),
    });
    seq
}

/// The topic's next event must be `seq`. Before it the server may say that it comes later than it
/// could have: a busy machine lets a reader fall behind, and nothing is lost by that.
fn expect_event(wire: &mut Wire, seq: u64, check: impl Fn(&Event<'_>)) {
    let mut came = false;
    while !came {
        wire.next(|frame| match frame {
            Frame::Event(event) => {
                assert_eq!(event.seq, seq);
                check(event);
                came = true;
            }
            Frame::Gap(gap) => {
                assert_eq!((gap.reason, gap.first_seq), (GapReason::Delayed, seq));
            }
            other => panic!("{other:?} instead of event {seq}"),
        });
    }
}

fn expect_events(wire: &mut Wire, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        expect_event(wire, seq, |_| ());
    }
}

fn subscribe_with(wire: &mut Wire, subscribe: Subscribe<'_>) -> (u32, u64, u64, u64) {
    wire.send(&Frame::Subscribe(subscribe));
    wire.next(|frame| match frame {
        Frame::Subscribed(Subscribed {
            topic_id,
            next_seq,
            last_seq,
            epoch,
            ..
        }) => (*topic_id, *next_seq, *last_seq, *epoch),
        other => panic!("{other:?}"),
    })
}

fn from(topic: &str, from_seq: u64, epoch: u64, policy: Policy) -> Subscribe<'_> {
    Subscribe {
        request_id: 1,
        from_seq,
        epoch,
        policy,
        topic,
    }
}

#[test]
fn every_subscriber_sees_every_event_once_in_order_whoever_owns_the_topic() {
    const EVENTS: u64 = 3_000;
    for cores in [1, 2, 4] {
        let node = node(|config| config.cores = cores);
        let topics = ["stream/a", "stream/b", "stream/c", "stream/d", "stream/e"];
        let mut readers: Vec<(Wire, u32)> = Vec::new();
        for _ in 0..4 {
            for topic in topics {
                let mut wire = Wire::open(&node);
                let id = wire.subscribe(topic, 1);
                readers.push((wire, id));
            }
        }
        std::thread::scope(|scope| {
            for topic in topics {
                let mut publisher = Wire::open(&node);
                scope.spawn(move || publish_many(&mut publisher, topic, 0..EVENTS, 64));
            }
            for (mut wire, id) in readers {
                scope.spawn(move || {
                    for seq in 1..=EVENTS {
                        expect_event(&mut wire, seq, |event| {
                            assert_eq!(event.topic_id, id);
                            assert_eq!(event.body[..8], (seq - 1).to_le_bytes());
                        });
                    }
                });
            }
        });
        node.shutdown();
        node.wait().unwrap();
    }
}

#[test]
fn a_subscriber_resumes_where_it_was_without_gap_or_duplicate() {
    for cores in [1, 2] {
        let node = node(|config| config.cores = cores);
        let mut publisher = Wire::open(&node);
        publish_many(&mut publisher, "stream/r", 0..9_999, 100);
        assert_eq!(barrier(&mut publisher, "stream/r"), 10_000);
        let mut wire = Wire::open(&node);
        let (_, next, last, epoch) =
            subscribe_with(&mut wire, from("stream/r", 4_000, 0, Policy::Default));
        assert_eq!((next, last), (4_000, 10_000));
        expect_events(&mut wire, 4_000..=10_000);
        publish_many(&mut publisher, "stream/r", 0..500, 100);
        expect_events(&mut wire, 10_001..=10_500);

        let mut again = Wire::open(&node);
        subscribe_with(&mut again, from("stream/r", 10_400, epoch, Policy::Default));
        expect_events(&mut again, 10_400..=10_500);
    }
}

#[test]
fn a_seq_of_another_epoch_or_beyond_the_end_is_reset() {
    let node = node(|_| ());
    let mut publisher = Wire::open(&node);
    publish_many(&mut publisher, "stream/r", 0..9, 8);
    barrier(&mut publisher, "stream/r");
    for (seq, epoch) in [(3, 12_345), (11 + 1, 0)] {
        let mut wire = Wire::open(&node);
        let (.., next, last, _) =
            subscribe_with(&mut wire, from("stream/r", seq, epoch, Policy::Default));
        assert_eq!((next, last), (11, 10));
        wire.expect(|frame| {
            matches!(frame, Frame::Gap(g) if g.reason == GapReason::Reset && g.last_seq == 10)
        });
    }
}

#[test]
fn events_that_are_no_longer_kept_are_told_as_a_gap() {
    let node = node(|config| config.limits.history_topic_bytes = 64 << 10);
    let mut publisher = Wire::open(&node);
    publish_many(&mut publisher, "stream/r", 0..9_999, 100);
    barrier(&mut publisher, "stream/r");
    let mut wire = Wire::open(&node);
    let (_, next, last, _) = subscribe_with(&mut wire, from("stream/r", 1, 0, Policy::Default));
    assert!(next > 1 && last == 10_000);
    wire.expect(|frame| {
        let expired = Gap {
            topic_id: 1,
            reason: GapReason::Expired,
            first_seq: 1,
            last_seq: next - 1,
        };
        *frame == Frame::Gap(expired)
    });
    expect_events(&mut wire, next..=10_000);
}

#[test]
fn a_newcomer_gets_the_state_and_then_what_follows() {
    let node = node(|_| ());
    let mut publisher = Wire::open(&node);
    let trade = |price: i64| {
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
            event_ns: 5,
            body: &body,
        }
        .encode(&mut payload);
        payload
    };
    let publish = |wire: &mut Wire, price| {
        let payload = trade(price);
        wire.send(&Frame::Command(Command {
            request_id: price as u64, // unique within the session
            topic_id: 0,
            command: PUBLISH,
            topic: "market/X",
            payload: &payload,
            quiet: false,
        }));
        wire.expect(|frame| matches!(frame, Frame::Reply(r) if r.code == 0));
    };
    publish(&mut publisher, 100);
    publish(&mut publisher, 300);
    let mut wire = Wire::open(&node);
    wire.subscribe("market/X", 0);
    wire.next(|frame| match frame {
        Frame::Snapshot(s) => {
            let state = MarketState::decode(s.body).unwrap();
            assert_eq!(
                (s.seq, state.open, state.high),
                (2, Micros(100), Micros(300))
            );
        }
        other => panic!("{other:?}"),
    });
    publish(&mut publisher, 200);
    expect_events(&mut wire, 3..=3);
}

/// Publishes until the server has told that `stalled` is behind, by its name.
fn overwhelm(node: &Node, publisher: &mut Wire, topic: &str, name: &str) -> u64 {
    let mut watcher = Wire::open(node);
    watcher.subscribe("node/core-0", 0);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        assert!(Instant::now() < deadline, "nobody was told to be slow");
        publish_many(publisher, topic, 0..2_000, 1_000);
        barrier(publisher, topic);
        let named = watcher.next(|frame| match frame {
            Frame::Event(e) => {
                let (_, mut slow) = NodeStats::decode(e.body).unwrap();
                slow.any(|client| client.name == name && client.behind_bytes > 0)
            }
            _ => false,
        });
        if named {
            return barrier(publisher, topic);
        }
    }
}

#[test]
fn a_client_that_stops_reading_is_named_and_catches_up_later_with_nothing_lost() {
    let node = node(|config| {
        config.send_buffer = Some(64 << 10);
        config.limits.history_topic_bytes = 256 << 20;
    });
    let mut stalled = Wire::connect(&node);
    stalled.hello("sleeper");
    subscribe_with(&mut stalled, from("stream/s", 1, 0, Policy::Resume));
    let mut publisher = Wire::open(&node);
    let last = overwhelm(&node, &mut publisher, "stream/s", "sleeper");
    let (mut next, mut told) = (1, 0);
    while next <= last {
        stalled.next(|frame| match frame {
            Frame::Event(e) => {
                assert_eq!(e.seq, next);
                next += 1;
            }
            Frame::Gap(g) => {
                assert_eq!(
                    (g.reason, g.first_seq, g.last_seq),
                    (GapReason::Delayed, next, 0)
                );
                told += 1;
            }
            other => panic!("{other:?}"),
        });
    }
    assert!(told >= 1, "the client was told that it is behind");
    publish_many(&mut publisher, "stream/s", 0..10, 10);
    expect_events(&mut stalled, last + 1..=last + 10);
}

#[test]
fn a_conflated_client_skips_to_the_present() {
    let node = node(|config| config.send_buffer = Some(64 << 10));
    let mut stalled = Wire::connect(&node);
    stalled.hello("skipper");
    subscribe_with(&mut stalled, from("stream/s", 0, 0, Policy::Conflate));
    let mut publisher = Wire::open(&node);
    let last = overwhelm(&node, &mut publisher, "stream/s", "skipper");
    let (mut next, mut skipped) = (1, 0);
    while next <= last {
        stalled.next(|frame| match frame {
            Frame::Event(e) => {
                assert_eq!(e.seq, next);
                next += 1;
            }
            Frame::Gap(g) => {
                assert_eq!((g.reason, g.first_seq), (GapReason::Conflated, next));
                skipped += g.last_seq + 1 - next;
                next = g.last_seq + 1;
            }
            other => panic!("{other:?}"),
        });
    }
    assert!(skipped > 0);
}

#[test]
fn a_client_whose_policy_is_disconnect_is_let_go() {
    let node = node(|config| {
        config.send_buffer = Some(64 << 10);
        config.limits.drain_timeout = Duration::from_millis(200);
    });
    let mut stalled = Wire::open(&node);
    subscribe_with(&mut stalled, from("stream/s", 0, 0, Policy::Disconnect));
    let mut publisher = Wire::open(&node);
    for _ in 0..60 {
        publish_many(&mut publisher, "stream/s", 0..1_000, 1_000);
        barrier(&mut publisher, "stream/s");
    }
    std::thread::sleep(Duration::from_millis(400));
    let mut seen = 0;
    while !stalled.is_closed() {
        stalled.next(|frame| match frame {
            Frame::Event(e) => seen = e.seq,
            Frame::Goodbye(g) => assert_eq!(g.code, ErrorCode::SlowConsumer as u16),
            other => panic!("{other:?}"),
        });
    }
    assert!(seen < 60_060, "it was not given everything");
}

#[test]
fn nothing_follows_unsubscribed() {
    for cores in [1, 2] {
        let node = node(|config| config.cores = cores);
        let mut wire = Wire::open(&node);
        let mut publisher = Wire::open(&node);
        std::thread::scope(|scope| {
            scope.spawn(|| publish_many(&mut publisher, "stream/u", 0..100_000, 8));
            for round in 0..300 {
                let id = wire.subscribe("stream/u", 0);
                wire.send(&Frame::Unsubscribe(Unsubscribe {
                    request_id: round,
                    topic_id: id,
                }));
                let (mut last, mut done) = (0, None);
                while done.is_none() {
                    wire.next(|frame| match frame {
                        Frame::Event(e) => {
                            assert!(last == 0 || e.seq == last + 1);
                            last = e.seq;
                        }
                        Frame::Unsubscribed(u) => {
                            assert_eq!(u.request_id, round);
                            assert!(last == 0 || u.last_seq == last);
                            done = Some(());
                        }
                        // A burst can be more than the outbox holds: then it comes later.
                        Frame::Gap(g) => assert_eq!(g.reason, GapReason::Delayed),
                        other => panic!("{other:?}"),
                    });
                }
            }
        });
    }
}

#[test]
fn a_stopping_node_says_goodbye_behind_everything() {
    for cores in [1, 2] {
        let node = node(|config| config.cores = cores);
        let mut wires: Vec<Wire> = (0..20).map(|_| Wire::open(&node)).collect();
        for wire in &mut wires {
            wire.subscribe("stream/g", 0);
        }
        let mut publisher = Wire::open(&node);
        publish_many(&mut publisher, "stream/g", 0..99, 50);
        assert_eq!(barrier(&mut publisher, "stream/g"), 100);
        node.shutdown();
        for mut wire in wires {
            expect_events(&mut wire, 1..=100);
            wire.expect(|frame| {
                matches!(frame, Frame::Goodbye(Goodbye { code, retry_after_ms, .. })
                    if *code == ErrorCode::ShuttingDown as u16 && *retry_after_ms > 0)
            });
            assert!(wire.is_closed());
        }
        drop(publisher);
        let start = Instant::now();
        node.wait().unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(9),
            "bounded by drain and linger"
        );
    }
}

#[test]
fn frames_of_one_write_are_acted_on_in_order_whoever_owns_the_topic() {
    let node = node(|config| config.cores = 2);
    let mut wire = Wire::open(&node);
    for topic in ["stream/a", "stream/b", "stream/c", "stream/d"] {
        let id = wire.subscribe(topic, 0);
        let gone = Frame::Unsubscribe(Unsubscribe {
            request_id: 8,
            topic_id: id,
        });
        wire.send(&gone);
        wire.expect(|frame| matches!(frame, Frame::Unsubscribed(u) if u.request_id == 8));
        // The id is known from before, so nothing has to be waited for.
        wire.bytes(&[encode(&support::subscribe(topic, 0)), encode(&gone)].concat());
        wire.expect(|frame| matches!(frame, Frame::Subscribed(s) if s.topic_id == id));
        wire.expect(|frame| matches!(frame, Frame::Unsubscribed(u) if u.topic_id == id));
    }
}

/// Adds what it is given, and refuses to go below zero.
#[derive(Default)]
struct Balance(i64);

impl Machine for Balance {
    fn apply(&mut self, command: &machines::Command<'_>, out: &mut Outcome) -> Result<(), Refusal> {
        let amount = command.payload.try_into().map(i64::from_le_bytes);
        let amount =
            amount.map_err(|_| Refusal::new(ErrorCode::BadCommand, "8 bytes are wanted"))?;
        // Given away before the check on purpose: a refused command's events must not be seen.
        out.event(0x8000, command.now_ns, &(self.0 + amount).to_le_bytes());
        if self.0 + amount < 0 {
            return Err(Refusal::new(
                ErrorCode::OutOfRange,
                "amount is more than there is",
            ));
        }
        self.0 += amount;
        out.reply(&self.0.to_le_bytes());
        Ok(())
    }

    fn snapshot(&self, out: &mut Vec<u8>) -> Option<u16> {
        out.extend_from_slice(&self.0.to_le_bytes());
        Some(0x8000)
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn load(&mut self, state: &[u8]) -> Result<(), machines::Unreadable> {
        let bytes = state
            .try_into()
            .map_err(|_| machines::Unreadable::new("a balance has 8 bytes"))?;
        self.0 = i64::from_le_bytes(bytes);
        Ok(())
    }

    fn replay(&mut self, event: &machines::Recorded<'_>) -> Result<(), machines::Unreadable> {
        self.load(event.body)
    }
}

#[test]
fn a_machine_of_the_embedder_runs_like_the_built_in_ones() {
    let node = node(|config| {
        let mut registry = machines::Registry::standard();
        registry.register(Kind::new("balance", Policy::Resume, |_| {
            Box::<Balance>::default()
        }));
        config.registry = registry.into();
        config.cores = 2;
    });
    let mut wire = Wire::open(&node);
    wire.subscribe("balance/ann", 0);
    let mut burst = Vec::new();
    for (id, amount) in [(1u64, 100i64), (2, 100), (3, -500), (4, 300)] {
        burst.extend(encode(&Frame::Command(Command {
            request_id: id,
            topic_id: 0,
            command: 100,
            topic: "balance/ann",
            payload: &amount.to_le_bytes(),
            quiet: false,
        })));
    }
    wire.bytes(&burst);
    let (mut events, mut replies) = (Vec::new(), Vec::new());
    while events.len() < 3 || replies.len() < 4 {
        wire.next(|frame| match frame {
            Frame::Event(e) => {
                events.push((e.seq, i64::from_le_bytes(e.body.try_into().unwrap())));
            }
            Frame::Reply(r) => replies.push((r.request_id, r.code, r.seq)),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(events, [(1, 100), (2, 200), (3, 500)]);
    let refused = ErrorCode::OutOfRange as u16;
    assert_eq!(replies, [(1, 0, 1), (2, 0, 2), (3, refused, 0), (4, 0, 3)]);
}
