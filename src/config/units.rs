//! Values as an operator writes them: `256KiB`, `90s`.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number of bytes, written `65536`, `64KiB`, `16MiB` or `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

/// A length of time in whole milliseconds, written `500ms`, `5s`, `2m`, `1h` or `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// An address to listen on, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

/// Why a text is no such value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    #[error("write a number of bytes, such as 65536, 64KiB, 16MiB or 1GiB")]
    Bytes,
    #[error("write a time with its unit, such as 500ms, 5s, 2m or 1h")]
    Span,
    #[error("write an address with a port, such as 127.0.0.1:7401")]
    Listen,
}

const BYTE_UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
const SPAN_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl ByteSize {
    /// As a count of bytes in memory.
    pub(crate) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A number and its unit, in the smallest of `units`; `bare` tells whether the unit may be missing.
fn parse(text: &str, units: &[(&str, u64)], bare: impl Fn(u64) -> bool) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start();
    if unit.is_empty() {
        return bare(number).then_some(number);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Writes `number` in the largest of `units` that leaves no remainder.
fn show(number: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exact = units
        .iter()
        .find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor));
    match exact {
        Some((unit, factor)) => write!(f, "{}{unit}", number / factor),
        None => write!(f, "0"),
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &BYTE_UNITS, |_| true)
            .map(Self)
            .ok_or(UnitError::Bytes)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &SPAN_UNITS, |number| number == 0)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or(UnitError::Span)
    }
}

impl FromStr for Listen {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "" => Ok(Self(None)),
            text => text
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| UnitError::Listen),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, &BYTE_UNITS, f)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        show(ms, &SPAN_UNITS, f)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a value from a text, or from a bare number as if that were a text.
struct Written<T>(PhantomData<T>, UnitError);

impl<T: FromStr<Err = UnitError>> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.1, f)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written(PhantomData, UnitError::Bytes))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written(PhantomData, UnitError::Span))
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written(PhantomData, UnitError::Listen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_plain_or_with_a_binary_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("16 MiB", 16 << 20),
            ("2GiB", 2 << 30),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5MiB", "64KB", "64kib", "99999999999GiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(UnitError::Bytes), "{text}");
        }
    }

    #[test]
    fn a_time_needs_its_unit_unless_it_is_zero() {
        for (text, ms) in [
            ("0", 0),
            ("250ms", 250),
            ("5s", 5000),
            ("2m", 120_000),
            ("1 h", 3_600_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "5", "s", "5 sec", "-5s", "1.5s"] {
            assert_eq!(text.parse::<Span>(), Err(UnitError::Span), "{text}");
        }
    }

    #[test]
    fn values_are_shown_in_the_largest_unit_that_is_exact() {
        let bytes = |n| ByteSize(n).to_string();
        assert_eq!(
            [bytes(0), bytes(1000), bytes(1536), bytes(1 << 20)],
            ["0", "1000B", "1536B", "1MiB"]
        );
        let span = |ms| Span(Duration::from_millis(ms)).to_string();
        assert_eq!(
            [span(0), span(1500), span(90_000), span(60_000)],
            ["0", "1500ms", "90s", "1m"]
        );
    }
}
