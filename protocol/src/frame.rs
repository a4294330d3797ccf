//! The messages.

use crate::{BodyError, Candle, Cursor, ErrorCode, FrameType, Series, StoredTick};

/// One message, borrowing its variable parts from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is documented at its type")]
pub enum Frame<'a> {
    Hello(Hello<'a>),
    Welcome(Welcome),
    Subscribe(Subscribe<'a>),
    Subscribed(Subscribed<'a>),
    Unsubscribe(Unsubscribe),
    Unsubscribed(Unsubscribed),
    Command(Command<'a>),
    Reply(Reply<'a>),
    Event(Event<'a>),
    Snapshot(Snapshot<'a>),
    Gap(Gap),
    Ping(Ping),
    Pong(Pong),
    Error(ErrorFrame<'a>),
    Goodbye(Goodbye<'a>),
    History(History<'a>),
    HistoryPage(HistoryPage<'a>),
}

impl Frame<'_> {
    /// The type that the frame has on the wire.
    pub const fn frame_type(&self) -> FrameType {
        match self {
            Self::Hello(_) => FrameType::Hello,
            Self::Welcome(_) => FrameType::Welcome,
            Self::Subscribe(_) => FrameType::Subscribe,
            Self::Subscribed(_) => FrameType::Subscribed,
            Self::Unsubscribe(_) => FrameType::Unsubscribe,
            Self::Unsubscribed(_) => FrameType::Unsubscribed,
            Self::Command(_) => FrameType::Command,
            Self::Reply(_) => FrameType::Reply,
            Self::Event(_) => FrameType::Event,
            Self::Snapshot(_) => FrameType::Snapshot,
            Self::Gap(_) => FrameType::Gap,
            Self::Ping(_) => FrameType::Ping,
            Self::Pong(_) => FrameType::Pong,
            Self::Error(_) => FrameType::Error,
            Self::Goodbye(_) => FrameType::Goodbye,
            Self::History(_) => FrameType::History,
            Self::HistoryPage(_) => FrameType::HistoryPage,
        }
    }
}

/// Opens a session, or takes one up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Major version that the client speaks; must be one that the server speaks.
    pub major: u16,
    /// Newest minor version that the client knows.
    pub minor: u16,
    /// The session to take up again, as WELCOME told it; 0 asks for a new one.
    pub session: u128,
    /// What the connection calls itself, for people: at most [`crate::MAX_NAME_LEN`] bytes; may be empty.
    pub name: &'a str,
    /// What the server's access check reads; at most [`crate::MAX_CREDENTIALS_LEN`] bytes.
    pub credentials: &'a [u8],
}

/// Accepts the session and tells its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Major version of this connection.
    pub major: u16,
    /// Minor version of this connection: the lower of both sides' newest.
    pub minor: u16,
    /// Send something at least this often, in milliseconds; 0: no need. The server closes a
    /// connection that is silent for three times as long.
    pub heartbeat_ms: u32,
    /// The session's token. It is a secret: who knows it can take the session up.
    pub session: u128,
    /// The largest frame that the server accepts, in bytes, header included.
    pub max_frame: u32,
    /// The most subscriptions of one connection.
    pub max_subscriptions: u32,
    /// The server's clock, in nanoseconds since 1970-01-01 UTC.
    pub node_ns: u64,
    /// Whether the session of HELLO was taken up; otherwise this is a new one.
    pub resumed: bool,
}

/// What happens when a subscription's connection reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Policy {
    /// As the topic's machine kind has it.
    #[default]
    Default = 0,
    /// Skip to the latest state: GAP, then SNAPSHOT, then live.
    Conflate = 1,
    /// Miss nothing: GAP(delayed), then the missed events once there is room.
    Resume = 2,
    /// Close the connection with `slow_consumer`.
    Disconnect = 3,
}

impl Policy {
    /// The policy of a number on the wire.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Default,
            1 => Self::Conflate,
            2 => Self::Resume,
            3 => Self::Disconnect,
            _ => return None,
        })
    }
}

/// Asks for a topic's events. The topic is created when it does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Comes back in SUBSCRIBED or ERROR.
    pub request_id: u64,
    /// First seq wanted; 0: the state as it is (SNAPSHOT) and what comes after it.
    pub from_seq: u64,
    /// The epoch that `from_seq` belongs to, as SUBSCRIBED told it; 0: whichever there is.
    pub epoch: u64,
    /// What to do when this connection reads too slowly.
    pub policy: Policy,
    /// The topic's name, `kind/name`.
    pub topic: &'a str,
}

/// Confirms a subscription. Everything of the topic carries `topic_id` from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed<'a> {
    /// From SUBSCRIBE.
    pub request_id: u64,
    /// The topic's id: the same for all clients until the server restarts.
    pub topic_id: u32,
    /// The policy in force, never [`Policy::Default`].
    pub policy: Policy,
    /// Seq of the first EVENT that follows; what lies before it and was asked for comes as GAP
    /// and SNAPSHOT.
    pub next_seq: u64,
    /// The topic's newest seq at this moment; 0: no event yet.
    pub last_seq: u64,
    /// Which numbering of the topic these seqs belong to; it changes when a server that kept no
    /// journal of the topic restarts.
    pub epoch: u64,
    /// The topic's name.
    pub topic: &'a str,
}

/// Gives a subscription up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Comes back in UNSUBSCRIBED or ERROR.
    pub request_id: u64,
    /// The topic.
    pub topic_id: u32,
}

/// Confirms that no EVENT, SNAPSHOT or GAP of the topic follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// From UNSUBSCRIBE.
    pub request_id: u64,
    /// The topic.
    pub topic_id: u32,
    /// The newest seq that this connection was brought up to; 0: none.
    pub last_seq: u64,
}

/// Asks a topic's machine to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// Comes back in REPLY; unique within the session, so that a command sent again is known.
    pub request_id: u64,
    /// The topic; 0 when `topic` names it instead. REPLY tells the id.
    pub topic_id: u32,
    /// Which command; [`crate::PUBLISH`] is understood by every machine that outsiders may feed.
    pub command: u16,
    /// The topic's name; empty when `topic_id` is not 0.
    pub topic: &'a str,
    /// What the machine reads.
    pub payload: &'a [u8],
    /// No REPLY when the command succeeds. A refusal is always answered.
    pub quiet: bool,
}

/// Answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// From COMMAND.
    pub request_id: u64,
    /// The topic; 0 if there is none by that name.
    pub topic_id: u32,
    /// [`ErrorCode::Ok`], or why the command was refused, as a number.
    pub code: u16,
    /// Seq of the newest event that the command made; 0: none.
    pub seq: u64,
    /// With `overloaded`: when to try again, in milliseconds.
    pub retry_after_ms: u32,
    /// The machine's answer; of a refusal, a text for people.
    pub payload: &'a [u8],
}

/// One record of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The topic.
    pub topic_id: u32,
    /// The body's layout: an [`crate::EventKind`] as a number.
    pub kind: u16,
    /// Position in the topic: starts at 1, no gaps.
    pub seq: u64,
    /// When it happened, by its source; nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// When the node took it in; nanoseconds since 1970-01-01 UTC.
    pub node_ns: u64,
    /// The body.
    pub body: &'a [u8],
}

/// A topic's state after the event `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// The topic.
    pub topic_id: u32,
    /// The body's layout: an [`crate::EventKind`] as a number.
    pub kind: u16,
    /// The newest event that the state contains.
    pub seq: u64,
    /// When the newest event happened, by its source; nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// When the node took that event in; nanoseconds since 1970-01-01 UTC.
    pub node_ns: u64,
    /// The state.
    pub body: &'a [u8],
}

/// Why events do not come, or not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum GapReason {
    /// The connection is past its byte budget; `first_seq` and what follows come later.
    Delayed = 1,
    /// The connection was past its budget and its policy is conflate; a SNAPSHOT follows.
    Conflated = 2,
    /// The server no longer has these events; a SNAPSHOT follows.
    Expired = 3,
    /// The topic was numbered anew: `first_seq` belonged to another epoch; a SNAPSHOT follows
    /// when there is any state.
    Reset = 4,
}

impl GapReason {
    /// The reason of a number on the wire.
    pub const fn from_u16(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Delayed,
            2 => Self::Conflated,
            3 => Self::Expired,
            4 => Self::Reset,
            _ => return None,
        })
    }
}

/// Tells of events that do not come, or not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The topic.
    pub topic_id: u32,
    /// Why.
    pub reason: GapReason,
    /// First seq concerned.
    pub first_seq: u64,
    /// Last seq concerned; 0 with [`GapReason::Delayed`], where the end is not known yet.
    pub last_seq: u64,
}

/// Asks for a PONG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in PONG.
    pub token: u64,
}

/// Answers a PING, behind everything that was sent before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// From PING.
    pub token: u64,
    /// The sender's clock in nanoseconds since 1970-01-01 UTC; 0: not told.
    pub node_ns: u64,
}

/// Refuses a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFrame<'a> {
    /// Why: an [`ErrorCode`] as a number.
    pub code: u16,
    /// The type byte of the refused frame; 0 when there was none.
    pub frame_type: u8,
    /// Whether the connection is closed behind this frame.
    pub fatal: bool,
    /// When to try again, in milliseconds; 0: no sooner than something changes.
    pub retry_after_ms: u32,
    /// The refused frame's request id; 0 if it has none.
    pub request_id: u64,
    /// For people.
    pub text: &'a str,
}

impl ErrorFrame<'_> {
    /// The code, if this version knows it.
    pub const fn known_code(&self) -> Option<ErrorCode> {
        ErrorCode::from_u16(self.code)
    }
}

/// Says that the sender will close once everything promised is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye<'a> {
    /// Why: an [`ErrorCode`] as a number; 0: an ordinary close.
    pub code: u16,
    /// When to connect again, in milliseconds; 0: at once, if at all.
    pub retry_after_ms: u32,
    /// For people.
    pub text: &'a str,
}

/// Asks for a page of an instrument's stored ticks or candles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History<'a> {
    /// Comes back in HISTORY_PAGE or ERROR.
    pub request_id: u64,
    /// Which rows.
    pub series: Series,
    /// Whether the newest row comes first.
    pub newest_first: bool,
    /// The most rows wanted; 0: as many as one page holds.
    pub limit: u32,
    /// From this event time on, nanoseconds since 1970-01-01 UTC.
    pub from_ns: u64,
    /// Up to before this event time; `u64::MAX`: without an end.
    pub to_ns: u64,
    /// Behind this row; [`Cursor::START`] for the first page, then [`HistoryPage::next`].
    pub cursor: Cursor,
    /// The instrument's topic, `market/X`.
    pub topic: &'a str,
}

/// A page of stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPage<'a> {
    /// From HISTORY.
    pub request_id: u64,
    /// From HISTORY: what the rows are.
    pub series: Series,
    /// Whether there were more rows in the span when the page was read.
    pub more: bool,
    /// Where the next page begins; of a page without rows, the cursor that was asked with.
    pub next: Cursor,
    /// The rows, each of [`Series::row_len`] bytes.
    pub rows: &'a [u8],
}

impl<'a> HistoryPage<'a> {
    /// How many rows there are.
    pub const fn len(&self) -> usize {
        self.rows.len() / self.series.row_len()
    }

    /// Whether there is no row.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as ticks; none when the series is one of candles.
    pub fn ticks(&self) -> impl Iterator<Item = Result<StoredTick, BodyError>> + use<'a> {
        let rows = match self.series {
            Series::Ticks => self.rows,
            _ => &[],
        };
        rows.chunks_exact(StoredTick::LEN).map(StoredTick::decode)
    }

    /// The rows as candles; none when the series is that of ticks.
    pub fn candles(&self) -> impl Iterator<Item = Result<Candle, BodyError>> + use<'a> {
        let rows = match self.series {
            Series::Ticks => &[],
            _ => self.rows,
        };
        rows.chunks_exact(Candle::LEN).map(Candle::decode)
    }
}
