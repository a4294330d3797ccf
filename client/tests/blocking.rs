//! The blocking client against an in-process server on a real socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use fake::{Peer, listen};
use tickring_client::protocol::{
    ErrorCode, EventKind, Frame, Goodbye, Pong, Publish, Reply, Series,
};
use tickring_client::{
    Client, ClientError, HistoryQuery, Notice, Options, Reason, RequestError, StartAt,
    SubscribeOptions,
};

const LONG: Duration = Duration::from_secs(20);

fn message(body: &[u8]) -> Publish<'_> {
    Publish {
        kind: EventKind::Message as u16,
        event_ns: 0,
        body,
    }
}

/// Takes notices until `wanted` takes one.
fn until<R>(client: &mut Client, mut wanted: impl FnMut(Notice<'_>) -> Option<R>) -> R {
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        if let Some(notice) = client.next(Duration::from_millis(100)).unwrap()
            && let Some(result) = wanted(notice)
        {
            return result;
        }
    }
    panic!("the notice did not come");
}

fn seq_of(notice: Notice<'_>) -> Option<u64> {
    match notice {
        Notice::Event { event, .. } => Some(event.seq),
        _ => None,
    }
}

fn options(address: &str) -> Options {
    Options::new(address)
        .name("test")
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .seed(1)
}

#[test]
fn a_subscription_goes_on_behind_its_newest_event_after_the_connection_broke() {
    for busy_poll in [false, true] {
        let (listener, address) = listen();
        let server = thread::spawn(move || {
            let (mut peer, presented) = Peer::welcome(&listener, 9, false);
            assert_eq!(presented, 0);
            assert_eq!(peer.subscribed(5, 1, 2), (1, 0));
            peer.event(5, 1, b"a");
            peer.event(5, 2, b"b");
            drop(peer);
            let (mut peer, presented) = Peer::welcome(&listener, 9, true);
            assert_eq!(presented, 9, "the session's token is presented again");
            let asked = peer.subscribed(6, 3, 3);
            assert_eq!(asked, (3, 77), "from the next seq, with its epoch");
            peer.event(6, 3, b"c");
            peer.until_gone();
        });
        let mut client = options(&address).busy_poll(busy_poll).connect().unwrap();
        let from_the_oldest = SubscribeOptions {
            from: StartAt::Oldest,
            ..Default::default()
        };
        client.subscribe("chat/lobby", from_the_oldest).unwrap();
        let mut seqs = Vec::new();
        let mut ends = 0;
        until(&mut client, |notice| {
            seqs.extend(seq_of(notice));
            if let Notice::Disconnected(end) = notice {
                assert_eq!(end.reason, Reason::Eof);
                ends += 1;
            }
            (seqs.len() == 3).then_some(())
        });
        assert_eq!((seqs, ends), (vec![1, 2, 3], 1));
        drop(client);
        server.join().unwrap();
    }
}

#[test]
fn nobody_listening_is_an_error_at_once() {
    let (listener, address) = listen();
    drop(listener);
    let error = options(&address).connect().unwrap_err();
    assert_eq!(
        error,
        ClientError::Disconnected(Reason::Transport(std::io::ErrorKind::ConnectionRefused))
    );
}

#[test]
fn a_server_that_accepts_but_never_welcomes_is_given_up_in_time() {
    let (listener, address) = listen();
    let error = options(&address)
        .connect_timeout(Duration::from_millis(50))
        .connect()
        .unwrap_err();
    assert_eq!(error, ClientError::Disconnected(Reason::HelloTimeout));
    drop(listener);
}

#[test]
fn publishes_go_by_name_until_the_reply_tells_the_id_and_a_barrier_waits_for_all() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 1, false);
        let mut forms = Vec::new();
        loop {
            enum Do {
                Learn(u64),
                Pong(u64),
                Nothing,
            }
            let Some(what) = peer.next(|frame| match frame {
                Frame::Command(c) => {
                    forms.push((c.topic.to_owned(), c.topic_id, c.quiet));
                    if c.quiet {
                        Do::Nothing
                    } else {
                        Do::Learn(c.request_id)
                    }
                }
                Frame::Ping(ping) => Do::Pong(ping.token),
                _ => Do::Nothing,
            }) else {
                return forms;
            };
            match what {
                Do::Learn(request_id) => peer.send(&Frame::Reply(Reply {
                    request_id,
                    topic_id: 8,
                    code: 0,
                    seq: 1,
                    retry_after_ms: 0,
                    payload: b"",
                })),
                Do::Pong(token) => peer.send(&Frame::Pong(Pong { token, node_ns: 0 })),
                Do::Nothing => {}
            }
        }
    });
    let mut client = options(&address).connect().unwrap();
    let topic = client.topic("chat/a").unwrap();
    client.publish(topic, &message(b"1")).unwrap();
    client.publish("chat/a", &message(b"2")).unwrap();
    client.barrier(LONG).unwrap();
    client.publish(topic, &message(b"3")).unwrap();
    client.barrier(LONG).unwrap();
    drop(client);
    let by_name = |quiet| ("chat/a".to_owned(), 0, quiet);
    let by_id = (String::new(), 8, true);
    assert_eq!(
        server.join().unwrap(),
        [by_name(false), by_name(true), by_id]
    );
}

#[test]
fn events_that_come_while_a_command_waits_are_kept_in_order() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 1, false);
        peer.subscribed(5, 1, 0);
        let request_id = peer.expect(|frame| match frame {
            Frame::Command(c) => Some(c.request_id),
            _ => None,
        });
        peer.event(5, 1, b"x");
        peer.event(5, 2, b"y");
        peer.send(&Frame::Reply(Reply {
            request_id,
            topic_id: 5,
            code: 0,
            seq: 2,
            retry_after_ms: 0,
            payload: b"done",
        }));
        peer.event(5, 3, b"z");
        let refused = peer.expect(|frame| match frame {
            Frame::Command(c) => Some(c.request_id),
            _ => None,
        });
        peer.send(&Frame::Reply(Reply {
            request_id: refused,
            topic_id: 5,
            code: ErrorCode::Overloaded as u16,
            seq: 0,
            retry_after_ms: 40,
            payload: b"later",
        }));
        peer.until_gone();
    });
    let mut client = options(&address).connect().unwrap();
    client
        .subscribe("chat/a", SubscribeOptions::default())
        .unwrap();
    let reply = client.command("chat/a", 40, b"do", LONG).unwrap();
    assert_eq!((reply.seq, &reply.payload[..]), (2, &b"done"[..]));
    let refused = client.command("chat/a", 40, b"do", LONG).unwrap_err();
    assert_eq!(
        refused,
        ClientError::Refused {
            code: ErrorCode::Overloaded as u16,
            retry_after_ms: 40,
            text: "later".to_owned()
        }
    );
    let mut seqs = Vec::new();
    let handed = client
        .poll(Duration::ZERO, |notice| seqs.extend(seq_of(notice)))
        .unwrap();
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(handed, 5, "with CONNECTED and SUBSCRIBED");
    drop(client);
    server.join().unwrap();
}

#[test]
fn both_sides_writing_50_mb_at_each_other_get_through() {
    const MB_50: usize = 50 << 20;
    let body = vec![7; 1000];
    let count = (MB_50 / body.len()) as u64;
    let (listener, address) = listen();
    let sent = body.clone();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 1, false);
        peer.subscribed(5, 1, 0);
        // Writes everything before it reads anything: a client that stops reading while it
        // writes would wait for ever, and so would this.
        let mut out = Vec::new();
        for seq in 1..=count {
            fake::event(5, seq, &sent).encode(&mut out);
        }
        peer.stream.write_all(&out).unwrap();
        peer.until_gone()
    });
    let mut client = options(&address)
        .max_unread(80 << 20)
        .session(|session| session.answer_timeout = LONG)
        .connect()
        .unwrap();
    client
        .subscribe("chat/a", SubscribeOptions::default())
        .unwrap();
    let topic = client.topic("chat/b").unwrap();
    for _ in 0..count {
        client.publish(topic, &message(&body)).unwrap();
    }
    client.flush().unwrap();
    let mut next = 1;
    until(&mut client, |notice| {
        if let Some(seq) = seq_of(notice) {
            assert_eq!(seq, next);
            next += 1;
        }
        (next > count).then_some(())
    });
    drop(client);
    assert_eq!(server.join().unwrap(), count);
}

#[test]
fn notices_that_nobody_takes_stop_the_publisher_with_an_error_and_are_not_lost() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 1, false);
        peer.subscribed(5, 1, 0);
        for seq in 1..=100 {
            peer.event(5, seq, &[0; 1000]);
        }
        peer.until_gone();
    });
    let mut client = options(&address).max_unread(20_000).connect().unwrap();
    client
        .subscribe("chat/a", SubscribeOptions::default())
        .unwrap();
    let error = loop {
        client.publish("chat/b", &message(b"x")).unwrap();
        if let Err(error) = client.flush() {
            break error;
        }
    };
    assert!(
        matches!(error, ClientError::Unread(bytes) if bytes > 20_000),
        "{error:?}"
    );
    let mut next = 1;
    until(&mut client, |notice| {
        if let Some(seq) = seq_of(notice) {
            assert_eq!(seq, next);
            next += 1;
        }
        (next > 100).then_some(())
    });
    client.flush().unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn publishing_is_refused_while_offline_and_goes_on_once_connected() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 1, false);
        peer.send(&Frame::Goodbye(Goodbye {
            code: ErrorCode::ShuttingDown as u16,
            retry_after_ms: 30,
            text: "bye",
        }));
        drop(peer);
        let (mut peer, _) = Peer::welcome(&listener, 2, false);
        let body = peer.expect(|frame| match frame {
            Frame::Command(c) => Some(Publish::decode(c.payload).unwrap().body.to_vec()),
            _ => None,
        });
        assert_eq!(body, b"after");
        peer.until_gone();
    });
    let mut client = options(&address).connect().unwrap();
    let retry_in = until(&mut client, |notice| match notice {
        Notice::Disconnected(end) => {
            assert_eq!(end.reason, Reason::Goodbye(ErrorCode::ShuttingDown as u16));
            end.retry_in
        }
        _ => None,
    });
    assert!(retry_in >= Duration::from_millis(30), "{retry_in:?}");
    assert_eq!(
        client.publish("chat/a", &message(b"lost")),
        Err(ClientError::Request(RequestError::Offline))
    );
    client.wait_connected(LONG).unwrap();
    client.publish("chat/a", &message(b"after")).unwrap();
    client.flush().unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn closing_says_goodbye_takes_what_was_promised_and_connects_no_more() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 1, false);
        peer.subscribed(5, 1, 0);
        peer.expect(|frame| matches!(frame, Frame::Goodbye(_)).then_some(()));
        peer.event(5, 1, b"promised");
        peer.send(&Frame::Goodbye(Goodbye {
            code: 0,
            retry_after_ms: 0,
            text: "",
        }));
    });
    let mut client = options(&address).connect().unwrap();
    client
        .subscribe("chat/a", SubscribeOptions::default())
        .unwrap();
    until(&mut client, |notice| {
        matches!(notice, Notice::Subscribed { .. }).then_some(())
    });
    client.close(LONG).unwrap();
    let mut seqs = Vec::new();
    let end = loop {
        match client.next(Duration::from_millis(10)) {
            Ok(notice) => seqs.extend(notice.and_then(seq_of)),
            Err(error) => break error,
        }
    };
    assert_eq!((seqs, end), (vec![1], ClientError::Closed(Reason::Closed)));
    server.join().unwrap();
}

#[test]
fn stored_rows_are_read_page_by_page_and_a_broken_connection_costs_no_page() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 9, false);
        let first = peer.page(true);
        peer.expect(|frame| matches!(frame, Frame::History(_)).then_some(()));
        drop(peer);
        let (mut peer, _) = Peer::welcome(&listener, 9, true);
        [first, peer.page(false)]
    });
    let mut client = options(&address).connect().unwrap();
    let mut query = HistoryQuery::of(Series::Minute);
    let mut starts = Vec::new();
    loop {
        let page = client.history("market/A", query, LONG).unwrap();
        starts.extend(page.candles().map(|candle| candle.unwrap().start_ns));
        if !page.more {
            break;
        }
        query.cursor = page.next;
    }
    assert_eq!(starts, [0, 60]);
    assert_eq!(server.join().unwrap(), [0, 60]);
}
