//! Prices, quantities and amounts: exact i64 in units of 10^-6.

use rust_decimal::Decimal;

/// A decimal number with six implied decimals, from -9,223,372,036,854.775808 to
/// 9,223,372,036,854.775807: the DECIMAL(19,6) of the tables. Never a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Micros(pub i64);

/// Why a number does not fit [`Micros`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MicrosError {
    /// Not a decimal number: an optional sign, digits, optionally a point and digits.
    #[error("not a decimal number")]
    Malformed,
    /// More than six decimals that are not zero; nothing is rounded.
    #[error("more than 6 decimals")]
    TooPrecise,
    /// Beyond ±9,223,372,036,854.775807.
    #[error("beyond ±9223372036854.775807")]
    OutOfRange,
}

impl Micros {
    /// Units in one.
    pub const SCALE: i64 = 1_000_000;
    /// The largest value.
    pub const MAX: Self = Self(i64::MAX);
    /// The smallest value.
    pub const MIN: Self = Self(i64::MIN);

    /// Reads decimal text exactly, and how many decimals it was written with (0 to 6, trailing
    /// zeros beyond the sixth not counted), so that [`Micros::display`] can give the same text
    /// back.
    ///
    /// # Errors
    /// [`MicrosError`] when the text is no decimal number or does not fit; nothing is rounded.
    ///
    /// ```
    /// use tickring_protocol::{Micros, MicrosError};
    ///
    /// let (price, decimals) = Micros::parse_scaled("61800.30")?;
    /// assert_eq!((price, decimals), (Micros(61_800_300_000), 2));
    /// assert_eq!(price.display(decimals).to_string(), "61800.30");
    /// assert_eq!(Micros::parse_scaled("0.0000001"), Err(MicrosError::TooPrecise));
    /// # Ok::<(), MicrosError>(())
    /// ```
    pub fn parse_scaled(text: &str) -> Result<(Self, u8), MicrosError> {
        let (negative, digits) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let point = digits.iter().position(|&b| b == b'.');
        let (whole, fraction) = match point {
            Some(at) => (&digits[..at], &digits[at + 1..]),
            None => (digits, &[][..]),
        };
        let all_digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        if whole.is_empty()
            || (point.is_some() && fraction.is_empty())
            || !all_digits(whole)
            || !all_digits(fraction)
        {
            return Err(MicrosError::Malformed);
        }
        let (kept, beyond) = fraction.split_at(fraction.len().min(6));
        if beyond.iter().any(|&b| b != b'0') {
            return Err(MicrosError::TooPrecise);
        }
        // Counted downwards, because the range has one more negative value than positive.
        let mut units: i64 = 0;
        let padded = whole
            .iter()
            .chain(kept)
            .copied()
            .chain(std::iter::repeat_n(b'0', 6 - kept.len()));
        for digit in padded {
            units = units
                .checked_mul(10)
                .and_then(|u| u.checked_sub(i64::from(digit - b'0')))
                .ok_or(MicrosError::OutOfRange)?;
        }
        let units = if negative {
            units
        } else {
            units.checked_neg().ok_or(MicrosError::OutOfRange)?
        };
        Ok((Self(units), kept.len() as u8))
    }

    /// The number as text with at least `min_decimals` decimals (at most 6) and never fewer than
    /// it has: exact in every case.
    pub fn display(self, min_decimals: u8) -> impl std::fmt::Display {
        Shown {
            value: self,
            min_decimals: min_decimals.min(6),
        }
    }

    /// The sum, or `None` when it does not fit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
}

struct Shown {
    value: Micros,
    min_decimals: u8,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = self.value.0.unsigned_abs();
        let (whole, mut fraction) = (units / 1_000_000, units % 1_000_000);
        let mut decimals = 6;
        while decimals > self.min_decimals && fraction % 10 == 0 {
            fraction /= 10;
            decimals -= 1;
        }
        if self.value.0 < 0 {
            f.write_str("-")?;
        }
        write!(f, "{whole}")?;
        if decimals > 0 {
            write!(f, ".{fraction:0width$}", width = decimals as usize)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.display(0).fmt(f)
    }
}

impl std::str::FromStr for Micros {
    type Err = MicrosError;

    fn from_str(text: &str) -> Result<Self, MicrosError> {
        Self::parse_scaled(text).map(|(value, _)| value)
    }
}

impl From<Micros> for Decimal {
    fn from(value: Micros) -> Self {
        Decimal::new(value.0, 6)
    }
}

impl TryFrom<Decimal> for Micros {
    type Error = MicrosError;

    fn try_from(value: Decimal) -> Result<Self, MicrosError> {
        let value = value.normalize();
        if value.scale() > 6 {
            return Err(MicrosError::TooPrecise);
        }
        value
            .mantissa()
            .checked_mul(10_i128.pow(6 - value.scale()))
            .and_then(|units| i64::try_from(units).ok())
            .map(Self)
            .ok_or(MicrosError::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_of_the_range_are_exact_and_the_next_value_is_refused() {
        assert_eq!("9223372036854.775807".parse(), Ok(Micros::MAX));
        assert_eq!("-9223372036854.775808".parse(), Ok(Micros::MIN));
        assert_eq!(
            "9223372036854.775808".parse::<Micros>(),
            Err(MicrosError::OutOfRange)
        );
        assert_eq!(
            "-9223372036854.775809".parse::<Micros>(),
            Err(MicrosError::OutOfRange)
        );
        assert_eq!(Micros::MAX.to_string(), "9223372036854.775807");
        assert_eq!(Micros::MIN.to_string(), "-9223372036854.775808");
    }

    #[test]
    fn malformed_and_too_precise_texts_are_refused() {
        for bad in [
            "", "-", ".", "1.", ".5", "1e3", "1,5", " 1", "1.2.3", "--1", "NaN",
        ] {
            assert_eq!(
                bad.parse::<Micros>(),
                Err(MicrosError::Malformed),
                "{bad:?}"
            );
        }
        assert_eq!("0.0000001".parse::<Micros>(), Err(MicrosError::TooPrecise));
        assert_eq!("0.10000000".parse(), Ok(Micros(100_000)));
    }

    #[test]
    fn text_comes_back_as_it_was_written() {
        for text in ["61800.30", "0.006", "12", "-0.000001", "5.000000", "0.0"] {
            let (value, decimals) = Micros::parse_scaled(text).unwrap();
            assert_eq!(value.display(decimals).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn text_and_decimal_round_trip(units: i64) {
            let value = Micros(units);
            prop_assert_eq!(value.to_string().parse(), Ok(value));
            prop_assert_eq!(Micros::try_from(Decimal::from(value)), Ok(value));
            prop_assert_eq!(value.to_string().parse::<Decimal>().unwrap(), Decimal::from(value));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,30}") {
            let _ = text.parse::<Micros>();
        }
    }
}
