//! Connections that subscribe, unsubscribe and close at random moments while events flow.

use tickring_protocol::{ErrorCode, GapReason};

use super::{Failure, Line, TICK_NS, attempts_allowed};
use crate::check::Checker;
use crate::clock::now_ns;
use crate::control::{Growth, Phase, Report};
use crate::latency::Latency;
use crate::net::{Close, Desk, Ended, Handler, LinkId, Net};
use crate::outcome::Outcome;
use crate::payload::Stamp;
use crate::plan::Plan;
use crate::target::{Inbound, Target};

/// Churn on the connections of one thread. A cycle is one subscription's life: SUBSCRIBE, some
/// events (perhaps none), then an end in one of several ways. Between SUBSCRIBED and
/// UNSUBSCRIBED everything is checked; after UNSUBSCRIBED, and before SUBSCRIBED, there must be
/// silence.
#[derive(Debug)]
pub struct Churn {
    plan: Plan,
    first: u32,
    places: Vec<Place>,
    random: Random,
    /// Cycles to be done, begun, and done.
    cycles: u64,
    begun: u64,
    end_ns: u64,
    seq: Checker,
    payload: Checker,
    delivered: u64,
    latency: Latency,
    failed: u64,
    /// Links that are closed and go on.
    closed: Vec<LinkId>,
    outcome: Outcome,
}

/// How a cycle ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// UNSUBSCRIBE, and wait for UNSUBSCRIBED.
    Leave,
    /// SUBSCRIBE and UNSUBSCRIBE in one write.
    BackToBack,
    /// UNSUBSCRIBE, and close behind it.
    LeaveAndClose(Close),
    /// UNSUBSCRIBE and GOODBYE, and close behind them.
    LeaveAndGoodbye(Close),
    /// Close without a word.
    Vanish(Close),
}

/// Where a connection stands in its cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Not connected, or between cycles.
    Idle,
    /// SUBSCRIBE is sent.
    Subscribing,
    /// Events come; so many more before the end.
    Live(u32),
    /// UNSUBSCRIBE is sent, SUBSCRIBED was received.
    Leaving,
    /// This side closes.
    Closing,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    step: Step,
    way: Way,
    topic: u32,
    /// Events between SUBSCRIBED and UNSUBSCRIBED are to come.
    live: bool,
    next_seq: u64,
    events: u64,
    since_ns: u64,
}

/// How long an answer of the server may take before it counts as stuck.
const PATIENCE_NS: u64 = 10_000_000_000;

impl Churn {
    /// Connections `first..first + count` of the run, doing `cycles` cycles in `seconds` at most.
    pub fn new(plan: &Plan, first: u32, count: u32, cycles: u64, seconds: f64) -> Self {
        let place = Place {
            step: Step::Idle,
            way: Way::Leave,
            topic: 0,
            live: false,
            next_seq: 0,
            events: 0,
            since_ns: 0,
        };
        Self {
            plan: plan.clone(),
            first,
            places: vec![place; count as usize],
            random: Random::new(u64::from(plan.topics.run) << 32 | u64::from(first)),
            cycles,
            begun: 0,
            end_ns: (seconds * 1e9) as u64,
            seq: Checker::new(count as usize),
            payload: Checker::new(count as usize),
            delivered: 0,
            latency: Latency::default(),
            failed: 0,
            closed: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// Does it all, speaking `target`'s protocol.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_on<T: Target>(mut self, target: T, line: &Line<'_>) -> Result<Outcome, Failure> {
        let count = self.places.len() as u32;
        let mut net = Net::new(count, self.first, self.plan.server, target)?;
        line.tell(Report::Prepared);
        line.control.wait_until_connecting();
        line.tell(Report::Ready);
        while !matches!(line.control.phase(), Phase::Running(_)) {
            net.turn(&mut self, now_ns() + TICK_NS)?;
        }
        self.end_ns += now_ns();
        self.closed = (0..count).collect();
        self.cycle(&mut net, line)?;
        self.outcome.connected = u64::from(count);
        Ok(self.findings())
    }

    fn cycle<T: Target>(&mut self, net: &mut Net<T>, line: &Line<'_>) -> Result<(), Failure> {
        let mut cycles = Growth::default();
        let mut delivered = Growth::default();
        let mut checked_ns = now_ns();
        loop {
            let now = now_ns();
            let over = self.begun >= self.cycles || now > self.end_ns;
            for link in std::mem::take(&mut self.closed) {
                self.places[link as usize].step = Step::Idle;
                if !over {
                    self.places[link as usize].since_ns = now;
                    net.open(link);
                }
            }
            if over && (0..self.places.len() as u32).all(|link| net.is_closed(link)) {
                break;
            }
            if now - checked_ns > 1_000_000_000 {
                checked_ns = now;
                self.give_up_on_the_stuck(net, now);
            }
            net.turn(self, now + TICK_NS)?;
            cycles.update(&line.control.progress.cycles, self.outcome.cycles);
            delivered.update(&line.control.progress.delivered, self.delivered);
            if self.failed > attempts_allowed(self.places.len() as u32) + self.cycles / 1_000 {
                return Err(Failure::Server(format!(
                    "gave up after {} of {} cycles: {}",
                    self.outcome.cycles,
                    self.cycles,
                    self.outcome.errors.pop().unwrap_or_default(),
                )));
            }
        }
        Ok(())
    }

    fn give_up_on_the_stuck<T: Target>(&mut self, net: &mut Net<T>, now: u64) {
        for link in 0..self.places.len() as u32 {
            let place = &mut self.places[link as usize];
            if !net.is_closed(link) && now.saturating_sub(place.since_ns) > PATIENCE_NS {
                let stuck = *place;
                place.step = Step::Closing;
                place.since_ns = now;
                self.outcome.stuck += 1;
                self.outcome
                    .complain(|| format!("no answer for 10 s: connection {link}, {stuck:?}"));
                net.close(link, Close::Abort);
            }
        }
    }

    /// Begins the next cycle of a connection, or closes it when there is none.
    fn begin<T: Target>(&mut self, desk: &mut Desk<'_, T>) {
        let place = &mut self.places[desk.link as usize];
        place.since_ns = desk.now_ns;
        place.live = false;
        place.events = 0;
        if self.begun >= self.cycles || desk.now_ns > self.end_ns {
            place.step = Step::Closing;
            place.way = Way::Leave;
            return desk.close(Close::Flush);
        }
        self.begun += 1;
        place.topic = self.random.below(u64::from(self.plan.topics.count)) as u32;
        place.way = self.random.way();
        place.step = Step::Subscribing;
        desk.target
            .subscribe(place.topic, self.plan.policy.into(), desk.out);
        if place.way == Way::BackToBack && desk.target.knows(place.topic) {
            desk.target.unsubscribe(place.topic, desk.out);
            place.step = Step::Leaving;
        } else if matches!(place.way, Way::Vanish(_)) && self.random.below(4) == 0 {
            self.end(desk);
        }
    }

    /// Ends the cycle in its way.
    fn end<T: Target>(&mut self, desk: &mut Desk<'_, T>) {
        let place = &mut self.places[desk.link as usize];
        place.since_ns = desk.now_ns;
        place.step = Step::Closing;
        match place.way {
            Way::Leave | Way::BackToBack => {
                desk.target.unsubscribe(place.topic, desk.out);
                place.step = Step::Leaving;
            }
            Way::LeaveAndClose(how) => {
                desk.target.unsubscribe(place.topic, desk.out);
                desk.close(how);
            }
            Way::LeaveAndGoodbye(how) => {
                desk.target.unsubscribe(place.topic, desk.out);
                desk.target.goodbye(desk.out);
                desk.close(how);
            }
            Way::Vanish(how) => desk.close(how),
        }
    }

    fn subscribed<T: Target>(&mut self, topic: u32, next_seq: u64, desk: &mut Desk<'_, T>) {
        let place = &mut self.places[desk.link as usize];
        let awaited = matches!(
            place.step,
            Step::Subscribing | Step::Leaving | Step::Closing
        );
        if topic != place.topic || place.live || !awaited {
            self.outcome.strangers += 1;
            return;
        }
        place.live = true;
        place.next_seq = next_seq;
        place.since_ns = desk.now_ns;
        self.seq.start(desk.link, next_seq);
        self.payload.start_anywhere(desk.link);
        if place.step == Step::Subscribing {
            let events = self.random.below(4) as u32;
            place.step = Step::Live(events);
            if events == 0 {
                self.end(desk);
            }
        }
    }

    fn event<T: Target>(&mut self, topic: u32, seq: u64, payload: &[u8], desk: &mut Desk<'_, T>) {
        let place = &mut self.places[desk.link as usize];
        if topic != place.topic || !place.live {
            self.outcome.after_unsubscribed += 1;
            return;
        }
        let stamp = Stamp::read(payload).filter(|stamp| stamp.run == self.plan.topics.run);
        let Some(stamp) = stamp else {
            self.outcome.strangers += 1;
            return;
        };
        place.events += 1;
        if seq != 0 {
            self.seq.see(desk.link, seq);
        }
        self.payload.see(desk.link, stamp.counter);
        self.delivered += 1;
        self.latency
            .record(desk.now_ns.saturating_sub(stamp.intended_ns));
        if let Step::Live(left) = &mut place.step {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.end(desk);
            }
        }
    }

    fn unsubscribed<T: Target>(
        &mut self,
        topic: u32,
        last_seq: Option<u64>,
        desk: &mut Desk<'_, T>,
    ) {
        let place = &mut self.places[desk.link as usize];
        if topic != place.topic
            || !place.live
            || !matches!(place.step, Step::Leaving | Step::Closing)
        {
            self.outcome.strangers += 1;
            return;
        }
        place.live = false;
        if let (Some(last_seq), Some(next)) = (last_seq, self.seq.next(desk.link)) {
            let none_yet = place.events == 0 && last_seq == 0;
            if last_seq + 1 > next {
                // Events up to the last seq were promised.
                self.outcome.expected += last_seq + 1 - next;
                self.seq.finish(desk.link, last_seq + 1);
            } else if last_seq + 1 < next && !none_yet {
                let (link, first) = (desk.link, place.next_seq);
                self.outcome.wrong_last_seq += 1;
                self.outcome.complain(|| {
                    format!("connection {link}: UNSUBSCRIBED says last seq {last_seq}, but {first}..{next} came")
                });
            }
        }
        if place.step == Step::Leaving {
            self.outcome.cycles += 1;
            self.begin(desk);
        }
    }

    fn refused<T: Target>(&mut self, code: u16, text: &str, desk: &mut Desk<'_, T>) {
        let place = &mut self.places[desk.link as usize];
        let early = place.way == Way::BackToBack && place.step == Step::Leaving && !place.live;
        if early && code == ErrorCode::NotSubscribed as u16 {
            // The UNSUBSCRIBE overtook its SUBSCRIBE on the way to the topic's owner, and the
            // server says so: the subscription still comes, and is given up when it stands.
            self.outcome.unsubscribes_refused += 1;
            place.way = Way::Leave;
            place.step = Step::Subscribing;
            return;
        }
        let found = *place;
        place.step = Step::Closing;
        self.failed += 1;
        self.outcome.refused += 1;
        self.outcome
            .complain(|| format!("refused with code {code}: {text}; {found:?}"));
        desk.close(Close::Abort);
    }

    fn findings(self) -> Outcome {
        let mut outcome = Outcome {
            delivered: self.delivered,
            by_seq: self.seq.tally(),
            by_payload: self.payload.tally(),
            latency: self.latency,
            ..Outcome::default()
        };
        // What a connection was promised is what it got and what it missed.
        outcome.expected = self.delivered + outcome.by_payload.lost;
        outcome.add(self.outcome);
        outcome
    }
}

impl<T: Target> Handler<T> for Churn {
    fn opened(&mut self, mut desk: Desk<'_, T>) {
        desk.target
            .hello(&format!("lg-{}", self.first + desk.link), desk.out);
        self.begin(&mut desk);
    }

    fn inbound(&mut self, message: Inbound<'_>, mut desk: Desk<'_, T>) {
        match message {
            Inbound::Event {
                topic,
                seq,
                payload,
            } => self.event(topic, seq, payload, &mut desk),
            Inbound::Subscribed { topic, next_seq } => self.subscribed(topic, next_seq, &mut desk),
            Inbound::Unsubscribed { topic, last_seq } => {
                self.unsubscribed(topic, last_seq, &mut desk);
            }
            Inbound::Snapshot { topic } => {
                let place = &self.places[desk.link as usize];
                if topic == place.topic && place.live {
                    self.outcome.snapshots += 1;
                } else {
                    self.outcome.after_unsubscribed += 1;
                }
            }
            Inbound::Gap {
                topic,
                first_seq,
                last_seq,
                reason,
            } => {
                let place = &self.places[desk.link as usize];
                if topic != place.topic || !place.live {
                    self.outcome.after_unsubscribed += 1;
                } else if reason == GapReason::Delayed {
                    self.outcome.gaps_delayed += 1;
                } else {
                    self.outcome.gaps += 1;
                    self.seq.skip(desk.link, first_seq, last_seq);
                }
            }
            Inbound::Refused { code, text, .. } => self.refused(code, text, &mut desk),
            Inbound::Stranger => self.outcome.strangers += 1,
            _ => {}
        }
    }

    fn closed(&mut self, link: LinkId, why: Ended) {
        let place = &mut self.places[link as usize];
        let closing = matches!(
            place.way,
            Way::LeaveAndClose(_) | Way::LeaveAndGoodbye(_) | Way::Vanish(_)
        );
        if place.step != Step::Closing {
            let place = *place;
            self.failed += 1;
            self.outcome.disconnected += 1;
            self.outcome
                .complain(|| format!("connection {link}: {why}; {place:?}"));
        } else if closing {
            self.outcome.cycles += 1;
        }
        place.live = false;
        self.closed.push(link);
    }
}

/// xorshift64*: seeded by the run, so that a run's id repeats its choices.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`, which is small.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }

    fn way(&mut self) -> Way {
        let how = match self.below(3) {
            0 => Close::Abort,
            1 => Close::Flush,
            _ => Close::Drain,
        };
        match self.below(16) {
            0..8 => Way::Leave,
            8..12 => Way::BackToBack,
            // What is not sent before the close is no race.
            12 => Way::LeaveAndClose(if how == Close::Abort {
                Close::Flush
            } else {
                how
            }),
            13 | 14 => Way::LeaveAndGoodbye(if how == Close::Abort {
                Close::Flush
            } else {
                how
            }),
            _ => Way::Vanish(how),
        }
    }
}
