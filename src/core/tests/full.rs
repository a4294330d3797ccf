//! What becomes of commands when the journal has no room.

use std::io;
use std::time::Duration;

use tickring_protocol::{ErrorCode, Frame, Ping};

use super::{Rig, Told, encode, trade};
use crate::core::{Limits, ReceiveEnd};

const PATIENCE: Duration = Duration::from_millis(1);

fn limits() -> Limits {
    Limits {
        overload_patience: PATIENCE,
        outbox_bytes: 1 << 10,
        inbox_bytes: 1 << 20,
        ..Limits::default()
    }
}

#[test]
fn who_waits_is_refused_in_time_although_one_before_it_has_gone() {
    let mut rig = Rig::new(limits());
    // Another connection's command waits first.
    rig.turn_with(|core| {
        core.on_accepted(1, 2);
        core.on_received(1, &super::hello());
    });
    rig.core.set_journal_full(true);
    rig.turn_with(|core| core.on_received(1, &trade(1, 1, false)));
    assert_eq!(rig.turn(&trade(2, 1, false)), []);
    rig.turn_with(|core| {
        core.on_receive_ended(1, ReceiveEnd::Failed(io::ErrorKind::ConnectionReset.into()));
    });
    rig.turn_with(|core| core.on_closed(1));
    rig.mono_ns += PATIENCE.as_nanos() as u64;
    let overloaded = ErrorCode::Overloaded as u16;
    assert_eq!(rig.turn(&[]), [Told::Reply(2, overloaded, 0)]);
}

#[test]
fn who_does_not_read_gets_no_more_answers_than_there_is_room_for() {
    let mut rig = Rig::new(limits());
    rig.stalled = true;
    rig.core.set_journal_full(true);
    rig.turn(&trade(1, 1, false));
    rig.mono_ns += PATIENCE.as_nanos() as u64;
    let pings = encode(&Frame::Ping(Ping { token: 1 })).repeat(100);
    for _ in 0..100 {
        rig.turn(&pings);
    }
    let held = rig.core.held(0).map_or(0, |held| held.outbox_bytes);
    assert!(held < 1 << 15, "{held} bytes wait");
    assert!(rig.under_way.is_some());
}

#[test]
fn no_more_is_taken_in_than_may_be_on_its_way_to_the_disk() {
    let mut rig = Rig::new(limits());
    let many: Vec<u8> = (1..=100).flat_map(|id| trade(id, 1, false)).collect();
    assert_eq!(rig.turn(&many), []);
    let told = rig.commit();
    let taken = told.len();
    assert!((10..50).contains(&taken), "{taken} commands of 100");
    let mut replies = told;
    for _ in 0..20 {
        replies.extend(rig.turn(&[]));
        replies.extend(rig.commit());
    }
    let in_order: Vec<Told> = (1..=100).map(|id| Told::Reply(id, 0, id)).collect();
    assert_eq!(replies, in_order, "the others wait, and none is lost");
}

/// A core that asked for a turn at once would be busy for as long as the disk is full.
#[test]
fn states_that_may_not_be_written_are_no_reason_for_a_turn_at_once() {
    let mut rig = Rig::new(limits());
    rig.turn(&trade(1, 1, false));
    // The lane has grown by so much that states are due, and has no room.
    rig.core.set_journal_full(true);
    rig.turn_with(|core| core.on_committed(0, 0, 1 << 30));
    assert!(rig.core.next_deadline().is_some_and(|at| at > rig.mono_ns));
    // Nothing is on its way to the disk any more: now they may.
    let before = rig.ticket;
    rig.commit();
    rig.turn(&[]);
    assert!(rig.ticket > before, "no state was written");
}
