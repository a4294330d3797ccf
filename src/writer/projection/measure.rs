//! How many ticks a second a database takes, candles and latest rows included. Not a test:
//!
//!     TICKRING_TEST_MYSQL=mysql://… cargo test --release --lib measure -- --ignored --nocapture --test-threads 1
//!
//! Event time runs at 100,000 ticks/s over 8,000 instruments, so a second of it makes the candles
//! that a second of such a feed makes. `TICKRING_MEASURE_TICKS` sets how many (default 400,000).

use std::time::Instant;

use tickring_protocol::{EventKind, Micros, Trade};

use super::{PaceLimits, Projection, Record};
use crate::market::Calendars;
use crate::writer::store::tests::Place;
use crate::writer::store::{Database, InsertMode};

const INSTRUMENTS: usize = 8_000;

async fn lane(mut store: Database, lane: u32, ticks: u64) -> u64 {
    let limits = PaceLimits::default();
    let opened = Projection::open(&mut store, lane, 1, Calendars::built_in(), limits).await;
    let (mut projection, _) = opened.unwrap();
    let names: Vec<String> = (0..INSTRUMENTS)
        .map(|n| format!("market/L{lane}-{n}"))
        .collect();
    let mut seqs = [0; INSTRUMENTS];
    let mut random = fastrand::Rng::with_seed(lane.into());
    let mut body = Vec::new();
    let start = 1_723_161_256_000_000_000;
    for n in 0..ticks {
        let at = random.usize(0..INSTRUMENTS);
        seqs[at] += 1;
        let price = Micros(random.i64(1_000_000..900_000_000));
        body.clear();
        Trade {
            price,
            qty: Micros(random.i64(1..5_000_000)),
            ..Trade::default()
        }
        .encode(&mut body);
        let event_ns = start + n * 10_000;
        let record = Record {
            topic: &names[at],
            epoch: 1,
            seq: seqs[at],
            event_ns,
            node_ns: event_ns,
            kind: EventKind::Trade as u16,
            session: 0,
            body: &body,
        };
        projection.push(&record, n + 1, Instant::now());
        // Fed as fast as it takes: only the size of the batch decides.
        if projection.waiting() >= projection.pace().records() {
            projection.commit(&mut store).await.unwrap();
        }
    }
    projection.commit(&mut store).await.unwrap();
    let (rows, batch) = (projection.counters().rows, projection.pace().records());
    println!(
        "  lane {lane}: {} commits, batch at the end {batch}",
        projection.counters().commits
    );
    rows
}

fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let behind = stat.rsplit_once(')').unwrap().1;
    // Behind the name: the state, ten numbers, and then the time in the user's and the kernel's code.
    let ticks: u64 = behind
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    ticks * 10
}

async fn measure(name: &str, lanes: u32, open: impl AsyncFn() -> Database) {
    let ticks = std::env::var("TICKRING_MEASURE_TICKS").map_or(400_000, |n| n.parse().unwrap());
    let (started, cpu) = (Instant::now(), cpu_ms());
    let each = ticks / u64::from(lanes);
    let rows = match lanes {
        1 => lane(open().await, 0, each).await,
        _ => {
            let (a, b) = tokio::join!(lane(open().await, 0, each), lane(open().await, 1, each));
            a + b
        }
    };
    let took = started.elapsed().as_secs_f64();
    println!(
        "{name}, {lanes} lane(s): {ticks} ticks, {rows} rows in {took:.2} s: {:.0} ticks/s, {:.0} rows/s, own CPU {} ms",
        ticks as f64 / took,
        rows as f64 / took,
        cpu_ms() - cpu,
    );
}

#[tokio::test]
#[ignore = "measures, and says so on its output"]
async fn measure_sqlite() {
    let place = Place::sqlite();
    measure("SQLite", 1, async || place.open().await).await;
}

#[tokio::test]
#[ignore = "measures, and says so on its output"]
async fn measure_mysql() {
    for mode in [InsertMode::MultiRow, InsertMode::Bulk] {
        for lanes in [1, 2] {
            let Some(place) = Place::mysql().await else {
                return;
            };
            let open = async || match place.open().await {
                Database::MySql(store) => Database::MySql(store.with_mode(mode)),
                other => other,
            };
            measure(&format!("{mode:?}"), lanes, open).await;
        }
    }
}
