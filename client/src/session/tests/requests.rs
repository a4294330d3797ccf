//! Subscriptions, publishes and commands.

use tickring_protocol::{ErrorCode, ErrorFrame, FrameType};

use super::*;

const X: Publish<'static> = Publish {
    kind: 1,
    event_ns: 0,
    body: b"x",
};
const NOTHING: [&str; 0] = [];

fn refusal(request_id: u64, code: ErrorCode) -> Frame<'static> {
    Frame::Error(ErrorFrame {
        code: code as u16,
        frame_type: FrameType::Subscribe as u8,
        fatal: false,
        retry_after_ms: 0,
        request_id,
        text: "no",
    })
}

#[test]
fn unsubscribing_before_subscribed_came_is_sent_when_the_id_is_known() {
    let mut pair = Pair::active();
    let options = SubscribeOptions::default();
    let asked = pair.session.subscribe("m/a", options).unwrap();
    let left = pair.session.unsubscribe("m/a").unwrap();
    assert_eq!(pair.sends(), ["SUBSCRIBE 1 m/a from 0 epoch 0"]);
    let notices = pair.serve(&[subscribed(asked, "m/a", 4, 1, 0), event(4, 1)]);
    assert_eq!(
        notices,
        ["subscribed m/a next 1 resumed=false", "event m/a 1"]
    );
    assert_eq!(pair.sends(), ["UNSUBSCRIBE 2 id 4"]);
    assert_eq!(
        pair.serve(&[unsubscribed(left, 4, 1)]),
        ["unsubscribed m/a 1"]
    );
}

#[test]
fn a_refused_subscription_that_was_being_given_up_is_both() {
    let mut pair = Pair::active();
    let asked = pair
        .session
        .subscribe("m/a", SubscribeOptions::default())
        .unwrap();
    pair.session.unsubscribe("m/a").unwrap();
    assert_eq!(
        pair.serve(&[refusal(asked, ErrorCode::TopicLimit)]),
        ["refused 1 Some(\"m/a\") 20 no", "unsubscribed m/a 0"]
    );
}

#[test]
fn a_topic_asked_for_again_while_it_is_given_up_begins_behind_unsubscribed() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    let left = pair.session.unsubscribe("m/a").unwrap();
    let again = SubscribeOptions {
        from: StartAt::Oldest,
        ..Default::default()
    };
    let asked = pair.session.subscribe("m/a", again).unwrap();
    assert_eq!(
        pair.session.subscribe("m/a", again),
        Err(RequestError::AlreadySubscribed)
    );
    assert_eq!(pair.sends(), ["UNSUBSCRIBE 2 id 4"]);
    let notices = pair.serve(&[event(4, 1), unsubscribed(left, 4, 1)]);
    assert_eq!(notices, ["event m/a 1", "unsubscribed m/a 1"]);
    assert_eq!(pair.sends(), ["SUBSCRIBE 3 m/a from 1 epoch 0"]);
    let notices = pair.serve(&[subscribed(asked, "m/a", 4, 1, 1), event(4, 1)]);
    assert_eq!(
        notices,
        ["subscribed m/a next 1 resumed=false", "event m/a 1"]
    );
}

#[test]
fn a_subscription_being_given_up_when_the_connection_breaks_is_over() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    pair.serve(&[event(4, 1)]);
    pair.session.unsubscribe("m/a").unwrap();
    let notices = pair.cut();
    assert_eq!(notices[1..], ["unsubscribed m/a 1"]);
    pair.connect(true);
    assert_eq!(pair.sends(), NOTHING);
}

#[test]
fn offline_a_subscription_waits_and_can_be_given_up() {
    let mut pair = Pair::new();
    let options = SubscribeOptions::default();
    pair.session.subscribe("m/a", options).unwrap();
    pair.session.subscribe("m/b", options).unwrap();
    pair.session.unsubscribe("m/a").unwrap();
    assert_eq!(pair.notices(), ["unsubscribed m/a 0"]);
    pair.connect(false);
    assert_eq!(pair.sends(), ["SUBSCRIBE 2 m/b from 0 epoch 0"]);
}

#[test]
fn what_makes_no_sense_is_refused_before_it_is_sent() {
    let mut pair = Pair::active();
    let options = SubscribeOptions::default();
    assert!(matches!(
        pair.session.subscribe("Nonsense", options),
        Err(RequestError::Topic(_))
    ));
    let from = StartAt::Seq { seq: 0, epoch: 0 };
    let zero = SubscribeOptions { from, ..options };
    assert_eq!(
        pair.session.subscribe("m/a", zero),
        Err(RequestError::BadSeq)
    );
    assert_eq!(
        pair.session.unsubscribe("m/a"),
        Err(RequestError::NotSubscribed)
    );
    pair.session.subscribe("m/a", options).unwrap();
    assert_eq!(
        pair.session.subscribe("m/a", options),
        Err(RequestError::AlreadySubscribed)
    );
    let big = vec![0; 5000];
    let error = pair.session.command("m/a", 1, &big).unwrap_err();
    assert_eq!(
        error,
        RequestError::TooLarge {
            len: 5027,
            limit: 4096
        }
    );
}

#[test]
fn an_answer_to_nothing_is_a_breach() {
    for frame in [
        subscribed(9, "m/a", 4, 1, 0),
        unsubscribed(9, 4, 0),
        reply(9, 4, 0),
        reply(9, 4, 25),
        refusal(9, ErrorCode::Overloaded),
        pong(9),
    ] {
        let mut pair = Pair::active();
        pair.serve(&[frame]);
        assert!(
            matches!(
                violation(&pair),
                ProtocolError::UnknownRequest { request_id: 9, .. }
            ),
            "{frame:?}"
        );
    }
}

#[test]
fn an_id_that_stands_for_two_topics_is_a_breach() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    let asked = pair
        .session
        .subscribe("m/b", SubscribeOptions::default())
        .unwrap();
    pair.serve(&[subscribed(asked, "m/b", 4, 1, 0)]);
    assert_eq!(violation(&pair), ProtocolError::TopicId(4));
}

#[test]
fn publishes_name_the_topic_until_its_id_is_learnt_again_on_each_connection() {
    let mut pair = Pair::active();
    let topic = pair.session.topic("m/a").unwrap();
    pair.session.publish(topic, &X).unwrap();
    pair.session.publish("m/a", &X).unwrap();
    assert_eq!(pair.sends(), ["COMMAND 1 m/a0", "COMMAND 2 m/a0 quiet"]);
    assert_eq!(pair.serve(&[reply(1, 4, 0)]), NOTHING);
    pair.session.publish(topic, &X).unwrap();
    assert_eq!(pair.sends(), ["COMMAND 3 4 quiet"]);
    pair.cut();
    assert_eq!(pair.session.publish(topic, &X), Err(RequestError::Offline));
    pair.connect(true);
    pair.session.publish(topic, &X).unwrap();
    assert_eq!(pair.sends(), ["COMMAND 4 m/a0"]);
}

#[test]
fn a_subscription_tells_the_id_for_publishing_too() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    pair.session.publish("m/a", &X).unwrap();
    assert_eq!(pair.sends(), ["COMMAND 2 4 quiet"]);
}

#[test]
fn a_refused_publish_is_told_and_the_next_asks_again() {
    let mut pair = Pair::active();
    pair.session.publish("m/a", &X).unwrap();
    pair.sends();
    let code = ErrorCode::UnknownKind as u16;
    assert_eq!(
        pair.serve(&[reply(1, 0, code)]),
        ["refused 1 Some(\"m/a\") 15 why"]
    );
    pair.session.publish("m/a", &X).unwrap();
    assert_eq!(pair.sends(), ["COMMAND 2 m/a0"]);
}

#[test]
fn publishes_that_no_pong_confirmed_are_counted_when_the_connection_breaks() {
    let mut pair = Pair::active();
    let unconfirmed = |pair: &mut Pair| {
        pair.session.disconnected(Reason::Eof, pair.now);
        while let Some(notice) = pair.session.next() {
            if let Notice::Disconnected(end) = notice {
                return end.unconfirmed_publishes;
            }
        }
        panic!("no end was told");
    };
    for _ in 0..3 {
        pair.session.publish("m/a", &X).unwrap();
    }
    let token = pair.session.ping().unwrap();
    for _ in 0..2 {
        pair.session.publish("m/a", &X).unwrap();
    }
    assert_eq!(pair.serve(&[pong(token)]), [format!("pong {token}")]);
    assert_eq!(unconfirmed(&mut pair), 2);
    pair.connect(true);
    assert_eq!(unconfirmed(&mut pair), 0);
}

#[test]
fn commands_without_a_reply_are_sent_again_with_their_ids_when_the_session_goes_on() {
    let mut pair = Pair::active();
    for _ in 0..3 {
        pair.session.command("m/a", 1, b"").unwrap();
    }
    pair.sends();
    // Replies of different topics may come in any order; so may these.
    assert_eq!(pair.serve(&[reply(2, 4, 0)]), ["reply m/a 2 code 0"]);
    pair.cut();
    let (_, notices) = pair.connect(true);
    assert_eq!(notices.len(), 1);
    assert_eq!(pair.sends(), ["COMMAND 1 m/a0", "COMMAND 3 m/a0"]);
}

#[test]
fn commands_of_a_session_that_is_gone_have_an_unknown_outcome_unless_they_never_left() {
    let mut pair = Pair::active();
    pair.session.command("m/a", 1, b"").unwrap();
    let first = pair.session.to_send().len();
    pair.session.command("m/a", 1, b"").unwrap();
    pair.session.command("m/a", 1, b"").unwrap();
    // One whole command and one byte of the next have left.
    pair.session.sent(first + 1);
    pair.cut();
    pair.session.command("m/a", 1, b"").unwrap();
    let (_, notices) = pair.connect(false);
    assert_eq!(
        notices,
        ["connected resumed=false", "unknown m/a 1", "unknown m/a 2"]
    );
    assert_eq!(pair.sends(), ["COMMAND 3 m/a0", "COMMAND 4 m/a0"]);
}

#[test]
fn commands_are_not_sent_twice_to_a_user_who_does_not_want_that() {
    let mut pair = Pair::with(|config| config.resend_commands = false);
    pair.connect(false);
    pair.session.command("m/a", 1, b"").unwrap();
    pair.sends();
    pair.cut();
    let (_, notices) = pair.connect(true);
    assert_eq!(notices, ["connected resumed=true", "unknown m/a 1"]);
    assert_eq!(pair.sends(), NOTHING);
}

#[test]
fn every_bound_has_its_error() {
    let mut pair = Pair::with(|config| {
        config.max_unsent = 100;
        config.max_commands = 2;
        config.max_topics = 2;
    });
    pair.session.command("m/a", 1, b"").unwrap();
    pair.session.command("m/a", 1, b"").unwrap();
    assert_eq!(
        pair.session.command("m/a", 1, b""),
        Err(RequestError::TooManyCommands { limit: 2 })
    );
    pair.session.topic("m/b").unwrap();
    assert_eq!(
        pair.session.topic("m/c"),
        Err(RequestError::TooManyTopics { limit: 2 })
    );
    pair.connect(false);
    pair.sends();
    let mut full = Ok(());
    while full.is_ok() {
        full = pair.session.publish("m/b", &X);
    }
    assert!(matches!(full, Err(RequestError::Full { unsent, limit: 100 }) if unsent < 200));
    pair.sends();
    assert_eq!(pair.session.publish("m/b", &X), Ok(()));
}

#[test]
fn a_forgotten_topic_makes_room_and_its_handle_is_refused() {
    let mut pair = Pair::with(|config| config.max_topics = 1);
    let old = pair.session.topic("m/a").unwrap();
    pair.session.forget(old).unwrap();
    pair.notices();
    let new = pair.session.topic("m/b").unwrap();
    assert_eq!(old.index(), new.index());
    pair.connect(false);
    assert_eq!(
        pair.session.publish(old, &X),
        Err(RequestError::StaleHandle)
    );
    assert_eq!(pair.session.publish(new, &X), Ok(()));
}

#[test]
fn topics_that_come_and_go_leave_nothing_behind() {
    let mut pair = Pair::with(|config| config.max_topics = 1);
    pair.connect(false);
    for round in 0..100 {
        let topic = format!("m/{round}");
        pair.live(&topic, round + 1, StartAt::Now, 0);
        let request = pair.session.unsubscribe(&topic).unwrap();
        let notices = pair.serve(&[unsubscribed(request, round + 1, 0)]);
        assert_eq!(notices, [format!("unsubscribed {topic} 0")]);
    }
}
