//! A lane on a simulated disk: whatever the disk does, and wherever power is lost, what was
//! released is there after recovery, in order, without a hole, and no group is there in part.

use std::time::Duration;

use super::{Random, TempDir, bind, event, small};
use crate::journal::disk::{Disk, Fate};
use crate::journal::record::{Record, Reply, Snapshot};
use crate::journal::{AppendError, Lane, Limits, Operation, Outcome, recover};

const TOPICS: u32 = 5;
const SOURCES: usize = 2;

/// What the disk may do beside losing power.
#[derive(Clone, Copy, Default)]
struct Faults {
    short_writes: bool,
    failures: bool,
}

/// A lane, its disk, and what must be true of them. Each record has a number of its own, in the
/// order of appending.
struct World {
    random: Random,
    faults: Faults,
    limits: Limits,
    disk: Disk,
    dir: TempDir,
    lane: Lane,
    run: u32,
    now: u64,
    flying: Vec<Operation>,
    /// Numbers of records behind each group.
    group_ends: Vec<u64>,
    /// The next record's number.
    next: u64,
    /// For each source, its tickets and the records appended up to each.
    tickets: Vec<Vec<(u64, u64)>>,
    /// Records that were released.
    released: u64,
    /// Records that may have been removed: those below a position that was given up.
    given_up: u64,
    commits: Vec<(u64, u64)>,
    full: u64,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut random = Random(seed);
        let dir = TempDir::in_memory();
        let limits = Limits {
            max_delay: Duration::from_nanos([0, 0, 30][random.below(3)]),
            ..small()
        };
        let start = recover(dir.path(), 0, |_| {}).unwrap().start(1, 99);
        Self {
            disk: Disk::new(random.one_in(2)),
            random,
            faults,
            limits,
            dir,
            lane: Lane::new(start, limits, SOURCES),
            run: 1,
            now: 0,
            flying: Vec::new(),
            group_ends: Vec::new(),
            next: 0,
            tickets: vec![Vec::new(); SOURCES],
            released: 0,
            given_up: 0,
            commits: Vec::new(),
            full: 0,
        }
    }

    fn number(&self, topic: u32) -> u32 {
        self.run * 10 + topic
    }

    fn append(&mut self) {
        let mut batch = Vec::new();
        for topic in 0..TOPICS {
            // Told again and again: only the first time counts.
            bind(self.number(topic), &format!("stream/{topic}"), &mut batch);
        }
        let (mut next, mut ends) = (self.next, Vec::new());
        for _ in 0..=self.random.below(4) {
            let topic = self.random.below(TOPICS as usize) as u32;
            let topic = self.number(topic);
            let records = 1 + self.random.below(4);
            for index in 1..=records {
                let last = index == records;
                let body = vec![next as u8; self.random.below(400)];
                let record = match self.random.below(4) {
                    0 if last => Record::Reply(Reply {
                        topic,
                        code: 0,
                        seq: 1,
                        session: 5,
                        request_id: next,
                        node_ns: next,
                        payload: &body,
                    }),
                    1 if records == 1 => Record::Snapshot(Snapshot {
                        topic,
                        kind: 1,
                        seq: next,
                        event_ns: 3,
                        node_ns: next,
                        state: &body,
                    }),
                    _ => Record::Event(event(topic, next, &body)),
                };
                record.encode(last, &mut batch).unwrap();
                next += 1;
            }
            ends.push(next);
        }
        let source = self.random.below(SOURCES);
        let ticket = self.tickets[source]
            .last()
            .map_or(1, |(ticket, _)| ticket + 1);
        match self.lane.append(source, ticket, &batch, self.now) {
            Ok(()) => {
                self.next = next;
                self.group_ends.append(&mut ends);
                self.tickets[source].push((ticket, next));
            }
            Err(AppendError::Full) => self.full += 1,
            Err(AppendError::Busy) => {}
            Err(AppendError::Failed) => assert!(self.lane.failure().is_some()),
            Err(error) => panic!("{error}"),
        }
        assert!(
            self.lane.disk_bytes() <= self.limits.journal_bytes,
            "the bound holds"
        );
    }

    fn poll(&mut self) {
        while let Some(operation) = self.lane.poll_operation(self.now) {
            self.flying.push(operation);
            assert!(
                self.flying.len() <= 3,
                "one write, one removal and one spare file at a time"
            );
        }
    }

    fn fate(&mut self) -> Fate {
        if self.faults.failures && self.random.one_in(60) {
            // A full disk is waited for; anything else ends the lane.
            return Fate::Failed(match self.random.one_in(2) {
                true => std::io::ErrorKind::StorageFull,
                false => std::io::ErrorKind::Other,
            });
        }
        if self.faults.short_writes && self.random.one_in(3) {
            return Fate::Short(1 + self.random.below(2_000));
        }
        Fate::Done
    }

    fn complete(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let which = self.random.below(self.flying.len());
        let operation = self.flying.swap_remove(which);
        let (fate, failed) = (self.fate(), self.lane.failure().is_some());
        let before = self.lane.committed();
        let outcome = self.disk.perform(operation.kind, fate);
        let committed = self.lane.on_done(operation.id, outcome).committed;
        assert_eq!(committed, self.lane.committed() > before);
        assert!(!(failed && committed), "a failed lane releases nothing");
        if committed {
            let ticket = |source: usize| self.lane.released(source);
            let records = (0..SOURCES).flat_map(|source| {
                let upto = ticket(source);
                self.tickets[source]
                    .iter()
                    .rev()
                    .find(move |(t, _)| *t <= upto)
            });
            self.released = self
                .released
                .max(records.map(|(_, records)| *records).max().unwrap());
            self.commits.push((self.lane.committed(), self.released));
        }
    }

    fn retain(&mut self) {
        if let Some(&(position, records)) = self.commits.last() {
            self.lane.retain(position, u64::MAX);
            self.given_up = records;
        }
    }

    /// Power is lost; a new run begins with what is left.
    fn crash(&mut self) {
        // What is under way may get anywhere.
        for operation in std::mem::take(&mut self.flying) {
            if self.random.one_in(2) {
                let fate = Fate::Short(1 + self.random.below(4_000));
                let _: Outcome = self.disk.perform(operation.kind, fate);
            }
        }
        self.disk.crash(&mut |bound| self.random.below(bound));
        self.reopen();
    }

    fn reopen(&mut self) {
        self.flying.clear();
        let dir = TempDir::in_memory();
        self.disk.store(dir.path()).unwrap();
        let mut seen = Vec::new();
        let recovered = recover(dir.path(), 0, |entry| match entry.record {
            Record::Event(event) => {
                seen.push((event.seq, event.body.len(), event.body.first().copied()))
            }
            Record::Reply(reply) => seen.push((reply.request_id, 0, None)),
            Record::Snapshot(snapshot) => seen.push((snapshot.seq, 0, None)),
            _ => {}
        })
        .unwrap();
        self.check(&seen);
        self.disk.load(dir.path()).unwrap();
        self.dir = dir;
        self.run += 1;
        self.lane = Lane::new(
            recovered.start(u64::from(self.run), 99),
            self.limits,
            SOURCES,
        );
        // What was not recovered was never released; its numbers are given out again.
        self.next = seen.last().map_or(self.released, |(id, ..)| id + 1);
        let next = self.next;
        self.group_ends.retain(|end| *end <= next);
        self.tickets = vec![Vec::new(); SOURCES];
        self.commits = vec![(recovered.position, self.next)];
        self.released = self.next;
        assert_eq!(self.lane.committed(), recovered.position);
    }

    fn check(&self, seen: &[(u64, usize, Option<u8>)]) {
        for pair in seen.windows(2) {
            assert_eq!(pair[1].0, pair[0].0 + 1, "no hole and no doublet");
        }
        for (id, len, first) in seen {
            assert!(
                *len == 0 || *first == Some(*id as u8),
                "the bodies are those that were written"
            );
        }
        let Some((first, last)) = seen.first().zip(seen.last()) else {
            assert_eq!(self.released, 0, "everything that was released is gone");
            return;
        };
        assert!(
            first.0 <= self.given_up,
            "nothing that is still needed was removed"
        );
        assert!(
            last.0 + 1 >= self.released,
            "{} of {} released are there",
            last.0 + 1,
            self.released
        );
        assert!(
            self.group_ends.binary_search(&(last.0 + 1)).is_ok(),
            "no half group"
        );
        let begins = first.0 == 0 || self.group_ends.binary_search(&first.0).is_ok();
        assert!(begins, "segments begin with whole groups");
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=6 => self.append(),
            7..=16 => {
                self.poll();
                self.complete();
            }
            17 => self.now += self.random.below(40) as u64,
            18 if self.random.one_in(4) => self.retain(),
            _ => {}
        }
    }
}

fn worlds(seeds: std::ops::Range<u64>, faults: Faults) -> (u64, u64) {
    let (mut released, mut full) = (0, 0);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, faults);
            for _ in 0..4 {
                for _ in 0..20 + world.random.below(400) {
                    world.step();
                }
                world.crash();
            }
            (world.released, world.full)
        });
        let (records, refusals) = run.unwrap_or_else(|panic| {
            eprintln!("failing seed: {seed}");
            std::panic::resume_unwind(panic)
        });
        released += records;
        full += refusals;
    }
    (released, full)
}

#[test]
fn released_groups_survive_the_loss_of_power_at_any_moment() {
    let (released, full) = worlds(0..300, Faults::default());
    assert!(released > 10_000, "{released} records were released");
    assert!(full > 0, "the bound of the disk was met");
}

#[test]
fn released_groups_survive_short_writes() {
    let faults = Faults {
        short_writes: true,
        ..Faults::default()
    };
    assert!(worlds(1_000..1_200, faults).0 > 5_000);
}

#[test]
fn released_groups_survive_failed_writes_and_failed_syncs() {
    let faults = Faults {
        short_writes: true,
        failures: true,
    };
    assert!(worlds(2_000..2_300, faults).0 > 1_000);
}

#[test]
fn power_lost_before_and_after_each_operation_loses_nothing_released() {
    for operations in 0..60 {
        for seed in 0..3 {
            let mut world = World::new(seed, Faults::default());
            let mut done = 0;
            while done < operations {
                world.append();
                world.now += 50;
                world.poll();
                done += world.flying.len();
                world.complete();
                world.retain();
            }
            world.append();
            world.now += 50;
            world.poll();
            world.crash();
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_released_until_the_lane_is_opened_again() {
    let mut world = World::new(3, Faults::default());
    world.append();
    world.now += 100;
    loop {
        world.poll();
        let operation = world.flying.pop().unwrap();
        let syncs = matches!(operation.kind, crate::journal::OperationKind::Sync { .. });
        let fate = if syncs {
            Fate::Failed(std::io::ErrorKind::StorageFull)
        } else {
            Fate::Done
        };
        let outcome = world.disk.perform(operation.kind, fate);
        world.lane.on_done(operation.id, outcome);
        if syncs {
            break;
        }
    }
    let failure = world.lane.failure().unwrap().to_string();
    assert!(
        failure.contains("cannot sync the journal's segment 00000000000000000000.seg"),
        "{failure}"
    );
    assert!(failure.contains("The disk is full: make room"), "{failure}");
    world.poll();
    assert!(world.flying.is_empty(), "nothing is tried again");
    assert_eq!(
        world.lane.append(0, 9, &[], world.now),
        Err(AppendError::Failed)
    );
    assert_eq!(
        (
            world.lane.released(0),
            world.lane.released(1),
            world.lane.committed()
        ),
        (0, 0, 0)
    );
    // The page cache still shows the group; recovery may use it, because it writes it again.
    world.reopen();
    world.append();
    world.now += 100;
    for _ in 0..5 {
        world.poll();
        world.complete();
    }
    assert!(world.lane.committed() > 0);
}

#[test]
fn at_the_bound_of_the_disk_appends_are_refused_until_segments_are_removed() {
    let mut world = World::new(4, Faults::default());
    while world.full == 0 {
        world.append();
        world.now += 100;
        world.poll();
        world.complete();
    }
    while !world.flying.is_empty() || !world.lane.is_idle() {
        world.now += 100;
        world.poll();
        world.complete();
    }
    assert_eq!(world.released, world.next, "nothing that was taken is lost");
    let full = world.full;
    world.append();
    assert_eq!(world.full, full + 1);
    world.retain();
    world.poll();
    world.complete();
    world.append();
    assert_eq!(world.full, full + 1, "there is room again");
    world.crash();
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_that_was_taken_is_lost() {
    let mut world = World::new(5, Faults::default());
    for stage in ["create", "write"] {
        world.append();
        world.now += 100;
        world.poll();
        let operation = world.flying.remove(0);
        if stage == "write" && world.lane.committed() == 0 {
            panic!("the first write is over");
        }
        let full = Fate::Failed(std::io::ErrorKind::StorageFull);
        let outcome = world.disk.perform(operation.kind, full);
        let released = world.lane.on_done(operation.id, outcome);
        assert_eq!(released, crate::journal::Released::default());
        assert!(world.lane.failure().is_none() && world.lane.waits_for_room());
        world.poll();
        let spare = |operation: &Operation| {
            matches!(
                operation.kind,
                crate::journal::OperationKind::Prepare { .. }
            )
        };
        assert!(world.flying.iter().all(spare), "not tried at once: {stage}");
        world.now = world.lane.deadline().unwrap();
        while !world.lane.is_idle() {
            world.poll();
            world.complete();
            world.now += 100;
        }
        assert!(!world.lane.waits_for_room());
        assert_eq!(world.released, world.next, "{stage}");
    }
    world.crash();
}

#[test]
fn a_lane_that_is_to_end_does_not_wait_for_a_full_disk() {
    let mut world = World::new(6, Faults::default());
    world.append();
    world.now += 100;
    for _ in 0..2 {
        world.poll();
        let operation = world.flying.pop().unwrap();
        let full = Fate::Failed(std::io::ErrorKind::StorageFull);
        let outcome = world.disk.perform(operation.kind, full);
        world.lane.on_done(operation.id, outcome);
        world.lane.flush();
    }
    let failure = world.lane.failure().unwrap().to_string();
    assert!(failure.contains("The disk is full: make room"), "{failure}");
    assert!(world.lane.is_idle());
}
