//! The blocking driver.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tickring_protocol::{ErrorCode, PUBLISH, Publish};

use crate::link::{self, Link, Moved};
use crate::session::Step;
use crate::{
    HistoryQuery, HistoryRows, Notice, Options, OwnedNotice, Reason, Refused, RequestError,
    Session, SubscribeOptions, TopicHandle, TopicRef,
};

/// Bytes of publishes that are kept back before they are sent unasked.
const FLUSH_AT: usize = 64 << 10;
/// Bytes that a kept notice costs besides its body, about.
const NOTICE_COST: usize = 192;

/// Why a call of a [`Client`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The request was not taken; nothing was queued.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The connection ended while the call was waiting on it. The client reconnects.
    #[error("disconnected: {0}")]
    Disconnected(Reason),
    /// The client was closed or has given up; it connects no more.
    #[error("the client connects no more: {0}")]
    Closed(Reason),
    /// The server refused the command.
    #[error("refused with {}: {text}", code_text(*code))]
    Refused {
        /// Why: an [`ErrorCode`] as a number.
        code: u16,
        /// When to try again, in milliseconds; 0: no sooner than something changes.
        retry_after_ms: u32,
        /// For people.
        text: String,
    },
    /// The connection broke before the reply, and the server did not take the session up again:
    /// whether the command was applied is not known.
    #[error("the connection broke, and whether the command was applied is not known")]
    OutcomeUnknown,
    /// The time was up. What was asked for stays under way; its outcome comes as a notice.
    #[error("no answer in time")]
    Timeout,
    /// Notices have piled up to [`Options::max_unread`] while the call was waiting; take them
    /// with [`Client::poll`] and go on. Nothing was lost.
    #[error("{0} bytes of notices wait to be taken")]
    Unread(usize),
}

fn code_text(code: u16) -> String {
    ErrorCode::from_u16(code).map_or_else(|| format!("code {code}"), |code| code.to_string())
}

/// The answer to an accepted command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandReply {
    /// Seq of the newest event that the command made; 0: none.
    pub seq: u64,
    /// The machine's answer.
    pub payload: Vec<u8>,
}

/// A session over TCP that works while one of its methods runs: call [`Client::next`] or
/// [`Client::poll`] often, at least once in a heartbeat of the server.
///
/// Requests are buffered. They leave with [`Client::flush`], with every call that waits, and
/// when publishes have reached 64 KiB. While it writes, the client reads: notices that come are
/// kept, up to [`Options::max_unread`], so a server that sends while it is sent to blocks
/// nobody. They are not lost and keep their order.
///
/// A lost connection is made anew as [`Options::backoff`] has it, inside of [`Client::next`],
/// [`Client::poll`], [`Client::wait_connected`] and the calls that wait for an answer; see
/// [`Session`] for what survives. Making a connection blocks no longer than the call's own
/// timeout, but for the system's resolver of names.
#[derive(Debug)]
pub struct Client {
    session: Session,
    link: Link,
    options: Options,
    started: Instant,
    /// Notices that came while the user waited for something else.
    kept: VecDeque<OwnedNotice>,
    kept_bytes: usize,
    /// The kept notice that the user looks at.
    shown: Option<OwnedNotice>,
}

impl Client {
    pub(crate) fn connect(options: Options) -> Result<Self, ClientError> {
        options.check()?;
        let mut client = Self {
            session: Session::new(options.session.clone())?,
            link: Link::Down,
            options,
            started: Instant::now(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            shown: None,
        };
        let mut failed = 0;
        loop {
            client.turn(Duration::MAX)?;
            while let Some(step) = client.session.advance() {
                match client.keep(step) {
                    // What came right behind it is for the user to see in its turn.
                    Notice::Connected { .. } => return Ok(client),
                    Notice::Disconnected(end) => {
                        failed += 1;
                        if end.retry_in.is_none() || failed == client.options.connect_attempts {
                            return Err(ClientError::Disconnected(end.reason));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// The session: for what is true at this moment.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// See [`Session::subscribe`].
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub fn subscribe<'t>(
        &mut self,
        topic: impl Into<TopicRef<'t>>,
        options: SubscribeOptions,
    ) -> Result<u64, ClientError> {
        Ok(self.session.subscribe(topic, options)?)
    }

    /// See [`Session::unsubscribe`].
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub fn unsubscribe<'t>(&mut self, topic: impl Into<TopicRef<'t>>) -> Result<u64, ClientError> {
        Ok(self.session.unsubscribe(topic)?)
    }

    /// See [`Session::topic`].
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub fn topic(&mut self, name: &str) -> Result<TopicHandle, ClientError> {
        Ok(self.session.topic(name)?)
    }

    /// See [`Session::forget`].
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub fn forget<'t>(&mut self, topic: impl Into<TopicRef<'t>>) -> Result<(), ClientError> {
        Ok(self.session.forget(topic)?)
    }

    /// Publishes an event quietly; see [`Session::publish`]. It leaves with the next
    /// [`Client::flush`], or when 64 KiB wait.
    ///
    /// # Errors
    /// [`ClientError::Request`] when it was not taken: with [`RequestError::Offline`] call
    /// [`Client::wait_connected`] and publish again. Any other error is one of the flush that
    /// the publish caused, and the publish itself was taken.
    pub fn publish<'t>(
        &mut self,
        topic: impl Into<TopicRef<'t>>,
        event: &Publish<'_>,
    ) -> Result<(), ClientError> {
        self.session.publish(topic, event)?;
        if self.session.to_send().len() >= FLUSH_AT {
            self.flush()?;
        }
        Ok(())
    }

    /// Publishes an event and waits for the reply that tells its seq.
    ///
    /// # Errors
    /// As [`Client::command`].
    pub fn publish_confirmed<'t>(
        &mut self,
        topic: impl Into<TopicRef<'t>>,
        event: &Publish<'_>,
        timeout: Duration,
    ) -> Result<CommandReply, ClientError> {
        let mut payload = Vec::new();
        event.encode(&mut payload);
        self.command(topic, PUBLISH, &payload, timeout)
    }

    /// Sends a command and waits for its reply, across a reconnect if need be.
    ///
    /// # Errors
    /// [`ClientError::Refused`] by the server, [`ClientError::Timeout`],
    /// [`ClientError::OutcomeUnknown`], [`ClientError::Request`] when it was not sent at all.
    pub fn command<'t>(
        &mut self,
        topic: impl Into<TopicRef<'t>>,
        command: u16,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<CommandReply, ClientError> {
        let wanted = self.session.command(topic, command, payload)?;
        self.wait_for(timeout, |notice| match outcome(notice) {
            Some((request_id, result)) if request_id == wanted => Some(result),
            _ => None,
        })
    }

    /// Reads a page of an instrument's stored rows, across a reconnect if need be.
    ///
    /// # Errors
    /// [`ClientError::Refused`] by the server, [`ClientError::Timeout`], [`ClientError::Request`]
    /// when it was not sent at all.
    pub fn history(
        &mut self,
        topic: &str,
        query: HistoryQuery,
        timeout: Duration,
    ) -> Result<HistoryRows, ClientError> {
        let wanted = self.session.history(topic, query)?;
        self.wait_for(timeout, |notice| match page(notice) {
            Some((request_id, result)) if request_id == wanted => Some(result),
            _ => None,
        })
    }

    /// Sends everything, and waits until the server has taken it in: a PING and its PONG. Of
    /// publishes that it refused, [`Notice::Refused`] has come before for topics that live on
    /// this connection's core of the server; for others it may come later. Where the outcome
    /// matters, [`Client::publish_confirmed`] tells it.
    ///
    /// # Errors
    /// [`ClientError::Disconnected`] when the connection broke: how many publishes may be lost
    /// is in the [`Notice::Disconnected`] that follows. [`ClientError::Timeout`].
    pub fn barrier(&mut self, timeout: Duration) -> Result<(), ClientError> {
        let wanted = self.session.ping()?;
        let mut broken = None;
        let pong = self.wait_for_kept(timeout, |notice| match *notice {
            Notice::Pong { token, .. } if token == wanted => Answer::Take(()),
            Notice::Disconnected(end) => {
                broken = Some(end.reason);
                Answer::KeepAndStop
            }
            _ => Answer::Keep,
        })?;
        match (pong, broken) {
            (Some(()), _) => Ok(()),
            (None, Some(reason)) => Err(ClientError::Disconnected(reason)),
            (None, None) => Err(ClientError::Timeout),
        }
    }

    /// Sends everything that is buffered, and returns once the kernel has it.
    ///
    /// # Errors
    /// [`ClientError::Disconnected`] when the connection broke or the server ends it,
    /// [`ClientError::Unread`].
    pub fn flush(&mut self) -> Result<(), ClientError> {
        if self.session.to_send().is_empty() {
            return Ok(());
        }
        while !self.session.to_send().is_empty() {
            self.check_kept()?;
            self.turn(Duration::MAX)?;
            self.keep_all();
            if !self.session.wants_transport() {
                break;
            }
        }
        // A refusal drops what was not sent yet, and what is sent behind a goodbye is refused.
        match self.session.ending() {
            None => Ok(()),
            Some(reason) => Err(ClientError::Disconnected(reason)),
        }
    }

    /// Waits until there is a connection, at most `timeout`.
    ///
    /// # Errors
    /// [`ClientError::Timeout`], [`ClientError::Closed`], [`ClientError::Unread`].
    pub fn wait_connected(&mut self, timeout: Duration) -> Result<(), ClientError> {
        let until = self.now().saturating_add(timeout);
        loop {
            self.keep_all();
            if self.session.is_active() {
                return Ok(());
            }
            if self.now() >= until {
                return Err(ClientError::Timeout);
            }
            self.check_kept()?;
            self.turn(until)?;
        }
    }

    /// The next notice; waits for one at most `timeout`, and sends what is buffered if it has to
    /// wait.
    ///
    /// # Errors
    /// [`ClientError::Closed`] once the client was closed or has given up, and all notices were
    /// taken.
    #[allow(
        clippy::should_implement_trait,
        reason = "it lends from the receive buffer, which Iterator cannot say"
    )]
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Notice<'_>>, ClientError> {
        if let Some(notice) = self.kept.pop_front() {
            self.kept_bytes -= cost(&notice);
            let shown = self.shown.insert(notice);
            return Ok(Some(shown.get()));
        }
        let step = self.next_step(timeout)?;
        Ok(step.map(|step| self.session.show(step)))
    }

    /// Hands every notice there is to `visit`, waiting for the first at most `timeout`; returns
    /// how many there were.
    ///
    /// # Errors
    /// As [`Client::next`]; what was there before was handed over.
    pub fn poll(
        &mut self,
        timeout: Duration,
        mut visit: impl FnMut(Notice<'_>),
    ) -> Result<usize, ClientError> {
        let mut count = 0;
        let mut wait = timeout;
        loop {
            // Only what is there already: waiting for more would never end under load.
            let ready = match count {
                0 => self.next(wait)?,
                _ => match self.kept.is_empty() {
                    true => self.session.next(),
                    false => self.next(Duration::ZERO)?,
                },
            };
            let Some(notice) = ready else {
                return Ok(count);
            };
            visit(notice);
            count += 1;
            wait = Duration::ZERO;
        }
    }

    /// Says goodbye, and returns when the server has closed the connection after sending what it
    /// had promised. Notices that came meanwhile can still be taken with [`Client::next`].
    ///
    /// # Errors
    /// [`ClientError::Timeout`], [`ClientError::Unread`].
    pub fn close(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.session.close();
        let until = self.now().saturating_add(timeout);
        loop {
            self.keep_all();
            if !self.session.wants_transport() {
                self.link = Link::Down;
                return Ok(());
            }
            if self.now() >= until {
                return Err(ClientError::Timeout);
            }
            self.check_kept()?;
            self.turn(until)?;
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn next_step(&mut self, timeout: Duration) -> Result<Option<Step>, ClientError> {
        if let Some(step) = self.session.advance() {
            return Ok(Some(step));
        }
        let until = self.now().saturating_add(timeout);
        loop {
            self.turn(until)?;
            if let Some(step) = self.session.advance() {
                return Ok(Some(step));
            }
            if self.now() >= until {
                return Ok(None);
            }
        }
    }

    fn wait_for<R>(
        &mut self,
        timeout: Duration,
        mut answer: impl FnMut(&Notice<'_>) -> Option<Result<R, ClientError>>,
    ) -> Result<R, ClientError> {
        self.wait_for_kept(timeout, |notice| match answer(notice) {
            Some(result) => Answer::Take(result),
            None => Answer::Keep,
        })?
        .unwrap_or(Err(ClientError::Timeout))
    }

    /// Waits for the notice that `answer` takes; keeps the others for [`Client::next`].
    fn wait_for_kept<R>(
        &mut self,
        timeout: Duration,
        mut answer: impl FnMut(&Notice<'_>) -> Answer<R>,
    ) -> Result<Option<R>, ClientError> {
        let until = self.now().saturating_add(timeout);
        loop {
            while let Some(step) = self.session.advance() {
                match answer(&self.session.show(step)) {
                    Answer::Take(result) => return Ok(Some(result)),
                    Answer::Keep => {
                        self.keep(step);
                    }
                    Answer::KeepAndStop => {
                        self.keep(step);
                        return Ok(None);
                    }
                }
            }
            if self.now() >= until {
                return Ok(None);
            }
            self.check_kept()?;
            self.turn(until)?;
        }
    }

    fn keep(&mut self, step: Step) -> Notice<'static> {
        let notice = self.session.show_owned(step);
        self.kept_bytes += cost(&notice);
        self.kept.push_back(notice);
        step.fixed
    }

    fn keep_all(&mut self) {
        while let Some(step) = self.session.advance() {
            self.keep(step);
        }
    }

    fn check_kept(&self) -> Result<(), ClientError> {
        match self.kept_bytes > self.options.max_unread {
            true => Err(ClientError::Unread(self.kept_bytes)),
            false => Ok(()),
        }
    }

    /// One turn: moves what can be moved, and if that is nothing, waits until `until` for
    /// something. All notices must have been taken from the session before.
    fn turn(&mut self, until: Duration) -> Result<(), ClientError> {
        if !self.session.wants_transport() && matches!(self.link, Link::Up(_)) {
            self.link = Link::Down;
        }
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Down => self.turn_down(until)?,
            Link::Dialing(dial) => {
                let now = self.now();
                let wait = until.min(dial.deadline).saturating_sub(now);
                let outcome = dial.finish(wait, self.now());
                self.dialed(outcome);
            }
            Link::Up(stream) => {
                let exchanged = self.exchange(&stream, until);
                self.link = Link::Up(stream);
                if let Err(reason) = exchanged {
                    self.link = Link::Down;
                    self.session.disconnected(reason, self.now());
                }
            }
        }
        Ok(())
    }

    fn turn_down(&mut self, until: Duration) -> Result<(), ClientError> {
        let Some(at) = self.session.reconnect_at() else {
            let reason = self.session.last_reason().unwrap_or(Reason::Closed);
            return Err(ClientError::Closed(reason));
        };
        let now = self.now();
        if at > now {
            std::thread::sleep(at.min(until).saturating_sub(now));
            return Ok(());
        }
        let deadline = now.saturating_add(self.options.connect_timeout);
        let outcome = link::dial(&self.options.address, deadline).map(Link::Dialing);
        self.dialed(outcome);
        Ok(())
    }

    fn dialed(&mut self, outcome: Result<Link, std::io::ErrorKind>) {
        let now = self.now();
        match outcome {
            Ok(link) => {
                if matches!(link, Link::Up(_)) {
                    self.session.connected(now);
                }
                self.link = link;
            }
            Err(kind) => self.session.disconnected(Reason::Transport(kind), now),
        }
    }

    fn exchange(&mut self, stream: &std::net::TcpStream, until: Duration) -> Result<(), Reason> {
        let wrote = self.write(stream)?;
        let read = self.read(stream)?;
        let now = self.now();
        if self.session.next_timeout().is_some_and(|at| at <= now) {
            self.session.handle_timeout(now);
            return Ok(());
        }
        if wrote || read || until <= now {
            return Ok(());
        }
        if self.options.busy_poll {
            std::hint::spin_loop();
            return Ok(());
        }
        let wake = self.session.next_timeout().unwrap_or(until).min(until);
        let unsent = !self.session.to_send().is_empty();
        link::wait(stream, unsent, wake.saturating_sub(now));
        Ok(())
    }

    fn write(&mut self, stream: &std::net::TcpStream) -> Result<bool, Reason> {
        if self.session.to_send().is_empty() {
            return Ok(false);
        }
        match link::write(stream, self.session.to_send()) {
            Moved::Bytes(len) => {
                self.session.sent(len);
                Ok(true)
            }
            Moved::NotNow | Moved::Eof => Ok(false),
            Moved::Broken(kind) => {
                // What the server said before it closed is worth more than that it did.
                while self.read(stream)? {
                    self.keep_all();
                }
                Err(Reason::Transport(kind))
            }
        }
    }

    fn read(&mut self, stream: &std::net::TcpStream) -> Result<bool, Reason> {
        let space = self.session.receive_space();
        if space.is_empty() {
            return Ok(true);
        }
        match link::read(stream, space) {
            Moved::Bytes(len) => {
                let now = self.started.elapsed();
                self.session.received(len, now);
                Ok(true)
            }
            Moved::NotNow => Ok(false),
            Moved::Eof => Err(Reason::Eof),
            Moved::Broken(kind) => Err(Reason::Transport(kind)),
        }
    }
}

/// What a waiting call does with a notice.
enum Answer<R> {
    Take(R),
    Keep,
    KeepAndStop,
}

/// The request that a notice concludes, if it is one of a command, and how.
pub(crate) fn outcome(notice: &Notice<'_>) -> Option<(u64, Result<CommandReply, ClientError>)> {
    Some(match *notice {
        Notice::Reply { reply, .. } => {
            let result = match reply.code {
                0 => Ok(CommandReply {
                    seq: reply.seq,
                    payload: reply.payload.to_vec(),
                }),
                code => Err(ClientError::Refused {
                    code,
                    retry_after_ms: reply.retry_after_ms,
                    text: String::from_utf8_lossy(reply.payload).into_owned(),
                }),
            };
            (reply.request_id, result)
        }
        Notice::OutcomeUnknown { request_id, .. } => (request_id, Err(ClientError::OutcomeUnknown)),
        Notice::Refused(refused) => (refused.request_id, Err(refusal(&refused))),
        _ => return None,
    })
}

/// The read that a notice concludes, if it is one, and how.
pub(crate) fn page(notice: &Notice<'_>) -> Option<(u64, Result<HistoryRows, ClientError>)> {
    Some(match notice {
        Notice::History(page) => (page.request_id, Ok(HistoryRows::of(page))),
        Notice::Refused(refused) => (refused.request_id, Err(refusal(refused))),
        _ => return None,
    })
}

fn refusal(refused: &Refused<'_>) -> ClientError {
    ClientError::Refused {
        code: refused.code,
        retry_after_ms: refused.retry_after_ms,
        text: refused.text.to_owned(),
    }
}

pub(crate) fn cost(notice: &OwnedNotice) -> usize {
    NOTICE_COST + notice.body().len()
}
