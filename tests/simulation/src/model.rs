//! The truth that every observer is held against: what each topic's machine did, in the order of
//! its owner, recorded where it happened. A crash takes from it what the disk did not keep; see
//! [`crate::memory`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tickring::journal::ReplyWindow;
use tickring::machines::{
    self, Command, Derived, Durability, Kind, Machine, Market, NodeMachine, Outcome, Refusal,
    Registry, Stream, Unreadable, candle_view,
};
use tickring_protocol::{ErrorCode, EventKind, Policy};
use xxhash_rust::xxh3::xxh3_64;

/// The kind that shows views of markets.
pub(crate) const CANDLE: &str = "candle";
/// The kinds of [`Tally`]: in memory, volatile and durable.
pub(crate) const TALLY: &str = "tally";
pub(crate) const TAPE: &str = "tape";
pub(crate) const LEDGER: &str = "ledger";
/// A tally's command that makes as many events as the first byte says, modulo 4.
pub(crate) const TALLY_ADD: u16 = 100;
/// A tally's command that makes events and then refuses itself.
pub(crate) const TALLY_REFUSE: u16 = 101;
/// A tally's events and snapshots.
pub(crate) const TALLY_KIND: u16 = 0x8001;

/// One event, as its machine made it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) kind: u16,
    pub(crate) event_ns: u64,
    pub(crate) node_ns: u64,
    pub(crate) body: Box<[u8]>,
    /// The state behind it, as newcomers get it and as the journal does.
    pub(crate) state: Option<(u16, Box<[u8]>)>,
    pub(crate) saved: Option<Box<[u8]>>,
    /// What its views show then, by their number.
    pub(crate) views: Option<Box<Views>>,
    /// Names the command that made it.
    pub(crate) command: u64,
    /// Whether it is the last event of its command.
    pub(crate) ends: bool,
}

/// What the views of a topic show.
pub(crate) type Views = [Option<Box<[u8]>>; 4];

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Box<str>,
    pub(crate) id: Option<u32>,
    pub(crate) policy: Policy,
    pub(crate) durability: Durability,
    pub(crate) has_snapshots: bool,
    /// Whether it exists in this run of the node.
    pub(crate) live: bool,
    /// Names its numbering.
    pub(crate) epoch: u64,
    pub(crate) events: Vec<Record>,
    /// The first event that this run can still have.
    pub(crate) kept_from: u64,
    /// The newest seq that any client knows of.
    pub(crate) seen: u64,
    /// The newest seq that a recovery has found.
    pub(crate) floor: u64,
    /// Bytes of its EVENT frames.
    pub(crate) bytes: usize,
}

impl Topic {
    pub(crate) fn last_seq(&self) -> u64 {
        self.events.len() as u64
    }

    /// The newest seq that a newcomer must be told of.
    pub(crate) fn known(&self) -> u64 {
        match self.durability {
            Durability::Durable => self.seen,
            Durability::Volatile | Durability::Memory => self.last_seq(),
        }
    }

    /// Somebody learns that there is an event of this seq.
    pub(crate) fn see(&mut self, seq: u64) {
        self.seen = self.seen.max(seq);
    }

    pub(crate) fn event(&self, seq: u64) -> Option<&Record> {
        self.events.get(usize::try_from(seq).ok()?.checked_sub(1)?)
    }
}

/// What became of a command that reached its machine.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) topic: usize,
    pub(crate) code: ErrorCode,
    /// Of its newest event; 0: it has none.
    pub(crate) seq: u64,
    pub(crate) reply: Box<[u8]>,
    pub(crate) session: u128,
    pub(crate) node_ns: u64,
    /// In which run of the node.
    pub(crate) run: usize,
    /// Whether a client has its answer.
    pub(crate) told: bool,
}

/// All topics of the node, and what became of each command that reached its machine.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) topics: Vec<Topic>,
    pub(crate) by_name: BTreeMap<Box<str>, usize>,
    pub(crate) by_id: BTreeMap<u32, usize>,
    pub(crate) applied: BTreeMap<u64, Done>,
    pub(crate) refused: BTreeMap<u64, Done>,
    /// Earlier outcomes of commands that were done again when their answers were too old.
    pub(crate) outdated: BTreeMap<u64, Vec<Done>>,
    /// Commands applied in this run, in order: topic and command.
    pub(crate) order: Vec<(usize, u64)>,
    /// Request ids of the commands that were written as they are and want an answer: each is done
    /// once.
    pub(crate) asked: BTreeMap<u64, u64>,
    /// Those that were written more than once, and in which run first.
    pub(crate) repeated: BTreeMap<u64, usize>,
    /// How many commands of each session were done.
    pub(crate) sessions: BTreeMap<u128, usize>,
    /// Bytes that the answers to them would count, all told.
    pub(crate) answer_bytes: usize,
    /// Counts the runs of the node.
    pub(crate) run: usize,
    /// The epoch of this run, higher than those before.
    pub(crate) epoch: u64,
    /// Whether the node keeps a journal.
    pub(crate) journal: bool,
    /// For how long an answer is kept, in nanoseconds.
    pub(crate) window_ns: u64,
    /// Pages that were read, by socket and request id.
    pub(crate) pages: BTreeMap<(usize, u64), Vec<Vec<u8>>>,
    /// Reads that the database did not answer.
    pub(crate) unread: BTreeSet<(usize, u64)>,
    /// Whether a core had as many reads open as it may.
    pub(crate) reads_full: bool,
    /// What a machine has seen that must not be.
    pub(crate) broken: Option<String>,
    /// Bytes of the events made at one time, and when.
    turn: (u64, usize),
    /// The most bytes of events that one moment saw.
    pub(crate) largest_turn: usize,
    /// The most bytes that one turn of a core released.
    pub(crate) largest_release: usize,
}

impl Model {
    /// The topic of this name, if it exists in this run.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let topic = self.by_name.get(name).copied()?;
        self.topics[topic].live.then_some(topic)
    }

    /// The most bytes of events that one turn of a core can have handed out.
    pub(crate) fn most_of_a_turn(&self) -> usize {
        self.largest_turn + self.largest_release
    }

    /// How many topics exist in this run.
    pub(crate) fn live_topics(&self) -> usize {
        self.topics.iter().filter(|topic| topic.live).count()
    }

    /// Remembers the first thing that must not be.
    pub(crate) fn break_rule(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub(crate) fn by_id(&self, id: u32) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// Learns that `name` has this id; fails if it ever had another, or the id another name.
    pub(crate) fn learn_id(&mut self, topic: usize, id: u32) -> Result<(), String> {
        let before = *self.topics[topic].id.get_or_insert(id);
        let owner = *self.by_id.entry(id).or_insert(topic);
        if before == id && owner == topic {
            return Ok(());
        }
        Err(format!(
            "topic ids are not one to one: {} had {before}, now {id}, which is that of {}",
            self.topics[topic].name, self.topics[owner].name
        ))
    }

    /// A derived topic that somebody subscribes to shows what its view shows, once all is at rest.
    pub(crate) fn hold_shown(&self, topic: usize) -> Result<(), String> {
        let topic = &self.topics[topic];
        let Some(rest) = topic.name.strip_prefix("candle/") else {
            return Ok(());
        };
        let (view, instrument) = candle_view(rest).map_err(|refusal| refusal.to_string())?;
        let source = self.find(&format!("market/{instrument}"));
        let views = source.and_then(|t| self.topics[t].events.last()?.views.as_deref());
        let newest = views.and_then(|views| views[usize::from(view)].as_deref());
        let shown = topic.events.last().map(|event| &*event.body);
        match shown == newest {
            true => Ok(()),
            false => Err(format!("{} shows {shown:?} and not {newest:?}", topic.name)),
        }
    }

    /// A machine has carried out a command, or refused it.
    fn note(&mut self, command: u64, done: Done) {
        let before = self.applied.get(&command).or(self.refused.get(&command));
        if let Some(before) = before
            && let Some(request_id) = self.asked.get(&command)
            && done.node_ns - before.node_ns <= self.window_ns
        {
            let what = format!(
                "command {request_id} of {} that was done as {before:?} is done again",
                self.topics[done.topic].name
            );
            self.break_rule(what);
        }
        let count = self.sessions.entry(done.session).or_default();
        let session = if *count == 0 { ReplyWindow::SESSION } else { 0 };
        *count += 1;
        self.answer_bytes += session + ReplyWindow::OVERHEAD + done.reply.len();
        let kind = match done.code {
            ErrorCode::Ok => &mut self.applied,
            _ => &mut self.refused,
        };
        if let Some(before) = kind.insert(command, done) {
            self.outdated.entry(command).or_default().push(before);
        }
    }

    fn made(&mut self, topic: usize, command: &Command<'_>, out: &Outcome, machine: &dyn Machine) {
        let id = identity(command.code, command.payload);
        let node_ns = command.now_ns;
        let mut state = Vec::new();
        let kind = machine.snapshot(&mut state);
        let journaled = self.topics[topic].durability != Durability::Memory;
        if self.turn.0 != node_ns {
            self.turn = (node_ns, 0);
        }
        let count = out.events().len();
        for (place, (event_kind, event_ns, body)) in out.events().enumerate() {
            self.turn.1 += 40 + body.len();
            let it = &mut self.topics[topic];
            it.bytes += 40 + body.len();
            // A snapshot between the events of one command cannot be asked for.
            let last = place + 1 == count;
            let state = kind.filter(|_| last).map(|k| (k, state.as_slice().into()));
            it.events.push(Record {
                kind: event_kind,
                event_ns,
                node_ns,
                body: body.into(),
                state,
                saved: (last && journaled).then(|| saved(machine)),
                views: last.then(|| views(machine)).flatten(),
                command: id,
                ends: last,
            });
        }
        self.largest_turn = self.largest_turn.max(self.turn.1);
        let newest = if count == 0 {
            0
        } else {
            self.topics[topic].last_seq()
        };
        let done = Done {
            topic,
            code: ErrorCode::Ok,
            seq: newest,
            reply: out.answer().into(),
            session: command.session,
            node_ns,
            run: self.run,
            told: false,
        };
        self.note(id, done);
        self.order.push((topic, id));
    }
}

fn views(machine: &dyn Machine) -> Option<Box<Views>> {
    let mut views = Views::default();
    for (view, shown) in views.iter_mut().enumerate() {
        let mut body = Vec::new();
        *shown = machine.view(view as u8, &mut body).map(|_| body.into());
    }
    views.iter().any(Option::is_some).then(|| Box::new(views))
}

fn saved(machine: &dyn Machine) -> Box<[u8]> {
    let mut state = Vec::new();
    machine.save(&mut state);
    state.into()
}

/// Names a command by its content: payloads carry a number that no other has.
pub(crate) fn identity(code: u16, payload: &[u8]) -> u64 {
    xxh3_64(payload) ^ u64::from(code)
}

/// The model, as the machines on all cores share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedModel(Arc<Mutex<Model>>);

impl SharedModel {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kinds of a simulated node: each machine is recorded. `recovering`: they are for
    /// machines that are made of what the journal holds.
    pub(crate) fn registry(&self, recovering: bool) -> Registry {
        let mut registry = Registry::empty();
        for (name, policy, durability, make) in KINDS {
            let kind = self.kind(name, policy, (durability, recovering), make);
            registry.register(match name {
                CANDLE => kind.derived_from("market", candle_view),
                _ => kind.with_durability(durability),
            });
        }
        registry
    }

    fn kind(
        &self,
        kind: &'static str,
        policy: Policy,
        (durability, recovering): (Durability, bool),
        make: fn() -> Box<dyn Machine>,
    ) -> Kind {
        let model = self.clone();
        Kind::new(kind, policy, move |name| {
            let machine = make();
            let mut it = model.lock();
            let name: Box<str> = format!("{kind}/{name}").into();
            let topic = match it.by_name.get(&name) {
                Some(topic) => *topic,
                None => {
                    let has_snapshots = machine.snapshot(&mut Vec::new()).is_some();
                    it.learn(name, policy, durability, has_snapshots)
                }
            };
            if !recovering {
                it.begin(topic);
            }
            Box::new(Recorded {
                machine,
                topic,
                model: model.clone(),
                unchecked: false,
            })
        })
    }
}

type Make = fn() -> Box<dyn Machine>;

const KINDS: [(&str, Policy, Durability, Make); 8] = [
    (CANDLE, Policy::Conflate, Durability::Memory, || {
        Box::new(Derived::new(EventKind::Candle as u16))
    }),
    ("stream", Policy::Resume, Durability::Memory, || {
        Box::new(Stream)
    }),
    ("log", Policy::Resume, Durability::Durable, || {
        Box::new(Stream)
    }),
    ("market", Policy::Conflate, Durability::Volatile, || {
        Box::<Market>::default()
    }),
    ("node", Policy::Conflate, Durability::Memory, || {
        Box::new(NodeMachine)
    }),
    (TALLY, Policy::Resume, Durability::Memory, || {
        Box::<Tally>::default()
    }),
    (TAPE, Policy::Conflate, Durability::Volatile, || {
        Box::<Tally>::default()
    }),
    (LEDGER, Policy::Resume, Durability::Durable, || {
        Box::<Tally>::default()
    }),
];

impl Model {
    fn learn(
        &mut self,
        name: Box<str>,
        policy: Policy,
        durability: Durability,
        has_snapshots: bool,
    ) -> usize {
        let topic = self.topics.len();
        self.by_name.insert(name.clone(), topic);
        self.topics.push(Topic {
            name,
            id: None,
            policy,
            durability: if self.journal {
                durability
            } else {
                Durability::Memory
            },
            has_snapshots,
            live: false,
            epoch: 0,
            events: Vec::new(),
            kept_from: 1,
            seen: 0,
            floor: 0,
            bytes: 0,
        });
        topic
    }

    /// A topic begins anew in this run.
    fn begin(&mut self, topic: usize) {
        let epoch = self.epoch;
        let it = &mut self.topics[topic];
        let twice = it.live;
        let lost = it.durability == Durability::Durable && it.seen > 0;
        (it.live, it.epoch) = (true, epoch);
        if twice || lost {
            let what = format!("{} begins anew, and it was there", it.name);
            self.break_rule(what);
        }
    }
}

struct Recorded {
    machine: Box<dyn Machine>,
    topic: usize,
    model: SharedModel,
    /// Whether its state comes from the journal and was not compared yet.
    unchecked: bool,
}

impl Recorded {
    /// The state that the journal gave is the one behind the newest event that is left.
    fn check_state(&mut self) {
        if !std::mem::take(&mut self.unchecked) {
            return;
        }
        let mut model = self.model.lock();
        let topic = &model.topics[self.topic];
        let newest = topic.events.last().and_then(|e| e.saved.as_deref());
        if newest.is_some_and(|newest| *newest != *saved(&*self.machine)) {
            let what = format!("{} was recovered with another state", topic.name);
            model.break_rule(what);
        }
    }
}

impl Machine for Recorded {
    fn apply(&mut self, command: &Command<'_>, out: &mut Outcome) -> Result<(), Refusal> {
        self.check_state();
        let result = self.machine.apply(command, out);
        let mut model = self.model.lock();
        match &result {
            Ok(()) => model.made(self.topic, command, out, &*self.machine),
            Err(refusal) => {
                let id = identity(command.code, command.payload);
                let done = Done {
                    topic: self.topic,
                    code: refusal.code,
                    seq: 0,
                    reply: refusal.text.as_bytes().into(),
                    session: command.session,
                    node_ns: command.now_ns,
                    run: model.run,
                    told: false,
                };
                model.note(id, done);
            }
        }
        result
    }

    fn snapshot(&self, out: &mut Vec<u8>) -> Option<u16> {
        self.machine.snapshot(out)
    }

    fn view(&self, view: u8, out: &mut Vec<u8>) -> Option<(u16, u64)> {
        self.machine.view(view, out)
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.machine.save(out);
    }

    fn load(&mut self, state: &[u8]) -> Result<(), Unreadable> {
        self.unchecked = true;
        self.machine.load(state)
    }

    fn replay(&mut self, event: &machines::Recorded<'_>) -> Result<(), Unreadable> {
        self.unchecked = true;
        let mut model = self.model.lock();
        let topic = &model.topics[self.topic];
        let same = topic.event(event.seq).is_some_and(|known| {
            (known.kind, known.event_ns, known.node_ns, &*known.body)
                == (event.kind, event.event_ns, event.node_ns, event.body)
        });
        if !same {
            let what = format!("{} #{} was another event", topic.name, event.seq);
            model.break_rule(what);
        }
        drop(model);
        self.machine.replay(event)
    }
}

/// A machine of an embedder: makes 0 to 3 events a command, and its state is how many there were
/// and a hash over all of them.
#[derive(Default)]
struct Tally {
    count: u64,
    hash: u64,
}

impl Machine for Tally {
    fn apply(&mut self, command: &Command<'_>, out: &mut Outcome) -> Result<(), Refusal> {
        let Some((&first, body)) = command.payload.split_first() else {
            return Err(Refusal::new(
                ErrorCode::BadCommand,
                "a tally's command has a first byte",
            ));
        };
        match command.code {
            TALLY_ADD => {}
            TALLY_REFUSE => {
                out.event(TALLY_KIND, command.now_ns, b"never seen");
                return Err(Refusal::new(ErrorCode::OutOfRange, "refused by wish"));
            }
            _ => {
                return Err(Refusal::new(
                    ErrorCode::UnknownCommand,
                    "a tally knows 100 and 101",
                ));
            }
        }
        for _ in 0..first % 4 {
            out.event(TALLY_KIND, command.now_ns, body);
            self.count += 1;
            self.hash = fold(self.hash, body);
        }
        out.reply(&self.count.to_le_bytes());
        Ok(())
    }

    fn snapshot(&self, out: &mut Vec<u8>) -> Option<u16> {
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.hash.to_le_bytes());
        Some(TALLY_KIND)
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.snapshot(out);
    }

    fn load(&mut self, state: &[u8]) -> Result<(), Unreadable> {
        let half = |at: usize| Some(u64::from_le_bytes(*state.get(at..)?.first_chunk()?));
        let halves = half(0).zip(half(8));
        (self.count, self.hash) = halves.ok_or_else(|| Unreadable::new("a tally has 16 bytes"))?;
        Ok(())
    }

    fn replay(&mut self, event: &machines::Recorded<'_>) -> Result<(), Unreadable> {
        self.count += 1;
        self.hash = fold(self.hash, event.body);
        Ok(())
    }
}

fn fold(hash: u64, body: &[u8]) -> u64 {
    hash.rotate_left(7) ^ xxh3_64(body)
}

/// Whether a kind of this name is registered.
pub(crate) fn is_kind(kind: &str) -> bool {
    KINDS.iter().any(|(name, ..)| *name == kind)
}

/// Whether topics of this kind need a journal.
pub(crate) fn is_durable(kind: &str) -> bool {
    let durable = |(name, _, durability, _): &(&str, _, Durability, Make)| {
        *name == kind && *durability == Durability::Durable
    };
    KINDS.iter().any(durable)
}
