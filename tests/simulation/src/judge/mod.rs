//! The checks on what one connection sees, frame by frame: DESIGN section 4, rules 1, 4, 5, 6 and
//! 7, and `protocol/SPEC.md`.

mod answers;
mod farewell;
mod reads;

use std::collections::BTreeMap;

use tickring_protocol::{
    Decoded, ErrorCode, ErrorFrame, Event, Frame, Gap, GapReason, MAX_FRAME_LEN, Policy, Snapshot,
    Subscribed, Unsubscribed, Welcome, decode,
};

use crate::client::{Around, Resume};
use crate::ensure;
use crate::model::Model;
use crate::shadow::{Asked, Shadow};
use crate::trace::brief;
use answers::{name_refused, reply};
use reads::{page, read_refused};

/// A subscription, as its client knows it.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) topic_id: u32,
    pub(crate) topic: usize,
    pub(crate) epoch: u64,
    pub(crate) policy: Policy,
    pub(crate) next_seq: u64,
    /// What must come before anything else of the topic.
    must: Must,
    /// Whether a delay was told since the last event.
    delayed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Nothing,
    /// A GAP whose `first_seq` is this; `next_seq` was told already.
    Gap(GapReason, u64),
    Snapshot(u64),
}

/// All that a client has seen on one connection.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    /// Bytes that are no whole frame yet.
    pub(crate) bytes: Vec<u8>,
    pub(crate) session: u128,
    pub(crate) subscriptions: Vec<Subscription>,
    /// The last frame, once it came.
    pub(crate) farewell: Option<ErrorCode>,
    pub(crate) eof: bool,
}

impl Sight {
    pub(crate) fn is_over(&self) -> bool {
        self.farewell.is_some() || self.eof
    }

    /// Judges all whole frames that came.
    pub(crate) fn judge(
        &mut self,
        client: usize,
        socket: usize,
        shadow: &mut Shadow,
        resume: &mut BTreeMap<usize, Resume>,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut at = 0;
        loop {
            let (frame, len) = match decode(&bytes[at..], MAX_FRAME_LEN) {
                Ok(Decoded::NeedMore { .. }) => break,
                Ok(Decoded::Frame { frame, len }) => (frame, len),
                other => return Err(format!("client {client}: the server sent {other:?}")),
            };
            around.trace.mix(11, client as u64, &bytes[at..at + len]);
            around
                .trace
                .line(|| format!("client {client}: sees {}", brief(&frame)));
            self.frame(&frame, socket, shadow, resume, around)
                .map_err(|broken| {
                    format!(
                        "client {client} (socket {socket}), at {}: {broken}",
                        brief(&frame)
                    )
                })?;
            at += len;
        }
        self.bytes = bytes;
        self.bytes.drain(..at);
        Ok(())
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        socket: usize,
        shadow: &mut Shadow,
        resume: &mut BTreeMap<usize, Resume>,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        ensure!(self.farewell.is_none(), "it comes behind the farewell");
        match frame {
            Frame::Welcome(welcome) => return self.welcome(welcome, shadow, around),
            Frame::Error(error) if error.fatal => return self.fatal(error, socket, shadow, around),
            Frame::Goodbye(goodbye) => return self.goodbye(goodbye, socket, shadow, around),
            _ => ensure!(self.session != 0, "it comes before WELCOME"),
        }
        match frame {
            Frame::Subscribed(it) => self.subscribed(it, shadow, resume, around),
            Frame::Unsubscribed(it) => self.unsubscribed(it, shadow, resume, around),
            Frame::Event(it) => self.event(it, around),
            Frame::Snapshot(it) => self.snapshot(it, around),
            Frame::Gap(it) => self.gap(it, around),
            Frame::Reply(it) => reply(it, self.session, shadow, around),
            Frame::HistoryPage(it) => page(it, socket, shadow, around),
            Frame::Error(it) => self.error(it, socket, shadow, around),
            Frame::Pong(it) => {
                around.coverage.pongs += 1;
                let due = shadow.pings.pop_front();
                ensure!(due == Some(it.token), "{due:?} was the next PING");
                Ok(())
            }
            _ => Err("only a client sends it, or the server has no reason to".into()),
        }
    }

    fn welcome(
        &mut self,
        it: &Welcome,
        shadow: &Shadow,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        around.coverage.welcomed += 1;
        let limits = &around.plan.limits;
        ensure!(
            shadow.negotiated && self.session == 0,
            "no HELLO asked for it"
        );
        ensure!(
            it.resumed == (shadow.asked_session != 0)
                && (!it.resumed || it.session == shadow.asked_session),
            "it asked for session {:x}",
            shadow.asked_session
        );
        ensure!(
            it.session != 0 && it.major == 1,
            "session or version is wrong"
        );
        ensure!(
            it.max_frame as usize == limits.max_frame_bytes,
            "max_frame is wrong"
        );
        ensure!(
            it.max_subscriptions as usize == limits.max_subscriptions,
            "max_subscriptions is wrong"
        );
        self.session = it.session;
        Ok(())
    }

    fn find(&mut self, topic_id: u32) -> Result<&mut Subscription, String> {
        self.subscriptions
            .iter_mut()
            .find(|s| s.topic_id == topic_id)
            .ok_or_else(|| "no subscription of that topic is open".to_owned())
    }

    fn event(&mut self, it: &Event<'_>, around: &mut Around<'_>) -> Result<(), String> {
        around.coverage.events += 1;
        let sub = self.find(it.topic_id)?;
        ensure!(
            sub.must == Must::Nothing,
            "{:?} had to come first",
            sub.must
        );
        ensure!(it.seq == sub.next_seq, "{} was the next seq", sub.next_seq);
        let topic = &around.model.topics[sub.topic];
        let Some(record) = topic.event(it.seq) else {
            return Err(format!(
                "{} has only {} events",
                topic.name,
                topic.last_seq()
            ));
        };
        ensure!(
            (it.kind, it.event_ns, it.node_ns, it.body)
                == (record.kind, record.event_ns, record.node_ns, &*record.body),
            "its content is not that of {} #{}",
            topic.name,
            it.seq
        );
        (sub.next_seq, sub.delayed) = (it.seq + 1, false);
        around.model.topics[sub.topic].see(it.seq);
        Ok(())
    }

    fn snapshot(&mut self, it: &Snapshot<'_>, around: &mut Around<'_>) -> Result<(), String> {
        around.coverage.snapshots += 1;
        let sub = self.find(it.topic_id)?;
        ensure!(
            sub.must == Must::Snapshot(it.seq),
            "what is due is {:?}",
            sub.must
        );
        sub.must = Must::Nothing;
        let topic = &around.model.topics[sub.topic];
        let Some(record) = topic.event(it.seq) else {
            return Err(format!(
                "{} has only {} events",
                topic.name,
                topic.last_seq()
            ));
        };
        let same = record
            .state
            .as_ref()
            .is_some_and(|(kind, body)| (*kind, &**body) == (it.kind, it.body));
        ensure!(
            same,
            "the state is not the fold of {} up to that seq",
            topic.name
        );
        ensure!(
            (it.event_ns, it.node_ns) == (record.event_ns, record.node_ns),
            "its times are wrong"
        );
        around.model.topics[sub.topic].see(it.seq);
        Ok(())
    }

    fn gap(&mut self, it: &Gap, around: &mut Around<'_>) -> Result<(), String> {
        let (cores, limits) = (around.plan.cores, around.plan.limits);
        let sub = self.find(it.topic_id)?;
        let model = &*around.model;
        let topic = &model.topics[sub.topic];
        if let Must::Gap(reason, first_seq) = sub.must {
            ensure!(
                it.reason == reason && it.first_seq == first_seq,
                "GAP {reason:?} from {first_seq} is due"
            );
            ensure!(
                it.last_seq + 1 == sub.next_seq,
                "SUBSCRIBED told next_seq {}",
                sub.next_seq
            );
        } else {
            ensure!(
                sub.must == Must::Nothing,
                "{:?} had to come first",
                sub.must
            );
            ensure!(
                it.first_seq == sub.next_seq,
                "{} was the next seq",
                sub.next_seq
            );
            ensure!(
                it.reason != GapReason::Reset,
                "the numbering has not changed"
            );
        }
        sub.must = Must::Nothing;
        match it.reason {
            GapReason::Delayed => {
                around.coverage.gap_delayed += 1;
                ensure!(
                    sub.policy == Policy::Resume && it.last_seq == 0,
                    "a delay is told to resume alone"
                );
                ensure!(!sub.delayed, "the delay was told already");
                sub.delayed = true;
                return Ok(());
            }
            GapReason::Conflated => {
                around.coverage.gap_conflated += 1;
                ensure!(
                    sub.policy == Policy::Conflate,
                    "the policy is {:?}",
                    sub.policy
                );
            }
            GapReason::Expired => {
                around.coverage.gap_expired += 1;
                let kept = it.first_seq >= topic.kept_from
                    && must_be_kept(model, sub.topic, cores, &limits);
                ensure!(!kept, "history had room for all events");
            }
            GapReason::Reset => around.coverage.gap_reset += 1,
        }
        ensure!(
            it.last_seq <= topic.last_seq(),
            "{} has only {} events",
            topic.name,
            topic.last_seq()
        );
        ensure!(
            it.reason == GapReason::Reset || it.last_seq >= it.first_seq,
            "it skips nothing"
        );
        if topic.has_snapshots && it.last_seq > 0 {
            sub.must = Must::Snapshot(it.last_seq);
        }
        (sub.next_seq, sub.delayed) = (it.last_seq + 1, false);
        around.model.topics[sub.topic].see(it.last_seq);
        Ok(())
    }

    fn subscribed(
        &mut self,
        it: &Subscribed<'_>,
        shadow: &mut Shadow,
        resume: &BTreeMap<usize, Resume>,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        around.coverage.subscribed += 1;
        let place = shadow.find(
            it.request_id,
            |asked| matches!(asked, Asked::Subscribe { name, .. } if name == it.topic),
        );
        let Some(place) = place else {
            return Err("no SUBSCRIBE asked for it".into());
        };
        let Asked::Subscribe {
            from_seq,
            epoch,
            policy,
            known,
            ..
        } = shadow.pending.remove(place).what
        else {
            return Err("it answers another request".into());
        };
        let Some(topic) = around.model.find(it.topic) else {
            return Err("there is no such topic".into());
        };
        around.model.learn_id(topic, it.topic_id)?;
        let truth = &around.model.topics[topic];
        let last = it.last_seq;
        ensure!(
            self.subscriptions.iter().all(|s| s.topic != topic),
            "the client holds it already"
        );
        ensure!(it.epoch == truth.epoch, "the epoch is {}", truth.epoch);
        ensure!(
            (known..=truth.last_seq()).contains(&last),
            "last_seq is none of {known} to {}",
            truth.last_seq()
        );
        let in_force = if policy == Policy::Default {
            truth.policy
        } else {
            policy
        };
        ensure!(it.policy == in_force, "the policy in force is {in_force:?}");
        let snapshot = if truth.has_snapshots && last > 0 {
            Must::Snapshot(last)
        } else {
            Must::Nothing
        };
        let (next_seq, must) = if from_seq == 0 {
            (last + 1, snapshot)
        } else if from_seq > last + 1 || ![0, truth.epoch].contains(&epoch) {
            (last + 1, Must::Gap(GapReason::Reset, from_seq))
        } else if it.next_seq == from_seq {
            (from_seq, Must::Nothing)
        } else {
            // Where there is no state to skip to, what is left of the events is given.
            let to = if truth.has_snapshots {
                last + 1
            } else {
                it.next_seq.clamp(from_seq, last + 1)
            };
            (to, Must::Gap(GapReason::Expired, from_seq))
        };
        ensure!(it.next_seq == next_seq, "next_seq has to be {next_seq}");
        around.coverage.replayed += u64::from(must == Must::Nothing && next_seq <= last);
        let took_up = resume
            .get(&topic)
            .filter(|known| known.seq + 1 == from_seq && known.epoch == epoch && known.seq > 0);
        if let Some(known) = took_up {
            let (live, again) = (must == Must::Nothing, known.run < around.model.run);
            around.coverage.resumed += u64::from(live);
            around.coverage.resumed_after_restart += u64::from(live && again);
            around.coverage.reset_after_restart +=
                u64::from(matches!(must, Must::Gap(GapReason::Reset, _)) && again);
        }
        around.model.topics[topic].see(last);
        self.subscriptions.push(Subscription {
            topic_id: it.topic_id,
            topic,
            epoch: it.epoch,
            policy: it.policy,
            next_seq,
            must,
            delayed: false,
        });
        let most = around.plan.limits.max_subscriptions;
        ensure!(
            self.subscriptions.len() <= most,
            "max_subscriptions is {most}"
        );
        Ok(())
    }

    fn unsubscribed(
        &mut self,
        it: &Unsubscribed,
        shadow: &mut Shadow,
        resume: &mut BTreeMap<usize, Resume>,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        around.coverage.unsubscribed += 1;
        let place = shadow.find(
            it.request_id,
            |asked| matches!(asked, Asked::Unsubscribe(id) if *id == it.topic_id),
        );
        let Some(place) = place else {
            return Err("no UNSUBSCRIBE asked for it".into());
        };
        shadow.pending.remove(place);
        let sub = self.find(it.topic_id)?;
        ensure!(sub.must == Must::Nothing, "{:?} was promised", sub.must);
        ensure!(
            it.last_seq + 1 == sub.next_seq,
            "{} was the next seq",
            sub.next_seq
        );
        let known = Resume {
            epoch: sub.epoch,
            seq: it.last_seq,
            run: around.model.run,
        };
        resume.insert(sub.topic, known);
        let behind = it.last_seq < around.model.topics[sub.topic].last_seq();
        around.coverage.unsubscribed_behind += u64::from(behind);
        self.subscriptions.retain(|s| s.topic_id != it.topic_id);
        Ok(())
    }

    /// An ERROR that refuses one request.
    fn error(
        &mut self,
        it: &ErrorFrame<'_>,
        socket: usize,
        shadow: &mut Shadow,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let place = shadow.find(it.request_id, |asked| match asked {
            Asked::Subscribe { .. } | Asked::LongSubscribe => it.frame_type == 0x02,
            Asked::Unsubscribe(_) => it.frame_type == 0x03,
            Asked::History { .. } | Asked::LongHistory => it.frame_type == 0x08,
            _ => false,
        });
        let Some(place) = place else {
            return Err("nothing asked for it".into());
        };
        let opening = shadow.pending[..place]
            .iter()
            .filter(|p| matches!(p.what, Asked::Subscribe { .. }))
            .count();
        let reading = shadow.pending[..place]
            .iter()
            .filter(|p| matches!(p.what, Asked::History { .. }))
            .count();
        let most = around.plan.limits.max_subscriptions;
        let held = self.subscriptions.len();
        match (shadow.pending.remove(place).what, it.known_code()) {
            (Asked::LongSubscribe | Asked::LongHistory, Some(ErrorCode::NameTooLong)) => {}
            (Asked::History { topic }, Some(code)) => {
                read_refused(&topic, code, it, (socket, reading), around)?;
            }
            (Asked::Subscribe { .. }, Some(ErrorCode::SubscriptionLimit)) => {
                around.coverage.subscription_limit += 1;
                ensure!(
                    held + opening >= most,
                    "it holds {held}, has asked for {opening}, of {most}"
                );
            }
            (Asked::Subscribe { name, .. }, Some(ErrorCode::AlreadySubscribed)) => {
                around.coverage.already_subscribed += 1;
                let topic = around.model.find(&name);
                let holds = self.subscriptions.iter().any(|s| Some(s.topic) == topic);
                ensure!(holds, "the client does not hold {name}");
            }
            (Asked::Subscribe { .. }, Some(ErrorCode::Overloaded)) => {
                let waits = around.plan.cores > 1 || around.model.journal;
                ensure!(waits, "a lone core waits for nobody");
                ensure!(it.retry_after_ms > 0, "it does not say when to try again");
                around.coverage.overloaded += 1;
            }
            (Asked::Subscribe { name, .. }, Some(code)) => name_refused(&name, code, around)?,
            (Asked::Unsubscribe(id), Some(ErrorCode::NotSubscribed)) => {
                around.coverage.not_subscribed += 1;
                ensure!(
                    self.subscriptions.iter().all(|s| s.topic_id != id),
                    "the client holds it"
                );
            }
            (asked, _) => return Err(format!("the code does not fit {asked:?}")),
        }
        Ok(())
    }
}

/// Whether history is so large that no event of the topic can have been given up. A chunk is at
/// most twice as large as the one before it, so that capacities stay below four times the bytes.
fn must_be_kept(
    model: &Model,
    topic: usize,
    cores: usize,
    limits: &tickring::core::Limits,
) -> bool {
    let room = |bytes: usize| 4 * bytes + 2_048;
    let Some(id) = model.topics[topic].id else {
        return false;
    };
    let owner = id as usize % cores;
    // A topic whose id nobody has seen may be anywhere, and recovery folds a lane's topics together.
    let all: usize = model
        .topics
        .iter()
        .filter(|t| model.run > 0 || t.id.is_none_or(|id| id as usize % cores == owner))
        .map(|t| room(t.bytes))
        .sum();
    room(model.topics[topic].bytes) <= limits.history_topic_bytes && all <= limits.history_bytes
}
