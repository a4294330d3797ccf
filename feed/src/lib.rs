//! Feed handlers: outside market data, recorded or made up, as ticks that can be published.
//!
//! - [`Source`] reads one recorded file ([`Format::Binance`] or [`Format::Csv`], plain or gzip);
//!   [`Replay`] merges several by time.
//! - [`Synth`] makes a plausible market up from a seed.
//! - [`Pace`] says when a recorded tick is due.
//!
//! Nothing here reads a clock or opens a connection; the binary `tickring-feed` does both.
//! Decimal text becomes [`Micros`](tickring_protocol::Micros) exactly: what does not fit is a
//! [`DataError`] that names file and line, never rounded.
//!
//! ```
//! use tickring_feed::{Content, binance};
//!
//! let line = r#"1723161255088176367 {"stream":"btcusdt@trade","data":{"e":"trade","T":1723161256322,"s":"BTCUSDT","p":"61800.30","q":"0.006","m":false}}"#;
//! let binance::Parsed::Tick(tick) = binance::parse(line)? else { unreachable!() };
//! let Content::Trade(trade) = tick.content else { unreachable!() };
//! assert_eq!(tick.symbol, "BTCUSDT");
//! assert_eq!(trade.price.display(trade.price_decimals).to_string(), "61800.30");
//! # Ok::<(), tickring_feed::Fault>(())
//! ```
#![forbid(unsafe_code)]

pub mod binance;
pub mod csv;
mod fault;
mod pace;
mod replay;
mod source;
mod synth;
mod tick;
mod time;

pub use fault::{DataError, Fault};
pub use pace::{Pace, Speed};
pub use replay::{Replay, Skipped};
pub use source::{Format, MAX_LINE, Source, SourceOptions, Step};
pub use synth::{Synth, SynthConfig, SynthError, SynthTick};
pub use tick::{Content, Tick};
pub use time::parse_timestamp;
