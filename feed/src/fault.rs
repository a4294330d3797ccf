//! What can be wrong with data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tickring_protocol::{Micros, MicrosError};

/// Why a line is no tick.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The line cannot be read from the file, or the gzip stream is broken.
    #[error("cannot read: {0}")]
    Read(#[from] std::io::Error),
    /// Longer than [`crate::MAX_LINE`] bytes.
    #[error("line is longer than {limit} bytes")]
    LineTooLong {
        /// The limit.
        limit: usize,
    },
    /// Not text.
    #[error("line is not UTF-8")]
    NotText,
    /// Not JSON, or not of the expected layout.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A CSV row has more or fewer fields than the header.
    #[error("row has {found} fields, the header has {header}")]
    Fields {
        /// Fields of the row.
        found: usize,
        /// Fields of the header.
        header: usize,
    },
    /// A field that the tick needs is not there.
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    /// A price or quantity is not a decimal number that fits; it is not rounded.
    #[error("field `{field}`: {text:?} is {error}")]
    Number {
        /// Which field.
        field: &'static str,
        /// Its text.
        text: String,
        /// What is wrong with it.
        error: MicrosError,
    },
    /// A time is none, or before 1970 or after 2554.
    #[error("field `{field}`: {text:?} is not a time between 1970 and 2554")]
    Time {
        /// Which field.
        field: &'static str,
        /// Its text.
        text: String,
    },
    /// A side is neither buy nor sell.
    #[error("field `side`: {0:?} is neither buy nor sell")]
    Side(String),
    /// The header does not say what the columns are.
    #[error("the header must name {0}; it has {1:?}")]
    Header(&'static str, Vec<String>),
    /// Neither a column nor the caller names the instrument.
    #[error("no column `symbol` and no symbol given (--csv-symbol)")]
    NoSymbol,
    /// The symbol, with what is put before it, is no topic name.
    #[error("symbol {symbol:?}: {error}")]
    Symbol {
        /// The symbol.
        symbol: String,
        /// Why.
        error: tickring_protocol::TopicError,
    },
}

/// A [`Fault`], and where it is.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {fault}", .file.display())]
pub struct DataError {
    /// Which file.
    pub file: Arc<Path>,
    /// Which line, from 1; 0: the file as a whole.
    pub line: u64,
    /// What is wrong.
    #[source]
    pub fault: Fault,
}

impl DataError {
    /// A fault of `file` as a whole.
    pub(crate) fn whole(file: &Path, fault: impl Into<Fault>) -> Self {
        let (file, line, fault) = (PathBuf::from(file).into(), 0, fault.into());
        Self { file, line, fault }
    }

    /// Whether nothing can be read behind it.
    pub const fn ends_the_file(&self) -> bool {
        self.line == 0
            || matches!(
                self.fault,
                Fault::Read(_) | Fault::Header(..) | Fault::NoSymbol
            )
    }
}

/// Reads a decimal number of `field` exactly; also with how many decimals it was written.
pub(crate) fn number(field: &'static str, text: &str) -> Result<(Micros, u8), Fault> {
    Micros::parse_scaled(text).map_err(|error| Fault::Number {
        field,
        text: text.to_owned(),
        error,
    })
}
