//! What the generator speaks to: one trait, one file per protocol.

mod bridge;
mod floor;
mod line;
mod nats;
mod redis;
mod tickring;
mod topic_ids;

use serde::{Deserialize, Serialize};
use tickring_protocol::{GapReason, Policy};

use crate::plan::Load;

pub use self::bridge::Bridge;
pub use self::floor::Floor;
pub use self::nats::Nats;
pub use self::redis::Redis;
pub use self::tickring::Tickring;

/// The protocols that the generator speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// tickring's own.
    Tickring,
    /// The same through a tickring-bridge: over WebSockets.
    Bridge,
    /// NATS's: fanout, pingpong and connect only.
    Nats,
    /// Redis's publish and subscribe: fanout, pingpong and connect only.
    Redis,
    /// That of `bench/floor`, which sends everything to everybody: fanout of one topic, pingpong
    /// and connect only.
    Floor,
}

impl Protocol {
    /// Whether the protocol tells enough for `load` to be checked: churn needs to hear that a
    /// subscription is over, stalled readers need to hear of gaps.
    pub fn can(self, load: &Load) -> bool {
        match self {
            Self::Nats | Self::Redis | Self::Floor => {
                !matches!(load, Load::Churn { .. } | Load::Stall { .. })
            }
            Self::Tickring | Self::Bridge => true,
        }
    }
}

/// One message from the server, as far as a generator cares. Topics are the generator's own
/// numbers, not the server's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// The session stands.
    Welcome {
        /// The client must send something at least this often, in milliseconds; 0: no need.
        heartbeat_ms: u32,
    },
    /// A subscription stands.
    Subscribed {
        /// Which topic.
        topic: u32,
        /// Seq of the first event that follows; 0 when the protocol has no seq.
        next_seq: u64,
    },
    /// The oldest subscription of the connection that nothing was heard of stands; the protocol
    /// does not tell which it is.
    Confirmed,
    /// A subscription is over: nothing of the topic may follow.
    Unsubscribed {
        /// Which topic.
        topic: u32,
        /// Seq of the last event that came; `None` when the protocol does not tell.
        last_seq: Option<u64>,
    },
    /// An event.
    Event {
        /// Which topic.
        topic: u32,
        /// Its seq; 0 when the protocol has none.
        seq: u64,
        /// What the publisher sent.
        payload: &'a [u8],
    },
    /// A topic's state.
    Snapshot {
        /// Which topic.
        topic: u32,
    },
    /// Events that do not come, or not now.
    Gap {
        /// Which topic.
        topic: u32,
        /// Why.
        reason: GapReason,
        /// First seq concerned.
        first_seq: u64,
        /// Last seq concerned.
        last_seq: u64,
    },
    /// A publish was taken.
    Published,
    /// A publish was refused: it has no event.
    PublishRefused {
        /// Which topic.
        topic: u32,
        /// The server's reason.
        code: u16,
    },
    /// Something else was refused.
    Refused {
        /// The server's reason.
        code: u16,
        /// For people.
        text: &'a str,
        /// Whether the server closes the connection.
        fatal: bool,
        /// The topic of a subscribe or unsubscribe, if it was one.
        topic: Option<u32>,
    },
    /// The server will close the connection.
    Goodbye {
        /// The server's reason.
        code: u16,
    },
    /// The server wants this echoed: hand it to [`Target::pong`].
    Ping(u64),
    /// An event of a topic that the generator never asked for.
    Stranger,
    /// Nothing that a generator needs.
    Other,
}

/// What [`Target::parse`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A message and its length in bytes.
    Message(Inbound<'a>, usize),
    /// The message is not whole yet.
    NeedMore,
}

/// The server sent bytes that mean nothing; the text says what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's bytes make no sense: {0}")]
pub struct Nonsense(pub String);

/// A protocol, as one thread speaks it on all its connections. Encoders append to `out` and
/// allocate only by its growth; nothing here does I/O.
///
/// Call [`hello`](Self::hello) first on every connection; [`subscribe`](Self::subscribe) may
/// follow in the same bytes.
pub trait Target {
    /// Opens the session. `name` is shown to people where the protocol has names.
    fn hello(&self, name: &str, out: &mut Vec<u8>);

    /// Asks for the events of topic `topic` from now on.
    fn subscribe(&self, topic: u32, policy: Policy, out: &mut Vec<u8>);

    /// Gives topic `topic` up; its subscription must stand on this connection.
    fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>);

    /// Publishes `payload` on topic `topic`. `serial` differs from that of every other publish
    /// to the topic on the connection.
    fn publish(&mut self, topic: u32, serial: u32, payload: &[u8], out: &mut Vec<u8>);

    /// Whether a SUBSCRIBE and an UNSUBSCRIBE of `topic` can be written in one go already.
    fn knows(&self, topic: u32) -> bool;

    /// Says that the client is alive.
    fn ping(&self, out: &mut Vec<u8>);

    /// Answers a [`Inbound::Ping`].
    fn pong(&self, token: u64, out: &mut Vec<u8>);

    /// Says that the client is about to close.
    fn goodbye(&self, out: &mut Vec<u8>);

    /// Reads the first message of `bytes`, in place.
    ///
    /// # Errors
    /// [`Nonsense`] when the bytes are outside the protocol.
    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Parsed<'a>, Nonsense>;
}
