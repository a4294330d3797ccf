//! Bodies made from `rust_decimal` numbers, and refused by the name of the field that does not fit.

use rust_decimal::Decimal;

use crate::{Micros, MicrosError, Quote, Side, Trade};

/// Why a number cannot be part of a body; nothing is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {value}: {error}")]
pub struct FieldError {
    /// The field.
    pub field: &'static str,
    /// What it was to be.
    pub value: Decimal,
    /// Why it cannot.
    pub error: MicrosError,
}

/// The number exactly, and how many decimals it was written with, as a hint for showing it.
fn number(field: &'static str, value: Decimal) -> Result<(Micros, u8), FieldError> {
    let fitting = Micros::try_from(value);
    let micros = fitting.map_err(|error| FieldError {
        field,
        value,
        error,
    })?;
    Ok((micros, value.scale().min(6) as u8)) // at most 6
}

impl Trade {
    /// A trade of these numbers.
    ///
    /// # Errors
    /// [`FieldError`] names the field that does not fit [`Micros`].
    ///
    /// ```
    /// use tickring_protocol::{Side, Trade};
    ///
    /// let trade = Trade::from_decimals("61800.30".parse()?, "0.006".parse()?, Side::Sell)?;
    /// assert_eq!((trade.price.0, trade.price_decimals), (61_800_300_000, 2));
    /// let beyond = "9223372036854.775808".parse()?;
    /// assert_eq!(
    ///     Trade::from_decimals(beyond, 1.into(), Side::Sell).unwrap_err().to_string(),
    ///     "`price` is 9223372036854.775808: beyond ±9223372036854.775807"
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_decimals(price: Decimal, qty: Decimal, side: Side) -> Result<Self, FieldError> {
        let (price, price_decimals) = number("price", price)?;
        let (qty, qty_decimals) = number("qty", qty)?;
        Ok(Self {
            price,
            qty,
            side,
            price_decimals,
            qty_decimals,
        })
    }
}

impl Quote {
    /// A best bid and offer, each as price and quantity.
    ///
    /// # Errors
    /// [`FieldError`] names the field that does not fit [`Micros`].
    pub fn from_decimals(
        (bid, bid_qty): (Decimal, Decimal),
        (ask, ask_qty): (Decimal, Decimal),
    ) -> Result<Self, FieldError> {
        let (bid, bid_decimals) = number("bid", bid)?;
        let (bid_qty, bid_qty_decimals) = number("bid_qty", bid_qty)?;
        let (ask, ask_decimals) = number("ask", ask)?;
        let (ask_qty, ask_qty_decimals) = number("ask_qty", ask_qty)?;
        Ok(Self {
            bid,
            bid_qty,
            ask,
            ask_qty,
            // A number is never shown with fewer than it has.
            price_decimals: bid_decimals.min(ask_decimals),
            qty_decimals: bid_qty_decimals.min(ask_qty_decimals),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: &str = "9223372036854.775807";
    const BEYOND: &str = "9223372036854.775808";

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn the_ends_of_the_range_fit_and_come_back_as_decimals() {
        for text in [LARGEST, "-9223372036854.775807", "-9223372036854.775808"] {
            let trade = Trade::from_decimals(decimal(text), decimal(LARGEST), Side::Buy).unwrap();
            assert_eq!(Decimal::from(trade.price).to_string(), text);
            assert_eq!(Decimal::from(trade.qty).to_string(), LARGEST);
        }
    }

    #[test]
    fn the_next_value_is_refused_by_the_name_of_its_field() {
        let one = Decimal::ONE;
        let negative = String::from("-9223372036854.775809");
        for (text, beyond) in [(BEYOND, decimal(BEYOND)), (&negative, decimal(&negative))] {
            let of_trade = [
                Trade::from_decimals(beyond, one, Side::Buy),
                Trade::from_decimals(one, beyond, Side::Buy),
            ];
            let of_quote = [
                Quote::from_decimals((beyond, one), (one, one)),
                Quote::from_decimals((one, beyond), (one, one)),
                Quote::from_decimals((one, one), (beyond, one)),
                Quote::from_decimals((one, one), (one, beyond)),
            ];
            let errors = of_trade.into_iter().map(Result::unwrap_err);
            let errors = errors.chain(of_quote.into_iter().map(Result::unwrap_err));
            let fields = ["price", "qty", "bid", "bid_qty", "ask", "ask_qty"];
            for (error, field) in errors.zip(fields) {
                let told = format!("`{field}` is {text}: beyond ±{LARGEST}");
                assert_eq!(
                    (error.error, error.to_string()),
                    (MicrosError::OutOfRange, told)
                );
            }
        }
        let fine = Trade::from_decimals(decimal("0.0000001"), one, Side::Buy).unwrap_err();
        assert_eq!((fine.field, fine.error), ("price", MicrosError::TooPrecise));
    }
}
