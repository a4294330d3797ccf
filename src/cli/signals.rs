//! SIGINT and SIGTERM: the first asks for an orderly end, a second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::failure::Failure;
use super::screen;

/// The exit code of a process that a second signal ended: as a shell reports SIGINT.
const INTERRUPTED: i32 = 130;

/// Tells whether the user asked for the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asked for by the first signal.
    ///
    /// # Errors
    /// [`Failure::System`].
    pub(super) fn on_signal() -> Result<Self, Failure> {
        let stop = Self::default();
        let told = stop.clone();
        on_first_signal(move |_| told.ask())?;
        Ok(stop)
    }

    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs `stop` on the first signal, in a thread of its own.
///
/// # Errors
/// [`Failure::System`].
pub(super) fn on_first_signal(stop: impl FnOnce(i32) + Send + 'static) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Failure::System)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut arrivals = signals.forever();
            if let Some(signal) = arrivals.next() {
                stop(signal);
            }
            if arrivals.next().is_some() {
                screen::restore();
                std::process::exit(INTERRUPTED);
            }
        })
        .map_err(Failure::System)?;
    Ok(())
}
