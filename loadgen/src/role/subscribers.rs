//! Connections that subscribe, stay, and check everything.

use std::sync::Arc;

use super::{Failure, Line, TICK_NS, attempts_allowed};
use crate::clock::now_ns;
use crate::control::{Growth, Phase, Published, Report};
use crate::deliveries::{Deliveries, Periods};
use crate::latency::Latency;
use crate::net::{Desk, Ended, Handler, LinkId, Net};
use crate::outcome::Outcome;
use crate::plan::{Load, Plan};
use crate::target::{Inbound, Target};

/// Subscribers of one thread. Latency is that of events, or, in the `connect` scenario, from the
/// start of a connect to the last of its connection's SUBSCRIBED.
#[derive(Debug)]
pub struct Subscribers {
    plan: Plan,
    first: u32,
    count: u32,
    deliveries: Deliveries,
    /// SUBSCRIBED frames that each connection still waits for.
    pending: Vec<u32>,
    started_ns: Vec<u64>,
    connect_latency: Latency,
    ready: u64,
    failed: u64,
    /// Links that failed and are to be opened again.
    again: Vec<LinkId>,
    outcome: Outcome,
    shown: Growth,
    /// The phase that was looked at last.
    epoch: u64,
}

/// How long extra events are waited for once all have come.
const LINGER_NS: u64 = 100_000_000;

impl Subscribers {
    /// Connections `first..first + count` of the run.
    pub fn new(plan: &Plan, first: u32, count: u32) -> Self {
        Self {
            plan: plan.clone(),
            first,
            count,
            deliveries: Deliveries::new(plan.topics, first, count),
            pending: vec![plan.topics.each; count as usize],
            started_ns: vec![0; count as usize],
            connect_latency: Latency::default(),
            ready: 0,
            failed: 0,
            again: Vec::new(),
            outcome: Outcome::default(),
            shown: Growth::default(),
            epoch: 0,
        }
    }

    /// Does it all, speaking `target`'s protocol.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_on<T: Target>(mut self, target: T, line: &Line<'_>) -> Result<Outcome, Failure> {
        let mut net = self.net(target)?;
        line.tell(Report::Prepared);
        line.control.wait_until_connecting();
        self.connect(&mut net, line)?;
        line.tell(Report::Ready);
        let published = loop {
            let until_ns = now_ns() + TICK_NS;
            if let Some(published) = self.receive(&mut net, line, until_ns)? {
                break published;
            }
        };
        self.drain(&mut net, line, &published)?;
        Ok(self.findings(&published))
    }

    /// The connections, all closed as yet.
    ///
    /// # Errors
    /// When the kernel refuses the ring.
    pub(super) fn net<T: Target>(&self, target: T) -> Result<Net<T>, Failure> {
        Ok(Net::new(self.count, self.first, self.plan.server, target)?)
    }

    /// Connects and subscribes all.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn connect<T: Target>(
        &mut self,
        net: &mut Net<T>,
        line: &Line<'_>,
    ) -> Result<(), Failure> {
        self.outcome.first_connect_ns = now_ns();
        let deadline = now_ns() + self.plan.connect_timeout.as_nanos() as u64;
        let mut connected = Growth::default();
        let mut opened = 0;
        while self.ready < u64::from(self.count) {
            while let Some(link) = self.again.pop() {
                self.started_ns[link as usize] = now_ns();
                net.open(link);
            }
            while opened < self.count
                && u64::from(opened) < self.ready + u64::from(self.plan.window)
            {
                self.started_ns[opened as usize] = now_ns();
                net.open(opened);
                opened += 1;
            }
            net.turn(self, now_ns() + TICK_NS)?;
            connected.update(&line.control.progress.connected, self.ready);
            let late = now_ns() > deadline;
            if late || self.failed > attempts_allowed(self.count) {
                let last = self.outcome.errors.pop();
                return Err(Failure::Connect {
                    ready: self.ready,
                    wanted: u64::from(self.count),
                    why: last.unwrap_or_else(|| "no answer in time (--connect-timeout)".into()),
                });
            }
        }
        self.outcome.last_subscribed_ns = now_ns();
        Ok(())
    }

    /// Receives until something came or the clock shows `until_ns`. What was published, once that
    /// is known.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn receive<T: Target>(
        &mut self,
        net: &mut Net<T>,
        line: &Line<'_>,
        until_ns: u64,
    ) -> Result<Option<Arc<Published>>, Failure> {
        net.turn(self, until_ns)?;
        self.shown.update(
            &line.control.progress.delivered,
            self.deliveries.delivered(),
        );
        let epoch = line.control.epoch();
        if epoch == std::mem::replace(&mut self.epoch, epoch) {
            return Ok(None);
        }
        match line.control.phase() {
            Phase::Running(start_ns) => {
                if let Load::Stall { period, .. } = self.plan.load {
                    self.deliveries.set_periods(Periods {
                        start_ns,
                        period_ns: (period * 1e9) as u64,
                    });
                }
                Ok(None)
            }
            Phase::Draining(published) => Ok(Some(published)),
            Phase::Preparing | Phase::Connecting => Ok(None),
        }
    }

    /// Receives until all that was published has come, or nothing comes any more.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn drain<T: Target>(
        &mut self,
        net: &mut Net<T>,
        line: &Line<'_>,
        published: &Published,
    ) -> Result<(), Failure> {
        let expected = self
            .deliveries
            .expected(&published.sent, &published.refused);
        self.outcome.expected = expected;
        let quiet_ns = self.plan.drain_timeout.as_nanos() as u64;
        let end_ns = now_ns() + 10 * quiet_ns;
        let mut seen = self.deliveries.settled();
        let mut moved_ns = now_ns();
        loop {
            net.turn(self, now_ns() + TICK_NS)?;
            self.shown.update(
                &line.control.progress.delivered,
                self.deliveries.delivered(),
            );
            let now = now_ns();
            if self.deliveries.settled() != seen {
                seen = self.deliveries.settled();
                moved_ns = now;
            }
            let patience = if seen >= expected {
                LINGER_NS
            } else {
                quiet_ns
            };
            if now - moved_ns > patience || now > end_ns {
                return Ok(());
            }
        }
    }

    /// One more subscription of `link` stands.
    fn stands(&mut self, link: LinkId, now_ns: u64) {
        let pending = &mut self.pending[link as usize];
        *pending = pending.saturating_sub(1);
        if *pending == 0 {
            self.ready += 1;
            let took = now_ns.saturating_sub(self.started_ns[link as usize]);
            self.connect_latency.record(took);
        }
    }

    /// What was found.
    pub(super) fn findings(mut self, published: &Published) -> Outcome {
        self.deliveries.finish(&published.sent, &published.refused);
        let mut outcome = self.deliveries.outcome(&published.refused);
        outcome.connected = self.ready;
        if matches!(self.plan.load, Load::Connect { .. }) {
            outcome.latency = self.connect_latency;
        }
        outcome.add(self.outcome);
        outcome
    }
}

impl<T: Target> Handler<T> for Subscribers {
    fn opened(&mut self, desk: Desk<'_, T>) {
        let number = self.first + desk.link;
        desk.target.hello(&format!("lg-{number}"), desk.out);
        self.pending[desk.link as usize] = self.plan.topics.each;
        for slot in 0..self.plan.topics.each {
            let topic = self.plan.topics.topic_of(number, slot);
            desk.target
                .subscribe(topic, self.plan.policy.into(), desk.out);
        }
    }

    #[inline]
    fn inbound(&mut self, message: Inbound<'_>, desk: Desk<'_, T>) {
        match message {
            Inbound::Event {
                topic,
                seq,
                payload,
            } => self
                .deliveries
                .event(desk.link, topic, seq, payload, desk.now_ns),
            Inbound::Subscribed { topic, next_seq } => {
                self.deliveries.subscribed(desk.link, topic, next_seq);
                self.stands(desk.link, desk.now_ns);
            }
            Inbound::Confirmed => self.stands(desk.link, desk.now_ns),
            Inbound::Gap {
                topic,
                reason,
                first_seq,
                last_seq,
            } => self
                .deliveries
                .gap(desk.link, topic, reason, first_seq, last_seq),
            Inbound::Snapshot { .. } => self.deliveries.snapshot(),
            Inbound::Stranger | Inbound::Unsubscribed { .. } => self.deliveries.stranger(),
            Inbound::Refused { code, text, .. } => {
                self.failed += 1;
                self.outcome
                    .complain(|| format!("refused with code {code}: {text}"));
            }
            Inbound::Goodbye { code } => {
                self.outcome
                    .complain(|| format!("the server said GOODBYE with code {code}"));
            }
            _ => {}
        }
    }

    fn closed(&mut self, link: LinkId, why: Ended) {
        self.outcome
            .complain(|| format!("connection {}: {why}", self.first + link));
        if self.pending[link as usize] == 0 {
            self.outcome.disconnected += 1;
        } else {
            self.failed += 1;
            self.again.push(link);
        }
    }
}
