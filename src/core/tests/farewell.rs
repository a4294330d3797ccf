//! What must stand before the last frame of a connection.

use tickring_protocol::{ErrorCode, Frame, Goodbye, Unsubscribe};

use super::{Rig, Told, encode, subscribe, trade};
use crate::core::Limits;

#[test]
fn a_refusal_that_is_being_released_comes_before_the_farewell() {
    let mut rig = Rig::new(Limits::default());
    // UNSUBSCRIBE waits for SUBSCRIBED, which waits for the disk; behind it GOODBYE waits.
    let input = [
        trade(1, 1, false),
        subscribe(2),
        trade(3, -1, true),
        encode(&Frame::Unsubscribe(Unsubscribe {
            request_id: 4,
            topic_id: 99,
        })),
        encode(&Frame::Goodbye(Goodbye {
            code: 0,
            retry_after_ms: 0,
            text: "",
        })),
    ];
    assert_eq!(rig.turn(&input.concat()), [], "nothing is on disk");
    let refused = ErrorCode::OutOfRange as u16;
    let told = rig.commit();
    assert_eq!(told.last(), Some(&Told::Goodbye(0)), "{told:?}");
    assert_eq!(
        told[..told.len() - 1],
        [
            Told::Reply(1, 0, 1),
            Told::Subscribed,
            Told::Snapshot,
            Told::Error(4, ErrorCode::NotSubscribed as u16),
            Told::Reply(3, refused, 0),
        ]
    );
}
