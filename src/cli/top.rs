//! `tickring top`.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tickring_client::protocol::Policy;
use tickring_client::{Client, Notice, Reason, StartAt, SubscribeOptions};

use super::connect::Connect;
use super::failure::Failure;
use super::rates::{Figures, NodeView, Slow};
use super::screen::{Line, Look, Screen, short, short_bytes};
use super::signals::Stop;
use super::sub;

/// How long to sleep before looking for a signal again.
const NAP: Duration = Duration::from_millis(100);
/// Slow clients that are listed when there is no screen to fill.
const LISTED: usize = 10;

/// Show what a server does at the moment: rates, connections, and the slowest clients by name.
///
/// The figures come over the protocol, from the topics node/core-0, node/core-1 and so on, on
/// which each core reports once a second while somebody subscribes. Where standard output is no
/// terminal, a table is printed for each interval.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Seconds from one picture to the next; rates are averages over them. Cores report once a
    /// second.
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = sub::seconds)]
    interval: Duration,

    /// Print one picture and exit.
    #[arg(long)]
    once: bool,

    /// One JSON object for each interval: total, cores, slow_clients.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

#[derive(Serialize)]
struct Picture<'a> {
    uptime_s: f64,
    total: Figures,
    cores: Vec<&'a Figures>,
    slow_clients: Vec<&'a Slow>,
}

impl Top {
    pub(super) fn run(self) -> Result<(), Failure> {
        let stop = Stop::on_signal()?;
        let mut client = self.connect.client("tickring-top")?;
        let mut reports = Reports::new(&mut client)?;
        let screen = match self.once || self.json {
            true => Screen::lines(),
            false => Screen::open().map_err(Failure::Output)?,
        };
        let mut shown = Instant::now();
        while !stop.is_asked() {
            reports.take(&mut client, NAP)?;
            if !reports.node.is_complete() || shown.elapsed() < self.interval {
                continue;
            }
            shown = Instant::now();
            self.show(&reports, &screen).map_err(Failure::Output)?;
            reports.node.start_interval();
            if self.once {
                break;
            }
        }
        Ok(())
    }

    fn show(&self, reports: &Reports, screen: &Screen) -> io::Result<()> {
        if self.json {
            let node = &reports.node;
            let picture = Picture {
                uptime_s: node.uptime_ns() as f64 / 1e9,
                total: node.total(),
                cores: node.cores().map(|(_, figures)| figures).collect(),
                slow_clients: node.slowest(),
            };
            let mut out = io::stdout().lock();
            serde_json::to_writer(&mut out, &picture)?;
            out.write_all(b"\n")?;
            return out.flush();
        }
        screen.show(&self.table(reports, screen.height()))
    }

    fn table(&self, reports: &Reports, height: Option<usize>) -> Vec<Line> {
        let node = &reports.node;
        let seconds = node.uptime_ns() / 1_000_000_000;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let up = format!("   up {hours}:{minutes:02}:{:02}", seconds % 60);
        let total = node.total();
        let mut title = Line::new(Look::Bold, format!("tickring at {}", self.connect.connect));
        title = match reports.offline {
            Some(reason) => title.add(Look::Down, format!("   not connected: {reason}")),
            None => title.add(Look::Plain, up),
        };
        let mut lines = vec![
            title,
            Line::default(),
            Line::new(
                Look::Dim,
                format!(
                    "{:<8}{:>9}{:>13}{:>11}{:>8}{:>7}{:>7}{:>8}{:>11}{:>11}{:>7}",
                    "",
                    "events/s",
                    "deliveries/s",
                    "bytes/s",
                    "turns/s",
                    "conns",
                    "subs",
                    "topics",
                    "outboxes",
                    "history",
                    "gaps/s"
                ),
            ),
            row("all", &total),
        ];
        lines.extend(
            node.cores()
                .map(|(number, figures)| row(&format!("core {number}"), figures)),
        );
        lines.push(Line::default());
        let slowest = node.slowest();
        let look = if total.slow == 0 {
            Look::Plain
        } else {
            Look::Down
        };
        let plural = if total.slow == 1 { "" } else { "s" };
        lines.push(Line::new(
            look,
            format!("{} slow client{plural}", total.slow),
        ));
        let room = height.map_or(LISTED, |height| height.saturating_sub(lines.len() + 1));
        if !slowest.is_empty() {
            lines.push(Line::new(
                Look::Dim,
                format!(
                    "{:<34}{:>6}{:>12}{:>12}{:>16}",
                    "name", "core", "behind", "for", "topics behind"
                ),
            ));
        }
        lines.extend(slowest.iter().take(room).map(|slow| {
            let behind = short_bytes(slow.behind_bytes as f64);
            let since = format!("{:.1} s", slow.behind_ms as f64 / 1e3);
            let (name, core, topics) = (&slow.name, slow.core, slow.topics);
            Line::new(
                Look::Plain,
                format!("{name:<34}{core:>6}{behind:>12}{since:>12}{topics:>16}"),
            )
        }));
        lines
    }
}

fn row(name: &str, figures: &Figures) -> Line {
    Line::new(
        Look::Plain,
        format!(
            "{name:<8}{:>9}{:>13}{:>11}{:>8}{:>7}{:>7}{:>8}{:>11}{:>11}{:>7}",
            short(figures.events_per_s),
            short(figures.deliveries_per_s),
            short_bytes(figures.bytes_per_s),
            short(figures.turns_per_s),
            figures.connections,
            figures.subscriptions,
            figures.topics,
            short_bytes(figures.outbox_bytes as f64),
            short_bytes(figures.history_bytes as f64),
            short(figures.gaps_per_s),
        ),
    )
}

/// The subscriptions to a node's reports.
#[derive(Debug)]
pub(super) struct Reports {
    pub(super) node: NodeView,
    subscribed: u32,
    /// Why there is no connection at the moment.
    offline: Option<Reason>,
}

impl Reports {
    /// Subscribes to the first core; its report tells of the others.
    ///
    /// # Errors
    /// [`Failure::Client`].
    pub(super) fn new(client: &mut Client) -> Result<Self, Failure> {
        let mut reports = Self {
            node: NodeView::default(),
            subscribed: 0,
            offline: None,
        };
        reports.subscribe(client, 1)?;
        Ok(reports)
    }

    /// Subscribes to the reports of the first so many cores.
    ///
    /// # Errors
    /// [`Failure::Client`].
    pub(super) fn subscribe(&mut self, client: &mut Client, cores: u32) -> Result<(), Failure> {
        let options = SubscribeOptions {
            from: StartAt::Now,
            policy: Policy::Conflate,
        };
        while self.subscribed < cores {
            let topic = format!("node/core-{}", self.subscribed);
            client.subscribe(&topic, options)?;
            self.subscribed += 1;
        }
        Ok(())
    }

    /// Waits for a notice, at most so long.
    fn take(&mut self, client: &mut Client, wait: Duration) -> Result<(), Failure> {
        let mut cores = 0;
        match client.next(wait)? {
            Some(Notice::Event { event, .. }) => {
                cores = self.node.report(event.body).unwrap_or(0);
            }
            Some(Notice::Disconnected(end)) => self.offline = Some(end.reason),
            Some(Notice::Connected { .. }) => self.offline = None,
            Some(Notice::Refused(refused)) if !refused.fatal => {
                return Err(Failure::Refused {
                    what: refused.topic.unwrap_or("a request").to_owned(),
                    code: refused.code,
                    text: refused.text.to_owned(),
                });
            }
            _ => {}
        }
        self.subscribe(client, cores)
    }
}
