//! `tickring-feed replay`.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tickring_feed::{DataError, Pace, Replay, Source, SourceOptions};

use super::args::ReplayArgs;
use super::publisher::Publisher;
use super::summary::Summary;
use super::{Failure, say};

/// Faulty lines that are shown; the others are counted.
const SHOWN_FAULTS: u64 = 10;
/// Ticks between two updates of the progress bar.
const SHOW_EVERY: u64 = 4096;

pub(crate) fn run(args: &ReplayArgs, summary: &mut Summary) -> Result<(), Failure> {
    let options = SourceOptions {
        symbol: args.csv_symbol.clone(),
    };
    let open = |file: &std::path::PathBuf| Source::open(file, args.format.into(), &options);
    let sources: Result<Vec<_>, DataError> = args.files.iter().map(open).collect();
    let mut replay = Replay::new(sources?);
    let mut publisher = Publisher::connect(&args.target)?;
    let start = Instant::now();
    let played = play(args, &mut replay, &mut publisher, summary, start);
    // What was read before a fault of the data is published all the same, and confirmed.
    let finished = match played {
        Ok(()) | Err(Failure::Data(_)) => publisher.finish(),
        Err(_) => Ok(()),
    };
    publisher.report(summary);
    summary.took(start.elapsed().as_secs_f64());
    summary.confirmed = finished.is_ok() && !matches!(played, Err(Failure::Publish(_)));
    let skipped = replay.skipped();
    (summary.skipped.depth, summary.skipped.other) = (skipped.depth, skipped.other);
    played?;
    Ok(finished?)
}

fn play(
    args: &ReplayArgs,
    replay: &mut Replay,
    publisher: &mut Publisher,
    summary: &mut Summary,
    start: Instant,
) -> Result<(), Failure> {
    // Shown on stderr, and only if that is a terminal.
    let bar = ProgressBar::new(replay.len_bytes()).with_style(style());
    let mut pace = Pace::new(args.speed);
    let mut ticks = 0_u64;
    loop {
        if ticks.is_multiple_of(SHOW_EVERY) {
            bar.set_position(replay.read_bytes());
        }
        let tick = match replay.next_tick() {
            Ok(Some(tick)) => tick,
            Ok(None) => break,
            Err(error) if args.skip_bad_lines && !error.ends_the_file() => {
                skip(&error, summary);
                continue;
            }
            Err(error) => {
                bar.abandon();
                return Err(error.into());
            }
        };
        let due = pace.due(tick.received_ns);
        wait_until(publisher, start, due)?;
        publisher.publish(tick.symbol, tick.event_ns, &tick.content)?;
        ticks += 1;
    }
    bar.finish_and_clear();
    Ok(())
}

fn skip(error: &DataError, summary: &mut Summary) {
    summary.skipped.faulty += 1;
    if summary.skipped.faulty <= SHOWN_FAULTS {
        say(format_args!("skipped: {error}"));
    } else if summary.skipped.faulty == SHOWN_FAULTS + 1 {
        say(format_args!(
            "skipped: further faulty lines, which are counted"
        ));
    }
}

/// Listens to the server until `due` after `start`; what was published before leaves first.
pub(crate) fn wait_until(
    publisher: &mut Publisher,
    start: Instant,
    due: Duration,
) -> Result<(), Failure> {
    loop {
        let wait = due.saturating_sub(start.elapsed());
        if wait.is_zero() {
            return Ok(());
        }
        publisher.wait(wait)?;
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {elapsed} (about {eta} left)")
        .expect("the template is a constant that indicatif understands")
}
