//! The bridge between real WebSockets and a real server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod faults;
mod history;
mod log;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use client::{Json, await_metric, bridge, get, metric};
use serde_json::{Value, json};
use support::{Wire, message, node};
use tickring::node::Node;
use tickring_protocol::{Command, EventKind, Frame, Micros, PUBLISH, Publish, Side, Trade};

fn restart(address: SocketAddr) -> Node {
    let began = std::time::Instant::now();
    loop {
        let mut config = tickring::node::NodeConfig {
            listen: address,
            cores: 1,
            pin: false,
            ..Default::default()
        };
        config.limits.max_connections = 1_000;
        match Node::start(config) {
            Ok(node) => return node,
            Err(error) => assert!(began.elapsed() < client::PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn stop(node: Node) {
    node.shutdown();
    node.wait().unwrap();
}

/// Publishes messages `range` of a topic, each with its number as text.
fn publish(wire: &mut Wire, topic: &str, range: std::ops::RangeInclusive<u64>) {
    for n in range {
        let payload = message(n.to_string().as_bytes());
        wire.send(&Frame::Command(Command {
            request_id: n,
            topic_id: 0,
            command: PUBLISH,
            topic,
            payload: &payload,
            quiet: false,
        }));
        wire.expect(
            |frame| matches!(frame, Frame::Reply(reply) if reply.code == 0 && reply.seq == n),
        );
    }
}

fn publish_trade(wire: &mut Wire, topic: &str, n: i64) {
    let mut body = Vec::new();
    Trade {
        price: Micros(n * 1_000_000 + 300_000),
        qty: Micros(6_000),
        side: Side::Sell,
        price_decimals: 2,
        qty_decimals: 3,
    }
    .encode(&mut body);
    let mut payload = Vec::new();
    Publish {
        kind: EventKind::Trade as u16,
        event_ns: 1_700_000_000_000_000_000 + n as u64,
        body: &body,
    }
    .encode(&mut payload);
    wire.send(&Frame::Command(Command {
        request_id: n as u64,
        topic_id: 0,
        command: PUBLISH,
        topic,
        payload: &payload,
        quiet: false,
    }));
    wire.expect(|frame| matches!(frame, Frame::Reply(reply) if reply.code == 0));
}

#[test]
fn prices_come_as_they_were_published_and_all_share_one_subscription() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let mut clients: Vec<Json> = (0..5).map(|_| Json::open(&bridge).0).collect();
    for client in &mut clients {
        let told = client.subscribe("market/X", 0, "0");
        assert_eq!(
            (&told["next_seq"], &told["policy"]),
            (&json!(1), &json!("conflate"))
        );
    }
    let mut wire = Wire::open(&node);
    publish_trade(&mut wire, "market/X", 61_800);
    for client in &mut clients {
        let event = client.expect("event");
        assert_eq!(event["kind"], "trade");
        assert_eq!(event["price"], "61800.30");
        assert_eq!(event["qty"], "0.006");
        assert_eq!(event["side"], "sell");
        assert_eq!(event["ts_event_ns"], "1700000000000061800");
    }
    assert_eq!(metric(&bridge, "tickring_bridge_upstream_subscriptions"), 1);
    assert_eq!(metric(&bridge, "tickring_bridge_subscriptions"), 5);
}

#[test]
fn a_newcomer_gets_the_state_and_then_every_event() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let mut wire = Wire::open(&node);
    publish_trade(&mut wire, "market/X", 1);
    let (mut first, _) = Json::open(&bridge);
    let told = first.subscribe("market/X", 0, "0");
    assert_eq!(told["last_seq"], 1);
    assert_eq!(first.expect("snapshot")["price"], "1.30");
    // So many that the state of the beginning is too old for whoever comes now.
    for n in 2..=100 {
        publish_trade(&mut wire, "market/X", n);
    }
    first.expect_events("market/X", 2..=100);

    let (mut late, _) = Json::open(&bridge);
    let told = late.subscribe("market/X", 0, "0");
    let snapshot = late.expect("snapshot");
    assert_eq!(snapshot["seq"], told["last_seq"]);
    let next = told["next_seq"].as_u64().unwrap();
    assert!(next > 2, "an old state: {told}");
    assert_eq!(snapshot["trades"], json!(next - 1));
    publish_trade(&mut wire, "market/X", 101);
    late.expect_events("market/X", next..=101);
    first.expect_events("market/X", 101..=101);
    assert_eq!(metric(&bridge, "tickring_bridge_upstream_subscriptions"), 1);
}

#[test]
fn unsubscribed_is_final_and_a_resume_misses_nothing() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let mut wire = Wire::open(&node);
    let (mut client, _) = Json::open(&bridge);
    let told = client.subscribe("stream/a", 0, "0");
    publish(&mut wire, "stream/a", 1..=10);
    client.expect_events("stream/a", 1..=10);
    client.send(json!({"type": "unsubscribe", "id": 5, "topic": "stream/a"}));
    assert_eq!(client.expect("unsubscribed")["last_seq"], 10);
    publish(&mut wire, "stream/a", 11..=20);
    client.send(json!({"type": "ping", "token": 3}));
    assert_eq!(client.expect("pong")["token"], 3);

    let epoch = told["epoch"].as_str().unwrap();
    let again = client.subscribe("stream/a", 11, epoch);
    assert_eq!(again["next_seq"], 11);
    client.expect_events("stream/a", 11..=20);
}

#[test]
fn who_was_away_longer_than_the_bridge_remembers_catches_up_from_the_server() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |config| config.history_bytes = 4_000);
    let mut wire = Wire::open(&node);
    let (mut watching, _) = Json::open(&bridge);
    let told = watching.subscribe("stream/a", 0, "0");
    publish(&mut wire, "stream/a", 1..=500);
    watching.expect_events("stream/a", 1..=500);

    let epoch = told["epoch"].as_str().unwrap();
    let (mut back, _) = Json::open(&bridge);
    assert_eq!(back.subscribe("stream/a", 3, epoch)["next_seq"], 3);
    publish(&mut wire, "stream/a", 501..=600);
    back.expect_events("stream/a", 3..=600);
    watching.expect_events("stream/a", 501..=600);
    assert!(metric(&bridge, "tickring_bridge_catch_ups_total") > 0);
    // Both read the same log from here on.
    publish(&mut wire, "stream/a", 601..=601);
    back.expect_events("stream/a", 601..=601);
}

#[test]
fn a_client_of_another_numbering_is_told_so() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let mut wire = Wire::open(&node);
    publish_trade(&mut wire, "market/X", 1);
    let (mut watching, _) = Json::open(&bridge);
    watching.subscribe("market/X", 0, "0");
    watching.expect("snapshot");
    let (mut client, _) = Json::open(&bridge);
    client.subscribe("market/X", 40, "12345");
    let gap = client.expect("gap");
    assert_eq!(
        (&gap["reason"], &gap["last_seq"]),
        (&json!("reset"), &json!(1))
    );
    assert_eq!(client.expect("snapshot")["seq"], 1);
    publish_trade(&mut wire, "market/X", 2);
    client.expect_events("market/X", 2..=2);
}

#[test]
fn the_servers_restart_is_told_and_what_follows_goes_on() {
    let node = node(|_| {});
    let address = node.local_addr();
    let bridge = bridge(address, |_| {});
    let (mut client, _) = Json::open(&bridge);
    let told = client.subscribe("stream/a", 0, "0");
    publish(&mut Wire::open(&node), "stream/a", 1..=3);
    client.expect_events("stream/a", 1..=3);
    stop(node);
    assert_eq!(client.expect("status")["upstream"], "down");
    assert_eq!(get(&bridge, "/healthz").0, 503);

    let node = restart(address);
    let up = client.next().unwrap();
    assert_eq!(up["upstream"], "up", "{up}");
    let gap = client.expect("gap");
    assert_eq!(
        (&gap["reason"], &gap["last_seq"]),
        (&json!("reset"), &json!(0))
    );
    assert_ne!(gap["epoch"], told["epoch"]);
    publish(&mut Wire::open(&node), "stream/a", 1..=2);
    client.expect_events("stream/a", 1..=2);
    assert_eq!(get(&bridge, "/healthz").0, 200);
}

#[test]
fn a_client_may_subscribe_before_the_server_is_there() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let bridge = bridge(address, |_| {});
    let mut client = Json::connect(&bridge);
    client.send(json!({"type": "hello"}));
    assert_eq!(client.expect("welcome")["upstream"], "down");
    client.send(json!({"type": "subscribe", "id": 1, "topic": "stream/a"}));
    let node = restart(address);
    client.expect("subscribed");
    publish(&mut Wire::open(&node), "stream/a", 1..=1);
    client.expect_events("stream/a", 1..=1);
}

#[test]
fn a_command_sent_again_after_a_reconnect_through_another_bridge_has_one_effect() {
    let node = node(|_| {});
    let first = bridge(node.local_addr(), |_| {});
    let (mut client, session) = Json::open(&first);
    client.publish(9, "stream/a", "once");
    let reply = client.expect("reply");
    assert_eq!((&reply["code"], &reply["seq"]), (&json!("ok"), &json!(1)));
    drop(client);
    first.stop();

    let second = bridge(node.local_addr(), |_| {});
    let (mut client, again) = Json::resume(&second, &session);
    assert_eq!(session, again);
    client.publish(9, "stream/a", "once");
    assert_eq!(client.expect("reply")["seq"], 1);
    client.publish(10, "stream/a", "twice");
    assert_eq!(client.expect("reply")["seq"], 2);
}

#[test]
fn commands_are_answered_in_order_refused_by_name_and_finished_before_goodbye() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let (mut client, _) = Json::open(&bridge);
    let many: Vec<Value> = (1..=300)
        .map(|id| json!({"type": "publish", "id": id, "topic": "stream/a", "kind": "message", "data": "x"}))
        .collect();
    client.send(many.into());
    client.send(json!({"type": "publish", "id": 500, "topic": "market/X", "kind": "trade", "price": "0.0000001", "qty": "1"}));
    for (id, topic) in [(501, "market/X"), (502, "nope/x"), (503, "no slash")] {
        client.send(
            json!({"type": "publish", "id": id, "topic": topic, "kind": "message", "data": "x"}),
        );
    }
    client.send(json!({"type": "goodbye"}));
    let mut taken = 0;
    let mut refused = Vec::new();
    let close = loop {
        match client.next() {
            Ok(value) if value["type"] == "reply" && value["code"] == "ok" => {
                taken += 1;
                assert_eq!(
                    (&value["id"], &value["seq"]),
                    (&json!(taken), &json!(taken))
                );
            }
            Ok(value) if value["type"] == "reply" => {
                refused.push(value["code"].as_str().unwrap().to_owned())
            }
            Ok(value) if value["type"] == "status" => {}
            Ok(value) => assert_eq!(value["type"], "goodbye", "{value}"),
            Err(close) => break close,
        }
    };
    refused.sort();
    assert_eq!(taken, 300);
    assert_eq!(
        refused,
        ["bad_command", "bad_name", "out_of_range", "unknown_kind"]
    );
    assert_eq!(close, (1000, "ok".to_owned()));
    await_metric(&bridge, "tickring_bridge_command_connections", 0);
}

#[test]
fn a_lost_command_connection_closes_its_client_alone() {
    let node = node(|_| {});
    let address = node.local_addr();
    let bridge = bridge(address, |_| {});
    let (mut watching, _) = Json::open(&bridge);
    watching.subscribe("stream/a", 0, "0");
    stop(node);
    let (mut client, _) = Json::open(&bridge);
    client.publish(1, "stream/a", "x");
    assert_eq!(client.closed(), (4100, "upstream_lost".to_owned()));
    watching.send(json!({"type": "ping", "token": 1}));
    watching.expect("pong");
}

#[test]
fn a_slow_client_is_brought_to_the_latest_state_and_nobody_else_notices() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |config| {
        config.outbox_bytes = 64 << 10;
        config.history_bytes = 128 << 10;
    });
    let mut wire = Wire::open(&node);
    let (mut slow, _) = Json::open(&bridge);
    let (mut quick, _) = Json::open(&bridge);
    slow.subscribe("market/X", 0, "0");
    quick.subscribe("market/X", 0, "0");
    // Until the slow client's socket has taken all it can and the bridge has passed events over.
    let mut last = 0;
    while metric(&bridge, "tickring_bridge_history_bytes") < 100 << 10 || last < 60_000 {
        let mut burst = Vec::new();
        for _ in 0..500 {
            last += 1;
            quiet_trade("market/X", last, &mut burst);
        }
        wire.bytes(&burst);
        let seq = last as u64;
        quick_reads(&mut quick, seq);
    }
    let mut next = 1;
    let mut gaps = 0;
    while next <= last as u64 {
        let value = slow.next().unwrap();
        match value["type"].as_str().unwrap() {
            "event" => {
                assert_eq!(value["seq"], next, "{value}");
                next += 1;
            }
            "gap" => {
                assert_eq!(value["reason"], "conflated");
                assert_eq!(value["first_seq"], next);
                next = value["last_seq"].as_u64().unwrap() + 1;
                let snapshot = slow.expect("snapshot");
                assert_eq!(snapshot["seq"], next - 1);
                gaps += 1;
            }
            other => panic!("{other}: {value}"),
        }
    }
    assert!(gaps > 0, "it was never slow");
    assert!(metric(&bridge, "tickring_bridge_history_bytes") <= 128 << 10);
}

/// Adds a trade to what is to be sent; nobody waits for its reply.
fn quiet_trade(topic: &str, n: i64, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    Trade {
        price: Micros(n),
        ..Trade::default()
    }
    .encode(&mut body);
    let mut payload = Vec::new();
    Publish {
        kind: EventKind::Trade as u16,
        event_ns: 0,
        body: &body,
    }
    .encode(&mut payload);
    Frame::Command(Command {
        request_id: n as u64,
        topic_id: 0,
        command: PUBLISH,
        topic,
        payload: &payload,
        quiet: true,
    })
    .encode(out);
}

#[test]
fn a_client_that_is_slow_with_many_topics_is_brought_to_the_latest_state_of_each() {
    const TOPICS: usize = 8;
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |config| config.outbox_bytes = 4 << 10);
    let topics: Vec<String> = (0..TOPICS).map(|n| format!("market/X{n}")).collect();
    let mut wire = Wire::open(&node);
    let (mut slow, _) = Json::open(&bridge);
    let (mut quick, _) = Json::open(&bridge);
    for topic in &topics {
        slow.subscribe(topic, 0, "0");
    }
    quick.subscribe(&topics[0], 0, "0");
    let mut last = 0;
    while last < 10_000 {
        let mut burst = Vec::new();
        for _ in 0..100 {
            last += 1;
            for topic in &topics {
                quiet_trade(topic, last, &mut burst);
            }
        }
        wire.bytes(&burst);
        quick_reads(&mut quick, last as u64);
    }
    let (mut next, mut gaps) = (vec![1; TOPICS], 0);
    while next.iter().any(|next| *next <= last as u64) {
        let value = slow.next().unwrap();
        let place = topics.iter().position(|topic| value["topic"] == **topic);
        let next = &mut next[place.unwrap_or_else(|| panic!("{value}"))];
        match value["type"].as_str().unwrap() {
            "event" => {
                assert_eq!(value["seq"], *next, "{value}");
                *next += 1;
            }
            "gap" => {
                assert_eq!(
                    (&value["reason"], &value["first_seq"]),
                    (&json!("conflated"), &json!(*next))
                );
                *next = value["last_seq"].as_u64().unwrap() + 1;
                gaps += 1;
            }
            "snapshot" => assert_eq!(value["seq"], *next - 1),
            other => panic!("{other}: {value}"),
        }
    }
    assert!(gaps > TOPICS, "it was never slow");
}

/// Reads up to the event `last`, in order or conflated.
fn quick_reads(client: &mut Json, last: u64) {
    loop {
        let value = client.next().unwrap();
        let reached = match value["type"].as_str().unwrap() {
            "event" | "snapshot" => value["seq"].as_u64().unwrap(),
            _ => 0,
        };
        if reached >= last {
            return;
        }
    }
}

#[test]
fn a_stopping_bridge_says_so() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let (mut client, _) = Json::open(&bridge);
    let reader = std::thread::spawn(move || {
        let goodbye = client.expect("goodbye");
        (goodbye["code"].clone(), client.closed())
    });
    bridge.stop();
    let (code, close) = reader.join().unwrap();
    assert_eq!(code, "shutting_down");
    assert_eq!(close, (4029, "shutting_down".to_owned()));
}

#[test]
fn pages_are_served_and_know_whether_they_have_changed() {
    let node = node(|_| {});
    let bridge = bridge(node.local_addr(), |_| {});
    let (status, body) = get(&bridge, "/");
    assert_eq!(status, 200);
    assert!(body.contains("<title>"), "{body}");
    assert_eq!(get(&bridge, "/nothing-of-the-kind").0, 404);
    assert_eq!(get(&bridge, "/../Cargo.toml").0, 404);
}
