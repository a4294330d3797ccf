//! Bringing subscriptions up to date that are not live: newcomers with a seq to start from, and
//! connections that were too slow.

use std::sync::Arc;

use tickring_protocol::{ErrorCode, Frame, Policy, Reply};

use super::batch::Range;
use super::connection::{Parked, Progress};
use super::mail::{
    Answer, Ask, ConnectionRef, Deliveries, Letter, ReplyHead, Request, Requests, Want,
};
use super::owner::Sender;
use super::state::State;
use super::subscribe::events;
use super::{Core, Plant};

/// The most bytes of events asked for at once.
const ASK_BYTES: usize = 32 << 10;
/// The most bytes of events asked for at once by a connection with this budget: never more than
/// the half that is free when it asks.
fn ask_bytes(budget: usize) -> usize {
    ASK_BYTES.min(budget / 2).max(1)
}

/// The most catch-ups of one connection under way.
const MOST_ASKED: u32 = 16;

impl Core {
    /// Deliveries of another core came.
    pub fn on_deliveries(&mut self, from: usize, mut parcel: Deliveries) {
        debug_assert_ne!(from, self.core);
        self.on_parcel(parcel.written_ns);
        let bytes = std::mem::take(&mut parcel.bytes);
        let text = |span: std::ops::Range<usize>| {
            std::str::from_utf8(&bytes[span]).expect("the sender stored a str")
        };
        for letter in parcel.letters.drain(..) {
            match letter {
                Letter::Events { range, bytes } => {
                    self.on_events(range, bytes.expect("filled in at the end of the turn"));
                }
                Letter::Opened {
                    to,
                    opened,
                    topic,
                    frames,
                } => {
                    self.answered(to);
                    self.opened(to, opened, text(topic), &bytes[frames]);
                    self.answer_done(to);
                }
                Letter::Refused {
                    to,
                    request_id,
                    code,
                    text: span,
                } => {
                    self.answered(to);
                    self.subscribe_refused(to, request_id, code, text(span));
                    self.answer_done(to);
                }
                Letter::Fenced { to } => {
                    self.answered(to);
                    self.answer_done(to);
                }
                Letter::CaughtUp {
                    to,
                    topic_id,
                    ticket,
                    answer,
                    frames,
                } => {
                    self.answered(to);
                    if let Some(slot) = self.find(to) {
                        self.caught_up(slot, topic_id, ticket, answer, &bytes[frames]);
                        self.catch_up(slot);
                    }
                    self.answer_done(to);
                }
                Letter::Reply { to, reply, payload } => {
                    if reply.awaited {
                        self.answered(to);
                    }
                    if let Some(slot) = self.find(to) {
                        self.reply(slot, &reply, &bytes[payload]);
                    }
                    self.answer_done(to);
                }
            }
        }
        parcel.bytes = bytes;
        self.parcels.keep_deliveries(parcel);
    }

    /// The requests of this turn for another core, if there are any. To be asked for only when
    /// its mailbox has room; what is not taken is kept, and its senders wait.
    pub fn take_requests(&mut self, to: usize) -> Option<Requests> {
        if self.requests[to].is_empty() {
            return None;
        }
        let empty = self.parcels.requests();
        let mut parcel = std::mem::replace(&mut self.requests[to], empty);
        parcel.written_ns = self.now.wall_ns;
        Some(parcel)
    }

    /// Whether mail for other cores was not taken yet.
    pub fn has_mail(&self) -> bool {
        !self.requests.iter().all(Requests::is_empty)
            || !self.deliveries.iter().all(Deliveries::is_empty)
    }

    fn on_events(&mut self, range: Range, bytes: Arc<Vec<u8>>) {
        let batch = self.log.adopt(Arc::clone(&bytes));
        let frames = &bytes[range.start as usize..range.end as usize];
        for (topic_id, seq, at) in events(frames) {
            let Some(replica) = self.replicas.find(topic_id) else {
                continue;
            };
            if self.replicas.get(replica).holders > 0 {
                let (start, end) = (range.start + at.start as u32, range.start + at.end as u32);
                self.offer(replica, seq, Range { batch, start, end });
            }
        }
    }

    /// Asks every core to say when it has answered all that the connection sent to it; this one
    /// has, but for what waits for the journal.
    pub(super) fn fence(&mut self, slot: u32) {
        let number = self.connection(slot).number;
        let here = self.core;
        let connection = ConnectionRef { slot, number };
        if self.journal.hold_fence(Sender::of(here, connection)) {
            self.connection(slot).awaiting += 1;
        }
        for owner in (0..self.requests.len()).filter(|owner| *owner != here) {
            // Not held back by a full parcel: there is at most one for each connection and core.
            self.requests[owner]
                .list
                .push(Request::Fence { from: connection });
            self.connection(slot).awaiting += 1;
        }
    }

    /// An answer that the connection was waiting for has come.
    pub(super) fn answered(&mut self, to: ConnectionRef) {
        if let Some(slot) = self.find(to) {
            self.connection(slot).awaiting -= 1;
        }
    }

    /// An answer was dealt with: what waited for it goes on.
    pub(super) fn answer_done(&mut self, to: ConnectionRef) {
        if let Some(slot) = self.find(to) {
            self.unpark(slot, Parked::Own);
            self.say_farewell(slot);
        }
    }

    /// Queues REPLY.
    pub(super) fn reply(&mut self, slot: u32, head: &ReplyHead, payload: &[u8]) {
        if !matches!(self.connection(slot).state, State::Active | State::Draining) {
            return;
        }
        self.tally.refused(head.code);
        let reply = Reply {
            request_id: head.request_id,
            topic_id: head.topic_id,
            code: head.code as u16,
            seq: head.seq,
            retry_after_ms: if head.code == ErrorCode::Overloaded {
                100
            } else {
                0
            },
            payload,
        };
        self.send(slot, &Frame::Reply(reply), payload.len());
    }

    /// Asks for what the connection's subscriptions lack, as far as its outbox has room.
    pub(super) fn catch_up(&mut self, slot: u32) {
        while let Some(place) = self.next_behind(slot) {
            let Self {
                connections,
                replicas,
                ..
            } = self;
            let connection = connections[slot as usize]
                .as_deref_mut()
                .expect("just seen");
            let subscription = &mut connection.subscriptions[place];
            let (topic_id, policy) = (subscription.topic_id, subscription.policy);
            // Nothing came by while it waited: there is nothing to ask for. Whoever was told that
            // events follow, or never was live, has to ask in any case.
            let last_seq = replicas.get(subscription.replica).last_seq;
            if !subscription.told && subscription.next_seq > last_seq {
                self.go_live(slot, topic_id);
                continue;
            }
            let want = match policy {
                Policy::Conflate if !subscription.told => Want::Latest,
                _ => Want::Events {
                    delayed: !subscription.told,
                },
            };
            let max_bytes = ask_bytes(self.limits.outbox_bytes);
            let ask = Ask {
                want,
                from_seq: subscription.next_seq,
                epoch: 0,
                max_bytes,
            };
            let owner = self.ids.owner(topic_id);
            let here = owner == self.core;
            if !here && self.requests[owner].is_full() {
                let connection = self.connection(slot);
                if !std::mem::replace(&mut connection.hungry, true) {
                    self.hungry.push_back(slot);
                }
                return;
            }
            let connection = self.connection(slot);
            let ticket = connection.next_ticket;
            connection.next_ticket = ticket.wrapping_add(1);
            connection.asked += 1;
            let from = ConnectionRef {
                slot,
                number: connection.number,
            };
            let subscription = &mut connection.subscriptions[place];
            (subscription.progress, subscription.ticket) = (Progress::Asked, ticket);
            if here {
                self.bring_up(Sender::of(owner, from), topic_id, ask, ticket);
            } else {
                connection.awaiting += 1;
                let parcel = &mut self.requests[owner];
                parcel.asked_bytes += max_bytes;
                parcel.list.push(Request::CatchUp {
                    from,
                    topic_id,
                    ask,
                    ticket,
                });
            }
        }
    }

    /// The next subscription to ask for, if there is room for its answer.
    fn next_behind(&mut self, slot: u32) -> Option<usize> {
        let budget = self.limits.outbox_bytes;
        let connection = self.connections[slot as usize].as_deref_mut()?;
        let expected = connection.asked as usize * ask_bytes(budget);
        if connection.state != State::Active
            || connection.behind <= connection.asked
            || connection.asked >= MOST_ASKED
            || connection.outbox.bytes() + expected > budget / 2
        {
            return None;
        }
        let count = connection.subscriptions.len();
        let start = connection.cursor as usize % count;
        let place = (start..count)
            .chain(0..start)
            .find(|place| connection.subscriptions[*place].progress == Progress::Behind)?;
        connection.cursor = place as u32 + 1;
        Some(place)
    }

    /// An answer to an ask came.
    pub(super) fn caught_up(
        &mut self,
        slot: u32,
        topic_id: u32,
        ticket: u32,
        answer: Answer,
        frames: &[u8],
    ) {
        let plant = self.plant;
        let connection = self.connection(slot);
        let Ok(place) = connection.find(topic_id) else {
            return;
        };
        let subscription = &mut connection.subscriptions[place];
        if subscription.progress != Progress::Asked || subscription.ticket != ticket {
            return; // the answer to a subscription that has ended since
        }
        subscription.progress = Progress::Behind;
        subscription.next_seq = answer.next_seq;
        connection.asked -= 1;
        if !subscription.told && !frames.is_empty() {
            subscription.told = true;
        }
        self.count_gap(frames);
        let mut frames = frames;
        if plant == Some(Plant::CatchUpSkipsOne) && answer.live {
            let last = events(frames)
                .last()
                .map_or(frames.len(), |(.., at)| at.start);
            frames = &frames[..last];
        }
        self.send_frames(slot, frames);
        if answer.live {
            self.go_live(slot, topic_id);
        }
    }
}
