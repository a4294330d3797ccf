//! What a session tells its user.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tickring_protocol::{
    DecodeError, ErrorCode, Event, FrameType, Gap, HistoryPage, Policy, Reply, Snapshot,
    VERSION_MAJOR,
};

use crate::TopicHandle;

/// Something that the user of a session should know, in the order in which it happened. It
/// borrows from the receive buffer, so that an event costs no allocation; [`Notice::to_owned`]
/// keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// The server accepted the connection; subscriptions are asked for again right behind this.
    Connected {
        /// Whether the server took up the session of an earlier connection. If not, commands
        /// whose reply was outstanding follow as [`Notice::OutcomeUnknown`].
        resumed: bool,
    },
    /// The connection is gone, or an attempt to make one failed.
    Disconnected(Disconnected),
    /// A subscription is in force. Comes again after every reconnect.
    Subscribed {
        /// The topic's name.
        topic: &'a str,
        /// The topic, to tell its notices apart without looking at the name.
        handle: TopicHandle,
        /// What [`crate::Session::subscribe`] returned.
        request_id: u64,
        /// The policy in force, never [`Policy::Default`].
        policy: Policy,
        /// Seq of the first event that follows.
        next_seq: u64,
        /// The topic's newest seq at this moment; 0: no event yet.
        last_seq: u64,
        /// The numbering that these seqs belong to.
        epoch: u64,
        /// Whether this continues the subscription of an earlier connection.
        resumed: bool,
    },
    /// The next event of a topic.
    Event {
        /// The topic's name.
        topic: &'a str,
        /// The topic, to tell its notices apart without looking at the name.
        handle: TopicHandle,
        /// The event.
        event: Event<'a>,
    },
    /// A topic's state after `snapshot.seq`; the next event is the one behind it.
    Snapshot {
        /// The topic's name.
        topic: &'a str,
        /// The topic, to tell its notices apart without looking at the name.
        handle: TopicHandle,
        /// The state.
        snapshot: Snapshot<'a>,
    },
    /// Events that come later ([`tickring_protocol::GapReason::Delayed`]) or not at all.
    Gap {
        /// The topic's name.
        topic: &'a str,
        /// The topic, to tell its notices apart without looking at the name.
        handle: TopicHandle,
        /// Which events, and why.
        gap: Gap,
    },
    /// No event, snapshot or gap of the topic follows.
    Unsubscribed {
        /// The topic's name.
        topic: &'a str,
        /// The topic, to tell its notices apart without looking at the name.
        handle: TopicHandle,
        /// What [`crate::Session::unsubscribe`] returned.
        request_id: u64,
        /// The newest seq that this subscription was brought up to; 0: none.
        last_seq: u64,
    },
    /// The answer to a command, accepted or refused as `reply.code` says.
    Reply {
        /// The topic's name.
        topic: &'a str,
        /// The answer.
        reply: Reply<'a>,
    },
    /// A page of stored rows that [`crate::Session::history`] asked for.
    History(HistoryPage<'a>),
    /// The connection broke before a command's reply came, and the server did not take the
    /// session up again: whether the command was applied is not known.
    OutcomeUnknown {
        /// The topic's name.
        topic: &'a str,
        /// What [`crate::Session::command`] returned.
        request_id: u64,
    },
    /// The server refused a subscription, a publish, or a frame.
    Refused(Refused<'a>),
    /// Everything that was sent before [`crate::Session::ping`] was taken in by the server.
    Pong {
        /// What [`crate::Session::ping`] returned.
        token: u64,
        /// The server's clock in nanoseconds since 1970-01-01 UTC; 0: not told.
        node_ns: u64,
    },
    /// The server will close the connection; what it promised still comes.
    Goodbye {
        /// Why: an [`ErrorCode`] as a number; 0: an ordinary close.
        code: u16,
        /// When to connect again, in milliseconds; the session keeps to it.
        retry_after_ms: u32,
        /// For people.
        text: &'a str,
    },
}

/// The end of a connection, or of an attempt to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnected {
    /// Why.
    pub reason: Reason,
    /// When the next attempt is made; `None`: never.
    pub retry_in: Option<Duration>,
    /// Quiet publishes of this connection that no later PONG has confirmed: at most so many were
    /// lost. They are not sent again.
    pub unconfirmed_publishes: u64,
}

/// A refusal by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The request that was refused; 0: none in particular.
    pub request_id: u64,
    /// The topic, where it is known.
    pub topic: Option<&'a str>,
    /// Why: an [`ErrorCode`] as a number.
    pub code: u16,
    /// The type byte of the refused frame; 0 when there was none.
    pub frame_type: u8,
    /// Whether the server closes the connection because of it.
    pub fatal: bool,
    /// When to try again, in milliseconds; 0: no sooner than something changes.
    pub retry_after_ms: u32,
    /// For people.
    pub text: &'a str,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Transport(std::io::ErrorKind),
    /// The server's stream ended without a GOODBYE.
    #[error("the server closed the connection without a goodbye")]
    Eof,
    /// WELCOME did not come in time.
    #[error("the server did not answer HELLO in time")]
    HelloTimeout,
    /// Nothing was received for three heartbeats, a PING unanswered.
    #[error("the server has been silent for three heartbeats")]
    Silent,
    /// The server refused the connection or a frame of it.
    #[error("the server refused the connection: {}", code_name(*.0))]
    Refused(u16),
    /// The server said goodbye.
    #[error("the server said goodbye: {}", code_name(*.0))]
    Goodbye(u16),
    /// The server broke the protocol. Everything up to there was delivered.
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// This client closed it.
    #[error("closed by this client")]
    Closed,
}

/// How a server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The bytes are no frame.
    #[error("malformed frame: {0}")]
    Malformed(#[from] DecodeError),
    /// A frame that a server never sends, or not at this point.
    #[error("frame {0:?} does not belong here")]
    Unexpected(FrameType),
    /// WELCOME names a major version other than ours.
    #[error("major version {0}; this client speaks {VERSION_MAJOR}")]
    Version(u16),
    /// A frame names a topic that this connection has no subscription of; after UNSUBSCRIBED,
    /// that is an event too late.
    #[error("frame {frame:?} for topic id {topic_id}, which is not subscribed")]
    NotSubscribed {
        /// The frame.
        frame: FrameType,
        /// The id.
        topic_id: u32,
    },
    /// An id stands for two topics, a topic for two ids, or the id is 0.
    #[error("topic id {0} contradicts what was told before")]
    TopicId(u32),
    /// An event lost, repeated or out of order.
    #[error("{frame:?} of topic id {topic_id}: seq {expected} must follow, {got} came")]
    Order {
        /// The frame.
        frame: FrameType,
        /// The topic.
        topic_id: u32,
        /// The only seq that would have been right.
        expected: u64,
        /// The seq that came.
        got: u64,
    },
    /// An answer to a request that was never made, or was answered before.
    #[error("frame {frame:?} answers request {request_id}, which is not outstanding")]
    UnknownRequest {
        /// The frame.
        frame: FrameType,
        /// The request.
        request_id: u64,
    },
    /// The server sends PINGs faster than it reads the PONGs.
    #[error("more PINGs than the server reads PONGs")]
    PingFlood,
}

fn code_name(code: u16) -> &'static str {
    ErrorCode::from_u16(code).map_or("a code that this version does not know", ErrorCode::name)
}

impl Notice<'_> {
    /// A copy that borrows nothing.
    #[must_use]
    pub fn to_owned(&self, name: impl Fn(&str) -> Arc<str>) -> OwnedNotice {
        let topic = match *self {
            Self::Subscribed { topic, .. }
            | Self::Event { topic, .. }
            | Self::Snapshot { topic, .. }
            | Self::Gap { topic, .. }
            | Self::Unsubscribed { topic, .. }
            | Self::Reply { topic, .. }
            | Self::OutcomeUnknown { topic, .. } => Some(name(topic)),
            Self::Refused(refused) => refused.topic.map(&name),
            _ => None,
        };
        let (fixed, body) = self.split();
        OwnedNotice {
            fixed,
            topic,
            body: Bytes::copy_from_slice(body),
        }
    }

    /// The part of fixed size, with its borrowed parts empty, and the variable part.
    fn split(&self) -> (Notice<'static>, &[u8]) {
        match *self {
            Self::Connected { resumed } => (Notice::Connected { resumed }, &[]),
            Self::Disconnected(end) => (Notice::Disconnected(end), &[]),
            Self::Subscribed {
                topic: _,
                handle,
                request_id,
                policy,
                next_seq,
                last_seq,
                epoch,
                resumed,
            } => (
                Notice::Subscribed {
                    topic: "",
                    handle,
                    request_id,
                    policy,
                    next_seq,
                    last_seq,
                    epoch,
                    resumed,
                },
                &[],
            ),
            Self::Event { handle, event, .. } => (
                Notice::Event {
                    topic: "",
                    handle,
                    event: Event { body: &[], ..event },
                },
                event.body,
            ),
            Self::Snapshot {
                handle, snapshot, ..
            } => (
                Notice::Snapshot {
                    topic: "",
                    handle,
                    snapshot: Snapshot {
                        body: &[],
                        ..snapshot
                    },
                },
                snapshot.body,
            ),
            Self::Gap { handle, gap, .. } => (
                Notice::Gap {
                    topic: "",
                    handle,
                    gap,
                },
                &[],
            ),
            Self::Unsubscribed {
                topic: _,
                handle,
                request_id,
                last_seq,
            } => (
                Notice::Unsubscribed {
                    topic: "",
                    handle,
                    request_id,
                    last_seq,
                },
                &[],
            ),
            Self::Reply { reply, .. } => (
                Notice::Reply {
                    topic: "",
                    reply: Reply {
                        payload: &[],
                        ..reply
                    },
                },
                reply.payload,
            ),
            Self::History(page) => (
                Notice::History(HistoryPage { rows: &[], ..page }),
                page.rows,
            ),
            Self::OutcomeUnknown { request_id, .. } => (
                Notice::OutcomeUnknown {
                    topic: "",
                    request_id,
                },
                &[],
            ),
            Self::Refused(refused) => (
                Notice::Refused(Refused {
                    topic: None,
                    text: "",
                    ..refused
                }),
                refused.text.as_bytes(),
            ),
            Self::Pong { token, node_ns } => (Notice::Pong { token, node_ns }, &[]),
            Self::Goodbye {
                code,
                retry_after_ms,
                text,
            } => (
                Notice::Goodbye {
                    code,
                    retry_after_ms,
                    text: "",
                },
                text.as_bytes(),
            ),
        }
    }
}

/// A [`Notice`] that borrows nothing; [`OwnedNotice::get`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedNotice {
    fixed: Notice<'static>,
    topic: Option<Arc<str>>,
    body: Bytes,
}

impl OwnedNotice {
    /// The notice.
    #[must_use]
    pub fn get(&self) -> Notice<'_> {
        fill(self.fixed, self.topic.as_deref(), self.handle(), &self.body)
    }

    /// The body of the event or snapshot, the payload of the reply, the rows of the page, or the text of the refusal
    /// or goodbye; otherwise empty. A clone shares the bytes.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The topic's name, where the notice concerns one. A clone shares the text.
    #[must_use]
    pub fn topic(&self) -> Option<&Arc<str>> {
        self.topic.as_ref()
    }

    fn handle(&self) -> TopicHandle {
        match self.fixed {
            Notice::Subscribed { handle, .. }
            | Notice::Event { handle, .. }
            | Notice::Snapshot { handle, .. }
            | Notice::Gap { handle, .. }
            | Notice::Unsubscribed { handle, .. } => handle,
            _ => TopicHandle::NONE,
        }
    }
}

/// Puts the borrowed parts into a notice that has them empty. The one place that knows which
/// part of a notice its body is.
pub(crate) fn fill<'a>(
    fixed: Notice<'static>,
    name: Option<&'a str>,
    handle: TopicHandle,
    body: &'a [u8],
) -> Notice<'a> {
    let topic = name.unwrap_or_default();
    // A text was checked when its frame was decoded; a refused publish's is whatever it is.
    let text = || std::str::from_utf8(body).unwrap_or_default();
    match fixed {
        Notice::Event { event, .. } => Notice::Event {
            topic,
            handle,
            event: Event { body, ..event },
        },
        Notice::Snapshot { snapshot, .. } => Notice::Snapshot {
            topic,
            handle,
            snapshot: Snapshot { body, ..snapshot },
        },
        Notice::Gap { gap, .. } => Notice::Gap { topic, handle, gap },
        Notice::Subscribed {
            request_id,
            policy,
            next_seq,
            last_seq,
            epoch,
            resumed,
            ..
        } => Notice::Subscribed {
            topic,
            handle,
            request_id,
            policy,
            next_seq,
            last_seq,
            epoch,
            resumed,
        },
        Notice::Unsubscribed {
            request_id,
            last_seq,
            ..
        } => Notice::Unsubscribed {
            topic,
            handle,
            request_id,
            last_seq,
        },
        Notice::Reply { reply, .. } => Notice::Reply {
            topic,
            reply: Reply {
                payload: body,
                ..reply
            },
        },
        Notice::History(page) => Notice::History(HistoryPage { rows: body, ..page }),
        Notice::OutcomeUnknown { request_id, .. } => Notice::OutcomeUnknown { topic, request_id },
        Notice::Refused(refused) => Notice::Refused(Refused {
            topic: name,
            text: text(),
            ..refused
        }),
        Notice::Goodbye {
            code,
            retry_after_ms,
            ..
        } => Notice::Goodbye {
            code,
            retry_after_ms,
            text: text(),
        },
        Notice::Connected { .. } | Notice::Disconnected(_) | Notice::Pong { .. } => fixed,
    }
}
