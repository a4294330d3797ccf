//! What the market's tables and candle topics are made of: pure folds and calendars, no I/O.

mod calendar;
mod candle;
mod config;

pub use calendar::{Calendar, CalendarError, InstrumentKind, Session, SessionClock};
pub use candle::{Candle, CandleError, Folded, Period};
pub use config::{Calendars, ConfigError};
