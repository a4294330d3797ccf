//! The pages.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

use super::page::Collected;
use super::{Scrape, State};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const INDEX: &str = "tickring: /metrics, /healthz, /readyz\n";

pub(super) fn routes(state: Arc<State>) -> Router {
    Router::new()
        .route("/", get(INDEX))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(state)
}

async fn metrics(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Response {
    let started = Instant::now();
    let scrape = state.look().await;
    let open = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/openmetrics-text"));
    let collected = Collected {
        scrape,
        uptime: state.started.elapsed(),
        took: started.elapsed(),
    };
    match encode(collected, open) {
        Ok((kind, page)) => ([(header::CONTENT_TYPE, kind)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The page in OpenMetrics if the scraper takes it, otherwise in Prometheus' own format.
fn encode(collected: Collected, open: bool) -> Result<(&'static str, String), std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collected));
    let mut page = String::new();
    if open {
        text::encode(&mut page, &registry)?;
        return Ok((OPEN_METRICS, page));
    }
    prometheus_text::encode(&mut page, &registry)?;
    Ok((prometheus_text::CONTENT_TYPE, page))
}

async fn healthz(Shared(state): Shared<Arc<State>>) -> (StatusCode, String) {
    answer(state.look().await.alive(), &[])
}

async fn readyz(Shared(state): Shared<Arc<State>>) -> (StatusCode, String) {
    let scrape: Scrape = state.look().await;
    let ready = scrape.ready.clone().map(|()| "ready".to_owned());
    answer(ready, &scrape.remarks())
}

fn answer(result: Result<String, String>, remarks: &[String]) -> (StatusCode, String) {
    let (code, line) = match result {
        Ok(line) => (StatusCode::OK, line),
        Err(line) => (StatusCode::SERVICE_UNAVAILABLE, line),
    };
    let mut text = line + "\n";
    for remark in remarks {
        text += remark;
        text.push('\n');
    }
    (code, text)
}
