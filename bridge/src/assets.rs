//! The pages and the JavaScript client: the files of `web/`, embedded in the binary.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

/// A debug build reads the files when they are asked for, so that a page can be worked on.
#[derive(RustEmbed)]
#[folder = "web/"]
#[exclude = "test/*"]
#[exclude = "node_modules/*"]
#[exclude = "package.json"]
#[exclude = "README.md"]
struct Files;

/// The charting library, which `build.rs` found. Its name has its version, so it never changes.
const LIBRARY: &str = "lightweight-charts-5.2.0.js";

/// Third parties' files: content type, how long they may be kept, and what is in them.
fn third_party(path: &str) -> Option<Response> {
    const KEEP: &str = "public, max-age=31536000, immutable";
    let (kind, keep, bytes): (_, _, &'static [u8]) = match path {
        LIBRARY => (
            "text/javascript",
            KEEP,
            include_bytes!(concat!(env!("OUT_DIR"), "/lightweight-charts.js")),
        ),
        "third-party.txt" => (
            "text/plain; charset=utf-8",
            "no-cache",
            include_bytes!(concat!(env!("OUT_DIR"), "/third-party.txt")),
        ),
        _ => return None,
    };
    Some(([(CONTENT_TYPE, kind), (CACHE_CONTROL, keep)], bytes).into_response())
}

/// Answers with the file of that path; `/` is `index.html`.
pub(crate) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    if let Some(answer) = third_party(path) {
        return answer;
    }
    let Some(file) = Files::get(path) else {
        return (StatusCode::NOT_FOUND, "there is no such page\n").into_response();
    };
    let hash = file.metadata.sha256_hash();
    let tag = format!(
        "\"{:016x}\"",
        hash[..8]
            .iter()
            .fold(0u64, |tag, &byte| tag << 8 | u64::from(byte))
    );
    if headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes())
    {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    (
        [
            (CONTENT_TYPE, file.metadata.mimetype().to_owned()),
            // Asked for again each time, and then answered in a few bytes: a new binary has new pages.
            (CACHE_CONTROL, "no-cache".to_owned()),
            (ETAG, tag),
        ],
        file.data,
    )
        .into_response()
}
