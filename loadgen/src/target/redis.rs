//! Redis's publish and subscribe, in RESP3 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use tickring_protocol::Policy;

use super::line::{decimal, first_line, nonsense, push_decimal};
use super::{Inbound, Nonsense, Parsed, Target};
use crate::topics::Topics;

/// Speaks to a Redis server, 7.0 or newer. RESP3, because there a connection may publish while it
/// is subscribed. `CLIENT REPLY OFF` spares the server an answer to each PUBLISH, as tickring's
/// publishes are quiet; pushes (events, and that a subscription stands) come all the same.
#[derive(Debug)]
pub struct Redis {
    channels: Vec<String>,
    /// What the name of every channel begins with; the rest is the topic's number.
    prefix: String,
}

/// How every push of an event begins.
const MESSAGE: &[u8] = b">3\r\n$7\r\nmessage\r\n";

/// How deep replies may be nested.
const DEPTH: u32 = 8;

impl Redis {
    /// Speaks of the topics of one run.
    pub fn new(topics: &Topics) -> Self {
        let mut prefix = topics.name(0);
        prefix.pop();
        Self {
            channels: (0..topics.count).map(|topic| topics.name(topic)).collect(),
            prefix,
        }
    }

    fn topic(&self, channel: &[u8]) -> Option<u32> {
        let number = decimal(channel.strip_prefix(self.prefix.as_bytes())?)?;
        u32::try_from(number)
            .ok()
            .filter(|&topic| (topic as usize) < self.channels.len())
    }

    /// What follows [`MESSAGE`]: the channel and the payload.
    #[inline]
    fn event<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Inbound<'a>, usize)>, Nonsense> {
        let Some((channel, first)) = bulk(bytes)? else {
            return Ok(None);
        };
        let Some((payload, second)) = bulk(&bytes[first..])? else {
            return Ok(None);
        };
        let message = match self.topic(channel) {
            Some(topic) => Inbound::Event {
                topic,
                seq: 0,
                payload,
            },
            None => Inbound::Stranger,
        };
        Ok(Some((message, first + second)))
    }

    /// A push of anything but an event: `>3 subscribe channel count` and the like.
    fn push<'a>(&self, bytes: &'a [u8]) -> Result<Inbound<'a>, Nonsense> {
        let mut at = first_line(bytes)?.map_or(0, |(_, len)| len);
        let mut word = || {
            let found = bulk(&bytes[at..])?;
            at += found.map_or(0, |(_, len)| len);
            Ok(found.map_or(&b""[..], |(word, _)| word))
        };
        let (what, channel) = (word()?, word()?);
        Ok(match (what, self.topic(channel)) {
            (b"subscribe", Some(topic)) => Inbound::Subscribed { topic, next_seq: 0 },
            (b"unsubscribe", Some(topic)) => Inbound::Unsubscribed {
                topic,
                last_seq: None,
            },
            (b"subscribe" | b"unsubscribe", None) => Inbound::Stranger,
            _ => Inbound::Other,
        })
    }
}

/// A bulk string at the start of `bytes`, and its length on the wire.
#[inline]
fn bulk(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Nonsense> {
    let Some((line, start)) = first_line(bytes)? else {
        return Ok(None);
    };
    let bad = || nonsense("no string of RESP", line);
    let len = line.strip_prefix(b"$").and_then(decimal).ok_or_else(bad)?;
    let end = start + len as usize;
    match bytes.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((&bytes[start..end], end + 2))),
        Some(_) => Err(bad()),
    }
}

/// The length of the value at the start of `bytes`; `None` when it is not whole yet.
fn value(bytes: &[u8], depth: u32) -> Result<Option<usize>, Nonsense> {
    let Some((line, start)) = first_line(bytes)? else {
        return Ok(None);
    };
    let bad = || nonsense("no value of RESP", line);
    let (sort, rest) = line.split_first().ok_or_else(bad)?;
    let parts = match sort {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => return Ok(Some(start)),
        b'$' | b'=' => return Ok(bulk(bytes)?.map(|(_, len)| len)),
        b'*' | b'>' | b'~' => decimal(rest).ok_or_else(bad)?,
        b'%' => decimal(rest).ok_or_else(bad)? * 2,
        _ => return Err(bad()),
    };
    if depth == DEPTH {
        return Err(nonsense("a reply nested beyond sense", line));
    }
    let mut at = start;
    for _ in 0..parts {
        let Some(len) = value(&bytes[at..], depth + 1)? else {
            return Ok(None);
        };
        at += len;
    }
    Ok(Some(at))
}

/// Appends a command.
fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.push(b'*');
    push_decimal(out, words.len() as u64);
    out.extend_from_slice(b"\r\n");
    for word in words {
        out.push(b'$');
        push_decimal(out, word.len() as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

impl Target for Redis {
    fn hello(&self, name: &str, out: &mut Vec<u8>) {
        command(out, &[b"HELLO", b"3", b"SETNAME", name.as_bytes()]);
        command(out, &[b"CLIENT", b"REPLY", b"OFF"]);
    }

    fn subscribe(&self, topic: u32, _policy: Policy, out: &mut Vec<u8>) {
        let channel = self.channels[topic as usize].as_bytes();
        command(out, &[b"SUBSCRIBE", channel]);
    }

    fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>) {
        let channel = self.channels[topic as usize].as_bytes();
        command(out, &[b"UNSUBSCRIBE", channel]);
    }

    fn publish(&mut self, topic: u32, _serial: u32, payload: &[u8], out: &mut Vec<u8>) {
        let channel = self.channels[topic as usize].as_bytes();
        command(out, &[b"PUBLISH", channel, payload]);
    }

    fn knows(&self, _topic: u32) -> bool {
        true
    }

    fn ping(&self, out: &mut Vec<u8>) {
        command(out, &[b"PING"]);
    }

    /// Redis never asks.
    fn pong(&self, _token: u64, _out: &mut Vec<u8>) {}

    /// A client just closes.
    fn goodbye(&self, _out: &mut Vec<u8>) {}

    #[inline]
    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Parsed<'a>, Nonsense> {
        if let Some(rest) = bytes.strip_prefix(MESSAGE) {
            let event = self.event(rest)?;
            return Ok(event.map_or(Parsed::NeedMore, |(event, len)| {
                Parsed::Message(event, MESSAGE.len() + len)
            }));
        }
        let Some(len) = value(bytes, 0)? else {
            return Ok(Parsed::NeedMore);
        };
        let inbound = match bytes[0] {
            b'>' => self.push(bytes)?,
            b'%' => Inbound::Welcome { heartbeat_ms: 0 },
            b':' => Inbound::Published,
            b'-' => Inbound::Refused {
                code: 0,
                text: str::from_utf8(&bytes[1..len]).unwrap_or("").trim_end(),
                fatal: false,
                topic: None,
            },
            _ => Inbound::Other,
        };
        Ok(Parsed::Message(inbound, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Redis {
        Redis::new(&Topics {
            kind: crate::topics::Kind::Stream,
            run: 7,
            count: 30,
            each: 1,
            publishers: 1,
        })
    }

    #[test]
    fn an_event_is_read_once_it_is_whole() {
        let wire =
            b">3\r\n$7\r\nmessage\r\n$21\r\nstream/lg-00000007-29\r\n$5\r\nab\r\nc\r\n:1\r\n";
        // The published `:1` is a message of its own.
        let whole = wire.len() - 4;
        let channel = b"stream/lg-00000007-29".len();
        assert_eq!(channel, 21);
        for cut in 0..whole {
            assert_eq!(target().parse(&wire[..cut]), Ok(Parsed::NeedMore), "{cut}");
        }
        let event = Inbound::Event {
            topic: 29,
            seq: 0,
            payload: b"ab\r\nc",
        };
        assert_eq!(target().parse(wire), Ok(Parsed::Message(event, whole)));
        assert_eq!(
            target().parse(&wire[whole..]),
            Ok(Parsed::Message(Inbound::Published, 4))
        );
    }

    #[test]
    fn a_subscription_stands_when_the_push_says_so() {
        let wire = b">3\r\n$9\r\nsubscribe\r\n$20\r\nstream/lg-00000007-3\r\n:1\r\n";
        let stands = Inbound::Subscribed {
            topic: 3,
            next_seq: 0,
        };
        assert_eq!(
            target().parse(wire),
            Ok(Parsed::Message(stands, wire.len()))
        );
    }

    #[test]
    fn the_answer_to_hello_is_the_welcome() {
        let wire = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*0\r\n";
        let welcome = Inbound::Welcome { heartbeat_ms: 0 };
        for cut in 0..wire.len() {
            assert_eq!(target().parse(&wire[..cut]), Ok(Parsed::NeedMore), "{cut}");
        }
        assert_eq!(
            target().parse(wire),
            Ok(Parsed::Message(welcome, wire.len()))
        );
    }

    #[test]
    fn a_channel_that_is_not_of_this_run_is_a_stranger() {
        for channel in ["stream/lg-00000008-3", "stream/lg-00000007-30"] {
            let wire = format!(
                ">3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n$1\r\nx\r\n",
                channel.len()
            );
            assert_eq!(
                target().parse(wire.as_bytes()),
                Ok(Parsed::Message(Inbound::Stranger, wire.len()))
            );
        }
    }

    #[test]
    fn an_error_is_shown() {
        let wire = b"-ERR max number of clients reached\r\n";
        let refused = Inbound::Refused {
            code: 0,
            text: "ERR max number of clients reached",
            fatal: false,
            topic: None,
        };
        assert_eq!(
            target().parse(wire),
            Ok(Parsed::Message(refused, wire.len()))
        );
    }

    #[test]
    fn bytes_outside_the_protocol_are_an_error() {
        let deep = "*1\r\n".repeat(100);
        for bad in [
            "hello\r\n",
            "$x\r\n",
            "\r\n",
            ">3\r\n$7\r\nmessage\r\n$1\r\nabc\r\n",
            &deep,
        ] {
            assert!(target().parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_publish_is_an_array_of_strings() {
        let mut out = Vec::new();
        target().publish(0, 0, b"hello", &mut out);
        let wanted = "*3\r\n$7\r\nPUBLISH\r\n$20\r\nstream/lg-00000007-0\r\n$5\r\nhello\r\n";
        assert_eq!(String::from_utf8_lossy(&out), wanted);
    }
}
