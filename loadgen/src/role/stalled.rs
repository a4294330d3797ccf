//! Readers that stop reading in every second period, and catch up in between.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use super::{Failure, Line, TICK_NS};
use crate::clock::now_ns;
use crate::control::{Phase, Published, Report};
use crate::deliveries::{Deliveries, Periods};
use crate::framer::Framer;
use crate::outcome::Outcome;
use crate::plan::{Load, Plan};
use crate::target::{Inbound, Target};
use crate::topics::Topics;

/// The stalled readers of a run, named `stalled-<i>`. They are few, and how they read matters
/// little, so they use plain sockets; what matters is how they stop.
#[derive(Debug)]
pub struct Stalled {
    plan: Plan,
    topics: Topics,
    first: u32,
    readers: Vec<Reader>,
    outcome: Outcome,
}

#[derive(Debug)]
struct Reader {
    socket: TcpStream,
    framer: Framer,
    open: bool,
    /// SUBSCRIBED frames that are still to come.
    pending: u32,
    heartbeat_ms: u32,
}

/// Bytes of a stalled reader's receive buffer: small, so that the server and not the kernel is
/// what has to keep the events; but several of loopback's 64 KiB segments, for below one the
/// sender waits on its persist timer and catching up trickles.
const RECEIVE_BUFFER: usize = 256 << 10;

/// The longest that a stalled reader goes without a sign of life.
const PING_NS: u64 = 1_000_000_000;

impl Stalled {
    /// The plan's stalled readers.
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            topics: Topics {
                each: plan.stalled_each,
                ..plan.topics
            },
            first: plan.stalled_first,
            readers: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// Does it all, speaking `target`'s protocol.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_on<T: Target>(mut self, mut target: T, line: &Line<'_>) -> Result<Outcome, Failure> {
        line.tell(Report::Prepared);
        line.control.wait_until_connecting();
        let mut deliveries = Deliveries::new(self.topics, self.first, self.plan.stalled);
        self.connect(&mut target, &mut deliveries)?;
        line.tell(Report::Ready);
        let published = self.follow(&mut target, &mut deliveries, line)?;
        self.drain(&mut target, &mut deliveries, &published)?;
        deliveries.finish(&published.sent, &published.refused);
        let mut told = deliveries.outcome(&published.refused);
        told.connected = self.readers.len() as u64;
        told.add(self.outcome);
        Ok(Outcome {
            stalled: Some(Box::new(told)),
            ..Outcome::default()
        })
    }

    fn connect<T: Target>(
        &mut self,
        target: &mut T,
        deliveries: &mut Deliveries,
    ) -> Result<(), Failure> {
        let wanted = u64::from(self.plan.stalled);
        let deadline = now_ns() + self.plan.connect_timeout.as_nanos() as u64;
        for index in 0..self.plan.stalled {
            let reader = self
                .greet(target, index)
                .map_err(|error| Failure::Connect {
                    ready: u64::from(index),
                    wanted,
                    why: format!("stalled reader {index}: {error}"),
                })?;
            self.readers.push(reader);
        }
        while !self.readers.iter().all(|reader| reader.pending == 0) {
            self.read(target, deliveries, TICK_NS)?;
            if now_ns() > deadline || self.readers.iter().any(|reader| !reader.open) {
                return Err(Failure::Connect {
                    ready: self
                        .readers
                        .iter()
                        .filter(|reader| reader.pending == 0)
                        .count() as u64,
                    wanted,
                    why: self
                        .outcome
                        .errors
                        .pop()
                        .unwrap_or_else(|| "no answer".into()),
                });
            }
        }
        Ok(())
    }

    fn greet<T: Target>(&self, target: &T, index: u32) -> std::io::Result<Reader> {
        let socket = connect(self.plan.server, self.plan.connect_timeout)?;
        let mut hello = Vec::new();
        target.hello(&format!("stalled-{index}"), &mut hello);
        for slot in 0..self.topics.each {
            let topic = self.topics.topic_of(self.first + index, slot);
            target.subscribe(topic, self.plan.policy.into(), &mut hello);
        }
        (&socket).write_all(&hello)?;
        socket.set_nonblocking(true)?;
        Ok(Reader {
            socket,
            framer: Framer::new(),
            open: true,
            pending: self.topics.each,
            heartbeat_ms: 0,
        })
    }

    /// Reads in even periods, stalls in odd ones, until everything was published.
    fn follow<T: Target>(
        &mut self,
        target: &mut T,
        deliveries: &mut Deliveries,
        line: &Line<'_>,
    ) -> Result<Arc<Published>, Failure> {
        let mut periods: Option<Periods> = None;
        let mut pinged_ns = now_ns();
        loop {
            match line.control.phase() {
                Phase::Draining(published) => return Ok(published),
                Phase::Running(start_ns) => {
                    if let Load::Stall { period, .. } = self.plan.load {
                        let period_ns = (period * 1e9) as u64;
                        periods.get_or_insert(Periods {
                            start_ns,
                            period_ns,
                        });
                    }
                }
                Phase::Preparing | Phase::Connecting => {}
            }
            let now = now_ns();
            if now - pinged_ns > PING_NS {
                pinged_ns = now;
                self.ping(target);
            }
            if periods.is_some_and(|periods| periods.is_odd(now)) {
                std::thread::sleep(Duration::from_nanos(TICK_NS));
            } else {
                self.read(target, deliveries, TICK_NS)?;
            }
        }
    }

    /// Reads on until all that was published has come, or nothing comes any more.
    fn drain<T: Target>(
        &mut self,
        target: &mut T,
        deliveries: &mut Deliveries,
        published: &Published,
    ) -> Result<(), Failure> {
        let expected = deliveries.expected(&published.sent, &published.refused);
        self.outcome.expected = expected;
        let quiet_ns = self.plan.drain_timeout.as_nanos() as u64;
        let end_ns = now_ns() + 10 * quiet_ns;
        let (mut seen, mut moved_ns) = (deliveries.settled(), now_ns());
        while seen < expected && now_ns() - moved_ns < quiet_ns && now_ns() < end_ns {
            self.read(target, deliveries, TICK_NS)?;
            if deliveries.settled() != seen {
                (seen, moved_ns) = (deliveries.settled(), now_ns());
            }
        }
        Ok(())
    }

    /// Tells the server that the readers live, where it wants to know.
    fn ping<T: Target>(&mut self, target: &T) {
        let mut ping = Vec::new();
        target.ping(&mut ping);
        for reader in self
            .readers
            .iter()
            .filter(|reader| reader.open && reader.heartbeat_ms > 0)
        {
            // A server that takes no bytes from a stalled reader may not blame it for silence.
            drop((&reader.socket).write(&ping));
        }
    }

    /// Waits for bytes at most `wait_ns`, and reads them.
    fn read<T: Target>(
        &mut self,
        target: &mut T,
        deliveries: &mut Deliveries,
        wait_ns: u64,
    ) -> Result<(), Failure> {
        let mut fds: Vec<_> = self
            .readers
            .iter()
            .filter(|reader| reader.open)
            .map(|reader| PollFd::new(&reader.socket, PollFlags::IN))
            .collect();
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: wait_ns as i64,
        };
        match poll(&mut fds, Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(Failure::Kernel(error.into())),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        for (index, reader) in self.readers.iter_mut().enumerate() {
            if reader.open && ready.next() == Some(true) {
                reader.read(index as u32, target, deliveries, &mut self.outcome);
            }
        }
        Ok(())
    }
}

impl Reader {
    fn read<T: Target>(
        &mut self,
        index: u32,
        target: &mut T,
        deliveries: &mut Deliveries,
        outcome: &mut Outcome,
    ) {
        let mut buffer = [0; 16 << 10];
        let len = match self.socket.read(&mut buffer) {
            Ok(0) => return self.end(outcome, &format!("stalled-{index}: closed by the server")),
            Ok(len) => len,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return;
            }
            Err(error) => return self.end(outcome, &format!("stalled-{index}: {error}")),
        };
        let now = now_ns();
        let (mut subscribed, mut heartbeat_ms) = (0, None);
        let fed = self
            .framer
            .feed(&buffer[..len], target, |message, _| match message {
                Inbound::Event {
                    topic,
                    seq,
                    payload,
                } => deliveries.event(index, topic, seq, payload, now),
                Inbound::Subscribed { topic, next_seq } => {
                    deliveries.subscribed(index, topic, next_seq);
                    subscribed += 1;
                }
                Inbound::Gap {
                    topic,
                    reason,
                    first_seq,
                    last_seq,
                } => deliveries.gap(index, topic, reason, first_seq, last_seq),
                Inbound::Snapshot { .. } => deliveries.snapshot(),
                Inbound::Welcome { heartbeat_ms: ms } => heartbeat_ms = Some(ms),
                Inbound::Stranger => deliveries.stranger(),
                Inbound::Goodbye { code } => {
                    outcome.complain(|| format!("stalled-{index}: GOODBYE with code {code}"));
                }
                Inbound::Refused { code, text, .. } => {
                    outcome
                        .complain(|| format!("stalled-{index}: refused with code {code}: {text}"));
                }
                _ => {}
            });
        self.heartbeat_ms = heartbeat_ms.unwrap_or(self.heartbeat_ms);
        self.pending = self.pending.saturating_sub(subscribed);
        if let Err(nonsense) = fed {
            self.end(outcome, &format!("stalled-{index}: {nonsense}"));
        }
    }

    fn end(&mut self, outcome: &mut Outcome, why: &str) {
        self.open = false;
        outcome.disconnected += 1;
        outcome.complain(|| why.to_owned());
    }
}

fn connect(server: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&server.into(), timeout)?;
    Ok(socket.into())
}
