//! tickring for browsers: a WebSocket sidecar of the server, and the pages that it serves.
//!
//! `protocol/BRIDGE.md` says what is spoken on the WebSocket.
#![forbid(unsafe_code)]

mod assets;
mod page;

use axum::Router;

pub use page::Page;

/// What the bridge answers to HTTP.
pub fn routes(page: &Page) -> Router {
    page.routes().fallback(assets::serve)
}
