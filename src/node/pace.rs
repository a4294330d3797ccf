//! When a core lets arrivals gather, so that the next turn's sends carry more.
//!
//! A send costs the kernel some microseconds whatever it carries, so a core that sends one message
//! to many connections, and then the next one, works most efficiently when it does not begin
//! anew with each message. The pause after such a turn is the longer of two:
//!
//! - A third of what the turn's sends took. A core without any rest is late with everything, so that
//!   this much costs little latency: queues get shorter by about as much.
//! - As with any stock that is ordered in lots, the best wait grows with the root of what a turn
//!   costs, which is its number of sends; it ends where a user would begin to notice.
//!
//! Alone, a message still leaves at once: there is a pause only after a turn with many sends, and
//! only while such turns follow each other closely.

use std::time::Duration;

/// The fewest sends of a turn that is worth a pause. Below it are conversations, not fan-out.
const MANY: u32 = 8;
/// The pause is the time of the turn's sends by this,
const REST: u64 = 3;
/// or this, times the root of their number, at most [`LOT_MOST_NS`].
const LOT_NS: u64 = 65_000;
const LOT_MOST_NS: u64 = 650_000;
/// What a send takes, until it is known better, and what is believed of a measurement: the
/// scheduler may have taken the processor away meanwhile.
const SEND_NS: u64 = 3_000;
const SEND_RANGE_NS: (u64, u64) = (300, 10_000);

/// The pace of one core's turns.
#[derive(Debug)]
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
    /// What a send takes, smoothed.
    send_ns: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            sends: 0,
            began_ns: 0,
            over_ns: 0,
            pause_ns: 0,
            send_ns: SEND_NS,
        }
    }
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
        let rest = u64::from(self.sends) * self.send_ns / REST;
        let lot = LOT_NS * u64::from(self.sends.isqrt());
        let pause = rest.max(lot.min(LOT_MOST_NS));
        let busy = self.began_ns.saturating_sub(self.over_ns) <= 2 * pause;
        self.pause_ns = if busy { pause } else { 0 };
        busy.then(|| Duration::from_nanos(pause))
    }

    /// The next turn begins.
    pub(super) fn begin_turn(&mut self, now_ns: u64) {
        if self.sends >= MANY {
            self.over_ns = now_ns.saturating_sub(self.pause_ns);
            // Without a pause behind it the core slept, and it is not known when the sends were done.
            if self.pause_ns > 0 {
                let took = self.over_ns.saturating_sub(self.began_ns) / u64::from(self.sends);
                let took = took.clamp(SEND_RANGE_NS.0, SEND_RANGE_NS.1);
                self.send_ns = (7 * self.send_ns + took) / 8;
            }
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
        assert_eq!(pause, 1000);
        assert_eq!(turn(&mut pace, &mut now, 1000, 3000), pause);
    }

    #[test]
    fn the_pause_follows_what_sends_take() {
        let (mut pace, mut now) = (Pace::default(), 10_000_000_000);
        for _ in 0..100 {
            turn(&mut pace, &mut now, 1000, 6000);
        }
        let pause = turn(&mut pace, &mut now, 1000, 6000);
        assert!((1900..=2000).contains(&pause), "{pause}");
        // A processor that was away for a second is not believed.
        turn(&mut pace, &mut now, 1000, 1_000_000);
        let pause = turn(&mut pace, &mut now, 1000, 6000);
        assert!((1900..=2200).contains(&pause), "{pause}");
    }

    #[test]
    fn few_sends_gather_for_longer_than_they_take() {
        let (mut pace, mut now) = (Pace::default(), 10_000_000_000);
        for _ in 0..10 {
            turn(&mut pace, &mut now, 100, 300);
        }
        assert_eq!(turn(&mut pace, &mut now, 100, 300), 650);
    }

    #[test]
    fn conversations_never_pause() {
        let (mut pace, mut now) = (Pace::default(), 0);
        for _ in 0..100 {
            assert_eq!(turn(&mut pace, &mut now, MANY - 1, 10), 0);
        }
    }
}
