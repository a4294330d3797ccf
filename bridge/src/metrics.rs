//! Counters of the bridge, as `/metrics` shows them.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type ByReason = Family<Vec<(String, String)>, Counter>;
type ByProtocol = Family<Vec<(String, String)>, Gauge>;

/// See the module. The registry holds clones that share the values.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) clients: ByProtocol,
    pub(crate) closed: ByReason,
    pub(crate) refused: ByReason,
    pub(crate) subscriptions: Gauge,
    pub(crate) topics: Gauge,
    pub(crate) upstream_subscriptions: Gauge,
    pub(crate) upstream_up: Gauge,
    pub(crate) upstream_losses: Counter,
    pub(crate) upstream_gaps: Counter,
    pub(crate) command_connections: Gauge,
    pub(crate) commands: Counter,
    pub(crate) fetches: Counter,
    pub(crate) catch_ups: Counter,
    pub(crate) reads: Counter,
    pub(crate) events: Counter,
    pub(crate) delivered: Counter,
    pub(crate) messages: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) conflated: Counter,
    pub(crate) delayed: Counter,
    pub(crate) history_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self::default();
        let mut registry = Registry::with_prefix("tickring_bridge");
        macro_rules! register {
            ($($field:ident: $help:literal;)+) => {
                $(registry.register(stringify!($field), $help, metrics.$field.clone());)+
            };
        }
        register! {
            clients: "WebSocket clients, by sub-protocol";
            closed: "Clients whose connection ended, by close reason";
            refused: "Upgrades that were refused, by reason";
            subscriptions: "Subscriptions of all clients";
            topics: "Topics that somebody watches, or did a moment ago";
            upstream_subscriptions: "Subscriptions at the server, one for each topic";
            upstream_up: "Whether there is a connection to the server";
            upstream_losses: "Lost connections to the server";
            upstream_gaps: "GAPs that the server told the bridge";
            command_connections: "Connections to the server that carry a client's commands";
            commands: "Commands carried to the server";
            fetches: "Snapshots fetched for those who came later";
            catch_ups: "Clients brought up to date from further back than the bridge remembers";
            reads: "Pages of stored rows asked for";
            events: "Events received from the server";
            delivered: "Events, snapshots and gaps handed to clients";
            messages: "WebSocket messages sent";
            sent_bytes: "Bytes of those messages";
            conflated: "Times that a slow client was brought to the latest state";
            delayed: "Times that a slow client was told of a delay";
            history_bytes: "Bytes of memory that the topics' logs take";
        }
        metrics.registry = registry;
        metrics
    }

    pub(crate) fn client(&self, protocol: &str) -> Gauge {
        self.clients
            .get_or_create(&vec![("protocol".to_owned(), protocol.to_owned())])
            .clone()
    }

    pub(crate) fn count_closed(&self, reason: &str) {
        self.closed
            .get_or_create(&vec![("reason".to_owned(), reason.to_owned())])
            .inc();
    }

    pub(crate) fn count_refused(&self, reason: &str) {
        self.refused
            .get_or_create(&vec![("reason".to_owned(), reason.to_owned())])
            .inc();
    }

    /// In the OpenMetrics text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String never fails.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_exported_is_what_the_operations_guide_lists() {
        let metrics = Metrics::new();
        // Those with labels are told from their first value on.
        metrics.client("any").inc();
        metrics.count_closed("any");
        metrics.count_refused("any");
        let text = metrics.text();
        let exported: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| match line.split_once(' ') {
                Some((name, "counter")) => format!("{name}_total"),
                Some((name, _)) => name.to_owned(),
                None => panic!("{line}"),
            })
            .collect();
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md");
        let guide = std::fs::read_to_string(guide).expect("it is part of the repository");
        let listed: BTreeSet<String> = guide
            .lines()
            .filter(|line| line.starts_with("  | `tickring_bridge_"))
            .filter_map(|line| line.split('|').nth(1))
            .flat_map(|names| names.split(','))
            .map(|name| name.trim().trim_matches('`').to_owned())
            .collect();
        assert_eq!(exported, listed);
    }
}
