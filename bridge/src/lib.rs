//! tickring for browsers: a WebSocket sidecar of the server, and the pages that it serves.
//!
//! `protocol/BRIDGE.md` says what is spoken on the WebSocket.
#![forbid(unsafe_code)]

mod assets;

use axum::Router;

/// What the bridge answers to HTTP.
pub fn routes() -> Router {
    Router::new().fallback(assets::serve)
}
