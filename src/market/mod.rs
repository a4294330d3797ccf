//! What the market's tables and candle topics are made of: pure folds and calendars, no I/O.

mod calendar;
mod candle;
mod config;
mod running;

pub use calendar::{Calendar, CalendarError, Clock, InstrumentKind, Moment, Session};
pub use candle::{Candle, CandleError, Folded, Period};
pub use config::{Calendars, ConfigError};
pub use running::{Changed, Running};
