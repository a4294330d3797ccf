//! Why a client's connection ends: the close codes of `protocol/BRIDGE.md`.

use tickring_protocol::ErrorCode;

/// A close code and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    /// For the log.
    pub(crate) detail: String,
}

impl Close {
    pub(crate) const OK: u16 = 1000;
    pub(crate) const PROTOCOL: u16 = 1002;
    pub(crate) const MESSAGE_TYPE: u16 = 1003;
    pub(crate) const UTF8: u16 = 1007;
    pub(crate) const TOO_LARGE: u16 = 1009;
    pub(crate) const UPSTREAM_LOST: u16 = 4100;
    pub(crate) const SUBPROTOCOL: u16 = 4101;

    pub(crate) fn new(code: u16, reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            detail: detail.into(),
        }
    }

    /// The client wished it.
    pub(crate) fn ok() -> Self {
        Self::new(Self::OK, "ok", "")
    }

    /// The fault of that code of SPEC.
    pub(crate) fn of(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::new(4000 + code as u16, code.name(), detail)
    }

    pub(crate) fn upstream_lost(detail: impl Into<String>) -> Self {
        Self::new(Self::UPSTREAM_LOST, "upstream_lost", detail)
    }

    /// What the WebSocket library found wrong with the client's bytes; `None` if it only went
    /// away.
    pub(crate) fn of_error(error: axum::Error) -> Option<Self> {
        use tungstenite::Error;
        use tungstenite::error::ProtocolError;
        let error = error.into_inner();
        let detail = error.to_string();
        match error.downcast_ref::<Error>()? {
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
            Error::Protocol(_) | Error::AttackAttempt => {
                Some(Self::new(Self::PROTOCOL, "protocol_error", detail))
            }
            Error::Utf8(_) => Some(Self::new(Self::UTF8, "bad_utf8", detail)),
            Error::Capacity(_) => Some(Self::new(Self::TOO_LARGE, "frame_too_large", detail)),
            _ => None,
        }
    }
}
