//! A core without sockets: one publisher, some subscribers, and sends that are over at once.

use std::sync::Arc;

use tickring::core::{
    Action, Core, CoreConfig, JournalConfig, Limits, Now, Pacing, ParcelPool, Payload,
};
use tickring::machines::Registry;
use tickring_protocol::{
    Command, Decoded, EventKind, Frame, Hello, PUBLISH, Policy, Publish, Subscribe, VERSION_MAJOR,
    VERSION_MINOR, decode,
};

/// The topic that all is about.
const TOPIC: &str = "stream/micro";
/// The publisher's slot; the subscribers follow.
const PUBLISHER: u32 = 0;

/// A core with its connections.
pub(crate) struct Rig {
    core: Core,
    mono_ns: u64,
    /// The id of the topic.
    pub(crate) topic: u32,
    sent: Vec<(u32, Payload)>,
}

/// Appends a quiet COMMAND that publishes `body` on a topic, by id or by name.
pub(crate) fn publish(topic_id: u32, topic: &str, body: &[u8], out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    let kind = EventKind::Message as u16;
    let event = Publish {
        kind,
        event_ns: 0,
        body,
    };
    event.encode(&mut payload);
    Frame::Command(Command {
        request_id: 1,
        topic_id,
        command: PUBLISH,
        topic,
        payload: &payload,
        quiet: topic_id != 0,
    })
    .encode(out);
}

impl Rig {
    /// A core with a publisher and `subscribers` subscribers.
    pub(crate) fn new(subscribers: u32) -> Self {
        let config = CoreConfig {
            core: 0,
            cores: 1,
            epoch: 1,
            limits: Limits::default(),
            registry: Arc::new(Registry::standard()),
            parcels: Arc::new(ParcelPool::default()),
            journal: JournalConfig::default(),
            // A turn does it all, as if time did not matter.
            pacing: Pacing {
                slice: u32::MAX,
                many: usize::MAX,
                ..Pacing::default()
            },
            has_database: false,
            plant: None,
        };
        let mut rig = Self {
            core: Core::new(config, Now::default()),
            mono_ns: 0,
            topic: 0,
            sent: Vec::new(),
        };
        let mut hello = Vec::new();
        Frame::Hello(Hello {
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            session: 0,
            name: "micro",
            credentials: &[],
        })
        .encode(&mut hello);
        let mut first = hello.clone();
        publish(0, TOPIC, b"first", &mut first);
        rig.open(PUBLISHER, &first);
        Frame::Subscribe(Subscribe {
            request_id: 1,
            from_seq: 0,
            epoch: 0,
            policy: Policy::Resume,
            topic: TOPIC,
        })
        .encode(&mut hello);
        (1..=subscribers).for_each(|slot| rig.open(slot, &hello));
        assert_ne!(
            rig.topic, 0,
            "the first publish is answered with the topic's id"
        );
        // So that everything has grown to its size.
        let mut wire = Vec::new();
        publish(rig.topic, "", &[b'.'; 64], &mut wire);
        (0..1000).for_each(|_| rig.turn(&wire));
        rig
    }

    fn open(&mut self, slot: u32, bytes: &[u8]) {
        self.begin();
        self.core.on_accepted(slot, 1 + u128::from(slot));
        self.core.on_received(slot, bytes);
        self.end(true);
        self.begin();
        self.end(false);
    }

    /// The publisher says `bytes`, and everybody gets what that gives.
    pub(crate) fn turn(&mut self, bytes: &[u8]) {
        self.begin();
        self.core.on_received(PUBLISHER, bytes);
        self.end(false);
    }

    fn begin(&mut self) {
        self.mono_ns += 1000;
        self.core.begin_turn(Now {
            wall_ns: 1_700_000_000_000_000_000 + self.mono_ns,
            mono_ns: self.mono_ns,
        });
        for (slot, payload) in self.sent.drain(..) {
            let len = payload.byte_len();
            self.core.on_sent(slot, payload, Ok(len));
        }
    }

    fn end(&mut self, looks: bool) {
        self.core.end_turn();
        while let Some(action) = self.core.poll_action() {
            let Action::Send { slot, payload } = action else {
                continue;
            };
            if looks {
                self.learn(&payload);
            }
            self.sent.push((slot, payload));
        }
    }

    /// Reads the topic's id from what the server says.
    fn learn(&mut self, payload: &Payload) {
        let bytes: Vec<u8> = payload.slices().flatten().copied().collect();
        let mut rest = &bytes[..];
        while let Ok(Decoded::Frame { frame, len }) = decode(rest, 1 << 20) {
            if let Frame::Reply(reply) = frame {
                self.topic = reply.topic_id;
            }
            rest = &rest[len..];
        }
    }
}
