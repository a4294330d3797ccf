//! Measures the journal: encoding on a core, appending with group commit, recovery, reading.
//!
//!     cargo run --release --example journal_throughput -- DIR [EVENTS] [EVENTS_PER_BATCH] [BODY_BYTES]
//!
//! DIR is made, must be empty, and holds the journal afterwards. For figures about a disk, DIR must be on that disk.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tickring::journal::record::{Event, Record, Topic};
use tickring::journal::{
    Limits, Port, Progress, Reader, Refused, Status, Writer, WriterConfig, lane_dir, recover,
    verify,
};

const TOPICS: u32 = 8_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (events, per_batch, body) = (number(4_000_000)?, number(256)?, number(48)?);
    let lane = lane_dir(&dir, 0);

    let start = recover(&lane, 0, |_| {})?;
    if start.position != 0 {
        return Err("the directory holds a journal already".into());
    }
    let config = WriterConfig {
        dir: lane.clone(),
        start: start.start(1, 0x1234_5678_9abc_def0),
        limits: Limits::default(),
        keep_states: false,
    };
    let main = thread::current();
    let wake = Box::new(move || main.unpark());
    let (writer, mut ports) = Writer::spawn(config, vec![wake], None)?;
    let (port, status) = (&mut ports[0], writer.status().clone());

    alone(port, &status);
    let begin = Instant::now();
    let (commits_before, bytes_before) = (status.commits(), status.committed());
    let mut encoding = Duration::ZERO;
    let body = vec![7; body as usize];
    let mut next = 0;
    while next < events {
        let mut batch = port.buffer();
        let from = Instant::now();
        if next == 0 {
            topics(&mut batch)?;
        }
        let end = events.min(next + per_batch);
        for index in next..end {
            let topic = (index % u64::from(TOPICS)) as u32 + 1;
            event(topic, index / u64::from(TOPICS) + 1, &body).encode(true, &mut batch)?;
        }
        next = end;
        encoding += from.elapsed();
        send(port, batch);
    }
    while port.committed() < port.sent() && !status.is_failed() {
        thread::park_timeout(Duration::from_millis(10));
    }
    let took = begin.elapsed().as_secs_f64();
    if let Some(failure) = status.failure() {
        return Err(failure.into());
    }
    let commits = (status.commits() - commits_before) as f64;
    let bytes = (status.committed() - bytes_before) as f64;
    writer.stop()?;
    println!(
        "encode   {:>12.1} ns/event",
        encoding.as_nanos() as f64 / events as f64
    );
    println!("append   {:>12.0} events/s", events as f64 / took);
    println!(
        "         {:>12.0} fdatasync/s, {:.0} events each",
        commits / took,
        events as f64 / commits
    );
    println!(
        "         {:>12.1} MB/s, {:.1} bytes/event",
        bytes / took / 1e6,
        bytes / events as f64
    );

    let begin = Instant::now();
    let (mut seen, mut sum) = (0u64, 0u64);
    let recovered = recover(&lane, 0, |entry| {
        if let Record::Event(event) = entry.record {
            seen += 1;
            sum = sum.wrapping_add(event.seq ^ entry.topic as u64);
        }
    })?;
    report("recover", begin, seen, recovered.position, sum);

    let begin = Instant::now();
    let mut reader = Reader::open(&lane, 0, 0)?;
    let (mut read, mut sum) = (0u64, 0u64);
    while let Some(batch) = reader.batch(recovered.position)? {
        for entry in batch.entries() {
            if let Record::Event(event) = entry.record {
                read += 1;
                sum = sum.wrapping_add(event.seq ^ entry.topic as u64);
            }
        }
    }
    report("reader", begin, read, recovered.position, sum);

    let begin = Instant::now();
    let verified = verify(&lane, 0, &Progress::default())?;
    report(
        "verify",
        begin,
        verified.segments.iter().map(|s| s.events).sum(),
        verified.position,
        0,
    );
    if seen != events || read != events || !verified.is_good() {
        return Err(format!("{events} events were written, {seen} and {read} read back").into());
    }
    Ok(())
}

/// One batch at a time: the time from sending it to its release.
fn alone(port: &mut Port, status: &Status) {
    let mut took: Vec<Duration> = (0..1_000)
        .map(|_| {
            let from = Instant::now();
            let ticket = port.sent() + 1;
            send(port, Vec::new());
            while port.committed() < ticket && !status.is_failed() {
                thread::park_timeout(Duration::from_millis(10));
            }
            from.elapsed()
        })
        .collect();
    took.sort();
    println!(
        "alone    {:>12.0} us median, {:.0} us p99",
        took[500].as_secs_f64() * 1e6,
        took[990].as_secs_f64() * 1e6
    );
}

fn report(what: &str, begin: Instant, events: u64, bytes: u64, sum: u64) {
    let took = begin.elapsed().as_secs_f64();
    let (rate, mega) = (events as f64 / took, bytes as f64 / took / 1e6);
    println!("{what:<8} {rate:>12.0} events/s, {mega:.1} MB/s ({events} events, sum {sum:x})");
}

fn topics(batch: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    for number in 1..=TOPICS {
        let name = format!("market/SYM{number}");
        Topic {
            number,
            epoch: 1,
            name: &name,
        }
        .encode(false, batch)?;
    }
    Ok(())
}

fn event(topic: u32, seq: u64, body: &[u8]) -> Event<'_> {
    Event {
        topic,
        kind: 1,
        seq,
        session: 1 << 100,
        request_id: seq,
        event_ns: seq,
        node_ns: seq,
        body,
    }
}

fn send(port: &mut Port, mut batch: Vec<u8>) {
    while let Err(Refused(back)) = port.send(batch) {
        batch = back;
        thread::park_timeout(Duration::from_millis(1));
    }
}
