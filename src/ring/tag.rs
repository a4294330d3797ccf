//! What a completion belongs to: operation, generation and slot in the 64 bits that the kernel hands back.

/// Kind of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Accept = 1,
    Receive,
    Send,
    Connect,
    Shutdown,
    Close,
    /// Cancels another operation. Posts a completion only if there was nothing to cancel.
    Cancel,
    /// The message to another ring, as seen by its sender. Posts a completion only if it failed.
    Notify,
    /// The message from another ring, as seen by its receiver.
    Woken,
    /// The read of this ring's own eventfd.
    Event,
}

impl Operation {
    const ALL: [Self; 10] = [
        Self::Accept,
        Self::Receive,
        Self::Send,
        Self::Connect,
        Self::Shutdown,
        Self::Close,
        Self::Cancel,
        Self::Notify,
        Self::Woken,
        Self::Event,
    ];

    /// Whether every operation of this kind ends with exactly one completion without the "more" flag.
    pub(super) const fn is_counted(self) -> bool {
        !matches!(self, Self::Cancel | Self::Notify | Self::Woken)
    }
}

/// Bits of the generation. A slot would have to be reused 16 million times within one turn to be mistaken.
const GENERATION_BITS: u32 = 24;
pub(super) const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

/// Operation (8 bits), generation (24 bits), slot (32 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) operation: Operation,
    pub(super) generation: u32,
    pub(super) slot: u32,
}

impl Tag {
    pub(super) const fn new(operation: Operation, generation: u32, slot: u32) -> Self {
        Self {
            operation,
            generation,
            slot,
        }
    }

    /// The tag of an operation that belongs to no slot.
    pub(super) const fn of(operation: Operation) -> Self {
        Self::new(operation, 0, 0)
    }

    pub(super) const fn to_bits(self) -> u64 {
        (self.operation as u64) << 56
            | ((self.generation & GENERATION_MASK) as u64) << 32
            | self.slot as u64
    }

    /// None for bits that no ring of this crate has made.
    #[inline]
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        let operation = *Operation::ALL.get(((bits >> 56) as usize).wrapping_sub(1))?;
        Some(Self {
            operation,
            generation: (bits >> 32) as u32 & GENERATION_MASK,
            slot: bits as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_survives_the_kernel() {
        for operation in Operation::ALL {
            for (generation, slot) in [(0, 0), (GENERATION_MASK, u32::MAX), (7, 65_536)] {
                let tag = Tag::new(operation, generation, slot);
                assert_eq!(Tag::from_bits(tag.to_bits()), Some(tag));
            }
        }
    }

    #[test]
    fn foreign_bits_are_no_tag() {
        assert_eq!(Tag::from_bits(0), None);
        assert_eq!(Tag::from_bits(u64::MAX), None);
    }
}
