//! The tokio client against an in-process server on a real socket.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::io::Write;
use std::thread;
use std::time::Duration;

use fake::{Peer, listen};
use tickring_client::protocol::{
    Cursor, ErrorCode, ErrorFrame, EventKind, Frame, FrameType, Goodbye, Pong, Publish, Reply,
    Series,
};
use tickring_client::{
    AsyncClient, ClientError, HistoryQuery, HistoryRows, Notice, Notices, Options, Reason,
    RequestError, StartAt, SubscribeOptions,
};

const LONG: Duration = Duration::from_secs(20);
const MESSAGE: u16 = EventKind::Message as u16;

fn options(address: &str) -> Options {
    Options::new(address)
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .seed(1)
}

async fn connect(address: &str) -> (AsyncClient, Notices) {
    options(address).connect_async().await.unwrap()
}

/// Takes notices until `wanted` takes one.
async fn until<R>(notices: &mut Notices, mut wanted: impl FnMut(Notice<'_>) -> Option<R>) -> R {
    loop {
        let next = tokio::time::timeout(LONG, notices.next()).await;
        let notice = next
            .expect("the notice did not come")
            .expect("the client ended");
        if let Some(result) = wanted(notice.get()) {
            return result;
        }
    }
}

fn seq_of(notice: Notice<'_>) -> Option<u64> {
    match notice {
        Notice::Event { event, .. } => Some(event.seq),
        _ => None,
    }
}

fn reply_to(request_id: u64) -> Frame<'static> {
    Frame::Reply(Reply {
        request_id,
        topic_id: 5,
        code: 0,
        seq: 2,
        retry_after_ms: 0,
        payload: b"done",
    })
}

#[tokio::test]
async fn a_subscription_goes_on_behind_its_newest_event_after_the_connection_broke() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 9, false);
        assert_eq!(peer.subscribed(5, 1, 2), (1, 0));
        peer.event(5, 1, b"a");
        peer.event(5, 2, b"b");
        drop(peer);
        let (mut peer, presented) = Peer::welcome(&listener, 9, true);
        assert_eq!(presented, 9);
        assert_eq!(peer.subscribed(6, 3, 3), (3, 77));
        peer.event(6, 3, b"c");
        peer.until_gone();
    });
    let (client, mut notices) = connect(&address).await;
    let from_the_oldest = SubscribeOptions {
        from: StartAt::Oldest,
        ..Default::default()
    };
    client.subscribe("chat/a", from_the_oldest).await.unwrap();
    let mut seqs = Vec::new();
    until(&mut notices, |notice| {
        seqs.extend(seq_of(notice));
        (seqs.len() == 3).then_some(())
    })
    .await;
    assert_eq!(seqs, [1, 2, 3]);
    drop((client, notices));
    tokio::task::spawn_blocking(|| server.join().unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn nobody_listening_is_an_error_at_once() {
    let (listener, address) = listen();
    drop(listener);
    let error = options(&address).connect_async().await.unwrap_err();
    let refused = Reason::Transport(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(error, ClientError::Disconnected(refused));
}

#[tokio::test]
async fn replies_and_barriers_go_to_who_waits_and_events_to_the_notices() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 1, false);
        peer.subscribed(5, 1, 0);
        let request_id = peer.expect(|frame| match frame {
            Frame::Command(c) if !c.quiet => Some(c.request_id),
            _ => None,
        });
        peer.send(&reply_to(request_id));
        peer.expect(|frame| matches!(frame, Frame::Command(c) if c.quiet).then_some(()));
        peer.event(5, 1, b"x");
        let token = peer.expect(|frame| match frame {
            Frame::Ping(ping) => Some(ping.token),
            _ => None,
        });
        peer.send(&Frame::Pong(Pong { token, node_ns: 0 }));
        peer.until_gone();
    });
    let (client, mut notices) = connect(&address).await;
    client
        .subscribe("chat/a", SubscribeOptions::default())
        .await
        .unwrap();
    let event = Publish {
        kind: MESSAGE,
        event_ns: 0,
        body: b"x",
    };
    let reply = client.publish_confirmed("chat/a", &event, LONG).await;
    assert_eq!(reply.unwrap().payload, b"done");
    let topic = client.topic("chat/a").await.unwrap();
    client.publish(topic, MESSAGE, 0, "y").await.unwrap();
    client.barrier(LONG).await.unwrap();
    assert_eq!(until(&mut notices, seq_of).await, 1);
    client.close().await;
    drop(client);
    tokio::task::spawn_blocking(|| server.join().unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn closing_takes_what_was_promised_then_ends_the_notices() {
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
    let (client, mut notices) = connect(&address).await;
    client
        .subscribe("chat/a", SubscribeOptions::default())
        .await
        .unwrap();
    until(&mut notices, |notice| {
        matches!(notice, Notice::Subscribed { .. }).then_some(())
    })
    .await;
    client.close().await;
    assert_eq!(until(&mut notices, seq_of).await, 1);
    let reason = until(&mut notices, |notice| match notice {
        Notice::Disconnected(end) => Some(end.reason),
        _ => None,
    });
    assert_eq!(reason.await, Reason::Closed);
    assert_eq!(notices.next().await, None);
    let late = client.barrier(LONG).await;
    assert_eq!(late, Err(ClientError::Closed(Reason::Closed)));
    server.join().unwrap();
}

#[tokio::test]
async fn both_sides_writing_50_mb_at_each_other_get_through_even_if_notices_wait() {
    const MB_50: usize = 50 << 20;
    let body = vec![7; 10_000];
    let count = (MB_50 / body.len()) as u64;
    let (listener, address) = listen();
    let sent = body.clone();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 1, false);
        peer.subscribed(5, 1, 0);
        let mut out = Vec::new();
        for seq in 1..=count {
            fake::event(5, seq, &sent).encode(&mut out);
        }
        peer.stream.write_all(&out).unwrap();
        peer.until_gone()
    });
    let (client, mut notices) = connect(&address).await;
    client
        .subscribe("chat/a", SubscribeOptions::default())
        .await
        .unwrap();
    let body = bytes::Bytes::from(body);
    for _ in 0..count {
        let publish = client.publish("chat/b", MESSAGE, 0, body.clone());
        tokio::time::timeout(LONG, publish).await.unwrap().unwrap();
    }
    let mut next = 1;
    until(&mut notices, |notice| {
        if let Some(seq) = seq_of(notice) {
            assert_eq!(seq, next);
            next += 1;
        }
        (next > count).then_some(())
    })
    .await;
    drop(client);
    let published = tokio::task::spawn_blocking(|| server.join().unwrap()).await;
    assert_eq!(published.unwrap(), count);
}

#[tokio::test]
async fn notices_that_nobody_takes_are_an_error_of_the_publisher_and_are_not_lost() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 1, false);
        peer.subscribed(5, 1, 0);
        for seq in 1..=3000 {
            peer.event(5, seq, &[0; 100]);
        }
        peer.until_gone();
    });
    let (client, mut notices) = options(&address)
        .max_unread(1000)
        .connect_async()
        .await
        .unwrap();
    client
        .subscribe("chat/a", SubscribeOptions::default())
        .await
        .unwrap();
    let error = loop {
        if let Err(error) = client.publish("chat/b", MESSAGE, 0, "x").await {
            break error;
        }
    };
    assert!(matches!(error, ClientError::Unread(_)), "{error:?}");
    let mut next = 1;
    until(&mut notices, |notice| {
        if let Some(seq) = seq_of(notice) {
            assert_eq!(seq, next);
            next += 1;
        }
        (next > 3000).then_some(())
    })
    .await;
    client.publish("chat/b", MESSAGE, 0, "x").await.unwrap();
    drop(client);
    tokio::task::spawn_blocking(|| server.join().unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn publishing_while_offline_is_refused() {
    let (listener, address) = listen();
    let server = thread::spawn(move || drop(Peer::welcome(&listener, 1, false)));
    let (client, mut notices) = connect(&address).await;
    until(&mut notices, |notice| {
        matches!(notice, Notice::Disconnected(_)).then_some(())
    })
    .await;
    server.join().unwrap();
    let refused = client.publish("chat/a", MESSAGE, 0, "x").await;
    assert_eq!(refused, Err(ClientError::Request(RequestError::Offline)));
}

#[tokio::test]
async fn two_reads_at_once_each_get_their_own_page_and_a_refusal_goes_to_who_asked() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut peer, _) = Peer::welcome(&listener, 9, false);
        peer.page(false);
        peer.page(false);
        let request_id = peer.expect(|frame| match frame {
            Frame::History(h) => Some(h.request_id),
            _ => None,
        });
        peer.send(&Frame::Error(ErrorFrame {
            code: ErrorCode::Overloaded as u16,
            frame_type: FrameType::History as u8,
            fatal: false,
            retry_after_ms: 700,
            request_id,
            text: "no database",
        }));
        peer.until_gone();
    });
    let (client, mut notices) = connect(&address).await;
    let at = |event_ns| HistoryQuery {
        cursor: Cursor { event_ns, seq: 1 },
        ..HistoryQuery::of(Series::Hour)
    };
    let (a, b) = tokio::join!(
        client.history("market/A", at(1), LONG),
        client.history("market/B", at(2), LONG)
    );
    let start = |rows: HistoryRows| rows.candles().next().unwrap().unwrap().start_ns;
    assert_eq!((start(a.unwrap()), start(b.unwrap())), (1, 2));
    let refused = client.history("market/C", at(3), LONG).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { code: 25, retry_after_ms: 700, text } if text == "no database"),
        "{refused}"
    );
    client.close().await;
    while notices.next().await.is_some() {}
    server.join().unwrap();
}
