//! The two sub-protocols: what a client asks, and how it is told things.

mod binary;
mod json;
mod request;

use axum::extract::ws::Message;
use bytes::Bytes;
use tickring_protocol::{ErrorCode, Frame};

pub(crate) use json::refused;
pub(crate) use request::{Ask, Fault, TopicKey};

/// How a client is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Json = 0,
    Binary = 1,
}

impl Protocol {
    pub(crate) const NAMES: [&'static str; 2] = ["tickring.json.v1", "tickring.bin.v1"];

    pub(crate) fn by_name(name: &[u8]) -> Option<Self> {
        [Self::Json, Self::Binary]
            .into_iter()
            .find(|protocol| protocol.name().as_bytes() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// A frame in this protocol. `topic` is the name of the frame's topic; empty if it has none.
    pub(crate) fn encode(self, frame: &Frame<'_>, topic: &str) -> Bytes {
        self.encode_with(frame, topic, Extra::None)
    }

    pub(crate) fn encode_with(self, frame: &Frame<'_>, topic: &str, extra: Extra) -> Bytes {
        match self {
            Self::Json => json::encode(frame, topic, extra),
            Self::Binary => binary::encode(frame, extra),
        }
    }

    /// Tells whether there is a connection to the server.
    pub(crate) fn status(self, up: bool) -> Bytes {
        match self {
            Self::Json => json::status(up),
            Self::Binary => binary::status(up),
        }
    }

    /// One message of several pieces. A single one is shared and not copied.
    pub(crate) fn message(self, pieces: &mut Vec<Bytes>) -> Message {
        let one = match (self, &pieces[..]) {
            (_, [_]) => pieces.pop().unwrap_or_default(),
            (Self::Json, _) => json::array(pieces),
            (Self::Binary, _) => Bytes::from(pieces.concat()),
        };
        pieces.clear();
        match self {
            // What this crate writes is UTF-8; if it were not, the client would be told nothing.
            Self::Json => Message::Text(one.try_into().unwrap_or_default()),
            Self::Binary => Message::Binary(one),
        }
    }

    /// What a message of a client asks for, one by one.
    pub(crate) fn read(self, message: &[u8], mut each: impl FnMut(Result<Ask, Fault>) -> bool) {
        match self {
            Self::Json => request::json(message, &mut each),
            Self::Binary => binary::read(message, &mut each),
        }
    }
}

/// What a frame tells that its native layout has no field for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    None,
    /// WELCOME: whether there is a connection to the server.
    Upstream(bool),
    /// GAP `reset`: the new epoch.
    Epoch(u64),
}

/// The name of an error code; its number if this version does not know it.
pub(crate) fn code_name(code: u16) -> String {
    ErrorCode::from_u16(code).map_or_else(|| code.to_string(), |code| code.name().to_owned())
}
