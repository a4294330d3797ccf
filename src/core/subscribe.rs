//! The subscriber's side: who listens to what, and how a turn's events reach them.

use tickring_protocol::{ErrorCode, Frame, Policy, Unsubscribe, Unsubscribed};

use super::audience::NONE;
use super::batch::Range;
use super::connection::{Farewell, Progress, Subscription};
use super::mail::{ConnectionRef, Opened, Request};
use super::state::{Event, State};
use super::{Core, Plant};

impl Core {
    /// An event came by: it goes to every audience that listens.
    pub(super) fn offer(&mut self, replica: u32, seq: u64, range: Range) {
        let replica = self.replicas.get_mut(replica);
        debug_assert!(
            replica.holders == 0 || seq == replica.last_seq + 1,
            "a core with subscribers sees every event of the topic once, in order"
        );
        replica.last_seq = seq;
        if !replica.listeners.is_empty() {
            self.audiences.offer(&replica.listeners, range);
        }
    }

    /// Puts the turn's events into the outboxes of those who listen. Who has no room falls
    /// behind, and costs nothing more until it has.
    pub(super) fn distribute(&mut self) {
        let mut slow = Vec::new();
        while let Some(index) = self.audiences.dirty.pop() {
            let audience = self.audiences.get_mut(index);
            let ranges = std::mem::take(&mut audience.ranges);
            let (bytes, events) = (audience.bytes, audience.events);
            audience.pace(self.now.mono_ns, &self.pace);
            for place in 0..audience.members.len() {
                let slot = audience.members[place];
                let connection = self.connections[slot as usize]
                    .as_deref_mut()
                    .expect("members are open connections");
                let waiting = connection.outbox.waiting_bytes();
                if waiting > 0
                    && waiting + bytes > self.limits.outbox_bytes
                    && self.plant != Some(Plant::BudgetIgnored)
                {
                    slow.push(slot);
                    continue;
                }
                for range in &ranges {
                    connection
                        .outbox
                        .push(*range, &mut self.log, &mut self.outboxes);
                }
                if !connection.dirty {
                    connection.dirty = true;
                    if !self.rests.hold(connection.rest, slot) {
                        self.due.push_back(slot);
                    }
                } else if connection.outbox.is_crowded() {
                    self.due.push_back(slot); // whether it rests or not
                }
                self.stats.delivered += events;
            }
            self.audiences.get_mut(index).ranges = ranges;
            // Taken out one by one, so that the ranges are still there to tell what was missed.
            for slot in slow.drain(..) {
                self.fall_behind(slot);
            }
            self.audiences.settled(index);
        }
    }

    /// Takes a connection that has no room out of its audience, before the events that are
    /// pending there.
    fn fall_behind(&mut self, slot: u32) {
        let connection = self.connection(slot);
        let (number, audience) = (connection.number, connection.audience);
        let since = self.now.mono_ns.max(1);
        let Self {
            connections,
            replicas,
            audiences,
            log,
            ..
        } = self;
        let connection = connections[slot as usize]
            .as_deref_mut()
            .expect("just seen");
        let mut disconnect = false;
        for subscription in &mut connection.subscriptions {
            if subscription.progress == Progress::Live {
                subscription.progress = Progress::Behind;
                subscription.told = false;
                subscription.next_seq = replicas.get(subscription.replica).last_seq + 1;
                connection.behind += 1;
            }
            disconnect |= subscription.policy == Policy::Disconnect;
        }
        for range in &audiences.get(audience).ranges {
            for (topic_id, seq, _) in events(log.bytes(*range)) {
                if let Ok(place) = connection.find(topic_id) {
                    let subscription = &mut connection.subscriptions[place];
                    subscription.next_seq = subscription.next_seq.min(seq);
                }
            }
        }
        if connection.slow_since == 0 {
            connection.slow_since = since;
            tracing::debug!(
                slot,
                number,
                name = &*connection.name,
                "connection fell behind"
            );
        }
        self.leave_audience(slot);
        if disconnect {
            let text = "the connection's outbox is full and its policy is disconnect";
            self.fire(
                slot,
                Event::SlowConsumer,
                Farewell::goodbye(ErrorCode::SlowConsumer, text),
            );
        }
    }

    /// Puts what is pending for this connection alone into its outbox now, so that what is sent
    /// next comes behind it.
    pub(super) fn settle(&mut self, slot: u32) {
        let audience = self.connection(slot).audience;
        if audience == NONE || self.audiences.get(audience).ranges.is_empty() {
            return;
        }
        let own = self.own_audience(slot);
        let audience = self.audiences.get_mut(own);
        let ranges = std::mem::take(&mut audience.ranges);
        self.stats.delivered += audience.events;
        for range in &ranges {
            self.queue(slot, *range);
        }
        self.audiences.get_mut(own).ranges = ranges;
        self.audiences.settle_now(own);
    }

    /// Gives the connection an audience of its own, to be changed; what is pending stays pending.
    fn own_audience(&mut self, slot: u32) -> u32 {
        let connection = self.connections[slot as usize]
            .as_deref_mut()
            .expect("just seen");
        if !connection.changed {
            connection.changed = true;
            self.changed.push(slot);
        }
        let shared = connection.audience;
        if shared == NONE {
            let own = self.audiences.create(slot);
            (connection.audience, connection.place) = (own, 0);
            return own;
        }
        if self.audiences.get(shared).members.len() == 1 {
            return shared;
        }
        let place = connection.place;
        let moved = self.audiences.leave(shared, place);
        let own = self.audiences.split(shared, slot, &mut self.replicas);
        let connection = self.connection(slot);
        (connection.audience, connection.place) = (own, 0);
        if let Some(moved) = moved {
            self.connection(moved).place = place;
        }
        own
    }

    fn leave_audience(&mut self, slot: u32) {
        let connection = self.connection(slot);
        let (audience, place) = (connection.audience, connection.place);
        if audience == NONE {
            return;
        }
        connection.audience = NONE;
        if let Some(moved) = self.audiences.leave(audience, place) {
            self.connection(moved).place = place;
        }
        if self.audiences.get(audience).members.is_empty() {
            self.audiences.dissolve(audience, &mut self.replicas);
        }
    }

    /// Lets connections whose set of topics changed join those with the same set, now that
    /// nothing is pending.
    pub(super) fn regroup(&mut self) {
        while let Some(slot) = self.changed.pop() {
            let Some(connection) = self.connections[slot as usize].as_deref_mut() else {
                continue;
            };
            connection.changed = false;
            let own = connection.audience;
            if own == NONE {
                continue;
            }
            if self.audiences.is_idle(own) {
                self.leave_audience(slot);
            } else if let Some(twin) = self.audiences.twin(own, &mut self.replicas) {
                self.leave_audience(slot);
                let place = self.audiences.join(twin, slot);
                let connection = self.connection(slot);
                (connection.audience, connection.place) = (twin, place);
            }
        }
    }

    /// Makes a subscription live: the next event of its topic reaches it.
    pub(super) fn go_live(&mut self, slot: u32, topic_id: u32) {
        let connection = self.connections[slot as usize]
            .as_deref_mut()
            .expect("just seen");
        let place = connection
            .find(topic_id)
            .expect("the caller has just seen it");
        let subscription = &mut connection.subscriptions[place];
        debug_assert!(subscription.progress != Progress::Live);
        debug_assert_eq!(
            subscription.next_seq,
            self.replicas.get(subscription.replica).last_seq + 1,
            "joins without a gap"
        );
        subscription.progress = Progress::Live;
        let replica = subscription.replica;
        connection.behind -= 1;
        if connection.behind == 0 && connection.slow_since != 0 {
            let ms = (self.now.mono_ns - connection.slow_since) / 1_000_000;
            connection.slow_since = 0;
            tracing::debug!(slot, name = &*connection.name, ms, "connection caught up");
        }
        let own = self.own_audience(slot);
        self.audiences.add(own, replica, &mut self.replicas);
    }

    /// The owner has opened a subscription.
    pub(super) fn opened(&mut self, to: ConnectionRef, opened: Opened, topic: &str, frames: &[u8]) {
        let replica_index = self.replicas.find_or_create(opened.topic_id);
        let replica = self.replicas.get_mut(replica_index);
        replica.opened += 1;
        if replica.holders == 0 {
            replica.last_seq = opened.last_seq;
        }
        debug_assert_eq!(replica.last_seq, opened.last_seq, "letters come in order");
        let slot = self
            .find(to)
            .filter(|slot| self.connection(*slot).state == State::Active);
        let place = slot.map(|slot| {
            let connection = self.connection(slot);
            connection.opening -= 1;
            (slot, connection.find(opened.topic_id))
        });
        let (slot, place) = match place {
            Some((slot, Err(place))) => (slot, place),
            Some((slot, Ok(_))) => {
                let kind = tickring_protocol::FrameType::Subscribe as u8;
                let text = "the connection holds a subscription of that topic already";
                self.refuse(
                    slot,
                    ErrorCode::AlreadySubscribed,
                    kind,
                    opened.request_id,
                    text,
                );
                return self.release_if_unheld(replica_index);
            }
            None => return self.release_if_unheld(replica_index),
        };
        self.replicas.get_mut(replica_index).holders += 1;
        self.stats.subscriptions += 1;
        let connection = self.connection(slot);
        connection.behind += 1;
        connection.subscriptions.insert(
            place,
            Subscription {
                topic_id: opened.topic_id,
                replica: replica_index,
                policy: opened.policy,
                progress: Progress::Behind,
                told: true,
                ticket: 0,
                next_seq: opened.answer.next_seq,
            },
        );
        self.say_subscribed(slot, &opened, topic);
        self.count_gap(frames);
        self.send_frames(slot, frames);
        if opened.answer.live {
            self.go_live(slot, opened.topic_id);
        } else {
            self.catch_up(slot);
        }
    }

    /// The owner has refused a SUBSCRIBE.
    pub(super) fn subscribe_refused(
        &mut self,
        to: ConnectionRef,
        request_id: u64,
        code: ErrorCode,
        text: &str,
    ) {
        let Some(slot) = self
            .find(to)
            .filter(|s| self.connection(*s).state == State::Active)
        else {
            return;
        };
        self.connection(slot).opening -= 1;
        let kind = tickring_protocol::FrameType::Subscribe as u8;
        self.refuse(slot, code, kind, request_id, text);
    }

    /// Ends a subscription: nothing of the topic follows UNSUBSCRIBED. `false` if there is none.
    pub(super) fn unsubscribe(&mut self, slot: u32, unsubscribe: &Unsubscribe) -> bool {
        let Ok(place) = self.connection(slot).find(unsubscribe.topic_id) else {
            return false;
        };
        if self.plant != Some(Plant::UnsubscribedOvertakes) {
            self.settle(slot);
        }
        let connection = self.connection(slot);
        let gone = connection.subscriptions.remove(place);
        self.stats.subscriptions -= 1;
        let last_seq = if gone.progress == Progress::Live {
            let own = self.own_audience(slot);
            self.audiences.remove(own, gone.replica, &mut self.replicas);
            self.replicas.get(gone.replica).last_seq
        } else {
            let connection = self.connection(slot);
            connection.behind -= 1;
            if gone.progress == Progress::Asked {
                connection.asked -= 1;
            }
            gone.next_seq - 1
        };
        let unsubscribed = Unsubscribed {
            request_id: unsubscribe.request_id,
            topic_id: unsubscribe.topic_id,
            last_seq,
        };
        self.send(slot, &Frame::Unsubscribed(unsubscribed), 0);
        self.let_go(gone.replica);
        true
    }

    /// Ends all subscriptions of a connection without a word.
    pub(super) fn drop_subscriptions(&mut self, slot: u32) {
        let connection = self.connection(slot);
        let gone = std::mem::take(&mut connection.subscriptions);
        (connection.behind, connection.asked, connection.slow_since) = (0, 0, 0);
        self.leave_audience(slot);
        self.stats.subscriptions -= gone.len() as u32;
        for subscription in gone {
            self.let_go(subscription.replica);
        }
    }

    fn let_go(&mut self, replica: u32) {
        self.replicas.get_mut(replica).holders -= 1;
        self.release_if_unheld(replica);
    }

    /// Tells the owner once nobody here holds the topic any more.
    fn release_if_unheld(&mut self, replica: u32) {
        let replica = self.replicas.get_mut(replica);
        if replica.holders > 0 || replica.opened == 0 {
            return;
        }
        let (topic_id, count) = (replica.id, std::mem::take(&mut replica.opened));
        let owner = self.ids.owner(topic_id);
        if owner == self.core {
            self.release(owner, topic_id, count);
        } else {
            // Not held back by a full parcel: there is at most one for each topic and turn.
            self.requests[owner]
                .list
                .push(Request::Release { topic_id, count });
        }
    }
}

/// The events in a run of whole frames: topic id, seq, and where each frame lies.
pub(super) fn events(frames: &[u8]) -> impl Iterator<Item = (u32, u64, std::ops::Range<usize>)> {
    // EVENT on the wire: u32 length, u8 type, 3 bytes, u32 topic id, 4 bytes, u64 seq.
    let mut at = 0;
    std::iter::from_fn(move || {
        let frame = &frames[at..];
        let len = u32::from_le_bytes(*frame.first_chunk()?) as usize;
        let topic_id = u32::from_le_bytes(*frame.get(8..)?.first_chunk()?);
        let seq = u64::from_le_bytes(*frame.get(16..)?.first_chunk()?);
        let range = at..at + len;
        at += len;
        Some((topic_id, seq, range))
    })
}
