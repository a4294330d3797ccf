//! The owner's side: subscriptions opened, and brought up to date with what a topic keeps.

use std::sync::Arc;

use tickring_protocol::{Frame, Gap, GapReason, Policy};

use super::Core;
use super::journal::Held;
use super::mail::{Answer, Ask, Letter, Opened, Want, store};
use super::owner::Sender;
use crate::machines::Refusal;
use crate::topic::Topic;

impl Core {
    /// Opens a subscription, and tells whoever asked for it.
    pub(super) fn subscribe(
        &mut self,
        to: Sender,
        request_id: u64,
        policy: Policy,
        ask: Ask,
        name: &str,
    ) {
        let index = match self.topics.open(name) {
            Ok(index) => index,
            Err(refusal) => return self.refuse_subscribe(to, request_id, &refusal),
        };
        if name == self.report_name {
            self.report_topic = Some(index);
        }
        let cores = self.ids.cores;
        self.refresh(index);
        let topic = self.topics.get_mut(index);
        topic.open(to.core, cores);
        self.count_watched(index);
        let topic = self.topics.get(index);
        if must_hold(topic, &ask) {
            let lane = topic.lane;
            if to.core == self.core {
                self.expect_answer(to);
            }
            let topic = self.topics.get(index);
            let scratch = &mut self.scratch;
            self.journal.hold(lane, |bytes| {
                let start = bytes.len();
                topic.snapshot(scratch, bytes);
                Held::Opening {
                    to,
                    index,
                    request_id,
                    policy,
                    ask,
                    state: start..bytes.len(),
                }
            });
            return;
        }
        self.open_subscription(to, index, (request_id, policy), ask, None);
    }

    /// As the end of [`Core::subscribe`]; `state` is a SNAPSHOT frame, if it was made before.
    fn open_subscription(
        &mut self,
        to: Sender,
        index: usize,
        (request_id, policy): (u64, Policy),
        ask: Ask,
        state: Option<&[u8]>,
    ) {
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        let topic = self.topics.get(index);
        let answer = answer(topic, ask, state, &mut self.scratch, &mut frames);
        let opened = Opened {
            request_id,
            topic_id: topic.id,
            policy: if policy == Policy::Default {
                topic.policy
            } else {
                policy
            },
            last_seq: topic.released,
            epoch: topic.epoch,
            answer,
        };
        let name = Arc::clone(&topic.name);
        if to.core == self.core {
            self.opened(to.connection, opened, &name, &frames);
        } else {
            let parcel = &mut self.deliveries[to.core];
            let topic = store(&mut parcel.bytes, name.as_bytes());
            let frames = store(&mut parcel.bytes, &frames);
            parcel.letters.push(Letter::Opened {
                to: to.connection,
                opened,
                topic,
                frames,
            });
        }
        self.frames = frames;
    }

    /// Opens a subscription that had to wait for the state that it begins with.
    pub(super) fn open_held(
        &mut self,
        to: Sender,
        index: usize,
        how: (u64, Policy),
        ask: Ask,
        state: &[u8],
    ) {
        if to.core == self.core {
            self.answered(to.connection);
        }
        self.open_subscription(to, index, how, ask, Some(state));
        if to.core == self.core {
            self.answer_done(to.connection);
        }
    }

    fn refuse_subscribe(&mut self, to: Sender, request_id: u64, refusal: &Refusal) {
        let (code, text) = (refusal.code, &*refusal.text);
        if to.core == self.core {
            return self.subscribe_refused(to.connection, request_id, code, text);
        }
        let parcel = &mut self.deliveries[to.core];
        let text = store(&mut parcel.bytes, text.as_bytes());
        parcel.letters.push(Letter::Refused {
            to: to.connection,
            request_id,
            code,
            text,
        });
    }

    /// Brings a subscription up to date, as far as asked.
    pub(super) fn bring_up(&mut self, to: Sender, topic_id: u32, ask: Ask, ticket: u32) {
        let index = self
            .topics
            .index_of(topic_id)
            .expect("a subscribed topic exists");
        self.refresh(index);
        let topic = self.topics.get(index);
        if must_hold(topic, &ask) {
            let lane = topic.lane;
            if to.core == self.core {
                self.expect_answer(to);
            }
            let topic = self.topics.get(index);
            let scratch = &mut self.scratch;
            self.journal.hold(lane, |bytes| {
                let start = bytes.len();
                topic.snapshot(scratch, bytes);
                Held::CatchUp {
                    to,
                    index,
                    ask,
                    ticket,
                    state: start..bytes.len(),
                }
            });
            return;
        }
        self.answer_ask(to, index, ask, ticket, None);
    }

    /// As the end of [`Core::bring_up`]; `state` is a SNAPSHOT frame, if it was made before.
    fn answer_ask(
        &mut self,
        to: Sender,
        index: usize,
        ask: Ask,
        ticket: u32,
        state: Option<&[u8]>,
    ) {
        let topic = self.topics.get(index);
        let topic_id = topic.id;
        if to.core == self.core {
            let mut frames = std::mem::take(&mut self.frames);
            frames.clear();
            let answer = answer(topic, ask, state, &mut self.scratch, &mut frames);
            if let Some(slot) = self.find(to.connection) {
                self.caught_up(slot, topic_id, ticket, answer, &frames);
            }
            self.frames = frames;
            return;
        }
        let parcel = &mut self.deliveries[to.core];
        let start = parcel.bytes.len();
        let answer = answer(topic, ask, state, &mut self.scratch, &mut parcel.bytes);
        parcel.letters.push(Letter::CaughtUp {
            to: to.connection,
            topic_id,
            ticket,
            answer,
            frames: start..parcel.bytes.len(),
        });
    }

    /// Brings a subscription up to date that had to wait for the state it skips to.
    pub(super) fn catch_up_held(
        &mut self,
        to: Sender,
        index: usize,
        ask: Ask,
        ticket: u32,
        state: &[u8],
    ) {
        if to.core != self.core {
            return self.answer_ask(to, index, ask, ticket, Some(state));
        }
        self.answered(to.connection);
        self.answer_ask(to, index, ask, ticket, Some(state));
        if let Some(slot) = self.find(to.connection) {
            self.catch_up(slot);
        }
        self.answer_done(to.connection);
    }

    /// Forgets `count` subscriptions of `core`.
    pub(super) fn release(&mut self, core: usize, topic_id: u32, count: u32) {
        let index = self
            .topics
            .index_of(topic_id)
            .expect("a subscribed topic exists");
        self.topics.get_mut(index).release(core, count);
        self.count_watched(index);
    }
}

/// Whether the answer to an ask tells a state with events that may not be seen yet.
fn must_hold(topic: &Topic, ask: &Ask) -> bool {
    if topic.is_released() || !topic.has_snapshots() {
        return false;
    }
    let after = topic.released + 1;
    match ask.want {
        Want::State => true,
        _ if is_reset(topic, ask) => true,
        Want::Latest => ask.from_seq < after,
        Want::Events { .. } => ask.from_seq < topic.history.first_seq().unwrap_or(after),
    }
}

/// Whether the seq that is asked from is none of this topic's.
fn is_reset(topic: &Topic, ask: &Ask) -> bool {
    ask.want != Want::State
        && (ask.from_seq > topic.released + 1 || ![0, topic.epoch].contains(&ask.epoch))
}

/// Brings somebody up to date with `topic`: appends frames, and says how far they reach. `state`
/// is a SNAPSHOT frame as of the newest event that may be seen, if it was made before.
fn answer(
    topic: &Topic,
    ask: Ask,
    state: Option<&[u8]>,
    scratch: &mut Vec<u8>,
    frames: &mut Vec<u8>,
) -> Answer {
    let after = topic.released + 1;
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
    let mut snapshot = |frames: &mut Vec<u8>| match state {
        Some(state) => {
            frames.extend_from_slice(state);
            !state.is_empty()
        }
        None => topic.snapshot(scratch, frames),
    };
    if is_reset(topic, &ask) {
        gap(GapReason::Reset, topic.released, frames);
        snapshot(frames);
        return live;
    }
    match ask.want {
        Want::State => {
            snapshot(frames);
            live
        }
        Want::Latest => {
            if ask.from_seq < after {
                gap(GapReason::Conflated, topic.released, frames);
                snapshot(frames);
            }
            live
        }
        Want::Events { delayed } => {
            let mut from_seq = ask.from_seq;
            let first_kept = topic.history.first_seq().unwrap_or(after);
            if from_seq < first_kept {
                let start = frames.len();
                gap(GapReason::Expired, topic.released, frames);
                if snapshot(frames) {
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
