//! The tickring wire protocol, version 1: frames, messages and their codec.
//!
//! A frame is an 8-byte header with its length first, then a body of fixed layout, little-endian
//! throughout. `SPEC.md` beside this crate is the normative text; `vectors/` holds golden frames.
//!
//! [`decode`] is total: any bytes give a [`Decoded::Frame`], a [`Decoded::Skipped`] message of a
//! newer minor version, [`Decoded::NeedMore`], or a [`DecodeError`]. Neither direction allocates
//! beyond the growth of the vector that is encoded into.
//!
//! ```
//! use tickring_protocol::{Decoded, Frame, Ping, decode};
//!
//! let mut wire = Vec::new();
//! Frame::Ping(Ping { token: 7 }).encode(&mut wire);
//! match decode(&wire, 1024).unwrap() {
//!     Decoded::Frame { frame, len } => {
//!         assert_eq!(frame, Frame::Ping(Ping { token: 7 }));
//!         assert_eq!(len, wire.len());
//!     }
//!     _ => unreachable!(),
//! }
//! ```
#![forbid(unsafe_code)]

mod body;
mod code;
mod date;
mod decimal;
mod decode;
mod encode;
mod frame;
mod header;
mod micros;
mod series;
mod topic;
mod wire;

pub use body::{
    BodyError, EventKind, MarketState, NodeStats, PUBLISH, Publish, Quote, Side, SlowClient, Trade,
};
pub use code::ErrorCode;
pub use date::Date;
pub use decimal::FieldError;
pub use decode::{DecodeError, Decoded, decode};
pub use frame::{
    Command, ErrorFrame, Event, Frame, Gap, GapReason, Goodbye, Hello, History, HistoryPage, Ping,
    Policy, Pong, Reply, Snapshot, Subscribe, Subscribed, Unsubscribe, Unsubscribed, Welcome,
};
pub use header::{FrameType, HEADER_LEN, MAX_FRAME_LEN, OPTIONAL_TYPE_BIT};
pub use micros::{Micros, MicrosError};
pub use series::{Candle, Cursor, Series, StoredTick, TickContent, TradingSession};
pub use topic::{MAX_TOPIC_LEN, TopicError, TopicName};

/// Major version that this crate speaks; peers of another major version are refused.
pub const VERSION_MAJOR: u16 = 1;
/// Minor version that this crate speaks; a newer minor adds only what an older one can skip.
pub const VERSION_MINOR: u16 = 0;
/// First four bytes of every HELLO body, so that a stranger's protocol is told apart at once.
pub const MAGIC: [u8; 4] = *b"TKRG";
/// The most bytes of a connection's name in HELLO.
pub const MAX_NAME_LEN: usize = 64;
/// The most bytes of credentials in HELLO.
pub const MAX_CREDENTIALS_LEN: usize = 4096;
/// The port that a server listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7400;
