//! The floor's protocol: see `bench/floor`.

use tickring_protocol::Policy;

use super::{Inbound, Nonsense, Parsed, Target};

/// Speaks to `tickring-floor`: 8-byte headers, no names. It sends everything to everybody, so
/// there is one topic, or in round trips one for each connection.
#[derive(Debug)]
pub struct Floor;

/// Bytes of a header.
const HEADER: usize = 8;
/// The topic of a greeting that subscribes to nothing.
const NO_TOPIC: u32 = u32::MAX;
/// The longest payload that makes sense: the longest that the generator sends.
const LONGEST: usize = 1 << 20;

fn header(payload: usize, topic: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload as u32).to_le_bytes());
    out.extend_from_slice(&topic.to_le_bytes());
}

impl Target for Floor {
    fn hello(&self, _name: &str, out: &mut Vec<u8>) {
        header(0, NO_TOPIC, out);
    }

    fn subscribe(&self, topic: u32, _policy: Policy, out: &mut Vec<u8>) {
        header(0, topic, out);
    }

    /// There is no such thing: a client just closes.
    fn unsubscribe(&self, _topic: u32, _out: &mut Vec<u8>) {}

    fn publish(&mut self, topic: u32, _serial: u32, payload: &[u8], out: &mut Vec<u8>) {
        header(payload.len(), topic, out);
        out.extend_from_slice(payload);
    }

    fn knows(&self, _topic: u32) -> bool {
        true
    }

    /// It asks for no proof of life.
    fn ping(&self, _out: &mut Vec<u8>) {}

    /// It never asks.
    fn pong(&self, _token: u64, _out: &mut Vec<u8>) {}

    /// A client just closes.
    fn goodbye(&self, _out: &mut Vec<u8>) {}

    #[inline]
    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Parsed<'a>, Nonsense> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(Parsed::NeedMore);
        };
        let [a, b, c, d, e, f, g, h] = *head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        let topic = u32::from_le_bytes([e, f, g, h]);
        if len > LONGEST {
            return Err(Nonsense(format!("a payload of {len} bytes")));
        }
        let message = match (len, topic) {
            (0, NO_TOPIC) => Inbound::Welcome { heartbeat_ms: 0 },
            (0, topic) => Inbound::Subscribed { topic, next_seq: 0 },
            _ => match rest.get(..len) {
                Some(payload) => Inbound::Event {
                    topic,
                    seq: 0,
                    payload,
                },
                None => return Ok(Parsed::NeedMore),
            },
        };
        Ok(Parsed::Message(message, HEADER + len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut wire = Vec::new();
        Floor.hello("x", &mut wire);
        Floor.subscribe(3, Policy::Default, &mut wire);
        Floor.publish(3, 0, b"hello", &mut wire);
        let mut seen = Vec::new();
        let mut at = 0;
        while let Parsed::Message(message, len) = Floor.parse(&wire[at..]).unwrap() {
            seen.push(format!("{message:?}"));
            at += len;
        }
        assert_eq!(at, wire.len());
        assert_eq!(seen.len(), 3);
        assert!(seen[2].contains("topic: 3, seq: 0"), "{seen:?}");
    }

    #[test]
    fn a_payload_beyond_reason_is_an_error() {
        assert!(Floor.parse(&u64::MAX.to_le_bytes()).is_err());
    }
}
