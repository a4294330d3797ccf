//! The session: everything about a connection but the connection.

mod backoff;
mod inbox;
mod outbox;
mod receive;
mod request;
mod sequence;
mod state;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use tickring_protocol::{Decoded, MAX_FRAME_LEN, Policy, Publish, decode};

pub use request::RequestError;
pub use topics::{TopicHandle, TopicRef};

use crate::notice::fill;
use crate::{HistoryQuery, Notice, OwnedNotice, Reason};
use inbox::Inbox;
pub(crate) use state::Step;
use state::{Phase, State};

/// What a [`Session`] is to be.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// What the connection calls itself, for people: at most 64 bytes.
    pub name: String,
    /// What the server's access check reads: at most 4096 bytes.
    pub credentials: Vec<u8>,
    /// The shortest wait before a reconnect.
    pub backoff_min: Duration,
    /// The longest wait before a reconnect.
    pub backoff_max: Duration,
    /// Failed attempts in a row after which the session gives up; 0: never.
    pub max_attempts: u32,
    /// Seed of the jitter of the waits; 0: from the operating system.
    pub seed: u64,
    /// How long to wait for WELCOME, and for the end of the stream behind a GOODBYE.
    pub answer_timeout: Duration,
    /// The largest frame to accept, in bytes.
    pub max_frame: usize,
    /// Bytes that may wait to be sent before [`RequestError::Full`].
    pub max_unsent: usize,
    /// Commands that may wait for a reply before [`RequestError::TooManyCommands`].
    pub max_commands: usize,
    /// Send commands without a reply again when the server takes the session up after a
    /// reconnect. Topics of durable kinds apply such a command once; those of volatile kinds
    /// (`stream`, `market`) may apply it twice. If false, [`Notice::OutcomeUnknown`] comes
    /// instead.
    pub resend_commands: bool,
    /// Topics that may be known at once before [`RequestError::TooManyTopics`].
    pub max_topics: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            credentials: Vec::new(),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            max_attempts: 0,
            seed: 0,
            answer_timeout: Duration::from_secs(5),
            max_frame: MAX_FRAME_LEN,
            max_unsent: 4 << 20,
            max_commands: 4096,
            resend_commands: true,
            max_topics: 1 << 20,
        }
    }
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// The state as it is, and every event behind it.
    #[default]
    Now,
    /// Every event that the server still has, and every event behind them.
    Oldest,
    /// The event `seq` and every event behind it.
    Seq {
        /// First seq wanted, at least 1.
        seq: u64,
        /// The epoch that `seq` belongs to, as [`Notice::Subscribed`] told it; 0: whichever
        /// there is.
        epoch: u64,
    },
}

/// How to subscribe. After a reconnect the subscription goes on behind the newest event that was
/// delivered, whatever it started from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Where to start.
    pub from: StartAt,
    /// What the server does when this connection reads too slowly.
    pub policy: Policy,
}

/// A session with a server, without socket or clock: deterministic, given the same calls.
///
/// Its methods are of four groups.
///
/// 1. **The transport's events.** [`Session::connected`] when a connection was made,
///    [`Session::receive_space`] and [`Session::received`] (or [`Session::receive`]) for bytes,
///    [`Session::disconnected`] when it ended or could not be made, [`Session::handle_timeout`]
///    when [`Session::next_timeout`] has come. Time is a [`Duration`] since any fixed moment and
///    never runs backwards.
/// 2. **What the transport must do.** [`Session::to_send`] and [`Session::sent`];
///    [`Session::wants_transport`]: once it is false, drop the connection;
///    [`Session::reconnect_at`]: when it is `Some`, make a new one at that time.
/// 3. **Requests**: [`Session::subscribe`], [`Session::unsubscribe`], [`Session::publish`],
///    [`Session::command`], [`Session::history`], [`Session::ping`], [`Session::close`]. They queue bytes and return
///    at once.
/// 4. **Notices**: [`Session::next`], until `None`, after every event of group 1.
///
/// # What survives a reconnect
/// - Subscriptions: asked for again, from the seq behind the newest that was delivered. What the
///   server no longer has comes as [`Notice::Gap`].
/// - Commands with a reply outstanding: if the server took the session up
///   (`Connected { resumed: true }`) they are sent again with the same request id, which a durable
///   topic applies once (see [`SessionConfig::resend_commands`]); otherwise
///   [`Notice::OutcomeUnknown`] says so. Commands that never left are simply sent.
/// - Publishes do not: they are quiet, so nobody knows which of them arrived.
///   [`crate::Disconnected::unconfirmed_publishes`] bounds the loss. Use
///   [`Session::publish_confirmed`] for what must not be lost.
#[derive(Debug)]
pub struct Session {
    inbox: Inbox,
    state: State,
}

impl Session {
    /// A session that has no connection yet; [`Session::reconnect_at`] asks for one at once.
    ///
    /// # Errors
    /// [`RequestError::BadName`] when the name or the credentials are too long.
    pub fn new(config: SessionConfig) -> Result<Self, RequestError> {
        Ok(Self {
            inbox: Inbox::new(),
            state: State::new(config)?,
        })
    }

    /// A connection was made: HELLO is queued.
    ///
    /// # Panics
    /// When the session has a connection, or has not told of the end of the last one yet.
    pub fn connected(&mut self, now: Duration) {
        self.inbox.clear();
        self.state.open(now);
    }

    /// The connection ended, or could not be made. What came before is still delivered, then
    /// [`Notice::Disconnected`].
    pub fn disconnected(&mut self, reason: Reason, now: Duration) {
        self.state.now = now;
        self.state.lose(reason);
    }

    /// Room for the transport to read into: at least 16 KiB after [`Session::next`] has
    /// returned `None`.
    pub fn receive_space(&mut self) -> &mut [u8] {
        self.inbox.space()
    }

    /// The transport has put `len` bytes at the start of [`Session::receive_space`].
    ///
    /// # Panics
    /// When there was no room for so many.
    pub fn received(&mut self, len: usize, now: Duration) {
        self.inbox.filled(len);
        self.state.heard(now);
    }

    /// Copies bytes in, as many as there is room for; returns how many. Call
    /// [`Session::next`] until `None` before going on with the rest.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) -> usize {
        let space = self.receive_space();
        let len = bytes.len().min(space.len());
        space[..len].copy_from_slice(&bytes[..len]);
        self.received(len, now);
        len
    }

    /// Does what is due: heartbeats, and giving a silent server up.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.state.handle_timeout(now);
    }

    /// When to call [`Session::handle_timeout`]; `None`: nothing is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.state.next_timeout()
    }

    /// Bytes for the transport.
    #[must_use]
    pub fn to_send(&self) -> &[u8] {
        self.state.outbox.waiting()
    }

    /// The transport has taken the first `len` bytes of [`Session::to_send`].
    ///
    /// # Panics
    /// When there were not so many.
    pub fn sent(&mut self, len: usize) {
        self.state.spoke(len);
    }

    /// Whether the transport is to be kept: false before [`Session::connected`] and from the
    /// moment [`Notice::Disconnected`] was taken.
    #[must_use]
    pub fn wants_transport(&self) -> bool {
        self.state.phase != Phase::Offline
    }

    /// When to make a connection; `None` while there is one, and after the session has given up
    /// or was closed.
    #[must_use]
    pub fn reconnect_at(&self) -> Option<Duration> {
        match self.state.phase {
            Phase::Offline => self.state.retry_at,
            _ => None,
        }
    }

    /// Whether WELCOME came and neither side has said goodbye: publishes are taken.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state.phase == Phase::Active && self.state.lost.is_none()
    }

    /// The largest frame that the server takes, in bytes; before WELCOME, the protocol's limit.
    #[must_use]
    pub fn server_max_frame(&self) -> usize {
        self.state.server_max_frame
    }

    /// Why the last connection ended.
    #[must_use]
    pub fn last_reason(&self) -> Option<Reason> {
        self.state.last_reason
    }

    /// Why the connection is over or about to be; `None` while it is in use.
    pub(crate) fn ending(&self) -> Option<Reason> {
        let state = &self.state;
        match state.phase {
            Phase::Offline => state.last_reason,
            _ => state.lost.or(state.ending.map(|(reason, _)| reason)),
        }
    }

    /// The next notice, or `None` until the transport brings more. Costs no allocation per
    /// event.
    #[allow(
        clippy::should_implement_trait,
        reason = "it lends from the receive buffer, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<Notice<'_>> {
        let step = self.advance()?;
        Some(self.show(step))
    }

    /// Handles frames until one is worth a notice.
    pub(crate) fn advance(&mut self) -> Option<Step> {
        let Self { inbox, state } = self;
        loop {
            if let Some(step) = state.queued.pop_front() {
                return Some(step);
            }
            state.release_unused();
            if state.phase == Phase::Offline {
                // An attempt to connect may fail before there is a connection.
                state.go_offline();
                if state.queued.is_empty() {
                    return None;
                }
                continue;
            }
            let start = inbox.start();
            let outcome = match decode(inbox.waiting(), state.config.max_frame) {
                Ok(Decoded::Frame { frame, len }) => {
                    let taken = state.take(&frame, start..start + len);
                    inbox.consume(len);
                    taken
                }
                Ok(Decoded::Skipped { len }) => {
                    inbox.consume(len);
                    Ok(None)
                }
                Ok(Decoded::NeedMore { frame_len }) => {
                    if state.lost.is_some() {
                        inbox.clear();
                        state.go_offline();
                        continue;
                    }
                    inbox.want(frame_len);
                    return None;
                }
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(Some(step)) => return Some(step),
                Ok(None) => {}
                Err(violation) => {
                    inbox.clear();
                    state.lost = Some(Reason::Protocol(violation));
                }
            }
        }
    }

    /// The notice of a step that [`Session::advance`] has just returned.
    pub(crate) fn show(&self, step: Step) -> Notice<'_> {
        let (name, handle) = match step.slot {
            Some(slot) => (
                Some(&*self.state.topics.get(slot).name),
                self.state.topics.handle(slot),
            ),
            None => (None, TopicHandle::NONE),
        };
        let body = self.inbox.span(step.body.0, step.body.1);
        fill(step.fixed, name, handle, body)
    }

    /// As [`Session::show`], borrowing nothing and sharing the topic's name.
    pub(crate) fn show_owned(&self, step: Step) -> OwnedNotice {
        self.show(step).to_owned(|name| match step.slot {
            Some(slot) => self.state.topics.get(slot).name.clone(),
            None => Arc::from(name),
        })
    }

    /// Subscribes to a topic, now or as soon as there is a connection. The outcome is
    /// [`Notice::Subscribed`] or [`Notice::Refused`] with the request id returned.
    ///
    /// # Errors
    /// [`RequestError`] when the name is none or the topic is subscribed already.
    pub fn subscribe<'t>(
        &mut self,
        topic: impl Into<TopicRef<'t>>,
        options: SubscribeOptions,
    ) -> Result<u64, RequestError> {
        self.state.subscribe(topic.into(), options)
    }

    /// Gives a subscription up. Events may still come until [`Notice::Unsubscribed`], none
    /// after it. SUBSCRIBED need not have come.
    ///
    /// # Errors
    /// [`RequestError::NotSubscribed`] when there is no such subscription.
    pub fn unsubscribe<'t>(&mut self, topic: impl Into<TopicRef<'t>>) -> Result<u64, RequestError> {
        self.state.unsubscribe(topic.into())
    }

    /// A handle of a topic, for publishing without a look-up. It stays valid across reconnects.
    ///
    /// # Errors
    /// [`RequestError`] when the name is none or too many topics are known.
    pub fn topic(&mut self, name: &str) -> Result<TopicHandle, RequestError> {
        let slot = self.state.topics.resolve(TopicRef::Name(name))?;
        self.state.topics.get_mut(slot).pinned = true;
        Ok(self.state.topics.handle(slot))
    }

    /// Lets go of a topic that was published to or whose handle was taken: without a
    /// subscription or a reply outstanding its handles become invalid.
    ///
    /// # Errors
    /// [`RequestError::StaleHandle`] when it is not known.
    pub fn forget<'t>(&mut self, topic: impl Into<TopicRef<'t>>) -> Result<(), RequestError> {
        self.state.forget(topic.into())
    }

    /// Publishes an event quietly: nothing comes back unless it is refused
    /// ([`Notice::Refused`]). Publishes to a topic keep their order. The first one on a
    /// connection names the topic and asks for a reply that tells its id; from then on the id is
    /// used.
    ///
    /// # Errors
    /// [`RequestError`]: nothing was queued. [`RequestError::Offline`] while there is no
    /// connection, [`RequestError::Full`] until more was sent.
    pub fn publish<'t>(
        &mut self,
        topic: impl Into<TopicRef<'t>>,
        event: &Publish<'_>,
    ) -> Result<(), RequestError> {
        self.state.publish(topic.into(), event)
    }

    /// Publishes an event and asks for a [`Notice::Reply`] that tells its seq. Returns the
    /// request id. Survives a reconnect as a command does.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn publish_confirmed<'t>(
        &mut self,
        topic: impl Into<TopicRef<'t>>,
        event: &Publish<'_>,
    ) -> Result<u64, RequestError> {
        self.state.publish_confirmed(topic.into(), event)
    }

    /// Sends a command to a topic's machine, now or as soon as there is a connection. Returns
    /// the request id that [`Notice::Reply`] will carry.
    ///
    /// # Errors
    /// [`RequestError`]: nothing was queued.
    pub fn command<'t>(
        &mut self,
        topic: impl Into<TopicRef<'t>>,
        command: u16,
        payload: &[u8],
    ) -> Result<u64, RequestError> {
        self.state.command(topic.into(), command, payload)
    }

    /// Asks for a page of an instrument's stored rows, now or as soon as there is a connection.
    /// The outcome is [`Notice::History`] or [`Notice::Refused`] with the request id returned. A
    /// read whose connection broke is asked for again on the next one.
    ///
    /// # Errors
    /// [`RequestError`]: nothing was queued.
    pub fn history(&mut self, topic: &str, query: HistoryQuery) -> Result<u64, RequestError> {
        self.state.history(topic, query)
    }

    /// Asks the server for a [`Notice::Pong`] behind everything sent so far. Returns its token.
    ///
    /// # Errors
    /// [`RequestError::Offline`] or [`RequestError::Full`].
    pub fn ping(&mut self) -> Result<u64, RequestError> {
        self.state.ping()
    }

    /// Says GOODBYE: what the server promised still comes, then [`Notice::Disconnected`]. The
    /// session connects no more.
    pub fn close(&mut self) {
        self.state.close();
    }
}
