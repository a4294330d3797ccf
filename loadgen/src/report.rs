//! What a run found, for people and for programs.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde::Serialize;

use crate::latency::{Latency, Percentiles};
use crate::outcome::Outcome;
use crate::plan::Load;
use crate::process::{Cost, Finished};
use crate::target::Protocol;

/// A run's report. The fields up to `server` are the format that programs rely on; what follows
/// may grow. Latencies are in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The protocol that was spoken.
    pub target: Protocol,
    /// Connections that were asked for, publishers and stalled readers not counted.
    pub connections: u64,
    /// Connections that stood with all their subscriptions.
    pub connected: u64,
    /// Messages that the server took from publishers.
    pub published: u64,
    /// Events that should have come, over all connections.
    pub expected: u64,
    /// Events that came.
    pub delivered: u64,
    /// Events that never came.
    pub lost: u64,
    /// Events that came again.
    pub duplicated: u64,
    /// Events that came after a later one.
    pub out_of_order: u64,
    /// Events that came on a topic after its UNSUBSCRIBED.
    pub after_unsubscribed: u64,
    /// From the first intended send to the last delivery; in `connect`, from the first connect to
    /// the last SUBSCRIBED.
    pub seconds: f64,
    /// `delivered` by `seconds`.
    pub delivered_per_s: f64,
    /// From the intended send to the delivery; in `connect`, from a connect to the last SUBSCRIBED
    /// of its connection.
    pub latency_us: Percentiles,
    /// What the run cost the server; null without `--server-pid`.
    pub server: Option<ServerReport>,
    /// The server's address.
    pub address: String,
    /// How far the publishers fell behind their schedule, at most.
    pub schedule_lag_us: f64,
    /// GAP frames about events that do not come; those are among `lost`.
    pub gaps: u64,
    /// Events that such GAP frames announced.
    pub gap_events: u64,
    /// GAP frames about events that came later.
    pub gaps_delayed: u64,
    /// SNAPSHOT frames.
    pub snapshots: u64,
    /// Publishes (in `churn`: subscribes too) that the server refused.
    pub refused: u64,
    /// UNSUBSCRIBEs in one write with their SUBSCRIBE that the server refused as not subscribed.
    pub unsubscribes_refused: u64,
    /// Events of topics that the connection did not ask for, or of another run.
    pub strangers: u64,
    /// UNSUBSCRIBED frames with another last seq than that of the last event.
    pub wrong_last_seq: u64,
    /// Connections that were closed, or broke, while the run needed them.
    pub disconnected: u64,
    /// Answers that did not come within 10 seconds.
    pub stuck: u64,
    /// Subscribe, unsubscribe and close cycles.
    pub cycles: u64,
    /// The readers that stalled, and what it did to the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallReport>,
    /// The first errors.
    pub errors: Vec<String>,
}

/// What a run cost the server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ServerReport {
    /// CPU time of the server over the load, by events delivered (in `connect`: null).
    pub cpu_ns_per_delivery: Option<f64>,
    /// Memory at the end, in bytes.
    pub rss_bytes: u64,
    /// What memory grew by while everybody connected and subscribed, by connections; in `churn`,
    /// where nobody stays: null.
    pub rss_bytes_per_connection: Option<f64>,
    /// CPU time of the server over the load, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory before the first connection.
    pub rss_bytes_before: u64,
    /// Memory when all had subscribed.
    pub rss_bytes_connected: u64,
}

/// Slow readers, and what they did to the others.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StallReport {
    /// Latencies of the healthy connections while everybody read.
    pub a: Percentiles,
    /// Latencies of the healthy connections while some stalled.
    pub b: Percentiles,
    /// p99 of `b` by p99 of `a`.
    pub p99_ratio: f64,
    /// Readers that stalled.
    pub stalled: u64,
    /// Events that they should have got.
    pub stalled_expected: u64,
    /// Events that they got.
    pub stalled_delivered: u64,
    /// Events that they never got, those in GAP frames included.
    pub stalled_lost: u64,
    /// Those of them that no GAP frame announced.
    pub stalled_lost_in_silence: u64,
    /// Events that they got again.
    pub stalled_duplicated: u64,
    /// Events that they got after a later one.
    pub stalled_out_of_order: u64,
    /// GAP frames about events that do not come.
    pub stalled_gaps: u64,
    /// GAP frames about events that come later.
    pub stalled_gaps_delayed: u64,
    /// SNAPSHOT frames.
    pub stalled_snapshots: u64,
    /// Stalled readers that were closed.
    pub stalled_disconnected: u64,
    /// Whether all of them got, or were told of, everything by the end.
    pub stalled_caught_up: bool,
}

impl Report {
    /// The report of a run.
    pub fn new(finished: &Finished, target: Protocol) -> Self {
        let outcome = &finished.outcome;
        let tally = outcome.tally();
        let seconds = seconds(finished);
        Self {
            scenario: finished.shape.load.name(),
            target,
            connections: finished.shape.connections.into(),
            connected: outcome.connected,
            published: outcome.published,
            expected: outcome.expected,
            delivered: outcome.delivered,
            lost: tally.lost,
            duplicated: tally.duplicated,
            out_of_order: tally.out_of_order,
            after_unsubscribed: outcome.after_unsubscribed,
            seconds,
            delivered_per_s: per(outcome.delivered as f64, seconds),
            latency_us: outcome.latency.percentiles(),
            server: finished.cost.map(|cost| ServerReport::new(&cost, outcome)),
            address: finished.server.to_string(),
            schedule_lag_us: outcome.schedule_lag_ns as f64 / 1e3,
            gaps: outcome.gaps,
            gap_events: tally.announced,
            gaps_delayed: outcome.gaps_delayed,
            snapshots: outcome.snapshots,
            refused: outcome.refused,
            unsubscribes_refused: outcome.unsubscribes_refused,
            strangers: outcome.strangers,
            wrong_last_seq: outcome.wrong_last_seq,
            disconnected: outcome.disconnected,
            stuck: outcome.stuck,
            cycles: outcome.cycles,
            stall: StallReport::new(outcome),
            errors: outcome
                .errors
                .iter()
                .chain(outcome.stalled.iter().flat_map(|stalled| &stalled.errors))
                .cloned()
                .collect(),
        }
    }

    /// What the process exits with: 0 or 1, see [`crate::options::Options`].
    pub fn exit_code(&self) -> u8 {
        let faults = self.lost
            + self.duplicated
            + self.out_of_order
            + self.after_unsubscribed
            + self.strangers
            + self.wrong_last_seq
            + self.stuck
            + self.disconnected
            + self.stall.map_or(0, |stall| stall.faults());
        u8::from(faults > 0 || self.connected < self.connections)
    }

    /// The report as JSON, with a line's end.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("plain data has a JSON form");
        json.push('\n');
        json
    }

    /// The report as a table for people.
    pub fn to_table(&self) -> String {
        let mut rows: Vec<(&str, String)> = vec![
            (
                "connections",
                format!("{} of {}", self.connected, self.connections),
            ),
            ("published", self.published.to_string()),
            (
                "delivered",
                format!("{} of {}", self.delivered, self.expected),
            ),
            (
                "lost / duplicated / out of order",
                format!(
                    "{} / {} / {}",
                    self.lost, self.duplicated, self.out_of_order
                ),
            ),
            ("after UNSUBSCRIBED", self.after_unsubscribed.to_string()),
            ("seconds", format!("{:.3}", self.seconds)),
            ("delivered/s", format!("{:.0}", self.delivered_per_s)),
            ("latency us", percentiles(&self.latency_us)),
            ("schedule lag us", format!("{:.0}", self.schedule_lag_us)),
        ];
        if let Some(server) = &self.server {
            if let Some(cpu) = server.cpu_ns_per_delivery {
                rows.push(("server CPU ns/delivery", format!("{cpu:.0}")));
            }
            rows.push(("server CPU s", format!("{:.2}", server.cpu_ns as f64 / 1e9)));
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            rows.push((
                "server memory MiB",
                format!(
                    "{:.1} before, {:.1} connected, {:.1} at the end",
                    mib(server.rss_bytes_before),
                    mib(server.rss_bytes_connected),
                    mib(server.rss_bytes),
                ),
            ));
            if let Some(bytes) = server.rss_bytes_per_connection {
                rows.push(("server bytes/connection", format!("{bytes:.0}")));
            }
        }
        if let Some(stall) = &self.stall {
            stall.rows(&mut rows);
        }
        for (name, count) in [
            ("cycles", self.cycles),
            ("GAP frames", self.gaps),
            ("events in GAP frames", self.gap_events),
            ("GAP(delayed) frames", self.gaps_delayed),
            ("refused", self.refused),
            ("early UNSUBSCRIBEs refused", self.unsubscribes_refused),
            ("strangers", self.strangers),
            ("wrong last seq", self.wrong_last_seq),
            ("disconnected", self.disconnected),
            ("stuck", self.stuck),
        ] {
            if count > 0 {
                rows.push((name, count.to_string()));
            }
        }
        rows.extend(self.errors.iter().map(|error| ("error", error.clone())));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut table = format!("{} on {}\n", self.scenario, self.address);
        for (name, value) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "  {name:<width$}  {value}");
        }
        table
    }
}

impl ServerReport {
    fn new(cost: &Cost, outcome: &Outcome) -> Self {
        let grown = cost.rss_connected.saturating_sub(cost.rss_before);
        Self {
            cpu_ns_per_delivery: (outcome.delivered > 0)
                .then(|| cost.cpu_ns as f64 / outcome.delivered as f64),
            rss_bytes: cost.rss_end,
            rss_bytes_per_connection: (outcome.cycles == 0)
                .then(|| per(grown as f64, outcome.connected as f64)),
            cpu_ns: cost.cpu_ns,
            rss_bytes_before: cost.rss_before,
            rss_bytes_connected: cost.rss_connected,
        }
    }
}

impl StallReport {
    fn new(outcome: &Outcome) -> Option<Self> {
        let [a, b] = outcome
            .halves
            .as_ref()?
            .each_ref()
            .map(Latency::percentiles);
        let stalled = outcome.stalled.as_ref()?;
        // By seq: a GAP speaks of seqs, so only there announced and silent loss can be told apart.
        let tally = stalled.by_seq;
        Some(Self {
            a,
            b,
            p99_ratio: per(b.p99, a.p99),
            stalled: stalled.connected,
            stalled_expected: stalled.expected,
            stalled_delivered: stalled.delivered,
            stalled_lost: tally.lost,
            stalled_lost_in_silence: tally.lost - tally.announced,
            stalled_duplicated: tally.duplicated,
            stalled_out_of_order: tally.out_of_order,
            stalled_gaps: stalled.gaps,
            stalled_gaps_delayed: stalled.gaps_delayed,
            stalled_snapshots: stalled.snapshots,
            stalled_disconnected: stalled.disconnected,
            stalled_caught_up: stalled.disconnected == 0 && tally.lost == tally.announced,
        })
    }

    /// What is wrong whatever the policy: a reader that is still connected may miss nothing that
    /// it was not told of.
    fn faults(&self) -> u64 {
        let silent = if self.stalled_disconnected == 0 {
            self.stalled_lost_in_silence
        } else {
            0
        };
        silent + self.stalled_duplicated + self.stalled_out_of_order
    }

    fn rows(&self, rows: &mut Vec<(&str, String)>) {
        rows.push(("A: all read, us", percentiles(&self.a)));
        rows.push(("B: some stall, us", percentiles(&self.b)));
        rows.push(("p99 of B / p99 of A", format!("{:.3}", self.p99_ratio)));
        rows.push((
            "stalled readers got",
            format!("{} of {}", self.stalled_delivered, self.stalled_expected),
        ));
        rows.push((
            "stalled: lost / in silence / dup / order",
            format!(
                "{} / {} / {} / {}",
                self.stalled_lost,
                self.stalled_lost_in_silence,
                self.stalled_duplicated,
                self.stalled_out_of_order
            ),
        ));
        rows.push((
            "stalled: GAP / GAP(delayed) / SNAPSHOT",
            format!(
                "{} / {} / {}",
                self.stalled_gaps, self.stalled_gaps_delayed, self.stalled_snapshots
            ),
        ));
        rows.push(("stalled: caught up", self.stalled_caught_up.to_string()));
    }
}

/// From the beginning of the load to its last effect.
fn seconds(finished: &Finished) -> f64 {
    let outcome = &finished.outcome;
    let (from, to) = match finished.shape.load {
        Load::Connect { .. } => (outcome.first_connect_ns, outcome.last_subscribed_ns),
        Load::Churn { .. } => (finished.start_ns, finished.end_ns),
        _ => (finished.start_ns, outcome.last_event_ns),
    };
    to.saturating_sub(from) as f64 / 1e9
}

fn per(sum: f64, count: f64) -> f64 {
    if count > 0.0 { sum / count } else { 0.0 }
}

fn percentiles(p: &Percentiles) -> String {
    format!(
        "p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0}",
        p.p50, p.p90, p.p99, p.p999, p.max
    )
}

/// Writes a histogram where HdrHistogram's tools can read it: as a percentile distribution in
/// microseconds if the name ends in `.hgrm`, otherwise as a V2 log of one interval in nanoseconds.
///
/// # Errors
/// When the file cannot be written.
pub fn export(latency: &Latency, path: &Path, took: Duration) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    if path
        .extension()
        .is_some_and(|extension| extension == "hgrm")
    {
        distribution(latency, &mut file)?;
    } else {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut serializer = V2DeflateSerializer::new();
        IntervalLogWriterBuilder::new()
            .with_start_time(SystemTime::now() - took)
            .with_base_time(UNIX_EPOCH)
            .begin_log_with(&mut file, &mut serializer)
            .and_then(|mut log| {
                log.write_histogram(latency.histogram(), now.saturating_sub(took), took, None)
                    .map_err(|error| io::Error::other(error.to_string()))
            })?;
    }
    file.flush()
}

/// The text format that HdrHistogram's plotters read.
fn distribution(latency: &Latency, out: &mut impl Write) -> io::Result<()> {
    let histogram = latency.histogram();
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut count = 0;
    for point in histogram.iter_quantiles(5) {
        count += point.count_since_last_iteration();
        let value = point.value_iterated_to() as f64 / 1e3;
        let quantile = point.quantile_iterated_to();
        write!(out, "{value:>12.3} {quantile:>14.12} {count:>10}")?;
        match quantile < 1.0 {
            true => writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?,
            false => writeln!(out)?,
        }
    }
    let us = |value: f64| value / 1e3;
    writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        us(histogram.mean()),
        us(histogram.stdev())
    )?;
    writeln!(
        out,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        us(histogram.max() as f64),
        histogram.len()
    )
}
