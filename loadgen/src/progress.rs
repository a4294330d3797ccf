//! The progress bar on standard error; nothing when that is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::options::Shape;
use crate::plan::Load;

/// A bar for the phases of a run.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    counted: Counted,
}

/// What the bar's length is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Connections,
    Published,
    Deliveries,
    Cycles,
}

impl Bar {
    /// A bar that shows nothing yet.
    pub fn new() -> Self {
        Self {
            bar: ProgressBar::no_length(),
            counted: Counted::Connections,
        }
    }

    /// The run connects `connections`.
    pub fn connecting(&mut self, connections: u32) {
        self.begin(Counted::Connections, "connecting", Some(connections.into()));
    }

    /// The run has begun.
    pub fn running(&mut self, shape: &Shape) {
        let name = shape.load.name();
        match shape.load {
            Load::Fanout { rate, seconds } | Load::Stall { rate, seconds, .. } => {
                self.begin(
                    Counted::Published,
                    name,
                    Some((rate * seconds).round() as u64),
                );
            }
            Load::Churn { cycles, .. } => self.begin(Counted::Cycles, name, Some(cycles)),
            Load::PingPong { rate, seconds, .. } => {
                let total = rate.map(|rate| (rate * seconds).round() as u64);
                self.begin(Counted::Deliveries, name, total);
            }
            Load::Connect { .. } => {
                self.begin(
                    Counted::Connections,
                    "holding",
                    Some(shape.connections.into()),
                );
            }
        }
    }

    /// So much was done so far.
    pub fn show(&self, connected: u64, delivered: u64, published: u64, cycles: u64) {
        self.bar.set_position(match self.counted {
            Counted::Connections => connected,
            Counted::Published => published,
            Counted::Deliveries => delivered,
            Counted::Cycles => cycles,
        });
        if delivered > 0 {
            self.bar.set_message(format!("{delivered} delivered"));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn begin(&mut self, counted: Counted, name: &str, length: Option<u64>) {
        self.bar.finish_and_clear();
        self.counted = counted;
        let (bar, template) = match length {
            Some(length) => (
                ProgressBar::new(length),
                "{prefix:>10} [{elapsed}] {wide_bar} {human_pos}/{human_len} {msg}",
            ),
            None => (
                ProgressBar::no_length(),
                "{prefix:>10} [{elapsed}] {spinner} {human_pos} {msg}",
            ),
        };
        let style = ProgressStyle::with_template(template).expect("the templates are constants");
        self.bar = bar.with_style(style).with_prefix(name.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}
