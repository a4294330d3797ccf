//! One client: a WebSocket, what it asked for, and what it gets.
//!
//! One task reads and writes it. While the client does not read, neither is it read from; what it
//! misses meanwhile waits in the topics' logs, which have bounds of their own.

mod deliver;
mod outbox;
mod requests;

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures_util::{FutureExt, SinkExt};
use tickring_protocol::{ErrorCode, ErrorFrame, Frame, Goodbye, Policy};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::close::Close;
use crate::topic::Watcher;
use crate::upstream::{CatchUp, Commands, Outgoing, Upstream};
use crate::wire::Protocol;

pub(crate) use outbox::Outbox;

/// How long HELLO may take.
const HELLO: Duration = Duration::from_secs(10);
/// How long the client's side of a close may take.
const PARTING: Duration = Duration::from_secs(2);
/// Messages taken in before something is sent again.
const TAKEN_AT_ONCE: usize = 64;

/// A subscription.
#[derive(Debug)]
struct Subscription {
    watcher: Arc<Watcher>,
    request_id: u64,
    policy: Policy,
    /// The numbering that its seqs belong to.
    epoch: u64,
    mode: Mode,
}

/// How far a subscription is.
#[derive(Debug)]
enum Mode {
    /// SUBSCRIBED was not said yet: what was asked for.
    Asked { from_seq: u64, epoch: u64 },
    /// It reads the topic's log, and is there.
    Live {
        position: u64,
        /// The client was told that it is late.
        delayed: bool,
    },
    /// It waits for the latest state; GAP(conflated) is to be told before it.
    Conflating,
    /// It has everything before that event of that epoch, and joins the others.
    Joining { next_seq: u64, epoch: u64 },
    /// The server is bringing it up to date.
    CatchingUp(#[allow(dead_code, reason = "dropped, it ends")] Option<CatchUp>),
}

/// See the module.
pub(crate) struct Client {
    upstream: Arc<Upstream>,
    outbox: Arc<Outbox>,
    peer: SocketAddr,
    name: String,
    session: u128,
    credentials: Vec<u8>,
    /// HELLO came.
    welcomed: bool,
    /// GOODBYE came: nothing more is read.
    leaving: bool,
    /// By the bridge's id of the topic.
    subscriptions: HashMap<u32, Subscription>,
    commands: Option<Commands>,
    /// Commands that found no room; no more is read until they have.
    waiting: VecDeque<Outgoing>,
    /// Reads of stored rows under way.
    reads: Arc<tokio::sync::Semaphore>,
    /// What goes into the next message.
    pieces: Vec<Bytes>,
    heard: Instant,
    pinged: u32,
    /// Something that it asked for was refused, and the log has it.
    refusal_logged: AtomicBool,
}

/// Why a turn of the client's loop ended.
enum Woken {
    News,
    Received(Option<Result<Message, axum::Error>>),
    Room,
    Upstream,
    Stopping,
    Timer,
}

impl Client {
    pub(crate) fn new(upstream: Arc<Upstream>, protocol: Protocol, peer: SocketAddr) -> Self {
        Self {
            upstream,
            outbox: Arc::new(Outbox::new(protocol)),
            peer,
            name: String::new(),
            session: 0,
            credentials: Vec::new(),
            welcomed: false,
            leaving: false,
            subscriptions: HashMap::new(),
            commands: None,
            waiting: VecDeque::new(),
            reads: Arc::new(tokio::sync::Semaphore::new(requests::READS)),
            pieces: Vec::new(),
            heard: Instant::now(),
            pinged: 0,
            refusal_logged: AtomicBool::new(false),
        }
    }

    /// Serves the client until its connection ends.
    pub(crate) async fn run(mut self, mut socket: WebSocket, stop: watch::Receiver<bool>) {
        let metrics = self.upstream.metrics.clone();
        let clients = metrics.client(self.protocol().name());
        clients.inc();
        let close = self.serve(&mut socket, stop).await;
        self.leave_all();
        self.finish_commands();
        self.outbox.shut();
        clients.dec();
        let reason = close.as_ref().map_or("gone", |close| close.reason);
        metrics.count_closed(reason);
        self.log(close.as_ref());
        if let Some(close) = close {
            part(&mut socket, close).await;
        }
    }

    /// A fault is logged once, with its reason.
    fn log(&self, close: Option<&Close>) {
        let (peer, name) = (self.peer, &*self.name);
        match close {
            Some(Close {
                code,
                reason,
                detail,
            }) if *code != Close::OK => {
                tracing::info!(%peer, name, code, reason, detail, "a client was closed");
            }
            _ => tracing::debug!(%peer, name, "a client has gone"),
        }
    }

    /// Of what a client asks for in vain only the first is logged: it may ask again and again.
    fn log_refusal(&self, request: &str, topic: &str, code: &str, detail: &str) {
        if !self.refusal_logged.swap(true, Ordering::Relaxed) {
            let (peer, name) = (self.peer, &*self.name);
            tracing::info!(%peer, name, request, topic, code, detail, "a request was refused; more of this client are not logged");
        }
    }

    /// Reads and writes until there is a reason to close; `None`: the client is gone.
    async fn serve(
        &mut self,
        socket: &mut WebSocket,
        mut stop: watch::Receiver<bool>,
    ) -> Option<Close> {
        let began = Instant::now();
        let mut up = self.upstream.up();
        let mut changed = false;
        loop {
            if let Some(close) = self.closing() {
                let _ = self.write(socket).await;
                return Some(close);
            }
            self.gather();
            changed |= up.has_changed().unwrap_or(false);
            if std::mem::take(&mut changed) && self.welcomed {
                // What a server says comes between "up" and "down", whichever of the two was seen first.
                let is_up = *up.borrow_and_update();
                let place = if is_up { 0 } else { self.pieces.len() };
                self.pieces.insert(place, self.protocol().status(is_up));
            }
            if !self.pieces.is_empty() {
                if let Err(close) = self.write(socket).await {
                    return close;
                }
                if let Err(close) = self.read_what_is_there(socket) {
                    return close;
                }
                continue;
            }
            let interval = self.upstream.config.ping_interval;
            let wake = match self.welcomed {
                true => self.heard + interval * (self.pinged + 1),
                false => began + HELLO,
            };
            let takes = self.takes_more();
            let waiting = !self.waiting.is_empty();
            let queue = self
                .commands
                .as_ref()
                .map(|commands| commands.queue.clone());
            let room = async {
                match queue.filter(|_| waiting) {
                    Some(queue) => drop(queue.reserve_owned().await),
                    None => pending().await,
                }
            };
            let woken = tokio::select! {
                () = self.outbox.news() => Woken::News,
                received = socket.recv(), if takes => Woken::Received(received),
                () = room => Woken::Room,
                news = up.changed() => match news { Ok(()) => Woken::Upstream, Err(_) => Woken::Stopping },
                _ = stop.wait_for(|stop| *stop) => Woken::Stopping,
                () = sleep_until(wake) => Woken::Timer,
            };
            match woken {
                Woken::News => {}
                Woken::Upstream => changed = true,
                Woken::Received(received) => {
                    if let Err(close) = self.received(received) {
                        return close;
                    }
                }
                Woken::Room => self.send_waiting(),
                Woken::Stopping => {
                    let text = "the bridge is stopping";
                    self.say_goodbye(ErrorCode::ShuttingDown, text);
                    self.outbox.close(Close::of(ErrorCode::ShuttingDown, text));
                }
                Woken::Timer if !self.welcomed => {
                    self.fail(ErrorCode::HelloTimeout, 0, 0, "hello did not come in time");
                }
                Woken::Timer => {
                    self.pinged += 1;
                    if self.pinged >= 3 {
                        self.say_goodbye(ErrorCode::IdleTimeout, "nothing was heard");
                        self.outbox
                            .close(Close::of(ErrorCode::IdleTimeout, "nothing was heard"));
                    } else if let Err(close) = self.ping(socket).await {
                        return close;
                    }
                }
            }
        }
    }

    fn takes_more(&self) -> bool {
        self.outbox.has_room() && self.waiting.is_empty() && !self.leaving
    }

    fn protocol(&self) -> Protocol {
        self.outbox.protocol()
    }

    /// Why to close now: what was promised before is gathered, nothing more is added.
    fn closing(&mut self) -> Option<Close> {
        if !self.outbox.is_closing() {
            return None;
        }
        self.leave_all();
        self.gather();
        self.outbox.closing()
    }

    /// Sends what was gathered. An error is the end; without a `Close` the client is gone.
    async fn write(&mut self, socket: &mut WebSocket) -> Result<(), Option<Close>> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let metrics = &self.upstream.metrics;
        metrics.messages.inc();
        let bytes: usize = self.pieces.iter().map(Bytes::len).sum();
        metrics.sent_bytes.inc_by(bytes as u64);
        let message = self.outbox.protocol().message(&mut self.pieces);
        self.send(socket, message).await
    }

    async fn ping(&self, socket: &mut WebSocket) -> Result<(), Option<Close>> {
        self.send(socket, Message::Ping(Bytes::new())).await
    }

    async fn send(&self, socket: &mut WebSocket, message: Message) -> Result<(), Option<Close>> {
        match timeout(self.upstream.config.write_timeout, socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some(Close::of(
                ErrorCode::SlowConsumer,
                "it has taken nothing for the write time-out",
            ))),
        }
    }

    /// Takes in what has come, so that a client that is sent much is heard too.
    fn read_what_is_there(&mut self, socket: &mut WebSocket) -> Result<(), Option<Close>> {
        for _ in 0..TAKEN_AT_ONCE {
            if !self.takes_more() || self.outbox.is_closing() {
                break;
            }
            match socket.recv().now_or_never() {
                Some(received) => self.received(received)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Takes a message in; an error is the end.
    fn received(
        &mut self,
        received: Option<Result<Message, axum::Error>>,
    ) -> Result<(), Option<Close>> {
        let message = match received {
            None => return Err(None),
            Some(Err(error)) => return Err(Close::of_error(error)),
            Some(Ok(message)) => message,
        };
        self.heard = Instant::now();
        self.pinged = 0;
        match (message, self.protocol()) {
            (Message::Text(text), Protocol::Json) => self.take(text.as_bytes()),
            (Message::Binary(bytes), Protocol::Binary) => self.take(&bytes),
            (Message::Close(_), _) => return Err(Some(Close::ok())),
            (Message::Ping(_) | Message::Pong(_), _) => {}
            (Message::Text(_), _) => return Err(Some(wrong_type("a text message"))),
            (Message::Binary(_), _) => return Err(Some(wrong_type("a binary message"))),
        }
        Ok(())
    }

    /// Says why and ends the connection.
    fn fail(&self, code: ErrorCode, frame_type: u8, request_id: u64, text: &str) {
        let error = ErrorFrame {
            code: code as u16,
            frame_type,
            fatal: true,
            retry_after_ms: 0,
            request_id,
            text,
        };
        self.outbox
            .push(self.protocol().encode(&Frame::Error(error), ""));
        self.outbox.close(Close::of(code, text));
    }

    fn say_goodbye(&self, code: ErrorCode, text: &str) {
        self.outbox.push(self.goodbye(code, text));
    }

    fn goodbye(&self, code: ErrorCode, text: &str) -> Bytes {
        let goodbye = Goodbye {
            code: code as u16,
            retry_after_ms: 0,
            text,
        };
        self.protocol().encode(&Frame::Goodbye(goodbye), "")
    }

    fn leave_all(&mut self) {
        for (_, subscription) in self.subscriptions.drain() {
            let watcher = &subscription.watcher;
            self.outbox.silence(watcher);
            watcher.topic.lock().remove(watcher);
            self.upstream.metrics.subscriptions.dec();
        }
    }
}

fn wrong_type(what: &str) -> Close {
    Close::new(Close::MESSAGE_TYPE, "wrong_message_type", what)
}

/// Sends the close frame and waits a moment for the client's.
pub(crate) async fn part(socket: &mut WebSocket, close: Close) {
    let frame = CloseFrame {
        code: close.code,
        reason: close.reason.into(),
    };
    let _ = timeout(PARTING, async {
        // Of a client that closed itself nothing more can be sent than the answer, which is queued.
        let _ = socket.send(Message::Close(Some(frame))).await;
        while let Some(Ok(_)) = socket.recv().await {}
        let _ = socket.close().await;
    })
    .await;
}

/// Nanoseconds since 1970-01-01 UTC.
fn wall_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
