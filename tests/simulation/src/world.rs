//! One world: it lives, comes to rest, is held complete, and stops, or ends and starts again.

mod restart;

use tickring::core::Plant;

use crate::client::{Around, Client, Reading};
use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::ensure;
use crate::lanes::{self, Lane};
use crate::memory::Ending;
use crate::model::SharedModel;
use crate::node::{Node, Surroundings};
use crate::plan::Plan;
use crate::socket::Socket;
use crate::trace::Trace;

/// Rounds within which a world without new input must come to rest.
const MOST_ROUNDS: usize = 20_000;
/// Rounds at rest after which a lane that has room for what it needs is no longer full.
const MOST_FULL_ROUNDS: usize = 1_000;
/// Time beyond `overload_patience` by which whoever waits for a full lane has an answer.
const MARGIN_NS: u64 = 10_000_000;
/// What `ANSWER_ROOM` of the core's intake is: answers beyond the budget before input waits.
const ANSWER_ROOM: usize = 16 << 10;
/// More than the longest answer, snapshot, report or farewell of these worlds.
const LONGEST_ANSWER: usize = 1 << 10;
/// Batches of past turns that are looked through later: a few for each parcel that may be about.
const BATCHES_KEPT: usize = 64;
/// A batch that holds more than the first few bytes of a turn.
const LARGE_BATCH: usize = 64 << 10;
/// Free batches that a core keeps: 64 small ones and 64 large ones.
const SPARE_BATCHES: usize = 64 * ((4 << 10) + (64 << 10));

/// Everything of one seed.
pub(crate) struct World {
    plan: Plan,
    dice: Dice,
    plant: Option<Plant>,
    model: SharedModel,
    node: Node,
    sockets: Vec<Socket>,
    clients: Vec<Client>,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    now: u64,
    /// For each core, whether it is stopping.
    stopping: Vec<bool>,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>, verbose: bool) -> Result<Self, String> {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let model = SharedModel::default();
        let clients = (0..plan.clients)
            .map(|i| Client::new(i, &plan, &mut dice))
            .collect();
        let mut trace = Trace {
            verbose,
            ..Trace::default()
        };
        trace.line(|| format!("{plan:?}"));
        let epoch = restart::epoch_at(0);
        {
            let mut it = model.lock();
            it.epoch = epoch;
            it.journal = plan.journal.lanes > 0;
            it.window_ns = plan.replies().age_ns;
        }
        let (node, _) = Node::new(&plan, lanes::fresh(&plan), epoch, 0, &model, plant)?;
        Ok(Self {
            node,
            stopping: vec![false; plan.cores],
            plan,
            dice,
            plant,
            model,
            sockets: Vec::new(),
            clients,
            trace,
            coverage: Coverage::default(),
            now: 0,
        })
    }

    /// The whole life of the world: one run of the node after another.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let steps = self.plan.steps.div_ceil(self.plan.lives);
        for life in 1..=self.plan.lives {
            let last = life == self.plan.lives;
            if last && life > 1 {
                // So that a lane that has failed is seen to come back.
                self.plan.journal.failures = 0;
            }
            self.live(steps, last)?;
            let ending = self.end(last)?;
            if !last {
                self.start_again(ending)?;
            } else if self.node.failed {
                self.plan.journal.failures = 0;
                self.start_again(ending)?;
                self.live(steps / 4, true)?;
                self.end(true)?;
            }
        }
        Ok(())
    }

    /// A number of steps of a run, or fewer when the node ends by itself or is ended.
    fn live(&mut self, steps: usize, last: bool) -> Result<(), String> {
        let early = (last && self.plan.early_shutdown).then(|| self.dice.between(1, steps));
        for step in 0..steps {
            self.pass_time();
            self.act()?;
            self.move_bytes(false)?;
            self.turn_lanes(false)?;
            let core = self.dice.below(self.plan.cores);
            self.turn(core, false)?;
            self.node.stopping |= early == Some(step);
            if self.node.failed || self.has_ended() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The end of a run, after the last step of its life.
    fn end(&mut self, last: bool) -> Result<Ending, String> {
        if self.node.failed {
            self.coverage.journal_failures += 1;
            self.stop()?;
            return Ok(Ending::Killed);
        }
        if self.node.stopping {
            self.coverage.early_shutdowns += 1;
        } else if last || self.dice.chance(20) {
            self.rest()?;
        }
        if last || self.dice.chance(30) {
            if !last {
                self.coverage.restarts += 1;
            }
            self.hold_in_order()?;
            return self.stop();
        }
        self.hold_in_order()?;
        if self.dice.chance(70) {
            self.coverage.power_losses += 1;
            return Ok(Ending::PowerLoss);
        }
        self.coverage.kills += 1;
        Ok(Ending::Killed)
    }

    /// Comes to rest, with and without its stalled clients, and holds all others complete.
    fn rest(&mut self) -> Result<(), String> {
        self.come_to_rest("with its stalled clients left alone")?;
        let stalled = self
            .clients
            .iter()
            .filter_map(|c| c.link.as_ref())
            .any(|l| l.reading == Reading::Stalled);
        self.coverage.stalled_worlds += u64::from(stalled);
        self.hold_complete()?;
        for link in self.clients.iter_mut().filter_map(|c| c.link.as_mut()) {
            link.reading = Reading::All;
        }
        self.come_to_rest("with all clients reading")?;
        self.hold_complete()
    }

    fn has_ended(&self) -> bool {
        self.node.seats.iter().all(|seat| seat.ended)
    }

    /// The surroundings of the node.
    fn surroundings(&mut self, prompt: bool) -> (&mut Node, Surroundings<'_>) {
        let around = Surroundings {
            plan: &self.plan,
            dice: &mut self.dice,
            sockets: &mut self.sockets,
            trace: &mut self.trace,
            coverage: &mut self.coverage,
            now: self.now,
            prompt,
        };
        (&mut self.node, around)
    }

    /// The journal's threads make a turn each, now and then; says whether anything happened.
    fn turn_lanes(&mut self, prompt: bool) -> Result<bool, String> {
        let (node, mut around) = self.surroundings(prompt);
        let mut busy = false;
        for lane in &mut node.lanes {
            if prompt || around.dice.chance(60) {
                busy |= lane.turn(&mut around);
            }
        }
        let broken = self.model.lock().broken.take();
        broken.map_or(Ok(busy), Err)
    }

    fn pass_time(&mut self) {
        let ns = match self.dice.below(1_000) {
            0..4 => self.dice.between(1, 40) * 1_000_000,
            4..40 => self.dice.between(100, 2_000) * 1_000,
            _ => self.dice.between(1, 60_000),
        };
        self.now += ns as u64;
    }

    /// Runs `with` for each client in `clients`, with its surroundings.
    fn with_client<T>(
        &mut self,
        index: usize,
        with: impl FnOnce(&mut Client, &mut Around<'_>) -> T,
    ) -> T {
        let mut model = self.model.lock();
        let mut around = Around {
            plan: &self.plan,
            dice: &mut self.dice,
            sockets: &mut self.sockets,
            trace: &mut self.trace,
            coverage: &mut self.coverage,
            model: &mut model,
            now: self.now,
            stopping: &self.stopping,
            failed: self.node.failed,
        };
        with(&mut self.clients[index], &mut around)
    }

    /// Some clients do something of their own accord.
    fn act(&mut self) -> Result<(), String> {
        for _ in 0..self.dice.between(1, 3) {
            let index = self.dice.below(self.clients.len());
            if let Some(core) = self.with_client(index, Client::act) {
                self.connect(index, core);
            }
        }
        for index in 0..self.clients.len() {
            self.with_client(index, Client::keep_alive);
        }
        Ok(())
    }

    fn connect(&mut self, client: usize, core: usize) {
        let socket = self.sockets.len();
        self.sockets
            .push(Socket::new(core, client, self.plan.socket_bytes));
        self.node.seats[core].backlog.push_back(socket);
        self.trace
            .line(|| format!("client {client}: connects to core {core} as socket {socket}"));
        self.with_client(client, |it, around| it.connected(socket, around));
    }

    /// The network moves, and clients read; says whether anything moved.
    fn move_bytes(&mut self, prompt: bool) -> Result<bool, String> {
        let mut busy = false;
        let often = if prompt { 100 } else { 70 };
        for seat in &self.node.seats {
            for socket in seat.slots.iter().flatten() {
                if self.dice.chance(often) {
                    busy |= self.sockets[*socket].advance(
                        &mut self.dice,
                        self.plan.failures,
                        &mut self.coverage,
                    );
                }
            }
        }
        for index in 0..self.clients.len() {
            if self.dice.chance(often) {
                busy |= self.with_client(index, Client::flush);
            }
            if self.dice.chance(often) {
                busy |= self.with_client(index, Client::read)?;
            }
        }
        Ok(busy)
    }

    fn turn(&mut self, core: usize, prompt: bool) -> Result<bool, String> {
        let (node, mut around) = self.surroundings(prompt);
        let busy = node.turn(core, &mut around)?;
        self.stopping[core] = node.seats[core].is_stopping();
        {
            let mut model = self.model.lock();
            let released = self.node.seats[core].released_bytes;
            model.largest_release = model.largest_release.max(released);
            if let Some(broken) = model.broken.take() {
                return Err(broken);
            }
        }
        self.hold_bounds(core)?;
        Ok(busy)
    }

    /// The bounds of one core, after its turn (rules 6 and 7).
    fn hold_bounds(&mut self, at: usize) -> Result<(), String> {
        let seat = &self.node.seats[at];
        let limits = &self.plan.limits;
        let stats = seat.core.stats();
        ensure!(
            stats.history_bytes as usize <= limits.history_bytes,
            "core {at} keeps {} bytes of history",
            stats.history_bytes
        );
        ensure!(
            stats.topics as usize <= limits.max_topics,
            "core {at} has {} topics",
            stats.topics
        );
        // Each send under way keeps the batches of one turn, or bytes of its own; other cores keep
        // those that are in the mail. Nothing may pile up beyond a few turns' worth of those.
        let largest = self.model.lock().most_of_a_turn();
        let turn_bytes = largest * self.plan.cores;
        let most = SPARE_BATCHES + (BATCHES_KEPT + seat.slots.len()) * (LARGE_BATCH + turn_bytes);
        let kept = seat.core.batch_bytes();
        ensure!(
            kept <= most,
            "core {at} keeps {kept} bytes of batches, and {most} are the most"
        );
        let open = seat
            .slots
            .iter()
            .flatten()
            .filter(|s| !self.sockets[**s].over_limit)
            .count();
        ensure!(
            open <= limits.max_connections,
            "core {at} serves {open} connections"
        );
        // What one turn can bring: the events of its own topics, and those of each parcel that
        // every other core has posted or still keeps.
        let turn = largest * (1 + (self.plan.cores - 1) * (self.plan.mailbox + 1));
        for (slot, socket) in seat.slots.iter().enumerate() {
            let Some(socket) = socket else { continue };
            let Some(held) = seat.core.held(slot as u32) else {
                continue;
            };
            let socket = &self.sockets[*socket];
            self.coverage.stuck_sends += u64::from(socket.in_flight());
            self.coverage.outbox_over_budget += u64::from(held.outbox_bytes > limits.outbox_bytes);
            // Live events: up to the budget, or one turn's behind an empty outbox, or what waits for a
            // round. Events that a
            // PING or UNSUBSCRIBE brings forward: one turn's. Pages: of the open reads. Answers: the room for them and the
            // one that breaks it. Catching up: half of the budget, as much again under way, and an
            // event or a state.
            let most = limits.outbox_bytes.max(turn)
                + turn
                + self.plan.pacing.queued_bytes
                + ANSWER_ROOM
                + 2 * LONGEST_ANSWER
                + limits.outbox_bytes
                + self.plan.body
                + limits.max_connection_reads * (limits.outbox_bytes / 4).max(LONGEST_ANSWER);
            // Answers that other cores had given, or that waited for the disk, come in any case.
            let link = self.clients[socket.client].link.as_ref();
            let remote = || match link {
                Some(link) if self.plan.cores > 1 || self.plan.journal.lanes > 0 => {
                    link.shadow.answered(&self.model.lock()) * LONGEST_ANSWER
                }
                _ => 0,
            };
            ensure!(
                held.outbox_bytes <= most || link.is_none() || held.outbox_bytes <= most + remote(),
                "core {at} slot {slot}: the outbox holds {} bytes, and {most} and {} are the most",
                held.outbox_bytes,
                remote()
            );
            // Input waits within its bound; reading stops behind the chunk that breaks it, and what
            // was under way then may still come. A frame that is not whole is kept whatever it is.
            let most = limits.inbox_bytes.max(limits.max_frame_bytes) + 8 * self.plan.socket_bytes;
            ensure!(
                held.inbox_bytes <= most,
                "core {at} slot {slot}: the inbox holds {} bytes, and {most} is the most",
                held.inbox_bytes
            );
        }
        Ok(())
    }

    /// Goes on without new input until nothing moves any more.
    fn come_to_rest(&mut self, how: &str) -> Result<(), String> {
        // Who reads by the byte would need forever, and shows nothing new.
        for link in self.clients.iter_mut().filter_map(|c| c.link.as_mut()) {
            if matches!(link.reading, Reading::Slow(_)) {
                link.reading = Reading::All;
            }
        }
        let (mut still, mut full) = (0, 0);
        let (mut full_since, mut full_rounds) = (0, 0);
        let idle = self.plan.limits.idle_timeout.as_nanos() as u64;
        for _ in 0..MOST_ROUNDS {
            self.now += 1_000;
            let mut busy = false;
            if self.node.lanes.iter().any(Lane::is_full) {
                // It goes on when records are old enough to go, or the disk has room again, which is tried
                // ten times a second.
                let wait = (self.plan.journal.retention_ns / 64).max(1_000_000);
                self.now += if idle > 0 { wait.min(idle / 8) } else { wait };
                busy = true;
                full += 1;
                full_rounds += 1;
                if full_rounds == 1 {
                    full_since = self.now;
                }
                let patience = self.plan.limits.overload_patience.as_nanos() as u64;
                if full_rounds >= 50 && self.now > full_since + patience + MARGIN_NS {
                    self.hold_answered()?;
                }
                if full > MOST_FULL_ROUNDS && !self.has_margin() {
                    self.coverage.stuck_journals += 1;
                    self.node.gave_up = true;
                    return Ok(());
                }
            }
            if !self.node.lanes.iter().any(Lane::is_full) {
                full_rounds = 0;
            }
            for index in 0..self.clients.len() {
                self.with_client(index, |client, around| {
                    client.keep_alive(around);
                    if client.link.as_ref().is_some_and(|l| l.sight.is_over()) {
                        client.leave(around);
                    }
                });
            }
            busy |= self.move_bytes(true)?;
            busy |= self.turn_lanes(true)?;
            let first = self.dice.below(self.plan.cores);
            for core in 0..self.plan.cores {
                busy |= self.turn((first + core) % self.plan.cores, true)?;
            }
            busy |= self.node.is_writing();
            if self.node.failed {
                return Ok(());
            }
            still = if busy || self.node.has_mail() {
                0
            } else {
                still + 1
            };
            if still == 3 {
                return Ok(());
            }
        }
        Err(format!(
            "{how}, the world does not come to rest within {MOST_ROUNDS} rounds"
        ))
    }

    /// Whether the lanes' bound has so much room that states reach the disk before it is reached:
    /// what is ahead of them in the mailboxes fits, and the segments that the states begin and end
    /// in.
    fn has_margin(&self) -> bool {
        let journal = &self.plan.journal;
        let batches = self.plan.cores * (journal.port + 2) * self.node.largest_batch();
        let ahead = batches as u64 + journal.limits.group_bytes as u64;
        journal.limits.journal_bytes / 4 >= ahead + 2 * journal.limits.segment_bytes
    }

    /// Whoever reads has been told what became of each command, although a lane has no room: it was
    /// carried out before, or refused. Only where segments are so small that a turn of each core
    /// does not fit one, what was taken waits; and what is on its way is on its way. A connection
    /// that the core has closed, as that of a client that never says anything, is owed nothing.
    fn hold_answered(&mut self) -> Result<(), String> {
        let segment = self.plan.journal.limits.segment_bytes as usize;
        let waits = self.node.lanes.iter().any(|lane| lane.waits);
        if self.node.failed || waits || 8 * self.plan.cores * self.node.largest_batch() > segment {
            return Ok(());
        }
        self.coverage.answered_while_full += 1;
        for client in &self.clients {
            if let Some(link) = client.link.as_ref().filter(|l| l.reading == Reading::All)
                && !self.sockets[link.socket].failed
                && !link.sight.is_over()
                && self.sockets[link.socket].is_quiet()
                && self.has_sent_all(link.socket)
                && !self.sockets[link.socket].closing
                && link.out.is_empty()
                && let Some(waits) = link.shadow.unanswered()
            {
                return Err(format!(
                    "a lane is full, and client {} (socket {}) has no answer to request {waits}",
                    client.index, link.socket
                ));
            }
        }
        Ok(())
    }

    /// Whether the core has given the socket all that it has for it.
    fn has_sent_all(&self, socket: usize) -> bool {
        let socket = &self.sockets[socket];
        let seat = self.node.seats.get(socket.core);
        let held = seat.and_then(|seat| seat.core.held(socket.slot));
        held.is_none_or(|held| held.outbox_bytes == 0)
    }

    /// Everybody who reads has everything.
    fn hold_complete(&mut self) -> Result<(), String> {
        if self.node.failed || self.node.gave_up {
            return Ok(()); // what waits for a failed disk never comes
        }
        let model = self.model.lock();
        for client in &self.clients {
            if let Some(link) = client.link.as_ref().filter(|l| l.reading == Reading::All)
                && !self.sockets[link.socket].failed
            {
                let shown = |()| {
                    let mut topics = link.sight.subscriptions.iter().map(|sub| sub.topic);
                    topics.try_for_each(|topic| model.hold_shown(topic))
                };
                link.sight
                    .complete(&link.shadow, &model)
                    .and_then(shown)
                    .map_err(|broken| {
                        format!(
                            "at rest, client {} (socket {}): {broken}",
                            client.index, link.socket
                        )
                    })?;
            }
        }
        Ok(())
    }

    /// Each connection's commands to a topic were applied once, and in the order in which they
    /// were written.
    fn hold_in_order(&mut self) -> Result<(), String> {
        let model = self.model.lock();
        let mut written = std::collections::BTreeMap::new();
        for client in &self.clients {
            let open = client.link.iter().map(|l| &l.shadow.commands);
            for (number, commands) in client.history.iter().chain(open).enumerate() {
                for (place, command) in commands.iter().enumerate() {
                    written.insert(*command, ((client.index, number), place));
                }
            }
        }
        let mut newest = std::collections::BTreeMap::new();
        for (topic, command) in &model.order {
            let Some((link, place)) = written.get(command) else {
                let name = &model.topics[*topic].name;
                ensure!(
                    name.starts_with("node/") || name.starts_with("candle/"),
                    "{} has a command that nobody sent",
                    model.topics[*topic].name
                );
                continue;
            };
            if model.repeated.contains_key(command) {
                continue; // it was written on several connections
            }
            let before = newest.insert((*topic, *link), *place);
            ensure!(
                before.is_none_or(|before| before < *place),
                "{}: command {place} of connection {link:?} was applied behind {before:?}",
                model.topics[*topic].name
            );
        }
        Ok(())
    }

    /// The node stops: every connection closes within the timeouts, and the journal is written.
    fn stop(&mut self) -> Result<Ending, String> {
        let limits = &self.plan.limits;
        let longest = limits.drain_timeout + limits.linger_timeout;
        let until = self.now + 2 * longest.as_nanos() as u64 + 100_000_000;
        self.node.stopping = true;
        while !self.has_ended() {
            ensure!(
                self.now < until,
                "connections are still open long after shutdown"
            );
            self.now += self.dice.between(1_000, 300_000) as u64;
            self.move_bytes(false)?;
            for index in 0..self.clients.len() {
                let over = self.clients[index]
                    .link
                    .as_ref()
                    .is_some_and(|l| l.sight.is_over());
                if over && self.dice.chance(20) {
                    self.with_client(index, Client::leave);
                }
            }
            self.turn_lanes(false)?;
            for core in 0..self.plan.cores {
                self.turn(core, false)?;
            }
        }
        // Whatever is full gives up in the end, and what a failed disk has is unknown.
        let full = self.node.lanes.iter().any(Lane::is_full);
        if self.node.failed || self.node.gave_up || full {
            return Ok(Ending::Killed);
        }
        self.close_lanes()?;
        let lost = |lane: &Lane| lane.is_failed() || lane.is_full();
        if self.node.lanes.iter().any(lost) {
            return Ok(Ending::Killed);
        }
        self.hold_nothing_kept()?;
        Ok(Ending::InOrder)
    }

    /// The journal's threads bring everything to disk, and end.
    fn close_lanes(&mut self) -> Result<(), String> {
        for lane in &self.node.lanes {
            lane.stop();
        }
        for _ in 0..MOST_ROUNDS {
            if self.node.lanes.iter().all(|lane| lane.closed) {
                return Ok(());
            }
            self.now += 1_000;
            self.turn_lanes(true)?;
        }
        Err("a lane does not come to its end".into())
    }

    /// Cores that have ended keep nothing.
    fn hold_nothing_kept(&mut self) -> Result<(), String> {
        // Batches are looked through a few a turn.
        for _ in 0..80 {
            self.now += 1_000;
            for core in 0..self.plan.cores {
                self.turn(core, true)?;
            }
        }
        for (at, seat) in self.node.seats.iter().enumerate() {
            let kept = seat.core.batch_bytes();
            ensure!(
                kept <= SPARE_BATCHES,
                "core {at} keeps {kept} bytes of batches that nobody sends"
            );
            let stats = seat.core.stats();
            ensure!(
                stats.outbox_bytes == 0 && stats.subscriptions == 0,
                "core {at} keeps what nobody holds: {stats:?}"
            );
        }
        Ok(())
    }
}
