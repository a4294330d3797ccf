//! The 8-byte frame header.

/// Bytes of a frame header: u32 length, u8 type, u8 flags, u16 reserved.
pub const HEADER_LEN: usize = 8;

/// The most bytes that any frame may have, header included (16 MiB); a server's own limit is
/// usually lower and is told in WELCOME.
pub const MAX_FRAME_LEN: usize = 16 << 20;

/// Types with this bit set are optional: a peer that does not know one skips the frame.
pub const OPTIONAL_TYPE_BIT: u8 = 0x80;

/// What a frame is; the fifth byte of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Client opens the session.
    Hello = 0x01,
    /// Client asks for a topic.
    Subscribe = 0x02,
    /// Client gives a topic up.
    Unsubscribe = 0x03,
    /// Client sends a command to a topic's machine.
    Command = 0x04,
    /// Either side asks for a PONG.
    Ping = 0x05,
    /// Either side answers a PING.
    Pong = 0x06,
    /// Either side says that it will close.
    Goodbye = 0x07,
    /// Client asks for a page of stored rows.
    History = 0x08,
    /// Server accepts the session.
    Welcome = 0x11,
    /// Server confirms a subscription and names its topic id.
    Subscribed = 0x12,
    /// Server confirms that no more events of the topic follow.
    Unsubscribed = 0x13,
    /// Server answers a command.
    Reply = 0x14,
    /// One sequenced record of a topic.
    Event = 0x15,
    /// A topic's state as of a seq.
    Snapshot = 0x16,
    /// Server says which events are delayed or will not come.
    Gap = 0x17,
    /// Server refuses a frame.
    Error = 0x18,
    /// Server gives a page of stored rows.
    HistoryPage = 0x19,
}

impl FrameType {
    /// The type for a header's fifth byte, or `None` if this version does not know it.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x01 => Self::Hello,
            0x02 => Self::Subscribe,
            0x03 => Self::Unsubscribe,
            0x04 => Self::Command,
            0x05 => Self::Ping,
            0x06 => Self::Pong,
            0x07 => Self::Goodbye,
            0x08 => Self::History,
            0x11 => Self::Welcome,
            0x12 => Self::Subscribed,
            0x13 => Self::Unsubscribed,
            0x14 => Self::Reply,
            0x15 => Self::Event,
            0x16 => Self::Snapshot,
            0x17 => Self::Gap,
            0x18 => Self::Error,
            0x19 => Self::HistoryPage,
            _ => return None,
        })
    }
}
