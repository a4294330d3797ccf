//! The driver of one core: turns io_uring's completions into calls of the core, and what the core
//! asks for into submissions. One `io_uring_enter` a turn.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::observe::{CoreReport, MailDepth, Reporter};
use super::readers::ReadPort;
use super::spin::{self, Spin};
use super::{Link, NodeError, Shared, entropy, wall_ns};
use crate::core::{
    Action, Core, CoreConfig, Deliveries, Now, Payload, ReceiveEnd, Requests, Share,
};
use crate::journal::Port;
use crate::mailbox::{Doorbell, Receiver, Sender};
use crate::ring::{Completion, Ring, RingConfig, Slot, Waker};

/// Completions looked at before the turn's bounds are checked again.
const STEP: usize = 32;
/// A turn takes in no more once this many bytes have come, so that nobody waits long for the
/// events of its beginning.
const TURN_BYTES: usize = 256 << 10;
/// Parcels taken from one mailbox in a turn.
const TURN_PARCELS: usize = 4;
/// Sends of a turn that are worth being timed.
const MANY_SENDS: u32 = 8;
/// The longest that arrivals wake nobody: where a user would begin to notice.
const GATHER_MOST: Duration = Duration::from_micros(650);
/// Pages of the database taken in a turn.
const TURN_PAGES: usize = 4;
/// How long to sleep while something waits for room in another core's mailbox.
const MAIL_RETRY: Duration = Duration::from_micros(200);
/// How long to stop accepting when the table of descriptors is full.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);
/// How far a lane must have grown for a core to be told that has nothing of its own there.
const LANE_NEWS_BYTES: u64 = 1 << 20;
/// How often a stopping core looks how far the others have come.
const STOP_POLL: Duration = Duration::from_millis(1);
/// Time beyond the core's own timeouts that a stopping node gives its connections.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The steps of stopping. A core takes the next one when all cores have reached the one before, so
/// that an event that one core has accepted still reaches the subscribers of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// No frame is acted on any more, and all requests of before are posted.
    Quiet,
    /// All requests are answered, and the answers posted.
    Answered,
    /// All connections are closed.
    Closed,
}

/// How many steps there are.
pub(super) const STEPS: usize = 3;

/// A core's ends of its mailboxes, by the other core; its own place is empty.
pub(super) struct Mail {
    pub(super) requests_out: Vec<Option<Sender<Requests>>>,
    pub(super) requests_in: Vec<Option<Receiver<Requests>>>,
    pub(super) deliveries_out: Vec<Option<Sender<Deliveries>>>,
    pub(super) deliveries_in: Vec<Option<Receiver<Deliveries>>>,
    pub(super) doorbells: Arc<[Doorbell]>,
}

/// A lane of the journal, and what the core knows of it.
struct Lane {
    port: Port,
    ticket: u64,
    position: u64,
}

impl Lane {
    /// Whether it has something to tell the core: a ticket, or that it has grown by much.
    fn has_news(&self) -> bool {
        let status = self.port.status();
        self.port.committed() != self.ticket
            || status.committed() - self.position >= LANE_NEWS_BYTES
            || status.is_failed()
    }
}

/// How far stopping has come.
struct Stop {
    /// When it goes on without those who have not come this far.
    give_up: Instant,
    /// Steps reached.
    reached: usize,
    /// Whether the core was told to let its connections go.
    closing: bool,
}

/// One thread: a core, its ring, its mailboxes.
pub(super) struct Driver {
    index: usize,
    core: Core,
    ring: Ring<Payload>,
    mail: Mail,
    lanes: Vec<Lane>,
    reads: Option<ReadPort>,
    shared: Arc<Shared>,
    busy_poll: bool,
    stop_grace: Duration,
    clock: Instant,
    accepted: Vec<Slot>,
    accept_again: Option<Instant>,
    /// Whether mail was left behind because its mailbox had no room.
    mail_left: bool,
    /// Turns that left mail behind.
    crowded_turns: u64,
    reporter: Reporter,
    spin: Spin,
    /// Set while stopping.
    stop: Option<Stop>,
}

impl Driver {
    pub(super) fn new(
        config: CoreConfig,
        ring: &RingConfig,
        listener: TcpListener,
        mail: Mail,
        busy_poll: bool,
        shared: Arc<Shared>,
        reporter: Reporter,
    ) -> Result<Self, NodeError> {
        let clock = Instant::now();
        let now = Now {
            wall_ns: wall_ns(),
            mono_ns: 0,
        };
        let mut ring = Ring::new(ring)?;
        ring.listen(listener).map_err(NodeError::Listen)?;
        let limits = &config.limits;
        Ok(Self {
            index: config.core,
            stop_grace: limits.drain_timeout + limits.linger_timeout + STOP_GRACE,
            core: Core::new(config, now),
            ring,
            mail,
            lanes: Vec::new(),
            reads: None,
            shared,
            busy_poll,
            clock,
            accepted: Vec::new(),
            accept_again: None,
            mail_left: false,
            crowded_turns: 0,
            reporter,
            spin: Spin::default(),
            stop: None,
        })
    }

    /// Takes over what an earlier run has left.
    pub(super) fn inherit(&mut self, share: Share) -> Result<(), NodeError> {
        Ok(self.core.inherit(share)?)
    }

    pub(super) fn waker(&self) -> Waker {
        self.ring.waker()
    }

    /// Makes turns until the node is told to stop and every core has let its connections go.
    pub(super) fn run(&mut self, link: Link) -> io::Result<()> {
        let wakers = link.wakers;
        let lane = |port| Lane {
            port,
            ticket: 0,
            position: 0,
        };
        self.lanes = link.ports.into_iter().map(lane).collect();
        self.reads = link.reads;
        // Should this thread panic, the others stop too, rather than serve half of the topics.
        let guard = StopOnPanic {
            shared: Arc::clone(&self.shared),
            wakers: Arc::clone(&wakers),
        };
        loop {
            self.sleep()?;
            let now = self.now();
            self.core.begin_turn(now);
            self.stop_if_told();
            self.take_commits(&wakers);
            self.take_completions();
            self.take_mail();
            self.take_pages();
            self.close_when_answered();
            self.core.end_turn();
            self.act()?;
            self.post_mail(&wakers);
            self.post_journal();
            self.post_reads();
            self.report_if_asked();
            if self.is_stopped() {
                self.ring.submit()?;
                drop(guard);
                return Ok(());
            }
        }
    }

    fn now(&self) -> Now {
        Now {
            wall_ns: wall_ns(),
            mono_ns: self.clock.elapsed().as_nanos() as u64,
        }
    }

    /// Submits what the last turn asked for and waits until something happens or is due.
    fn sleep(&mut self) -> io::Result<()> {
        let elapsed = self.clock.elapsed();
        self.core.on_turn_over(elapsed.as_nanos() as u64);
        if let Some(until_ns) = self.core.rests_until()
            && !self.core.has_due()
            && !self.busy_poll
            && self.stop.is_none()
        {
            let rest = Duration::from_nanos(until_ns).saturating_sub(elapsed);
            return self.ring.submit_and_gather(rest.min(GATHER_MOST));
        }
        let doorbell = &self.mail.doorbells[self.index];
        let mut timeout = self.timeout(elapsed);
        if timeout != Some(Duration::ZERO) {
            doorbell.arm();
            let waiting = self
                .mail
                .deliveries_in
                .iter()
                .flatten()
                .any(|m| !m.is_empty())
                || self
                    .mail
                    .requests_in
                    .iter()
                    .flatten()
                    .any(|m| !m.is_empty());
            let committed = self
                .lanes
                .iter()
                .any(|lane| lane.has_news() && !lane.port.status().is_failed());
            let read = self.reads.as_ref().is_some_and(ReadPort::has_news);
            if committed || read || self.reporter.is_asked() {
                timeout = Some(Duration::ZERO);
            }
            // Requests that are not taken in now have to wait, so they are no reason to spin.
            if waiting {
                let soon = if self.mail_left || self.core.is_held_up() {
                    MAIL_RETRY
                } else {
                    Duration::ZERO
                };
                timeout = Some(timeout.map_or(soon, |timeout| timeout.min(soon)));
            }
        }
        let result = self.wait(timeout);
        self.mail.doorbells[self.index].disarm();
        result
    }

    /// Waits for a completion, at first without sleeping where that has paid off lately.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.ring.techniques().spin
            && timeout.is_none_or(|timeout| timeout > spin::WINDOW)
            && self.spin.is_due()
        {
            let came = self.ring.submit_and_spin(spin::WINDOW)?;
            self.spin.tell(came);
            if came {
                return Ok(());
            }
        }
        self.ring.submit_and_wait(timeout)
    }

    fn timeout(&self, elapsed: Duration) -> Option<Duration> {
        if self.busy_poll {
            return Some(Duration::ZERO);
        }
        let deadline = self
            .core
            .next_deadline()
            .map(|at| Duration::from_nanos(at).saturating_sub(elapsed));
        let retry = (self.core.has_parked_work() || self.mail_left).then_some(MAIL_RETRY);
        let accept = self
            .accept_again
            .map(|at| at.saturating_duration_since(Instant::now()));
        let stop = self.stop.as_ref().map(|_| STOP_POLL);
        [deadline, retry, accept, stop].into_iter().flatten().min()
    }

    fn stop_if_told(&mut self) {
        if self.stop.is_none() && self.shared.stop.load(Ordering::Acquire) {
            let give_up = Instant::now() + self.stop_grace;
            self.stop = Some(Stop {
                give_up,
                reached: 0,
                closing: false,
            });
            self.ring.stop_listening();
            self.core.quiesce();
        }
    }

    /// Whether every core has reached this step of stopping.
    fn all_reached(&self, step: Step) -> bool {
        self.shared.reached[step as usize].load(Ordering::Acquire) == self.mail.doorbells.len()
    }

    /// Lets the connections go once the last event for them has come.
    fn close_when_answered(&mut self) {
        let answered = self.all_reached(Step::Answered) && self.mail.is_empty();
        if let Some(stop) = &mut self.stop
            && !stop.closing
            && answered
        {
            stop.closing = true;
            self.core.shutdown();
        }
    }

    /// Takes the steps of stopping at the end of a turn; whether the last one is done.
    fn is_stopped(&mut self) -> bool {
        let Some(stop) = &self.stop else { return false };
        let posted = !self.mail_left && !self.core.has_mail() && !self.core.awaits_journal();
        let reached = match stop.reached {
            0 => posted,
            1 => self.all_reached(Step::Quiet) && self.mail.is_empty() && posted,
            2 => stop.closing && self.core.connections() == 0,
            _ => false,
        };
        let stop = self.stop.as_mut().expect("just seen");
        if reached {
            self.shared.reached[stop.reached].fetch_add(1, Ordering::AcqRel);
            stop.reached += 1;
        }
        // A core without connections still owns topics that others may be waiting for.
        Instant::now() >= stop.give_up || self.all_reached(Step::Closed)
    }

    /// Hands the core what has come to pass.
    fn take_completions(&mut self) {
        if self.accept_again.is_some_and(|at| at <= Instant::now()) {
            self.accept_again = None;
            self.ring.rearm_accept();
        }
        let Self {
            core,
            ring,
            accepted,
            accept_again,
            shared,
            ..
        } = self;
        let mut received = 0;
        while received < TURN_BYTES {
            let taken = ring.for_each_completion(STEP, |completion| match completion {
                Completion::Received { slot, bytes } => {
                    received += bytes.len();
                    core.on_received(slot.index() as u32, bytes);
                }
                Completion::Sent {
                    slot,
                    payload,
                    result,
                } => {
                    core.on_sent(slot.index() as u32, payload, result);
                }
                Completion::Accepted(slot) => {
                    if shared.open.fetch_add(1, Ordering::Relaxed) < shared.max_connections {
                        core.on_accepted(slot.index() as u32, entropy());
                    } else {
                        core.on_accepted_beyond_limit(slot.index() as u32);
                    }
                    accepted.push(slot);
                }
                Completion::ReceiveEnded {
                    slot,
                    result,
                    cancelled,
                } => {
                    let end = match result {
                        Ok(()) if cancelled => ReceiveEnd::Stopped,
                        Ok(()) => ReceiveEnd::EndOfStream,
                        Err(error) => ReceiveEnd::Failed(error),
                    };
                    core.on_receive_ended(slot.index() as u32, end);
                }
                Completion::Closed(slot) => {
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                    core.on_closed(slot.index() as u32);
                }
                Completion::AcceptFailed(error) => {
                    tracing::warn!(%error, "accepting pauses for a moment");
                    *accept_again = Some(Instant::now() + ACCEPT_RETRY);
                }
                Completion::Connected { .. } | Completion::Woken => {}
            });
            if taken < STEP {
                break;
            }
        }
        for slot in accepted.drain(..) {
            ring.recv(slot);
        }
    }

    /// Tells the core what the journal has on disk. If a lane has failed, the node stops: it can
    /// keep no promise any more.
    fn take_commits(&mut self, wakers: &[Waker]) {
        let full = self.lanes.iter().any(|lane| lane.port.status().is_short());
        self.core.set_journal_full(full);
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if !lane.has_news() {
                continue;
            }
            let status = lane.port.status();
            if status.is_failed() {
                self.core.on_journal_failed();
                if !self.shared.stop.swap(true, Ordering::AcqRel) {
                    let why = status.failure().unwrap_or_default();
                    tracing::error!(lane = number, why, "the journal failed; stopping");
                    wakers.iter().for_each(Waker::wake);
                }
                continue;
            }
            // The position first: it is never behind the ticket that is read after it.
            lane.position = status.committed();
            lane.ticket = lane.port.committed();
            self.core
                .on_committed(number as u32, lane.ticket, lane.position);
        }
    }

    /// Gives the journal's lanes this turn's records, as far as they have room.
    fn post_journal(&mut self) {
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if !self.core.has_journal(number as u32) {
                continue;
            }
            if !lane.port.has_room() {
                self.mail_left = true;
                continue;
            }
            let empty = lane.port.buffer();
            if let Some(batch) = self.core.take_journal(number as u32, empty) {
                let sent = lane.port.send(batch);
                debug_assert!(sent.is_ok(), "room was just found");
            }
        }
    }

    /// Tells whoever looks at the node how things are here.
    fn report_if_asked(&mut self) {
        self.crowded_turns += u64::from(self.mail_left);
        if !self.reporter.is_asked() {
            return;
        }
        let mail = &self.mail;
        let depth = MailDepth {
            requests: mail.requests_in.iter().flatten().map(Receiver::len).sum(),
            deliveries: mail.deliveries_in.iter().flatten().map(Receiver::len).sum(),
            journal: self.lanes.iter_mut().map(|lane| lane.port.waiting()).sum(),
        };
        self.reporter.give(CoreReport {
            figures: self.core.figures(),
            mail: depth,
            crowded_turns: self.crowded_turns,
        });
    }

    /// Has pages read that clients asked for.
    fn post_reads(&mut self) {
        while let Some(read) = self.core.take_read() {
            match &self.reads {
                Some(reads) => reads.send(read),
                None => debug_assert!(false, "a core without a database refuses reads"),
            }
        }
    }

    /// Hands the core the pages that were read, as many as a turn takes in.
    fn take_pages(&mut self) {
        let Some(reads) = &self.reads else { return };
        for _ in 0..TURN_PAGES {
            let Some(done) = reads.take() else { break };
            self.core.on_read(done);
        }
    }

    fn take_mail(&mut self) {
        for (from, mailbox) in self.mail.deliveries_in.iter_mut().enumerate() {
            let Some(mailbox) = mailbox else { continue };
            for _ in 0..TURN_PARCELS {
                let Some(parcel) = mailbox.try_recv() else {
                    break;
                };
                self.core.on_deliveries(from, parcel);
            }
        }
        for (from, mailbox) in self.mail.requests_in.iter_mut().enumerate() {
            let Some(mailbox) = mailbox else { continue };
            for _ in 0..TURN_PARCELS {
                // Each parcel may bring as much as the journal takes.
                if !self.core.takes_requests() {
                    return;
                }
                let Some(parcel) = mailbox.try_recv() else {
                    break;
                };
                self.core.on_requests(from, parcel);
            }
        }
    }

    /// Queues what the core wants done. Many sends are done at once, and timed.
    fn act(&mut self) -> io::Result<()> {
        let mut sends = 0;
        let began = self.clock.elapsed();
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send { slot, payload } => {
                    sends += 1;
                    self.ring.send(Slot::at(slot), payload);
                }
                Action::StopReceive(slot) => self.ring.stop_recv(Slot::at(slot)),
                Action::StartReceive(slot) => self.ring.recv(Slot::at(slot)),
                Action::ShutdownWrite(slot) => self.ring.shutdown_write(Slot::at(slot)),
                Action::Close(slot) => self.ring.close(Slot::at(slot)),
            }
        }
        if sends >= MANY_SENDS {
            self.ring.submit()?;
            let took = self.clock.elapsed() - began;
            self.core.on_sends_over(sends, took.as_nanos() as u64);
        }
        Ok(())
    }

    /// Puts this turn's mail into the mailboxes that have room, and wakes those who sleep.
    fn post_mail(&mut self, wakers: &[Waker]) {
        self.mail_left = false;
        for (to, waker) in wakers.iter().enumerate() {
            let (Some(requests), Some(deliveries)) = (
                &mut self.mail.requests_out[to],
                &mut self.mail.deliveries_out[to],
            ) else {
                continue;
            };
            let mut posted = false;
            if deliveries.free() > 0 {
                if let Some(parcel) = self.core.take_deliveries(to) {
                    posted |= deliveries.try_send(parcel).is_ok();
                }
            } else {
                self.mail_left = true;
            }
            if requests.free() > 0 {
                if let Some(parcel) = self.core.take_requests(to) {
                    posted |= requests.try_send(parcel).is_ok();
                }
            } else {
                self.mail_left = true;
            }
            if posted && self.mail.doorbells[to].ring() {
                self.ring.wake(waker);
            }
        }
    }
}

impl Mail {
    /// Whether nothing has come that was not taken in.
    fn is_empty(&self) -> bool {
        self.deliveries_in.iter().flatten().all(Receiver::is_empty)
            && self.requests_in.iter().flatten().all(Receiver::is_empty)
    }
}

struct StopOnPanic {
    shared: Arc<Shared>,
    wakers: Arc<[Waker]>,
}

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.stop.store(true, Ordering::Release);
            self.wakers.iter().for_each(Waker::wake);
        }
    }
}
