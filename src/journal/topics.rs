//! The topics of a lane, and what they are called in the segment being read.

use std::collections::HashMap;

use super::record::{self, Record};

/// A topic that was found in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredTopic {
    /// Its name.
    pub name: Box<str>,
    /// Names the numbering of its events.
    pub epoch: u64,
    /// Seq of the oldest event that is there; 0: none is.
    pub first_seq: u64,
    /// Newest seq that is known of, from an event or a snapshot; 0: none.
    pub last_seq: u64,
    /// Position and seq of its newest snapshot: where recovery begins.
    pub snapshot: Option<(u64, u64)>,
}

/// The topics of a lane, and which number each has in the segment being read.
#[derive(Debug, Default)]
pub(super) struct TopicTable {
    pub(super) list: Vec<RecoveredTopic>,
    names: HashMap<(Box<str>, u64), usize>,
    numbers: Numbers,
}

impl TopicTable {
    pub(super) fn begin_segment(&mut self) {
        self.numbers = Numbers::default();
    }

    /// Takes note of a record; returns its topic, `None` if it is a mark.
    #[inline]
    pub(super) fn take(
        &mut self,
        position: u64,
        record: &Record<'_>,
    ) -> Result<Option<usize>, &'static str> {
        let number = match record {
            Record::Mark { .. } => return Ok(None),
            Record::Topic(topic) => return Ok(Some(self.bind(topic))),
            Record::Event(event) => event.topic,
            Record::Reply(reply) => reply.topic,
            Record::Snapshot(snapshot) => snapshot.topic,
        };
        let index = self
            .numbers
            .get(number)
            .ok_or("a record of an unbound topic")?;
        let topic = &mut self.list[index];
        match record {
            Record::Event(event) => {
                if topic.first_seq == 0 {
                    topic.first_seq = event.seq;
                }
                topic.last_seq = event.seq;
            }
            Record::Snapshot(snapshot) => {
                topic.snapshot = Some((position, snapshot.seq));
                topic.last_seq = topic.last_seq.max(snapshot.seq);
            }
            _ => {}
        }
        Ok(Some(index))
    }

    /// The topic that has this number in the segment being read.
    #[inline]
    pub(super) fn index(&self, number: u32) -> Option<usize> {
        self.numbers.get(number)
    }

    pub(super) fn bind(&mut self, topic: &record::Topic<'_>) -> usize {
        let next = self.list.len();
        let index = *self
            .names
            .entry((topic.name.into(), topic.epoch))
            .or_insert(next);
        if index == next {
            self.list.push(RecoveredTopic {
                name: topic.name.into(),
                epoch: topic.epoch,
                first_seq: 0,
                last_seq: 0,
                snapshot: None,
            });
        }
        self.numbers.set(topic.number, index);
        index
    }
}

/// The topics' numbers in one segment. Numbers are given out from 1 on, so nearly all of them fit a
/// plain table, which matters at millions of records a second; no number makes it grow beyond
/// its bound.
#[derive(Debug, Default)]
struct Numbers {
    /// Index + 1; 0: none.
    low: Vec<usize>,
    high: HashMap<u32, usize>,
}

impl Numbers {
    const LOW: usize = 1 << 20;

    #[inline]
    fn get(&self, number: u32) -> Option<usize> {
        match self.low.get(number as usize) {
            Some(0) => None,
            Some(index) => Some(index - 1),
            None => self.high.get(&number).copied(),
        }
    }

    fn set(&mut self, number: u32, index: usize) {
        let place = number as usize;
        if place >= Self::LOW {
            self.high.insert(number, index);
            return;
        }
        if self.low.len() <= place {
            self.low.resize(place + 1, 0);
        }
        self.low[place] = index + 1;
    }
}
