//! What a node does a second, reckoned from the figures that its cores publish.

use serde::Serialize;
use tickring_client::protocol::{NodeStats, SlowClient};

/// A connection that is behind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Slow {
    pub(super) name: String,
    pub(super) core: u32,
    pub(super) behind_bytes: u64,
    pub(super) behind_ms: u64,
    pub(super) topics: u32,
}

/// What a core, or a node, does and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) events_per_s: f64,
    pub(super) deliveries_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) sends_per_s: f64,
    pub(super) turns_per_s: f64,
    pub(super) gaps_per_s: f64,
    pub(super) connections: u64,
    pub(super) slow: u64,
    pub(super) subscriptions: u64,
    pub(super) topics: u64,
    pub(super) outbox_bytes: u64,
    pub(super) history_bytes: u64,
    pub(super) gaps: u64,
    pub(super) events: u64,
    pub(super) deliveries: u64,
}

impl Figures {
    fn between(before: &NodeStats, now: &NodeStats) -> Self {
        let seconds = now.uptime_ns.saturating_sub(before.uptime_ns) as f64 / 1e9;
        let rate = |before: u64, now: u64| match seconds > 0.0 {
            true => now.saturating_sub(before) as f64 / seconds,
            false => 0.0,
        };
        Self {
            events_per_s: rate(before.events, now.events),
            deliveries_per_s: rate(before.delivered, now.delivered),
            bytes_per_s: rate(before.sent_bytes, now.sent_bytes),
            sends_per_s: rate(before.sends, now.sends),
            turns_per_s: rate(before.turns, now.turns),
            gaps_per_s: rate(before.gaps, now.gaps),
            connections: now.connections.into(),
            slow: now.slow.into(),
            subscriptions: now.subscriptions.into(),
            topics: now.topics.into(),
            outbox_bytes: now.outbox_bytes,
            history_bytes: now.history_bytes,
            gaps: now.gaps,
            events: now.events,
            deliveries: now.delivered,
        }
    }

    fn add(&mut self, other: &Self) {
        self.events_per_s += other.events_per_s;
        self.deliveries_per_s += other.deliveries_per_s;
        self.bytes_per_s += other.bytes_per_s;
        self.sends_per_s += other.sends_per_s;
        self.turns_per_s += other.turns_per_s;
        self.gaps_per_s += other.gaps_per_s;
        self.connections += other.connections;
        self.slow += other.slow;
        self.subscriptions += other.subscriptions;
        self.topics += other.topics;
        self.outbox_bytes += other.outbox_bytes;
        self.history_bytes += other.history_bytes;
        self.gaps += other.gaps;
        self.events += other.events;
        self.deliveries += other.deliveries;
    }
}

#[derive(Debug)]
struct CoreView {
    /// What rates count from.
    base: NodeStats,
    last: NodeStats,
    figures: Figures,
    slow: Vec<Slow>,
}

/// The cores of a node as they report, each once a second.
#[derive(Debug, Default)]
pub(super) struct NodeView {
    cores: Vec<Option<CoreView>>,
}

impl NodeView {
    /// Takes the body of a report in; tells how many cores the node has, or `None` if it was no
    /// report.
    pub(super) fn report(&mut self, body: &[u8]) -> Option<u32> {
        let (stats, slow) = NodeStats::decode(body).ok()?;
        if stats.core >= stats.cores {
            return None;
        }
        if self.cores.len() != stats.cores as usize {
            self.cores.clear(); // another server has taken the place of the one before
            self.cores.resize_with(stats.cores as usize, || None);
        }
        let slow = slow.map(|client| Slow::of(stats.core, &client)).collect();
        let place = &mut self.cores[stats.core as usize];
        match place {
            Some(core) if core.last.uptime_ns <= stats.uptime_ns => {
                core.last = stats;
                core.slow = slow;
                core.figures = Figures::between(&core.base, &core.last);
            }
            _ => {
                *place = Some(CoreView {
                    base: stats,
                    last: stats,
                    figures: Figures::between(&stats, &stats),
                    slow,
                });
            }
        }
        Some(stats.cores)
    }

    /// Whether there is a rate for every core: each has reported twice.
    pub(super) fn is_complete(&self) -> bool {
        !self.cores.is_empty()
            && self.cores.iter().all(|core| {
                core.as_ref()
                    .is_some_and(|c| c.base.uptime_ns < c.last.uptime_ns)
            })
    }

    /// Lets rates count from the newest reports. A core that has not reported since keeps its
    /// rate.
    pub(super) fn start_interval(&mut self) {
        for core in self.cores.iter_mut().flatten() {
            core.base = core.last;
        }
    }

    /// The cores that have reported, by number.
    pub(super) fn cores(&self) -> impl Iterator<Item = (usize, &Figures)> {
        let numbered = self.cores.iter().enumerate();
        numbered.filter_map(|(number, core)| Some((number, &core.as_ref()?.figures)))
    }

    /// All cores together.
    pub(super) fn total(&self) -> Figures {
        let mut total = Figures::default();
        for (_, figures) in self.cores() {
            total.add(figures);
        }
        total
    }

    /// How long the node has been up, in nanoseconds.
    pub(super) fn uptime_ns(&self) -> u64 {
        let cores = self.cores.iter().flatten();
        cores.map(|core| core.last.uptime_ns).max().unwrap_or(0)
    }

    /// Connections that are behind, the longest first.
    pub(super) fn slowest(&self) -> Vec<&Slow> {
        let cores = self.cores.iter().flatten();
        let mut slow: Vec<&Slow> = cores.flat_map(|core| &core.slow).collect();
        slow.sort_by_key(|client| std::cmp::Reverse((client.behind_ms, client.behind_bytes)));
        slow
    }
}

impl Slow {
    fn of(core: u32, client: &SlowClient<'_>) -> Self {
        Self {
            // A name is the client's own choice; it shall not play tricks on a terminal.
            name: client
                .name
                .chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect(),
            core,
            behind_bytes: client.behind_bytes,
            behind_ms: client.since_ns / 1_000_000,
            topics: client.topics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(core: u32, uptime_s: u64, events: u64, slow: &[SlowClient<'_>]) -> Vec<u8> {
        let mut body = Vec::new();
        let stats = NodeStats {
            core,
            cores: 2,
            uptime_ns: uptime_s * 1_000_000_000,
            events,
            connections: 10,
            ..NodeStats::default()
        };
        stats.encode(slow.iter().copied(), &mut body);
        body
    }

    #[test]
    fn rates_count_from_the_interval_s_start_over_all_cores() {
        let mut node = NodeView::default();
        assert_eq!(node.report(&report(0, 1, 100, &[])), Some(2));
        node.report(&report(1, 1, 0, &[]));
        assert!(!node.is_complete());
        node.report(&report(0, 3, 300, &[]));
        assert!(!node.is_complete());
        node.report(&report(1, 2, 50, &[]));
        assert!(node.is_complete());
        let total = node.total();
        assert_eq!(
            (total.events_per_s, total.events, total.connections),
            (150.0, 350, 20)
        );
        node.start_interval();
        node.report(&report(0, 4, 301, &[]));
        assert_eq!(
            node.total().events_per_s,
            51.0,
            "core 1 has not reported again"
        );
    }

    #[test]
    fn the_slowest_clients_of_all_cores_come_first_and_harmlessly() {
        let client = |name, since_ns| SlowClient {
            name,
            behind_bytes: 5,
            since_ns,
            topics: 1,
        };
        let mut node = NodeView::default();
        node.report(&report(0, 1, 0, &[client("a", 2_000_000)]));
        node.report(&report(1, 1, 0, &[client("b\x1b[2J", 9_000_000)]));
        let names: Vec<&str> = node
            .slowest()
            .iter()
            .map(|slow| slow.name.as_str())
            .collect();
        assert_eq!(names, ["b?[2J", "a"]);
    }

    #[test]
    fn a_restarted_node_starts_anew() {
        let mut node = NodeView::default();
        node.report(&report(0, 9, 900, &[]));
        node.report(&report(0, 1, 5, &[]));
        assert_eq!(node.total().events_per_s, 0.0);
        assert_eq!(node.uptime_ns(), 1_000_000_000);
    }
}
