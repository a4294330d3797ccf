//! One world: it lives, comes to rest, is held complete, and stops.

use tickring::core::Plant;

use crate::client::{Around, Client, Reading};
use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::ensure;
use crate::model::SharedModel;
use crate::node::{Node, Surroundings};
use crate::plan::Plan;
use crate::socket::Socket;
use crate::trace::Trace;

/// Rounds within which a world without new input must come to rest.
const MOST_ROUNDS: usize = 20_000;
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
    pub(crate) fn new(seed: u64, plant: Option<Plant>, verbose: bool) -> Self {
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
        Self {
            node: Node::new(&plan, &model, plant),
            stopping: vec![false; plan.cores],
            plan,
            dice,
            model,
            sockets: Vec::new(),
            clients,
            trace,
            coverage: Coverage::default(),
            now: 0,
        }
    }

    /// The whole life of the world.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let early = self
            .plan
            .early_shutdown
            .then(|| self.dice.between(1, self.plan.steps));
        for step in 0..self.plan.steps {
            self.pass_time();
            self.act()?;
            self.move_bytes(false)?;
            let core = self.dice.below(self.plan.cores);
            let stop = early.is_some_and(|at| step >= at) && self.dice.chance(50);
            self.turn(core, stop, false)?;
        }
        if early.is_some() {
            self.coverage.early_shutdowns += 1;
        } else {
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
            self.hold_complete()?;
        }
        self.hold_in_order()?;
        self.stop()
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

    fn turn(&mut self, core: usize, stop: bool, prompt: bool) -> Result<bool, String> {
        let mut around = Surroundings {
            plan: &self.plan,
            dice: &mut self.dice,
            sockets: &mut self.sockets,
            trace: &mut self.trace,
            coverage: &mut self.coverage,
            now: self.now,
            prompt,
        };
        let busy = self.node.turn(core, stop, &mut around)?;
        self.stopping[core] |= stop;
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
        let turn_bytes = self.model.lock().largest_turn * self.plan.cores;
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
        let turn =
            self.model.lock().largest_turn * (1 + (self.plan.cores - 1) * (self.plan.mailbox + 1));
        for (slot, socket) in seat.slots.iter().enumerate() {
            let Some(socket) = socket else { continue };
            let Some(held) = seat.core.held(slot as u32) else {
                continue;
            };
            let socket = &self.sockets[*socket];
            self.coverage.stuck_sends += u64::from(socket.in_flight());
            self.coverage.outbox_over_budget += u64::from(held.outbox_bytes > limits.outbox_bytes);
            // Live events: up to the budget, or one turn's behind an empty outbox. Events that a
            // PING or UNSUBSCRIBE brings forward: one turn's. Answers: the room for them and the
            // one that breaks it. Catching up: half of the budget, as much again under way, and an
            // event or a state.
            let most = limits.outbox_bytes.max(turn)
                + turn
                + ANSWER_ROOM
                + 2 * LONGEST_ANSWER
                + limits.outbox_bytes
                + self.plan.body;
            // Answers that other cores had given already come in any case.
            let link = self.clients[socket.client].link.as_ref();
            let remote = || match link {
                Some(link) if self.plan.cores > 1 => {
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
        let mut still = 0;
        for _ in 0..MOST_ROUNDS {
            self.now += 1_000;
            let mut busy = false;
            for index in 0..self.clients.len() {
                self.with_client(index, |client, around| {
                    client.keep_alive(around);
                    if client.link.as_ref().is_some_and(|l| l.sight.is_over()) {
                        client.leave(around);
                    }
                });
            }
            busy |= self.move_bytes(true)?;
            let first = self.dice.below(self.plan.cores);
            for core in 0..self.plan.cores {
                busy |= self.turn((first + core) % self.plan.cores, false, true)?;
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

    /// Everybody who reads has everything.
    fn hold_complete(&mut self) -> Result<(), String> {
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
            let before = newest.insert((*topic, *link), *place);
            ensure!(
                before.is_none_or(|before| before < *place),
                "{}: command {place} of connection {link:?} was applied behind {before:?}",
                model.topics[*topic].name
            );
        }
        Ok(())
    }

    /// The node stops: every connection closes within the timeouts.
    fn stop(&mut self) -> Result<(), String> {
        let limits = &self.plan.limits;
        let longest = limits.drain_timeout + limits.linger_timeout;
        let until = self.now + 2 * longest.as_nanos() as u64 + 50_000_000;
        while self
            .node
            .seats
            .iter()
            .any(|s| s.core.connections() > 0 || !s.stopping || !s.backlog.is_empty())
        {
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
            for core in 0..self.plan.cores {
                let stop = self.dice.chance(30);
                self.turn(core, stop, false)?;
            }
        }
        // Batches are looked through a few a turn.
        for _ in 0..80 {
            self.now += 1_000;
            for core in 0..self.plan.cores {
                self.turn(core, true, true)?;
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
