//! Where in a lane a topic's events are: a sparse index in memory, for HISTORY and catching up.

use std::collections::HashMap;

/// An event of a topic and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The event's seq.
    pub seq: u64,
    /// Position of its record.
    pub position: u64,
    /// The topic's number there.
    pub number: u32,
}

/// For each topic some of its events, at least `spacing` bytes apart. When it is full every
/// topic's places are thinned to twice the spacing, so that it holds at most `max_places`, or one
/// place for each topic if those are more. 24 bytes for a place.
#[derive(Debug)]
pub struct Catalog {
    names: HashMap<(Box<str>, u64), usize>,
    topics: Vec<Vec<Place>>,
    places: usize,
    max_places: usize,
    spacing: u64,
}

impl Catalog {
    /// An empty catalog.
    #[must_use]
    pub fn new(max_places: usize, spacing: u64) -> Self {
        Self {
            names: HashMap::new(),
            topics: Vec::new(),
            places: 0,
            max_places: max_places.max(1),
            spacing: spacing.max(1),
        }
    }

    /// The catalog's own index of a topic, made now if need be.
    pub fn topic(&mut self, name: &str, epoch: u64) -> usize {
        let next = self.topics.len();
        let index = *self.names.entry((name.into(), epoch)).or_insert(next);
        if index == next {
            self.topics.push(Vec::new());
        }
        index
    }

    /// Takes note of an event. A topic's events must come in order.
    #[inline]
    pub fn note(&mut self, topic: usize, place: Place) {
        let places = &mut self.topics[topic];
        let far =
            |last: &Place| place.position >= last.position + self.spacing && place.seq > last.seq;
        if places.last().is_none_or(far) {
            places.push(place);
            self.places += 1;
            if self.places > self.max_places.max(2 * self.topics.len()) {
                self.thin();
            }
        }
    }

    /// Doubles the spacing until half of the bound is free, or each topic has one place.
    fn thin(&mut self) {
        let enough = (self.max_places / 2).max(self.topics.len());
        while self.places > enough {
            self.spacing = self.spacing.saturating_mul(2);
            self.places = 0;
            for places in &mut self.topics {
                let mut next = 0;
                places.retain(|place| {
                    let stays = place.position >= next;
                    if stays {
                        next = place.position.saturating_add(self.spacing);
                    }
                    stays
                });
                self.places += places.len();
            }
        }
    }

    /// Where to begin reading in order to find event `seq` of the topic: the nearest event before
    /// it or itself. `None`: nothing is known that lies before it, so begin with the lane.
    #[must_use]
    pub fn find(&self, name: &str, epoch: u64, seq: u64) -> Option<Place> {
        let places = &self.topics[*self.names.get(&(name.into(), epoch))?];
        let after = places.partition_point(|place| place.seq <= seq);
        places.get(after.checked_sub(1)?).copied()
    }

    /// Forgets what lies below `position`, because the lane no longer has it.
    pub fn forget_below(&mut self, position: u64) {
        self.places = 0;
        for places in &mut self.topics {
            let gone = places.partition_point(|place| place.position < position);
            places.drain(..gone);
            self.places += places.len();
        }
    }

    /// Places that it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places == 0
    }
}
