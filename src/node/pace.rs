//! When a core lets arrivals gather, so that the next turn's sends carry more.
//!
//! A send costs the kernel some microseconds whatever it carries, so a core that sends one message
//! to many connections, and then the next one, works most efficiently when it does not begin
//! anew with each message. Waiting costs latency and saves sends; as with any stock that is ordered
//! in lots, the best pause grows with the root of what a turn costs, which is its number of sends.
//!
//! Alone, a message still leaves at once: there is a pause only after a turn with many sends, and
//! only while such turns follow each other closely.

use std::time::Duration;

/// The fewest sends of a turn that is worth a pause. Below it are conversations, not fan-out.
const MANY: u32 = 8;
/// The pause is this, times the root of the turn's sends.
const PAUSE_NS: u64 = 70_000;

/// The pace of one core's turns.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Sends of the turn under way.
    sends: u32,
    /// When it began.
    began_ns: u64,
    /// When the last turn with many sends was over: the next begins at once, with what the sends have
    /// to say, or after the pause.
    over_ns: u64,
    /// The pause behind it.
    pause_ns: u64,
}

impl Pace {
    /// The turn sends once more.
    #[inline]
    pub(super) fn sent(&mut self) {
        self.sends += 1;
    }

    /// The turn is over: how long arrivals may gather before the next.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        if self.sends < MANY {
            return None;
        }
        let pause = PAUSE_NS * u64::from(self.sends.isqrt());
        let busy = self.began_ns.saturating_sub(self.over_ns) <= 2 * pause;
        self.pause_ns = if busy { pause } else { 0 };
        busy.then(|| Duration::from_nanos(pause))
    }

    /// The next turn begins.
    pub(super) fn begin_turn(&mut self, now_ns: u64) {
        if self.sends >= MANY {
            self.over_ns = now_ns.saturating_sub(self.pause_ns);
        }
        (self.sends, self.began_ns) = (0, now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn with so many sends, that ends so long after it began; the pause behind it, in us.
    fn turn(pace: &mut Pace, now: &mut u64, sends: u32, takes_us: u64) -> u64 {
        pace.begin_turn(*now);
        (0..sends).for_each(|_| pace.sent());
        let pause = pace.pause().map_or(0, |pause| pause.as_micros() as u64);
        *now += (takes_us + pause) * 1000;
        pause
    }

    #[test]
    fn a_lone_fan_out_is_followed_by_no_pause() {
        let (mut pace, mut now) = (Pace::default(), 10_000_000_000);
        assert_eq!(turn(&mut pace, &mut now, 1000, 3000), 0);
        turn(&mut pace, &mut now, 0, 1); // takes in what the sends have to say
        now += 50_000_000;
        assert_eq!(turn(&mut pace, &mut now, 1000, 3000), 0);
    }

    #[test]
    fn arrivals_gather_while_fan_outs_follow_each_other() {
        let (mut pace, mut now) = (Pace::default(), 10_000_000_000);
        turn(&mut pace, &mut now, 1000, 3000);
        turn(&mut pace, &mut now, 0, 1);
        now += 300_000;
        let pause = turn(&mut pace, &mut now, 1000, 3000);
        assert_eq!(pause, 70 * 31);
        assert_eq!(turn(&mut pace, &mut now, 1000, 3000), pause);
    }

    #[test]
    fn conversations_never_pause() {
        let (mut pace, mut now) = (Pace::default(), 0);
        for _ in 0..100 {
            assert_eq!(turn(&mut pace, &mut now, MANY - 1, 10), 0);
        }
    }
}
