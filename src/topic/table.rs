//! The topics that one core owns, by name and by id.

use std::collections::BTreeMap;
use std::sync::Arc;

use tickring_protocol::{ErrorCode, TopicName};
use xxhash_rust::xxh3::xxh3_64;

use super::Topic;
use crate::machines::{Refusal, Registry};

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
    /// The core that owns the topic called `name`.
    pub(crate) fn owner_of_name(self, name: &str) -> usize {
        if let Some(core) = name
            .strip_prefix("node/core-")
            .and_then(|n| n.parse::<usize>().ok())
        {
            return core % self.cores;
        }
        (xxh3_64(name.as_bytes()) % self.cores as u64) as usize
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
    list: Vec<Topic>,
    by_name: BTreeMap<Box<str>, usize>,
}

impl Topics {
    pub(crate) fn new(core: usize, ids: Ids, limit: usize, registry: Arc<Registry>) -> Self {
        Self {
            core,
            ids,
            limit,
            registry,
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

    /// The topic called `name`, made now if need be.
    pub(crate) fn open(&mut self, name: &str) -> Result<usize, Refusal> {
        if let Some(&index) = self.by_name.get(name) {
            return Ok(index);
        }
        let name = TopicName::new(name).map_err(|e| Refusal::new(e.code(), e.to_string()))?;
        let kind = self.registry.get(name.kind()).ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownKind,
                format!(
                    "no machine is registered for topics of kind {}",
                    name.kind()
                ),
            )
        })?;
        let index = self.list.len();
        let id = self
            .ids
            .id(self.core, index)
            .filter(|_| index < self.limit)
            .ok_or_else(|| {
                Refusal::new(
                    ErrorCode::TopicLimit,
                    "the server holds as many topics as max_topics allows",
                )
            })?;
        let machine = kind.create(name.name());
        self.list.push(Topic::new(id, kind.policy(), machine));
        self.by_name.insert(name.as_str().into(), index);
        Ok(index)
    }
}
