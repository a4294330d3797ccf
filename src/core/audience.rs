//! Audiences: the connections with the same set of live topics, served as one.
//!
//! An event is put into each audience of its topic once, however many connections listen; when
//! the turn ends, each member gets the audience's ranges. Ranges that lie side by side in the
//! turn's log become one, so that a client of a hundred topics still gets one slice.
//!
//! A connection whose set changes gets an audience of its own, which changes in place; when the
//! turn ends and nothing is pending, it joins the audience of the same set if there is one.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

use super::batch::{Range, push_range};
use super::rest::Pace;

pub(crate) const NONE: u32 = u32::MAX;

/// One audience.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    /// Sum of the topics' hashes.
    key: u128,
    /// Whether others with the same set may join: it is in `by_key`.
    open: bool,
    topics: Vec<Link>,
    pub(crate) members: Vec<u32>,
    pub(crate) ranges: Vec<Range>,
    pub(crate) bytes: usize,
    pub(crate) events: u64,
    dirty: bool,
    /// Events that its members were given since then.
    counted: u64,
    since_ns: u64,
    /// How long a member rests after a send.
    pub(crate) rest_ns: u64,
}

/// Events after which it is looked at how far apart they are.
const COUNTED: u64 = 8;
/// Events that are further apart than this have nothing to do with each other.
const APART_NS: u64 = 1_000_000_000;

impl Audience {
    /// Its members are given what is pending, at `now_ns`: says anew, every eight events or every second,
    /// how long they rest.
    pub(crate) fn pace(&mut self, now_ns: u64, pace: &Pace) {
        self.counted += self.events;
        let took_ns = now_ns - self.since_ns;
        if self.counted < COUNTED && took_ns < APART_NS {
            return;
        }
        let interval_ns = took_ns / self.counted.max(1);
        (self.counted, self.since_ns) = (0, now_ns);
        self.rest_ns = pace.rest(self.members.len(), interval_ns);
    }
}

/// From an audience to a topic's replica and back: `other` is the index of the other end, `back`
/// the place of this link's twin there.
#[derive(Clone, Copy, Debug)]
struct Link {
    other: u32,
    back: u32,
}

/// The topic's side of [`Link`]s.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Vec<Link>);

impl Listeners {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All audiences of a core.
#[derive(Debug, Default)]
pub(crate) struct Audiences {
    list: Vec<Audience>,
    free: Vec<u32>,
    by_key: BTreeMap<u128, u32>,
    /// Audiences with something pending.
    pub(crate) dirty: Vec<u32>,
}

/// Gives the listeners of the topic replica with an index.
pub(crate) trait Topics {
    fn listeners(&mut self, replica: u32) -> &mut Listeners;
    fn id(&self, replica: u32) -> u32;
}

impl Audiences {
    pub(crate) fn get_mut(&mut self, audience: u32) -> &mut Audience {
        &mut self.list[audience as usize]
    }

    pub(crate) fn get(&self, audience: u32) -> &Audience {
        &self.list[audience as usize]
    }

    /// Puts an event into every audience that listens.
    pub(crate) fn offer(&mut self, listeners: &Listeners, range: Range) {
        for link in &listeners.0 {
            let audience = &mut self.list[link.other as usize];
            push_range(&mut audience.ranges, range);
            audience.bytes += range.len();
            audience.events += 1;
            if !audience.dirty {
                audience.dirty = true;
                self.dirty.push(link.other);
            }
        }
    }

    /// Marks an audience as having nothing pending, when it is not its turn in `dirty`.
    pub(crate) fn settle_now(&mut self, audience: u32) {
        self.dirty.retain(|a| *a != audience);
        self.settled(audience);
    }

    /// Marks an audience that was just taken from `dirty` as having nothing pending.
    pub(crate) fn settled(&mut self, audience: u32) {
        let audience = &mut self.list[audience as usize];
        audience.ranges.clear();
        (audience.bytes, audience.events, audience.dirty) = (0, 0, false);
    }

    /// An audience with `member` alone and no topics.
    pub(crate) fn create(&mut self, member: u32) -> u32 {
        let audience = match self.free.pop() {
            Some(audience) => audience,
            None => {
                self.list.push(Audience::default());
                self.list.len() as u32 - 1
            }
        };
        let fresh = &mut self.list[audience as usize];
        fresh.members.push(member);
        (fresh.counted, fresh.since_ns, fresh.rest_ns) = (0, 0, 0);
        audience
    }

    /// Takes the member at `place` out. Returns the member that now stands there, if any. The
    /// audience must not be its last member's home afterwards: see [`Audiences::dissolve`].
    pub(crate) fn leave(&mut self, audience: u32, place: u32) -> Option<u32> {
        let members = &mut self.list[audience as usize].members;
        members.swap_remove(place as usize);
        members.get(place as usize).copied()
    }

    /// Frees an audience without members.
    pub(crate) fn dissolve(&mut self, audience: u32, topics: &mut impl Topics) {
        debug_assert!(self.get(audience).members.is_empty());
        self.close(audience);
        while let Some(last) = self.get(audience).topics.len().checked_sub(1) {
            self.unlink(audience, last, topics);
        }
        self.settle_without(audience);
        self.free.push(audience);
    }

    fn settle_without(&mut self, audience: u32) {
        if self.get(audience).dirty {
            self.dirty.retain(|a| *a != audience);
        }
        self.settled(audience);
        self.list[audience as usize].key = 0;
    }

    /// A copy for `member` alone: same topics, same pending ranges. The member must have left.
    pub(crate) fn split(&mut self, from: u32, member: u32, topics: &mut impl Topics) -> u32 {
        let own = self.create(member);
        for place in 0..self.get(from).topics.len() {
            let replica = self.get(from).topics[place].other;
            self.link(own, replica, topics);
        }
        let [source, target] = self
            .list
            .get_disjoint_mut([from as usize, own as usize])
            .expect("a new audience is not the old one");
        target.ranges.extend_from_slice(&source.ranges);
        (target.bytes, target.events) = (source.bytes, source.events);
        if !target.ranges.is_empty() {
            target.dirty = true;
            self.dirty.push(own);
        }
        own
    }

    /// Adds a topic; the audience must have one member.
    pub(crate) fn add(&mut self, audience: u32, replica: u32, topics: &mut impl Topics) {
        debug_assert_eq!(self.get(audience).members.len(), 1);
        self.close(audience);
        self.link(audience, replica, topics);
    }

    /// Takes a topic out; the audience must have one member.
    pub(crate) fn remove(&mut self, audience: u32, replica: u32, topics: &mut impl Topics) {
        debug_assert_eq!(self.get(audience).members.len(), 1);
        self.close(audience);
        let place = self
            .get(audience)
            .topics
            .iter()
            .position(|l| l.other == replica);
        self.unlink(
            audience,
            place.expect("a live topic is in its audience"),
            topics,
        );
    }

    /// Whether the audience has no topics.
    pub(crate) fn is_idle(&self, audience: u32) -> bool {
        self.get(audience).topics.is_empty()
    }

    /// The audience that one with nothing pending should be merged into; if there is none yet,
    /// this one becomes it.
    pub(crate) fn twin(&mut self, audience: u32, topics: &mut impl Topics) -> Option<u32> {
        debug_assert!(self.get(audience).ranges.is_empty());
        let key = self.get(audience).key;
        match self.by_key.get(&key).copied() {
            Some(other) if other == audience => None,
            // The key is a hash of the set, so equality is checked: a stranger's events must
            // never reach anybody by chance.
            Some(other) => self.same_topics(audience, other, topics).then_some(other),
            None => {
                self.by_key.insert(key, audience);
                self.list[audience as usize].open = true;
                None
            }
        }
    }

    fn same_topics(&self, one: u32, other: u32, topics: &mut impl Topics) -> bool {
        let (a, b) = (self.get(one), self.get(other));
        a.topics.len() == b.topics.len()
            && a.topics.iter().all(|link| {
                topics
                    .listeners(link.other)
                    .0
                    .iter()
                    .any(|l| l.other == other)
            })
    }

    /// Adds a member to an audience with nothing pending; returns its place.
    pub(crate) fn join(&mut self, audience: u32, member: u32) -> u32 {
        debug_assert!(self.get(audience).ranges.is_empty());
        let members = &mut self.list[audience as usize].members;
        members.push(member);
        members.len() as u32 - 1
    }

    /// Takes the audience out of the table of those that others may join.
    fn close(&mut self, audience: u32) {
        let it = &mut self.list[audience as usize];
        if it.open {
            it.open = false;
            self.by_key.remove(&it.key);
        }
    }

    fn link(&mut self, audience: u32, replica: u32, topics: &mut impl Topics) {
        let it = &mut self.list[audience as usize];
        let listeners = &mut topics.listeners(replica).0;
        it.topics.push(Link {
            other: replica,
            back: listeners.len() as u32,
        });
        listeners.push(Link {
            other: audience,
            back: it.topics.len() as u32 - 1,
        });
        it.key = it.key.wrapping_add(hash(topics.id(replica)));
    }

    fn unlink(&mut self, audience: u32, place: usize, topics: &mut impl Topics) {
        let it = &mut self.list[audience as usize];
        let gone = it.topics.swap_remove(place);
        it.key = it.key.wrapping_sub(hash(topics.id(gone.other)));
        if let Some(moved) = it.topics.get(place).copied() {
            topics.listeners(moved.other).0[moved.back as usize].back = place as u32;
        }
        let listeners = &mut topics.listeners(gone.other).0;
        listeners.swap_remove(gone.back as usize);
        if let Some(moved) = listeners.get(gone.back as usize).copied() {
            self.list[moved.other as usize].topics[moved.back as usize].back = gone.back;
        }
    }
}

fn hash(topic_id: u32) -> u128 {
    xxh3_128(&topic_id.to_le_bytes())
}
