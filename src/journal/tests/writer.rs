//! The lane's thread, on real files by tokio-uring.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{TempDir, bind, event, seq_of, small};
use crate::journal::driver::Wake;
use crate::journal::{
    JournalError, Limits, Port, Reader, Refused, Writer, WriterConfig, recover, segment,
};

fn spawn(dir: &TempDir, limits: Limits, wakes: Vec<Wake>) -> (Writer, Vec<Port>) {
    let start = recover(dir.path(), 0, |_| {}).unwrap().start(1, 42);
    let config = WriterConfig {
        dir: dir.path().into(),
        start,
        limits,
        keep_states: false,
    };
    Writer::spawn(config, wakes, None).unwrap()
}

fn silent() -> Wake {
    Box::new(|| {})
}

fn batch(topic: u32, seqs: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let mut batch = Vec::new();
    bind(topic, &format!("stream/{topic}"), &mut batch);
    for seq in seqs {
        event(topic, seq, &[seq as u8; 50])
            .encode(true, &mut batch)
            .unwrap();
    }
    batch
}

fn send(port: &mut Port, mut batch: Vec<u8>) -> u64 {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        match port.send(batch) {
            Ok(ticket) => return ticket,
            Err(Refused(back)) => batch = back,
        }
        assert!(Instant::now() < give_up, "the mailbox stays full");
        thread::sleep(Duration::from_micros(100));
    }
}

fn wait_for(what: &str, is: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < give_up, "{what} does not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

fn seqs(dir: &TempDir) -> Vec<u64> {
    let mut seqs = Vec::new();
    recover(dir.path(), 0, |entry| seqs.extend(seq_of(entry))).unwrap();
    seqs
}

#[test]
fn a_batch_is_released_once_it_can_be_read_back_and_its_core_is_woken() {
    let dir = TempDir::new();
    let woken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&woken);
    let wake: Wake = Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let (writer, mut ports) = spawn(&dir, Limits::default(), vec![wake]);
    let port = &mut ports[0];
    assert_eq!(port.committed(), 0);
    let ticket = send(port, batch(1, 1..=3));
    wait_for("the release", || woken.load(Ordering::SeqCst) == 1);
    assert_eq!((port.committed(), port.sent()), (ticket, ticket));
    wait_for("the position", || port.status().committed() > 0);
    let mut reader = Reader::open(dir.path(), 0, 0).unwrap();
    let found = reader.batch(port.status().committed()).unwrap().unwrap();
    assert_eq!(
        found
            .entries()
            .filter_map(|e| seq_of(&e))
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(port.buffer().capacity() > 0, "the buffer comes back");
    writer.stop().unwrap();
    assert_eq!(seqs(&dir), [1, 2, 3]);
}

#[test]
fn stopping_brings_everything_that_was_sent_to_disk() {
    let dir = TempDir::new();
    let slow = Limits {
        max_delay: Duration::from_secs(3_600),
        ..small()
    };
    let (writer, mut ports) = spawn(&dir, slow, vec![silent()]);
    for seq in 1..=40 {
        send(&mut ports[0], batch(1, seq..=seq));
    }
    writer.stop().unwrap();
    assert_eq!(ports[0].committed(), 40);
    assert_eq!(seqs(&dir), (1..=40).collect::<Vec<_>>());
    assert!(ports[0].status().is_closed());
}

#[test]
fn two_cores_are_followed_by_a_reader_while_segments_roll_and_old_ones_go() {
    const BATCHES: u64 = 300;
    let dir = TempDir::new();
    let limits = Limits {
        journal_bytes: 40 << 10,
        ..small()
    };
    let (writer, ports) = spawn(&dir, limits, vec![silent(), silent()]);
    let status = Arc::clone(writer.status());
    let cores: Vec<_> = ports
        .into_iter()
        .enumerate()
        .map(|(core, mut port)| {
            thread::spawn(move || {
                for n in 0..BATCHES {
                    send(&mut port, batch(core as u32 + 1, n * 3 + 1..=n * 3 + 3));
                }
                port
            })
        })
        .collect();
    // The journal has room for a fraction of it: only because the reader gives up what it has read
    // does it go on.
    let mut reader = Reader::open(dir.path(), 0, 0).unwrap();
    let mut newest = [0; 2];
    let give_up = Instant::now() + Duration::from_secs(120);
    while newest != [BATCHES * 3; 2] {
        assert!(
            Instant::now() < give_up,
            "stuck at {newest:?}: {:?}",
            status
        );
        while let Some(batch) = reader.batch(status.committed()).unwrap() {
            for entry in batch.entries() {
                let Some(seq) = seq_of(&entry) else { continue };
                let core = usize::from(batch.topic(entry.topic).0 == "stream/2");
                assert_eq!(seq, newest[core] + 1, "in order, each once");
                newest[core] = seq;
            }
        }
        status.retain(reader.position(), u64::MAX);
        thread::sleep(Duration::from_micros(200));
    }
    let ports: Vec<Port> = cores.into_iter().map(|core| core.join().unwrap()).collect();
    writer.stop().unwrap();
    assert!(ports.iter().all(|port| port.committed() == BATCHES));
    assert!(status.oldest() > 0 && status.disk_bytes() <= 40 << 10);
    let on_disk: u64 = segment::list(dir.path())
        .unwrap()
        .into_iter()
        .map(|first| {
            fs::metadata(segment::path(dir.path(), first))
                .unwrap()
                .len()
        })
        .sum();
    assert!(on_disk <= 40 << 10, "{on_disk}");
    assert!(seqs(&dir).ends_with(&[BATCHES * 3]));
}

#[test]
fn a_full_lane_makes_cores_wait_and_goes_on_when_there_is_room() {
    let dir = TempDir::new();
    let limits = Limits {
        journal_bytes: 20 << 10,
        ..small()
    };
    let (writer, mut ports) = spawn(&dir, limits, vec![silent()]);
    let (port, status) = (&mut ports[0], Arc::clone(writer.status()));
    let mut sent = 0;
    while let Ok(ticket) = port.send(batch(1, sent * 5 + 1..=sent * 5 + 5)) {
        sent = ticket;
        thread::sleep(Duration::from_millis(1));
    }
    assert!(status.is_full() && !status.is_failed());
    let before = port.committed();
    assert!(before < sent);
    status.retain(status.committed(), u64::MAX);
    wait_for("room", || port.committed() > before);
    while port.committed() < sent {
        status.retain(status.committed(), u64::MAX);
        thread::sleep(Duration::from_millis(1));
    }
    writer.stop().unwrap();
    assert!(seqs(&dir).ends_with(&[sent * 5 - 1, sent * 5]));
}

#[test]
fn a_segment_that_cannot_be_made_fails_the_lane_and_releases_nothing() {
    let dir = TempDir::new();
    let (writer, mut ports) = spawn(&dir, small(), vec![silent()]);
    fs::remove_dir_all(dir.path()).unwrap();
    send(&mut ports[0], batch(1, 1..=1));
    wait_for("the failure", || writer.status().is_failed());
    let text = writer.status().failure().unwrap();
    assert!(
        text.contains("cannot create the journal's segment"),
        "{text}"
    );
    assert_eq!(ports[0].committed(), 0);
    writer.stop().unwrap();
}

#[test]
fn a_malformed_batch_fails_the_lane_rather_than_be_released() {
    let dir = TempDir::new();
    let (writer, mut ports) = spawn(&dir, small(), vec![silent()]);
    send(&mut ports[0], batch(1, 1..=1));
    wait_for("the first batch", || ports[0].committed() == 1);
    send(&mut ports[0], vec![1, 2, 3]);
    send(&mut ports[0], batch(1, 2..=2));
    wait_for("the failure", || writer.status().is_failed());
    writer.stop().unwrap();
    assert_eq!(ports[0].committed(), 1);
}

#[test]
fn a_wrong_limit_or_a_missing_directory_is_refused_at_the_start() {
    let dir = TempDir::new();
    let start = recover(dir.path(), 0, |_| {}).unwrap().start(1, 42);
    let config = |limits, path: &str| WriterConfig {
        dir: path.into(),
        start: start.clone(),
        limits,
        keep_states: false,
    };
    let wrong = Limits {
        journal_bytes: 1,
        ..small()
    };
    let error = Writer::spawn(config(wrong, "/"), vec![], None).unwrap_err();
    assert!(matches!(
        error,
        JournalError::Limit {
            field: "journal_bytes",
            ..
        }
    ));
    let error = Writer::spawn(config(small(), "/nowhere/at/all"), vec![], None).unwrap_err();
    assert!(
        error.to_string().contains("cannot open /nowhere/at/all"),
        "{error}"
    );
}

#[test]
fn a_companion_runs_beside_the_lane_and_sees_it_grow() {
    let dir = TempDir::new();
    let start = recover(dir.path(), 0, |_| {}).unwrap().start(1, 42);
    let config = WriterConfig {
        dir: dir.path().into(),
        start,
        limits: small(),
        keep_states: false,
    };
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let companion = Box::new(move |status: Arc<crate::journal::Status>| {
        let future = async move {
            while !status.is_closed() {
                let position = counter.load(Ordering::SeqCst);
                status.committed_beyond(position).await;
                counter.store(status.committed(), Ordering::SeqCst);
            }
        };
        Box::pin(future) as std::pin::Pin<Box<dyn Future<Output = ()>>>
    });
    let (writer, mut ports) = Writer::spawn(config, vec![silent()], Some(companion)).unwrap();
    send(&mut ports[0], batch(1, 1..=1));
    wait_for("the companion's look", || seen.load(Ordering::SeqCst) > 0);
    writer.stop().unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), ports[0].status().committed());
}
