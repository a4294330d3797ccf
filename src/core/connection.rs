//! One connection, as its core sees it.

use std::borrow::Cow;

use tickring_protocol::{ErrorCode, Policy};

use super::audience::NONE;
use super::outbox::Outbox;
use super::rest::Rest;
use super::state::State;

/// A client's socket and what it has asked for.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Tells this connection from others that had the same slot.
    pub(crate) number: u32,
    pub(crate) state: State,
    /// Monotonic time at which `state` began.
    pub(crate) state_since: u64,
    /// Monotonic time at which bytes last came.
    pub(crate) last_heard: u64,
    /// The earliest entry among the timers; `u64::MAX`: none.
    pub(crate) timer_at: u64,
    pub(crate) session: u128,
    pub(crate) name: Box<str>,
    /// Sorted by topic id.
    pub(crate) subscriptions: Vec<Subscription>,
    /// SUBSCRIBEs whose owner has not answered yet.
    pub(crate) opening: u32,
    pub(crate) audience: u32,
    /// Where it stands in its audience.
    pub(crate) place: u32,
    /// Whether its set of live topics changed in this turn.
    pub(crate) changed: bool,
    /// Whether something was queued in this turn.
    pub(crate) dirty: bool,
    /// Whether some of that is for it alone.
    pub(crate) prompt: bool,
    /// Its rest after the last send.
    pub(crate) rest: Rest,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Vec<u8>,
    pub(crate) parked: Parked,
    /// Monotonic time since which no frame could be acted on for want of room in a mailbox; 0:
    /// there is room.
    pub(crate) blocked_since: u64,
    pub(crate) receiving: Receiving,
    /// Whether the client has shut its side.
    pub(crate) end_of_stream: bool,
    /// Answers of other cores that it waits for.
    pub(crate) awaiting: u32,
    /// Reads of the database that it waits for.
    pub(crate) reading: u32,
    /// Whether it has sent quiet commands to other cores, whose refusals nobody waits for.
    pub(crate) quiet: bool,
    pub(crate) farewell: Option<Box<Farewell>>,
    pub(crate) farewell_sent: bool,
    /// Subscriptions that are not live.
    pub(crate) behind: u32,
    /// Catch-ups under way.
    pub(crate) asked: u32,
    /// Whether it is listed as waiting for room to ask.
    pub(crate) hungry: bool,
    /// Where the search for the next subscription to catch up goes on.
    pub(crate) cursor: u32,
    pub(crate) next_ticket: u32,
    /// Monotonic time at which it fell behind; 0: it is not behind for being slow.
    pub(crate) slow_since: u64,
}

/// One topic that a connection has subscribed to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    pub(crate) topic_id: u32,
    pub(crate) replica: u32,
    pub(crate) policy: Policy,
    pub(crate) progress: Progress,
    /// Whether the client knows that events are held back.
    pub(crate) told: bool,
    /// Names the catch-up under way, so that the answer to an older one is told apart.
    pub(crate) ticket: u32,
    /// Next seq to be given; kept only while not live, where the replica's last seq says it.
    pub(crate) next_seq: u64,
}

/// How a subscription gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// From the connection's audience, as they come.
    Live,
    /// Not now: they are asked for once the outbox has room.
    Behind,
    /// They are asked for.
    Asked,
}

/// Why input waits in the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    No,
    /// For room in a mailbox: tried again every turn.
    Mail,
    /// For its own outbox or answers: tried again when those move.
    Own,
}

/// Whether the socket is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiving {
    On,
    /// Asked to stop; `resume`: to go on as soon as that is done.
    Stopping {
        resume: bool,
    },
    Off,
}

/// The last frame of a connection.
#[derive(Debug)]
pub(crate) struct Farewell {
    /// ERROR, otherwise GOODBYE.
    pub(crate) error: bool,
    pub(crate) code: ErrorCode,
    pub(crate) frame_type: u8,
    pub(crate) request_id: u64,
    pub(crate) retry_after_ms: u32,
    pub(crate) text: Cow<'static, str>,
}

impl Farewell {
    pub(crate) fn goodbye(code: ErrorCode, text: &'static str) -> Self {
        Self {
            error: false,
            code,
            frame_type: 0,
            request_id: 0,
            retry_after_ms: 0,
            text: text.into(),
        }
    }

    pub(crate) fn error(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            error: true,
            text: text.into(),
            ..Self::goodbye(code, "")
        }
    }
}

impl Connection {
    pub(crate) fn new(number: u32, session: u128, mono_ns: u64) -> Self {
        Self {
            number,
            state: State::Accepted,
            state_since: mono_ns,
            last_heard: mono_ns,
            timer_at: u64::MAX,
            session,
            name: Box::default(),
            subscriptions: Vec::new(),
            opening: 0,
            audience: NONE,
            place: 0,
            changed: false,
            dirty: false,
            prompt: false,
            rest: 0,
            outbox: Outbox::default(),
            inbox: Vec::new(),
            parked: Parked::No,
            blocked_since: 0,
            receiving: Receiving::On,
            end_of_stream: false,
            awaiting: 0,
            reading: 0,
            quiet: false,
            farewell: None,
            farewell_sent: false,
            behind: 0,
            asked: 0,
            hungry: false,
            cursor: 0,
            next_ticket: 0,
            slow_since: 0,
        }
    }

    /// Whether frames are still read from it.
    pub(crate) fn reads(&self) -> bool {
        matches!(
            self.state,
            State::Accepted | State::Negotiating | State::Active
        )
    }

    pub(crate) fn find(&self, topic_id: u32) -> Result<usize, usize> {
        self.subscriptions
            .binary_search_by_key(&topic_id, |s| s.topic_id)
    }
}
