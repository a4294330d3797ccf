//! The checks on what one connection sees, frame by frame: DESIGN section 4, rules 1, 4, 5, 6 and
//! 7, and `protocol/SPEC.md`.

use std::collections::BTreeMap;

use tickring_protocol::{
    Decoded, ErrorCode, ErrorFrame, Event, Frame, Gap, GapReason, Goodbye, MAX_FRAME_LEN, Policy,
    Reply, Snapshot, Subscribed, TopicName, Unsubscribed, Welcome, decode,
};

use crate::client::{Around, brief};
use crate::coverage::Coverage;
use crate::ensure;
use crate::model::{Model, is_kind};
use crate::plan::Plan;
use crate::shadow::{Asked, Shadow};
use crate::socket::Socket;

/// A subscription, as its client knows it.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) topic_id: u32,
    pub(crate) topic: usize,
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
        resume: &mut BTreeMap<usize, u64>,
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
        resume: &mut BTreeMap<usize, u64>,
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
            Frame::Reply(it) => reply(it, shadow, around),
            Frame::Error(it) => self.error(it, shadow, around),
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
                ensure!(
                    !must_be_kept(model, sub.topic, cores, &limits),
                    "history had room for all events"
                );
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
        Ok(())
    }

    fn subscribed(
        &mut self,
        it: &Subscribed<'_>,
        shadow: &mut Shadow,
        resume: &BTreeMap<usize, u64>,
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
        ensure!(it.epoch == around.plan.epoch, "the epoch is wrong");
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
        } else if from_seq > last + 1 || ![0, around.plan.epoch].contains(&epoch) {
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
            .is_some_and(|seq| seq + 1 == from_seq && epoch != 0);
        around.coverage.resumed += u64::from(took_up && must == Must::Nothing);
        self.subscriptions.push(Subscription {
            topic_id: it.topic_id,
            topic,
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
        resume: &mut BTreeMap<usize, u64>,
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
        resume.insert(sub.topic, it.last_seq);
        let behind = it.last_seq < around.model.topics[sub.topic].last_seq();
        around.coverage.unsubscribed_behind += u64::from(behind);
        self.subscriptions.retain(|s| s.topic_id != it.topic_id);
        Ok(())
    }

    /// An ERROR that refuses one request.
    fn error(
        &mut self,
        it: &ErrorFrame<'_>,
        shadow: &mut Shadow,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let place = shadow.find(it.request_id, |asked| match asked {
            Asked::Subscribe { .. } | Asked::LongSubscribe => it.frame_type == 0x02,
            Asked::Unsubscribe(_) => it.frame_type == 0x03,
            _ => false,
        });
        let Some(place) = place else {
            return Err("nothing asked for it".into());
        };
        let opening = shadow.pending[..place]
            .iter()
            .filter(|p| matches!(p.what, Asked::Subscribe { .. }))
            .count();
        let most = around.plan.limits.max_subscriptions;
        let held = self.subscriptions.len();
        match (shadow.pending.remove(place).what, it.known_code()) {
            (Asked::LongSubscribe, Some(ErrorCode::NameTooLong)) => {}
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
            (Asked::Subscribe { name, .. }, Some(code)) => name_refused(&name, code, around)?,
            (Asked::Unsubscribe(id), Some(ErrorCode::NotSubscribed | ErrorCode::UnknownTopic)) => {
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

    /// An ERROR that closes the connection.
    fn fatal(
        &mut self,
        it: &ErrorFrame<'_>,
        socket: usize,
        shadow: &Shadow,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let limits = &around.plan.limits;
        let socket = &around.sockets[socket];
        let Some(code) = it.known_code() else {
            return Err("its code is unknown".into());
        };
        self.farewell = Some(code);
        match code {
            ErrorCode::HelloTimeout => {
                around.coverage.hello_timeout += 1;
                let since = around.now - socket.accepted_at;
                ensure!(
                    self.session == 0 && since >= limits.hello_timeout.as_nanos() as u64,
                    "there was time left"
                );
            }
            ErrorCode::ConnectionLimit => {
                around.coverage.connection_limit += 1;
                ensure!(
                    socket.over_limit && it.retry_after_ms > 0,
                    "the core had room"
                );
            }
            ErrorCode::IdleTimeout | ErrorCode::SlowConsumer => {
                self.given_up(code, socket, around.now, around.plan, around.coverage)?
            }
            code => {
                around.coverage.violations += 1;
                ensure!(
                    shadow.doomed == Some(code),
                    "what the client did is {:?}",
                    shadow.doomed
                );
            }
        }
        Ok(())
    }

    /// The server ends a connection that is silent or too slow: not without reason.
    fn given_up(
        &self,
        code: ErrorCode,
        socket: &Socket,
        now: u64,
        plan: &Plan,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        if code == ErrorCode::IdleTimeout {
            coverage.idle_timeout += 1;
            let idle = plan.limits.idle_timeout.as_nanos() as u64;
            ensure!(
                idle > 0 && now - socket.accepted_at >= idle,
                "there was time left"
            );
        } else {
            coverage.slow_consumer += 1;
            let wants = self
                .subscriptions
                .iter()
                .any(|s| s.policy == Policy::Disconnect);
            ensure!(wants, "no subscription has the policy disconnect");
        }
        Ok(())
    }

    fn goodbye(
        &mut self,
        it: &Goodbye<'_>,
        socket: usize,
        shadow: &Shadow,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        let Some(code) = ErrorCode::from_u16(it.code) else {
            return Err("its code is unknown".into());
        };
        self.farewell = Some(code);
        match code {
            ErrorCode::Ok => {
                around.coverage.goodbyes += 1;
                ensure!(
                    shadow.goodbye || (shadow.half_closed && shadow.doomed.is_none()),
                    "the client stays"
                );
                ensure!(shadow.pings.is_empty(), "a PING was not answered");
                settled(shadow, around.model)
            }
            ErrorCode::ShuttingDown => {
                around.coverage.shutting_down += 1;
                ensure!(
                    around.stopping[around.sockets[socket].core],
                    "the node is not stopping"
                );
                ensure!(
                    it.retry_after_ms > 0,
                    "it does not tell when to connect again"
                );
                told(shadow, around.model)
            }
            // SPEC.md section 10 has an ERROR here; the server says it with a GOODBYE.
            ErrorCode::IdleTimeout | ErrorCode::SlowConsumer => self.given_up(
                code,
                &around.sockets[socket],
                around.now,
                around.plan,
                around.coverage,
            ),
            _ => Err("no GOODBYE has that code".into()),
        }
    }

    /// The stream has ended: without a farewell only where there can be none.
    pub(crate) fn end_of_stream(
        &mut self,
        socket: usize,
        shadow: &Shadow,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        self.eof = true;
        if self.farewell.is_some() {
            ensure!(self.bytes.is_empty(), "bytes follow the farewell");
            return Ok(());
        }
        around.coverage.silent_closes += 1;
        let limits = &around.plan.limits;
        let it = &around.sockets[socket];
        let drain = limits.drain_timeout.as_nanos() as u64;
        // The client shut its side before it said HELLO: there is nobody to talk to.
        if it.failed || (self.session == 0 && shadow.half_closed) {
            return Ok(());
        }
        let disconnects = self
            .subscriptions
            .iter()
            .any(|s| s.policy == Policy::Disconnect)
            || shadow.pending.iter().any(|p| {
                matches!(
                    p.what,
                    Asked::Subscribe {
                        policy: Policy::Disconnect,
                        ..
                    }
                )
            });
        let server_ended = around.stopping[it.core]
            || it.over_limit
            || disconnects
            || !limits.idle_timeout.is_zero();
        let hello = self.session == 0
            && around.now >= it.accepted_at + limits.hello_timeout.as_nanos() as u64;
        let asked = shadow.ended_at.is_some_and(|at| around.now >= at + drain);
        ensure!(
            server_ended || hello || asked,
            "socket {socket} was closed without ERROR or GOODBYE, and nothing explains it"
        );
        Ok(())
    }

    /// Whether the connection has all that it can have, now that nothing moves any more.
    pub(crate) fn complete(&self, shadow: &Shadow, model: &Model) -> Result<(), String> {
        if self.is_over() {
            return Ok(());
        }
        ensure!(!shadow.is_over(), "it waits for a farewell in vain");
        if self.session == 0 {
            ensure!(!shadow.negotiated, "it waits for WELCOME in vain");
            return Ok(());
        }
        ensure!(self.bytes.is_empty(), "the last frame is not whole");
        for sub in &self.subscriptions {
            let topic = &model.topics[sub.topic];
            ensure!(
                sub.must == Must::Nothing,
                "{:?} of {} never came",
                sub.must,
                topic.name
            );
            ensure!(
                sub.next_seq == topic.last_seq() + 1,
                "{} #{} of {} never came",
                topic.name,
                sub.next_seq,
                topic.last_seq()
            );
        }
        ensure!(shadow.pings.is_empty(), "a PING was never answered");
        settled(shadow, model)
    }
}

/// All that was asked for has been answered: what was written was taken in, all of it.
fn settled(shadow: &Shadow, model: &Model) -> Result<(), String> {
    for pending in &shadow.pending {
        match &pending.what {
            Asked::Command {
                command,
                quiet: true,
                ..
            } => {
                let applied = model.applied.contains_key(command);
                ensure!(
                    applied,
                    "the quiet command {} was neither applied nor refused",
                    pending.request_id
                );
            }
            // Who says GOODBYE does not want it any more.
            Asked::Subscribe { .. } if shadow.is_over() => {}
            _ => return Err(format!("{pending:?} was not answered")),
        }
    }
    Ok(())
}

/// Whatever was done for the client was told to it.
fn told(shadow: &Shadow, model: &Model) -> Result<(), String> {
    for pending in &shadow.pending {
        if let Asked::Command { command, quiet, .. } = &pending.what {
            let refused = model.refused.contains_key(command);
            let applied = !quiet && model.applied.contains_key(command);
            ensure!(
                !refused && !applied,
                "command {} was done but not answered",
                pending.request_id
            );
        }
    }
    Ok(())
}

fn reply(it: &Reply<'_>, shadow: &mut Shadow, around: &mut Around<'_>) -> Result<(), String> {
    // Bytes that were spoiled may have given two commands one id; their outcomes tell them apart.
    let ok = it.code == ErrorCode::Ok as u16;
    let applied = &around.model.applied;
    let fits = |asked: &Asked| match asked {
        Asked::Command { command, .. } => applied.contains_key(command) == ok,
        Asked::LongCommand => !ok,
        _ => false,
    };
    let any = |asked: &Asked| matches!(asked, Asked::Command { .. } | Asked::LongCommand);
    let place = shadow
        .find(it.request_id, fits)
        .or_else(|| shadow.find(it.request_id, any));
    let Some(place) = place else {
        return Err("no COMMAND asked for it, or it was answered before".into());
    };
    let earlier = first_of_topic(shadow, place, around.model);
    ensure!(
        earlier.is_none(),
        "request {earlier:?} to the same topic was to be answered before"
    );
    let Asked::Command {
        command,
        quiet,
        name,
        topic_id,
    } = shadow.pending.remove(place).what
    else {
        ensure!(
            it.code == ErrorCode::NameTooLong as u16 && it.topic_id == 0,
            "the name is too long"
        );
        return Ok(());
    };
    let model = &mut *around.model;
    let Some(code) = ErrorCode::from_u16(it.code) else {
        return Err("its code is unknown".into());
    };
    if code == ErrorCode::Ok {
        around.coverage.replies += 1;
        ensure!(!quiet, "a quiet command succeeded");
        let Some(&(topic, seq)) = model.applied.get(&command) else {
            return Err("the command was never applied".into());
        };
        model.learn_id(topic, it.topic_id)?;
        ensure!(
            name.is_empty() || *name == *model.topics[topic].name,
            "it was applied to another topic"
        );
        ensure!(it.seq == seq, "its newest event is #{seq}");
        if let Some(record) = model.topics[topic].event(seq) {
            ensure!(
                record.command == command,
                "#{seq} is the event of another command"
            );
        }
        around.coverage.odd_events += u64::from(seq == 0);
        return Ok(());
    }
    around.coverage.refused_commands += 1;
    around.coverage.refused_quiet += u64::from(quiet);
    ensure!(
        !model.applied.contains_key(&command),
        "a refused command was applied"
    );
    if let Some(refusal) = model.refused.get(&command) {
        ensure!(*refusal == code, "the machine's code is {refusal}");
        return Ok(());
    }
    if topic_id == 0 {
        return name_refused(&name, code, around);
    }
    ensure!(code == ErrorCode::UnknownTopic, "no machine refused it");
    ensure!(
        model.by_id(topic_id).is_none(),
        "that topic id was given out"
    );
    Ok(())
}

/// The request id of a command to the same topic that is older and not answered yet.
fn first_of_topic(shadow: &Shadow, place: usize, model: &Model) -> Option<u64> {
    let key = |asked: &Asked| match asked {
        Asked::Command {
            topic_id: 0, name, ..
        } => Some(model.find(name).ok_or_else(|| name.clone())),
        Asked::Command { topic_id, .. } => {
            Some(model.by_id(*topic_id).ok_or_else(|| topic_id.to_string()))
        }
        _ => None,
    };
    let mine = key(&shadow.pending[place].what)?;
    shadow.pending[..place]
        .iter()
        .find(|p| {
            matches!(p.what, Asked::Command { quiet: false, .. })
                && key(&p.what).as_ref() == Some(&mine)
        })
        .map(|p| p.request_id)
}

/// A topic could not be opened by this name: the code must say why.
fn name_refused(name: &str, code: ErrorCode, around: &mut Around<'_>) -> Result<(), String> {
    let expected = match TopicName::new(name) {
        Err(error) => error.code(),
        Ok(topic) if !is_kind(topic.kind()) => ErrorCode::UnknownKind,
        Ok(_) => {
            around.coverage.topic_limit += 1;
            ensure!(around.model.find(name).is_none(), "{name} exists");
            ensure!(
                around.model.topics.len() >= around.plan.limits.max_topics,
                "max_topics is not reached"
            );
            ErrorCode::TopicLimit
        }
    };
    ensure!(code == expected, "the reason for {name:?} is {expected}");
    Ok(())
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
    // A topic whose id nobody has seen may be anywhere.
    let all: usize = model
        .topics
        .iter()
        .filter(|t| t.id.is_none_or(|id| id as usize % cores == owner))
        .map(|t| room(t.bytes))
        .sum();
    room(model.topics[topic].bytes) <= limits.history_topic_bytes && all <= limits.history_bytes
}
