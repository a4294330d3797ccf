//! Subscribers and publishers in one thread, for a machine that has one processor for them: the
//! kernel's scheduler would let two threads take turns of milliseconds there, which both would be
//! late by.

use super::publisher::Step;
use super::{Failure, Line, Publisher, Subscribers, TICK_NS};
use crate::clock::now_ns;
use crate::control::Report;
use crate::net::Net;
use crate::outcome::Outcome;
use crate::target::Target;

/// Subscribers and publishers that take turns. Whoever publishes is late by what a batch of
/// arrivals takes, at most.
#[derive(Debug)]
pub struct Everybody {
    subscribers: Subscribers,
    publisher: Publisher,
}

impl Everybody {
    /// These together.
    pub fn new(subscribers: Subscribers, publisher: Publisher) -> Self {
        Self {
            subscribers,
            publisher,
        }
    }

    /// Does it all. The targets are the subscribers' and the publishers': topic ids are learnt by
    /// each.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_on<T: Target>(self, targets: [T; 2], line: &Line<'_>) -> Result<Outcome, Failure> {
        let Self {
            mut subscribers,
            mut publisher,
        } = self;
        let [to_subscribers, to_publisher] = targets;
        let mut readers = subscribers.net(to_subscribers)?;
        let mut writers = publisher.net(to_publisher)?;
        line.tell(Report::Prepared);
        line.control.wait_until_connecting();
        publisher.connect(&mut writers)?;
        subscribers.connect(&mut readers, line)?;
        line.tell(Report::Ready);
        let mut look_ns = 0;
        while let Some(step) = publisher.step(&mut writers, line)? {
            send(&mut writers, &mut publisher, &step, &mut look_ns)?;
            subscribers.receive(&mut readers, line, step.until_ns.min(look_ns))?;
        }
        let mut outcome = publisher.findings(line);
        let published = loop {
            let until_ns = now_ns() + TICK_NS;
            if let Some(published) = subscribers.receive(&mut readers, line, until_ns)? {
                break published;
            }
        };
        subscribers.drain(&mut readers, line, &published)?;
        outcome.add(subscribers.findings(&published));
        Ok(outcome)
    }
}

/// How often publishers that write nothing look at what the server says.
const LOOK_NS: u64 = 5_000_000;

/// Sends what was written; `look_ns` is when the server's words are looked at at the latest.
fn send<T: Target>(
    writers: &mut Net<T>,
    publisher: &mut Publisher,
    step: &Step,
    look_ns: &mut u64,
) -> Result<(), Failure> {
    let now = now_ns();
    if step.wrote || now >= *look_ns {
        *look_ns = now + LOOK_NS;
        writers.turn(publisher, 0)?;
    }
    Ok(())
}
