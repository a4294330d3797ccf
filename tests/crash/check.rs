//! The journal against what clients were told and saw.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use tickring::journal::record::Record;
use tickring::journal::{Progress, lane_dir, lanes, verify};

use super::publish::{Publisher, Request};
use super::subscribe::{Subscriber, mark};
use super::{DURABLE, VOLATILE};

/// What is wrong.
pub(crate) type Checked<T> = Result<T, String>;

/// Gives up with a reason unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(format!($($why)+));
        }
    };
}
pub(crate) use ensure;

/// An event as the journal has it.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) kind: u16,
    pub(crate) request_id: u64,
    pub(crate) session: u128,
    pub(crate) event_ns: u64,
    pub(crate) node_ns: u64,
    pub(crate) body: Vec<u8>,
}

/// What the journal holds.
#[derive(Default)]
pub(crate) struct Journal {
    /// By topic, in the order of the journal.
    pub(crate) topics: BTreeMap<String, Vec<Event>>,
    /// Of each lane: position of its last event, if it has any, and its end.
    pub(crate) lanes: Vec<(Option<u64>, u64)>,
}

impl Journal {
    pub(crate) fn read(dir: &Path) -> Checked<Self> {
        let mut journal = Self::default();
        for lane in 0..lanes(dir).map_err(|error| error.to_string())? {
            let dir = lane_dir(dir, lane);
            let report = verify(&dir, lane, &Progress::default());
            let report = report.map_err(|error| error.to_string())?;
            ensure!(report.is_good(), "lane {lane}: {report:?}");
            ensure!(report.torn.is_none(), "lane {lane}: {:?}", report.torn);
            let last = journal.read_lane(&dir, lane)?;
            journal.lanes.push((last, report.position));
        }
        Ok(journal)
    }

    fn read_lane(&mut self, dir: &Path, lane: u32) -> Checked<Option<u64>> {
        let (mut names, mut last) = (Vec::<(String, u64)>::new(), None);
        let read = tickring::journal::dump(dir, lane, |entry| match entry.record {
            Record::Topic(topic) if entry.topic == names.len() => {
                names.push((topic.name.to_owned(), topic.epoch));
            }
            Record::Event(event) => {
                last = Some(entry.position);
                let (name, epoch) = &names[entry.topic];
                let events = self.topics.entry(name.clone()).or_default();
                events.push(Event {
                    epoch: *epoch,
                    seq: event.seq,
                    kind: event.kind,
                    request_id: event.request_id,
                    session: event.session,
                    event_ns: event.event_ns,
                    node_ns: event.node_ns,
                    body: event.body.to_vec(),
                });
            }
            _ => {}
        });
        read.map(|()| last).map_err(|error| error.to_string())
    }

    pub(crate) fn events(&self) -> usize {
        self.topics.values().map(Vec::len).sum()
    }

    fn of(&self, topic: &str) -> &[Event] {
        self.topics.get(topic).map_or(&[], Vec::as_slice)
    }
}

/// No seq is left out or used twice, in no topic.
pub(crate) fn seqs(journal: &Journal) -> Checked<()> {
    for (topic, events) in &journal.topics {
        for (event, seq) in events.iter().zip(1..) {
            ensure!(
                event.seq == seq,
                "{topic}: {} behind {}",
                event.seq,
                seq - 1
            );
        }
    }
    Ok(())
}

/// What commands came to.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    pub(crate) durable: usize,
    /// Of these: sent again after a crash because no answer had come.
    pub(crate) retried: usize,
    /// Of those: what had been carried out before the crash already.
    pub(crate) carried_out: usize,
    pub(crate) volatile: usize,
    /// Of these: answered, and gone with a crash, as a volatile topic's last moments may.
    pub(crate) gone: usize,
}

/// Every durable command had one effect, the one that was asked for, with the seq that was answered.
/// So had volatile ones that no crash could take back.
pub(crate) fn commands(journal: &Journal, publishers: &[Publisher]) -> Checked<Commands> {
    let mut effects: HashMap<(u128, u64), Vec<(&str, &Event)>> = HashMap::new();
    for (topic, events) in &journal.topics {
        for event in events {
            let key = (event.session, event.request_id);
            effects.entry(key).or_default().push((topic, event));
        }
    }
    let mut counts = Commands::default();
    for publisher in publishers {
        for (id, request) in &publisher.requests {
            let who = format!("request {id} of publisher {:x}", publisher.session);
            let found = effects.remove(&(publisher.session, *id));
            let found = found.unwrap_or_default();
            for (topic, event) in &found {
                ensure!(
                    is_asked_for(request, topic, event),
                    "{who} had another effect"
                );
            }
            let answered = |(_, event): &&(&str, &Event)| Some(event.seq) == request.seq;
            let times = found.iter().filter(answered).count();
            let settled = publisher.durable || *id >= publisher.last_life;
            ensure!(
                !settled || (found.len() == 1 && times == 1),
                "{who}, answered with seq {:?}, had {} effects, {times} of them with that seq",
                request.seq,
                found.len()
            );
            if publisher.durable {
                counts.durable += 1;
                counts.retried += usize::from(request.retried_ns != 0);
                counts.carried_out += usize::from(found[0].1.node_ns < request.retried_ns);
            } else {
                counts.volatile += 1;
                counts.gone += usize::from(times == 0);
            }
        }
    }
    ensure!(
        effects.is_empty(),
        "{} commands that nobody sent",
        effects.len()
    );
    Ok(counts)
}

fn is_asked_for(request: &Request, topic: &str, event: &Event) -> bool {
    (request.topic, request.kind, request.event_ns) == (topic, event.kind, event.event_ns)
        && request.body == event.body
}

/// Durable topics: every subscriber saw all of the journal and nothing else. Volatile topics: what
/// was seen is in the journal unchanged, or went with the end of its epoch. Gives how many events.
pub(crate) fn seen(journal: &Journal, subscribers: &[Subscriber]) -> Checked<(usize, usize)> {
    let (mut durable, mut volatile) = (0, 0);
    for topic in DURABLE.into_iter().chain(VOLATILE) {
        let events = journal.of(topic);
        let mut newest: HashMap<u64, u64> = HashMap::new();
        let mut marks: HashMap<(u64, u64), u64> = HashMap::new();
        for event in events {
            newest.insert(event.epoch, event.seq);
            let says = mark(event.kind, event.event_ns, event.node_ns, &event.body);
            marks.insert((event.epoch, event.seq), says);
        }
        for subscriber in subscribers {
            let seen = &subscriber.seen[topic].events;
            for ((epoch, seq), says) in seen {
                match marks.get(&(*epoch, *seq)) {
                    Some(journaled) => {
                        ensure!(journaled == says, "{topic} {seq} was seen otherwise");
                        volatile += usize::from(topic.starts_with("market/"));
                    }
                    None => ensure!(
                        topic.starts_with("market/")
                            && newest.get(epoch).is_none_or(|newest| seq > newest),
                        "{topic} {seq} was seen and is gone"
                    ),
                }
            }
            if topic.starts_with("log/") {
                let (seen, all) = (seen.len(), events.len());
                ensure!(seen == all, "{topic}: {seen} of {all} events were seen");
                durable += seen;
            }
        }
    }
    Ok((durable, volatile))
}
