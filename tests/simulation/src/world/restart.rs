//! The node is started again on what its disks hold.

use super::World;
use crate::lanes;
use crate::memory::Ending;
use crate::node::{self, Node};

/// The epoch of a run that starts at this time: its microseconds, as the node has it.
pub(super) fn epoch_at(mono_ns: u64) -> u64 {
    node::now(mono_ns).wall_ns / 1_000
}

impl World {
    /// The run is over; the next one recovers what is there, with any number of cores.
    pub(super) fn start_again(&mut self, ending: Ending) -> Result<(), String> {
        for index in 0..self.clients.len() {
            self.with_client(index, |client, around| client.lose_node(around))?;
        }
        let cores = self.dice.pick(&[1, 2, 3, 4, self.plan.cores]);
        self.coverage.cores_changed += u64::from(cores != self.plan.cores);
        let fresh = Node::new(
            &self.plan,
            lanes::fresh(&self.plan),
            1,
            self.now,
            &self.model,
            None,
        )?;
        let gone = std::mem::replace(&mut self.node, fresh.0);
        let (_, mut around) = self.surroundings(false);
        let disks = gone.crash(ending == Ending::PowerLoss, &mut around);
        self.sockets.clear();
        self.now += self.dice.between(10_000, 3_000_000) as u64;
        self.plan.cores = cores;
        self.stopping = vec![false; cores];
        self.trace.mix(30, cores as u64, &[]);
        let now = self.now;
        self.trace
            .line(|| format!("the node starts again at {now} ns, with {cores} cores; {ending:?}"));
        let twice = self.dice.chance(15);
        self.coverage.second_recoveries += u64::from(twice);
        let opening = lanes::open(disks, &self.plan, &self.model, self.plant, twice)?;
        self.coverage.torn_tails += opening.cuts as u64;
        self.coverage.from_states += opening.states as u64;
        let epoch = epoch_at(now).max(opening.heritage.next_epoch());
        let mut model = self.model.lock();
        if let Some(broken) = model.broken.take() {
            return Err(format!("recovery: {broken}"));
        }
        let wall_ns = node::now(now).wall_ns;
        let lost = model.restart(&opening.on_disk, ending, epoch, wall_ns)?;
        self.coverage.lost_unseen += lost.durable;
        self.coverage.lost_volatile += lost.volatile;
        drop(model);
        let (node, _) = Node::new(&self.plan, opening, epoch, now, &self.model, self.plant)?;
        self.node = node;
        Ok(())
    }
}
