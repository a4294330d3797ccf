//! Topics on the core that owns them: sequencing, history, snapshots.

mod history;
mod table;

use tickring_protocol::{Event, Frame, Snapshot};

use crate::machines::{Command, Machine, Outcome, Refusal};

pub(crate) use history::{ChunkPool, History, HistoryLimits};
pub(crate) use table::{Ids, Topics};

/// A topic where its machine runs: the one place where its events get their seq.
pub(crate) struct Topic {
    pub(crate) id: u32,
    pub(crate) policy: tickring_protocol::Policy,
    machine: Box<dyn Machine>,
    /// Newest seq; 0: no event yet.
    pub(crate) seq: u64,
    last_event_ns: u64,
    last_node_ns: u64,
    pub(crate) history: History,
    /// For each core, how many of its subscriptions are open; empty until the first.
    interest: Box<[u32]>,
}

impl Topic {
    pub(crate) fn new(
        id: u32,
        policy: tickring_protocol::Policy,
        machine: Box<dyn Machine>,
    ) -> Self {
        Self {
            id,
            policy,
            machine,
            seq: 0,
            last_event_ns: 0,
            last_node_ns: 0,
            history: History::default(),
            interest: Box::default(),
        }
    }

    /// Runs the machine. Its events are in `out`, not yet sequenced; see [`Topic::sequence`].
    pub(crate) fn apply(
        &mut self,
        command: &Command<'_>,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        out.clear();
        self.machine.apply(command, out)
    }

    /// Gives the next event its seq and appends its frame to `out`.
    pub(crate) fn sequence(
        &mut self,
        (kind, event_ns, body): (u16, u64, &[u8]),
        node_ns: u64,
        out: &mut Vec<u8>,
    ) {
        self.seq += 1;
        (self.last_event_ns, self.last_node_ns) = (event_ns, node_ns);
        Frame::Event(Event {
            topic_id: self.id,
            kind,
            seq: self.seq,
            event_ns,
            node_ns,
            body,
        })
        .encode(out);
    }

    /// Appends a SNAPSHOT frame as of now; nothing when there is no state or no event yet.
    /// `scratch` is any vector, cleared before use.
    pub(crate) fn snapshot(&self, scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        scratch.clear();
        let Some(kind) = self.machine.snapshot(scratch).filter(|_| self.seq > 0) else {
            return false;
        };
        Frame::Snapshot(Snapshot {
            topic_id: self.id,
            kind,
            seq: self.seq,
            event_ns: self.last_event_ns,
            node_ns: self.last_node_ns,
            body: scratch,
        })
        .encode(out);
        true
    }

    /// Counts one more open subscription of `core`.
    pub(crate) fn open(&mut self, core: usize, cores: usize) {
        if self.interest.is_empty() {
            self.interest = vec![0; cores].into();
        }
        self.interest[core] += 1;
    }

    /// Counts `count` subscriptions of `core` as ended.
    pub(crate) fn release(&mut self, core: usize, count: u32) {
        let open = &mut self.interest[core];
        debug_assert!(*open >= count, "a core releases only what it opened");
        *open = open.saturating_sub(count);
    }

    /// The cores that have subscriptions.
    pub(crate) fn interested(&self) -> impl Iterator<Item = usize> {
        self.interest
            .iter()
            .enumerate()
            .filter(|(_, open)| **open > 0)
            .map(|(core, _)| core)
    }

    /// Whether anybody anywhere subscribes.
    pub(crate) fn is_watched(&self) -> bool {
        self.interest.iter().any(|open| *open > 0)
    }
}
