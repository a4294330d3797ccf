//! The config file that tells which calendar an instrument trades by.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::calendar::{Calendar, CalendarError, CalendarText};

const BUILT_IN: &str = include_str!("calendars.toml");

/// Why a calendar file cannot be used. Each names the place and what to write.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not TOML, or not of this layout.
    #[error("calendar file: {0}")]
    Layout(#[from] toml::de::Error),
    /// A calendar has a wrong field.
    #[error("calendar file: [calendars.{name}]: {error}")]
    Calendar {
        /// Which calendar.
        name: String,
        /// What is wrong.
        error: CalendarError,
    },
    /// An instrument, or `default`, names a calendar that there is not.
    #[error("calendar file: `{instrument}` names the calendar `{calendar}`, which there is not")]
    Unknown {
        /// The instrument's pattern, or `default`.
        instrument: String,
        /// What it names.
        calendar: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Option<String>,
    #[serde(default)]
    calendars: BTreeMap<String, CalendarText>,
    #[serde(default)]
    instruments: BTreeMap<String, String>,
}

/// Every calendar, and which instrument trades by which.
///
/// ```
/// use tickring::market::{Calendars, Session};
///
/// let calendars = Calendars::load("[instruments]\nAAPL = 'us-equity'\n'EUR*' = 'fx'")?;
/// let aapl = calendars.of("AAPL");
/// // 2026-03-02 14:31 UTC is 09:31 in New York.
/// assert_eq!(aapl.session_at(1_772_461_860_000_000_000).0, Session::Regular);
/// # Ok::<(), tickring::market::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Calendars {
    calendars: Vec<Arc<Calendar>>,
    exact: BTreeMap<String, usize>,
    /// Beginnings of names, longest first.
    prefixes: Vec<(String, usize)>,
    default: usize,
}

impl Calendars {
    /// The built-in calendars: every instrument trades around the clock.
    pub fn built_in() -> Arc<Self> {
        static BUILT_IN: LazyLock<Arc<Calendars>> = LazyLock::new(|| {
            let calendars = Calendars::load("").expect("the built-in file is checked by a test");
            Arc::new(calendars)
        });
        Arc::clone(&BUILT_IN)
    }

    /// The built-in calendars, and what a file's text adds to them or replaces.
    ///
    /// # Errors
    /// [`ConfigError`] naming the place in the file.
    pub fn load(text: &str) -> Result<Self, ConfigError> {
        let mut file: File = toml::from_str(BUILT_IN)?;
        let own: File = toml::from_str(text)?;
        file.default = own.default.or(file.default);
        file.calendars.extend(own.calendars);
        file.instruments.extend(own.instruments);

        let names: Vec<String> = file.calendars.keys().cloned().collect();
        let calendars = file
            .calendars
            .iter()
            .map(|(name, text)| {
                let calendar = Calendar::new(text).map_err(|error| ConfigError::Calendar {
                    name: name.clone(),
                    error,
                })?;
                Ok(Arc::new(calendar))
            })
            .collect::<Result<Vec<_>, ConfigError>>()?;
        let find = |instrument: &str, calendar: &str| {
            names
                .iter()
                .position(|name| name == calendar)
                .ok_or_else(|| ConfigError::Unknown {
                    instrument: instrument.to_owned(),
                    calendar: calendar.to_owned(),
                })
        };
        let default = find("default", file.default.as_deref().unwrap_or("always"))?;
        let (mut exact, mut prefixes) = (BTreeMap::new(), Vec::new());
        for (instrument, calendar) in file.instruments {
            let at = find(&instrument, &calendar)?;
            match instrument.strip_suffix('*') {
                Some(prefix) => prefixes.push((prefix.to_owned(), at)),
                None => _ = exact.insert(instrument, at),
            }
        }
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(Self {
            calendars,
            exact,
            prefixes,
            default,
        })
    }

    /// The calendar of an instrument, by the topic's name behind `market/`: its own entry, else the
    /// longest beginning that fits, else the default.
    pub fn of(&self, instrument: &str) -> &Arc<Calendar> {
        &self.calendars[self.index_of(instrument)]
    }

    /// How many calendars there are.
    #[cfg(feature = "database")]
    pub(crate) fn len(&self) -> usize {
        self.calendars.len()
    }

    /// A calendar by the number that [`index_of`](Self::index_of) gives.
    #[cfg(feature = "database")]
    pub(crate) fn at(&self, index: usize) -> &Arc<Calendar> {
        &self.calendars[index]
    }

    /// Which calendar, as a number from 0.
    pub(crate) fn index_of(&self, instrument: &str) -> usize {
        self.exact.get(instrument).copied().unwrap_or_else(|| {
            self.prefixes
                .iter()
                .find(|(prefix, _)| instrument.starts_with(prefix))
                .map_or(self.default, |&(_, at)| at)
        })
    }
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
