//! The publishers: a connection for each, an open-loop schedule for all.

use std::num::NonZeroU64;

use super::{Failure, Line, TICK_NS, attempts_allowed};
use crate::clock::now_ns;
use crate::control::{Growth, Phase, Published, Report};
use crate::net::{Desk, Ended, Handler, LinkId, Net};
use crate::outcome::Outcome;
use crate::payload::Stamp;
use crate::plan::Plan;
use crate::schedule::{Schedule, spin_until};
use crate::target::{Inbound, Target};

/// All publishers of a run. They have a thread to themselves ([`run_on`](Self::run_on)), or share
/// that of subscribers (see [`super::Everybody`]).
#[derive(Debug)]
pub struct Publisher {
    plan: Plan,
    rate: f64,
    seconds: f64,
    /// Whether publishing ends as soon as the run drains, however much is left of it.
    until_drain: bool,
    stage: Stage,
    /// Messages written so far.
    index: u64,
    shown: Growth,
    published: Published,
    payload: Vec<u8>,
    welcome: u64,
    failed: u64,
    /// A connection that the run cannot do without is gone.
    lost: bool,
    again: Vec<LinkId>,
    outcome: Outcome,
}

/// Where publishers stand, once they are connected. They go through the stages in this order.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Until the run starts.
    Waiting,
    /// Messages leave when they are due.
    Publishing(Schedule),
    /// Until the kernel has everything, at most until then.
    Flushing(u64),
    /// The server has had its time to refuse then.
    Listening(u64),
}

/// What publishers do after a [`step`](Publisher::step).
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Something was written, which the next turn sends.
    pub(super) wrote: bool,
    /// Nothing is due before this moment of the clock, unless something arrives.
    pub(super) until_ns: u64,
    /// How long before that the thread should be awake, if it has nothing else to do.
    pub(super) spin_ns: u64,
}

/// Bytes that a publisher may have waiting for the server; past it the schedule waits, which
/// latency and `schedule_lag_us` show.
const MAX_WAITING: usize = 8 << 20;

/// Messages that are written before the kernel gets them.
const MAX_BURST: u32 = 256;

/// How long refusals may be behind the last publish.
const REFUSALS_NS: u64 = 200_000_000;

impl Publisher {
    /// Publishes `rate` messages a second for `seconds`.
    pub fn new(plan: &Plan, rate: f64, seconds: f64) -> Self {
        let counters = plan.topics.counters();
        Self {
            plan: plan.clone(),
            rate,
            seconds,
            until_drain: false,
            stage: Stage::Waiting,
            index: 0,
            shown: Growth::default(),
            published: Published {
                sent: vec![0; counters],
                refused: vec![0; counters],
            },
            payload: plan.topics.kind.payload(plan.payload),
            welcome: 0,
            failed: 0,
            lost: false,
            again: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// Publishes until the run drains.
    pub fn until_drain(plan: &Plan, rate: f64, seconds: f64) -> Self {
        Self {
            until_drain: true,
            ..Self::new(plan, rate, seconds)
        }
    }

    /// The connections, all closed as yet.
    ///
    /// # Errors
    /// When the kernel refuses the ring.
    pub(super) fn net<T: Target>(&self, target: T) -> Result<Net<T>, Failure> {
        // Timers of a thread may be late by this much, 50 us unless it says otherwise. A kernel
        // that refuses leaves it at that, which schedule_lag_us shows.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let publishers = self.plan.topics.publishers;
        Ok(Net::new(
            publishers,
            self.plan.first,
            self.plan.server,
            target,
        )?)
    }

    /// Connects all publishers.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) fn connect<T: Target>(&mut self, net: &mut Net<T>) -> Result<(), Failure> {
        let deadline = now_ns() + self.plan.connect_timeout.as_nanos() as u64;
        let publishers = self.plan.topics.publishers;
        (0..publishers).for_each(|link| net.open(link));
        while self.welcome < u64::from(publishers) {
            net.turn(self, now_ns() + TICK_NS)?;
            if now_ns() > deadline || self.failed > attempts_allowed(publishers) {
                return Err(Failure::Connect {
                    ready: self.welcome,
                    wanted: u64::from(publishers),
                    why: self.last_error(),
                });
            }
            while let Some(link) = self.again.pop() {
                net.open(link);
            }
        }
        Ok(())
    }

    fn last_error(&mut self) -> String {
        let last = self.outcome.errors.pop();
        last.unwrap_or_else(|| "the server does not answer publishers".into())
    }

    /// Does what is due by now; `None` when all is done. What it wrote leaves with the next turn.
    ///
    /// # Errors
    /// When a connection that the run cannot do without is gone.
    pub(super) fn step<T: Target>(
        &mut self,
        net: &mut Net<T>,
        line: &Line<'_>,
    ) -> Result<Option<Step>, Failure> {
        let now = now_ns();
        let publishers = self.plan.topics.publishers;
        let mut step = Step {
            wrote: false,
            until_ns: now + TICK_NS,
            spin_ns: 0,
        };
        match self.stage {
            Stage::Waiting => match line.control.phase() {
                Phase::Running(start_ns) => {
                    let schedule = Schedule::new(start_ns, self.rate, self.seconds);
                    self.stage = Stage::Publishing(schedule);
                    step.until_ns = start_ns;
                }
                Phase::Draining(_) => self.stage = Stage::Listening(now),
                Phase::Preparing | Phase::Connecting => {}
            },
            Stage::Publishing(schedule) => {
                let before = self.index;
                self.index = self.publish_due(net, &schedule, before);
                self.shown
                    .update(&line.control.progress.published, self.index);
                let cut = self.until_drain && matches!(line.control.phase(), Phase::Draining(_));
                if self.index >= schedule.total() || self.lost || cut {
                    let patience_ns = self.plan.drain_timeout.as_nanos() as u64;
                    self.stage = Stage::Flushing(now + patience_ns);
                }
                step = Step {
                    wrote: self.index > before,
                    until_ns: schedule.due_ns(self.index),
                    spin_ns: schedule.spin_ns(),
                };
            }
            Stage::Flushing(deadline_ns) => {
                if now >= deadline_ns || (0..publishers).all(|link| net.is_flushed(link)) {
                    self.stage = Stage::Listening(now + REFUSALS_NS);
                }
            }
            Stage::Listening(until_ns) if now < until_ns => step.until_ns = until_ns,
            Stage::Listening(_) if self.lost => return Err(Failure::Server(self.last_error())),
            Stage::Listening(_) => return Ok(None),
        }
        Ok(Some(step))
    }

    /// Writes what is due, message `index` first; returns the first that is not.
    fn publish_due<T: Target>(
        &mut self,
        net: &mut Net<T>,
        schedule: &Schedule,
        mut index: u64,
    ) -> u64 {
        for _ in 0..MAX_BURST {
            let due = schedule.due_ns(index);
            let now = now_ns();
            if index >= schedule.total() || due > now {
                break;
            }
            let (publisher, topic) = self.plan.topics.turn(index);
            if net.waiting(publisher) > MAX_WAITING {
                break;
            }
            let counter =
                &mut self.published.sent[self.plan.topics.counter_of(topic, publisher) as usize];
            let stamp = Stamp {
                intended_ns: due,
                counter: *counter,
                run: self.plan.topics.run,
                publisher,
            };
            stamp.write(&mut self.payload);
            let serial = *counter as u32;
            *counter += 1;
            net.write(publisher, |target, out| {
                target.publish(topic, serial, &self.payload, out)
            });
            self.outcome.schedule_lag_ns = self.outcome.schedule_lag_ns.max(now - due);
            index += 1;
        }
        (0..self.plan.topics.publishers).for_each(|link| net.flush(link));
        index
    }

    /// What was published goes to everybody who waits for it, and what was found to the caller.
    pub(super) fn findings(mut self, line: &Line<'_>) -> Outcome {
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        self.outcome.refused = sum(&self.published.refused);
        self.outcome.published = sum(&self.published.sent) - self.outcome.refused;
        line.tell(Report::Published(self.published));
        self.outcome
    }

    /// Does it all, speaking `target`'s protocol.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_on<T: Target>(mut self, target: T, line: &Line<'_>) -> Result<Outcome, Failure> {
        let mut net = self.net(target)?;
        line.tell(Report::Prepared);
        line.control.wait_until_connecting();
        self.connect(&mut net)?;
        line.tell(Report::Ready);
        while let Some(step) = self.step(&mut net, line)? {
            let awake_ns = step.until_ns - step.spin_ns;
            if now_ns() < awake_ns {
                net.turn(&mut self, awake_ns)?;
            } else {
                net.turn(&mut self, 0)?;
                spin_until(step.until_ns);
            }
        }
        Ok(self.findings(line))
    }
}

impl<T: Target> Handler<T> for Publisher {
    fn opened(&mut self, desk: Desk<'_, T>) {
        desk.target
            .hello(&format!("lg-publisher-{}", desk.link), desk.out);
    }

    fn inbound(&mut self, message: Inbound<'_>, desk: Desk<'_, T>) {
        match message {
            Inbound::Welcome { .. } => self.welcome += 1,
            Inbound::PublishRefused { topic, code } => {
                let counter = self.plan.topics.counter_of(topic, desk.link);
                self.published.refused[counter as usize] += 1;
                self.outcome
                    .complain(|| format!("a publish was refused with code {code}"));
            }
            Inbound::Refused { code, text, .. } => {
                self.failed += 1;
                self.outcome
                    .complain(|| format!("publisher refused with code {code}: {text}"));
            }
            Inbound::Goodbye { code } => {
                self.outcome
                    .complain(|| format!("the server said GOODBYE with code {code}"));
            }
            _ => {}
        }
    }

    fn closed(&mut self, link: LinkId, why: Ended) {
        self.outcome.complain(|| format!("publisher {link}: {why}"));
        if self.welcome == u64::from(self.plan.topics.publishers) {
            self.lost = true;
        } else {
            self.failed += 1;
            self.again.push(link);
        }
    }
}
