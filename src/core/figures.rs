//! What a core counts beyond its [`NodeStats`], and all of it at once for whoever asks.
//!
//! Counting is plain additions in memory of the core's own. Nothing is published as it goes: a
//! core that is asked gives a copy of everything at the end of its turn ([`Core::figures`]).

use std::cmp::Reverse;

use tickring_protocol::{Decoded, ErrorCode, Frame, GapReason, NodeStats, decode};

use super::state::State;
use super::{Connection, Core};
use crate::histogram::Histogram;

/// The slowest connections that are listed.
const MOST_LISTED: usize = 16;
/// How many codes there are; they are numbered without holes.
const CODES: usize = ErrorCode::ALL.len();
const _: () = assert!(ErrorCode::ALL[CODES - 1] as usize == CODES - 1);
/// How many reasons of GAP there are, and 0, which is none.
const REASONS: usize = GapReason::Reset as usize + 1;

/// What happened since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted, those that were then refused included.
    pub accepted: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Commands that came again and got their first reply.
    pub repeated: u64,
    gaps: [u64; REASONS],
    errors: [u64; CODES],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            accepted: 0,
            received_bytes: 0,
            repeated: 0,
            gaps: [0; REASONS],
            errors: [0; CODES],
        }
    }
}

impl Counts {
    /// How often clients were told of a GAP for this reason.
    pub fn gaps(&self, reason: GapReason) -> u64 {
        self.gaps[reason as usize]
    }

    /// How often REPLY, ERROR or GOODBYE had this code; 0 for [`ErrorCode::Ok`].
    pub fn errors(&self, code: ErrorCode) -> u64 {
        self.errors[code as usize]
    }
}

/// How long things took, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Turns: from the end of the sleep to the beginning of the next.
    pub turn: Histogram,
    /// Commands: from the beginning of the turn that took them in to the end of the turn that
    /// applied them, when their replies and events are on their way or at the journal.
    pub command: Histogram,
    /// Events and replies that had to wait for the disk: from the turn that made them to the one
    /// that released them.
    pub release: Histogram,
    /// Mail: from the turn that wrote a parcel to the turn of another core that took it in.
    pub mail: Histogram,
}

/// What a core counts beside [`NodeStats`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    pub(super) times: Times,
    /// Commands applied when the turn began.
    commands_before: u64,
    /// Commands of this turn that other cores had taken in: how many, and how long before.
    sent_on: Vec<(u64, u64)>,
}

impl Tally {
    /// A client is told this code.
    pub(super) fn refused(&mut self, code: ErrorCode) {
        if code != ErrorCode::Ok {
            self.counts.errors[code as usize] += 1;
        }
    }

    /// Another core took `commands` in, `waited` nanoseconds before this turn.
    pub(super) fn sent_on(&mut self, commands: u64, waited: u64) {
        if commands > 0 {
            self.sent_on.push((commands, waited));
        }
    }

    /// A turn begins; `commands` were applied since the start.
    pub(super) fn begin_turn(&mut self, commands: u64) {
        self.commands_before = commands;
        self.sent_on.clear();
    }

    /// The turn took `took`; `commands` were applied since the start.
    fn turn_over(&mut self, took: u64, commands: u64) {
        self.times.turn.record(took);
        let mut own = commands - self.commands_before;
        for (commands, waited) in self.sent_on.drain(..) {
            own -= commands;
            self.times.command.record_many(waited + took, commands);
        }
        if own > 0 {
            self.times.command.record_many(took, own);
        }
    }
}

/// All that a core tells of itself.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What `node/core-N` tells too.
    pub stats: NodeStats,
    /// What happened since the start.
    pub counts: Counts,
    /// How long things took.
    pub times: Times,
    /// Bytes of events, replies and states that wait for the disk.
    pub held_bytes: u64,
    /// Connections whose input waits for room in a mailbox.
    pub waiting: u64,
    /// The connections that are behind, the longest first; at most 16.
    pub slowest: Vec<Slow>,
}

/// A connection that is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// What it calls itself.
    pub name: Box<str>,
    /// Bytes that wait for it.
    pub behind_bytes: u64,
    /// For how long it has been behind, in nanoseconds.
    pub since_ns: u64,
    /// Its subscriptions that are behind.
    pub topics: u32,
}

impl Core {
    /// The turn is over at `mono_ns`: all that it gave was handed on.
    pub fn on_turn_over(&mut self, mono_ns: u64) {
        if self.stats.turns == 0 {
            return; // what came before is the start
        }
        let took = mono_ns.saturating_sub(self.now.mono_ns);
        self.tally.turn_over(took, self.stats.commands);
    }

    /// All figures as they are now. Costs a look at each connection.
    pub fn figures(&self) -> Figures {
        Figures {
            stats: self.stats(),
            counts: self.tally.counts,
            times: self.tally.times,
            held_bytes: self.journal.held_bytes() as u64,
            waiting: self.parked.len() as u64,
            slowest: self.slowest().collect(),
        }
    }

    /// The connections that are behind, the longest first.
    pub(super) fn slowest(&self) -> impl Iterator<Item = Slow> {
        let is_slow = |c: &&Connection| c.slow_since != 0 && c.state == State::Active;
        let mut slow: Vec<_> = self
            .connections
            .iter()
            .filter_map(Option::as_deref)
            .filter(is_slow)
            .collect();
        slow.sort_by_key(|c| (c.slow_since, Reverse(c.outbox.bytes()), c.number));
        slow.into_iter().take(MOST_LISTED).map(|c| Slow {
            name: c.name.clone(),
            behind_bytes: c.outbox.bytes() as u64,
            since_ns: self.now.mono_ns - c.slow_since,
            topics: c.behind,
        })
    }

    /// A parcel came that was written at `written_ns`; tells how long ago that was.
    pub(super) fn on_parcel(&mut self, written_ns: u64) -> u64 {
        let waited = self.now.wall_ns.saturating_sub(written_ns);
        self.tally.times.mail.record(waited);
        waited
    }

    /// Counts the GAP that `frames` begins with, if it does.
    pub(super) fn count_gap(&mut self, frames: &[u8]) {
        if frames.is_empty() {
            return;
        }
        if let Ok(Decoded::Frame {
            frame: Frame::Gap(gap),
            ..
        }) = decode(frames, frames.len())
        {
            self.stats.gaps += 1;
            self.tally.counts.gaps[gap.reason as usize] += 1;
        }
    }
}
