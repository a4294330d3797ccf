//! A topic as the bridge has it: one subscription of the server's, shared by all who watch it.

mod log;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tickring_client::StartAt;
use tickring_protocol::Policy;

use crate::client::Outbox;
use crate::wire::Protocol;
pub(crate) use log::Log;

/// Events that a newcomer may get behind a snapshot before a newer one is asked for.
pub(crate) const FRESH: u64 = 64;

/// Locks; a panic elsewhere has left nothing half done that could not be used.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a slow client where it does not say, by the topic's kind (SPEC section 5).
pub(crate) fn default_policy(topic: &str) -> Policy {
    match kind(topic) {
        "market" | "candle" | "node" => Policy::Conflate,
        _ => Policy::Resume,
    }
}

/// Whether the kind is known to have no snapshots.
fn is_stateless(topic: &str) -> bool {
    matches!(kind(topic), "stream" | "log" | "node")
}

/// Whether the kind is known to have a snapshot of every topic that had an event.
pub(crate) fn has_state(topic: &str) -> bool {
    matches!(kind(topic), "market" | "candle")
}

fn kind(topic: &str) -> &str {
    topic.split('/').next().unwrap_or_default()
}

/// A topic that somebody watches, or did a moment ago.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    /// The bridge's own id, which stays the same while the bridge runs.
    pub(crate) id: u32,
    state: Mutex<State>,
}

/// How far the subscription at the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Asked for.
    Asked,
    Live,
    /// Being given up; who comes meanwhile waits for the next one.
    Leaving,
    Refused {
        code: u16,
        retry_after_ms: u32,
        text: String,
    },
}

/// Where the server's subscription began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Begin {
    /// What was asked for: first seq (0: the state) and its epoch.
    pub(crate) asked: (u64, u64),
    pub(crate) position: u64,
    pub(crate) next_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) epoch: u64,
}

/// A topic's state as of an event.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) seq: u64,
    pub(crate) encoded: [Bytes; 2],
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) begin: Begin,
    pub(crate) epoch: u64,
    pub(crate) log: Log,
    /// The newest snapshot of this epoch.
    pub(crate) snapshot: Option<Kept>,
    /// No snapshots are to be had.
    pub(crate) stateless: bool,
    /// A newer snapshot is on its way.
    pub(crate) fetching: bool,
    pub(crate) watchers: Vec<Arc<Watcher>>,
    /// Who waits for a snapshot.
    pub(crate) wanting: Vec<Arc<Watcher>>,
    /// Since when nobody watches: sweeps of the hub.
    pub(crate) idle: u32,
}

/// What a client that begins, or begins again, gets first.
#[derive(Debug)]
pub(crate) enum Start {
    /// Everything from that position on, as SUBSCRIBED with `next_seq` and `last_seq`.
    Log {
        position: u64,
        next_seq: u64,
        last_seq: u64,
    },
    /// The snapshot, then everything from that position on.
    Snapshot { kept: Kept, position: u64 },
    /// The newest snapshot is ahead of what has come; it will.
    Soon,
    /// There is no snapshot that is new enough.
    Unknown,
}

impl Topic {
    pub(crate) fn new(name: Arc<str>, id: u32, from: StartAt) -> Self {
        let asked = match from {
            StartAt::Seq { seq, epoch } => (seq, epoch),
            StartAt::Oldest => (1, 0),
            StartAt::Now => (0, 0),
        };
        let state = State::asked(asked, is_stateless(&name));
        Self {
            name,
            id,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn asked(asked: (u64, u64), stateless: bool) -> Self {
        Self {
            phase: Phase::Asked,
            begin: Begin {
                asked,
                ..Begin::default()
            },
            epoch: 0,
            log: Log::default(),
            snapshot: None,
            stateless,
            fetching: false,
            watchers: Vec::new(),
            wanting: Vec::new(),
            idle: 0,
        }
    }

    /// As before it was asked for; who watches goes on doing so.
    pub(crate) fn ask_anew(&mut self) {
        let watchers = std::mem::take(&mut self.watchers);
        *self = Self::asked((0, 0), self.stateless);
        self.watchers = watchers;
    }

    /// Tells all who watch that there is something new.
    pub(crate) fn wake(&self) {
        for watcher in &self.watchers {
            watcher.wake();
        }
    }

    /// Adds what was just put into the log to what each watcher has still to read.
    pub(crate) fn count(&self, encoded: &[Bytes; 2]) {
        for watcher in &self.watchers {
            let len = encoded[watcher.outbox.protocol() as usize].len();
            watcher.outbox.add_behind(len as i64);
            watcher.wake();
        }
    }

    /// Where somebody begins who wants the state and what follows it.
    pub(crate) fn start_now(&self) -> Start {
        let (log, begin) = (&self.log, &self.begin);
        let just_begun = begin.asked.0 == 0
            && begin.epoch == self.epoch
            && log.reaches(begin.position)
            && log.end_position() - begin.position <= FRESH;
        if just_begun {
            return Start::Log {
                position: begin.position,
                next_seq: begin.next_seq,
                last_seq: begin.last_seq,
            };
        }
        self.newest()
    }

    /// Where somebody goes on who only wants the latest state.
    pub(crate) fn newest(&self) -> Start {
        let log = &self.log;
        let next_seq = log.next_seq();
        if self.stateless || next_seq == 1 {
            return Start::Log {
                position: log.end_position(),
                next_seq,
                last_seq: next_seq - 1,
            };
        }
        match &self.snapshot {
            Some(kept) if kept.seq >= next_seq => Start::Soon,
            Some(kept) if kept.seq + FRESH + 1 >= next_seq => match log.position_of(kept.seq + 1) {
                Some(position) => Start::Snapshot {
                    kept: kept.clone(),
                    position,
                },
                None => Start::Unknown,
            },
            _ => Start::Unknown,
        }
    }

    /// Takes a watcher off, and what it had still to read.
    pub(crate) fn remove(&mut self, watcher: &Arc<Watcher>) {
        self.watchers.retain(|other| !Arc::ptr_eq(other, watcher));
        self.wanting.retain(|other| !Arc::ptr_eq(other, watcher));
        let end = self.log.end_position();
        watcher.read_up_to(&self.log, end);
    }
}

/// One client's subscription, as the topic and the upstream tasks see it.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) topic: Arc<Topic>,
    pub(crate) outbox: Arc<Outbox>,
    /// It waits in the outbox for its turn.
    queued: AtomicBool,
    /// Seq of the event that comes next for this client.
    next_seq: AtomicU64,
    /// Bytes of the topic's log that this client has read, or passed over.
    read: AtomicU64,
    /// The client gave it up: nothing more may be said of it.
    dead: AtomicBool,
}

/// How a catch-up ended.
#[derive(Clone, Debug)]
pub(crate) enum CaughtUp {
    /// The client has everything before the event `next_seq` of that epoch.
    To { next_seq: u64, epoch: u64 },
    /// The server refused it.
    Refused {
        code: u16,
        retry_after_ms: u32,
        text: String,
    },
}

impl Watcher {
    /// Joins a topic that the caller has locked.
    pub(crate) fn join(topic: &Arc<Topic>, state: &mut State, outbox: &Arc<Outbox>) -> Arc<Self> {
        let end = state
            .log
            .bytes_before(state.log.end_position(), outbox.protocol());
        let watcher = Arc::new(Self {
            topic: topic.clone(),
            outbox: outbox.clone(),
            queued: AtomicBool::new(false),
            next_seq: AtomicU64::new(0),
            read: AtomicU64::new(end),
            dead: AtomicBool::new(false),
        });
        state.watchers.push(watcher.clone());
        state.idle = 0;
        watcher
    }

    /// Gives it a turn, unless it waits for one already.
    pub(crate) fn wake(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.outbox.push_topic(self.clone());
        }
    }

    /// Its turn has come: news from here on give it another.
    pub(crate) fn begin_turn(&self) {
        self.queued.store(false, Ordering::Release);
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq.load(Ordering::Relaxed)
    }

    pub(crate) fn set_next_seq(&self, seq: u64) {
        self.next_seq.store(seq, Ordering::Relaxed);
    }

    /// Notes that all before `position` is read; may also go back.
    pub(crate) fn read_up_to(&self, log: &Log, position: u64) {
        let now = log.bytes_before(position, self.outbox.protocol());
        let before = self.read.swap(now, Ordering::Relaxed);
        self.outbox.add_behind(before as i64 - now as i64);
    }

    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.outbox.protocol()
    }
}
