//! The owner's side: commands applied, events sequenced, newcomers brought up to date.

use tickring_protocol::{Command, ErrorCode, Frame, Gap, GapReason, Policy};

use super::Core;
use super::batch::{Purpose, Range};
use super::mail::{
    Answer, Ask, ConnectionRef, Deliveries, Letter, Opened, ReplyHead, Request, Requests, Want,
    store,
};
use crate::machines::{self, Refusal};
use crate::topic::{History, Topic};

impl Core {
    /// Whether mail of requests may be handed in: only while this core's own deliveries of the
    /// turns before have been taken everywhere, so that the answers have room.
    pub fn takes_requests(&self) -> bool {
        self.deliveries_taken
    }

    /// Requests of another core came.
    pub fn on_requests(&mut self, from: usize, mut parcel: Requests) {
        let bytes = std::mem::take(&mut parcel.bytes);
        for request in parcel.list.drain(..) {
            self.on_request(from, request, &bytes);
        }
        parcel.bytes = bytes;
        self.parcels.keep_requests(parcel);
    }

    /// The deliveries of this turn for another core, if there are any. To be asked for only when
    /// its mailbox has room; what is not taken is kept, and grows.
    pub fn take_deliveries(&mut self, to: usize) -> Option<Deliveries> {
        if self.deliveries[to].is_empty() {
            return None;
        }
        Some(std::mem::replace(
            &mut self.deliveries[to],
            self.parcels.deliveries(),
        ))
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
                self.remote_subscribe(core, from, request_id, policy, ask, text(topic));
            }
            Request::CatchUp {
                from,
                topic_id,
                ask,
                ticket,
            } => {
                let parcel = &mut self.deliveries[core];
                let start = parcel.bytes.len();
                let index = self
                    .topics
                    .index_of(topic_id)
                    .expect("a subscribed topic exists");
                let topic = self.topics.get(index);
                let answer = answer(topic, ask, self.epoch, &mut self.scratch, &mut parcel.bytes);
                let frames = start..parcel.bytes.len();
                parcel.letters.push(Letter::CaughtUp {
                    to: from,
                    topic_id,
                    ticket,
                    answer,
                    frames,
                });
            }
            Request::Release { topic_id, count } => self.release(core, topic_id, count),
            Request::Fence { from } => {
                self.deliveries[core]
                    .letters
                    .push(Letter::Fenced { to: from });
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
                self.remote_command(core, from, session, &command);
            }
        }
    }

    fn remote_subscribe(
        &mut self,
        core: usize,
        from: ConnectionRef,
        request_id: u64,
        policy: Policy,
        ask: Ask,
        name: &str,
    ) {
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        let opened = self.open_subscription(core, request_id, policy, ask, name, &mut frames);
        let parcel = &mut self.deliveries[core];
        match opened {
            Ok(opened) => {
                let topic = store(&mut parcel.bytes, name.as_bytes());
                let frames = store(&mut parcel.bytes, &frames);
                parcel.letters.push(Letter::Opened {
                    to: from,
                    opened,
                    topic,
                    frames,
                });
            }
            Err(Refusal { code, text }) => {
                let text = store(&mut parcel.bytes, text.as_bytes());
                parcel.letters.push(Letter::Refused {
                    to: from,
                    request_id,
                    code,
                    text,
                });
            }
        }
        self.frames = frames;
    }

    fn remote_command(
        &mut self,
        core: usize,
        from: ConnectionRef,
        session: u128,
        command: &Command<'_>,
    ) {
        let applied = self.apply(command, session, false);
        let parcel = &mut self.deliveries[core];
        let mut head = ReplyHead {
            request_id: command.request_id,
            topic_id: 0,
            code: ErrorCode::Ok,
            seq: 0,
            awaited: !command.quiet,
        };
        let payload = match applied {
            Ok(_) if command.quiet => return,
            Ok((topic_id, seq)) => {
                (head.topic_id, head.seq) = (topic_id, seq);
                store(&mut parcel.bytes, self.outcome.answer())
            }
            Err((topic_id, refusal)) => {
                (head.topic_id, head.code) = (topic_id, refusal.code);
                store(&mut parcel.bytes, refusal.text.as_bytes())
            }
        };
        parcel.letters.push(Letter::Reply {
            to: from,
            reply: head,
            payload,
        });
    }

    /// Opens a subscription for a connection of `core`; what it must be told first is appended
    /// to `frames`.
    pub(super) fn open_subscription(
        &mut self,
        core: usize,
        request_id: u64,
        policy: Policy,
        ask: Ask,
        name: &str,
        frames: &mut Vec<u8>,
    ) -> Result<Opened, Refusal> {
        let index = self.topics.open(name)?;
        if name == self.report_name {
            self.report_topic = Some(index);
        }
        let cores = self.ids.cores;
        let topic = self.topics.get_mut(index);
        topic.open(core, cores);
        let answer = answer(topic, ask, self.epoch, &mut self.scratch, frames);
        Ok(Opened {
            request_id,
            topic_id: topic.id,
            policy: if policy == Policy::Default {
                topic.policy
            } else {
                policy
            },
            last_seq: topic.seq,
            answer,
        })
    }

    /// Brings a subscription of this core's own connections up to date, as far as asked.
    pub(super) fn answer_here(&mut self, topic_id: u32, ask: Ask, frames: &mut Vec<u8>) -> Answer {
        let index = self
            .topics
            .index_of(topic_id)
            .expect("a subscribed topic exists");
        answer(
            self.topics.get(index),
            ask,
            self.epoch,
            &mut self.scratch,
            frames,
        )
    }

    /// Forgets `count` subscriptions of `core`.
    pub(super) fn release(&mut self, core: usize, topic_id: u32, count: u32) {
        let index = self
            .topics
            .index_of(topic_id)
            .expect("a subscribed topic exists");
        self.topics.get_mut(index).release(core, count);
    }

    /// Applies a command of a topic that this core owns and hands its events out. Gives the
    /// topic's id and the seq of the newest event it made (0: none); the machine's answer is in
    /// `self.outcome`.
    pub(super) fn apply(
        &mut self,
        command: &Command<'_>,
        session: u128,
        internal: bool,
    ) -> Result<(u32, u64), (u32, Refusal)> {
        let index = if command.topic_id == 0 {
            self.topics
                .open(command.topic)
                .map_err(|refusal| (0, refusal))?
        } else {
            self.topics.index_of(command.topic_id).ok_or_else(|| {
                let text = "no topic has that id; ids are told in SUBSCRIBED and REPLY";
                (
                    command.topic_id,
                    Refusal::new(ErrorCode::UnknownTopic, text),
                )
            })?
        };
        let asked = machines::Command {
            code: command.command,
            payload: command.payload,
            session,
            now_ns: self.now.wall_ns,
            internal,
        };
        self.stats.commands += 1;
        let mut outcome = std::mem::take(&mut self.outcome);
        let topic = self.topics.get_mut(index);
        let topic_id = topic.id;
        let applied = topic.apply(&asked, &mut outcome);
        let result = applied
            .map(|()| self.emit(index, &outcome))
            .map_err(|r| (topic_id, r));
        self.outcome = outcome;
        result.map(|seq| (topic_id, seq))
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
            newest = topic.seq;
            self.stats.events += 1;
            topic
                .history
                .append(index, newest, self.log.bytes(range), &mut self.chunks);
            while let Some(oldest) = self.chunks.over_limit() {
                let history: &mut History = &mut self.topics.get_mut(oldest).history;
                history.drop_oldest(&mut self.chunks);
            }
            self.hand_out(index, newest, range);
        }
        newest
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

/// Brings somebody up to date with `topic`: appends frames, and says how far they reach.
fn answer(
    topic: &Topic,
    ask: Ask,
    epoch: u64,
    scratch: &mut Vec<u8>,
    frames: &mut Vec<u8>,
) -> Answer {
    let after = topic.seq + 1;
    let live = Answer {
        first_seq: after,
        next_seq: after,
        live: true,
    };
    let gap = |reason, last_seq, frames: &mut Vec<u8>| {
        Frame::Gap(Gap {
            topic_id: topic.id,
            reason,
            first_seq: ask.from_seq,
            last_seq,
        })
        .encode(frames);
    };
    if ask.want != Want::State && (ask.from_seq > after || ![0, epoch].contains(&ask.epoch)) {
        gap(GapReason::Reset, topic.seq, frames);
        topic.snapshot(scratch, frames);
        return live;
    }
    match ask.want {
        Want::State => {
            topic.snapshot(scratch, frames);
            live
        }
        Want::Latest => {
            if ask.from_seq < after {
                gap(GapReason::Conflated, topic.seq, frames);
                topic.snapshot(scratch, frames);
            }
            live
        }
        Want::Events { delayed } => {
            let mut from_seq = ask.from_seq;
            let first_kept = topic.history.first_seq().unwrap_or(after);
            if from_seq < first_kept {
                let start = frames.len();
                gap(GapReason::Expired, topic.seq, frames);
                if topic.snapshot(scratch, frames) {
                    return live;
                }
                // Without a state to skip to, what is left of the events is given.
                frames.truncate(start);
                gap(GapReason::Expired, first_kept - 1, frames);
                from_seq = first_kept;
            } else if delayed && from_seq < after {
                gap(GapReason::Delayed, 0, frames);
            }
            let next_seq = if ask.max_bytes == 0 {
                from_seq
            } else {
                topic.history.replay(from_seq, ask.max_bytes, frames)
            };
            Answer {
                first_seq: from_seq,
                next_seq,
                live: next_seq == after,
            }
        }
    }
}
