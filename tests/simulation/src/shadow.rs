//! What a client's bytes ask for: every byte written, malformed or not, is decoded here as the
//! server will decode it, so that each answer is known before it comes.

use tickring_protocol::{Command, Decoded, ErrorCode, Frame, FrameType, Policy, Subscribe, decode};

use crate::model::{Model, identity};

/// A request that the server has not answered yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) request_id: u64,
    pub(crate) what: Asked,
}

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    Subscribe {
        name: String,
        from_seq: u64,
        epoch: u64,
        policy: Policy,
        /// The topic's newest seq when it was asked for.
        known: u64,
    },
    Unsubscribe(u32),
    Command {
        command: u64,
        quiet: bool,
        name: String,
        topic_id: u32,
        /// Whether that id was known to be given out when this was written.
        known_id: bool,
    },
    History {
        topic: String,
    },
    /// A SUBSCRIBE whose topic name is too long.
    LongSubscribe,
    /// A HISTORY whose topic name is too long.
    LongHistory,
    /// A COMMAND whose topic name is too long.
    LongCommand,
}

/// The server's view of one client's stream.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    tail: Vec<u8>,
    /// Whether HELLO was written.
    pub(crate) negotiated: bool,
    /// The session that it asked for; 0: a new one.
    pub(crate) asked_session: u128,
    /// The code of the violation that the bytes contain.
    pub(crate) doomed: Option<ErrorCode>,
    pub(crate) goodbye: bool,
    pub(crate) half_closed: bool,
    /// When the first of these three was written.
    pub(crate) ended_at: Option<u64>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) pings: std::collections::VecDeque<u64>,
    /// Commands in the order in which they were written.
    pub(crate) commands: Vec<u64>,
}

impl Shadow {
    /// Whether the server will read nothing more.
    pub(crate) fn is_over(&self) -> bool {
        self.ended_at.is_some()
    }

    /// Takes in bytes that the client writes.
    pub(crate) fn write(&mut self, bytes: &[u8], max_frame: usize, now: u64, model: &Model) {
        if self.is_over() {
            return;
        }
        let mut tail = std::mem::take(&mut self.tail);
        tail.extend_from_slice(bytes);
        let mut used = 0;
        while !self.is_over() {
            match decode(&tail[used..], max_frame) {
                Ok(Decoded::NeedMore { .. }) => break,
                Ok(Decoded::Skipped { len }) => used += len,
                Ok(Decoded::Frame { frame, len }) => {
                    self.frame(&frame, model);
                    used += len;
                }
                Err(error) => {
                    let long = |what| Pending {
                        request_id: error.request_id,
                        what,
                    };
                    match (FrameType::from_byte(error.frame_type), error.resume_at) {
                        _ if error.is_fatal() || !self.negotiated => self.doomed = Some(error.code),
                        (Some(FrameType::Subscribe), Some(len)) => {
                            self.pending.push(long(Asked::LongSubscribe));
                            used += len;
                        }
                        (Some(FrameType::History), Some(len)) => {
                            self.pending.push(long(Asked::LongHistory));
                            used += len;
                        }
                        (_, Some(len)) => {
                            self.pending.push(long(Asked::LongCommand));
                            used += len;
                        }
                        (_, None) => self.doomed = Some(error.code),
                    }
                }
            }
            if self.doomed.is_some() || self.goodbye {
                self.ended_at = Some(now);
            }
        }
        tail.drain(..used);
        self.tail = tail;
    }

    /// The client shuts its side.
    pub(crate) fn end(&mut self, now: u64) {
        if self.is_over() {
            return;
        }
        self.half_closed = true;
        if !self.tail.is_empty() {
            self.doomed = Some(ErrorCode::Truncated);
        }
        self.ended_at = Some(now);
    }

    fn frame(&mut self, frame: &Frame<'_>, model: &Model) {
        match frame {
            Frame::Hello(_) if self.negotiated => self.doomed = Some(ErrorCode::Unexpected),
            Frame::Hello(hello) => {
                (self.negotiated, self.asked_session) = (true, hello.session);
            }
            Frame::Goodbye(_) => self.goodbye = true,
            _ if !self.negotiated => self.doomed = Some(ErrorCode::NotNegotiated),
            Frame::Subscribe(subscribe) => self.subscribe(subscribe, model),
            Frame::Unsubscribe(it) => self.pending.push(Pending {
                request_id: it.request_id,
                what: Asked::Unsubscribe(it.topic_id),
            }),
            Frame::Command(command) => self.command(command, model),
            Frame::History(it) => self.pending.push(Pending {
                request_id: it.request_id,
                what: Asked::History {
                    topic: it.topic.into(),
                },
            }),
            Frame::Ping(ping) => self.pings.push_back(ping.token),
            Frame::Pong(_) => {}
            _ => self.doomed = Some(ErrorCode::UnknownType),
        }
    }

    fn subscribe(&mut self, it: &Subscribe<'_>, model: &Model) {
        let known = model.find(it.topic).map_or(0, |t| model.topics[t].known());
        self.pending.push(Pending {
            request_id: it.request_id,
            what: Asked::Subscribe {
                name: it.topic.into(),
                from_seq: it.from_seq,
                epoch: it.epoch,
                policy: it.policy,
                known,
            },
        });
    }

    fn command(&mut self, it: &Command<'_>, model: &Model) {
        let command = identity(it.command, it.payload);
        self.commands.push(command);
        self.pending.push(Pending {
            request_id: it.request_id,
            what: Asked::Command {
                command,
                quiet: it.quiet,
                name: it.topic.into(),
                topic_id: it.topic_id,
                known_id: model.by_id(it.topic_id).is_some(),
            },
        });
    }

    /// The oldest command or subscription that waits for an answer.
    pub(crate) fn unanswered(&self) -> Option<u64> {
        let waits = |pending: &&Pending| {
            matches!(
                pending.what,
                Asked::Command { quiet: false, .. } | Asked::Subscribe { .. }
            )
        };
        self.pending.iter().find(waits).map(|p| p.request_id)
    }

    /// How many pending requests may have been answered by their owners.
    pub(crate) fn answered(&self, model: &Model) -> usize {
        let answered = |asked: &Asked| match asked {
            Asked::Command {
                command,
                quiet,
                name,
                topic_id,
                ..
            } => {
                let unknown = match topic_id {
                    0 => model.find(name).is_none(),
                    id => model.by_id(*id).is_none(),
                };
                unknown
                    || model.refused.contains_key(command)
                    || (!quiet && model.applied.contains_key(command))
            }
            Asked::Subscribe { .. } | Asked::History { .. } => true,
            _ => false,
        };
        self.pending.iter().filter(|p| answered(&p.what)).count()
    }

    /// The oldest pending request with this id that `fits`.
    pub(crate) fn find(&self, request_id: u64, fits: impl Fn(&Asked) -> bool) -> Option<usize> {
        self.pending
            .iter()
            .position(|p| p.request_id == request_id && fits(&p.what))
    }
}
