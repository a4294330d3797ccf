//! One page of metrics, family by family.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use super::{Scrape, core, process, storage};
use crate::histogram::Histogram;

/// The labels of one sample.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What a page is made from.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) scrape: Scrape,
    /// Since the process listens.
    pub(super) uptime: Duration,
    /// How long the cores took to answer.
    pub(super) took: Duration,
}

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        process::encode(self, &mut page)?;
        core::encode(&self.scrape, &mut page)?;
        storage::encode(&self.scrape, &mut page)
    }
}

/// The unit of a histogram's values, and which of its buckets are shown.
#[derive(Clone, Copy)]
pub(super) enum Scale {
    /// Nanoseconds, shown as seconds: 1 microsecond to 8.6 s.
    Time,
    /// Bytes: 64 to 64 MiB.
    Bytes,
    /// A count: 1 to 262,144.
    #[cfg_attr(
        not(feature = "database"),
        expect(dead_code, reason = "only the database's figures count")
    )]
    Count,
}

/// Writes families in whatever format the scraper takes.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// What only grows. The exported name ends in `_total`.
    pub(super) fn counter<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, samples, |metric, value| {
            metric.encode_counter::<NoLabelSet, V, f64>(&value, None)
        })
    }

    /// What goes up and down.
    pub(super) fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples, |metric, value| {
            metric.encode_gauge(&value)
        })
    }

    /// How often which magnitude occurred.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        scale: Scale,
        samples: impl IntoIterator<Item = (Labels, Histogram)>,
    ) -> fmt::Result {
        // Divided, because 1e9 is exact and 1e-9 is not.
        let (first, last, unit) = match scale {
            Scale::Time => (10, 33, 1e9),
            Scale::Bytes => (6, 26, 1.0),
            Scale::Count => (0, 18, 1.0),
        };
        let kind = MetricType::Histogram;
        self.family(name, help, kind, samples, |metric, histogram| {
            let mut buckets: Vec<(f64, u64)> = histogram
                .buckets(first, last)
                .map(|(up_to, count)| (up_to as f64 / unit, count))
                .collect();
            let shown: u64 = buckets.iter().map(|(_, count)| count).sum();
            let count = histogram.count();
            buckets.push((f64::INFINITY, count - shown));
            metric.encode_histogram::<NoLabelSet>(
                histogram.sum() as f64 / unit,
                count,
                &buckets,
                None,
            )
        })
    }

    fn family<V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Labels, V)>,
        encode: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                encode(&mut family, value)?;
            } else {
                encode(&mut family.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}

/// A sample without labels.
pub(super) fn one<V>(value: V) -> [(Labels, V); 1] {
    [(Vec::new(), value)]
}
