//! Topics on the core that owns them: sequencing, history, snapshots.

mod history;
mod table;

use std::sync::Arc;

use tickring_protocol::{Event, Frame, Policy, Publish, Snapshot};

use crate::machines::{Command, Durability, Machine, Outcome, Refusal};

pub(crate) use history::{ChunkPool, History, HistoryLimits, frame_len};
pub(crate) use table::{Ids, Topics};

/// A topic where its machine runs: the one place where its events get their seq.
pub(crate) struct Topic {
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
    pub(crate) policy: Policy,
    /// [`Durability::Memory`] for every topic of a node without a journal.
    pub(crate) durability: Durability,
    /// Which lane of the journal takes its records.
    pub(crate) lane: u32,
    /// Names the numbering of its events.
    pub(crate) epoch: u64,
    /// Whether its lane knows it by its id: what this run writes of it begins with its state.
    pub(crate) bound: bool,
    machine: Box<dyn Machine>,
    snapshots: bool,
    /// Newest seq that was given to an event; 0: no event yet.
    seq: u64,
    /// Newest seq that may be seen: behind `seq` while events of a durable topic are not on disk.
    pub(crate) released: u64,
    last_event_ns: u64,
    last_node_ns: u64,
    pub(crate) history: History,
    /// For each core, how many of its subscriptions are open; empty until the first.
    interest: Box<[u32]>,
    /// The topics that show views of this one.
    pub(crate) views: Views,
    /// The topic that this one shows a view of.
    pub(crate) source: Option<Source>,
}

/// Derived topics of one topic. Sets have a bit for each view.
#[derive(Debug, Default)]
pub(crate) struct Views {
    /// Each with the index of its topic.
    pub(crate) topics: Vec<(u8, usize)>,
    /// Those that somebody subscribes to.
    pub(crate) watched: u32,
    /// Those of them that have changed since their last event.
    pub(crate) unseen: u32,
}

/// Where a derived topic comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// The index of the topic.
    pub(crate) index: usize,
    pub(crate) view: u8,
    /// How far that topic was at the newest event of this one.
    pub(crate) seq: u64,
}

/// What of a topic outlives a run of the node.
pub(crate) struct Past {
    pub(crate) machine: Box<dyn Machine>,
    pub(crate) seq: u64,
    pub(crate) last_event_ns: u64,
    pub(crate) last_node_ns: u64,
}

/// What a topic is, apart from what has happened in it.
pub(crate) struct Identity {
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) durability: Durability,
    pub(crate) lane: u32,
    pub(crate) epoch: u64,
}

impl Past {
    /// Nothing yet.
    pub(crate) fn none(machine: Box<dyn Machine>) -> Self {
        Self {
            machine,
            seq: 0,
            last_event_ns: 0,
            last_node_ns: 0,
        }
    }
}

impl Topic {
    pub(crate) fn new(identity: Identity, past: Past) -> Self {
        let Identity {
            id,
            name,
            policy,
            durability,
            lane,
            epoch,
        } = identity;
        Self {
            id,
            name,
            policy,
            durability,
            lane,
            epoch,
            bound: false,
            snapshots: past.machine.snapshot(&mut Vec::new()).is_some(),
            machine: past.machine,
            seq: past.seq,
            released: past.seq,
            last_event_ns: past.last_event_ns,
            last_node_ns: past.last_node_ns,
            history: History::default(),
            interest: Box::default(),
            views: Views::default(),
            source: None,
        }
    }

    /// Newest seq that was given to an event; 0: no event yet.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether the journal takes its records.
    pub(crate) fn is_journaled(&self) -> bool {
        self.durability != Durability::Memory
    }

    /// Whether nobody may see its events before the journal has them on disk.
    pub(crate) fn is_durable(&self) -> bool {
        self.durability == Durability::Durable
    }

    /// Whether newcomers get a state.
    pub(crate) fn has_snapshots(&self) -> bool {
        self.snapshots
    }

    /// Whether all its events may be seen.
    pub(crate) fn is_released(&self) -> bool {
        self.released == self.seq
    }

    /// When its newest event happened, in nanoseconds since 1970-01-01 UTC.
    pub(crate) fn last_event_ns(&self) -> u64 {
        self.last_event_ns
    }

    /// When its newest event was taken, in nanoseconds since 1970-01-01 UTC.
    pub(crate) fn last_node_ns(&self) -> u64 {
        self.last_node_ns
    }

    /// Appends all of the machine's state, for the journal.
    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        self.machine.save(out);
    }

    /// Runs the machine. Its events are in `out`, not yet sequenced; see [`Topic::sequence`].
    pub(crate) fn apply(
        &mut self,
        command: &Command<'_>,
        out: &mut Outcome,
    ) -> Result<(), Refusal> {
        out.begin(self.views.watched, self.views.unseen);
        self.machine.apply(command, out)
    }

    /// Appends what a view shows now as the payload of a PUBLISH; `false` if there is nothing.
    /// `scratch` is any vector, cleared before use.
    pub(crate) fn view(&self, view: u8, scratch: &mut Vec<u8>, payload: &mut Vec<u8>) -> bool {
        scratch.clear();
        let Some((kind, event_ns)) = self.machine.view(view, scratch) else {
            return false;
        };
        Publish {
            kind,
            event_ns,
            body: scratch,
        }
        .encode(payload);
        true
    }

    /// Gives the next event its seq and appends its frame to `out`. Whoever calls it releases the
    /// event, now or once it is on disk.
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

    /// Appends a SNAPSHOT frame as of now, events that may not be seen yet included; nothing when there is no state or no event yet.
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
