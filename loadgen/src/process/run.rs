//! The parent: starts the workers and leads them through the phases of a run.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::{Counts, News, Order};
use crate::clock::now_ns;
use crate::control::Published;
use crate::options::{Common, Shape};
use crate::outcome::Outcome;
use crate::plan::{Load, Plan, Publishers, share};
use crate::progress::Bar;
use crate::server::ServerProcess;
use crate::topics::Topics;

/// Connections of one process, unless `--processes` says otherwise: half of the 20,000
/// descriptors that a process commonly gets.
const PER_PROCESS: u32 = 10_000;

/// From "go" to the first message: longer than it takes to tell all workers.
const LEAD_NS: u64 = 200_000_000;

/// How long workers may take over what should take no time.
const GRACE: Duration = Duration::from_secs(20);

/// Why a run could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// `--connect` names no address.
    #[error("--connect {0}: {1}")]
    Address(String, io::Error),
    /// The server's process cannot be measured, or a worker not be started.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A worker gave up.
    #[error("{0}")]
    Worker(String),
    /// A worker did not answer.
    #[error("the workers took longer than {0:?} to {1}")]
    Late(Duration, &'static str),
}

/// What a run found.
#[derive(Debug)]
pub struct Finished {
    /// The run.
    pub shape: Shape,
    /// The server.
    pub server: SocketAddr,
    /// All findings, added up.
    pub outcome: Outcome,
    /// When the load began, in nanoseconds of the clock.
    pub start_ns: u64,
    /// When everything was over.
    pub end_ns: u64,
    /// What the run cost the server, when `--server-pid` was given.
    pub cost: Option<Cost>,
}

/// What a run cost the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// CPU time from the beginning of the load to its end, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory before anybody connected, in bytes.
    pub rss_before: u64,
    /// Memory when all were subscribed.
    pub rss_connected: u64,
    /// Memory at the end.
    pub rss_end: u64,
}

/// Does a run, from starting the workers to adding up what they found.
///
/// # Errors
/// [`RunError`]; a run that was done but found faults is none.
pub fn run(shape: Shape, common: &Common) -> Result<Finished, RunError> {
    let server = resolve(&common.connect)?;
    let measured = common.server_pid.map(ServerProcess::new).transpose()?;
    let rss = || measured.map(|process| process.rss_bytes()).transpose();
    let cpu = || measured.map(|process| process.cpu_ns()).transpose();
    let plans = plans(&shape, common, server);
    let mut crew = Crew::start(&plans)?;
    crew.wait("start", GRACE, |crew| crew.prepared == crew.threads)?;
    let rss_before = rss()?;
    crew.say(&Order::Connect)?;
    crew.bar.connecting(shape.connections);
    let patience = common.connect_timeout + GRACE;
    crew.wait("connect", patience, |crew| crew.ready == crew.threads)?;
    let rss_connected = rss()?;
    let start_ns = now_ns() + LEAD_NS;
    crew.say(&Order::Go(start_ns))?;
    crew.bar.running(&shape);
    std::thread::sleep(Duration::from_nanos(start_ns.saturating_sub(now_ns())));
    let cpu_before = cpu()?;
    crew.lead(&shape, common)?;
    let end_ns = now_ns();
    let cpu_after = cpu()?;
    let rss_end = rss()?;
    let cost = (|| {
        Some(Cost {
            cpu_ns: cpu_after?.saturating_sub(cpu_before?),
            rss_before: rss_before?,
            rss_connected: rss_connected?,
            rss_end: rss_end?,
        })
    })();
    crew.bar.finish();
    Ok(Finished {
        shape,
        server,
        outcome: std::mem::take(&mut crew.outcome),
        start_ns,
        end_ns,
        cost,
    })
}

fn resolve(address: &str) -> Result<SocketAddr, RunError> {
    let mut found = address
        .to_socket_addrs()
        .map_err(|error| RunError::Address(address.to_owned(), error))?;
    found
        .next()
        .ok_or_else(|| RunError::Address(address.to_owned(), io::Error::other("names no address")))
}

/// One plan for each worker.
fn plans(shape: &Shape, common: &Common, server: SocketAddr) -> Vec<Plan> {
    let processes = common
        .processes
        .unwrap_or_else(|| shape.connections.div_ceil(PER_PROCESS))
        .clamp(1, shape.connections.max(1));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let threads = common.threads.unwrap_or((cores / 2 / processes).max(1));
    let run = run_id();
    (0..processes)
        .map(|worker| {
            let part = (processes.into(), worker.into());
            let (first, connections) = share(shape.connections.into(), part.0, part.1);
            let weight = connections as f64 / f64::from(shape.connections);
            let load = match shape.load {
                Load::Churn {
                    cycles,
                    rate,
                    seconds,
                } => Load::Churn {
                    cycles: share(cycles, part.0, part.1).1,
                    rate,
                    seconds,
                },
                Load::PingPong {
                    rate,
                    seconds,
                    busy_poll,
                } => Load::PingPong {
                    rate: rate.map(|rate| rate * weight),
                    seconds,
                    busy_poll,
                },
                other => other,
            };
            let threads = threads.min(connections as u32);
            let publishers = match load {
                _ if worker > 0 || !shape.publishes => Publishers::Elsewhere,
                // With a processor for both they would only be in each other's way.
                Load::Fanout { .. } if cores == 1 && threads == 1 => Publishers::Within,
                _ => Publishers::Apart,
            };
            Plan {
                load,
                server,
                protocol: common.target,
                topics: Topics {
                    kind: common.kind,
                    run,
                    count: shape.topics,
                    each: shape.each,
                    publishers: shape.publishers,
                },
                policy: common.policy,
                payload: shape.payload,
                first: first as u32,
                connections: connections as u32,
                threads,
                publishers,
                stalled: if worker == 0 { shape.stalled } else { 0 },
                stalled_each: shape.stalled_each,
                stalled_first: shape.connections,
                window: common.window,
                connect_timeout: common.connect_timeout,
                drain_timeout: common.drain_timeout,
            }
        })
        .collect()
}

/// A number that no other run on this machine has at a time.
fn run_id() -> u32 {
    (now_ns() / 1000) as u32 ^ std::process::id().rotate_left(16)
}

/// The workers. Those that still run when it is dropped are killed.
struct Crew {
    children: Vec<(Child, ChildStdin)>,
    inbox: Receiver<(usize, Option<News>)>,
    bar: Bar,
    threads: u32,
    prepared: u32,
    ready: u32,
    done: u32,
    published: Option<Published>,
    counts: Vec<Counts>,
    /// Workers that have ended.
    gone: HashSet<usize>,
    outcome: Outcome,
}

impl Crew {
    fn start(plans: &[Plan]) -> Result<Self, RunError> {
        let (news, inbox) = channel();
        let mut crew = Self {
            children: Vec::new(),
            inbox,
            bar: Bar::new(),
            threads: 0,
            prepared: 0,
            ready: 0,
            done: 0,
            published: None,
            counts: vec![Counts::default(); plans.len()],
            gone: HashSet::new(),
            outcome: Outcome::default(),
        };
        let program = std::env::current_exe()?;
        for (worker, plan) in plans.iter().enumerate() {
            let mut child = Command::new(&program)
                .arg("worker")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let (stdin, stdout) = child
                .stdin
                .take()
                .zip(child.stdout.take())
                .expect("both were asked to be pipes");
            let news = news.clone();
            std::thread::spawn(move || read_news(worker, stdout, &news));
            crew.children.push((child, stdin));
            crew.threads += plan.all_threads();
            crew.say_to(worker, &Order::Plan(Box::new(plan.clone())))?;
        }
        Ok(crew)
    }

    /// From "go" to the last finding.
    fn lead(&mut self, shape: &Shape, common: &Common) -> Result<(), RunError> {
        let nothing = || {
            let counters = shape.topics.max(shape.publishers) as usize;
            Published {
                sent: vec![0; counters],
                refused: vec![0; counters],
            }
        };
        // A thread waits through its drain at most ten times the timeout.
        let drain = common.drain_timeout * 11 + GRACE;
        match shape.load {
            Load::Fanout { seconds, .. } | Load::Stall { seconds, .. } => {
                let patience = Duration::from_secs_f64(seconds) + drain;
                self.wait("publish", patience, |crew| crew.published.is_some())?;
                let published = self.published.take().expect("waited for");
                self.say(&Order::Drain(published))?;
            }
            Load::Connect { hold } => {
                self.pass(Duration::from_secs_f64(hold))?;
                self.say(&Order::Drain(nothing()))?;
            }
            Load::Churn { seconds, .. } => {
                let patience = Duration::from_secs_f64(seconds) + drain;
                // All but the publisher, which goes on until it is told.
                self.wait("churn", patience, |crew| crew.done + 1 == crew.threads)?;
                self.say(&Order::Drain(nothing()))?;
            }
            Load::PingPong { seconds, .. } => {
                let patience = Duration::from_secs_f64(seconds) + drain;
                self.wait("finish", patience, |crew| crew.done == crew.threads)?;
            }
        }
        self.wait("finish", drain, |crew| crew.done == crew.threads)
    }

    /// Takes news until `enough`.
    fn wait(
        &mut self,
        what: &'static str,
        patience: Duration,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<(), RunError> {
        let deadline = Instant::now() + patience;
        while !enough(self) {
            if Instant::now() > deadline {
                return Err(RunError::Late(patience, what));
            }
            self.take(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Takes news for a while.
    fn pass(&mut self, time: Duration) -> Result<(), RunError> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.take(left.min(Duration::from_millis(100)))?;
        }
        Ok(())
    }

    /// Takes one piece of news, if there is one before `timeout` is over.
    fn take(&mut self, timeout: Duration) -> Result<(), RunError> {
        let (worker, news) = match self.inbox.recv_timeout(timeout) {
            Ok(news) => news,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) if self.done == self.threads => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(RunError::Worker("the workers are gone".into()));
            }
        };
        match news {
            Some(News::Prepared) => self.prepared += 1,
            Some(News::Ready) => self.ready += 1,
            Some(News::Published(published)) => self.published = Some(published),
            Some(News::Done(outcome)) => {
                self.outcome.add(*outcome);
                self.done += 1;
            }
            Some(News::Failed(why)) => return Err(RunError::Worker(why)),
            Some(News::Progress(counts)) => {
                self.counts[worker] = counts;
                let sum = |of: fn(&Counts) -> u64| self.counts.iter().map(of).sum();
                self.bar.show(
                    sum(|counts| counts.connected),
                    sum(|counts| counts.delivered),
                    sum(|counts| counts.published),
                    sum(|counts| counts.cycles),
                );
            }
            None => {
                self.gone.insert(worker);
                if self.done < self.threads && self.gone.len() == self.children.len() {
                    return Err(RunError::Worker(
                        "a worker ended before its work did".into(),
                    ));
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, order: &Order) -> Result<(), RunError> {
        (0..self.children.len()).try_for_each(|worker| self.say_to(worker, order))
    }

    fn say_to(&mut self, worker: usize, order: &Order) -> Result<(), RunError> {
        if self.gone.contains(&worker) {
            return Ok(());
        }
        let mut line = serde_json::to_string(order).map_err(io::Error::from)?;
        line.push('\n');
        let stdin = &mut self.children[worker].1;
        match stdin
            .write_all(line.as_bytes())
            .and_then(|()| stdin.flush())
        {
            // A worker that is done needs no orders; one that failed has said why, or its end says it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            // Both fail only when it has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn read_news(worker: usize, stdout: impl io::Read, to: &Sender<(usize, Option<News>)>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let news = serde_json::from_str(&line)
            .unwrap_or_else(|_| News::Failed(format!("worker {worker} said: {line}")));
        drop(to.send((worker, Some(news))));
    }
    drop(to.send((worker, None)));
}
