//! What a running server tells by HTTP, on a listener and a thread of its own: `/metrics` for
//! Prometheus, `/healthz` and `/readyz` for whoever starts and stops servers.
//!
//! Nothing is counted here. A scrape asks every core for its figures and reads those of the
//! journal's lanes and of the database ([`Observer`]), so cores that nobody
//! scrapes spend nothing on it. `docs/OPERATIONS.md` lists every metric; a test holds it to what is
//! exported.
//!
//! | state of the server | `/healthz` | `/readyz` |
//! |---|---|---|
//! | recovering | 200 | 503 |
//! | all cores answer | 200 | 200 |
//! | a core does not answer within a second | 503 | 503 |
//! | a lane of the journal has failed or is full | 200 | 503 |
//! | the database is away | 200 | 200, and says so |
//! | stopping | 200 | 503 |
//!
//! # Bounds
//! 64 connections; more wait to be accepted. Cores are asked at most 20 times a second, however
//! many requests come. Requests with a body are not read. It is meant for the network of those
//! who run the server: there is no access check.

mod core;
mod health;
mod http;
mod listener;
mod page;
mod process;
mod storage;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, oneshot};

use crate::journal::Progress;
use crate::node::{CoreReport, LaneView, Observer, Recovery};

/// How long the cores have to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Figures that are younger are given again.
const FRESH: Duration = Duration::from_millis(50);
/// How often to look whether the cores have answered.
const POLL: Duration = Duration::from_millis(1);

/// The listener, until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    started: Instant,
    /// How far recovery is, before there is a node; `None`: there is nothing to recover.
    progress: Option<Arc<Progress>>,
    watch: Mutex<Watch>,
}

/// The node, once it runs.
#[derive(Debug, Default)]
struct Watch {
    observer: Option<Observer>,
    asked: Option<Instant>,
}

/// All figures of one moment.
#[derive(Clone, Debug)]
struct Scrape {
    /// Whether the server is ready, and why not.
    ready: Result<(), String>,
    /// By core; whether it answered.
    cores: Vec<(Option<CoreReport>, bool)>,
    lanes: Vec<LaneView>,
    recovery: Option<Recovery>,
    max_connections: usize,
}

impl Server {
    /// Listens, before there is a node, so that a server that takes long to recover can be told
    /// from a dead one. `progress` is that of the journal's recovery, if there is one.
    ///
    /// # Errors
    /// Those of binding `address` and of starting a thread.
    pub fn start(address: SocketAddr, progress: Option<Arc<Progress>>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            started: Instant::now(),
            progress,
            watch: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let routes = http::routes(Arc::clone(&state));
        let thread = std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                if let Err(error) = runtime.block_on(listener::serve(listener, routes, stopped)) {
                    tracing::error!(%error, "the listener for metrics ended");
                }
            })?;
        Ok(Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// From now on it tells of this node.
    pub fn watch(&self, observer: Observer) {
        self.state.watch.blocking_lock().observer = Some(observer);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of it was reported by its own message
        }
    }
}

impl State {
    /// Asks the cores, and waits for their answers as long as is reasonable.
    async fn look(&self) -> Scrape {
        let mut watch = self.watch.lock().await;
        let Watch { observer, asked } = &mut *watch;
        let Some(observer) = observer else {
            return Scrape {
                ready: Err(health::recovering(self.progress.as_deref())),
                cores: Vec::new(),
                lanes: Vec::new(),
                recovery: None,
                max_connections: 0,
            };
        };
        if asked.is_none_or(|at| at.elapsed() > FRESH) {
            observer.ask();
            let begin = Instant::now();
            while !observer.collect() && begin.elapsed() < PATIENCE {
                tokio::time::sleep(POLL).await;
            }
            *asked = Some(Instant::now());
        }
        Scrape {
            ready: health::ready(observer),
            cores: observer
                .cores()
                .map(|(report, answered)| (report.cloned(), answered))
                .collect(),
            lanes: observer.lanes().to_vec(),
            recovery: observer.recovery().copied(),
            max_connections: observer.max_connections(),
        }
    }
}
