//! When a core looks for arrivals for a moment before it sleeps.
//!
//! Waking a sleeping processor takes longer than most clients take to answer, so in a conversation
//! a core that looks a little longer answers sooner, at the price of the time that it looks in
//! vain. It looks only while that mostly succeeds: a miss makes the tries rarer fourfold, a hit
//! makes them twice as frequent. So an idle core tries at one sleep in 1,024, and so does one whose
//! client has to wait for this very processor.

use std::time::Duration;

/// The longest look: what two wake-ups take, which is about as much as sleeping would have cost.
pub(super) const WINDOW: Duration = Duration::from_micros(50);
/// One sleep in `1 << RAREST` at least is tried.
const RAREST: u32 = 10;

/// Whether the next sleep is worth a look.
#[derive(Debug)]
pub(super) struct Spin {
    /// A try is made at one sleep in `1 << rarity`.
    rarity: u32,
    /// Sleeps until the next try.
    skip: u32,
}

impl Default for Spin {
    fn default() -> Self {
        Self {
            rarity: RAREST,
            skip: 0,
        }
    }
}

impl Spin {
    /// The core is about to sleep: whether to look first.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        due
    }

    /// Something came while looking, or not.
    pub(super) fn tell(&mut self, came: bool) {
        self.rarity = match came {
            true => self.rarity.saturating_sub(1),
            false => (self.rarity + 2).min(RAREST),
        };
        self.skip = (1 << self.rarity) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries in so many sleeps, where `comes` says what each try would find.
    fn tries(spin: &mut Spin, sleeps: u32, comes: impl Fn(u32) -> bool) -> u32 {
        let mut tries = 0;
        for sleep in 0..sleeps {
            if spin.is_due() {
                tries += 1;
                spin.tell(comes(sleep));
            }
        }
        tries
    }

    #[test]
    fn a_conversation_is_looked_for_at_every_sleep() {
        let mut spin = Spin::default();
        tries(&mut spin, 3000, |_| true);
        assert_eq!(tries(&mut spin, 1000, |_| true), 1000);
    }

    #[test]
    fn looking_in_vain_becomes_rare() {
        let mut spin = Spin::default();
        tries(&mut spin, 3000, |_| true);
        assert!(tries(&mut spin, 10_000, |_| false) <= 6 + 10);
    }

    #[test]
    fn half_of_the_tries_in_vain_is_too_much() {
        let mut spin = Spin::default();
        tries(&mut spin, 3000, |_| true);
        let lucky = std::cell::Cell::new(false);
        let alternate = |_| lucky.replace(!lucky.get());
        assert!(tries(&mut spin, 10_000, alternate) < 100);
    }
}
