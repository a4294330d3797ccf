//! What a client is told while another core is behind: first nothing, then `overloaded`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use tickring::core::{Action, Core, CoreConfig, JournalConfig, Limits, Now, Pacing, ParcelPool};
use tickring::machines::Registry;
use tickring_protocol::{
    Command, Decoded, ErrorCode, EventKind, Frame, Hello, PUBLISH, Ping, Publish, VERSION_MAJOR,
    VERSION_MINOR, decode,
};

const SECOND: u64 = 1_000_000_000;

/// One turn of the core at `mono_ns`, with `input` from the only connection; gives what was sent.
fn turn(core: &mut Core, mono_ns: u64, input: &[u8]) -> Vec<u8> {
    core.begin_turn(Now {
        wall_ns: mono_ns,
        mono_ns,
    });
    core.on_received(0, input);
    core.end_turn();
    let mut sent = Vec::new();
    while let Some(action) = core.poll_action() {
        if let Action::Send { payload, .. } = action {
            payload
                .slices()
                .for_each(|slice| sent.extend_from_slice(slice));
            core.begin_turn(Now {
                wall_ns: mono_ns,
                mono_ns,
            });
            let len = payload.byte_len();
            core.on_sent(0, payload, Ok(len));
            core.end_turn();
        }
    }
    sent
}

fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn publish(topic: &str, request_id: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    Publish {
        kind: EventKind::Message as u16,
        event_ns: 1,
        body: b"x",
    }
    .encode(&mut payload);
    let payload = &payload;
    encode(&Frame::Command(Command {
        request_id,
        topic_id: 0,
        command: PUBLISH,
        topic,
        payload,
        quiet: true,
    }))
}

/// The request ids of REPLY(overloaded), and how many PONGs there were.
fn refusals(mut bytes: &[u8]) -> (Vec<u64>, usize) {
    let (mut refused, mut pongs) = (Vec::new(), 0);
    while let Decoded::Frame { frame, len } = decode(bytes, 1 << 20).unwrap() {
        match frame {
            Frame::Reply(reply) => {
                assert_eq!(reply.code, ErrorCode::Overloaded as u16);
                assert!(reply.retry_after_ms > 0);
                refused.push(reply.request_id);
            }
            Frame::Pong(_) => pongs += 1,
            other => panic!("{other:?}"),
        }
        bytes = &bytes[len..];
    }
    (refused, pongs)
}

#[test]
fn a_command_waits_for_room_and_is_refused_when_it_has_waited_too_long() {
    let config = CoreConfig {
        core: 0,
        cores: 2,
        epoch: 1,
        limits: Limits {
            inbox_bytes: 1 << 20,
            ..Limits::default()
        },
        registry: Arc::new(Registry::standard()),
        parcels: Arc::new(ParcelPool::default()),
        journal: JournalConfig::default(),
        pacing: Pacing::default(),
        has_database: false,
        plant: None,
    };
    let mut core = Core::new(
        config,
        Now {
            wall_ns: 1,
            mono_ns: 0,
        },
    );
    core.begin_turn(Now {
        wall_ns: 1,
        mono_ns: 1,
    });
    core.on_accepted(0, 1);
    core.end_turn();
    let hello = Frame::Hello(Hello {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        session: 0,
        name: "",
        credentials: b"",
    });
    assert!(!turn(&mut core, 2, &encode(&hello)).is_empty());

    // A topic of the other core.
    let topic = (0..100).map(|n| format!("stream/{n}")).find(|topic| {
        turn(&mut core, 3, &publish(topic, 1));
        core.take_requests(1).is_some()
    });
    let topic = topic.unwrap();

    // More than a parcel holds, while nobody takes it.
    let flood: Vec<u8> = (0..5_000).flat_map(|id| publish(&topic, id)).collect();
    assert!(turn(&mut core, SECOND, &flood).is_empty(), "it waits");
    assert!(core.has_parked_work());
    assert!(
        turn(&mut core, SECOND + SECOND / 2, &[]).is_empty(),
        "it is patient"
    );

    let ping = encode(&Frame::Ping(Ping { token: 1 }));
    let told = turn(&mut core, 2 * SECOND + 1, &ping);
    let (refused, pongs) = refusals(&told);
    assert_eq!(pongs, 1, "what needs no room goes on");
    assert_eq!(refused.last(), Some(&4_999));
    assert!(
        refused.windows(2).all(|w| w[1] == w[0] + 1),
        "all behind the first refused"
    );
    let accepted = 5_000 - refused.len();
    assert!(accepted > 0);

    // Once the other core takes its mail, commands go on, and none accepted was lost.
    assert!(core.take_requests(1).is_some());
    assert!(turn(&mut core, 2 * SECOND + 2, &publish(&topic, 7_000)).is_empty());
    assert!(core.take_requests(1).is_some());
}
