//! Heap allocations on the road of a message, counted: none, once the server has warmed up.

use std::sync::Arc;

use tickring::core::{
    Action, Core, CoreConfig, JournalConfig, Limits, Now, Pacing, ParcelPool, Payload,
};
use tickring::machines::Registry;
use tickring_protocol::{
    Command, EventKind, Frame, Hello, Micros, PUBLISH, Policy, Publish, Subscribe, Trade,
    VERSION_MAJOR, VERSION_MINOR,
};

const SUBSCRIBERS: u32 = 200;
const TOPICS: u64 = 10;

/// The cores of a node, with sockets that take everything at once.
struct Node {
    cores: Vec<Core>,
    /// Sends of the last turn, which end in the next.
    flying: Vec<Vec<(u32, Payload)>>,
    mono_ns: u64,
}

impl Node {
    fn new(cores: usize) -> Self {
        let (registry, parcels) = (
            Arc::new(Registry::standard()),
            Arc::new(ParcelPool::default()),
        );
        let core = |core| {
            let config = CoreConfig {
                core,
                cores,
                epoch: 1,
                // Small, so that the run reaches the state where old events make room for new ones.
                limits: Limits {
                    history_topic_bytes: 64 << 10,
                    ..Limits::default()
                },
                registry: Arc::clone(&registry),
                parcels: Arc::clone(&parcels),
                journal: JournalConfig::default(),
                pacing: Pacing::default(),
                has_database: false,
                plant: None,
            };
            Core::new(
                config,
                Now {
                    wall_ns: 1,
                    mono_ns: 0,
                },
            )
        };
        Self {
            cores: (0..cores).map(core).collect(),
            flying: (0..cores).map(|_| Vec::new()).collect(),
            mono_ns: 0,
        }
    }

    /// One turn of every core; `input` is handed to the core `target`. Counts the bytes sent.
    fn turn(&mut self, target: usize, input: impl FnOnce(&mut Core)) -> usize {
        // No less than what twenty messages to 200 subscribers take, or all of it would be one rest.
        self.mono_ns += 100_000;
        let now = Now {
            wall_ns: self.mono_ns,
            mono_ns: self.mono_ns,
        };
        let mut input = Some(input);
        let mut bytes = 0;
        for index in 0..self.cores.len() {
            self.cores[index].begin_turn(now);
            for (slot, payload) in self.flying[index].drain(..) {
                let len = payload.byte_len();
                bytes += len;
                self.cores[index].on_sent(slot, payload, Ok(len));
            }
            if let Some(input) = input.take_if(|_| index == target) {
                input(&mut self.cores[index]);
            }
            for from in (0..self.cores.len()).filter(|from| *from != index) {
                if let Some(parcel) = self.cores[from].take_deliveries(index) {
                    self.cores[index].on_deliveries(from, parcel);
                }
                if let Some(parcel) = self.cores[from].take_requests(index) {
                    self.cores[index].on_requests(from, parcel);
                }
            }
            self.cores[index].end_turn();
            while let Some(action) = self.cores[index].poll_action() {
                if let Action::Send { slot, payload } = action {
                    self.flying[index].push((slot, payload));
                }
            }
        }
        bytes
    }
}

fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// What the subscribers listen to: plain messages, or trades by way of the candles of two periods.
#[derive(Clone, Copy)]
enum Content {
    Messages,
    Candles,
}

impl Content {
    fn subscribed(self) -> Vec<String> {
        let names = |n| match self {
            Self::Messages => vec![format!("stream/{n}")],
            Self::Candles => vec![format!("candle/1s/{n}"), format!("candle/1m/{n}")],
        };
        (0..TOPICS).flat_map(names).collect()
    }

    fn published(self, n: u64) -> String {
        match self {
            Self::Messages => format!("stream/{n}"),
            Self::Candles => format!("market/{n}"),
        }
    }
}

fn greeting(topics: &[String]) -> Vec<u8> {
    let mut bytes = encode(&Frame::Hello(Hello {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        session: 0,
        name: "",
        credentials: b"",
    }));
    for (topic, request_id) in topics.iter().zip(0..) {
        bytes.extend(encode(&Frame::Subscribe(Subscribe {
            request_id,
            from_seq: 0,
            epoch: 0,
            policy: Policy::Default,
            topic,
        })));
    }
    bytes
}

fn publishes(content: Content, quiet: bool) -> Vec<u8> {
    let mut trade = Vec::new();
    Trade {
        price: Micros(7),
        qty: Micros(1),
        ..Trade::default()
    }
    .encode(&mut trade);
    let mut bytes = Vec::new();
    for n in 0..20u64 {
        let mut payload = Vec::new();
        let (kind, body) = match content {
            Content::Messages => (EventKind::Message, &[7; 64][..]),
            Content::Candles => (EventKind::Trade, &trade[..]),
        };
        Publish {
            kind: kind as u16,
            event_ns: n / TOPICS * 1_000_000_000, // in turns of two seconds, so that half are late
            body,
        }
        .encode(&mut payload);
        bytes.extend(encode(&Frame::Command(Command {
            request_id: n,
            topic_id: 0,
            command: PUBLISH,
            topic: &content.published(n % TOPICS),
            payload: &payload,
            quiet,
        })));
    }
    bytes
}

/// Gives each command an id of its own.
fn number(commands: &mut [u8], next_id: &mut u64) {
    let mut rest = commands;
    while let Some(len) = rest.first_chunk().map(|len| u32::from_le_bytes(*len)) {
        let (frame, tail) = rest.split_at_mut(len as usize);
        frame[8..16].copy_from_slice(&next_id.to_le_bytes());
        *next_id += 1;
        rest = tail;
    }
}

#[test]
fn a_delivered_message_allocates_nothing() {
    for cores in [1, 2] {
        for (content, quiet) in [
            (Content::Messages, true),
            (Content::Messages, false),
            (Content::Candles, true),
        ] {
            let mut node = Node::new(cores);
            // The last connection publishes.
            let hello = greeting(&[]);
            node.turn(0, |core| {
                core.on_accepted(SUBSCRIBERS, 1);
                core.on_received(SUBSCRIBERS, &hello);
            });
            for slot in 0..SUBSCRIBERS {
                let (core, hello) = (slot as usize % cores, greeting(&content.subscribed()));
                node.turn(core, |core| {
                    core.on_accepted(slot, 1);
                    core.on_received(slot, &hello);
                });
            }
            for _ in 0..20 {
                node.turn(0, |_| ());
            }
            let mut burst = publishes(content, quiet);
            let mut next_id = 1;
            let mut one_turn = |node: &mut Node| {
                number(&mut burst, &mut next_id);
                node.turn(0, |core| core.on_received(SUBSCRIBERS, &burst))
            };
            for _ in 0..2_000 {
                one_turn(&mut node);
            }
            let delivered =
                |node: &Node| node.cores.iter().map(|c| c.stats().delivered).sum::<u64>();
            let before = delivered(&node);
            let mut bytes = 0;
            let heap = allocation_counter::measure(|| {
                for _ in 0..2_000 {
                    bytes += one_turn(&mut node);
                }
            });
            let deliveries = delivered(&node) - before;
            println!(
                "{cores} cores, quiet {quiet}: {} allocations for {deliveries} deliveries of {bytes} bytes",
                heap.count_total
            );
            assert!(deliveries >= 2_000 * 19 * u64::from(SUBSCRIBERS));
            assert_eq!(heap.count_total, 0);
        }
    }
}
