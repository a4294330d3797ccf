//! `tickring serve`.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use tickring::journal::Progress;
use tickring::metrics::Server as Metrics;
use tickring::node::{Node, NodeConfig, NodeError};

use super::failure::Failure;
use super::{recovery, signals};
use crate::config::{Config, Sources};

/// Run a server until SIGTERM or SIGINT.
///
/// Settings come from flags, over environment variables, over the configuration file, over
/// defaults. The key in the file, the variable and the flag have one name: `max_topics`,
/// `TICKRING_MAX_TOPICS`, `--max-topics`. Sizes are written as 65536, 64KiB, 16MiB or 1GiB;
/// times as 500ms, 5s, 2m or 1h.
///
/// Once ready it prints one line, such as "listening on 127.0.0.1:7400 (2 cores, journal in
/// /var/lib/tickring)"; with --metrics another one before it, such as "metrics on
/// http://127.0.0.1:7401/metrics". On the first
/// signal it says GOODBYE to all clients, finishes what it has accepted and exits with 0; on a
/// second it exits at once with 130.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    sources: Sources,

    /// Print the configuration that would be used, as a file to start from, and exit.
    #[arg(long)]
    print_config: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (config, file) = self.sources.resolve()?;
        if self.print_config {
            let text = config.to_toml();
            return io::stdout()
                .write_all(text.as_bytes())
                .map_err(Failure::Output);
        }
        if let Some(file) = file {
            tracing::info!(file = %file.display(), "configuration read");
        }
        serve(&config)
    }
}

/// The allocator asks for huge pages, and a history that grows then clears 2 MiB at a time in the
/// midst of a turn: 0.2 ms, and 6 ms where the host has to find the memory first. Small pages take
/// as long in sum and nobody waits for it. A kernel that refuses leaves it as it was.
fn use_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay in use");
    }
}

fn serve(config: &Config) -> Result<(), Failure> {
    use_small_pages();
    if !config.data.is_empty() {
        prepare_data(Path::new(&config.data))?;
    }
    let settings = config.node()?;
    let shown = settings
        .journal
        .as_ref()
        .map(|j| recovery::show(&j.progress, "recovering the journal"));
    let progress = settings.journal.as_ref().map(|j| Arc::clone(&j.progress));
    let metrics = config
        .metrics
        .0
        .map(|at| metrics(at, progress))
        .transpose()?;
    let started = start(settings);
    drop(shown);
    let mut node = started?;
    if let (Some(metrics), Some(observer)) = (&metrics, node.observer()) {
        metrics.watch(observer);
    }
    let stopper = node.stopper();
    signals::on_first_signal(move |signal| {
        tracing::info!(signal, "stopping; a second signal ends the process at once");
        stopper.stop();
    })?;
    let (address, cores) = (node.local_addr(), config.cores);
    let plural = if cores == 1 { "" } else { "s" };
    let kept = match config.data.as_str() {
        "" => ", in memory".to_owned(),
        data => format!(", journal in {data}"),
    };
    // Nobody has to read it.
    let mut stdout = io::stdout().lock();
    let _ = writeln!(
        stdout,
        "listening on {address} ({cores} core{plural}{kept})"
    );
    let _ = stdout.flush();
    drop(stdout);
    let ended = node.wait().map_err(Failure::Node);
    drop(metrics);
    tracing::info!("stopped");
    ended
}

/// Listens for whoever looks after the server, before recovery begins: that may take long.
fn metrics(address: SocketAddr, progress: Option<Arc<Progress>>) -> Result<Metrics, Failure> {
    let listener = Metrics::start(address, progress).map_err(|cause| Failure::Metrics {
        address: address.to_string(),
        cause,
    })?;
    // Nobody has to read it.
    let _ = writeln!(
        io::stdout(),
        "metrics on http://{}/metrics",
        listener.local_addr()
    );
    Ok(listener)
}

/// Starts the node, naming the address if that is what is wrong.
pub(super) fn start(config: NodeConfig) -> Result<Node, Failure> {
    let listen = config.listen;
    let unusable = |cause| Failure::Listen {
        address: listen.to_string(),
        cause,
    };
    // Cores share a port by SO_REUSEPORT, and the kernel would let a second server of the same
    // user join them unseen. A socket without that option finds out whether somebody is there.
    drop(TcpListener::bind(listen).map_err(unusable)?);
    Node::start(config).map_err(|error| match error {
        NodeError::Listen(cause) => unusable(cause),
        other => Failure::Node(other),
    })
}

/// Makes the directory if it is missing, and finds out now rather than later whether files can
/// be made in it.
fn prepare_data(dir: &Path) -> Result<(), Failure> {
    let failed = |cause| Failure::Data {
        dir: dir.to_owned(),
        cause,
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    std::fs::File::create_new(&probe).map_err(failed)?;
    std::fs::remove_file(&probe).map_err(failed)
}
