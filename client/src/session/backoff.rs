//! When to try again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Capped exponential back-off with jitter: the k-th wait in a row lies in the upper half of
/// `min * 2^k`, capped at `max`, so that clients of one lost server do not return in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    step: u32,
    random: u64,
}

impl Backoff {
    /// `seed` 0 takes one from the operating system.
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        let random = match seed {
            0 => RandomState::new().hash_one(0),
            seed => seed,
        };
        Self {
            min: min.max(Duration::from_millis(1)),
            max: max.max(min),
            step: 0,
            random,
        }
    }

    pub(crate) fn wait(&mut self) -> Duration {
        let full = self
            .min
            .saturating_mul(1u32.checked_shl(self.step).unwrap_or(u32::MAX))
            .min(self.max);
        self.step = (self.step + 1).min(31);
        let half = full / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.next_random() % span.saturating_add(1).max(1))
    }

    /// The connection has held long enough for the next failure to be a new one.
    pub(crate) fn settle(&mut self) {
        self.step = 0;
    }

    /// How long a connection must hold to [`Backoff::settle`].
    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// splitmix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
