//! The window of answers.

use proptest::prelude::*;

use crate::journal::record::Reply;
use crate::journal::{ReplyLimits, ReplyWindow, Seen};

fn limits() -> ReplyLimits {
    ReplyLimits {
        per_session: 3,
        bytes: 10_000,
        age_ns: 100,
    }
}

fn reply(session: u128, request_id: u64, node_ns: u64) -> Reply<'static> {
    Reply {
        topic: 1,
        code: 2,
        seq: request_id * 10,
        session,
        request_id,
        node_ns,
        payload: b"answer",
    }
}

#[test]
fn a_command_that_comes_again_gets_its_first_answer() {
    let mut window = ReplyWindow::new(limits());
    assert_eq!(window.find(1, 5), Seen::Never);
    window.keep(&reply(1, 5, 0));
    window.keep(&Reply {
        code: 9,
        ..reply(1, 5, 1)
    });
    let Seen::Answered(answer) = window.find(1, 5) else {
        panic!("it was kept")
    };
    assert_eq!(
        (answer.code, answer.seq, &*answer.payload),
        (2, 50, &b"answer"[..])
    );
    assert_eq!(
        window.find(2, 5),
        Seen::Never,
        "another session's request is another one"
    );
    assert_eq!(window.find(1, 6), Seen::Never);
}

#[test]
fn a_session_that_sends_much_forgets_its_own_answers_only() {
    let mut window = ReplyWindow::new(limits());
    window.keep(&reply(1, 1, 0));
    for request in 1..=50 {
        window.keep(&reply(2, request, 0));
    }
    assert!(matches!(window.find(1, 1), Seen::Answered(_)));
    assert_eq!(window.find(2, 47), Seen::Forgotten, "not carried out again");
    assert!(matches!(window.find(2, 48), Seen::Answered(_)));
    assert_eq!(window.find(2, 51), Seen::Never);
    assert_eq!(window.len(), 4);
}

#[test]
fn answers_go_with_their_age() {
    let mut window = ReplyWindow::new(limits());
    window.keep(&reply(1, 1, 1_000));
    window.keep(&reply(1, 2, 1_050));
    window.expire(1_100);
    assert_eq!(window.len(), 2);
    window.expire(1_101);
    assert_eq!(window.find(1, 1), Seen::Forgotten);
    assert!(matches!(window.find(1, 2), Seen::Answered(_)));
    window.expire(2_000);
    assert!(window.is_empty());
    assert_eq!(window.bytes(), 0);
}

#[test]
fn what_goes_for_want_of_room_is_refused_until_the_window_is_over() {
    let mut window = ReplyWindow::new(ReplyLimits {
        bytes: 3 * ReplyWindow::SESSION + ReplyWindow::OVERHEAD + 6,
        ..limits()
    });
    window.keep(&reply(1, 1, 1_000));
    window.keep(&reply(1, 2, 1_010));
    window.keep(&reply(2, 1, 1_020));
    for request_id in [1, 2] {
        assert_eq!(window.find(1, request_id), Seen::Forgotten);
    }
    assert_eq!(window.find(1, 3), Seen::Never, "its new commands go on");
    assert!(matches!(window.find(2, 1), Seen::Answered(_)));
    window.expire(1_110);
    assert_eq!(window.find(1, 2), Seen::Forgotten, "100 later");
    window.expire(1_111);
    assert_eq!(window.find(1, 2), Seen::Never, "its time is over");
    window.expire(2_000);
    assert_eq!((window.bytes(), window.sessions()), (0, 0));
}

#[test]
fn marks_are_not_given_up_for_more_sessions() {
    let mut window = ReplyWindow::new(ReplyLimits {
        bytes: 2 * ReplyWindow::SESSION,
        ..limits()
    });
    window.keep(&reply(1, 1, 1_000));
    window.keep(&reply(2, 1, 1_050));
    window.make_room(1_100);
    assert_eq!(window.find(3, 1), Seen::NoRoom);
    assert_eq!(window.find(1, 1), Seen::Forgotten);
    assert_eq!(
        window.find(1, 2),
        Seen::Never,
        "a known session has its room"
    );
    window.make_room(1_101);
    assert_eq!(window.find(3, 1), Seen::Never, "session 1 is over");
}

proptest! {
    #[test]
    fn within_its_age_no_command_is_ever_called_new_again(
        steps in prop::collection::vec((0u128..12, 0usize..400, 0u64..30), 1..300),
        bytes in 500usize..4_000,
    ) {
        let limits = ReplyLimits { bytes, ..limits() };
        let mut window = ReplyWindow::new(limits);
        let mut now = 0;
        // The times of each session's commands.
        let mut done: [Vec<u64>; 12] = Default::default();
        for (session, len, passes) in steps {
            now += passes;
            let request_id = done[session as usize].len() as u64 + 1;
            window.make_room(now);
            match window.find(session, request_id) {
                Seen::Never => {
                    let payload = vec![1; len];
                    window.keep(&Reply { payload: &payload, ..reply(session, request_id, now) });
                    done[session as usize].push(now);
                }
                Seen::NoRoom => prop_assert!((window.sessions() + 1) * ReplyWindow::SESSION > bytes),
                seen => prop_assert!(false, "a new command is {seen:?}"),
            }
            prop_assert!(window.bytes() <= bytes);
            let mut kept = 0;
            for (session, times) in (0..).zip(&done) {
                let mut answered = 0;
                for (request_id, at) in (1..).zip(times) {
                    match window.find(session, request_id) {
                        Seen::Answered(answer) => {
                            prop_assert_eq!(answer.seq, request_id * 10);
                            answered += 1;
                        }
                        Seen::Forgotten => prop_assert_eq!(answered, 0, "the newest stay"),
                        Seen::Never | Seen::NoRoom => prop_assert!(now - at > limits.age_ns),
                    }
                }
                prop_assert!(answered <= 3);
                kept += answered;
            }
            prop_assert_eq!(kept, window.len());
        }
    }
}
