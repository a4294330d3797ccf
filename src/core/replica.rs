//! Replicas: what a core knows of the topics that its connections subscribe to.

use super::audience::{self, Listeners};
use crate::topic::Ids;

/// A topic as the core of its subscribers sees it, whichever core owns it.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: u32,
    /// Newest seq that came by; kept up only while there are holders.
    pub(crate) last_seq: u64,
    /// Subscriptions opened at the owner since it was last told of ended ones.
    pub(crate) opened: u32,
    /// Subscriptions, live or not.
    pub(crate) holders: u32,
    pub(crate) listeners: Listeners,
}

/// All replicas of a core. One is made when a topic's first subscription opens, and stays: the
/// node's number of topics bounds them.
#[derive(Debug)]
pub(crate) struct Replicas {
    ids: Ids,
    list: Vec<Replica>,
    /// Index in `list` by owner and place there.
    by_id: Vec<Vec<u32>>,
}

const NONE: u32 = u32::MAX;

impl Replicas {
    pub(crate) fn new(ids: Ids) -> Self {
        Self {
            ids,
            list: Vec::new(),
            by_id: vec![Vec::new(); ids.cores],
        }
    }

    pub(crate) fn find(&self, id: u32) -> Option<u32> {
        let index = *self.by_id[self.ids.owner(id)].get(self.ids.index(id))?;
        (index != NONE).then_some(index)
    }

    pub(crate) fn find_or_create(&mut self, id: u32) -> u32 {
        if let Some(index) = self.find(id) {
            return index;
        }
        let places = &mut self.by_id[self.ids.owner(id)];
        let place = self.ids.index(id);
        if places.len() <= place {
            places.resize(place + 1, NONE);
        }
        let index = self.list.len() as u32;
        places[place] = index;
        self.list.push(Replica {
            id,
            last_seq: 0,
            opened: 0,
            holders: 0,
            listeners: Listeners::default(),
        });
        index
    }

    pub(crate) fn get(&self, index: u32) -> &Replica {
        &self.list[index as usize]
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Replica {
        &mut self.list[index as usize]
    }
}

impl audience::Topics for Replicas {
    fn listeners(&mut self, replica: u32) -> &mut Listeners {
        &mut self.list[replica as usize].listeners
    }

    fn id(&self, replica: u32) -> u32 {
        self.list[replica as usize].id
    }
}
