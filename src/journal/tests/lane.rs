//! What a lane lets go, and beginnings that were cut off: found by the whole-node simulator.

use std::fs;

use super::files::write;
use super::{TempDir, bind, small};
use crate::journal::disk::{Disk, Fate};
use crate::journal::record::Snapshot;
use crate::journal::segment::{self, HEADER};
use crate::journal::{Lane, recover};

fn state(number: u32, seq: u64, name: &str, batch: &mut Vec<u8>) {
    bind(number, name, batch);
    let snapshot = Snapshot {
        topic: number,
        kind: 0,
        seq,
        node_ns: 1,
        event_ns: 1,
        state: b"state",
    };
    snapshot.encode(true, batch).unwrap();
}

#[test]
fn a_state_lets_older_records_go_only_once_it_is_on_disk() {
    let dir = TempDir::new();
    write(dir.path(), 1, 1..=50, 5);
    let recovered = recover(dir.path(), 0, |_| {}).unwrap();
    let mut lane = Lane::new(recovered.start(2, 1), small(), 1);
    assert_eq!(lane.needed(), 0, "no state was ever written");
    let mut batch = Vec::new();
    state(7, 50, "stream/a", &mut batch);
    state(8, 50, "stream/b", &mut batch);
    lane.append(0, 1, &batch, 0).unwrap();
    let mut disk = Disk::new(true);
    while let Some(operation) = lane.poll_operation(0) {
        assert_eq!(lane.needed(), 0, "the states are on their way");
        let outcome = disk.perform(operation.kind, Fate::Done);
        lane.on_done(operation.id, outcome);
    }
    assert!(lane.needed() >= recovered.position, "{}", lane.needed());
}

#[test]
fn states_of_an_earlier_run_let_records_go_in_the_next_one() {
    let dir = TempDir::new();
    write(dir.path(), 1, 1..=5, 5);
    let mut disk = Disk::new(false);
    let start = recover(dir.path(), 0, |_| {}).unwrap();
    let mut lane = Lane::new(start.start(2, 1), small(), 1);
    let mut batch = Vec::new();
    state(7, 5, "stream/a", &mut batch);
    state(8, 5, "stream/b", &mut batch);
    lane.append(0, 1, &batch, 0).unwrap();
    while let Some(operation) = lane.poll_operation(0) {
        let outcome = disk.perform(operation.kind, Fate::Done);
        lane.on_done(operation.id, outcome);
    }
    disk.store(dir.path()).unwrap();
    let again = recover(dir.path(), 0, |_| {}).unwrap();
    let lane = Lane::new(again.start(3, 1), small(), 1);
    assert!(
        lane.needed() >= start.position,
        "a full lane could not even write its states anew: {}",
        lane.needed()
    );
}

#[test]
fn a_segment_that_has_no_file_yet_is_no_room_to_offer() {
    let dir = TempDir::new();
    let start = recover(dir.path(), 0, |_| {}).unwrap();
    let mut lane = Lane::new(start.start(1, 1), small(), 1);
    let mut batch = Vec::new();
    state(7, 1, "stream/a", &mut batch);
    lane.append(0, 1, &batch, 0).unwrap();
    assert!(lane.is_short(), "it gathers");
    let mut disk = Disk::new(true);
    let create = lane.poll_operation(0).unwrap();
    assert!(lane.is_short(), "its file is being made");
    let full = Fate::Failed(std::io::ErrorKind::StorageFull);
    lane.on_done(create.id, disk.perform(create.kind, full));
    assert!(lane.is_short(), "the disk had no room for it");
    let now = lane.deadline().unwrap_or_default().max(1_000_000_000);
    lane.poll_operation(now); // sets when to try again
    let now = now + 1_000_000_000;
    while let Some(operation) = lane.poll_operation(now) {
        let outcome = disk.perform(operation.kind, Fate::Done);
        lane.on_done(operation.id, outcome);
    }
    assert!(lane.is_idle() && !lane.is_short());
}

#[test]
fn a_header_that_was_cut_off_anywhere_is_a_segment_that_was_not_begun() {
    for cut in 0..HEADER {
        let dir = TempDir::in_memory();
        let end = *write(dir.path(), 1, 1..=20, 5).last().unwrap();
        let whole = fs::read(segment::path(dir.path(), 0)).unwrap();
        let mut header = vec![0; 4096];
        header[..cut].copy_from_slice(&whole[..cut]);
        fs::write(segment::path(dir.path(), end), header).unwrap();
        let recovered = recover(dir.path(), 0, |_| {}).unwrap();
        assert_eq!((recovered.position, recovered.events), (end, 40), "{cut}");
        assert!(!segment::path(dir.path(), end).exists());
    }
}
