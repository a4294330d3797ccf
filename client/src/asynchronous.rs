//! The tokio driver: a task that owns the session and the socket, a handle to ask it things, and
//! a stream of its notices.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tickring_protocol::{PUBLISH, Publish};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::blocking::{cost, outcome, page};
use crate::session::Step;
use crate::{
    ClientError, CommandReply, HistoryQuery, HistoryRows, Notice, Options, OwnedNotice, Reason,
    RequestError, Session, SubscribeOptions, TopicHandle, TopicRef,
};

/// Requests, and notices, that wait in a channel at most.
const CHANNEL: usize = 1024;
/// Requests are left in their channel while so many bytes wait to be sent.
const ENOUGH_UNSENT: usize = 256 << 10;

type Answer<T> = oneshot::Sender<Result<T, ClientError>>;
type Dial = Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>>;

/// A handle to a session that a task of the runtime drives. Clones share the session. It is
/// closed in order when the last one is dropped.
///
/// The semantics are those of [`crate::Client`]. Every request is answered once the session has
/// taken it; requests of one handle, awaited one by one, keep their order. Notices go to
/// [`Notices`]; those that nobody takes are kept up to [`Options::max_unread`], and beyond that
/// requests are answered with [`ClientError::Unread`] and nothing more is read.
#[derive(Clone, Debug)]
pub struct AsyncClient {
    requests: mpsc::Sender<Request>,
}

/// The notices of an [`AsyncClient`], in order. Dropped, further notices are dropped too, and
/// the client goes on: right for one that only publishes.
#[derive(Debug)]
pub struct Notices {
    receiver: mpsc::Receiver<OwnedNotice>,
}

impl Notices {
    /// The next notice; `None` once the client was closed or has given up. Cancel-safe.
    pub async fn next(&mut self) -> Option<OwnedNotice> {
        self.receiver.recv().await
    }
}

#[derive(Debug)]
enum Topic {
    Name(Box<str>),
    Handle(TopicHandle),
}

impl Topic {
    fn new<'t>(topic: impl Into<TopicRef<'t>>) -> Self {
        match topic.into() {
            TopicRef::Name(name) => Self::Name(name.into()),
            TopicRef::Handle(handle) => Self::Handle(handle),
        }
    }

    fn get(&self) -> TopicRef<'_> {
        match self {
            Self::Name(name) => TopicRef::Name(name),
            Self::Handle(handle) => TopicRef::Handle(*handle),
        }
    }
}

#[derive(Debug)]
enum Request {
    Subscribe(Topic, SubscribeOptions, Answer<u64>),
    Unsubscribe(Topic, Answer<u64>),
    Topic(Box<str>, Answer<TopicHandle>),
    Forget(Topic, Answer<()>),
    Publish(Topic, u16, u64, Bytes, Answer<()>),
    Command(Topic, u16, Bytes, Answer<CommandReply>),
    History(Box<str>, HistoryQuery, Answer<HistoryRows>),
    Barrier(Answer<()>),
    Close,
}

impl Options {
    /// Connects on the tokio runtime that this is called in: returns once the server has
    /// accepted the session.
    ///
    /// # Errors
    /// As [`Options::connect`].
    pub async fn connect_async(self) -> Result<(AsyncClient, Notices), ClientError> {
        self.check()?;
        let (requests, requests_in) = mpsc::channel(CHANNEL);
        let (notices, receiver) = mpsc::channel(CHANNEL);
        let (first, connected) = oneshot::channel();
        let driver = Driver {
            session: Session::new(self.session.clone())?,
            options: self,
            started: Instant::now(),
            stream: None,
            dial: None,
            requests: requests_in,
            handles_gone: false,
            notices: Some(notices),
            kept: VecDeque::new(),
            kept_bytes: 0,
            commands: HashMap::new(),
            reads: HashMap::new(),
            barriers: HashMap::new(),
            first: Some((first, 0)),
        };
        tokio::spawn(driver.run());
        connected
            .await
            .unwrap_or(Err(ClientError::Closed(Reason::Closed)))?;
        Ok((AsyncClient { requests }, Notices { receiver }))
    }
}

impl AsyncClient {
    /// See [`Session::subscribe`].
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub async fn subscribe<'t>(
        &self,
        topic: impl Into<TopicRef<'t>>,
        options: SubscribeOptions,
    ) -> Result<u64, ClientError> {
        let topic = Topic::new(topic);
        self.ask(|answer| Request::Subscribe(topic, options, answer))
            .await
    }

    /// See [`Session::unsubscribe`].
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub async fn unsubscribe<'t>(
        &self,
        topic: impl Into<TopicRef<'t>>,
    ) -> Result<u64, ClientError> {
        let topic = Topic::new(topic);
        self.ask(|answer| Request::Unsubscribe(topic, answer)).await
    }

    /// See [`Session::topic`].
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub async fn topic(&self, name: &str) -> Result<TopicHandle, ClientError> {
        self.ask(|answer| Request::Topic(name.into(), answer)).await
    }

    /// See [`Session::forget`].
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub async fn forget<'t>(&self, topic: impl Into<TopicRef<'t>>) -> Result<(), ClientError> {
        let topic = Topic::new(topic);
        self.ask(|answer| Request::Forget(topic, answer)).await
    }

    /// Publishes an event quietly; see [`Session::publish`]. Returns when the session has taken
    /// it, and waits for that while much is to be sent. `kind` and `event_ns` are those of
    /// [`Publish`].
    ///
    /// Awaited one by one, each publish costs a trip to the task and a write of its own. Awaited
    /// together they share a write and keep the order in which they were first polled; the
    /// highest rate is that of the blocking [`crate::Client`].
    ///
    /// # Errors
    /// [`ClientError::Request`] with [`RequestError::Offline`] while there is no connection;
    /// [`ClientError::Unread`]. The event was not taken.
    pub async fn publish<'t>(
        &self,
        topic: impl Into<TopicRef<'t>>,
        kind: u16,
        event_ns: u64,
        body: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        let (topic, body) = (Topic::new(topic), body.into());
        self.ask(|answer| Request::Publish(topic, kind, event_ns, body, answer))
            .await
    }

    /// Publishes an event and waits for the reply that tells its seq.
    ///
    /// # Errors
    /// As [`AsyncClient::command`].
    pub async fn publish_confirmed<'t>(
        &self,
        topic: impl Into<TopicRef<'t>>,
        event: &Publish<'_>,
        timeout: Duration,
    ) -> Result<CommandReply, ClientError> {
        let mut payload = Vec::new();
        event.encode(&mut payload);
        self.command(topic, PUBLISH, payload, timeout).await
    }

    /// Sends a command and waits for its reply, across a reconnect if need be.
    ///
    /// # Errors
    /// [`ClientError::Refused`] by the server, [`ClientError::Timeout`],
    /// [`ClientError::OutcomeUnknown`], [`ClientError::Request`] when it was not sent at all.
    pub async fn command<'t>(
        &self,
        topic: impl Into<TopicRef<'t>>,
        command: u16,
        payload: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<CommandReply, ClientError> {
        let (topic, payload) = (Topic::new(topic), payload.into());
        let asked = self.ask(|answer| Request::Command(topic, command, payload, answer));
        tokio::time::timeout(timeout, asked)
            .await
            .unwrap_or(Err(ClientError::Timeout))
    }

    /// Reads a page of an instrument's stored rows, across a reconnect if need be.
    ///
    /// # Errors
    /// As [`crate::Client::history`].
    pub async fn history(
        &self,
        topic: &str,
        query: HistoryQuery,
        timeout: Duration,
    ) -> Result<HistoryRows, ClientError> {
        let asked = self.ask(|answer| Request::History(topic.into(), query, answer));
        tokio::time::timeout(timeout, asked)
            .await
            .unwrap_or(Err(ClientError::Timeout))
    }

    /// Waits until the server has taken in everything that was asked before; as
    /// [`crate::Client::barrier`].
    ///
    /// # Errors
    /// [`ClientError::Disconnected`] when the connection broke, [`ClientError::Timeout`].
    pub async fn barrier(&self, timeout: Duration) -> Result<(), ClientError> {
        tokio::time::timeout(timeout, self.ask(Request::Barrier))
            .await
            .unwrap_or(Err(ClientError::Timeout))
    }

    /// Says goodbye. What the server has promised still comes; then [`Notices::next`] gives
    /// `None`.
    pub async fn close(&self) {
        // Without the task it is closed already.
        let _ = self.requests.send(Request::Close).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, ClientError> {
        let (answer, answered) = oneshot::channel();
        let gone = ClientError::Closed(Reason::Closed);
        if self.requests.send(request(answer)).await.is_err() {
            return Err(gone);
        }
        answered.await.unwrap_or(Err(gone))
    }
}

/// The task.
struct Driver {
    session: Session,
    options: Options,
    started: Instant,
    stream: Option<TcpStream>,
    dial: Option<Dial>,
    requests: mpsc::Receiver<Request>,
    /// The last handle was dropped.
    handles_gone: bool,
    /// `None` once the user has dropped the other end.
    notices: Option<mpsc::Sender<OwnedNotice>>,
    /// Notices that found no room in the channel.
    kept: VecDeque<OwnedNotice>,
    kept_bytes: usize,
    commands: HashMap<u64, Answer<CommandReply>>,
    reads: HashMap<u64, Answer<HistoryRows>>,
    barriers: HashMap<u64, Answer<()>>,
    /// Whom to tell of the first connection, and how many attempts have failed.
    first: Option<(Answer<()>, u32)>,
}

/// What a turn waited for.
enum Woken {
    Dialed(std::io::Result<TcpStream>),
    Socket,
    Room,
    Request(Option<Request>),
    Timer,
}

impl Driver {
    async fn run(mut self) {
        loop {
            self.take_notices();
            self.hand_over();
            if !self.session.wants_transport() {
                self.stream = None;
                if self.session.reconnect_at().is_none() {
                    break;
                }
            }
            if self.write() {
                continue;
            }
            match self.wait().await {
                Woken::Dialed(outcome) => self.dialed(outcome),
                Woken::Socket => self.read(),
                Woken::Room => {}
                Woken::Request(request) => self.take_requests(request),
                Woken::Timer => self.timer(),
            }
        }
        self.finish().await;
    }

    /// The session is over: the user may still take what came before.
    async fn finish(mut self) {
        let reason = self.session.last_reason().unwrap_or(Reason::Closed);
        self.requests.close();
        for (_, answer) in self.commands.drain() {
            let _ = answer.send(Err(ClientError::Closed(reason)));
        }
        for (_, answer) in self.reads.drain() {
            let _ = answer.send(Err(ClientError::Closed(reason)));
        }
        let Some(notices) = self.notices else {
            return;
        };
        for notice in self.kept {
            if notices.send(notice).await.is_err() {
                return;
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let full = self.kept_bytes > self.options.max_unread;
        let unsent = self.session.to_send();
        let interest = match (full, unsent.is_empty()) {
            (false, true) => Some(Interest::READABLE),
            (false, false) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::WRITABLE),
            (true, true) => None,
        };
        let wake = match self.stream {
            Some(_) => self.session.next_timeout(),
            None if self.dial.is_some() => None,
            None => self.session.reconnect_at(),
        };
        let started = self.started;
        let takes_requests = !self.handles_gone && unsent.len() < ENOUGH_UNSENT;
        let socket = async {
            match (&self.stream, interest) {
                // An error shows at the read or write that follows.
                (Some(stream), Some(interest)) => drop(stream.ready(interest).await),
                _ => pending().await,
            }
        };
        let dial = async {
            match &mut self.dial {
                Some(dial) => dial.await,
                None => pending().await,
            }
        };
        let room = async {
            match &self.notices {
                Some(notices) if !self.kept.is_empty() => drop(notices.reserve().await),
                _ => pending().await,
            }
        };
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep_until(started + at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            outcome = dial => Woken::Dialed(outcome),
            () = socket => Woken::Socket,
            () = room => Woken::Room,
            request = self.requests.recv(), if takes_requests => Woken::Request(request),
            () = timer => Woken::Timer,
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn timer(&mut self) {
        if self.stream.is_some() {
            let now = self.now();
            self.session.handle_timeout(now);
        } else if self.dial.is_none() {
            let address = self.options.address.clone();
            let limit = self.options.connect_timeout;
            self.dial = Some(Box::pin(async move {
                let stream = tokio::time::timeout(limit, TcpStream::connect(address)).await??;
                stream.set_nodelay(true)?;
                Ok(stream)
            }));
        }
    }

    fn dialed(&mut self, outcome: std::io::Result<TcpStream>) {
        self.dial = None;
        let now = self.now();
        match outcome {
            Ok(stream) => {
                self.stream = Some(stream);
                self.session.connected(now);
            }
            Err(error) => self
                .session
                .disconnected(Reason::Transport(error.kind()), now),
        }
    }

    fn take_notices(&mut self) {
        while let Some(step) = self.session.advance() {
            if !self.answer(step) && self.notices.is_some() {
                let notice = self.session.show_owned(step);
                self.kept_bytes += cost(&notice);
                self.kept.push_back(notice);
            }
        }
    }

    /// Answers who waits for this notice; whether it was for them alone.
    fn answer(&mut self, step: Step) -> bool {
        let notice = self.session.show(step);
        if let Notice::Pong { token, .. } = notice
            && let Some(answer) = self.barriers.remove(&token)
        {
            let _ = answer.send(Ok(()));
            return true;
        }
        if let Notice::Disconnected(end) = notice {
            for (_, answer) in self.barriers.drain() {
                let _ = answer.send(Err(ClientError::Disconnected(end.reason)));
            }
            self.first_failed(end.reason, end.retry_in.is_none());
            return false;
        }
        if let Notice::Connected { .. } = notice
            && let Some((answer, _)) = self.first.take()
        {
            let _ = answer.send(Ok(()));
            return false;
        }
        if let Some((request_id, result)) = outcome(&notice)
            && let Some(answer) = self.commands.remove(&request_id)
        {
            // Who has stopped waiting for it gets it as a notice.
            return answer.send(result).is_ok();
        }
        if let Some((request_id, result)) = page(&notice)
            && let Some(answer) = self.reads.remove(&request_id)
        {
            return answer.send(result).is_ok();
        }
        false
    }

    fn first_failed(&mut self, reason: Reason, for_good: bool) {
        let Some((answer, failed)) = self.first.take() else {
            return;
        };
        let failed = failed + 1;
        if for_good || failed == self.options.connect_attempts {
            let _ = answer.send(Err(ClientError::Disconnected(reason)));
            self.session.close();
        } else {
            self.first = Some((answer, failed));
        }
    }

    /// Moves kept notices into the channel, as far as there is room.
    fn hand_over(&mut self) {
        let Some(notices) = &self.notices else {
            return;
        };
        if notices.is_closed() {
            self.notices = None;
            self.kept.clear();
            self.kept_bytes = 0;
            return;
        }
        while !self.kept.is_empty()
            && let Ok(room) = notices.try_reserve()
            && let Some(notice) = self.kept.pop_front()
        {
            self.kept_bytes -= cost(&notice);
            room.send(notice);
        }
    }

    /// Writes what the socket takes; whether something came of it that must be seen to first.
    fn write(&mut self) -> bool {
        let Some(stream) = &self.stream else {
            return false;
        };
        while !self.session.to_send().is_empty() {
            match stream.try_write(self.session.to_send()) {
                Ok(len) => self.session.sent(len),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    let reason = Reason::Transport(error.kind());
                    self.read_out();
                    let now = self.now();
                    self.session.disconnected(reason, now);
                    return true;
                }
            }
        }
        false
    }

    /// Reads once; the loop comes back while there is more.
    fn read(&mut self) {
        if self.kept_bytes > self.options.max_unread {
            return;
        }
        let Some(stream) = &self.stream else {
            return;
        };
        let space = self.session.receive_space();
        if space.is_empty() {
            return;
        }
        let outcome = stream.try_read(space);
        let now = self.started.elapsed();
        match outcome {
            Ok(0) => self.session.disconnected(Reason::Eof, now),
            Ok(len) => self.session.received(len, now),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => self
                .session
                .disconnected(Reason::Transport(error.kind()), now),
        }
    }

    /// Takes what the server said before it closed: worth more than that it did.
    fn read_out(&mut self) {
        while let Some(stream) = &self.stream {
            match stream.try_read(self.session.receive_space()) {
                Ok(len) if len > 0 => self.session.received(len, self.started.elapsed()),
                _ => return,
            }
            self.take_notices();
        }
    }

    fn take_requests(&mut self, first: Option<Request>) {
        let Some(first) = first else {
            self.handles_gone = true;
            self.session.close();
            return;
        };
        self.take_request(first);
        // As many as there are, so that one write carries them.
        while self.session.to_send().len() < ENOUGH_UNSENT
            && let Ok(request) = self.requests.try_recv()
        {
            self.take_request(request);
        }
    }

    /// An answer that nobody waits for any more is dropped.
    fn take_request(&mut self, request: Request) {
        let session = &mut self.session;
        let unread = match self.kept_bytes > self.options.max_unread {
            true => Err(ClientError::Unread(self.kept_bytes)),
            false => Ok(()),
        };
        let told = |error: RequestError| ClientError::Request(error);
        match request {
            Request::Subscribe(topic, options, answer) => {
                let _ = answer.send(session.subscribe(topic.get(), options).map_err(told));
            }
            Request::Unsubscribe(topic, answer) => {
                let _ = answer.send(session.unsubscribe(topic.get()).map_err(told));
            }
            Request::Topic(name, answer) => {
                let _ = answer.send(session.topic(&name).map_err(told));
            }
            Request::Forget(topic, answer) => {
                let _ = answer.send(session.forget(topic.get()).map_err(told));
            }
            Request::Publish(topic, kind, event_ns, body, answer) => {
                let event = Publish {
                    kind,
                    event_ns,
                    body: &body,
                };
                let taken =
                    unread.and_then(|()| session.publish(topic.get(), &event).map_err(told));
                let _ = answer.send(taken);
            }
            Request::Command(topic, command, payload, answer) => {
                let taken = unread.and_then(|()| {
                    session
                        .command(topic.get(), command, &payload)
                        .map_err(told)
                });
                match taken {
                    Ok(request_id) => drop(self.commands.insert(request_id, answer)),
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
            Request::History(topic, query, answer) => {
                let taken = unread.and_then(|()| session.history(&topic, query).map_err(told));
                match taken {
                    Ok(request_id) => drop(self.reads.insert(request_id, answer)),
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
            Request::Barrier(answer) => match unread.and_then(|()| session.ping().map_err(told)) {
                Ok(token) => drop(self.barriers.insert(token, answer)),
                Err(error) => drop(answer.send(Err(error))),
            },
            Request::Close => session.close(),
        }
    }
}
