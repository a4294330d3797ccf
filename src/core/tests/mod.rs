//! One core on its own, with a journal whose disk is the test's.

mod fanout;
mod farewell;
mod full;

use std::sync::Arc;

use tickring_protocol::{
    Command, Decoded, ErrorFrame, Frame, Hello, Micros, PUBLISH, Policy, Publish, Subscribe, Trade,
    VERSION_MAJOR, VERSION_MINOR, decode,
};

use super::{Action, Core, CoreConfig, JournalConfig, Limits, Now, Pacing, ParcelPool, Payload};
use crate::journal::ReplyLimits;
use crate::machines::{Durability, Kind, Market, Registry};

/// What the connection saw, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Welcome,
    Subscribed,
    Snapshot,
    Event(u64),
    /// Request id, code and seq.
    Reply(u64, u16, u64),
    /// Request id and code.
    Error(u64, u16),
    Pong,
    Goodbye(u16),
}

/// A core with one lane and one connection, which has said HELLO.
struct Rig {
    core: Core,
    mono_ns: u64,
    /// The newest batch that the core gave to the lane.
    ticket: u64,
    /// Whether the client does not read, and the send that waits for it.
    stalled: bool,
    under_way: Option<Payload>,
}

impl Rig {
    fn new(limits: Limits) -> Self {
        // Durable, with a state for newcomers, and with commands that it refuses.
        let ledger = Kind::new("ledger", Policy::Resume, |_| Box::<Market>::default());
        let mut registry = Registry::standard();
        registry.register(ledger.with_durability(Durability::Durable));
        let config = CoreConfig {
            core: 0,
            cores: 1,
            epoch: 1,
            limits,
            registry: Arc::new(registry),
            parcels: Arc::new(ParcelPool::default()),
            journal: JournalConfig {
                lanes: 1,
                snapshot_bytes: 1 << 20,
                snapshot_most_bytes: 1 << 20,
                window_bytes: 4_000,
                replies: ReplyLimits::default(),
            },
            pacing: Pacing::default(),
            has_database: false,
            plant: None,
        };
        let mut rig = Self {
            core: Core::new(config, now(0)),
            mono_ns: 0,
            ticket: 0,
            stalled: false,
            under_way: None,
        };
        rig.core.set_journal_full(false);
        rig.core.begin_turn(now(0));
        rig.core.on_accepted(0, 1);
        rig.core.end_turn();
        assert_eq!(rig.turn(&hello()), [Told::Welcome]);
        rig
    }

    /// A turn in which `input` comes; gives what was sent.
    fn turn(&mut self, input: &[u8]) -> Vec<Told> {
        self.turn_with(|core| {
            if !input.is_empty() {
                core.on_received(0, input);
            }
        })
    }

    /// A turn in which all that was given to the lane is on disk.
    fn commit(&mut self) -> Vec<Told> {
        let ticket = self.ticket;
        self.turn_with(|core| core.on_committed(0, ticket, ticket))
    }

    fn turn_with(&mut self, happens: impl FnOnce(&mut Core)) -> Vec<Told> {
        self.mono_ns += 1_000;
        self.core.begin_turn(now(self.mono_ns));
        happens(&mut self.core);
        self.core.end_turn();
        let mut sent = Vec::new();
        while let Some(action) = self.core.poll_action() {
            if let Action::Send { slot: 0, payload } = action {
                if self.stalled {
                    self.under_way = Some(payload);
                    continue;
                }
                let slices = payload.slices();
                slices.for_each(|slice| sent.extend_from_slice(slice));
                let len = payload.byte_len();
                self.core.on_sent(0, payload, Ok(len));
            }
        }
        self.ticket += u64::from(self.core.take_journal(0, Vec::new()).is_some());
        told(&sent)
    }
}

fn now(mono_ns: u64) -> Now {
    Now {
        wall_ns: mono_ns + 1,
        mono_ns,
    }
}

fn hello() -> Vec<u8> {
    encode(&Frame::Hello(Hello {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        session: 5,
        name: "",
        credentials: b"",
    }))
}

fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// A trade of the ledger; a negative quantity is refused with `out_of_range`.
fn trade(request_id: u64, qty: i64, quiet: bool) -> Vec<u8> {
    let (mut body, mut payload) = (Vec::new(), Vec::new());
    Trade {
        price: Micros(1),
        qty: Micros(qty),
        ..Trade::default()
    }
    .encode(&mut body);
    Publish {
        kind: 2,
        event_ns: 1,
        body: &body,
    }
    .encode(&mut payload);
    encode(&Frame::Command(Command {
        request_id,
        topic_id: 0,
        command: PUBLISH,
        topic: "ledger/a",
        payload: &payload,
        quiet,
    }))
}

fn subscribe(request_id: u64) -> Vec<u8> {
    encode(&Frame::Subscribe(Subscribe {
        request_id,
        from_seq: 0,
        epoch: 0,
        policy: Policy::Default,
        topic: "ledger/a",
    }))
}

fn told(mut bytes: &[u8]) -> Vec<Told> {
    let mut all = Vec::new();
    while let Ok(Decoded::Frame { frame, len }) = decode(bytes, usize::MAX) {
        all.push(match frame {
            Frame::Welcome(_) => Told::Welcome,
            Frame::Subscribed(_) => Told::Subscribed,
            Frame::Snapshot(_) => Told::Snapshot,
            Frame::Event(event) => Told::Event(event.seq),
            Frame::Reply(reply) => Told::Reply(reply.request_id, reply.code, reply.seq),
            Frame::Error(ErrorFrame {
                request_id, code, ..
            }) => Told::Error(request_id, code),
            Frame::Goodbye(goodbye) => Told::Goodbye(goodbye.code),
            Frame::Pong(_) => Told::Pong,
            other => panic!("{other:?}"),
        });
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "frames are sent whole");
    all
}
