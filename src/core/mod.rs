//! The core: everything one pinned thread does, without doing any I/O.
//!
//! [`Core`] is a sans-I/O state machine: it is told what happened (a connection was accepted,
//! bytes came, a send is over, mail of another core came, time has passed) and says what is to be
//! done (send, close, post mail). It reads no clock and no random source, so that the same calls
//! give the same results: one driver runs it on io_uring ([`crate::node`]), another in the
//! simulator.
//!
//! # A turn
//! Call the four groups of methods in this order, over and over:
//! 1. [`Core::begin_turn`] with the time.
//! 2. What happened: [`Core::on_accepted`], [`Core::on_received`], [`Core::on_receive_ended`],
//!    [`Core::on_sent`], [`Core::on_closed`], then mail: [`Core::on_deliveries`], and while
//!    [`Core::takes_requests`], [`Core::on_requests`]; of the journal [`Core::on_committed`], and of
//!    reads [`Core::on_read`].
//! 3. [`Core::end_turn`]: the turn's events reach their subscribers' outboxes.
//! 4. What to do: [`Core::poll_action`] until there is none; [`Core::take_requests`] and
//!    [`Core::take_deliveries`] for each other core whose mailbox has room, and
//!    [`Core::take_journal`] for each lane that has; [`Core::take_read`] until there is none; then
//!    [`Core::on_turn_over`], and sleep until something happens or [`Core::next_deadline`], unless
//!    [`Core::has_parked_work`]. Until [`Core::rests_until`] it may sleep through what happens.
//!
//! Batching needs no knob: a turn takes in all that has come, so that alone a message leaves at
//! once, and under load one send carries many.

mod audience;
mod batch;
mod catch_up;
mod connection;
mod derive;
mod figures;
mod intake;
mod journal;
mod lifecycle;
mod limits;
mod mail;
mod newcomers;
mod outbox;
mod owner;
mod reads;
mod recovery;
mod replica;
mod report;
mod rest;
pub mod state;
mod subscribe;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::Arc;

use tickring_protocol::{ErrorCode, Frame, NodeStats};

use crate::machines::{Outcome, Registry};
use crate::topic::{ChunkPool, HistoryLimits, Ids, Topics};
use audience::{Audiences, NONE};
use batch::{Purpose, TurnLog};
use connection::{Connection, Farewell, Parked, Receiving};
use figures::Tally;
use journal::Journal;
use lifecycle::{no_room, shutting_down};
use mail::ConnectionRef;
use outbox::OutboxPool;
use reads::Reads;
use replica::Replicas;
use rest::{Pace, Rests};
use state::{Event, State};

pub use batch::{Payload, Segment};
pub use figures::{Counts, Figures, Slow, Times};
pub use journal::JournalConfig;
pub use limits::Limits;
pub use mail::{Deliveries, ParcelPool, Requests};
pub use reads::{Read, ReadDone, ReadRefusal};
pub use recovery::{Heritage, LaneState, RecoveryError, Share};
pub use report::Held;
pub use rest::Pacing;

/// The time, as the driver reads it once a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since 1970-01-01 UTC: stamped on events.
    pub wall_ns: u64,
    /// Nanoseconds of a clock that never goes back: for deadlines.
    pub mono_ns: u64,
}

/// What a core is made from.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Which core, from 0.
    pub core: usize,
    /// How many cores the node has.
    pub cores: usize,
    /// Names the numbering of the topics that begin in this run of the node, and of all volatile
    /// ones: higher after each start, never 0.
    pub epoch: u64,
    /// The bounds.
    pub limits: Limits,
    /// The kinds of topics.
    pub registry: Arc<Registry>,
    /// Shared by the cores of the node.
    pub parcels: Arc<ParcelPool>,
    /// What it has to know of the journal.
    pub journal: JournalConfig,
    /// Whether there is a database that HISTORY can be answered from.
    pub has_database: bool,
    /// How sends are paced.
    pub pacing: Pacing,
    /// A fault planted for the simulator's self-test; `None` everywhere else.
    #[doc(hidden)]
    pub plant: Option<Plant>,
}

/// Faults that the simulator can plant, to prove that its checks can fail.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// UNSUBSCRIBED overtakes the events of its own turn.
    UnsubscribedOvertakes,
    /// A catch-up forgets the last event before the live stream.
    CatchUpSkipsOne,
    /// A slow connection's events go on piling up in its outbox.
    BudgetIgnored,
    /// What waits for the disk is released when it is handed to the journal.
    ReleasedUnsynced,
    /// Recovery forgets the answers.
    ForgottenReplies,
    /// A session is forgotten with its last answer, when that goes for want of room.
    ForgottenSessions,
    /// Recovery leaves out the last group of a lane; planted by the simulator.
    RecoverySkipsLastGroup,
    /// A recovered topic gives its newest seq out again.
    SeqReused,
    /// A volatile topic goes on in its epoch, although a crash may have taken events from it.
    EpochKept,
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Action {
    /// Send; [`Core::on_sent`] must follow. At most one send of a connection is under way.
    Send {
        /// The connection.
        slot: u32,
        /// What to send.
        payload: Payload,
    },
    /// Stop reading; [`Core::on_receive_ended`] must follow.
    StopReceive(u32),
    /// Read again.
    StartReceive(u32),
    /// Shut our side of the stream.
    ShutdownWrite(u32),
    /// Close; a send under way still ends in [`Core::on_sent`], and [`Core::on_closed`] comes last.
    Close(u32),
}

/// How reading from a socket ended.
#[derive(Debug)]
pub enum ReceiveEnd {
    /// The client shut its side.
    EndOfStream,
    /// As [`Action::StopReceive`] asked.
    Stopped,
    /// The socket failed.
    Failed(io::Error),
}

/// One core of a node. See the [module's description](self).
pub struct Core {
    core: usize,
    ids: Ids,
    limits: Limits,
    plant: Option<Plant>,
    now: Now,
    started_ns: u64,

    connections: Vec<Option<Box<Connection>>>,
    open: usize,
    next_number: u32,
    timers: BinaryHeap<Reverse<(u64, u32, u32)>>,
    parked: VecDeque<u32>,
    /// Whether frames are no longer acted on, because the node is about to stop.
    quiescing: bool,
    stopping: bool,

    topics: Topics,
    chunks: ChunkPool,
    outcome: Outcome,
    /// Topics with views that have changed and are watched.
    unseen: Vec<usize>,
    /// For what derived topics are given.
    derived: Outcome,
    shown: Vec<u8>,
    journal: Journal,
    has_database: bool,
    reads: Reads,
    replicas: Replicas,
    audiences: Audiences,

    log: TurnLog,
    outboxes: OutboxPool,
    /// Connections with something for them alone to be sent.
    prompt: VecDeque<u32>,
    /// Those whose turn it is in a fan-out.
    due: VecDeque<u32>,
    /// How many of these are still sent to in this turn.
    slice_left: u32,
    rests: Rests,
    pace: Pace,
    changed: Vec<u32>,
    actions: VecDeque<Action>,
    scratch: Vec<u8>,
    frames: Vec<u8>,

    requests: Vec<Requests>,
    deliveries: Vec<Deliveries>,
    /// Whether nothing is left in `deliveries` of the turns before.
    deliveries_taken: bool,
    /// Connections whose catch-up waits for room in a parcel.
    hungry: VecDeque<u32>,
    parcels: Arc<ParcelPool>,

    stats: NodeStats,
    tally: Tally,
    report_at: u64,
    /// `node/core-N`, and its index once somebody has subscribed to it.
    report_name: String,
    report_topic: Option<usize>,
}

impl Core {
    /// A core without connections or topics. `now` is when the node started.
    pub fn new(config: CoreConfig, now: Now) -> Self {
        let CoreConfig {
            core,
            cores,
            epoch,
            limits,
            registry,
            parcels,
            journal,
            has_database,
            pacing,
            plant,
        } = config;
        assert!(
            core < cores && epoch != 0,
            "a core has a place in its node, and an epoch"
        );
        let ids = Ids { cores };
        let history = HistoryLimits {
            topic_bytes: limits.history_topic_bytes,
            core_bytes: limits.history_bytes,
        };
        Self {
            core,
            ids,
            limits,
            plant,
            now,
            started_ns: now.mono_ns,
            connections: Vec::new(),
            open: 0,
            next_number: 0,
            timers: BinaryHeap::new(),
            parked: VecDeque::new(),
            quiescing: false,
            stopping: false,
            topics: Topics::new(
                (core, ids),
                limits.max_topics,
                registry,
                journal.lanes,
                epoch,
            ),
            chunks: ChunkPool::new(history),
            outcome: Outcome::default(),
            unseen: Vec::new(),
            derived: Outcome::default(),
            shown: Vec::new(),
            journal: Journal::new(journal, plant),
            has_database,
            reads: Reads::default(),
            replicas: Replicas::new(ids),
            audiences: Audiences::default(),
            log: TurnLog::default(),
            outboxes: OutboxPool::default(),
            prompt: VecDeque::new(),
            due: VecDeque::new(),
            slice_left: 0,
            rests: Rests::default(),
            pace: Pace::new(pacing),
            changed: Vec::new(),
            actions: VecDeque::new(),
            scratch: Vec::new(),
            frames: Vec::new(),
            requests: (0..cores).map(|_| Requests::default()).collect(),
            deliveries: (0..cores).map(|_| Deliveries::default()).collect(),
            deliveries_taken: true,
            hungry: VecDeque::new(),
            parcels,
            stats: NodeStats {
                core: core as u32,
                cores: cores as u32,
                ..NodeStats::default()
            },
            tally: Tally::default(),
            report_at: now.mono_ns,
            report_name: format!("node/core-{core}"),
            report_topic: None,
        }
    }

    /// Starts a turn at `now`: deadlines that have passed act, and input that had to wait is
    /// tried again.
    pub fn begin_turn(&mut self, now: Now) {
        debug_assert!(
            now.mono_ns >= self.now.mono_ns,
            "monotonic time never goes back"
        );
        self.log.end_turn();
        self.now = now;
        // Whoever publishes faster than all this can be sent waits for a whole round.
        let full = self.log.queued_bytes() > self.pace.pacing.queued_bytes;
        self.slice_left = if full {
            u32::MAX
        } else {
            self.pace.pacing.slice
        };
        let rested_ns = if full { u64::MAX } else { now.mono_ns };
        self.rests.expire(rested_ns, &mut self.due);
        self.stats.turns += 1;
        self.tally.begin_turn(self.stats.commands);
        self.deliveries_taken = self.deliveries.iter().all(Deliveries::is_empty);
        self.journal.begin_turn(now.mono_ns);
        if self.plant == Some(Plant::ReleasedUnsynced) {
            self.release_unsynced();
        }
        self.expire();
        self.report();
        for _ in 0..self.hungry.len() {
            let Some(slot) = self.hungry.pop_front() else {
                break;
            };
            if let Some(connection) = self.connections[slot as usize].as_deref_mut() {
                connection.hungry = false;
                self.catch_up(slot);
            }
        }
        for _ in 0..self.parked.len() {
            let Some(&slot) = self.parked.front() else {
                break;
            };
            // One that has ended, or waits for something else now, must not hold up those behind it.
            let connection = self.connections[slot as usize].as_deref();
            let waits = connection.is_some_and(|c| c.parked == Parked::Mail);
            let goes = self.takes_commands() || self.is_out_of_patience(slot);
            if waits && (self.quiescing || !goes) {
                break;
            }
            self.parked.pop_front();
            self.unpark(slot, Parked::Mail);
        }
    }

    /// A connection was accepted and is being read. `entropy` is fresh randomness: its session's
    /// token, should it ask for a new one.
    pub fn on_accepted(&mut self, slot: u32, entropy: u128) {
        self.accept(slot, entropy);
        if self.stopping {
            self.fire(slot, Event::Shutdown, shutting_down());
        } else if self.open > self.limits.max_connections {
            self.fire(slot, Event::Violation, no_room());
        }
    }

    /// As [`Core::on_accepted`], for a connection that the node as a whole has no room for: it is
    /// told to try later, and closed.
    pub fn on_accepted_beyond_limit(&mut self, slot: u32) {
        self.accept(slot, 0);
        self.fire(slot, Event::Violation, no_room());
    }

    fn accept(&mut self, slot: u32, entropy: u128) {
        self.tally.counts.accepted += 1;
        let index = slot as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        assert!(
            self.connections[index].is_none(),
            "a slot is free when it is given out"
        );
        self.next_number = self.next_number.wrapping_add(1);
        let connection = Connection::new(self.next_number, entropy.max(1), self.now.mono_ns);
        self.connections[index] = Some(Box::new(connection));
        self.open += 1;
        self.schedule(slot);
    }

    /// The connection's descriptor is free; nothing else will be reported of it.
    pub fn on_closed(&mut self, slot: u32) {
        self.fire(slot, Event::Released, Farewell::goodbye(ErrorCode::Ok, ""));
    }

    /// A send is over: the socket took `result` bytes of it, or failed.
    pub fn on_sent(&mut self, slot: u32, payload: Payload, result: io::Result<usize>) {
        let Some(connection) = self.connections[slot as usize].as_deref_mut() else {
            self.outboxes.recycle(payload);
            return;
        };
        let sent = *result.as_ref().unwrap_or(&0);
        self.stats.sent_bytes += sent as u64;
        connection.outbox.sent(payload, sent, &mut self.outboxes);
        if result.is_err() || (sent == 0 && !connection.outbox.is_empty()) {
            self.fire(
                slot,
                Event::SocketError,
                Farewell::goodbye(ErrorCode::Ok, ""),
            );
            return;
        }
        if !connection.outbox.is_empty() && !connection.dirty {
            connection.dirty = true;
            self.due.push_back(slot);
        }
        if connection.behind > 0 {
            self.catch_up(slot);
        }
        self.unpark(slot, Parked::Own);
        self.check_drained(slot);
    }

    /// Ends the turn: its events are put into the outboxes of this core's subscribers, and made
    /// ready for the other cores.
    pub fn end_turn(&mut self) {
        self.sweep();
        self.show_views();
        self.distribute();
        self.regroup();
        for parcel in &mut self.deliveries {
            for letter in &mut parcel.letters {
                if let mail::Letter::Events { range, bytes } = letter
                    && bytes.is_none()
                {
                    *bytes = Some(self.log.share(range.batch));
                }
            }
        }
    }

    /// What to do next, `None` when that was all.
    pub fn poll_action(&mut self) -> Option<Action> {
        while let Some(action) = self.actions.pop_front() {
            // Reading may have ended by itself in the turn that wanted it to stop.
            if let Action::StopReceive(slot) = action
                && !self.connections[slot as usize]
                    .as_deref()
                    .is_some_and(|c| matches!(c.receiving, Receiving::Stopping { .. }))
            {
                continue;
            }
            return Some(action);
        }
        while let Some(slot) = self.prompt.pop_front() {
            if let Some(payload) = self.take_output(slot) {
                return Some(Action::Send { slot, payload });
            }
        }
        while self.slice_left > 0
            && let Some(slot) = self.due.pop_front()
        {
            if let Some(payload) = self.take_output(slot) {
                self.slice_left -= 1;
                return Some(Action::Send { slot, payload });
            }
        }
        None
    }

    /// What is to be sent to a connection now. It may have been sent already.
    #[inline]
    fn take_output(&mut self, slot: u32) -> Option<Payload> {
        let connection = self.connections[slot as usize].as_deref_mut()?;
        connection.prompt = false;
        if !std::mem::take(&mut connection.dirty) || connection.state == State::Closing {
            return None;
        }
        let payload = connection.outbox.take(&mut self.log, &mut self.outboxes)?;
        self.stats.sends += 1;
        connection.rest = 0;
        if connection.audience != NONE {
            let rest_ns = self.audiences.get(connection.audience).rest_ns;
            if rest_ns > 0 {
                connection.rest = self.rests.begin(self.now.mono_ns, rest_ns);
            }
        }
        Some(payload)
    }

    /// So many sends of a turn (some, of a fan-out) took `took_ns` nanoseconds in all: what the length
    /// of rests follows. Without it a send is taken to cost 3 µs.
    pub fn on_sends_over(&mut self, sends: u32, took_ns: u64) {
        self.pace.took(sends, took_ns);
    }

    /// Whether something is to be sent that this turn had no room for: the next is due at once.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// When the first of the connections that rest have rested, in monotonic nanoseconds; `None` when
    /// nobody rests. What comes before is better left to gather, though not for longer than a
    /// conversation beside it may wait.
    pub fn rests_until(&self) -> Option<u64> {
        self.rests.next()
    }

    /// The monotonic time, in nanoseconds, at which a turn is due even if nothing happens.
    pub fn next_deadline(&self) -> Option<u64> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let report = self.is_watched().then_some(self.report_at);
        let sweep = self.journal.sweeps_at();
        let due = self.has_due().then_some(self.now.mono_ns);
        let wake = [timer, report, sweep, due, self.rests_until()];
        wake.into_iter().flatten().min()
    }

    /// Whether something waits for room in a mailbox, so that a turn is due once other cores have
    /// taken mail.
    pub fn has_parked_work(&self) -> bool {
        !self.parked.is_empty() || !self.hungry.is_empty()
    }

    /// Whether something that clients gave is not on disk yet, or not released. A stopping node
    /// waits for it.
    pub fn awaits_journal(&self) -> bool {
        self.journal.is_busy()
    }

    /// Open connections, those being closed included.
    pub fn connections(&self) -> usize {
        self.open
    }

    /// The first step of stopping: what clients send from here on is not acted on. The driver lets
    /// the mail of all cores come to rest, so that every event that was accepted reaches its
    /// subscribers, and then calls [`Core::shutdown`].
    pub fn quiesce(&mut self) {
        self.quiescing = true;
    }

    /// Stops: every connection gets what it was promised and a GOODBYE, and is closed. The driver
    /// goes on making turns until [`Core::connections`] is 0.
    pub fn shutdown(&mut self) {
        (self.quiescing, self.stopping) = (true, true);
        for slot in 0..self.connections.len() as u32 {
            if self.connections[slot as usize].is_some() {
                self.fire(slot, Event::Shutdown, shutting_down());
            }
        }
    }

    /// Queues a frame for one connection; `variable` is the length of its variable part.
    fn send(&mut self, slot: u32, frame: &Frame<'_>, variable: usize) {
        const FIXED: usize = 64; // more than the header and fixed part of any message
        let range = self
            .log
            .append(Purpose::Unicast, FIXED + variable, |out| frame.encode(out));
        self.queue(slot, range);
    }

    /// Queues bytes that are whole frames.
    fn send_frames(&mut self, slot: u32, frames: &[u8]) {
        if !frames.is_empty() {
            let range = self.log.append(Purpose::Unicast, frames.len(), |out| {
                out.extend_from_slice(frames)
            });
            self.queue(slot, range);
        }
    }

    fn queue(&mut self, slot: u32, range: batch::Range) {
        let Some(connection) = self.connections[slot as usize].as_deref_mut() else {
            return;
        };
        connection
            .outbox
            .push(range, &mut self.log, &mut self.outboxes);
        connection.dirty = true;
        if !std::mem::replace(&mut connection.prompt, true) {
            self.prompt.push_back(slot);
        }
    }

    /// The connection in `slot`.
    ///
    /// # Panics
    /// When there is none: callers have just seen it.
    fn connection(&mut self, slot: u32) -> &mut Connection {
        self.connections[slot as usize]
            .as_deref_mut()
            .expect("the caller has just seen it")
    }

    /// The slot of a connection that is still the one meant.
    fn find(&self, to: ConnectionRef) -> Option<u32> {
        let connection = self.connections.get(to.slot as usize)?.as_deref()?;
        (connection.number == to.number).then_some(to.slot)
    }
}
