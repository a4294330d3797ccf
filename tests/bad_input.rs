//! The table of bad input in protocol/SPEC.md, row by row over a real socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::{Wire, encode, hello, message, node, subscribe};
use tickring::node::Node;
use tickring_protocol::{
    Command, ErrorCode, EventKind, Frame, Goodbye, Hello, Micros, PUBLISH, Ping, Pong, Publish,
    Quote, Reply, Trade, Unsubscribe, VERSION_MAJOR, VERSION_MINOR,
};

/// The connection is told `code` and closed; others are not touched.
fn fatal(node: &Node, greet: bool, bytes: &[u8], code: ErrorCode) {
    let mut bystander = Wire::open(node);
    let mut wire = if greet {
        Wire::open(node)
    } else {
        Wire::connect(node)
    };
    wire.bytes(bytes);
    let (told, fatal, _) = wire.expect_error();
    assert_eq!((told, fatal), (code as u16, true), "{code}");
    assert!(wire.is_closed());
    ping(&mut bystander);
}

/// The frame is refused with `code` and the connection goes on.
fn refused(wire: &mut Wire, frame: &Frame<'_>, code: ErrorCode, request_id: u64) {
    wire.send(frame);
    assert_eq!(
        wire.expect_error(),
        (code as u16, false, request_id),
        "{code}"
    );
    ping(wire);
}

/// The command is answered with `code` and the connection goes on.
fn replied(wire: &mut Wire, mut command: Command<'_>, code: ErrorCode) {
    // Unique within the session, or the server repeats the reply that it gave before.
    static NEXT: AtomicU64 = AtomicU64::new(1_000);
    command.request_id = NEXT.fetch_add(1, Ordering::Relaxed);
    wire.send(&Frame::Command(command));
    wire.next(|frame| match frame {
        Frame::Reply(Reply {
            code: told,
            request_id,
            payload,
            ..
        }) => {
            assert_eq!((*told, *request_id), (code as u16, command.request_id));
            assert!(!payload.is_empty(), "a refusal has a text");
        }
        other => panic!("{other:?}"),
    });
    ping(wire);
}

fn ping(wire: &mut Wire) {
    wire.send(&Frame::Ping(Ping { token: 99 }));
    wire.expect(|frame| matches!(frame, Frame::Pong(Pong { token: 99, .. })));
}

fn command<'a>(topic: &'a str, payload: &'a [u8]) -> Command<'a> {
    Command {
        request_id: 5,
        topic_id: 0,
        command: PUBLISH,
        topic,
        payload,
        quiet: false,
    }
}

/// A valid frame with one field of its bytes changed.
fn patched(frame: &Frame<'_>, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut wire = encode(frame);
    wire[at..at + bytes.len()].copy_from_slice(bytes);
    wire
}

#[test]
fn broken_framing_closes_the_connection_with_the_reason() {
    let node = node(|_| ());
    fatal(&node, false, &[0; 8], ErrorCode::BadLength);
    fatal(&node, true, &[7, 0, 0, 0, 5, 0, 0, 0], ErrorCode::BadLength);
    fatal(
        &node,
        true,
        &[0xff, 0xff, 0xff, 0x7f, 5, 0, 0, 0],
        ErrorCode::FrameTooLarge,
    );
    fatal(
        &node,
        true,
        &(512u32 * 1024 + 1).to_le_bytes().repeat(2),
        ErrorCode::FrameTooLarge,
    );
    fatal(
        &node,
        true,
        &[8, 0, 0, 0, 0x6f, 0, 0, 0],
        ErrorCode::UnknownType,
    );
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_truncated() {
    let node = node(|_| ());
    let mut wire = Wire::open(&node);
    wire.bytes(&encode(&subscribe("stream/a", 0))[..20]);
    wire.shut_write();
    let (code, fatal, _) = wire.expect_error();
    assert_eq!((code, fatal), (ErrorCode::Truncated as u16, true));
    assert!(wire.is_closed());
}

#[test]
fn a_type_that_only_the_server_sends_is_unknown_from_a_client() {
    let node = node(|_| ());
    let unsubscribed = Frame::Unsubscribed(tickring_protocol::Unsubscribed {
        request_id: 1,
        topic_id: 1,
        last_seq: 1,
    });
    fatal(&node, true, &encode(&unsubscribed), ErrorCode::UnknownType);
}

#[test]
fn an_unknown_optional_type_is_passed_over() {
    let node = node(|_| ());
    let mut wire = Wire::open(&node);
    wire.bytes(&[12, 0, 0, 0, 0x80, 0, 0, 0, 1, 2, 3, 4]);
    ping(&mut wire);
}

#[test]
fn strangers_and_other_versions_are_told_so() {
    let node = node(|_| ());
    fatal(
        &node,
        false,
        &patched(&hello("x"), 8, b"HTTP"),
        ErrorCode::BadMagic,
    );
    fatal(
        &node,
        false,
        &patched(&hello("x"), 12, &[9, 0]),
        ErrorCode::BadVersion,
    );
    // A browser that was pointed at this port.
    fatal(
        &node,
        false,
        b"GET / HTTP/1.1\r\n\r\n",
        ErrorCode::FrameTooLarge,
    );
}

#[test]
fn a_newer_minor_version_is_welcome() {
    let node = node(|_| ());
    let mut wire = Wire::connect(&node);
    wire.bytes(&patched(&hello("x"), 14, &[200, 0]));
    wire.expect(|frame| {
        matches!(frame, Frame::Welcome(w) if (w.major, w.minor) == (VERSION_MAJOR, VERSION_MINOR))
    });
}

#[test]
fn texts_must_be_utf8_and_of_bounded_length() {
    let node = node(|_| ());
    let name_at = encode(&hello("")).len();
    fatal(
        &node,
        false,
        &patched(&hello("abc"), name_at, &[0xff]),
        ErrorCode::BadUtf8,
    );
    fatal(
        &node,
        false,
        &encode(&hello(&"x".repeat(65))),
        ErrorCode::NameTooLong,
    );
    let credentials = [0; 4_097];
    let long = Frame::Hello(Hello {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        session: 0,
        name: "x",
        credentials: &credentials,
    });
    fatal(&node, false, &encode(&long), ErrorCode::NameTooLong);
    let goodbye = Frame::Goodbye(Goodbye {
        code: 0,
        retry_after_ms: 0,
        text: "abc",
    });
    let text_at = encode(&goodbye).len() - 3;
    fatal(
        &node,
        true,
        &patched(&goodbye, text_at, &[0xff]),
        ErrorCode::BadUtf8,
    );
    let topic_at = encode(&subscribe("", 0)).len();
    fatal(
        &node,
        true,
        &patched(&subscribe("stream/a", 0), topic_at, &[0xff]),
        ErrorCode::BadUtf8,
    );

    let mut wire = Wire::open(&node);
    let long = format!("stream/{}", "x".repeat(249));
    refused(&mut wire, &subscribe(&long, 0), ErrorCode::NameTooLong, 42);
    replied(
        &mut wire,
        command(&long, &message(b"x")),
        ErrorCode::NameTooLong,
    );
}

#[test]
fn the_first_frame_must_be_hello_and_no_other() {
    let node = node(|_| ());
    let publish = Frame::Command(command("stream/a", b""));
    fatal(&node, false, &encode(&publish), ErrorCode::NotNegotiated);
    fatal(
        &node,
        false,
        &encode(&subscribe("stream/a", 0)),
        ErrorCode::NotNegotiated,
    );
    fatal(&node, true, &encode(&hello("again")), ErrorCode::Unexpected);
}

#[test]
fn bodies_must_have_the_length_of_their_layout() {
    let node = node(|_| ());
    let frames = [
        Frame::Ping(Ping { token: 1 }),
        Frame::Unsubscribe(Unsubscribe {
            request_id: 1,
            topic_id: 1,
        }),
        subscribe("stream/a", 0),
    ];
    for frame in frames {
        for change in [-1i32, 1] {
            let mut bytes = encode(&frame);
            bytes.resize((bytes.len() as i32 + change) as usize, 0);
            let len = (bytes.len() as u32).to_le_bytes();
            bytes[..4].copy_from_slice(&len);
            fatal(&node, true, &bytes, ErrorCode::BadBody);
        }
    }
}

#[test]
fn fields_must_have_a_meaning() {
    let node = node(|_| ());
    fatal(
        &node,
        true,
        &patched(&subscribe("stream/a", 0), 32, &[9]),
        ErrorCode::BadField,
    );
    let nameless = Frame::Command(command("", b""));
    fatal(&node, true, &encode(&nameless), ErrorCode::BadField);
    let both = Frame::Command(Command {
        topic_id: 1,
        ..command("stream/a", b"")
    });
    fatal(&node, true, &encode(&both), ErrorCode::BadField);
}

#[test]
fn topics_must_have_a_good_name_and_a_known_kind() {
    let node = node(|_| ());
    let mut wire = Wire::open(&node);
    for bad in ["", "stream", "/a", "stream/", "Stream/a", "stream/a b"] {
        refused(&mut wire, &subscribe(bad, 0), ErrorCode::BadName, 42);
    }
    refused(
        &mut wire,
        &subscribe("nothing/a", 0),
        ErrorCode::UnknownKind,
        42,
    );
    replied(&mut wire, command("nothing/a", b""), ErrorCode::UnknownKind);
    replied(&mut wire, command("stream", b""), ErrorCode::BadName);
}

#[test]
fn unknown_ids_and_double_subscriptions_are_refused() {
    for cores in [1, 2] {
        let node = node(|config| config.cores = cores);
        let mut wire = Wire::open(&node);
        for topic_id in [1, 2, 3, u32::MAX] {
            let frame = Frame::Unsubscribe(Unsubscribe {
                request_id: 8,
                topic_id,
            });
            refused(&mut wire, &frame, ErrorCode::NotSubscribed, 8);
            let by_id = Command {
                topic_id,
                ..command("", b"")
            };
            replied(&mut wire, by_id, ErrorCode::UnknownTopic);
        }
        for topic in ["stream/a", "stream/b", "stream/c"] {
            let id = wire.subscribe(topic, 0);
            refused(
                &mut wire,
                &subscribe(topic, 0),
                ErrorCode::AlreadySubscribed,
                42,
            );
            let gone = Frame::Unsubscribe(Unsubscribe {
                request_id: 8,
                topic_id: id,
            });
            wire.send(&gone);
            wire.expect(|frame| matches!(frame, Frame::Unsubscribed(u) if u.request_id == 8));
            refused(&mut wire, &gone, ErrorCode::NotSubscribed, 8);
        }
    }
}

#[test]
fn limits_are_told_and_cost_nobody_the_connection() {
    let node = node(|config| {
        config.limits.max_subscriptions = 2;
        config.limits.max_topics = 3;
    });
    let mut wire = Wire::open(&node);
    wire.subscribe("stream/a", 0);
    wire.subscribe("stream/b", 0);
    refused(
        &mut wire,
        &subscribe("stream/c", 0),
        ErrorCode::SubscriptionLimit,
        42,
    );
    let mut other = Wire::open(&node);
    other.subscribe("stream/c", 0);
    refused(
        &mut other,
        &subscribe("stream/d", 0),
        ErrorCode::TopicLimit,
        42,
    );
    replied(&mut other, command("stream/d", b""), ErrorCode::TopicLimit);
}

#[test]
fn one_connection_too_many_is_told_to_try_later() {
    let node = node(|config| {
        config.cores = 2;
        config.max_connections = 1;
    });
    let mut first = Wire::open(&node);
    let mut second = Wire::connect(&node);
    second.next(|frame| match frame {
        Frame::Error(e) => {
            assert_eq!(e.code, ErrorCode::ConnectionLimit as u16);
            assert!(e.fatal && e.retry_after_ms > 0);
        }
        other => panic!("{other:?}"),
    });
    assert!(second.is_closed());
    ping(&mut first);
}

#[test]
fn commands_must_fit_their_machine() {
    let node = node(|_| ());
    let mut wire = Wire::open(&node);
    replied(
        &mut wire,
        command("stream/a", b"short"),
        ErrorCode::BadCommand,
    );
    let unknown = Command {
        command: 77,
        ..command("stream/a", b"")
    };
    replied(&mut wire, unknown, ErrorCode::UnknownCommand);
    replied(
        &mut wire,
        command("market/X", &message(b"x")),
        ErrorCode::BadCommand,
    );
    replied(
        &mut wire,
        command("node/core-0", &message(b"x")),
        ErrorCode::UnknownCommand,
    );

    let publish = |kind: EventKind, body: &[u8]| {
        let mut payload = Vec::new();
        Publish {
            kind: kind as u16,
            event_ns: 1,
            body,
        }
        .encode(&mut payload);
        payload
    };
    let mut quote = Vec::new();
    Quote::default().encode(&mut quote);
    let longer = publish(EventKind::Quote, &[&quote[..], &[0]].concat());
    replied(
        &mut wire,
        command("market/X", &longer),
        ErrorCode::BadCommand,
    );
    quote[32] = 7; // price_decimals
    replied(
        &mut wire,
        command("market/X", &publish(EventKind::Quote, &quote)),
        ErrorCode::BadField,
    );

    let trade = |change: fn(&mut [u8])| {
        let mut body = Vec::new();
        Trade {
            price: Micros(1),
            qty: Micros(1),
            ..Trade::default()
        }
        .encode(&mut body);
        change(&mut body);
        publish(EventKind::Trade, &body)
    };
    replied(
        &mut wire,
        command("market/X", &trade(|body| body[16] = 3)),
        ErrorCode::BadField,
    ); // side
    let negative = trade(|body| body[8..16].copy_from_slice(&(-1i64).to_le_bytes()));
    replied(
        &mut wire,
        command("market/X", &negative),
        ErrorCode::OutOfRange,
    );
    let all = trade(|body| body[8..16].copy_from_slice(&i64::MAX.to_le_bytes()));
    wire.send(&Frame::Command(command("market/X", &all)));
    wire.expect(|frame| matches!(frame, Frame::Reply(Reply { code: 0, .. })));
    replied(
        &mut wire,
        command("market/X", &trade(|_| ())),
        ErrorCode::OutOfRange,
    ); // volume

    // A quiet command is answered when it is refused.
    let quiet = Command {
        quiet: true,
        ..command("stream/a", b"short")
    };
    replied(&mut wire, quiet, ErrorCode::BadCommand);
}

#[test]
fn silence_is_ended_by_the_server() {
    let node = node(|config| {
        config.limits.hello_timeout = Duration::from_millis(150);
        config.limits.idle_timeout = Duration::from_millis(300);
    });
    let mut silent = Wire::connect(&node);
    let mut idle = Wire::open(&node);
    // One byte now and then must not hold the place of a HELLO for ever.
    let mut slow = Wire::connect(&node);
    slow.bytes(&encode(&hello("x"))[..10]);
    assert_eq!(silent.expect_error().0, ErrorCode::HelloTimeout as u16);
    assert_eq!(slow.expect_error().0, ErrorCode::HelloTimeout as u16);
    idle.expect(|frame| {
        matches!(frame, Frame::Goodbye(Goodbye { code, .. }) if *code == ErrorCode::IdleTimeout as u16)
    });
    assert!(silent.is_closed() && slow.is_closed() && idle.is_closed());
}

#[test]
fn goodbye_is_answered_behind_what_was_promised() {
    let node = node(|_| ());
    let mut wire = Wire::open(&node);
    let mut burst = encode(&Frame::Command(command("stream/a", &message(b"x"))));
    burst.extend(encode(&Frame::Goodbye(Goodbye {
        code: 0,
        retry_after_ms: 0,
        text: "",
    })));
    wire.bytes(&burst);
    wire.expect(|frame| {
        matches!(
            frame,
            Frame::Reply(Reply {
                seq: 1,
                code: 0,
                ..
            })
        )
    });
    wire.expect(|frame| matches!(frame, Frame::Goodbye(Goodbye { code: 0, .. })));
    assert!(wire.is_closed());
}

#[test]
fn a_topic_asked_for_twice_in_one_write_is_refused_once() {
    for cores in [1, 2] {
        let node = node(|config| config.cores = cores);
        let mut wire = Wire::open(&node);
        for topic in ["stream/a", "stream/b", "stream/c"] {
            wire.bytes(&encode(&subscribe(topic, 0)).repeat(2));
            wire.expect(|frame| matches!(frame, Frame::Subscribed(_)));
            let refused = (ErrorCode::AlreadySubscribed as u16, false, 42);
            assert_eq!(wire.expect_error(), refused);
        }
    }
}

#[test]
fn nothing_behind_goodbye_is_acted_on() {
    let node = node(|_| ());
    let mut wire = Wire::open(&node);
    let mut burst = encode(&Frame::Goodbye(Goodbye {
        code: 0,
        retry_after_ms: 0,
        text: "",
    }));
    burst.extend(encode(&Frame::Command(command(
        "stream/late",
        &message(b"x"),
    ))));
    wire.bytes(&burst);
    wire.expect(|frame| matches!(frame, Frame::Goodbye(Goodbye { code: 0, .. })));
    assert!(wire.is_closed());
    let mut other = Wire::open(&node);
    other.send(&subscribe("stream/late", 1));
    other.expect(|frame| matches!(frame, Frame::Subscribed(s) if s.last_seq == 0));
}

#[test]
fn random_bytes_never_hurt_anybody_else() {
    let node = node(|config| config.cores = 2);
    let mut bystander = Wire::open(&node);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let valid = [
        encode(&hello("x")),
        encode(&subscribe("stream/a", 0)),
        encode(&Frame::Command(command("stream/a", &message(b"hello")))),
        encode(&Frame::Ping(Ping { token: 1 })),
        encode(&Frame::Unsubscribe(Unsubscribe {
            request_id: 1,
            topic_id: 1,
        })),
    ];
    for round in 0..600 {
        let mut wire = if round % 3 == 0 {
            Wire::connect(&node)
        } else {
            Wire::open(&node)
        };
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..random() % 6 {
            bytes.extend(&valid[(random() % valid.len() as u64) as usize]);
        }
        for _ in 0..random() % 8 {
            if !bytes.is_empty() {
                let at = (random() % bytes.len() as u64) as usize;
                bytes[at] = random() as u8;
            }
        }
        bytes.extend((0..random() % 40).map(|_| random() as u8));
        wire.bytes(&bytes);
        if round % 50 == 0 {
            ping(&mut bystander);
        }
    }
    ping(&mut bystander);
    let greeting = Hello {
        major: 1,
        minor: 0,
        session: 0,
        name: "",
        credentials: b"",
    };
    let mut late = Wire::connect(&node);
    late.send(&Frame::Hello(greeting));
    late.expect(|frame| matches!(frame, Frame::Welcome(_)));
    node.shutdown();
    node.wait().unwrap();
}
