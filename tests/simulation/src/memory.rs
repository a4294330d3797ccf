//! What a node remembers of an earlier run: what the disk holds when it starts again, held against
//! what clients have seen, and what the model goes on from.

use std::collections::BTreeMap;

use tickring::journal::Entry;
use tickring::journal::record::Record;
use tickring::machines::Durability;
use tickring_protocol::ErrorCode;

use crate::ensure;
use crate::model::{Done, Model};

/// What the journal's lanes hold, read without the core's help.
#[derive(Debug, Default)]
pub(crate) struct OnDisk {
    topics: BTreeMap<Box<str>, Held>,
    /// By session and request id, the newest.
    replies: BTreeMap<(u128, u64), Told>,
}

/// An answer: its code, seq, time and payload.
type Told = (u16, u64, u64, Box<[u8]>);

/// What a lane holds of one topic, in its newest epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    epoch: u64,
    /// The oldest event from which on all are there; one more than `last` if none is.
    first: u64,
    last: u64,
}

/// One lane being read.
#[derive(Debug, Default)]
pub(crate) struct LaneReading {
    /// By the lane's index of topics.
    names: Vec<(Box<str>, Held)>,
}

impl OnDisk {
    pub(crate) fn take(&mut self, lane: &mut LaneReading, entry: &Entry<'_>) {
        match &entry.record {
            Record::Topic(topic) => {
                if entry.topic == lane.names.len() {
                    let held = Held {
                        epoch: topic.epoch,
                        first: 1,
                        last: 0,
                    };
                    lane.names.push((topic.name.into(), held));
                }
            }
            Record::Event(event) => {
                let held = &mut lane.names[entry.topic].1;
                if event.seq == held.last + 1 {
                    held.last = event.seq;
                }
            }
            Record::Snapshot(state) => {
                let held = &mut lane.names[entry.topic].1;
                if state.seq > held.last {
                    (held.first, held.last) = (state.seq + 1, state.seq);
                }
            }
            Record::Reply(reply) => {
                let key = (reply.session, reply.request_id);
                let payload = reply.payload.into();
                let told = (reply.code, reply.seq, reply.node_ns, payload);
                self.replies.insert(key, told);
            }
            Record::Mark { .. } => {}
        }
        let (name, held) = &lane.names[entry.topic];
        if held.last > 0 {
            self.topics.insert(name.clone(), *held);
        }
    }
}

/// Events that a crash took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lost {
    pub(crate) durable: u64,
    pub(crate) volatile: u64,
}

/// How the run before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In order, and everything was written.
    InOrder,
    /// The process was killed, or its journal failed.
    Killed,
    /// Power was lost.
    PowerLoss,
}

impl Model {
    /// A new run begins with what is on disk: nothing that anybody saw of a durable topic may be
    /// missing, and what was lost never was.
    pub(crate) fn restart(
        &mut self,
        disk: &OnDisk,
        ending: Ending,
        epoch: u64,
        wall_ns: u64,
    ) -> Result<Lost, String> {
        ensure!(epoch > self.epoch, "epoch {epoch} is not a new one");
        self.epoch = epoch;
        self.run += 1;
        self.by_id.clear();
        self.order.clear();
        let mut lost = Lost::default();
        for topic in 0..self.topics.len() {
            self.restart_topic(topic, disk, ending, &mut lost)?;
        }
        let mut outdated = std::mem::take(&mut self.outdated);
        let applied = std::mem::take(&mut self.applied);
        let refused = std::mem::take(&mut self.refused);
        for (command, done) in applied.into_iter().chain(refused) {
            // One that was done again, and is lost, is as it was done before.
            let before = outdated.remove(&command).unwrap_or_default();
            let outcomes = before.into_iter().chain([done]).rev();
            for done in outcomes {
                let kept = self
                    .is_kept(command, &done, disk, wall_ns)
                    .map_err(|what| format!("a command that was done as {done:?}: {what}"))?;
                if kept {
                    let kind = match done.code {
                        ErrorCode::Ok => &mut self.applied,
                        _ => &mut self.refused,
                    };
                    kind.insert(command, done);
                    break;
                }
            }
        }
        Ok(lost)
    }

    fn restart_topic(
        &mut self,
        topic: usize,
        disk: &OnDisk,
        ending: Ending,
        lost: &mut Lost,
    ) -> Result<(), String> {
        let epoch = self.epoch;
        let it = &mut self.topics[topic];
        let name = &it.name;
        let held = match it.durability {
            Durability::Memory => None,
            _ => disk.topics.get(name),
        };
        let last = held.map_or(0, |held| held.last);
        ensure!(
            last <= it.last_seq(),
            "{name} has #{last} on disk, and only {} were made",
            it.last_seq()
        );
        ensure!(
            last >= it.floor,
            "{name} was recovered up to #{} before, and now up to #{last}",
            it.floor
        );
        if it.durability == Durability::Durable {
            ensure!(
                last >= it.seen,
                "{name} #{} was seen, and only #{last} is on disk",
                it.seen
            );
            let other = held.is_some_and(|held| it.live && held.epoch != it.epoch);
            ensure!(!other, "{name} goes on in another epoch: {held:?}");
        }
        if ending == Ending::InOrder && it.durability != Durability::Memory {
            ensure!(
                last == it.last_seq(),
                "{name} has #{}, and #{last} is what an orderly stop left",
                it.last_seq()
            );
        }
        let half = it.event(last).is_some_and(|event| !event.ends);
        ensure!(!half, "{name} #{last} is half of a command");
        match it.durability {
            Durability::Durable => lost.durable += it.last_seq() - last,
            Durability::Volatile => lost.volatile += it.last_seq() - last,
            Durability::Memory => {}
        }
        it.events.truncate(last as usize);
        it.live = last > 0;
        it.id = None;
        it.floor = last;
        // A volatile topic begins a new epoch, so that nobody can ask for its events of before.
        it.kept_from = match it.durability {
            Durability::Durable => held.map_or(1, |held| held.first),
            Durability::Volatile | Durability::Memory => last + 1,
        };
        it.epoch = match it.durability {
            Durability::Durable => held.map_or(0, |held| held.epoch),
            Durability::Volatile | Durability::Memory => epoch,
        };
        if it.durability != Durability::Durable || last == 0 {
            it.seen = 0;
        }
        it.bytes = it.events.iter().map(|event| 40 + event.body.len()).sum();
        Ok(())
    }

    /// Whether a command of before is still known; an error if it had to be, or if its answer has
    /// changed.
    fn is_kept(
        &self,
        command: u64,
        done: &Done,
        disk: &OnDisk,
        wall_ns: u64,
    ) -> Result<bool, String> {
        let topic = &self.topics[done.topic];
        if topic.durability == Durability::Memory {
            return Ok(false);
        }
        // What was lost was never there; that nobody had seen it was just found.
        let durable = topic.durability == Durability::Durable;
        if done.seq > topic.last_seq() {
            ensure!(!(done.told && durable), "it was answered, and is lost");
            return Ok(false);
        }
        let Some(request_id) = self.asked.get(&command) else {
            return Ok(done.seq > 0); // quiet: nobody remembers it, but its events are there
        };
        let within = wall_ns - done.node_ns <= self.window_ns;
        let told = (done.code as u16, done.seq, done.node_ns, done.reply.clone());
        match disk.replies.get(&(done.session, *request_id)) {
            Some(known) if *known == told => Ok(true),
            Some(other) if done.seq > 0 => Err(format!("its answer on disk is {other:?}")),
            _ if within && done.seq > 0 => Err("its events are there, but not its answer".into()),
            _ if within && done.told && durable => Err("it was answered; that is lost".into()),
            _ => Ok(done.seq > 0),
        }
    }
}
