//! The user's requests.

use tickring_protocol::{
    Command, Frame, HEADER_LEN, History, MAX_FRAME_LEN, PUBLISH, Publish, Subscribe, TopicError,
    TopicName, Unsubscribe,
};

use super::sequence::Sequence;
use super::state::{InFlight, Pending, Phase, Read, State};
use super::topics::{Again, Stage, Subscription, TopicRef};
use super::{HistoryQuery, StartAt, SubscribeOptions};

/// PINGs that may wait for their PONG at once.
const MAX_PINGS: usize = 1024;
/// Pages of stored rows that may be outstanding at once.
const MAX_READS: usize = 1024;
/// Bytes of a COMMAND besides name and payload.
const COMMAND_LEN: usize = HEADER_LEN + 16;

/// Why a request was not taken. Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The topic's name is none.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The connection's name or its credentials are too long.
    #[error("a connection's name has at most 64 bytes, its credentials at most 4096")]
    BadName,
    /// The topic is subscribed already.
    #[error("the topic is subscribed already")]
    AlreadySubscribed,
    /// The topic is not subscribed, or is being given up already.
    #[error("the topic is not subscribed")]
    NotSubscribed,
    /// A seq of 0, where events count from 1.
    #[error("events count from seq 1")]
    BadSeq,
    /// There is no connection at present.
    #[error("not connected")]
    Offline,
    /// The session was closed or has given up.
    #[error("the session is closed")]
    Closed,
    /// Too many bytes wait to be sent.
    #[error("{unsent} bytes wait to be sent; at most {limit} may")]
    Full {
        /// Bytes that wait.
        unsent: usize,
        /// [`crate::SessionConfig::max_unsent`].
        limit: usize,
    },
    /// Too many commands wait for a reply.
    #[error("{limit} commands wait for a reply; no more may")]
    TooManyCommands {
        /// [`crate::SessionConfig::max_commands`].
        limit: usize,
    },
    /// Too many pages of stored rows are outstanding.
    #[error("{limit} reads of stored rows wait for their page; no more may")]
    TooManyReads {
        /// How many may.
        limit: usize,
    },
    /// Too many topics are known; [`crate::Session::forget`] some.
    #[error("{limit} topics are known; no more may be")]
    TooManyTopics {
        /// [`crate::SessionConfig::max_topics`].
        limit: usize,
    },
    /// The frame would be larger than the server takes.
    #[error("the frame would have {len} bytes; the server takes {limit}")]
    TooLarge {
        /// Bytes that the frame would have.
        len: usize,
        /// The server's limit.
        limit: usize,
    },
    /// The handle's topic was forgotten, or belongs to another session.
    #[error("the topic handle is not valid in this session")]
    StaleHandle,
}

impl State {
    pub(crate) fn subscribe(
        &mut self,
        topic: TopicRef<'_>,
        options: SubscribeOptions,
    ) -> Result<u64, RequestError> {
        self.check_open()?;
        let (seq, epoch) = match options.from {
            StartAt::Now => (0, 0),
            StartAt::Oldest => (1, 0),
            StartAt::Seq { seq: 0, .. } => return Err(RequestError::BadSeq),
            StartAt::Seq { seq, epoch } => (seq, epoch),
        };
        let slot = self.topics.resolve(topic)?;
        let sequence = Sequence::asked(seq, epoch);
        let request_id = self.next_request;
        match &mut self.topics.get_mut(slot).subscription {
            Some(old) if old.leaving.is_none() || old.again.is_some() => {
                return Err(RequestError::AlreadySubscribed);
            }
            Some(old) => {
                old.again = Some(Again {
                    request_id,
                    policy: options.policy,
                    sequence,
                });
            }
            none => {
                *none = Some(Subscription {
                    request_id,
                    policy: options.policy,
                    stage: Stage::Wanted,
                    sequence,
                    settled_by: 0,
                    held_before: false,
                    leaving: None,
                    again: None,
                });
                self.ask(slot);
            }
        }
        self.next_request += 1;
        Ok(request_id)
    }

    /// Sends SUBSCRIBE if there is a connection for it.
    pub(crate) fn ask(&mut self, slot: u32) {
        if self.phase != Phase::Active {
            return;
        }
        let topic = self.topics.get_mut(slot);
        let Some(subscription) = &mut topic.subscription else {
            return;
        };
        subscription.stage = Stage::Asked;
        let (from_seq, epoch) = subscription.sequence.resume();
        self.pending
            .insert(subscription.request_id, Pending::Subscribe(slot));
        self.outbox.put(&Frame::Subscribe(Subscribe {
            request_id: subscription.request_id,
            from_seq,
            epoch,
            policy: subscription.policy,
            topic: &topic.name,
        }));
    }

    pub(crate) fn unsubscribe(&mut self, topic: TopicRef<'_>) -> Result<u64, RequestError> {
        let slot = match topic {
            TopicRef::Handle(handle) => self.topics.check(handle)?,
            TopicRef::Name(name) => self
                .topics
                .by_name(name)
                .ok_or(RequestError::NotSubscribed)?,
        };
        let request_id = self.next_request;
        let Some(subscription) = &mut self.topics.get_mut(slot).subscription else {
            return Err(RequestError::NotSubscribed);
        };
        if subscription.leaving.is_some() {
            // The one that was asked for meanwhile has not begun: it simply does not.
            subscription
                .again
                .take()
                .ok_or(RequestError::NotSubscribed)?;
            let leaving = subscription.leaving.unwrap_or(request_id);
            return Ok(leaving);
        }
        subscription.leaving = Some(request_id);
        self.next_request += 1;
        match subscription.stage {
            Stage::Wanted => self.end_subscription(slot, request_id, None),
            Stage::Asked => {}
            Stage::Live => self.leave(slot),
        }
        Ok(request_id)
    }

    /// Sends UNSUBSCRIBE for a subscription whose id is known.
    pub(crate) fn leave(&mut self, slot: u32) {
        let topic = self.topics.get(slot);
        let leaving = topic.subscription.and_then(|s| s.leaving);
        let (Some(request_id), Phase::Active) = (leaving, self.phase) else {
            return;
        };
        self.pending.insert(request_id, Pending::Unsubscribe(slot));
        self.outbox.put(&Frame::Unsubscribe(Unsubscribe {
            request_id,
            topic_id: topic.id,
        }));
    }

    pub(crate) fn forget(&mut self, topic: TopicRef<'_>) -> Result<(), RequestError> {
        let slot = match topic {
            TopicRef::Handle(handle) => self.topics.check(handle)?,
            TopicRef::Name(name) => self.topics.by_name(name).ok_or(RequestError::StaleHandle)?,
        };
        self.topics.get_mut(slot).pinned = false;
        self.unused.push(slot);
        Ok(())
    }

    pub(crate) fn publish(
        &mut self,
        topic: TopicRef<'_>,
        event: &Publish<'_>,
    ) -> Result<(), RequestError> {
        self.check_room()?;
        let slot = self.topics.resolve(topic)?;
        self.scratch.clear();
        event.encode(&mut self.scratch);
        let topic = self.topics.get_mut(slot);
        topic.pinned = true;
        check_size(self.server_max_frame, &topic.name, self.scratch.len())?;
        let request_id = self.next_request;
        self.next_request += 1;
        let learn = topic.id == 0 && !topic.learning;
        if learn {
            topic.learning = true;
            self.pending.insert(request_id, Pending::Learn(slot));
        }
        self.outbox.put(&Frame::Command(Command {
            request_id,
            topic_id: topic.id,
            command: PUBLISH,
            topic: if topic.id == 0 { &topic.name } else { "" },
            payload: &self.scratch,
            quiet: !learn,
        }));
        self.published += 1;
        Ok(())
    }

    pub(crate) fn publish_confirmed(
        &mut self,
        topic: TopicRef<'_>,
        event: &Publish<'_>,
    ) -> Result<u64, RequestError> {
        let mut payload = Vec::new();
        event.encode(&mut payload);
        self.queue_command(topic, PUBLISH, payload)
    }

    pub(crate) fn command(
        &mut self,
        topic: TopicRef<'_>,
        command: u16,
        payload: &[u8],
    ) -> Result<u64, RequestError> {
        self.queue_command(topic, command, payload.to_vec())
    }

    fn queue_command(
        &mut self,
        topic: TopicRef<'_>,
        command: u16,
        payload: Vec<u8>,
    ) -> Result<u64, RequestError> {
        match self.check_room() {
            Ok(()) | Err(RequestError::Offline) => {}
            Err(error) => return Err(error),
        }
        let limit = self.config.max_commands;
        if self.in_flight.len() >= limit {
            return Err(RequestError::TooManyCommands { limit });
        }
        let slot = self.topics.resolve(topic)?;
        let topic = self.topics.get_mut(slot);
        check_size(self.server_max_frame, &topic.name, payload.len())?;
        topic.in_flight += 1;
        let request_id = self.next_request;
        self.next_request += 1;
        self.in_flight.push_back(InFlight {
            request_id,
            slot,
            command,
            payload,
            at: None,
            maybe_applied: false,
        });
        if self.phase == Phase::Active {
            self.send_command(self.in_flight.len() - 1);
        }
        Ok(request_id)
    }

    /// Sends the command at `index` of those in flight.
    pub(crate) fn send_command(&mut self, index: usize) {
        let command = &mut self.in_flight[index];
        let topic = self.topics.get(command.slot);
        command.at = Some(self.outbox.put(&Frame::Command(Command {
            request_id: command.request_id,
            topic_id: topic.id,
            command: command.command,
            topic: if topic.id == 0 { &topic.name } else { "" },
            payload: &command.payload,
            quiet: false,
        })));
    }

    pub(crate) fn history(
        &mut self,
        topic: &str,
        query: HistoryQuery,
    ) -> Result<u64, RequestError> {
        match self.check_room() {
            Ok(()) | Err(RequestError::Offline) => {}
            Err(error) => return Err(error),
        }
        TopicName::new(topic)?;
        if self.reads.len() >= MAX_READS {
            return Err(RequestError::TooManyReads { limit: MAX_READS });
        }
        let request_id = self.next_request;
        self.next_request += 1;
        let topic = topic.into();
        self.reads.insert(request_id, Read { topic, query });
        if self.phase == Phase::Active {
            self.send_read(request_id);
        }
        Ok(request_id)
    }

    /// Sends a read that is outstanding.
    pub(crate) fn send_read(&mut self, request_id: u64) {
        let Some(Read { topic, query }) = self.reads.get(&request_id) else {
            return;
        };
        self.pending.insert(request_id, Pending::History);
        self.outbox.put(&Frame::History(History {
            request_id,
            series: query.series,
            newest_first: query.newest_first,
            limit: query.limit,
            from_ns: query.from_ns,
            to_ns: query.to_ns,
            cursor: query.cursor,
            topic,
        }));
    }

    pub(crate) fn ping(&mut self) -> Result<u64, RequestError> {
        self.check_room()?;
        if self.pings.len() >= MAX_PINGS {
            return Err(RequestError::Full {
                unsent: self.outbox.waiting().len(),
                limit: self.config.max_unsent,
            });
        }
        Ok(self.put_ping(true))
    }

    fn check_open(&self) -> Result<(), RequestError> {
        let given_up =
            self.phase == Phase::Offline && self.retry_at.is_none() && self.lost.is_none();
        if self.closed || given_up {
            return Err(RequestError::Closed);
        }
        Ok(())
    }

    fn check_room(&self) -> Result<(), RequestError> {
        self.check_open()?;
        if self.phase != Phase::Active || self.lost.is_some() {
            return Err(RequestError::Offline);
        }
        let (unsent, limit) = (self.outbox.waiting().len(), self.config.max_unsent);
        if unsent >= limit {
            return Err(RequestError::Full { unsent, limit });
        }
        Ok(())
    }
}

/// Counts the name even when the id will do: after a reconnect it is needed again.
fn check_size(limit: usize, name: &str, payload: usize) -> Result<(), RequestError> {
    let len = COMMAND_LEN + name.len() + payload;
    let limit = limit.min(MAX_FRAME_LEN);
    if len > limit {
        return Err(RequestError::TooLarge { len, limit });
    }
    Ok(())
}
