//! The session's state but for the receive buffer, and the life of its connections.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tickring_protocol::{
    ErrorCode, Frame, Goodbye, Hello, MAX_CREDENTIALS_LEN, MAX_FRAME_LEN, MAX_NAME_LEN, Ping,
    VERSION_MAJOR, VERSION_MINOR,
};

use super::backoff::Backoff;
use super::outbox::Outbox;
use super::topics::{Stage, Subscription, Topics};
use super::{HistoryQuery, RequestError, SessionConfig};
use crate::{Disconnected, Notice, ProtocolError, Reason};

/// A notice whose borrowed parts are told by place, so that it can be found while the state
/// changes and shown afterwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) fixed: Notice<'static>,
    pub(crate) slot: Option<u32>,
    /// Where in the receive buffer the body lies.
    pub(crate) body: (usize, usize),
}

impl Step {
    pub(crate) fn plain(fixed: Notice<'static>) -> Self {
        Self {
            fixed,
            slot: None,
            body: (0, 0),
        }
    }

    pub(crate) fn of(slot: u32, fixed: Notice<'static>) -> Self {
        Self {
            slot: Some(slot),
            ..Self::plain(fixed)
        }
    }
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is none.
    Offline,
    /// HELLO was queued; WELCOME must follow.
    Hello,
    /// In use.
    Active,
    /// The server said that it will close. Requests wait for the next connection.
    Draining,
    /// This side said GOODBYE.
    Closing,
}

/// A request other than a command that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    Subscribe(u32),
    Unsubscribe(u32),
    /// A publish that asked for a reply to learn the topic's id.
    Learn(u32),
    /// A page of stored rows, which [`State::reads`] can ask for again.
    History,
}

/// A command whose reply is outstanding.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) request_id: u64,
    pub(crate) slot: u32,
    pub(crate) command: u16,
    pub(crate) payload: Vec<u8>,
    /// Where it starts in the bytes of this connection; `None`: not queued on any.
    pub(crate) at: Option<u64>,
    /// It may have reached a server on an earlier connection.
    pub(crate) maybe_applied: bool,
}

/// A read of stored rows whose page is outstanding.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) topic: Box<str>,
    pub(crate) query: HistoryQuery,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingPing {
    pub(crate) token: u64,
    /// Publishes of this connection queued before it.
    pub(crate) published: u64,
    /// The user wants to know of the PONG.
    pub(crate) asked: bool,
}

/// Sends and checks signs of life, twice in a heartbeat.
#[derive(Clone, Copy, Debug)]
struct Heartbeat {
    period: Duration,
    due: Duration,
    spoke: bool,
    heard: bool,
    silent_ticks: u32,
}

/// Ticks without a byte from the server after which it is given up: three heartbeats.
const SILENT_TICKS: u32 = 6;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: SessionConfig,
    pub(crate) now: Duration,
    pub(crate) phase: Phase,
    pub(crate) closed: bool,
    pub(crate) outbox: Outbox,
    pub(crate) topics: Topics,
    pub(crate) pending: HashMap<u64, Pending>,
    /// By request id, ascending.
    pub(crate) in_flight: VecDeque<InFlight>,
    /// By request id: asked for again on the next connection, since reading changes nothing.
    pub(crate) reads: BTreeMap<u64, Read>,
    pub(crate) pings: VecDeque<PendingPing>,
    /// Some subscription waits for a PING that was not sent yet.
    unsettled: bool,
    /// Token of the newest PONG.
    pub(crate) ponged: u64,
    pub(crate) next_request: u64,
    pub(crate) next_token: u64,
    /// Publishes queued on this connection, and how many of them a PONG has confirmed.
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) server_max_frame: usize,
    pub(crate) scratch: Vec<u8>,
    /// The session's token, a secret; 0: none yet.
    pub(crate) token: u128,
    /// Notices that wait for their turn.
    pub(crate) queued: VecDeque<Step>,
    /// Topics that may no longer be needed once the queued notices are shown.
    pub(crate) unused: Vec<u32>,
    /// The transport is gone; told of once what it brought is delivered.
    pub(crate) lost: Option<Reason>,
    /// The server said GOODBYE and waits for ours.
    pub(crate) owes_goodbye: bool,
    /// Why the connection will end, told before it did; and no reconnect before that long.
    pub(crate) ending: Option<(Reason, u32)>,
    pub(crate) last_reason: Option<Reason>,
    pub(crate) retry_at: Option<Duration>,
    backoff: Backoff,
    pub(crate) failures: u32,
    pub(crate) active_since: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    heartbeat: Option<Heartbeat>,
}

impl State {
    pub(crate) fn new(config: SessionConfig) -> Result<Self, RequestError> {
        if config.name.len() > MAX_NAME_LEN || config.credentials.len() > MAX_CREDENTIALS_LEN {
            return Err(RequestError::BadName);
        }
        Ok(Self {
            backoff: Backoff::new(config.backoff_min, config.backoff_max, config.seed),
            topics: Topics::new(config.max_topics),
            config,
            now: Duration::ZERO,
            phase: Phase::Offline,
            closed: false,
            outbox: Outbox::default(),
            pending: HashMap::new(),
            in_flight: VecDeque::new(),
            reads: BTreeMap::new(),
            pings: VecDeque::new(),
            unsettled: false,
            ponged: 0,
            next_request: 1,
            next_token: 1,
            published: 0,
            confirmed: 0,
            server_max_frame: MAX_FRAME_LEN,
            scratch: Vec::new(),
            token: 0,
            queued: VecDeque::new(),
            unused: Vec::new(),
            lost: None,
            owes_goodbye: false,
            ending: None,
            last_reason: None,
            retry_at: Some(Duration::ZERO),
            failures: 0,
            active_since: None,
            deadline: None,
            heartbeat: None,
        })
    }

    pub(crate) fn open(&mut self, now: Duration) {
        assert!(
            self.phase == Phase::Offline && self.lost.is_none(),
            "the last connection must have ended, and its notices been taken, before a new one"
        );
        self.now = now;
        self.phase = Phase::Hello;
        self.retry_at = None;
        self.outbox.reset();
        self.outbox.put(&Frame::Hello(Hello {
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            session: self.token,
            name: &self.config.name,
            credentials: &self.config.credentials,
        }));
        self.deadline = Some(now + self.config.answer_timeout);
    }

    pub(crate) fn lose(&mut self, reason: Reason) {
        if self.phase != Phase::Offline || self.retry_at.is_some() {
            self.lost.get_or_insert(reason);
        }
    }

    pub(crate) fn heard(&mut self, now: Duration) {
        self.now = now;
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.heard = true;
        }
        if matches!(self.phase, Phase::Draining | Phase::Closing) {
            // As long as it sends what it promised, it is not late.
            self.deadline = Some(now + self.config.answer_timeout);
        }
    }

    pub(crate) fn spoke(&mut self, len: usize) {
        self.outbox.taken(len);
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.spoke |= len > 0;
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let beat = self.heartbeat.map(|beat| beat.due);
        self.deadline.into_iter().chain(beat).min()
    }

    pub(crate) fn start_heartbeat(&mut self, heartbeat_ms: u32) {
        self.deadline = None;
        let period = Duration::from_millis(u64::from(heartbeat_ms)) / 2;
        self.heartbeat = (!period.is_zero()).then_some(Heartbeat {
            period,
            due: self.now + period,
            spoke: true,
            heard: true,
            silent_ticks: 0,
        });
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        self.now = now;
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            self.lose(Reason::HelloTimeout);
        }
        let Some(beat) = &mut self.heartbeat else {
            return;
        };
        if beat.due > now {
            return;
        }
        // One tick however late it is: a user who was away is no proof of a dead server.
        beat.silent_ticks = if beat.heard { 0 } else { beat.silent_ticks + 1 };
        let quiet = !beat.spoke || !beat.heard;
        let given_up = beat.silent_ticks >= SILENT_TICKS;
        beat.due = now + beat.period;
        beat.spoke = false;
        beat.heard = false;
        if given_up {
            self.lose(Reason::Silent);
        } else if quiet && self.phase == Phase::Active {
            self.put_ping(false);
        }
    }

    /// Asks for a sign that no snapshot follows, for a subscription that is owed one perhaps:
    /// until it comes, a reconnect would have to ask for the state again. One PING serves all
    /// subscriptions confirmed before it.
    pub(crate) fn seek_settlement(&mut self, slot: u32) {
        let Some(subscription) = &mut self.topics.get_mut(slot).subscription else {
            return;
        };
        if !subscription.sequence.is_unsettled() {
            return;
        }
        subscription.settled_by = self.next_token;
        self.unsettled = true;
        self.ping_to_settle();
    }

    /// Sends the PING of [`State::seek_settlement`] unless another is on its way.
    pub(crate) fn ping_to_settle(&mut self) {
        if self.unsettled && self.pings.is_empty() && self.phase == Phase::Active {
            self.unsettled = false;
            self.put_ping(false);
        }
    }

    pub(crate) fn put_ping(&mut self, asked: bool) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.outbox.put(&Frame::Ping(Ping { token }));
        self.pings.push_back(PendingPing {
            token,
            published: self.published,
            asked,
        });
        token
    }

    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        match self.phase {
            Phase::Offline => {
                self.retry_at.get_or_insert(self.now);
                self.lose(Reason::Closed);
            }
            Phase::Hello => self.lose(Reason::Closed),
            Phase::Active => {
                self.put_goodbye();
                self.ending = Some((Reason::Closed, 0));
                self.drain(Phase::Closing);
            }
            Phase::Draining | Phase::Closing => {}
        }
    }

    fn put_goodbye(&mut self) {
        self.outbox.put(&Frame::Goodbye(Goodbye {
            code: ErrorCode::Ok as u16,
            retry_after_ms: 0,
            text: "",
        }));
    }

    /// One side or both have said that the stream ends; it must do so in time.
    fn drain(&mut self, phase: Phase) {
        self.phase = phase;
        self.heartbeat = None;
        self.deadline = Some(self.now + self.config.answer_timeout);
    }

    /// The server closes behind this frame: nothing that would be sent now is read.
    pub(crate) fn refused(&mut self, code: u16, retry_after_ms: u32) {
        self.ending
            .get_or_insert((Reason::Refused(code), retry_after_ms));
        self.owes_goodbye = false;
        self.outbox.discard();
        self.drain(Phase::Draining);
    }

    /// The server said GOODBYE: it still reads, and closes when it has read ours.
    pub(crate) fn dismissed(&mut self, code: u16, retry_after_ms: u32) {
        self.ending
            .get_or_insert((Reason::Goodbye(code), retry_after_ms));
        if self.phase == Phase::Active {
            self.owes_goodbye = true;
        }
        self.drain(Phase::Draining);
        self.answer_goodbye();
    }

    /// Says GOODBYE in answer to the server's, once no reply is outstanding.
    pub(crate) fn answer_goodbye(&mut self) {
        let learning = || {
            self.pending
                .values()
                .any(|what| matches!(what, Pending::Learn(_)))
        };
        if self.owes_goodbye && self.in_flight.iter().all(|c| c.at.is_none()) && !learning() {
            self.owes_goodbye = false;
            self.put_goodbye();
        }
    }

    /// Ends the connection if it is lost: queues the notices of that.
    pub(crate) fn go_offline(&mut self) {
        let Some(lost) = self.lost.take() else {
            return;
        };
        let (reason, retry_after_ms) = match (self.ending.take(), lost) {
            // A breach of the protocol is never hidden behind an orderly end.
            (_, Reason::Protocol(_)) | (None, _) => (lost, 0),
            (Some(ending), _) => ending,
        };
        self.phase = Phase::Offline;
        self.owes_goodbye = false;
        self.deadline = None;
        self.heartbeat = None;
        self.last_reason = Some(reason);
        let retry_in = self.plan_retry(reason, Duration::from_millis(retry_after_ms.into()));
        self.queued
            .push_back(Step::plain(Notice::Disconnected(Disconnected {
                reason,
                retry_in,
                unconfirmed_publishes: self.published - self.confirmed,
            })));
        if retry_in.is_none() {
            self.reads.clear();
        }
        self.published = 0;
        self.confirmed = 0;
        self.suspend_requests();
        self.outbox.discard();
    }

    fn plan_retry(&mut self, reason: Reason, at_least: Duration) -> Option<Duration> {
        if let Some(since) = self.active_since.take() {
            self.failures = 0;
            if self.now.saturating_sub(since) >= self.backoff.max() {
                self.backoff.settle();
            }
        }
        self.failures += 1;
        let exhausted = self.config.max_attempts != 0 && self.failures >= self.config.max_attempts;
        let retry_in = (!self.closed && !exhausted && is_worth_retrying(reason))
            .then(|| self.backoff.wait().max(at_least));
        self.retry_at = retry_in.map(|wait| self.now + wait);
        retry_in
    }

    /// What is outstanding waits for the next connection, or is answered now.
    fn suspend_requests(&mut self) {
        let sent = self.outbox.sent();
        for command in &mut self.in_flight {
            command.maybe_applied |= command.at.take().is_some_and(|at| at < sent);
        }
        self.pending.clear();
        self.pings.clear();
        self.unsettled = false;
        let learning = self.topics.forget_ids();
        self.unused.extend(learning);
        for slot in self.topics.subscribed() {
            let Some(subscription) = &mut self.topics.get_mut(slot).subscription else {
                continue;
            };
            subscription.held_before |= subscription.stage == Stage::Live;
            if subscription.stage == Stage::Live && self.ponged >= subscription.settled_by {
                subscription.sequence.settle();
            }
            subscription.stage = Stage::Wanted;
            if let Some(request_id) = subscription.leaving {
                self.end_subscription(slot, request_id, None);
            }
        }
    }

    /// The subscription is over: says so, and starts the one that was asked for meanwhile.
    pub(crate) fn end_subscription(&mut self, slot: u32, request_id: u64, last_seq: Option<u64>) {
        let Some(ended) = self.topics.get_mut(slot).subscription.take() else {
            return;
        };
        self.queued.push_back(Step::of(
            slot,
            Notice::Unsubscribed {
                topic: "",
                handle: super::TopicHandle::NONE,
                request_id,
                last_seq: last_seq.unwrap_or(ended.sequence.reached()),
            },
        ));
        self.start_again(slot, ended);
    }

    /// Starts the subscription that was asked for while `ended` was being given up.
    pub(crate) fn start_again(&mut self, slot: u32, ended: Subscription) {
        let Some(again) = ended.again else {
            self.unused.push(slot);
            return;
        };
        self.topics.get_mut(slot).subscription = Some(Subscription {
            request_id: again.request_id,
            policy: again.policy,
            stage: Stage::Wanted,
            sequence: again.sequence,
            settled_by: 0,
            held_before: false,
            leaving: None,
            again: None,
        });
        self.ask(slot);
    }

    pub(crate) fn release_unused(&mut self) {
        while let Some(slot) = self.unused.pop() {
            self.topics.release(slot);
        }
    }

    pub(crate) fn violation(&self, frame: &Frame<'_>) -> ProtocolError {
        ProtocolError::Unexpected(frame.frame_type())
    }
}

/// Whether the same HELLO may be answered otherwise next time.
fn is_worth_retrying(reason: Reason) -> bool {
    match reason {
        Reason::Closed | Reason::Protocol(ProtocolError::Version(_)) => false,
        Reason::Refused(code) | Reason::Goodbye(code) => !matches!(
            ErrorCode::from_u16(code),
            Some(ErrorCode::Unauthorized | ErrorCode::BadVersion | ErrorCode::BadMagic)
        ),
        _ => true,
    }
}
