//! How to connect.

use std::time::Duration;

use crate::{Client, ClientError, RequestError, SessionConfig};

/// How a driver connects and behaves; built up call by call.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) address: String,
    pub(crate) session: SessionConfig,
    pub(crate) busy_poll: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) connect_attempts: u32,
    pub(crate) max_unread: usize,
}

impl Options {
    /// Options for the server at `address`, `host:port`.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            session: SessionConfig::default(),
            busy_poll: false,
            connect_timeout: Duration::from_secs(5),
            connect_attempts: 1,
            max_unread: 64 << 20,
        }
    }

    /// What the connection calls itself, for people: at most 64 bytes. Default: nothing.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.session.name = name.into();
        self
    }

    /// What the server's access check reads: at most 4096 bytes. Default: nothing.
    #[must_use]
    pub fn credentials(mut self, credentials: impl Into<Vec<u8>>) -> Self {
        self.session.credentials = credentials.into();
        self
    }

    /// Spin on the socket instead of sleeping: the lowest latency, for a processor of one's own.
    /// Only the blocking client does. Default: no.
    #[must_use]
    pub fn busy_poll(mut self, busy: bool) -> Self {
        self.busy_poll = busy;
        self
    }

    /// How long one attempt to connect may take, and how long to wait for WELCOME. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self.session.answer_timeout = timeout;
        self
    }

    /// The shortest and the longest wait before a reconnect; it doubles in between, and the
    /// upper half is random. Default: 50 ms to 5 s.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.session.backoff_min = min;
        self.session.backoff_max = max;
        self
    }

    /// Seed of the random part of the waits; 0 takes one from the operating system. Default: 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.session.seed = seed;
        self
    }

    /// Failed attempts in a row after which a lost connection is given up; 0: never. Default: 0.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.session.max_attempts = attempts;
        self
    }

    /// Attempts to make the first connection before `connect` fails; 0: without end.
    /// Default: 1.
    #[must_use]
    pub fn connect_attempts(mut self, attempts: u32) -> Self {
        self.connect_attempts = attempts;
        self
    }

    /// Bytes of notices that may pile up while the user publishes or waits for a reply instead of
    /// taking them. Default: 64 MiB.
    #[must_use]
    pub fn max_unread(mut self, bytes: usize) -> Self {
        self.max_unread = bytes;
        self
    }

    /// The session's own settings, for what has no method here.
    #[must_use]
    pub fn session(mut self, change: impl FnOnce(&mut SessionConfig)) -> Self {
        change(&mut self.session);
        self
    }

    /// Connects: returns once the server has accepted the session.
    ///
    /// # Errors
    /// [`ClientError::Disconnected`] with the last attempt's reason; [`ClientError::Request`]
    /// when an option is out of bounds.
    pub fn connect(self) -> Result<Client, ClientError> {
        Client::connect(self)
    }

    pub(crate) fn check(&self) -> Result<(), RequestError> {
        // A session that sends in pieces of 64 KiB must be able to hold two.
        if self.session.max_unsent < 128 << 10 {
            return Err(RequestError::Full {
                unsent: 128 << 10,
                limit: self.session.max_unsent,
            });
        }
        Ok(())
    }
}
