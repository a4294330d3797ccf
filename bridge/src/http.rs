//! What the bridge answers to HTTP: the WebSocket's upgrade, the pages, health and metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State, WebSocketUpgrade};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tokio::sync::{Semaphore, watch};

use crate::assets;
use crate::client::{Client, part};
use crate::close::Close;
use crate::page::Page;
use crate::upstream::Upstream;
use crate::wire::Protocol;

/// Bytes that are read at once of a client: most send little, and there are many.
const READ_BUFFER: usize = 4 << 10;

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What the routes share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) upstream: Arc<Upstream>,
    /// One permit for each WebSocket.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) stop: watch::Receiver<bool>,
}

pub(crate) fn routes(app: App, page: &Page) -> Router {
    page.routes()
        .route("/ws", any(upgrade))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .fallback(assets::serve)
        .with_state(app)
}

async fn health(State(app): State<App>) -> Response {
    match *app.upstream.up().borrow() {
        true => (StatusCode::OK, "{\"upstream\":\"up\"}\n").into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "{\"upstream\":\"down\"}\n").into_response(),
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.upstream.metrics.text()).into_response()
}

async fn upgrade(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    asked: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let metrics = &app.upstream.metrics;
    if !is_allowed(&headers, &app.upstream.config.allowed_origins) {
        let origin = headers
            .get(ORIGIN)
            .map_or(&[][..], |origin| origin.as_bytes());
        let origin = &*String::from_utf8_lossy(origin); // text is escaped
        tracing::info!(%peer, origin, "refused: pages of that origin may not connect; see --allow-origin");
        metrics.count_refused("origin");
        return (StatusCode::FORBIDDEN, "this origin is not allowed\n").into_response();
    }
    let asked = match asked {
        Ok(asked) => asked,
        Err(rejection) => {
            tracing::info!(%peer, reason = %rejection, "refused: no WebSocket upgrade");
            metrics.count_refused("handshake");
            return rejection.into_response();
        }
    };
    let Ok(place) = app.places.clone().try_acquire_owned() else {
        tracing::info!(%peer, "refused: as many connections as max_connections allows");
        metrics.count_refused("connection_limit");
        let text = "as many connections as the bridge is configured for\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], text).into_response();
    };
    let most = app.upstream.config.max_message_bytes;
    let asked = asked
        .protocols(Protocol::NAMES)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(most)
        .max_frame_size(most);
    let chosen = asked
        .selected_protocol()
        .map(|name| name.as_bytes().to_vec());
    asked.on_upgrade(move |mut socket| async move {
        let _place = place;
        match chosen.and_then(|name| Protocol::by_name(&name)) {
            Some(protocol) => {
                Client::new(app.upstream, protocol, peer)
                    .run(socket, app.stop)
                    .await;
            }
            None => {
                let text = "ask for tickring.json.v1 or tickring.bin.v1";
                tracing::info!(%peer, code = Close::SUBPROTOCOL, reason = "bad_subprotocol", "a client was closed");
                app.upstream.metrics.count_closed("bad_subprotocol");
                let close = Close::new(Close::SUBPROTOCOL, "bad_subprotocol", text);
                part(&mut socket, close).await;
            }
        }
    })
}

/// Whether a page of that origin may connect. Clients that are no browsers send none.
fn is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    if allowed
        .iter()
        .any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
    {
        return true;
    }
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = origin.split_once("://").map(|(_, host)| host);
    matches!((own, host), (Some(own), Some(host)) if own.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "localhost:8080".parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_bridges_own_pages_and_those_listed_may_connect() {
        let list = ["https://example.org".to_owned()];
        for (origin, list, outcome) in [
            (None, &list[..], true),
            (Some("http://localhost:8080"), &[], true),
            (Some("HTTP://LOCALHOST:8080"), &[], true),
            (Some("https://example.org"), &list, true),
            (Some("https://example.org"), &[], false),
            (Some("https://example.org.evil"), &list, false),
            (Some("http://localhost:8081"), &[], false),
            (Some("http://localhost"), &[], false),
            (Some("null"), &[], false),
            (Some(""), &[], false),
            (Some("http://evil"), &["*".to_owned()][..], true),
        ] {
            assert_eq!(is_allowed(&headers(origin), list), outcome, "{origin:?}");
        }
    }
}
