//! tickring's own protocol.

use tickring_protocol::{
    Command, Decoded, Frame, Goodbye, Hello, MAX_FRAME_LEN, PUBLISH, Ping, Policy, Pong, Publish,
    Subscribe, Unsubscribe, VERSION_MAJOR, VERSION_MINOR, decode,
};

use super::topic_ids::TopicIds;
use super::{Inbound, Nonsense, Parsed, Target};
use crate::topics::{Kind, Topics};

/// Speaks tickring's protocol.
///
/// Request ids carry their meaning, so that no table of open requests is needed: a subscribe or
/// unsubscribe has its topic's number; a publish has the highest bit set, then its topic's number,
/// then its serial.
#[derive(Debug)]
pub struct Tickring {
    kind: Kind,
    names: Vec<String>,
    ids: TopicIds,
    id_of: Vec<u32>,
    scratch: Vec<u8>,
}

const PUBLISH_BIT: u64 = 1 << 63;

impl Tickring {
    /// Speaks of the topics of one run.
    pub fn new(topics: &Topics) -> Self {
        Self {
            kind: topics.kind,
            names: (0..topics.count).map(|topic| topics.name(topic)).collect(),
            ids: TopicIds::new(topics.count),
            id_of: vec![0; topics.count as usize],
            scratch: Vec::new(),
        }
    }

    fn publish_topic(&self, request_id: u64) -> Option<u32> {
        self.topic_of_request((request_id & !PUBLISH_BIT) >> 32)
            .filter(|_| request_id & PUBLISH_BIT != 0)
    }

    fn learn(&mut self, id: u32, topic: u32) {
        if let Some(known) = self.id_of.get_mut(topic as usize)
            && *known != id
        {
            *known = id;
            self.ids.learn(id, topic);
        }
    }

    /// The topic that a request id of ours names.
    fn topic_of_request(&self, request_id: u64) -> Option<u32> {
        u32::try_from(request_id)
            .ok()
            .filter(|&topic| (topic as usize) < self.names.len())
    }

    fn inbound<'a>(&mut self, frame: Frame<'a>) -> Inbound<'a> {
        match frame {
            Frame::Event(m) => match self.ids.topic(m.topic_id) {
                Some(topic) => Inbound::Event {
                    topic,
                    seq: m.seq,
                    payload: m.body,
                },
                None => Inbound::Stranger,
            },
            Frame::Snapshot(m) => match self.ids.topic(m.topic_id) {
                Some(topic) => Inbound::Snapshot { topic },
                None => Inbound::Stranger,
            },
            Frame::Gap(m) => match self.ids.topic(m.topic_id) {
                Some(topic) => Inbound::Gap {
                    topic,
                    reason: m.reason,
                    first_seq: m.first_seq,
                    last_seq: m.last_seq,
                },
                None => Inbound::Stranger,
            },
            Frame::Welcome(m) => Inbound::Welcome {
                heartbeat_ms: m.heartbeat_ms,
            },
            Frame::Subscribed(m) => match self.topic_of_request(m.request_id) {
                Some(topic) => {
                    self.learn(m.topic_id, topic);
                    Inbound::Subscribed {
                        topic,
                        next_seq: m.next_seq,
                    }
                }
                None => Inbound::Stranger,
            },
            Frame::Unsubscribed(m) => match self.topic_of_request(m.request_id) {
                Some(topic) => Inbound::Unsubscribed {
                    topic,
                    last_seq: Some(m.last_seq),
                },
                None => Inbound::Stranger,
            },
            Frame::Reply(m) => match self.publish_topic(m.request_id) {
                Some(topic) if m.code != 0 => Inbound::PublishRefused {
                    topic,
                    code: m.code,
                },
                Some(topic) => {
                    self.learn(m.topic_id, topic);
                    Inbound::Published
                }
                None => Inbound::Stranger,
            },
            Frame::Error(m) => {
                if let Some(topic) = self.publish_topic(m.request_id)
                    && !m.fatal
                {
                    return Inbound::PublishRefused {
                        topic,
                        code: m.code,
                    };
                }
                Inbound::Refused {
                    code: m.code,
                    text: m.text,
                    fatal: m.fatal,
                    topic: self.topic_of_request(m.request_id),
                }
            }
            Frame::Goodbye(m) => Inbound::Goodbye { code: m.code },
            Frame::Ping(m) => Inbound::Ping(m.token),
            _ => Inbound::Other,
        }
    }
}

impl Target for Tickring {
    fn hello(&self, name: &str, out: &mut Vec<u8>) {
        Frame::Hello(Hello {
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            session: 0,
            name,
            credentials: &[],
        })
        .encode(out);
    }

    fn subscribe(&self, topic: u32, policy: Policy, out: &mut Vec<u8>) {
        Frame::Subscribe(Subscribe {
            request_id: u64::from(topic),
            from_seq: 0,
            epoch: 0,
            policy,
            topic: &self.names[topic as usize],
        })
        .encode(out);
    }

    fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>) {
        Frame::Unsubscribe(Unsubscribe {
            request_id: u64::from(topic),
            topic_id: self.id_of[topic as usize],
        })
        .encode(out);
    }

    fn publish(&mut self, topic: u32, serial: u32, payload: &[u8], out: &mut Vec<u8>) {
        self.scratch.clear();
        Publish {
            kind: self.kind.event() as u16,
            event_ns: 0,
            body: payload,
        }
        .encode(&mut self.scratch);
        let topic_id = self.id_of[topic as usize];
        Frame::Command(Command {
            request_id: PUBLISH_BIT | u64::from(topic) << 32 | u64::from(serial),
            topic_id,
            command: PUBLISH,
            topic: if topic_id == 0 {
                &self.names[topic as usize]
            } else {
                ""
            },
            payload: &self.scratch,
            // The first replies tell the topic's id; from then on only a refusal is answered.
            quiet: topic_id != 0,
        })
        .encode(out);
    }

    fn knows(&self, topic: u32) -> bool {
        self.id_of[topic as usize] != 0
    }

    fn ping(&self, out: &mut Vec<u8>) {
        Frame::Ping(Ping { token: 0 }).encode(out);
    }

    fn pong(&self, token: u64, out: &mut Vec<u8>) {
        Frame::Pong(Pong { token, node_ns: 0 }).encode(out);
    }

    fn goodbye(&self, out: &mut Vec<u8>) {
        Frame::Goodbye(Goodbye {
            code: 0,
            retry_after_ms: 0,
            text: "",
        })
        .encode(out);
    }

    #[inline]
    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Parsed<'a>, Nonsense> {
        match decode(bytes, MAX_FRAME_LEN) {
            Ok(Decoded::Frame { frame, len }) => Ok(Parsed::Message(self.inbound(frame), len)),
            Ok(Decoded::Skipped { len }) => Ok(Parsed::Message(Inbound::Other, len)),
            Ok(Decoded::NeedMore { .. }) => Ok(Parsed::NeedMore),
            Err(error) => Err(Nonsense(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tickring_protocol::{Event, Reply, Subscribed};

    use super::*;

    fn target() -> Tickring {
        Tickring::new(&Topics {
            kind: Kind::Stream,
            run: 7,
            count: 3,
            each: 1,
            publishers: 1,
        })
    }

    fn bytes(frame: Frame<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        frame.encode(&mut out);
        out
    }

    #[test]
    fn events_carry_the_generators_topic_once_subscribed_has_told_the_id() {
        let mut target = target();
        let event = bytes(Frame::Event(Event {
            topic_id: 900,
            kind: 1,
            seq: 5,
            event_ns: 0,
            node_ns: 0,
            body: b"body",
        }));
        let stranger = Parsed::Message(Inbound::Stranger, event.len());
        assert_eq!(target.parse(&event), Ok(stranger));
        let subscribed = bytes(Frame::Subscribed(Subscribed {
            request_id: 2,
            topic_id: 900,
            policy: Policy::Resume,
            next_seq: 5,
            last_seq: 4,
            epoch: 1,
            topic: "stream/x",
        }));
        let told = Inbound::Subscribed {
            topic: 2,
            next_seq: 5,
        };
        assert_eq!(
            target.parse(&subscribed),
            Ok(Parsed::Message(told, subscribed.len()))
        );
        let known = Inbound::Event {
            topic: 2,
            seq: 5,
            payload: b"body",
        };
        assert_eq!(
            target.parse(&event),
            Ok(Parsed::Message(known, event.len()))
        );
        assert_eq!(target.parse(&event[..20]), Ok(Parsed::NeedMore));
    }

    #[test]
    fn a_publish_names_its_topic_until_a_reply_tells_the_id() {
        let mut target = target();
        let mut out = Vec::new();
        target.publish(1, 0, b"x", &mut out);
        let Ok(Decoded::Frame {
            frame: Frame::Command(first),
            ..
        }) = decode(&out, 1 << 20)
        else {
            panic!("not a command: {out:?}");
        };
        assert!(!first.quiet && first.topic == "stream/lg-00000007-1");
        let reply = bytes(Frame::Reply(Reply {
            request_id: first.request_id,
            topic_id: 12,
            code: 0,
            seq: 1,
            retry_after_ms: 0,
            payload: &[],
        }));
        assert!(matches!(
            target.parse(&reply),
            Ok(Parsed::Message(Inbound::Published, _))
        ));
        let mut out = Vec::new();
        target.publish(1, 1, b"x", &mut out);
        let Ok(Decoded::Frame {
            frame: Frame::Command(second),
            ..
        }) = decode(&out, 1 << 20)
        else {
            panic!("not a command: {out:?}");
        };
        assert!(second.quiet && second.topic_id == 12);
        assert_ne!(first.request_id, second.request_id);
    }

    #[test]
    fn bytes_outside_the_protocol_are_an_error() {
        assert!(target().parse(&[1, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
