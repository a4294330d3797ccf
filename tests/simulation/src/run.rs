//! Runs a seed, and tells what broke.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use tickring::core::Plant;

use crate::coverage::Coverage;
use crate::world::World;

/// What a seed that held has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// A hash over all that happened: the same for each run of the seed.
    pub hash: u64,
    /// What was exercised.
    pub coverage: Coverage,
}

/// A seed that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Replays the failure.
    pub seed: u64,
    /// Which rule broke, and where.
    pub reason: String,
    /// What was exercised until then.
    pub coverage: Box<Coverage>,
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`] names the rule that broke; a panic of the core is one too.
pub fn run(seed: u64, plant: Option<Plant>) -> Result<Report, Failure> {
    live(seed, plant, false).0
}

/// Runs one seed and returns its trace as text, too.
pub fn replay(seed: u64, plant: Option<Plant>) -> (Result<Report, Failure>, Vec<String>) {
    live(seed, plant, true)
}

fn live(seed: u64, plant: Option<Plant>, verbose: bool) -> (Result<Report, Failure>, Vec<String>) {
    keep_panics_quiet();
    PANIC.take();
    let mut world =
        World::new(seed, plant, verbose).expect("a fresh node starts: nothing has to be recovered");
    RUNNING.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    RUNNING.set(false);
    let coverage = world.coverage;
    let failure = |reason| Failure {
        seed,
        reason,
        coverage: Box::new(coverage),
    };
    let result = match outcome {
        Ok(Ok(())) => Ok(Report {
            hash: world.trace.hash,
            coverage,
        }),
        Ok(Err(reason)) => Err(failure(reason)),
        Err(_) => {
            let reason = PANIC
                .take()
                .unwrap_or_else(|| "a panic without a word".into());
            Err(failure(reason))
        }
    };
    (result, world.trace.lines)
}

/// Panics inside a run become its failure instead of lines on the terminal; others are told as
/// ever.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                PANIC.set(Some(info.to_string()));
            } else {
                others(info);
            }
        }));
    });
}
