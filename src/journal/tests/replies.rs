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

proptest! {
    #[test]
    fn the_window_keeps_its_bounds_and_never_calls_a_kept_command_new(
        steps in prop::collection::vec((0u128..6, 0usize..400, 0u64..30), 1..400),
        bytes in 500usize..4_000,
    ) {
        let mut window = ReplyWindow::new(ReplyLimits { bytes, ..limits() });
        let (mut now, mut next) = (0, [1u64; 6]);
        for (session, len, passes) in steps {
            now += passes;
            let request_id = next[session as usize];
            prop_assert_eq!(window.find(session, request_id), Seen::Never, "a new command is never refused");
            let payload = vec![1; len];
            window.keep(&Reply { payload: &payload, ..reply(session, request_id, now) });
            next[session as usize] += 1;
            prop_assert!(window.bytes() <= bytes);
            let mut kept = 0;
            for session in 0..6 {
                let mut answered = 0;
                for request in 1..next[session as usize] {
                    match window.find(session, request) {
                        Seen::Answered(answer) => {
                            prop_assert_eq!(answer.seq, request * 10);
                            answered += 1;
                        }
                        // Forgotten while the session has answers; afterwards its window is over.
                        Seen::Forgotten | Seen::Never => prop_assert_eq!(answered, 0, "the newest stay"),
                    }
                }
                prop_assert!(answered <= 3);
                kept += answered;
            }
            prop_assert_eq!(kept, window.len());
        }
    }
}
