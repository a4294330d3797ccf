//! Histograms whose buckets are powers of two: recording is a few instructions, and adding up those
//! of several threads needs no agreement on bounds.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bucket `i` holds the values above 2^(i-1) and up to 2^i; bucket 0 holds 0 and 1.
const BUCKETS: usize = 65;

/// How often which magnitude occurred, kept by one thread. Values have the unit that its owner
/// documents, nanoseconds for times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            sum: 0,
        }
    }
}

impl Histogram {
    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts `value` as often as `times` says.
    #[inline]
    pub fn record_many(&mut self, value: u64, times: u64) {
        self.counts[bucket(value)] += times;
        self.sum = self.sum.wrapping_add(value.wrapping_mul(times));
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The buckets up to 2^`first`, and one by one up to 2^`last`: each one's upper bound and its
    /// own count. What is larger is only in [`Histogram::count`].
    pub fn buckets(&self, first: u32, last: u32) -> impl Iterator<Item = (u64, u64)> {
        debug_assert!(first <= last && last < 64);
        let below: u64 = self.counts[..first as usize].iter().sum();
        (first..=last).map(move |power| {
            let below = if power == first { below } else { 0 };
            (1 << power, self.counts[power as usize] + below)
        })
    }
}

/// A [`Histogram`] that one thread records into and others look at.
#[derive(Debug)]
pub struct SharedHistogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for SharedHistogram {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
        }
    }
}

impl SharedHistogram {
    /// Counts `value` once. For one thread: with two of them, counts can be lost.
    pub fn record(&self, value: u64) {
        let add = |cell: &AtomicU64, more: u64| {
            let sum = cell.load(Ordering::Relaxed).wrapping_add(more);
            cell.store(sum, Ordering::Relaxed);
        };
        add(&self.counts[bucket(value)], 1);
        add(&self.sum, value);
    }

    /// What was recorded; a value that is just being recorded may be in a part of it only.
    pub fn snapshot(&self) -> Histogram {
        Histogram {
            counts: std::array::from_fn(|i| self.counts[i].load(Ordering::Relaxed)),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

fn bucket(value: u64) -> usize {
    (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_reaches_up_to_it() {
        for (value, expected) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (1 << 40, 40),
            ((1 << 40) + 1, 41),
            (u64::MAX, 64),
        ] {
            assert_eq!(bucket(value), expected, "{value}");
        }
    }

    #[test]
    fn buckets_below_the_first_are_added_to_it_and_those_above_the_last_are_only_counted() {
        let mut histogram = Histogram::default();
        for value in [1, 2, 4, 8, 9, 17, 1000] {
            histogram.record(value);
        }
        histogram.record_many(16, 3);
        let buckets: Vec<_> = histogram.buckets(3, 5).collect();
        assert_eq!(buckets, [(8, 4), (16, 4), (32, 1)]);
        assert_eq!((histogram.count(), histogram.sum()), (10, 1041 + 48));
    }

    #[test]
    fn what_one_thread_records_another_sees() {
        let shared = SharedHistogram::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=1000).for_each(|value| shared.record(value)));
        });
        let mut own = Histogram::default();
        (1..=1000).for_each(|value| own.record(value));
        assert_eq!(shared.snapshot(), own);
    }
}
