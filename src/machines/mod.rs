//! Machines: the deterministic state machines behind topics, one file each.
//!
//! A machine turns a command into events; it knows no core, no socket, no clock. To add one,
//! implement [`Machine`], and register its kind:
//!
//! ```
//! use tickring::machines::{
//!     Command, Durability, Kind, Machine, Outcome, Recorded, Refusal, Registry, Unreadable,
//! };
//! use tickring_protocol::{ErrorCode, EventKind, Policy};
//!
//! /// Counts; every command adds one and tells the new count.
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! impl Machine for Counter {
//!     fn apply(&mut self, command: &Command<'_>, out: &mut Outcome) -> Result<(), Refusal> {
//!         if command.code != 100 {
//!             return Err(Refusal::new(ErrorCode::UnknownCommand, "a counter only knows 100"));
//!         }
//!         self.0 += 1;
//!         out.event(EventKind::Message as u16, command.now_ns, &self.0.to_le_bytes());
//!         Ok(())
//!     }
//!
//!     fn snapshot(&self, out: &mut Vec<u8>) -> Option<u16> {
//!         out.extend_from_slice(&self.0.to_le_bytes());
//!         Some(EventKind::Message as u16)
//!     }
//!
//!     fn save(&self, out: &mut Vec<u8>) {
//!         out.extend_from_slice(&self.0.to_le_bytes());
//!     }
//!
//!     fn load(&mut self, state: &[u8]) -> Result<(), Unreadable> {
//!         let bytes = state.try_into().map_err(|_| Unreadable::new("a count has 8 bytes"))?;
//!         self.0 = u64::from_le_bytes(bytes);
//!         Ok(())
//!     }
//!
//!     fn replay(&mut self, event: &Recorded<'_>) -> Result<(), Unreadable> {
//!         self.load(event.body)
//!     }
//! }
//!
//! let counter = Kind::new("counter", Policy::Resume, |_name| Box::<Counter>::default());
//! let mut registry = Registry::standard();
//! registry.register(counter.with_durability(Durability::Durable));
//! ```

mod market;
mod node;
mod stream;

use std::borrow::Cow;

use tickring_protocol::{BodyError, ErrorCode, Policy};

pub use market::Market;
pub use node::NodeMachine;
pub use stream::Stream;

/// A topic's state machine. Deterministic: the same commands in the same order give the same
/// events and the same state, on every machine and every run.
pub trait Machine: Send {
    /// Applies one command: appends its events, and optionally an answer, to `out`.
    ///
    /// # Errors
    /// A [`Refusal`] reaches the sender. The machine must then be as if the command had never
    /// come; events that it had already given to `out` are thrown away.
    fn apply(&mut self, command: &Command<'_>, out: &mut Outcome) -> Result<(), Refusal>;

    /// Appends the state that a newcomer needs to `out` and returns the layout of its body (an
    /// [`EventKind`](tickring_protocol::EventKind) as a number, or one from 0x8000 on); `None`
    /// when there is no state but the events themselves.
    fn snapshot(&self, out: &mut Vec<u8>) -> Option<u16>;

    /// Appends all of the state, for the journal: what [`Machine::load`] makes the same machine
    /// of again. At most 16 MiB.
    fn save(&self, out: &mut Vec<u8>);

    /// Makes a new machine one with this state.
    ///
    /// # Errors
    /// [`Unreadable`]: the server then does not start, rather than forget what it knew.
    fn load(&mut self, state: &[u8]) -> Result<(), Unreadable>;

    /// Brings the state from before an event of this machine to the one behind it.
    ///
    /// # Errors
    /// As [`Machine::load`].
    fn replay(&mut self, event: &Recorded<'_>) -> Result<(), Unreadable>;
}

/// An event as the journal holds it.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// Its number in the topic.
    pub seq: u64,
    /// The layout of its body.
    pub kind: u16,
    /// The session whose command made it.
    pub session: u128,
    /// When it happened, in nanoseconds since 1970-01-01 UTC.
    pub event_ns: u64,
    /// When the node took it, in nanoseconds since 1970-01-01 UTC.
    pub node_ns: u64,
    /// Its content.
    pub body: &'a [u8],
}

/// A state or an event of the journal that a machine cannot read: another version wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(Cow<'static, str>);

impl Unreadable {
    /// What is wrong, for people.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }
}

impl From<BodyError> for Unreadable {
    fn from(error: BodyError) -> Self {
        Self(error.to_string().into())
    }
}

/// What becomes of a topic's events when the server ends, by its kind. Without a journal every
/// topic is kept in [memory](Self::Memory), and [durable](Self::Durable) kinds are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// They are gone.
    #[default]
    Memory,
    /// They go out at once and are journaled behind: a crash can lose the last moments, and the
    /// topic's epoch then says so.
    Volatile,
    /// Nobody sees an event, or the answer to a command, before the journal has it on disk.
    Durable,
}

/// What a machine is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Which command; [`tickring_protocol::PUBLISH`] or one of the machine's own.
    pub code: u16,
    /// Its content, as the machine lays it out.
    pub payload: &'a [u8],
    /// The session that sent it.
    pub session: u128,
    /// The node's time, in nanoseconds since 1970-01-01 UTC.
    pub now_ns: u64,
    /// Whether the node itself sent it, rather than a client.
    pub internal: bool,
}

/// Collects what one command gives: events in order, and an answer.
#[derive(Debug, Default)]
pub struct Outcome {
    bytes: Vec<u8>,
    events: Vec<Pending>,
    reply: Vec<u8>,
}

#[derive(Debug)]
struct Pending {
    kind: u16,
    event_ns: u64,
    end: usize,
}

impl Outcome {
    /// Appends an event: the layout of its body, when it happened (nanoseconds since 1970-01-01
    /// UTC), and the body.
    pub fn event(&mut self, kind: u16, event_ns: u64, body: &[u8]) {
        self.event_with(kind, event_ns, |out| out.extend_from_slice(body));
    }

    /// Appends an event whose body `write` appends to the vector it is given.
    pub fn event_with(&mut self, kind: u16, event_ns: u64, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.events.push(Pending {
            kind,
            event_ns,
            end: self.bytes.len(),
        });
    }

    /// Appends to the answer that the sender gets in REPLY.
    pub fn reply(&mut self, bytes: &[u8]) {
        self.reply.extend_from_slice(bytes);
    }

    /// The events so far: kind, event time, body.
    pub fn events(&self) -> impl ExactSizeIterator<Item = (u16, u64, &[u8])> {
        let mut start = 0;
        self.events.iter().map(move |e| {
            let body = &self.bytes[start..e.end];
            start = e.end;
            (e.kind, e.event_ns, body)
        })
    }

    /// The answer so far.
    pub fn answer(&self) -> &[u8] {
        &self.reply
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.events.clear();
        self.reply.clear();
    }
}

/// Why a machine refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Refusal {
    /// The code that the sender gets.
    pub code: ErrorCode,
    /// What to do about it, for people.
    pub text: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with a code and a text for people.
    pub fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let text: Cow<'static, str> = match error {
            BodyError::Length => "the body has another length than its kind's layout".into(),
            other => other.to_string().into(),
        };
        Self::new(error.code(), text)
    }
}

/// A kind of topic: the part of its name before the slash, and how to make its machine.
pub struct Kind {
    name: &'static str,
    policy: Policy,
    durability: Durability,
    create: Create,
}

type Create = Box<dyn Fn(&str) -> Box<dyn Machine> + Send + Sync>;

impl Kind {
    /// A kind called `name` whose subscribers have `policy` when they ask for none; `create`
    /// makes the machine of a topic from the part of its name behind the slash.
    ///
    /// # Panics
    /// When `policy` is [`Policy::Default`], which would mean itself.
    pub fn new(
        name: &'static str,
        policy: Policy,
        create: impl Fn(&str) -> Box<dyn Machine> + Send + Sync + 'static,
    ) -> Self {
        assert!(
            policy != Policy::Default,
            "a kind names the policy that Default stands for"
        );
        Self {
            name,
            policy,
            durability: Durability::Memory,
            create: Box::new(create),
        }
    }

    /// The same kind with another durability than [`Durability::Memory`].
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// What becomes of its events when the server ends.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The kind's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The policy of subscribers that ask for none.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Makes a topic's machine; `name` is the part behind the slash.
    pub fn create(&self, name: &str) -> Box<dyn Machine> {
        (self.create)(name)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kind")
            .field("name", &self.name)
            .field("policy", &self.policy)
            .field("durability", &self.durability)
            .finish()
    }
}

/// The kinds of topics that a node knows.
#[derive(Debug, Default)]
pub struct Registry {
    kinds: Vec<Kind>,
}

impl Registry {
    /// No kinds.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The kinds that tickring brings along: `stream` (in memory), `log` (durable), `market`
    /// (volatile), and `node` for its own figures.
    pub fn standard() -> Self {
        let mut registry = Self::empty();
        registry.register(Kind::new("stream", Policy::Resume, |_| Box::new(Stream)));
        let log = Kind::new("log", Policy::Resume, |_| Box::new(Stream));
        registry.register(log.with_durability(Durability::Durable));
        let market = Kind::new("market", Policy::Conflate, |_| Box::<Market>::default());
        registry.register(market.with_durability(Durability::Volatile));
        registry.register(Kind::new("node", Policy::Conflate, |_| {
            Box::new(NodeMachine)
        }));
        registry
    }

    /// Adds a kind; one of the same name is replaced.
    pub fn register(&mut self, kind: Kind) {
        self.kinds.retain(|k| k.name != kind.name);
        self.kinds.push(kind);
    }

    /// The kind called `name`.
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|k| k.name == name)
    }
}
