//! The connections of one thread: opening, framing, batched writes, closing. Protocol-blind but
//! for [`Target`]; what the messages mean is the [`Handler`]'s business.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tickring::ring::{Completion, Ring, RingConfig, RingError, Slot, Techniques, socket};

use crate::clock::now_ns;
use crate::framer::Framer;
use crate::plan::source_of;
use crate::target::{Inbound, Target};

/// A connection of this thread: an index from 0.
pub type LinkId = u32;

/// Why a link is closed.
#[derive(Debug)]
pub enum Ended {
    /// This side closed it.
    Here,
    /// The server closed it.
    There,
    /// It could not be opened, or broke.
    Broken(io::Error),
    /// The server's bytes are outside the protocol.
    Nonsense(String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here => f.write_str("closed"),
            Self::There => f.write_str("closed by the server"),
            Self::Broken(error) => write!(f, "connection failed: {error}"),
            Self::Nonsense(text) => f.write_str(text),
        }
    }
}

/// How this side closes a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Send what is written, then shut down; what still comes is delivered until the server
    /// closes too.
    Drain,
    /// Send what is written, then close at once.
    Flush,
    /// Close at once, with what is written unsent.
    Abort,
}

/// What a handler may do while it looks at one link.
#[derive(Debug)]
pub struct Desk<'a, T> {
    /// The link.
    pub link: LinkId,
    /// Now, in nanoseconds of the clock.
    pub now_ns: u64,
    /// The protocol.
    pub target: &'a mut T,
    /// Bytes to the server, sent after the handler returns.
    pub out: &'a mut Vec<u8>,
    close: &'a mut Option<Close>,
}

impl<T> Desk<'_, T> {
    /// Closes the link after this call.
    pub fn close(&mut self, how: Close) {
        *self.close = Some(how);
    }
}

/// What happens on links.
pub trait Handler<T> {
    /// The link stands; nothing was sent on it yet.
    fn opened(&mut self, desk: Desk<'_, T>);
    /// A message came.
    fn inbound(&mut self, message: Inbound<'_>, desk: Desk<'_, T>);
    /// The link is gone. It may be opened again.
    fn closed(&mut self, link: LinkId, why: Ended);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Opening,
    Open,
    /// Closes once everything is sent.
    Finishing(Close),
    /// Shut down for sending; reads until the server closes.
    Draining,
    /// Close is with the ring.
    Closing,
}

#[derive(Debug)]
struct Link {
    phase: Phase,
    slot: Option<Slot>,
    /// A send is under way.
    flying: bool,
    /// Something was sent since the last heartbeat's turn.
    wrote: bool,
    /// It is on the list of links to be looked at after this batch.
    dirty: bool,
    /// It stands since this batch: receiving is to be armed.
    fresh: bool,
    wish: Option<Close>,
    why: Option<Ended>,
    framer: Framer,
    out: Vec<u8>,
    spare: Vec<u8>,
}

impl Link {
    const fn new() -> Self {
        Self {
            phase: Phase::Closed,
            slot: None,
            flying: false,
            wrote: false,
            dirty: false,
            fresh: false,
            wish: None,
            why: None,
            framer: Framer::new(),
            out: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Whether messages from the server still matter.
    fn hears(&self) -> bool {
        matches!(
            self.phase,
            Phase::Open | Phase::Finishing(_) | Phase::Draining
        )
    }

    /// To be closed at once, for this reason unless there is an earlier one.
    fn fail(&mut self, why: Ended) {
        self.wish = Some(Close::Abort);
        self.why.get_or_insert(why);
    }

    /// Sends what is written, unless a send is under way: one at a time keeps the bytes in order,
    /// and what gathers meanwhile leaves in one piece. Then closes, if that is wished.
    fn settle(&mut self, ring: &mut Ring<Vec<u8>>) {
        let Some(slot) = self.slot.filter(|_| self.phase != Phase::Closing) else {
            return;
        };
        if std::mem::take(&mut self.fresh) {
            ring.recv(slot);
        }
        match self.wish.take() {
            Some(Close::Abort) => return self.close(ring, slot),
            Some(_) if self.phase == Phase::Opening => return self.close(ring, slot),
            Some(how) if self.phase == Phase::Open => self.phase = Phase::Finishing(how),
            _ => {}
        }
        if self.flying {
            return;
        }
        match self.phase {
            Phase::Open | Phase::Finishing(_) if !self.out.is_empty() => {
                self.flying = true;
                self.wrote = true;
                let spare = std::mem::take(&mut self.spare);
                ring.send(slot, std::mem::replace(&mut self.out, spare));
            }
            Phase::Finishing(Close::Drain) => {
                self.phase = Phase::Draining;
                ring.shutdown_write(slot);
            }
            Phase::Finishing(_) => self.close(ring, slot),
            _ => {}
        }
    }

    fn close(&mut self, ring: &mut Ring<Vec<u8>>, slot: Slot) {
        self.phase = Phase::Closing;
        ring.close(slot);
    }
}

/// The connections of one thread.
pub struct Net<T> {
    ring: Ring<Vec<u8>>,
    links: Vec<Link>,
    /// By slot of the ring.
    link_of: Vec<LinkId>,
    /// Links to be looked at after a batch of completions.
    dirty: Vec<LinkId>,
    ended: Vec<(LinkId, Ended)>,
    /// The protocol.
    pub target: T,
    server: SocketAddr,
    /// Connects so far, on top of the number of the run's first connection here.
    attempt: u64,
    heartbeat: Heartbeat,
}

/// Proof of life for every link, spread evenly over time.
#[derive(Debug, Default)]
struct Heartbeat {
    /// A full round in nanoseconds; 0: the server needs none.
    round_ns: u64,
    cursor: usize,
    last_ns: u64,
}

/// The least and the most that a round of heartbeats takes.
const HEARTBEAT_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;

/// Completions that are handled before what they caused is sent.
const BATCH: usize = 4096;

impl<T: Target> Net<T> {
    /// `links` connections, all closed as yet, to `server`. `first` is the run's number of the
    /// first, from which source addresses are chosen.
    ///
    /// # Errors
    /// When the kernel refuses the ring.
    pub fn new(links: u32, first: u32, server: SocketAddr, target: T) -> Result<Self, RingError> {
        let entries = (links * 2).next_power_of_two().clamp(64, 8192);
        let ring = Ring::new(&RingConfig {
            entries,
            cq_entries: (entries * 4).min(32_768),
            descriptors: links,
            // Shared by all links, as many as data is waiting in, and no more than a turn fills.
            recv_buffers: (entries / 8) as u16,
            recv_buffer_len: 16 * 1024,
            techniques: Techniques::default(),
        })?;
        Ok(Self {
            ring,
            links: (0..links).map(|_| Link::new()).collect(),
            link_of: vec![0; links as usize],
            dirty: Vec::new(),
            ended: Vec::new(),
            target,
            server,
            attempt: u64::from(first),
            heartbeat: Heartbeat::default(),
        })
    }

    /// Whether `link` is closed, and so may be opened.
    pub fn is_closed(&self, link: LinkId) -> bool {
        self.links[link as usize].phase == Phase::Closed
    }

    /// Whether everything written on `link` was sent.
    pub fn is_flushed(&self, link: LinkId) -> bool {
        let state = &self.links[link as usize];
        !state.flying && state.out.is_empty()
    }

    /// Bytes written on `link` that wait for a send to end.
    pub fn waiting(&self, link: LinkId) -> usize {
        self.links[link as usize].out.len()
    }

    /// Begins to connect `link`, which must be closed. What becomes of it is told to the handler
    /// in a later turn.
    pub fn open(&mut self, link: LinkId) {
        let source = source_of(&self.server, self.attempt);
        self.attempt += 1;
        let state = &mut self.links[link as usize];
        debug_assert_eq!(state.phase, Phase::Closed, "link {link} is opened twice");
        let installed =
            socket::unconnected(self.server, source).and_then(|socket| self.ring.install(socket));
        match installed {
            Ok(slot) => {
                state.phase = Phase::Opening;
                state.slot = Some(slot);
                self.link_of[slot.index()] = link;
                self.ring.connect(slot, self.server);
            }
            Err(error) => self.ended.push((link, Ended::Broken(error))),
        }
    }

    /// Writes on `link`, if it is open; sent by [`flush`](Self::flush).
    pub fn write(&mut self, link: LinkId, encode: impl FnOnce(&mut T, &mut Vec<u8>)) {
        let state = &mut self.links[link as usize];
        if state.phase == Phase::Open {
            encode(&mut self.target, &mut state.out);
        }
    }

    /// Sends what is written on `link`, with the next turn.
    pub fn flush(&mut self, link: LinkId) {
        self.links[link as usize].settle(&mut self.ring);
    }

    /// Closes `link`.
    pub fn close(&mut self, link: LinkId, how: Close) {
        let state = &mut self.links[link as usize];
        state.wish = Some(how);
        state.settle(&mut self.ring);
    }

    /// Waits until something happens or the clock shows `until_ns`, and handles it all.
    ///
    /// # Errors
    /// When the ring fails; single connections' failures go to the handler.
    pub fn turn(&mut self, handler: &mut impl Handler<T>, until_ns: u64) -> io::Result<()> {
        for (link, why) in std::mem::take(&mut self.ended) {
            handler.closed(link, why);
        }
        let timeout = Duration::from_nanos(until_ns.saturating_sub(now_ns()));
        self.ring.submit_and_wait(Some(timeout))?;
        while self.batch(handler) == BATCH {
            self.ring.submit()?;
        }
        self.beat();
        Ok(())
    }

    /// Handles the completions that there are, at most [`BATCH`]; how many there were.
    fn batch(&mut self, handler: &mut impl Handler<T>) -> usize {
        let (links, dirty) = (&mut self.links, &mut self.dirty);
        let (target, heartbeat) = (&mut self.target, &mut self.heartbeat);
        let link_of = |slot: Slot| self.link_of[slot.index()];
        let taken = self
            .ring
            .for_each_completion(BATCH, |completion| match completion {
                Completion::Received { slot, bytes } => {
                    let link = link_of(slot);
                    let state = touch(links, dirty, link);
                    if state.hears() {
                        let asked = feed(state, link, bytes, target, handler);
                        heartbeat.want(asked);
                    }
                }
                Completion::Sent { slot, payload, .. } => {
                    let state = touch(links, dirty, link_of(slot));
                    state.flying = false;
                    state.spare = payload;
                    state.spare.clear();
                }
                Completion::Connected { slot, result } => {
                    let link = link_of(slot);
                    let state = touch(links, dirty, link);
                    match result {
                        Ok(()) => {
                            state.phase = Phase::Open;
                            state.fresh = true;
                            handler.opened(Desk {
                                link,
                                now_ns: now_ns(),
                                target: &mut *target,
                                out: &mut state.out,
                                close: &mut state.wish,
                            });
                        }
                        Err(error) => state.fail(Ended::Broken(error)),
                    }
                }
                Completion::ReceiveEnded { slot, result, .. } => {
                    let state = touch(links, dirty, link_of(slot));
                    state.fail(result.map_or_else(Ended::Broken, |()| Ended::There));
                }
                Completion::Closed(slot) => {
                    let state = touch(links, dirty, link_of(slot));
                    state.phase = Phase::Closed;
                    state.slot = None;
                }
                Completion::Accepted(_) | Completion::AcceptFailed(_) | Completion::Woken => {}
            });
        for link in std::mem::take(&mut self.dirty) {
            let state = &mut self.links[link as usize];
            state.dirty = false;
            if state.phase == Phase::Closed {
                let why = state.why.take().unwrap_or(Ended::Here);
                state.wish = None;
                state.framer.clear();
                state.out.clear();
                handler.closed(link, why);
            } else {
                state.settle(&mut self.ring);
            }
        }
        taken
    }

    /// Sends a PING on the links whose turn it is, unless something was sent anyway.
    fn beat(&mut self) {
        for link in self.heartbeat.due(now_ns(), self.links.len()) {
            let state = &mut self.links[link];
            if !std::mem::take(&mut state.wrote) && state.phase == Phase::Open {
                self.target.ping(&mut state.out);
                state.settle(&mut self.ring);
            }
        }
    }
}

impl Heartbeat {
    fn want(&mut self, heartbeat_ms: Option<u32>) {
        if let Some(ms) = heartbeat_ms.filter(|&ms| ms != 0) {
            let ms = ms.clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
            self.round_ns = u64::from(ms) * 1_000_000;
        }
    }

    /// The links whose turn has come since the last call.
    fn due(&mut self, now: u64, links: usize) -> impl Iterator<Item = usize> + use<> {
        let since = now.saturating_sub(self.last_ns);
        let mut count = 0;
        let first = self.cursor;
        if self.round_ns == 0 || self.last_ns == 0 {
            self.last_ns = now;
        } else {
            let due = u128::from(since) * links as u128 / u128::from(self.round_ns);
            count = (due as usize).min(links);
            if count > 0 {
                self.last_ns = now;
                self.cursor = (first + count) % links;
            }
        }
        (first..first + count).map(move |at| at % links)
    }
}

/// A link that something happens to: it is looked at again after the batch.
fn touch<'a>(links: &'a mut [Link], dirty: &mut Vec<LinkId>, link: LinkId) -> &'a mut Link {
    let state = &mut links[link as usize];
    if !state.dirty {
        state.dirty = true;
        dirty.push(link);
    }
    state
}

/// Hands all whole messages of `bytes` (and of what was left before) to the handler. Returns the
/// heartbeat that the server asks for, if it does.
fn feed<T: Target>(
    state: &mut Link,
    link: LinkId,
    bytes: &[u8],
    target: &mut T,
    handler: &mut impl Handler<T>,
) -> Option<u32> {
    let now_ns = now_ns();
    let mut heartbeat_ms = None;
    let Link {
        framer, out, wish, ..
    } = state;
    let read = framer.feed(bytes, target, |message, target| {
        match message {
            Inbound::Ping(token) => return target.pong(token, out),
            Inbound::Welcome { heartbeat_ms: ms } => heartbeat_ms = Some(ms),
            _ => {}
        }
        handler.inbound(
            message,
            Desk {
                link,
                now_ns,
                target,
                out,
                close: wish,
            },
        );
    });
    if let Err(nonsense) = read {
        state.fail(Ended::Nonsense(nonsense.to_string()));
    }
    heartbeat_ms
}
