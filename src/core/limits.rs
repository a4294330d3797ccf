//! The bounds of a core: each has a name, and each is answered when it is reached.

use std::time::Duration;

/// What one core allows. All counts and bytes are for this core alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; one more is answered `connection_limit`.
    pub max_connections: usize,
    /// Subscriptions of one connection; one more is answered `subscription_limit`.
    pub max_subscriptions: usize,
    /// Topics; one more is answered `topic_limit`.
    pub max_topics: usize,
    /// Bytes of one frame from a client, header included; a longer one is a violation.
    pub max_frame_bytes: usize,
    /// Bytes waiting for one connection. Beyond it the subscriptions' policies act, and its
    /// commands wait.
    pub outbox_bytes: usize,
    /// Bytes received from one connection that cannot be acted on yet; beyond it the socket is
    /// not read.
    pub inbox_bytes: usize,
    /// Bytes of events kept for replay, per topic.
    pub history_topic_bytes: usize,
    /// Bytes of events kept for replay, for all topics of the core.
    pub history_bytes: usize,
    /// Reads of the database that are not answered yet; one more is answered `overloaded`.
    pub max_reads: usize,
    /// Of these, reads of one connection.
    pub max_connection_reads: usize,
    /// How long a command waits for room in another core's mailbox, its connection not being read
    /// meanwhile, before it is refused with `overloaded`.
    pub overload_patience: Duration,
    /// Time from accept to HELLO.
    pub hello_timeout: Duration,
    /// Silence after which a connection is closed; zero: never.
    pub idle_timeout: Duration,
    /// Time for what was promised to go out, once a connection is being closed.
    pub drain_timeout: Duration,
    /// Time for the client to close its side after ours.
    pub linger_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_subscriptions: 10_000,
            max_topics: 100_000,
            max_frame_bytes: 512 << 10, // a chat text of 100,000 characters of 4 bytes, and some
            outbox_bytes: 256 << 10,
            inbox_bytes: 64 << 10,
            history_topic_bytes: 16 << 20,
            history_bytes: 128 << 20,
            max_reads: 256,
            max_connection_reads: 4,
            overload_patience: Duration::from_secs(1),
            hello_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(90),
            drain_timeout: Duration::from_secs(5),
            linger_timeout: Duration::from_secs(2),
        }
    }
}
