//! What threads and processes found, added up.

use serde::{Deserialize, Serialize};

use crate::check::Tally;
use crate::latency::Latency;

/// The findings of one thread, or of many.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Connections that stood with all their subscriptions.
    pub connected: u64,
    /// Messages sent by publishers, refused ones excluded.
    pub published: u64,
    /// Events that should have come.
    pub expected: u64,
    /// Events that came.
    pub delivered: u64,
    /// By EVENT.seq.
    pub by_seq: Tally,
    /// By the counter that each publisher puts into the payload.
    pub by_payload: Tally,
    /// Events that came on a topic after its UNSUBSCRIBED.
    pub after_unsubscribed: u64,
    /// UNSUBSCRIBED frames whose last seq is not that of the last event that came.
    pub wrong_last_seq: u64,
    /// Events of topics that the connection never asked for, or not of this run.
    pub strangers: u64,
    /// GAP frames that announced events that do not come.
    pub gaps: u64,
    /// GAP frames that announced events that come later.
    pub gaps_delayed: u64,
    /// SNAPSHOT frames.
    pub snapshots: u64,
    /// Publishes that the server refused.
    pub refused: u64,
    /// UNSUBSCRIBEs sent right behind their SUBSCRIBE that the server refused as not subscribed.
    pub unsubscribes_refused: u64,
    /// Connections that the server closed, or that broke, during the run.
    pub disconnected: u64,
    /// Times that a server's answer did not come in time.
    pub stuck: u64,
    /// Subscribe/unsubscribe/close cycles.
    pub cycles: u64,
    /// Events that came late relative to the drain's bound are lost; this many connections were
    /// still behind when it ended.
    pub behind: u64,
    /// The furthest that a publisher was behind its schedule, in nanoseconds.
    pub schedule_lag_ns: u64,
    /// When the first connect was begun, in nanoseconds of the clock; 0: none.
    pub first_connect_ns: u64,
    /// When the last subscription stood.
    pub last_subscribed_ns: u64,
    /// When the last event came.
    pub last_event_ns: u64,
    /// Latencies.
    pub latency: Latency,
    /// Latencies while all readers read, and while some stalled.
    pub halves: Option<[Latency; 2]>,
    /// What the stalled readers were told.
    pub stalled: Option<Box<Outcome>>,
    /// The first errors, for people.
    pub errors: Vec<String>,
}

/// Errors that are kept; the rest are only counted by what they did.
const MAX_ERRORS: usize = 8;

impl Outcome {
    /// Keeps an error, if it is among the first.
    pub fn complain(&mut self, error: impl FnOnce() -> String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error());
        }
    }

    /// Adds what another thread or process found.
    pub fn add(&mut self, other: Self) {
        for (sum, part) in [
            (&mut self.connected, other.connected),
            (&mut self.published, other.published),
            (&mut self.expected, other.expected),
            (&mut self.delivered, other.delivered),
            (&mut self.after_unsubscribed, other.after_unsubscribed),
            (&mut self.wrong_last_seq, other.wrong_last_seq),
            (&mut self.strangers, other.strangers),
            (&mut self.gaps, other.gaps),
            (&mut self.gaps_delayed, other.gaps_delayed),
            (&mut self.snapshots, other.snapshots),
            (&mut self.refused, other.refused),
            (&mut self.unsubscribes_refused, other.unsubscribes_refused),
            (&mut self.disconnected, other.disconnected),
            (&mut self.stuck, other.stuck),
            (&mut self.cycles, other.cycles),
            (&mut self.behind, other.behind),
        ] {
            *sum += part;
        }
        self.by_seq.add(&other.by_seq);
        self.by_payload.add(&other.by_payload);
        self.schedule_lag_ns = self.schedule_lag_ns.max(other.schedule_lag_ns);
        self.last_subscribed_ns = self.last_subscribed_ns.max(other.last_subscribed_ns);
        self.last_event_ns = self.last_event_ns.max(other.last_event_ns);
        self.first_connect_ns = match (self.first_connect_ns, other.first_connect_ns) {
            (0, only) | (only, 0) => only,
            (here, there) => here.min(there),
        };
        self.latency.add(&other.latency);
        match (&mut self.halves, other.halves) {
            (Some(here), Some(there)) => {
                here.iter_mut()
                    .zip(&there)
                    .for_each(|(sum, part)| sum.add(part));
            }
            (here @ None, there) => *here = there,
            (Some(_), None) => {}
        }
        match (&mut self.stalled, other.stalled) {
            (Some(here), Some(there)) => here.add(*there),
            (here @ None, there) => *here = there,
            (Some(_), None) => {}
        }
        for error in other.errors {
            self.complain(|| error);
        }
    }

    /// Loss, duplicates and order: the worse of what seq and payload say.
    pub fn tally(&self) -> Tally {
        self.by_seq.worse(&self.by_payload)
    }

    /// Whether every event of every connection came once, in order, and none after its time.
    pub fn is_clean(&self) -> bool {
        let tally = self.tally();
        tally.lost == 0
            && tally.duplicated == 0
            && tally.out_of_order == 0
            && self.after_unsubscribed == 0
            && self.wrong_last_seq == 0
            && self.strangers == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_seen_by_seq_and_by_payload_counts_once() {
        let mut outcome = Outcome::default();
        assert!(outcome.is_clean());
        outcome.by_seq.lost = 2;
        outcome.by_payload.lost = 3;
        assert_eq!(outcome.tally().lost, 3);
        assert!(!outcome.is_clean());
    }

    #[test]
    fn outcomes_add_up_across_a_pipe() {
        let mut here = Outcome {
            delivered: 3,
            first_connect_ns: 50,
            ..Outcome::default()
        };
        here.latency.record(1_000);
        let mut there = Outcome {
            delivered: 4,
            first_connect_ns: 40,
            last_subscribed_ns: 90,
            halves: Some([Latency::default(), Latency::default()]),
            ..Outcome::default()
        };
        there.latency.record(2_000);
        let line = serde_json::to_string(&there).unwrap();
        here.add(serde_json::from_str(&line).unwrap());
        assert_eq!((here.delivered, here.latency.count()), (7, 2));
        assert_eq!((here.first_connect_ns, here.last_subscribed_ns), (40, 90));
        assert!(here.halves.is_some());
    }
}
