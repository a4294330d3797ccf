//! A market made up from a seed.

use fastrand::Rng;
use tickring_protocol::{Micros, Quote, Side, Trade};

use crate::Content;

/// The first instruments of every made-up market; further ones get a number behind.
const NAMES: [&str; 26] = [
    "ACME", "BOLT", "CRUX", "DYNE", "ECHO", "FLUX", "GALE", "HALO", "IRIS", "JADE", "KITE", "LYNX",
    "MICA", "NOVA", "ONYX", "PINE", "QUAY", "RUNE", "SAGE", "TIDE", "UMBRA", "VOLT", "WREN",
    "XENO", "YARN", "ZINC",
];

/// The most instruments of a made-up market.
const MAX_SYMBOLS: u32 = 1_000_000;
/// The most ticks a second of a made-up market.
const MAX_RATE: f64 = 1e9;

/// How much faster ticks come in a burst than outside of one.
const BURST_FACTOR: f64 = 5.0;
/// How much of the time is a burst.
const BURST_SHARE: f64 = 0.1;
/// How long a burst lasts on average, in nanoseconds.
const BURST_NS: f64 = 200e6;
/// How much of a burst's ticks are of the one instrument that caused it.
const BURST_HOT: f64 = 0.5;
/// How hard calm makes up for what bursts (or their absence) left over or short: the rate changes by
/// this share for each second's worth of ticks, within [`CALM_BOUNDS`].
const CALM_PULL: f64 = 2.0;
/// How far that goes.
const CALM_BOUNDS: std::ops::RangeInclusive<f64> = 0.5..=2.0;
/// How many ticks are trades; the others are quotes.
const TRADE_SHARE: f64 = 0.25;
/// A lot, in shares: quantities are whole lots.
const LOT: i64 = 100 * Micros::SCALE;

/// What market to make up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SynthConfig {
    /// Instruments: 1 to 1,000,000. Popularity falls by Zipf's law, so the first is the busiest.
    pub symbols: u32,
    /// Ticks a second, of all instruments together, averaged over calm and bursts: above 0, up
    /// to 10^9.
    pub rate: f64,
    /// The same seed gives the same market.
    pub seed: u64,
    /// Event time of the market's start, in nanoseconds since 1970-01-01 UTC.
    pub start_ns: u64,
}

/// Why a market cannot be made up.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// [`SynthConfig::symbols`] is out of bounds.
    #[error("symbols: {0} is not between 1 and {MAX_SYMBOLS}")]
    Symbols(u32),
    /// [`SynthConfig::rate`] is out of bounds.
    #[error("rate: {0} is not above 0 and up to {MAX_RATE} ticks a second")]
    Rate(f64),
}

/// One tick of a made-up market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynthTick {
    /// Which instrument; [`Synth::symbol`] has its name.
    pub symbol: usize,
    /// When it is due, in nanoseconds since the market's start.
    pub due_ns: u64,
    /// When it happened: the market's start and `due_ns`; nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// What happened.
    pub content: Content,
}

/// A market made up from a seed: an endless iterator of ticks in the order of their times, the
/// same for the same [`SynthConfig`]. It reads no clock; [`Synth::next_due`] takes the time.
///
/// Each instrument has a tick size that fits its price and a mid that walks in ticks, with a
/// volatility that wanders around its usual value and a pull back to where the price began, so
/// that it stays plausible for hours. Quotes move the mid; trades happen at the bid or the offer
/// and take from its size. Ticks come at random moments, and now and then in bursts, half of
/// which concern one instrument.
///
/// ```
/// use tickring_feed::{Synth, SynthConfig};
///
/// let config = SynthConfig { symbols: 20, rate: 1000.0, seed: 7, start_ns: 0 };
/// let mut market = Synth::new(config)?;
/// // One second later, about a thousand ticks are due.
/// let mut due = 0;
/// while let Some(tick) = market.next_due(1_000_000_000) {
///     assert!(market.symbol(tick.symbol).len() >= 4);
///     due += 1;
/// }
/// assert!((300..5000).contains(&due));
/// # Ok::<(), tickring_feed::SynthError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Synth {
    rng: Rng,
    start_ns: u64,
    rate: f64,
    /// Ticks so far.
    made: f64,
    /// Average nanoseconds from one tick to the next outside of bursts.
    calm_gap_ns: f64,
    now_ns: f64,
    burst: Burst,
    instruments: Vec<Instrument>,
    /// Sums of the instruments' popularity; the last is the whole.
    popularity: Vec<f64>,
    pending: Option<SynthTick>,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    /// The instrument that causes it; `None` in calm.
    hot: Option<usize>,
    until_ns: f64,
}

impl Synth {
    /// A market at its start.
    ///
    /// # Errors
    /// [`SynthError`] when a figure is out of its bounds.
    pub fn new(config: SynthConfig) -> Result<Self, SynthError> {
        if !(1..=MAX_SYMBOLS).contains(&config.symbols) {
            return Err(SynthError::Symbols(config.symbols));
        }
        if !(config.rate > 0.0 && config.rate <= MAX_RATE) {
            return Err(SynthError::Rate(config.rate));
        }
        let mut rng = Rng::with_seed(config.seed);
        let instruments = (0..config.symbols as usize)
            .map(|index| Instrument::new(index, &mut rng))
            .collect();
        let popularity = (1..=config.symbols)
            .scan(0.0, |sum, rank| {
                *sum += 1.0 / f64::from(rank);
                Some(*sum)
            })
            .collect();
        // So that calm and bursts together come to the rate that was asked for.
        let calm_rate = config.rate / (1.0 - BURST_SHARE + BURST_SHARE * BURST_FACTOR);
        let calm_ns = BURST_NS * (1.0 - BURST_SHARE) / BURST_SHARE;
        let burst = Burst {
            hot: None,
            until_ns: around(&mut rng, calm_ns),
        };
        Ok(Self {
            rng,
            start_ns: config.start_ns,
            rate: config.rate,
            made: 0.0,
            calm_gap_ns: 1e9 / calm_rate,
            now_ns: 0.0,
            burst,
            instruments,
            popularity,
            pending: None,
        })
    }

    /// How many instruments there are.
    pub const fn symbols(&self) -> usize {
        self.instruments.len()
    }

    /// The name of an instrument.
    ///
    /// # Panics
    /// When there is no instrument of that index.
    pub fn symbol(&self, index: usize) -> &str {
        &self.instruments[index].name
    }

    /// The next tick if it is due `elapsed_ns` after the market's start.
    pub fn next_due(&mut self, elapsed_ns: u64) -> Option<SynthTick> {
        let tick = self.peek();
        (tick.due_ns <= elapsed_ns).then(|| {
            self.pending = None;
            tick
        })
    }

    /// When the next tick is due, in nanoseconds since the market's start.
    pub fn next_due_ns(&mut self) -> u64 {
        self.peek().due_ns
    }

    fn peek(&mut self) -> SynthTick {
        let tick = self.pending.take().unwrap_or_else(|| self.make());
        self.pending = Some(tick);
        tick
    }

    fn make(&mut self) -> SynthTick {
        self.advance();
        let symbol = match self.burst.hot {
            Some(hot) if self.rng.f64() < BURST_HOT => hot,
            _ => self.popular(),
        };
        let hot = self.burst.hot == Some(symbol);
        let content = self.instruments[symbol].tick(hot, &mut self.rng);
        let due_ns = self.now_ns as u64;
        SynthTick {
            symbol,
            due_ns,
            event_ns: self.start_ns.saturating_add(due_ns),
            content,
        }
    }

    /// Moves on to the moment of the next tick. Gaps are exponential, so a gap that reaches
    /// beyond the end of a burst or calm begins anew there.
    fn advance(&mut self) {
        loop {
            let gap = match self.burst.hot {
                Some(_) => self.calm_gap_ns / BURST_FACTOR,
                None => self.calm_gap_ns / self.correction(),
            };
            let next = self.now_ns + exponential(&mut self.rng, gap);
            if next < self.burst.until_ns {
                self.now_ns = next;
                self.made += 1.0;
                return;
            }
            self.now_ns = self.burst.until_ns;
            let (hot, length) = match self.burst.hot {
                Some(_) => (None, BURST_NS * (1.0 - BURST_SHARE) / BURST_SHARE),
                None => (Some(self.popular()), BURST_NS),
            };
            self.burst.hot = hot;
            self.burst.until_ns += around(&mut self.rng, length);
        }
    }

    /// How much faster than usual calm is, so that also a short run comes to its rate.
    fn correction(&self) -> f64 {
        let behind_s = self.now_ns / 1e9 - self.made / self.rate;
        (1.0 + CALM_PULL * behind_s).clamp(*CALM_BOUNDS.start(), *CALM_BOUNDS.end())
    }

    /// An instrument, by popularity.
    fn popular(&mut self) -> usize {
        let whole = self.popularity[self.popularity.len() - 1];
        let at = self.rng.f64() * whole;
        let index = self.popularity.partition_point(|sum| *sum <= at);
        index.min(self.popularity.len() - 1)
    }
}

impl Iterator for Synth {
    type Item = SynthTick;

    fn next(&mut self) -> Option<SynthTick> {
        let tick = self.peek();
        self.pending = None;
        Some(tick)
    }
}

/// One instrument. Prices are counted in ticks and sizes in lots, so both are exact.
#[derive(Clone, Debug)]
struct Instrument {
    name: String,
    /// The smallest step of a price.
    tick: Micros,
    price_decimals: u8,
    /// Where the price began, in ticks; it is pulled back there.
    anchor: i64,
    bid: i64,
    ask: i64,
    bid_lots: i64,
    ask_lots: i64,
    /// How far the mid moves with one quote, in ticks: one standard deviation.
    volatility: f64,
    /// What `volatility` wanders around.
    usual_volatility: f64,
    /// The usual distance of bid and ask, in ticks.
    usual_spread: i64,
    /// The part of a tick that the mid's moves have left over.
    left_over: f64,
}

impl Instrument {
    fn new(index: usize, rng: &mut Rng) -> Self {
        let round = index / NAMES.len();
        let name = match round {
            0 => NAMES[index].to_owned(),
            _ => format!("{}{round}", NAMES[index % NAMES.len()]),
        };
        // Prices from 0.50 to 2,000, as many below 30 as above.
        let price = 0.5 * 4000_f64.powf(rng.f64());
        let (tick, price_decimals) = match price {
            ..1.0 => (Micros(100), 4),
            ..500.0 => (Micros(10_000), 2),
            _ => (Micros(50_000), 2),
        };
        let anchor = (price * Micros::SCALE as f64) as i64 / tick.0;
        // One basis point a quote, but never so little that a price stands still.
        let usual_volatility = (anchor as f64 * 1e-4).max(0.3);
        let usual_spread = 1 + (anchor as f64 * 1e-4) as i64 + rng.i64(0..3);
        Self {
            name,
            tick,
            price_decimals,
            anchor,
            bid: anchor,
            ask: anchor + usual_spread,
            bid_lots: lots(rng),
            ask_lots: lots(rng),
            volatility: usual_volatility,
            usual_volatility,
            usual_spread,
            left_over: 0.0,
        }
    }

    /// What happens next; more when the instrument causes a burst (`hot`).
    fn tick(&mut self, hot: bool, rng: &mut Rng) -> Content {
        if rng.f64() < TRADE_SHARE {
            Content::Trade(self.trade(rng))
        } else {
            self.requote(hot, rng);
            Content::Quote(self.quote())
        }
    }

    fn requote(&mut self, hot: bool, rng: &mut Rng) {
        // Volatility wanders by up to 10 % a quote and is pulled back by 2 %.
        let wander = 1.0 + 0.1 * (2.0 * rng.f64() - 1.0);
        let pulled = self.volatility + 0.02 * (self.usual_volatility - self.volatility);
        let usual = self.usual_volatility;
        self.volatility = (pulled * wander).clamp(usual / 4.0, usual * 6.0);
        let heat = if hot { 2.0 } else { 1.0 };
        let pull = (self.anchor - self.bid) as f64 * 1e-4;
        let wanted = normal(rng) * self.volatility * heat + pull + self.left_over;
        let moved = wanted.round();
        self.left_over = wanted - moved;
        let spread = self.usual_spread + if hot { rng.i64(0..=2) } else { 0 } + rng.i64(0..=1);
        // A tenth of where it began is as far as a price falls.
        self.bid = (self.bid + moved as i64).max(self.anchor / 10).max(1);
        self.ask = self.bid + spread;
        (self.bid_lots, self.ask_lots) = (lots(rng), lots(rng));
    }

    fn trade(&mut self, rng: &mut Rng) -> Trade {
        let (side, price, there) = match rng.bool() {
            true => (Side::Buy, self.ask, &mut self.ask_lots),
            false => (Side::Sell, self.bid, &mut self.bid_lots),
        };
        let taken = rng.i64(1..=*there);
        // What a trade takes is there again at once: somebody fills the place up.
        *there = (*there - taken).max(1);
        Trade {
            price: Micros(price * self.tick.0),
            qty: Micros(taken * LOT),
            side,
            price_decimals: self.price_decimals,
            qty_decimals: 0,
        }
    }

    fn quote(&self) -> Quote {
        Quote {
            bid: Micros(self.bid * self.tick.0),
            bid_qty: Micros(self.bid_lots * LOT),
            ask: Micros(self.ask * self.tick.0),
            ask_qty: Micros(self.ask_lots * LOT),
            price_decimals: self.price_decimals,
            qty_decimals: 0,
        }
    }
}

/// A size: mostly a few lots, now and then many.
fn lots(rng: &mut Rng) -> i64 {
    1 + (exponential(rng, 6.0) as i64).min(500)
}

/// Half to one and a half of `mean`.
fn around(rng: &mut Rng, mean: f64) -> f64 {
    mean * (0.5 + rng.f64())
}

fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    // 1 - [0, 1) is never 0.
    -mean * (1.0 - rng.f64()).ln()
}

/// Close to a normal distribution of standard deviation 1, bounded by ±6.
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn market(symbols: u32, rate: f64, seed: u64) -> Synth {
        Synth::new(SynthConfig {
            symbols,
            rate,
            seed,
            start_ns: 1_700_000_000_000_000_000,
        })
        .unwrap()
    }

    #[test]
    fn a_seed_gives_one_market_and_another_seed_another() {
        let ticks = |seed| market(50, 1e4, seed).take(20_000).collect::<Vec<_>>();
        assert_eq!(ticks(1), ticks(1));
        assert_ne!(ticks(1), ticks(2));
    }

    #[test]
    fn taking_what_is_due_in_steps_gives_the_same_ticks_as_taking_all() {
        let all: Vec<_> = market(5, 1e3, 3)
            .take_while(|t| t.due_ns <= 2_000_000_000)
            .collect();
        let mut stepped = market(5, 1e3, 3);
        let mut seen = Vec::new();
        for elapsed_ns in (0..=2_000_000_000).step_by(1_000_000) {
            while let Some(tick) = stepped.next_due(elapsed_ns) {
                assert!(tick.due_ns <= elapsed_ns);
                seen.push(tick);
            }
            assert!(stepped.next_due_ns() > elapsed_ns);
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn the_rate_is_kept_on_average_and_bursts_stand_out() {
        let mut per_100_ms = vec![0_u32; 3000];
        for tick in market(100, 1000.0, 4).take_while(|t| t.due_ns < 300_000_000_000) {
            per_100_ms[(tick.due_ns / 100_000_000) as usize] += 1;
        }
        let rate = f64::from(per_100_ms.iter().sum::<u32>()) / 300.0;
        assert!((980.0..1020.0).contains(&rate), "{rate} ticks a second");
        let busy = per_100_ms.iter().filter(|&&ticks| ticks > 200).count();
        assert!((50..500).contains(&busy), "{busy} of 3000 are busy");
    }

    #[test]
    fn a_run_of_a_few_seconds_comes_close_to_its_rate() {
        for seed in 0..50 {
            let ticks = market(10, 2000.0, seed).take_while(|t| t.due_ns < 5_000_000_000);
            let rate = ticks.count() as f64 / 5.0;
            assert!((1600.0..2400.0).contains(&rate), "{rate} with seed {seed}");
        }
    }

    #[test]
    fn the_first_instruments_are_the_most_popular_and_all_have_names_of_their_own() {
        let market = market(200, 1e5, 5);
        let names: std::collections::HashSet<_> = (0..market.symbols())
            .map(|i| market.symbol(i).to_owned())
            .collect();
        assert_eq!(names.len(), 200);
        let mut ticks = vec![0_u32; 200];
        market
            .take(200_000)
            .for_each(|tick| ticks[tick.symbol] += 1);
        assert!(
            ticks[0] > 3 * ticks[9] && ticks[9] > 3 * ticks[99],
            "{ticks:?}"
        );
        assert!(ticks.iter().all(|&n| n > 0));
    }

    #[test]
    fn figures_out_of_bounds_are_refused() {
        let config = SynthConfig {
            symbols: 1,
            rate: 1.0,
            seed: 0,
            start_ns: 0,
        };
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 2e9] {
            assert!(matches!(
                Synth::new(SynthConfig { rate, ..config }),
                Err(SynthError::Rate(_))
            ));
        }
        for symbols in [0, MAX_SYMBOLS + 1] {
            let refused = Synth::new(SynthConfig { symbols, ..config });
            assert_eq!(refused.err(), Some(SynthError::Symbols(symbols)));
        }
    }

    #[test]
    fn prices_move_but_stay_near_where_they_began() {
        let mut market = market(26, 1e4, 6);
        let anchors: Vec<_> = market.instruments.iter().map(|i| i.anchor).collect();
        let mut bids = vec![std::collections::HashSet::new(); 26];
        for tick in market.by_ref().take(500_000) {
            if let Content::Quote(quote) = tick.content {
                bids[tick.symbol].insert(quote.bid);
            }
        }
        for (instrument, anchor) in market.instruments.iter().zip(anchors) {
            let ratio = instrument.bid as f64 / anchor as f64;
            assert!(
                (0.4..2.5).contains(&ratio),
                "{} is at {ratio}",
                instrument.name
            );
        }
        assert!(bids.iter().all(|seen| seen.len() > 10));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_tick_is_plausible(seed: u64, symbols in 1..60_u32, rate in 1.0..1e6) {
            let mut quotes = std::collections::HashMap::new();
            let mut last_ns = 0;
            for tick in market(symbols, rate, seed).take(3000) {
                prop_assert!(tick.due_ns >= last_ns);
                last_ns = tick.due_ns;
                prop_assert_eq!(tick.event_ns, 1_700_000_000_000_000_000 + tick.due_ns);
                match tick.content {
                    Content::Quote(q) => {
                        prop_assert!(Micros(0) < q.bid && q.bid < q.ask);
                        prop_assert!(q.bid_qty.0 >= LOT && q.ask_qty.0 >= LOT);
                        quotes.insert(tick.symbol, q);
                    }
                    Content::Trade(t) => {
                        prop_assert!(t.qty.0 >= LOT && t.qty.0 % LOT == 0);
                        if let Some(q) = quotes.get(&tick.symbol) {
                            let (price, offered) = match t.side {
                                Side::Buy => (q.ask, q.ask_qty),
                                _ => (q.bid, q.bid_qty),
                            };
                            prop_assert_eq!(t.price, price);
                            prop_assert!(t.qty <= offered);
                        }
                    }
                }
            }
        }
    }
}
