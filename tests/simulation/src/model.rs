//! The truth that every observer is held against: what each topic's machine did, in the order of
//! its owner, recorded where it happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tickring::machines::{
    self, Command, Derived, Kind, Machine, Market, NodeMachine, Outcome, Refusal, Registry, Stream,
    Unreadable, candle_view,
};
use tickring_protocol::{ErrorCode, EventKind, Policy};
use xxhash_rust::xxh3::xxh3_64;

/// The kind that shows views of markets.
pub(crate) const CANDLE: &str = "candle";
/// The kind of [`Tally`].
pub(crate) const TALLY: &str = "tally";
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
    /// The state behind it.
    pub(crate) state: Option<(u16, Box<[u8]>)>,
    /// Names the command that made it.
    pub(crate) command: u64,
}

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Box<str>,
    pub(crate) id: Option<u32>,
    pub(crate) policy: Policy,
    pub(crate) has_snapshots: bool,
    pub(crate) events: Vec<Record>,
    /// Bytes of its EVENT frames.
    pub(crate) bytes: usize,
    /// What its machine's views show now, by their number.
    views: [Option<Box<[u8]>>; 4],
}

impl Topic {
    pub(crate) fn last_seq(&self) -> u64 {
        self.events.len() as u64
    }

    pub(crate) fn event(&self, seq: u64) -> Option<&Record> {
        self.events.get(usize::try_from(seq).ok()?.checked_sub(1)?)
    }
}

/// All topics of the node, and what became of each command that reached its machine.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) topics: Vec<Topic>,
    by_name: BTreeMap<Box<str>, usize>,
    by_id: BTreeMap<u32, usize>,
    /// Topic and newest seq (0: no event) of each applied command.
    pub(crate) applied: BTreeMap<u64, (usize, u64)>,
    pub(crate) refused: BTreeMap<u64, ErrorCode>,
    /// Commands applied in order: topic and command.
    pub(crate) order: Vec<(usize, u64)>,
    /// Bytes of the events made at one time, and when.
    turn: (u64, usize),
    /// The most bytes of events that one moment saw.
    pub(crate) largest_turn: usize,
}

impl Model {
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
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
        let newest = source.and_then(|t| self.topics[t].views[usize::from(view)].as_deref());
        let shown = topic.events.last().map(|event| &*event.body);
        match shown == newest {
            true => Ok(()),
            false => Err(format!("{} shows {shown:?} and not {newest:?}", topic.name)),
        }
    }

    fn made(&mut self, topic: usize, command: &Command<'_>, out: &Outcome, machine: &dyn Machine) {
        let id = identity(command.code, command.payload);
        let node_ns = command.now_ns;
        let mut state = Vec::new();
        let kind = machine.snapshot(&mut state);
        if self.turn.0 != node_ns {
            self.turn = (node_ns, 0);
        }
        for (view, shown) in self.topics[topic].views.iter_mut().enumerate() {
            let mut body = Vec::new();
            *shown = machine.view(view as u8, &mut body).map(|_| body.into());
        }
        let count = out.events().len();
        for (place, (event_kind, event_ns, body)) in out.events().enumerate() {
            self.turn.1 += 40 + body.len();
            let it = &mut self.topics[topic];
            it.bytes += 40 + body.len();
            // A snapshot between the events of one command cannot be asked for.
            let state = kind
                .filter(|_| place + 1 == count)
                .map(|k| (k, state.as_slice().into()));
            it.events.push(Record {
                kind: event_kind,
                event_ns,
                node_ns,
                body: body.into(),
                state,
                command: id,
            });
        }
        self.largest_turn = self.largest_turn.max(self.turn.1);
        let newest = if count == 0 {
            0
        } else {
            self.topics[topic].last_seq()
        };
        self.applied.insert(id, (topic, newest));
        self.order.push((topic, id));
    }
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

    /// The kinds of a simulated node: each machine is recorded.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::empty();
        registry.register(self.kind("stream", Policy::Resume, || Box::new(Stream)));
        registry.register(self.kind("market", Policy::Conflate, || Box::<Market>::default()));
        let candle = || -> Box<dyn Machine> { Box::new(Derived::new(EventKind::Candle as u16)) };
        let candle = self.kind(CANDLE, Policy::Conflate, candle);
        registry.register(candle.derived_from("market", candle_view));
        registry.register(self.kind("node", Policy::Conflate, || Box::new(NodeMachine)));
        registry.register(self.kind(TALLY, Policy::Resume, || Box::<Tally>::default()));
        registry
    }

    fn kind(&self, kind: &'static str, policy: Policy, make: fn() -> Box<dyn Machine>) -> Kind {
        let model = self.clone();
        Kind::new(kind, policy, move |name| {
            let machine = make();
            let mut it = model.lock();
            let topic = it.topics.len();
            let name: Box<str> = format!("{kind}/{name}").into();
            it.by_name.insert(name.clone(), topic);
            it.topics.push(Topic {
                name,
                id: None,
                policy,
                has_snapshots: machine.snapshot(&mut Vec::new()).is_some(),
                events: Vec::new(),
                bytes: 0,
                views: Default::default(),
            });
            Box::new(Recorded {
                machine,
                topic,
                model: model.clone(),
            })
        })
    }
}

struct Recorded {
    machine: Box<dyn Machine>,
    topic: usize,
    model: SharedModel,
}

impl Machine for Recorded {
    fn apply(&mut self, command: &Command<'_>, out: &mut Outcome) -> Result<(), Refusal> {
        let result = self.machine.apply(command, out);
        let mut model = self.model.lock();
        match &result {
            Ok(()) => model.made(self.topic, command, out, &*self.machine),
            Err(refusal) => {
                let id = identity(command.code, command.payload);
                model.refused.insert(id, refusal.code);
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
        self.machine.load(state)
    }

    fn replay(&mut self, event: &machines::Recorded<'_>) -> Result<(), Unreadable> {
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
    matches!(kind, "stream" | "market" | "node" | CANDLE | TALLY)
}
