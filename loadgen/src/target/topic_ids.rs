//! The server's topic ids to the generator's topic numbers.

/// An open-addressing table: one probe in the usual case, no hashing to speak of. Looked up for
/// every event that the generator receives.
#[derive(Debug)]
pub(super) struct TopicIds {
    /// `id << 32 | topic + 1`; 0 is an empty place.
    places: Vec<u64>,
}

impl TopicIds {
    /// A table for `topics` topics.
    pub(super) fn new(topics: u32) -> Self {
        let places = (topics as usize * 4).next_power_of_two().max(16);
        Self {
            places: vec![0; places],
        }
    }

    /// The server calls `topic` `id`. A topic that gets another id keeps the old one too: events
    /// that still carry it are known.
    pub(super) fn learn(&mut self, id: u32, topic: u32) {
        let entry = u64::from(id) << 32 | (u64::from(topic) + 1);
        let mut at = self.first_place(id);
        // Ids are bounded by the run's topics in a correct server; a server that invents new ones
        // without end must not hang the generator.
        for _ in 0..self.places.len() {
            let place = self.places[at];
            if place == 0 || (place >> 32) as u32 == id {
                self.places[at] = entry;
                return;
            }
            at = (at + 1) & (self.places.len() - 1);
        }
    }

    /// The topic that the server calls `id`.
    #[inline]
    pub(super) fn topic(&self, id: u32) -> Option<u32> {
        let mut at = self.first_place(id);
        for _ in 0..self.places.len() {
            let place = self.places[at];
            if (place >> 32) as u32 == id && place != 0 {
                return Some(place as u32 - 1);
            }
            if place == 0 {
                return None;
            }
            at = (at + 1) & (self.places.len() - 1);
        }
        None
    }

    #[inline]
    fn first_place(&self, id: u32) -> usize {
        // Fibonacci hashing: spreads ids that differ in high bits only (owner core) as well.
        (id.wrapping_mul(0x9E37_79B9) >> 7) as usize & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_as_they_were_learnt() {
        let mut ids = TopicIds::new(1_000);
        for topic in 0..1_000 {
            ids.learn((topic % 2) << 24 | (topic + 1), topic);
        }
        for topic in 0..1_000 {
            assert_eq!(ids.topic((topic % 2) << 24 | (topic + 1)), Some(topic));
        }
        assert_eq!(ids.topic(5_000), None);
    }

    #[test]
    fn a_full_table_neither_hangs_nor_lies() {
        let mut ids = TopicIds::new(1);
        for id in 0..100 {
            ids.learn(id, 0);
        }
        assert_eq!(ids.topic(3), Some(0));
        assert_eq!(ids.topic(1_000), None);
    }
}
