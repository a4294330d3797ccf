//! Connections that come and go.

use tickring_protocol::{ErrorCode, ErrorFrame, FrameType, Ping};

use super::*;

#[test]
fn a_session_presents_its_token_and_resumes_behind_what_it_has() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 3);
    pair.serve(&[snapshot(4, 3), event(4, 4), event(4, 5)]);
    assert_eq!(
        pair.cut(),
        ["disconnected the server closed the connection without a goodbye"]
    );
    let (presented, notices) = pair.connect(true);
    assert_eq!(
        (presented, &notices[..]),
        (TOKEN, &["connected resumed=true".to_owned()][..])
    );
    assert_eq!(pair.sends(), ["SUBSCRIBE 1 m/a from 6 epoch 7"]);
    // The server has another id for it now.
    let notices = pair.serve(&[subscribed(1, "m/a", 9, 6, 6), event(9, 6)]);
    assert_eq!(
        notices,
        ["subscribed m/a next 6 resumed=true", "event m/a 6"]
    );
}

#[test]
fn a_snapshot_lost_with_the_connection_is_asked_for_again() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 3);
    pair.cut();
    pair.connect(true);
    assert_eq!(pair.sends(), ["SUBSCRIBE 1 m/a from 0 epoch 0"]);
    let notices = pair.serve(&[subscribed(1, "m/a", 4, 8, 7), snapshot(4, 7)]);
    assert_eq!(
        notices,
        [
            "subscribed m/a next 8 resumed=true",
            "gap m/a Expired 4-7",
            "snapshot m/a 7"
        ],
        "what was passed over meanwhile is told"
    );
}

#[test]
fn a_snapshot_that_makes_up_for_a_gap_is_not_lost_either() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    pair.serve(&[event(4, 1), gap(4, GapReason::Conflated, 2, 5)]);
    pair.cut();
    pair.connect(true);
    assert_eq!(pair.sends(), ["SUBSCRIBE 1 m/a from 2 epoch 7"]);
}

#[test]
fn a_topic_without_state_resumes_by_seq_once_a_pong_shows_that_no_snapshot_comes() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 3);
    let mut token = None;
    pair.read(|frame| {
        if let Frame::Ping(Ping { token: sent }) = frame {
            token = Some(sent);
        }
    });
    // `live` has read the SUBSCRIBE only: the PING followed SUBSCRIBED.
    assert_eq!(pair.serve(&[pong(token.unwrap())]), [""; 0]);
    pair.cut();
    pair.connect(true);
    assert_eq!(pair.sends(), ["SUBSCRIBE 1 m/a from 4 epoch 7"]);
}

#[test]
fn what_came_before_the_end_is_delivered_before_it() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    let mut bytes = Vec::new();
    event(4, 1).encode(&mut bytes);
    event(4, 2).encode(&mut bytes);
    pair.session.receive(&bytes[..bytes.len() - 1], pair.now);
    pair.session.disconnected(Reason::Eof, pair.now);
    let notices = pair.notices();
    assert_eq!(notices.len(), 2);
    assert_eq!(notices[0], "event m/a 1", "and half of event 2 is not");
}

#[test]
fn malformed_bytes_end_the_connection_by_name() {
    for (bytes, code) in [
        (&[7, 0, 0, 0, 0x15, 0, 0, 0][..], ErrorCode::BadLength),
        (&[9, 0, 0, 0, 0x15, 0, 0, 0, 1], ErrorCode::BadBody),
        (&[8, 0, 0, 0, 0x55, 0, 0, 0], ErrorCode::UnknownType),
        (&[0, 0, 0, 2, 0x15, 0, 0, 0], ErrorCode::FrameTooLarge),
    ] {
        let mut pair = Pair::active();
        pair.serve_bytes(bytes);
        let ProtocolError::Malformed(error) = violation(&pair) else {
            panic!("{code}");
        };
        assert_eq!(error.code, code);
    }
}

#[test]
fn what_only_a_client_may_send_or_comes_before_welcome_is_a_breach() {
    let mut pair = Pair::active();
    let mut bytes = Vec::new();
    Frame::Subscribe(tickring_protocol::Subscribe {
        request_id: 1,
        from_seq: 0,
        epoch: 0,
        policy: Policy::Default,
        topic: "m/a",
    })
    .encode(&mut bytes);
    pair.serve_bytes(&bytes);
    assert_eq!(
        violation(&pair),
        ProtocolError::Unexpected(FrameType::Subscribe)
    );
    let mut pair = Pair::new();
    pair.session.connected(pair.now);
    pair.serve(&[event(1, 1)]);
    assert_eq!(
        violation(&pair),
        ProtocolError::Unexpected(FrameType::Event)
    );
    let mut pair = Pair::active();
    pair.serve(&[welcome(false)]);
    assert_eq!(
        violation(&pair),
        ProtocolError::Unexpected(FrameType::Welcome)
    );
}

#[test]
fn another_major_version_is_not_tried_again() {
    let mut pair = Pair::new();
    pair.session.connected(pair.now);
    let Frame::Welcome(mut told) = welcome(false) else {
        unreachable!()
    };
    told.major = 2;
    pair.serve(&[Frame::Welcome(told)]);
    assert_eq!(violation(&pair), ProtocolError::Version(2));
    assert_eq!(pair.session.reconnect_at(), None);
}

fn error(code: ErrorCode, fatal: bool, request_id: u64) -> Frame<'static> {
    Frame::Error(ErrorFrame {
        code: code as u16,
        frame_type: 1,
        fatal,
        retry_after_ms: 900,
        request_id,
        text: "because",
    })
}

#[test]
fn a_fatal_error_is_the_reason_and_refused_credentials_are_not_tried_again() {
    for (code, again) in [
        (ErrorCode::Unauthorized, false),
        (ErrorCode::ConnectionLimit, true),
    ] {
        let mut pair = Pair::new();
        pair.session.connected(pair.now);
        let notices = pair.serve(&[error(code, true, 0)]);
        assert_eq!(notices, [format!("refused 0 None {} because", code as u16)]);
        pair.cut();
        assert_eq!(
            pair.session.last_reason(),
            Some(Reason::Refused(code as u16))
        );
        let at = pair.session.reconnect_at();
        assert_eq!(at.is_some(), again);
        assert!(at.is_none_or(|at| at >= pair.now + Duration::from_millis(900)));
    }
}

#[test]
fn a_goodbye_is_answered_once_no_reply_is_outstanding() {
    let mut pair = Pair::active();
    pair.session.command("m/a", 1, b"").unwrap();
    assert_eq!(pair.sends(), ["COMMAND 1 m/a0"]);
    let notices = pair.serve(&[goodbye(29)]);
    assert_eq!(notices, ["goodbye 29 bye"]);
    assert_eq!(pair.sends(), [""; 0]);
    assert_eq!(
        pair.session.publish(
            "m/a",
            &Publish {
                kind: 1,
                event_ns: 0,
                body: b""
            }
        ),
        Err(RequestError::Offline)
    );
    assert_eq!(
        pair.session.command("m/a", 1, b""),
        Ok(2),
        "for the next connection"
    );
    assert_eq!(pair.serve(&[reply(1, 4, 0)]), ["reply m/a 1 code 0"]);
    assert_eq!(pair.sends(), ["Goodbye"]);
    pair.cut();
    assert_eq!(pair.session.last_reason(), Some(Reason::Goodbye(29)));
    let at = pair.session.reconnect_at().unwrap();
    assert!(at >= pair.now + Duration::from_millis(700));
    pair.connect(false);
    assert_eq!(pair.sends(), ["COMMAND 2 m/a0"]);
}

#[test]
fn closing_says_goodbye_and_ends_without_a_retry() {
    let mut pair = Pair::active();
    pair.live("m/a", 4, StartAt::Now, 0);
    pair.session.close();
    assert_eq!(pair.sends(), ["Goodbye"]);
    let notices = pair.serve(&[event(4, 1), goodbye(0)]);
    assert_eq!(notices, ["event m/a 1", "goodbye 0 bye"]);
    assert_eq!(pair.sends(), [""; 0], "goodbye is said once");
    assert_eq!(pair.cut(), ["disconnected closed by this client"]);
    assert_eq!(pair.session.reconnect_at(), None);
    assert_eq!(
        pair.session.subscribe("m/b", SubscribeOptions::default()),
        Err(RequestError::Closed)
    );
}

/// Runs timers until `until`; how many PINGs were sent and when the last one was.
fn run_timers(pair: &mut Pair, until: Duration) -> usize {
    let mut pings = 0;
    while let Some(at) = pair.session.next_timeout().filter(|&at| at <= until) {
        pair.now = at;
        pair.session.handle_timeout(at);
        pair.read(|frame| pings += usize::from(matches!(frame, Frame::Ping(_))));
        pair.notices();
    }
    pair.now = until;
    pings
}

#[test]
fn an_idle_session_pings_at_least_once_in_a_heartbeat() {
    let mut pair = Pair::active();
    let mut token = 0;
    for _ in 0..20 {
        let until = pair.now + Duration::from_millis(u64::from(HEARTBEAT_MS));
        assert!(run_timers(&mut pair, until) >= 1);
        while token + 1 < pair.session.state.next_token {
            token += 1;
            pair.serve(&[pong(token)]);
        }
    }
    assert!(pair.session.is_active());
}

#[test]
fn a_server_that_answers_nothing_for_three_heartbeats_is_given_up() {
    let mut pair = Pair::active();
    let start = pair.now;
    let beat = Duration::from_millis(u64::from(HEARTBEAT_MS));
    run_timers(&mut pair, start + beat * 3);
    assert!(pair.session.is_active(), "not sooner");
    run_timers(&mut pair, start + beat * 5);
    assert_eq!(pair.session.last_reason(), Some(Reason::Silent));
}

#[test]
fn a_user_who_was_away_for_long_does_not_take_the_server_for_dead() {
    let mut pair = Pair::active();
    pair.now += Duration::from_secs(3600);
    pair.session.handle_timeout(pair.now);
    assert!(pair.session.is_active());
}

#[test]
fn a_ping_of_the_server_is_answered() {
    let mut pair = Pair::active();
    pair.serve(&[Frame::Ping(Ping { token: 5 })]);
    let mut answered = None;
    pair.read(|frame| {
        if let Frame::Pong(pong) = frame {
            answered = Some(pong.token);
        }
    });
    assert_eq!(answered, Some(5));
}

#[test]
fn waits_double_up_to_the_longest_and_lie_in_its_upper_half() {
    let (min, max) = (Duration::from_millis(10), Duration::from_millis(100));
    let mut pair = Pair::with(|config| {
        config.backoff_min = min;
        config.backoff_max = max;
    });
    for attempt in 0..8 {
        pair.now = pair.session.reconnect_at().unwrap().max(pair.now);
        let reason = Reason::Transport(std::io::ErrorKind::ConnectionRefused);
        pair.session.disconnected(reason, pair.now);
        let Some(Notice::Disconnected(end)) = pair.session.next() else {
            panic!("a failed attempt is told of");
        };
        let full = (min * 2u32.pow(attempt)).min(max);
        let wait = end.retry_in.unwrap();
        assert!(full / 2 <= wait && wait <= full, "{attempt}: {wait:?}");
        assert_eq!(pair.session.reconnect_at(), Some(pair.now + wait));
    }
}

#[test]
fn attempts_are_bounded_where_asked_and_a_connection_starts_the_count_anew() {
    let mut pair = Pair::with(|config| config.max_attempts = 2);
    let fail = |pair: &mut Pair| {
        let reason = Reason::Transport(std::io::ErrorKind::ConnectionRefused);
        pair.session.disconnected(reason, pair.now);
        pair.notices();
        pair.session.reconnect_at().is_some()
    };
    assert!(fail(&mut pair));
    pair.connect(false);
    pair.cut();
    assert!(pair.session.reconnect_at().is_some());
    assert!(!fail(&mut pair));
    assert_eq!(
        pair.session.command("m/a", 1, b""),
        Err(RequestError::Closed)
    );
}
