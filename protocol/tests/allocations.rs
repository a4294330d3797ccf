//! Neither direction of the codec touches the heap.

use tickring_protocol::{
    Command, Cursor, Decoded, ErrorFrame, Event, EventKind, Frame, Gap, GapReason, Goodbye, Hello,
    History, HistoryPage, MAX_FRAME_LEN, MarketState, Micros, PUBLISH, Ping, Policy, Pong, Publish,
    Quote, Reply, Series, Side, Snapshot, Subscribe, Subscribed, Trade, Unsubscribe, Unsubscribed,
    VERSION_MAJOR, VERSION_MINOR, Welcome, decode,
};

const FRAMES: [Frame<'static>; 17] = [
    Frame::Hello(Hello {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        session: 0,
        name: "desk",
        credentials: b"secret",
    }),
    Frame::Welcome(Welcome {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        heartbeat_ms: 1,
        session: 2,
        max_frame: 3,
        max_subscriptions: 4,
        node_ns: 5,
        resumed: true,
    }),
    Frame::Subscribe(Subscribe {
        request_id: 1,
        from_seq: 2,
        epoch: 3,
        policy: Policy::Resume,
        topic: "market/AAPL",
    }),
    Frame::Subscribed(Subscribed {
        request_id: 1,
        topic_id: 2,
        policy: Policy::Resume,
        next_seq: 3,
        last_seq: 4,
        epoch: 5,
        topic: "market/AAPL",
    }),
    Frame::Unsubscribe(Unsubscribe {
        request_id: 1,
        topic_id: 2,
    }),
    Frame::Unsubscribed(Unsubscribed {
        request_id: 1,
        topic_id: 2,
        last_seq: 3,
    }),
    Frame::Command(Command {
        request_id: 1,
        topic_id: 2,
        command: PUBLISH,
        topic: "",
        payload: &[7; 512],
        quiet: true,
    }),
    Frame::Reply(Reply {
        request_id: 1,
        topic_id: 2,
        code: 0,
        seq: 3,
        retry_after_ms: 0,
        payload: b"answer",
    }),
    Frame::Event(Event {
        topic_id: 1,
        kind: 2,
        seq: 3,
        event_ns: 4,
        node_ns: 5,
        body: &[7; 512],
    }),
    Frame::Snapshot(Snapshot {
        topic_id: 1,
        kind: 2,
        seq: 3,
        event_ns: 4,
        node_ns: 5,
        body: &[7; 512],
    }),
    Frame::Gap(Gap {
        topic_id: 1,
        reason: GapReason::Expired,
        first_seq: 2,
        last_seq: 3,
    }),
    Frame::Ping(Ping { token: 1 }),
    Frame::Pong(Pong {
        token: 1,
        node_ns: 2,
    }),
    Frame::Error(ErrorFrame {
        code: 1,
        frame_type: 2,
        fatal: true,
        retry_after_ms: 3,
        request_id: 4,
        text: "why",
    }),
    Frame::Goodbye(Goodbye {
        code: 1,
        retry_after_ms: 2,
        text: "why",
    }),
    Frame::History(History {
        request_id: 1,
        series: Series::Minute,
        newest_first: true,
        limit: 2,
        from_ns: 3,
        to_ns: 4,
        cursor: Cursor::START,
        topic: "market/AAPL",
    }),
    Frame::HistoryPage(HistoryPage {
        request_id: 1,
        series: Series::Minute,
        more: true,
        next: Cursor {
            event_ns: 2,
            seq: 3,
        },
        rows: &[7; 2 * 56],
    }),
];

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

#[test]
fn encoding_into_a_reserved_vector_allocates_nothing() {
    let mut wire = Vec::with_capacity(16 * 1024);
    let count = allocations(|| {
        for _ in 0..3 {
            wire.clear();
            for frame in &FRAMES {
                frame.encode(&mut wire);
            }
        }
    });
    assert!(wire.len() > 1500);
    assert_eq!(count, 0);
}

#[test]
fn decoding_allocates_nothing_not_even_to_refuse() {
    let mut wire = Vec::new();
    for frame in &FRAMES {
        frame.encode(&mut wire);
    }
    let mut found = 0;
    let mut refused = 0;
    let count = allocations(|| {
        let mut rest = &wire[..];
        while let Ok(Decoded::Frame { frame, len }) = decode(rest, MAX_FRAME_LEN) {
            assert!(frame == FRAMES[found]);
            found += 1;
            rest = &rest[len..];
        }
        for at in 0..wire.len() {
            refused += u32::from(decode(&wire[at..], MAX_FRAME_LEN).is_err());
        }
    });
    assert_eq!(found, FRAMES.len());
    assert!(refused > 100, "only {refused} offsets were refused");
    assert_eq!(count, 0);
}

#[test]
fn bodies_allocate_nothing_in_either_direction() {
    let (mut body, mut payload) = (Vec::with_capacity(1024), Vec::with_capacity(1024));
    let count = allocations(|| {
        let (price, price_decimals) = Micros::parse_scaled("61800.30").unwrap();
        let trade = Trade {
            price,
            qty: Micros(6000),
            side: Side::Buy,
            price_decimals,
            qty_decimals: 3,
        };
        trade.encode(&mut body);
        assert!(Trade::decode(&body) == Ok(trade));
        let kind = EventKind::Trade as u16;
        let publish = Publish {
            kind,
            event_ns: 1,
            body: &body,
        };
        publish.encode(&mut payload);
        assert!(Publish::decode(&payload) == Ok(publish));

        body.clear();
        let quote = Quote::default();
        quote.encode(&mut body);
        assert!(Quote::decode(&body) == Ok(quote));

        body.clear();
        let state = MarketState {
            trade: Some((1, trade)),
            ..MarketState::default()
        };
        state.encode(&mut body);
        assert!(MarketState::decode(&body) == Ok(state));
    });
    assert_eq!(count, 0);
}

/// The figure above means something: the counter sees what a vector does.
#[test]
fn the_counter_sees_an_allocation() {
    let count = allocations(|| {
        let mut wire = Vec::new();
        FRAMES[0].encode(&mut wire);
    });
    assert_eq!(count, 1);
}
