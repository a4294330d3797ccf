//! The order of a topic's events, whatever the server sends.

use proptest::prelude::*;
use tickring_protocol::FrameType;

use super::*;

#[test]
fn a_snapshot_and_the_live_events_behind_it_come_in_order() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 9);
    let notices = pair.serve(&[snapshot(4, 9), event(4, 10), event(4, 11)]);
    assert_eq!(notices, ["snapshot m/a 9", "event m/a 10", "event m/a 11"]);
}

#[test]
fn a_topic_without_state_may_go_live_without_a_snapshot() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 9);
    assert_eq!(pair.serve(&[event(4, 10)]), ["event m/a 10"]);
}

#[test]
fn bodies_and_names_are_lent_whole() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    let mut bytes = Vec::new();
    event(4, 1).encode(&mut bytes);
    pair.session.receive(&bytes, pair.now);
    let Some(Notice::Event { topic, event, .. }) = pair.session.next() else {
        panic!("an event was sent");
    };
    assert_eq!((topic, event.body, event.node_ns), ("m/a", &b"body"[..], 2));
}

#[test]
fn notices_do_not_depend_on_where_the_stream_is_cut() {
    let mut bytes = Vec::new();
    let frames = [
        welcome(false),
        subscribed(1, "m/a", 4, 3, 2),
        snapshot(4, 2),
        event(4, 3),
        gap(4, GapReason::Delayed, 4, 0),
        event(4, 4),
        gap(4, GapReason::Conflated, 5, 8),
        snapshot(4, 8),
        event(4, 9),
        reply(2, 4, 0),
        reply(3, 4, 25),
    ];
    for frame in &frames {
        frame.encode(&mut bytes);
        // An optional message of a newer version between all of them.
        bytes.extend_from_slice(&[11, 0, 0, 0, 0x99, 0, 0, 0, 1, 2, 3]);
    }
    let run = |pieces: &[&[u8]]| {
        let mut pair = Pair::new();
        pair.session
            .subscribe("m/a", SubscribeOptions::default())
            .unwrap();
        pair.session.command("m/a", 9, b"").unwrap();
        pair.session.connected(pair.now);
        let mut notices = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            notices.extend(pair.serve_bytes(piece));
            if index == 0 && pair.session.is_active() {
                pair.session.publish("m/a", &PUBLISH_X).unwrap();
            }
        }
        notices
    };
    // WELCOME comes whole, so that the publish that reply 3 refuses can be made.
    let mut first = Vec::new();
    welcome(false).encode(&mut first);
    let (first, rest) = bytes.split_at(first.len());
    let whole = run(&[first, rest]);
    assert_eq!(
        whole,
        [
            "connected resumed=false",
            "subscribed m/a next 3 resumed=false",
            "snapshot m/a 2",
            "event m/a 3",
            "gap m/a Delayed 4-0",
            "event m/a 4",
            "gap m/a Conflated 5-8",
            "snapshot m/a 8",
            "event m/a 9",
            "reply m/a 2 code 0",
            "refused 3 Some(\"m/a\") 25 why",
        ]
    );
    for at in 0..=rest.len() {
        assert_eq!(
            run(&[first, &rest[..at], &rest[at..]]),
            whole,
            "cut at {at}"
        );
    }
    let mut bytewise: Vec<&[u8]> = vec![first];
    bytewise.extend(rest.chunks(1));
    assert_eq!(run(&bytewise), whole);
}

const PUBLISH_X: Publish<'static> = Publish {
    kind: 1,
    event_ns: 0,
    body: b"x",
};

/// What a server must not send to a live subscription of id 4 whose next event is 10, and the
/// seq that the error names.
#[test]
fn every_breach_of_order_ends_the_connection_by_name() {
    let cases = [
        (event(4, 9), FrameType::Event, 10, 9),
        (event(4, 11), FrameType::Event, 10, 11),
        (snapshot(4, 9), FrameType::Snapshot, 9, 9),
        (gap(4, GapReason::Delayed, 9, 0), FrameType::Gap, 10, 9),
        (gap(4, GapReason::Conflated, 11, 12), FrameType::Gap, 10, 11),
        (gap(4, GapReason::Expired, 10, 9), FrameType::Gap, 10, 9),
    ];
    for (frame, kind, expected, got) in cases {
        let mut pair = Pair::active();
        pair.live("m/a", 4, StartAt::Now, 8);
        pair.serve(&[event(4, 9)]);
        let notices = pair.serve(&[frame, event(4, 10)]);
        assert_eq!(notices.len(), 1, "nothing behind the breach: {notices:?}");
        let error = ProtocolError::Order {
            frame: kind,
            topic_id: 4,
            expected,
            got,
        };
        assert_eq!(violation(&pair), error, "{frame:?}");
        assert!(!pair.session.wants_transport());
        assert!(pair.session.reconnect_at().is_some());
    }
}

#[test]
fn a_delayed_gap_loses_nothing_and_the_others_move_on_to_behind_them() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    let notices = pair.serve(&[
        event(4, 1),
        gap(4, GapReason::Delayed, 2, 0),
        event(4, 2),
        gap(4, GapReason::Conflated, 3, 5),
        snapshot(4, 5),
        event(4, 6),
        gap(4, GapReason::Expired, 7, 7),
        event(4, 8),
        gap(4, GapReason::Reset, 9, 1),
        snapshot(4, 1),
        event(4, 2),
    ]);
    assert_eq!(notices.len(), 11, "{notices:?}");
    assert!(pair.session.is_active());
}

#[test]
fn a_subscription_that_cannot_go_on_where_asked_is_owed_a_gap() {
    let from = StartAt::Seq { seq: 5, epoch: 7 };
    // Expired: 5 to 8 are no longer kept. Then without the GAP.
    for (frames, fine) in [
        (vec![gap(4, GapReason::Expired, 5, 8), snapshot(4, 8)], true),
        (vec![gap(4, GapReason::Expired, 5, 6)], false),
        (vec![event(4, 9)], false),
        (vec![event(4, 5)], false),
    ] {
        let mut pair = Pair::active();
        pair.live("m/a", 4, from, 8);
        pair.serve(&frames);
        assert_eq!(pair.session.is_active(), fine, "{frames:?}");
        if fine {
            assert_eq!(pair.serve(&[event(4, 9)]), ["event m/a 9"]);
        }
    }
}

#[test]
fn another_epoch_is_owed_a_reset_even_when_the_seq_would_fit() {
    for (frames, fine) in [
        (vec![gap(4, GapReason::Reset, 9, 8), event(4, 9)], true),
        (vec![event(4, 9)], false),
    ] {
        let mut pair = Pair::active();
        pair.live("m/a", 4, StartAt::Seq { seq: 9, epoch: 6 }, 8);
        pair.serve(&frames);
        assert_eq!(pair.session.is_active(), fine, "{frames:?}");
    }
}

#[test]
fn a_topic_that_begins_anew_and_empty_resets_to_its_first_event() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Seq { seq: 9, epoch: 6 }, 0);
    let notices = pair.serve(&[gap(4, GapReason::Reset, 9, 0), event(4, 1)]);
    assert_eq!(notices, ["gap m/a Reset 9-0", "event m/a 1"]);
}

#[test]
fn an_event_after_unsubscribed_or_of_an_unknown_topic_is_a_breach() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    let request = pair.session.unsubscribe("m/a").unwrap();
    assert_eq!(
        pair.serve(&[event(4, 1)]),
        ["event m/a 1"],
        "still on its way"
    );
    pair.serve(&[unsubscribed(request, 4, 1)]);
    pair.serve(&[event(4, 2)]);
    let late = |topic_id| ProtocolError::NotSubscribed {
        frame: FrameType::Event,
        topic_id,
    };
    assert_eq!(violation(&pair), late(4));

    let mut pair = Pair::active();
    pair.serve(&[event(5, 1)]);
    assert_eq!(violation(&pair), late(5));
}

#[test]
fn the_last_seq_there_is_overflows_nothing() {
    let mut pair = Pair::active();
    let last = u64::MAX - 1;
    pair.live("m/a", 4, StartAt::Now, last);
    pair.serve(&[event(4, u64::MAX)]);
    assert!(matches!(violation(&pair), ProtocolError::Order { .. }));
}

/// What a right server does next with one topic.
#[derive(Clone, Debug)]
enum Act {
    Event,
    Skip(u64),
    Delay,
    Cut,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Event),
        1 => (1..5u64).prop_map(Act::Skip),
        1 => Just(Act::Delay),
        1 => Just(Act::Cut),
    ]
}

proptest! {
    #[test]
    fn from_a_right_server_each_seq_comes_once_or_is_told_of(
        acts in prop::collection::vec(act(), 0..60)
    ) {
        let mut pair = Pair::active();
        let options = SubscribeOptions { from: StartAt::Oldest, ..Default::default() };
        pair.session.subscribe("m/a", options).unwrap();
        pair.sends();
        pair.serve(&[subscribed(1, "m/a", 4, 1, 0)]);
        let mut next = 1;
        let mut seen = 1;
        for act in acts {
            let notices = match act {
                Act::Event => {
                    next += 1;
                    pair.serve(&[event(4, next - 1)])
                }
                Act::Skip(count) => {
                    next += count;
                    let told = gap(4, GapReason::Conflated, next - count, next - 1);
                    pair.serve(&[told, snapshot(4, next - 1)])
                }
                Act::Delay => pair.serve(&[gap(4, GapReason::Delayed, next, 0)]),
                Act::Cut => {
                    pair.cut();
                    pair.connect(true);
                    let asked = pair.sends();
                    let epoch = 7;
                    prop_assert_eq!(asked, [format!("SUBSCRIBE 1 m/a from {next} epoch {epoch}")]);
                    pair.serve(&[subscribed(1, "m/a", 4, next, next - 1)])
                }
            };
            for notice in notices {
                let words: Vec<_> = notice.split(' ').collect();
                match words[0] {
                    "event" => {
                        prop_assert_eq!(words[2], seen.to_string());
                        seen += 1;
                    }
                    "gap" if words[2] == "Conflated" => {
                        let (first, last) = words[3].split_once('-').unwrap();
                        prop_assert_eq!(first, seen.to_string());
                        seen = last.parse::<u64>().unwrap() + 1;
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(seen, next);
        }
        prop_assert!(pair.session.is_active());
    }

    #[test]
    fn any_bytes_are_answered(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        welcomed: bool,
    ) {
        let mut pair = Pair::new();
        pair.session.connected(pair.now);
        if welcomed {
            pair.serve(&[welcome(false)]);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() && pair.session.wants_transport() {
            let taken = pair.session.receive(rest, pair.now);
            rest = &rest[taken..];
            pair.notices();
        }
    }

    #[test]
    fn any_frames_in_any_order_are_answered(
        kinds in prop::collection::vec((0..9u8, 0..4u64, 0..4u64), 0..30)
    ) {
        let mut pair = Pair::active();
        pair.session.subscribe("m/a", SubscribeOptions::default()).unwrap();
        for (kind, a, b) in kinds {
            let id = a as u32;
            let frame = match kind {
                0 => subscribed(a, "m/a", b as u32, b, a),
                1 => unsubscribed(a, b as u32, b),
                2 => event(id, b),
                3 => snapshot(id, b),
                4 => gap(id, GapReason::Reset, a, b),
                5 => gap(id, GapReason::Conflated, a, b),
                6 => reply(a, id, b as u16),
                7 => pong(a),
                _ => goodbye(a as u16),
            };
            pair.serve(&[frame]);
            if !pair.session.wants_transport() {
                pair.connect(b == 0);
            }
            // Every second run gives up and comes back, at any point.
            let _ = match b {
                0 => pair.session.unsubscribe("m/a"),
                1 => pair.session.subscribe("m/a", SubscribeOptions::default()),
                _ => pair.session.command("m/a", 1, b""),
            };
        }
        pair.session.close();
        pair.cut();
        prop_assert!(!pair.session.wants_transport());
        prop_assert_eq!(pair.session.reconnect_at(), None);
    }
}
