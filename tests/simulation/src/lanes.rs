//! The journal of a simulated node: the real lanes, driven as their threads do it, each on a disk
//! that is late, tears, fails and loses what was not synced; and the real recovery.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tickring::core::{Heritage, LaneState, Plant};
use tickring::journal::disk::{Disk, Fate};
use tickring::journal::record::Record;
use tickring::journal::{
    Desk, LaneStart, Operation, OperationKind, Port, Recovered, Wake, WriterConfig, recover,
};

use crate::memory::{LaneReading, OnDisk};
use crate::model::SharedModel;
use crate::node::Surroundings;
use crate::plan::Plan;

/// Names the simulated journals.
const IDENTITY: u128 = 0x7469_636b_7269_6e67_0000_0000_0000_0099;

/// A lane's thread and its disk.
pub(crate) struct Lane {
    desk: Desk,
    pub(crate) disk: Disk,
    flying: Vec<Operation>,
    /// Whether a file could not be removed, so that the lane may stay full.
    pub(crate) removal_failed: bool,
    pub(crate) closed: bool,
    /// Until when the disk has no room for another file, or a longer one.
    full_until: u64,
    /// Whether a write has found no room although its segment had it: what is in it waits.
    pub(crate) waits: bool,
}

impl Lane {
    /// A lane that begins as `start` says, and a port for each core.
    pub(crate) fn new(start: LaneStart, disk: Disk, plan: &Plan) -> (Self, Vec<Port>) {
        let config = WriterConfig {
            dir: PathBuf::new(),
            start,
            limits: plan.journal.limits,
            keep_states: true,
        };
        let wakes = (0..plan.cores).map(|_| Box::new(|| {}) as Wake).collect();
        let (desk, ports) = Desk::open(&config, plan.journal.port, wakes);
        let lane = Self {
            desk,
            disk,
            flying: Vec::new(),
            removal_failed: false,
            closed: false,
            full_until: 0,
            waits: false,
        };
        (lane, ports)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.desk.status().is_full()
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.desk.status().is_failed()
    }

    /// Tells it to bring everything to disk and to end.
    pub(crate) fn stop(&self) {
        self.desk.status().stop();
    }

    /// One turn of its thread: an operation may be over, and others begin. Says whether anything
    /// happened.
    pub(crate) fn turn(&mut self, around: &mut Surroundings<'_>) -> bool {
        let mut busy = false;
        while !self.flying.is_empty() && around.happens() {
            let which = around.dice.below(self.flying.len());
            let operation = self.flying.swap_remove(which);
            self.complete(operation, around);
            busy = true;
        }
        let retention = around.plan.journal.retention_ns;
        let wall_ns = crate::node::now(around.now).wall_ns;
        self.desk
            .status()
            .retain(u64::MAX, wall_ns.saturating_sub(retention));
        let before = self.desk.status().committed();
        self.desk.begin_turn(around.now);
        while let Some(operation) = self.desk.poll_operation(around.now) {
            around.trace.mix(20, operation.id, &[]);
            around.trace.line(|| brief(&operation));
            self.flying.push(operation);
            busy = true;
        }
        self.closed = self.desk.end_turn();
        around.coverage.journal_full += u64::from(self.is_full());
        busy | (before != self.desk.status().committed())
    }

    fn complete(&mut self, operation: Operation, around: &mut Surroundings<'_>) {
        let mut fate = fate(&operation.kind, around);
        let grows = match &operation.kind {
            OperationKind::Prepare { .. } => true,
            OperationKind::Create { spare, .. } => !spare,
            OperationKind::Write { .. } => !around.plan.journal.preallocates,
            _ => false,
        };
        let full = std::io::ErrorKind::StorageFull;
        if grows && around.now < self.full_until {
            fate = Fate::Failed(full);
        } else if fate == Fate::Failed(full) {
            self.full_until = around.now + around.dice.between(0, 200_000_000) as u64;
        }
        if matches!(operation.kind, OperationKind::Write { .. }) {
            self.waits = matches!(fate, Fate::Failed(_));
        }
        let coverage = &mut *around.coverage;
        match (&operation.kind, fate) {
            (OperationKind::Sync { .. }, Fate::Failed(_)) => coverage.failed_syncs += 1,
            (_, Fate::Failed(std::io::ErrorKind::StorageFull)) => coverage.full_disks += 1,
            (_, Fate::Failed(_)) => coverage.failed_writes += 1,
            (_, Fate::Short(_)) => coverage.short_writes += 1,
            (OperationKind::Remove { .. }, Fate::Done) => coverage.segments_removed += 1,
            (OperationKind::Prepare { .. }, Fate::Done) => coverage.spare_files += 1,
            (OperationKind::Sync { .. }, Fate::Done) => coverage.commits += 1,
            _ => {}
        }
        self.removal_failed |= matches!(operation.kind, OperationKind::Remove { .. })
            && matches!(fate, Fate::Failed(_));
        let what = operation.id;
        around.trace.mix(21, what, &[]);
        around
            .trace
            .line(|| format!("disk: operation {what} ends: {fate:?}"));
        let outcome = self.disk.perform(operation.kind, fate);
        self.desk.on_done(operation.id, outcome);
    }

    /// Whether an operation is under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.flying.is_empty()
    }

    /// The process is gone. What was under way may get anywhere; then power may be lost, too.
    pub(crate) fn crash(mut self, power: bool, around: &mut Surroundings<'_>) -> Disk {
        for operation in std::mem::take(&mut self.flying) {
            if around.dice.chance(50) {
                let fate = Fate::Short(1 + around.dice.below(4_000));
                if matches!(operation.kind, OperationKind::Write { .. }) {
                    around.coverage.torn_writes += 1;
                }
                drop(self.disk.perform(operation.kind, fate));
            }
        }
        if power {
            self.disk.crash(&mut |bound| around.dice.below(bound));
        }
        self.disk
    }
}

/// An operation without its bytes.
fn brief(operation: &Operation) -> String {
    let id = operation.id;
    match &operation.kind {
        OperationKind::Write {
            segment,
            offset,
            bytes,
            skip,
        } => format!(
            "disk: operation {id} writes {} bytes at {offset} of segment {segment}",
            bytes.len() - skip
        ),
        kind => format!("disk: operation {id}: {kind:?}"),
    }
}

/// What an operation meets.
fn fate(kind: &OperationKind, around: &mut Surroundings<'_>) -> Fate {
    let journal = &around.plan.journal;
    // There are few of these, and what follows from their failures is to be seen.
    let often = if matches!(kind, OperationKind::Prepare { .. }) {
        10
    } else {
        1
    };
    if around.dice.below(10_000) < often * journal.failures {
        return Fate::Failed(match kind {
            OperationKind::Prepare { .. } => std::io::ErrorKind::StorageFull,
            OperationKind::Create { spare: true, .. } => std::io::ErrorKind::Other, // it has its room
            OperationKind::Create { .. } | OperationKind::Write { .. } => around
                .dice
                .pick(&[std::io::ErrorKind::StorageFull, std::io::ErrorKind::Other]),
            _ => std::io::ErrorKind::Other,
        });
    }
    if let OperationKind::Write { bytes, skip, .. } = kind
        && around.dice.below(100) < journal.short_writes
    {
        return Fate::Short(around.dice.between(1, bytes.len() - skip));
    }
    Fate::Done
}

/// What a new run begins with.
pub(crate) struct Opening {
    pub(crate) lanes: Vec<(LaneStart, Disk)>,
    pub(crate) heritage: Heritage,
    pub(crate) on_disk: OnDisk,
    /// Whether a torn tail was cut.
    pub(crate) cuts: usize,
    /// Topics whose recovery began with a state.
    pub(crate) states: usize,
}

/// Recovers what is on `disks`, for a node of `plan.cores` cores.
pub(crate) fn open(
    disks: Vec<Disk>,
    plan: &Plan,
    model: &SharedModel,
    plant: Option<Plant>,
    twice: bool,
) -> Result<Opening, String> {
    let dir = Directory::new().map_err(|error| format!("no directory: {error}"))?;
    let registry = Arc::new(model.registry(true));
    let mut opening = Opening {
        lanes: Vec::new(),
        heritage: Heritage::new(plan.cores),
        on_disk: OnDisk::default(),
        cuts: 0,
        states: 0,
    };
    for (lane, mut disk) in (0..).zip(disks) {
        let dir = dir.0.join(format!("lane-{lane}"));
        let io = |error: std::io::Error| format!("lane {lane}: {error}");
        std::fs::create_dir(&dir).map_err(io)?;
        disk.store(&dir).map_err(io)?;
        if twice {
            // Recovery can be cut short, too: it has to find the same again.
            recover(&dir, lane, |_| {}).map_err(|error| error.to_string())?;
        }
        let mut last = 0;
        if plant == Some(Plant::RecoverySkipsLastGroup) {
            let event = |record: &Record<'_>| matches!(record, Record::Event(_));
            recover(&dir, lane, |entry| {
                if event(&entry.record) {
                    last = entry.position;
                }
            })
            .map_err(|error| error.to_string())?;
        }
        let replies = plan.journal.replies;
        let mut state = LaneState::new(Arc::clone(&registry), &plan.limits, replies, plan.cores);
        let mut reading = LaneReading::default();
        let recovered = recover(&dir, lane, |entry| {
            opening.on_disk.take(&mut reading, entry);
            if last == 0 || entry.position < last {
                state.take(entry);
            }
        })
        .map_err(|error| error.to_string())?;
        disk.load(&dir).map_err(|error| error.to_string())?;
        opening.cuts += usize::from(recovered.cut.is_some());
        opening.states += states(&recovered);
        opening
            .heritage
            .add(&recovered, state)
            .map_err(|error| format!("the node does not start: {error}"))?;
        opening.lanes.push((recovered.start(1, IDENTITY), disk));
    }
    Ok(opening)
}

/// Topics of which only a state and what follows it is there.
fn states(recovered: &Recovered) -> usize {
    let topics = &recovered.topics;
    topics
        .iter()
        .filter(|topic| topic.snapshot.is_some() && topic.first_seq != 1)
        .count()
}

/// Fresh lanes on fresh disks.
pub(crate) fn fresh(plan: &Plan) -> Opening {
    let lane = |lane| {
        let empty = Recovered {
            lane,
            ..Recovered::default()
        };
        let disk = Disk::new(plan.journal.preallocates);
        (empty.start(1, IDENTITY), disk)
    };
    Opening {
        lanes: (0..plan.journal.lanes).map(lane).collect(),
        heritage: Heritage::new(plan.cores),
        on_disk: OnDisk::default(),
        cuts: 0,
        states: 0,
    }
}

/// A directory in memory, for recovery reads real files.
struct Directory(PathBuf);

impl Directory {
    fn new() -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = above.join(format!("tickring-sim-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // what is left lies in memory, and is small
    }
}
