//! The server's frames.

use std::ops::Range;

use tickring_protocol::{
    ErrorCode, ErrorFrame, Event, Frame, FrameType, Gap, Goodbye, HEADER_LEN, HistoryPage, Pong,
    Reply, Snapshot, Subscribed, Unsubscribed, VERSION_MAJOR, Welcome,
};

use super::TopicHandle;
use super::sequence::OutOfOrder;
use super::state::{Pending, Phase, State, Step};
use super::topics::{Stage, Subscription};
use crate::{Notice, ProtocolError, Refused};

/// Bytes that PONGs may add beyond what the user's requests may queue.
const PONG_ROOM: usize = 64 << 10;
/// Bytes of HISTORY_PAGE between its header and its rows.
const PAGE_HEAD: usize = 32;

type Taken = Result<Option<Step>, ProtocolError>;

impl State {
    /// Takes a frame whose bytes lie at `span` of the receive buffer.
    pub(crate) fn take(&mut self, frame: &Frame<'_>, span: Range<usize>) -> Taken {
        let end = span.end;
        let welcomed = self.phase != Phase::Hello;
        match *frame {
            Frame::Welcome(welcome) if !welcomed => self.take_welcome(welcome),
            Frame::Error(error) => self.take_error(error, end),
            Frame::Goodbye(goodbye) => Ok(Some(self.take_goodbye(goodbye, end))),
            _ if !welcomed => Err(self.violation(frame)),
            Frame::Event(event) => self.take_event(event, end),
            Frame::Snapshot(snapshot) => self.take_snapshot(snapshot, end),
            Frame::Gap(gap) => self.take_gap(gap),
            Frame::Reply(reply) => {
                let taken = self.take_reply(reply, end);
                self.answer_goodbye();
                taken
            }
            Frame::HistoryPage(page) => self.take_page(page, span.start),
            Frame::Subscribed(subscribed) => self.take_subscribed(subscribed),
            Frame::Unsubscribed(unsubscribed) => self.take_unsubscribed(unsubscribed),
            Frame::Pong(pong) => self.take_pong(pong),
            Frame::Ping(ping) => {
                if self.outbox.waiting().len() > self.config.max_unsent + PONG_ROOM {
                    return Err(ProtocolError::PingFlood);
                }
                if self.phase == Phase::Active || self.owes_goodbye {
                    self.outbox.put(&Frame::Pong(Pong {
                        token: ping.token,
                        node_ns: 0,
                    }));
                }
                Ok(None)
            }
            _ => Err(self.violation(frame)),
        }
    }

    fn take_welcome(&mut self, welcome: Welcome) -> Taken {
        if welcome.major != VERSION_MAJOR {
            return Err(ProtocolError::Version(welcome.major));
        }
        let resumed = welcome.resumed && self.token != 0;
        self.token = welcome.session;
        self.server_max_frame = welcome.max_frame as usize;
        self.phase = Phase::Active;
        self.active_since = Some(self.now);
        self.start_heartbeat(welcome.heartbeat_ms);
        self.queued
            .push_back(Step::plain(Notice::Connected { resumed }));
        if !(resumed && self.config.resend_commands) {
            self.give_up_commands();
        }
        for slot in self.topics.subscribed() {
            self.ask(slot);
        }
        for index in 0..self.in_flight.len() {
            self.send_command(index);
        }
        let reads: Vec<u64> = self.reads.keys().copied().collect();
        for request_id in reads {
            self.send_read(request_id);
        }
        Ok(None)
    }

    /// A new session knows nothing of the old one's commands: sending them again could give
    /// them a second effect.
    fn give_up_commands(&mut self) {
        let Self {
            in_flight,
            topics,
            queued,
            unused,
            ..
        } = self;
        in_flight.retain(|command| {
            if command.maybe_applied {
                topics.get_mut(command.slot).in_flight -= 1;
                unused.push(command.slot);
                queued.push_back(Step::of(
                    command.slot,
                    Notice::OutcomeUnknown {
                        topic: "",
                        request_id: command.request_id,
                    },
                ));
            }
            !command.maybe_applied
        });
    }

    /// The live subscription of a topic id.
    fn live(
        &mut self,
        topic_id: u32,
        frame: FrameType,
    ) -> Result<(u32, &mut Subscription), ProtocolError> {
        let stranger = ProtocolError::NotSubscribed { frame, topic_id };
        let slot = self.topics.by_id(topic_id).ok_or(stranger)?;
        match &mut self.topics.get_mut(slot).subscription {
            Some(subscription) if subscription.stage == Stage::Live => Ok((slot, subscription)),
            _ => Err(stranger),
        }
    }

    fn take_event(&mut self, event: Event<'_>, end: usize) -> Taken {
        let (slot, subscription) = self.live(event.topic_id, FrameType::Event)?;
        subscription
            .sequence
            .event(event.seq)
            .map_err(|found| order(FrameType::Event, event.topic_id, found))?;
        Ok(Some(Step {
            fixed: Notice::Event {
                topic: "",
                handle: TopicHandle::NONE,
                event: Event { body: &[], ..event },
            },
            slot: Some(slot),
            body: (end - event.body.len(), end),
        }))
    }

    fn take_snapshot(&mut self, snapshot: Snapshot<'_>, end: usize) -> Taken {
        let (slot, subscription) = self.live(snapshot.topic_id, FrameType::Snapshot)?;
        subscription
            .sequence
            .snapshot(snapshot.seq)
            .map_err(|found| order(FrameType::Snapshot, snapshot.topic_id, found))?;
        Ok(Some(Step {
            fixed: Notice::Snapshot {
                topic: "",
                handle: TopicHandle::NONE,
                snapshot: Snapshot {
                    body: &[],
                    ..snapshot
                },
            },
            slot: Some(slot),
            body: (end - snapshot.body.len(), end),
        }))
    }

    fn take_gap(&mut self, gap: Gap) -> Taken {
        let (slot, subscription) = self.live(gap.topic_id, FrameType::Gap)?;
        subscription
            .sequence
            .gap(&gap)
            .map_err(|found| order(FrameType::Gap, gap.topic_id, found))?;
        self.seek_settlement(slot);
        Ok(Some(gap_step(slot, gap)))
    }

    fn take_subscribed(&mut self, told: Subscribed<'_>) -> Taken {
        let unasked = ProtocolError::UnknownRequest {
            frame: FrameType::Subscribed,
            request_id: told.request_id,
        };
        let Some(Pending::Subscribe(slot)) = self.pending.remove(&told.request_id) else {
            return Err(unasked);
        };
        if *self.topics.get(slot).name != *told.topic || !self.topics.learn(slot, told.topic_id) {
            return Err(ProtocolError::TopicId(told.topic_id));
        }
        let Some(subscription) = &mut self.topics.get_mut(slot).subscription else {
            return Err(unasked);
        };
        subscription.stage = Stage::Live;
        let passed_over = subscription
            .sequence
            .begin(told.next_seq, told.last_seq, told.epoch)
            .map_err(|found| order(FrameType::Subscribed, told.topic_id, found))?;
        let step = Step::of(
            slot,
            Notice::Subscribed {
                topic: "",
                handle: TopicHandle::NONE,
                request_id: told.request_id,
                policy: told.policy,
                next_seq: told.next_seq,
                last_seq: told.last_seq,
                epoch: told.epoch,
                resumed: subscription.held_before,
            },
        );
        if let Some(gap) = passed_over {
            self.queued.push_back(gap_step(
                slot,
                Gap {
                    topic_id: told.topic_id,
                    ..gap
                },
            ));
        }
        self.leave(slot);
        self.seek_settlement(slot);
        Ok(Some(step))
    }

    fn take_unsubscribed(&mut self, told: Unsubscribed) -> Taken {
        let Some(Pending::Unsubscribe(slot)) = self.pending.remove(&told.request_id) else {
            return Err(ProtocolError::UnknownRequest {
                frame: FrameType::Unsubscribed,
                request_id: told.request_id,
            });
        };
        if self.topics.get(slot).id != told.topic_id {
            return Err(ProtocolError::TopicId(told.topic_id));
        }
        self.end_subscription(slot, told.request_id, Some(told.last_seq));
        Ok(None)
    }

    fn take_reply(&mut self, reply: Reply<'_>, end: usize) -> Taken {
        let body = (end - reply.payload.len(), end);
        let accepted = reply.code == ErrorCode::Ok as u16;
        if let Some(slot) = self.take_in_flight(reply.request_id) {
            if accepted && reply.topic_id != 0 && !self.topics.learn(slot, reply.topic_id) {
                return Err(ProtocolError::TopicId(reply.topic_id));
            }
            return Ok(Some(Step {
                fixed: Notice::Reply {
                    topic: "",
                    reply: Reply {
                        payload: &[],
                        ..reply
                    },
                },
                slot: Some(slot),
                body,
            }));
        }
        let learner = match self.pending.get(&reply.request_id) {
            Some(&Pending::Learn(slot)) => Some(slot),
            _ => None,
        };
        if let Some(slot) = learner {
            self.pending.remove(&reply.request_id);
            self.topics.get_mut(slot).learning = false;
            self.unused.push(slot);
            if accepted {
                return match self.topics.learn(slot, reply.topic_id) {
                    true => Ok(None),
                    false => Err(ProtocolError::TopicId(reply.topic_id)),
                };
            }
        } else if accepted || reply.request_id >= self.next_request {
            // Only a refusal answers a quiet publish.
            return Err(ProtocolError::UnknownRequest {
                frame: FrameType::Reply,
                request_id: reply.request_id,
            });
        }
        Ok(Some(Step {
            fixed: Notice::Refused(Refused {
                request_id: reply.request_id,
                topic: None,
                code: reply.code,
                frame_type: FrameType::Command as u8,
                fatal: false,
                retry_after_ms: reply.retry_after_ms,
                text: "",
            }),
            slot: learner.or_else(|| self.topics.by_id(reply.topic_id)),
            body,
        }))
    }

    fn take_page(&mut self, page: HistoryPage<'_>, start: usize) -> Taken {
        let unasked = ProtocolError::UnknownRequest {
            frame: FrameType::HistoryPage,
            request_id: page.request_id,
        };
        let read = self.reads.remove(&page.request_id).ok_or(unasked)?;
        self.pending.remove(&page.request_id);
        if read.query.series != page.series {
            return Err(unasked);
        }
        // Extension fields may lie behind the rows.
        let rows = start + HEADER_LEN + PAGE_HEAD;
        Ok(Some(Step {
            fixed: Notice::History(HistoryPage { rows: &[], ..page }),
            slot: None,
            body: (rows, rows + page.rows.len()),
        }))
    }

    /// Takes a command out of those in flight; its topic.
    fn take_in_flight(&mut self, request_id: u64) -> Option<u32> {
        let index = self
            .in_flight
            .binary_search_by_key(&request_id, |command| command.request_id)
            .ok()?;
        let command = self.in_flight.remove(index)?;
        self.topics.get_mut(command.slot).in_flight -= 1;
        self.unused.push(command.slot);
        Some(command.slot)
    }

    fn take_error(&mut self, error: ErrorFrame<'_>, end: usize) -> Taken {
        let slot = self.refuse(error.request_id, &error)?;
        match error.fatal {
            true => self.refused(error.code, error.retry_after_ms),
            false => self.answer_goodbye(),
        }
        Ok(Some(Step {
            fixed: Notice::Refused(Refused {
                request_id: error.request_id,
                topic: None,
                code: error.code,
                frame_type: error.frame_type,
                fatal: error.fatal,
                retry_after_ms: error.retry_after_ms,
                text: "",
            }),
            slot,
            body: (end - error.text.len(), end),
        }))
    }

    /// Withdraws the request that an ERROR refuses; its topic, where that is known.
    fn refuse(
        &mut self,
        request_id: u64,
        error: &ErrorFrame<'_>,
    ) -> Result<Option<u32>, ProtocolError> {
        if request_id == 0 {
            return Ok(None);
        }
        if let Some(slot) = self.take_in_flight(request_id) {
            return Ok(Some(slot));
        }
        let slot = match self.pending.remove(&request_id) {
            None if request_id >= self.next_request => {
                return Err(ProtocolError::UnknownRequest {
                    frame: FrameType::Error,
                    request_id,
                });
            }
            None => return Ok(None),
            // After a fatal error the read waits for the next connection.
            Some(Pending::History) => {
                if !error.fatal {
                    self.reads.remove(&request_id);
                }
                return Ok(None);
            }
            Some(Pending::Learn(slot)) => {
                self.topics.get_mut(slot).learning = false;
                self.unused.push(slot);
                slot
            }
            Some(Pending::Subscribe(slot)) => {
                let subscription = self.topics.get(slot).subscription;
                match subscription.and_then(|s| s.leaving) {
                    Some(leaving) => self.end_subscription(slot, leaving, Some(0)),
                    // After a fatal error all subscriptions wait for the next connection.
                    None if error.fatal => {}
                    None => {
                        self.topics.get_mut(slot).subscription = None;
                        self.unused.push(slot);
                    }
                }
                slot
            }
            Some(Pending::Unsubscribe(slot)) => {
                self.end_subscription(slot, request_id, None);
                slot
            }
        };
        Ok(Some(slot))
    }

    fn take_goodbye(&mut self, goodbye: Goodbye<'_>, end: usize) -> Step {
        self.dismissed(goodbye.code, goodbye.retry_after_ms);
        Step {
            fixed: Notice::Goodbye {
                code: goodbye.code,
                retry_after_ms: goodbye.retry_after_ms,
                text: "",
            },
            slot: None,
            body: (end - goodbye.text.len(), end),
        }
    }

    fn take_pong(&mut self, pong: Pong) -> Taken {
        // PONGs keep the order of their PINGs.
        match self.pings.pop_front() {
            Some(ping) if ping.token == pong.token => {
                self.confirmed = ping.published;
                self.ponged = ping.token;
                self.ping_to_settle();
                Ok(ping.asked.then_some(Step::plain(Notice::Pong {
                    token: pong.token,
                    node_ns: pong.node_ns,
                })))
            }
            _ => Err(ProtocolError::UnknownRequest {
                frame: FrameType::Pong,
                request_id: pong.token,
            }),
        }
    }
}

fn gap_step(slot: u32, gap: Gap) -> Step {
    Step::of(
        slot,
        Notice::Gap {
            topic: "",
            handle: TopicHandle::NONE,
            gap,
        },
    )
}

fn order(frame: FrameType, topic_id: u32, found: OutOfOrder) -> ProtocolError {
    ProtocolError::Order {
        frame,
        topic_id,
        expected: found.expected,
        got: found.got,
    }
}
