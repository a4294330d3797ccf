//! The core's side of the journal: records for its lanes, and what waits until they are on disk.
//!
//! What one command gives (its events and its reply) is one group of records in the batch of its
//! topic's lane. The driver takes a lane's batch after each turn if the lane has room
//! ([`Core::take_journal`]); until then the core takes in no more commands, so a batch is at most
//! what one turn gives. Batches are numbered by **tickets**, and [`Core::on_committed`] tells up to
//! which ticket all is on disk.
//!
//! What nobody may see before that (events and replies of durable topics, and states that contain
//! those events) is **held**, in order, with the ticket that it waits for.

use std::collections::VecDeque;
use std::ops::Range as Span;

use tickring_protocol::Policy;

use super::mail::{Ask, ReplyHead, store};
use super::owner::Sender;
use super::{Core, Plant};
use crate::journal::record;
use crate::journal::{ReplyLimits, ReplyWindow};
use crate::machines::Outcome;
use crate::topic::Topic;

/// The journal as a core sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalConfig {
    /// Lanes of the journal; 0: the node keeps none.
    pub lanes: u32,
    /// The states of all of a core's topics are written anew each time a lane has grown by this
    /// many bytes, so that what is older can be removed, and recovery stays short.
    pub snapshot_bytes: u64,
    /// However large the states are, they are written anew each time a lane has grown by this many
    /// bytes: a part of its bound, so that it never fills with what is still needed.
    pub snapshot_most_bytes: u64,
    /// Bytes that the core may have on their way to the disk of one lane: beyond it commands wait.
    /// What all cores may have must fit what a lane still has room for when it says that it is full.
    pub window_bytes: usize,
    /// Which answers are kept for commands that come again.
    pub replies: ReplyLimits,
}

/// Bytes of states that are written in one turn: a turn stays short however many topics there are.
const SWEEP_BYTES: usize = 128 << 10;
/// How often a core looks whether states may be written again, which a lane without room forbids:
/// nothing else wakes it for them.
const SWEEP_RETRY_NS: u64 = 1_000_000;
/// Beyond so many bytes that wait for the disk no more commands are taken in.
const MOST_HELD_BYTES: usize = 16 << 20;
/// States are written at most for this part of what is journaled.
const SWEEP_SHARE: u64 = 16;
/// Buffers kept of held turns.
const SPARE_TURNS: usize = 64;

/// What a core knows of the journal.
#[derive(Debug)]
pub(super) struct Journal {
    lanes: Vec<Lane>,
    snapshot_bytes: u64,
    snapshot_most_bytes: u64,
    window_bytes: usize,
    /// Whether a lane has `window_bytes` on their way.
    crowded: bool,
    /// The newest answers, for commands that come again.
    pub(super) replies: ReplyWindow,
    /// Whether nothing was left untaken when the turn began, and not too much is held.
    ready: bool,
    failed: bool,
    /// Monotonic time since which no turn has begun ready; 0: the last one did.
    blocked_since: u64,
    /// Whether a lane has no room on disk.
    full: bool,
    /// The monotonic time of this turn.
    now_ns: u64,
    held_bytes: usize,
    spare: Vec<HeldTurn>,
    fences: Vec<Fence>,
    /// The next topic whose state is to be written; `None` while that is not due.
    sweep: Option<usize>,
    swept_bytes: u64,
    state: Vec<u8>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Records that the driver has not taken yet.
    batch: Vec<u8>,
    /// The ticket of the last batch that was taken; 0: none yet.
    taken: u64,
    /// Tickets and bytes of the batches that were taken and are not on disk yet.
    posted: VecDeque<(u64, usize)>,
    posted_bytes: usize,
    /// The newest ticket that is on disk.
    committed: u64,
    /// Where the lane was, in bytes, when it was last heard of, and when a sweep last began.
    position: u64,
    swept_at: u64,
    held: VecDeque<HeldTurn>,
    /// Whether a turn that was held is being released: it is no longer in `held`, but some of it
    /// may still be to come.
    releasing: bool,
}

impl Lane {
    /// Whether something of it was not released yet.
    fn holds(&self) -> bool {
        self.releasing || !self.held.is_empty()
    }
}

/// What waits for one ticket.
#[derive(Debug, Default)]
pub(super) struct HeldTurn {
    ticket: u64,
    /// The monotonic time of the turn that holds the first of them.
    since_ns: u64,
    pub(super) items: Vec<Held>,
    pub(super) bytes: Vec<u8>,
}

/// Something that must not be seen yet. Spans lie in [`HeldTurn::bytes`].
#[derive(Debug)]
pub(super) enum Held {
    Event {
        index: usize,
        seq: u64,
        frame: Span<usize>,
    },
    Reply {
        to: Sender,
        head: ReplyHead,
        payload: Span<usize>,
    },
    /// A subscription that begins with a state; see [`Core::answer_later`].
    Opening {
        to: Sender,
        index: usize,
        request_id: u64,
        policy: Policy,
        ask: Ask,
        state: Span<usize>,
    },
    CatchUp {
        to: Sender,
        index: usize,
        ask: Ask,
        ticket: u32,
        state: Span<usize>,
    },
    /// One of the places where [`Fence`] waits.
    Fence(usize),
}

/// A connection that wants to know when all it sent was answered: it waits in every lane.
#[derive(Debug)]
struct Fence {
    to: Sender,
    left: usize,
}

impl Journal {
    pub(super) fn new(config: JournalConfig, plant: Option<Plant>) -> Self {
        let mut replies = ReplyWindow::new(config.replies);
        if plant == Some(Plant::ForgottenSessions) {
            replies.forget_sessions();
        }
        Self {
            lanes: (0..config.lanes).map(|_| Lane::default()).collect(),
            snapshot_bytes: config.snapshot_bytes,
            snapshot_most_bytes: config.snapshot_most_bytes,
            window_bytes: config.window_bytes,
            crowded: false,
            replies,
            ready: true,
            failed: false,
            blocked_since: 0,
            // Until it is known otherwise: a lane begins without a file.
            full: config.lanes > 0,
            now_ns: 0,
            held_bytes: 0,
            spare: Vec::new(),
            fences: Vec::new(),
            sweep: None,
            swept_bytes: 0,
            state: Vec::new(),
        }
    }

    pub(super) fn lanes(&self) -> u32 {
        self.lanes.len() as u32 // they were given as a u32
    }

    /// Bytes that wait for the disk.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether commands may be taken in.
    pub(super) fn is_ready(&self) -> bool {
        self.ready && !self.crowded && !self.failed
    }

    /// Whether states may be written: also to a lane without room, for they are what lets old
    /// records go; but then only when all that was taken is on disk, so that they take nobody's room.
    fn may_sweep(&self) -> bool {
        let idle = |lane: &Lane| lane.batch.is_empty() && lane.posted_bytes == 0;
        self.is_ready() || (self.full && !self.failed && self.lanes.iter().all(idle))
    }

    /// Whether commands have waited for it for as long as `patience`, in nanoseconds.
    pub(super) fn is_late(&self, patience: u64) -> bool {
        let since = self.blocked_since;
        since != 0 && !self.failed && self.now_ns.saturating_sub(since) >= patience
    }

    /// Takes note of what a lane's batch has grown to.
    fn grown(&mut self, lane: u32) {
        let lane = &self.lanes[lane as usize];
        self.crowded |= lane.batch.len() + lane.posted_bytes >= self.window_bytes;
    }

    /// Looks at the start of a turn whether the last one's batches were taken.
    pub(super) fn begin_turn(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        let taken = self.lanes.iter().all(|lane| lane.batch.is_empty());
        self.ready = taken && self.held_bytes <= MOST_HELD_BYTES && !self.full;
        let crowded = |lane: &Lane| lane.batch.len() + lane.posted_bytes >= self.window_bytes;
        self.crowded = self.lanes.iter().any(crowded);
        self.blocked_since = match self.blocked_since {
            _ if self.is_ready() => 0,
            0 => now_ns.max(1),
            since => since,
        };
    }

    /// Whether something of this core is not on disk yet or not released.
    pub(super) fn is_busy(&self) -> bool {
        let idle = |lane: &Lane| lane.batch.is_empty() && !lane.holds();
        !self.failed && !self.lanes.iter().all(idle)
    }

    /// When states are to be written on, in monotonic nanoseconds: turns are due for it without
    /// anything happening.
    pub(super) fn sweeps_at(&self) -> Option<u64> {
        let retry_ns = if self.may_sweep() { 0 } else { SWEEP_RETRY_NS };
        let sweeps = self.sweep.is_some() && !self.failed;
        sweeps.then_some(self.now_ns + retry_ns)
    }

    pub(super) fn begin_sweep(&mut self) {
        (self.sweep, self.swept_bytes) = (Some(0), 0);
        for lane in &mut self.lanes {
            lane.swept_at = lane.position;
        }
    }

    /// Makes sure that the topic's lane knows it. To be called before its machine changes, because
    /// what this run writes of a topic begins with its state.
    pub(super) fn bind(&mut self, topic: &mut Topic) {
        if topic.bound {
            return;
        }
        topic.bound = true;
        let binding = record::Topic {
            number: topic.id,
            epoch: topic.epoch,
            name: &topic.name,
        };
        let batch = &mut self.lanes[topic.lane as usize].batch;
        binding
            .encode(false, batch)
            .expect("a topic's name is as short as a record's");
        if topic.seq() > 0 {
            self.write_state(topic);
        }
    }

    /// Writes the state of a topic that is bound.
    fn write_state(&mut self, topic: &Topic) {
        self.state.clear();
        topic.save(&mut self.state);
        let snapshot = record::Snapshot {
            topic: topic.id,
            kind: 0,
            seq: topic.seq(),
            node_ns: topic.last_node_ns(),
            event_ns: topic.last_event_ns(),
            state: &self.state,
        };
        let lane = &mut self.lanes[topic.lane as usize];
        match snapshot.encode(true, &mut lane.batch) {
            Ok(place) => self.swept_bytes += place.len() as u64,
            // The journal then keeps all that came since its last state.
            Err(error) => tracing::error!(topic = &*topic.name, %error, "state is not saved"),
        }
        self.grown(topic.lane);
    }

    /// Writes the events of a command; `ends`: nothing else of it follows.
    pub(super) fn write_events(
        &mut self,
        topic: &Topic,
        outcome: &Outcome,
        (session, request_id): (u128, u64),
        node_ns: u64,
        ends: bool,
    ) {
        let batch = &mut self.lanes[topic.lane as usize].batch;
        let mut left = outcome.events().len() as u64;
        for (kind, event_ns, body) in outcome.events() {
            left -= 1;
            let event = record::Event {
                topic: topic.id,
                kind,
                seq: topic.seq() - left,
                session,
                request_id,
                event_ns,
                node_ns,
                body,
            };
            event
                .encode(ends && left == 0, batch)
                .expect("a record holds the body of any frame");
        }
        self.grown(topic.lane);
    }

    /// Writes the reply to a command, which ends its group, and keeps it.
    pub(super) fn write_reply(&mut self, topic: &Topic, reply: &record::Reply<'_>) {
        self.replies.keep(reply);
        if topic.is_journaled() {
            reply
                .encode(true, &mut self.lanes[topic.lane as usize].batch)
                .expect("a record holds the payload of any frame");
            self.grown(topic.lane);
        }
    }

    /// Whether something that `lane` was given is not on disk yet.
    pub(super) fn is_pending(&self, lane: u32) -> bool {
        let lane = &self.lanes[lane as usize];
        !lane.batch.is_empty() || lane.committed < lane.taken || lane.holds()
    }

    /// Keeps something back until all that `lane` was given so far is on disk. `fill` appends its
    /// bytes to the vector that it is given.
    pub(super) fn hold(&mut self, lane: u32, fill: impl FnOnce(&mut Vec<u8>) -> Held) {
        let lane = &mut self.lanes[lane as usize];
        let ticket = lane.taken + u64::from(!lane.batch.is_empty());
        if lane.held.back().is_none_or(|turn| turn.ticket < ticket) {
            let mut turn = self.spare.pop().unwrap_or_default();
            (turn.ticket, turn.since_ns) = (ticket, self.now_ns);
            lane.held.push_back(turn);
        }
        let turn = lane.held.back_mut().expect("one was just put there");
        let before = turn.bytes.len();
        let item = fill(&mut turn.bytes);
        turn.items.push(item);
        self.held_bytes += turn.bytes.len() - before + size_of::<Held>();
    }

    /// Holds the answer to a fence behind all that is held. `false`: nothing is, so it can be
    /// answered at once.
    pub(super) fn hold_fence(&mut self, to: Sender) -> bool {
        let left = self.lanes.iter().filter(|lane| lane.holds()).count();
        if left == 0 {
            return false;
        }
        let free = self.fences.iter().position(|fence| fence.left == 0);
        let place = free.unwrap_or(self.fences.len());
        match free {
            Some(place) => self.fences[place] = Fence { to, left },
            None => self.fences.push(Fence { to, left }),
        }
        for lane in 0..self.lanes() {
            if self.lanes[lane as usize].holds() {
                self.hold(lane, |_| Held::Fence(place));
            }
        }
        true
    }

    /// One of the places where a fence waits was reached; gives whom to tell if it was the last.
    pub(super) fn pass_fence(&mut self, place: usize) -> Option<Sender> {
        let fence = &mut self.fences[place];
        fence.left -= 1;
        (fence.left == 0).then_some(fence.to)
    }

    /// The next turn of `lane` that is on disk.
    fn released(&mut self, lane: u32, ticket: u64) -> Option<HeldTurn> {
        let held = &mut self.lanes[lane as usize].held;
        if held.front()?.ticket > ticket {
            return None;
        }
        let turn = held.pop_front()?;
        self.held_bytes -= turn.bytes.len() + turn.items.len() * size_of::<Held>();
        Some(turn)
    }

    fn recycle(&mut self, mut turn: HeldTurn) {
        turn.bytes.clear();
        turn.items.clear();
        if self.spare.len() < SPARE_TURNS && turn.bytes.capacity() <= 1 << 20 {
            self.spare.push(turn);
        }
    }
}

impl Core {
    /// How many lanes the journal has; 0: there is none.
    pub fn lanes(&self) -> u32 {
        self.journal.lanes()
    }

    /// Whether so much waits for the disk that commands wait too.
    pub fn is_held_up(&self) -> bool {
        self.journal.failed || self.journal.held_bytes > MOST_HELD_BYTES
    }

    /// Whether [`Core::take_journal`] has something for the lane.
    pub fn has_journal(&self, lane: u32) -> bool {
        !self.journal.lanes[lane as usize].batch.is_empty()
    }

    /// The records of this turn for a lane, if there are any. To be asked for only when its
    /// mailbox has room; what is not taken is kept, and commands wait. `empty` is what the next
    /// records go to. Tickets count up from 1, one for each batch taken.
    pub fn take_journal(&mut self, lane: u32, empty: Vec<u8>) -> Option<Vec<u8>> {
        debug_assert!(empty.is_empty());
        let lane = &mut self.journal.lanes[lane as usize];
        if lane.batch.is_empty() {
            return None;
        }
        lane.taken += 1;
        lane.posted.push_back((lane.taken, lane.batch.len()));
        lane.posted_bytes += lane.batch.len();
        Some(std::mem::replace(&mut lane.batch, empty))
    }

    /// Releases what was given to the journal, whether or not it is on disk.
    pub(super) fn release_unsynced(&mut self) {
        for lane in 0..self.lanes() {
            let taken = self.journal.lanes[lane as usize].taken;
            self.on_committed(lane, taken, 0);
        }
    }

    /// All batches of `lane` up to `ticket` are on disk, and so is all of the lane before
    /// `position`, a count of bytes: what was held for them is released. To be called within a
    /// turn.
    pub fn on_committed(&mut self, lane: u32, ticket: u64, position: u64) {
        // What is released can make a connection go on, which may hold something behind it.
        while let Some(mut turn) = self.journal.released(lane, ticket) {
            self.journal.lanes[lane as usize].releasing = true;
            let waited = self.now.mono_ns - turn.since_ns;
            let release = &mut self.tally.times.release;
            release.record_many(waited, turn.items.len() as u64);
            for item in turn.items.drain(..) {
                self.release_held(item, &turn.bytes);
            }
            self.journal.recycle(turn);
        }
        let journal = &mut self.journal;
        let due = journal
            .snapshot_bytes
            .max(SWEEP_SHARE * journal.swept_bytes)
            .min(journal.snapshot_most_bytes)
            // The states of all cores make the lane grow, too: that alone must not call for new ones.
            .max(2 * self.ids.cores as u64 * journal.swept_bytes);
        let lane = &mut journal.lanes[lane as usize];
        (lane.committed, lane.releasing) = (ticket, false);
        while let Some(&(posted, bytes)) = lane.posted.front()
            && posted <= ticket
        {
            lane.posted.pop_front();
            lane.posted_bytes -= bytes;
        }
        lane.position = lane.position.max(position);
        if journal.sweep.is_none() && lane.position - lane.swept_at > due {
            journal.begin_sweep();
        }
    }

    /// Whether some lane has no room on disk: from the next turn on commands wait, and are refused
    /// when they have waited too long.
    pub fn set_journal_full(&mut self, full: bool) {
        self.journal.full = full;
    }

    /// A lane has failed for good: what is held is never released, and commands are no longer
    /// taken in. The driver then stops the node.
    pub fn on_journal_failed(&mut self) {
        self.journal.failed = true;
        for lane in &mut self.journal.lanes {
            lane.held.clear();
            lane.batch.clear();
        }
    }

    /// Writes the states of some more topics, if that is due.
    pub(super) fn sweep(&mut self) {
        let Some(mut next) = self.journal.sweep.filter(|_| self.journal.may_sweep()) else {
            return;
        };
        let mut written = 0;
        let most = SWEEP_BYTES.min(self.journal.window_bytes / 2).max(1);
        while written < most && next < self.topics.len() {
            let topic = self.topics.get_mut(next);
            if topic.is_journaled() {
                let before = self.journal.swept_bytes;
                if topic.bound {
                    self.journal.write_state(topic);
                } else {
                    self.journal.bind(topic);
                }
                written += (self.journal.swept_bytes - before) as usize;
            }
            next += 1;
        }
        self.journal.sweep = Some(next).filter(|next| *next < self.topics.len());
    }

    /// Holds a reply of a durable topic.
    pub(super) fn hold_reply(&mut self, lane: u32, to: Sender, head: ReplyHead, payload: &[u8]) {
        if head.awaited {
            self.expect_answer(to);
        }
        self.journal.hold(lane, |bytes| Held::Reply {
            to,
            head,
            payload: store(bytes, payload),
        });
    }

    /// A connection of this core waits for one more answer; those of other cores count for
    /// themselves.
    pub(super) fn expect_answer(&mut self, to: Sender) {
        if to.core == self.core
            && let Some(slot) = self.find(to.connection)
        {
            self.connection(slot).awaiting += 1;
        }
    }

    fn release_held(&mut self, item: Held, bytes: &[u8]) {
        match item {
            Held::Event { index, seq, frame } => self.publish(index, seq, &bytes[frame]),
            Held::Reply { to, head, payload } => self.send_reply(to, &head, &bytes[payload], true),
            Held::Opening {
                to,
                index,
                request_id,
                policy,
                ask,
                state,
            } => self.open_held(to, index, (request_id, policy), ask, &bytes[state]),
            Held::CatchUp {
                to,
                index,
                ask,
                ticket,
                state,
            } => self.catch_up_held(to, index, ask, ticket, &bytes[state]),
            Held::Fence(place) => {
                if let Some(to) = self.journal.pass_fence(place) {
                    self.say_fenced(to);
                }
            }
        }
    }
}
