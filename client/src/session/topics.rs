//! The topics that a session knows: by name, by the server's id, and by handle.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use tickring_protocol::{Policy, TopicName};

use super::sequence::Sequence;
use crate::RequestError;

/// A topic of one session, for publishing without looking its name up. Valid until
/// [`crate::Session::forget`]; also in notices, where it tells topics apart cheaply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicHandle {
    pub(crate) slot: u32,
    generation: u32,
}

impl TopicHandle {
    pub(crate) const NONE: Self = Self {
        slot: u32::MAX,
        generation: 0,
    };

    /// A small number, unique among the session's topics at any moment and used again after a
    /// topic was given up: good for indexing a table of one's own.
    #[must_use]
    pub const fn index(self) -> usize {
        self.slot as usize
    }
}

/// Names a topic: by its name or by a handle of it.
#[derive(Clone, Copy, Debug)]
pub enum TopicRef<'a> {
    /// `kind/name`.
    Name(&'a str),
    /// From [`crate::Session::topic`].
    Handle(TopicHandle),
}

impl<'a> From<&'a str> for TopicRef<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<&'a String> for TopicRef<'a> {
    fn from(name: &'a String) -> Self {
        Self::Name(name)
    }
}

impl From<TopicHandle> for TopicRef<'_> {
    fn from(handle: TopicHandle) -> Self {
        Self::Handle(handle)
    }
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    generation: u32,
    /// The server's id on this connection; 0: not known.
    pub(crate) id: u32,
    /// A handle is out, or it was published to by name: its id is worth keeping.
    pub(crate) pinned: bool,
    /// Commands that wait for a reply.
    pub(crate) in_flight: u32,
    /// A publish under way that asks for a reply to learn the id.
    pub(crate) learning: bool,
    pub(crate) subscription: Option<Subscription>,
    in_use: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    pub(crate) request_id: u64,
    pub(crate) policy: Policy,
    pub(crate) stage: Stage,
    pub(crate) sequence: Sequence,
    /// While a snapshot may come: a PONG to this PING or a later one shows that none does.
    pub(crate) settled_by: u64,
    /// SUBSCRIBED came on some earlier connection.
    pub(crate) held_before: bool,
    /// The request to give it up, made already; sent once SUBSCRIBED tells the id.
    pub(crate) leaving: Option<u64>,
    /// Asked for again before it was given up.
    pub(crate) again: Option<Again>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Again {
    pub(crate) request_id: u64,
    pub(crate) policy: Policy,
    pub(crate) sequence: Sequence,
}

/// How far a subscription is on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// To be asked for once connected.
    Wanted,
    /// SUBSCRIBE is under way.
    Asked,
    /// SUBSCRIBED came.
    Live,
}

/// Ids are the server's own numbering, so spreading them is all that a hash must do.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        let mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[derive(Debug)]
pub(crate) struct Topics {
    slots: Vec<Topic>,
    free: Vec<u32>,
    names: HashMap<Arc<str>, u32>,
    ids: HashMap<u32, u32, BuildHasherDefault<IdHasher>>,
    max: usize,
}

impl Topics {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            names: HashMap::new(),
            ids: HashMap::default(),
            max,
        }
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    pub(crate) fn by_id(&self, id: u32) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    pub(crate) fn get(&self, slot: u32) -> &Topic {
        &self.slots[slot as usize]
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut Topic {
        &mut self.slots[slot as usize]
    }

    pub(crate) fn handle(&self, slot: u32) -> TopicHandle {
        TopicHandle {
            slot,
            generation: self.get(slot).generation,
        }
    }

    /// The slot of a handle that is still valid.
    pub(crate) fn check(&self, handle: TopicHandle) -> Result<u32, RequestError> {
        match self.slots.get(handle.slot as usize) {
            Some(topic) if topic.in_use && topic.generation == handle.generation => Ok(handle.slot),
            _ => Err(RequestError::StaleHandle),
        }
    }

    /// The slot of a topic, which is known from here on.
    pub(crate) fn resolve(&mut self, topic: TopicRef<'_>) -> Result<u32, RequestError> {
        let name = match topic {
            TopicRef::Handle(handle) => return self.check(handle),
            TopicRef::Name(name) => name,
        };
        if let Some(slot) = self.by_name(name) {
            return Ok(slot);
        }
        TopicName::new(name)?;
        if self.names.len() >= self.max {
            return Err(RequestError::TooManyTopics { limit: self.max });
        }
        let name: Arc<str> = name.into();
        let fresh = |generation| Topic {
            name: name.clone(),
            generation,
            id: 0,
            pinned: false,
            in_flight: 0,
            learning: false,
            subscription: None,
            in_use: true,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                let old = &mut self.slots[slot as usize];
                *old = fresh(old.generation.wrapping_add(1));
                slot
            }
            None => {
                let slot = u32::try_from(self.slots.len())
                    .map_err(|_| RequestError::TooManyTopics { limit: self.max })?;
                self.slots.push(fresh(0));
                slot
            }
        };
        self.names.insert(name, slot);
        Ok(slot)
    }

    /// Notes the id that the server told for a topic; false when it contradicts another.
    pub(crate) fn learn(&mut self, slot: u32, id: u32) -> bool {
        let known = self.get(slot).id;
        if id == 0 || (known != 0 && known != id) || self.by_id(id).is_some_and(|s| s != slot) {
            return false;
        }
        self.ids.insert(id, slot);
        self.get_mut(slot).id = id;
        true
    }

    /// Ids belong to a connection: a server that restarted gives others.
    /// Returns the topics that were about to tell theirs.
    pub(crate) fn forget_ids(&mut self) -> Vec<u32> {
        self.ids.clear();
        let mut learning = Vec::new();
        for (slot, topic) in (0u32..).zip(&mut self.slots) {
            topic.id = 0;
            if std::mem::take(&mut topic.learning) {
                learning.push(slot);
            }
        }
        learning
    }

    /// Gives the slot up when nothing needs it.
    pub(crate) fn release(&mut self, slot: u32) {
        let topic = &mut self.slots[slot as usize];
        if !topic.in_use
            || topic.pinned
            || topic.learning
            || topic.in_flight > 0
            || topic.subscription.is_some()
        {
            return;
        }
        topic.in_use = false;
        self.names.remove(&topic.name);
        self.ids.remove(&topic.id);
        self.free.push(slot);
    }

    /// All slots that hold a subscription.
    pub(crate) fn subscribed(&self) -> impl Iterator<Item = u32> + use<> {
        let slots: Vec<u32> = (0u32..)
            .zip(&self.slots)
            .filter(|(_, topic)| topic.subscription.is_some())
            .map(|(slot, _)| slot)
            .collect();
        slots.into_iter()
    }
}
