//! The bridge's WebSocket, with the sub-protocol `tickring.bin.v1` (`protocol/BRIDGE.md`).

use tickring_protocol::Policy;

use super::{Inbound, Nonsense, Parsed, Target, Tickring};
use crate::topics::Topics;

/// Speaks to a tickring-bridge: native frames in WebSocket messages. What follows the upgrade
/// request is sent without waiting for its answer.
#[derive(Debug)]
pub struct Bridge {
    frames: Tickring,
    /// Bytes left of the WebSocket frame that is being read. It was whole when it was begun, so
    /// that no other connection's bytes come between.
    inside: usize,
}

/// The longest header of a frame: two bytes, a length of eight, a key of four.
const LONGEST_HEADER: usize = 14;
/// The key that frames are masked with. It is to keep proxies from being fooled by what a page
/// sends, which no generator needs.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The end of the answer to the upgrade request, and the most bytes before it.
const HEAD_END: &[u8] = b"\r\n\r\n";
const LONGEST_HEAD: usize = 16 << 10;

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

impl Bridge {
    /// Speaks of the topics of one run.
    pub fn new(topics: &Topics) -> Self {
        Self {
            frames: Tickring::new(topics),
            inside: 0,
        }
    }

    /// The next native frame of the WebSocket frame that `bytes` starts in.
    #[inline]
    fn next_inside<'a>(&mut self, bytes: &'a [u8]) -> Result<Parsed<'a>, Nonsense> {
        let inside = &bytes[..self.inside];
        match self.frames.parse(inside)? {
            Parsed::Message(message, len) => {
                self.inside -= len;
                Ok(Parsed::Message(message, len))
            }
            Parsed::NeedMore => Err(Nonsense("a message that ends inside a frame".to_owned())),
        }
    }
}

/// Appends what `put` writes as one masked binary frame.
fn masked(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let body = start + LONGEST_HEADER;
    out.resize(body, 0);
    put(out);
    let len = out.len() - body;
    for (byte, key) in out[body..].iter_mut().zip(KEY.iter().cycle()) {
        *byte ^= key;
    }
    let mut header = [0; LONGEST_HEADER];
    header[0] = BINARY;
    let size = match len {
        0..=125 => {
            header[1] = 0x80 | len as u8;
            2
        }
        126..=0xffff => {
            header[1] = 0x80 | 126;
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 0x80 | 127;
            header[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    header[size..size + 4].copy_from_slice(&KEY);
    let size = size + 4;
    out[start..start + size].copy_from_slice(&header[..size]);
    out.copy_within(body.., start + size);
    out.truncate(start + size + len);
}

/// Header length, payload length and opcode of the frame that `bytes` starts with; `None` while
/// it is not whole.
fn first_frame(bytes: &[u8]) -> Result<Option<(usize, usize, u8)>, Nonsense> {
    let [opcode, len, rest @ ..] = bytes else {
        return Ok(None);
    };
    let (header, len) = match (len, rest) {
        (0..=125, _) => (2, usize::from(*len)),
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            let len = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            match usize::try_from(len) {
                Ok(len) if len <= 1 << 30 => (10, len),
                _ => return Err(Nonsense(format!("a frame of {len} bytes"))),
            }
        }
        (126 | 127, _) => return Ok(None),
        _ => return Err(Nonsense("a masked frame of a server".to_owned())),
    };
    Ok((bytes.len() >= header + len).then_some((header, len, *opcode)))
}

impl Target for Bridge {
    fn hello(&self, name: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"GET /ws HTTP/1.1\r\nHost: bridge\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGlja3JpbmcgbG9hZGdlbg==\r\n\
              Sec-WebSocket-Protocol: tickring.bin.v1\r\n\r\n",
        );
        masked(out, |out| self.frames.hello(name, out));
    }

    fn subscribe(&self, topic: u32, policy: Policy, out: &mut Vec<u8>) {
        masked(out, |out| self.frames.subscribe(topic, policy, out));
    }

    fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>) {
        masked(out, |out| self.frames.unsubscribe(topic, out));
    }

    fn publish(&mut self, topic: u32, serial: u32, payload: &[u8], out: &mut Vec<u8>) {
        let frames = &mut self.frames;
        masked(out, |out| frames.publish(topic, serial, payload, out));
    }

    fn knows(&self, topic: u32) -> bool {
        self.frames.knows(topic)
    }

    fn ping(&self, out: &mut Vec<u8>) {
        masked(out, |out| self.frames.ping(out));
    }

    fn pong(&self, token: u64, out: &mut Vec<u8>) {
        masked(out, |out| self.frames.pong(token, out));
    }

    fn goodbye(&self, out: &mut Vec<u8>) {
        masked(out, |out| self.frames.goodbye(out));
    }

    #[inline]
    fn parse<'a>(&mut self, bytes: &'a [u8]) -> Result<Parsed<'a>, Nonsense> {
        if self.inside > 0 {
            return self.next_inside(bytes);
        }
        if bytes.starts_with(b"HTTP") {
            return head(bytes);
        }
        let Some((header, len, opcode)) = first_frame(bytes)? else {
            return Ok(Parsed::NeedMore);
        };
        let whole = header + len;
        match opcode {
            BINARY if len > 0 => {
                self.inside = len;
                match self.next_inside(&bytes[header..])? {
                    Parsed::Message(message, len) => Ok(Parsed::Message(message, header + len)),
                    Parsed::NeedMore => Ok(Parsed::NeedMore),
                }
            }
            // Any word of the client's answers it.
            PING => Ok(Parsed::Message(Inbound::Ping(0), whole)),
            PONG => Ok(Parsed::Message(Inbound::Other, whole)),
            CLOSE => {
                let code = match bytes[header..whole] {
                    [high, low, ..] => u16::from_be_bytes([high, low]),
                    _ => 0,
                };
                Ok(Parsed::Message(Inbound::Goodbye { code }, whole))
            }
            _ => Err(Nonsense(format!("a frame of opcode {opcode:#04x}"))),
        }
    }
}

/// The answer to the upgrade request.
fn head(bytes: &[u8]) -> Result<Parsed<'_>, Nonsense> {
    let end = bytes
        .windows(HEAD_END.len())
        .position(|window| window == HEAD_END);
    match end {
        Some(_) if !bytes.starts_with(b"HTTP/1.1 101 ") => {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
            Err(Nonsense(format!("the upgrade was refused: {shown}")))
        }
        Some(end) => Ok(Parsed::Message(Inbound::Other, end + HEAD_END.len())),
        None if bytes.len() > LONGEST_HEAD => Err(Nonsense("a head without end".to_owned())),
        None => Ok(Parsed::NeedMore),
    }
}

#[cfg(test)]
mod tests {
    use tickring_protocol::{Frame, Ping};

    use super::*;

    fn target() -> Bridge {
        Bridge::new(&Topics {
            kind: crate::topics::Kind::Stream,
            run: 7,
            count: 3,
            each: 1,
            publishers: 1,
        })
    }

    /// A server's message of that many PINGs.
    fn message(pings: u64) -> Vec<u8> {
        let mut body = Vec::new();
        (0..pings).for_each(|token| Frame::Ping(Ping { token }).encode(&mut body));
        let mut out = vec![BINARY];
        match body.len() {
            len @ 0..=125 => out.push(len as u8),
            len => {
                out.push(126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn each_frame_of_a_message_is_read_once_the_message_is_whole() {
        let mut wire = b"HTTP/1.1 101 Switching Protocols\r\nX: y\r\n\r\n".to_vec();
        for pings in [1, 20, 3] {
            wire.extend_from_slice(&message(pings));
        }
        for cut in 0..wire.len() {
            let mut target = target();
            let mut framer = crate::framer::Framer::new();
            let mut seen = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                framer
                    .feed(part, &mut target, |message, _| {
                        if let Inbound::Ping(token) = message {
                            seen.push(token);
                        }
                    })
                    .unwrap();
            }
            let expected: Vec<u64> = (0..1).chain(0..20).chain(0..3).collect();
            assert_eq!(seen, expected, "{cut}");
        }
    }

    #[test]
    fn what_is_sent_is_masked_and_says_its_length() {
        for size in [0, 125, 126, 70_000] {
            let mut out = b"before".to_vec();
            masked(&mut out, |out| out.resize(out.len() + size, 7));
            let frame = &out[6..];
            let (header, len) = match frame[1] & 0x7f {
                126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
                127 => (10, 70_000),
                len => (2, usize::from(len)),
            };
            assert_eq!((frame[0], frame[1] & 0x80, len), (BINARY, 0x80, size));
            let (key, body) = frame[header..].split_at(4);
            assert_eq!(body.len(), size);
            assert!(body.iter().zip(key.iter().cycle()).all(|(b, k)| b ^ k == 7));
        }
    }

    #[test]
    fn a_refused_upgrade_and_a_close_are_told() {
        assert!(target().parse(b"HTTP/1.1 403 Forbidden\r\n\r\n").is_err());
        let close = [CLOSE, 4, 0x0f, 0xa5, b'n', b'o'];
        assert_eq!(
            target().parse(&close),
            Ok(Parsed::Message(Inbound::Goodbye { code: 4005 }, 6))
        );
    }
}
