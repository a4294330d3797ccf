//! tickring for browsers: a WebSocket sidecar of the server, and the pages that it serves.
//!
//! `protocol/BRIDGE.md` says what is spoken on the WebSocket. [`Bridge::start`] runs the sidecar
//! on a tokio runtime of its own; the binary `tickring-bridge` does that from the command line.
//!
//! ```text
//!  server ══live═══▶ upstream::live ──▶ topic::Log ◀── client ══▶ browser
//!         ══side═══▶ snapshots, stored rows ──────────▶   │   reads the logs of its topics
//!         ══catch-up (some clients, for a while) ─────▶   │   at its own pace
//!         ◀═commands (one for each client that sends them)┘
//! ```
#![forbid(unsafe_code)]

mod assets;
mod client;
mod close;
mod config;
mod http;
mod listen;
mod metrics;
mod page;
mod topic;
mod upstream;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

pub use config::Config;
pub use page::Page;

/// How long clients get to take their leave.
const PARTING: Duration = Duration::from_secs(3);

/// Why a bridge does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        cause: std::io::Error,
    },
    /// A certificate or key is unusable.
    #[error("{}: {cause}", file.display())]
    Tls {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The operating system gives no threads.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
}

/// A bridge that runs. Dropped, it stops.
#[derive(Debug)]
pub struct Bridge {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    clients: Arc<Semaphore>,
    max_connections: usize,
    /// Taken by [`Bridge::stop`].
    runtime: Option<Runtime>,
}

impl Bridge {
    /// Starts a bridge. The server need not be there yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: Config) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("bridge")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let tls = config.tls.as_ref().map(listen::tls).transpose()?;
        let unusable = |cause| StartError::Listen {
            address: config.listen,
            cause,
        };
        let listener = runtime
            .block_on(TcpListener::bind(config.listen))
            .map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let max_connections = config.max_connections;
        let clients = Arc::new(Semaphore::new(max_connections));
        let page = config.page.clone();
        let (stop, stopped) = watch::channel(false);
        let metrics = Arc::new(metrics::Metrics::new());
        let guard = runtime.enter();
        let app = http::App {
            upstream: upstream::Upstream::start(Arc::new(config), metrics),
            places: clients.clone(),
            stop: stopped.clone(),
        };
        // Beside the WebSockets, requests for pages and figures find room.
        let most = max_connections + max_connections / 2 + 64;
        tokio::spawn(listen::run(
            listener,
            tls,
            http::routes(app, &page),
            most,
            stopped,
        ));
        drop(guard);
        Ok(Self {
            address,
            stop,
            clients,
            max_connections,
            runtime: Some(runtime),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Tells the clients that the bridge stops, and gives them a few seconds to take their leave.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        self.stop.send_replace(true);
        let all = u32::try_from(self.max_connections).unwrap_or(u32::MAX);
        let _ = runtime.block_on(async {
            tokio::time::timeout(PARTING, self.clients.acquire_many(all))
                .await
                .is_ok()
        });
        runtime.shutdown_background();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.end();
    }
}
