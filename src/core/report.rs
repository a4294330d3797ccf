//! The core's own figures, published to `node/core-N` once a second while somebody subscribes.

use tickring_protocol::{NodeStats, SlowClient};

use super::Core;

const PERIOD_NS: u64 = 1_000_000_000;

/// Bytes that wait for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Not yet taken by the socket.
    pub outbox_bytes: usize,
    /// Received, but not acted on yet.
    pub inbox_bytes: usize,
}

impl Core {
    /// What this core has done and holds.
    pub fn stats(&self) -> NodeStats {
        let (mut slow, mut outbox_bytes) = (0, 0);
        for connection in self.connections.iter().flatten() {
            slow += u32::from(connection.slow_since != 0);
            outbox_bytes += connection.outbox.bytes() as u64;
        }
        NodeStats {
            uptime_ns: self.now.mono_ns - self.started_ns,
            connections: self.open as u32,
            topics: self.topics.len() as u32,
            slow,
            outbox_bytes,
            history_bytes: self.chunks.bytes() as u64,
            ..self.stats
        }
    }

    /// What waits in memory for the connection in `slot`; `None` when there is none.
    pub fn held(&self, slot: u32) -> Option<Held> {
        let connection = self.connections.get(slot as usize)?.as_deref()?;
        Some(Held {
            outbox_bytes: connection.outbox.bytes(),
            inbox_bytes: connection.inbox.len(),
        })
    }

    /// Bytes of shared batches that are kept, free ones and those still being sent.
    pub fn batch_bytes(&self) -> usize {
        self.log.held_bytes()
    }

    /// Bytes of shared batches that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.log.queued_bytes()
    }

    /// Whether somebody subscribes to this core's figures.
    pub(super) fn is_watched(&self) -> bool {
        self.report_topic
            .is_some_and(|index| self.topics.get(index).is_watched())
    }

    /// Publishes the figures if they are due and wanted.
    pub(super) fn report(&mut self) {
        if self.now.mono_ns < self.report_at || !self.is_watched() {
            return;
        }
        self.report_at = self.now.mono_ns + PERIOD_NS;
        let mut payload = Vec::new();
        let stats = self.stats();
        let slowest: Vec<_> = self.slowest().collect();
        let slowest = slowest.iter().map(|slow| SlowClient {
            name: match &*slow.name {
                "" => "(unnamed)",
                name => name,
            },
            behind_bytes: slow.behind_bytes,
            since_ns: slow.since_ns,
            topics: slow.topics,
        });
        stats.encode(slowest, &mut payload);
        let index = self.report_topic.expect("it is watched");
        if let Err(refusal) = self.report_event(index, &payload) {
            tracing::warn!(%refusal, "the node's own figures were refused");
        }
    }
}
