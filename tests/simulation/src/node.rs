//! The driver: runs the cores as the ring's driver does, in the order that they document, with
//! completions and mail delayed at will.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tickring::core::{
    Action, Core, CoreConfig, Deliveries, JournalConfig, Now, ParcelPool, Plant, ReceiveEnd,
    Requests,
};

use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::ensure;
use crate::model::SharedModel;
use crate::plan::Plan;
use crate::socket::{End, Socket};
use crate::trace::Trace;

const START_WALL_NS: u64 = 1_700_000_000_000_000_000;

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
    pub(crate) stopping: bool,
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
    fn happens(&mut self) -> bool {
        self.prompt || self.dice.chance(self.plan.haste)
    }
}

/// All cores of the node.
pub(crate) struct Node {
    pub(crate) seats: Vec<Seat>,
}

pub(crate) fn now(mono_ns: u64) -> Now {
    Now {
        wall_ns: START_WALL_NS + mono_ns,
        mono_ns,
    }
}

impl Node {
    pub(crate) fn new(plan: &Plan, model: &SharedModel, plant: Option<Plant>) -> Self {
        let registry = Arc::new(model.registry());
        let parcels = Arc::new(ParcelPool::default());
        let seats = (0..plan.cores)
            .map(|core| Seat {
                core: Core::new(
                    CoreConfig {
                        core,
                        cores: plan.cores,
                        epoch: plan.epoch,
                        limits: plan.limits,
                        registry: Arc::clone(&registry),
                        parcels: Arc::clone(&parcels),
                        journal: JournalConfig::default(),
                        plant,
                    },
                    now(0),
                ),
                slots: Vec::new(),
                backlog: VecDeque::new(),
                requests: (0..plan.cores).map(|_| VecDeque::new()).collect(),
                deliveries: (0..plan.cores).map(|_| VecDeque::new()).collect(),
                stopping: false,
            })
            .collect();
        Self { seats }
    }

    /// One turn of core `at`; `stop` stops it. Says whether anything happened.
    pub(crate) fn turn(
        &mut self,
        at: usize,
        stop: bool,
        around: &mut Surroundings<'_>,
    ) -> Result<bool, String> {
        around.coverage.turns += 1;
        let seat = &mut self.seats[at];
        let mut busy = seat.core.has_parked_work();
        seat.core.begin_turn(now(around.now));
        if stop && !seat.stopping {
            around.trace.line(|| format!("core {at}: shutdown"));
            seat.stopping = true;
            seat.core.shutdown();
        }
        busy |= seat.accept(at, around);
        let first = around.dice.below(seat.slots.len().max(1));
        for place in 0..seat.slots.len() {
            let slot = (first + place) % seat.slots.len();
            if let Some(socket) = seat.slots[slot] {
                busy |= seat.complete(slot as u32, socket, around);
            }
        }
        busy |= seat.take_mail(at, around);
        seat.core.end_turn();
        busy |= seat.act(at, around)?;
        busy |= self.post_mail(at, around);
        let seat = &self.seats[at];
        if seat.core.has_parked_work() {
            around.coverage.parked_turns += 1;
        }
        Ok(busy)
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
            } else if let Some(parcel) = self.seats[from].core.take_deliveries(to) {
                self.seats[to].deliveries[from].push_back(parcel);
                around.trace.mix(1, (from * 16 + to) as u64, &[]);
                busy = true;
            }
            if self.seats[to].requests[from].len() >= around.plan.mailbox {
                around.coverage.mailbox_full += 1;
            } else if let Some(parcel) = self.seats[from].core.take_requests(to) {
                self.seats[to].requests[from].push_back(parcel);
                around.trace.mix(2, (from * 16 + to) as u64, &[]);
                busy = true;
            }
        }
        busy
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
    fn accept(&mut self, at: usize, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        while !self.backlog.is_empty() && around.happens() {
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
            while !self.requests[from].is_empty() && around.happens() {
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
