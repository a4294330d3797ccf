//! NATS's client protocol (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).

use tickring_protocol::Policy;

use super::line::{decimal, first_line, nonsense, push_decimal};
use super::{Inbound, Nonsense, Parsed, Target};
use crate::topics::Topics;

/// Speaks to a nats-server. Subscription ids are the generator's topic numbers. NATS does not
/// confirm a SUB by itself (but for `verbose`, which costs the server a line for each publish
/// too), so each is followed by a PING; its PONG says that all before it has taken effect.
#[derive(Debug)]
pub struct Nats {
    subjects: Vec<String>,
}

impl Nats {
    /// Speaks of the topics of one run.
    pub fn new(topics: &Topics) -> Self {
        Self {
            subjects: (0..topics.count).map(|topic| topics.name(topic)).collect(),
        }
    }

    /// `MSG subject sid [reply-to] length`, then the payload on a line of its own.
    #[inline]
    fn message<'a>(
        &self,
        arguments: &'a [u8],
        bytes: &'a [u8],
        start: usize,
    ) -> Result<Parsed<'a>, Nonsense> {
        let bad = || nonsense("a MSG unlike any", arguments);
        let mut words = arguments.split(|&byte| byte == b' ');
        let _subject = words.next().filter(|subject| !subject.is_empty());
        let sid = words.next().and_then(decimal).ok_or_else(bad)?;
        let len = words.next_back().and_then(decimal).ok_or_else(bad)? as usize;
        let end = start + len;
        if bytes.len() < end + 2 {
            return Ok(Parsed::NeedMore);
        }
        if bytes[end..end + 2] != *b"\r\n" {
            return Err(bad());
        }
        let message = match u32::try_from(sid) {
            Ok(topic) if (topic as usize) < self.subjects.len() => Inbound::Event {
                topic,
                seq: 0,
                payload: &bytes[start..end],
            },
            _ => Inbound::Stranger,
        };
        Ok(Parsed::Message(message, end + 2))
    }
}

impl Target for Nats {
    fn hello(&self, name: &str, out: &mut Vec<u8>) {
        let options = serde_json::json!({
            "verbose": false,
            "pedantic": false,
            "tls_required": false,
            "headers": false,
            "echo": true,
            "protocol": 0,
            "lang": "rust",
            "version": env!("CARGO_PKG_VERSION"),
            "name": name,
        });
        out.extend_from_slice(format!("CONNECT {options}\r\n").as_bytes());
    }

    fn subscribe(&self, topic: u32, _policy: Policy, out: &mut Vec<u8>) {
        let subject = &self.subjects[topic as usize];
        out.extend_from_slice(format!("SUB {subject} {topic}\r\nPING\r\n").as_bytes());
    }

    fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("UNSUB {topic}\r\n").as_bytes());
    }

    fn publish(&mut self, topic: u32, _serial: u32, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"PUB ");
        out.extend_from_slice(self.subjects[topic as usize].as_bytes());
        out.push(b' ');
        push_decimal(out, payload.len() as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn knows(&self, _topic: u32) -> bool {
        true
    }

    fn ping(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PING\r\n");
    }

    fn pong(&self, _token: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PONG\r\n");
    }

    /// NATS has no such word: a client just closes.
    fn goodbye(&self, _out: &mut Vec<u8>) {}

    #[inline]
    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Parsed<'a>, Nonsense> {
        let Some((line, len)) = first_line(bytes)? else {
            return Ok(Parsed::NeedMore);
        };
        if let Some(arguments) = line.strip_prefix(b"MSG ") {
            return self.message(arguments, bytes, len);
        }
        let inbound = match line {
            b"PONG" => Inbound::Confirmed,
            b"PING" => Inbound::Ping(0),
            b"+OK" => Inbound::Other,
            _ if line.starts_with(b"INFO ") => Inbound::Welcome { heartbeat_ms: 0 },
            _ if line.starts_with(b"-ERR") => Inbound::Refused {
                code: 0,
                text: str::from_utf8(line).unwrap_or("-ERR"),
                fatal: true,
                topic: None,
            },
            _ => return Err(nonsense("no word of NATS", line)),
        };
        Ok(Parsed::Message(inbound, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Nats {
        Nats::new(&Topics {
            kind: crate::topics::Kind::Stream,
            run: 7,
            count: 3,
            each: 1,
            publishers: 1,
        })
    }

    #[test]
    fn a_message_is_read_once_it_is_whole() {
        let mut target = target();
        let wire = b"MSG stream/lg-00000007-2 2 5\r\nab\r\nc\r\nPING\r\n";
        let whole = wire.len() - 6;
        for cut in 0..whole {
            assert_eq!(target.parse(&wire[..cut]), Ok(Parsed::NeedMore), "{cut}");
        }
        let event = Inbound::Event {
            topic: 2,
            seq: 0,
            payload: b"ab\r\nc",
        };
        assert_eq!(target.parse(wire), Ok(Parsed::Message(event, whole)));
        assert_eq!(
            target.parse(&wire[whole..]),
            Ok(Parsed::Message(Inbound::Ping(0), 6))
        );
    }

    #[test]
    fn a_reply_subject_does_not_shift_the_length() {
        let event = Inbound::Event {
            topic: 1,
            seq: 0,
            payload: b"x",
        };
        let wire = b"MSG s 1 _INBOX.a 1\r\nx\r\n";
        assert_eq!(target().parse(wire), Ok(Parsed::Message(event, wire.len())));
    }

    #[test]
    fn a_subscription_id_that_nobody_gave_is_a_stranger() {
        let wire = b"MSG s 3 1\r\nx\r\n";
        assert_eq!(
            target().parse(wire),
            Ok(Parsed::Message(Inbound::Stranger, wire.len()))
        );
    }

    #[test]
    fn bytes_outside_the_protocol_are_an_error() {
        for bad in [
            "WHAT\r\n",
            "MSG s 1\r\n",
            "MSG s 1 2 \r\nab\r\n",
            "MSG s 1 2\r\nabcd",
        ] {
            assert!(target().parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_publish_says_its_length() {
        let mut out = Vec::new();
        target().publish(0, 0, b"hello", &mut out);
        assert_eq!(out, b"PUB stream/lg-00000007-0 5\r\nhello\r\n");
    }
}
