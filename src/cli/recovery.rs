//! The progress of reading a journal, for people: a bar once it takes longer than a moment.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tickring::journal::Progress;

/// What takes less time is not shown.
const PATIENCE: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_millis(100);

/// A bar that is shown until it is dropped.
#[derive(Debug)]
pub(super) struct Shown {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Shows how far `progress` is with `doing`, once that has taken a second; on a terminal only.
pub(super) fn show(progress: &Arc<Progress>, doing: &'static str) -> Shown {
    let (end, ended) = mpsc::channel::<()>();
    let progress = Arc::clone(progress);
    let watch = move || {
        let going = |time| ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
        if !going(PATIENCE) {
            return;
        }
        let bar = ProgressBar::new(progress.total_bytes()).with_style(style());
        bar.set_message(doing);
        while going(PERIOD) {
            bar.set_length(progress.total_bytes());
            bar.set_position(progress.bytes());
        }
        bar.finish_and_clear();
    };
    Shown {
        end: Some(end),
        // Without a thread there is no bar, and all else goes on.
        thread: std::thread::Builder::new()
            .name("progress".into())
            .spawn(watch)
            .ok(),
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a bar that panicked is no bar any more
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .expect("the template is checked by a test")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bar_has_a_valid_template() {
        super::style();
    }
}
