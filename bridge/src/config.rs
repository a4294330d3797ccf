//! What the bridge is configured with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::page::Page;

/// Configuration of a [`crate::Bridge`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The server, `host:port`.
    pub upstream: String,
    /// What the server's access check reads; clients that bring their own have their commands
    /// carried out under those.
    pub credentials: String,
    /// Origins that pages may come from, such as `https://example.org`; `*`: any. The bridge's own
    /// pages always may.
    pub allowed_origins: Vec<String>,
    /// What the market page shows.
    pub page: Page,
    /// Certificate chain and private key as PEM files, for TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// WebSocket connections at once, and half as many HTTP requests beside them.
    pub max_connections: usize,
    /// Subscriptions of one client.
    pub max_subscriptions: usize,
    /// Topics that are given an id while the bridge runs.
    pub max_topics: usize,
    /// Bytes of one message of a client.
    pub max_message_bytes: usize,
    /// Bytes that a client may be behind before its subscriptions' policies act.
    pub outbox_bytes: usize,
    /// Bytes of memory for what is kept of one topic.
    pub history_bytes: usize,
    /// Bytes of memory for what is kept of all topics.
    pub total_history_bytes: usize,
    /// Time after which a client of which nothing is heard is sent a ping; after three it is
    /// closed.
    pub ping_interval: Duration,
    /// Time after which a client that takes nothing is closed.
    pub write_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            upstream: "127.0.0.1:7400".to_owned(),
            credentials: String::new(),
            allowed_origins: Vec::new(),
            page: Page::default(),
            tls: None,
            max_connections: 10_000,
            max_subscriptions: 10_000,
            max_topics: 100_000,
            max_message_bytes: 64 << 10,
            outbox_bytes: 1 << 20,
            history_bytes: 256 << 10,
            total_history_bytes: 256 << 20,
            ping_interval: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
        }
    }
}
