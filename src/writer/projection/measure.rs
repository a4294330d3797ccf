//! How many ticks a second a database takes, candles and latest rows included, and what CPU both
//! sides spend on one. Not a test:
//!
//!     TICKRING_TEST_MYSQL=mysql://… cargo test --release --lib measure -- --ignored --nocapture --test-threads 1
//!
//! The ticks are those of `tickring-feed synth` at 100,000/s over 8,000 instruments, in batches of
//! half a second. `TICKRING_MEASURE_TICKS` sets how many ticks (default 1,000,000),
//! `TICKRING_MEASURE_BATCH` how many make a batch (default 50,000), `TICKRING_MEASURE_MODES` which
//! of `MultiRow,Bulk,Load` are tried.

use std::time::Instant;

use tickring_feed::{Content, Synth, SynthConfig};
use tickring_protocol::EventKind;

use super::{PaceLimits, Projection, Record};
use crate::market::Calendars;
use crate::writer::store::tests::Place;
use crate::writer::store::{Database, InsertMode};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

async fn fill(mut store: Database, ticks: u64) -> u64 {
    let batch = setting("TICKRING_MEASURE_BATCH", 50_000) as usize;
    let limits = PaceLimits::default();
    let opened = Projection::open(&mut store, 0, 1, Calendars::built_in(), limits).await;
    let (mut projection, _) = opened.unwrap();
    let config = SynthConfig {
        symbols: 8_000,
        rate: 100_000.0,
        seed: 1,
        start_ns: 1_723_161_256_000_000_000,
    };
    let mut market = Synth::new(config).unwrap();
    let names: Vec<String> = (0..market.symbols())
        .map(|n| format!("market/{}", market.symbol(n)))
        .collect();
    let mut seqs = vec![0; names.len()];
    let mut body = Vec::new();
    for n in 0..ticks {
        let tick = market.next().unwrap();
        seqs[tick.symbol] += 1;
        body.clear();
        tick.content.encode(&mut body);
        let record = Record {
            topic: &names[tick.symbol],
            epoch: 1,
            seq: seqs[tick.symbol],
            event_ns: tick.event_ns,
            node_ns: tick.event_ns,
            kind: match tick.content {
                Content::Trade(_) => EventKind::Trade as u16,
                Content::Quote(_) => EventKind::Quote as u16,
            },
            session: 0,
            body: &body,
        };
        projection.push(&record, n + 1, Instant::now());
        if projection.waiting() >= batch {
            projection.commit(&mut store).await.unwrap();
        }
    }
    projection.commit(&mut store).await.unwrap();
    projection.counters().rows
}

/// CPU of a process in milliseconds.
fn cpu_ms(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    // Behind the name: the state, ten numbers, and then the time in the user's and the kernel's code.
    let ticks: u64 = behind
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    ticks * 10
}

async fn measure(name: &str, server: Option<String>, store: Database) {
    let ticks = setting("TICKRING_MEASURE_TICKS", 1_000_000);
    let server = server.unwrap_or_else(|| "none".to_owned());
    let (started, own, theirs) = (Instant::now(), cpu_ms("self"), cpu_ms(&server));
    let rows = fill(store, ticks).await;
    let took = started.elapsed().as_secs_f64();
    let each = |ms: u64| ms as f64 * 1e3 / ticks as f64;
    println!(
        "{name}: {ticks} ticks, {rows} rows in {took:.2} s: {:.0} ticks/s, CPU per tick: own {:.2} us, database {:.2} us",
        ticks as f64 / took,
        each(cpu_ms("self") - own),
        each(cpu_ms(&server) - theirs),
    );
}

#[tokio::test]
#[ignore = "measures, and says so on its output"]
async fn measure_sqlite() {
    let place = Place::sqlite();
    measure("SQLite", None, place.open().await).await;
}

#[tokio::test]
#[ignore = "measures, and says so on its output"]
async fn measure_mysql() {
    let wanted = std::env::var("TICKRING_MEASURE_MODES");
    let wanted = wanted.unwrap_or_else(|_| "MultiRow,Bulk,Load".to_owned());
    for mode in [InsertMode::MultiRow, InsertMode::Bulk, InsertMode::Load] {
        if !wanted.contains(&format!("{mode:?}")) {
            continue;
        }
        let Some(place) = Place::mysql().await else {
            return;
        };
        let Database::MySql(store) = place.open().await else {
            unreachable!("a MySQL place opens MySQL")
        };
        let file = place.sql("SELECT @@pid_file").await.concat();
        let pid = std::fs::read_to_string(&file[0]).ok();
        let store = Database::MySql(store.with_mode(mode));
        let pid = pid.map(|pid| pid.trim().to_owned());
        measure(&format!("{mode:?}"), pid, store).await;
    }
}
