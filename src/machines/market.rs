//! `market/…`: the trades and quotes of one instrument.

use tickring_protocol::{
    ErrorCode, EventKind, MarketState, Micros, PUBLISH, Publish, Quote, Trade,
};

use super::stream::event_time;
use super::{Command, Machine, Outcome, Recorded, Refusal, Unreadable};

const DAY_NS: u64 = 86_400_000_000_000;

/// Keeps an instrument's last trade, best bid and offer, and the day's open, high, low and
/// volume; that is the snapshot. The day is the UTC day of a trade's event time. A trade of an
/// earlier day than the newest one (a late tick) is handed on but leaves the state as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Market {
    state: MarketState,
}

impl Market {
    fn trade(&mut self, event_ns: u64, trade: Trade) -> Result<(), Refusal> {
        if trade.qty < Micros(0) {
            return Err(Refusal::new(ErrorCode::OutOfRange, "qty is negative"));
        }
        let day = (event_ns / DAY_NS) as i32; // 2^64 ns are 213,503 days
        let state = &mut self.state;
        if state.trade.is_none() || day > state.day {
            state.day = day;
            (state.open, state.high, state.low) = (trade.price, trade.price, trade.price);
            (state.volume, state.trades) = (trade.qty, 1);
        } else if day == state.day {
            state.volume = state.volume.checked_add(trade.qty).ok_or_else(|| {
                Refusal::new(
                    ErrorCode::OutOfRange,
                    "qty would push the day's volume out of range",
                )
            })?;
            state.high = state.high.max(trade.price);
            state.low = state.low.min(trade.price);
            state.trades += 1;
        } else {
            return Ok(());
        }
        if state.trade.is_none_or(|(at, _)| at <= event_ns) {
            state.trade = Some((event_ns, trade));
        }
        Ok(())
    }

    fn quote(&mut self, event_ns: u64, quote: Quote) -> Result<(), Refusal> {
        if quote.bid_qty < Micros(0) || quote.ask_qty < Micros(0) {
            return Err(Refusal::new(
                ErrorCode::OutOfRange,
                "bid_qty or ask_qty is negative",
            ));
        }
        if self.state.quote.is_none_or(|(at, _)| at <= event_ns) {
            self.state.quote = Some((event_ns, quote));
        }
        Ok(())
    }
}

impl Machine for Market {
    fn apply(&mut self, command: &Command<'_>, out: &mut Outcome) -> Result<(), Refusal> {
        if command.code != PUBLISH {
            return Err(Refusal::new(
                ErrorCode::UnknownCommand,
                "a market topic knows one command: PUBLISH",
            ));
        }
        let publish = Publish::decode(command.payload)?;
        let event_ns = event_time(&publish, command);
        match EventKind::from_u16(publish.kind) {
            Some(EventKind::Trade) => self.trade(event_ns, Trade::decode(publish.body)?)?,
            Some(EventKind::Quote) => self.quote(event_ns, Quote::decode(publish.body)?)?,
            _ => {
                return Err(Refusal::new(
                    ErrorCode::BadCommand,
                    "a market topic takes events of kind TRADE and QUOTE",
                ));
            }
        }
        out.event(publish.kind, event_ns, publish.body);
        Ok(())
    }

    fn snapshot(&self, out: &mut Vec<u8>) -> Option<u16> {
        self.state.encode(out);
        Some(EventKind::MarketState as u16)
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.state.encode(out);
    }

    fn load(&mut self, state: &[u8]) -> Result<(), Unreadable> {
        self.state = MarketState::decode(state)?;
        Ok(())
    }

    fn replay(&mut self, event: &Recorded<'_>) -> Result<(), Unreadable> {
        let applied = match EventKind::from_u16(event.kind) {
            Some(EventKind::Trade) => self.trade(event.event_ns, Trade::decode(event.body)?),
            Some(EventKind::Quote) => self.quote(event.event_ns, Quote::decode(event.body)?),
            _ => return Err(Unreadable::new("a market topic has trades and quotes only")),
        };
        applied.map_err(|refusal| Unreadable::new(refusal.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn publish(
        market: &mut Market,
        kind: EventKind,
        event_ns: u64,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let mut payload = Vec::new();
        Publish {
            kind: kind as u16,
            event_ns,
            body,
        }
        .encode(&mut payload);
        let command = Command {
            code: PUBLISH,
            payload: &payload,
            session: 1,
            now_ns: 5,
            internal: false,
        };
        market.apply(&command, &mut Outcome::default())
    }

    fn trade(market: &mut Market, event_ns: u64, price: i64, qty: i64) -> Result<(), Refusal> {
        let mut body = Vec::new();
        Trade {
            price: Micros(price),
            qty: Micros(qty),
            ..Trade::default()
        }
        .encode(&mut body);
        publish(market, EventKind::Trade, event_ns, &body)
    }

    fn state(market: &Market) -> MarketState {
        let mut body = Vec::new();
        assert_eq!(
            market.snapshot(&mut body),
            Some(EventKind::MarketState as u16)
        );
        MarketState::decode(&body).unwrap()
    }

    #[test]
    fn a_new_day_starts_its_own_open_high_low_and_volume() {
        let mut market = Market::default();
        trade(&mut market, DAY_NS, 10, 1).unwrap();
        trade(&mut market, DAY_NS + 1, 30, 2).unwrap();
        trade(&mut market, 2 * DAY_NS, 20, 4).unwrap();
        let now = state(&market);
        assert_eq!(
            (now.day, now.open, now.high, now.low),
            (2, Micros(20), Micros(20), Micros(20))
        );
        assert_eq!((now.volume, now.trades), (Micros(4), 1));
    }

    #[test]
    fn a_late_trade_of_an_earlier_day_changes_nothing() {
        let mut market = Market::default();
        trade(&mut market, 2 * DAY_NS, 20, 4).unwrap();
        let before = state(&market);
        trade(&mut market, DAY_NS, 1, 1).unwrap();
        assert_eq!(state(&market), before);
    }

    #[test]
    fn a_late_quote_does_not_replace_a_newer_one() {
        let mut market = Market::default();
        let quote = |bid| Quote {
            bid: Micros(bid),
            ..Quote::default()
        };
        let body = |bid| {
            let mut body = Vec::new();
            quote(bid).encode(&mut body);
            body
        };
        publish(&mut market, EventKind::Quote, 9, &body(1)).unwrap();
        publish(&mut market, EventKind::Quote, 8, &body(2)).unwrap();
        assert_eq!(state(&market).quote, Some((9, quote(1))));
    }

    #[test]
    fn a_volume_that_does_not_fit_is_refused_and_changes_nothing() {
        let mut market = Market::default();
        trade(&mut market, 1, 10, i64::MAX).unwrap();
        let before = state(&market);
        assert_eq!(
            trade(&mut market, 2, 99, 1).unwrap_err().code,
            ErrorCode::OutOfRange
        );
        assert_eq!(state(&market), before);
    }

    proptest! {
        #[test]
        fn the_day_equals_a_fold_over_its_trades(
            trades in prop::collection::vec((0u64..DAY_NS, 1i64..1_000_000, 0i64..1_000_000), 1..50)
        ) {
            let mut market = Market::default();
            for &(at, price, qty) in &trades {
                trade(&mut market, at, price, qty).unwrap();
            }
            let now = state(&market);
            prop_assert_eq!(now.open.0, trades[0].1);
            prop_assert_eq!(now.high.0, trades.iter().map(|t| t.1).max().unwrap());
            prop_assert_eq!(now.low.0, trades.iter().map(|t| t.1).min().unwrap());
            prop_assert_eq!(now.volume.0, trades.iter().map(|t| t.2).sum::<i64>());
            prop_assert_eq!(now.trades, trades.len() as u64);
        }
    }
}
