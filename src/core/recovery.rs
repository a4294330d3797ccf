//! What outlives a run of the node: topics with their machines, and answers, folded from a lane's
//! records.
//!
//! Each lane is folded on a thread of its own into a [`LaneState`]; a topic is in one lane, so
//! nothing has to be merged. [`Heritage`] deals them out, and each core inherits the topics
//! that it owns ([`Core::inherit`]), however many cores there were before.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tickring_protocol::{Event, Frame, TopicName};

use super::subscribe::events;
use super::{Core, Limits, Plant};
use crate::journal::record::{self, Record};
use crate::journal::{Entry, Recovered, ReplyLimits, ReplyWindow};
use crate::machines::{Durability, Machine, Recorded, Registry, Unreadable};
use crate::topic::{ChunkPool, History, HistoryLimits, Ids, Past, frame_len};

/// Why the journal's records do not make topics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The journal has a topic of a kind that is not registered.
    #[error(
        "the journal has the topic {topic}, but this server knows no topics of that kind: start the \
         tickring that wrote it, or one that knows the kind"
    )]
    UnknownKind {
        /// The topic.
        topic: Box<str>,
    },
    /// A machine cannot read what it once wrote.
    #[error(
        "topic {topic} cannot be recovered at seq {seq}: {cause}; start the tickring that wrote the \
         journal, or a newer one"
    )]
    Unreadable {
        /// The topic.
        topic: Box<str>,
        /// The event, or the last event of the state.
        seq: u64,
        /// What is wrong.
        cause: Unreadable,
    },
    /// Events of a topic are there, but nothing that they continue.
    #[error(
        "topic {topic} has events from seq {seq} on in the journal, but neither those before them nor \
         a state: restore the removed segments from a backup"
    )]
    NoState {
        /// The topic.
        topic: Box<str>,
        /// The first event that is there.
        seq: u64,
    },
    /// There are more topics than the configuration allows.
    #[error("topic {topic} of the journal cannot be taken over: {cause}; raise max_topics")]
    Refused {
        /// The topic.
        topic: Box<str>,
        /// Why.
        cause: Box<str>,
    },
}

/// One lane's records, folded for a node of some number of cores.
pub struct LaneState {
    registry: Arc<Registry>,
    replies: ReplyLimits,
    chunks: ChunkPool,
    /// By [`Entry::topic`].
    topics: Vec<Fold>,
    by_name: HashMap<Box<str>, usize>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// By core and session: the highest request id, and the time, of the answers that found no room.
    marks: HashMap<(usize, u128), (u64, u64)>,
    cores: usize,
    frame: Vec<u8>,
    error: Option<RecoveryError>,
}

/// A topic as far as it was folded.
struct Fold {
    name: Box<str>,
    owner: usize,
    epoch: u64,
    durable: bool,
    past: Past,
    /// The first event that nothing reaches up to; 0: none.
    unreached: u64,
    history: History,
    /// Whether a later epoch of the same name has taken its place.
    replaced: bool,
}

struct Kept {
    topic: usize,
    session: u128,
    request_id: u64,
    code: u16,
    seq: u64,
    node_ns: u64,
    payload: Box<[u8]>,
}

/// A topic to be taken over.
struct Seed {
    name: Box<str>,
    epoch: u64,
    past: Past,
    history: History,
}

/// An answer to be taken over: with its topic's name, whose owner remembers it.
#[derive(Debug)]
struct SeedReply {
    name: Arc<str>,
    session: u128,
    request_id: u64,
    code: u16,
    seq: u64,
    node_ns: u64,
    payload: Box<[u8]>,
}

/// A session's mark to be taken over; see [`ReplyWindow::mark`].
#[derive(Debug)]
struct Mark {
    session: u128,
    request_id: u64,
    node_ns: u64,
}

/// All that a lane holds.
struct Folded {
    seeds: Vec<Seed>,
    replies: Vec<SeedReply>,
    /// With the core that they are for.
    marks: Vec<(usize, Mark)>,
}

impl LaneState {
    /// Nothing yet. `limits` bounds the events that are kept for replay, of this lane as of a
    /// core, and `replies` the answers. The node has `cores` cores.
    pub fn new(
        registry: Arc<Registry>,
        limits: &Limits,
        replies: ReplyLimits,
        cores: usize,
    ) -> Self {
        let history = HistoryLimits {
            topic_bytes: limits.history_topic_bytes,
            core_bytes: limits.history_bytes,
        };
        Self {
            registry,
            replies,
            chunks: ChunkPool::new(history),
            topics: Vec::new(),
            by_name: HashMap::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            marks: HashMap::new(),
            cores,
            frame: Vec::new(),
            error: None,
        }
    }

    /// Takes the lane's next record. After an error it takes no more; [`Heritage::add`] tells.
    pub fn take(&mut self, entry: &Entry<'_>) {
        if self.error.is_some() {
            return;
        }
        let taken = match &entry.record {
            Record::Topic(topic) => self.begin(entry.topic, topic),
            Record::Event(event) => self.event(entry.topic, event),
            Record::Snapshot(snapshot) => self.state(entry.topic, snapshot),
            Record::Reply(reply) => {
                self.keep(entry.topic, reply);
                Ok(())
            }
            Record::Mark { .. } => Ok(()),
        };
        self.error = taken.err();
    }

    fn begin(&mut self, place: usize, topic: &record::Topic<'_>) -> Result<(), RecoveryError> {
        if place < self.topics.len() {
            return Ok(()); // bound again in a later segment
        }
        let name = TopicName::new(topic.name).ok();
        let kind = name.and_then(|name| Some((name, self.registry.get(name.kind())?)));
        let Some((name, kind)) = kind else {
            let topic = topic.name.into();
            return Err(RecoveryError::UnknownKind { topic });
        };
        let machine = kind.create(name.name());
        self.topics.push(Fold {
            name: topic.name.into(),
            owner: Ids { cores: self.cores }.owner_of_name(topic.name),
            epoch: topic.epoch,
            durable: kind.durability() == Durability::Durable,
            past: Past::none(machine),
            unreached: 0,
            history: History::default(),
            replaced: false,
        });
        if let Some(before) = self.by_name.insert(topic.name.into(), place) {
            let before = &mut self.topics[before];
            before.replaced = true;
            while before.history.first_seq().is_some() {
                before.history.drop_oldest(&mut self.chunks);
            }
        }
        Ok(())
    }

    #[inline]
    fn event(&mut self, place: usize, event: &record::Event<'_>) -> Result<(), RecoveryError> {
        let topic = &mut self.topics[place];
        if event.seq != topic.past.seq + 1 {
            if event.seq > topic.past.seq && topic.unreached == 0 {
                topic.unreached = event.seq;
            }
            return Ok(());
        }
        let recorded = Recorded {
            seq: event.seq,
            kind: event.kind,
            session: event.session,
            event_ns: event.event_ns,
            node_ns: event.node_ns,
            body: event.body,
        };
        let past = &mut topic.past;
        past.machine
            .replay(&recorded)
            .map_err(|cause| RecoveryError::Unreadable {
                topic: topic.name.clone(),
                seq: event.seq,
                cause,
            })?;
        (past.seq, past.last_event_ns, past.last_node_ns) =
            (event.seq, event.event_ns, event.node_ns);
        if topic.durable {
            self.remember_event(place, event);
        }
        Ok(())
    }

    /// Keeps an event for replay. Those of volatile topics begin a new epoch, so nobody can ask
    /// for them.
    fn remember_event(&mut self, place: usize, event: &record::Event<'_>) {
        self.frame.clear();
        Frame::Event(Event {
            topic_id: 0, // given when a core adopts it
            kind: event.kind,
            seq: event.seq,
            event_ns: event.event_ns,
            node_ns: event.node_ns,
            body: event.body,
        })
        .encode(&mut self.frame);
        let history = &mut self.topics[place].history;
        history.append(place, event.seq, &self.frame, &mut self.chunks);
        while let Some(oldest) = self.chunks.over_limit() {
            self.topics[oldest].history.drop_oldest(&mut self.chunks);
        }
    }

    fn state(&mut self, place: usize, state: &record::Snapshot<'_>) -> Result<(), RecoveryError> {
        let topic = &mut self.topics[place];
        if state.seq == topic.past.seq && topic.unreached == 0 && state.seq > 0 {
            debug_assert!(
                saved(&*topic.past.machine) == state.state,
                "{}: the fold of the events is the state that was written",
                topic.name
            );
            return Ok(());
        }
        if state.seq < topic.past.seq {
            return Ok(());
        }
        let name = TopicName::new(&topic.name).ok();
        let kind = name.and_then(|name| Some((name, self.registry.get(name.kind())?)));
        let (name, kind) = kind.expect("its kind was found when the topic began");
        let mut machine = kind.create(name.name());
        machine
            .load(state.state)
            .map_err(|cause| RecoveryError::Unreadable {
                topic: topic.name.clone(),
                seq: state.seq,
                cause,
            })?;
        topic.past.machine = machine;
        (topic.past.seq, topic.past.last_node_ns) = (state.seq, state.node_ns);
        topic.past.last_event_ns = state.event_ns;
        topic.unreached = 0;
        while topic.history.first_seq().is_some() {
            topic.history.drop_oldest(&mut self.chunks);
        }
        Ok(())
    }

    fn keep(&mut self, topic: usize, reply: &record::Reply<'_>) {
        self.kept_bytes += reply.payload.len() + ReplyWindow::OVERHEAD;
        self.kept.push_back(Kept {
            topic,
            session: reply.session,
            request_id: reply.request_id,
            code: reply.code,
            seq: reply.seq,
            node_ns: reply.node_ns,
            payload: reply.payload.into(),
        });
        let too_old = reply.node_ns.saturating_sub(self.replies.age_ns);
        while let Some(oldest) = self.kept.front()
            && (oldest.node_ns < too_old || self.kept_bytes > self.replies.bytes)
        {
            self.kept_bytes -= oldest.payload.len() + ReplyWindow::OVERHEAD;
            if oldest.node_ns >= too_old && oldest.request_id != 0 {
                let owner = self.topics[oldest.topic].owner;
                let mark = self.marks.entry((owner, oldest.session)).or_default();
                *mark = (mark.0.max(oldest.request_id), mark.1.max(oldest.node_ns));
            }
            self.kept.pop_front();
        }
    }

    /// What the lane holds, once all its records were taken.
    ///
    /// # Errors
    /// [`RecoveryError`] tells what to do.
    fn finish(self) -> Result<Folded, RecoveryError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let alive = |topic: &&Fold| !topic.replaced;
        if let Some(topic) = self.topics.iter().filter(alive).find(|t| t.unreached != 0) {
            return Err(RecoveryError::NoState {
                topic: topic.name.clone(),
                seq: topic.unreached,
            });
        }
        let names: Vec<Arc<str>> = self.topics.iter().map(|t| Arc::from(&*t.name)).collect();
        let replies = self.kept.into_iter().map(|kept| SeedReply {
            name: Arc::clone(&names[kept.topic]),
            session: kept.session,
            request_id: kept.request_id,
            code: kept.code,
            seq: kept.seq,
            node_ns: kept.node_ns,
            payload: kept.payload,
        });
        let seeds = self
            .topics
            .into_iter()
            .filter(|topic| !topic.replaced && topic.past.seq > 0)
            .map(|topic| Seed {
                name: topic.name,
                epoch: topic.epoch,
                past: topic.past,
                history: topic.history,
            });
        let marks = self.marks.into_iter();
        Ok(Folded {
            seeds: seeds.collect(),
            replies: replies.collect(),
            marks: marks
                .map(|((owner, session), (request_id, node_ns))| {
                    let mark = Mark {
                        session,
                        request_id,
                        node_ns,
                    };
                    (owner, mark)
                })
                .collect(),
        })
    }
}

fn saved(machine: &dyn Machine) -> Vec<u8> {
    let mut state = Vec::new();
    machine.save(&mut state);
    state
}

impl Seed {
    /// Which of `cores` cores owns the topic.
    fn owner(&self, cores: usize) -> usize {
        Ids { cores }.owner_of_name(&self.name)
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed")
            .field("name", &self.name)
            .field("epoch", &self.epoch)
            .field("seq", &self.past.seq)
            .finish_non_exhaustive()
    }
}

impl SeedReply {
    /// Which of `cores` cores owns the topic of the command.
    fn owner(&self, cores: usize) -> usize {
        Ids { cores }.owner_of_name(&self.name)
    }
}

/// What one core takes over from an earlier run.
#[derive(Debug, Default)]
pub struct Share {
    seeds: Vec<Seed>,
    replies: Vec<SeedReply>,
    marks: Vec<Mark>,
}

/// What an earlier run of the node has left to the cores of a new one.
#[derive(Debug)]
pub struct Heritage {
    shares: Vec<Share>,
    next_epoch: u64,
    topics: usize,
}

impl Heritage {
    /// Nothing yet, for a node of `cores` cores.
    pub fn new(cores: usize) -> Self {
        Self {
            shares: (0..cores).map(|_| Share::default()).collect(),
            next_epoch: 1,
            topics: 0,
        }
    }

    /// Adds a lane and what its records were folded into.
    ///
    /// # Errors
    /// [`RecoveryError`] tells what to do.
    pub fn add(&mut self, lane: &Recovered, state: LaneState) -> Result<(), RecoveryError> {
        let cores = self.shares.len();
        let epochs = lane.topics.iter().map(|topic| topic.epoch + 1);
        self.next_epoch = epochs.max().unwrap_or(1).max(self.next_epoch);
        debug_assert_eq!(state.cores, cores, "it was folded for this node");
        let folded = state.finish()?;
        self.topics += folded.seeds.len();
        for seed in folded.seeds {
            self.shares[seed.owner(cores)].seeds.push(seed);
        }
        for reply in folded.replies {
            self.shares[reply.owner(cores)].replies.push(reply);
        }
        for (owner, mark) in folded.marks {
            self.shares[owner].marks.push(mark);
        }
        Ok(())
    }

    /// An epoch above every one that was found.
    pub fn next_epoch(&self) -> u64 {
        self.next_epoch
    }

    /// How many topics were found.
    pub fn topics(&self) -> usize {
        self.topics
    }

    /// What each core takes over, once all lanes were added.
    pub fn into_shares(mut self) -> Vec<Share> {
        for share in &mut self.shares {
            // Lanes are folded one by one, but a session's commands were answered in one order.
            share.replies.sort_by_key(|reply| reply.node_ns);
            share.marks.sort_by_key(|mark| mark.node_ns);
        }
        self.shares
    }
}

impl Core {
    /// Takes over what an earlier run has left. To be called before the first turn.
    ///
    /// # Errors
    /// [`RecoveryError::Refused`]
    pub fn inherit(&mut self, share: Share) -> Result<(), RecoveryError> {
        for seed in share.seeds {
            self.adopt(seed)?;
        }
        for mark in &share.marks {
            let replies = &mut self.journal.replies;
            replies.mark(mark.session, mark.request_id, mark.node_ns);
        }
        share.replies.iter().for_each(|reply| self.remember(reply));
        Ok(())
    }

    /// Takes a topic over from an earlier run.
    fn adopt(&mut self, mut seed: Seed) -> Result<(), RecoveryError> {
        if self.plant == Some(Plant::SeqReused) {
            seed.past.seq = seed.past.seq.saturating_sub(1).max(1);
        }
        let keeps_epoch = self.plant == Some(Plant::EpochKept);
        let adopted = self
            .topics
            .adopt(&seed.name, seed.epoch, seed.past, keeps_epoch);
        let index = adopted.map_err(|refusal| RecoveryError::Refused {
            topic: seed.name.clone(),
            cause: refusal.to_string().into(),
        })?;
        let id = self.topics.get(index).id;
        for mut frames in seed.history.into_frames() {
            let mut at = 0;
            while let Some(len) = frame_len(&frames[at..]) {
                let frame = &mut frames[at..at + len];
                frame[TOPIC_ID].copy_from_slice(&id.to_le_bytes());
                let seq = events(frame).next().expect("one frame is left").1;
                let history = &mut self.topics.get_mut(index).history;
                history.append(index, seq, frame, &mut self.chunks);
                at += len;
            }
            while let Some(oldest) = self.chunks.over_limit() {
                let history = &mut self.topics.get_mut(oldest).history;
                history.drop_oldest(&mut self.chunks);
            }
        }
        self.journal.begin_sweep();
        Ok(())
    }

    /// Takes an answer over from an earlier run, the oldest first.
    fn remember(&mut self, reply: &SeedReply) {
        if self.plant == Some(Plant::ForgottenReplies) {
            return;
        }
        self.journal.replies.keep(&record::Reply {
            topic: 0,
            code: reply.code,
            seq: reply.seq,
            session: reply.session,
            request_id: reply.request_id,
            node_ns: reply.node_ns,
            payload: &reply.payload,
        });
    }
}

/// Where EVENT has its topic id.
const TOPIC_ID: std::ops::Range<usize> = 8..12;
