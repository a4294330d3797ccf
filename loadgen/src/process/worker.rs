//! A worker process: its threads, and the pipes to its parent.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::{Counts, News, Order};
use crate::control::{Control, Phase, Report};
use crate::outcome::Outcome;
use crate::plan::{Load, Plan, Publishers, share};
use crate::role::{Churn, Everybody, Failure, Line, PingPong, Publisher, Stalled, Subscribers};
use crate::target::{Bridge, Floor, Nats, Protocol, Redis, Target, Tickring};
use crate::topics::Topics;

/// How often the parent is told how far the worker is.
const PROGRESS: Duration = Duration::from_millis(200);

/// Does what the parent says on standard input, until all is done or the parent is gone.
///
/// # Errors
/// When the pipes break, or the parent's words make no sense.
pub fn work() -> io::Result<()> {
    let mut orders = io::stdin().lock().lines();
    let first = orders.next().unwrap_or_else(|| Err(nonsense("nothing")))?;
    let Order::Plan(plan) = parse(&first)? else {
        return Err(nonsense(&first));
    };
    drop(orders);
    let control = Arc::new(Control::default());
    let (reports, inbox) = channel();
    let threads = start(&plan, &control, &reports);
    follow_orders(Arc::clone(&control));
    forward(&inbox, &control, threads)
}

/// Enters the phases that the parent names. Without a parent the process has no reason to live.
fn follow_orders(control: Arc<Control>) {
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            match line.and_then(|line| parse(&line)) {
                Ok(Order::Connect) => control.enter(Phase::Connecting),
                Ok(Order::Go(start_ns)) => control.enter(Phase::Running(start_ns)),
                Ok(Order::Drain(published)) => control.enter(Phase::Draining(Arc::new(published))),
                Ok(Order::Plan(_)) | Err(_) => break,
            }
        }
        std::process::exit(3);
    });
}

fn parse(line: &str) -> io::Result<Order> {
    serde_json::from_str(line).map_err(|_| nonsense(line))
}

fn nonsense(line: &str) -> io::Error {
    io::Error::other(format!(
        "a worker is started by its parent, which said: {line}"
    ))
}

/// Hands the threads' reports to the parent until all of them are done.
fn forward(inbox: &Receiver<Report>, control: &Control, threads: u32) -> io::Result<()> {
    let mut left = threads;
    let mut shown = Counts::default();
    while left > 0 {
        let news = match inbox.recv_timeout(PROGRESS) {
            Ok(Report::Prepared) => News::Prepared,
            Ok(Report::Ready) => News::Ready,
            Ok(Report::Published(published)) => News::Published(published),
            Ok(Report::Done(outcome)) => {
                left -= 1;
                News::Done(outcome)
            }
            Ok(Report::Failed(why)) => {
                say(&News::Failed(why))?;
                std::process::exit(3);
            }
            Err(RecvTimeoutError::Timeout) => {
                let counts = counts(control);
                if counts == std::mem::replace(&mut shown, counts) {
                    continue;
                }
                News::Progress(counts)
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("a thread is gone"));
            }
        };
        say(&news)?;
    }
    Ok(())
}

fn counts(control: &Control) -> Counts {
    let progress = &control.progress;
    Counts {
        connected: progress.connected.load(Relaxed),
        delivered: progress.delivered.load(Relaxed),
        published: progress.published.load(Relaxed),
        cycles: progress.cycles.load(Relaxed),
    }
}

fn say(news: &News) -> io::Result<()> {
    let mut line = serde_json::to_string(news)?;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// A thread's work.
type Work = Box<dyn FnOnce(&Line<'_>) -> Result<Outcome, Failure> + Send>;

/// Starts the threads of the plan; how many they are.
fn start(plan: &Plan, control: &Arc<Control>, reports: &Sender<Report>) -> u32 {
    let works = match plan.protocol {
        Protocol::Tickring => works(plan, Tickring::new),
        Protocol::Bridge => works(plan, Bridge::new),
        Protocol::Nats => works(plan, Nats::new),
        Protocol::Redis => works(plan, Redis::new),
        Protocol::Floor => works(plan, |_| Floor),
    };
    let count = works.len() as u32;
    for (index, work) in works.into_iter().enumerate() {
        let (control, reports) = (Arc::clone(control), reports.clone());
        let failed = reports.clone();
        let run = move || {
            let line = Line {
                control: &control,
                reports,
            };
            let report = match work(&line) {
                Ok(outcome) => Report::Done(Box::new(outcome)),
                Err(failure) => Report::Failed(failure.to_string()),
            };
            line.tell(report);
        };
        let thread = std::thread::Builder::new().name(format!("lg-{index}"));
        if let Err(error) = thread.spawn(run) {
            drop(failed.send(Report::Failed(format!("cannot start a thread: {error}"))));
        }
    }
    count
}

/// The work of each thread. Each makes its target itself: topic ids are learnt per thread.
fn works<T: Target + 'static>(plan: &Plan, target: fn(&Topics) -> T) -> Vec<Work> {
    let mut works: Vec<Work> = Vec::new();
    let topics = plan.topics;
    for thread in 0..plan.threads {
        let (skip, count) = share(plan.connections.into(), plan.threads.into(), thread.into());
        let (first, count) = (plan.first + skip as u32, count as u32);
        let plan = plan.clone();
        if count == 0 {
            continue;
        }
        let part = f64::from(count) / f64::from(plan.connections);
        works.push(match plan.load {
            Load::Fanout { rate, seconds } if plan.publishers == Publishers::Within => {
                Box::new(move |line| {
                    let subscribers = Subscribers::new(&plan, first, count);
                    Everybody::new(subscribers, Publisher::new(&plan, rate, seconds))
                        .run_on([target(&topics), target(&topics)], line)
                })
            }
            Load::Fanout { .. } | Load::Connect { .. } | Load::Stall { .. } => {
                Box::new(move |line| {
                    Subscribers::new(&plan, first, count).run_on(target(&topics), line)
                })
            }
            Load::PingPong {
                rate,
                seconds,
                busy_poll,
            } => Box::new(move |line| {
                PingPong::new(&plan, first, count, rate.map(|rate| rate * part), seconds)
                    .busy_poll(busy_poll)
                    .run_on(target(&topics), line)
            }),
            Load::Churn {
                cycles, seconds, ..
            } => {
                let (_, cycles) = share(cycles, plan.threads.into(), thread.into());
                Box::new(move |line| {
                    Churn::new(&plan, first, count, cycles, seconds).run_on(target(&topics), line)
                })
            }
        });
    }
    if plan.publishers == Publishers::Apart {
        let plan = plan.clone();
        works.push(Box::new(move |line| {
            let publisher = match plan.load {
                Load::Fanout { rate, seconds } | Load::Stall { rate, seconds, .. } => {
                    Publisher::new(&plan, rate, seconds)
                }
                Load::Churn { rate, seconds, .. } => Publisher::until_drain(&plan, rate, seconds),
                Load::PingPong { .. } | Load::Connect { .. } => return Ok(Outcome::default()),
            };
            publisher.run_on(target(&topics), line)
        }));
    }
    if plan.stalled > 0 {
        let plan = plan.clone();
        works.push(Box::new(move |line| {
            Stalled::new(&plan).run_on(target(&topics), line)
        }));
    }
    works
}
