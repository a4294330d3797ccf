//! Latency histograms, in nanoseconds.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// The longest latency told apart; longer ones count as this. Ten minutes is longer than a run.
const MAX_NS: u64 = 600_000_000_000;

/// A histogram of latencies: from 1 ns to ten minutes, to three digits.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

/// The percentiles of a [`Latency`] that reports show, in microseconds; 0 when it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "each name says which percentile it is")]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_NS, 3).expect("the bounds are constants in range"))
    }
}

impl Latency {
    /// Counts one latency.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds what another thread or process counted.
    pub fn add(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    /// The percentiles, in microseconds.
    pub fn percentiles(&self) -> Percentiles {
        let us = |q| self.0.value_at_quantile(q) as f64 / 1e3;
        Percentiles {
            p50: us(0.5),
            p90: us(0.9),
            p99: us(0.99),
            p999: us(0.999),
            max: self.0.max() as f64 / 1e3,
        }
    }

    /// The histogram itself.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// The histogram as bytes (HdrHistogram V2, deflated), for another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .expect("a vector takes any histogram");
        bytes
    }

    /// The histogram of bytes that [`Latency::to_bytes`] made; `None` when they are not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let read = Deserializer::new().deserialize(&mut &*bytes).ok()?;
        let mut latency = Self::default();
        latency.0.add(read).ok()?;
        Some(latency)
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.to_bytes().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(from)?;
        Self::from_bytes(&bytes).ok_or_else(|| serde::de::Error::custom("not a histogram"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut latency = Latency::default();
        (1..=100).for_each(|us| latency.record(us * 1_000));
        let found = latency.percentiles();
        assert!((found.p50 - 50.0).abs() < 0.1, "{found:?}");
        assert!((found.p99 - 99.0).abs() < 0.1, "{found:?}");
        assert!((found.max - 100.0).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn nothing_counted_reads_as_zero() {
        assert_eq!(Latency::default().percentiles(), Percentiles::default());
    }

    #[test]
    fn processes_add_up_through_their_bytes() {
        let mut here = Latency::default();
        here.record(1_000);
        let mut there = Latency::default();
        there.record(9_000_000);
        here.add(&Latency::from_bytes(&there.to_bytes()).unwrap());
        assert_eq!(here.count(), 2);
        assert!(here.percentiles().max >= 9_000.0);
        assert!(Latency::from_bytes(b"not a histogram").is_none());
    }
}
