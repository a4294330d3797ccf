//! The topics that one core owns, by name and by id.

use std::collections::BTreeMap;
use std::sync::Arc;

use tickring_protocol::{ErrorCode, TopicName};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Identity, Past, Source, Topic};
use crate::journal::lane_of;
use crate::machines::{self, Durability, Kind, MAX_VIEWS, Refusal, Registry};

/// How topics and their ids are spread over the cores.
///
/// A topic's owner is a stable hash of its name; its id tells its owner and its place there, so
/// that no table has to be shared. The node's own topics `node/core-N` belong to the core they
/// speak of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    pub(crate) cores: usize,
}

impl Ids {
    /// The core that owns the topic called `name`, unless it is a derived one: see
    /// [`Topics::owner_of_name`].
    pub(crate) fn owner_of_name(self, name: &str) -> usize {
        if let Some(core) = name
            .strip_prefix("node/core-")
            .and_then(|n| n.parse::<usize>().ok())
        {
            return core % self.cores;
        }
        self.owner_of_hash(xxh3_64(name.as_bytes()))
    }

    fn owner_of_hash(self, hash: u64) -> usize {
        (hash % self.cores as u64) as usize
    }

    /// The core that owns the topic with this id; ids start at 1.
    pub(crate) fn owner(self, id: u32) -> usize {
        (id as usize - 1) % self.cores
    }

    /// The topic's place on its owner.
    pub(crate) fn index(self, id: u32) -> usize {
        (id as usize - 1) / self.cores
    }

    fn id(self, core: usize, index: usize) -> Option<u32> {
        u32::try_from(index * self.cores + core + 1).ok()
    }
}

/// The topics of one core. Topics are made on first use and stay.
pub(crate) struct Topics {
    core: usize,
    ids: Ids,
    limit: usize,
    registry: Arc<Registry>,
    /// The journal's lanes; 0: there is no journal.
    lanes: u32,
    /// The epoch of topics that begin in this run of the node.
    epoch: u64,
    list: Vec<Topic>,
    by_name: BTreeMap<Arc<str>, usize>,
}

impl Topics {
    pub(crate) fn new(
        (core, ids): (usize, Ids),
        limit: usize,
        registry: Arc<Registry>,
        lanes: u32,
        epoch: u64,
    ) -> Self {
        Self {
            core,
            ids,
            limit,
            registry,
            lanes,
            epoch,
            list: Vec::new(),
            by_name: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The index of the topic with this id, which this core must own.
    pub(crate) fn index_of(&self, id: u32) -> Option<usize> {
        debug_assert_eq!(self.ids.owner(id), self.core);
        Some(self.ids.index(id)).filter(|i| *i < self.list.len())
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> &mut Topic {
        &mut self.list[index]
    }

    pub(crate) fn get(&self, index: usize) -> &Topic {
        &self.list[index]
    }

    /// The core that owns the topic called `name`: of a derived topic, the owner of what it shows.
    pub(crate) fn owner_of_name(&self, name: &str) -> usize {
        let Some(source) = self.registry.source(name) else {
            return self.ids.owner_of_name(name);
        };
        // The hash of the source's name, put together without a copy.
        let mut hash = Xxh3::new();
        for part in [source.kind, "/", source.name] {
            hash.update(part.as_bytes());
        }
        self.ids.owner_of_hash(hash.digest())
    }

    /// The topic called `name`, made now if need be.
    pub(crate) fn open(&mut self, name: &str) -> Result<usize, Refusal> {
        if let Some(&index) = self.by_name.get(name) {
            return Ok(index);
        }
        let name = TopicName::new(name).map_err(|e| Refusal::new(e.code(), e.to_string()))?;
        let registry = Arc::clone(&self.registry);
        let kind = registry.get(name.kind());
        let kind = kind.ok_or_else(|| unknown_kind(name.kind()))?;
        if kind.durability() == Durability::Durable && self.lanes == 0 {
            return Err(Refusal::new(
                ErrorCode::NoJournal,
                "topics of this kind are durable, and this server keeps no journal; start it with --data",
            ));
        }
        let source = kind.source(name.name()).transpose()?;
        let source = source.map(|it| self.open_source(it)).transpose()?;
        let identity = self.identify(name.as_str(), kind, self.epoch)?;
        let index = self.add(identity, Past::none(kind.create(name.name())));
        if let Some(source) = source {
            self.list[source.index]
                .views
                .topics
                .push((source.view, index));
            self.list[index].source = Some(source);
        }
        Ok(index)
    }

    /// The topic that a derived one shows, made now if need be.
    fn open_source(&mut self, source: machines::Source<'_>) -> Result<Source, Refusal> {
        let index = self.open(&format!("{}/{}", source.kind, source.name))?;
        let topic = &self.list[index];
        if topic.is_durable() || topic.source.is_some() || source.view >= MAX_VIEWS {
            return Err(Refusal::new(
                ErrorCode::Internal,
                "its kind is registered as derived from one that is durable or derived itself",
            ));
        }
        Ok(Source {
            index,
            view: source.view,
            seq: 0,
        })
    }

    /// Takes a topic over from an earlier run of the node. A durable one goes on in its `epoch`;
    /// with `keeps_epoch`, a fault of the simulator's, any does.
    pub(crate) fn adopt(
        &mut self,
        name: &str,
        epoch: u64,
        past: Past,
        keeps_epoch: bool,
    ) -> Result<usize, Refusal> {
        let name = TopicName::new(name).map_err(|e| Refusal::new(e.code(), e.to_string()))?;
        let registry = Arc::clone(&self.registry);
        let kind = registry.get(name.kind());
        let kind = kind.ok_or_else(|| unknown_kind(name.kind()))?;
        let epoch = match kind.durability() {
            Durability::Durable => epoch,
            _ if keeps_epoch => epoch,
            // What the journal did not get may have been seen, so its numbers mean another event.
            Durability::Volatile | Durability::Memory => self.epoch,
        };
        let identity = self.identify(name.as_str(), kind, epoch)?;
        Ok(self.add(identity, past))
    }

    fn identify(&self, name: &str, kind: &Kind, epoch: u64) -> Result<Identity, Refusal> {
        let index = self.list.len();
        let id = self.ids.id(self.core, index).filter(|_| index < self.limit);
        let id = id.ok_or_else(|| {
            Refusal::new(
                ErrorCode::TopicLimit,
                "the server holds as many topics as max_topics allows",
            )
        })?;
        Ok(Identity {
            id,
            name: name.into(),
            policy: kind.policy(),
            durability: match self.lanes {
                0 => Durability::Memory,
                _ if kind.is_derived() => Durability::Memory,
                _ => kind.durability(),
            },
            lane: lane_of(name, self.lanes),
            epoch,
        })
    }

    fn add(&mut self, identity: Identity, past: Past) -> usize {
        let index = self.list.len();
        self.by_name.insert(Arc::clone(&identity.name), index);
        self.list.push(Topic::new(identity, past));
        index
    }
}

fn unknown_kind(kind: &str) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownKind,
        format!("no machine is registered for topics of kind {kind}"),
    )
}
