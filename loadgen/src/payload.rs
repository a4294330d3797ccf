//! What a message carries, so that its receiver can tell latency, loss, duplicates and order.

/// The first bytes of every payload; the rest is padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When the message was due, in nanoseconds of [`crate::clock::now_ns`]. Latency counts from
    /// here, not from the moment of sending, so that a sender held up by a slow server does not
    /// hide the wait (no coordinated omission).
    pub intended_ns: u64,
    /// Counts the messages of this publisher on this topic, from 0.
    pub counter: u64,
    /// Which run it belongs to: events of anybody else are told apart.
    pub run: u32,
    /// Which publisher sent it.
    pub publisher: u32,
}

impl Stamp {
    /// Bytes of a stamp; no payload is shorter.
    pub const LEN: usize = 24;

    /// Writes the stamp over the start of `payload`.
    ///
    /// # Panics
    /// When `payload` is shorter than [`Stamp::LEN`]: the options refuse such a size.
    pub fn write(&self, payload: &mut [u8]) {
        payload[0..8].copy_from_slice(&self.intended_ns.to_le_bytes());
        payload[8..16].copy_from_slice(&self.counter.to_le_bytes());
        payload[16..20].copy_from_slice(&self.run.to_le_bytes());
        payload[20..24].copy_from_slice(&self.publisher.to_le_bytes());
    }

    /// Reads the stamp at the start of `payload`; `None` when that is too short for one.
    #[inline]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = payload.first_chunk()?;
        let word = |at: usize| {
            u64::from_le_bytes([
                bytes[at],
                bytes[at + 1],
                bytes[at + 2],
                bytes[at + 3],
                bytes[at + 4],
                bytes[at + 5],
                bytes[at + 6],
                bytes[at + 7],
            ])
        };
        let run_and_publisher = word(16);
        Some(Self {
            intended_ns: word(0),
            counter: word(8),
            run: run_and_publisher as u32,
            publisher: (run_and_publisher >> 32) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_its_bytes() {
        let stamp = Stamp {
            intended_ns: 0x0102_0304_0506_0708,
            counter: u64::MAX - 1,
            run: 0xdead_beef,
            publisher: 3,
        };
        let mut payload = [0xAA; 64];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(payload[Stamp::LEN..], [0xAA; 40]);
    }

    #[test]
    fn a_payload_too_short_has_no_stamp() {
        assert_eq!(Stamp::read(&[0; Stamp::LEN - 1]), None);
    }
}
