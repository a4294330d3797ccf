//! The steady state allocates nothing: neither per event nor per publish.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tickring_client::protocol::{
    Event, EventKind, Frame, Policy, Publish, Subscribed, VERSION_MAJOR, VERSION_MINOR, Welcome,
};
use tickring_client::{Notice, Session, SessionConfig, SubscribeOptions};

const NOW: Duration = Duration::ZERO;
const MESSAGE: u16 = EventKind::Message as u16;

/// A session with a live subscription of `m/a`, id 4, at its beginning.
fn live() -> Session {
    let mut session = Session::new(SessionConfig::default()).unwrap();
    session.connected(NOW);
    let request_id = session
        .subscribe("m/a", SubscribeOptions::default())
        .unwrap();
    let mut bytes = Vec::new();
    Frame::Welcome(Welcome {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        heartbeat_ms: 1000,
        session: 1,
        max_frame: 1 << 20,
        max_subscriptions: 10,
        node_ns: 1,
        resumed: false,
    })
    .encode(&mut bytes);
    Frame::Subscribed(Subscribed {
        request_id,
        topic_id: 4,
        policy: Policy::Resume,
        next_seq: 1,
        last_seq: 0,
        epoch: 1,
        topic: "m/a",
    })
    .encode(&mut bytes);
    session.receive(&bytes, NOW);
    while session.next().is_some() {}
    assert!(session.is_active());
    session
}

#[test]
fn an_event_costs_no_allocation() {
    let mut session = live();
    let mut bytes = Vec::new();
    for seq in 1..=10_000 {
        Frame::Event(Event {
            topic_id: 4,
            kind: MESSAGE,
            seq,
            event_ns: 1,
            node_ns: 2,
            body: b"some bytes",
        })
        .encode(&mut bytes);
    }
    let mut seen = 0;
    let counted = allocation_counter::measure(|| {
        // Cut so that most pieces end inside a frame.
        for mut piece in bytes.chunks(1500) {
            while !piece.is_empty() {
                let taken = session.receive(piece, NOW);
                piece = &piece[taken..];
                while let Some(notice) = session.next() {
                    seen += u64::from(matches!(notice, Notice::Event { topic: "m/a", .. }));
                }
            }
        }
    });
    assert_eq!(seen, 10_000);
    assert_eq!(counted.count_total, 0);
}

#[test]
fn a_publish_costs_no_allocation() {
    let mut session = live();
    let topic = session.topic("m/a").unwrap();
    let event = Publish {
        kind: MESSAGE,
        event_ns: 0,
        body: b"some bytes",
    };
    let mut publish_and_send = |count| {
        for _ in 0..count {
            session.publish(topic, &event).unwrap();
            if session.to_send().len() > 10_000 {
                session.sent(session.to_send().len());
            }
        }
    };
    publish_and_send(1000);
    let counted = allocation_counter::measure(|| publish_and_send(10_000));
    assert_eq!(counted.count_total, 0);
}
