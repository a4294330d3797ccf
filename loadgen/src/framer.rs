//! A stream of bytes to messages, in place.

use crate::target::{Inbound, Nonsense, Parsed, Target};

/// Cuts one connection's bytes into messages. Whole messages are read where they lie; only the
/// start of one that is not whole yet is kept.
#[derive(Debug, Default)]
pub struct Framer {
    carry: Vec<u8>,
}

impl Framer {
    /// A framer at the start of a stream.
    pub const fn new() -> Self {
        Self { carry: Vec::new() }
    }

    /// Forgets what is left of a stream.
    pub fn clear(&mut self) {
        self.carry.clear();
    }

    /// Hands every message that `bytes` completes to `each`.
    ///
    /// # Errors
    /// [`Nonsense`] when the bytes are outside the protocol; the stream cannot be followed then.
    #[inline]
    pub fn feed<T: Target>(
        &mut self,
        bytes: &[u8],
        target: &mut T,
        mut each: impl FnMut(Inbound<'_>, &mut T),
    ) -> Result<(), Nonsense> {
        let mut read = |whole: &[u8]| {
            let mut at = 0;
            while at < whole.len() {
                let Parsed::Message(message, len) = target.parse(&whole[at..])? else {
                    break;
                };
                at += len;
                each(message, target);
            }
            Ok(at)
        };
        if self.carry.is_empty() {
            let at = read(bytes)?;
            self.carry.extend_from_slice(&bytes[at..]);
        } else {
            self.carry.extend_from_slice(bytes);
            let at = read(&self.carry)?;
            self.carry.drain(..at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Tickring;
    use crate::topics::Topics;
    use tickring_protocol::{Frame, Ping};

    #[test]
    fn messages_are_whole_wherever_the_stream_is_cut() {
        let mut wire = Vec::new();
        (0..3).for_each(|token| Frame::Ping(Ping { token }).encode(&mut wire));
        for first in 0..wire.len() {
            for second in first..wire.len() {
                let mut target = Tickring::new(&Topics {
                    kind: crate::topics::Kind::Stream,
                    run: 1,
                    count: 1,
                    each: 1,
                    publishers: 1,
                });
                let mut framer = Framer::new();
                let mut seen = Vec::new();
                for part in [&wire[..first], &wire[first..second], &wire[second..]] {
                    framer
                        .feed(part, &mut target, |message, _| match message {
                            Inbound::Ping(token) => seen.push(token),
                            other => panic!("{other:?}"),
                        })
                        .unwrap();
                }
                assert_eq!(seen, [0, 1, 2]);
            }
        }
    }
}
