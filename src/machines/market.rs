//! `market/…`: the trades and quotes of one instrument, and the candles that are views of it.

use std::sync::Arc;

use tickring_protocol::{
    ErrorCode, EventKind, MarketState, Micros, PUBLISH, Publish, Quote, Trade,
};

use super::stream::event_time;
use super::{Command, Machine, Outcome, Recorded, Refusal, Unreadable};
use crate::market::{Calendar, Calendars, Candle, CandleError, Changed, Clock, Period, Running};

/// Keeps an instrument's last trade, best bid and offer, and its running candles. The snapshot is
/// the two former and the candle of the day; the candles are views, numbered as [`Period`] is.
///
/// A trade belongs to the candles of its own event time. Its day is the trading day of the
/// instrument's calendar, which also tells in which sessions a trade counts for the day; in the
/// shorter candles each trade counts. See [`Running`] for trades that are late.
#[derive(Clone, Debug)]
pub struct Market {
    calendar: Arc<Calendar>,
    clock: Clock,
    /// The seq of the newest event.
    seq: u64,
    trade: Option<(u64, Trade)>,
    quote: Option<(u64, Quote)>,
    candles: Running,
    /// The date of the newest candle of a day, in days since 1970-01-01.
    day: i32,
}

/// The layout of a saved state.
const VERSION: u64 = 1;
/// A state is its layout, the seq, a MARKET_STATE, and the candles.
const STATE_LEN: usize = 16 + MarketState::LEN + 8 * Running::WORDS;

impl Default for Market {
    /// Of an instrument that trades around the clock.
    fn default() -> Self {
        Self::new(Arc::clone(Calendars::built_in().of("")))
    }
}

impl Market {
    /// Of an instrument that trades by `calendar`.
    pub fn new(calendar: Arc<Calendar>) -> Self {
        Self {
            calendar,
            clock: Clock::default(),
            seq: 0,
            trade: None,
            quote: None,
            candles: Running::default(),
            day: 0,
        }
    }

    fn trade(
        &mut self,
        seq: u64,
        event_ns: u64,
        trade: Trade,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        if trade.qty < Micros(0) {
            return Err(Refusal::new(ErrorCode::OutOfRange, "qty is negative"));
        }
        let moment = self.clock.at(&self.calendar, event_ns);
        let periods = match self.calendar.is_in_day(moment.session) {
            true => &Period::ALL[..],
            false => &Period::ALL[..Period::Day as usize],
        };
        let starts = Period::ALL.map(|period| period.start(event_ns, moment.day_start_ns));
        for &period in periods {
            let room = self.candles.check(period, starts[period as usize], &trade);
            room.map_err(|error| no_room(period, error))?;
        }
        for &period in periods {
            let candle = (period, starts[period as usize]);
            let folded = self.candles.fold(candle, (seq, event_ns), &trade);
            let changed = folded.map_err(|error| no_room(period, error))?;
            if period == Period::Day && matches!(changed, Changed::Newest | Changed::Next) {
                self.day = moment.day;
            }
            self.tell(period, changed, out);
        }
        if self.trade.is_none_or(|(at, _)| at <= event_ns) {
            self.trade = Some((event_ns, trade));
        }
        Ok(())
    }

    /// Tells a candle's topic what a trade has changed: a candle that has just ended if its end is
    /// still to be shown, one that changed although it had ended, and in any case the newest.
    fn tell(&self, period: Period, changed: Changed, out: &mut Outcome) {
        let view = period as u8;
        let ended = match changed {
            Changed::Nothing => return,
            Changed::Newest => None,
            Changed::Next => self.candles.before(period).filter(|_| out.is_unseen(view)),
            Changed::Before => self.candles.before(period),
        };
        if let Some(candle) = ended {
            let body = |out: &mut Vec<u8>| candle.shown().encode(out);
            out.view_event(view, EventKind::Candle as u16, candle.close_ns, body);
        }
        out.changed(view);
    }

    fn quote(&mut self, event_ns: u64, quote: Quote) -> Result<(), Refusal> {
        if quote.bid_qty < Micros(0) || quote.ask_qty < Micros(0) {
            return Err(Refusal::new(
                ErrorCode::OutOfRange,
                "bid_qty or ask_qty is negative",
            ));
        }
        if self.quote.is_none_or(|(at, _)| at <= event_ns) {
            self.quote = Some((event_ns, quote));
        }
        Ok(())
    }

    fn state(&self) -> MarketState {
        let mut state = MarketState {
            trade: self.trade,
            quote: self.quote,
            ..MarketState::default()
        };
        if let Some(day) = self.candles.newest(Period::Day) {
            state.day = self.day;
            (state.open, state.high, state.low) = (day.open, day.high, day.low);
            (state.volume, state.trades) = (day.volume, day.trades);
        }
        state
    }
}

fn no_room(period: Period, error: CandleError) -> Refusal {
    let CandleError::Overflow { field } = error;
    let text = format!(
        "qty would push the {field} of the {} candle out of range",
        period.name()
    );
    Refusal::new(ErrorCode::OutOfRange, text)
}

/// Which view of which market topic a candle topic shows: `1m/AAPL` the candles of a minute of
/// `AAPL`.
///
/// # Errors
/// [`ErrorCode::BadName`] telling how such a topic is named.
pub fn candle_view(name: &str) -> Result<(u8, &str), Refusal> {
    let (period, instrument) = name.split_once('/').unwrap_or((name, ""));
    match Period::from_name(period) {
        Some(period) if !instrument.is_empty() => Ok((period as u8, instrument)),
        _ => Err(Refusal::new(
            ErrorCode::BadName,
            "a candle topic is called candle/PERIOD/INSTRUMENT, with a period of 1s, 1m, 1h or 1d: \
             candle/1m/AAPL shows the minutes of market/AAPL",
        )),
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
        let seq = self.seq + 1;
        match EventKind::from_u16(publish.kind) {
            Some(EventKind::Trade) => {
                self.trade(seq, event_ns, Trade::decode(publish.body)?, out)?;
            }
            Some(EventKind::Quote) => self.quote(event_ns, Quote::decode(publish.body)?)?,
            _ => {
                return Err(Refusal::new(
                    ErrorCode::BadCommand,
                    "a market topic takes events of kind TRADE and QUOTE",
                ));
            }
        }
        self.seq = seq;
        out.event(publish.kind, event_ns, publish.body);
        Ok(())
    }

    fn snapshot(&self, out: &mut Vec<u8>) -> Option<u16> {
        self.state().encode(out);
        Some(EventKind::MarketState as u16)
    }

    fn view(&self, view: u8, out: &mut Vec<u8>) -> Option<(u16, u64)> {
        let candle: &Candle = self.candles.newest(*Period::ALL.get(usize::from(view))?)?;
        candle.shown().encode(out);
        Some((EventKind::Candle as u16, candle.close_ns))
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        self.state().encode(out);
        for word in self.candles.words() {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn load(&mut self, state: &[u8]) -> Result<(), Unreadable> {
        let word = |at: usize| {
            state
                .get(at..)?
                .first_chunk()
                .map(|b| u64::from_le_bytes(*b))
        };
        if state.len() != STATE_LEN || word(0) != Some(VERSION) {
            return Err(Unreadable::new("its state is of another version's layout"));
        }
        let (head, candles) = state.split_at(16 + MarketState::LEN);
        let shown = MarketState::decode(&head[16..])?;
        (self.trade, self.quote, self.day) = (shown.trade, shown.quote, shown.day);
        self.seq = word(8).expect("it is as long as that");
        let mut words = [0; Running::WORDS];
        for (word, bytes) in words.iter_mut().zip(candles.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks have that length"));
        }
        self.candles = Running::from_words(&words);
        Ok(())
    }

    fn replay(&mut self, event: &Recorded<'_>) -> Result<(), Unreadable> {
        // Nobody looks at views yet.
        let out = &mut Outcome::default();
        let applied = match EventKind::from_u16(event.kind) {
            Some(EventKind::Trade) => {
                self.trade(event.seq, event.event_ns, Trade::decode(event.body)?, out)
            }
            Some(EventKind::Quote) => self.quote(event.event_ns, Quote::decode(event.body)?),
            _ => return Err(Unreadable::new("a market topic has trades and quotes only")),
        };
        self.seq = event.seq;
        applied.map_err(|refusal| Unreadable::new(refusal.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_NS: u64 = 86_400_000_000_000;

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
        apply(market, &payload, &mut Outcome::default())
    }

    fn apply(market: &mut Market, payload: &[u8], out: &mut Outcome) -> Result<(), Refusal> {
        let command = Command {
            code: PUBLISH,
            payload,
            session: 1,
            now_ns: 5,
            internal: false,
        };
        market.apply(&command, out)
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

    #[test]
    fn a_volume_that_does_not_fit_into_a_shorter_candle_is_refused_by_its_name() {
        // Of a share, only the regular session counts for the day, but every trade for its hour.
        let calendars = Calendars::load("default = 'us-equity'").unwrap();
        let mut market = Market::new(Arc::clone(calendars.of("X")));
        let at = 1_772_445_600_000_000_000; // 2026-03-02 10:00 UTC: before the market
        trade(&mut market, at, 10, i64::MAX).unwrap();
        let refusal = trade(&mut market, at + 1, 10, 1).unwrap_err();
        assert_eq!(
            refusal.text,
            "qty would push the volume of the 1s candle out of range"
        );
        let now = state(&market);
        assert_eq!((now.trades, now.volume, now.day), (0, Micros(0), 0));
        assert_eq!(now.trade.map(|(_, trade)| trade.qty), Some(Micros::MAX));
    }

    #[test]
    fn views_cost_nothing_unless_somebody_looks_and_do_not_change_what_happens() {
        let payload = |event_ns| {
            let (mut body, mut payload) = (Vec::new(), Vec::new());
            Trade::default().encode(&mut body);
            let kind = EventKind::Trade as u16;
            Publish {
                kind,
                event_ns,
                body: &body,
            }
            .encode(&mut payload);
            payload
        };
        let (mut seen, mut unseen) = (Market::default(), Market::default());
        // The first, the next, the one before the newest, one too late, and the next again.
        for (second, events) in [(5, 0), (6, 1), (5, 1), (3, 0), (7, 1)] {
            let mut out = Outcome::default();
            out.begin(1, 1); // the seconds are watched, and not all told yet
            apply(&mut seen, &payload(second * 1_000_000_000), &mut out).unwrap();
            assert_eq!(out.view_events().count(), events);
            assert_eq!(out.unseen(), 1);
            out.begin(0, 0);
            apply(&mut unseen, &payload(second * 1_000_000_000), &mut out).unwrap();
            assert_eq!((out.view_events().count(), out.unseen()), (0, 0));
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        seen.save(&mut a);
        unseen.save(&mut b);
        assert_eq!(a, b);
    }

    proptest! {
        #[test]
        fn a_state_that_is_saved_and_loaded_goes_on_as_if_nothing_had_been(
            trades in prop::collection::vec((0u64..200_000_000_000, 1i64..100, 0i64..100), 1..40),
            cut in 0usize..40,
        ) {
            let (mut whole, mut first) = (Market::default(), Market::default());
            for (n, &(at, price, qty)) in trades.iter().enumerate() {
                if n == cut {
                    let mut state = Vec::new();
                    first.save(&mut state);
                    first = Market::default();
                    first.load(&state).unwrap();
                }
                trade(&mut whole, at, price, qty).unwrap();
                trade(&mut first, at, price, qty).unwrap();
            }
            let (mut a, mut b) = (Vec::new(), Vec::new());
            whole.save(&mut a);
            first.save(&mut b);
            prop_assert_eq!(a, b);
        }

        #[test]
        fn each_views_newest_candle_is_the_fold_of_its_trades(
            trades in prop::collection::vec((0u64..200_000_000_000, 1i64..100, 0i64..100), 1..60)
        ) {
            let mut market = Market::default();
            for &(at, price, qty) in &trades {
                trade(&mut market, at, price, qty).unwrap();
            }
            for period in Period::ALL {
                let start = |at: u64| period.start(at, 0);
                let newest = trades.iter().map(|t| start(t.0)).max().unwrap();
                let mut of_span: Vec<_> =
                    trades.iter().enumerate().filter(|(_, t)| start(t.0) == newest).collect();
                of_span.sort_by_key(|(seq, t)| (t.0, *seq));
                let mut body = Vec::new();
                let (kind, event_ns) = market.view(period as u8, &mut body).unwrap();
                let candle = tickring_protocol::Candle::decode(&body).unwrap();
                prop_assert_eq!(kind, EventKind::Candle as u16);
                prop_assert_eq!(event_ns, of_span.last().unwrap().1.0);
                prop_assert_eq!(candle.start_ns, newest);
                prop_assert_eq!(candle.open.0, of_span[0].1.1);
                prop_assert_eq!(candle.close.0, of_span.last().unwrap().1.1);
                prop_assert_eq!(candle.high.0, of_span.iter().map(|(_, t)| t.1).max().unwrap());
                prop_assert_eq!(candle.low.0, of_span.iter().map(|(_, t)| t.1).min().unwrap());
                prop_assert_eq!(candle.volume.0, of_span.iter().map(|(_, t)| t.2).sum::<i64>());
                prop_assert_eq!(candle.trades, of_span.len() as u64);
            }
        }

        #[test]
        fn the_day_equals_a_fold_over_its_trades(
            trades in prop::collection::vec((0u64..DAY_NS, 1i64..1_000_000, 0i64..1_000_000), 1..50)
        ) {
            let mut market = Market::default();
            for &(at, price, qty) in &trades {
                trade(&mut market, at, price, qty).unwrap();
            }
            let now = state(&market);
            let first = trades.iter().enumerate().min_by_key(|(seq, t)| (t.0, *seq)).unwrap();
            prop_assert_eq!(now.open.0, first.1.1);
            prop_assert_eq!(now.high.0, trades.iter().map(|t| t.1).max().unwrap());
            prop_assert_eq!(now.low.0, trades.iter().map(|t| t.1).min().unwrap());
            prop_assert_eq!(now.volume.0, trades.iter().map(|t| t.2).sum::<i64>());
            prop_assert_eq!(now.trades, trades.len() as u64);
        }
    }
}
