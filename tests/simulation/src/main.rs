//! `tickring-sim`: runs seeds of the simulator, and replays one that failed.
//!
//! `cargo run --profile sim -p tickring-sim -- --seeds 100000`
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a report is what this program is for")]

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tickring_sim::{Coverage, Failure, Plant, replay, run};

/// Failures that are listed; a run that has found more stops.
const MOST_FAILURES: usize = 10;
/// Lines of a failed seed's trace that are shown.
const TRACE_TAIL: usize = 60;

/// Runs the node's cores against seeded worlds and holds them to the rules.
#[derive(Parser)]
#[command(name = "tickring-sim", version)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Threads; all processors unless told otherwise.
    #[arg(long)]
    jobs: Option<usize>,
    /// Run this seed alone and print its whole trace.
    #[arg(long, conflicts_with_all = ["seeds", "start", "jobs", "json"])]
    seed: Option<u64>,
    /// Plant a fault into the core: the run has to fail.
    #[arg(long, value_parser = plant)]
    plant: Option<Plant>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

const PLANTS: [(&str, Plant); 9] = [
    ("unsubscribed-overtakes", Plant::UnsubscribedOvertakes),
    ("catch-up-skips-one", Plant::CatchUpSkipsOne),
    ("budget-ignored", Plant::BudgetIgnored),
    ("released-unsynced", Plant::ReleasedUnsynced),
    ("forgotten-replies", Plant::ForgottenReplies),
    ("forgotten-sessions", Plant::ForgottenSessions),
    ("recovery-skips-last-group", Plant::RecoverySkipsLastGroup),
    ("seq-reused", Plant::SeqReused),
    ("epoch-kept", Plant::EpochKept),
];

fn plant(name: &str) -> Result<Plant, String> {
    let names = || PLANTS.map(|(name, _)| name).join(", ");
    PLANTS
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, plant)| *plant)
        .ok_or_else(|| format!("no such fault; there are {}", names()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let failed = match arguments.seed {
        Some(seed) => verbose(seed, arguments.plant),
        None => many(&arguments),
    };
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn verbose(seed: u64, plant: Option<Plant>) -> bool {
    let (result, lines) = replay(seed, plant);
    lines.iter().for_each(|line| println!("{line}"));
    match result {
        Ok(report) => println!("seed {seed} holds; trace hash {:016x}", report.hash),
        Err(failure) => {
            println!("seed {seed} FAILED: {}", failure.reason);
            return true;
        }
    }
    false
}

/// What all seeds have shown.
#[derive(Default)]
struct Summary {
    coverage: Coverage,
    failures: Vec<Failure>,
    seeds: u64,
}

fn many(arguments: &Arguments) -> bool {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(processors).max(1);
    let end = arguments.start.saturating_add(arguments.seeds);
    let next = AtomicU64::new(arguments.start);
    let summary = Mutex::new(Summary::default());
    let bar = progress(arguments);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(&next, end, arguments.plant, &summary, &bar));
        }
    });
    bar.finish_and_clear();
    let summary = summary
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    report(arguments, &summary, began.elapsed());
    !summary.failures.is_empty()
}

fn work(
    next: &AtomicU64,
    end: u64,
    plant: Option<Plant>,
    summary: &Mutex<Summary>,
    bar: &ProgressBar,
) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let result = run(seed, plant);
        let mut all = summary
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        all.seeds += 1;
        match result {
            Ok(report) => all.coverage.add(&report.coverage),
            Err(failure) => {
                all.coverage.add(&failure.coverage);
                all.failures.push(failure);
                if all.failures.len() >= MOST_FAILURES {
                    next.store(end, Ordering::Relaxed);
                }
            }
        }
        bar.inc(1);
    }
}

fn progress(arguments: &Arguments) -> ProgressBar {
    if arguments.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(arguments.seeds).with_style(style)
}

fn report(arguments: &Arguments, summary: &Summary, took: Duration) {
    let rate = summary.seeds as f64 / took.as_secs_f64().max(1e-9);
    let coverage = summary.coverage.list();
    if arguments.json {
        let failures: Vec<_> = summary
            .failures
            .iter()
            .map(|f| serde_json::json!({ "seed": f.seed, "reason": f.reason, "replay": command(f.seed, arguments.plant) }))
            .collect();
        let coverage: serde_json::Map<_, _> = coverage
            .iter()
            .map(|(name, n)| ((*name).to_owned(), (*n).into()))
            .collect();
        let all = serde_json::json!({
            "seeds": summary.seeds,
            "start": arguments.start,
            "seconds": took.as_secs_f64(),
            "seeds_per_s": rate,
            "failures": failures,
            "coverage": coverage,
        });
        println!("{all}");
        return;
    }
    for (name, count) in &coverage {
        println!("{count:>12} {name}");
    }
    for (name, _) in coverage.iter().filter(|(_, count)| *count == 0) {
        println!("warning: {name} was never exercised, so these seeds say nothing about it");
    }
    if let Some(first) = summary.failures.iter().min_by_key(|f| f.seed) {
        let (_, lines) = replay(first.seed, arguments.plant);
        println!("\nthe end of the trace of seed {}:", first.seed);
        lines[lines.len().saturating_sub(TRACE_TAIL)..]
            .iter()
            .for_each(|line| println!("  {line}"));
    }
    for failure in &summary.failures {
        println!(
            "\nseed {} FAILED: {}\n  replay: {}",
            failure.seed,
            failure.reason,
            command(failure.seed, arguments.plant)
        );
    }
    println!(
        "\n{} seeds, {} failed, {:.1} s, {rate:.0} seeds/s",
        summary.seeds,
        summary.failures.len(),
        took.as_secs_f64()
    );
}

/// What to type to see a seed fail again.
fn command(seed: u64, plant: Option<Plant>) -> String {
    let planted = PLANTS
        .iter()
        .find(|(_, p)| Some(*p) == plant)
        .map_or(String::new(), |(name, _)| format!(" --plant {name}"));
    format!("cargo run --profile sim -p tickring-sim -- --seed {seed}{planted}")
}
