//! `tickring-micro CASE COUNT`: does one step of the road of an event so many times, for
//! `bench/instructions` to count its instructions. Prints nothing but the names of the cases when
//! it is called without arguments.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark: what fails is a mistake in it"
)]

mod rig;

use std::hint::black_box;

use tickring::journal::record::{Event as Recorded, Topic};
use tickring::journal::{Lane, LaneStart, Limits, Operation, OperationKind, Outcome};
use tickring::mailbox::channel;
use tickring_protocol::{Event, EventKind, Frame, decode};

use rig::{Rig, publish};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of an event's body.
const BODY: [u8; 64] = [b'.'; 64];
/// Events of a batch, in the cases that have batches.
const BATCH: u64 = 100;

/// A case: how often its step is done.
type Case = fn(u64);

/// Name, what one step is, and the case.
const CASES: [(&str, &str, Case); 9] = [
    ("encode", "an EVENT of 64 bytes is encoded", encode_event),
    ("decode", "a COMMAND of 64 bytes is decoded", decode_command),
    ("mailbox", "a letter goes through a mailbox", mailbox_hop),
    (
        "publish",
        "a publish reaches one outbox, 100 in a turn",
        publish_to_outbox,
    ),
    ("turn-0", "a turn with one publish and no subscriber", |n| {
        turns(n, 0)
    }),
    ("turn-1", "a turn with one publish and 1 subscriber", |n| {
        turns(n, 1)
    }),
    (
        "turn-1000",
        "a turn with one publish and 1,000 subscribers",
        |n| turns(n, 1000),
    ),
    (
        "record",
        "an event is encoded as a journal record",
        journal_record,
    ),
    (
        "append",
        "a record is appended to a lane, 100 in a batch",
        journal_append,
    ),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        for (name, step, _) in CASES {
            println!("{name}\t{step}");
        }
        return;
    };
    let (_, _, case) = CASES
        .iter()
        .find(|(known, ..)| *known == name)
        .expect("no such case");
    case(arguments.next().expect("how often?").parse().unwrap());
}

fn event(seq: u64) -> Frame<'static> {
    Frame::Event(Event {
        topic_id: 7,
        kind: EventKind::Message as u16,
        seq,
        event_ns: seq,
        node_ns: seq,
        body: &BODY,
    })
}

fn encode_event(count: u64) {
    let mut out = Vec::with_capacity(1 << 16);
    for seq in 0..count {
        if out.len() > 60_000 {
            out.clear();
        }
        black_box(event(seq)).encode(&mut out);
    }
    black_box(out);
}

fn decode_command(count: u64) {
    let mut wire = Vec::new();
    publish(7, "", &BODY, &mut wire);
    for _ in 0..count {
        black_box(decode(black_box(&wire), 1 << 16).unwrap());
    }
}

fn mailbox_hop(count: u64) {
    let (mut sender, mut receiver) = channel::<u64>(64);
    for letter in 0..count {
        sender.try_send(black_box(letter)).unwrap();
        black_box(receiver.try_recv());
    }
}

fn publish_to_outbox(count: u64) {
    let mut rig = Rig::new(1);
    let mut wire = Vec::new();
    (0..BATCH).for_each(|_| publish(rig.topic, "", &BODY, &mut wire));
    for _ in 0..count / BATCH {
        rig.turn(&wire);
    }
}

fn turns(count: u64, subscribers: u32) {
    let mut rig = Rig::new(subscribers);
    let mut wire = Vec::new();
    publish(rig.topic, "", &BODY, &mut wire);
    for _ in 0..count {
        rig.turn(&wire);
    }
}

fn record(seq: u64) -> Recorded<'static> {
    Recorded {
        topic: 1,
        kind: EventKind::Message as u16,
        seq,
        session: 9,
        request_id: seq,
        event_ns: seq,
        node_ns: seq,
        body: &BODY,
    }
}

fn journal_record(count: u64) {
    let mut out = Vec::with_capacity(1 << 16);
    for seq in 1..=count {
        if out.len() > 60_000 {
            out.clear();
        }
        record(black_box(seq)).encode(true, &mut out).unwrap();
    }
    black_box(out);
}

fn journal_append(count: u64) {
    let start = LaneStart {
        journal: 1,
        run: 1,
        ..LaneStart::default()
    };
    let mut lane = Lane::new(start, Limits::default(), 1);
    let mut batch = Vec::new();
    let topic = Topic {
        number: 1,
        epoch: 1,
        name: "stream/micro",
    };
    topic.encode(false, &mut batch).unwrap();
    for turn in 0..count / BATCH {
        for seq in 1..=BATCH {
            record(turn * BATCH + seq).encode(true, &mut batch).unwrap();
        }
        lane.append(0, turn + 1, &batch, turn).unwrap();
        while let Some(Operation { id, kind }) = lane.poll_operation(turn) {
            let outcome = match kind {
                OperationKind::Write { bytes, skip, .. } => {
                    let taken = bytes.len() - skip;
                    Outcome::Written(bytes, Ok(taken))
                }
                _ => Outcome::Done(Ok(())),
            };
            lane.on_done(id, outcome);
        }
        batch.clear();
    }
    assert_eq!(lane.released(0), count / BATCH);
}
