//! What a client's subscriptions have to tell, put into its next message.

use std::sync::Arc;

use tickring_protocol::{
    ErrorCode, ErrorFrame, Frame, FrameType, Gap, GapReason, Policy, Subscribed,
};

use super::outbox::Ready;
use super::{Client, Mode, Subscription};
use crate::close::Close;
use crate::topic::{CaughtUp, Phase, Start, State, Watcher};
use crate::upstream::CatchUp;
use crate::wire::{Extra, code_name};

/// Bytes after which a message is sent.
const MESSAGE: usize = 64 << 10;

/// What a turn of a subscription came to.
enum Turn {
    /// It waits to be woken.
    Done,
    /// The message is full before it was through.
    More,
    /// The server refused it.
    Refused {
        code: u16,
        retry_after_ms: u32,
        text: String,
    },
    /// It is too slow, and wants to be told so by the end.
    TooSlow,
}

impl Client {
    /// Takes what is ready, up to a message full.
    pub(super) fn gather(&mut self) {
        let mut room = MESSAGE;
        while room > 0 {
            match self.outbox.pop() {
                None => return,
                Some(Ready::Answer(answer)) => {
                    room = room.saturating_sub(answer.len());
                    self.pieces.push(answer);
                }
                Some(Ready::Topic(watcher)) => self.turn(&watcher, None, &mut room),
                Some(Ready::CaughtUp(watcher, outcome)) => {
                    self.turn(&watcher, Some(outcome), &mut room);
                }
            }
        }
    }

    fn turn(&mut self, watcher: &Arc<Watcher>, caught_up: Option<CaughtUp>, room: &mut usize) {
        if caught_up.is_none() {
            watcher.begin_turn();
        }
        let id = watcher.topic.id;
        let Some(mut subscription) = self.subscriptions.remove(&id) else {
            return;
        };
        if !Arc::ptr_eq(&subscription.watcher, watcher) {
            self.subscriptions.insert(id, subscription);
            return;
        }
        let held = self.pieces.len();
        let turn = match caught_up {
            Some(CaughtUp::Refused {
                code,
                retry_after_ms,
                text,
            }) => Turn::Refused {
                code,
                retry_after_ms,
                text,
            },
            Some(CaughtUp::To { next_seq, epoch }) => {
                subscription.mode = Mode::Joining { next_seq, epoch };
                self.advance(&mut subscription, room)
            }
            None => self.advance(&mut subscription, room),
        };
        let told = self.pieces.len() - held;
        self.upstream.metrics.delivered.inc_by(told as u64);
        match turn {
            Turn::Done => {}
            Turn::More => watcher.wake(),
            Turn::Refused {
                code,
                retry_after_ms,
                text,
            } => return self.end_refused(&subscription, code, retry_after_ms, &text),
            Turn::TooSlow => {
                let text = "the client reads too slowly";
                self.say_goodbye(ErrorCode::SlowConsumer, text);
                self.outbox.close(Close::of(ErrorCode::SlowConsumer, text));
            }
        }
        self.subscriptions.insert(id, subscription);
    }

    fn end_refused(&mut self, subscription: &Subscription, code: u16, retry: u32, text: &str) {
        let watcher = &subscription.watcher;
        self.outbox.silence(watcher);
        watcher.topic.lock().remove(watcher);
        self.upstream.metrics.subscriptions.dec();
        self.log_refusal("subscribe", &watcher.topic.name, &code_name(code), text);
        let error = ErrorFrame {
            code,
            frame_type: FrameType::Subscribe as u8,
            fatal: false,
            retry_after_ms: retry,
            request_id: subscription.request_id,
            text,
        };
        let told = self
            .protocol()
            .encode(&Frame::Error(error), &watcher.topic.name);
        self.pieces.push(told);
    }

    fn advance(&mut self, subscription: &mut Subscription, room: &mut usize) -> Turn {
        let topic = subscription.watcher.topic.clone();
        let mut state = topic.lock();
        match &state.phase {
            Phase::Live => {}
            Phase::Asked | Phase::Leaving => return Turn::Done,
            Phase::Refused {
                code,
                retry_after_ms,
                text,
            } => {
                return Turn::Refused {
                    code: *code,
                    retry_after_ms: *retry_after_ms,
                    text: text.clone(),
                };
            }
        }
        match subscription.mode {
            Mode::Asked { from_seq: 0, .. } => self.begin_now(subscription, &mut state, room),
            Mode::Asked { from_seq, epoch } => {
                self.begin_at(subscription, &mut state, room, (from_seq, epoch))
            }
            Mode::Live { .. } => self.read(subscription, &mut state, room),
            Mode::Conflating => self.conflate(subscription, &mut state, room),
            Mode::Joining { next_seq, epoch } => {
                self.join(subscription, &mut state, room, (next_seq, epoch))
            }
            Mode::CatchingUp(_) => {
                pass_over(subscription, &state);
                Turn::Done
            }
        }
    }

    /// Begins with the state and what follows it.
    fn begin_now(
        &mut self,
        subscription: &mut Subscription,
        state: &mut State,
        room: &mut usize,
    ) -> Turn {
        match state.start_now() {
            Start::Log {
                position,
                next_seq,
                last_seq,
            } => {
                self.say_subscribed(subscription, state, next_seq, last_seq);
                self.go_live(subscription, state, room, position, next_seq)
            }
            Start::Snapshot { kept, position } => {
                self.say_subscribed(subscription, state, kept.seq + 1, kept.seq);
                self.pieces
                    .push(kept.encoded[self.protocol() as usize].clone());
                self.go_live(subscription, state, room, position, kept.seq + 1)
            }
            Start::Soon => Turn::Done,
            Start::Unknown => self.want_snapshot(subscription, state),
        }
    }

    /// Begins with a certain event: from memory if it is there, otherwise from the server.
    fn begin_at(
        &mut self,
        subscription: &mut Subscription,
        state: &mut State,
        room: &mut usize,
        (seq, epoch): (u64, u64),
    ) -> Turn {
        let begin = state.begin;
        if begin.asked == (seq, epoch)
            && begin.epoch == state.epoch
            && state.log.reaches(begin.position)
        {
            self.say_subscribed(subscription, state, begin.next_seq, begin.last_seq);
            return self.go_live(subscription, state, room, begin.position, begin.next_seq);
        }
        if (epoch == 0 || epoch == state.epoch)
            && let Some(position) = state.log.position_of(seq)
        {
            let last_seq = state.log.next_seq() - 1;
            self.say_subscribed(subscription, state, seq, last_seq);
            return self.go_live(subscription, state, room, position, seq);
        }
        let announce = (subscription.request_id, subscription.policy);
        self.catch_up(subscription, (seq, epoch), Some(announce))
    }

    fn catch_up(
        &self,
        subscription: &mut Subscription,
        from: (u64, u64),
        announce: Option<(u64, Policy)>,
    ) -> Turn {
        let run = CatchUp::start(&self.upstream, &subscription.watcher, from, announce);
        subscription.mode = Mode::CatchingUp(Some(run));
        Turn::Done
    }

    fn say_subscribed(
        &mut self,
        subscription: &Subscription,
        state: &State,
        next_seq: u64,
        last_seq: u64,
    ) {
        let topic = &subscription.watcher.topic;
        let told = Subscribed {
            request_id: subscription.request_id,
            topic_id: topic.id,
            policy: subscription.policy,
            next_seq,
            last_seq,
            epoch: state.epoch,
            topic: &topic.name,
        };
        let told = self
            .protocol()
            .encode(&Frame::Subscribed(told), &topic.name);
        self.pieces.push(told);
    }

    fn go_live(
        &mut self,
        subscription: &mut Subscription,
        state: &mut State,
        room: &mut usize,
        position: u64,
        next_seq: u64,
    ) -> Turn {
        let watcher = &subscription.watcher;
        watcher.set_next_seq(next_seq);
        watcher.read_up_to(&state.log, position);
        subscription.epoch = state.epoch;
        subscription.mode = Mode::Live {
            position,
            delayed: false,
        };
        // Without asking whether the client is late, which other topics may be the cause of: it was put where it is
        // to be.
        self.read_on(subscription, state, room)
    }

    /// Reads on in the topic's log, unless the client is too slow for that.
    fn read(
        &mut self,
        subscription: &mut Subscription,
        state: &mut State,
        room: &mut usize,
    ) -> Turn {
        let Mode::Live {
            position,
            mut delayed,
        } = subscription.mode
        else {
            return Turn::Done;
        };
        let watcher = subscription.watcher.clone();
        let is_late = self.outbox.behind() > self.upstream.config.outbox_bytes as u64;
        let is_lost = !state.log.reaches(position);
        if is_late || is_lost {
            match subscription.policy {
                Policy::Disconnect => return Turn::TooSlow,
                Policy::Resume if is_lost => {
                    let from = (watcher.next_seq(), subscription.epoch);
                    pass_over(subscription, state);
                    return self.catch_up(subscription, from, None);
                }
                Policy::Resume => {
                    if !std::mem::replace(&mut delayed, true) {
                        self.upstream.metrics.delayed.inc();
                        self.say_gap(subscription, GapReason::Delayed, 0, Extra::None);
                    }
                }
                Policy::Conflate | Policy::Default => {
                    subscription.mode = Mode::Conflating;
                    return self.conflate(subscription, state, room);
                }
            }
        }
        subscription.mode = Mode::Live { position, delayed };
        self.read_on(subscription, state, room)
    }

    /// Takes what the topic's log has behind the client's position.
    fn read_on(
        &mut self,
        subscription: &mut Subscription,
        state: &mut State,
        room: &mut usize,
    ) -> Turn {
        let Mode::Live {
            mut position,
            delayed,
        } = subscription.mode
        else {
            return Turn::Done;
        };
        let watcher = subscription.watcher.clone();
        let protocol = self.protocol() as usize;
        while *room > 0
            && let Some(record) = state.log.get(position)
        {
            *room = room.saturating_sub(record.encoded[protocol].len());
            self.pieces.push(record.encoded[protocol].clone());
            watcher.set_next_seq(record.next_seq);
            subscription.epoch = record.epoch;
            position += 1;
        }
        watcher.read_up_to(&state.log, position);
        let is_through = position >= state.log.end_position();
        subscription.mode = Mode::Live {
            position,
            delayed: delayed && !is_through,
        };
        if is_through { Turn::Done } else { Turn::More }
    }

    /// Brings a slow client to the latest state.
    fn conflate(
        &mut self,
        subscription: &mut Subscription,
        state: &mut State,
        room: &mut usize,
    ) -> Turn {
        let watcher = subscription.watcher.clone();
        pass_over(subscription, state);
        let next_seq = watcher.next_seq();
        let is_reset = subscription.epoch != state.epoch;
        let (reason, extra) = match is_reset {
            true => (GapReason::Reset, Extra::Epoch(state.epoch)),
            false => (GapReason::Conflated, Extra::None),
        };
        match state.newest() {
            Start::Soon => Turn::Done,
            Start::Unknown => self.want_snapshot(subscription, state),
            Start::Log {
                position, last_seq, ..
            } => {
                if is_reset || last_seq >= next_seq {
                    self.upstream.metrics.conflated.inc();
                    self.say_gap(subscription, reason, last_seq, extra);
                }
                self.go_live(subscription, state, room, position, last_seq + 1)
            }
            Start::Snapshot { kept, .. } if !is_reset && kept.seq < next_seq => {
                // Nothing newer was missed.
                match state.log.position_of(next_seq) {
                    Some(position) => self.go_live(subscription, state, room, position, next_seq),
                    None => self.want_snapshot(subscription, state),
                }
            }
            Start::Snapshot { kept, position } => {
                self.upstream.metrics.conflated.inc();
                self.say_gap(subscription, reason, kept.seq, extra);
                self.pieces
                    .push(kept.encoded[self.protocol() as usize].clone());
                self.go_live(subscription, state, room, position, kept.seq + 1)
            }
        }
    }

    fn say_gap(
        &mut self,
        subscription: &Subscription,
        reason: GapReason,
        last_seq: u64,
        extra: Extra,
    ) {
        let watcher = &subscription.watcher;
        let gap = Gap {
            topic_id: watcher.topic.id,
            reason,
            first_seq: watcher.next_seq(),
            last_seq,
        };
        let told = self
            .protocol()
            .encode_with(&Frame::Gap(gap), &watcher.topic.name, extra);
        self.pieces.push(told);
    }

    fn want_snapshot(&self, subscription: &Subscription, state: &mut State) -> Turn {
        let watcher = &subscription.watcher;
        if !state
            .wanting
            .iter()
            .any(|other| Arc::ptr_eq(other, watcher))
        {
            state.wanting.push(watcher.clone());
        }
        self.upstream.want_snapshot(&watcher.topic, state);
        Turn::Done
    }

    /// Joins the others where the server has brought it to.
    fn join(
        &mut self,
        subscription: &mut Subscription,
        state: &mut State,
        room: &mut usize,
        (next_seq, epoch): (u64, u64),
    ) -> Turn {
        pass_over(subscription, state);
        subscription.epoch = epoch;
        if epoch == state.epoch {
            if let Some(position) = state.log.position_of(next_seq) {
                return self.go_live(subscription, state, room, position, next_seq);
            }
            if next_seq > state.log.next_seq() {
                return Turn::Done; // the log will come there
            }
        }
        self.catch_up(subscription, (next_seq, epoch), None)
    }
}

/// What the client gets from elsewhere it need not read in the log.
fn pass_over(subscription: &Subscription, state: &State) {
    let end = state.log.end_position();
    subscription.watcher.read_up_to(&state.log, end);
}
