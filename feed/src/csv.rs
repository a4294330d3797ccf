//! CSV with a header: quotes (`bid`, `ask`) or trades (`price`, `qty`), one a row.

use csv_core::ReadRecordResult;
use tickring_protocol::{Micros, Quote, Side, Trade};

use crate::fault::number;
use crate::{Content, Fault, Tick, parse_timestamp};

/// The fields of one line, without the blanks around them. A field in double quotes may hold
/// commas, but no end of line. Used again for line after line, it allocates nothing.
pub struct Row {
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
    len: usize,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            reader: csv_core::Reader::new(),
            text: Vec::new(),
            ends: vec![0; 16],
            len: 0,
        }
    }
}

impl Row {
    /// Takes `line` apart. An empty line has no fields.
    pub fn read(&mut self, line: &str) {
        self.reader.reset();
        self.len = 0;
        // No field is longer than what it was written with, and none ends without a comma or
        // the line's end: the buffers suffice.
        self.text.resize(self.text.len().max(line.len()), 0);
        let most = 2 + line.bytes().filter(|&b| b == b',').count();
        self.ends.resize(self.ends.len().max(most), 0);
        let mut rest = line.as_bytes();
        let mut written = 0;
        loop {
            let text = &mut self.text[written..];
            let ends = &mut self.ends[self.len..];
            let (result, read, wrote, ended) = self.reader.read_record(rest, text, ends);
            rest = &rest[read..];
            written += wrote;
            self.len += ended;
            // Once the line is read, the empty rest tells the reader of its end.
            if result != ReadRecordResult::InputEmpty {
                return;
            }
        }
    }

    /// How many fields the line has.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the line is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A field, counted from 0.
    pub fn get(&self, at: usize) -> Option<&str> {
        let ends = &self.ends[..self.len];
        let end = *ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| ends[before]);
        // Cut out of a line of text at commas and quotes, it is text.
        let text = std::str::from_utf8(self.text.get(start..end)?).ok()?;
        Some(text.trim())
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len).filter_map(|at| self.get(at))
    }
}

/// Which column holds what, as the header says. Names are compared without regard to case, and
/// columns that mean nothing here are passed over.
///
/// | column | also called | |
/// |---|---|---|
/// | `timestamp` | `ts`, `time` | see [`parse_timestamp`] |
/// | `symbol` | | not needed if the caller names one |
/// | `bid`, `ask` | | a quote |
/// | `bid_qty`, `ask_qty` | `bid_size`, `ask_size` | of the quote; 0 without |
/// | `price`, `qty` | `size`, `quantity` | a trade |
/// | `side` | | of the trade: `buy` or `sell` (or `b`, `s`); may be empty |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    count: usize,
    timestamp: usize,
    symbol: Option<usize>,
    content: ContentColumns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentColumns {
    Quote {
        bid: usize,
        ask: usize,
        bid_qty: Option<usize>,
        ask_qty: Option<usize>,
    },
    Trade {
        price: usize,
        qty: usize,
        side: Option<usize>,
    },
}

impl Columns {
    /// Reads a header.
    ///
    /// # Errors
    /// [`Fault::Header`] when it names no time, or neither a quote's nor a trade's columns, or
    /// both.
    pub fn of_header(header: &Row) -> Result<Self, Fault> {
        let find = |names: &[&str]| {
            let is_one = |column: &str| names.iter().any(|name| column.eq_ignore_ascii_case(name));
            header.iter().position(is_one)
        };
        let refuse = |need| Fault::Header(need, header.iter().map(str::to_owned).collect());
        let timestamp = find(&["timestamp", "ts", "time"])
            .ok_or_else(|| refuse("`timestamp`, `ts` or `time`"))?;
        let quote = find(&["bid"]).zip(find(&["ask"]));
        let trade = find(&["price"]).zip(find(&["qty", "size", "quantity"]));
        let content = match (quote, trade) {
            (Some((bid, ask)), None) => ContentColumns::Quote {
                bid,
                ask,
                bid_qty: find(&["bid_qty", "bid_size"]),
                ask_qty: find(&["ask_qty", "ask_size"]),
            },
            (None, Some((price, qty))) => ContentColumns::Trade {
                price,
                qty,
                side: find(&["side"]),
            },
            _ => return Err(refuse("either `bid` and `ask`, or `price` and `qty`")),
        };
        Ok(Self {
            count: header.len(),
            timestamp,
            symbol: find(&["symbol"]),
            content,
        })
    }

    /// Whether rows name their instrument.
    pub const fn have_symbol(&self) -> bool {
        self.symbol.is_some()
    }

    /// Reads a row; `symbol` names the instrument where the row does not.
    ///
    /// # Errors
    /// [`Fault`] when a field is missing or does not fit; nothing is rounded.
    pub fn tick<'a>(&self, row: &'a Row, symbol: Option<&'a str>) -> Result<Tick<'a>, Fault> {
        if row.len() != self.count {
            return Err(Fault::Fields {
                found: row.len(),
                header: self.count,
            });
        }
        let time = field(row, self.timestamp, "timestamp")?;
        let event_ns = parse_timestamp(time).ok_or_else(|| Fault::Time {
            field: "timestamp",
            text: time.to_owned(),
        })?;
        let own = self
            .symbol
            .and_then(|at| row.get(at))
            .filter(|s| !s.is_empty());
        Ok(Tick {
            symbol: own.or(symbol).ok_or(Fault::Missing("symbol"))?,
            received_ns: event_ns,
            event_ns,
            content: match self.content {
                ContentColumns::Quote {
                    bid,
                    ask,
                    bid_qty,
                    ask_qty,
                } => {
                    let (bid, bid_decimals) = number("bid", field(row, bid, "bid")?)?;
                    let (ask, ask_decimals) = number("ask", field(row, ask, "ask")?)?;
                    let (bid_qty, bid_qty_decimals) = size(row, bid_qty, "bid_qty")?;
                    let (ask_qty, ask_qty_decimals) = size(row, ask_qty, "ask_qty")?;
                    Content::Quote(Quote {
                        bid,
                        bid_qty,
                        ask,
                        ask_qty,
                        // The fewer of both, so that both come out as they were written; see
                        // the quotes of `binance`.
                        price_decimals: bid_decimals.min(ask_decimals),
                        qty_decimals: bid_qty_decimals.min(ask_qty_decimals),
                    })
                }
                ContentColumns::Trade { price, qty, side } => {
                    let (price, price_decimals) = number("price", field(row, price, "price")?)?;
                    let (qty, qty_decimals) = number("qty", field(row, qty, "qty")?)?;
                    Content::Trade(Trade {
                        price,
                        qty,
                        side: taker(side.and_then(|at| row.get(at)).unwrap_or(""))?,
                        price_decimals,
                        qty_decimals,
                    })
                }
            },
        })
    }
}

fn field<'a>(row: &'a Row, at: usize, name: &'static str) -> Result<&'a str, Fault> {
    match row.get(at) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(Fault::Missing(name)),
    }
}

/// A quantity that the source need not tell.
fn size(row: &Row, at: Option<usize>, name: &'static str) -> Result<(Micros, u8), Fault> {
    match at.and_then(|at| row.get(at)) {
        Some(text) if !text.is_empty() => number(name, text),
        _ => Ok((Micros(0), 0)),
    }
}

fn taker(text: &str) -> Result<Side, Fault> {
    let is = |names: [&str; 2]| names.iter().any(|name| text.eq_ignore_ascii_case(name));
    match text {
        "" => Ok(Side::Unknown),
        _ if is(["buy", "b"]) => Ok(Side::Buy),
        _ if is(["sell", "s"]) => Ok(Side::Sell),
        _ if is(["unknown", "u"]) => Ok(Side::Unknown),
        _ => Err(Fault::Side(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &str) -> Row {
        let mut row = Row::default();
        row.read(line);
        row
    }

    fn tick(header: &str, row: &str) -> Result<Content, Fault> {
        let row = record(row);
        let columns = Columns::of_header(&record(header))?;
        columns.tick(&row, Some("X")).map(|tick| tick.content)
    }

    #[test]
    fn a_row_is_taken_apart_at_its_commas() {
        let long = ["x"; 100].join(",");
        let cases: [(&str, Vec<&str>); 8] = [
            ("", vec![]),
            ("a", vec!["a"]),
            ("a, b ,c", vec!["a", "b", "c"]),
            ("a,,", vec!["a", "", ""]),
            (",", vec!["", ""]),
            ("\"a,b\",\"say \"\"hi\"\"\"", vec!["a,b", "say \"hi\""]),
            ("\"open,b", vec!["open,b"]),
            (&long, vec!["x"; 100]),
        ];
        let mut row = Row::default();
        for (line, fields) in cases {
            row.read(line);
            assert_eq!(row.iter().collect::<Vec<_>>(), fields, "{line}");
            assert_eq!(row.get(row.len()), None);
        }
    }

    #[test]
    fn quotes_without_sizes_are_read_and_come_out_as_they_were_written() {
        let content = tick(
            "timestamp,bid,ask",
            "2013-01-01 22:00:00.295000+00:00,86.65,86.728",
        );
        let Content::Quote(quote) = content.unwrap() else {
            panic!("bid and ask are a quote");
        };
        assert_eq!(
            (quote.bid, quote.ask),
            (Micros(86_650_000), Micros(86_728_000))
        );
        assert_eq!((quote.bid_qty, quote.ask_qty), (Micros(0), Micros(0)));
        assert_eq!(quote.bid.display(quote.price_decimals).to_string(), "86.65");
        assert_eq!(
            quote.ask.display(quote.price_decimals).to_string(),
            "86.728"
        );
    }

    #[test]
    fn trades_are_read_whatever_the_order_of_their_columns() {
        let row = record("Sell,0.5,AAPL,1723161256322,x,101.10");
        let columns = Columns::of_header(&record("side,qty,symbol,ts,note,price")).unwrap();
        let tick = columns.tick(&row, None).unwrap();
        assert_eq!(
            (tick.symbol, tick.event_ns),
            ("AAPL", 1_723_161_256_322_000_000)
        );
        let expected = Trade {
            price: Micros(101_100_000),
            qty: Micros(500_000),
            side: Side::Sell,
            price_decimals: 2,
            qty_decimals: 1,
        };
        assert_eq!(tick.content, Content::Trade(expected));
    }

    #[test]
    fn a_header_that_does_not_say_what_the_rows_are_is_refused() {
        for header in [
            "bid,ask",
            "ts,bid",
            "ts,price",
            "ts",
            "ts,bid,ask,price,qty",
        ] {
            let refused = Columns::of_header(&record(header));
            assert!(matches!(refused, Err(Fault::Header(..))), "{header}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_named() {
        let quote = |row| tick("ts,bid,ask", row).unwrap_err().to_string();
        assert_eq!(
            quote("1,1.0000001,2"),
            r#"field `bid`: "1.0000001" is more than 6 decimals"#
        );
        assert_eq!(quote("1,1,"), "field `ask` is missing");
        assert!(tick("ts,bid,ask", "1,-9223372036854.775807,9223372036854.775807").is_ok());
        assert_eq!(
            quote("1,1,9223372036854.775808"),
            "field `ask`: \"9223372036854.775808\" is beyond ±9223372036854.775807"
        );
        assert!(quote("soon,1,2").starts_with(r#"field `timestamp`: "soon" is not a time"#));
        let trade = tick("ts,price,qty,side", "1,1,1,both")
            .unwrap_err()
            .to_string();
        assert_eq!(trade, r#"field `side`: "both" is neither buy nor sell"#);
        let extra = tick("ts,bid,ask", "1,1,2,3").unwrap_err().to_string();
        assert_eq!(extra, "row has 4 fields, the header has 3");
        let row = record("1,1,1");
        let columns = Columns::of_header(&record("ts,price,qty")).unwrap();
        assert!(matches!(
            columns.tick(&row, None),
            Err(Fault::Missing("symbol"))
        ));
    }
}
