//! The owner's side: commands applied and answered, events sequenced and handed out.

use tickring_protocol::{Command, ErrorCode};

use super::Core;
use super::batch::{Purpose, Range};
use super::journal::Held;
use super::mail::{ConnectionRef, Deliveries, Letter, ReplyHead, Request, Requests, store};
use super::subscribe::events;
use crate::journal::{Seen, record};
use crate::machines::{self, Refusal};
use crate::topic::History;

/// A connection of some core, as the owner of a topic answers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) core: usize,
    pub(super) connection: ConnectionRef,
    /// What its commands are remembered by; 0 where it sends none.
    pub(super) session: u128,
}

impl Sender {
    pub(super) fn of(core: usize, connection: ConnectionRef) -> Self {
        Self {
            core,
            connection,
            session: 0,
        }
    }
}

/// A command on its way into a machine.
pub(super) struct Asked<'a> {
    code: u16,
    payload: &'a [u8],
    session: u128,
    request_id: u64,
    /// Whether the node itself sends it.
    internal: bool,
    /// Whether its reply is journaled, as the last record of its group.
    replied: bool,
}

impl<'a> Asked<'a> {
    /// By the node itself.
    pub(super) fn internal(payload: &'a [u8]) -> Self {
        Self {
            code: 0,
            payload,
            session: 0,
            request_id: 0,
            internal: true,
            replied: false,
        }
    }
}

/// Why a command is refused that has waited for the journal.
pub(super) const JOURNAL_IS_BEHIND: &str =
    "the journal is behind or has no room; try again after retry_after_ms";

impl Core {
    /// Whether mail of requests may be handed in: only while this core's own deliveries of the
    /// turns before have been taken everywhere, so that the answers have room, and the journal
    /// has taken its records, or has not for so long that commands are refused.
    pub fn takes_requests(&self) -> bool {
        self.takes_commands() || (self.deliveries_taken && self.refuses_commands())
    }

    /// Whether commands may be carried out now.
    pub(super) fn takes_commands(&self) -> bool {
        self.deliveries_taken && self.journal.is_ready()
    }

    /// Whether commands that other cores have sent have waited for the journal as long as they may.
    fn refuses_commands(&self) -> bool {
        let patience = self.limits.overload_patience.as_nanos() as u64;
        self.journal.is_late(patience)
    }

    /// Requests of another core came.
    pub fn on_requests(&mut self, from: usize, mut parcel: Requests) {
        let (before, waited) = (self.stats.commands, self.on_parcel(parcel.written_ns));
        let bytes = std::mem::take(&mut parcel.bytes);
        let refuses = self.refuses_commands();
        for request in parcel.list.drain(..) {
            match request {
                Request::Command { .. } if refuses => self.refuse_request(from, &request),
                request => self.on_request(from, request, &bytes),
            }
        }
        self.tally.sent_on(self.stats.commands - before, waited);
        parcel.bytes = bytes;
        self.parcels.keep_requests(parcel);
    }

    /// Refuses another core's command, because the journal has had no room for too long.
    fn refuse_request(&mut self, core: usize, request: &Request) {
        if let Request::Command {
            from,
            request_id,
            topic_id,
            quiet,
            ..
        } = *request
        {
            let head = ReplyHead {
                request_id,
                topic_id,
                code: ErrorCode::Overloaded,
                seq: 0,
                awaited: !quiet,
            };
            let to = Sender::of(core, from);
            self.send_reply(to, &head, JOURNAL_IS_BEHIND.as_bytes(), false);
        }
    }

    /// The deliveries of this turn for another core, if there are any. To be asked for only when
    /// its mailbox has room; what is not taken is kept, and grows.
    pub fn take_deliveries(&mut self, to: usize) -> Option<Deliveries> {
        if self.deliveries[to].is_empty() {
            return None;
        }
        let empty = self.parcels.deliveries();
        let mut parcel = std::mem::replace(&mut self.deliveries[to], empty);
        parcel.written_ns = self.now.wall_ns;
        Some(parcel)
    }

    fn on_request(&mut self, core: usize, request: Request, bytes: &[u8]) {
        let text = |span: std::ops::Range<usize>| {
            std::str::from_utf8(&bytes[span]).expect("the sender stored a str")
        };
        match request {
            Request::Subscribe {
                from,
                request_id,
                policy,
                ask,
                topic,
            } => {
                let to = Sender::of(core, from);
                self.subscribe(to, request_id, policy, ask, text(topic));
            }
            Request::CatchUp {
                from,
                topic_id,
                ask,
                ticket,
            } => self.bring_up(Sender::of(core, from), topic_id, ask, ticket),
            Request::Release { topic_id, count } => self.release(core, topic_id, count),
            Request::Fence { from } => {
                let to = Sender::of(core, from);
                if !self.journal.hold_fence(to) {
                    self.say_fenced(to);
                }
            }
            Request::Command {
                from,
                session,
                request_id,
                topic_id,
                code,
                quiet,
                topic,
                payload,
            } => {
                let command = Command {
                    request_id,
                    topic_id,
                    command: code,
                    topic: text(topic),
                    payload: &bytes[payload],
                    quiet,
                };
                let to = Sender {
                    session,
                    ..Sender::of(core, from)
                };
                self.command(to, &command);
            }
        }
    }

    /// Tells a connection that all it sent to this core was answered.
    pub(super) fn say_fenced(&mut self, to: Sender) {
        if to.core == self.core {
            self.answered(to.connection);
            self.answer_done(to.connection);
        } else {
            let letter = Letter::Fenced { to: to.connection };
            self.deliveries[to.core].letters.push(letter);
        }
    }

    /// Carries out a command of a topic that this core owns, and answers it: at once, or, of a
    /// durable topic, when the journal has it on disk.
    pub(super) fn command(&mut self, to: Sender, command: &Command<'_>) {
        let mut head = ReplyHead {
            request_id: command.request_id,
            topic_id: command.topic_id,
            code: ErrorCode::Ok,
            seq: 0,
            awaited: !command.quiet,
        };
        let index = match self.topic_of(command) {
            Ok(index) => index,
            Err(refusal) => {
                head.code = refusal.code;
                return self.send_reply(to, &head, refusal.text.as_bytes(), false);
            }
        };
        head.topic_id = self.topics.get(index).id;
        if !command.quiet && self.repeat(to, index, head) {
            return;
        }
        let mut outcome = std::mem::take(&mut self.outcome);
        let remembered = !command.quiet && command.request_id != 0;
        let asked = Asked {
            code: command.command,
            payload: command.payload,
            session: to.session,
            request_id: command.request_id,
            internal: false,
            replied: remembered,
        };
        let applied = self.apply(index, asked, &mut outcome);
        let payload = match &applied {
            Ok(seq) => {
                head.seq = *seq;
                outcome.answer()
            }
            Err(refusal) => {
                head.code = refusal.code;
                refusal.text.as_bytes()
            }
        };
        if remembered {
            let reply = record::Reply {
                topic: head.topic_id,
                code: head.code as u16,
                seq: head.seq,
                session: to.session,
                request_id: command.request_id,
                node_ns: self.now.wall_ns,
                payload,
            };
            self.journal.write_reply(self.topics.get(index), &reply);
        }
        if !command.quiet || applied.is_err() {
            self.answer(to, index, head, payload);
        }
        outcome.clear();
        self.outcome = outcome;
    }

    /// Publishes something of the node itself.
    pub(super) fn report_event(&mut self, index: usize, payload: &[u8]) -> Result<(), Refusal> {
        let mut outcome = std::mem::take(&mut self.outcome);
        let applied = self.apply(index, Asked::internal(payload), &mut outcome);
        self.outcome = outcome;
        applied.map(drop)
    }

    fn topic_of(&mut self, command: &Command<'_>) -> Result<usize, Refusal> {
        if command.topic_id == 0 {
            return self.topics.open(command.topic);
        }
        self.topics.index_of(command.topic_id).ok_or_else(|| {
            let text = "no topic has that id; ids are told in SUBSCRIBED and REPLY";
            Refusal::new(ErrorCode::UnknownTopic, text)
        })
    }

    /// Answers a command that came before as it was answered then, and refuses one that could be
    /// carried out twice.
    fn repeat(&mut self, to: Sender, index: usize, mut head: ReplyHead) -> bool {
        let replies = &mut self.journal.replies;
        replies.make_room(self.now.wall_ns);
        let (code, payload) = match replies.find(to.session, head.request_id) {
            Seen::Never => return false,
            Seen::Answered(reply) => {
                head.seq = reply.seq;
                let code = ErrorCode::from_u16(reply.code).unwrap_or(ErrorCode::Internal);
                (code, reply.payload.clone())
            }
            Seen::Forgotten => {
                let text = "the reply to this command is no longer kept; number commands upwards";
                (ErrorCode::Forgotten, text.as_bytes().into())
            }
            Seen::NoRoom => {
                let text = "reply_window_bytes are used up by other sessions; try again later";
                (ErrorCode::Overloaded, text.as_bytes().into())
            }
        };
        head.code = code;
        self.tally.counts.repeated += u64::from(code != ErrorCode::Overloaded);
        self.answer(to, index, head, &payload);
        true
    }

    /// Answers a command of a topic: not before what it tells of may be seen.
    fn answer(&mut self, to: Sender, index: usize, head: ReplyHead, payload: &[u8]) {
        let topic = self.topics.get(index);
        let lane = topic.lane;
        if topic.is_durable() && self.journal.is_pending(lane) {
            self.hold_reply(lane, to, head, payload);
        } else {
            self.send_reply(to, &head, payload, false);
        }
    }

    /// Answers a command now; `held`: the answer had to wait, so that the connection expects it.
    pub(super) fn send_reply(&mut self, to: Sender, head: &ReplyHead, payload: &[u8], held: bool) {
        if to.core != self.core {
            let parcel = &mut self.deliveries[to.core];
            let payload = store(&mut parcel.bytes, payload);
            parcel.letters.push(Letter::Reply {
                to: to.connection,
                reply: *head,
                payload,
            });
            return;
        }
        if held && head.awaited {
            self.answered(to.connection);
        }
        if let Some(slot) = self.find(to.connection) {
            self.reply(slot, head, payload);
        }
        if held {
            self.answer_done(to.connection);
        }
    }

    /// Runs a topic's machine, and hands its events out or to the journal. Gives the seq of the
    /// newest event that it made; 0: none.
    pub(super) fn apply(
        &mut self,
        index: usize,
        asked: Asked<'_>,
        outcome: &mut machines::Outcome,
    ) -> Result<u64, Refusal> {
        self.stats.commands += 1;
        let topic = self.topics.get_mut(index);
        let journaled = topic.is_journaled();
        if journaled {
            self.journal.bind(topic);
        }
        let command = machines::Command {
            code: asked.code,
            payload: asked.payload,
            session: asked.session,
            now_ns: self.now.wall_ns,
            internal: asked.internal,
        };
        topic.apply(&command, outcome)?;
        if topic.is_durable() {
            return Ok(self.emit_later(index, &asked, outcome));
        }
        let newest = self.emit(index, outcome);
        if journaled {
            self.write_events(index, &asked, outcome);
        }
        if self.topics.get(index).views.watched != 0 {
            self.note_views(index, outcome);
        }
        Ok(newest)
    }

    fn write_events(&mut self, index: usize, asked: &Asked<'_>, outcome: &machines::Outcome) {
        let from = (asked.session, asked.request_id);
        let (topic, node_ns) = (self.topics.get(index), self.now.wall_ns);
        self.journal
            .write_events(topic, outcome, from, node_ns, !asked.replied);
    }

    /// Sequences the events of `outcome` and gives them to the journal; they are handed out when
    /// it has them on disk.
    fn emit_later(&mut self, index: usize, asked: &Asked<'_>, outcome: &machines::Outcome) -> u64 {
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        let topic = self.topics.get_mut(index);
        for event in outcome.events() {
            topic.sequence(event, self.now.wall_ns, &mut frames);
        }
        let lane = topic.lane;
        self.write_events(index, asked, outcome);
        let mut newest = 0;
        for (_, seq, frame) in events(&frames) {
            newest = seq;
            self.journal.hold(lane, |bytes| Held::Event {
                index,
                seq,
                frame: store(bytes, &frames[frame]),
            });
        }
        self.frames = frames;
        newest
    }

    /// Sequences the events of `outcome`, keeps them, and hands them to whoever subscribes.
    fn emit(&mut self, index: usize, outcome: &machines::Outcome) -> u64 {
        const HEAD: usize = 40; // header and fixed part of EVENT
        let node_ns = self.now.wall_ns;
        let mut newest = 0;
        for event in outcome.events() {
            let topic = self.topics.get_mut(index);
            let range = self
                .log
                .append(Purpose::Event, HEAD + event.2.len(), |out| {
                    topic.sequence(event, node_ns, out);
                });
            newest = topic.seq();
            self.release_event(index, newest, range);
        }
        newest
    }

    /// An event that was held may be seen: `frame` is its EVENT.
    pub(super) fn publish(&mut self, index: usize, seq: u64, frame: &[u8]) {
        let range = self.log.append(Purpose::Event, frame.len(), |out| {
            out.extend_from_slice(frame);
        });
        self.release_event(index, seq, range);
    }

    /// Keeps an event for replay, and hands it to whoever subscribes.
    fn release_event(&mut self, index: usize, seq: u64, range: Range) {
        self.stats.events += 1;
        let topic = self.topics.get_mut(index);
        topic.released = seq;
        topic
            .history
            .append(index, seq, self.log.bytes(range), &mut self.chunks);
        while let Some(oldest) = self.chunks.over_limit() {
            let history: &mut History = &mut self.topics.get_mut(oldest).history;
            history.drop_oldest(&mut self.chunks);
        }
        self.hand_out(index, seq, range);
    }

    fn hand_out(&mut self, index: usize, seq: u64, range: Range) {
        let topic = self.topics.get(index);
        for core in topic.interested() {
            if core != self.core {
                deliver(&mut self.deliveries[core], range);
            }
        }
        let id = topic.id;
        if let Some(replica) = self.replicas.find(id) {
            self.offer(replica, seq, range);
        }
    }
}

/// Adds a range of events to a parcel, as one letter with the last where it can be.
fn deliver(parcel: &mut Deliveries, range: Range) {
    if let Some(Letter::Events {
        range: last,
        bytes: None,
    }) = parcel.letters.last_mut()
        && last.batch == range.batch
    {
        // What lies between belongs to other topics; the receiver passes over it. What was said
        // in between keeps its place in the order, because it is a letter of its own.
        last.end = range.end;
        return;
    }
    parcel.letters.push(Letter::Events { range, bytes: None });
}
