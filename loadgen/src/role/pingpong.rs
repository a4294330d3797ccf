//! Connections that publish to a topic of their own and wait for the event: round trips.

use super::{Failure, Line, TICK_NS, attempts_allowed};
use crate::clock::now_ns;
use crate::control::{Growth, Phase, Published, Report};
use crate::deliveries::Deliveries;
use crate::net::{Desk, Ended, Handler, LinkId, Net};
use crate::outcome::Outcome;
use crate::payload::Stamp;
use crate::plan::Plan;
use crate::schedule::{Schedule, spin_until};
use crate::target::{Inbound, Target};

/// Ping-pong on the connections of one thread. Without a rate, each connection sends its next
/// message as soon as the last one is back (closed loop: the latency of an idle server); with
/// one, messages go out on schedule whatever is still on its way.
#[derive(Debug)]
pub struct PingPong {
    plan: Plan,
    first: u32,
    count: u32,
    rate: Option<f64>,
    seconds: f64,
    busy_poll: bool,
    /// Closed loop: messages are sent until then; 0: not yet started.
    end_ns: u64,
    deliveries: Deliveries,
    published: Published,
    payload: Vec<u8>,
    ready: u64,
    failed: u64,
    again: Vec<LinkId>,
    outcome: Outcome,
}

impl PingPong {
    /// Connections `first..first + count` of the run; `rate` is this thread's, in messages a
    /// second.
    pub fn new(plan: &Plan, first: u32, count: u32, rate: Option<f64>, seconds: f64) -> Self {
        let counters = plan.topics.counters();
        Self {
            plan: plan.clone(),
            first,
            count,
            rate,
            seconds,
            busy_poll: false,
            end_ns: 0,
            deliveries: Deliveries::new(plan.topics, first, count),
            published: Published {
                sent: vec![0; counters],
                refused: vec![0; counters],
            },
            payload: plan.topics.kind.payload(plan.payload),
            ready: 0,
            failed: 0,
            again: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// Never sleeps in the kernel when `busy_poll` is set.
    pub fn busy_poll(mut self, busy_poll: bool) -> Self {
        self.busy_poll = busy_poll;
        self
    }

    fn sent(&self) -> u64 {
        self.published.sent.iter().sum()
    }

    fn back(&self) -> u64 {
        self.deliveries.settled() + self.published.refused.iter().sum::<u64>()
    }

    /// Encodes the next message of `link`, due at `due_ns`.
    fn ping<T: Target>(&mut self, link: LinkId, due_ns: u64, target: &mut T, out: &mut Vec<u8>) {
        // Every connection is the one publisher and the one subscriber of the topic of its number.
        let number = self.first + link;
        let counter = &mut self.published.sent[number as usize];
        let stamp = Stamp {
            intended_ns: due_ns,
            counter: *counter,
            run: self.plan.topics.run,
            publisher: number,
        };
        stamp.write(&mut self.payload);
        target.publish(number, *counter as u32, &self.payload, out);
        *counter += 1;
    }

    /// One turn, that ends at `until_ns` at the latest.
    fn turn<T: Target>(&mut self, net: &mut Net<T>, until_ns: u64) -> Result<(), Failure> {
        let until_ns = if self.busy_poll { 0 } else { until_ns };
        Ok(net.turn(self, until_ns)?)
    }

    fn connect<T: Target>(&mut self, net: &mut Net<T>, line: &Line<'_>) -> Result<(), Failure> {
        let deadline = now_ns() + self.plan.connect_timeout.as_nanos() as u64;
        let mut connected = Growth::default();
        let mut opened = 0;
        while self.ready < u64::from(self.count) {
            while let Some(link) = self.again.pop() {
                net.open(link);
            }
            while opened < self.count
                && u64::from(opened) < self.ready + u64::from(self.plan.window)
            {
                net.open(opened);
                opened += 1;
            }
            net.turn(self, now_ns() + TICK_NS)?;
            connected.update(&line.control.progress.connected, self.ready);
            if now_ns() > deadline || self.failed > attempts_allowed(self.count) {
                return Err(Failure::Connect {
                    ready: self.ready,
                    wanted: u64::from(self.count),
                    why: self
                        .outcome
                        .errors
                        .pop()
                        .unwrap_or_else(|| "no answer".into()),
                });
            }
        }
        Ok(())
    }

    fn closed_loop<T: Target>(
        &mut self,
        net: &mut Net<T>,
        line: &Line<'_>,
        start_ns: u64,
    ) -> Result<(), Failure> {
        let mut shown = Growth::default();
        self.end_ns = start_ns + (self.seconds * 1e9) as u64;
        for link in 0..self.count {
            net.write(link, |target, out| self.ping(link, now_ns(), target, out));
            net.flush(link);
        }
        while now_ns() < self.end_ns {
            self.turn(net, now_ns() + TICK_NS)?;
            shown.update(
                &line.control.progress.delivered,
                self.deliveries.delivered(),
            );
        }
        Ok(())
    }

    fn on_schedule<T: Target>(
        &mut self,
        net: &mut Net<T>,
        line: &Line<'_>,
        schedule: &Schedule,
    ) -> Result<(), Failure> {
        let mut shown = Growth::default();
        for index in 0..schedule.total() {
            let due = schedule.due_ns(index);
            while now_ns() + schedule.spin_ns() < due {
                self.turn(net, due - schedule.spin_ns())?;
            }
            spin_until(due);
            self.outcome.schedule_lag_ns = self.outcome.schedule_lag_ns.max(now_ns() - due);
            let link = (index % u64::from(self.count)) as LinkId;
            net.write(link, |target, out| self.ping(link, due, target, out));
            net.flush(link);
            net.turn(self, 0)?;
            shown.update(
                &line.control.progress.delivered,
                self.deliveries.delivered(),
            );
        }
        Ok(())
    }

    /// Does it all, speaking `target`'s protocol.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_on<T: Target>(mut self, target: T, line: &Line<'_>) -> Result<Outcome, Failure> {
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let mut net = Net::new(self.count, self.first, self.plan.server, target)?;
        line.tell(Report::Prepared);
        line.control.wait_until_connecting();
        self.connect(&mut net, line)?;
        line.tell(Report::Ready);
        let start_ns = loop {
            net.turn(&mut self, now_ns() + TICK_NS)?;
            if let Phase::Running(start_ns) = line.control.phase() {
                break start_ns;
            }
        };
        while now_ns() < start_ns {
            net.turn(&mut self, start_ns)?;
        }
        match self.rate {
            None => self.closed_loop(&mut net, line, start_ns)?,
            Some(rate) => {
                let schedule = Schedule::new(start_ns, rate, self.seconds);
                self.on_schedule(&mut net, line, &schedule)?;
            }
        }
        let deadline = now_ns() + self.plan.drain_timeout.as_nanos() as u64;
        while self.back() < self.sent() && now_ns() < deadline {
            self.turn(&mut net, now_ns() + TICK_NS)?;
        }
        Ok(self.findings())
    }

    fn findings(mut self) -> Outcome {
        let Published { sent, refused } = &self.published;
        let refusals: u64 = refused.iter().sum();
        let published = sent.iter().sum::<u64>() - refusals;
        self.deliveries.finish(sent, refused);
        let mut outcome = self.deliveries.outcome(refused);
        outcome.connected = self.ready;
        outcome.published = published;
        outcome.expected = published;
        outcome.refused = refusals;
        outcome.add(self.outcome);
        outcome
    }
}

impl<T: Target> Handler<T> for PingPong {
    fn opened(&mut self, desk: Desk<'_, T>) {
        let number = self.first + desk.link;
        desk.target.hello(&format!("lg-{number}"), desk.out);
        desk.target
            .subscribe(number, self.plan.policy.into(), desk.out);
    }

    fn inbound(&mut self, message: Inbound<'_>, desk: Desk<'_, T>) {
        match message {
            Inbound::Event {
                topic,
                seq,
                payload,
            } => {
                // The moment at which this event is looked at, not that of the whole batch.
                let now = now_ns();
                self.deliveries.event(desk.link, topic, seq, payload, now);
                if self.rate.is_none() && now < self.end_ns {
                    self.ping(desk.link, now_ns(), desk.target, desk.out);
                }
            }
            Inbound::Subscribed { topic, next_seq } => {
                self.deliveries.subscribed(desk.link, topic, next_seq);
                self.ready += 1;
            }
            Inbound::Confirmed => self.ready += 1,
            Inbound::Gap {
                topic,
                reason,
                first_seq,
                last_seq,
            } => self
                .deliveries
                .gap(desk.link, topic, reason, first_seq, last_seq),
            Inbound::PublishRefused { topic, code } => {
                self.published.refused[topic as usize] += 1;
                self.outcome
                    .complain(|| format!("a publish was refused with code {code}"));
                if self.rate.is_none() && desk.now_ns < self.end_ns {
                    self.ping(desk.link, now_ns(), desk.target, desk.out);
                }
            }
            Inbound::Stranger => self.deliveries.stranger(),
            Inbound::Refused { code, text, .. } => {
                self.failed += 1;
                self.outcome
                    .complain(|| format!("refused with code {code}: {text}"));
            }
            _ => {}
        }
    }

    fn closed(&mut self, link: LinkId, why: Ended) {
        self.outcome
            .complain(|| format!("connection {}: {why}", self.first + link));
        if self.ready == u64::from(self.count) {
            self.outcome.disconnected += 1;
        } else {
            self.failed += 1;
            self.again.push(link);
        }
    }
}
