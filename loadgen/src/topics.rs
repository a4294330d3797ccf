//! Which connection subscribes to what, and who publishes it: arithmetic instead of tables.

use serde::{Deserialize, Serialize};
use tickring_protocol::{EventKind, Quote};

/// What kind the topics are of, and so which road their messages take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In memory alone.
    #[default]
    Stream,
    /// Durable: nobody sees a message before it is on disk.
    Log,
    /// Quotes of instruments: journaled and projected behind.
    Market,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Log => "log",
            Self::Market => "market",
        }
    }

    /// What its messages are.
    pub fn event(self) -> EventKind {
        match self {
            Self::Stream | Self::Log => EventKind::Message,
            Self::Market => EventKind::Quote,
        }
    }

    /// A payload of `bytes`, to be stamped. A quote has a length of its own; its prices and
    /// quantities are the stamp.
    pub fn payload(self, bytes: usize) -> Vec<u8> {
        match self {
            Self::Stream | Self::Log => vec![b'.'; bytes],
            Self::Market => vec![0; Quote::LEN],
        }
    }
}

/// The topics of a run, spread evenly over connections and publishers.
///
/// Connection `c` subscribes to the `each` topics from `c * each` on, modulo the number of
/// topics. With no more publishers than topics, topic `t` belongs to publisher
/// `t % publishers` alone; with more, publisher `p` serves topic `p % topics`, and a topic has
/// several publishers, each with a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topics {
    /// What they are.
    pub kind: Kind,
    /// The run's id: part of each topic's name, so that runs do not meet.
    pub run: u32,
    /// How many topics there are.
    pub count: u32,
    /// How many of them each connection subscribes to.
    pub each: u32,
    /// How many publishers there are.
    pub publishers: u32,
}

impl Topics {
    /// The name of topic `topic`.
    pub fn name(&self, topic: u32) -> String {
        format!("{}/lg-{:08x}-{topic}", self.kind.name(), self.run)
    }

    /// The `slot`-th topic of connection `connection`.
    pub fn topic_of(&self, connection: u32, slot: u32) -> u32 {
        let first = u64::from(connection) * u64::from(self.each);
        ((first + u64::from(slot)) % u64::from(self.count)) as u32
    }

    /// Which slot of `connection` holds `topic`, if it subscribes to that.
    #[inline]
    pub fn slot_of(&self, connection: u32, topic: u32) -> Option<u32> {
        if self.count == 1 {
            return (topic == 0).then_some(0);
        }
        let first = self.topic_of(connection, 0);
        let slot = if topic >= first {
            topic - first
        } else {
            topic + self.count - first
        };
        (slot < self.each).then_some(slot)
    }

    /// How many of `connections` subscribe to `topic`.
    pub fn subscribers(&self, topic: u32, connections: u32) -> u64 {
        let all = u64::from(connections) * u64::from(self.each);
        let (rounds, rest) = (all / u64::from(self.count), all % u64::from(self.count));
        rounds + u64::from(u64::from(topic) < rest)
    }

    /// How many publishers a topic has.
    pub fn publishers_per_topic(&self) -> u32 {
        self.publishers.div_ceil(self.count)
    }

    /// Who publishes message `index` of the run, on which topic.
    #[inline]
    pub fn turn(&self, index: u64) -> (u32, u32) {
        if self.publishers <= self.count {
            let topic = (index % u64::from(self.count)) as u32;
            (topic % self.publishers, topic)
        } else {
            let publisher = (index % u64::from(self.publishers)) as u32;
            (publisher, publisher % self.count)
        }
    }

    /// Where the counter of `publisher` on `topic` lies among [`Topics::counters`].
    #[inline]
    pub fn counter_of(&self, topic: u32, publisher: u32) -> u32 {
        topic * self.publishers_per_topic() + self.publisher_slot(publisher)
    }

    /// Which of a topic's publishers `publisher` is.
    #[inline]
    pub fn publisher_slot(&self, publisher: u32) -> u32 {
        if self.publishers <= self.count {
            0
        } else {
            publisher / self.count
        }
    }

    /// How many counters the publishers have together.
    pub fn counters(&self) -> usize {
        self.count as usize * self.publishers_per_topic() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(count: u32, each: u32, publishers: u32) -> Topics {
        Topics {
            kind: Kind::Stream,
            run: 1,
            count,
            each,
            publishers,
        }
    }

    #[test]
    fn a_stamped_payload_is_a_quote_that_the_market_takes() {
        use crate::payload::Stamp;
        let stamp = Stamp {
            intended_ns: 1 << 60,
            counter: u64::MAX >> 1,
            run: u32::MAX,
            publisher: 9_999,
        };
        let mut payload = Kind::Market.payload(64);
        stamp.write(&mut payload);
        let quote = Quote::decode(&payload).unwrap();
        assert!(quote.bid_qty.0 >= 0 && quote.ask_qty.0 >= 0);
        assert_eq!(Stamp::read(&payload), Some(stamp));
    }

    #[test]
    fn slots_and_topics_are_each_others_inverse() {
        for (count, each) in [(1, 1), (7, 3), (7, 7), (100, 10)] {
            let topics = topics(count, each, 1);
            for connection in [0, 1, 5, 9_999, u32::MAX] {
                for topic in 0..count {
                    let slot = (0..each).find(|&slot| topics.topic_of(connection, slot) == topic);
                    assert_eq!(topics.slot_of(connection, topic), slot);
                }
            }
        }
    }

    #[test]
    fn subscribers_are_counted_as_they_are_spread() {
        let topics = topics(7, 3, 1);
        for topic in 0..7 {
            let counted = (0..100)
                .filter(|&c| topics.slot_of(c, topic).is_some())
                .count();
            assert_eq!(topics.subscribers(topic, 100), counted as u64);
        }
    }

    #[test]
    fn every_counter_has_one_publisher() {
        for (count, publishers) in [(1, 1), (100, 4), (1, 4), (3, 8)] {
            let topics = topics(count, 1, publishers);
            let mut owner = vec![None; topics.counters()];
            for index in 0..1_000 {
                let (publisher, topic) = topics.turn(index);
                let at = topics.counter_of(topic, publisher) as usize;
                assert_eq!(
                    *owner[at].get_or_insert((publisher, topic)),
                    (publisher, topic)
                );
            }
        }
    }
}
