//! Lines of `sub --json`, read back as what to publish.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tickring_client::protocol::{EventKind, Micros, Quote, Side, Trade};

/// What a line asks to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u16,
    /// Nanoseconds since 1970-01-01 UTC; 0: when the node takes it in.
    pub(super) event_ns: u64,
}

/// Why a line cannot be published.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("not a JSON object as `tickring sub --json` prints it: {0}")]
    Json(#[from] serde_json::Error),
    #[error("kind is {0:?}; only trade, quote and message can be published")]
    Kind(String),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{field} is {text:?}: {reason}")]
    Value {
        field: &'static str,
        text: String,
        reason: String,
    },
}

/// The fields that are looked at; `topic`, `seq` and what else there is are not.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    ts_event_ns: u64,
    #[serde(borrow)]
    price: Option<Cow<'a, str>>,
    #[serde(borrow)]
    qty: Option<Cow<'a, str>>,
    #[serde(borrow)]
    side: Option<Cow<'a, str>>,
    #[serde(borrow)]
    bid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    bid_qty: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ask: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ask_qty: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
}

/// Reads a line and puts the event's body into `body`; `None` for a line that tells a state
/// (`snapshot`) or an absence (`gap`), which no event can.
///
/// # Errors
/// [`RecordError`] names the field.
pub(super) fn read(line: &[u8], body: &mut Vec<u8>) -> Result<Option<Head>, RecordError> {
    let record: Record<'_> = serde_json::from_slice(line)?;
    body.clear();
    let kind = match &*record.kind {
        "trade" => {
            trade(&record)?.encode(body);
            EventKind::Trade
        }
        "quote" => {
            quote(&record)?.encode(body);
            EventKind::Quote
        }
        "message" => {
            message(&record, body)?;
            EventKind::Message
        }
        "snapshot" | "gap" => return Ok(None),
        other => return Err(RecordError::Kind(other.to_owned())),
    };
    Ok(Some(Head {
        kind: kind as u16,
        event_ns: record.ts_event_ns,
    }))
}

fn trade(record: &Record<'_>) -> Result<Trade, RecordError> {
    let (price, price_decimals) = required("price", record.price.as_deref())?;
    let (qty, qty_decimals) = required("qty", record.qty.as_deref())?;
    let side = match record.side.as_deref() {
        None | Some("unknown") => Side::Unknown,
        Some("buy") => Side::Buy,
        Some("sell") => Side::Sell,
        Some(text) => {
            return Err(RecordError::Value {
                field: "side",
                text: text.to_owned(),
                reason: "it is buy, sell or unknown".to_owned(),
            });
        }
    };
    Ok(Trade {
        price,
        qty,
        side,
        price_decimals,
        qty_decimals,
    })
}

fn quote(record: &Record<'_>) -> Result<Quote, RecordError> {
    let (bid, bid_decimals) = required("bid", record.bid.as_deref())?;
    let (ask, ask_decimals) = required("ask", record.ask.as_deref())?;
    // A source that tells no quantity leaves them out; it has no decimals to show either.
    let bid_qty = optional("bid_qty", record.bid_qty.as_deref())?;
    let ask_qty = optional("ask_qty", record.ask_qty.as_deref())?;
    let decimals = [bid_qty, ask_qty]
        .into_iter()
        .flatten()
        .map(|(_, d)| d)
        .min();
    Ok(Quote {
        bid,
        bid_qty: bid_qty.unwrap_or_default().0,
        ask,
        ask_qty: ask_qty.unwrap_or_default().0,
        // The fewer of the two: a number is never shown with fewer than it has, so both come out
        // as they were written.
        price_decimals: bid_decimals.min(ask_decimals),
        qty_decimals: decimals.unwrap_or(0),
    })
}

fn message(record: &Record<'_>, body: &mut Vec<u8>) -> Result<(), RecordError> {
    match (&record.data, &record.data_base64) {
        (Some(text), _) => body.extend_from_slice(text.as_bytes()),
        (None, Some(text)) => {
            STANDARD
                .decode_vec(&**text, body)
                .map_err(|error| RecordError::Value {
                    field: "data_base64",
                    text: text.to_string(),
                    reason: error.to_string(),
                })?
        }
        (None, None) => return Err(RecordError::Missing("data")),
    }
    Ok(())
}

fn required(field: &'static str, text: Option<&str>) -> Result<(Micros, u8), RecordError> {
    optional(field, text)?.ok_or(RecordError::Missing(field))
}

fn optional(field: &'static str, text: Option<&str>) -> Result<Option<(Micros, u8)>, RecordError> {
    text.map(Micros::parse_scaled)
        .transpose()
        .map_err(|error| RecordError::Value {
            field,
            text: text.unwrap_or_default().to_owned(),
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::json;
    use proptest::prelude::*;
    use tickring_client::protocol::Event;

    fn line(kind: EventKind, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let event = Event {
            topic_id: 1,
            kind: kind as u16,
            seq: 1,
            event_ns: 77,
            node_ns: 78,
            body,
        };
        json::event(&mut out, "market/A", &event).unwrap();
        out
    }

    proptest! {
        #[test]
        fn a_line_of_sub_comes_out_the_same_after_it_was_published_again(
            numbers in any::<[i64; 4]>(),
            decimals in [0u8..=6, 0u8..=6],
            side in 0usize..3,
            message in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let [price_decimals, qty_decimals] = decimals;
            let [a, b, c, d] = numbers.map(Micros);
            let (mut trade, mut quote) = (Vec::new(), Vec::new());
            let side = [Side::Unknown, Side::Buy, Side::Sell][side];
            Trade { price: a, qty: b, side, price_decimals, qty_decimals }.encode(&mut trade);
            Quote { bid: a, bid_qty: b, ask: c, ask_qty: d, price_decimals, qty_decimals }.encode(&mut quote);
            for (kind, body) in [(EventKind::Trade, trade), (EventKind::Quote, quote), (EventKind::Message, message)] {
                let first = line(kind, &body);
                let mut again = Vec::new();
                let head = read(&first, &mut again).unwrap();
                prop_assert_eq!(head, Some(Head { kind: kind as u16, event_ns: 77 }));
                let second = line(kind, &again);
                prop_assert_eq!(String::from_utf8(first), String::from_utf8(second));
            }
        }
    }

    #[test]
    fn states_and_gaps_are_passed_over() {
        let mut body = Vec::new();
        for kind in ["snapshot", "gap"] {
            let line = format!("{{\"topic\":\"market/A\",\"seq\":1,\"kind\":\"{kind}\"}}");
            assert_eq!(read(line.as_bytes(), &mut body).unwrap(), None);
        }
    }

    #[test]
    fn what_cannot_be_published_is_refused_by_field() {
        for (line, message) in [
            (
                r#"{"kind":"candle"}"#,
                "kind is \"candle\"; only trade, quote and message can be published",
            ),
            (r#"{"kind":"trade","price":"1"}"#, "qty is missing"),
            (
                r#"{"kind":"trade","price":"1.0000001","qty":"1"}"#,
                "price is \"1.0000001\": more than 6 decimals",
            ),
            (
                r#"{"kind":"trade","price":"9223372036854.775808","qty":"1"}"#,
                "price is \"9223372036854.775808\": beyond ±9223372036854.775807",
            ),
            (
                r#"{"kind":"trade","price":"1","qty":"-9223372036854.775809"}"#,
                "qty is \"-9223372036854.775809\": beyond ±9223372036854.775807",
            ),
            (
                r#"{"kind":"quote","bid":"1","ask":"1","ask_qty":"9223372036854.775808"}"#,
                "ask_qty is \"9223372036854.775808\": beyond ±9223372036854.775807",
            ),
            (
                r#"{"kind":"trade","price":"1","qty":"1","side":"up"}"#,
                "side is \"up\": it is buy, sell or unknown",
            ),
            (r#"{"kind":"message"}"#, "data is missing"),
        ] {
            assert_eq!(
                read(line.as_bytes(), &mut Vec::new())
                    .unwrap_err()
                    .to_string(),
                message
            );
        }
        let error = read(b"{}", &mut Vec::new()).unwrap_err().to_string();
        assert!(
            error.contains("as `tickring sub --json` prints it") && error.contains("kind"),
            "{error}"
        );
    }
}
