//! `tickring-feed synth`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use tickring_feed::{Synth, SynthConfig};

use super::Failure;
use super::args::SynthArgs;
use super::publisher::Publisher;
use super::replay::wait_until;
use super::summary::Summary;

/// The shortest time between two sends. Ticks that are due within it leave together, up to so much
/// late: at a high rate a send for each would be most of the work, here and at the server.
const SPACING: Duration = Duration::from_millis(1);

pub(crate) fn run(args: &SynthArgs, summary: &mut Summary) -> Result<(), Failure> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut market = Synth::new(SynthConfig {
        symbols: args.symbols,
        rate: args.rate,
        seed: args.seed,
        start_ns: since_1970.unwrap_or_default().as_nanos() as u64,
    })?;
    let mut publisher = Publisher::connect(&args.target)?;
    let start = Instant::now();
    let played = play(args, &mut market, &mut publisher, start);
    let finished = match played {
        Ok(()) => publisher.finish(),
        Err(_) => Ok(()),
    };
    publisher.report(summary);
    summary.took(start.elapsed().as_secs_f64());
    summary.confirmed = finished.is_ok() && played.is_ok();
    played?;
    Ok(finished?)
}

fn play(
    args: &SynthArgs,
    market: &mut Synth,
    publisher: &mut Publisher,
    start: Instant,
) -> Result<(), Failure> {
    let end = Duration::from_secs_f64(args.seconds);
    let end_ns = end.as_nanos() as u64;
    // Shown on stderr, and only if that is a terminal.
    let bar = ProgressBar::new(end.as_millis() as u64).with_style(style());
    // The publisher's index of each instrument; opened at its first tick.
    let mut topics = vec![None; market.symbols()];
    let mut next = Duration::ZERO;
    loop {
        let due_ns = market.next_due_ns();
        if due_ns >= end_ns {
            break;
        }
        wait_until(publisher, start, Duration::from_nanos(due_ns).max(next))?;
        let now = start.elapsed();
        next = now + SPACING;
        bar.set_position(now.as_millis() as u64);
        let now_ns = now.as_nanos() as u64;
        while let Some(tick) = market.next_due(now_ns.min(end_ns - 1)) {
            let topic = match topics[tick.symbol] {
                Some(topic) => topic,
                None => *topics[tick.symbol].insert(publisher.open(market.symbol(tick.symbol))?),
            };
            publisher.publish_at(topic, tick.event_ns, &tick.content)?;
        }
    }
    wait_until(publisher, start, end)?;
    bar.finish_and_clear();
    Ok(())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {elapsed} of the market")
        .expect("the template is a constant that indicatif understands")
}
