//! Subscribers: they go on behind what they have, and note what they see.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use tickring_protocol::{Frame, GapReason, Policy, Subscribe};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::publish::Publisher;
use super::wire::{Gone, Wire};
use super::{DURABLE, VOLATILE};

/// What one subscriber knows of a topic.
#[derive(Default)]
pub(crate) struct Seen {
    epoch: u64,
    last: u64,
    /// Events by (epoch, seq), as their [`mark`].
    pub(crate) events: HashMap<(u64, u64), u64>,
}

/// Stands for all that an event says.
pub(crate) fn mark(kind: u16, event_ns: u64, node_ns: u64, body: &[u8]) -> u64 {
    let head = [u64::from(kind), event_ns, node_ns].map(u64::to_le_bytes);
    xxh3_64_with_seed(body, xxh3_64_with_seed(head.as_flattened(), 0))
}

/// Subscribes to everything, goes on behind what it has, and notes it.
#[derive(Default)]
pub(crate) struct Subscriber {
    pub(crate) seen: BTreeMap<&'static str, Seen>,
}

impl Subscriber {
    /// Goes on for as long as the server lives. `killed` is set before it is killed.
    pub(crate) fn run(&mut self, address: &str, killed: &AtomicBool) {
        let gone = self.go(address, |_| false);
        assert!(gone.is_err(), "it is never enough");
        assert!(
            killed.load(Ordering::Acquire),
            "the server closed a connection, or was silent, before it was killed"
        );
    }

    /// Reads on until it has all that was answered of durable topics.
    pub(crate) fn finish(&mut self, address: &str, publishers: &[Publisher]) {
        let mut newest: HashMap<&str, u64> = HashMap::new();
        for publisher in publishers.iter().filter(|p| p.durable) {
            for request in publisher.requests.values() {
                let newest = newest.entry(request.topic).or_default();
                *newest = (*newest).max(request.seq.unwrap_or(0));
            }
        }
        let done = |seen: &BTreeMap<&'static str, Seen>| {
            newest.iter().all(|(topic, seq)| seen[topic].last >= *seq)
        };
        self.go(address, done).unwrap();
    }

    fn go(
        &mut self,
        address: &str,
        done: impl Fn(&BTreeMap<&'static str, Seen>) -> bool,
    ) -> Result<(), Gone> {
        let (mut wire, _) = Wire::open(address, 0)?;
        for (topic, id) in DURABLE.into_iter().chain(VOLATILE).zip(1..) {
            let seen = self.seen.entry(topic).or_default();
            wire.send(&Frame::Subscribe(Subscribe {
                request_id: id,
                from_seq: seen.last + 1,
                epoch: seen.epoch,
                policy: Policy::Resume,
                topic,
            }))?;
        }
        let mut topics: HashMap<u32, &'static str> = HashMap::new();
        while !done(&self.seen) {
            wire.next(|frame| self.take(frame, &mut topics))?;
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame<'_>, topics: &mut HashMap<u32, &'static str>) {
        match frame {
            Frame::Subscribed(subscribed) => {
                let found = self
                    .seen
                    .iter_mut()
                    .find(|(name, _)| **name == subscribed.topic);
                let (topic, seen) = found.expect("it was asked for");
                topics.insert(subscribed.topic_id, topic);
                if topic.starts_with("log/") && seen.epoch != 0 {
                    assert_eq!(subscribed.epoch, seen.epoch, "{topic} goes on");
                }
                seen.epoch = subscribed.epoch;
            }
            Frame::Event(event) => {
                let topic = topics[&event.topic_id];
                let seen = self.seen.get_mut(topic).expect("it is subscribed to");
                assert_eq!(event.seq, seen.last + 1, "{topic}");
                seen.last = event.seq;
                let event_mark = mark(event.kind, event.event_ns, event.node_ns, event.body);
                seen.events.insert((seen.epoch, event.seq), event_mark);
            }
            Frame::Gap(gap) => {
                let topic = topics[&gap.topic_id];
                if gap.reason == GapReason::Delayed {
                    return;
                }
                assert!(topic.starts_with("market/"), "{topic}: {gap:?}");
                let seen = self.seen.get_mut(topic).expect("it is subscribed to");
                seen.last = gap.last_seq;
            }
            Frame::Snapshot(snapshot) => {
                let topic = topics[&snapshot.topic_id];
                assert_eq!(snapshot.seq, self.seen[topic].last, "{topic}");
            }
            other => panic!("{other:?}"),
        }
    }
}
