//! When a connection that was sent to is sent to again.
//!
//! A send costs the kernel some microseconds whatever it carries, so a core that fans out works the
//! more efficiently the more messages share a send. Two things make them share, the first for nothing
//! and the second for a bounded wait:
//!
//! - A turn sends to a [slice](Pacing::slice) of the connections that have something to be sent, those
//!   that have waited longest first, and then takes in what has come meanwhile. So whoever is still to
//!   be sent to gets that as well, with the same send, and nobody waits for more than one round.
//! - A connection rests after a send of a fan-out that belongs to a stream of many: [`Pace::rest`].
//!
//! Conversations are not touched: a frame for one connection alone leaves with its turn, ahead of
//! all slices, and an audience of a few never rests.

use std::collections::VecDeque;

/// How a core paces its sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// Connections that a turn sends a fan-out to, at most; 1 or more.
    pub slice: u32,
    /// The fewest members of an audience that rest; below it are conversations, not fan-out.
    /// `usize::MAX`: nobody rests.
    pub many: usize,
    /// Bytes that wait to be sent to many, beyond which nobody rests and a turn sends to all: a core takes
    /// in no faster than it can send.
    pub queued_bytes: usize,
}

impl Default for Pacing {
    /// Slices of 64: a tenth to half of a millisecond. Eight are many. 1 MiB may wait.
    fn default() -> Self {
        Self {
            slice: 64,
            many: 8,
            queued_bytes: 1 << 20,
        }
    }
}

/// What a turn takes beside its sends: waking up and taking in.
const TURN_NS: u64 = 27_000;
/// A rest in percent of what a round of sends to all takes, where hardly anything comes meanwhile. A core
/// without any idle time is late with everything.
const QUIET: u64 = 140;
/// More by this in a round of [`LONG_NS`] or longer: its sends cost more, since no cache holds so many
/// sockets, and a message takes its time anyway.
const LONGER: u64 = 70;
const LONG_NS: u64 = 50_000_000;
/// No rest is longer than this, which nobody notices, or by [`BRIEF`] percent of a round where a round takes
/// as long: sends are dear while connections are new, since TCP acknowledges their first segments one by
/// one, and nobody is to wait for that as well.
const MOST_NS: u64 = 110_000_000;
const BRIEF: u64 = 120;
/// A rest where [`MESSAGES`] or more come in a round: the longer the same wait makes more messages share a
/// send.
const BUSY: u64 = 325;
const MESSAGES: u64 = 4;
/// What a send takes, until it is known better, and what it may be.
const SEND_NS: u64 = 3_000;
const SEND_RANGE_NS: std::ops::RangeInclusive<u64> = 300..=10_000;

/// What sends take on this core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) pacing: Pacing,
    send_ns: u64,
}

impl Pace {
    pub(super) fn new(pacing: Pacing) -> Self {
        Self {
            pacing,
            send_ns: SEND_NS,
        }
    }

    /// So many sends took so long.
    pub(super) fn took(&mut self, sends: u32, ns: u64) {
        // Towards the lower quartile, by steps: what a send takes while nothing disturbs. What rest
        // itself makes it cost, by cold caches and sleeping readers, must not make rest longer.
        let step = match ns / u64::from(sends.max(1)) < self.send_ns {
            true => self.send_ns - self.send_ns / 64,
            false => self.send_ns + self.send_ns / 192,
        };
        self.send_ns = step.clamp(*SEND_RANGE_NS.start(), *SEND_RANGE_NS.end());
    }

    /// How long a member of an audience rests after a send, in nanoseconds, where events are this far
    /// apart on average; 0 where they come so rarely that nothing would gather.
    pub(super) fn rest(&self, members: usize, interval_ns: u64) -> u64 {
        if members < self.pacing.many {
            return 0;
        }
        let round_ns = TURN_NS + members as u64 * self.send_ns;
        let quiet = QUIET + LONGER * round_ns.min(LONG_NS) / LONG_NS;
        // Hundredths of messages beyond the first.
        let most = 100 * (MESSAGES - 1);
        let more = (100 * round_ns / interval_ns.max(1))
            .saturating_sub(100)
            .min(most);
        let rest_ns = round_ns * (quiet + (BUSY - quiet) * more / most) / 100;
        let rest_ns = rest_ns.min(MOST_NS.max(round_ns * BRIEF / 100));
        if interval_ns > rest_ns { 0 } else { rest_ns }
    }
}

/// Says in which turn a connection was sent to last, and how long it rests: 0 if it does not.
pub(super) type Rest = u64;

/// Classes of rests, each twice as long as the one before: within a class rests end in the order
/// in which they began.
const CLASSES: usize = 16;
/// The longest rest of the first class.
const SHORTEST_NS: u64 = 1 << 14;

/// Connections that have something to be sent, but rest.
#[derive(Debug, Default)]
pub(super) struct Rests {
    classes: [Class; CLASSES],
    /// Turns in all of them.
    turns: usize,
    spare: Vec<Vec<u32>>,
}

/// Those that rest about equally long.
#[derive(Debug, Default)]
struct Class {
    /// Turns whose rest is not over, oldest first.
    turns: VecDeque<Sent>,
    /// The number of the first of them.
    first: u64,
}

/// Those that were sent to in one turn.
#[derive(Debug)]
struct Sent {
    at_ns: u64,
    until_ns: u64,
    waiting: Vec<u32>,
}

impl Rests {
    /// A connection is sent to at `now_ns` and rests for `rest_ns` from here on.
    pub(super) fn begin(&mut self, now_ns: u64, rest_ns: u64) -> Rest {
        let class = (rest_ns / SHORTEST_NS)
            .checked_ilog2()
            .map_or(0, |log| log as usize + 1);
        let class = class.min(CLASSES - 1);
        let Class { turns, first } = &mut self.classes[class];
        let until_ns = now_ns + rest_ns;
        match turns.back_mut() {
            Some(last) if last.at_ns == now_ns => last.until_ns = last.until_ns.max(until_ns),
            last => {
                self.turns += 1;
                let earliest = last.map_or(0, |last| last.until_ns);
                turns.push_back(Sent {
                    at_ns: now_ns,
                    until_ns: until_ns.max(earliest),
                    waiting: self.spare.pop().unwrap_or_default(),
                });
            }
        }
        // Counted from 1, so that none is 0.
        let number = *first + turns.len() as u64;
        number << 4 | class as u64
    }

    /// Keeps a connection that has something to be sent until its rest is over; `false` if it is over.
    pub(super) fn hold(&mut self, rest: Rest, slot: u32) -> bool {
        if rest == 0 {
            return false;
        }
        let Class { turns, first } = &mut self.classes[rest as usize & (CLASSES - 1)];
        let Some(place) = (rest >> 4).checked_sub(*first + 1) else {
            return false;
        };
        turns[place as usize].waiting.push(slot);
        true
    }

    /// Hands over those whose rest is over.
    pub(super) fn expire(&mut self, now_ns: u64, due: &mut VecDeque<u32>) {
        if self.turns == 0 {
            return;
        }
        for class in &mut self.classes {
            let Some(front) = class.turns.front().filter(|sent| sent.until_ns <= now_ns) else {
                continue;
            };
            // Those next to it as well, rather than a nap after each slice.
            let ahead_ns = now_ns.saturating_add((front.until_ns - front.at_ns) / 2);
            while class
                .turns
                .front()
                .is_some_and(|sent| sent.until_ns <= ahead_ns)
                && let Some(sent) = class.turns.pop_front()
            {
                class.first += 1;
                self.turns -= 1;
                let mut waiting = sent.waiting;
                due.extend(waiting.drain(..));
                self.spare.push(waiting);
            }
        }
    }

    /// When the first of those that rest have rested, in nanoseconds; whether they wait for it or
    /// not, since what they rest for is on its way.
    pub(super) fn next(&self) -> Option<u64> {
        if self.turns == 0 {
            return None;
        }
        let fronts = self.classes.iter().filter_map(|class| class.turns.front());
        fronts.map(|sent| sent.until_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: u64 = 1_000;

    #[test]
    fn conversations_and_quiet_streams_never_rest() {
        let pace = Pace::new(Pacing::default());
        assert_eq!(pace.rest(7, 1), 0);
        // A round takes 3 ms, and a rest would take 4.3.
        assert_eq!(pace.rest(1_000, 5_000 * US), 0);
        assert!(pace.rest(1_000, 4_000 * US) > 0);
    }

    #[test]
    fn a_rest_is_longer_than_a_round_and_longest_where_much_gathers() {
        let pace = Pace::new(Pacing::default());
        for members in [8, 100, 1_000, 5_000] {
            let round = TURN_NS + members as u64 * SEND_NS;
            let rest = |events| pace.rest(members, round / events);
            assert!(rest(1) * 5 >= round * 7 && rest(1) <= rest(2) && rest(2) < rest(4));
            assert!(rest(4).abs_diff(rest(400)) < round / 100 && rest(400) <= round * 13 / 4);
        }
    }

    #[test]
    fn nobody_rests_for_longer_than_is_noticed_unless_a_round_takes_as_long() {
        let mut pace = Pace::new(Pacing::default());
        (0..1_000).for_each(|_| pace.took(64, 64 * 10 * US));
        let round = TURN_NS + 100_000 * US;
        assert_eq!(pace.rest(10_000, 1), round * BRIEF / 100);
        assert_eq!(pace.rest(5_000, 1), MOST_NS);
        assert!(pace.rest(2_000, 1) < MOST_NS);
    }

    #[test]
    fn a_rest_follows_what_sends_take_but_not_a_stall() {
        let mut pace = Pace::new(Pacing::default());
        let before = pace.rest(1_000, 1);
        (0..1_000).for_each(|_| pace.took(64, 64 * 6 * US));
        let after = pace.rest(1_000, 1);
        assert!(
            (before * 19 / 10..=before * 21 / 10).contains(&after),
            "{before} {after}"
        );
        pace.took(64, 1_000_000 * US);
        assert!(pace.rest(1_000, 1) < after * 101 / 100);
    }

    proptest! {
        /// Whoever waits is handed over once: not before half of its rest is over, and with the first
        /// look after all of it.
        #[test]
        fn whoever_waits_is_handed_over_once_and_in_time(
            steps in prop::collection::vec((0u32..8, 1u64..200, any::<bool>()), 1..200)
        ) {
            let mut rests = Rests::default();
            let (mut now, mut due) = (0, VecDeque::new());
            // By slot: its rest, since when and until when, and whether it waits.
            let mut known = [(0, 0, 0, false); 8];
            for (slot, us, sends) in steps {
                now += us * US;
                rests.expire(now, &mut due);
                for slot in due.drain(..) {
                    let (_, since, until, waits) = &mut known[slot as usize];
                    prop_assert!(std::mem::take(waits), "handed over twice");
                    prop_assert!(now - *since >= (*until - *since) / 2, "too early");
                }
                for (_, _, until, waits) in known {
                    prop_assert!(!waits || until > now, "forgotten");
                }
                let it = &mut known[slot as usize];
                if sends && !it.3 {
                    // Rests of a class never end in another order, so equal ones stay equal.
                    let rest_ns = [20, 300, 5_000][slot as usize % 3] * US;
                    *it = (rests.begin(now, rest_ns), now, now + rest_ns, false);
                } else if !it.3 {
                    it.3 = rests.hold(it.0, slot);
                    // Handed over already, next to one that had rested.
                    let half = now - it.1 >= (it.2 - it.1) / 2;
                    prop_assert!(it.3 && it.2 > now || !it.3 && half);
                }
            }
        }
    }
}
