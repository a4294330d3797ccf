//! One client's commands: a connection to the server of its own, under the client's session and
//! with the client's request ids, so that the server itself sees to it that a command sent again
//! has one effect.
//!
//! It is opened at the first command and closed when no reply has been awaited for a while. If it
//! breaks while replies are awaited, the client is closed and knows from its own protocol what to
//! do: connect again, resume, send again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tickring_protocol::{
    Command, Decoded, ErrorCode, Frame, Goodbye, Hello, MAX_FRAME_LEN, Ping, Pong, Reply,
    VERSION_MAJOR, VERSION_MINOR, decode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::Upstream;
use crate::client::Outbox;
use crate::close::Close;

/// Commands that may wait to be sent.
const QUEUE: usize = 64;
/// Replies that one client may await.
const AWAITED: usize = 1024;
/// How long connecting, and WELCOME, may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection without anything to do is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How long the commands of a client that is leaving may take.
const PARTING: Duration = Duration::from_secs(5);
/// How long a command that was sent may go without any sign of life of the server.
const SILENT: Duration = Duration::from_secs(15);

/// A command on its way to the server.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) request_id: u64,
    pub(crate) topic: Arc<str>,
    pub(crate) command: u16,
    pub(crate) payload: Vec<u8>,
    pub(crate) quiet: bool,
}

/// A client's way to have commands carried out.
#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) queue: mpsc::Sender<Outgoing>,
    task: JoinHandle<()>,
}

impl Commands {
    /// Replies go to `outbox`, which is closed when they cannot be had.
    pub(crate) fn start(
        upstream: &Arc<Upstream>,
        outbox: &Arc<Outbox>,
        session: u128,
        name: &str,
        credentials: &[u8],
    ) -> Self {
        let (queue, commands) = mpsc::channel(QUEUE);
        let link = Link {
            upstream: upstream.clone(),
            outbox: outbox.clone(),
            commands,
            session,
            name: name.to_owned(),
            credentials: credentials.to_vec(),
            awaited: HashMap::new(),
        };
        Self {
            queue,
            task: tokio::spawn(link.run()),
        }
    }

    /// The client is leaving: what it has asked for is still carried out, `waiting` too. Ends
    /// once all replies have come, or after a while.
    pub(crate) fn finish(self, waiting: VecDeque<Outgoing>) -> JoinHandle<()> {
        let Self { queue, mut task } = self;
        tokio::spawn(async move {
            let all = async {
                for outgoing in waiting {
                    if queue.send(outgoing).await.is_err() {
                        break;
                    }
                }
                drop(queue);
                let _ = (&mut task).await; // it has told the outbox if it failed
            };
            if timeout(PARTING, all).await.is_err() {
                task.abort();
            }
        })
    }
}

struct Link {
    upstream: Arc<Upstream>,
    outbox: Arc<Outbox>,
    commands: mpsc::Receiver<Outgoing>,
    session: u128,
    name: String,
    credentials: Vec<u8>,
    /// Commands without a reply, and their topics.
    awaited: HashMap<u64, Arc<str>>,
}

/// The socket and what was read of it.
struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

/// How a connection ended.
enum End {
    /// Nothing was to be done any more.
    Idle,
    /// The client is gone.
    Over,
    Closed(Close),
}

impl Link {
    async fn run(mut self) {
        // A connection is for as long as there is something to do.
        while let Some(first) = self.commands.recv().await {
            match self.serve(first).await {
                End::Idle => {}
                End::Over => return,
                End::Closed(close) => {
                    self.outbox.close(close);
                    return;
                }
            }
        }
    }

    async fn serve(&mut self, first: Outgoing) -> End {
        let _counted = Counted::new(&self.upstream.metrics.command_connections);
        let mut wire = match timeout(CONNECT, self.open()).await {
            Ok(Ok(wire)) => wire,
            Ok(Err(close)) => return End::Closed(close),
            Err(_) => return End::Closed(Close::upstream_lost("the server does not answer")),
        };
        match self.carry(&mut wire, first).await {
            Ok(end) => end,
            Err(close) => End::Closed(close),
        }
    }

    async fn open(&self) -> Result<Wire, Close> {
        let address = &*self.upstream.config.upstream;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| Close::upstream_lost(format!("{address}: {error}")))?;
        stream.set_nodelay(true).map_err(lost)?;
        let mut wire = Wire {
            stream,
            read: Vec::new(),
        };
        wire.send(&Frame::Hello(Hello {
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            session: self.session,
            name: &self.name,
            credentials: match self.credentials.is_empty() {
                true => self.upstream.config.credentials.as_bytes(),
                false => &self.credentials,
            },
        }))
        .await?;
        loop {
            if let Some((welcomed, len)) = first_frame(&wire.read, |frame| match frame {
                Frame::Welcome(_) => Ok(()),
                other => Err(refusal(&other)),
            })? {
                wire.read.drain(..len);
                match welcomed {
                    Some(welcomed) => return welcomed.map(|()| wire),
                    None => continue,
                }
            }
            wire.receive().await?;
        }
    }

    /// Sends commands and takes replies in, until there are none for a while.
    async fn carry(&mut self, wire: &mut Wire, first: Outgoing) -> Result<End, Close> {
        self.send(wire, first).await?;
        let mut heard = Instant::now();
        let mut is_leaving = false;
        loop {
            while let Some((reply, len)) = self.take(&wire.read)? {
                wire.read.drain(..len);
                match reply {
                    Taken::Nothing => {}
                    Taken::Ping(token) => {
                        wire.send(&Frame::Pong(Pong { token, node_ns: 0 })).await?;
                    }
                    // Until the client has read, its replies are not read either.
                    Taken::Reply(encoded) => self.outbox.push_patiently(encoded).await,
                }
            }
            let waits = !self.awaited.is_empty();
            if is_leaving && !waits {
                return Ok(self.part(wire, End::Over).await);
            }
            let patience = if waits { SILENT / 2 } else { IDLE };
            tokio::select! {
                received = wire.receive() => {
                    received?;
                    heard = Instant::now();
                }
                command = self.commands.recv(), if self.awaited.len() < AWAITED && !is_leaving => {
                    let Some(command) = command else {
                        is_leaving = true;
                        continue;
                    };
                    if !waits {
                        heard = Instant::now();
                    }
                    self.send(wire, command).await?;
                }
                () = sleep_until(heard + patience) => {
                    if !waits {
                        return Ok(self.part(wire, End::Idle).await);
                    }
                    if heard.elapsed() >= SILENT {
                        return Err(Close::upstream_lost("the server is silent"));
                    }
                    wire.send(&Frame::Ping(Ping { token: 1 })).await?;
                    heard += patience; // the next look is the last
                }
            }
        }
    }

    /// Says goodbye; quiet commands are carried out before the server answers it.
    async fn part(&mut self, wire: &mut Wire, end: End) -> End {
        let goodbye = Frame::Goodbye(Goodbye {
            code: ErrorCode::Ok as u16,
            retry_after_ms: 0,
            text: "",
        });
        let _ = wire.send(&goodbye).await;
        end
    }

    async fn send(&mut self, wire: &mut Wire, command: Outgoing) -> Result<(), Close> {
        if !command.quiet {
            self.awaited
                .insert(command.request_id, command.topic.clone());
        }
        self.upstream.metrics.commands.inc();
        wire.send(&Frame::Command(Command {
            request_id: command.request_id,
            topic_id: 0,
            command: command.command,
            topic: &command.topic,
            payload: &command.payload,
            quiet: command.quiet,
        }))
        .await
    }

    /// The first frame of what was read, and its length.
    fn take(&mut self, read: &[u8]) -> Result<Option<(Taken, usize)>, Close> {
        let taken = first_frame(read, |frame| match frame {
            Frame::Reply(reply) => Ok(Taken::Reply(self.reply(reply))),
            Frame::Ping(ping) => Ok(Taken::Ping(ping.token)),
            Frame::Pong(_) => Ok(Taken::Nothing),
            other => Err(refusal(&other)),
        })?;
        let Some((taken, len)) = taken else {
            return Ok(None);
        };
        Ok(Some((taken.unwrap_or(Ok(Taken::Nothing))?, len)))
    }

    fn reply(&mut self, reply: Reply<'_>) -> bytes::Bytes {
        // The refusal of a quiet command names no topic.
        let topic = self.awaited.remove(&reply.request_id);
        let id = topic.as_deref().filter(|_| reply.topic_id != 0);
        let told = Reply {
            topic_id: id.map_or(0, |name| self.upstream.id_of(name).unwrap_or(0)),
            ..reply
        };
        let name = topic.as_deref().unwrap_or_default();
        self.outbox.protocol().encode(&Frame::Reply(told), name)
    }
}

/// Counts in a gauge for as long as it is there.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

enum Taken {
    Nothing,
    Ping(u64),
    Reply(bytes::Bytes),
}

impl Wire {
    async fn send(&mut self, frame: &Frame<'_>) -> Result<(), Close> {
        let mut out = Vec::new();
        frame.encode(&mut out);
        match timeout(SILENT, self.stream.write_all(&out)).await {
            Ok(sent) => sent.map_err(lost),
            Err(_) => Err(Close::upstream_lost("the server does not read")),
        }
    }

    /// Reads once. Cancel-safe.
    async fn receive(&mut self) -> Result<(), Close> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) => Err(Close::upstream_lost("the server closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }
}

fn lost(error: std::io::Error) -> Close {
    Close::upstream_lost(error.to_string())
}

/// What a frame that ends the connection means to the client.
fn refusal(frame: &Frame<'_>) -> Close {
    match frame {
        Frame::Error(error) if error.code == ErrorCode::Unauthorized as u16 => {
            Close::of(ErrorCode::Unauthorized, error.text)
        }
        Frame::Error(error) => Close::upstream_lost(error.text),
        Frame::Goodbye(goodbye) => Close::upstream_lost(goodbye.text),
        other => Close::upstream_lost(format!("the server sent {:?}", other.frame_type())),
    }
}

/// Calls `take` with the first whole frame; its outcome, `None` for an optional message that is
/// passed over, and the frame's length.
fn first_frame<T>(
    read: &[u8],
    take: impl FnOnce(Frame<'_>) -> T,
) -> Result<Option<(Option<T>, usize)>, Close> {
    match decode(read, MAX_FRAME_LEN) {
        Ok(Decoded::Frame { frame, len }) => Ok(Some((Some(take(frame)), len))),
        Ok(Decoded::Skipped { len }) => Ok(Some((None, len))),
        Ok(Decoded::NeedMore { .. }) => Ok(None),
        Err(error) => Err(Close::upstream_lost(error.to_string())),
    }
}
