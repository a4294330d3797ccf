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

mod derived;
mod market;
mod node;
mod stream;

use std::borrow::Cow;
use std::sync::Arc;

use tickring_protocol::{BodyError, ErrorCode, EventKind, Policy, Publish};

use crate::market::Calendars;

pub use derived::Derived;
pub use market::{Market, candle_view};
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
    /// [`EventKind`] as a number, or one from 0x8000 on); `None`
    /// when there is no state but the events themselves.
    fn snapshot(&self, out: &mut Vec<u8>) -> Option<u16>;

    /// Appends the body of what one of the machine's views shows now, and gives its layout and event
    /// time; `None` while there is nothing to show. A view is a part of the state that has topics
    /// of its own, those of a kind that is [derived](Kind::derived_from) from this machine's. The
    /// machine tells with [`Outcome::changed`] that a view has another content.
    fn view(&self, _view: u8, _out: &mut Vec<u8>) -> Option<(u16, u64)> {
        None
    }

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
    views: Views,
}

#[derive(Debug)]
struct Pending {
    kind: u16,
    event_ns: u64,
    end: usize,
}

/// What becomes of a machine's views. Sets have a bit for each view.
#[derive(Debug, Default)]
struct Views {
    /// Those that somebody looks at.
    watched: u32,
    /// Those that have changed since their last event.
    unseen: u32,
    /// PUBLISH payloads, each with its view and its end.
    payloads: Vec<u8>,
    events: Vec<(u8, usize)>,
}

/// Views that a machine may have.
pub const MAX_VIEWS: u8 = 32;

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

    /// The content of a view is another now. Whoever looks at it gets that content
    /// ([`Machine::view`]) once, at the end of the turn, however often it changed in the turn.
    pub fn changed(&mut self, view: u8) {
        self.views.unseen |= self.views.watched & bit(view);
    }

    /// Whether somebody looks at a view, and has not been given its newest content yet. A machine
    /// that is about to put something else in its place gives it out first, with
    /// [`Outcome::view_event`].
    pub fn is_unseen(&self, view: u8) -> bool {
        self.views.unseen & bit(view) != 0
    }

    /// Appends an event to the topics of a view, at once and besides those that come of
    /// [`Outcome::changed`]; `write` appends its body. Nothing if nobody looks at the view.
    /// Newcomers start from a topic's newest event, so what is not the newest content is to be
    /// followed by a change.
    pub fn view_event(
        &mut self,
        view: u8,
        kind: u16,
        event_ns: u64,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let views = &mut self.views;
        if views.watched & bit(view) != 0 {
            let head = Publish {
                kind,
                event_ns,
                body: &[],
            };
            head.encode(&mut views.payloads);
            write(&mut views.payloads);
            views.events.push((view, views.payloads.len()));
        }
    }

    /// Begins a command: which views somebody looks at, and which of them have changed since
    /// their last event.
    pub(crate) fn begin(&mut self, watched: u32, unseen: u32) {
        self.clear();
        (self.views.watched, self.views.unseen) = (watched, unseen);
    }

    /// The views that have changed since their last event.
    pub(crate) fn unseen(&self) -> u32 {
        self.views.unseen
    }

    /// The events of views: view and PUBLISH payload.
    pub(crate) fn view_events(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut start = 0;
        self.views.events.iter().map(move |&(view, end)| {
            let payload = &self.views.payloads[start..end];
            start = end;
            (view, payload)
        })
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
        self.views.payloads.clear();
        self.views.events.clear();
        (self.views.watched, self.views.unseen) = (0, 0);
    }
}

/// The place of a view in a set.
pub(crate) fn bit(view: u8) -> u32 {
    debug_assert!(view < MAX_VIEWS, "a machine has at most MAX_VIEWS views");
    1 << (view % MAX_VIEWS)
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
    source: Option<(&'static str, SourceOf)>,
}

type Create = Box<dyn Fn(&str) -> Box<dyn Machine> + Send + Sync>;

/// Tells of a derived topic, by the part of its name behind the slash, which view of which topic
/// it shows: the view, and the part of that topic's name behind the slash.
pub type SourceOf = fn(&str) -> Result<(u8, &str), Refusal>;

/// What a derived topic shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source<'a> {
    pub(crate) kind: &'static str,
    pub(crate) name: &'a str,
    pub(crate) view: u8,
}

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
            source: None,
        }
    }

    /// The same kind, derived from another: its topics show views of topics of the kind `source`,
    /// as `source_of` tells. Such a topic lives on the core that owns its source, and costs nothing
    /// while nobody subscribes to it. What the view shows comes to its machine as a command of the
    /// node itself, with the payload of a PUBLISH; [`Derived`] hands it on. Its events are in memory
    /// only, because they can be made again; its source must not be durable, because nobody may
    /// see anything of that before it is on disk.
    #[must_use]
    pub fn derived_from(mut self, source: &'static str, source_of: SourceOf) -> Self {
        self.source = Some((source, source_of));
        self
    }

    /// What the topic shows whose name behind the slash is `name`; `None` unless it is derived.
    pub(crate) fn source<'a>(&self, name: &'a str) -> Option<Result<Source<'a>, Refusal>> {
        let (kind, source_of) = self.source?;
        Some(source_of(name).map(|(view, name)| Source { kind, name, view }))
    }

    /// The same kind with another durability than [`Durability::Memory`].
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    pub(crate) fn is_derived(&self) -> bool {
        self.source.is_some()
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
    /// (volatile), `candle` (derived from `market`), and `node` for its own figures.
    ///
    /// Every instrument of a market trades around the clock; [`Registry::with_calendars`] is told.
    pub fn standard() -> Self {
        Self::with_calendars(Calendars::built_in())
    }

    /// As [`Registry::standard`], with instruments that trade by these calendars.
    pub fn with_calendars(calendars: Arc<Calendars>) -> Self {
        let mut registry = Self::empty();
        registry.register(Kind::new("stream", Policy::Resume, |_| Box::new(Stream)));
        let log = Kind::new("log", Policy::Resume, |_| Box::new(Stream));
        registry.register(log.with_durability(Durability::Durable));
        let market = Kind::new("market", Policy::Conflate, move |name| {
            Box::new(Market::new(Arc::clone(calendars.of(name))))
        });
        registry.register(market.with_durability(Durability::Volatile));
        let candle = Kind::new("candle", Policy::Conflate, |_| {
            Box::new(Derived::new(EventKind::Candle as u16))
        });
        registry.register(candle.derived_from("market", candle_view));
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

    /// What the topic called `name` shows, if it is a derived one. On the road of commands that
    /// name their topic, so it looks at as little as it can.
    pub(crate) fn source<'a>(&self, name: &'a str) -> Option<Source<'a>> {
        let of_kind = |kind: &Kind| {
            let rest = name.strip_prefix(kind.name)?.strip_prefix('/')?;
            kind.source(rest)?.ok()
        };
        let mut derived = self.kinds.iter().filter(|kind| kind.is_derived());
        derived.find_map(of_kind)
    }
}
