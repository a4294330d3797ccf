//! Sessions against scripted servers.

mod history;
mod life;
mod order;
mod requests;

use std::time::Duration;

use tickring_protocol::{
    Decoded, Event, EventKind, Frame, Gap, GapReason, Goodbye, Hello, MAX_FRAME_LEN, Policy, Pong,
    Reply, Snapshot, Subscribed, Unsubscribed, VERSION_MAJOR, VERSION_MINOR, Welcome, decode,
};

use super::*;
use crate::{Disconnected, ProtocolError, Refused};

pub(super) const HEARTBEAT_MS: u32 = 1000;
pub(super) const TOKEN: u128 = 0xfeed;

/// A session and what its server reads of it.
pub(super) struct Pair {
    pub(super) session: Session,
    pub(super) now: Duration,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let mut config = SessionConfig {
            seed: 1,
            ..SessionConfig::default()
        };
        change(&mut config);
        Self {
            session: Session::new(config).unwrap(),
            now: Duration::from_secs(100),
        }
    }

    /// A session that is connected, its first notices taken.
    pub(super) fn active() -> Self {
        let mut pair = Self::new();
        pair.connect(false);
        pair
    }

    /// Connects; the token that HELLO presented and the notices behind WELCOME.
    pub(super) fn connect(&mut self, resumed: bool) -> (u128, Vec<String>) {
        self.session.connected(self.now);
        let mut presented = None;
        self.read(|frame| {
            if let Frame::Hello(Hello { session, .. }) = frame {
                presented = Some(session);
            }
        });
        let notices = self.serve(&[welcome(resumed)]);
        (presented.expect("HELLO comes first"), notices)
    }

    /// Takes what the session sends.
    pub(super) fn read(&mut self, mut see: impl FnMut(Frame<'_>)) {
        let bytes = self.session.to_send().to_vec();
        self.session.sent(bytes.len());
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Decoded::Frame { frame, len } = decode(rest, MAX_FRAME_LEN).unwrap() else {
                panic!("a session sends whole frames");
            };
            see(frame);
            rest = &rest[len..];
        }
    }

    /// What the session sends, for comparing.
    pub(super) fn sends(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        self.read(|frame| match frame {
            Frame::Subscribe(s) => seen.push(format!(
                "SUBSCRIBE {} {} from {} epoch {}",
                s.request_id, s.topic, s.from_seq, s.epoch
            )),
            Frame::Unsubscribe(u) => {
                seen.push(format!("UNSUBSCRIBE {} id {}", u.request_id, u.topic_id));
            }
            Frame::Command(c) => seen.push(format!(
                "COMMAND {} {}{}{}",
                c.request_id,
                c.topic,
                c.topic_id,
                if c.quiet { " quiet" } else { "" }
            )),
            Frame::History(h) => {
                seen.push(format!(
                    "HISTORY {} {} {:?}",
                    h.request_id, h.topic, h.series
                ));
            }
            // Those that only seek settlement are no part of what most tests are about.
            Frame::Ping(_) => {}
            other => seen.push(format!("{:?}", other.frame_type())),
        });
        seen
    }

    /// Lets the server send frames; the notices that come of them.
    pub(super) fn serve(&mut self, frames: &[Frame<'_>]) -> Vec<String> {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        self.serve_bytes(&bytes)
    }

    pub(super) fn serve_bytes(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut notices = Vec::new();
        while !bytes.is_empty() {
            let taken = self.session.receive(bytes, self.now);
            bytes = &bytes[taken..];
            notices.extend(self.notices());
        }
        notices
    }

    pub(super) fn notices(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(notice) = self.session.next() {
            seen.push(brief(&notice));
        }
        seen
    }

    /// Cuts the connection.
    pub(super) fn cut(&mut self) -> Vec<String> {
        self.session.disconnected(Reason::Eof, self.now);
        self.notices()
    }

    /// Subscribes and has it confirmed.
    pub(super) fn live(&mut self, topic: &str, id: u32, from: StartAt, last_seq: u64) {
        let options = SubscribeOptions {
            from,
            ..SubscribeOptions::default()
        };
        let request_id = self.session.subscribe(topic, options).unwrap();
        self.sends();
        let frame = subscribed(request_id, topic, id, last_seq + 1, last_seq);
        let notices = self.serve(&[frame]);
        assert_eq!(notices.len(), 1, "{notices:?}");
    }
}

/// A notice in a few words.
pub(super) fn brief(notice: &Notice<'_>) -> String {
    match *notice {
        Notice::Connected { resumed } => format!("connected resumed={resumed}"),
        Notice::Disconnected(Disconnected { reason, .. }) => format!("disconnected {reason}"),
        Notice::Subscribed {
            topic,
            next_seq,
            resumed,
            ..
        } => format!("subscribed {topic} next {next_seq} resumed={resumed}"),
        Notice::Event { topic, event, .. } => format!("event {topic} {}", event.seq),
        Notice::Snapshot {
            topic, snapshot, ..
        } => format!("snapshot {topic} {}", snapshot.seq),
        Notice::Gap { topic, gap, .. } => format!(
            "gap {topic} {:?} {}-{}",
            gap.reason, gap.first_seq, gap.last_seq
        ),
        Notice::Unsubscribed {
            topic, last_seq, ..
        } => format!("unsubscribed {topic} {last_seq}"),
        Notice::Reply { topic, reply } => {
            format!("reply {topic} {} code {}", reply.request_id, reply.code)
        }
        Notice::History(page) => format!("page {} of {} rows", page.request_id, page.len()),
        Notice::OutcomeUnknown { topic, request_id } => format!("unknown {topic} {request_id}"),
        Notice::Refused(Refused {
            request_id,
            topic,
            code,
            text,
            ..
        }) => format!("refused {request_id} {topic:?} {code} {text}"),
        Notice::Pong { token, .. } => format!("pong {token}"),
        Notice::Goodbye { code, text, .. } => format!("goodbye {code} {text}"),
    }
}

pub(super) fn welcome(resumed: bool) -> Frame<'static> {
    Frame::Welcome(Welcome {
        major: VERSION_MAJOR,
        minor: VERSION_MINOR,
        heartbeat_ms: HEARTBEAT_MS,
        session: TOKEN,
        max_frame: 4096,
        max_subscriptions: 10,
        node_ns: 1,
        resumed,
    })
}

pub(super) fn subscribed(
    request_id: u64,
    topic: &str,
    topic_id: u32,
    next_seq: u64,
    last_seq: u64,
) -> Frame<'_> {
    Frame::Subscribed(Subscribed {
        request_id,
        topic_id,
        policy: Policy::Resume,
        next_seq,
        last_seq,
        epoch: 7,
        topic,
    })
}

pub(super) fn unsubscribed(request_id: u64, topic_id: u32, last_seq: u64) -> Frame<'static> {
    Frame::Unsubscribed(Unsubscribed {
        request_id,
        topic_id,
        last_seq,
    })
}

pub(super) fn event(topic_id: u32, seq: u64) -> Frame<'static> {
    Frame::Event(Event {
        topic_id,
        kind: EventKind::Message as u16,
        seq,
        event_ns: 1,
        node_ns: 2,
        body: b"body",
    })
}

pub(super) fn snapshot(topic_id: u32, seq: u64) -> Frame<'static> {
    Frame::Snapshot(Snapshot {
        topic_id,
        kind: EventKind::Message as u16,
        seq,
        event_ns: 1,
        node_ns: 2,
        body: b"state",
    })
}

pub(super) fn gap(
    topic_id: u32,
    reason: GapReason,
    first_seq: u64,
    last_seq: u64,
) -> Frame<'static> {
    Frame::Gap(Gap {
        topic_id,
        reason,
        first_seq,
        last_seq,
    })
}

pub(super) fn reply(request_id: u64, topic_id: u32, code: u16) -> Frame<'static> {
    Frame::Reply(Reply {
        request_id,
        topic_id,
        code,
        seq: 1,
        retry_after_ms: 0,
        payload: b"why",
    })
}

pub(super) fn pong(token: u64) -> Frame<'static> {
    Frame::Pong(Pong { token, node_ns: 3 })
}

pub(super) fn goodbye(code: u16) -> Frame<'static> {
    Frame::Goodbye(Goodbye {
        code,
        retry_after_ms: 700,
        text: "bye",
    })
}

/// The protocol error that a connection ended with.
pub(super) fn violation(pair: &Pair) -> ProtocolError {
    match pair.session.last_reason() {
        Some(Reason::Protocol(error)) => error,
        other => panic!("the connection ended with {other:?}"),
    }
}
