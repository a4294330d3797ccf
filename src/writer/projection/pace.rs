//! How many rows a transaction carries, and how often there is one: set by what the database
//! sustains.

use std::time::Duration;

/// The bounds of a [`Pace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceLimits {
    /// A commit that takes longer makes the next batch smaller: it bounds how long a transaction
    /// holds its locks, and how much a failed one has to do again. Default 4 s.
    pub longest: Duration,
    /// The shortest time between two commits of a lane that has something. Default 10 ms.
    pub min_period: Duration,
    /// How far the tables may be behind before batches are made for speed alone. Default 650 ms,
    /// so that they are within a second of the journal on a machine that is busy.
    pub max_lag: Duration,
    /// Fewest records of a full batch. Default 256.
    pub min_records: usize,
    /// Most records of a batch: bounds its memory, about 100 bytes each. Default 262,144.
    pub max_records: usize,
}

impl Default for PaceLimits {
    fn default() -> Self {
        Self {
            longest: Duration::from_secs(4),
            min_period: Duration::from_millis(10),
            max_lag: Duration::from_millis(650),
            min_records: 256,
            max_records: 262_144,
        }
    }
}

/// The control rule.
///
/// **Size**: a batch that was full lets the next one be larger by a quarter; one that took longer
/// than the limit, or failed, halves it. So a backlog always makes batches grow. That is right
/// because a larger batch never costs more per record: a trade changes a latest row and four
/// candles, and a batch writes each of them once, however many trades it has of it. Over 8,000
/// instruments, batches of 2,000 records wrote 5 rows for each, and of 16,000 to 120,000 wrote 1.8;
/// a rule that made batches smaller whenever commits got slow was seen to choke the database.
///
/// **Period**: an event's batch begins so long after the event that the commit, which takes as long
/// as commits took lately, ends within the longest lag: the longer it waits the fewer rows there are
/// to write. But no longer than eight times a commit, so that a database that has little to do
/// keeps the tables close behind, and spends an eighth of its time at most on that.
#[derive(Clone, Debug)]
pub struct Pace {
    limits: PaceLimits,
    records: usize,
    smoothed: Duration,
}

/// Records of the first full batch.
const FIRST: usize = 16_384;

impl Pace {
    /// Starts with a full batch of 16,384 records, within the limits, and the shortest period.
    pub fn new(limits: PaceLimits) -> Self {
        let records = FIRST.clamp(limits.min_records, limits.max_records);
        Self {
            limits,
            records,
            smoothed: Duration::ZERO,
        }
    }

    /// Records of a full batch now.
    pub fn records(&self) -> usize {
        self.records
    }

    /// How old the oldest record is when its batch begins, now.
    pub fn period(&self) -> Duration {
        let left = self.limits.max_lag.saturating_sub(self.smoothed);
        (self.smoothed * 8).min(left).max(self.limits.min_period)
    }

    /// A batch of `records` committed within `took`.
    pub fn committed(&mut self, records: usize, took: Duration) {
        self.smoothed = (self.smoothed * 7 + took) / 8;
        if took > self.limits.longest {
            self.halve();
        } else if records >= self.records {
            self.records = (self.records + self.records / 4).min(self.limits.max_records);
        }
    }

    /// A commit failed: the next batch is smaller.
    pub fn failed(&mut self) {
        self.halve();
    }

    fn halve(&mut self) {
        self.records = (self.records / 2).max(self.limits.min_records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A database that takes `per_record` for each record and `fixed` for each commit.
    fn settle(pace: &mut Pace, fixed: Duration, per_record: Duration) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..400 {
            let records = pace.records();
            took = fixed + per_record * records as u32;
            pace.committed(records, took);
        }
        took
    }

    #[test]
    fn a_backlog_makes_batches_grow_until_a_commit_takes_too_long() {
        let mut pace = Pace::new(PaceLimits::default());
        let took = settle(&mut pace, 500 * MS, Duration::from_micros(50));
        assert!((2_000 * MS..=5_000 * MS).contains(&took), "{took:?}");
        settle(&mut pace, MS, Duration::from_nanos(100));
        assert_eq!(pace.records(), 262_144);
    }

    #[test]
    fn a_commit_that_takes_too_long_or_fails_halves_the_batch() {
        let mut pace = Pace::new(PaceLimits::default());
        settle(&mut pace, MS, Duration::from_micros(1));
        pace.committed(262_144, 4_001 * MS);
        assert_eq!(pace.records(), 131_072);
        for _ in 0..40 {
            pace.failed();
        }
        assert_eq!(pace.records(), 256);
    }

    #[test]
    fn batches_that_are_not_full_do_not_grow() {
        let mut pace = Pace::new(PaceLimits::default());
        for _ in 0..100 {
            pace.committed(10, MS);
        }
        assert_eq!(pace.records(), FIRST);
        assert_eq!(pace.period(), 10 * MS);
    }

    #[test]
    fn a_batch_begins_in_time_for_its_commit_to_end_within_the_longest_lag() {
        let mut pace = Pace::new(PaceLimits::default());
        let mut settled = |took: Duration| {
            (0..200).for_each(|_| pace.committed(10, took));
            pace.period().as_millis()
        };
        assert!((310..=320).contains(&settled(40 * MS))); // eight times
        assert!((350..=360).contains(&settled(300 * MS))); // what is left of 650
        assert_eq!(settled(2_000 * MS), 10); // at once
    }
}
