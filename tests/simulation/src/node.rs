//! The driver: runs the cores as the ring's driver does, in the order that they document, with
//! completions and mail delayed at will.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tickring::core::{
    Action, Core, CoreConfig, Deliveries, JournalConfig, Now, ParcelPool, Plant, ReceiveEnd,
    Requests,
};
use tickring::journal::Port;
use tickring::journal::disk::Disk;

use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::ensure;
use crate::lanes::{Lane, Opening};
use crate::memory::OnDisk;
use crate::model::SharedModel;
use crate::plan::Plan;
use crate::reads::Readers;
use crate::socket::{End, Socket};
use crate::trace::Trace;

const START_WALL_NS: u64 = 1_700_000_000_000_000_000;

/// Time that a stopping node gives its connections beyond their own timeouts, in nanoseconds.
const STOP_GRACE_NS: u64 = 20_000_000;

/// The steps of stopping, as the ring's driver takes them.
const QUIET: usize = 0;
const ANSWERED: usize = 1;
const CLOSED: usize = 2;

/// One core and what waits for it.
pub(crate) struct Seat {
    pub(crate) core: Core,
    /// The socket in each slot.
    pub(crate) slots: Vec<Option<usize>>,
    /// Connected, but not accepted yet.
    pub(crate) backlog: VecDeque<usize>,
    /// Mail from each core.
    requests: Vec<VecDeque<Requests>>,
    deliveries: Vec<VecDeque<Deliveries>>,
    /// Its ends of the journal's lanes.
    ports: Vec<LaneEnd>,
    reads: Readers,
    /// Bytes of the largest batch that it has given to the journal.
    largest_batch: usize,
    /// Bytes of the batches that this turn released.
    pub(crate) released_bytes: usize,
    /// Whether mail or records were left behind for want of room.
    left: bool,
    stop: Option<Stop>,
    /// Whether its thread has ended.
    pub(crate) ended: bool,
}

/// A lane of the journal, and what the core knows of it.
struct LaneEnd {
    port: Port,
    ticket: u64,
    position: u64,
    /// Tickets and bytes of the batches that are not on disk yet.
    posted: VecDeque<(u64, usize)>,
}

/// How far stopping has come.
struct Stop {
    give_up: u64,
    reached: usize,
    closing: bool,
}

/// What a turn needs of the world.
pub(crate) struct Surroundings<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) dice: &'a mut Dice,
    pub(crate) sockets: &'a mut Vec<Socket>,
    pub(crate) trace: &'a mut Trace,
    pub(crate) coverage: &'a mut Coverage,
    pub(crate) now: u64,
    /// Whether everything that can happen does, without delay.
    pub(crate) prompt: bool,
}

impl Surroundings<'_> {
    pub(crate) fn happens(&mut self) -> bool {
        self.prompt || self.dice.chance(self.plan.haste)
    }
}

/// All cores of the node, and the lanes of its journal.
pub(crate) struct Node {
    pub(crate) seats: Vec<Seat>,
    pub(crate) lanes: Vec<Lane>,
    /// Whether it was told to stop.
    pub(crate) stopping: bool,
    /// Whether a lane has failed, and a core knows.
    pub(crate) failed: bool,
    /// Whether a core has ended without having come through all steps of stopping.
    pub(crate) gave_up: bool,
    /// How many cores have reached each step of stopping.
    reached: [usize; 3],
}

pub(crate) fn now(mono_ns: u64) -> Now {
    Now {
        wall_ns: START_WALL_NS + mono_ns,
        mono_ns,
    }
}

impl Node {
    /// A node that goes on from `opening`; gives what its disks held, too.
    pub(crate) fn new(
        plan: &Plan,
        opening: Opening,
        epoch: u64,
        mono_ns: u64,
        model: &SharedModel,
        plant: Option<Plant>,
    ) -> Result<(Self, OnDisk), String> {
        let registry = Arc::new(model.registry(false));
        let parcels = Arc::new(ParcelPool::default());
        let (mut lanes, mut ports) = (Vec::new(), Vec::new());
        ports.resize_with(plan.cores, Vec::new);
        for (mut start, disk) in opening.lanes {
            start.run = epoch;
            let (lane, ends) = Lane::new(start, disk, plan);
            lanes.push(lane);
            for (ports, port) in ports.iter_mut().zip(ends) {
                ports.push(LaneEnd {
                    port,
                    ticket: 0,
                    position: 0,
                    posted: VecDeque::new(),
                });
            }
        }
        let shares = opening.heritage.into_shares();
        let mut seats = Vec::new();
        for (core, (ports, share)) in ports.into_iter().zip(shares).enumerate() {
            let config = CoreConfig {
                core,
                cores: plan.cores,
                epoch,
                limits: plan.limits,
                registry: Arc::clone(&registry),
                parcels: Arc::clone(&parcels),
                journal: JournalConfig {
                    lanes: plan.journal.lanes,
                    snapshot_bytes: plan.journal.limits.segment_bytes,
                    snapshot_most_bytes: plan.journal.limits.journal_bytes / 8,
                    window_bytes: plan.window_bytes(),
                    replies: plan.journal.replies,
                },
                pacing: plan.pacing,
                has_database: plan.has_database,
                plant,
            };
            let mut core = Core::new(config, now(mono_ns));
            core.inherit(share)
                .map_err(|error| format!("the node does not start: {error}"))?;
            seats.push(Seat {
                core,
                slots: Vec::new(),
                backlog: VecDeque::new(),
                requests: (0..plan.cores).map(|_| VecDeque::new()).collect(),
                deliveries: (0..plan.cores).map(|_| VecDeque::new()).collect(),
                ports,
                reads: Readers::new(model),
                largest_batch: 0,
                released_bytes: 0,
                left: false,
                stop: None,
                ended: false,
            });
        }
        let node = Self {
            seats,
            lanes,
            stopping: false,
            failed: false,
            gave_up: false,
            reached: [0; 3],
        };
        Ok((node, opening.on_disk))
    }

    /// One turn of core `at`. Says whether anything happened.
    pub(crate) fn turn(
        &mut self,
        at: usize,
        around: &mut Surroundings<'_>,
    ) -> Result<bool, String> {
        around.coverage.turns += 1;
        let seat = &mut self.seats[at];
        let mut busy = seat.core.has_parked_work() || seat.core.has_due();
        busy |= seat.core.rests_until().is_some();
        seat.core.begin_turn(now(around.now));
        if self.stopping && seat.stop.is_none() {
            around.trace.line(|| format!("core {at}: is told to stop"));
            let limits = &around.plan.limits;
            let grace = (limits.drain_timeout + limits.linger_timeout).as_nanos() as u64;
            seat.stop = Some(Stop {
                give_up: around.now + grace + STOP_GRACE_NS,
                reached: 0,
                closing: false,
            });
            seat.core.quiesce();
        }
        busy |= self.take_commits(at, around);
        let seat = &mut self.seats[at];
        busy |= seat.accept(at, around);
        let first = around.dice.below(seat.slots.len().max(1));
        for place in 0..seat.slots.len() {
            let slot = (first + place) % seat.slots.len();
            if let Some(socket) = seat.slots[slot] {
                busy |= seat.complete(slot as u32, socket, around);
            }
        }
        busy |= seat.take_mail(at, around);
        busy |= seat.reads.give(&mut seat.core, around);
        self.close_when_answered(at);
        let seat = &mut self.seats[at];
        seat.core.end_turn();
        busy |= seat.act(at, around)?;
        seat.left = false;
        busy |= self.post_mail(at, around);
        let seat = &mut self.seats[at];
        busy |= seat.post_journal(at, around);
        seat.reads.take(&mut seat.core, &seat.slots, around)?;
        self.take_steps(at, around);
        let seat = &self.seats[at];
        if seat.core.has_parked_work() {
            around.coverage.parked_turns += 1;
        }
        around.coverage.sliced_turns += u64::from(seat.core.has_due());
        around.coverage.resting_turns += u64::from(seat.core.rests_until().is_some());
        Ok(busy)
    }

    /// Tells the core what the journal has on disk. If a lane has failed, the node stops.
    fn take_commits(&mut self, at: usize, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        let seat = &mut self.seats[at];
        seat.released_bytes = 0;
        let full = seat.ports.iter().any(|lane| lane.port.status().is_short());
        seat.core.set_journal_full(full);
        for (number, lane) in seat.ports.iter_mut().enumerate() {
            let status = lane.port.status();
            let far = status.committed() - lane.position >= around.plan.journal.news_bytes;
            let news = lane.port.committed() != lane.ticket || far || status.is_failed();
            if !news || !around.happens() {
                continue;
            }
            if status.is_failed() {
                seat.core.on_journal_failed();
                (self.failed, self.stopping) = (true, true);
                continue;
            }
            lane.position = status.committed();
            lane.ticket = lane.port.committed();
            while lane.posted.front().is_some_and(|(t, _)| *t <= lane.ticket) {
                seat.released_bytes += lane.posted.pop_front().map_or(0, |(_, bytes)| bytes);
            }
            around.trace.mix(22, lane.ticket, &[]);
            let ticket = lane.ticket;
            around
                .trace
                .line(|| format!("core {at}: lane {number} has ticket {ticket} on disk"));
            seat.core
                .on_committed(number as u32, lane.ticket, lane.position);
            busy = true;
        }
        busy
    }

    fn has_reached(&self, step: usize) -> bool {
        self.reached[step] == self.seats.len()
    }

    /// Lets the connections go once the last event for them has come.
    fn close_when_answered(&mut self, at: usize) {
        let answered = self.has_reached(ANSWERED);
        let seat = &mut self.seats[at];
        let answered = answered && seat.has_no_mail();
        if let Some(stop) = seat.stop.as_mut().filter(|stop| !stop.closing)
            && answered
        {
            stop.closing = true;
            seat.core.shutdown();
        }
    }

    /// Takes the steps of stopping at the end of a turn.
    fn take_steps(&mut self, at: usize, around: &mut Surroundings<'_>) {
        let quiet = self.has_reached(QUIET);
        let seat = &mut self.seats[at];
        let empty = seat.has_no_mail();
        let Some(stop) = &mut seat.stop else { return };
        let posted = !seat.left && !seat.core.has_mail() && !seat.core.awaits_journal();
        let reached = match stop.reached {
            QUIET => posted,
            ANSWERED => quiet && empty && posted,
            CLOSED => stop.closing && seat.core.connections() == 0,
            _ => false,
        };
        if reached && !seat.ended {
            self.reached[stop.reached] += 1;
            stop.reached += 1;
        }
        let late = around.now >= stop.give_up;
        if !seat.ended && (late || self.reached[CLOSED] == self.seats.len()) {
            self.gave_up |= self.reached[CLOSED] < self.seats.len();
            let seat = &mut self.seats[at];
            seat.ended = true;
            around.trace.line(|| format!("core {at}: ends"));
        }
    }

    /// The process is gone: only its disks are left.
    pub(crate) fn crash(self, power: bool, around: &mut Surroundings<'_>) -> Vec<Disk> {
        let crash = |lane: Lane| lane.crash(power, around);
        self.lanes.into_iter().map(crash).collect()
    }

    fn post_mail(&mut self, from: usize, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        for to in 0..self.seats.len() {
            if to == from {
                continue;
            }
            // Deliveries first, as the ring's driver does; either box may be full for itself.
            if self.seats[to].deliveries[from].len() >= around.plan.mailbox {
                around.coverage.mailbox_full += 1;
                self.seats[from].left = true;
            } else if let Some(parcel) = self.seats[from].core.take_deliveries(to) {
                self.seats[to].deliveries[from].push_back(parcel);
                around.trace.mix(1, (from * 16 + to) as u64, &[]);
                busy = true;
            }
            if self.seats[to].requests[from].len() >= around.plan.mailbox {
                around.coverage.mailbox_full += 1;
                self.seats[from].left = true;
            } else if let Some(parcel) = self.seats[from].core.take_requests(to) {
                self.seats[to].requests[from].push_back(parcel);
                around.trace.mix(2, (from * 16 + to) as u64, &[]);
                busy = true;
            }
        }
        busy
    }

    /// Bytes of the largest batch that any core has given to the journal.
    pub(crate) fn largest_batch(&self) -> usize {
        let batches = self.seats.iter().map(|seat| seat.largest_batch);
        batches.max().unwrap_or(0)
    }

    /// Whether records or states are on their way to the disk.
    pub(crate) fn is_writing(&self) -> bool {
        self.lanes.iter().any(Lane::is_busy)
            || self.seats.iter().any(|seat| seat.core.awaits_journal())
    }

    /// Whether mail waits anywhere.
    pub(crate) fn has_mail(&self) -> bool {
        self.seats.iter().any(|seat| {
            seat.requests.iter().any(|m| !m.is_empty())
                || seat.deliveries.iter().any(|m| !m.is_empty())
        })
    }
}

impl Seat {
    fn has_no_mail(&self) -> bool {
        self.requests.iter().all(VecDeque::is_empty)
            && self.deliveries.iter().all(VecDeque::is_empty)
    }

    /// Whether its core was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Gives the journal's lanes this turn's records, as far as they have room.
    fn post_journal(&mut self, at: usize, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        for (number, lane) in self.ports.iter_mut().enumerate() {
            if !self.core.has_journal(number as u32) {
                continue;
            }
            if !lane.port.has_room() {
                around.coverage.port_full += 1;
                self.left = true;
                continue;
            }
            let empty = lane.port.buffer();
            let Some(batch) = self.core.take_journal(number as u32, empty) else {
                continue;
            };
            around.trace.mix(23, (at * 16 + number) as u64, &batch);
            let bytes = batch.len();
            self.largest_batch = self.largest_batch.max(bytes);
            if let Ok(ticket) = lane.port.send(batch) {
                lane.posted.push_back((ticket, bytes));
                around.trace.line(|| {
                    format!("core {at}: gives lane {number} {bytes} bytes as ticket {ticket}")
                });
            }
            busy = true;
        }
        busy
    }

    fn accept(&mut self, at: usize, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        // Nobody is accepted any more once all connections are closed for good.
        let closed = self.stop.as_ref().is_some_and(|stop| stop.reached > CLOSED);
        while !closed && !self.backlog.is_empty() && around.happens() {
            let Some(socket) = self.backlog.pop_front() else {
                break;
            };
            let free: Vec<usize> = (0..self.slots.len())
                .filter(|s| self.slots[*s].is_none())
                .collect();
            let slot = if free.is_empty() {
                self.slots.push(None);
                self.slots.len() - 1
            } else {
                around.dice.pick(&free)
            };
            self.slots[slot] = Some(socket);
            let entropy = u128::from(around.dice.word()) << 64 | u128::from(around.dice.word());
            self.core.on_accepted(slot as u32, entropy);
            let it = &mut around.sockets[socket];
            it.slot = slot as u32;
            it.receiving = true;
            (it.accepted_at, it.heard_at) = (around.now, around.now);
            it.over_limit = self.core.connections() > around.plan.limits.max_connections;
            around.coverage.accepted += 1;
            around.trace.mix(3, slot as u64, &[]);
            let client = it.client;
            around.trace.line(|| {
                format!("core {at}: accepted client {client} as socket {socket} in slot {slot}")
            });
            busy = true;
        }
        busy
    }

    /// Hands the core what has come to pass on one socket.
    fn complete(&mut self, slot: u32, index: usize, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        let sent_first = around.dice.chance(50);
        if sent_first {
            busy |= self.complete_send(slot, index, around);
        }
        busy |= self.complete_receive(slot, index, around);
        if !sent_first {
            busy |= self.complete_send(slot, index, around);
        }
        let socket = &around.sockets[index];
        if socket.closing && !socket.in_flight() && around.happens() {
            around.sockets[index].closed = true;
            self.slots[slot as usize] = None;
            self.core.on_closed(slot);
            around.trace.mix(4, u64::from(slot), &[]);
            around.trace.line(|| format!("socket {index}: closed"));
            busy = true;
        }
        busy
    }

    fn complete_send(&mut self, slot: u32, index: usize, around: &mut Surroundings<'_>) -> bool {
        let socket = &around.sockets[index];
        if socket.flight.as_ref().is_none_or(|f| f.result.is_none()) || !around.happens() {
            return false;
        }
        let socket = &mut around.sockets[index];
        if let Some(flight) = socket.flight.take()
            && let Some(result) = flight.result
        {
            let sent = result.as_ref().copied().unwrap_or(usize::MAX) as u64;
            around.trace.mix(5, sent, &[]);
            around
                .trace
                .line(|| format!("socket {index}: sent {result:?}"));
            self.core.on_sent(slot, flight.payload, result);
        }
        true
    }

    fn complete_receive(&mut self, slot: u32, index: usize, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        for _ in 0..around.dice.between(1, 3) {
            let idle = !around.sockets[index].receiving || around.sockets[index].closing;
            if idle || !around.happens() {
                break;
            }
            let socket = &around.sockets[index];
            if around.dice.below(10_000) < around.plan.failures {
                around.sockets[index].failed = true;
                self.end_receive(
                    slot,
                    index,
                    ReceiveEnd::Failed(io::ErrorKind::ConnectionReset.into()),
                    around,
                );
                return true;
            }
            // What came before the request to stop may be reported before its end, or stay.
            if socket.stopping && (socket.up.is_empty() || around.dice.chance(50)) {
                self.end_receive(slot, index, ReceiveEnd::Stopped, around);
                return true;
            }
            if socket.up_end == Some(End::Reset) && (socket.up.is_empty() || around.dice.chance(50))
            {
                self.end_receive(
                    slot,
                    index,
                    ReceiveEnd::Failed(io::ErrorKind::ConnectionReset.into()),
                    around,
                );
                return true;
            }
            let waiting = socket.up.len();
            if waiting > 0 {
                let count = if around.dice.chance(50) {
                    waiting
                } else {
                    around.dice.between(1, waiting)
                };
                let socket = &mut around.sockets[index];
                let bytes: Vec<u8> = socket.up.drain(..count).collect();
                socket.heard_at = around.now;
                around.trace.mix(6, u64::from(slot), &bytes);
                around
                    .trace
                    .line(|| format!("socket {index}: received {count} bytes"));
                self.core.on_received(slot, &bytes);
                busy = true;
            } else if socket.up_end == Some(End::Eof) {
                self.end_receive(slot, index, ReceiveEnd::EndOfStream, around);
                return true;
            } else {
                break;
            }
        }
        busy
    }

    fn end_receive(
        &mut self,
        slot: u32,
        index: usize,
        end: ReceiveEnd,
        around: &mut Surroundings<'_>,
    ) {
        let socket = &mut around.sockets[index];
        (socket.receiving, socket.stopping) = (false, false);
        around.trace.mix(7, u64::from(slot), &[]);
        around
            .trace
            .line(|| format!("socket {index}: receive ended: {end:?}"));
        self.core.on_receive_ended(slot, end);
    }

    fn take_mail(&mut self, at: usize, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        let cores = self.requests.len();
        let first = around.dice.below(cores);
        for from in (0..cores).map(|i| (first + i) % cores) {
            while !self.deliveries[from].is_empty() && around.happens() {
                if let Some(parcel) = self.deliveries[from].pop_front() {
                    around.trace.mix(8, (from * 16 + at) as u64, &[]);
                    self.core.on_deliveries(from, parcel);
                    busy = true;
                }
            }
        }
        if !self.core.takes_requests() {
            around.coverage.requests_refused += 1;
            return busy;
        }
        for from in (0..cores).map(|i| (first + i) % cores) {
            while !self.requests[from].is_empty() && self.core.takes_requests() && around.happens()
            {
                if let Some(parcel) = self.requests[from].pop_front() {
                    around.trace.mix(9, (from * 16 + at) as u64, &[]);
                    self.core.on_requests(from, parcel);
                    busy = true;
                }
            }
        }
        busy
    }

    /// Does what the core wants done, and holds it to what it may want.
    fn act(&mut self, at: usize, around: &mut Surroundings<'_>) -> Result<bool, String> {
        let mut busy = false;
        while let Some(action) = self.core.poll_action() {
            busy = true;
            let slot = match &action {
                Action::Send { slot, .. } => *slot,
                Action::StopReceive(slot) | Action::StartReceive(slot) => *slot,
                Action::ShutdownWrite(slot) | Action::Close(slot) => *slot,
            };
            let index = self.slots.get(slot as usize).copied().flatten();
            let Some(index) = index else {
                return Err(format!(
                    "core {at} acts on slot {slot}, which is free: {action:?}"
                ));
            };
            let socket = &mut around.sockets[index];
            ensure!(
                !socket.closing,
                "core {at} acts on slot {slot} behind its Close: {action:?}"
            );
            match action {
                Action::Send { payload, .. } => {
                    ensure!(
                        !socket.in_flight(),
                        "two sends of slot {slot} are under way"
                    );
                    ensure!(!socket.down_end, "slot {slot} sends behind ShutdownWrite");
                    ensure!(payload.byte_len() > 0, "slot {slot} sends nothing");
                    around.trace.mix(10, u64::from(slot), &[]);
                    around
                        .trace
                        .line(|| format!("socket {index}: send {} bytes", payload.byte_len()));
                    socket.send(payload);
                }
                Action::StopReceive(_) => {
                    ensure!(socket.receiving, "slot {slot} stops what it does not do");
                    socket.stopping = true;
                    around.coverage.receive_stopped += 1;
                    around
                        .trace
                        .line(|| format!("socket {index}: stop receive"));
                }
                Action::StartReceive(_) => {
                    ensure!(!socket.receiving, "slot {slot} receives already");
                    socket.receiving = true;
                    around.coverage.receive_started += 1;
                    around
                        .trace
                        .line(|| format!("socket {index}: start receive"));
                }
                Action::ShutdownWrite(_) => {
                    ensure!(
                        !socket.in_flight() && !socket.down_end,
                        "slot {slot} shuts too early or twice"
                    );
                    socket.down_end = true;
                    around
                        .trace
                        .line(|| format!("socket {index}: shutdown write"));
                }
                Action::Close(_) => {
                    socket.closing = true;
                    socket.receiving = false;
                    if !socket.in_flight() {
                        socket.down_end = true;
                    }
                    around.trace.line(|| format!("socket {index}: close"));
                }
            }
        }
        Ok(busy)
    }
}
