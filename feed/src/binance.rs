//! Recordings of Binance market streams: each line is the local receive time in nanoseconds, a
//! blank, and the stream's message as JSON.
//!
//! `trade` and `bookTicker` become ticks. `depthUpdate`, which tells of levels behind the best,
//! and anything else that a recorder may have put between (such as a REST snapshot of the book)
//! is passed over and counted.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use tickring_protocol::{Quote, Side, Trade};

use crate::fault::number;
use crate::{Content, Fault, Tick};

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A trade or a quote.
    Tick(Tick<'a>),
    /// A change of the book behind its best levels.
    Depth,
    /// A message that has no tick.
    Other,
}

/// Reads one line.
///
/// # Errors
/// [`Fault`] when the line is not of this format or a number does not fit; nothing is rounded.
pub fn parse(line: &str) -> Result<Parsed<'_>, Fault> {
    let (received, json) = line.split_once(' ').ok_or(Fault::Missing("receive time"))?;
    let received_ns = received.parse().map_err(|_| Fault::Time {
        field: "receive time",
        text: received.to_owned(),
    })?;
    let message: Message<'_> = serde_json::from_str(json)?;
    let Some(data) = message.data else {
        return Ok(Parsed::Other);
    };
    let content = match data.event {
        Some("trade") => Content::Trade(data.trade()?),
        Some("bookTicker") => Content::Quote(data.quote()?),
        Some("depthUpdate") => return Ok(Parsed::Depth),
        _ => return Ok(Parsed::Other),
    };
    Ok(Parsed::Tick(Tick {
        symbol: data.symbol.ok_or(Fault::Missing("s"))?,
        received_ns,
        event_ns: match data.transaction_ms.or(data.event_ms) {
            Some(ms) => ms.checked_mul(1_000_000).ok_or_else(|| Fault::Time {
                field: "T",
                text: ms.to_string(),
            })?,
            None => received_ns,
        },
        content,
    }))
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    data: Option<Data<'a>>,
}

/// The fields of all messages that matter here; which are there depends on `event`.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "e")]
    event: Option<&'a str>,
    #[serde(rename = "s")]
    symbol: Option<&'a str>,
    #[serde(rename = "T")]
    transaction_ms: Option<u64>,
    #[serde(rename = "E")]
    event_ms: Option<u64>,
    #[serde(rename = "p", borrow, default)]
    price: Text<'a>,
    #[serde(rename = "q", borrow, default)]
    qty: Text<'a>,
    #[serde(rename = "m")]
    buyer_is_maker: Option<bool>,
    #[serde(rename = "b", borrow, default)]
    bid: Text<'a>,
    #[serde(rename = "B", borrow, default)]
    bid_qty: Text<'a>,
    #[serde(rename = "a", borrow, default)]
    ask: Text<'a>,
    #[serde(rename = "A", borrow, default)]
    ask_qty: Text<'a>,
}

impl Data<'_> {
    fn trade(&self) -> Result<Trade, Fault> {
        let (price, price_decimals) = self.price.number("p")?;
        let (qty, qty_decimals) = self.qty.number("q")?;
        Ok(Trade {
            price,
            qty,
            // Who waited in the book did not start the trade.
            side: match self.buyer_is_maker {
                Some(true) => Side::Sell,
                Some(false) => Side::Buy,
                None => Side::Unknown,
            },
            price_decimals,
            qty_decimals,
        })
    }

    fn quote(&self) -> Result<Quote, Fault> {
        let (bid, bid_decimals) = self.bid.number("b")?;
        let (bid_qty, bid_qty_decimals) = self.bid_qty.number("B")?;
        let (ask, ask_decimals) = self.ask.number("a")?;
        let (ask_qty, ask_qty_decimals) = self.ask_qty.number("A")?;
        Ok(Quote {
            bid,
            bid_qty,
            ask,
            ask_qty,
            // The fewer of both: what has more shows them anyway, so that both come out as they
            // were written, by sources that pad with zeros and by those that cut them.
            price_decimals: bid_decimals.min(ask_decimals),
            qty_decimals: bid_qty_decimals.min(ask_qty_decimals),
        })
    }
}

/// A decimal number as text. `depthUpdate` has lists of levels under the same names, which are
/// passed over.
#[derive(Default)]
struct Text<'a>(Option<&'a str>);

impl Text<'_> {
    fn number(&self, field: &'static str) -> Result<(tickring_protocol::Micros, u8), Fault> {
        number(field, self.0.ok_or(Fault::Missing(field))?)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a decimal number as a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Some(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut levels: A) -> Result<Self::Value, A::Error> {
                while levels.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }
        }

        deserializer.deserialize_any(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickring_protocol::{Micros, MicrosError};

    const QUOTE: &str = r#"1723161255088169167 {"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256314}}"#;
    const TRADE: &str = r#"1723161255088176367 {"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256323,"T":1723161256322,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":true}}"#;
    const DEPTH: &str = r#"1 {"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,"b":[["58710.20","0.014"]],"a":[]}}"#;

    #[test]
    fn a_trade_is_read_exactly_and_its_taker_is_told() {
        let Parsed::Tick(tick) = parse(TRADE).unwrap() else {
            panic!("a trade is a tick");
        };
        let expected = Trade {
            price: Micros(61_800_300_000),
            qty: Micros(6000),
            side: Side::Sell,
            price_decimals: 2,
            qty_decimals: 3,
        };
        assert_eq!(tick.content, Content::Trade(expected));
        assert_eq!(
            (tick.symbol, tick.event_ns),
            ("BTCUSDT", 1_723_161_256_322_000_000)
        );
        assert_eq!(tick.received_ns, 1_723_161_255_088_176_367);
        let bought = TRADE.replace("true", "false");
        let Parsed::Tick(bought) = parse(&bought).unwrap() else {
            panic!("a trade is a tick");
        };
        assert!(matches!(
            bought.content,
            Content::Trade(Trade {
                side: Side::Buy,
                ..
            })
        ));
    }

    #[test]
    fn a_quote_is_read_exactly() {
        let Parsed::Tick(tick) = parse(QUOTE).unwrap() else {
            panic!("a quote is a tick");
        };
        let expected = Quote {
            bid: Micros(61_800_200_000),
            bid_qty: Micros(2_507_000),
            ask: Micros(61_800_300_000),
            ask_qty: Micros(2_510_000),
            price_decimals: 2,
            qty_decimals: 3,
        };
        assert_eq!(tick.content, Content::Quote(expected));
        assert_eq!(tick.event_ns, 1_723_161_256_313_000_000);
    }

    #[test]
    fn depth_updates_and_other_messages_are_passed_over() {
        assert_eq!(parse(DEPTH).unwrap(), Parsed::Depth);
        let snapshot = r#"5 {"lastUpdateId":1,"E":2,"T":3,"bids":[["1.0","2"]],"asks":[]}"#;
        assert_eq!(parse(snapshot).unwrap(), Parsed::Other);
        let other = r#"5 {"stream":"x@markPrice","data":{"e":"markPriceUpdate","p":"1.0"}}"#;
        assert_eq!(parse(other).unwrap(), Parsed::Other);
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused_and_named() {
        let fault = parse(&TRADE.replace("0.006", "0.0000061")).unwrap_err();
        let Fault::Number { field, text, error } = &fault else {
            panic!("{fault}");
        };
        assert_eq!((*field, text.as_str()), ("q", "0.0000061"));
        assert_eq!(*error, MicrosError::TooPrecise);
        let fault = parse(&QUOTE.replace("61800.20", "10000000000000")).unwrap_err();
        assert!(matches!(
            fault,
            Fault::Number {
                field: "b",
                error: MicrosError::OutOfRange,
                ..
            }
        ));
        for (field, text) in [("p", "61800.30"), ("q", "0.006")] {
            let largest = TRADE.replace(text, "9223372036854.775807");
            assert!(parse(&largest).is_ok(), "{largest}");
            let fault = parse(&TRADE.replace(text, "9223372036854.775808")).unwrap_err();
            assert_eq!(
                fault.to_string(),
                format!(
                    "field `{field}`: \"9223372036854.775808\" is beyond ±9223372036854.775807"
                )
            );
        }
        let fault = parse(&TRADE.replace("\"0.006\"", "0.006")).unwrap_err();
        assert!(
            matches!(fault, Fault::Json(_)),
            "a JSON number has lost its text: {fault}"
        );
    }

    #[test]
    fn broken_lines_are_refused() {
        for line in ["", "x", "12", "x {}", "-1 {}", "1 {", "1 []x", "1 \"\""] {
            assert!(parse(line).is_err(), "{line:?}");
        }
        for (field, name) in [("\"s\":\"BTCUSDT\",", "s"), ("\"p\":\"61800.30\",", "p")] {
            let fault = parse(&TRADE.replace(field, "")).unwrap_err();
            assert!(
                matches!(fault, Fault::Missing(missing) if missing == name),
                "{fault}"
            );
        }
        let late = TRADE.replace("1723161256322", "18446744073709551615");
        assert!(matches!(parse(&late), Err(Fault::Time { field: "T", .. })));
    }
}
