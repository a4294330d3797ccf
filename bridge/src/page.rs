//! What the market page has to know.

use std::fs;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;
use serde::Serialize;

/// The instruments of the market page, in the order in which it lists them; `config.json` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Page {
    symbols: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<String>,
}

impl Page {
    /// A page of these instruments: names without `market/`.
    pub fn new(symbols: impl IntoIterator<Item = String>) -> Self {
        let symbols = symbols.into_iter().filter(|name| !name.is_empty());
        Self {
            symbols: symbols.collect(),
            period: None,
        }
    }

    /// The candles that it shows first: `1s`, `1m` (unless it is told otherwise), `1h` or `1d`.
    pub fn period(mut self, period: &str) -> Self {
        self.period = Some(period.to_owned());
        self
    }

    /// The instruments that a file names, separated by white space or commas.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn from_file(path: &str) -> std::io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let names = text.split(|c: char| c == ',' || c.is_whitespace());
        Ok(Self::new(names.map(str::to_owned)))
    }

    /// `GET /config.json`.
    pub(crate) fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let text = serde_json::to_string(self).expect("a list of texts is JSON");
        Router::new().route(
            "/config.json",
            get(async move || {
                let headers = [
                    (CONTENT_TYPE, "application/json"),
                    (CACHE_CONTROL, "no-store"),
                ];
                (headers, text)
            }),
        )
    }
}
