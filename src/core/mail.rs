//! What cores say to each other: one parcel a turn in each direction, through a mailbox.
//!
//! **Requests** go from a connection's core to a topic's owner, **deliveries** from the owner to
//! the connection's core. They have mailboxes of their own so that neither can block the other
//! in a circle: a core always takes in deliveries, which never need room for anything, and takes
//! in requests only while its own deliveries have room everywhere.

use std::ops::Range as Span;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use tickring_protocol::{ErrorCode, Policy};

use super::batch::Range;

/// A connection, as other cores name it: the number tells a newcomer in the same place apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionRef {
    pub(crate) slot: u32,
    pub(crate) number: u32,
}

/// How a subscription wants to be brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The state as it is, and what comes after it.
    State,
    /// Every event from `Ask::from_seq` on; `delayed`: these were held back, and the client is to
    /// be told before the first of them.
    Events { delayed: bool },
    /// The newest state, if anything has happened since.
    Latest,
}

/// A request to be brought up to date.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) want: Want,
    pub(crate) from_seq: u64,
    /// The numbering that `from_seq` belongs to; 0: whichever there is.
    pub(crate) epoch: u64,
    /// The most bytes of events wanted now.
    pub(crate) max_bytes: usize,
}

/// How far an [`Ask`] was fulfilled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// Seq of the first event that is given as such.
    pub(crate) first_seq: u64,
    /// Seq behind the last event or state given.
    pub(crate) next_seq: u64,
    /// Whether that is up to date, so that live events join without a gap.
    pub(crate) live: bool,
}

/// From a connection's core to a topic's owner. Spans lie in [`Requests::bytes`].
#[derive(Debug)]
pub(crate) enum Request {
    Subscribe {
        from: ConnectionRef,
        request_id: u64,
        policy: Policy,
        ask: Ask,
        topic: Span<usize>,
    },
    CatchUp {
        from: ConnectionRef,
        topic_id: u32,
        ask: Ask,
        ticket: u32,
    },
    Release {
        topic_id: u32,
        count: u32,
    },
    /// Asks for [`Letter::Fenced`], which comes behind the answers to all requests before it.
    Fence {
        from: ConnectionRef,
    },
    Command {
        from: ConnectionRef,
        session: u128,
        request_id: u64,
        topic_id: u32,
        code: u16,
        quiet: bool,
        topic: Span<usize>,
        payload: Span<usize>,
    },
}

/// From a topic's owner to a connection's core. Spans lie in [`Deliveries::bytes`].
#[derive(Debug)]
pub(crate) enum Letter {
    /// Frames of events, among them those that the core subscribes to.
    Events {
        range: Range,
        bytes: Option<Arc<Vec<u8>>>,
    },
    Opened {
        to: ConnectionRef,
        opened: Opened,
        topic: Span<usize>,
        frames: Span<usize>,
    },
    /// All requests that the connection had sent to this core are answered.
    Fenced { to: ConnectionRef },
    CaughtUp {
        to: ConnectionRef,
        topic_id: u32,
        ticket: u32,
        answer: Answer,
        frames: Span<usize>,
    },
    Reply {
        to: ConnectionRef,
        reply: ReplyHead,
        payload: Span<usize>,
    },
    Refused {
        to: ConnectionRef,
        request_id: u64,
        code: ErrorCode,
        text: Span<usize>,
    },
}

/// A subscription that an owner has opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) request_id: u64,
    pub(crate) topic_id: u32,
    /// Never [`Policy::Default`].
    pub(crate) policy: Policy,
    pub(crate) last_seq: u64,
    /// Names the numbering of the topic's events.
    pub(crate) epoch: u64,
    pub(crate) answer: Answer,
}

/// REPLY without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyHead {
    pub(crate) request_id: u64,
    pub(crate) topic_id: u32,
    pub(crate) code: ErrorCode,
    pub(crate) seq: u64,
    /// Whether the sender was waiting for it; a quiet command is answered only when refused.
    pub(crate) awaited: bool,
}

/// The requests of one turn for one owner.
#[derive(Debug, Default)]
pub struct Requests {
    pub(crate) list: Vec<Request>,
    pub(crate) bytes: Vec<u8>,
    /// The most bytes of events that the answers may have.
    pub(crate) asked_bytes: usize,
    /// The time of the turn that gave it away.
    pub(crate) written_ns: u64,
}

/// The deliveries of one turn for one core.
#[derive(Debug, Default)]
pub struct Deliveries {
    pub(crate) letters: Vec<Letter>,
    pub(crate) bytes: Vec<u8>,
    /// The time of the turn that gave it away.
    pub(crate) written_ns: u64,
}

impl Requests {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the parcel is as large as one may be.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MOST_REQUESTS
            || self.bytes.len() >= MOST_REQUEST_BYTES
            || self.asked_bytes >= MOST_ASKED_BYTES
    }
}

impl Deliveries {
    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }
}

/// The most requests in a parcel.
const MOST_REQUESTS: usize = 4096;
/// A parcel of requests takes no more once it has this many bytes.
const MOST_REQUEST_BYTES: usize = 256 << 10;
/// A parcel of requests takes no more once it asks for this many bytes of events.
const MOST_ASKED_BYTES: usize = 1 << 20;

/// Appends `part` to `bytes` and says where it lies.
pub(crate) fn store(bytes: &mut Vec<u8>, part: &[u8]) -> Span<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    start..bytes.len()
}

/// Empty parcels, to be filled again: shared by the cores of a node, because parcels change
/// hands. At most [`ParcelPool::SPARE`] of each sort are kept.
#[derive(Debug)]
pub struct ParcelPool {
    requests: ArrayQueue<Requests>,
    deliveries: ArrayQueue<Deliveries>,
}

impl Default for ParcelPool {
    fn default() -> Self {
        Self {
            requests: ArrayQueue::new(Self::SPARE),
            deliveries: ArrayQueue::new(Self::SPARE),
        }
    }
}

impl ParcelPool {
    /// Spare parcels kept of each sort.
    pub const SPARE: usize = 256;

    pub(crate) fn requests(&self) -> Requests {
        self.requests.pop().unwrap_or_default()
    }

    pub(crate) fn deliveries(&self) -> Deliveries {
        self.deliveries.pop().unwrap_or_default()
    }

    pub(crate) fn keep_requests(&self, mut parcel: Requests) {
        parcel.list.clear();
        parcel.bytes.clear();
        parcel.asked_bytes = 0;
        if parcel.bytes.capacity() <= 2 * MOST_REQUEST_BYTES {
            let _ = self.requests.push(parcel); // enough are kept already
        }
    }

    pub(crate) fn keep_deliveries(&self, mut parcel: Deliveries) {
        parcel.letters.clear();
        parcel.bytes.clear();
        if parcel.bytes.capacity() <= 2 * MOST_REQUEST_BYTES {
            let _ = self.deliveries.push(parcel); // enough are kept already
        }
    }
}
