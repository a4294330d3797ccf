//! The candles of one instrument that its live topics show: of each period the newest and the one
//! before.
//!
//! A trade that is late for the newest candle still changes the one before it, which its topic then
//! shows again. A trade that is later still changes nothing here; its candle is put right where
//! all of them are, in the database.

use tickring_protocol::Trade;

use super::{Candle, CandleError, Period};

/// The candles that are still running, or were until just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    pairs: [Pair; 4],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pair {
    newest: Option<Candle>,
    before: Option<Candle>,
}

/// What a trade does to the candles of one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing: it is too late for the two that are kept.
    Nothing,
    /// It belongs to the newest, or makes the first.
    Newest,
    /// It makes a new candle; the newest until now is the one before from then on.
    Next,
    /// It belongs to the one before the newest, or makes it.
    Before,
}

impl Pair {
    /// The candle before is the newest of all that are older than the newest, so a trade between
    /// the two makes a candle that there has not been.
    fn change(&self, start: u64) -> Changed {
        match (self.newest, self.before) {
            (None, _) => Changed::Newest,
            (Some(newest), _) if start > newest.start_ns => Changed::Next,
            (Some(newest), _) if start == newest.start_ns => Changed::Newest,
            (_, Some(before)) if start < before.start_ns => Changed::Nothing,
            _ => Changed::Before,
        }
    }

    /// The candle that a trade of a span is to be folded into, if it is kept.
    fn candle(&self, start: u64) -> Option<&Candle> {
        let mut kept = [&self.newest, &self.before].into_iter().flatten();
        kept.find(|candle| candle.start_ns == start)
    }
}

impl Running {
    /// The newest candle of a period.
    pub fn newest(&self, period: Period) -> Option<&Candle> {
        self.pairs[period as usize].newest.as_ref()
    }

    /// The candle before the newest.
    pub fn before(&self, period: Period) -> Option<&Candle> {
        self.pairs[period as usize].before.as_ref()
    }

    /// Whether a trade has room in its candle of a period, which starts at `start_ns`, if that is
    /// kept.
    ///
    /// # Errors
    /// [`CandleError::Overflow`]
    pub fn check(&self, period: Period, start_ns: u64, trade: &Trade) -> Result<(), CandleError> {
        match self.pairs[period as usize].candle(start_ns) {
            Some(candle) => candle.volume_with(trade).map(drop),
            None => Ok(()),
        }
    }

    /// Folds a trade into its candle of a period, which starts at `start_ns`. By ascending `seq`.
    ///
    /// # Errors
    /// [`CandleError::Overflow`]: nothing has changed.
    pub fn fold(
        &mut self,
        (period, start_ns): (Period, u64),
        (seq, event_ns): (u64, u64),
        trade: &Trade,
    ) -> Result<Changed, CandleError> {
        let pair = &mut self.pairs[period as usize];
        let changed = pair.change(start_ns);
        let place = match changed {
            Changed::Nothing => return Ok(changed),
            Changed::Newest => &mut pair.newest,
            Changed::Next => {
                pair.before = pair.newest.take();
                &mut pair.newest
            }
            Changed::Before => &mut pair.before,
        };
        match place {
            Some(candle) if candle.start_ns == start_ns => {
                candle.fold(seq, event_ns, trade)?;
            }
            _ => *place = Some(Candle::new(start_ns, seq, event_ns, trade)),
        }
        Ok(changed)
    }

    /// The candles as numbers of fixed width, for a state that is saved: see [`Running::from_words`].
    pub fn words(&self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let candles = self.pairs.iter().flat_map(|p| [p.newest, p.before]);
        for (words, candle) in words.chunks_exact_mut(Candle::WORDS).zip(candles) {
            if let Some(candle) = candle {
                words.copy_from_slice(&candle.words());
            }
        }
        words
    }

    /// How many numbers [`Running::words`] gives.
    pub const WORDS: usize = 8 * Candle::WORDS;

    /// The candles that these words are of.
    pub fn from_words(words: &[u64; Self::WORDS]) -> Self {
        let mut running = Self::default();
        let places = running
            .pairs
            .iter_mut()
            .flat_map(|p| [&mut p.newest, &mut p.before]);
        for (words, place) in words.chunks_exact(Candle::WORDS).zip(places) {
            let words: &[u64; Candle::WORDS] = words.try_into().expect("chunks have that length");
            *place = Candle::from_words(words);
        }
        running
    }
}
