//! What a run does, as its parent tells each worker process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tickring_protocol::Policy;

use crate::target::Protocol;
use crate::topics::Topics;

/// The part of a run that one worker process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What is done.
    pub load: Load,
    /// The server.
    pub server: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// The topics, and who has which.
    pub topics: Topics,
    /// What subscriptions ask for when their connection reads too slowly.
    pub policy: SlowPolicy,
    /// Bytes of a message's payload.
    pub payload: usize,
    /// First connection of this worker.
    pub first: u32,
    /// How many connections this worker has.
    pub connections: u32,
    /// How many threads share them.
    pub threads: u32,
    /// Where in this worker the publishers run.
    pub publishers: Publishers,
    /// How many stalled readers run in this worker.
    pub stalled: u32,
    /// How many topics each of them subscribes to.
    pub stalled_each: u32,
    /// The number of the first of them: they come after all connections.
    pub stalled_first: u32,
    /// Connections that a thread opens at a time, at most.
    pub window: u32,
    /// How long connecting and subscribing may take.
    pub connect_timeout: Duration,
    /// How long the last events may take to come.
    pub drain_timeout: Duration,
}

/// Where in a worker the publishers of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publishers {
    /// In another worker, or nowhere.
    Elsewhere,
    /// In a thread of their own.
    Apart,
    /// In the thread of the worker's subscribers, which is the only one.
    Within,
}

impl Plan {
    /// How many threads the worker has.
    pub fn all_threads(&self) -> u32 {
        self.threads + u32::from(self.publishers == Publishers::Apart) + u32::from(self.stalled > 0)
    }
}

/// The scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// Publishers on a schedule, subscribers that check everything.
    Fanout {
        /// Messages a second in all.
        rate: f64,
        /// For how long.
        seconds: f64,
    },
    /// Each connection publishes to itself.
    PingPong {
        /// Messages a second in all; `None`: each connection sends when its last one came back.
        rate: Option<f64>,
        /// For how long.
        seconds: f64,
        /// Never sleep.
        busy_poll: bool,
    },
    /// Everybody connects and subscribes at once.
    Connect {
        /// For how long the connections are held.
        hold: f64,
    },
    /// Subscribe, unsubscribe and close at random moments while events flow.
    Churn {
        /// How many cycles this worker does.
        cycles: u64,
        /// Messages a second in all.
        rate: f64,
        /// At most for how long.
        seconds: f64,
    },
    /// Fan-out in alternating periods: all readers read, some readers stall.
    Stall {
        /// Messages a second in all.
        rate: f64,
        /// For how long.
        seconds: f64,
        /// Length of a period in seconds.
        period: f64,
    },
}

impl Load {
    /// The scenario's name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fanout { .. } => "fanout",
            Self::PingPong { .. } => "pingpong",
            Self::Connect { .. } => "connect",
            Self::Churn { .. } => "churn",
            Self::Stall { .. } => "stall",
        }
    }
}

/// A subscription's policy, as options and plans write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlowPolicy {
    /// What the topic's kind has.
    Default,
    /// Skip to the latest state.
    Conflate,
    /// Miss nothing, catch up later.
    Resume,
    /// Close the connection.
    Disconnect,
}

impl From<SlowPolicy> for Policy {
    fn from(policy: SlowPolicy) -> Self {
        match policy {
            SlowPolicy::Default => Self::Default,
            SlowPolicy::Conflate => Self::Conflate,
            SlowPolicy::Resume => Self::Resume,
            SlowPolicy::Disconnect => Self::Disconnect,
        }
    }
}

/// Connections that share a source address. A pair of addresses has 28,232 ephemeral ports by
/// default; what the run before left in TIME_WAIT takes some of them.
const CONNECTIONS_PER_SOURCE: u64 = 10_000;

/// The address that the `attempt`-th connect of a run is made from: 127.0.0.2, .3 and so on when
/// the server is on loopback, where all of 127/8 is ours; `None` otherwise.
pub fn source_of(server: &SocketAddr, attempt: u64) -> Option<IpAddr> {
    match server.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let number = (attempt / CONNECTIONS_PER_SOURCE) % 65_000 + 2;
            Some(IpAddr::V4(Ipv4Addr::new(
                127,
                0,
                (number >> 8) as u8,
                number as u8,
            )))
        }
        _ => None,
    }
}

/// The `part`-th of `parts` nearly equal shares of `whole`: its start and its size.
pub fn share(whole: u64, parts: u64, part: u64) -> (u64, u64) {
    let (each, rest) = (whole / parts, whole % parts);
    (part * each + part.min(rest), each + u64::from(part < rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_connections_share_a_loopback_address() {
        let server = "127.0.0.1:7400".parse().unwrap();
        let source = |attempt| source_of(&server, attempt).unwrap().to_string();
        assert_eq!(source(0), "127.0.0.2");
        assert_eq!(source(9_999), "127.0.0.2");
        assert_eq!(source(10_000), "127.0.0.3");
        assert_eq!(source(2_540_000), "127.0.1.0");
        assert_eq!(source_of(&"10.0.0.1:7400".parse().unwrap(), 0), None);
    }

    #[test]
    fn shares_cover_the_whole_without_overlap() {
        for (whole, parts) in [(10, 3), (2, 4), (19_000, 2)] {
            let mut next = 0;
            for part in 0..parts {
                let (start, size) = share(whole, parts, part);
                assert_eq!(start, next);
                next = start + size;
            }
            assert_eq!(next, whole);
        }
    }
}
