//! What comes in on the connections of one thread: checked, counted and timed, event by event.

use tickring_protocol::GapReason;

use crate::check::Checker;
use crate::latency::Latency;
use crate::outcome::Outcome;
use crate::payload::Stamp;
use crate::topics::Topics;

/// Alternating periods of a run: even ones are A, odd ones are B.
#[derive(Clone, Copy, Debug)]
pub struct Periods {
    /// When the first period starts.
    pub start_ns: u64,
    /// How long each is.
    pub period_ns: u64,
}

impl Periods {
    /// Whether `at_ns` lies in an A (0) or a B (1) period. The first tenth of each belongs to
    /// neither: there the stalled readers of the period before are still catching up.
    #[inline]
    pub fn half(&self, at_ns: u64) -> Option<usize> {
        let since = at_ns.checked_sub(self.start_ns)?;
        let settled = since % self.period_ns >= self.period_ns / 10;
        settled.then_some((since / self.period_ns % 2) as usize)
    }

    /// Whether `at_ns` lies in a B period, its first tenth included.
    pub fn is_odd(&self, at_ns: u64) -> bool {
        at_ns
            .checked_sub(self.start_ns)
            .is_some_and(|since| since / self.period_ns % 2 == 1)
    }
}

/// Checks the events of a thread's connections. State is flat: one number for each
/// (connection, topic) by seq and one for each of the topic's publishers by payload counter.
///
/// Call [`subscribed`](Self::subscribed) before the first event of a stream, and
/// [`finish`](Self::finish) when it is known what was sent.
#[derive(Debug)]
pub struct Deliveries {
    topics: Topics,
    /// The run's number of this thread's first connection.
    first: u32,
    seq: Checker,
    payload: Checker,
    /// Seq of the first event of each stream; 0: not subscribed, or the protocol has no seq.
    base: Vec<u64>,
    periods: Option<Periods>,
    latency: Latency,
    halves: [Latency; 2],
    delivered: u64,
    strangers: u64,
    gaps: u64,
    gaps_delayed: u64,
    snapshots: u64,
    last_event_ns: u64,
}

impl Deliveries {
    /// Checks `connections` connections, the first of which is the run's number `first`.
    pub fn new(topics: Topics, first: u32, connections: u32) -> Self {
        let streams = connections as usize * topics.each as usize;
        Self {
            topics,
            first,
            seq: Checker::new(streams),
            payload: Checker::new(streams * topics.publishers_per_topic() as usize),
            base: vec![0; streams],
            periods: None,
            latency: Latency::default(),
            halves: [Latency::default(), Latency::default()],
            delivered: 0,
            strangers: 0,
            gaps: 0,
            gaps_delayed: 0,
            snapshots: 0,
            last_event_ns: 0,
        }
    }

    /// Tells latencies of alternating periods apart.
    pub fn set_periods(&mut self, periods: Periods) {
        self.periods = Some(periods);
    }

    /// Events so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Events so far, those that a GAP said will not come included.
    pub fn settled(&self) -> u64 {
        self.delivered + self.seq.tally().announced
    }

    #[inline]
    fn stream(&self, connection: u32, topic: u32) -> Option<u32> {
        let slot = self.topics.slot_of(self.first + connection, topic)?;
        Some(connection * self.topics.each + slot)
    }

    /// `connection`, counted within this thread, now gets the events of `topic` from `next_seq`
    /// on.
    pub fn subscribed(&mut self, connection: u32, topic: u32, next_seq: u64) {
        match self.stream(connection, topic) {
            Some(stream) => {
                self.base[stream as usize] = next_seq;
                self.seq.start(stream, next_seq);
            }
            None => self.strangers += 1,
        }
    }

    /// An event came.
    #[inline]
    pub fn event(&mut self, connection: u32, topic: u32, seq: u64, payload: &[u8], now_ns: u64) {
        let (Some(stream), Some(stamp)) = (self.stream(connection, topic), Stamp::read(payload))
        else {
            self.strangers += 1;
            return;
        };
        if stamp.run != self.topics.run || stamp.publisher >= self.topics.publishers {
            self.strangers += 1;
            return;
        }
        if seq != 0 {
            self.seq.see(stream, seq);
        }
        let slot = self.topics.publisher_slot(stamp.publisher);
        self.payload.see(
            stream * self.topics.publishers_per_topic() + slot,
            stamp.counter,
        );
        self.delivered += 1;
        self.last_event_ns = now_ns;
        let latency = now_ns.saturating_sub(stamp.intended_ns);
        self.latency.record(latency);
        if let Some(periods) = &self.periods
            && let Some(half) = periods.half(stamp.intended_ns)
        {
            self.halves[half].record(latency);
        }
    }

    /// A GAP came.
    pub fn gap(&mut self, connection: u32, topic: u32, reason: GapReason, first: u64, last: u64) {
        let Some(stream) = self.stream(connection, topic) else {
            self.strangers += 1;
            return;
        };
        if reason == GapReason::Delayed {
            self.gaps_delayed += 1;
        } else {
            self.gaps += 1;
            self.seq.skip(stream, first, last);
        }
    }

    /// A SNAPSHOT came.
    pub fn snapshot(&mut self) {
        self.snapshots += 1;
    }

    /// An event came of a topic that nobody asked for.
    pub fn stranger(&mut self) {
        self.strangers += 1;
    }

    /// How many events the connections should get when each of the publishers' counters (see
    /// [`Topics::counter_of`]) has sent `sent`, of which the server refused `refused`.
    pub fn expected(&self, sent: &[u64], refused: &[u64]) -> u64 {
        self.streams()
            .map(|(_, topic)| self.accepted(topic, sent, refused))
            .sum()
    }

    fn streams(&self) -> impl Iterator<Item = (u32, u32)> {
        let (topics, first) = (self.topics, self.first);
        (0..self.base.len() as u32).map(move |stream| {
            let topic = topics.topic_of(first + stream / topics.each, stream % topics.each);
            (stream, topic)
        })
    }

    fn counters_of(&self, topic: u32) -> std::ops::Range<usize> {
        let per_topic = self.topics.publishers_per_topic() as usize;
        topic as usize * per_topic..(topic as usize + 1) * per_topic
    }

    fn accepted(&self, topic: u32, sent: &[u64], refused: &[u64]) -> u64 {
        self.counters_of(topic)
            .map(|counter| sent[counter] - refused[counter])
            .sum()
    }

    /// Counts what is missing at the end; the arguments are those of
    /// [`expected`](Self::expected).
    pub fn finish(&mut self, sent: &[u64], refused: &[u64]) {
        let streams: Vec<_> = self.streams().collect();
        for (stream, topic) in streams {
            let accepted = self.accepted(topic, sent, refused);
            if self.base[stream as usize] != 0 {
                self.seq
                    .finish(stream, self.base[stream as usize] + accepted);
            }
            let counters = self.counters_of(topic);
            for (slot, counter) in counters.clone().enumerate() {
                let at = stream * counters.len() as u32 + slot as u32;
                self.payload.finish(at, sent[counter]);
            }
        }
    }

    /// What was found. `refused` is that of [`expected`](Self::expected): a refused message's
    /// counter is missing in the payloads, and rightly so.
    pub fn outcome(self, refused: &[u64]) -> Outcome {
        let never_sent: u64 = self
            .streams()
            .map(|(_, topic)| self.counters_of(topic).map(|c| refused[c]).sum::<u64>())
            .sum();
        let mut by_payload = self.payload.tally();
        by_payload.lost = by_payload.lost.saturating_sub(never_sent);
        Outcome {
            delivered: self.delivered,
            by_seq: self.seq.tally(),
            by_payload,
            strangers: self.strangers,
            gaps: self.gaps,
            gaps_delayed: self.gaps_delayed,
            snapshots: self.snapshots,
            last_event_ns: self.last_event_ns,
            latency: self.latency,
            halves: self.periods.is_some().then_some(self.halves),
            ..Outcome::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPICS: Topics = Topics {
        kind: crate::topics::Kind::Stream,
        run: 9,
        count: 2,
        each: 2,
        publishers: 1,
    };

    fn payload(counter: u64, intended_ns: u64) -> [u8; 32] {
        let mut payload = [0; 32];
        let stamp = Stamp {
            intended_ns,
            counter,
            run: TOPICS.run,
            publisher: 0,
        };
        stamp.write(&mut payload);
        payload
    }

    /// Two connections with both topics each; events of topic 0 as (connection, seq, counter).
    fn outcome_of(events: &[(u32, u64, u64)], sent: u64, refused: u64) -> Outcome {
        let mut deliveries = Deliveries::new(TOPICS, 0, 2);
        for connection in 0..2 {
            deliveries.subscribed(connection, 0, 1);
            deliveries.subscribed(connection, 1, 1);
        }
        for &(connection, seq, counter) in events {
            deliveries.event(connection, 0, seq, &payload(counter, 100), 350);
        }
        deliveries.finish(&[sent, 0], &[refused, 0]);
        deliveries.outcome(&[refused, 0])
    }

    #[test]
    fn every_event_on_every_connection_is_clean() {
        let found = outcome_of(&[(0, 1, 0), (1, 1, 0), (0, 2, 1), (1, 2, 1)], 2, 0);
        assert!(found.is_clean(), "{found:?}");
        assert_eq!((found.delivered, found.latency.count()), (4, 4));
    }

    #[test]
    fn loss_on_one_connection_alone_is_found() {
        let found = outcome_of(&[(0, 1, 0), (1, 2, 1), (0, 2, 1)], 2, 0);
        assert_eq!(found.tally().lost, 1);
        let tail = outcome_of(&[(0, 1, 0), (1, 1, 0), (0, 2, 1)], 2, 0);
        assert_eq!(tail.tally().lost, 1);
    }

    #[test]
    fn duplicates_and_reordering_are_found() {
        let found = outcome_of(
            &[(0, 1, 0), (0, 1, 0), (0, 2, 1), (1, 2, 1), (1, 1, 0)],
            2,
            0,
        );
        let tally = found.tally();
        assert_eq!(
            (tally.lost, tally.duplicated, tally.out_of_order),
            (0, 1, 1)
        );
    }

    #[test]
    fn a_body_swapped_under_a_good_seq_is_found() {
        let found = outcome_of(&[(0, 1, 1), (0, 2, 0), (1, 1, 0), (1, 2, 1)], 2, 0);
        assert_eq!(found.by_seq, Default::default());
        assert_eq!(found.tally().out_of_order, 1);
    }

    #[test]
    fn a_refused_message_is_not_missed() {
        let found = outcome_of(&[(0, 1, 0), (1, 1, 0), (0, 2, 2), (1, 2, 2)], 3, 1);
        assert!(found.is_clean(), "{found:?}");
    }

    #[test]
    fn events_of_another_run_are_strangers() {
        let mut deliveries = Deliveries::new(TOPICS, 0, 1);
        deliveries.subscribed(0, 0, 1);
        let mut foreign = payload(0, 0);
        foreign[16] ^= 1;
        deliveries.event(0, 0, 1, &foreign, 1);
        deliveries.event(0, 0, 1, b"short", 1);
        deliveries.event(0, 5, 1, &payload(0, 0), 1);
        assert_eq!(deliveries.outcome(&[0, 0]).strangers, 3);
    }

    #[test]
    fn announced_gaps_are_counted_and_settled() {
        let mut deliveries = Deliveries::new(TOPICS, 0, 1);
        deliveries.subscribed(0, 0, 1);
        deliveries.gap(0, 0, GapReason::Delayed, 1, 0);
        deliveries.gap(0, 0, GapReason::Conflated, 1, 4);
        assert_eq!(deliveries.settled(), 4);
        let found = deliveries.outcome(&[0, 0]);
        assert_eq!((found.gaps, found.gaps_delayed), (1, 1));
        assert_eq!((found.by_seq.lost, found.by_seq.announced), (4, 4));
    }

    #[test]
    fn periods_alternate_and_their_first_tenth_counts_for_neither() {
        let periods = Periods {
            start_ns: 1_000,
            period_ns: 100,
        };
        assert_eq!(periods.half(999), None);
        assert_eq!(periods.half(1_009), None);
        assert_eq!(periods.half(1_010), Some(0));
        assert_eq!(periods.half(1_105), None);
        assert_eq!(periods.half(1_150), Some(1));
        assert_eq!(periods.half(1_250), Some(0));
    }
}
